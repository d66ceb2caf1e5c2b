//! Every variable and every command line of the deployment files is one that the program knows.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use hookturn::cli::exit::Exit;
use hookturn::config::{self, Flags};
use serde_json::Value;

use crate::files::{all, document, made, read};
use crate::support::Server;

/// Every `HOOKTURN_…` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("HOOKTURN_");
    let word = |from: usize| {
        let part = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        let length = text[from..].bytes().take_while(|byte| part(*byte)).count();
        text[from..from + length].to_owned()
    };
    starts
        .map(|(from, _)| word(from))
        // A pattern that names all of them.
        .filter(|name| name != "HOOKTURN_")
        .collect()
}

/// Secrets that the files mention, and give by a file.
const NAMED_BY_A_FILE: [&str; 3] = [
    "HOOKTURN_MASTER_KEY",
    "HOOKTURN_BOOTSTRAP_API_KEY",
    "HOOKTURN_STORE_PASSWORD",
];

#[test]
fn every_variable_is_known() {
    let mut seen = BTreeSet::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a7".repeat(32)).unwrap();
    for (path, text) in all() {
        let named = variables(&text);
        // Files of keys are read, and refused when they are empty or not there; of a key and its file one is given.
        let value = |name: &String| {
            if name.ends_with("_FILE") {
                file.path().display().to_string()
            } else {
                String::new()
            }
        };
        let env: BTreeMap<_, _> = named
            .iter()
            .filter(|name| !NAMED_BY_A_FILE.contains(&name.as_str()))
            .map(|name| (name.clone(), value(name)))
            .collect();
        let loaded = config::load(Flags::default(), &env).unwrap();
        let unknown = loaded.unknown_variables;
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        seen.extend(named);
    }
    for name in [
        "HOOKTURN_STORE",
        "HOOKTURN_MASTER_KEY_FILE",
        "HOOKTURN_STORE_PASSWORD_FILE",
        "HOOKTURN_BOOTSTRAP_API_KEY_FILE",
    ] {
        assert!(seen.contains(name), "{seen:?}");
    }
    // A misspelt one would be noticed.
    let env = BTreeMap::from([("HOOKTURN_STOER".to_owned(), String::new())]);
    let loaded = config::load(Flags::default(), &env).unwrap();
    assert_eq!(loaded.unknown_variables, ["HOOKTURN_STOER"]);
}

fn words(value: &Value) -> Vec<String> {
    let texts = value.as_array().unwrap_or_else(|| panic!("{value}"));
    texts
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// The JSON array behind an instruction of the Dockerfile.
fn instruction(dockerfile: &str, name: &str) -> Vec<String> {
    let line = dockerfile
        .lines()
        .rev()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("no {name}"));
    let array = &line[line.find('[').unwrap()..];
    words(&serde_json::from_str(array).unwrap())
}

#[test]
fn every_command_line_is_understood() {
    let unit = read("systemd/hookturn.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let dockerfile = read("docker/Dockerfile");
    let entry = instruction(&dockerfile, "ENTRYPOINT");
    let compose = document("compose/compose.yaml");
    let checked = &compose["services"]["hookturn"]["healthcheck"]["test"];
    let lines = [
        start.split(' ').map(str::to_owned).collect(),
        [entry.clone(), instruction(&dockerfile, "CMD")].concat(),
        instruction(&dockerfile, "HEALTHCHECK"),
        words(checked)[1..].to_vec(),
    ];
    for line in lines {
        assert_eq!(line[0], "/usr/local/bin/hookturn", "{line:?}");
        let mut program = Command::new(env!("CARGO_BIN_EXE_hookturn"));
        made(program.args(&line[1..]).arg("--help"));
    }
    assert_eq!(entry, ["/usr/local/bin/hookturn"]);
}

/// What the HEALTHCHECK of the image asks, of a server that runs, stops answering, and is gone.
#[tokio::test]
async fn health_tells_whether_the_server_answers() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let listen = server.address().to_string();
    let health = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hookturn"))
            .args(["health", "--listen", &listen])
            .args(more)
            .current_dir(directory.path())
            .env_clear()
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        let code = output.status.code().unwrap();
        (code, String::from_utf8_lossy(&told).into_owned())
    };
    let (code, told) = health(&[]);
    assert_eq!((code, told.contains("/livez")), (0, true), "{told}");
    let (code, told) = health(&["--ready"]);
    assert_eq!((code, told.contains("/readyz")), (0, true), "{told}");
    server.stop().await;
    let (code, told) = health(&[]);
    assert_eq!(code, i32::from(Exit::Unreachable.code()), "{told}");
}
