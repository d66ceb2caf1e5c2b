//! A server of its own for each scenario: empty store, fresh app, endpoints at a fresh receiver. On a database
//! further servers may join it and leave again.
//!
//! Nothing of one row can leak into another, and the books are closed only after the server has stopped,
//! so that a late duplicate counts too.

use std::net::SocketAddr;
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
use crate::place::{Engine, Place};
use crate::process::{Process, Server, own_cpu};
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
/// How long the nodes of a database may take to share its shards.
const SHARED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AT_SHARDS: Duration = Duration::from_millis(20);
/// All shards of a database.
const SHARDS: f64 = 256.0;

/// What all scenarios share.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) epoch: Epoch,
    /// Stores are made below it.
    pub(crate) dir: PathBuf,
    /// The `hookturn` that is measured.
    pub(crate) binary: PathBuf,
    pub(crate) engine: Engine,
    pub(crate) effort: Effort,
}

/// A store that is removed with everything in it.
pub(crate) fn store_dir(below: &Path) -> Result<TempDir, Error> {
    Ok(tempfile::Builder::new()
        .prefix("store-")
        .tempdir_in(below)?)
}

/// A running server, or several on one database, with as many apps as the scenario asks for.
pub(crate) struct Fixture {
    bench: Bench,
    scenario: Scenario,
    nodes: Vec<Server>,
    receiver: Receiver,
    pub(crate) api: Api,
    pub(crate) app: String,
    pub(crate) endpoints: Vec<Endpoint>,
    requests: Arc<[Arc<[u8]>]>,
    published: Vec<Published>,
    refused: u64,
    refusal: Option<String>,
    broken: u64,
    /// Of the servers that were stopped: the largest memory, and the longest time that stopping took.
    peak_memory: u64,
    stopped: Duration,
    /// Dropped last: the servers must be gone first.
    place: Place,
}

/// Processor time so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// Of the servers.
    pub(crate) server: Duration,
    /// Of the bench: publisher and receiver.
    pub(crate) own: Duration,
    /// Of all processes of the database.
    pub(crate) database: Option<Duration>,
}

impl Spent {
    fn since(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            own: self.own.saturating_sub(before.own),
            database: self
                .database
                .zip(before.database)
                .map(|(now, before)| now.saturating_sub(before)),
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            server: self.server + more.server,
            own: self.own + more.own,
            database: self
                .database
                .zip(more.database)
                .map(|(one, more)| one + more),
        }
    }
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
    pub(crate) spent: Spent,
    pub(crate) accept: Histogram,
}

impl Measured {
    pub(crate) fn deliveries_per_second(&self) -> f64 {
        rate(self.deliveries, self.elapsed)
    }

    /// Both loads as one, without what was between them.
    pub(crate) fn and(mut self, more: &Self) -> Self {
        self.accept.merge(&more.accept);
        Self {
            started: self.started,
            requests: self.requests + more.requests,
            deliveries: self.deliveries + more.deliveries,
            publishing: self.publishing + more.publishing,
            elapsed: self.elapsed + more.elapsed,
            spent: self.spent.and(more.spent),
            accept: self.accept,
        }
    }

    /// What the load adds to a row; the books add the rest.
    pub(crate) fn row(&self, name: &str) -> Row {
        let millis = |share| self.accept.per_mille(share).map(millis);
        let deliveries = float(self.deliveries.max(1));
        let per_10k = |time: Duration| time.as_secs_f64() * 10_000.0 / deliveries;
        Row {
            requests_per_second: Some(rate(self.requests, self.publishing)),
            deliveries_per_second: Some(self.deliveries_per_second()),
            cpu_seconds_per_10k: Some(per_10k(self.spent.server)),
            database_seconds_per_10k: self.spent.database.map(per_10k),
            tool_micros_per_delivery: Some(self.spent.own.as_secs_f64() * 1e6 / deliveries),
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
    /// In a place of its own.
    pub(crate) async fn start(bench: &Bench, scenario: &Scenario) -> Result<Self, Error> {
        Self::start_in(bench, scenario, Place::make(bench).await?).await
    }

    /// In a place that nobody else is in. The endpoints of every app lead to the same paths.
    pub(crate) async fn start_in(
        bench: &Bench,
        scenario: &Scenario,
        place: Place,
    ) -> Result<Self, Error> {
        let receiver = Receiver::start(bench.epoch)?;
        let server = place.serve(&bench.binary)?;
        let mut api = Api::open(server.addr()).await?;
        let (mut apps, mut endpoints) = (Vec::new(), Vec::new());
        for _ in 0..scenario.apps {
            let app = api.create_app().await?;
            for number in 0..scenario.fan_out {
                let url = receiver.url(number);
                let endpoint = api
                    .create_endpoint(&app, &url, scenario.max_in_flight())
                    .await?;
                endpoints.push(endpoint);
            }
            apps.push(app);
        }
        let request = |app: &String| {
            publish(
                server.addr(),
                app,
                scenario.messages,
                scenario.payload_bytes,
            )
        };
        Ok(Self {
            bench: bench.clone(),
            scenario: scenario.clone(),
            requests: apps.iter().map(request).collect(),
            nodes: vec![server],
            receiver,
            api,
            app: apps.swap_remove(0),
            endpoints,
            published: Vec::new(),
            refused: 0,
            refusal: None,
            broken: 0,
            peak_memory: 0,
            stopped: Duration::ZERO,
            place,
        })
    }

    /// Where the servers keep what they have.
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// The servers that run.
    pub(crate) fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    pub(crate) fn addrs(&self) -> Arc<[SocketAddr]> {
        self.nodes.iter().map(Server::addr).collect()
    }

    pub(crate) fn process(&self, node: usize) -> Option<Process> {
        self.nodes.get(node).map(Server::process)
    }

    /// Messages that were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.published.len() as u64
    }

    // ----- several nodes -----

    /// Starts one more server here, and waits until the servers share the shards of the database.
    pub(crate) async fn join(&mut self) -> Result<(), Error> {
        self.nodes.push(self.place.serve(&self.bench.binary)?);
        self.api = Api::open(self.nodes[0].addr()).await?;
        self.until_shared().await
    }

    /// Stops the server that joined last, and waits until the others have what it had.
    pub(crate) async fn part(&mut self) -> Result<(), Error> {
        let Some(node) = self.nodes.pop() else {
            return Ok(());
        };
        self.retire(node)?;
        self.until_shared().await
    }

    fn retire(&mut self, node: Server) -> Result<(), Error> {
        self.peak_memory = self.peak_memory.max(node.memory()?.peak);
        self.stopped = self.stopped.max(node.stop()?);
        Ok(())
    }

    async fn until_shared(&self) -> Result<(), Error> {
        if self.nodes.is_empty() || self.place.cluster().is_none() {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let mut owned = Vec::new();
            for node in &self.nodes {
                let mut api = Api::open(node.addr()).await?;
                owned.push(api.metric("hookturn_shards_owned").await?);
            }
            let least = owned.iter().copied().fold(SHARDS, f64::min);
            let most = owned.iter().copied().fold(0.0, f64::max);
            if owned.iter().sum::<f64>() >= SHARDS && most - least <= 1.0 {
                return Ok(());
            }
            if began.elapsed() > SHARED_WITHIN {
                return Err(format!("the nodes do not share the shards: {owned:?}").into());
            }
            sleep(LOOK_AT_SHARDS).await;
        }
    }

    // ----- loads -----

    /// The scenario's requests at this pace.
    pub(crate) fn plan(&self, pace: Pace, time: Duration) -> Plan {
        Plan {
            addrs: self.addrs(),
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
        let before = self.spent()?;
        let load = run(plan, &self.receiver, self.bench.epoch).await?;
        self.finish_measuring(load, before).await
    }

    /// The same while `beside` goes on, which ends only by an error.
    pub(crate) async fn measure_beside(
        &mut self,
        plan: &Plan,
        mut beside: impl AsyncFnMut(&mut Api, &str, &[Endpoint]) -> Result<(), Error>,
    ) -> Result<Measured, Error> {
        let before = self.spent()?;
        let load = tokio::select! {
            load = run(plan, &self.receiver, self.bench.epoch) => load?,
            stopped = beside(&mut self.api, &self.app, &self.endpoints) => {
                stopped?;
                return Err("the work beside the load ended too early".into());
            }
        };
        // The call that was cut off may have left half an answer on its connection.
        self.api = Api::open(self.nodes[0].addr()).await?;
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
        let before = self.spent()?;
        let started = self.bench.epoch.now();
        let already = self.receiver.count();
        release(&mut self.api, &self.app, &self.endpoints).await?;
        self.drained().await;
        let elapsed = self.receiver.last().saturating_sub(started);
        let deliveries = self.receiver.count() - already;
        let spent = self.spent_since(before).await?;
        Ok(Measured {
            started,
            requests: 0,
            deliveries,
            publishing: Duration::ZERO,
            elapsed: Duration::from_nanos(elapsed),
            spent,
            accept: Histogram::new(),
        })
    }

    async fn finish_measuring(&mut self, load: Load, before: Spent) -> Result<Measured, Error> {
        self.enter(&load);
        self.drained().await;
        let spent = self.spent_since(before).await?;
        let messages = load.accepted * u64::from(self.scenario.messages);
        let last = self.receiver.last().max(load.answered);
        Ok(Measured {
            started: load.started,
            requests: load.accepted,
            deliveries: messages * u64::from(self.scenario.fan_out),
            publishing: Duration::from_nanos(load.answered - load.started),
            elapsed: Duration::from_nanos(last - load.started),
            spent,
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

    /// Processor time of everybody so far.
    pub(crate) fn spent(&self) -> Result<Spent, Error> {
        let mut server = Duration::ZERO;
        for node in &self.nodes {
            server += node.cpu()?;
        }
        let database = self.place.cluster().map(|(cluster, _)| cluster.cpu());
        Ok(Spent {
            server,
            own: own_cpu()?,
            database: database.transpose()?,
        })
    }

    async fn spent_since(&self, before: Spent) -> Result<Spent, Error> {
        sleep(SETTLE).await;
        Ok(self.spent()?.since(before))
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

    /// Stops the servers, closes the books and completes the row.
    pub(crate) fn finish(mut self, measured_from: Nanos, row: Row) -> Result<Row, Error> {
        while let Some(node) = self.nodes.pop() {
            self.retire(node)?;
        }
        let tally = self.tally(measured_from);
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
            strange: self.receiver.strange(),
            peak_memory_mb: Some(float(self.peak_memory) / 1e6),
            stop_ms: Some(millis(self.stopped)),
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
