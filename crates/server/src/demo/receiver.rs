//! The demo's receivers: small servers that verify as real ones do, each in its own way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use hookturn_core::time::Clock;
use hookturn_verify::{Fingerprint, HeaderNames, Received, Scheme, Secret, Verifier, from_fn};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::report::Row;

/// How a receiver verifies, and when it deploys the new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verifying {
    /// With a Standard Webhooks library: any of several signatures may match.
    Library,
    /// Home-made: reads the first of several signatures only.
    FirstOnly,
    /// Home-made: reads the last of several signatures only.
    LastOnly,
    /// Hopae's scheme: one signature.
    Hopae,
    /// GitHub's scheme: one signature. It also has trouble: every twentieth request gets a 503.
    FlakyGithub,
    /// With a library, but its owner deploys at the last moment.
    Late,
}

impl Verifying {
    pub(super) const ALL: [Self; 6] = [
        Self::Library,
        Self::FirstOnly,
        Self::LastOnly,
        Self::Hopae,
        Self::FlakyGithub,
        Self::Late,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::FirstOnly => "first signature only",
            Self::LastOnly => "last signature only",
            Self::Hopae => "hopae, one signature",
            Self::FlakyGithub => "github, flaky",
            Self::Late => "late deploy",
        }
    }

    pub(super) const fn preset(self) -> &'static str {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late => "standard",
            Self::Hopae => "hopae",
            Self::FlakyGithub => "github",
        }
    }

    const fn scheme(self) -> Scheme {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late => Scheme::Standard,
            Self::Hopae => Scheme::Hopae,
            Self::FlakyGithub => Scheme::Github,
        }
    }

    /// How much of the messages is published when it deploys its new secret, in percent.
    const fn deploys_at(self) -> u32 {
        match self {
            Self::Library => 30,
            Self::FirstOnly => 40,
            Self::LastOnly => 50,
            Self::Hopae => 60,
            Self::FlakyGithub => 70,
            Self::Late => 98,
        }
    }

    /// The message id's header.
    const fn id_header(self) -> &'static str {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late => "webhook-id",
            Self::Hopae => "x-hopae-signature",
            Self::FlakyGithub => "x-github-delivery",
        }
    }
}

pub(super) struct Receiver {
    verifying: Verifying,
    port: u16,
    keyring: String,
    rotation: OnceLock<String>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    verifying: Verifying,
    clock: Arc<dyn Clock>,
    state: Mutex<Held>,
    requests: AtomicU32,
    accepted: watch::Sender<u64>,
}

/// What a receiver holds and has seen.
#[derive(Default)]
struct Held {
    holds: Option<Secret>,
    new: Option<Secret>,
    old: Option<Fingerprint>,
    deployed: bool,
    old_is_retired: bool,
    seen: HashMap<String, u32>,
    refused: u64,
    unavailable: u64,
    by_old_after_retirement: u64,
}

impl Receiver {
    pub(super) async fn start(
        verifying: Verifying,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            verifying,
            clock,
            state: Mutex::default(),
            requests: AtomicU32::new(0),
            accepted: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/hooks", post(receive))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Ends with the task, which ends with the receiver.
            let _ = axum::serve(listener, router).await;
        });
        let rotation = OnceLock::new();
        Ok(Self {
            verifying,
            port,
            keyring: String::new(),
            rotation,
            shared,
            task,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        self.verifying.name()
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks", self.port)
    }

    pub(super) fn keyring(&self) -> &str {
        &self.keyring
    }

    pub(super) fn rotation(&self) -> &str {
        self.rotation.get().map_or("", String::as_str)
    }

    /// Its owner copies the first secret into it.
    pub(super) fn holds(&mut self, keyring: &str, secret: &str) {
        keyring.clone_into(&mut self.keyring);
        self.shared.state().holds = Secret::parse(secret).ok();
    }

    /// Its owner gets the new secret, to be deployed later.
    pub(super) fn rotated(&self, rotation: &str, secret: &str) {
        let _ = self.rotation.set(rotation.to_owned());
        let mut state = self.shared.state();
        state.old = state.holds.as_ref().map(Secret::fingerprint);
        state.new = Secret::parse(secret).ok();
    }

    /// Deploys the new secret if its time has come. Returns whether it did.
    pub(super) fn deploys_at(&self, percent: u32) -> bool {
        let mut state = self.shared.state();
        if state.deployed || percent < self.verifying.deploys_at() {
            return false;
        }
        let Some(new) = state.new.clone() else {
            return false;
        };
        state.holds = Some(new);
        state.deployed = true;
        true
    }

    /// From now on a signature by the old secret is a broken promise (G4).
    pub(super) fn old_is_retired(&self) {
        self.shared.state().old_is_retired = true;
    }

    pub(super) fn accepted(&self) -> u64 {
        *self.shared.accepted.borrow()
    }

    pub(super) async fn has_accepted(&self, messages: u64) {
        let mut accepted = self.shared.accepted.subscribe();
        // The sender lives as long as this receiver.
        let _ = accepted.wait_for(|accepted| *accepted >= messages).await;
    }

    pub(super) fn row(&self, sent: u64) -> Row {
        let state = self.shared.state();
        let delivered = state.seen.len() as u64;
        Row {
            receiver: self.name(),
            preset: self.verifying.preset(),
            deployed_percent: state.deployed.then(|| self.verifying.deploys_at()),
            sent,
            delivered,
            rejected: state.refused,
            unavailable: state.unavailable,
            lost: sent - delivered.min(sent),
            duplicates: state.seen.values().map(|times| u64::from(times - 1)).sum(),
            old_key_after_retirement: state.by_old_after_retirement,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verifies(&self, secret: &Secret, headers: &HeaderMap, body: &[u8]) -> bool {
        let scheme = self.verifying.scheme();
        let signature = HeaderNames::of(scheme).signature;
        let kept = headers
            .get(&*signature)
            .map(|value| self.visible_signature(value.as_bytes()));
        let look_up = |name: &str| {
            if name.eq_ignore_ascii_case(&signature) {
                kept.as_deref()
            } else {
                headers.get(name).map(http::HeaderValue::as_bytes)
            }
        };
        let Ok(verifier) = Verifier::new(scheme).secret("held", secret) else {
            return false;
        };
        let headers = from_fn(look_up);
        let received = Received {
            method: "POST",
            url: "",
            headers: &headers,
            body,
        };
        verifier
            .verify(&received, self.clock.now().as_seconds())
            .is_ok()
    }

    /// What a verifier of this kind sees of a list of signatures.
    fn visible_signature(&self, list: &[u8]) -> Vec<u8> {
        let mut signatures = list.split(|byte| *byte == b' ');
        let seen = match self.verifying {
            Verifying::FirstOnly => signatures.next(),
            Verifying::LastOnly => signatures.next_back(),
            Verifying::Library | Verifying::Hopae | Verifying::FlakyGithub | Verifying::Late => {
                Some(list)
            }
        };
        seen.unwrap_or_default().to_vec()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let request = shared.requests.fetch_add(1, Ordering::Relaxed);
    let mut state = shared.state();
    let Some(held) = state.holds.clone() else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    if shared.verifying == Verifying::FlakyGithub && request % 20 == 19 {
        state.unavailable += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if !shared.verifies(&held, &headers, &body) {
        state.refused += 1;
        return StatusCode::UNAUTHORIZED;
    }
    if state.old_is_retired && state.old == Some(held.fingerprint()) {
        state.by_old_after_retirement += 1;
    }
    let id = match shared.verifying {
        // Hopae carries the id in its envelope.
        Verifying::Hopae => event_id(&body),
        _ => headers
            .get(shared.verifying.id_header())
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned),
    };
    let Some(id) = id else {
        return StatusCode::BAD_REQUEST;
    };
    *state.seen.entry(id).or_insert(0) += 1;
    let accepted = state.seen.len() as u64;
    drop(state);
    shared.accepted.send_replace(accepted);
    StatusCode::NO_CONTENT
}

fn event_id(body: &[u8]) -> Option<String> {
    let envelope: serde_json::Value = serde_json::from_slice(body).ok()?;
    envelope["eventId"].as_str().map(str::to_owned)
}
