//! Running the binary with nothing of the tester's environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Three secrets that every scheme accepts.
pub(crate) const SECRETS: [(&str, &str); 3] = [
    (
        "first",
        "whsec_0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "second",
        "whsec_1111111111111111111111111111111111111111111111111111111111111111",
    ),
    (
        "third",
        "whsec_2222222222222222222222222222222222222222222222222222222222222222",
    ),
];

/// A directory with files in it, in which commands run.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file and returns its name, for arguments.
    pub(crate) fn file<'n>(&self, name: &'n str, text: impl AsRef<[u8]>) -> &'n str {
        std::fs::write(self.path(name), text).unwrap();
        name
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The secrets of [`SECRETS`] as a file.
    pub(crate) fn secrets(&self, wanted: &[usize]) -> &'static str {
        let lines: Vec<_> = wanted
            .iter()
            .map(|index| format!("{}={}\n", SECRETS[*index].0, SECRETS[*index].1))
            .collect();
        self.file("secrets", lines.concat())
    }

    pub(crate) fn command(&self) -> Command {
        command(self.directory.path())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.command().args(arguments))
    }
}

/// The binary, without any `HOOKTURN_*` variable of whoever runs the tests.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null());
    command
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn new(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        Self {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Standard error of a command that must end with this code.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }

    /// Standard output of a command that must succeed, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}
