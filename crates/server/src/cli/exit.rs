//! How a command ends: exit codes that scripts can rely on, and failures that say what to do next.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

macro_rules! exits {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $meaning:literal;)*) => {
        /// Every way a command can end. The numbers are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Exit {
            $($(#[$doc])* $name = $code,)*
        }

        impl Exit {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What it means, for the help.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

exits! {
    /// Everything asked for was done.
    Done = 0, "done";
    /// A 4xx that has no code of its own below.
    Refused = 1, "the server refused the request; nothing was changed";
    /// The command line, or what a file or standard input held, is not usable.
    Usage = 2, "the command line or an input is not usable";
    /// No connection, or no answer.
    Unreachable = 3, "the server cannot be reached, or did not answer";
    /// A 5xx, or an answer that is not Hookturn's.
    ServerError = 4, "the server failed";
    /// 401 or 403.
    Unauthorised = 5, "no API key, a wrong one, or one without the scope";
    /// 404.
    NotFound = 6, "no such thing in this workspace";
    /// 409 or 412.
    Conflict = 7, "the state does not allow it, or someone else changed it first";
    /// A local file or terminal could not be read or written.
    LocalFile = 8, "a local file could not be read or written";
    /// The configuration is not usable.
    Config = 10, "the configuration is not usable";
    /// The data directory is missing or not writable.
    DataDirectory = 11, "the data directory is missing or not writable";
    /// The database is damaged, or not Hookturn's.
    DatabaseDamaged = 12, "the database is damaged or not Hookturn's";
    /// The database was written by a newer version.
    DatabaseNewer = 13, "the database was written by a newer hookturn";
    /// The master key is missing or does not fit the database.
    MasterKey = 14, "the master key is missing or does not fit the database";
    /// Another program listens on the address, or it is not ours.
    AddressInUse = 15, "the address cannot be listened on";
    /// Another hookturn process has the data directory or the database.
    DatabaseInUse = 16, "another hookturn process uses the store";
    /// Any other reason for which a server does not start or does not go on.
    ServeFailed = 17, "the server could not start or had to stop";
    /// The database of a PostgreSQL store does not answer, or lets nobody in.
    DatabaseUnreachable = 18, "the database cannot be reached, or refuses the user";
    /// Only a part of a store was copied into the database so far.
    HalfCopied = 19, "a copy into the database is not complete";
    /// A signature or an audit chain does not verify.
    NotVerified = 20, "a signature, or the audit chain, does not verify";
    /// `hookturn doctor` found something that must be repaired.
    Unhealthy = 21, "doctor found something that must be repaired";
    /// A demo or a test event saw something it should not see.
    Unexpected = 22, "a run ended and its result is not what it should be";
    /// What `hookturn migrate-store` wrote is not what it read.
    CopyDiffers = 23, "a copy is not the same as what it was made of";
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What an HTTP status of the API means for the command.
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            401 | 403 => Self::Unauthorised,
            404 => Self::NotFound,
            409 | 412 => Self::Conflict,
            400..=499 => Self::Refused,
            _ => Self::ServerError,
        }
    }

    /// The table of `hookturn help exit-codes`.
    pub fn table() -> String {
        let line = |exit: &Self| format!("  {:>3}  {}\n", exit.code(), exit.meaning());
        Self::ALL.iter().map(line).collect()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what was asked: for people, and as JSON for programs. Holds no secret.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    facts: Vec<(&'static str, String)>,
    next: Option<String>,
    document: Option<Value>,
}

/// What a command returns.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// `what` says what happened, and what was kept.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            facts: Vec::new(),
            next: None,
            document: None,
        }
    }

    /// The same with what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with something worth knowing, such as a request id.
    pub fn fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    /// Whether something of this name is known.
    pub fn knows(&self, name: &str) -> bool {
        self.facts.iter().any(|(known, _)| *known == name)
    }

    /// The same with another value of a fact, which may not be known yet.
    pub fn instead(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.facts.retain(|(known, _)| *known != name);
        self.fact(name, value)
    }

    /// The same with what is said of members of `/list/<index>` said of the line of the input they came from.
    pub fn by_lines(mut self, list: &str, lines: &[usize]) -> Self {
        let at_line = |pointer: &str| {
            let rest = pointer.strip_prefix('/')?.strip_prefix(list)?;
            let rest = rest.strip_prefix('/')?;
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (index, rest) = rest.split_at(digits);
            Some((*lines.get(index.parse::<usize>().ok()?)?, rest.to_owned()))
        };
        for (name, value) in &mut self.facts {
            if *name == "field"
                && let Some((line, rest)) = at_line(value)
            {
                *value = format!(
                    "line {line} of the input: {}",
                    rest.trim_start_matches(": ")
                );
            }
        }
        let errors = self
            .document
            .as_mut()
            .and_then(|document| document["errors"].as_array_mut());
        for error in errors.into_iter().flatten() {
            let place = error["pointer"].as_str().and_then(at_line);
            if let Some((line, _)) = place {
                error["line"] = line.into();
            }
        }
        self
    }

    /// The same with the API's own problem document, which is what `--output json` shows.
    pub fn document(mut self, document: Value) -> Self {
        self.document = Some(document);
        self
    }

    /// Something about the command line that the parser cannot know.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A file that cannot be read.
    pub fn reading(path: &Path, error: &io::Error) -> Self {
        Self::new(
            Exit::LocalFile,
            format!("cannot read {}: {error}", shown(path)),
        )
        .next("check the path and who may read it")
    }

    /// A file that cannot be written.
    pub fn writing(path: &Path, error: &io::Error) -> Self {
        let next = if error.kind() == io::ErrorKind::AlreadyExists {
            "nothing is overwritten: choose another path, or move the file away"
        } else {
            "check that the directory exists and that you may write to it"
        };
        Self::new(
            Exit::LocalFile,
            format!("cannot write {}: {error}", path.display()),
        )
        .next(next)
    }

    /// How the process ends.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> Value {
        if let Some(document) = &self.document {
            return document.clone();
        }
        let mut value = json!({ "detail": self.what, "exitCode": self.exit.code() });
        if let Some(next) = &self.next {
            value["next"] = next.as_str().into();
        }
        for (name, fact) in &self.facts {
            value[*name] = fact.as_str().into();
        }
        value
    }
}

/// A path as people read it: `-` is standard input.
pub(super) fn shown(path: &Path) -> std::borrow::Cow<'_, str> {
    if path.as_os_str() == "-" {
        "standard input".into()
    } else {
        path.to_string_lossy()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for (name, value) in &self.facts {
            write!(f, "\n  {name}: {value}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_ascending() {
        let codes: Vec<_> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        assert!(Exit::table().contains("  15  the address"));
    }

    #[test]
    fn statuses_have_the_exit_that_tells_what_to_do() {
        for (status, exit) in [
            (202, Exit::Done),
            (400, Exit::Refused),
            (401, Exit::Unauthorised),
            (403, Exit::Unauthorised),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (412, Exit::Conflict),
            (422, Exit::Refused),
            (500, Exit::ServerError),
            (302, Exit::ServerError),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }

    #[test]
    fn a_failure_says_what_and_what_next() {
        let failure = Failure::new(Exit::Conflict, "a rotation is open")
            .fact("code", "rotation_open")
            .next("finish it");
        assert_eq!(
            failure.to_string(),
            "error: a rotation is open\n  code: rotation_open\n  next: finish it"
        );
        assert_eq!(failure.to_json()["exitCode"], 7);
    }
}
