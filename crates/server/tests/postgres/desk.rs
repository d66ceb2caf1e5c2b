//! What these tests stand on: the program with a store that is named by a URL.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Server;
use crate::support::cluster::cluster;

pub(crate) const KEY: &str = "sk_workspace_test_of_the_running_server_0001";

/// A directory for files of a test, with a master key in it.
pub(crate) struct Desk {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) url: String,
}

impl Desk {
    /// With an empty database of the shared cluster.
    pub(crate) async fn new() -> Self {
        let database = cluster().create_database().await;
        Self::on(&cluster().url(&database))
    }

    /// With any database.
    pub(crate) fn on(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("master.key"), "a7".repeat(32)).unwrap();
        Self {
            directory,
            url: url.to_owned(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn key_file(&self) -> String {
        self.path("master.key").display().to_string()
    }

    /// A running server on the database.
    pub(crate) async fn serve(&self) -> Server {
        self.serve_with(&self.url, &[]).await
    }

    /// The same, which reaches the database by this URL, with more of the environment.
    pub(crate) async fn serve_with(&self, url: &str, more: &[(&str, &str)]) -> Server {
        let key = self.key_file();
        let mut variables = vec![("HOOKTURN_STORE", url), ("HOOKTURN_MASTER_KEY_FILE", &key)];
        variables.extend(more);
        Server::start_with(self.directory.path(), KEY, &variables).await
    }

    /// Runs the program to its end with this environment alone.
    pub(crate) fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        Ran::of_program(self.directory.path(), arguments, variables)
    }

    /// The same with the store and its key.
    pub(crate) fn run_here(&self, arguments: &[&str]) -> Ran {
        let key = self.key_file();
        let variables = [
            ("HOOKTURN_STORE", self.url.as_str()),
            ("HOOKTURN_MASTER_KEY_FILE", &key),
        ];
        self.run(arguments, &variables)
    }
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Runs the program in a directory to its end with this environment alone.
    pub(crate) fn of_program(
        directory: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_hookturn"))
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Self::of(&output)
    }

    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It did what was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{} {}", self.out, self.err);
        self.out
    }

    /// The same, and said these words.
    #[track_caller]
    pub(crate) fn done_with(self, words: &[&str]) {
        let told = self.done();
        for word in words {
            assert!(told.contains(word), "{word:?} is not in: {told}");
        }
    }

    /// It ended with this code and these words.
    #[track_caller]
    pub(crate) fn refused(self, code: u8, words: &[&str]) {
        let told = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, Some(i32::from(code)), "{told}");
        for word in words {
            assert!(told.contains(word), "{word:?} is not in: {told}");
        }
    }
}

/// Every file below a directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
