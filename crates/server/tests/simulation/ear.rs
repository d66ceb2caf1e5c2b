//! The ear of a node: it hears of the others, tells them what is due for them, and takes over what those left that do
//! not live; as `store::postgres::ear`, with the same decisions.

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

/// What a node speaks and hears by.
#[derive(Default)]
pub(crate) struct Voice {
    gathered: Mutex<BTreeSet<Named>>,
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
        let accepted = accepted
            .iter()
            .map(|row| (false, row.message.workspace, row.endpoint));
        let hinted = hints.iter().filter_map(|hint| match hint {
            Hint::Requeued(workspace, endpoint) => Some((true, *workspace, *endpoint)),
            Hint::Due(workspace, endpoint, _) => Some((false, *workspace, *endpoint)),
            Hint::Accepted(_) | Hint::Told(_) | Hint::Endpoint(_) => None,
        });
        let mut gathered = self.gathered.lock().unwrap();
        let before = gathered.len();
        gathered.extend(
            accepted
                .chain(hinted)
                .filter(|(_, _, endpoint)| !owned.owns(*endpoint)),
        );
        if gathered.len() > before {
            self.waits.notify_one();
        }
    }

    fn take(&self) -> Vec<Named> {
        let gathered = std::mem::take(&mut *self.gathered.lock().unwrap());
        gathered.into_iter().collect()
    }
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
            Notice::Due(named) => {
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
        }
    }
    Ok(())
}

async fn speak(node: &Node, session: Session) -> Result<(), Lost> {
    let named = node.voice.take();
    if named.is_empty() {
        return Ok(());
    }
    let notice = Notice::Due(named);
    node.link
        .trip(session, move |base| base.notify(&notice))
        .await
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
