//! The demo: a real server, real receivers on loopback, and rotations that prove themselves while
//! events flow.
//!
//! It starts the server on a temporary store and eight receivers that verify in different ways. While
//! it publishes over HTTP, it rehearses every receiver, opens a rotation of mode `proven` for each,
//! and lets each owner deploy the new secret at another moment: one late, one machine by machine, and
//! one whose receiver verifies nothing, so that it makes no difference. It ends when every rotation
//! that can be proved is over. The policy is the default one with shorter times; the passes and the
//! confidence are the real ones.
//!
//! Every figure of traffic is counted by the receivers, and every word about proof is the server's;
//! nothing is computed from what should have happened.

mod api;
mod receiver;
mod report;
mod story;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::id::{Entropy, draw};
use hookturn_core::time::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::{Failure, Server, explain};
use crate::config::{self, Config, Flags};
use crate::telemetry::{SystemClock, SystemEntropy};
use api::{Api, ApiError};
use receiver::{Receiver, Verifying};
pub use report::{Proved, Report, Row};
use story::Story;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Messages a second.
    pub per_second: u32,
    /// Time between two deployments of receivers.
    pub step: Duration,
    /// Whether progress is told on standard error.
    pub progress: Telling,
}

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Not at all.
    Not,
    /// A line for each thing that happens.
    Lines,
    /// The same, above a bar.
    Bar,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            per_second: 300,
            step: Duration::from_secs(1),
            progress: if std::io::stderr().is_terminal() {
                Telling::Bar
            } else {
                Telling::Lines
            },
        }
    }
}

/// Why the demo could not be shown to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The server did not start.
    #[error("the demo's server did not start")]
    Server(#[from] Failure),
    /// Its own configuration was refused.
    #[error("the demo's configuration was refused")]
    Config(#[from] config::ConfigError),
    /// A request to the server failed.
    #[error("a request to the demo's server failed")]
    Api(#[from] ApiError),
    /// A receiver or the temporary directory could not be made.
    #[error("cannot prepare the demo")]
    Prepare(#[from] std::io::Error),
    /// The task that publishes did not come to its end.
    #[error("the demo stopped publishing")]
    Publisher(#[from] tokio::task::JoinError),
    /// Rotations did not end in time.
    #[error(
        "{missing} rotations were not over after {seconds} seconds; the server is not keeping up with this machine"
    )]
    Unproved {
        /// How many.
        missing: usize,
        /// After how long.
        seconds: u64,
    },
    /// Deliveries did not end in time.
    #[error(
        "{missing} deliveries did not arrive within {seconds} seconds; the server is not keeping up with this machine"
    )]
    Unfinished {
        /// How many.
        missing: u64,
        /// After how long.
        seconds: u64,
    },
}

/// A server on a temporary store. Until [`Demo::stop`] it runs, whatever is shown of it.
pub struct Demo {
    server: Server,
    receivers: Vec<Receiver>,
    directory: Directory,
    /// Where the server listens.
    pub url: String,
    /// A key that opens everything in it.
    pub key: String,
}

/// How long the rotations may take, and after them the last deliveries.
const PATIENCE: Duration = Duration::from_secs(90);

/// The policy: the passes and the confidence of the default one, its hours and days as seconds.
fn policy() -> Value {
    json!({
        "confidencePercent": 95,
        "stalePercent": 5,
        "holdDownMillis": 1_000,
        "probeEveryMillis": 100,
        "probeBackOffMaxMillis": 500,
        "probesPerHour": 10_000,
        "controlEveryMillis": 5_000,
        "quietMillis": 2_000,
        "deadlineMillis": 300_000,
    })
}

impl Demo {
    /// Starts the server.
    pub async fn start() -> Result<Self, DemoError> {
        let entropy = SystemEntropy;
        let directory = Directory::new(&entropy)?;
        let key = format!("sk_workspace_test_{}", hex::encode(draw::<32>(&entropy)));
        let server = Server::start(&demo_config(&directory.0, &key)?).await?;
        Ok(Self {
            url: format!("http://{}", server.address()),
            server,
            receivers: Vec::new(),
            directory,
            key,
        })
    }

    /// Shows everything, and returns what was counted. It may be broken off at any moment.
    pub async fn show(&mut self, options: Options) -> Result<Report, DemoError> {
        let address = self.server.address();
        let mut api = Api::connect(address, &self.key).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let app = api.post("/v1/apps", &json!({ "name": "demo" })).await?;
        let client_id = text(&app, "/clientId");
        for verifying in Verifying::ALL {
            let receiver = start_receiver(&mut api, &client_id, verifying, &clock).await?;
            self.receivers.push(receiver);
        }
        let receivers = &mut self.receivers;
        let started = Instant::now();
        let publisher = Publisher::start(address, &self.key, &client_id, options).await?;
        let mut story = Story::new(options, started);
        story.rehearse(&mut api, receivers).await?;
        story.open(&mut api, receivers, &policy()).await?;
        let told = story.until_over(&mut api, receivers).await;
        let messages = publisher.stop().await?;
        told?;
        story.say("every rotation that can be proved is over: waiting for the last deliveries");
        settle(receivers, messages).await?;
        story.end();
        Ok(Report {
            messages,
            seconds: started.elapsed().as_secs_f64(),
            rows: receivers.iter().map(|r| r.row(messages)).collect(),
        })
    }

    /// Stops server and receivers and removes the temporary store.
    pub async fn stop(self) {
        self.server.stop().await;
        drop(self.receivers);
        drop(self.directory);
    }
}

fn demo_config(data_dir: &Path, key: &str) -> Result<Config, DemoError> {
    let env: BTreeMap<String, String> = [
        ("HOOKTURN_BOOTSTRAP_API_KEY", key),
        ("HOOKTURN_ALLOW_NETS", "127.0.0.0/8,::1/128"),
        ("HOOKTURN_ALLOW_HTTP", "true"),
        ("HOOKTURN_CONFIG", ""),
        ("HOOKTURN_LOG", "error"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let flags = Flags {
        config: Some("/dev/null".into()),
        data_dir: Some(data_dir.to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        ..Flags::default()
    };
    Ok(config::load(flags, &env)?)
}

async fn start_receiver(
    api: &mut Api,
    client_id: &str,
    verifying: Verifying,
    clock: &Arc<dyn Clock>,
) -> Result<Receiver, DemoError> {
    let mut receiver = Receiver::start(verifying, Arc::clone(clock)).await?;
    let made = api
        .post(
            &format!("/v1/apps/{client_id}/endpoints"),
            &json!({
                "url": receiver.url(),
                "preset": verifying.preset(),
                "description": verifying.name(),
                "retry": { "delaysMillis": [200, 500, 1_000, 2_000, 2_000, 2_000], "jitterPercent": 20, "retryOn": "anyFailure" },
            }),
        )
        .await?;
    receiver.holds(
        &text(&made, "/id"),
        &text(&made, "/keyringId"),
        &text(&made, "/secret/value"),
    );
    Ok(receiver)
}

/// Publishes at a steady rate until it is told to stop.
struct Publisher {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<u64, ApiError>>,
}

impl Publisher {
    async fn start(
        address: SocketAddr,
        key: &str,
        client_id: &str,
        options: Options,
    ) -> Result<Self, DemoError> {
        let api = Api::connect(address, key).await?;
        let path = format!("/v1/apps/{client_id}/messages");
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(publish(api, path, options.per_second, stopping));
        Ok(Self { stop, task })
    }

    /// Ends it; returns how many messages were answered 202.
    async fn stop(mut self) -> Result<u64, DemoError> {
        let _ = self.stop.send(true);
        Ok((&mut self.task).await??)
    }
}

impl Drop for Publisher {
    /// A demo that is broken off publishes no more.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish(
    mut api: Api,
    path: String,
    per_second: u32,
    stopping: watch::Receiver<bool>,
) -> Result<u64, ApiError> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut accepted = 0;
    while !*stopping.borrow() {
        pace.tick().await;
        let event = json!({
            "eventType": "order.paid",
            "payload": { "order": accepted, "total": 49.90, "currency": "EUR" },
        });
        api.post(&path, &event).await?;
        accepted += 1;
    }
    Ok(accepted)
}

/// Waits until every receiver has accepted every message.
async fn settle(receivers: &[Receiver], messages: u64) -> Result<(), DemoError> {
    let all = async {
        for receiver in receivers {
            receiver.has_accepted(messages).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        let missing = receivers
            .iter()
            .map(|r| messages - r.accepted().min(messages))
            .sum();
        return Err(DemoError::Unfinished {
            missing,
            seconds: PATIENCE.as_secs(),
        });
    }
    Ok(())
}

fn text(answer: &Value, pointer: &str) -> String {
    answer
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A temporary directory that goes with the demo.
struct Directory(PathBuf);

impl Directory {
    fn new(entropy: &dyn Entropy) -> std::io::Result<Self> {
        let name = format!("hookturn-demo-{}", hex::encode(draw::<6>(entropy)));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| {
            let place = path.display();
            std::io::Error::new(error.kind(), format!("cannot make {place}: {error}"))
        })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %explain(&error), "the demo's directory could not be removed");
        }
    }
}
