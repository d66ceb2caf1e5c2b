//! The judges: two scripts that put captured requests before every library that knows their scheme.
//! The contract between this file and the scripts is written at the top of `tests/judges/verify.mjs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{Captured, SecretValue, within_deadline};

/// The judges that must speak for each scheme. One that is missing, or a stranger, is a failure.
const JUDGES: &[(&str, &[&str])] = &[
    (
        "standard",
        &[
            "openai-npm",
            "openai-python",
            "standardwebhooks-npm",
            "standardwebhooks-python",
            "svix-npm",
            "svix-python",
        ],
    ),
    ("standard-v1a", &["cryptography-python", "node:crypto"]),
    ("hopae", &["stripe-npm", "stripe-python"]),
    (
        "github",
        &["@octokit/webhooks-methods-npm", "gidgethub-python"],
    ),
    ("kore", &["hashlib-python", "node:crypto"]),
];

/// One fault makes many wrong verdicts; a few show what it is.
const COMPLAINTS_SHOWN: usize = 20;

/// Requests with the verdicts that all judges of their schemes must give.
pub(crate) struct Hearing {
    node: PathBuf,
    python: PathBuf,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    scheme: &'static str,
    expected: &'static str,
    line: String,
}

/// What a receiver knows beside the request: its scheme and the URL it gave to the sender.
#[derive(Clone)]
pub(crate) struct Receiving {
    pub(crate) scheme: &'static str,
    pub(crate) url: String,
}

impl Hearing {
    /// Fails at once where nothing can judge.
    pub(crate) fn open() -> Self {
        Self {
            node: installed("HOOKTURN_JUDGE_NODE"),
            python: installed("HOOKTURN_JUDGE_PYTHON"),
            cases: Vec::new(),
        }
    }

    /// A receiver that holds `secret` must accept this.
    pub(crate) fn accepts(
        &mut self,
        name: &str,
        at: &Receiving,
        secret: &SecretValue,
        request: &Captured,
    ) {
        self.add(name, "accept", at, secret, request);
    }

    /// A receiver that holds `secret` must refuse this.
    pub(crate) fn rejects(
        &mut self,
        name: &str,
        at: &Receiving,
        secret: &SecretValue,
        request: &Captured,
    ) {
        self.add(name, "reject", at, secret, request);
    }

    fn add(
        &mut self,
        name: &str,
        expected: &'static str,
        at: &Receiving,
        secret: &SecretValue,
        request: &Captured,
    ) {
        let headers: BTreeMap<&str, &str> = request
            .headers
            .iter()
            .map(|(name, _)| (name.as_str(), request.header(name)))
            .collect();
        let line = json!({
            "scheme": at.scheme,
            "secret": secret.value,
            "publicKey": secret.public_key,
            "method": request.method,
            "url": at.url,
            "headers": headers,
            "bodyBase64": BASE64.encode(&request.body),
        });
        self.cases.push(Case {
            name: format!("{}: {name}", at.scheme),
            scheme: at.scheme,
            expected,
            line: line.to_string(),
        });
    }

    /// Asks every judge about every case, and fails with the verdicts that are not the expected ones.
    pub(crate) async fn close(self) {
        assert!(!self.cases.is_empty(), "a hearing without a case");
        let lines: Vec<&str> = self.cases.iter().map(|case| case.line.as_str()).collect();
        let lines = lines.join(
            "
",
        );
        let node_script = self.node.join("verify.mjs");
        let python_script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges/verify.py");
        let (by_node, by_python) = tokio::join!(
            ask(OsStr::new("node"), &node_script, &lines),
            ask(self.python.as_os_str(), &python_script, &lines),
        );
        let mut verdicts = vec![BTreeMap::new(); self.cases.len()];
        for verdict in by_node.into_iter().chain(by_python) {
            let number = usize::try_from(verdict["request"].as_u64().unwrap()).unwrap();
            let judge = verdict["judge"].as_str().unwrap();
            let (judge, _version) = judge.rsplit_once('@').unwrap();
            verdicts[number - 1].insert(judge.to_owned(), verdict);
        }
        let wrong: Vec<String> = self
            .cases
            .iter()
            .zip(&verdicts)
            .flat_map(|(case, verdicts)| case.complaints(verdicts))
            .collect();
        let shown = &wrong[..wrong.len().min(COMPLAINTS_SHOWN)];
        assert!(
            wrong.is_empty(),
            "{} verdicts are wrong, the first of them:\n{}",
            wrong.len(),
            shown.join("\n")
        );
    }
}

impl Case {
    fn complaints(&self, verdicts: &BTreeMap<String, Value>) -> Vec<String> {
        let (_, judges) = JUDGES
            .iter()
            .find(|(name, _)| *name == self.scheme)
            .unwrap();
        let spoke: Vec<&str> = verdicts.keys().map(String::as_str).collect();
        let mut wrong = Vec::new();
        if spoke != *judges {
            wrong.push(format!(
                "{}: {judges:?} must judge, but {spoke:?} did",
                self.name
            ));
        }
        for (judge, given) in verdicts {
            if given["verdict"] != self.expected {
                let (verdict, detail) = (&given["verdict"], &given["detail"]);
                wrong.push(format!(
                    "{}: {judge} must {}, but said {verdict} ({detail})",
                    self.name, self.expected
                ));
            }
        }
        wrong
    }
}

/// Where `cargo xtask test` put a part of the judges.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask says by the environment where it installed the judges; the server never reads it"
)]
pub(crate) fn installed(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => panic!("{variable} is not set, so nothing can judge: run cargo xtask test"),
    }
}

/// Runs one script over `lines` and answers its verdicts. It is killed if it does not end in time.
async fn ask(program: &OsStr, script: &Path, lines: &str) -> Vec<Value> {
    let child = Command::new(program)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut judge = match child {
        Ok(child) => Judge(child),
        Err(error) => panic!(
            "{} did not start: {error}: run cargo xtask test",
            program.display()
        ),
    };
    let mut input = judge.0.stdin.take().unwrap();
    let lines = lines.to_owned();
    // A judge that stops reading closes the pipe; its exit code then says why.
    std::thread::spawn(move || drop(input.write_all(lines.as_bytes())));
    let mut output = judge.0.stdout.take().unwrap();
    let (finish, finished) = oneshot::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = finish.send(output.read_to_string(&mut text).map(|_| text));
    });
    let output = within_deadline("the judges decide", finished).await;
    let status = judge.0.wait().unwrap();
    assert!(status.success(), "{}: {status}", script.display());
    let output = output.unwrap().unwrap();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A script that runs; killed when the test gives up on it.
struct Judge(Child);

impl Drop for Judge {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
