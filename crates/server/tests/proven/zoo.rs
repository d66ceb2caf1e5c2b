//! The animals: receivers of every class, each with machines that deploy the new secret one by one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hookturn::telemetry::SystemClock;
use hookturn_core::time::{Clock as _, Timestamp};
use hookturn_verify::{HeaderNames, Received, Scheme, Secret, Verifier, from_fn};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;

use crate::support::{Captured, Receiver};

/// Which of several signatures a verifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Any,
    First,
    Last,
    /// It does not verify.
    Nothing,
}

/// When the machines of a receiver hold the new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deploys {
    /// The first after so many rounds, each further one after as many again.
    AfterRounds(usize),
    Never,
}

/// A kind of receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Animal {
    pub(crate) name: &'static str,
    pub(crate) preset: &'static str,
    pub(crate) reads: Reads,
    pub(crate) deploys: Deploys,
    refusal: u16,
    pub(crate) machines: usize,
    flaps: bool,
    slow: bool,
    tolerance_seconds: u32,
}

impl Animal {
    /// One machine that holds the new secret at once and refuses with 401.
    pub(crate) const fn new(name: &'static str, preset: &'static str, reads: Reads) -> Self {
        Self {
            name,
            preset,
            reads,
            deploys: Deploys::AfterRounds(0),
            refusal: 401,
            machines: 1,
            flaps: false,
            slow: false,
            tolerance_seconds: 300,
        }
    }

    pub(crate) const fn deploys(self, deploys: Deploys) -> Self {
        Self { deploys, ..self }
    }

    pub(crate) const fn refusing(self, refusal: u16) -> Self {
        Self { refusal, ..self }
    }

    pub(crate) const fn fleet(self, machines: usize) -> Self {
        Self { machines, ..self }
    }

    pub(crate) const fn flapping(self) -> Self {
        Self {
            flaps: true,
            ..self
        }
    }

    /// It holds every answer back until the test's clock has ticked twice.
    pub(crate) const fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    pub(crate) const fn tolerating(self, tolerance_seconds: u32) -> Self {
        Self {
            tolerance_seconds,
            ..self
        }
    }

    pub(crate) const fn throws(&self) -> bool {
        self.refusal == 500
    }

    pub(crate) const fn flaps(&self) -> bool {
        self.flaps
    }

    /// What a rehearsal must find it to be.
    pub(crate) fn class(&self) -> &'static str {
        match (self.scheme(), self.reads) {
            (_, Reads::Nothing) => "does_not_verify",
            (Scheme::Standard, Reads::Any) => "list_aware",
            (Scheme::Standard, Reads::First) => "first_only",
            (Scheme::Standard, Reads::Last) => "last_only",
            _ => "single",
        }
    }

    /// Whether nothing more is to come of a receiver that is never promoted.
    pub(crate) fn is_settled(&self, evidence: &Value, round: usize) -> bool {
        let last = match (self.deploys, self.reads) {
            (_, Reads::Nothing) => "does_not_verify",
            (Deploys::Never, _) => "not_ready",
            (Deploys::AfterRounds(_), _) => return false,
        };
        round >= 60 && evidence["standing"] == last
    }

    fn scheme(&self) -> Scheme {
        match self.preset {
            "hopae" => Scheme::Hopae,
            "kore" => Scheme::Kore,
            "github" => Scheme::Github,
            _ => Scheme::Standard,
        }
    }
}

/// A receiver of a kind, and what it did.
pub(crate) struct Beast {
    animal: Animal,
    pub(crate) receiver: Receiver,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    secrets: Mutex<Secrets>,
    /// Machines that hold the new secret.
    deployed: AtomicUsize,
    /// When further machines will hold it, one entry for each.
    deploys_at: Mutex<Vec<Timestamp>>,
    /// Ticks of deliveries that were accepted.
    accepted: Mutex<HashSet<u64>>,
    requests: AtomicUsize,
    /// Deliveries that were refused for their signature; probes are not counted.
    refused: AtomicUsize,
}

#[derive(Default)]
struct Secrets {
    old: Option<Secret>,
    new: Option<Secret>,
}

impl Beast {
    pub(crate) async fn start(animal: Animal) -> Self {
        let (_, still) = watch::channel(0);
        Self::start_ticking(animal, still).await
    }

    /// The same, where the clock that slow ones wait for ticks. They answer at once when it has gone.
    pub(crate) async fn start_ticking(animal: Animal, ticks: watch::Receiver<u64>) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let receiver = Receiver::answering_later(move |captured| {
            let status = shared.answer(animal, captured);
            let mut ticks = ticks.clone();
            async move {
                if animal.slow {
                    let until = *ticks.borrow() + 2;
                    let _ = ticks.wait_for(|tick| *tick >= until).await;
                }
                status
            }
        })
        .await;
        Self {
            animal,
            receiver,
            state,
        }
    }

    /// Deploys to its machines at these moments.
    pub(crate) fn deploy_at(&self, moments: Vec<Timestamp>) {
        *self.state.deploys_at.lock().unwrap() = moments;
    }

    pub(crate) fn accepted(&self, tick: u64) -> bool {
        self.state.accepted.lock().unwrap().contains(&tick)
    }

    pub(crate) fn hold_old(&self, secret: &str) {
        self.state.secrets.lock().unwrap().old = Some(Secret::parse(secret).unwrap());
    }

    pub(crate) fn hold_new(&self, secret: &str) {
        self.state.secrets.lock().unwrap().new = Some(Secret::parse(secret).unwrap());
    }

    /// Deploys what is due by this round.
    pub(crate) fn deploy_by(&self, round: usize) {
        let Deploys::AfterRounds(first) = self.animal.deploys else {
            return;
        };
        let due = match first {
            0 => self.animal.machines,
            first => (round / first).min(self.animal.machines),
        };
        self.state.deployed.store(due, Ordering::SeqCst);
    }

    /// Whether every machine held the new secret at the end.
    pub(crate) fn deployed_before_promotion(&self) -> bool {
        self.state.deployed() == self.animal.machines
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.animal.name
    }

    pub(crate) fn refused_exchanges(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }
}

impl State {
    fn deployed(&self) -> usize {
        let now = SystemClock.now();
        let due = self.deploys_at.lock().unwrap();
        let due = due.iter().filter(|at| **at <= now).count();
        self.deployed.load(Ordering::SeqCst) + due
    }

    fn answer(&self, animal: Animal, captured: &Captured) -> StatusCode {
        let status = self.judge(animal, captured);
        if status.is_success() {
            self.accepted
                .lock()
                .unwrap()
                .extend(tick_of(captured.text()));
        }
        status
    }

    fn judge(&self, animal: Animal, captured: &Captured) -> StatusCode {
        let request = self.requests.fetch_add(1, Ordering::SeqCst);
        // Not every fifth: a retry and the probes between its tries could keep step with that.
        if animal.flaps && (request.wrapping_mul(0x9e37_79b9) >> 16).is_multiple_of(5) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        if animal.reads == Reads::Nothing {
            return StatusCode::OK;
        }
        let machine = request % animal.machines;
        let secrets = self.secrets.lock().unwrap();
        let held = if machine < self.deployed() {
            secrets.new.as_ref()
        } else {
            secrets.old.as_ref()
        };
        let Some(held) = held else {
            return StatusCode::SERVICE_UNAVAILABLE;
        };
        if verifies(animal, held, captured) {
            return StatusCode::OK;
        }
        if !captured.text().contains("\"probe\":true") {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        StatusCode::from_u16(animal.refusal).unwrap()
    }
}

/// The number after `"tick":`, in whatever envelope.
fn tick_of(body: &str) -> Option<u64> {
    let (_, rest) = body.split_once("\"tick\":")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

fn verifies(animal: Animal, held: &Secret, captured: &Captured) -> bool {
    let scheme = animal.scheme();
    let signature = HeaderNames::of(scheme).signature;
    let list = captured.header(&signature).to_owned();
    let seen = match animal.reads {
        Reads::Any | Reads::Nothing => Some(list.as_str()),
        Reads::First => list.split(' ').next(),
        Reads::Last => list.split(' ').next_back(),
    };
    let seen = seen.unwrap_or_default();
    let look_up = |name: &str| {
        if name.eq_ignore_ascii_case(&signature) {
            return Some(seen.as_bytes());
        }
        let mut lines = captured.headers.iter();
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_bytes())
    };
    let headers = from_fn(look_up);
    // KORE signs the configured URL, which has no path here.
    let url = format!("http://{}", captured.header("host"));
    let received = Received {
        method: &captured.method,
        url: &url,
        headers: &headers,
        body: &captured.body,
    };
    let verifier = Verifier::new(scheme).secret("held", held).unwrap();
    verifier
        .tolerance_seconds(animal.tolerance_seconds)
        .verify(&received, SystemClock.now().as_seconds())
        .is_ok()
}
