//! Every command in the life of a rotation, with every fault at every step of the store that it takes.
//!
//! For each combination a fresh server is brought to where the command begins, and the command meets one
//! fault: its request to the store is lost, or the store's answer is, or the process dies before or after
//! that step, or the caller hangs up while the store is at it. Then (G5):
//!
//! 1. What is stored is the state before the command or the state after it, whole: keyring, rotations,
//!    sealed values and audit log together. Which of them a fault leads to is known; the command of a caller
//!    who hangs up finishes.
//! 2. The same request under the same Idempotency-Key succeeds. Its answer is marked as a replay exactly
//!    if the command had happened, so the caller learns which; if it had not, it happens now.
//! 3. Then it has happened once. A third request gets the second answer again, byte for byte, and the
//!    secret in it is the one that the server holds.
//!
//! The store is the real one, on disk; a death is its files at that moment, opened by a new server. Death
//! by signal, from outside, is `tests/faults`. Many commands at once are in `races`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod faulty;
mod races;
mod world;

use http::StatusCode;

use commands::Command;
use faulty::Fault;
use world::{Ask, Reply, Shape, World};

/// The caller's Idempotency-Key.
const KEY: &str = "repeat-me";

#[tokio::test]
async fn g5_secrets_are_made_whole_or_not_at_all() {
    every_fault(&[
        Command::CreateEndpoint,
        Command::CreateFirstSecret,
        Command::CreatePendingSecret,
        Command::ReplacePendingSecret,
    ])
    .await;
}

#[tokio::test]
async fn g5_rotations_open_whole_or_not_at_all() {
    every_fault(&[
        Command::OpenImmediate,
        Command::OpenOverlap,
        Command::OpenStaged,
    ])
    .await;
}

#[tokio::test]
async fn g5_rotations_move_whole_or_not_at_all() {
    every_fault(&[
        Command::Promote,
        Command::Activate,
        Command::Extend,
        Command::Undo,
    ])
    .await;
}

#[tokio::test]
async fn g5_rotations_end_whole_or_not_at_all() {
    every_fault(&[
        Command::Finish,
        Command::Cancel,
        Command::CompromiseRetiring,
        Command::CompromisePending,
    ])
    .await;
}

async fn every_fault(commands: &[Command]) {
    for command in commands {
        let (world, ask) = command.begin().await;
        world.store.plan(None);
        let reply = world.post(&ask, KEY).await;
        assert!(reply.status.is_success(), "{command:?}: {reply:?}");
        let steps = world.store.steps();
        assert!(steps >= 2, "{command:?}: a lookup of the key and a change");
        let after = world.shape().await;
        for step in 0..steps {
            for fault in Fault::ALL {
                Point {
                    command: *command,
                    step,
                    steps,
                    fault,
                }
                .examine(&after)
                .await;
            }
        }
    }
}

/// One fault at one step of one command.
#[derive(Debug, Clone, Copy)]
struct Point {
    command: Command,
    step: usize,
    steps: usize,
    fault: Fault,
}

impl Point {
    async fn examine(self, after: &Shape) {
        let (world, ask) = self.command.begin().await;
        let before = world.shape().await;
        assert_ne!(before, *after, "{self:?}: nothing would tell them apart");
        let world = self.strike(world, &ask).await;

        let found = world.shape().await;
        let happened = found == *after;
        assert!(happened || found == before, "{self:?}: {found:#?}");
        assert_eq!(happened, self.happens(), "{self:?}");
        let repeated = world.post(&ask, KEY).await;
        assert!(repeated.status.is_success(), "{self:?}: {repeated:?}");
        assert_eq!(repeated.replayed(), happened, "{self:?}: {repeated:?}");
        assert_eq!(world.shape().await, *after, "{self:?}: not once");

        let again = world.post(&ask, KEY).await;
        assert!(again.replayed(), "{self:?}: {again:?}");
        assert_eq!(again.body, repeated.body, "{self:?}: another answer");
        assert_eq!(world.shape().await, *after, "{self:?}: more than once");
        self.holds(&world, &ask, &repeated).await;
    }

    /// Sends the request into the fault, and answers the world in which its caller repeats it.
    async fn strike(self, world: World, ask: &Ask) -> World {
        world.store.plan(Some((self.step, self.fault)));
        let request = world.post(ask, KEY);
        if self.fault.leaves_no_answer() {
            tokio::select! {
                reply = request => panic!("{self:?}: an answer: {reply:?}"),
                () = world.store.struck() => {}
            }
        } else {
            let reply = request.await;
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{self:?}");
        }
        world.store.plan(None);
        match self.fault {
            Fault::DiesBefore | Fault::DiesAfter => world.dies().await,
            Fault::CallerGone => {
                // It comes to its end without its caller.
                world.store.caller_left();
                world.finishing.ended().await;
                world.settled().await;
                world
            }
            Fault::RequestLost | Fault::AnswerLost => world,
        }
    }

    /// Whether the command has happened after the fault. The change is the last step.
    fn happens(self) -> bool {
        let at_the_change = self.step + 1 == self.steps;
        match self.fault {
            Fault::RequestLost | Fault::DiesBefore => false,
            Fault::AnswerLost | Fault::DiesAfter => at_the_change,
            // At every step: it finishes.
            Fault::CallerGone => true,
        }
    }

    /// The value in an answer is that of the secret that it names.
    async fn holds(self, world: &World, ask: &Ask, answer: &Reply) {
        let secret = match &answer.body["secret"] {
            serde_json::Value::Null => &answer.body,
            secret => secret,
        };
        let Some(value) = secret["value"].as_str() else {
            assert!(!self.command.makes_a_secret(), "{self:?}: {answer:?}");
            return;
        };
        // The keyring of a new endpoint is in the answer, any other in the path.
        let of_path = ask.path.split('/').nth(3);
        let keyring = answer.body["keyringId"].as_str().or(of_path).unwrap();
        let id = secret["id"].as_str().unwrap();
        let path = format!("/v1/keyrings/{keyring}/secrets/{id}/reveal");
        let revealed = world.must(&path, serde_json::json!({})).await;
        assert_eq!(revealed["value"], value, "{self:?}: another secret");
    }
}

/// The sweep that writes down what time has done has no caller and no key: it is simply run again.
#[tokio::test]
async fn g5_time_is_written_down_whole_or_not_at_all() {
    for fault in Fault::ALL {
        let world = expired().await;
        let before = world.shape().await;
        world.store.plan(Some((0, fault)));
        if fault.leaves_no_answer() {
            tokio::select! {
                done = world.service.settle() => panic!("{fault:?}: an answer: {done:?}"),
                () = world.store.struck() => {}
            }
        } else {
            world.service.settle().await.unwrap_err();
        }
        world.store.plan(None);
        let world = match fault {
            Fault::DiesBefore | Fault::DiesAfter => world.dies().await,
            Fault::RequestLost | Fault::AnswerLost | Fault::CallerGone => world,
        };
        world.settled().await;
        let found = world.shape().await;
        let left = world.service.settle().await.unwrap();
        assert_eq!(left, usize::from(found == before), "{fault:?}");
        let after = world.shape().await;
        assert!(found == before || found == after, "{fault:?}: {found:#?}");
        assert_ne!(before, after);
        assert_eq!(world.service.settle().await.unwrap(), 0, "{fault:?}");
        assert_eq!(world.shape().await, after, "{fault:?}: more than once");
    }
}

/// A world with a rotation whose overlap is over, and nobody wrote it down.
async fn expired() -> World {
    let world = World::new().await;
    let keyring = commands::keyring(&world).await;
    let path = format!("/v1/keyrings/{keyring}/rotations");
    let overlap = serde_json::json!({ "mode": "overlap", "overlapSeconds": 60 });
    world.must(&path, overlap).await;
    world.advance(61_000);
    world
}
