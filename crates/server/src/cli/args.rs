//! The command tree, and the arguments that several commands share.
//!
//! No argument takes a secret: process lists show arguments to everyone on the machine, and shells
//! keep them. Secrets come from files, from standard input or from the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use hookturn_core::time::{Clock, DAY, HOUR, MINUTE, Millis, SECOND, Timestamp};
use zeroize::Zeroizing;

use super::client::{Access, Client};
use super::exit::Failure;
use super::output::Format;
use super::{Edge, input};

/// Rotates webhook secrets without stopping a single delivery, and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "hookturn",
    version,
    propagate_version = true,
    infer_long_args = false
)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    /// What to print: tables, or the API's own JSON (failures on standard error too).
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(super) output: Format,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server.
    Serve(super::serve::Serve),
    /// Show rotations that prove themselves under traffic: a server, eight receivers, and a table.
    ///
    /// It ends at any moment with SIGINT (Ctrl-C), SIGTERM or SIGHUP (unless `nohup` started it): its temporary store is
    /// removed, and the exit code is 0 before the table, after it what the table came to.
    Demo(super::demo::Asked),
    /// Look whether a server can start here and will do well.
    Doctor(super::doctor::Doctor),
    /// Say whether the server of this configuration answers.
    Health(super::health::Health),
    /// Copy the database, also while the server runs.
    Backup(super::backup::Backup),
    /// Fill an empty PostgreSQL database from a backup of such a store.
    Restore(super::backup::Restore),
    /// Bring the schema of a PostgreSQL store up to date.
    Migrate(super::migrate::Migrate),
    /// Copy an embedded store into a PostgreSQL database.
    MigrateStore(super::migrate_store::MigrateStore),
    /// Print the description of the API (OpenAPI 3.1), or of a dialect.
    Openapi(super::openapi::Openapi),
    /// Write a commented hookturn.toml and make the data directory.
    Init(super::init::Init),
    /// Receive webhooks on this machine, verify and print them.
    Listen(super::listen::Listen),
    /// Sign a body and print the headers.
    Sign(super::sign::Sign),
    /// Say which secret signed a captured request, or why none did.
    Verify(super::verify::Verify),
    /// Apps: the consumers of webhooks.
    App(Remote<super::app::App>),
    /// Endpoints: where the deliveries of an app go.
    Endpoint(Remote<super::endpoint::Endpoint>),
    /// Messages: publish events and look at them.
    Message(Remote<super::message::Message>),
    /// Deliveries: what became of each message at each endpoint.
    Delivery(Remote<super::delivery::Delivery>),
    /// Secrets of a keyring.
    Secret(Remote<super::secret::Secret>),
    /// Rotations: moves of a keyring from one secret to the next.
    Rotation(Remote<super::rotation::Rotation>),
    /// Bulk rotations: many keyrings at once, in waves.
    Bulk(Remote<super::bulk::Bulk>),
    /// Find out which secret a leaked string is.
    Leak(super::leak::Leak),
    /// Schedules: rules by which rotations are opened.
    Schedule(Remote<super::schedule::Schedule>),
    /// API keys.
    ApiKey(Remote<super::api_key::ApiKey>),
    /// Workspaces: the customer accounts of the operator.
    Workspace(Remote<super::workspace::Workspace>),
    /// Events that applications published in their own transactions and that could not be accepted.
    Outbox(Remote<super::outbox::Outbox>),
    /// The audit log, and the proof that nobody changed it.
    Audit(Remote<super::audit::Audit>),
    /// The master key, under which secrets rest.
    MasterKey(Remote<super::master_key::MasterKey>),
    /// Print a completion script for a shell.
    Completion(super::completion::Completion),
    /// What the exit codes mean.
    ExitCodes,
}

/// A group of commands that talk to a server.
#[derive(Debug, Args)]
pub(super) struct Remote<C: Subcommand> {
    #[command(flatten)]
    pub(super) connection: Connection,

    #[command(subcommand)]
    pub(super) command: C,
}

/// Where the server is, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// URL of the server [env: HOOKTURN_SERVER, default: http://127.0.0.1:8090].
    #[arg(long, value_name = "URL", global = true)]
    server: Option<String>,

    /// File that holds the API key, `-` for standard input [env: HOOKTURN_API_KEY_FILE, or the key
    /// itself in HOOKTURN_API_KEY].
    #[arg(long, value_name = "FILE", global = true)]
    api_key_file: Option<PathBuf>,

    /// Id or name of the workspace, for operator keys [env: HOOKTURN_WORKSPACE].
    #[arg(long, value_name = "ID|NAME", global = true)]
    workspace: Option<String>,

    /// PEM file with a certificate authority to trust besides the public ones [env:
    /// HOOKTURN_CA_FILE].
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,

    /// Longest time to wait for an answer, in seconds.
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,

    /// Repeat a request whose answer got lost: the server does it once and answers as the first
    /// time. Drawn at random without.
    #[arg(long, value_name = "KEY", global = true)]
    idempotency_key: Option<String>,
}

/// Where a server is expected that nobody named.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:8090";

impl Connection {
    /// Makes the client; flags win over the environment.
    pub(super) fn client(self, edge: &Edge) -> Result<Client, Failure> {
        let env = &edge.env;
        let server = self.server.as_deref().or(named(env, "HOOKTURN_SERVER"));
        let file = named(env, "HOOKTURN_API_KEY_FILE").map(PathBuf::from);
        let ca_file = named(env, "HOOKTURN_CA_FILE").map(PathBuf::from);
        let key = match (self.api_key_file, named(env, "HOOKTURN_API_KEY"), file) {
            (Some(file), _, _) | (None, None, Some(file)) => input::secret_text(&file)?,
            (None, Some(key), _) => Zeroizing::new(key.trim().to_owned()),
            (None, None, None) => {
                return Err(Failure::new(
                    super::Exit::Unauthorised,
                    "no API key was given; nothing was sent",
                )
                .next(
                    "set HOOKTURN_API_KEY, or name a file that holds the key by --api-key-file",
                ));
            }
        };
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) || key.is_empty() {
            return Err(Failure::usage(
                "the API key is empty or holds white space; nothing was sent",
            )
            .next("give the key as it was shown: sk_operator_… or sk_workspace_…"));
        }
        let workspace = self
            .workspace
            .as_deref()
            .or(named(env, "HOOKTURN_WORKSPACE"));
        Client::new(Access {
            server: server.unwrap_or(DEFAULT_SERVER),
            key,
            workspace,
            timeout_seconds: self.timeout,
            idempotency_key: self.idempotency_key,
            ca_file: self.ca_file.or(ca_file).as_deref(),
            entropy: Arc::clone(&edge.entropy),
        })
    }
}

fn named<'e>(env: &'e BTreeMap<String, String>, name: &str) -> Option<&'e str> {
    env.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// Which page of a list.
#[derive(Debug, Default, Args)]
pub(super) struct Paging {
    /// Items on a page.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(super) limit: Option<u32>,

    /// Continue where an earlier page ended.
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<String>,

    /// Every page, one after the other.
    #[arg(long)]
    pub(super) all: bool,
}

/// Where a value goes that is shown once.
#[derive(Debug, Args)]
pub(super) struct ValueOut {
    /// Write the new value to this new file (mode 0600) and do not print it.
    #[arg(long, value_name = "FILE")]
    pub(super) value_out: Option<PathBuf>,
}

/// Change only what nobody else has changed since.
#[derive(Debug, Args)]
pub(super) struct IfVersion {
    /// Refuse when its version is not this one any more: `version` of the same group's `show`, and the ETag of the
    /// API.
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<u64>,
}

/// Change keys only when nobody else has changed their keyring since.
#[derive(Debug, Args)]
pub(super) struct IfKeyringVersion {
    /// Refuse when the version of the keyring is not this one any more: `keyringVersion` of
    /// `hookturn rotation show`, and the ETag of the API. A rotation's or a secret's own is another number.
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<u64>,
}

/// Why a command is given.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why; kept in the audit log.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

impl Why {
    /// The reason for a header, which is where it stands when a request has no body. A header carries
    /// ASCII only.
    pub(super) fn for_header(self) -> Result<Option<String>, Failure> {
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        match self.reason {
            Some(reason) if !reason.bytes().all(printable) => Err(Failure::usage(
                "the reason of this command travels in a header, which takes ASCII only; nothing was sent",
            )
            .next("write it without accents and other scripts")),
            reason => Ok(reason),
        }
    }

    /// A body with the reason in it, if there is one.
    pub(super) fn into(self, mut body: serde_json::Value) -> serde_json::Value {
        if let Some(reason) = self.reason {
            body["reason"] = reason.into();
        }
        body
    }
}

/// An id in a path: nothing that could lead elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Id(String);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err("an id has letters, digits, _ and - only")
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id or the name of a workspace, in a path: nothing that could lead elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Name(String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let is_dots = text.bytes().all(|byte| byte == b'.');
        if (1..=256).contains(&text.len()) && text.bytes().all(fine) && !is_dots {
            Ok(Self(text.to_owned()))
        } else {
            Err("the id or the name of a workspace has letters, digits, `.`, `_` and `-` only")
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A setting that can be taken away: a value, or `none`.
#[derive(Debug, Clone)]
pub(super) enum Clearable<T> {
    None,
    Some(T),
}

impl<T> Clearable<T> {
    /// The member of a body: `null` takes the setting away.
    pub(super) fn json(self, value: impl FnOnce(T) -> serde_json::Value) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Some(given) => value(given),
        }
    }
}

impl<T: FromStr> FromStr for Clearable<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            text => text.parse().map(Self::Some),
        }
    }
}

/// A span of time such as `90s`, `30m`, `36h`, `7d`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Millis);

impl Span {
    pub(super) const fn seconds(self) -> u64 {
        self.0 / SECOND
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a span such as 90s, 30m, 36h or 7d";
        let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(end) => text.split_at(end),
            None => (text, "s"),
        };
        let unit = match unit {
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            _ => return Err(EXPECTED),
        };
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        number.checked_mul(unit).map(Self).ok_or(EXPECTED)
    }
}

/// A time: RFC 3339, or a span from now (`2h`), backwards or forwards as the argument says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Distance(Millis),
}

impl When {
    /// That time; a span counts back from now.
    pub(super) fn past(self, clock: &dyn Clock) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Distance(span) => clock.now().before(span),
        }
    }

    /// That time; a span counts from now on.
    pub(super) fn future(self, clock: &dyn Clock) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Distance(span) => clock.now().after(span),
        }
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        text.parse::<Span>()
            .map(|span| Self::Distance(span.0))
            .map_err(|_| "expected a time such as 2026-11-21T20:00:00Z, or a span such as 2h")
    }
}

/// A `name=value` pair.
pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or("expected NAME=VALUE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times() {
        assert_eq!("36h".parse(), Ok(Span(36 * HOUR)));
        assert_eq!("0".parse(), Ok(Span(0)));
        for bad in [
            "",
            "h",
            "1w",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!("2h".parse(), Ok(When::Distance(2 * HOUR)));
        assert_eq!(
            "1970-01-01T00:00:01Z".parse(),
            Ok(When::At(Timestamp::from_millis(1_000)))
        );
        assert!("yesterday".parse::<When>().is_err());
    }

    #[test]
    fn names_of_workspaces_lead_nowhere_else() {
        for good in ["acme", "acme.eu-1_x", ".a", "ws_01k9"] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "...", "a/b", "a?b", "a b", "ä", "%2e"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_lead_nowhere_else() {
        assert!("ep_01ABC-x".parse::<Id>().is_ok());
        for bad in ["", "..", "a/b", "a?b", "a b", "ä"] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
