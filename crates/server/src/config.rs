//! Configuration: flags, then `HOOKTURN_*` environment, then `hookturn.toml`, then defaults.
//!
//! Each section of the file is a struct whose documentation is the documentation of its keys. Unknown
//! keys are refused, in the file and on the command line; a `HOOKTURN_*` variable nobody knows is
//! reported, and refused where it looks like one of a key, of the store or of what is allowed. Every key of the environment that holds a secret can be given as `…_FILE` instead.
//! [`sample`] is the commented file that `hookturn init` writes; a test parses it.

mod hosts;
mod numbers;
mod operational;
mod store;
mod supervisor;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hookturn_core::limits;
use hookturn_core::time::{DAY, HOUR, Millis, SECOND};
use hookturn_core::workspace::{WeakKeyText, check_key_text};
use ipnet::IpNet;
use serde::Deserialize;
use zeroize::Zeroizing;

pub use hosts::{HostAddress, Hosts};
pub use operational::{EventsApp, Operational};
pub use store::{Database, StorePlace};
pub use supervisor::Supervisor;

/// What the command line gives. What is absent is looked for in the environment, then in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--data-dir DIR`
    pub data_dir: Option<PathBuf>,
    /// `--listen ADDR`
    pub listen: Option<String>,
    /// `--store URL`
    pub store: Option<String>,
    /// `--log-format text|json`
    pub log_format: Option<String>,
}

/// Everything a server needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the embedded store and the master key are.
    pub data_dir: PathBuf,
    /// Where the data is.
    pub store: StorePlace,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// How the API is used.
    pub api: Api,
    /// How the dashboard is used.
    pub dashboard: Dashboard,
    /// Where to deliver, and where not.
    pub outbound: Outbound,
    /// How to deliver.
    pub delivery: Delivery,
    /// How several nodes share a database.
    pub nodes: Nodes,
    /// How long to keep.
    pub retention: Retention,
    /// Where Hookturn's own events go.
    pub operational: Operational,
    /// What to write to standard error.
    pub log: Log,
    /// The master key's text, when it is not in the data directory.
    pub master_key: Option<SecretText>,
    /// The file that the master key came from, when `HOOKTURN_MASTER_KEY_FILE` names one.
    pub master_key_file: Option<PathBuf>,
    /// The API key that is made when the store is empty.
    pub bootstrap_api_key: Option<SecretText>,
    /// Who started the process and wants to hear of it.
    pub supervisor: Supervisor,
    /// `HOOKTURN_*` variables that nothing reads: probably misspelt.
    pub unknown_variables: Vec<String>,
}

/// `[api]`: how the API is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Requests per second that one API key may make in the long run; 0 for no limit.
    #[serde(deserialize_with = "numbers::requests_per_second")]
    pub requests_per_second: u32,
    /// Requests that one API key may make at once after a rest.
    #[serde(deserialize_with = "numbers::request_burst")]
    pub request_burst: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            requests_per_second: limits::REQUESTS_PER_SECOND,
            request_burst: limits::REQUEST_BURST,
        }
    }
}

/// `[dashboard]`: how the dashboard is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dashboard {
    /// Seconds that a session lasts after its sign-in.
    #[serde(deserialize_with = "numbers::session_seconds")]
    pub session_seconds: u32,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self {
            session_seconds: u32::try_from(limits::SESSION / SECOND).unwrap_or(u32::MAX),
        }
    }
}

/// `[outbound]`: where deliveries may go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Networks that are allowed although they are not public, such as `10.0.0.0/8`.
    pub allow_nets: Vec<IpNet>,
    /// Whether `http://` targets are allowed.
    pub allow_http: bool,
    /// A PEM file of certificate authorities that are trusted besides the public ones.
    pub extra_roots_file: Option<PathBuf>,
    /// Names whose address is configured rather than looked up; the policy applies to it all the same.
    pub hosts: Hosts,
}

/// `[delivery]`: how deliveries are made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// Delivery threads; 0 for one less than there are cores, at most [`limits::SHARDS_MAX`].
    #[serde(deserialize_with = "numbers::shards")]
    pub shards: usize,
    /// Hours an endpoint may fail without one success before it is disabled.
    #[serde(deserialize_with = "numbers::disable_after_hours")]
    pub disable_after_hours: u32,
    /// Exchanges that may be open to an endpoint at once unless it says otherwise.
    #[serde(deserialize_with = "numbers::max_in_flight")]
    pub max_in_flight: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        let hours = limits::DISABLE_AFTER_DEFAULT / HOUR;
        Self {
            shards: 0,
            disable_after_hours: u32::try_from(hours).unwrap_or(u32::MAX),
            max_in_flight: limits::IN_FLIGHT_DEFAULT,
        }
    }
}

impl Delivery {
    /// The time of `disable_after_hours`.
    pub fn disable_after_millis(&self) -> Millis {
        Millis::from(self.disable_after_hours) * HOUR
    }

    /// The number of shards on a machine with so many cores.
    pub fn shards_on(&self, cores: usize) -> usize {
        if self.shards == 0 {
            cores.saturating_sub(1).max(1)
        } else {
            self.shards
        }
    }
}

/// `[nodes]`: how several nodes share a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nodes {
    /// Seconds that a node may be silent before the others take over what it has.
    #[serde(deserialize_with = "numbers::lease_seconds")]
    pub lease_seconds: u32,
    /// By how many milliseconds this machine's clock is made to be wrong. For tests, and only by
    /// `HOOKTURN_TEST_CLOCK_SHIFT_MILLIS`.
    #[serde(skip)]
    pub clock_shift_millis: i64,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            lease_seconds: u32::try_from(limits::LEASE_DEFAULT / SECOND).unwrap_or(u32::MAX),
            clock_shift_millis: 0,
        }
    }
}

/// `[retention]`: how long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that settled messages and their attempts are kept, and bulk rotations after they are over. The audit log is
    /// kept for ever, and so are rotations.
    #[serde(deserialize_with = "numbers::retention_days")]
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            days: u32::try_from(limits::RETENTION_DEFAULT / DAY).unwrap_or(u32::MAX),
        }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// Levels, such as `info` or `warn,hookturn::dispatch=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A secret from the environment: shown nowhere, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a text.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The file as written. Top-level keys are those of the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    store: Option<String>,
    api: Api,
    dashboard: Dashboard,
    outbound: Outbound,
    delivery: Delivery,
    nodes: Nodes,
    retention: Retention,
    operational: Operational,
    log: Log,
}

/// What is wrong with the configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not valid.
    #[error("{path} is not a valid configuration: {detail}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// A file that holds a secret could not be read.
    #[error("{name} names {path}, which cannot be read")]
    SecretFile {
        /// The variable that names it.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value cannot be used.
    #[error("{name} must be {wanted}, not {given:?}")]
    Value {
        /// The flag, variable or key.
        name: &'static str,
        /// What it should be.
        wanted: Cow<'static, str>,
        /// What it is; never that of a secret.
        given: String,
    },
    /// The first API key can be guessed. It is not shown.
    #[error("HOOKTURN_BOOTSTRAP_API_KEY cannot be used")]
    BootstrapKey(#[source] WeakKeyText),
    /// A variable that is misspelt, and whose absence would open or lose something.
    #[error(
        "{name} is no variable of hookturn; did you mean {nearest}? Correct it, or take it away: a server that \
         passed over it could use another key or another store"
    )]
    UnknownVariable {
        /// As it is set.
        name: String,
        /// The known one that is most like it.
        nearest: &'static str,
    },
    /// A variable that is set to nothing where something else would be taken instead.
    #[error("{name} is set and empty; give it a value, or take it away")]
    EmptyVariable {
        /// The variable.
        name: &'static str,
    },
    /// Both a variable and its `_FILE` form are set.
    #[error("both {name} and {name}_FILE are set; keep one of them")]
    Twice {
        /// The variable.
        name: &'static str,
    },
    /// The store is none that there is. What was given may hold a password and is not shown.
    #[error(
        "{name} must be the URL of a PostgreSQL database such as postgres://hookturn@db.internal/hookturn?sslmode=verify-full; leave it away for the embedded store"
    )]
    StoreUrl {
        /// The flag, variable or key.
        name: &'static str,
    },
    /// A password where others can read it.
    #[error(
        "{name} holds a password, which others can read there; leave it out of the URL and name a file that holds it by HOOKTURN_STORE_PASSWORD_FILE"
    )]
    StorePassword {
        /// The flag or key.
        name: &'static str,
    },
    /// Two passwords for one database.
    #[error(
        "the store has a password in its URL and another in HOOKTURN_STORE_PASSWORD or HOOKTURN_STORE_PASSWORD_FILE; keep one of them"
    )]
    StorePasswordTwice,
}

/// Variables of other parts of Hookturn: the command line's client and the tests.
const OTHER_VARIABLES: &[&str] = &[
    "HOOKTURN_SERVER",
    "HOOKTURN_API_KEY",
    "HOOKTURN_API_KEY_FILE",
    "HOOKTURN_CA_FILE",
    "HOOKTURN_WORKSPACE",
    "HOOKTURN_OUTPUT",
];
/// Beginnings of variables that decide on keys, on the store and on what is allowed: one of them that
/// nothing reads is refused. Others may be another tool's, and are reported.
const GUARDED: &[&str] = &[
    "HOOKTURN_MASTER",
    "HOOKTURN_STORE",
    "HOOKTURN_BOOTSTRAP",
    "HOOKTURN_ALLOW",
];
/// Variables of keys and files, which are either absent or say something.
const NEVER_EMPTY: &[&str] = &[
    "HOOKTURN_MASTER_KEY",
    MASTER_KEY_FILE,
    "HOOKTURN_BOOTSTRAP_API_KEY",
    "HOOKTURN_BOOTSTRAP_API_KEY_FILE",
    "HOOKTURN_STORE_PASSWORD",
    "HOOKTURN_STORE_PASSWORD_FILE",
    "HOOKTURN_EXTRA_ROOTS_FILE",
];
/// Names the file of the master key.
pub const MASTER_KEY_FILE: &str = "HOOKTURN_MASTER_KEY_FILE";
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";
const DEFAULT_DATA_DIR: &str = "hookturn-data";
const DEFAULT_FILE: &str = "hookturn.toml";

/// Puts the configuration together.
pub fn load(flags: Flags, env: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let is_empty = |name: &&&str| env.get(**name).is_some_and(String::is_empty);
    if let Some(&name) = NEVER_EMPTY.iter().find(is_empty) {
        return Err(ConfigError::EmptyVariable { name });
    }
    let mut variables = Variables {
        env,
        read: Vec::new(),
    };
    // Asked for also where a flag goes before it: it is known all the same.
    let in_env = variables.get("HOOKTURN_CONFIG").map(PathBuf::from);
    let named = flags.config.or(in_env);
    let file = read_file(named.as_deref())?;
    let store = store::load(flags.store, file.store, &mut variables)?;
    let in_env = variables.get("HOOKTURN_DATA_DIR").map(PathBuf::from);
    let data_dir = flags
        .data_dir
        .or(in_env)
        .or(file.data_dir)
        .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let in_env = variables.get("HOOKTURN_LISTEN");
    let listen = flags
        .listen
        .or(in_env)
        .or(file.listen)
        .unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
    let mut config = Config {
        data_dir,
        store,
        listen: value(
            "--listen",
            "an address and port such as 127.0.0.1:8090",
            &listen,
        )?,
        api: file.api,
        dashboard: file.dashboard,
        outbound: file.outbound,
        delivery: file.delivery,
        nodes: file.nodes,
        retention: file.retention,
        operational: file.operational,
        log: file.log,
        master_key: variables.secret("HOOKTURN_MASTER_KEY", MASTER_KEY_FILE)?,
        master_key_file: variables.get(MASTER_KEY_FILE).map(PathBuf::from),
        bootstrap_api_key: variables.secret(
            "HOOKTURN_BOOTSTRAP_API_KEY",
            "HOOKTURN_BOOTSTRAP_API_KEY_FILE",
        )?,
        supervisor: Supervisor::told(env, std::process::id()),
        unknown_variables: Vec::new(),
    };
    apply_environment(&mut config, &mut variables)?;
    if let Some(format) = flags.log_format {
        config.log.format = log_format("--log-format", &format)?;
    }
    if tracing_subscriber::EnvFilter::try_new(&config.log.filter).is_err() {
        return Err(ConfigError::Value {
            name: "HOOKTURN_LOG",
            wanted: "levels such as info or warn,hookturn::dispatch=debug".into(),
            given: config.log.filter,
        });
    }
    if let Some(key) = &config.bootstrap_api_key {
        check_key_text(key.expose()).map_err(ConfigError::BootstrapKey)?;
    }
    config.unknown_variables = variables.unknown()?;
    Ok(config)
}

fn apply_environment(
    config: &mut Config,
    variables: &mut Variables<'_>,
) -> Result<(), ConfigError> {
    if let Some(text) = variables.get("HOOKTURN_ALLOW_NETS") {
        let nets = text.split(',').map(str::trim).filter(|net| !net.is_empty());
        config.outbound.allow_nets = nets
            .map(|net| {
                value(
                    "HOOKTURN_ALLOW_NETS",
                    "networks such as 10.0.0.0/8,::1/128",
                    net,
                )
            })
            .collect::<Result<_, _>>()?;
    }
    if let Some(text) = variables.get("HOOKTURN_ALLOW_HTTP") {
        config.outbound.allow_http = value("HOOKTURN_ALLOW_HTTP", "true or false", &text)?;
    }
    if let Some(requests) = numbers::REQUESTS_PER_SECOND.take(variables)? {
        config.api.requests_per_second = requests;
    }
    if let Some(requests) = numbers::REQUEST_BURST.take(variables)? {
        config.api.request_burst = requests;
    }
    if let Some(seconds) = numbers::SESSION_SECONDS.take(variables)? {
        config.dashboard.session_seconds = seconds;
    }
    if let Some(text) = variables.get("HOOKTURN_EXTRA_ROOTS_FILE") {
        config.outbound.extra_roots_file = Some(text.into());
    }
    if let Some(text) = variables.get("HOOKTURN_HOSTS") {
        config.outbound.hosts = value("HOOKTURN_HOSTS", hosts::WANTED, &text)?;
    }
    let delivery = &mut config.delivery;
    if let Some(shards) = numbers::SHARDS.take(variables)? {
        delivery.shards = shards;
    }
    if let Some(hours) = numbers::DISABLE_AFTER_HOURS.take(variables)? {
        delivery.disable_after_hours = hours;
    }
    if let Some(exchanges) = numbers::MAX_IN_FLIGHT.take(variables)? {
        delivery.max_in_flight = exchanges;
    }
    if let Some(seconds) = numbers::LEASE_SECONDS.take(variables)? {
        config.nodes.lease_seconds = seconds;
    }
    if let Some(text) = variables.get("HOOKTURN_TEST_CLOCK_SHIFT_MILLIS") {
        let name = "HOOKTURN_TEST_CLOCK_SHIFT_MILLIS";
        config.nodes.clock_shift_millis = value(name, "a whole number", &text)?;
    }
    if let Some(days) = numbers::RETENTION_DAYS.take(variables)? {
        config.retention.days = days;
    }
    if let Some(text) = variables.get("HOOKTURN_OPERATIONAL_EVENTS") {
        let name = "HOOKTURN_OPERATIONAL_EVENTS";
        config.operational.events = Some(value(name, operational::WANTED, &text)?);
    }
    if let Some(text) = variables.get("HOOKTURN_LOG") {
        config.log.filter = text;
    }
    if let Some(text) = variables.get("HOOKTURN_LOG_FORMAT") {
        config.log.format = log_format("HOOKTURN_LOG_FORMAT", &text)?;
    }
    Ok(())
}

fn log_format(name: &'static str, text: &str) -> Result<LogFormat, ConfigError> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(ConfigError::Value {
            name,
            wanted: "text or json".into(),
            given: other.to_owned(),
        }),
    }
}

fn value<T: std::str::FromStr>(
    name: &'static str,
    wanted: &'static str,
    text: &str,
) -> Result<T, ConfigError> {
    text.parse().map_err(|_| ConfigError::Value {
        name,
        wanted: wanted.into(),
        given: text.to_owned(),
    })
}

/// The named file must exist; the default one may.
fn read_file(named: Option<&Path>) -> Result<File, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(File::default());
        }
        Err(source) => return Err(ConfigError::Unreadable { path, source }),
    };
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count());
        let written = text.lines().nth(line).unwrap_or_default().trim();
        let detail = format!("line {}, `{written}`: {}", line + 1, error.message());
        ConfigError::File { path, detail }
    })
}

struct Variables<'a> {
    env: &'a BTreeMap<String, String>,
    read: Vec<&'static str>,
}

impl Variables<'_> {
    fn get(&mut self, name: &'static str) -> Option<String> {
        self.read.push(name);
        self.env.get(name).filter(|text| !text.is_empty()).cloned()
    }

    fn secret(
        &mut self,
        name: &'static str,
        file: &'static str,
    ) -> Result<Option<SecretText>, ConfigError> {
        match (self.get(name), self.get(file)) {
            (Some(_), Some(_)) => Err(ConfigError::Twice { name }),
            (Some(text), None) => Ok(Some(SecretText(Zeroizing::new(text)))),
            (None, Some(path)) => read_secret(file, Path::new(&path)).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Variables of our prefix that nothing reads, unless one is too near to a key to be passed over.
    fn unknown(&self) -> Result<Vec<String>, ConfigError> {
        let known = |name: &str| self.read.contains(&name) || OTHER_VARIABLES.contains(&name);
        let ours = self.env.keys().filter(|name| name.starts_with("HOOKTURN_"));
        let unknown: Vec<String> = ours.filter(|name| !known(name)).cloned().collect();
        let is_guarded = |name: &&String| GUARDED.iter().any(|guarded| name.starts_with(guarded));
        let nearest = |name: &str| {
            let all = self.read.iter().copied();
            all.min_by_key(|known| distance(known, name))
        };
        match unknown.iter().find(is_guarded) {
            Some(name) => Err(ConfigError::UnknownVariable {
                name: name.clone(),
                nearest: nearest(name).unwrap_or(MASTER_KEY_FILE),
            }),
            None => Ok(unknown),
        }
    }
}

/// How many letters must be added, taken away or changed to get from one name to the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (place, wanted) in other.bytes().enumerate() {
            let changed = before + usize::from(letter != wanted);
            before = row[place + 1];
            row[place + 1] = changed.min(before + 1).min(row[place] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

fn read_secret(name: &'static str, path: &Path) -> Result<SecretText, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| ConfigError::SecretFile {
            name,
            path: path.to_owned(),
            source,
        })?;
    Ok(SecretText(Zeroizing::new(text.trim().to_owned())))
}

/// The commented configuration file with every key at its default.
pub fn sample() -> &'static str {
    include_str!("config/hookturn.toml")
}

#[cfg(test)]
mod tests;
