//! `hookturn rotation show --watch`: follows a rotation until it is over.
//!
//! On a terminal it is a bar: passes until there is proof, then the time until the old secret goes.
//! Elsewhere it is a line on standard error for each change. With `--output json` every change is the
//! API's document on a line of its own. It ends with the rotation: code 0 when it completed, 22 when it
//! was cancelled or undone.

use std::io::IsTerminal as _;
use std::time::Duration;

use hookturn_core::time::{Clock, Timestamp};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::super::client::{Answer, Client, Request};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::output::{Format, Output, printable};

/// How often in a row the server may not answer before watching is given up: it may restart.
const TRIES: u32 = 10;

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    done: u64,
    total: u64,
    words: String,
}

pub(super) fn run(
    client: &Client,
    rotation: &str,
    every: Duration,
    clock: &dyn Clock,
    output: &mut Output,
) -> Outcome {
    let request = Request::get(format!("/v1/rotations/{rotation}"));
    let on_terminal = output.format == Format::Table && std::io::stderr().is_terminal();
    let bar = bar(on_terminal);
    let mut before = None;
    loop {
        let answer = ask(client, &request, every)?;
        let document = answer.json()?;
        let progress = Progress::of(&document, clock.now());
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.words.clone());
        if before.as_ref() != Some(&progress.words) {
            match output.format {
                Format::Json => {
                    output.bytes(&answer.body)?;
                    output.bytes(b"\n")?;
                }
                Format::Table if !on_terminal => output.hint(&progress.words),
                Format::Table => {}
            }
        }
        if document["open"] != true {
            bar.finish_and_clear();
            if output.format == Format::Table {
                output.object(&answer.table()?)?;
            }
            return Ok(match document["stage"].as_str() {
                Some("completed") => Exit::Done,
                _ => Exit::Unexpected,
            });
        }
        before = Some(progress.words);
        client.wait(every);
    }
}

/// Shows a rotation once: a sentence and a bar of where it stands, then all of it.
pub(super) fn once(
    client: &Client,
    rotation: &str,
    clock: &dyn Clock,
    output: &mut Output,
) -> Outcome {
    let request = Request::get(format!("/v1/rotations/{rotation}"));
    let answer = client.call(&request)?;
    let document = answer.json()?;
    let progress = Progress::of(&document, clock.now());
    output.line(sentence(&document, &progress))?;
    output.line(format!("{}\n", progress.line()))?;
    output.object(&answer.table()?)?;
    Ok(Exit::Done)
}

/// Where a rotation stands, in one sentence.
fn sentence(rotation: &Value, progress: &Progress) -> String {
    let mode = text(rotation, "mode");
    let ended = text(rotation, "endedAt");
    match rotation["stage"].as_str() {
        Some("staged") => format!(
            "rotation {} ({mode}) waits to be promoted: {}{}",
            text(rotation, "id"),
            progress.words,
            deadline(rotation)
        ),
        Some("overlap") => format!(
            "rotation {} ({mode}) is in its overlap: {}",
            text(rotation, "id"),
            progress.words
        ),
        _ => format!(
            "rotation {} ({mode}) is {} since {ended}",
            text(rotation, "id"),
            progress.words
        ),
    }
}

/// Until when a rotation that waits for its proof is to be done, and what happens then: nothing.
fn deadline(rotation: &Value) -> String {
    if rotation["deadlineAt"].is_null() {
        return String::new();
    }
    format!(
        "; its deadline is {}, and without proof the old secret stays active after it too",
        text(rotation, "deadlineAt")
    )
}

/// Cells of a bar that is printed.
const BAR: u64 = 30;

fn bar(shown: bool) -> ProgressBar {
    let target = if shown {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Asks, and asks again while the server is away.
fn ask(client: &Client, request: &Request, every: Duration) -> Result<Answer, Failure> {
    let mut tries = 1;
    loop {
        match client.call(request) {
            Err(failure)
                if matches!(failure.exit(), Exit::Unreachable | Exit::ServerError)
                    && tries < TRIES =>
            {
                tries += 1;
                client.wait(every);
            }
            answered => return answered,
        }
    }
}

impl Progress {
    /// Before the promotion: passes of those that are needed, over all endpoints. After it: the time
    /// until the old secret goes at the latest.
    fn of(rotation: &Value, now: Timestamp) -> Self {
        let endpoints = rotation["endpoints"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        match rotation["stage"].as_str() {
            Some("staged") if rotation["mode"] == "proven" => Self::proving(endpoints),
            Some("staged") => Self {
                done: 0,
                total: 1,
                words: "the new secret waits until it is promoted".to_owned(),
            },
            Some("overlap") => Self::overlapping(rotation, endpoints, now),
            stage => Self {
                done: 1,
                total: 1,
                words: printable(stage.unwrap_or("over")),
            },
        }
    }

    /// It as one line of text.
    fn line(&self) -> String {
        let total = self.total.max(1);
        let done = self.done.min(total);
        let percent = u128::from(done) * 100 / u128::from(total);
        let cells = (0..BAR).map(|cell| {
            let full = u128::from(done) * u128::from(BAR) > u128::from(cell) * u128::from(total);
            if full { '#' } else { '-' }
        });
        format!("[{}] {percent} %", cells.collect::<String>())
    }

    fn proving(endpoints: &[Value]) -> Self {
        let passes = |endpoint: &Value| {
            let needed = number(endpoint, "needed");
            (number(endpoint, "passes").min(needed), needed)
        };
        let (mut done, mut total) = (0, 0);
        for (had, needed) in endpoints.iter().map(passes) {
            done += had;
            total += needed;
        }
        let proved = |endpoint: &&Value| endpoint["standing"] == "proved";
        let missing = endpoints.iter().find(|endpoint| !proved(endpoint));
        let words = match (endpoints.len(), missing) {
            (_, None) => "proved".to_owned(),
            (1, Some(only)) => text(only, "words"),
            (count, Some(first)) => format!(
                "{} of {count} endpoints proved; {}: {}",
                endpoints.iter().filter(proved).count(),
                text(first, "endpointId"),
                text(first, "words")
            ),
        };
        Self { done, total, words }
    }

    fn overlapping(rotation: &Value, endpoints: &[Value], now: Timestamp) -> Self {
        let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
        let retire_at = time(&rotation["retireAt"]);
        let since = time(&rotation["promotion"]["at"]).or_else(|| time(&rotation["openedAt"]));
        let (done, total) = match (since, retire_at) {
            (Some(since), Some(until)) => (now.since(since), until.since(since)),
            (Some(_) | None, _) => (0, 1),
        };
        let needed: u64 = endpoints
            .iter()
            .map(|endpoint| number(endpoint, "oldNeeded"))
            .sum();
        let last = endpoints
            .iter()
            .filter_map(|endpoint| endpoint["oldNeededAt"].as_str())
            .max();
        let behind = behind(rotation, endpoints);
        let last = match last {
            Some(last) => format!(
                "the old one is needed for {needed} deliveries, last at {}",
                printable(last)
            ),
            None if behind.is_some() => {
                "no delivery was accepted by the old one alone so far".to_owned()
            }
            None => "the old one is not needed since".to_owned(),
        };
        let goes = goes(rotation);
        let behind = behind.map_or_else(String::new, |behind| format!("{behind}; "));
        Self {
            done: done.min(total),
            total: total.max(1),
            words: format!("{behind}the new secret is active; {last}, and it {goes}"),
        }
    }
}

/// When the old secret goes: at its end in the modes that wait for nobody and where somebody extended the rotation, and
/// sooner or later than that as it is needed where the rotation finds out.
fn goes(rotation: &Value) -> String {
    let until = text(rotation, "retireAt");
    if rotation["mode"] != "proven" {
        return format!("goes at {until}");
    }
    let kept = text(rotation, "keptUntil");
    let or_later = if rotation["policy"]["onDeadline"] == "extend" {
        ", or later, while it is needed"
    } else {
        ""
    };
    if kept.is_empty() {
        format!("goes at {until} or sooner{or_later}")
    } else if kept == until {
        format!("is kept until {until}, because somebody extended the rotation{or_later}")
    } else {
        format!(
            "goes at {until} or sooner, but is kept until {kept}, because somebody extended the rotation{or_later}"
        )
    }
}

/// The first endpoint that is not seen to hold the new secret in an overlap, and why not: it comes before whatever
/// was delivered, for a message that both secrets signed may be accepted for the old one.
fn behind(rotation: &Value, endpoints: &[Value]) -> Option<String> {
    let asks = rotation["mode"] == "proven";
    let is_behind = |endpoint: &&Value| match endpoint["standing"].as_str() {
        Some("not_ready") => true,
        Some("does_not_verify" | "unreachable") => asks,
        Some("proved") | None => false,
        Some(_) => asks && endpoint["lastPassAt"].is_null(),
    };
    let first = endpoints.iter().find(is_behind)?;
    let more = match endpoints.iter().filter(is_behind).count() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Some(format!(
        "{}: {} ({}{more})",
        text(first, "standing").replace('_', " "),
        text(first, "words"),
        text(first, "endpointId")
    ))
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_default()
}

fn text(value: &Value, member: &str) -> String {
    printable(value[member].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn endpoint(standing: &str, passes: u64) -> Value {
        json!({"endpointId": "ep_1", "standing": standing, "words": format!("{standing} words"),
            "passes": passes, "needed": 59, "oldNeeded": 0})
    }

    #[test]
    fn passes_of_all_endpoints_make_the_bar() {
        let cases = [
            (
                json!([endpoint("collecting", 23)]),
                (23, 59),
                "collecting words",
            ),
            (json!([endpoint("proved", 61)]), (59, 59), "proved"),
            (
                json!([endpoint("proved", 59), endpoint("not_ready", 0)]),
                (59, 118),
                "1 of 2 endpoints proved; ep_1: not_ready words",
            ),
        ];
        for (endpoints, bar, words) in cases {
            let rotation = json!({"stage": "staged", "mode": "proven", "endpoints": endpoints});
            let progress = Progress::of(&rotation, NOW);
            assert_eq!((progress.done, progress.total), bar, "{rotation}");
            assert_eq!(progress.words, words);
        }
    }

    #[test]
    fn a_rotation_is_shown_with_a_sentence_and_a_bar_first() {
        let rotation = json!({"id": "rot_1", "stage": "staged", "mode": "proven",
            "endpoints": [endpoint("collecting", 23)]});
        let progress = Progress::of(&rotation, NOW);
        assert_eq!(
            sentence(&rotation, &progress),
            "rotation rot_1 (proven) waits to be promoted: collecting words"
        );
        let until = "2026-01-15T00:00:00.000Z";
        let due = json!({"id": "rot_1", "stage": "staged", "mode": "proven", "deadlineAt": until,
            "endpoints": [endpoint("collecting", 23)]});
        assert_eq!(
            sentence(&due, &progress),
            format!(
                "rotation rot_1 (proven) waits to be promoted: collecting words; its deadline is {until}, and without proof the old secret stays active after it too"
            )
        );
        let bar = format!("[{}{}] 38 %", "#".repeat(12), "-".repeat(18));
        assert_eq!(progress.line(), bar);
        let rotation = json!({"id": "rot_1", "stage": "completed", "mode": "overlap",
            "endedAt": "2026-01-01T00:00:00.000Z", "endpoints": []});
        let progress = Progress::of(&rotation, NOW);
        assert_eq!(
            sentence(&rotation, &progress),
            "rotation rot_1 (overlap) is completed since 2026-01-01T00:00:00.000Z"
        );
        assert_eq!(progress.line(), format!("[{}] 100 %", "#".repeat(30)));
    }

    #[test]
    fn after_the_promotion_time_makes_the_bar() {
        let rotation = json!({
            "stage": "overlap", "mode": "proven", "openedAt": Timestamp::from_millis(0).to_string(),
            "promotion": {"at": Timestamp::from_millis(500_000).to_string()},
            "retireAt": Timestamp::from_millis(1_500_000).to_string(),
            "endpoints": [{"oldNeeded": 3, "oldNeededAt": "1970-01-01T00:10:00.000Z"}],
        });
        let progress = Progress::of(&rotation, NOW);
        assert_eq!((progress.done, progress.total), (500_000, 1_000_000));
        assert!(
            progress.words.contains("needed for 3 deliveries"),
            "{progress:?}"
        );
        assert!(progress.words.starts_with("the new"), "{progress:?}");
    }

    #[test]
    fn who_lacks_the_new_secret_is_named_first_in_an_overlap() {
        let until = Timestamp::from_millis(1_500_000).to_string();
        let said = |mode: &str, on_deadline: &str, endpoints: Value| {
            let rotation = json!({
                "stage": "overlap", "mode": mode, "retireAt": until,
                "policy": {"onDeadline": on_deadline}, "endpoints": endpoints,
            });
            Progress::of(&rotation, NOW).words
        };
        let refused = said("proven", "extend", json!([endpoint("not_ready", 0)]));
        assert_eq!(
            refused,
            format!(
                "not ready: not_ready words (ep_1); the new secret is active; no delivery was accepted by the old one alone so far, and it goes at {until} or sooner, or later, while it is needed"
            )
        );
        let cut = said("proven", "cut", json!([endpoint("proved", 59)]));
        assert_eq!(
            cut,
            format!(
                "the new secret is active; the old one is not needed since, and it goes at {until} or sooner"
            )
        );
        let kept = |on_deadline: &str, kept_until: &str| {
            let rotation = json!({
                "stage": "overlap", "mode": "proven", "retireAt": until, "keptUntil": kept_until,
                "policy": {"onDeadline": on_deadline}, "endpoints": [endpoint("proved", 59)],
            });
            goes(&rotation)
        };
        let asked = format!("is kept until {until}, because somebody extended the rotation");
        assert_eq!(kept("cut", &until), asked);
        let or_later = ", or later, while it is needed";
        assert_eq!(kept("extend", &until), format!("{asked}{or_later}"));
        let earlier = Timestamp::from_millis(1_200_000).to_string();
        assert_eq!(
            kept("extend", &earlier),
            format!(
                "goes at {until} or sooner, but is kept until {earlier}, because somebody extended the rotation{or_later}"
            )
        );
        let several = json!([
            endpoint("proved", 59),
            endpoint("collecting", 0),
            endpoint("unreachable", 0)
        ]);
        let several = said("proven", "extend", several);
        assert!(
            several.starts_with("collecting: collecting words (ep_1 and 1 more); "),
            "{several}"
        );
        // Where nobody asks, that nothing was asked says nothing.
        let unasked = said("overlap", "", json!([endpoint("not_asked", 0)]));
        assert!(unasked.starts_with("the new secret"), "{unasked}");
    }
}
