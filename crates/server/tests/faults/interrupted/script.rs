//! A keyring's life as commands, one after another, each a step of the same circle.

use super::Command;
use crate::support::http::Reply;
use crate::support::text;

/// A step, as a path below a keyring or below the rotation that was opened last.
enum Step {
    Open(&'static str),
    Move(&'static str),
}

/// After these the keyring has no open rotation and the circle begins again.
const CIRCLE: &[Step] = &[
    Step::Open(r#"{"mode":"immediate","reason":"interrupted"}"#),
    Step::Open(r#"{"mode":"overlap"}"#),
    Step::Move("finish"),
    Step::Open(r#"{"mode":"staged"}"#),
    Step::Move("promote"),
    Step::Move("undo"),
    // The secret that was undone is live until then.
    Step::Move("finish"),
    Step::Open(r#"{"mode":"staged"}"#),
    Step::Move("cancel"),
];

/// How far a keyring is.
pub(super) struct Script {
    keyring: String,
    version: u64,
    rotation: String,
    done: usize,
}

impl Script {
    pub(super) fn new(keyring: &str, version: u64) -> Self {
        Self {
            keyring: keyring.to_owned(),
            version,
            rotation: String::new(),
            done: 0,
        }
    }

    /// The command that is next.
    pub(super) fn next(&self) -> Command {
        let (path, body) = match &CIRCLE[self.done % CIRCLE.len()] {
            Step::Open(body) => (format!("/v1/keyrings/{}/rotations", self.keyring), *body),
            Step::Move(command) => (format!("/v1/rotations/{}/{command}", self.rotation), "{}"),
        };
        Command {
            keyring: self.keyring.clone(),
            path,
            body,
            key: format!("{}-step-{}", self.keyring, self.done),
            before: self.version,
        }
    }

    /// It was answered.
    pub(super) fn advance(&mut self, answer: &Reply) {
        if let Step::Open(_) = CIRCLE[self.done % CIRCLE.len()] {
            self.rotation = text(&answer.json(), "id");
        }
        self.version += 1;
        self.done += 1;
    }

    pub(super) fn done(&self) -> usize {
        self.done
    }
}
