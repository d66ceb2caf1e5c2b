//! The demo is a promise to newcomers: nothing lost, whoever deploys when, and nothing called proved
//! that is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hookturn::demo::{Demo, Options, Telling};
use rustix::process::{Pid, Signal, kill_process};

/// G3, G4, G6, G7: receivers of every class, each deploying its new secret at another moment.
#[tokio::test(flavor = "multi_thread")]
async fn g6_g7_the_demo_loses_nothing_and_proves_what_verifies() {
    let mut demo = Demo::start().await.unwrap();
    let report = demo
        .show(Options {
            per_second: 100,
            step: Duration::from_millis(300),
            progress: Telling::Not,
        })
        .await
        .unwrap();
    demo.stop().await;
    let table = report.table();
    println!("{table}");
    assert!(report.is_clean(), "{table}");
    let classes: Vec<_> = report.rows.iter().map(|row| row.class.as_str()).collect();
    let expected = [
        "list_aware",
        "first_only",
        "last_only",
        "single",
        "single",
        "single",
        "list_aware",
        "does_not_verify",
    ];
    assert_eq!(classes, expected, "{table}");
    for row in &report.rows {
        assert_eq!(row.delivered, report.messages, "{table}");
        assert_eq!(row.duplicates, 0, "{table}");
        assert!(row.probes > 0, "{table}");
        if let Some(proved) = row.proved {
            assert!(proved.passes >= 59, "{table}");
            assert!(
                Some(proved.promoted_seconds) > row.deployed_seconds,
                "promoted before it had deployed: {table}"
            );
        } else {
            assert!(row.words.contains("verifies nothing"), "{}", row.words);
        }
    }
    // The window really was one: somebody was refused and then served with the other secret.
    assert!(report.rows.iter().any(|row| row.refused > 0), "{table}");
}

/// The program, started by a shell that does `first`, with its temporary files in `place`.
fn started(first: &str, arguments: &str, place: &Path) -> Child {
    let binary = env!("CARGO_BIN_EXE_hookturn");
    Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{first} exec '{binary}' demo {arguments}"))
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_empty(place: &Path) -> bool {
    place.read_dir().unwrap().next().is_none()
}

#[test]
fn a_signal_ends_it_cleanly_while_it_works() {
    for (signal, first, line) in [
        (Signal::INT, "", "events flow"),
        (Signal::INT, "trap '' INT;", "events flow"),
        (Signal::TERM, "", "a proven rotation is open"),
        (Signal::HUP, "", "events flow"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let mut child = started(first, "", place.path());
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(told.any(|told| told.unwrap().contains(line)), "{signal:?}");
        assert!(!is_empty(place.path()), "{signal:?}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let rest: Vec<_> = told.map(Result::unwrap).collect();
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(0), "{signal:?}: {rest:?}");
        assert!(is_empty(place.path()), "{signal:?}: {rest:?}");
        let last = rest.last().unwrap();
        assert!(last.contains("stopped before its end"), "{rest:?}");
    }
}

#[test]
fn it_outlives_its_terminal_where_it_was_started_to() {
    let place = tempfile::tempdir().unwrap();
    let mut child = started("trap '' HUP;", "", place.path());
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |line: &str| told.any(|told| told.unwrap().contains(line));
    assert!(until("events flow"));
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    // Said a second later.
    assert!(until("the new secret is deployed"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(until("stopped before its end"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn who_reads_no_more_is_no_failure() {
    let place = tempfile::tempdir().unwrap();
    let mut child = started("", "--exit --rate 50", place.path());
    drop(child.stdout.take());
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    assert!(is_empty(place.path()), "{told}");
}
