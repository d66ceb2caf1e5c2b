//! The README's quick start, run as it is written: five lines of bash on one machine, at the end of
//! which a delivery arrives and verifies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

const README: &str = include_str!("../../../README.md");
/// How long five lines may take on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// The first block of commands under a heading.
fn commands_under(heading: &str) -> Vec<&'static str> {
    README
        .lines()
        .skip_while(|line| *line != heading)
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect()
}

/// A port that was free a moment ago, and that nobody else is told.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// The shell with everything it started; the whole group ends with the test.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn the_five_lines_of_the_quick_start_end_in_a_verified_delivery() {
    let lines = commands_under("## Use it");
    assert_eq!(lines.len(), 5, "the quick start has five lines: {lines:#?}");
    let binary = Path::new(env!("CARGO_BIN_EXE_hookturn"));
    let place = tempfile::tempdir().unwrap();
    let written = lines.join("\n");
    for part in ["$PWD/target/release", "8090", "8091", "curl"] {
        assert!(written.contains(part), "{part} is not in the quick start");
    }
    let script = written
        .replace(
            "$PWD/target/release",
            &binary.parent().unwrap().display().to_string(),
        )
        .replace("8090", &free_port())
        .replace("8091", &free_port());
    let mut shell = Command::new("bash")
        // What is unset or fails ends it: the lines must work in order.
        .args(["-eu", "-o", "pipefail", "-c", &format!("{script}\nwait")])
        .current_dir(place.path())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = BufReader::new(shell.stdout.take().unwrap());
    let shell = Shell(shell);
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in out.lines() {
            let _ = said.send(line.unwrap());
        }
    });
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains("=> ")) {
        match heard.recv_timeout(SOON) {
            Ok(line) => seen.push(line),
            Err(why) => panic!("no delivery arrived ({why}): {seen:#?}"),
        }
    }
    drop(shell);
    let shown = seen.join("\n");
    assert!(shown.contains("=> valid: signed by"), "{shown}");
    assert!(shown.contains("\"order\": 1"), "{shown}");
    assert!(
        shown.contains("\"keyringId\""),
        "the answers are shown: {shown}"
    );
}
