//! The application: puts the parts together, starts them in order, and stops them in reverse.
//!
//! Start: address → lock → master key → store (migrated, live view loaded) → key check → service →
//! first API key → delivery shards (everything that was due goes on) → one line
//! `listening on http://…`. What can fail for outer reasons comes before anything is made.
//!
//! Stop, on SIGTERM or SIGINT: readiness off → exchanges in flight finish and are recorded → no new
//! connections, requests finish, those included whose clients left → store closed. The listener
//! outlives the exchanges so that whoever balances the load can see that readiness is off; what is
//! published until it goes is stored, and due at the next start. A second signal stops at once; what
//! was not recorded is due again too.

pub mod backup;
pub mod checkup;
mod http;
mod keys;
pub mod probes;
mod sweeps;
mod test_event;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::limits;
use hookturn_core::store::{Store, StoreError};
use hookturn_core::time::{Clock as _, Millis, SECOND};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::api::{self, ApiState, Finishing, Readiness};
use crate::config::{Config, LogFormat, SecretText};
use crate::courier::Courier;
use crate::courier::keys::KeyCache;
use crate::dispatch::{self, Dispatch, Inboxes};
use crate::outbound::{self, AddressPolicy, ClientConfig, SystemResolver};
use crate::service::inbox::Inbox;
use crate::service::proving::Prober;
use crate::service::test_events::TestSender;
use crate::service::{self, Service, ServiceError, TargetPolicy};
use crate::store::live::Live;
use crate::store::seal::Sealer;
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
pub use crate::telemetry::explain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{SystemClock, SystemEntropy};
use crate::ui::live::Streams;
use crate::ui::{self, UiState};

pub use crate::store::sqlite::OpenError;
pub use keys::KeyFailure;

/// The name of the database in the data directory.
pub const DATABASE: &str = "hookturn.db";

/// Why the server did not start. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The data directory cannot be used.
    #[error(
        "cannot use the data directory {path}; check that it exists or can be made, and belongs to the user hookturn runs as"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The master key is missing or wrong.
    #[error(transparent)]
    MasterKey(#[from] KeyFailure),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; {}", listening_fails(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The extra root certificates cannot be used.
    #[error("cannot use the extra root certificates of {path}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The first API key cannot be made.
    #[error("cannot make the first API key")]
    Bootstrap(#[source] ServiceError),
    /// Anything else that start-up needs.
    #[error("cannot {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an address cannot be listened on, and what to do about it.
pub fn listening_fails(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AddrInUse => {
            "another program uses it: stop that one, or choose another --listen"
        }
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: give --listen one of its own, or 0.0.0.0 or [::] for all of them"
        }
        ErrorKind::PermissionDenied => {
            "the user hookturn runs as may not: ports below 1024 are often reserved, choose another --listen"
        }
        _ => "choose another --listen",
    }
}

fn start_failure<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> Failure {
    move |source| Failure::Start {
        what,
        source: Box::new(source),
    }
}

/// A running server. Dropping it does not stop it cleanly; [`Server::stop`] does.
pub struct Server {
    address: SocketAddr,
    first_key: Option<SecretText>,
    store: SqliteStore,
    dispatch: Arc<Dispatch>,
    ready: Readiness,
    finishing: Finishing,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    sweeps: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts everything on the current runtime and returns when it is ready.
    pub async fn start(config: &Config) -> Result<Self, Failure> {
        // First, because nothing is made when the configuration is not usable.
        let mut client = client_config(config)?;
        // Before anything is made as well: a key that is shown once must not be made by a start that
        // ends at an occupied port. Clients that come early wait in the kernel's queue.
        let listener = listen(config).await?;
        let path = prepare_data_dir(config)?;
        // Two processes on an empty directory must not both make a master key.
        let lock = sqlite::lock(&path)?;
        let existed = sqlite::exists(&path)?;
        let entropy = Arc::new(SystemEntropy);
        let clock = Arc::new(SystemClock);
        let master_keys = keys::resolve(config, existed, entropy.as_ref())?;
        let live = Arc::new(Live::default());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let inboxes = Inboxes::new(config.delivery.shards_on(cores));
        let store = open_store(path, lock, &live, &inboxes)?;
        let sealer = Arc::new(Sealer::new(master_keys, entropy.clone()));
        keys::check(&store, &sealer).await?;
        let inbox = Inbox::new(Arc::clone(&live), Arc::clone(&sealer), clock.clone());
        client.inbox = Some(inbox.dialer());
        let client = Arc::new(client);
        let metrics = counting(*clock);
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let service = Arc::new(Service::new(service::Parts {
            store: Arc::clone(&shared),
            live: Arc::clone(&live),
            sealer: Arc::clone(&sealer),
            clock: clock.clone(),
            entropy: entropy.clone(),
            targets: Arc::new(Targets(client.policy.clone())),
            master_keys: Arc::new(keys::KeptKeys::new(config, store.clone())),
            settings: settings(config),
        }));
        let first_key = bootstrap(&service, config).await?;
        warn_of_missing_app(&service);
        let keys = KeyCache::new(Arc::clone(&sealer));
        let courier = Arc::new(Courier::new(Arc::clone(&live), keys, clock.clone()));
        let parts = dispatch::Parts {
            store: Arc::clone(&shared),
            live: Arc::clone(&live),
            courier: Arc::clone(&courier),
            client: Arc::clone(&client),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: Arc::clone(&metrics),
            disable_after: config.delivery.disable_after_millis(),
        };
        let prober: Arc<dyn Prober> = Arc::new(probes::Probes::new(&courier, &parts));
        let tests: Arc<dyn TestSender> = Arc::new(test_event::Tester::new(&courier, &parts));
        let dispatch = Dispatch::start(parts, inboxes)
            .await
            .map_err(start_failure("start the delivery shards"))?;
        let address = address_of(&listener)?;
        let (stop, stopping) = watch::channel(false);
        let ready = Readiness::default();
        let finishing = Finishing::default();
        let api = ApiState {
            service: Arc::clone(&service),
            ready: ready.clone(),
            metrics: Arc::clone(&metrics) as _,
            prober: Arc::clone(&prober),
            tests: Arc::clone(&tests),
            finishing: finishing.clone(),
            entropy: entropy.clone(),
        };
        let pages = UiState {
            service: Arc::clone(&service),
            clock: clock.clone(),
            entropy: entropy.clone(),
            tests,
            finishing: finishing.clone(),
            streams: Streams::new(stopping.clone()),
            metrics: Arc::clone(&metrics),
            inbox,
        };
        let router = api::router(api, ui::nowhere).merge(ui::router(pages));
        let edge = http::Edge(entropy.clone(), clock.clone());
        let accepting = tokio::spawn(http::accept(listener, router, edge, stopping.clone()));
        let sweeps = tokio::spawn(sweeps::run(sweeps::Parts {
            service,
            prober,
            store: shared,
            engine: store.clone(),
            ready: ready.clone(),
            metrics,
            clock,
            retention_days: config.retention.days,
            stopping,
        }));
        ready.set_ready();
        Ok(Self {
            address,
            first_key,
            store,
            dispatch: Arc::new(dispatch),
            ready,
            finishing,
            stop,
            accepting,
            sweeps,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The API key that was generated because the store was empty and none was given.
    pub fn first_key(&self) -> Option<&SecretText> {
        self.first_key.as_ref()
    }

    /// Stops cleanly: readiness off, exchanges finish and are recorded, requests finish.
    pub async fn stop(self) {
        let deadline = Instant::now() + Duration::from_millis(limits::DRAIN_MAX);
        self.ready.set_draining();
        self.dispatch.drain().await;
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
        if timeout_at(deadline, self.finishing.ended()).await.is_err() {
            tracing::warn!(
                "some requests whose clients left did not finish in time and were cut off"
            );
        }
        let _ = self.sweeps.await;
        if let Err(error) = self.store.flush().await {
            tracing::error!(error = %error, "the store failed while stopping");
        }
    }
}

/// Runs a server until it is told to stop. `announce` is given the address when it is ready.
pub fn serve(config: &Config) -> Result<(), Failure> {
    start_logging(config);
    for name in &config.unknown_variables {
        tracing::warn!(variable = %name, "this environment variable is not known; check its spelling");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(start_failure("start the runtime"))?;
    raise_file_limit();
    leave_no_core();
    let ended = runtime.block_on(async {
        let mut signals = Signals::new().map_err(start_failure("listen for signals"))?;
        let server = Server::start(config).await?;
        let mut out = std::io::stderr().lock();
        if let Some(key) = server.first_key() {
            let _ = writeln!(out, "first API key (shown this once): {}", key.expose());
        }
        let _ = writeln!(out, "listening on http://{}", server.address());
        drop(out);
        signals.next().await;
        tracing::info!("stopping: requests and exchanges in flight finish first; signal again to stop at once");
        tokio::select! {
            () = server.stop() => Ok(End::Clean),
            () = signals.next() => {
                tracing::warn!("stopped at once; what was not recorded is due again at the next start");
                Ok(End::AtOnce)
            }
        }
    });
    if matches!(ended, Ok(End::AtOnce)) {
        // Dropping the runtime would wait for the thread that waits for the delivery shards.
        runtime.shutdown_background();
    }
    ended.map(drop)
}

/// How a server that was told to stop ended.
enum End {
    /// Everything under way finished.
    Clean,
    /// The second signal came first.
    AtOnce,
}

/// SIGTERM and SIGINT alike.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn until_signal() -> std::io::Result<()> {
    Signals::new()?.next().await;
    Ok(())
}

/// Sends log lines to standard error. A second call changes nothing.
pub fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = match config.log.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Takes as many open files as the system permits: every exchange needs one, and the usual soft limit
/// of 1,024 is less than the deliveries of one shard.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %error, "the limit of open files could not be raised");
    }
}

/// A crash leaves no image of the memory: it would hold the master key and the signing keys (G8).
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be turned off; one would hold secrets");
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(start_failure("read the address"))
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    TcpListener::bind(config.listen)
        .await
        .map_err(|source| Failure::Listen {
            address: config.listen,
            source,
        })
}

fn prepare_data_dir(config: &Config) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = &config.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Failure::DataDir {
            path: path.clone(),
            source,
        })?;
    Ok(path.join(DATABASE))
}

fn open_store(
    path: PathBuf,
    lock: sqlite::DatabaseLock,
    live: &Arc<Live>,
    inboxes: &Inboxes,
) -> Result<SqliteStore, OpenError> {
    let options = SqliteOptions {
        path,
        live: Arc::clone(live),
        hints: Arc::new(inboxes.clone()),
    };
    SqliteStore::open_locked(options, lock)
}

/// What is counted, from now on.
fn counting(clock: SystemClock) -> Arc<Metrics> {
    let metrics = Metrics::default();
    metrics.tally().begin_again(clock.now());
    Arc::new(metrics)
}

fn client_config(config: &Config) -> Result<ClientConfig, Failure> {
    let policy = AddressPolicy {
        allow_nets: config.outbound.allow_nets.clone(),
        allow_http: config.outbound.allow_http,
    };
    let roots = match &config.outbound.extra_roots_file {
        Some(path) => Some(std::fs::read(path).map_err(|source| Failure::Roots {
            path: path.clone(),
            source: Box::new(source),
        })?),
        None => None,
    };
    let mut client = ClientConfig::new(policy, Arc::new(SystemResolver::new()), roots.as_deref())
        .map_err(|source: outbound::ConfigError| Failure::Roots {
        path: config.outbound.extra_roots_file.clone().unwrap_or_default(),
        source: Box::new(source),
    })?;
    client.hosts = config.outbound.hosts.clone();
    // The shards' threads are for deliveries; this runtime has room for the arithmetic of TLS.
    client.handshakes = Some(tokio::runtime::Handle::current());
    Ok(client)
}

fn settings(config: &Config) -> service::Settings {
    let events = config.operational.events.as_ref();
    service::Settings {
        max_in_flight: config.delivery.max_in_flight,
        session: Millis::from(config.dashboard.session_seconds) * SECOND,
        pace: service::pace::Pace {
            requests_per_second: config.api.requests_per_second,
            burst: config.api.request_burst,
        },
        operational_events: events.map(|events| service::operational::OperationalApp {
            workspace: events.workspace.clone(),
            app: events.app,
        }),
        ..service::Settings::default()
    }
}

/// An app may be made later, so one that is missing stops no start.
fn warn_of_missing_app(service: &Service) {
    if let Some(missing) = service.missing_operational_app() {
        tracing::warn!(
            workspace = missing.workspace, app = %missing.app,
            "HOOKTURN_OPERATIONAL_EVENTS names an app that does not exist; the audit logs keep what it would be told"
        );
    }
}

async fn bootstrap(service: &Service, config: &Config) -> Result<Option<SecretText>, Failure> {
    let given = config
        .bootstrap_api_key
        .as_ref()
        .map(|key| key.expose().to_owned());
    let generated = given.is_none();
    let made = service
        .bootstrap(given.clone())
        .await
        .map_err(Failure::Bootstrap)?;
    if made.is_none() && given.is_some_and(|given| service.authenticate(&given).is_err()) {
        tracing::warn!(
            "HOOKTURN_BOOTSTRAP_API_KEY is not a key of this store and was ignored: it is used only when \
             the store is empty; give the key it was made with, or one that `hookturn api-key create` made"
        );
    }
    Ok(made
        .filter(|_| generated)
        .map(|made| SecretText::new(made.text.as_str())))
}

/// The address policy, as the service asks it.
struct Targets(AddressPolicy);

impl TargetPolicy for Targets {
    fn check(&self, url: &url::Url) -> Result<(), String> {
        self.0.check_url(url).map_err(|refused| refused.to_string())
    }
}

impl api::Metrics for Metrics {
    fn render(&self) -> String {
        Metrics::render(self)
    }

    fn accepted(&self, messages: usize) {
        self.messages_accepted(messages);
    }
}

/// The description of the native API: OpenAPI 3.1 as indented JSON.
pub fn openapi() -> String {
    api::openapi()
}

/// The description of the Hopae dialect: OpenAPI 3.1 as indented JSON.
pub fn hopae_openapi() -> String {
    api::hopae_openapi()
}

/// The description of the KORE dialect: OpenAPI 3.1 as indented JSON.
pub fn kore_openapi() -> String {
    api::kore_openapi()
}

/// Errors of background steps carry no caller to tell.
fn log_step(step: &'static str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(step, error = %explain(&error), "a background step failed; it is tried again");
    }
}
