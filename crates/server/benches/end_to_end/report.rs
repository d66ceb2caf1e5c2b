//! The results as a table, as a verdict on each target, and as JSON.

use serde::Serialize;

use crate::costs::{self, Cost};
use crate::dashboard::Dashboard;
use crate::fence::Fence;
use crate::machine::Machine;
use crate::number::float;
use crate::scenario::{
    BATCH, MIXED, ROTATIONS, ROTATIONS_HOPAE_PACED, ROTATIONS_PACED, SINGLE, STORM, STORM_IMMEDIATE,
};
use crate::shared;
use crate::stored::Stored;
use crate::storm::Storm;
use crate::table::{Align, Table};

/// One scenario's results; `None` where a number would say nothing.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) requests_per_second: Option<f64>,
    pub(crate) deliveries_per_second: Option<f64>,
    pub(crate) ceiling_per_second: Option<f64>,
    pub(crate) cpu_seconds_per_10k: Option<f64>,
    /// Of all processes of the database, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_seconds_per_10k: Option<f64>,
    pub(crate) tool_micros_per_delivery: Option<f64>,
    pub(crate) accept_p50_ms: Option<f64>,
    pub(crate) accept_p99_ms: Option<f64>,
    pub(crate) accept_p999_ms: Option<f64>,
    pub(crate) receipt_p50_ms: Option<f64>,
    pub(crate) receipt_p99_ms: Option<f64>,
    pub(crate) rotations_per_second: Option<f64>,
    pub(crate) rotation_p50_ms: Option<f64>,
    pub(crate) rotation_p99_ms: Option<f64>,
    pub(crate) lost: Option<u64>,
    pub(crate) duplicates: Option<u64>,
    pub(crate) refused: u64,
    pub(crate) broken: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) strange: u64,
    pub(crate) peak_memory_mb: Option<f64>,
    pub(crate) stop_ms: Option<f64>,
    pub(crate) storm: Option<Storm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fence: Option<Fence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stored: Option<Stored>,
    pub(crate) notes: Vec<String>,
    pub(crate) failed: bool,
}

impl Row {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            scenario: name.to_owned(),
            ..Self::default()
        }
    }

    /// The row of a scenario that could not be finished.
    pub(crate) fn failed(name: &str, error: &str) -> Self {
        Self {
            failed: true,
            notes: vec![format!("failed: {error}")],
            ..Self::named(name)
        }
    }

    /// Deliveries as a percentage of the ceiling.
    pub(crate) fn percent(&self) -> Option<f64> {
        match (self.deliveries_per_second, self.ceiling_per_second) {
            (Some(rate), Some(ceiling)) if ceiling > 0.0 => Some(100.0 * rate / ceiling),
            _ => None,
        }
    }

    /// Anything that a reader of the numbers must know.
    fn all_notes(&self) -> Vec<String> {
        let counts = [
            (self.refused, "requests answered otherwise than 202"),
            (self.broken, "publishing connections that broke"),
            (self.unacknowledged, "arrivals of messages without a 202"),
            (self.strange, "requests that are no delivery of the run"),
        ];
        let counted = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"));
        counted.chain(self.notes.iter().cloned()).collect()
    }
}

/// Starting, idling and stopping; medians, and the largest idle memory.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Starts {
    pub(crate) first_ms: Option<f64>,
    pub(crate) again_ms: Option<f64>,
    pub(crate) stop_ms: Option<f64>,
    pub(crate) idle_memory_mb: Option<f64>,
}

/// What has numbers of its own kind, beside the rows.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Apart {
    pub(crate) starts: Option<Starts>,
    pub(crate) dashboard: Option<Dashboard>,
    /// What the database is, where the store is not the embedded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) costs: Vec<Cost>,
}

/// A number to reach and the number that came.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) bound: String,
    pub(crate) measured: Option<f64>,
    pub(crate) unit: &'static str,
    /// `None` when the scenario was not run.
    pub(crate) passed: Option<bool>,
}

/// Everything a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    #[serde(flatten)]
    pub(crate) apart: Apart,
    pub(crate) rows: Vec<Row>,
    pub(crate) targets: Vec<Target>,
}

impl Report {
    pub(crate) fn new(machine: Machine, apart: Apart, rows: Vec<Row>) -> Self {
        let mut targets = if apart.database.is_some() {
            shared::targets(apart.starts.as_ref(), &rows)
        } else {
            let mut targets = targets(apart.starts.as_ref(), &rows);
            targets.extend(storm_targets(&rows));
            targets.extend(dashboard_targets(apart.dashboard.as_ref()));
            targets
        };
        targets.extend(sums(&rows));
        Self {
            machine,
            apart,
            rows,
            targets,
        }
    }

    /// Whether a target that was measured is missed.
    pub(crate) fn missed(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.passed == Some(false))
    }

    /// Whether a scenario could not be finished.
    pub(crate) fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.failed)
    }
}

fn targets(starts: Option<&Starts>, rows: &[Row]) -> Vec<Target> {
    let row = |name: &str| rows.iter().find(|row| row.scenario == name);
    let of = |name: &str, number: fn(&Row) -> Option<f64>| row(name).and_then(number);
    let start = starts.and_then(|starts| Some(starts.first_ms?.max(starts.again_ms?)));
    let idle = starts.and_then(|starts| starts.idle_memory_mb);
    let percent = |row: &Row| row.percent();
    vec![
        at_least(
            "end to end, one message a request",
            of(SINGLE, percent),
            12.0,
            "% of ceiling",
        ),
        at_least(
            "end to end, 100 messages a request",
            of(BATCH, percent),
            25.0,
            "% of ceiling",
        ),
        at_most(
            "server CPU, one message a request",
            of(SINGLE, |row| row.cpu_seconds_per_10k),
            0.9,
            "s per 10,000 deliveries",
        ),
        at_most(
            "accept p99.9, mixed load",
            of(MIXED, |row| row.accept_p999_ms),
            25.0,
            "ms",
        ),
        at_least(
            "rotations beside 1,000 deliveries/s",
            of(ROTATIONS, |row| row.rotations_per_second),
            500.0,
            "a second",
        ),
        at_least(
            "the same at a set pace",
            of(ROTATIONS_PACED, |row| row.rotations_per_second),
            500.0,
            "a second",
        ),
        at_most(
            "rotation p99, the same",
            of(ROTATIONS_PACED, |row| row.rotation_p99_ms),
            50.0,
            "ms",
        ),
        at_least(
            "the same through the Hopae dialect",
            of(ROTATIONS_HOPAE_PACED, |row| row.rotations_per_second),
            500.0,
            "a second",
        ),
        at_most(
            "rotation p99, the same",
            of(ROTATIONS_HOPAE_PACED, |row| row.rotation_p99_ms),
            50.0,
            "ms",
        ),
        at_most("idle memory", idle, 30.0, "MB"),
        at_most("start to ready", start, 100.0, "ms"),
    ]
}

fn storm_targets(rows: &[Row]) -> Vec<Target> {
    let of = |name: &str| {
        let row = rows.iter().find(|row| row.scenario == name);
        row.and_then(|row| row.storm.as_ref())
    };
    let judged = |name: &str| {
        let storm = of(name);
        let left = storm.map(|storm| f64::from(storm.endpoints - storm.rotated));
        [
            at_most(&format!("{name}: keyrings not rotated"), left, 0.0, ""),
            at_most(
                &format!("{name}: receipt p99, during / before and after"),
                storm.and_then(Storm::growth),
                1.2,
                "x",
            ),
            at_most(
                &format!("{name}: requests without a valid signature"),
                storm.map(|storm| float(storm.unsigned)),
                0.0,
                "",
            ),
        ]
    };
    [STORM, STORM_IMMEDIATE]
        .into_iter()
        .flat_map(judged)
        .collect()
}

fn dashboard_targets(dashboard: Option<&Dashboard>) -> [Target; 2] {
    let kilobytes = |bytes: usize| float(bytes as u64) / 1e3;
    [
        at_most(
            "dashboard: first load",
            dashboard.map(|dashboard| kilobytes(dashboard.first_load_bytes())),
            60.0,
            "kB",
        ),
        at_most(
            "dashboard: slowest page, p99",
            dashboard
                .and_then(Dashboard::slowest)
                .map(|page| page.p99_ms),
            100.0,
            "ms",
        ),
    ]
}

fn sums(rows: &[Row]) -> [Target; 2] {
    let sum = |number: fn(&Row) -> Option<u64>| {
        let counts: Vec<u64> = rows.iter().filter_map(number).collect();
        (!counts.is_empty()).then(|| float(counts.iter().sum()))
    };
    [
        at_most("lost, all scenarios", sum(|row| row.lost), 0.0, ""),
        at_most(
            "duplicates, all scenarios",
            sum(|row| row.duplicates),
            0.0,
            "",
        ),
    ]
}

pub(crate) fn at_least(
    what: &str,
    measured: Option<f64>,
    bound: f64,
    unit: &'static str,
) -> Target {
    Target {
        what: what.to_owned(),
        bound: format!(">= {bound}"),
        measured,
        unit,
        passed: measured.map(|measured| measured >= bound),
    }
}

pub(crate) fn at_most(what: &str, measured: Option<f64>, bound: f64, unit: &'static str) -> Target {
    Target {
        what: what.to_owned(),
        bound: format!("<= {bound}"),
        measured,
        unit,
        passed: measured.map(|measured| measured <= bound),
    }
}

/// Prints everything to standard output.
pub(crate) fn print(report: &Report) {
    print!("{}", text(report));
}

/// The whole report as text.
pub(crate) fn text(report: &Report) -> String {
    let mut parts = vec![results(&report.rows).to_string()];
    let place = match &report.apart.database {
        Some(database) => {
            parts.insert(0, format!("{database}\n"));
            "database"
        }
        None => "directory",
    };
    if let Some(starts) = &report.apart.starts {
        parts.push(format!(
            "start to ready, median: {} ms on an empty {place}, {} ms on the store it left; stop {} ms; \
             idle memory {} MB\n",
            number(starts.first_ms, 1),
            number(starts.again_ms, 1),
            number(starts.stop_ms, 1),
            number(starts.idle_memory_mb, 1),
        ));
    }
    if let Some(dashboard) = &report.apart.dashboard {
        parts.push(pages(dashboard));
    }
    if !report.apart.costs.is_empty() {
        parts.push(costs::text(&report.apart.costs));
    }
    let notes: Vec<String> = report
        .rows
        .iter()
        .flat_map(|row| {
            let name = row.scenario.clone();
            row.all_notes()
                .into_iter()
                .map(move |note| format!("{name}: {note}\n"))
        })
        .collect();
    if !notes.is_empty() {
        parts.push(notes.concat());
    }
    parts.push(LEGEND.to_owned());
    parts.push(verdicts(&report.targets).to_string());
    parts.join("\n")
}

const LEGEND: &str = "\
Scenarios: connections - payload bytes - endpoints (fan-out) - messages a request. Every scenario has a
server and a store of its own. ceiling: sign and POST with nothing stored, same client, receiver and
connections, two threads, mean of right before and right after. cpu: server, all threads, seconds per
10,000 deliveries; tool: publisher and receiver, microseconds per delivery. accept: request to 202.
receipt: request to arrival at the receiver; under a closed load it is mostly the wait in the backlog.
Paced loads count from the time a request was due.
";

fn results(rows: &[Row]) -> Table {
    // A column of its own where there is a database.
    let database = rows
        .iter()
        .any(|row| row.database_seconds_per_10k.is_some());
    let mut columns = vec![
        ("scenario", Align::Left),
        ("req/s", Align::Right),
        ("dlv/s", Align::Right),
        ("ceiling/s", Align::Right),
        ("%", Align::Right),
        ("cpu s/10k", Align::Right),
    ];
    columns.extend(database.then_some(("db s/10k", Align::Right)));
    columns.extend([
        ("tool us", Align::Right),
        ("accept p50", Align::Right),
        ("p99", Align::Right),
        ("p99.9 ms", Align::Right),
        ("receipt p50", Align::Right),
        ("p99 ms", Align::Right),
        ("peak MB", Align::Right),
        ("lost", Align::Right),
        ("dup", Align::Right),
    ]);
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![
            row.scenario.clone(),
            number(row.requests_per_second, 0),
            number(row.deliveries_per_second, 0),
            number(row.ceiling_per_second, 0),
            number(row.percent(), 1),
            number(row.cpu_seconds_per_10k, 3),
        ];
        cells.extend(database.then(|| number(row.database_seconds_per_10k, 3)));
        cells.extend([
            number(row.tool_micros_per_delivery, 1),
            number(row.accept_p50_ms, 2),
            number(row.accept_p99_ms, 2),
            number(row.accept_p999_ms, 2),
            number(row.receipt_p50_ms, 2),
            number(row.receipt_p99_ms, 2),
            number(row.peak_memory_mb, 0),
            count(row.lost),
            count(row.duplicates),
        ]);
        table.push(cells);
    }
    table
}

/// The dashboard's pages.
fn pages(dashboard: &Dashboard) -> String {
    let mut table = Table::new(&[
        ("page", Align::Left),
        ("bytes", Align::Right),
        ("first ms", Align::Right),
        ("p50 ms", Align::Right),
        ("p99 ms", Align::Right),
        ("cpu ms", Align::Right),
        ("loads", Align::Right),
    ]);
    for page in &dashboard.pages {
        table.push(vec![
            page.name.clone(),
            page.bytes.to_string(),
            number(Some(page.first_ms), 1),
            number(Some(page.p50_ms), 1),
            number(Some(page.p99_ms), 1),
            number(Some(page.cpu_ms), 1),
            page.loads.to_string(),
        ]);
    }
    let pieces = dashboard.first_load.iter();
    let pieces: Vec<String> = pieces
        .map(|piece| format!("{} {}", piece.name, piece.bytes))
        .collect();
    format!(
        "dashboard over {} deliveries of {} apps: {:.0} MB, filled in {:.0} s, start to ready {:.0} ms, peak {:.0} MB\n\
         first load, bytes as served: {}, in all {}\n\n{table}",
        dashboard.deliveries,
        dashboard.apps,
        dashboard.store_mb,
        dashboard.filled_seconds,
        dashboard.start_ms,
        dashboard.peak_memory_mb,
        pieces.join(", "),
        dashboard.first_load_bytes(),
    )
}

fn verdicts(targets: &[Target]) -> Table {
    let mut table = Table::new(&[
        ("target", Align::Left),
        ("bound", Align::Left),
        ("measured", Align::Right),
        ("unit", Align::Left),
        ("", Align::Left),
    ]);
    for target in targets {
        let verdict = match target.passed {
            Some(true) => "PASS",
            Some(false) => "MISS",
            None => "not run",
        };
        table.push(vec![
            target.what.clone(),
            target.bound.clone(),
            number(target.measured, 2),
            target.unit.to_owned(),
            verdict.to_owned(),
        ]);
    }
    table
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
