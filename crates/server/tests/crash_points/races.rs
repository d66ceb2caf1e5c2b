//! Sixty-four callers at once on one keyring, some of whom never hear the answer.
//!
//! A trial sends [`AT_ONCE`] commands in parallel: opens in three modes, and promotes, undos, finishes and
//! cancels of the rotation that was the latest when it began. A part of the callers hangs up somewhere on
//! the way and asks again, under the same Idempotency-Key, until there is an answer. Then (G5):
//!
//! 1. Each caller has an answer: done, or a conflict that says why not.
//! 2. Every command that was answered with success happened once: the keyring's version grew by one for
//!    each, and the audit log has the entries of one request for each.
//! 3. The log in order is a life that the rotation machine allows: nobody opened a rotation while another
//!    was open or an undo kept a secret, but in mode immediate, and nobody moved one that was over, but to undo the latest, once. So of those who wanted the same, one won.
//! 4. The keyring is legal, on disk and in memory, and a key gets the same answer again.

use std::collections::HashSet;
use std::sync::Arc;

use hookturn_core::audit::{AuditAction, Recorded};
use hookturn_core::id::RotationId;
use http::StatusCode;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::{JoinSet, yield_now};

use crate::commands::keyring;
use crate::world::{Ask, Reply, World};

/// Commands at a time.
const AT_ONCE: usize = 64;
/// Trials, unless the variable [`TRIALS`] says another number.
const TRIALS_BY_DEFAULT: u64 = 60;
const TRIALS: &str = "HOOKTURN_TEST_RACES";
/// Number of the first trial, which is its seed too: so that a long run can be made in parts.
const FIRST: &str = "HOOKTURN_TEST_RACES_FIRST";
/// Trials on one server, so that its log stays short.
const TRIALS_OF_A_WORLD: u64 = 50;
/// Of a hundred callers, so many hang up.
const HANG_UP: u32 = 30;
/// A caller that hangs up does so before the tasks had so many turns.
const PATIENCE: u32 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_of_64_commands_at_once_each_happens_once_or_says_why_not() {
    let (first, trials) = (number(FIRST, 0), number(TRIALS, TRIALS_BY_DEFAULT));
    let (mut won, mut lost, mut hung_up) = (0, 0, 0);
    let mut race = None;
    for trial in first..first + trials {
        if (trial - first) % TRIALS_OF_A_WORLD == 0 {
            race = Some(Race::new().await);
        }
        let tally = race.as_mut().unwrap().run(trial).await;
        won += tally.won;
        lost += tally.lost;
        hung_up += tally.hung_up;
    }
    println!(
        "{trials} trials from {first}: {won} commands happened, {lost} were refused, {hung_up} callers hung up and asked again"
    );
    assert!(won >= trials && lost > 0 && hung_up > 0);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests themselves are set up by their environment"
)]
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().unwrap())
}

/// One keyring and its life so far.
struct Race {
    world: Arc<World>,
    keyring: String,
    latest: Option<String>,
    life: Life,
    version: u64,
}

struct Tally {
    won: u64,
    lost: u64,
    hung_up: u64,
}

impl Race {
    async fn new() -> Self {
        let world = Arc::new(World::new().await);
        world.store.plan(None);
        let keyring = keyring(&world).await;
        let mut race = Self {
            world,
            keyring,
            latest: None,
            life: Life::default(),
            version: 0,
        };
        race.version = race.version_now().await;
        race.life.go_on(&race.world.audit_since(0).await);
        race
    }

    async fn version_now(&self) -> u64 {
        let shown = self
            .world
            .get(&format!("/v1/keyrings/{}", self.keyring))
            .await;
        shown["version"].as_u64().unwrap()
    }

    async fn run(&mut self, trial: u64) -> Tally {
        let mut chance = StdRng::seed_from_u64(trial);
        let mut callers = JoinSet::new();
        for caller in 0..AT_ONCE {
            let ask = self.command(&mut chance);
            let key = format!("trial-{trial}-caller-{caller}");
            let patience = chance
                .random_ratio(HANG_UP, 100)
                .then(|| chance.random_range(0..PATIENCE));
            callers.spawn(insist(Arc::clone(&self.world), ask, key, patience));
        }
        let mut won = Vec::new();
        let mut tally = Tally {
            won: 0,
            lost: 0,
            hung_up: 0,
        };
        while let Some(answered) = callers.join_next().await {
            let Answered {
                ask,
                key,
                reply,
                hung_up,
            } = answered.unwrap();
            tally.hung_up += u64::from(hung_up);
            match reply.status {
                StatusCode::OK | StatusCode::CREATED => won.push((ask, key, reply)),
                // It happened, its answer was not heard, and meanwhile another command destroyed the
                // secret whose value the answer shows.
                StatusCode::CONFLICT if is_destroyed(&reply) => tally.won += 1,
                StatusCode::CONFLICT => tally.lost += 1,
                other => panic!("trial {trial}: {ask:?}: {other} {}", reply.body),
            }
        }
        tally.won += won.len() as u64;
        self.check(trial, tally.won).await;
        if let Some((ask, key, reply)) = won.choose(&mut chance) {
            let again = self.world.post(ask, key).await;
            if !is_destroyed(&again) {
                assert!(again.replayed(), "trial {trial}: {ask:?}");
                assert_eq!(again.body, reply.body, "trial {trial}: {ask:?}");
            }
        }
        tally
    }

    fn command(&self, chance: &mut StdRng) -> Ask {
        let opens = ["immediate", "overlap", "overlap", "staged", "staged"];
        let moves = ["promote", "undo", "finish", "cancel"];
        match &self.latest {
            Some(rotation) if chance.random_ratio(2, 3) => Ask {
                path: format!("/v1/rotations/{rotation}/{}", moves.choose(chance).unwrap()),
                body: json!({}),
            },
            Some(_) | None => Ask {
                path: format!("/v1/keyrings/{}/rotations", self.keyring),
                body: json!({ "mode": opens.choose(chance).unwrap() }),
            },
        }
    }

    async fn check(&mut self, trial: u64, won: u64) {
        let entries = self.world.audit_since(self.life.seen).await;
        let commands = self.life.go_on(&entries);
        assert_eq!(commands, won, "trial {trial}: the log has other commands");
        let version = self.version_now().await;
        assert_eq!(version, self.version + won, "trial {trial}: the version");
        self.version = version;
        self.latest = self.life.latest.map(|rotation| rotation.to_string());
        self.world.check_keyrings().await;
    }
}

/// Whether the answer was erased with the secret that it shows.
fn is_destroyed(reply: &Reply) -> bool {
    reply.body["code"] == "secret_destroyed"
}

struct Answered {
    ask: Ask,
    key: String,
    reply: Reply,
    hung_up: bool,
}

/// Asks, hangs up if it is one who does, and asks again until there is an answer.
async fn insist(world: Arc<World>, ask: Ask, key: String, patience: Option<u32>) -> Answered {
    if let Some(turns) = patience {
        let asked = tokio::spawn(world.post(&ask, &key));
        for _ in 0..turns {
            yield_now().await;
        }
        asked.abort();
        // Gone, or answered in time; then nobody listens.
        let _ = asked.await;
    }
    loop {
        let reply = world.post(&ask, &key).await;
        if reply.body["code"] != "idempotency_in_progress" {
            return Answered {
                ask,
                key,
                reply,
                hung_up: patience.is_some(),
            };
        }
        yield_now().await;
    }
}

/// What the audit log tells of a keyring.
#[derive(Default)]
struct Life {
    /// Entries that were read.
    seen: u64,
    open: Option<RotationId>,
    latest: Option<RotationId>,
    undone: HashSet<Option<RotationId>>,
    finished: HashSet<Option<RotationId>>,
    /// The rotation whose secret an undo left live; none of these windows ends by time in a race.
    kept: Option<RotationId>,
}

impl Life {
    /// Reads on, and answers how many requests changed something. One that rotates with mode immediate
    /// also ends the rotation that is open.
    fn go_on(&mut self, entries: &[Recorded]) -> u64 {
        let mut commands = HashSet::new();
        for recorded in entries {
            self.seen = recorded.seq;
            let rotation = recorded.entry.subject.rotation;
            match recorded.entry.action {
                AuditAction::RotationOpened => {
                    assert_eq!(self.open, None, "another is open: {recorded:?}");
                    let detail = &recorded.entry.detail;
                    let replaces = detail.get("mode").is_some_and(|mode| mode == "immediate");
                    let kept = self.kept.take();
                    assert!(
                        kept.is_none() || replaces,
                        "an undo keeps its secret: {recorded:?}"
                    );
                    (self.open, self.latest) = (rotation, rotation);
                }
                AuditAction::RotationPromoted => {
                    assert_eq!(self.open, rotation, "it was over: {recorded:?}");
                }
                // After an undo the new secret is the one that retires, and may be finished.
                AuditAction::RotationFinished => {
                    let retiring = self.open == rotation || self.undone.contains(&rotation);
                    assert!(retiring, "nothing was retiring: {recorded:?}");
                    self.kept = None;
                    assert!(
                        self.finished.insert(rotation),
                        "finished twice: {recorded:?}"
                    );
                }
                // One that is completed may be undone, as long as it is the latest: once.
                AuditAction::RotationUndone => {
                    assert_eq!(self.latest, rotation, "another came after it: {recorded:?}");
                    assert!(self.undone.insert(rotation), "undone twice: {recorded:?}");
                    // One that was finished has something that retires again, and may be finished again.
                    self.finished.remove(&rotation);
                    let end = recorded.entry.detail.get("retireAt");
                    let keeps = end.is_some_and(|end| *end != recorded.at.to_string());
                    self.kept = rotation.filter(|_| keeps);
                    self.open = None;
                }
                AuditAction::RotationCancelled | AuditAction::RotationCompleted => {
                    assert_eq!(self.open, rotation, "it was over: {recorded:?}");
                    self.open = None;
                }
                _ => continue,
            }
            // What the server does by itself has no request.
            commands.extend(recorded.context.request_id.as_deref());
        }
        commands.len() as u64
    }
}
