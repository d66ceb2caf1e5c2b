//! `hookturn bulk`: many keyrings rotated by one command, in waves.
//!
//! `start` always shows the plan first, and asks before it does anything. The server rotates whether or not
//! anybody looks; `start` and `watch` look until it is over, and end with a report.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use hookturn_core::limits::LEAK_HASHES;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::{Id, IfVersion, Paging, Remote, Span, Why, pair};
use super::client::{Client, Request};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Column, Format, Output, printable};
use super::plan::{self, Plan};
use super::{Edge, input, leak};

/// Between two looks at a bulk rotation.
const LOOK: Duration = Duration::from_millis(500);
/// Failures and receivers that a report names; the others are counted.
const NAMED: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Bulk {
    /// Rotate many keyrings: show the plan, ask, then follow it and report.
    ///
    /// Every criterion must hold; of one that is given several times, one is enough. The new values are
    /// not printed: `hookturn secret reveal` shows them one by one.
    Start(Box<Start>),
    /// List bulk rotations, newest first.
    List(Paging),
    /// Show a bulk rotation and how far it is.
    Show {
        /// Its id.
        bulk: Id,
    },
    /// Follow a bulk rotation until it is over, then report.
    Watch {
        /// Its id.
        bulk: Id,
    },
    /// List its keyrings and what became of each.
    Items {
        /// Its id.
        bulk: Id,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<ItemState>,
        #[command(flatten)]
        paging: Paging,
    },
    /// What became of it: failures by reason, and who still accepts an old secret.
    Report {
        /// Its id.
        bulk: Id,
    },
    /// Ask every receiver of its rotations whether it still accepts the old secret, then report.
    Released {
        /// Its id.
        bulk: Id,
        #[command(flatten)]
        why: Why,
    },
    /// Open nothing more until it is resumed; what was opened goes on.
    Pause(Changed),
    /// Go on after a pause, or after a stop in spite of its failures.
    Resume(Changed),
    /// Open nothing more, ever; what was opened goes on.
    Cancel(Changed),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ItemState {
    Waiting,
    Running,
    Stalled,
    Done,
    Failed,
}

#[derive(Debug, Args)]
pub(super) struct Changed {
    /// Its id.
    bulk: Id,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    version: IfVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The old secrets are retired at once: the right mode after a leak.
    Immediate,
    /// Both secrets are live for a while.
    Overlap,
    /// The new secrets wait until each is promoted.
    Staged,
    /// As staged, and each is promoted when its receiver has proved that it holds the new secret.
    Proven,
}

#[derive(Debug, Args)]
pub(super) struct Start {
    /// Every keyring of the workspace, unless other criteria are given.
    #[arg(long)]
    all: bool,
    /// Keyrings that sign for this app.
    #[arg(long = "app", value_name = "ID")]
    apps: Vec<Id>,
    /// Keyrings that sign for an app with this label; all of several labels must be there.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// This keyring.
    #[arg(long = "keyring", value_name = "ID")]
    keyrings: Vec<Id>,
    /// Keyrings whose active secret is at least this old, such as 90d.
    #[arg(long, value_name = "SPAN")]
    older_than: Option<Span>,
    /// Keyrings whose active secret has this fingerprint.
    #[arg(long = "fingerprint", value_name = "HEX")]
    fingerprints: Vec<Id>,
    /// Keyrings whose active secret is in this file (`-` for standard input) or has this SHA-256; as
    /// `hookturn leak` searches.
    #[arg(long, value_name = "FILE|HASH")]
    leaked: Option<String>,
    /// How each moves to its new secret.
    #[arg(long, value_enum)]
    mode: Mode,
    /// How long the old secrets may still sign, such as 48h; each keyring's default without.
    #[arg(long, value_name = "SPAN")]
    overlap: Option<Span>,
    /// For mode proven: a JSON file with the policy's fields, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where each wave ends, in percent of all keyrings, ending at 100 [default: 1,10,50,100].
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',')]
    waves: Vec<u8>,
    /// How long to wait between two waves, such as 10m.
    #[arg(long, value_name = "SPAN")]
    pause: Option<Span>,
    /// Rotations under way at once [default: 50].
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Stop when more than this share of a wave failed, in percent [default: 10].
    #[arg(long, value_name = "PERCENT")]
    stop_at_failed: Option<u8>,
    /// For mode proven: how long a rotation that is not proved holds its place, such as 2h [default: 1d].
    #[arg(long, value_name = "SPAN")]
    patience: Option<Span>,
    /// Show the plan and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Do not follow it: the server goes on by itself.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    why: Why,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("STATE", "state"),
    ("MODE", "mode"),
    ("KEYRINGS", "keyrings"),
    ("WAVE", "wave"),
    ("STARTED", "createdAt"),
    ("REASON", "reason"),
];

const ITEM_COLUMNS: &[Column] = &[
    ("POSITION", "position"),
    ("KEYRING", "keyringId"),
    ("STATE", "state"),
    ("ROTATION", "rotationId"),
    ("STAGE", "stage"),
    ("CODE", "code"),
    ("MESSAGE", "message"),
];

pub(super) fn run(remote: Remote<Bulk>, edge: &Edge, output: &mut Output) -> Outcome {
    let prepared = match remote.command {
        Bulk::Start(start) => Prepared::Start(start.body()?, *start),
        Bulk::List(paging) => {
            let request = Request::get("/v1/bulk-rotations");
            Prepared::Plan(Plan::list(request, paging, COLUMNS))
        }
        Bulk::Show { bulk } => Prepared::Plan(Plan::object(Request::get(path(&bulk, "")))),
        Bulk::Items {
            bulk,
            state,
            paging,
        } => {
            let state = state.and_then(|state| state.to_possible_value());
            let request = Request::get(path(&bulk, "/items"))
                .with("state", state.map(|state| state.get_name().to_owned()));
            Prepared::Plan(Plan::list(request, paging, ITEM_COLUMNS))
        }
        Bulk::Watch { bulk } => Prepared::Watch(bulk.to_string()),
        Bulk::Report { bulk } => Prepared::Report(bulk.to_string()),
        Bulk::Released { bulk, why } => Prepared::Released(bulk.to_string(), why),
        Bulk::Pause(changed) => changed.to("/pause"),
        Bulk::Resume(changed) => changed.to("/resume"),
        Bulk::Cancel(changed) => changed.to("/cancel"),
    };
    let client = remote.connection.client(edge)?;
    match prepared {
        Prepared::Plan(plan) => plan::carry_out(plan, &client, output),
        Prepared::Start(body, start) => start.run(body, &client, output),
        Prepared::Watch(bulk) => follow(&bulk, &client, output),
        Prepared::Report(bulk) => report(&bulk, &client, output),
        Prepared::Released(bulk, why) => ask_released(&bulk, why, &client, output),
    }
}

/// What is to be done, decided before the server is asked anything.
enum Prepared {
    Plan(Plan),
    Start(Value, Start),
    Watch(String),
    Report(String),
    Released(String, Why),
}

fn path(bulk: &Id, rest: &str) -> String {
    format!("/v1/bulk-rotations/{bulk}{rest}")
}

impl Changed {
    fn to(self, rest: &str) -> Prepared {
        let request = Request::post(path(&self.bulk, rest), &self.why.into(json!({})));
        Prepared::Plan(Plan::object(request.if_match(self.version.if_version)))
    }
}

impl Start {
    fn body(&self) -> Result<Value, Failure> {
        let texts = |ids: &[Id]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        let mut selector = json!({
            "all": self.all,
            "apps": texts(&self.apps),
            "labels": labels,
            "keyrings": texts(&self.keyrings),
            "fingerprints": texts(&self.fingerprints),
        });
        if let Some(age) = self.older_than {
            selector["olderThanSeconds"] = age.seconds().into();
        }
        if let Some(leaked) = &self.leaked {
            let hashes: Vec<String> = leak::candidates(leaked)?.into_keys().collect();
            selector["hashes"] = hashes.into();
        }
        let mode = self.mode.to_possible_value();
        let mut body = json!({
            "selector": selector,
            "mode": mode.as_ref().map(PossibleValue::get_name),
        });
        if let Some(reason) = &self.why.reason {
            body["reason"] = reason.as_str().into();
        }
        let spans = [
            ("overlapSeconds", self.overlap),
            ("pauseSeconds", self.pause),
            ("patienceSeconds", self.patience),
        ];
        for (name, span) in spans {
            if let Some(span) = span {
                body[name] = span.seconds().into();
            }
        }
        if let Some(policy) = &self.policy {
            body["policy"] = input::json(policy)?;
        }
        if !self.waves.is_empty() {
            body["waves"] = self.waves.clone().into();
        }
        if let Some(concurrency) = self.concurrency {
            body["concurrency"] = concurrency.into();
        }
        if let Some(percent) = self.stop_at_failed {
            body["stopAtFailedPercent"] = percent.into();
        }
        Ok(body)
    }

    fn run(&self, mut body: Value, client: &Client, output: &mut Output) -> Outcome {
        if let Some(warning) = client.warning() {
            output.hint(warning);
        }
        narrow(&mut body, client)?;
        let mut planning = body.clone();
        planning["dryRun"] = true.into();
        let planning = Request::post("/v1/bulk-rotations", &planning).harmless();
        let planned = client.call(&planning)?.json()?;
        if self.dry_run {
            match output.format {
                Format::Json => output.json(&planned)?,
                Format::Table => output.line(plan_text(&planned))?,
            }
            return Ok(Exit::Done);
        }
        output.hint(plan_text(&planned));
        if !self.yes {
            confirm(output)?;
        }
        let started = client.call(&Request::post("/v1/bulk-rotations", &body))?;
        let started = started.json()?;
        let id = started["id"].as_str().unwrap_or_default().to_owned();
        output.hint(format!(
            "started {id}; it goes on without this command: `hookturn bulk watch {id}` follows it, `hookturn bulk pause {id}` holds it"
        ));
        if self.detach {
            match output.format {
                Format::Json => output.json(&started)?,
                Format::Table => output.line(id)?,
            }
            return Ok(Exit::Done);
        }
        follow(&id, client, output)
    }
}

/// A large file holds more candidates than one request takes: those that are no secret are left out.
fn narrow(body: &mut Value, client: &Client) -> Result<(), Failure> {
    let hashes = body["selector"]["hashes"].as_array().cloned();
    let Some(hashes) = hashes.filter(|hashes| hashes.len() > LEAK_HASHES) else {
        return Ok(());
    };
    let mut found = Vec::new();
    for block in hashes.chunks(LEAK_HASHES) {
        let document = leak::search(client, &json!({ "hashes": block }))?;
        for one in document["data"].as_array().into_iter().flatten() {
            if one["secrets"]
                .as_array()
                .is_some_and(|secrets| !secrets.is_empty())
            {
                found.push(one["hash"].clone());
            }
        }
    }
    if found.is_empty() {
        let what = "nothing in it is a secret that this key may see; nothing was started";
        return Err(Failure::new(Exit::NotFound, what));
    }
    body["selector"]["hashes"] = found.into();
    Ok(())
}

/// The plan, for people.
fn plan_text(plan: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let waves: Vec<String> = plan["waves"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|wave| number(wave).to_string())
        .collect();
    let mut lines = vec![format!(
        "{}, mode {}, in waves of {}",
        match number(&plan["keyrings"]) {
            1 => "1 keyring".to_owned(),
            count => format!("{count} keyrings"),
        },
        printable(plan["mode"].as_str().unwrap_or_default()),
        if waves.is_empty() {
            "none".to_owned()
        } else {
            waves.join(", ")
        },
    )];
    lines.push(format!(
        "at most {} at once; stops when more than {} % of a wave failed",
        number(&plan["concurrency"]),
        number(&plan["stopAtFailedPercent"]),
    ));
    for obstacle in plan["obstacles"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{} cannot be rotated now ({}), such as: {}",
            number(&obstacle["keyrings"]),
            printable(obstacle["code"].as_str().unwrap_or_default()),
            printable(obstacle["message"].as_str().unwrap_or_default()),
        ));
    }
    lines.join("\n")
}

/// Asks whoever sits at the terminal. Without a terminal there is nobody to ask.
fn confirm(output: &mut Output) -> Result<(), Failure> {
    let refused = || {
        Failure::usage("nothing was started")
            .next("give --yes to start without being asked, or --dry-run to see the plan only")
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    output.hint("type yes to start:");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read {
        Ok(_) if line.trim() == "yes" => Ok(()),
        Ok(_) | Err(_) => Err(refused()),
    }
}

/// Looks until the bulk rotation is not running any more, then reports.
fn follow(bulk: &str, client: &Client, output: &mut Output) -> Outcome {
    let look = Request::get(format!("/v1/bulk-rotations/{bulk}"));
    let target = if std::io::stderr().is_terminal() && output.format == Format::Table {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    loop {
        let progress = client.call(&look)?.json()?;
        let count = |name: &str| progress["counts"][name].as_u64().unwrap_or_default();
        bar.set_length(progress["keyrings"].as_u64().unwrap_or_default());
        bar.set_position(count("done") + count("failed") + count("stalled"));
        bar.set_message(format!(
            "wave {}, {} under way, {} stalled, {} failed",
            progress["wave"],
            count("running"),
            count("stalled"),
            count("failed"),
        ));
        if progress["state"] != "running" {
            bar.finish_and_clear();
            return report(bulk, client, output);
        }
        client.wait(LOOK);
    }
}

/// Every item of a bulk rotation, a page at a time.
fn each_item(bulk: &str, client: &Client, mut take: impl FnMut(&Value)) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    loop {
        let request = Request::get(format!("/v1/bulk-rotations/{bulk}/items"))
            .with("limit", Some(200))
            .with("cursor", cursor);
        let page = client.call(&request)?.json()?;
        page["data"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(&mut take);
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// What a report says of the items.
#[derive(Default)]
struct Tally {
    failures: BTreeMap<String, (u64, String)>,
    releases: BTreeMap<String, u64>,
    still_accept: Vec<String>,
}

impl Tally {
    fn take(&mut self, item: &Value) {
        if let Some(code) = item["code"].as_str() {
            let message = item["message"].as_str().unwrap_or_default();
            let known = self.failures.entry(code.to_owned());
            known.or_insert_with(|| (0, message.to_owned())).0 += 1;
        }
        for release in item["releases"].as_array().into_iter().flatten() {
            let word = release["release"].as_str().unwrap_or_default();
            *self.releases.entry(word.to_owned()).or_default() += 1;
            if word == "still_accepts" {
                let endpoint = release["endpointId"].as_str().unwrap_or_default();
                self.still_accept.push(endpoint.to_owned());
            }
        }
    }

    fn released(&self, word: &str) -> u64 {
        self.releases.get(word).copied().unwrap_or_default()
    }

    fn json(&self) -> Value {
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|(code, (count, message))| {
                json!({ "code": code, "keyrings": count, "message": message })
            })
            .collect();
        json!({
            "failures": failures,
            "released": {
                "released": self.released("released"),
                "stillAccept": self.released("still_accepts"),
                "noAnswer": self.released("no_answer"),
                "notAsked": self.released("not_asked"),
                "stillAcceptEndpointIds": self.still_accept,
            },
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (code, (count, message)) in &self.failures {
            let (code, message) = (printable(code), printable(message));
            lines.push(format!("{count} failed ({code}), such as: {message}"));
        }
        let (released, accepting) = (self.released("released"), self.still_accept.len());
        let asked: u64 = self.releases.values().sum::<u64>() - self.released("not_asked");
        if asked > 0 {
            lines.push(format!(
                "released by {released} of {asked} receivers that were asked"
            ));
        }
        if accepting > 0 {
            let named: Vec<_> = self
                .still_accept
                .iter()
                .take(NAMED)
                .map(|id| printable(id))
                .collect();
            let more = accepting.saturating_sub(NAMED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            lines.push(format!(
                "still accept the old secret: {}{more}",
                named.join(", ")
            ));
        }
        lines
    }
}

fn report(bulk: &str, client: &Client, output: &mut Output) -> Outcome {
    let progress = client.call(&Request::get(format!("/v1/bulk-rotations/{bulk}")))?;
    let mut document = progress.json()?;
    let mut tally = Tally::default();
    each_item(bulk, client, |item| tally.take(item))?;
    let failed = document["counts"]["failed"].as_u64().unwrap_or_default();
    match output.format {
        Format::Json => {
            document["report"] = tally.json();
            output.json(&document)?;
        }
        Format::Table => {
            output.line(summary(&document))?;
            for line in tally.lines() {
                output.line(line)?;
            }
            if failed > 0 {
                output.hint(format!(
                    "`hookturn bulk items {bulk} --state failed --all` lists them"
                ));
            }
        }
    }
    Ok(if failed == 0 && document["state"] != "stopped" {
        Exit::Done
    } else {
        Exit::Unexpected
    })
}

fn summary(document: &Value) -> String {
    let count = |name: &str| document["counts"][name].as_u64().unwrap_or_default();
    format!(
        "{}: {} of {} done, {} failed, {} stalled, {} under way, {} waiting ({})",
        printable(document["state"].as_str().unwrap_or_default()),
        count("done"),
        document["keyrings"],
        count("failed"),
        count("stalled"),
        count("running"),
        count("waiting"),
        printable(document["words"].as_str().unwrap_or_default()),
    )
}

/// Asks the receivers of every rotation, one rotation after the other.
fn ask_released(bulk: &str, why: Why, client: &Client, output: &mut Output) -> Outcome {
    let mut rotations = Vec::new();
    each_item(bulk, client, |item| {
        rotations.extend(item["rotationId"].as_str().map(str::to_owned));
    })?;
    let body = why.into(json!({}));
    let mut unasked: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let key = client.command_key();
    for (number, rotation) in rotations.iter().enumerate() {
        let request = Request::post(format!("/v1/rotations/{rotation}/released"), &body);
        if let Err(failure) = client.call_part(&request, &key, number) {
            // A rotation whose old secret is active, retired or destroyed has nothing to ask, and one whose
            // receivers were asked too often is not asked now; the others have.
            let is_later = failure.to_json()["code"] == "probes_used_up";
            if failure.exit() != Exit::Conflict && failure.exit() != Exit::NotFound && !is_later {
                return Err(failure);
            }
            let why = failure.to_string().replace(rotation.as_str(), "it");
            let what = why.lines().next().unwrap_or_default();
            let (count, _) = unasked
                .entry(what.trim_start_matches("error: ").to_owned())
                .or_insert_with(|| (0, printable(rotation)));
            *count += 1;
        }
    }
    for (why, (count, first)) in &unasked {
        output.hint(format!(
            "{count} of {} rotations were not asked, such as {first}: {why}",
            rotations.len()
        ));
    }
    report(bulk, client, output)
}
