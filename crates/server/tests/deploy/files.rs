//! Finding and reading the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// `deploy/` of the repository.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// A file below it, as text.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below it that is in the repository, with its text.
pub(crate) fn all() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&deploy(), &mut found);
    assert!(found.len() > 15, "{found:?}");
    found
}

fn collect(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("compose/secrets") {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// Where xtask put what judges these files.
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

/// Runs a program that must succeed, and answers what it printed.
#[track_caller]
pub(crate) fn made(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: run cargo xtask test"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out
}

/// The documents of a YAML text.
#[track_caller]
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text.yaml");
    fs::write(&path, text).unwrap();
    let mut python = Command::new(installed("HOOKTURN_JUDGE_PYTHON"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges/read_yaml.py");
    let printed = made(python.arg(script).arg(path));
    serde_json::from_str(&printed).unwrap()
}

/// The one document of a YAML file below `deploy/`.
#[track_caller]
pub(crate) fn document(path: &str) -> Value {
    let mut found = documents(&read(path));
    assert_eq!(found.len(), 1, "{path}");
    found.remove(0)
}
