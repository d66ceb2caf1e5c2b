//! The demo: a real server, real receivers on loopback, and a rotation while events flow.
//!
//! It starts the server on a temporary store, six receivers that verify in different ways, publishes
//! events over HTTP, opens an `overlap` rotation of every receiver's secret in the middle of it, lets
//! each receiver deploy its new secret at another moment, and counts: what was sent, what arrived, what
//! was refused on the way and repaired by the fallback, and what was lost. Every figure is counted by
//! the receivers; nothing is computed from what should have happened.

mod api;
mod receiver;
mod report;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::id::{Entropy, draw};
use hookturn_core::time::Clock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::{Failure, Server, explain};
use crate::config::{self, Config, Flags};
use crate::telemetry::{SystemClock, SystemEntropy};
use api::{Api, ApiError};
use receiver::{Receiver, Verifying};
pub use report::{Report, Row};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Messages to publish.
    pub messages: u32,
    /// Messages a second.
    pub per_second: u32,
    /// Whether progress is shown on standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            messages: 2_000,
            per_second: 400,
            progress: std::io::stderr().is_terminal(),
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

/// A demo that ran and whose server still runs.
pub struct Demo {
    server: Server,
    receivers: Vec<Receiver>,
    directory: Directory,
    /// What was counted.
    pub report: Report,
    /// Where the server listens.
    pub url: String,
    /// A key that opens everything in it.
    pub key: String,
}

/// How long the last deliveries may take after the last message was published.
const PATIENCE: Duration = Duration::from_mins(1);
/// Messages published after the rotations are finished, to see that no old key signs.
const AFTERWARDS: u32 = 100;

/// Runs the demo. The server goes on until [`Demo::stop`].
pub async fn run(options: Options) -> Result<Demo, DemoError> {
    let entropy = SystemEntropy;
    let directory = Directory::new(&entropy)?;
    let key = format!("sk_workspace_test_{}", hex::encode(draw::<32>(&entropy)));
    let server = Server::start(&demo_config(&directory.0, &key)?).await?;
    let url = format!("http://{}", server.address());
    let mut api = Api::connect(server.address(), &key).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let client_id = text(
        &api.post("/v1/apps", &json!({ "name": "demo" })).await?,
        "/clientId",
    );
    let mut receivers = Vec::new();
    for verifying in Verifying::ALL {
        receivers.push(start_receiver(&mut api, &client_id, verifying, &clock).await?);
    }
    let bar = progress(options);
    let started = Instant::now();
    publish(&mut api, &client_id, &receivers, options, &bar).await?;
    bar.set_message("waiting for the last deliveries");
    let accepted = u64::from(options.messages);
    settle(&receivers, accepted).await?;
    bar.set_message("finishing the rotations: the old secrets are retired now");
    for receiver in &receivers {
        let path = format!("/v1/rotations/{}/finish", receiver.rotation());
        api.post(&path, &json!({})).await?;
        receiver.old_is_retired();
    }
    for number in 0..AFTERWARDS {
        api.post(
            &messages_path(&client_id),
            &event(options.messages + number),
        )
        .await?;
    }
    settle(&receivers, accepted + u64::from(AFTERWARDS)).await?;
    bar.finish_and_clear();
    let report = Report {
        messages: accepted + u64::from(AFTERWARDS),
        seconds: started.elapsed().as_secs_f64(),
        rows: receivers
            .iter()
            .map(|r| r.row(accepted + u64::from(AFTERWARDS)))
            .collect(),
    };
    Ok(Demo {
        server,
        receivers,
        directory,
        report,
        url,
        key,
    })
}

impl Demo {
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
                "retry": { "delaysMillis": [200, 500, 1_000, 2_000], "jitterPercent": 20, "retryOn": "anyFailure" },
            }),
        )
        .await?;
    receiver.holds(&text(&made, "/keyringId"), &text(&made, "/secret/value"));
    Ok(receiver)
}

fn messages_path(client_id: &str) -> String {
    format!("/v1/apps/{client_id}/messages")
}

fn event(number: u32) -> Value {
    json!({
        "eventType": "order.paid",
        "payload": { "order": number, "total": 49.90, "currency": "EUR" },
    })
}

/// Publishes at a steady rate. A quarter of the way in, every secret is rotated; after that each
/// receiver deploys its new secret at a moment of its own.
async fn publish(
    api: &mut Api,
    client_id: &str,
    receivers: &[Receiver],
    options: Options,
    bar: &ProgressBar,
) -> Result<(), DemoError> {
    let path = messages_path(client_id);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / options.per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    bar.set_message("events flow, signed with the first secrets");
    for number in 0..options.messages {
        pace.tick().await;
        if number == options.messages / 4 {
            bar.set_message("every secret is rotated (overlap); receivers still hold the old ones");
            for receiver in receivers {
                let path = format!("/v1/keyrings/{}/rotations", receiver.keyring());
                let asked = json!({ "mode": "overlap", "overlapSeconds": 3_600, "reason": "demo" });
                let opened = api.post(&path, &asked).await?;
                receiver.rotated(&text(&opened, "/id"), &text(&opened, "/secret/value"));
            }
        }
        let percent = number * 100 / options.messages;
        for receiver in receivers {
            if receiver.deploys_at(percent) {
                bar.set_message(format!("{} deploys its new secret", receiver.name()));
            }
        }
        api.post(&path, &event(number)).await?;
        bar.inc(1);
    }
    Ok(())
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

fn progress(options: Options) -> ProgressBar {
    let target = if options.progress {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(u64::from(options.messages)), target);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
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
        std::fs::create_dir(&path)?;
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
