//! The ear of a node: it hears of the others, tells them what is due for them, and takes over what those left that do
//! not live; as `store::postgres::ear`, with the same decisions.
//!
//! What it tells of rows with what they carry is only named instead at times, as where there is no room; or lost; or
//! heard seconds later, when their owner may have read them for another reason, or be another node.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookturn::store::owned::Owned;
use hookturn::store::sharing::lease::{HEARTBEAT, Other, Silence, may_judge};
use hookturn_core::shard::{Watched, may_be_taken_over};
use hookturn_core::store::{Due, Hint, HintSink as _};
use hookturn_core::time::{Millis, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::base::{Base, Mailbox, Named, Notice, Session};
use crate::link::{Lost, Way};
use crate::member::Node;
use crate::mutant::Mutant;

const RETRY: Duration = Duration::from_millis(500);
/// After how long a silent node is taken over by [`Mutant::TakesOverTooEarly`].
const HASTE: Millis = 1_000;
/// How late rows are told of at most when they are late.
const LATE_MILLIS: u64 = 6_000;
/// For how long a shard is new.
const NEW: Duration = Duration::from_secs(10);

/// What a node speaks and hears by.
#[derive(Default)]
pub(crate) struct Voice {
    gathered: Mutex<BTreeSet<Named>>,
    content: Mutex<Vec<Due>>,
    waits: Notify,
    /// Told when there is something for the writer to look at.
    pub(crate) poked: Notify,
    reshare: AtomicBool,
    renewed: Mutex<Option<Instant>>,
}

impl Voice {
    pub(crate) fn renewed(&self, begun: Instant) {
        *self.renewed.lock().unwrap() = Some(begun);
    }

    fn reshare(&self) {
        self.reshare.store(true, Ordering::SeqCst);
        self.poked.notify_one();
    }

    pub(crate) fn take_reshare(&self) -> bool {
        self.reshare.swap(false, Ordering::SeqCst)
    }

    /// Tells the owners of other shards what a committed transaction left for them.
    pub(crate) fn tell(&self, owned: &Owned, accepted: &[Due], hints: &[Hint]) {
        let foreign = |endpoint| !owned.owns(endpoint);
        let rows = accepted.iter().filter(|row| foreign(row.endpoint)).cloned();
        let hinted = hints.iter().filter_map(|hint| match hint {
            Hint::Requeued(workspace, endpoint) => Some((true, *workspace, *endpoint)),
            Hint::Due(workspace, endpoint, _) => Some((false, *workspace, *endpoint)),
            Hint::Accepted(_) | Hint::Told(_) | Hint::Endpoint(_) => None,
        });
        let mut gathered = self.gathered.lock().unwrap();
        let mut content = self.content.lock().unwrap();
        let before = gathered.len() + content.len();
        gathered.extend(hinted.filter(|(_, _, endpoint)| foreign(*endpoint)));
        content.extend(rows);
        if gathered.len() + content.len() > before {
            self.waits.notify_one();
        }
    }

    fn take(&self) -> (BTreeSet<Named>, Vec<Due>) {
        let gathered = std::mem::take(&mut *self.gathered.lock().unwrap());
        (gathered, std::mem::take(&mut *self.content.lock().unwrap()))
    }
}

/// What becomes of rows that are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Heard,
    /// Only their endpoints are named.
    Named,
    Lost,
    /// Their endpoints are named, and they are heard of after so many milliseconds.
    Late(u64),
}

/// Listens, speaks and watches for as long as the node lives.
pub(crate) async fn run(node: Arc<Node>) {
    let mut silence = Silence::default();
    loop {
        let _ = listen(&node, &mut silence).await;
        silence = Silence::default();
        sleep(RETRY).await;
    }
}

async fn listen(node: &Arc<Node>, silence: &mut Silence) -> Result<(), Lost> {
    let session = node.link.connect().await?;
    let listening = node.link.trip(session, move |base| base.listen(session));
    let mailbox = listening.await?;
    // What was said before this moment was not heard.
    node.voice.poked.notify_one();
    node.owned.look();
    let mut watch = interval(HEARTBEAT);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = mailbox.arrived.notified() => hear_all(node, session, &mailbox)?,
            () = node.voice.waits.notified() => speak(node, session).await?,
            _ = watch.tick() => look_out(node, session, silence).await?,
        }
    }
}

/// Takes in what arrived. A connection that ended tells nothing any more, and neither does one that is cut.
fn hear_all(node: &Node, session: Session, mailbox: &Mailbox) -> Result<(), Lost> {
    let notices = std::mem::take(&mut *mailbox.notices.lock().unwrap());
    if !node.link.base.is_open(session) {
        return Err(Lost);
    }
    if node.link.is_cut(Way::Back) {
        return Ok(());
    }
    for notice in notices {
        match notice {
            Notice::View => node.voice.poked.notify_one(),
            Notice::Shards => node.voice.reshare(),
            Notice::Due(named) => hear_names(node, named),
            // What it said itself it has in memory, or gave to others before.
            Notice::Told(by, rows) if by == node.id => hear_names(node, names_of(&rows)),
            Notice::Told(_, rows) => hear_rows(node, rows),
        }
    }
    Ok(())
}

fn names_of(rows: &[Due]) -> Vec<Named> {
    let name = |row: &Due| (false, row.message.workspace, row.endpoint);
    rows.iter().map(name).collect()
}

fn hear_names(node: &Node, named: Vec<Named>) {
    let ours = named.into_iter().filter(|named| node.owned.owns(named.2));
    let hint = |(requeued, workspace, endpoint)| {
        if requeued {
            Hint::Requeued(workspace, endpoint)
        } else {
            Hint::Due(workspace, endpoint, Timestamp::EPOCH)
        }
    };
    node.inboxes.hint(ours.map(hint).collect());
}

fn hear_rows(node: &Node, mut rows: Vec<Due>) {
    rows.retain(|row| node.owned.owns(row.endpoint));
    let mut judge = node.link.base.inside.ground.judge.lock().unwrap();
    judge.counts.told += rows.len() as u64;
    drop(judge);
    // As if this node had accepted them itself.
    let believes = |row: &Due| {
        let is_new = node
            .owned
            .held_for(row.endpoint)
            .is_none_or(|held| held < NEW);
        match node.mutant() {
            Mutant::ForgetsWhatABlockBrought => !is_new,
            Mutant::BelievesForANewShard => is_new,
            _ => false,
        }
    };
    let (believed, told) = rows.into_iter().partition(believes);
    let hints = [Hint::Accepted(believed), Hint::Told(told)];
    node.inboxes.hint(Vec::from(hints));
}

async fn speak(node: &Node, session: Session) -> Result<(), Lost> {
    let (mut named, rows) = node.voice.take();
    if named.is_empty() && rows.is_empty() {
        return Ok(());
    }
    let mut notices = Vec::new();
    if !rows.is_empty() {
        let fate = fate_of_rows(node);
        if matches!(fate, Fate::Named | Fate::Late(_)) {
            named.extend(names_of(&rows));
        }
        let notice = Notice::Told(node.id, rows);
        match fate {
            Fate::Heard => notices.push(notice),
            Fate::Late(millis) => {
                let base = Arc::clone(&node.link.base);
                tokio::spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    base.notify(&notice);
                });
            }
            Fate::Named | Fate::Lost => {}
        }
    }
    if !named.is_empty() {
        notices.push(Notice::Due(named.into_iter().collect()));
    }
    let say = move |base: &Base| notices.iter().for_each(|notice| base.notify(notice));
    node.link.trip(session, say).await
}

fn fate_of_rows(node: &Node) -> Fate {
    let ground = &node.link.base.inside.ground;
    let mut random = ground.notices.lock().unwrap();
    let fate = match random.below(10) {
        0 => Fate::Named,
        1 => Fate::Lost,
        2..4 => Fate::Late(random.below(LATE_MILLIS)),
        _ => Fate::Heard,
    };
    drop(random);
    if let Fate::Late(_) = fate {
        ground.judge.lock().unwrap().counts.told_late += 1;
    }
    fate
}

/// Looks whether the other nodes live, and takes over what those left that do not.
async fn look_out(node: &Arc<Node>, session: Session, silence: &mut Silence) -> Result<(), Lost> {
    let now = Instant::now();
    if !may_judge(*node.voice.renewed.lock().unwrap(), now) {
        *silence = Silence::default();
    }
    let me = node.id;
    let others = node.link.trip(session, move |base| base.others(me)).await?;
    let dead = dead(node, silence, &others, now);
    if dead.is_empty() {
        return Ok(());
    }
    take_over(node, session, &dead).await?;
    let say = node
        .link
        .trip(session, |base: &Base| base.notify(&Notice::Shards));
    say.await?;
    node.voice.reshare();
    Ok(())
}

/// Takes these nodes over.
pub(crate) async fn take_over(
    node: &Node,
    session: Session,
    dead: &[(Uuid, bool)],
) -> Result<(), Lost> {
    for (id, process_ended) in dead.iter().copied() {
        let trip = node
            .link
            .trip(session, move |base| base.take_over(id, process_ended));
        trip.await?;
    }
    Ok(())
}

/// Which of the others may be taken over, and whether their process has ended.
pub(crate) fn dead(
    node: &Node,
    silence: &mut Silence,
    others: &[Other],
    now: Instant,
) -> Vec<(Uuid, bool)> {
    let others: Vec<Other> = others
        .iter()
        .map(|other| match node.mutant() {
            Mutant::TakesOverTooEarly => Other {
                lease: HASTE,
                lease_is_out: true,
                ..*other
            },
            _ => *other,
        })
        .collect();
    let mut dead = silence.dead(&others, now);
    if node.mutant() == Mutant::TakesOverAfterAnOutage {
        let out = |other: &&Other| {
            may_be_taken_over(&Watched {
                lease_is_out: other.lease_is_out,
                silent: other.lease,
                lease: other.lease,
                process_ended: other.process_ended,
            })
        };
        dead = others.iter().filter(out).map(|other| other.id).collect();
    }
    let ended = |id| {
        others
            .iter()
            .any(|other| other.id == id && other.process_ended)
    };
    dead.into_iter().map(|id| (id, ended(id))).collect()
}
