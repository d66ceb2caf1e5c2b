//! The ear of a node: a connection of its own on which it hears of the others, tells them what is due for them, and
//! watches whether they live.
//!
//! What is heard is a hint, and may be lost: the view is followed at every heartbeat, and the due rows are the
//! truth, looked through from time to time. What is told goes out behind the commit it is about, in one
//! notification for whatever has gathered meanwhile, and without waiting for the disk: a notification holds a
//! lock of the whole server until its transaction ends.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::store::{Due, Hint, HintSink};
use hookturn_core::time::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use uuid::Uuid;

use super::connect::{Session, Target};
use super::node::Node;
use super::rows::{Outcome, first, run, uuid};
use super::takeover;
use crate::store::encoding::IdColumn as _;
use crate::store::owned::Owned;
use crate::store::sharing::lease::{HEARTBEAT, Silence, may_judge};

/// What nodes listen to.
pub(super) const CHANNEL: &str = "hookturn";
const STEP: &str = "speak with the other nodes";
/// How long to wait before connecting again.
const RETRY: Duration = Duration::from_millis(500);
/// From one notification about what is due to the next, for each row that the first told of. Whoever is told reads, which
/// costs the database something whatever there is to read: up to a thousand rows a second nobody waits, and
/// the more there are beyond that, the more are read together.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Endpoints that one notification names: the database takes less than 8,000 bytes.
const NAMED: usize = 110;
/// Endpoints that may wait to be told. Beyond that everyone is asked to look for itself.
const GATHERED: usize = 4_096;

/// What there is to look at for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    /// Rows were accepted.
    Due,
    /// Rows were queued by hand or moved.
    Requeued,
}

/// What is to be told to the owners of other shards.
#[derive(Debug, Default)]
struct Gathered {
    endpoints: HashSet<(Word, WorkspaceId, EndpointId)>,
    /// The rows behind them.
    rows: u32,
    /// More than can be named.
    all: bool,
}

/// What a node speaks and hears by. Shared by the writer and the ear.
#[derive(Debug)]
pub(super) struct Voice {
    gathered: Mutex<Gathered>,
    waits: Notify,
    /// Told when there is something for the writer to look at: the view, or who owns what.
    pub(super) poked: Notify,
    /// Whether it is who owns what.
    reshare: AtomicBool,
    /// When the last transaction of this node began that was committed.
    renewed: Mutex<Option<Instant>>,
    pub(super) owned: Arc<Owned>,
}

impl Voice {
    pub(super) fn new(owned: Arc<Owned>) -> Self {
        Self {
            gathered: Mutex::default(),
            waits: Notify::new(),
            poked: Notify::new(),
            reshare: AtomicBool::new(false),
            renewed: Mutex::default(),
            owned,
        }
    }

    /// A transaction of this node that began then was committed.
    pub(super) fn renewed(&self, begun: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    /// Whether this node can write: one that cannot may not judge others by their silence.
    fn writes(&self, now: Instant) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        may_judge(renewed, now)
    }

    /// There is something new about who owns what.
    fn reshare(&self) {
        self.reshare.store(true, Ordering::SeqCst);
        self.poked.notify_one();
    }

    /// Whether there is, since the last call.
    pub(super) fn take_reshare(&self) -> bool {
        self.reshare.swap(false, Ordering::SeqCst)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Gathered) -> T) -> T {
        // One insert or take at a time: a panic elsewhere leaves a whole set.
        act(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the owners of other shards what a committed transaction left for them.
    pub(super) fn tell(&self, accepted: &[Due], hints: &[Hint]) {
        let accepted = accepted
            .iter()
            .map(|row| (Word::Due, row.message.workspace, row.endpoint));
        let hinted = hints.iter().filter_map(|hint| match hint {
            Hint::Requeued(workspace, endpoint) => Some((Word::Requeued, *workspace, *endpoint)),
            Hint::Due(workspace, endpoint, _) => Some((Word::Due, *workspace, *endpoint)),
            Hint::Accepted(_) | Hint::Told(_) | Hint::Endpoint(_) => None,
        });
        let mut foreign = accepted
            .chain(hinted)
            .filter(|(_, _, endpoint)| !self.owned.owns(*endpoint))
            .peekable();
        if foreign.peek().is_none() {
            return;
        }
        self.with(|gathered| {
            for named in foreign {
                gathered.rows = gathered.rows.saturating_add(1);
                gathered.endpoints.insert(named);
            }
            if gathered.endpoints.len() > GATHERED {
                gathered.endpoints.clear();
                gathered.all = true;
            }
        });
        self.waits.notify_one();
    }

    /// Waits until there is something to tell, and at least until then.
    async fn waits_until(&self, then: Instant) {
        // In this order: what is dropped while it sleeps has not been taken.
        sleep_until(then).await;
        self.waits.notified().await;
    }

    /// What to say now: texts of notifications, and for how long to be silent then.
    fn take(&self) -> (Vec<String>, Duration) {
        let Gathered {
            endpoints,
            rows,
            all,
        } = self.with(std::mem::take);
        let pause = PAUSE.saturating_mul(rows).min(PAUSE_MAX);
        if all {
            return (vec!["look".to_owned()], pause);
        }
        let named: Vec<String> = endpoints
            .into_iter()
            .map(|(word, workspace, endpoint)| {
                let letter = match word {
                    Word::Due => 'd',
                    Word::Requeued => 'r',
                };
                let (workspace, endpoint) = (uuid(workspace.to_bytes()), uuid(endpoint.to_bytes()));
                format!("{letter}{}{}", workspace.simple(), endpoint.simple())
            })
            .collect();
        let texts = named.chunks(NAMED).map(<[String]>::concat);
        (texts.collect(), pause)
    }
}

/// The hints in a notification; nothing for words that this version does not know.
fn heard(text: &str) -> Vec<Hint> {
    const LENGTH: usize = 65;
    if !text.is_ascii() || !text.len().is_multiple_of(LENGTH) {
        return Vec::new();
    }
    let id = |text: &str| Uuid::parse_str(text).ok().map(Uuid::into_bytes);
    let hint = |place: usize| {
        let one = text.get(place * LENGTH..(place + 1) * LENGTH)?;
        let workspace = WorkspaceId::from_column(id(one.get(1..33)?)?);
        let endpoint = EndpointId::from_column(id(one.get(33..)?)?);
        match one.get(..1)? {
            "d" => Some(Hint::Due(workspace, endpoint, Timestamp::EPOCH)),
            "r" => Some(Hint::Requeued(workspace, endpoint)),
            _ => None,
        }
    };
    (0..text.len() / LENGTH).filter_map(hint).collect()
}

/// The part that listens and speaks, for as long as the store is open.
pub(super) struct Ear {
    pub(super) target: Target,
    pub(super) node: Node,
    pub(super) voice: Arc<Voice>,
    pub(super) sink: Arc<dyn HintSink>,
}

impl Ear {
    pub(super) async fn run(self) {
        let mut silence = Silence::default();
        loop {
            if let Err(error) = self.listen(&mut silence).await {
                tracing::debug!(%error, "the connection on which a node hears of the others was lost");
            }
            // Nobody was watched meanwhile: whoever is silent is so from now on.
            silence = Silence::default();
            sleep(RETRY).await;
        }
    }

    async fn listen(&self, silence: &mut Silence) -> Outcome<()> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let session = self
            .target
            .connect_to_listen(self.node.name(), tell)
            .await?;
        let begin = format!("SET synchronous_commit = off; LISTEN {CHANNEL}");
        run(&session, STEP, &begin).await?;
        // What was said before this moment was not heard.
        self.voice.poked.notify_one();
        self.voice.owned.look();
        let mut watch = interval(HEARTBEAT);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause_until = Instant::now();
        loop {
            tokio::select! {
                biased;
                text = told.recv() => match text {
                    Some(text) => self.hear(&text),
                    None => return Ok(()),
                },
                () = self.voice.waits_until(pause_until) => {
                    pause_until = Instant::now() + self.speak(&session).await?;
                }
                _ = watch.tick() => self.watch(&session, silence).await?,
            }
        }
    }

    fn hear(&self, text: &str) {
        match text {
            "view" => self.voice.poked.notify_one(),
            "shards" => self.voice.reshare(),
            "look" => self.voice.owned.look(),
            named => {
                let mut hints = heard(named);
                hints.retain(|hint| match hint {
                    Hint::Due(_, endpoint, _) | Hint::Requeued(_, endpoint) => {
                        self.voice.owned.owns(*endpoint)
                    }
                    Hint::Accepted(_) | Hint::Told(_) | Hint::Endpoint(_) => false,
                });
                if !hints.is_empty() {
                    self.sink.hint(hints);
                }
            }
        }
    }

    /// Returns for how long to be silent.
    async fn speak(&self, session: &Session) -> Outcome<Duration> {
        let (texts, pause) = self.voice.take();
        for text in texts {
            say(session, &text).await?;
        }
        Ok(pause)
    }

    /// Looks whether the other nodes live, and takes over what those left that do not.
    async fn watch(&self, session: &Session, silence: &mut Silence) -> Outcome<()> {
        let now = Instant::now();
        if !self.voice.writes(now) {
            *silence = Silence::default();
        }
        let dead = takeover::dead(session, &self.node, silence, now).await?;
        let mut freed = 0;
        for node in &dead {
            match takeover::take_over(session, &self.node, node).await {
                Ok(shards) => freed += shards,
                Err(error) if session.is_closed() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a node that does not live could not be taken over yet; it is tried again");
                }
            }
        }
        if !dead.is_empty() {
            tracing::debug!(shards = freed, "shards of nodes that are gone are free");
            say(session, "shards").await?;
            self.voice.reshare();
        }
        Ok(())
    }
}

pub(super) async fn say(session: &Session, text: &str) -> Outcome<()> {
    let sql = "SELECT pg_notify($1, $2)";
    first(session, STEP, sql, &[&CHANNEL, &text])
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_other_shards_is_heard_there() {
        let voice = Voice::new(Arc::new(Owned::none()));
        let workspace = WorkspaceId::from_bytes([1; 16]);
        let hints: Vec<_> = (0..300_u16)
            .map(|number| {
                let mut bytes = [2; 16];
                bytes[..2].copy_from_slice(&number.to_be_bytes());
                Hint::Requeued(workspace, EndpointId::from_bytes(bytes))
            })
            .collect();
        voice.tell(&[], &hints);
        voice.tell(&[], &hints);
        let (texts, pause) = voice.take();
        assert_eq!(pause, PAUSE_MAX);
        assert_eq!(texts.len(), 3, "each once, in as few words as fit");
        assert!(texts.iter().all(|text| text.len() < 8_000));
        let heard: Vec<_> = texts.iter().flat_map(|text| heard(text)).collect();
        assert_eq!(heard.len(), 300);
        assert!(
            heard
                .iter()
                .all(|hint| matches!(hint, Hint::Requeued(of, _) if *of == workspace))
        );
        assert_eq!(voice.take(), (Vec::new(), Duration::ZERO));
        voice.tell(&[], &hints[..1]);
        assert_eq!(voice.take().1, PAUSE, "one is told of without much ado");
    }

    #[test]
    fn too_much_to_name_is_looked_for() {
        let voice = Voice::new(Arc::new(Owned::none()));
        let hints: Vec<_> = (0..5_000_u32)
            .map(|number| {
                let mut bytes = [2; 16];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                Hint::Requeued(
                    WorkspaceId::from_bytes([1; 16]),
                    EndpointId::from_bytes(bytes),
                )
            })
            .collect();
        voice.tell(&[], &hints);
        assert_eq!(voice.take().0, ["look"]);
    }

    #[test]
    fn what_is_not_understood_is_no_hint() {
        assert!(heard("anything").is_empty());
        assert!(heard(&"x".repeat(65)).is_empty());
        assert!(heard("").is_empty());
    }
}
