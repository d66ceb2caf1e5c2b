//! The whole zoo: every kind of receiver, deploying at every moment of the window, in every scheme, in
//! mode `proven` and in mode `overlap`.
//!
//! Windows are three seconds long. A clock that ticks ten times a second is the traffic: each tick
//! publishes a message to every receiver. When a machine holds the new secret is decided by the time
//! at which a request reaches it, so nothing waits for a deployment.
//!
//! What must hold:
//! - G6: deployed before the deadline (in mode `proven`, ever), no message is lost. After it, what was
//!   refused is visibly pending or exhausted.
//! - G7: only receivers that hold the new secret and verify are promoted on proof, and not before their
//!   last machine holds it.
//! - A receiver of one machine refuses at most 30 deliveries for their signature.
//! - The rehearsal tells the class of every receiver.

use std::sync::Arc;
use std::time::Duration;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::{Clock as _, Millis, SECOND, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::support::{Api, Server, engine};
use super::zoo::{Animal, Beast, Reads};

/// From the opening of a rotation to the end of its old secret.
const WINDOW_SECONDS: u64 = 3;
const WINDOW: Millis = WINDOW_SECONDS * SECOND;
/// Time between two messages to one receiver.
const TICK: Duration = Duration::from_millis(100);
/// Ticks after which a rotation that should be over is given up.
const TICKS_MAX: u64 = 600;
/// How long a rotation that nothing ends is watched after its deadline.
const AFTERMATH: Millis = 700;
/// Receivers that are rotated at a time.
const AT_ONCE: usize = 45;
/// The same where a commit takes longer: what is due in a window of three seconds has to fit into it.
const AT_ONCE_ON_POSTGRES: usize = 10;
/// Between the machines of a fleet.
const ROLLING: Millis = 100;
/// Deliveries that a receiver of one machine may refuse in one rotation.
const REFUSALS_MAX: usize = 30;

/// When the last machine of a receiver holds the new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    AtOnce,
    Midway,
    JustBefore,
    JustAfter,
    Never,
}

const WHENS: [When; 5] = [
    When::AtOnce,
    When::Midway,
    When::JustBefore,
    When::JustAfter,
    When::Never,
];

impl When {
    /// The moments at which each machine deploys, the last one as this says.
    fn moments(self, opened: Timestamp, machines: usize) -> Vec<Timestamp> {
        let deadline = opened.after(WINDOW);
        let last = match self {
            Self::AtOnce => opened,
            Self::Midway => opened.after(WINDOW / 2),
            Self::JustBefore => deadline.before(100),
            Self::JustAfter => deadline.after(150),
            Self::Never => return Vec::new(),
        };
        (0..machines as u64)
            .map(|machine| last.before(machine * ROLLING))
            .collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Overlap,
    Proven,
}

impl Mode {
    fn rotation(self) -> Value {
        match self {
            Self::Overlap => json!({ "mode": "overlap", "overlapSeconds": WINDOW_SECONDS }),
            Self::Proven => json!({ "mode": "proven", "policy": {
                "confidencePercent": 80,
                "stalePercent": 20,
                "holdDownMillis": 200,
                "probeEveryMillis": 5,
                "probeBackOffMaxMillis": 250,
                "probesPerHour": 100_000,
                "quietMillis": 300,
                "deadlineMillis": WINDOW,
                "extendMillis": SECOND,
                "canaryPercent": [10, 50, 50],
            }}),
        }
    }
}

/// One rotation of one receiver.
#[derive(Clone, Copy)]
struct Case {
    animal: Animal,
    when: When,
    mode: Mode,
}

/// What came of it.
struct Outcome {
    rotation: Value,
    beast: Beast,
    published: u64,
    /// Deliveries that are pending or exhausted.
    undelivered: usize,
    deployed_at: Option<Timestamp>,
}

impl Case {
    fn name(&self) -> String {
        let Self { animal, when, mode } = self;
        format!("{} {} {when:?} {mode:?}", animal.preset, animal.name)
    }

    /// Whether it ends by proof.
    fn is_proved(&self) -> bool {
        self.mode == Mode::Proven && self.when != When::Never && self.animal.reads != Reads::Nothing
    }

    /// Whether every message must be delivered.
    fn is_in_time(&self) -> bool {
        self.mode == Mode::Proven
            || self.animal.reads == Reads::Nothing
            || !matches!(self.when, When::JustAfter | When::Never)
    }

    /// Refused deliveries, where they are bounded. A fleet refuses whichever key signs for as long as
    /// it mixes old and new, and one that comes too late for as long as it is late.
    fn refused(&self, outcome: &Outcome) -> usize {
        if self.is_in_time() && self.animal.machines == 1 {
            outcome.beast.refused_exchanges()
        } else {
            0
        }
    }

    async fn run(&self, api: &Api, mut ticks: watch::Receiver<u64>) -> Outcome {
        let app = api.create_app(&self.name()).await;
        let mut beast = Beast::start_ticking(self.animal, ticks.clone()).await;
        let endpoint = json!({
            "url": beast.receiver.origin(),
            "preset": self.animal.preset,
            "retry": { "delaysMillis": vec![50; 20], "retryOn": "anyFailure" },
        });
        let endpoint = api.create_endpoint(&app, &endpoint).await;
        beast.hold_old(&endpoint.secret.value);
        super::warm_up(api, &app, &mut beast).await;
        self.rehearse(api, &endpoint.id).await;
        let opened_at = SystemClock.now();
        let opened = api
            .rotate(&endpoint.keyring_id, &self.mode.rotation())
            .await;
        beast.hold_new(&opened.secret.value);
        let moments = self.when.moments(opened_at, self.animal.machines);
        let deployed_at = moments.iter().max().copied();
        beast.deploy_at(moments);
        let path = format!("/v1/rotations/{}", opened.id);
        let until = opened_at.after(WINDOW + AFTERMATH);
        for tick in 0..TICKS_MAX {
            ticks.changed().await.unwrap();
            let payload = format!("{{\"tick\":{tick}}}");
            api.publish(&app, "zoo.fed", &payload).await;
            let late = SystemClock.now() >= until;
            if !late && tick % 4 > 0 {
                continue;
            }
            let rotation = api.get(&path).await;
            let over = if self.is_proved() {
                rotation["open"] == false
            } else {
                late
            };
            if over {
                // One that never deploys refuses for as long as its messages are retried.
                if self.is_in_time() || self.when != When::Never {
                    settle(api, &app, &mut ticks).await;
                }
                return Outcome {
                    undelivered: undelivered(api, &app).await,
                    rotation: api.get(&path).await,
                    beast,
                    published: tick + 1,
                    deployed_at,
                };
            }
        }
        panic!("{}: {}", self.name(), api.get(&path).await);
    }

    /// Until the class is told: a receiver that flaps may be found unreachable at first.
    async fn rehearse(&self, api: &Api, endpoint: &str) {
        let path = format!("/v1/endpoints/{endpoint}/rehearse");
        loop {
            let found = api.post(&path, &json!({})).await;
            let class = found["class"].as_str().unwrap();
            if class == self.animal.class() {
                return;
            }
            let open = self.animal.flaps() && ["unreachable", "unknown"].contains(&class);
            assert!(open, "{}: {found}", self.name());
        }
    }

    fn check(&self, outcome: &Outcome) {
        let (name, rotation) = (self.name(), &outcome.rotation);
        let missing = (0..outcome.published).filter(|tick| !outcome.beast.accepted(*tick));
        let missing = missing.count();
        assert_eq!(missing, outcome.undelivered, "{name}: lost without a trace");
        if self.is_in_time() {
            assert_eq!(missing, 0, "{name}: messages were lost: {rotation}");
        }
        let refused = self.refused(outcome);
        assert!(refused <= REFUSALS_MAX, "{name}: {refused} were refused");
        match self.mode {
            Mode::Overlap => assert_eq!(rotation["stage"], "completed", "{name}: {rotation}"),
            Mode::Proven => self.check_proof(outcome),
        }
    }

    fn check_proof(&self, outcome: &Outcome) {
        let (name, rotation) = (self.name(), &outcome.rotation);
        let standing = &rotation["endpoints"][0]["standing"];
        if !self.is_proved() {
            assert_eq!(rotation["stage"], "staged", "{name}: {rotation}");
            let expected: &[&str] = match self.animal.reads {
                Reads::Nothing => &["does_not_verify"],
                // What it answered last may have been a 500 or a 503, which say nothing.
                Reads::Any | Reads::First | Reads::Last
                    if self.animal.throws() || self.animal.flaps() =>
                {
                    &["not_ready", "unreachable"]
                }
                Reads::Any | Reads::First | Reads::Last => &["not_ready"],
            };
            assert!(
                expected.contains(&standing.as_str().unwrap()),
                "{name}: {rotation}"
            );
            return;
        }
        let promotion = &rotation["promotion"];
        assert_eq!(promotion["grounds"], "proof", "{name}: {rotation}");
        assert!(
            promotion["proved"][0]["passes"].as_u64() >= Some(8),
            "{name}"
        );
        let at: jiff::Timestamp = promotion["at"].as_str().unwrap().parse().unwrap();
        let deployed_at = outcome.deployed_at.unwrap().as_millis();
        assert!(
            at.as_millisecond() >= deployed_at,
            "{name}: promoted before its last machine held the secret"
        );
    }
}

/// Waits until nothing is pending.
async fn settle(api: &Api, app: &str, ticks: &mut watch::Receiver<u64>) {
    while super::counted(api, app, "pending").await > 0 {
        ticks.changed().await.unwrap();
    }
}

async fn undelivered(api: &Api, app: &str) -> usize {
    let all = api
        .get(&format!("/v1/apps/{app}/deliveries?limit=200"))
        .await;
    assert_eq!(all["hasMore"], false, "too many to look at");
    let all = all["data"].as_array().unwrap().iter();
    all.filter(|delivery| delivery["status"] != "delivered")
        .count()
}

/// Every receiver of a scheme, at every moment, in both modes, all in one server.
async fn the_zoo_of(preset: &'static str, animals: Vec<Animal>) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let (tick, ticks) = watch::channel(0_u64);
    let clock = tokio::spawn(async move {
        let mut period = interval(TICK);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            tick.send_modify(|tick| *tick += 1);
        }
    });
    let at_once = if engine::is_postgres() {
        AT_ONCE_ON_POSTGRES
    } else {
        AT_ONCE
    };
    let room = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    let began = Instant::now();
    let mut cases = 0;
    for animal in animals {
        for when in WHENS {
            for mode in [Mode::Overlap, Mode::Proven] {
                let case = Case { animal, when, mode };
                let (api, ticks, room) = (server.api(), ticks.clone(), Arc::clone(&room));
                cases += 1;
                running.spawn(async move {
                    let _room = room.acquire().await.unwrap();
                    let outcome = case.run(&api, ticks).await;
                    case.check(&outcome);
                    (outcome.published, case.refused(&outcome))
                });
            }
        }
    }
    let (mut messages, mut most_refused) = (0, 0);
    while let Some(ended) = running.join_next().await {
        let (published, refused) = ended.unwrap();
        messages += published;
        most_refused = most_refused.max(refused);
    }
    println!(
        "{preset}: {cases} rotations, {messages} messages, at most {most_refused} refused by one machine in one rotation, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    clock.abort();
    server.stop().await;
}

/// The kinds that every scheme has.
fn of_every_scheme(preset: &'static str) -> Vec<Animal> {
    let any = |name| Animal::new(name, preset, Reads::Any);
    vec![
        any("throws").refusing(500),
        Animal::new("does not verify", preset, Reads::Nothing),
        any("slow").slow(),
        any("flapping").flapping(),
        any("fleet of four").fleet(4),
        any("five seconds").tolerating(5),
    ]
}

#[tokio::test]
async fn g6_g7_the_zoo_under_scheme_standard() {
    let mut animals = of_every_scheme("standard");
    animals.extend([
        Animal::new("list-aware", "standard", Reads::Any),
        Animal::new("first only", "standard", Reads::First),
        Animal::new("last only", "standard", Reads::Last),
    ]);
    the_zoo_of("standard", animals).await;
}

#[tokio::test]
async fn g6_g7_the_zoo_under_scheme_hopae() {
    of_one_signature("hopae").await;
}

#[tokio::test]
async fn g6_g7_the_zoo_under_scheme_kore() {
    of_one_signature("kore").await;
}

#[tokio::test]
async fn g6_g7_the_zoo_under_scheme_github() {
    of_one_signature("github").await;
}

async fn of_one_signature(preset: &'static str) {
    let mut animals = of_every_scheme(preset);
    animals.push(Animal::new("single", preset, Reads::Any));
    the_zoo_of(preset, animals).await;
}
