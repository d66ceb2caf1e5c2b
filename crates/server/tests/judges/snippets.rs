//! The code that the dashboard shows for verifying a request, in every language, as it is shown: compiled and
//! run against requests that the server signed. It must accept what the holder of the secret should accept,
//! and refuse another body and another secret.
//!
//! Each snippet stands in a small program of its language that says where its names come from: the raw body,
//! the headers, the configured URL. All that a program says is `valid` or `refused`; anything else, such as
//! code that does not compile or fails for another reason than the signature, fails the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hookturn::ui::snippets::snippets;
use hookturn_core::endpoint::Preset;
use hookturn_verify::HeaderNames;
use http::{Method, StatusCode};
use serde_json::json;

use crate::panel::installed;
use crate::senders::{ALL, Sender, Stand};
use crate::support::{Api, Captured, Receiver, SecretValue, Server};

/// The programs, by language and by the case that their snippet is for.
struct Workshop {
    folder: PathBuf,
    python: PathBuf,
    /// Case and code, for the languages whose cases are compiled into one program.
    go: Vec<(String, String)>,
    rust: Vec<(String, String)>,
    /// What to run: language, case, request, secret, and what it must say.
    trials: Vec<Trial>,
}

struct Trial {
    language: &'static str,
    case: String,
    what: &'static str,
    files: PathBuf,
    method: String,
    url: String,
    secret: SecretValue,
    says: &'static str,
}

/// The imports of Go code: a package is imported when it is used, as Go requires.
const GO_PACKAGES: [&str; 9] = [
    "crypto/hmac",
    "crypto/sha256",
    "crypto/subtle",
    "encoding/base64",
    "encoding/hex",
    "os",
    "strconv",
    "strings",
    "time",
];

const GO_MAIN: &str = r#"package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
)

func main() {
	rawBody, err := os.ReadFile(os.Getenv("CASE_BODY"))
	lines, failed := os.ReadFile(os.Getenv("CASE_HEADERS"))
	if err != nil || failed != nil {
		panic("no case")
	}
	request := &http.Request{Method: os.Getenv("CASE_METHOD"), Header: http.Header{}}
	for _, line := range bytes.Split(lines, []byte("\n")) {
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok {
			request.Header.Add(string(name), string(value))
		}
	}
	if cases[os.Getenv("CASE_NAME")](request, rawBody, os.Getenv("CASE_URL")) {
		fmt.Println("valid")
	} else {
		fmt.Println("refused")
	}
}
"#;

const NODE_MAIN: &str = r#"import { readFileSync } from "node:fs";

process.on("uncaughtException", (error) => {
  if (error.constructor.name !== "WebhookVerificationError") {
    console.error(error);
    process.exit(1);
  }
  console.log("refused");
  process.exit(0);
});
const CONFIGURED_URL = process.env.CASE_URL;
const rawBody = readFileSync(process.env.CASE_BODY);
const lines = readFileSync(process.env.CASE_HEADERS, "utf8").split("\n").filter((line) => line !== "");
const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
const request = { method: process.env.CASE_METHOD, headers };
"#;

const PYTHON_MAIN: &str = r#"import os


class Headers(dict):
    def __getitem__(self, name):
        return super().__getitem__(name.lower())


class Request:
    method = os.environ["CASE_METHOD"]
    headers = Headers()


request = Request()
CONFIGURED_URL = os.environ["CASE_URL"]
with open(os.environ["CASE_BODY"], "rb") as file:
    raw_body = file.read()
with open(os.environ["CASE_HEADERS"], encoding="utf-8") as file:
    for line in file.read().splitlines():
        name, value = line.split(": ", 1)
        request.headers[name] = value
"#;

const RUST_MAIN: &str = r#"
fn main() {
    let var = |name: &str| std::env::var(name).unwrap();
    let body = std::fs::read(var("CASE_BODY")).unwrap();
    let lines = std::fs::read_to_string(var("CASE_HEADERS")).unwrap();
    let headers: Vec<(&str, &[u8])> = lines
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let verdict = judge(&var("CASE_NAME"), &var("CASE_URL"), &headers, body, now.as_secs() as i64);
    match verdict {
        Ok(()) => println!("valid"),
        Err(error) if error.is::<hookturn_verify::VerifyError>() => println!("refused"),
        Err(error) => panic!("{error}"),
    }
}
"#;

impl Workshop {
    fn open() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("snippets");
        for language in ["go", "node", "python", "requests", "rust/src"] {
            fs::create_dir_all(folder.join(language)).unwrap();
        }
        let node = installed("HOOKTURN_JUDGE_NODE");
        let modules = folder.join("node/node_modules");
        if fs::symlink_metadata(&modules).is_ok() {
            fs::remove_file(&modules).unwrap();
        }
        std::os::unix::fs::symlink(node.join("node_modules"), &modules).unwrap();
        Self {
            folder,
            python: installed("HOOKTURN_JUDGE_PYTHON"),
            go: Vec::new(),
            rust: Vec::new(),
            trials: Vec::new(),
        }
    }

    /// Takes the snippets of a case, each into a program of its language.
    fn take(
        &mut self,
        case: &str,
        preset: Preset,
        names: &HeaderNames,
        is_ed25519: bool,
    ) -> Vec<&'static str> {
        let mut languages = Vec::new();
        for snippet in snippets(preset, names, is_ed25519) {
            let code = snippet.code;
            languages.push(snippet.id);
            match snippet.id {
                "go" => self.go.push((case.to_owned(), code)),
                "rust" => self.rust.push((case.to_owned(), code)),
                "node" => {
                    let verdict = if preset == Preset::Standard {
                        "event !== undefined"
                    } else {
                        "valid"
                    };
                    let text = format!(
                        "{NODE_MAIN}{code}\nconsole.log({verdict} ? \"valid\" : \"refused\");\n"
                    );
                    self.write(&format!("node/{case}.mjs"), &text);
                }
                "python" => {
                    let verdict = if preset == Preset::Standard {
                        "event is not None"
                    } else {
                        "valid"
                    };
                    let code = code.replace('\n', "\n    ");
                    let text = format!(
                        "{PYTHON_MAIN}\n\ndef judge():\n    {code}\n    return {verdict}\n\n\ntry:\n    \
                         print(\"valid\" if judge() else \"refused\")\nexcept Exception as error:\n    \
                         if type(error).__name__ != \"WebhookVerificationError\":\n        raise\n    print(\"refused\")\n"
                    );
                    self.write(&format!("python/{case}.py"), &text);
                }
                other => panic!("nobody runs {other}"),
            }
        }
        languages
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.folder.join(path), text).unwrap();
    }

    /// Keeps a request, and what the snippets of a case must say to it.
    fn tries(
        &mut self,
        (case, languages): (&str, &[&'static str]),
        (what, says): (&'static str, &'static str),
        (captured, url): (&Captured, &str),
        secret: &SecretValue,
    ) {
        let files = self
            .folder
            .join(format!("requests/{case}-{}", what.replace(' ', "-")));
        let mut lines = String::new();
        for (name, value) in &captured.headers {
            writeln!(lines, "{name}: {value}").unwrap();
        }
        fs::write(files.with_extension("headers"), lines).unwrap();
        fs::write(files.with_extension("body"), &captured.body).unwrap();
        for language in languages {
            self.trials.push(Trial {
                language,
                case: case.to_owned(),
                what,
                files: files.clone(),
                method: captured.method.clone(),
                url: url.to_owned(),
                secret: secret.clone(),
                says,
            });
        }
    }

    /// One program of all Go snippets.
    fn compile_go(&self) {
        let mut code = String::from("package main\n\nimport (\n\t\"net/http\"\n");
        for package in GO_PACKAGES {
            let word = format!("{}.", package.rsplit('/').next().unwrap());
            if self.go.iter().any(|(_, code)| code.contains(&word)) {
                writeln!(code, "\t\"{package}\"").unwrap();
            }
        }
        code.push_str(")\n\nvar cases = map[string]func(*http.Request, []byte, string) bool{\n");
        for (case, snippet) in &self.go {
            let body = snippet.replace('\n', "\n\t\t");
            write!(code, "\t\"{case}\": func(request *http.Request, rawBody []byte, configuredURL string) bool {{\n\t\t{body}\n\t\treturn valid\n\t}},\n").unwrap();
        }
        code.push_str("}\n");
        self.write("go/snippets.go", &code);
        self.write("go/main.go", GO_MAIN);
        let mut gccgo = Command::new("gccgo");
        gccgo.current_dir(self.folder.join("go"));
        made(gccgo.args(["-o", "snippets", "main.go", "snippets.go"]));
    }

    /// One program of all Rust snippets, with the crate that they stand on.
    fn compile_rust(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let verify = fs::canonicalize(root.join("crates/verify")).unwrap();
        let manifest = format!(
            "[package]\nname = \"snippets\"\nedition = \"2024\"\n\n[dependencies]\nhookturn-verify = {{ path = \"{}\" }}\n\n[workspace]\n",
            verify.display()
        );
        self.write("rust/Cargo.toml", &manifest);
        // The versions that Hookturn is built with, and no others.
        fs::copy(root.join("Cargo.lock"), self.folder.join("rust/Cargo.lock")).unwrap();
        let mut code = String::from("#![allow(non_snake_case, unused_variables)]\n");
        let mut arms = String::new();
        for (case, snippet) in &self.rust {
            let name = case.replace('-', "_");
            write!(code, "\nfn {name}(CONFIGURED_URL: &str, headers: &Vec<(&str, &[u8])>, raw_body: Vec<u8>, now: i64) -> Result<(), Box<dyn std::error::Error>> {{\nlet headers = headers.clone();\n{snippet}Ok(())\n}}\n").unwrap();
            writeln!(
                arms,
                "        \"{case}\" => {name}(url, headers, body, now),"
            )
            .unwrap();
        }
        write!(code, "\nfn judge(case: &str, url: &str, headers: &Vec<(&str, &[u8])>, body: Vec<u8>, now: i64) -> Result<(), Box<dyn std::error::Error>> {{\n    match case {{\n{arms}        other => panic!(\"no case {{other}}\"),\n    }}\n}}\n{RUST_MAIN}").unwrap();
        self.write("rust/src/main.rs", &code);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(self.folder.join("rust"));
        cargo.env("CARGO_TARGET_DIR", self.folder.join("rust/target"));
        made(cargo.args(["build", "--quiet", "--offline"]));
    }

    /// What the program of a trial says.
    fn said(&self, trial: &Trial) -> Result<String, String> {
        let case = &trial.case;
        let mut program = match trial.language {
            "go" => Command::new(self.folder.join("go/snippets")),
            "rust" => Command::new(self.folder.join("rust/target/debug/snippets")),
            "node" => {
                let mut node = Command::new("node");
                node.arg(self.folder.join(format!("node/{case}.mjs")));
                node
            }
            _ => {
                let mut python = Command::new(&self.python);
                python.arg(self.folder.join(format!("python/{case}.py")));
                python
            }
        };
        program
            .env("WEBHOOK_SECRET", &trial.secret.value)
            .env(
                "WEBHOOK_PUBLIC_KEY",
                trial.secret.public_key.as_deref().unwrap_or_default(),
            )
            .env("CASE_NAME", case)
            .env("CASE_METHOD", &trial.method)
            .env("CASE_URL", &trial.url)
            .env("CASE_HEADERS", trial.files.with_extension("headers"))
            .env("CASE_BODY", trial.files.with_extension("body"));
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

fn made(command: &mut Command) {
    let output = command.output();
    let output =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}: run cargo xtask test"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}

/// The preset of a sender whose requests a snippet is for, and whether its key is a pair.
fn shown(sender: Sender) -> Option<(Preset, bool)> {
    let preset = match sender.name {
        "standard" | "standard, asymmetric" => Preset::Standard,
        "hopae" => Preset::Hopae,
        "github" => Preset::Github,
        "kore, a path and a query" => Preset::Kore,
        "kore-stream" => Preset::KoreStream,
        _ => return None,
    };
    Some((preset, sender.name.ends_with("asymmetric")))
}

/// Other header names for every preset, by role, and what the API takes for that.
fn white_label(api_names: &mut BTreeMap<String, serde_json::Value>, preset: Preset) -> HeaderNames {
    let mut names = HeaderNames::of(preset.scheme());
    let mut renamed = serde_json::Map::new();
    names.signature = "X-Acme-Signature".into();
    renamed.insert("signature".to_owned(), json!("X-Acme-Signature"));
    if preset == Preset::Standard {
        names.id = Some("X-Acme-Id".into());
        names.timestamp = Some("X-Acme-Time".into());
        renamed.insert("id".to_owned(), json!("X-Acme-Id"));
        renamed.insert("timestamp".to_owned(), json!("X-Acme-Time"));
    }
    api_names.insert(preset.as_str().to_owned(), renamed.into());
    names
}

async fn gather(api: &Api, workshop: &mut Workshop, is_renamed: bool) {
    for sender in ALL {
        let Some((preset, is_ed25519)) = shown(*sender) else {
            continue;
        };
        let names = if is_renamed {
            white_label(&mut BTreeMap::new(), preset)
        } else {
            HeaderNames::of(preset.scheme())
        };
        let kind = if is_ed25519 { "-pair" } else { "" };
        let label = if is_renamed { "-renamed" } else { "" };
        let case = format!("{preset}{kind}{label}");
        let languages = workshop.take(&case, preset, &names, is_ed25519);
        let expected = if is_ed25519 { 1 } else { 4 };
        assert_eq!(languages.len(), expected, "{case}: {languages:?}");
        let mut stand = Stand::build(api, *sender, Receiver::start().await).await;
        let captured = stand
            .deliver_renamed(api, r#"{"order":"42 – 東京","nested":[1,2]}"#)
            .await;
        let mut tampered = captured.clone();
        let mut body = tampered.body.to_vec();
        let at = body.iter().rposition(u8::is_ascii_digit).unwrap();
        body[at] ^= 1;
        tampered.body = body.into();
        let url = stand
            .receiving
            .url
            .split(['?', '#'])
            .next()
            .unwrap()
            .to_owned();
        let own = stand.endpoint.secret.clone();
        let of = (case.as_str(), languages.as_slice());
        workshop.tries(of, ("as it came", "valid"), (&captured, &url), &own);
        workshop.tries(of, ("another body", "refused"), (&tampered, &url), &own);
        workshop.tries(
            of,
            ("another secret", "refused"),
            (&captured, &url),
            &stand.other_secret,
        );
    }
}

#[tokio::test]
async fn every_snippet_that_the_dashboard_shows_verifies_what_the_server_signed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut workshop = Workshop::open();
    gather(&api, &mut workshop, false).await;
    let mut renamed = BTreeMap::new();
    for preset in Preset::ALL {
        white_label(&mut renamed, preset);
    }
    let patch = json!({ "headerNames": renamed }).to_string();
    let (status, told) = api
        .send(Method::PATCH, "/v1/workspaces/default", patch)
        .await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&told));
    gather(&api, &mut workshop, true).await;
    server.stop().await;
    workshop.compile_go();
    workshop.compile_rust();
    let mut faults = Vec::new();
    for trial in &workshop.trials {
        let name = format!("{}, {}, {}", trial.language, trial.case, trial.what);
        match workshop.said(trial) {
            Ok(said) if said == trial.says => {}
            Ok(said) => faults.push(format!("{name}: says {said}, not {}", trial.says)),
            Err(why) => faults.push(format!("{name}: {why}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(workshop.trials.len(), 3 * 2 * (5 * 4 + 1));
}
