//! A flow as a child process, which may ask for the server to be stopped and started.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use hookturn::ui::pages::samples;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::Server;

/// Longest time without a word from a flow: it looks at many pages without one.
const DEADLINE: Duration = Duration::from_mins(4);

/// The key that a flow is given.
const KEY: &str = "sk_workspace_test_of_somebody_at_a_browser_01";

/// What a flow says.
enum Said {
    /// It asks the test for something.
    Asks(String),
    /// Anything else, for people who read why it failed.
    Line(String),
}

/// A flow that runs; killed when the test gives up on it.
struct Flow {
    child: Child,
    answers: ChildStdin,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a flow against a server of its own.
pub(crate) async fn flow(name: &str) {
    flow_with(name, &[]).await;
}

/// The same, with more of the server's environment.
pub(crate) async fn flow_with(name: &str, variables: &[(&str, &str)]) {
    let data = tempfile::tempdir().unwrap();
    let mut server = Some(Server::start_with(data.path(), KEY, variables).await);
    let first = server.as_ref().unwrap();
    let (origin, address) = (first.origin(), first.address());
    let scratch = tempfile::tempdir().unwrap();
    let given = json!({
        "origin": origin,
        "key": first.api().key,
        "samples": written_samples(scratch.path()),
        "pictures": pictures(),
    });
    let mut flow = Flow::start(name, &given.to_string());
    let mut told = String::new();
    loop {
        let said = tokio::time::timeout(DEADLINE, flow.said.recv()).await;
        let said = said.unwrap_or_else(|_| panic!("{name} hangs:\n{told}"));
        match said {
            Some(Said::Line(line)) => {
                told.push_str(&line);
                told.push('\n');
            }
            Some(Said::Asks(what)) => {
                match (what.as_str(), server.take()) {
                    ("stop", Some(running)) => running.stop().await,
                    ("start", None) => {
                        server = Some(Server::start_at(data.path(), address, KEY).await);
                    }
                    (what, _) => panic!("{name} asks for {what} at the wrong time"),
                }
                writeln!(flow.answers, "done").unwrap();
            }
            None => break,
        }
    }
    let status = flow.child.wait().unwrap();
    let log = server.as_ref().map(Server::log).unwrap_or_default();
    assert!(
        status.success(),
        "{name}: {status}\n{told}\nthe server:\n{log}"
    );
    server.expect("a flow leaves it running").stop().await;
}

impl Flow {
    fn start(name: &str, given: &str) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges/browser");
        let script = scripts.join("flows").join(format!("{name}.mjs"));
        let mut child = Command::new("node")
            .arg(script)
            .env("HOOKTURN_JUDGE_NODE", installed())
            .env("HOOKTURN_BROWSER", given)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node did not start: {error}: run cargo xtask test"));
        let (tell, said) = mpsc::unbounded_channel();
        let answers = child.stdin.take().unwrap();
        let output = child.stdout.take().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let tell_errors = tell.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let asked = serde_json::from_str::<serde_json::Value>(&line).ok();
                let asked = asked.and_then(|line| line["ask"].as_str().map(str::to_owned));
                let _ = tell.send(asked.map_or(Said::Line(line), Said::Asks));
            }
        });
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            let _ = tell_errors.send(Said::Line(text));
        });
        Self {
            child,
            answers,
            said,
        }
    }
}

/// Where `cargo xtask test` put the judges of Node.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask says by the environment where it installed them; the server never reads it"
)]
fn installed() -> PathBuf {
    match std::env::var_os("HOOKTURN_JUDGE_NODE") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => panic!("HOOKTURN_JUDGE_NODE is not set: run cargo xtask test"),
    }
}

/// Where pictures are left.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever wants new pictures says by the environment where; the server never reads it"
)]
fn pictures() -> PathBuf {
    match std::env::var_os("HOOKTURN_SCREENSHOTS") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots"),
    }
}

/// Every sample in one file, with the policy that pages are served under.
fn written_samples(folder: &Path) -> PathBuf {
    let pages: BTreeMap<_, _> = samples()
        .into_iter()
        .map(|(name, html)| (name, html.unwrap()))
        .collect();
    let policy = hookturn::ui::CONTENT_SECURITY_POLICY;
    let file = folder.join("samples.json");
    let text = json!({ "pages": pages, "policy": policy }).to_string();
    std::fs::write(&file, text).unwrap();
    file
}
