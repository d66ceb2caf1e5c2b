//! `kill -9` while many keyrings are moved at once, each by its own connection.
//!
//! The moment of death is an event, not a time: the answer of a seeded number has just been read, so that
//! every other connection is somewhere between its request and its answer.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;

use super::script::Script;
use super::{Command, Known, version};
use crate::support::http::{Api, Connection};
use crate::support::process::Setup;
use crate::support::{SOON, app, endpoint, setting, within};

const ROUNDS: u64 = 12;
const CONNECTIONS: usize = 16;
/// Commands answered in a round before the kill, at most.
const ANSWERS: u64 = 200;

/// What a round left of one keyring's commands: the last one, and what is known of it.
type Interrupted = (Script, Option<(Command, Known)>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_kill_9_leaves_a_rotation_done_or_not_and_the_replay_tells() {
    let rounds = setting("HOOKTURN_KILL_ROUNDS").unwrap_or(ROUNDS);
    let seed = setting("HOOKTURN_KILL_SEED").unwrap_or(20_261_122);
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).with("HOOKTURN_LOG", "warn");
    let mut left = arrange(&setup).await;
    let mut told = [0, 0];
    for _ in 0..rounds {
        let server = setup.start().await;
        for (script, interrupted) in &mut left {
            if let Some((command, known)) = interrupted.take() {
                let (repeated, replay) = command.repeat(&server.api(), known, true).await;
                script.advance(&repeated);
                told[usize::from(replay)] += 1;
            }
        }
        let (counter, mut answers) = watch::channel(0);
        let counter = Arc::new(counter);
        let running: Vec<_> = left
            .drain(..)
            .map(|(script, _)| tokio::spawn(go_on(server.api(), script, Arc::clone(&counter))))
            .collect();
        let last = random.random_range(1..=ANSWERS);
        let reached = answers.wait_for(|count| *count >= last);
        assert!(
            *within(SOON, "the answer before the kill", reached)
                .await
                .unwrap()
                >= last
        );
        server.kill().await;
        for connection in running {
            left.push(
                within(SOON, "the end of a connection", connection)
                    .await
                    .unwrap(),
            );
        }
    }
    let server = setup.start().await;
    for (_, interrupted) in &left {
        if let Some((command, known)) = interrupted {
            command.repeat(&server.api(), *known, true).await;
        }
    }
    let log = server.stop().await.join("\n");
    assert!(!log.contains("panicked"), "{log}");
    let done: usize = left.iter().map(|(script, _)| script.done()).sum();
    let [performed, replayed] = told;
    println!(
        "kill -9 among rotations: seed {seed}, {rounds} rounds, {done} commands, \
         {replayed} had happened without an answer, {performed} had not"
    );
}

/// Many keyrings at their beginning.
async fn arrange(setup: &Setup) -> Vec<Interrupted> {
    let server = setup.start().await;
    let api = server.api();
    let app = app(&api).await;
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let made = endpoint(&api, &app, "http://127.0.0.1:9/", json!({})).await;
        let version = version(&api, &made.keyring).await;
        all.push((Script::new(&made.keyring, version), None));
    }
    server.stop().await;
    all
}

/// Moves one keyring until the server is gone.
async fn go_on(api: Api, mut script: Script, counter: Arc<watch::Sender<u64>>) -> Interrupted {
    let Ok(mut connection) = Connection::open(api.address).await else {
        return (script, None);
    };
    loop {
        let command = script.next();
        let request = command.request(&api).bytes();
        if connection.write(&request).await.is_err() {
            return (script, Some((command, Known::Unknown)));
        }
        match connection.reply().await {
            Ok(answer) => {
                assert!(answer.status < 300, "{command:?}: {answer:?}");
                script.advance(&answer);
                counter.send_modify(|count| *count += 1);
            }
            Err(_) => return (script, Some((command, Known::Unknown))),
        }
    }
}
