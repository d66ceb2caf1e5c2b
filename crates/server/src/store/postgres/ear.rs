//! The ear of a node: a connection of its own on which it hears of the others, tells them what is due for them, and
//! watches whether they live.
//!
//! What is heard is a hint, and may be lost: the view is followed at every heartbeat, and the due rows are the
//! truth, looked through from time to time. What is told goes out behind the commit it is about, in as few
//! notifications as whatever has gathered meanwhile takes, and without waiting for the disk: a notification holds a
//! lock of the whole server until its transaction ends.
//!
//! Of freshly accepted rows more is told than that they are there: what they carry, sealed ([`content`]). Their owner
//! need not read them then, which is what the database would do most for them. It is a hint all the same.

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

use super::connect::{Said, Session, Target};
use super::node::Node;
use super::rows::{Outcome, column, execute, first, run, uuid};
use super::takeover;
use crate::store::encoding::IdColumn as _;
use crate::store::owned::Owned;
use crate::store::seal::Sealer;
use crate::store::sharing::lease::{HEARTBEAT, Silence, may_judge};
use crate::telemetry::troubles::Troubles;

mod content;

/// What nodes listen to.
pub(super) const CHANNEL: &str = "hookturn";
const STEP: &str = "speak with the other nodes";
/// The same of what the log says when it fails.
const TAKE_OVER: &str = "take over a node that does not live";
/// How long to wait before connecting again.
const RETRY: Duration = Duration::from_millis(500);
/// From one notification about what is due to the next, for each row that the first told of. Whoever is told reads, which
/// costs the database something whatever there is to read: up to a thousand rows a second nobody waits, and
/// the more there are beyond that, the more are read together.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The longest pause after rows that were told of with what they carry: nobody reads for them.
const CONTENT_PAUSE_MAX: Duration = Duration::from_millis(5);
/// Endpoints that one notification names: the database takes less than 8,000 bytes.
const NAMED: usize = 110;
/// Endpoints that may wait to be told. Beyond that everyone is asked to look for itself.
const GATHERED: usize = 4_096;
/// Rows that may wait to be told of with what they carry. Beyond that their endpoints are named.
const ROWS: usize = 4_096;
/// Bytes of payload of these.
const ROWS_BYTES: usize = 4 * 1024 * 1024;
/// After so long they are not told of so any more: who hears of them may have sent them by then.
const FRESH: Duration = Duration::from_secs(1);
/// The part of the server's room for notifications beyond which endpoints are only named. Somebody who listens does not
/// read then, and notifying fails when it is full: 8 GB.
const CROWDED: f64 = 0.01;
/// Characters of what names an endpoint, and of whatever else stands in its place.
const UNIT: usize = 65;

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
    /// Rows that are told of with what they carry.
    content: Vec<Due>,
    /// The bytes of their payloads.
    bytes: usize,
    /// Since when the first of them waits.
    since: Option<Instant>,
}

impl Gathered {
    /// Takes a row to be told of with what it carries, if there is room.
    fn take_content(&mut self, row: &Due) -> bool {
        let bytes = self.bytes + row.message.payload.len();
        if self.content.len() >= ROWS || bytes > ROWS_BYTES || !content::fits(row) {
            return false;
        }
        self.bytes = bytes;
        self.since.get_or_insert_with(Instant::now);
        self.content.push(row.clone());
        true
    }

    /// Takes a row, or several that stand behind one hint, of which only the endpoint is named.
    fn name(&mut self, named: (Word, WorkspaceId, EndpointId)) {
        self.rows = self.rows.saturating_add(1);
        self.endpoints.insert(named);
        if self.endpoints.len() > GATHERED {
            self.endpoints.clear();
            self.all = true;
        }
    }

    /// Gives out the rows that are told of with what they carry. What has waited for too long is only named, and so is
    /// everything if there is nothing to seal with.
    fn give_content(&mut self, now: Instant, sealed: bool) -> Vec<Due> {
        self.bytes = 0;
        let content = std::mem::take(&mut self.content);
        let since = self.since.take();
        if sealed && since.is_none_or(|since| now.duration_since(since) <= FRESH) {
            return content;
        }
        for row in content {
            self.name((Word::Due, row.message.workspace, row.endpoint));
        }
        Vec::new()
    }

    /// When there is something to say.
    fn next(&self, pace: &Pace) -> Option<Instant> {
        let content = (!self.content.is_empty()).then_some(pace.content);
        let words = (self.all || !self.endpoints.is_empty()).then_some(pace.words);
        content.into_iter().chain(words).min()
    }
}

/// From when on the next is said.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Rows with what they carry.
    content: Instant,
    /// Names.
    words: Instant,
}

impl Pace {
    const fn from(now: Instant) -> Self {
        Self {
            content: now,
            words: now,
        }
    }
}

fn pause_after(rows: usize, longest: Duration) -> Duration {
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    PAUSE.saturating_mul(rows).min(longest)
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
    /// Seals what is told; without it endpoints are only named.
    sealer: Option<Arc<Sealer>>,
    /// Whether the server has little room left for notifications.
    crowded: AtomicBool,
}

impl Voice {
    pub(super) fn new(owned: Arc<Owned>, sealer: Option<Arc<Sealer>>) -> Self {
        Self {
            gathered: Mutex::default(),
            waits: Notify::new(),
            poked: Notify::new(),
            reshare: AtomicBool::new(false),
            renewed: Mutex::default(),
            owned,
            sealer,
            crowded: AtomicBool::new(false),
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

    /// What seals what is told, if there is such a thing now.
    fn sealer(&self) -> Option<&Sealer> {
        let sealer = self.sealer.as_deref()?;
        // What this node could seal the others may not be able to open.
        sealer.missing().is_none().then_some(sealer)
    }

    /// Tells the owners of other shards what a committed transaction left for them.
    pub(super) fn tell(&self, accepted: &[Due], hints: &[Hint]) {
        let foreign = |endpoint| !self.owned.owns(endpoint);
        let mut accepted = accepted
            .iter()
            .filter(|row| foreign(row.endpoint))
            .peekable();
        let mut hinted = hints
            .iter()
            .filter_map(|hint| match hint {
                Hint::Requeued(of, endpoint) => Some((Word::Requeued, *of, *endpoint)),
                Hint::Due(of, endpoint, _) => Some((Word::Due, *of, *endpoint)),
                Hint::Accepted(_) | Hint::Told(_) | Hint::Endpoint(_) => None,
            })
            .filter(|(_, _, endpoint)| foreign(*endpoint))
            .peekable();
        if accepted.peek().is_none() && hinted.peek().is_none() {
            return;
        }
        let whole = self.sealer.is_some() && !self.crowded.load(Ordering::Relaxed);
        self.with(|gathered| {
            for row in accepted {
                if !whole || !gathered.take_content(row) {
                    gathered.name((Word::Due, row.message.workspace, row.endpoint));
                }
            }
            hinted.for_each(|named| gathered.name(named));
        });
        self.waits.notify_one();
    }

    /// Waits until there is something to say. Nothing of it is taken yet.
    async fn has_something(&self, pace: &Pace) {
        loop {
            let more = self.waits.notified();
            match self.with(|gathered| gathered.next(pace)) {
                None => more.await,
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = more => {}
                },
            }
        }
    }

    /// What to say now: texts of notifications. Says in `pace` for how long to be silent then.
    fn take(&self, pace: &mut Pace, now: Instant) -> Vec<String> {
        let sealer = self.sealer();
        let (content, words) = self.with(|gathered| {
            let content = if pace.content <= now {
                gathered.give_content(now, sealer.is_some())
            } else {
                Vec::new()
            };
            let words = (pace.words <= now).then(|| Gathered {
                endpoints: std::mem::take(&mut gathered.endpoints),
                rows: std::mem::take(&mut gathered.rows),
                all: std::mem::take(&mut gathered.all),
                ..Gathered::default()
            });
            (content, words)
        });
        let mut texts = Vec::new();
        if let (Some(sealer), false) = (sealer, content.is_empty()) {
            pace.content = now + pause_after(content.len(), CONTENT_PAUSE_MAX);
            texts = content::encode(&content, sealer);
        }
        let Some(words) = words.filter(|words| words.rows > 0) else {
            return texts;
        };
        pace.words = now + pause_after(words.rows as usize, PAUSE_MAX);
        if words.all {
            texts.push("look".to_owned());
            return texts;
        }
        let unit = |(word, workspace, endpoint)| match word {
            Word::Due => due_unit(workspace, endpoint),
            Word::Requeued => unit('r', workspace, endpoint),
        };
        let named: Vec<String> = words.endpoints.into_iter().map(unit).collect();
        texts.extend(named.chunks(NAMED).map(<[String]>::concat));
        texts
    }
}

/// What names an endpoint, of which there is something due.
fn due_unit(workspace: WorkspaceId, endpoint: EndpointId) -> String {
    unit('d', workspace, endpoint)
}

fn unit(letter: char, workspace: WorkspaceId, endpoint: EndpointId) -> String {
    let (workspace, endpoint) = (uuid(workspace.to_bytes()), uuid(endpoint.to_bytes()));
    format!("{letter}{}{}", workspace.simple(), endpoint.simple())
}

/// The hints in a notification; nothing for words that this version does not know.
fn heard(text: &str) -> Vec<Hint> {
    if !text.is_ascii() || !text.len().is_multiple_of(UNIT) {
        return Vec::new();
    }
    let id = |text: &str| Uuid::parse_str(text).ok().map(Uuid::into_bytes);
    let hint = |place: usize| {
        let one = text.get(place * UNIT..(place + 1) * UNIT)?;
        let (word, ids) = one.split_at_checked(1)?;
        // Most of a long one is content: ids are looked for only where there are some.
        if !matches!(word, "d" | "r") {
            return None;
        }
        let (workspace, endpoint) = ids.split_at_checked(32)?;
        let workspace = WorkspaceId::from_column(id(workspace)?);
        let endpoint = EndpointId::from_column(id(endpoint)?);
        Some(if word == "d" {
            Hint::Due(workspace, endpoint, Timestamp::EPOCH)
        } else {
            Hint::Requeued(workspace, endpoint)
        })
    };
    (0..text.len() / UNIT).filter_map(hint).collect()
}

/// The part that listens and speaks, for as long as the store is open.
pub(super) struct Ear {
    pub(super) target: Target,
    pub(super) node: Node,
    pub(super) voice: Arc<Voice>,
    pub(super) sink: Arc<dyn HintSink>,
}

/// What an ear remembers.
#[derive(Default)]
struct Memory {
    troubles: Troubles,
    silence: Silence,
    opened: content::Opened,
}

impl Ear {
    pub(super) async fn run(self) {
        let mut memory = Memory::default();
        loop {
            if let Err(error) = self.listen(&mut memory).await {
                tracing::debug!(%error, "the connection on which a node hears of the others was lost");
            }
            // Nobody was watched meanwhile: whoever is silent is so from now on.
            memory.silence = Silence::default();
            sleep(RETRY).await;
        }
    }

    async fn listen(&self, memory: &mut Memory) -> Outcome<()> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let session = self
            .target
            .connect_to_listen(self.node.name(), tell)
            .await?;
        let begin = format!("SET synchronous_commit = off; LISTEN {CHANNEL}");
        run(&session, STEP, &begin).await?;
        let me = own_process(&session).await?;
        // What was said before this moment was not heard.
        self.voice.poked.notify_one();
        self.voice.owned.look();
        let mut watch = interval(HEARTBEAT);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::from(Instant::now());
        loop {
            tokio::select! {
                biased;
                said = told.recv() => match said {
                    Some(said) => self.hear(&said, me, &mut memory.opened),
                    None => return Ok(()),
                },
                () = self.voice.has_something(&pace) => {
                    let texts = self.voice.take(&mut pace, Instant::now());
                    say_all(&session, &texts).await?;
                }
                _ = watch.tick() => {
                    self.watch(&session, memory).await?;
                    let crowded = used(&session).await? > CROWDED;
                    self.voice.crowded.store(crowded, Ordering::Relaxed);
                }
            }
        }
    }

    fn hear(&self, said: &Said, me: i32, opened: &mut content::Opened) {
        match &*said.text {
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
                if hints.is_empty() {
                    return;
                }
                // What this node said itself it has in memory, or gave to others before.
                if said.process != me
                    && let Some(sealer) = self.voice.sealer.as_deref()
                    && let Some(mut rows) = opened.open(named, sealer, Instant::now())
                {
                    rows.retain(|row| self.voice.owned.owns(row.endpoint));
                    hints.retain(|hint| !matches!(hint, Hint::Due(..)));
                    hints.push(Hint::Told(rows));
                }
                self.sink.hint(hints);
            }
        }
    }

    /// Looks whether the other nodes live, and takes over what those left that do not.
    async fn watch(&self, session: &Session, memory: &mut Memory) -> Outcome<()> {
        let Memory {
            silence, troubles, ..
        } = memory;
        let now = Instant::now();
        if !self.voice.writes(now) {
            *silence = Silence::default();
        }
        let dead = takeover::dead(session, &self.node, silence, now).await?;
        let mut freed = 0;
        for node in &dead {
            match takeover::take_over(session, &self.node, node).await {
                Ok(shards) => {
                    troubles.worked(TAKE_OVER);
                    freed += shards;
                }
                Err(error) if session.is_closed() => return Err(error),
                Err(error) => troubles.failed(TAKE_OVER, &error),
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

/// The process of the server that a session has, by which its own notifications are known.
async fn own_process(session: &Session) -> Outcome<i32> {
    let row = first(session, STEP, "SELECT pg_backend_pid()", &[]).await?;
    row.map_or(Ok(0), |row| column(&row, 0))
}

/// How much of the room for notifications is taken up by those that somebody has not read.
async fn used(session: &Session) -> Outcome<f64> {
    let row = first(session, STEP, "SELECT pg_notification_queue_usage()", &[]).await?;
    row.map_or(Ok(0.0), |row| column(&row, 0))
}

/// Says several things at once, if there are any.
async fn say_all(session: &Session, texts: &[String]) -> Outcome<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let sql = "SELECT pg_notify($1, said) FROM unnest($2::text[]) AS said";
    execute(session, STEP, sql, &[&CHANNEL, &texts])
        .await
        .map(drop)
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
    use crate::store::seal::MasterKey;
    use crate::telemetry::SystemEntropy;

    fn hints(count: u32) -> Vec<Hint> {
        let endpoint = |number: u32| {
            let mut bytes = [2; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            EndpointId::from_bytes(bytes)
        };
        let workspace = WorkspaceId::from_bytes([1; 16]);
        let requeued = |number| Hint::Requeued(workspace, endpoint(number));
        (0..count).map(requeued).collect()
    }

    fn row(endpoint: u8, bytes: usize) -> Due {
        content::tests::row_of(endpoint, vec![b'x'; bytes])
    }

    fn voice(keys: Option<Vec<MasterKey>>) -> Voice {
        let entropy = Arc::new(SystemEntropy);
        let sealer = keys.map(|keys| Arc::new(Sealer::new(keys, entropy)));
        Voice::new(Arc::new(Owned::none()), sealer)
    }

    fn key() -> MasterKey {
        MasterKey::generate(&SystemEntropy)
    }

    fn names(texts: &[String]) -> usize {
        texts.iter().flat_map(|text| heard(text)).count()
    }

    fn whole(texts: &[String]) -> usize {
        texts.iter().filter(|text| text.contains('m')).count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_of_other_shards_is_heard_there() {
        let (voice, now) = (voice(None), Instant::now());
        voice.tell(&[], &hints(300));
        voice.tell(&[], &hints(300));
        let mut pace = Pace::from(now);
        let texts = voice.take(&mut pace, now);
        assert_eq!(pace.words, now + PAUSE_MAX);
        assert_eq!(texts.len(), 3, "each once, in as few words as fit");
        assert!(texts.iter().all(|text| text.len() < 8_000));
        let heard: Vec<_> = texts.iter().flat_map(|text| heard(text)).collect();
        assert_eq!(heard.len(), 300);
        assert!(heard.iter().all(|hint| matches!(hint, Hint::Requeued(..))));
        voice.tell(&[], &hints(1));
        assert!(voice.take(&mut pace, now).is_empty(), "not yet");
        let later = pace.words;
        assert_eq!(names(&voice.take(&mut pace, later)), 1);
        assert_eq!(pace.words, later + PAUSE, "one is told of without much ado");
        assert!(voice.take(&mut pace, later + PAUSE_MAX).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_to_name_is_looked_for() {
        let (voice, now) = (voice(None), Instant::now());
        voice.tell(&[], &hints(5_000));
        assert_eq!(voice.take(&mut Pace::from(now), now), ["look"]);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_told_whole_within_bounds_and_else_named() {
        let (voice, now) = (voice(Some(vec![key()])), Instant::now());
        let mut pace = Pace::from(now);
        voice.tell(&[row(1, 100), row(2, 100)], &hints(1));
        let texts = voice.take(&mut pace, now);
        assert_eq!(texts.len(), 2);
        assert_eq!((whole(&texts[..1]), names(&texts[..1])), (1, 2));
        assert_eq!((whole(&texts[1..]), names(&texts[1..])), (0, 1));
        assert_eq!(pace.content, now + 2 * PAUSE);

        // Too large for one notification.
        voice.tell(&[row(1, 7_000)], &[]);
        let later = now + FRESH;
        assert_eq!(whole(&voice.take(&mut pace, later)), 0);
        // More rows, or more bytes, than are kept.
        for rows in [vec![row(1, 10); ROWS + 1], vec![row(1, 5_000); 1_000]] {
            voice.tell(&rows, &[]);
            let bytes = voice.with(|gathered| {
                assert_eq!(gathered.endpoints.len(), 1, "the rest is named");
                assert!(gathered.content.len() <= ROWS);
                gathered.bytes
            });
            assert!(bytes <= ROWS_BYTES);
            let later = now + 2 * FRESH;
            let texts = voice.take(&mut Pace::from(later), later);
            assert_eq!((whole(&texts), names(&texts)), (0, 1), "it is too late");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_only_named_without_a_key_and_where_there_is_little_room() {
        let now = Instant::now();
        let (without, lacking, crowded) = (
            voice(None),
            voice(Some(vec![key()])),
            voice(Some(vec![key()])),
        );
        let other = Sealer::new(vec![key()], Arc::new(SystemEntropy));
        let check = other.check_of(&other.master_keys()[0]);
        lacking.sealer.as_ref().unwrap().follow(&check);
        crowded.crowded.store(true, Ordering::Relaxed);
        for voice in [without, lacking, crowded] {
            voice.tell(&[row(1, 100)], &[]);
            let texts = voice.take(&mut Pace::from(now), now);
            assert_eq!((whole(&texts), names(&texts)), (0, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_something_to_say_waits_for_its_turn() {
        let (voice, now) = (voice(Some(vec![key()])), Instant::now());
        let mut pace = Pace::from(now + PAUSE);
        pace.words = now + PAUSE_MAX;
        voice.tell(&[], &hints(1));
        let both = async {
            tokio::join!(voice.has_something(&pace), async {
                sleep(2 * PAUSE).await;
                voice.tell(&[row(1, 1)], &[]);
            })
        };
        both.await;
        assert_eq!(now.elapsed(), 2 * PAUSE, "rows do not wait for names");
        assert_eq!(whole(&voice.take(&mut pace, Instant::now())), 1);
        voice.has_something(&pace).await;
        assert_eq!(now.elapsed(), PAUSE_MAX);
    }

    #[test]
    fn what_is_not_understood_is_no_hint() {
        assert!(heard("anything").is_empty());
        assert!(heard(&"x".repeat(65)).is_empty());
        assert!(heard("").is_empty());
    }
}
