//! A server of its own for each scenario: empty store, fresh app, endpoints at a fresh receiver.
//!
//! Nothing of one row can leak into another, and the books are closed only after the server has stopped,
//! so that a late duplicate counts too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::api::{Api, Endpoint, publish};
use crate::histogram::Histogram;
use crate::load::{Load, Pace, Plan, Stop, run};
use crate::number::{Epoch, Error, Nanos, float, rate};
use crate::process::{Server, own_cpu};
use crate::receiver::Receiver;
use crate::report::Row;
use crate::scenario::{Effort, Scenario};
use crate::tally::{Published, Tally, tally};

/// Deliveries that may be accepted and not yet received while the load runs as fast as it can.
pub(crate) const BACKLOG: u64 = 50_000;
/// Without an arrival for this long, what is missing counts as lost: longer than the first retries.
const QUIET: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(2);
/// The last attempts are still being written down when they arrive; their work belongs to the run.
const SETTLE: Duration = Duration::from_millis(250);

/// What all scenarios share.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) epoch: Epoch,
    /// Stores are made below it.
    pub(crate) dir: PathBuf,
    /// The `hookturn` that is measured.
    pub(crate) binary: PathBuf,
    pub(crate) effort: Effort,
}

/// A store that is removed with everything in it.
pub(crate) fn store_dir(below: &Path) -> Result<TempDir, Error> {
    Ok(tempfile::Builder::new()
        .prefix("store-")
        .tempdir_in(below)?)
}

/// A running server with one app.
pub(crate) struct Fixture {
    bench: Bench,
    scenario: Scenario,
    server: Server,
    receiver: Receiver,
    pub(crate) api: Api,
    pub(crate) app: String,
    pub(crate) endpoints: Vec<Endpoint>,
    requests: Arc<[Arc<[u8]>]>,
    published: Vec<Published>,
    refused: u64,
    refusal: Option<String>,
    broken: u64,
    /// Dropped last: the server must be gone first.
    _store: TempDir,
}

/// One load and everything it caused.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) started: Nanos,
    pub(crate) requests: u64,
    pub(crate) deliveries: u64,
    /// Until the last request was answered.
    pub(crate) publishing: Duration,
    /// Until the last delivery arrived.
    pub(crate) elapsed: Duration,
    pub(crate) server_cpu: Duration,
    pub(crate) own_cpu: Duration,
    pub(crate) accept: Histogram,
}

impl Measured {
    pub(crate) fn deliveries_per_second(&self) -> f64 {
        rate(self.deliveries, self.elapsed)
    }

    /// What the load adds to a row; the books add the rest.
    pub(crate) fn row(&self, name: &str) -> Row {
        let millis = |share| self.accept.per_mille(share).map(millis);
        let deliveries = float(self.deliveries.max(1));
        Row {
            requests_per_second: Some(rate(self.requests, self.publishing)),
            deliveries_per_second: Some(self.deliveries_per_second()),
            cpu_seconds_per_10k: Some(self.server_cpu.as_secs_f64() * 10_000.0 / deliveries),
            tool_micros_per_delivery: Some(self.own_cpu.as_secs_f64() * 1e6 / deliveries),
            accept_p50_ms: millis(500),
            accept_p99_ms: millis(990),
            accept_p999_ms: millis(999),
            ..Row::named(name)
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Fixture {
    pub(crate) async fn start(bench: &Bench, scenario: &Scenario) -> Result<Self, Error> {
        let store = store_dir(&bench.dir)?;
        let receiver = Receiver::start(bench.epoch)?;
        let server = Server::start(&bench.binary, store.path())?;
        let mut api = Api::open(server.addr()).await?;
        let app = api.create_app().await?;
        let mut endpoints = Vec::new();
        for number in 0..scenario.fan_out {
            let url = receiver.url(number);
            let endpoint = api
                .create_endpoint(&app, &url, scenario.max_in_flight())
                .await?;
            endpoints.push(endpoint);
        }
        let request = publish(
            server.addr(),
            &app,
            scenario.messages,
            scenario.payload_bytes,
        );
        let requests = [request].into();
        Ok(Self {
            bench: bench.clone(),
            scenario: scenario.clone(),
            server,
            receiver,
            api,
            app,
            endpoints,
            requests,
            published: Vec::new(),
            refused: 0,
            refusal: None,
            broken: 0,
            _store: store,
        })
    }

    /// The scenario's requests at this pace.
    pub(crate) fn plan(&self, pace: Pace, time: Duration) -> Plan {
        Plan {
            addr: self.server.addr(),
            requests: Arc::clone(&self.requests),
            messages: u64::from(self.scenario.messages),
            fan_out: u64::from(self.scenario.fan_out),
            connections: self.scenario.connections,
            pace,
            time,
            max_messages: self.bench.effort.max_messages,
            stop: Stop::default(),
        }
    }

    /// As fast as the whole path goes.
    pub(crate) fn closed(&self, time: Duration) -> Plan {
        self.plan(Pace::Closed { backlog: BACKLOG }, time)
    }

    /// Runs a load and waits until everything it caused has arrived.
    pub(crate) async fn measure(&mut self, plan: &Plan) -> Result<Measured, Error> {
        let before = self.cpu()?;
        let load = run(plan, &self.receiver, self.bench.epoch).await?;
        self.finish_measuring(load, before).await
    }

    /// The same while `beside` goes on, which ends only by an error.
    pub(crate) async fn measure_beside(
        &mut self,
        plan: &Plan,
        mut beside: impl AsyncFnMut(&mut Api, &str, &[Endpoint]) -> Result<(), Error>,
    ) -> Result<Measured, Error> {
        let before = self.cpu()?;
        let load = tokio::select! {
            load = run(plan, &self.receiver, self.bench.epoch) => load?,
            stopped = beside(&mut self.api, &self.app, &self.endpoints) => {
                stopped?;
                return Err("the work beside the load ended too early".into());
            }
        };
        // The call that was cut off may have left half an answer on its connection.
        self.api = Api::open(self.server.addr()).await?;
        self.finish_measuring(load, before).await
    }

    /// Publishes without measuring and without waiting for deliveries.
    pub(crate) async fn publish(&mut self, plan: &Plan) -> Result<(), Error> {
        let load = run(plan, &self.receiver, self.bench.epoch).await?;
        self.enter(&load);
        Ok(())
    }

    /// Lets a published backlog go with `release` and measures until it has arrived.
    pub(crate) async fn drain(
        &mut self,
        release: impl AsyncFnOnce(&mut Api, &str, &[Endpoint]) -> Result<(), Error>,
    ) -> Result<Measured, Error> {
        let before = self.cpu()?;
        let started = self.bench.epoch.now();
        let already = self.receiver.count();
        release(&mut self.api, &self.app, &self.endpoints).await?;
        self.drained().await;
        let elapsed = self.receiver.last().saturating_sub(started);
        let deliveries = self.receiver.count() - already;
        let (server_cpu, own_cpu) = self.cpu_since(before).await?;
        Ok(Measured {
            started,
            requests: 0,
            deliveries,
            publishing: Duration::ZERO,
            elapsed: Duration::from_nanos(elapsed),
            server_cpu,
            own_cpu,
            accept: Histogram::new(),
        })
    }

    async fn finish_measuring(
        &mut self,
        load: Load,
        before: (Duration, Duration),
    ) -> Result<Measured, Error> {
        self.enter(&load);
        self.drained().await;
        let (server_cpu, own_cpu) = self.cpu_since(before).await?;
        let messages = load.accepted * u64::from(self.scenario.messages);
        let last = self.receiver.last().max(load.answered);
        Ok(Measured {
            started: load.started,
            requests: load.accepted,
            deliveries: messages * u64::from(self.scenario.fan_out),
            publishing: Duration::from_nanos(load.answered - load.started),
            elapsed: Duration::from_nanos(last - load.started),
            server_cpu,
            own_cpu,
            accept: load.accept,
        })
    }

    fn enter(&mut self, load: &Load) {
        self.published.extend_from_slice(&load.published);
        self.refused += load.refused;
        self.broken += load.broken;
        if self.refusal.is_none() {
            self.refusal.clone_from(&load.refusal);
        }
    }

    fn cpu(&self) -> Result<(Duration, Duration), Error> {
        Ok((self.server.cpu()?, own_cpu()?))
    }

    async fn cpu_since(
        &self,
        (server, own): (Duration, Duration),
    ) -> Result<(Duration, Duration), Error> {
        sleep(SETTLE).await;
        let (server_now, own_now) = self.cpu()?;
        Ok((
            server_now.saturating_sub(server),
            own_now.saturating_sub(own),
        ))
    }

    /// Waits until every accepted delivery has arrived, or nothing has for a long time.
    async fn drained(&mut self) {
        let expected = self.published.len() as u64 * u64::from(self.scenario.fan_out);
        let mut count = None;
        let mut changed = Instant::now();
        while changed.elapsed() < QUIET {
            let now = self.receiver.count();
            if count != Some(now) {
                count = Some(now);
                changed = Instant::now();
                // Duplicates count too, so enough arrivals do not mean that all have arrived.
                if now >= expected && self.tally(0).lost == 0 {
                    return;
                }
            }
            sleep(LOOK).await;
        }
    }

    fn tally(&mut self, measured_from: Nanos) -> Tally {
        tally(
            &mut self.published,
            &self.receiver.arrivals(),
            self.scenario.fan_out,
            measured_from,
        )
    }

    /// Stops the server, closes the books and completes the row.
    pub(crate) fn finish(mut self, measured_from: Nanos, row: Row) -> Result<Row, Error> {
        let memory = self.server.memory()?;
        let Self {
            server,
            receiver,
            mut published,
            ..
        } = self;
        let stopped = server.stop()?;
        let tally = tally(
            &mut published,
            &receiver.arrivals(),
            self.scenario.fan_out,
            measured_from,
        );
        let receipt = |share| tally.receipt.per_mille(share).map(millis);
        let mut notes = row.notes.clone();
        if let Some(refusal) = self.refusal.take() {
            notes.push(format!("first refusal: {refusal}"));
        }
        Ok(Row {
            receipt_p50_ms: receipt(500),
            receipt_p99_ms: receipt(990),
            lost: Some(tally.lost),
            duplicates: Some(tally.duplicates),
            refused: self.refused,
            broken: self.broken,
            unacknowledged: tally.unacknowledged,
            strange: receiver.strange(),
            peak_memory_mb: Some(float(memory.peak) / 1e6),
            stop_ms: Some(millis(stopped)),
            notes,
            ..row
        })
    }

    /// A call that the scenario makes for itself.
    pub(crate) async fn patch_endpoints(&mut self, change: &Value) -> Result<(), Error> {
        patch_endpoints(&mut self.api, &self.app, &self.endpoints, change).await
    }
}

/// Changes all endpoints alike.
pub(crate) async fn patch_endpoints(
    api: &mut Api,
    app: &str,
    endpoints: &[Endpoint],
    change: &Value,
) -> Result<(), Error> {
    for endpoint in endpoints {
        let path = format!("/v1/apps/{app}/endpoints/{}", endpoint.id);
        api.call("PATCH", &path, change).await?;
    }
    Ok(())
}
