//! Rotations interrupted from outside (G5): the connection ends, or the process does, anywhere between the
//! first byte of a request and the last byte of its answer.
//!
//! Every command moves its keyring by exactly one version, so a keyring can be asked what happened. What
//! counts as failure, for each interrupted command:
//!
//! 1. The keyring's version is neither the one before the command nor the next.
//! 2. An answer was read, in part or whole, and the command has not happened.
//! 3. The same request with its Idempotency-Key does not succeed; or is marked as a replay when the command
//!    had not happened; or is not when it had; or says something else than what was read of the first answer.
//! 4. After that the version is not the next, or a third request gets another answer.
//! 5. A keyring has two active or two pending secrets.

mod dropped;
mod killed;
mod left;
mod script;

use crate::support::http::{Api, Reply, Request};
use crate::support::{SOON, eventually};

/// A command and the keyring that it moves.
#[derive(Debug, Clone)]
struct Command {
    keyring: String,
    path: String,
    body: &'static str,
    key: String,
    /// The keyring's version before it.
    before: u64,
}

/// How far a command had come when it was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing can have happened: the request was not whole.
    NotDone,
    /// Something of its answer was read.
    Done,
    /// The request was whole, and no answer was read.
    Unknown,
}

impl Command {
    fn request(&self, api: &Api) -> Request {
        api.request("POST", &self.path)
            .header("idempotency-key", &self.key)
            .body(self.body.as_bytes())
    }

    /// Finds the keyring in one of its two legal states, repeats the command, and answers what it said.
    /// `resting` says that nothing of the interrupted request can still be under way.
    async fn repeat(&self, api: &Api, known: Known, resting: bool) -> (Reply, bool) {
        let found = version(api, &self.keyring).await;
        let next = self.before + 1;
        assert!((self.before..=next).contains(&found), "{self:?}: {found}");
        match known {
            Known::NotDone => assert_eq!(found, self.before, "{self:?} happened"),
            Known::Done => assert_eq!(found, next, "{self:?} was answered and is lost"),
            Known::Unknown => {}
        }
        let repeated = self.accepted(api).await;
        let replay = repeated.header("idempotency-replayed") == Some("true");
        if known == Known::NotDone {
            assert!(!replay, "{self:?}: {repeated:?}");
        }
        if found == next {
            assert!(replay, "{self:?}: {repeated:?}");
        } else if resting {
            assert!(!replay, "{self:?}: {repeated:?}");
        }
        assert_eq!(version(api, &self.keyring).await, next, "{self:?}");
        let again = self.accepted(api).await;
        assert_eq!(again.body, repeated.body, "{self:?}: another answer");
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(version(api, &self.keyring).await, next, "{self:?}: twice");
        (repeated, replay)
    }

    /// Sends it until the request that was interrupted is out of the way.
    async fn accepted(&self, api: &Api) -> Reply {
        eventually(SOON, "the end of the first request", async || {
            let reply = api.send(self.request(api)).await;
            let busy = reply.status == 409 && reply.json()["code"] == "idempotency_in_progress";
            assert!(busy || reply.status < 300, "{self:?}: {reply:?}");
            (!busy).then_some(reply)
        })
        .await
    }
}

/// The version of a keyring whose secrets are as they must be.
async fn version(api: &Api, keyring: &str) -> u64 {
    let keyring = api.get(&format!("/v1/keyrings/{keyring}")).await.json();
    let secrets = keyring["secrets"].as_array().unwrap();
    let count = |status| secrets.iter().filter(|one| one["status"] == status).count();
    assert_eq!(count("active"), 1, "{keyring}");
    assert!(count("pending") <= 1, "{keyring}");
    keyring["version"].as_u64().unwrap()
}
