//! A running server: its parts, put together in order and stopped in reverse.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::limits;
use hookturn_core::store::{Fence, StoreError};
use hookturn_core::time::{Clock as _, Millis, SECOND};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::engine::{Engine, Place};
use super::{Failure, Gone, http, keys, probes, start_failure, sweeps, test_event};
use crate::api::{self, ApiState, Finishing, Readiness, Room};
use crate::config::Config;
use crate::courier::Courier;
use crate::courier::keys::KeyCache;
use crate::dispatch::{self, Dispatch, Inboxes};
use crate::outbound::{self, AddressPolicy, ClientConfig, SystemResolver};
use crate::service::inbox::Inbox;
use crate::service::proving::Prober;
use crate::service::test_events::TestSender;
use crate::service::{self, Service, TargetPolicy};
use crate::store::live::Live;
use crate::store::owned::Owned;
use crate::store::seal::Sealer;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::troubles::Troubles;
use crate::telemetry::{NodeClock, SystemEntropy};
use crate::ui::live::Streams;
use crate::ui::{self, Reading, UiState};

/// A running server. Dropping it does not stop it cleanly; [`Server::stop`] does.
pub struct Server {
    address: SocketAddr,
    engine: Engine,
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
        let ground = Ground::lay(config).await?;
        let inbox = Inbox::new(
            Arc::clone(&ground.live),
            Arc::clone(&ground.sealer),
            ground.clock.clone(),
        );
        client.inbox = Some(inbox.dialer());
        let service = ground.service(config, client.policy.clone()).await?;
        let delivering = ground.deliver(config, Arc::new(client)).await?;
        let address = address_of(&listener)?;
        let (stop, stopping) = watch::channel(false);
        let ready = Readiness::default();
        let finishing = Finishing::default();
        let router = ground.faces(&service, &delivering, inbox, &ready, &finishing, &stopping);
        let edge = http::Edge(ground.entropy.clone(), ground.clock.clone());
        let accepting = tokio::spawn(http::accept(listener, router, edge, stopping.clone()));
        let sweeps = tokio::spawn(sweeps::run(sweeps::Parts {
            service,
            prober: delivering.prober,
            inboxes: ground.inboxes,
            owned: ground.owned,
            store: ground.engine.store(),
            engine: ground.engine.clone(),
            ready: ready.clone(),
            metrics: ground.metrics,
            troubles: Troubles::default(),
            clock: ground.clock,
            retention_days: config.retention.days,
            stopping,
        }));
        ready.set_ready();
        Ok(Self {
            address,
            engine: ground.engine,
            dispatch: Arc::new(delivering.dispatch),
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

    /// Waits until this node was taken over by another. It sends nothing any more then, and must end: what
    /// it has not recorded is due there.
    pub async fn until_gone(&self) -> Gone {
        self.engine.until_gone().await
    }

    /// Stops cleanly: readiness off, exchanges finish and are recorded, requests finish.
    pub async fn stop(self) {
        let deadline = Instant::now() + Duration::from_millis(limits::DRAIN_MAX);
        self.ready.set_draining();
        let mut drained = pin!(self.dispatch.drain());
        if timeout_at(deadline, &mut drained).await.is_err() {
            if self.engine.cannot_write() {
                tracing::warn!(
                    "what was sent could not be recorded, because the store cannot write: it is due again at the next start"
                );
                close(&self.engine).await;
            }
            drained.await;
        }
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
        if timeout_at(deadline, self.finishing.ended()).await.is_err() {
            tracing::warn!(
                "some requests whose clients left did not finish in time and were cut off"
            );
        }
        let _ = self.sweeps.await;
        close(&self.engine).await;
    }
}

async fn close(engine: &Engine) {
    match engine.close().await {
        // It was closed before.
        Ok(()) | Err(StoreError::Stopped) => {}
        Err(error) => tracing::error!(error = %error, "the store failed while stopping"),
    }
}

/// What everything stands on: the open store, its view in memory, and what opens secrets.
struct Ground {
    engine: Engine,
    live: Arc<Live>,
    sealer: Arc<Sealer>,
    master_keys: Arc<keys::KeptKeys>,
    inboxes: Inboxes,
    metrics: Arc<Metrics>,
    clock: Arc<NodeClock>,
    owned: Arc<Owned>,
    entropy: Arc<SystemEntropy>,
}

/// The delivery shards, and who else sends.
struct Delivering {
    dispatch: Dispatch,
    prober: Arc<dyn Prober>,
    tests: Arc<dyn TestSender>,
}

impl Ground {
    /// Locks, finds the master key, opens the store, and checks that the two fit.
    async fn lay(config: &Config) -> Result<Self, Failure> {
        let place = Place::of(config)?;
        let entropy = Arc::new(SystemEntropy);
        let clock = Arc::new(NodeClock::wrong_by(config.nodes.clock_shift_millis));
        let master_keys = keys::resolve(config, &place, entropy.as_ref())?;
        let live = Arc::new(Live::default());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let inboxes = Inboxes::new(config.delivery.shards_on(cores));
        let sealer = Arc::new(Sealer::new(master_keys.clone(), entropy.clone()));
        let engine = place.open(config, &live, &inboxes, &clock, &sealer).await?;
        keys::check(&engine, &sealer, &live).await?;
        Ok(Self {
            master_keys: keys::KeptKeys::new(config, master_keys, engine.clone()).into(),
            owned: engine.owned(),
            engine,
            live,
            sealer,
            inboxes,
            metrics: counting(&clock),
            clock,
            entropy,
        })
    }

    /// The use cases, on a store that has its first API key.
    async fn service(
        &self,
        config: &Config,
        policy: AddressPolicy,
    ) -> Result<Arc<Service>, Failure> {
        let service = Arc::new(Service::new(service::Parts {
            store: self.engine.store(),
            live: Arc::clone(&self.live),
            sealer: Arc::clone(&self.sealer),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            targets: Arc::new(Targets(policy)),
            master_keys: self.master_keys.clone(),
            settings: settings(config),
        }));
        if let Some(outbox) = self.engine.outbox() {
            service.use_outbox(Arc::new(outbox.clone()));
        }
        bootstrap(&service, config).await?;
        warn_of_missing_app(&service);
        Ok(service)
    }

    /// Starts the delivery shards with everything that is due.
    async fn deliver(
        &self,
        config: &Config,
        client: Arc<ClientConfig>,
    ) -> Result<Delivering, Failure> {
        let keys = KeyCache::new(Arc::clone(&self.sealer));
        let courier = Courier::new(Arc::clone(&self.live), keys, self.clock.clone());
        let courier = Arc::new(courier);
        let parts = dispatch::Parts {
            store: self.engine.store(),
            live: Arc::clone(&self.live),
            owned: Arc::clone(&self.owned),
            courier: Arc::clone(&courier),
            client,
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            metrics: Arc::clone(&self.metrics),
            disable_after: config.delivery.disable_after_millis(),
        };
        let prober = Arc::new(probes::Probes::new(&courier, &parts));
        let tests = Arc::new(test_event::Tester::new(&courier, &parts));
        let dispatch = Dispatch::start(parts, self.inboxes.clone())
            .await
            .map_err(start_failure("start the delivery shards"))?;
        Ok(Delivering {
            dispatch,
            prober,
            tests,
        })
    }

    /// The API and the dashboard.
    fn faces(
        &self,
        service: &Arc<Service>,
        delivering: &Delivering,
        inbox: Arc<Inbox>,
        ready: &Readiness,
        finishing: &Finishing,
        stopping: &watch::Receiver<bool>,
    ) -> axum::Router {
        let api = ApiState {
            service: Arc::clone(service),
            ready: ready.clone(),
            metrics: Arc::clone(&self.metrics) as _,
            prober: Arc::clone(&delivering.prober),
            tests: Arc::clone(&delivering.tests),
            finishing: finishing.clone(),
            room: Room::default(),
            entropy: self.entropy.clone(),
        };
        let pages = UiState {
            service: Arc::clone(service),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            tests: Arc::clone(&delivering.tests),
            finishing: finishing.clone(),
            reading: Reading::default(),
            streams: Streams::new(stopping.clone()),
            metrics: Arc::clone(&self.metrics),
            inbox,
        };
        api::router(api, ui::nowhere).merge(ui::router(pages))
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

/// What is counted, from now on.
fn counting(clock: &NodeClock) -> Arc<Metrics> {
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

/// Makes the first API key of an empty store.
///
/// 1. One that is generated is printed before it is stored: whenever the process ends, a stored key is one
///    that somebody could read. After a crash between the two the next start prints another.
/// 2. A key that cannot be printed is not made, and the server does not start.
async fn bootstrap(service: &Service, config: &Config) -> Result<(), Failure> {
    let Some(given) = &config.bootstrap_api_key else {
        let Some(text) = service.first_key_text() else {
            return Ok(());
        };
        super::process::print_first_key(&text).map_err(Failure::FirstKeyUnseen)?;
        let made = service.bootstrap(text.as_str().to_owned()).await;
        if made.map_err(Failure::Bootstrap)?.is_none() {
            tracing::warn!(
                "another node made the first API key at the same moment; the one printed here opens nothing"
            );
        }
        return Ok(());
    };
    let made = service
        .bootstrap(given.expose().to_owned())
        .await
        .map_err(Failure::Bootstrap)?;
    if made.is_none() && service.authenticate(given.expose()).is_err() {
        tracing::warn!(
            "HOOKTURN_BOOTSTRAP_API_KEY is not a key of this store and was ignored: it is used only when \
             the store is empty; give the key it was made with, or one that `hookturn api-key create` made"
        );
    }
    Ok(())
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

    fn fenced(&self, fence: &Fence) {
        self.fence(fence.millis, fence.nodes == fence.confirmed);
    }

    fn ready(&self, ready: bool) {
        Metrics::ready(self, ready);
    }
}
