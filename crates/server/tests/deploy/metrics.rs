//! The board and the alert rules name only metrics that a running server has, with labels that these have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::files::{deploy, document, installed, made, read};
use crate::support::{Receiver, Server, within_deadline};

/// The metrics of a server that did some of everything, by name, each with its labels and their values.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

async fn known() -> Known {
    let directory = tempfile::tempdir().unwrap();
    let refusals = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&refusals);
    let mut receiver = Receiver::answering(move |_| {
        let one_less = |left: usize| left.checked_sub(1);
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => StatusCode::UNAUTHORIZED,
            Err(_) => StatusCode::NO_CONTENT,
        }
    })
    .await;
    let server = Server::start(directory.path()).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    let endpoint = api.create_endpoint(&app, &asked).await;
    api.publish(&app, "order.paid", "{}").await;
    receiver.next().await;
    // Its probes are counted too.
    let rehearse = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    within_deadline("its acceptance is recorded", async {
        // Refused until then: who never accepted anything gets no probes.
        let ask = || api.send(Method::POST, &rehearse, "{}".to_owned());
        while !ask().await.0.is_success() {}
    })
    .await;
    // A rotation about which there is evidence of every kind: both secrets are refused once, then the old one.
    let overlap = json!({ "mode": "overlap", "overlapSeconds": 3_600 });
    api.rotate(&endpoint.keyring_id, &overlap).await;
    refusals.store(3, Ordering::SeqCst);
    api.publish(&app, "order.paid", "{}").await;
    api.publish(&app, "order.paid", "{}").await;
    let mut known = Known::new();
    // What is counted of rotations is there after the server's first look at its store.
    let seen = [
        "hookturn_rotations_open",
        "hookturn_rotation_first_pass_timestamp_seconds",
        "hookturn_rotation_last_fallback_timestamp_seconds",
    ];
    within_deadline("the server counts its store", async {
        while !seen.iter().all(|name| known.contains_key(*name)) {
            let (status, page) = api.send(Method::GET, "/metrics", String::new()).await;
            assert!(status.is_success());
            known.clear();
            read_page(std::str::from_utf8(&page).unwrap(), &mut known);
        }
    })
    .await;
    server.stop().await;
    known
}

fn read_page(page: &str, known: &mut Known) {
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = known.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split("\",") {
            if let Some((label, value)) = label.split_once("=\"") {
                let values = known.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
}

/// What a query names: metrics, each with the labels that it is asked for by, and their values.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    metrics: BTreeSet<String>,
    /// Metric, label, operator, value.
    matchers: Vec<(String, String, String, String)>,
    /// Labels that results are grouped by.
    grouped: BTreeSet<String>,
}

/// Functions and words of PromQL that these files use. Anything else is the name of a metric.
const WORDS: &[&str] = &[
    "and",
    "by",
    "count",
    "deriv",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "or",
    "predict_linear",
    "rate",
    "sum",
    "time",
    "unless",
    "without",
];

/// Reads names out of a query. It knows as much of the language as these files use; `promtool` knows all of it.
fn named(query: &str) -> Named {
    let mut found = Named::default();
    let mut rest = query;
    let mut grouping = false;
    let mut metric = "";
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(rest.len());
            let word = &rest[..end];
            rest = &rest[end..];
            if grouping {
                found.grouped.insert(word.to_owned());
            } else if word == "by" || word == "without" {
                rest = rest.trim_start().strip_prefix('(').unwrap();
                grouping = true;
            } else if !WORDS.contains(&word) {
                metric = word;
                found.metrics.insert(word.to_owned());
            }
        } else if first == '{' {
            let end = rest.find('}').unwrap();
            for matcher in rest[1..end].split(',') {
                let (label, text) = matcher.trim().split_once(['=', '!']).unwrap();
                let (operator, value) = text.split_once('"').unwrap();
                let value = value.trim_end_matches('"');
                let of = (metric, label, operator, value);
                found
                    .matchers
                    .push((of.0.into(), of.1.into(), of.2.into(), of.3.into()));
            }
            rest = &rest[end + 1..];
        } else if first == '[' {
            rest = &rest[rest.find(']').unwrap() + 1..];
        } else if first.is_ascii_digit() {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(rest.len());
            rest = &rest[end..];
        } else {
            grouping &= first != ')';
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

#[test]
fn names_are_read_out_of_queries() {
    let found = named(
        r#"histogram_quantile(0.99, sum by (le, job) (rate(a_seconds_bucket{job="x", b=~"c|d"}[5m]))) > 10e9 and up == 0"#,
    );
    let metrics: Vec<_> = found.metrics.iter().map(String::as_str).collect();
    assert_eq!(metrics, ["a_seconds_bucket", "up"]);
    assert_eq!(found.grouped.len(), 2, "{found:?}");
    let matcher = ("a_seconds_bucket", "b", "~", "c|d");
    let (metric, label, operator, value) = &found.matchers[1];
    assert_eq!((&**metric, &**label, &**operator, &**value), matcher);
}

/// Every query of the rules, with where it stands.
fn of_rules() -> Vec<(String, String)> {
    let rules = document("prometheus/hookturn.rules.yml");
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| {
            let text = |name: &str| rule[name].as_str().unwrap().to_owned();
            (text("alert"), text("expr"))
        })
        .collect()
}

/// Every query of the board, its variables set.
fn of_board(board: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$job", "hookturn")
                .replace("$instance", ".*")
                .replace("$__rate_interval", "5m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[tokio::test]
async fn the_board_and_the_rules_ask_for_what_there_is() {
    let known = known().await;
    let board: Value = serde_json::from_str(&read("grafana/hookturn.json")).unwrap();
    let queries = [of_rules(), of_board(&board)].concat();
    assert!(queries.len() > 25, "{queries:?}");
    // Prometheus adds these itself.
    let added = ["job", "instance"];
    let mut asked = BTreeSet::new();
    for (place, query) in queries {
        let found = named(&query);
        assert!(!found.metrics.is_empty(), "{place}: {query}");
        let metrics = found.metrics.iter().filter(|metric| *metric != "up");
        for metric in metrics.clone() {
            assert!(known.contains_key(metric), "{place}: there is no {metric}");
        }
        for (metric, label, operator, value) in &found.matchers {
            if added.contains(&&**label) {
                continue;
            }
            let values = known[metric]
                .get(label)
                .unwrap_or_else(|| panic!("{place}: {metric} has no {label}"));
            let wanted: Vec<&str> = match &**operator {
                "~" => value.split('|').collect(),
                _ => vec![value],
            };
            for value in wanted {
                assert!(values.contains(value), "{place}: {metric} {label}={value}");
            }
        }
        for label in found.grouped.iter().filter(|l| !added.contains(&&***l)) {
            let has = |metric: &String| known[metric].contains_key(label);
            assert!(metrics.clone().any(has), "{place}: nothing has {label}");
        }
        asked.extend(metrics.cloned());
    }
    // And what there is can be seen.
    for metric in known.keys() {
        assert!(asked.contains(metric), "{metric} is on no board");
    }
}

#[test]
fn the_board_is_one_that_grafana_imports() {
    let board: Value = serde_json::from_str(&read("grafana/hookturn.json")).unwrap();
    for member in ["uid", "title", "schemaVersion", "time", "templating"] {
        assert!(!board[member].is_null(), "{member}");
    }
    let mut ids = BTreeSet::new();
    let mut taken: Vec<(u64, u64, u64, u64)> = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (x, y, right, bottom) = (at("x"), at("y"), at("x") + at("w"), at("y") + at("h"));
        assert!(right <= 24, "{title}");
        for (x2, y2, right2, bottom2) in &taken {
            let apart = right <= *x2 || *right2 <= x || bottom <= *y2 || *bottom2 <= y;
            assert!(apart, "{title} covers another panel");
        }
        taken.push((x, y, right, bottom));
        if panel["type"] == "row" {
            continue;
        }
        // Nobody else's data source has the id of ours.
        let source = panel["datasource"]["uid"].as_str();
        assert_eq!(source, Some("${datasource}"), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(target["legendFormat"].is_string(), "{title}");
        }
    }
    let variables = board["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}

fn promtool(arguments: &[&str], directory: &Path) -> String {
    let mut promtool = Command::new(installed("HOOKTURN_JUDGE_PROMTOOL"));
    made(promtool.args(arguments).current_dir(directory))
}

#[test]
fn prometheus_reads_the_rules_and_they_fire_when_they_should() {
    let directory = deploy().join("prometheus");
    let told = promtool(
        &[
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            "hookturn.rules.yml",
        ],
        &directory,
    );
    assert!(told.contains("SUCCESS"), "{told}");
    let mut tried = String::new();
    for name in ["hookturn.rules.test.yml", "hookturn.rules.days.test.yml"] {
        promtool(&["test", "rules", name], &directory);
        tried.push_str(&read(&format!("prometheus/{name}")));
    }
    for (alert, _) in of_rules() {
        assert!(tried.contains(&alert), "{alert} is not tried");
    }
    promtool(&["check", "config", "scrape.yml"], &directory);
}

#[test]
fn prometheus_understands_the_queries_of_the_board() {
    let board: Value = serde_json::from_str(&read("grafana/hookturn.json")).unwrap();
    let rules: Vec<Value> = (0..)
        .zip(of_board(&board))
        .map(|(number, (_, query)): (u32, _)| json!({ "record": format!("board:{number}"), "expr": query }))
        .collect();
    let group = json!({ "groups": [{ "name": "board", "rules": rules }] });
    let place = tempfile::tempdir().unwrap();
    // JSON is YAML.
    fs::write(place.path().join("board.yml"), group.to_string()).unwrap();
    let told = promtool(&["check", "rules", "board.yml"], place.path());
    assert!(told.contains("SUCCESS"), "{told}");
}
