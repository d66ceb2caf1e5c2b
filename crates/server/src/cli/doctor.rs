//! `hookturn doctor`: looks whether a server can start here and will do well.
//!
//! It changes nothing but one small file in the data directory, which it removes, or an empty directory
//! beside where the data directory would be, which it removes. Every line is `ok`, `warn` or `fail`, and
//! says what to do.

use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use hookturn_core::time::{Clock, MINUTE, Millis, SECOND, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, Output};
use super::serve::Serve;
use crate::app;
use crate::app::checkup::{self, Database, ExaminedDatabase, MasterKeyState, Sealed};
use crate::config::{self, Config, StorePlace};

/// A disk that takes longer for one small sync slows every acknowledgement.
const SLOW_SYNC: Duration = Duration::from_millis(20);
/// Clocks that are further apart than this are worth a word.
const CLOCKS_APART: Millis = SECOND;
/// Syncs that are measured.
const SYNCS: u32 = 8;
/// The name of this check, which has an exit code of its own.
const DATA_DIRECTORY: &str = "data directory";
/// The first release; a clock before it is wrong.
const RELEASED: Timestamp = Timestamp::from_millis(1_767_225_600_000);

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

struct Check {
    name: &'static str,
    status: Status,
    detail: String,
    next: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            detail: detail.into(),
            next: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, next: &'static str) -> Self {
        Self {
            status: Status::Warn,
            next: Some(next),
            ..Self::ok(name, detail)
        }
    }

    /// The sentences of errors say what to do themselves.
    fn fail(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::ok(name, detail)
        }
    }
}

pub(super) fn run(asked: &Doctor, edge: &Edge, output: &mut Output) -> Outcome {
    let checks = examine(asked, edge);
    let healthy = checks.iter().all(|check| check.status != Status::Fail);
    match output.format {
        Format::Json => output.json(&json!({
            "healthy": healthy,
            "checks": checks.iter().map(|check| json!({
                "name": check.name,
                "status": check.status.word(),
                "detail": check.detail,
                "next": check.next,
            })).collect::<Vec<_>>(),
        }))?,
        Format::Table => {
            for check in &checks {
                let Check { name, detail, .. } = check;
                output.line(format!("{:<4}  {name:<16}  {detail}", check.status.word()))?;
                if let Some(next) = check.next {
                    output.line(format!("{:24}{next}", ""))?;
                }
            }
        }
    }
    Ok(exit(&checks))
}

/// A data directory that cannot be used is what `serve` ends with first, and scripts know its code.
fn exit(checks: &[Check]) -> Exit {
    let mut failed = checks.iter().filter(|check| check.status == Status::Fail);
    match failed.find(|check| check.name == DATA_DIRECTORY) {
        Some(_) => Exit::DataDirectory,
        None if checks.iter().any(|check| check.status == Status::Fail) => Exit::Unhealthy,
        None => Exit::Done,
    }
}

fn examine(asked: &Doctor, edge: &Edge) -> Vec<Check> {
    let config = match asked.serve.load(edge) {
        Ok(config) => config,
        Err(failure) => {
            let name = if failure.exit() == Exit::MasterKey {
                "master key"
            } else {
                "configuration"
            };
            return vec![Check::fail(name, what(&failure))];
        }
    };
    let mut checks = vec![configuration(&config)];
    match &config.store {
        StorePlace::Embedded => {
            let running = checkup::is_running(&config.data_dir);
            checks.extend(data_directory(&config.data_dir));
            checks.extend(database(&config));
            checks.push(address(&config, running));
            checks.push(clock(edge.clock.as_ref(), &config.data_dir));
        }
        StorePlace::Postgres(database) => {
            checks.extend(postgres(&config, database, edge.clock.as_ref()));
        }
    }
    checks.push(resolver());
    checks
}

fn what(failure: &Failure) -> String {
    failure.to_json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn configuration(config: &Config) -> Check {
    const NAME: &str = "configuration";
    if config.unknown_variables.is_empty() {
        return Check::ok(NAME, "readable, every key is known");
    }
    let names = config.unknown_variables.join(", ");
    Check::warn(
        NAME,
        format!("nothing reads {names}"),
        "check the spelling of these variables",
    )
}

fn data_directory(path: &Path) -> Vec<Check> {
    const NAME: &str = DATA_DIRECTORY;
    let shown = path.display();
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![match can_be_made(path) {
                Ok(()) => Check::warn(
                    NAME,
                    format!("{shown} does not exist yet"),
                    "`hookturn init` or the first `hookturn serve` makes it",
                ),
                Err(error) => Check::fail(
                    NAME,
                    format!(
                        "{shown} does not exist and cannot be made: {error}; choose another --data-dir"
                    ),
                ),
            }];
        }
        Err(error) => {
            return vec![Check::fail(
                NAME,
                format!("{shown}: {error}; choose another --data-dir"),
            )];
        }
        Ok(entry) if !entry.is_dir() => {
            return vec![Check::fail(
                NAME,
                format!("{shown} is no directory; choose another --data-dir"),
            )];
        }
        Ok(_) => {}
    }
    match measure_sync(path) {
        Err(error) => vec![Check::fail(
            NAME,
            format!("{shown} cannot be written: {error}; give it to the user hookturn runs as"),
        )],
        Ok(each) => vec![privacy(path), sync(each)],
    }
}

/// Whether a directory can be made in the nearest one that exists. Tried, because permissions do not say
/// it of every file system.
fn can_be_made(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok() {
        let broken = "it is a link to nothing";
        return Err(std::io::Error::new(ErrorKind::NotFound, broken));
    }
    let there = |directory: &&Path| directory.as_os_str().is_empty() || directory.exists();
    let nearest = path.ancestors().skip(1).find(there);
    let nearest = nearest.filter(|directory| !directory.as_os_str().is_empty());
    let tried = nearest
        .unwrap_or(Path::new("."))
        .join(format!(".doctor-{}", std::process::id()));
    std::fs::create_dir(&tried)?;
    std::fs::remove_dir(&tried)
}

fn privacy(path: &Path) -> Check {
    const NAME: &str = DATA_DIRECTORY;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let open = path
            .metadata()
            .is_ok_and(|entry| entry.permissions().mode() & 0o077 != 0);
        if open {
            return Check::warn(
                NAME,
                format!("{} is writable, but open to other users", path.display()),
                "chmod 700: it holds the master key",
            );
        }
    }
    Check::ok(NAME, format!("{} is writable", path.display()))
}

fn sync(each: Duration) -> Check {
    let millis = each.as_secs_f64() * 1_000.0;
    let detail = format!("one sync takes {millis:.1} ms");
    if each > SLOW_SYNC {
        Check::warn(
            "disk",
            detail,
            "every acknowledgement waits for a sync: use a faster disk, or expect few messages a second from single clients",
        )
    } else {
        Check::ok("disk", detail)
    }
}

/// The mean time of a small write with a sync.
fn measure_sync(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".doctor-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let measured = (|| {
        let start = Instant::now();
        for _ in 0..SYNCS {
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
        }
        Ok(start.elapsed() / SYNCS)
    })();
    let removed = std::fs::remove_file(&path);
    measured.and_then(|time| removed.map(|()| time))
}

fn database(config: &Config) -> Vec<Check> {
    let found = match checkup::database(config) {
        Ok(found) => found,
        Err(error) => return vec![Check::fail("database", app::explain(&error))],
    };
    let database = match &found {
        Database::None => Check::ok("database", "none yet; the first start makes it"),
        Database::Whole(examined) => {
            Check::ok("database", format!("whole, {} KiB", examined.bytes / 1_024))
        }
    };
    let key = match checkup::master_key(config, &found) {
        Ok(MasterKeyState::NotYet) => Check::ok("master key", "none yet; the first start makes it"),
        Ok(MasterKeyState::Usable) => Check::ok("master key", "usable"),
        Ok(MasterKeyState::Fits(sealed)) => fits(sealed),
        Err(error) => Check::fail("master key", app::explain(&error)),
    };
    [database, key].into_iter().chain(exposed(config)).collect()
}

/// The key fits; what else there is to do about it.
fn fits(sealed: Sealed) -> Check {
    const NAME: &str = "master key";
    let few = |count, what: &str| match count {
        1 => format!("1 {what} is"),
        _ => format!("{count} {what}s are"),
    };
    match sealed {
        Sealed::Current => Check::ok(NAME, "fits the database: everything is sealed under it"),
        Sealed::NotYet => Check::warn(
            NAME,
            "fits the database, but the first key that is given is not the one that seals",
            "when every node has it, run `hookturn master-key rotate`",
        ),
        Sealed::Secrets { count, key_id } => Check::warn(
            NAME,
            format!(
                "fits the database, but {} sealed under the former key {key_id}",
                few(count, "secret")
            ),
            "run `hookturn master-key rotate` again, and keep the former key until then",
        ),
        Sealed::Answers { count, key_id } => Check::ok(
            NAME,
            format!(
                "fits the database: every secret is sealed under it; {} sealed under the former key {key_id} until that expires, within a day: keep that key for as long",
                few(count, "idempotent answer")
            ),
        ),
    }
}

fn exposed(config: &Config) -> Option<Check> {
    let path = checkup::exposed_key_file(config)?;
    Some(Check::warn(
        "master key",
        format!("{} is open to other users", path.display()),
        "chmod 600: with it and a copy of the database, every secret can be read",
    ))
}

/// What there is to see of a PostgreSQL store: its database, the key that is given for it, and whether the
/// clocks agree.
fn postgres(config: &Config, place: &config::Database, clock: &dyn Clock) -> Vec<Check> {
    let examined = checkup::postgres(place);
    let key = match checkup::master_key_of(config, examined.as_ref().ok()) {
        Ok(MasterKeyState::NotYet | MasterKeyState::Usable) => Check::ok("master key", "usable"),
        Ok(MasterKeyState::Fits(sealed)) => fits(sealed),
        Err(error) => Check::fail("master key", app::explain(&error)),
    };
    let mut checks = match &examined {
        Ok(examined) => of_database(examined),
        Err(error) => vec![Check::fail("database", app::explain(error))],
    };
    checks.push(key);
    checks.extend(exposed(config));
    let running = examined
        .as_ref()
        .is_ok_and(|found| !found.holders.is_empty());
    checks.push(address(config, running));
    checks.push(match &examined {
        Ok(examined) => clocks(clock.now(), examined.now),
        Err(_) => clock_alone(clock.now()),
    });
    checks
}

fn of_database(examined: &ExaminedDatabase) -> Vec<Check> {
    const NAME: &str = "database";
    let schema = match examined.schema {
        0 => "no tables yet; the first start makes them".to_owned(),
        schema if schema < examined.newest => format!(
            "schema {schema}, which `hookturn migrate` or the next start brings to {}",
            examined.newest
        ),
        schema => format!("schema {schema}, {} KiB", examined.bytes / 1_024),
    };
    let holders: Vec<String> = examined.holders.iter().map(ToString::to_string).collect();
    let used = if holders.is_empty() {
        "nobody works on it".to_owned()
    } else {
        format!("in use by {}", holders.join(" and "))
    };
    let told = format!(
        "{}, PostgreSQL {}: {schema}; {used}",
        examined.database, examined.server
    );
    let mut checks = vec![Check::ok(NAME, told)];
    if examined.half_copied {
        checks.push(Check::fail(
            NAME,
            "it holds a part of a store that is being copied into it, and no server starts on that: run `hookturn migrate-store` again, which goes on where it ended",
        ));
    }
    if !examined.durable {
        checks.push(Check::warn(
            NAME,
            "it runs with fsync off",
            "turn fsync on: what was acknowledged is lost when its machine stops",
        ));
    }
    let millis = examined.round_trip.as_secs_f64() * 1_000.0;
    let detail = format!("one question takes {millis:.1} ms");
    checks.push(if examined.round_trip > SLOW_SYNC {
        Check::warn(
            "network",
            detail,
            "every acknowledgement waits for several: run the server near its database",
        )
    } else {
        Check::ok("network", detail)
    });
    checks
}

/// The database's clock is right or not, but days and expiries go by it and by this machine's alike.
fn clocks(here: Timestamp, there: Timestamp) -> Check {
    let apart = here.since(there).max(there.since(here));
    if apart > CLOCKS_APART {
        return Check::warn(
            "clock",
            format!("it is {here} here and {there} at the database"),
            "synchronise both: signatures and expiries carry the time",
        );
    }
    clock_alone(here)
}

fn address(config: &Config, running: bool) -> Check {
    const NAME: &str = "address";
    let listen = config.listen;
    match TcpListener::bind(listen) {
        Ok(_) => Check::ok(NAME, format!("{listen} is free")),
        Err(error) if running && error.kind() == ErrorKind::AddrInUse => Check::ok(
            NAME,
            format!("{listen} is taken, and a hookturn runs on this store"),
        ),
        Err(error) => Check::fail(
            NAME,
            format!(
                "cannot listen on {listen}: {error}; {}",
                app::listening_fails(&error)
            ),
        ),
    }
}

fn clock(clock: &dyn Clock, data_dir: &Path) -> Check {
    let now = clock.now();
    let modified = data_dir
        .join(app::DATABASE)
        .metadata()
        .and_then(|file| file.modified());
    let written = modified
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .map(Timestamp::from_millis);
    match written {
        Some(written) if now >= RELEASED && written.since(now) > MINUTE => Check::warn(
            "clock",
            format!(
                "the database was written {} s in the future",
                written.since(now) / SECOND
            ),
            "the clock went back: synchronise it, or receivers refuse timestamps",
        ),
        _ => clock_alone(now),
    }
}

fn clock_alone(now: Timestamp) -> Check {
    const NAME: &str = "clock";
    if now < RELEASED {
        return Check::fail(
            NAME,
            format!(
                "it is {now}, before this version was made; set the clock: signatures carry the time"
            ),
        );
    }
    Check::ok(NAME, format!("it is {now}"))
}

fn resolver() -> Check {
    const NAME: &str = "name resolution";
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((servers, _)) if !servers.name_servers().is_empty() => {
            let count = servers.name_servers().len();
            Check::ok(NAME, format!("{count} name servers configured"))
        }
        Ok(_) | Err(_) => Check::warn(
            NAME,
            "the system names no name server",
            "deliveries to host names will fail: check /etc/resolv.conf",
        ),
    }
}
