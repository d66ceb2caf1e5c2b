//! Where the database is, how a connection to it begins, and why a store cannot be opened on it.
//!
//! Every connection works in the schema `hookturn` of the database it is led to, so that the
//! application's own tables can stand beside it. A statement that hangs on a dead network ends with the
//! connection: the kernel gives up on what is not acknowledged for some seconds. So does the database's, which
//! frees what a host that vanished held.

use std::future::poll_fn;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use hookturn_core::store::StoreError;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Config};

use super::node::Holder;
use super::rows::{failed, first};
use super::tls::{Connector, Trust};

/// The schema that holds everything.
pub(super) const SCHEMA: &str = "hookturn";

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// The same until the database has let us in and answered once.
const ANSWER: Duration = Duration::from_secs(15);
/// How long the other side may leave what was sent to it unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long a connection may be silent before the other side is asked whether it is there, how often it is
/// asked, and how many times.
const SILENT: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKED: u32 = 3;
/// How the client library says that the server wants a password and none is given.
const NO_PASSWORD: &str = "password missing";
/// The oldest server this works with, as it numbers itself.
const OLDEST: i32 = 150_000;

/// A connection with its prepared statements.
pub(super) type Session = ClientWrapper;

/// A notification.
pub(super) struct Said {
    /// The process of the server at which it was said.
    pub(super) process: i32,
    pub(super) text: String,
}

/// Why the store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The text is no URL of a database.
    #[error(
        "the store's URL cannot be read: {why}; it looks like postgres://user@host/database?sslmode=verify-full"
    )]
    Url {
        /// What is wrong with it. Never the password.
        why: String,
    },
    /// The file of root certificates cannot be used.
    #[error(
        "the root certificates in {path} cannot be used; check `sslrootcert` in the store's URL"
    )]
    RootCertificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection.
    #[error(
        "cannot connect to the database {database}; check that PostgreSQL runs there and lets this user in"
    )]
    Unreachable {
        /// Host and name of the database.
        database: String,
        /// The reason.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Somebody takes the connection, and does not answer as a database does.
    #[error(
        "the database {database} did not answer within {seconds} s, though something may listen there; check that it is PostgreSQL, and that whatever stands before it reaches it"
    )]
    Silent {
        /// Host and name of the database.
        database: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It was reached, and wants another password.
    #[error(
        "the database {database} refuses the password of user {user}; check the file that HOOKTURN_STORE_PASSWORD_FILE names"
    )]
    WrongPassword {
        /// Host and name of the database.
        database: String,
        /// Who wanted in.
        user: String,
    },
    /// It was reached, and wants a password.
    #[error(
        "the database {database} wants a password of user {user}, and none is given; put it into a file and name that by HOOKTURN_STORE_PASSWORD_FILE"
    )]
    NoPassword {
        /// Host and name of the database.
        database: String,
        /// Who wanted in.
        user: String,
    },
    /// Written by a newer Hookturn.
    #[error(
        "the database has schema {found}, newer than the {known} this version knows; start the newer hookturn"
    )]
    Newer {
        /// Its schema.
        found: i32,
        /// The newest schema of this version.
        known: i32,
    },
    /// The server is too old.
    #[error("the database {database} is of PostgreSQL {found}; version 15 or newer is needed")]
    TooOld {
        /// Host and name of the database.
        database: String,
        /// Its version.
        found: String,
    },
    /// Somebody has it alone: a version that knows no nodes, or a restore.
    #[error(
        "the database {database} is in use by another hookturn process: {holder}; stop that one first: it works on the database alone"
    )]
    InUse {
        /// Host and name of the database.
        database: String,
        /// Who.
        holder: Holder,
    },
    /// A store is being copied into it.
    #[error(
        "the database {database} holds a part of a store that is being copied into it: run `hookturn migrate-store` again, which goes on where it ended"
    )]
    HalfCopied {
        /// Host and name of the database.
        database: String,
    },
    /// A backup is of such a database.
    #[error(
        "the backup was made while only a part of a store had been copied into its database, and the rest is not in it; nothing was restored: restore a backup that was made after the copy was complete, or copy the store again with `hookturn migrate-store`"
    )]
    HalfBackedUp,
    /// A step of the schema is not the one this version has.
    #[error(
        "the database was made by another build: step {number} of its schema is not the one this version has; nothing was changed: start the hookturn that made it, or restore a backup into a new database"
    )]
    OtherSchema {
        /// The step.
        number: i32,
    },
    /// The database was reached and failed.
    #[error("the database failed while the store was opened")]
    Failed(#[source] StoreError),
    /// The schema could not be made or looked at.
    #[error(
        "the tables of the store cannot be made; nothing was changed: check that the user may create a schema"
    )]
    Migration(#[source] tokio_postgres::Error),
    /// A step of the schema failed.
    #[error(
        "the database could not be brought from schema {found} to {known}: step {number} ({what}) failed; nothing was changed: check that the user owns what is in the schema hookturn and that nothing but hookturn made tables there, and start this version again, or `hookturn migrate`; a server of the version before still works on it"
    )]
    Step {
        /// Its schema, which it still has.
        found: i32,
        /// The newest schema of this version.
        known: i32,
        /// The step.
        number: i32,
        /// What it brings.
        what: &'static str,
        /// The reason.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A stored row cannot be.
    #[error("the stored configuration cannot be read")]
    Contents(#[source] StoreError),
    /// A thread could not be started.
    #[error("cannot start a thread for the store")]
    Thread(#[source] std::io::Error),
}

/// A database to open the store on.
#[derive(Clone)]
pub struct Target {
    config: Config,
    connector: Connector,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.name()).finish()
    }
}

impl Target {
    /// Reads a URL as libpq does, with `sslmode` (`disable`, `prefer`, `require`, `verify-full`) and
    /// `sslrootcert` (a PEM file; without it the public ones count).
    ///
    /// `prefer` and `require` encrypt without asking who answers, as libpq does; only `verify-full` keeps
    /// out someone in between.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let refused = |why: &dyn std::fmt::Display| OpenError::Url {
            why: why.to_string(),
        };
        let (plain, tls) = split_tls(url).map_err(|why| refused(&why))?;
        let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            // The source says which part; the text itself is not repeated.
            let source = std::error::Error::source(&error).map(ToString::to_string);
            refused(&source.unwrap_or_else(|| error.to_string()))
        })?;
        let (mode, trust) = match tls.mode.as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anyone),
            None | Some("prefer") => (SslMode::Prefer, Trust::Anyone),
            Some("require") => (SslMode::Require, Trust::Anyone),
            Some("verify-full") => (SslMode::Require, Trust::roots(tls.roots.as_deref())?),
            Some(other) => {
                return Err(refused(&format!(
                    "sslmode is disable, prefer, require or verify-full, not {other}"
                )));
            }
        };
        let settings = format!(
            "-c search_path={SCHEMA} -c client_min_messages=warning -c tcp_keepalives_idle={} \
             -c tcp_keepalives_interval={} -c tcp_keepalives_count={ASKED} -c tcp_user_timeout={}",
            SILENT.as_secs(),
            ASK_AGAIN.as_secs(),
            UNACKNOWLEDGED.as_millis(),
        );
        let options = match config.get_options() {
            Some(given) => format!("{given} {settings}"),
            None => settings,
        };
        config
            .ssl_mode(mode)
            .options(options)
            .application_name("hookturn")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .keepalives_idle(SILENT)
            .keepalives_interval(ASK_AGAIN)
            .keepalives_retries(ASKED);
        let connector = Connector::new(trust);
        Ok(Self { config, connector })
    }

    /// The same database with a password that is not in the URL.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// Host and name, for people.
    pub fn name(&self) -> String {
        use tokio_postgres::config::Host;
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let database = self.config.get_dbname().or(self.config.get_user());
        format!("{} on {host}", database.unwrap_or("?"))
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// A connection that is driven on the runtime this is called on. `ended` is called when it ends by
    /// itself.
    pub(super) async fn connect(
        &self,
        name: &str,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.application_name(name);
        let (client, connection) = config.connect(self.connector()).await?;
        // Its end shows at the client too, whose next statement fails.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
            ended();
        });
        Ok(ClientWrapper::new(client, driver))
    }

    /// A connection whose notifications are told.
    pub(super) async fn connect_to_listen(
        &self,
        name: &str,
        tell: mpsc::UnboundedSender<Said>,
    ) -> Result<Session, StoreError> {
        let mut config = self.config.clone();
        config.application_name(name);
        let connected = config.connect(self.connector()).await;
        let (client, mut connection) = connected.map_err(failed("connect to the database"))?;
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(said) = message {
                    let said = Said {
                        process: said.process_id(),
                        text: said.payload().to_owned(),
                    };
                    if tell.send(said).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(ClientWrapper::new(client, driver))
    }

    /// Why there is no connection. Nothing of the password is in it.
    fn not_connected(&self, source: tokio_postgres::Error) -> OpenError {
        let database = self.name();
        let user = || self.config.get_user().unwrap_or("?").to_owned();
        if source.code() == Some(&SqlState::INVALID_PASSWORD) {
            let user = user();
            return OpenError::WrongPassword { database, user };
        }
        // The library asks for one when the server does, and says so before anything is sent.
        let unanswered = source.as_db_error().is_none() && !source.is_closed();
        let asked =
            std::error::Error::source(&source).is_some_and(|why| why.to_string() == NO_PASSWORD);
        if unanswered && asked && self.config.get_password().is_none() {
            let user = user();
            return OpenError::NoPassword { database, user };
        }
        OpenError::Unreachable { database, source }
    }

    /// A connection for a command that works beside servers, or instead of one.
    pub(super) async fn reach(&self) -> Result<Session, OpenError> {
        self.reach_as("hookturn command", || {}).await
    }

    /// A connection to a server that is new enough.
    pub(super) async fn reach_as(
        &self,
        name: &str,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Session, OpenError> {
        let reached = timeout(ANSWER, self.reach_at_last(name, ended)).await;
        reached.unwrap_or_else(|_| {
            Err(OpenError::Silent {
                database: self.name(),
                seconds: ANSWER.as_secs(),
            })
        })
    }

    async fn reach_at_last(
        &self,
        name: &str,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Session, OpenError> {
        let connected = self.connect(name, ended).await;
        let session = connected.map_err(|source| self.not_connected(source))?;
        let sql = "SELECT current_setting('server_version_num')::integer,
                          current_setting('server_version')";
        let found = first(&session, "ask for the version", sql, &[]).await;
        if let Some(row) = found.map_err(OpenError::Failed)?
            && row.get::<_, i32>(0) < OLDEST
        {
            return Err(OpenError::TooOld {
                database: self.name(),
                found: row.get(1),
            });
        }
        Ok(session)
    }
}

/// What a URL says of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParameters {
    mode: Option<String>,
    roots: Option<String>,
}

/// Takes the parameters of TLS out of a URL: the client library knows only some of their values.
fn split_tls(url: &str) -> Result<(String, TlsParameters), String> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err("it does not begin with postgres://".to_owned());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut tls = TlsParameters::default();
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value: String = url::form_urlencoded::parse(format!("v={value}").as_bytes())
            .next()
            .map_or_else(String::new, |(_, value)| value.into_owned());
        match name {
            "sslmode" => tls.mode = Some(value),
            "sslrootcert" => tls.roots = Some(value),
            _ => kept.push(pair),
        }
    }
    let separator = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{base}{separator}{}", kept.join("&")), tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_tls_are_taken_out_of_the_url() {
        let (plain, tls) = split_tls(
            "postgres://u@h/d?sslmode=verify-full&target_session_attrs=any&sslrootcert=%2Fa%20b",
        )
        .unwrap();
        assert_eq!(plain, "postgres://u@h/d?target_session_attrs=any");
        assert_eq!(tls.mode.as_deref(), Some("verify-full"));
        assert_eq!(tls.roots.as_deref(), Some("/a b"));
    }

    #[tokio::test]
    async fn a_database_that_never_answers_is_not_waited_for_without_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("postgres://somebody@{address}/some?sslmode=disable");
        let target = Target::parse(&url).unwrap();
        let reaching = tokio::spawn(async move { target.reach().await.map(drop) });
        let _taken = listener.accept().await.unwrap();
        tokio::time::pause();
        let refused = reaching.await.unwrap().unwrap_err();
        assert!(matches!(refused, OpenError::Silent { .. }), "{refused}");
        assert!(refused.to_string().contains("within 15 s"), "{refused}");
    }

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_its_password() {
        for url in [
            "mysql://u:geheim@h/d",
            "postgres://u:geheim@h/d?sslmode=verify-ca",
            "postgres://u:geheim@h:port/d",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
        assert!(!format!("{:?}", Target::parse("postgres://u:geheim@h/d")).contains("geheim"));
    }
}
