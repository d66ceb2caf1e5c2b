//! The demo's receivers: small servers that verify as real ones do, each in its own way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use hookturn_core::proof::{ProofPolicy, ruled_out_percent};
use hookturn_core::time::Clock;
use hookturn_verify::{HeaderNames, Received, Scheme, Secret, Verifier, from_fn};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::report::{Proved, Row};

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
    /// GitHub's scheme: one signature. It answers 500 when that does not match.
    Throwing,
    /// Four machines behind one address, which get the new secret one after the other.
    Fleet,
    /// With a library, but its owner deploys long after the others.
    Late,
    /// Not at all: it accepts everything.
    Nothing,
}

/// Machines of [`Verifying::Fleet`].
const MACHINES: usize = 4;

impl Verifying {
    pub(super) const ALL: [Self; 8] = [
        Self::Library,
        Self::FirstOnly,
        Self::LastOnly,
        Self::Hopae,
        Self::Throwing,
        Self::Fleet,
        Self::Late,
        Self::Nothing,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::FirstOnly => "reads the first",
            Self::LastOnly => "reads the last",
            Self::Hopae => "hopae",
            Self::Throwing => "500 when wrong",
            Self::Fleet => "rolling fleet",
            Self::Late => "late deploy",
            Self::Nothing => "careless",
        }
    }

    pub(super) const fn preset(self) -> &'static str {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late | Self::Nothing => {
                "standard"
            }
            Self::Hopae | Self::Fleet => "hopae",
            Self::Throwing => "github",
        }
    }

    const fn scheme(self) -> Scheme {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late | Self::Nothing => {
                Scheme::Standard
            }
            Self::Hopae | Self::Fleet => Scheme::Hopae,
            Self::Throwing => Scheme::Github,
        }
    }

    /// What it answers to a signature that does not match.
    const fn refusal(self) -> StatusCode {
        match self {
            Self::Throwing => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Library
            | Self::FirstOnly
            | Self::LastOnly
            | Self::Hopae
            | Self::Fleet
            | Self::Late
            | Self::Nothing => StatusCode::UNAUTHORIZED,
        }
    }

    /// After how many steps it deploys its new secret, a fleet its first machine.
    const fn deploys_after(self) -> u32 {
        match self {
            Self::Library | Self::Nothing => 1,
            Self::FirstOnly | Self::Fleet => 2,
            Self::LastOnly => 3,
            Self::Hopae => 4,
            Self::Throwing => 5,
            Self::Late => 9,
        }
    }

    const fn machines(self) -> usize {
        match self {
            Self::Fleet => MACHINES,
            Self::Library
            | Self::FirstOnly
            | Self::LastOnly
            | Self::Hopae
            | Self::Throwing
            | Self::Late
            | Self::Nothing => 1,
        }
    }

    /// The message id's header.
    const fn id_header(self) -> &'static str {
        match self {
            Self::Library | Self::FirstOnly | Self::LastOnly | Self::Late | Self::Nothing => {
                "webhook-id"
            }
            Self::Hopae | Self::Fleet => "x-hopae-signature",
            Self::Throwing => "x-github-delivery",
        }
    }
}

pub(super) struct Receiver {
    verifying: Verifying,
    port: u16,
    endpoint: String,
    keyring: String,
    class: String,
    rotation: OnceLock<String>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    verifying: Verifying,
    clock: Arc<dyn Clock>,
    state: Mutex<Held>,
    requests: AtomicUsize,
    accepted: watch::Sender<u64>,
}

/// What a receiver holds and has seen.
#[derive(Default)]
struct Held {
    old: Option<Secret>,
    new: Option<Secret>,
    /// Machines that hold the new secret.
    deployed: usize,
    deployed_seconds: Option<f64>,
    proved: Option<Proved>,
    words: String,
    old_is_retired: bool,
    over: bool,
    seen: HashMap<String, u32>,
    refused: u64,
    probes: u64,
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
            requests: AtomicUsize::new(0),
            accepted: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/hooks", post(receive))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Ends with the task, which ends with the receiver.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            verifying,
            port,
            endpoint: String::new(),
            keyring: String::new(),
            class: String::new(),
            rotation: OnceLock::new(),
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

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn keyring(&self) -> &str {
        &self.keyring
    }

    pub(super) fn rotation(&self) -> &str {
        self.rotation.get().map_or("", String::as_str)
    }

    /// Its owner copies the first secret into it.
    pub(super) fn holds(&mut self, endpoint: &str, keyring: &str, secret: &str) {
        endpoint.clone_into(&mut self.endpoint);
        keyring.clone_into(&mut self.keyring);
        self.shared.state().old = Secret::parse(secret).ok();
    }

    /// A rehearsal found out its class.
    pub(super) fn found(&mut self, class: String) {
        self.class = class;
    }

    /// Its owner gets the new secret, to be deployed later.
    pub(super) fn rotated(&self, rotation: &str, secret: &str) {
        let _ = self.rotation.set(rotation.to_owned());
        self.shared.state().new = Secret::parse(secret).ok();
    }

    /// Deploys the new secret on the machines whose time has come. Returns how many of them hold it, if
    /// that changed, and how many there are.
    pub(super) fn deploys_by(&self, elapsed: Duration, step: Duration) -> Option<(usize, usize)> {
        let all = self.verifying.machines();
        let first = step * self.verifying.deploys_after();
        let due = (0_u32..)
            .zip(0..all)
            .filter(|(nth, _)| elapsed >= first + step * *nth)
            .count();
        let mut state = self.shared.state();
        if due <= state.deployed {
            return None;
        }
        state.deployed = due;
        Some((due, all))
    }

    /// Every machine holds the new secret since then.
    pub(super) fn has_deployed(&self, seconds: f64) {
        self.shared.state().deployed_seconds = Some(seconds);
    }

    pub(super) fn deployed(&self) -> bool {
        self.shared.state().deployed_seconds.is_some()
    }

    /// What the server says of it.
    pub(super) fn is_said(&self, words: &str) {
        words.clone_into(&mut self.shared.state().words);
    }

    pub(super) fn words(&self) -> String {
        self.shared.state().words.clone()
    }

    /// The new secret was promoted on proof. Returns whether that is news.
    pub(super) fn was_promoted(&self, passes: u64, promoted_seconds: f64) -> bool {
        let counted = u32::try_from(passes).unwrap_or(u32::MAX);
        let proved = Proved {
            passes,
            rules_out_percent: ruled_out_percent(&ProofPolicy::default(), counted),
            promoted_seconds,
        };
        let mut state = self.shared.state();
        let news = state.proved.is_none();
        state.proved.get_or_insert(proved);
        news
    }

    /// Nothing can be proved about it, so nothing more comes of its rotation.
    pub(super) fn cannot_be_proved(&self) {
        self.shared.state().over = true;
    }

    /// Its rotation is over: from now on a signature by the old secret is a broken promise (G4).
    pub(super) fn old_is_retired(&self) {
        let mut state = self.shared.state();
        state.old_is_retired = true;
        state.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.shared.state().over
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
            class: self.class.clone(),
            deployed_seconds: state.deployed_seconds,
            proved: state.proved,
            words: state.words.clone(),
            sent,
            delivered,
            refused: state.refused,
            probes: state.probes,
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
            Verifying::Library
            | Verifying::Hopae
            | Verifying::Throwing
            | Verifying::Fleet
            | Verifying::Late
            | Verifying::Nothing => Some(list),
        };
        seen.unwrap_or_default().to_vec()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let verifying = shared.verifying;
    let machine = shared.requests.fetch_add(1, Ordering::Relaxed) % verifying.machines();
    let mut state = shared.state();
    let held = if machine < state.deployed {
        state.new.clone()
    } else {
        state.old.clone()
    };
    let Some(held) = held else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let is_probe = is_probe(&body);
    if is_probe {
        state.probes += 1;
    }
    let by_old = |state: &Held| {
        let old = state.old.as_ref();
        old.is_some_and(|old| shared.verifies(old, &headers, &body))
    };
    if state.old_is_retired && by_old(&state) {
        state.by_old_after_retirement += 1;
    }
    if verifying != Verifying::Nothing && !shared.verifies(&held, &headers, &body) {
        if !is_probe {
            state.refused += 1;
        }
        return verifying.refusal();
    }
    if is_probe {
        return StatusCode::NO_CONTENT;
    }
    let id = match verifying {
        // Hopae carries the id in its envelope.
        Verifying::Hopae | Verifying::Fleet => event_id(&body),
        _ => headers
            .get(verifying.id_header())
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

/// A receiver of one's own may tell probes by their type; these tell them by their body.
fn is_probe(body: &[u8]) -> bool {
    let probe = br#""probe":true"#;
    body.windows(probe.len()).any(|window| window == probe)
}

fn event_id(body: &[u8]) -> Option<String> {
    let envelope: serde_json::Value = serde_json::from_slice(body).ok()?;
    envelope["eventId"].as_str().map(str::to_owned)
}
