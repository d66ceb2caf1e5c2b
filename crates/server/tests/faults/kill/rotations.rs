//! A rotation in every round, repeated after the kill with the same key.

use std::time::Duration;

use hookturn_verify::{Scheme, Secret, Verifier};
use serde_json::Value;
use tokio::time::Instant;

use super::load::Written;
use super::receivers::signer;
use crate::support::http::{Api, Reply, Request};
use crate::support::receiver::Arrival;
use crate::support::{Endpoint, text};

/// A request under way when its rotation is answered may arrive a little later.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// One rotation as far as it is known.
struct Rotation {
    secret: String,
    id: String,
    /// When its answer was read: from then on it is in force.
    answered: Instant,
}

/// A rotation that was asked for before the kill.
enum Asked {
    /// The answer was read.
    Answered(Reply),
    /// The server was gone before.
    Unanswered,
}

/// The secrets of one keyring, oldest first.
pub(super) struct Rotations {
    keyring: String,
    first_secret: String,
    done: Vec<Rotation>,
    /// What came of the last one, until it is repeated.
    open: Option<Asked>,
    /// How many were answered after the kill only: replayed, and performed then.
    replayed: usize,
    performed: usize,
}

impl Rotations {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self {
            keyring: endpoint.keyring.clone(),
            first_secret: endpoint.secret.clone(),
            done: Vec::new(),
            open: None,
            replayed: 0,
            performed: 0,
        }
    }

    fn request(&self, api: &Api) -> Request {
        let path = format!("/v1/keyrings/{}/rotations", self.keyring);
        api.request("POST", &path)
            .header("idempotency-key", &format!("rotation-{}", self.done.len()))
            .body(br#"{"mode":"immediate","reason":"kill test"}"#)
    }

    /// Rotates when so many requests were written; the server may be gone before it answers.
    pub(super) async fn open(&mut self, api: Api, written: Written, at: u64) {
        written.reached(at).await;
        let answer = api.try_send(self.request(&api)).await;
        self.open = Some(answer.map_or(Asked::Unanswered, Asked::Answered));
    }

    /// Finds the keyring in one of its two legal states, and repeats the rotation.
    pub(super) async fn repeat(&mut self, api: &Api) {
        let Some(asked) = self.open.take() else {
            return;
        };
        let found = self.newest(api).await;
        let versions = self.done.len() + 1;
        match asked {
            Asked::Answered(_) => {
                assert_eq!(found, versions + 1, "an acknowledged rotation is lost");
            }
            Asked::Unanswered => assert!((versions..=versions + 1).contains(&found), "{found}"),
        }
        let repeated = api.send(self.request(api)).await;
        assert_eq!(repeated.status, 201, "{repeated:?}");
        let was_done = found == versions + 1;
        let replay = repeated.header("idempotency-replayed") == Some("true");
        assert_eq!(replay, was_done, "{repeated:?}");
        if let Asked::Answered(answered) = &asked {
            assert_eq!(answered.body, repeated.body, "another answer to one key");
        } else if replay {
            self.replayed += 1;
        } else {
            self.performed += 1;
        }
        let again = api.send(self.request(api)).await;
        assert_eq!(again.body, repeated.body, "another answer to one key");
        assert_eq!(self.newest(api).await, versions + 1, "rotated twice");
        let answer = repeated.json();
        self.done.push(Rotation {
            secret: text(&answer["secret"], "value"),
            id: text(&answer, "id"),
            answered: Instant::now(),
        });
    }

    /// The version of the one active secret, which is the newest.
    async fn newest(&self, api: &Api) -> usize {
        let keyring = api
            .get(&format!("/v1/keyrings/{}", self.keyring))
            .await
            .json();
        let secrets = keyring["secrets"].as_array().unwrap();
        let version = |secret: &Value| secret["version"].as_u64().unwrap();
        let active: Vec<u64> = secrets
            .iter()
            .filter(|secret| secret["status"] == "active")
            .map(version)
            .collect();
        assert_eq!(active.len(), 1, "{keyring}");
        assert_eq!(secrets.iter().map(version).max(), Some(active[0]));
        assert!(keyring["openRotation"].is_null(), "{keyring}");
        usize::try_from(active[0]).unwrap()
    }

    /// Every request is signed by a secret of the keyring, and none by one that was retired.
    pub(super) fn judge<'a>(&self, arrivals: impl Iterator<Item = &'a Arrival>) {
        let later = self.done.iter().map(|rotation| &rotation.secret);
        let mut verifier = Verifier::new(Scheme::Standard);
        for secret in std::iter::once(&self.first_secret).chain(later) {
            let secret = Secret::parse(secret).unwrap();
            verifier = verifier.secret("version", &secret).unwrap();
        }
        for arrival in arrivals {
            let version = signer(&verifier, arrival);
            if let Some(retired_by) = self.done.get(version) {
                assert!(
                    arrival.at < retired_by.answered + UNDER_WAY,
                    "{} was signed by a secret that {} had retired",
                    arrival.id(),
                    retired_by.id
                );
            }
        }
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} rotations ({} answered by replay, {} performed when repeated)",
            self.done.len(),
            self.replayed,
            self.performed
        )
    }
}
