//! One process of the server, from its start to its crash: service, dispatch on one shard, courier,
//! probes and the house-keeping, all on the caller's thread. It has a store to itself, or is one of several nodes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookturn::app::probes::Probes;
use hookturn::courier::Courier;
use hookturn::courier::keys::KeyCache;
use hookturn::dispatch::{self, Dispatch, Inboxes};
use hookturn::outbound::{AddressPolicy, ClientConfig, SystemResolver};
use hookturn::service::master_key::MasterKeys;
use hookturn::service::proving::{ProbeFuture, Prober};
use hookturn::service::{self, Caller, Service, TargetPolicy};
use hookturn::store::live::Live;
use hookturn::store::model::{Backups, Disk, ModelStore};
use hookturn::store::owned::Owned;
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::store::sharing::lease::Silence;
use hookturn::telemetry::metrics::Metrics;
use hookturn_core::delivery::Next;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::ProbeKey;
use hookturn_core::store::{Finish, Hint, HintSink as _, Store as _, StoreFuture};
use hookturn_core::time::{Clock, DAY, Millis, Timestamp};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio::time::{Instant, timeout};

use crate::base::{Base, Session};
use crate::clock::SimClock;
use crate::ear;
use crate::engine::{Faults, Ground, SimStore};
use crate::host::Gate;
use crate::judge::Judge;
use crate::member::{Node, Writer};
use crate::membership::Membership;
use crate::mutant::Mutant;
use crate::network::Net;
use crate::random::{Random, Seeded};

const API_KEY: &str = "sk_operator_0123456789abcdef0123456789abcdef0123456789";
/// How often the house-keeping looks around, and after how many looks it settles keyrings.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS_PER_SETTLE: u32 = 4;
/// How often due rows are looked for that a node was told of in vain.
const LOOK_FOR_DUE: Duration = Duration::from_secs(5);
/// How far the signer of [`Mutant::StaleSigner`] is behind.
const STALE: Millis = 20_000;

/// What outlives a process.
pub(crate) struct Ashore {
    pub(crate) disk: Disk,
    pub(crate) ground: Ground,
    pub(crate) entropy: Arc<Seeded>,
    sealer: Arc<Sealer>,
    client: Arc<ClientConfig>,
}

/// A running server.
pub(crate) struct Process {
    pub(crate) service: Arc<Service>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) live: Arc<Live>,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) caller: Caller,
    pub(crate) inboxes: Inboxes,
    tasks: Vec<JoinHandle<()>>,
}

/// What differs between a process that has its store to itself and one of several nodes.
struct Wiring {
    store: Arc<SimStore>,
    live: Arc<Live>,
    owned: Arc<Owned>,
    inboxes: Inboxes,
    clock: Arc<dyn Clock>,
    client: Arc<ClientConfig>,
    /// Stops what runs beside the node's own tasks when the node is stopped.
    gate: Option<Arc<Gate>>,
}

impl Ashore {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let entropy = Arc::new(Seeded::new(Random::new(seed, "entropy")));
        let keys = MasterKey::parse_list(&"5a".repeat(32)).unwrap();
        let sealer = Arc::new(Sealer::new(keys, Arc::clone(&entropy) as _));
        let judge = Judge::new(mutant, Arc::clone(&sealer));
        let judge = Arc::new(Mutex::new(judge));
        let clock = Arc::new(SimClock::new());
        let net = Net {
            judge: Arc::clone(&judge),
            clock: Arc::clone(&clock),
            node: None,
        };
        let client = client_over(net);
        Self {
            disk: Disk::default(),
            ground: Ground {
                judge,
                clock,
                faults: Arc::new(Mutex::new(Faults::default())),
                random: Arc::new(Mutex::new(Random::new(seed, "store"))),
                notices: Arc::new(Mutex::new(Random::new(seed, "notices"))),
                mutant,
            },
            entropy,
            sealer,
            client,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.ground.clock.now()
    }

    /// See [`Mutant::ForgetsDueRow`].
    pub(crate) fn forget_a_row(&self) {
        let live = Arc::new(Live::default());
        let inboxes = Arc::new(Inboxes::new(1));
        let model = ModelStore::open(self.disk.clone(), live, inboxes, Backups::default());
        let endpoints = self.disk.configuration().endpoints;
        let mut rows = endpoints
            .iter()
            .flat_map(|endpoint| self.disk.due(endpoint.id));
        if let Some(due) = rows.next() {
            let finish = Finish {
                due,
                attempt: None,
                next: Next::Delivered,
                keeps_place: false,
                at: self.now(),
            };
            drop(model.finish(vec![finish], Vec::new()));
        }
    }
}

fn client_over(net: Net) -> Arc<ClientConfig> {
    let policy = AddressPolicy {
        allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
        allow_http: true,
    };
    let resolver = Arc::new(SystemResolver::new());
    let mut client = ClientConfig::new(policy, resolver, None).unwrap();
    client.dialer = Some(Arc::new(net));
    Arc::new(client)
}

impl Process {
    /// Starts a server on what is on disk. It starts with a store that works.
    pub(crate) async fn start(ashore: &Ashore) -> Self {
        let faults = std::mem::take(&mut *ashore.ground.faults.lock().unwrap());
        let live = Arc::new(Live::default());
        let inboxes = Inboxes::new(1);
        let hints = Arc::new(inboxes.clone());
        let model = ModelStore::open(
            ashore.disk.clone(),
            Arc::clone(&live),
            hints,
            Backups::default(),
        );
        let store = Arc::new(SimStore::new(model, ashore.ground.clone()));
        let writer = spawn_local(Arc::clone(&store).write());
        let wiring = Wiring {
            store,
            live,
            owned: Arc::default(),
            inboxes,
            clock: Arc::clone(&ashore.ground.clock) as _,
            client: Arc::clone(&ashore.client),
            gate: None,
        };
        let process = Self::assemble(ashore, wiring, vec![writer]).await.unwrap();
        *ashore.ground.faults.lock().unwrap() = faults;
        process
    }

    /// Starts one of several nodes, on the database that it shares with the others; an error if that cannot be
    /// reached.
    pub(crate) async fn join(
        ashore: &Ashore,
        node: Arc<Node>,
        gate: Arc<Gate>,
        machine: usize,
    ) -> Result<Self, Failed> {
        let (session, version) = timeout(JOINING, enter(&node, machine)).await??;
        let (orders, inbox) = mpsc::unbounded_channel();
        let ready = Arc::new(Notify::new());
        let seat = (session, version);
        let writer = Writer::new(Arc::clone(&node), inbox, seat, Arc::clone(&ready));
        let writer = spawn_local(writer.run());
        ready.notified().await;
        let ear = spawn_local(ear::run(Arc::clone(&node)));
        let net = Net {
            judge: Arc::clone(&ashore.ground.judge),
            clock: Arc::clone(&ashore.ground.clock),
            node: Some(Arc::clone(&node)),
        };
        let store = Arc::new(SimStore::of(Membership {
            node: Arc::clone(&node),
            orders,
        }));
        let wiring = Wiring {
            store: Arc::clone(&store),
            live: Arc::clone(&node.live),
            owned: Arc::clone(&node.owned),
            inboxes: node.inboxes.clone(),
            clock: Arc::clone(&node.clock) as _,
            client: client_over(net),
            gate: Some(gate),
        };
        let looks = spawn_local(look_for_due(Arc::clone(&node), store));
        let lost = spawn_local(forget_queues(node));
        Self::assemble(ashore, wiring, vec![writer, ear, looks, lost]).await
    }

    async fn assemble(
        ashore: &Ashore,
        wiring: Wiring,
        mut tasks: Vec<JoinHandle<()>>,
    ) -> Result<Self, Failed> {
        let service = Arc::new(Service::new(service::Parts {
            store: Arc::clone(&wiring.store) as _,
            live: Arc::clone(&wiring.live),
            sealer: Arc::clone(&ashore.sealer),
            clock: Arc::clone(&wiring.clock),
            entropy: Arc::clone(&ashore.entropy) as _,
            targets: Arc::new(Anything),
            master_keys: Arc::new(Anything),
            settings: service::Settings::default(),
        }));
        service.bootstrap(API_KEY.to_owned()).await?;
        let key = service.authenticate(API_KEY)?;
        let caller = service.caller_for(key, None, "req_sim", None)?;
        let parts = parts(ashore, &wiring);
        let probes = Probes::new(&parts.courier, &parts);
        let prober: Arc<dyn Prober> = match (ashore.ground.mutant, &wiring.gate) {
            (Mutant::BelievesProbes, _) => Arc::new(Believing(probes)),
            (_, Some(gate)) => Arc::new(Behind(Arc::clone(gate), probes)),
            (_, None) => Arc::new(probes),
        };
        let shard = Dispatch::start_here(parts, wiring.inboxes.clone()).await?;
        tasks.push(spawn_local(shard));
        let house = keep_house(Arc::clone(&service), Arc::clone(&prober));
        tasks.push(spawn_local(house));
        Ok(Self {
            service,
            store: wiring.store,
            live: wiring.live,
            prober,
            caller,
            inboxes: wiring.inboxes,
            tasks,
        })
    }

    /// Whether a part of it ended, which none does unless it panics.
    pub(crate) fn is_damaged(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Stops in order: what is under way ends and is recorded, and the others are told.
    pub(crate) async fn leave(&self) {
        self.inboxes.drain();
        while !self.tasks[SHARD].is_finished() {
            tokio::time::sleep(LOOK / 10).await;
        }
        self.store.leave().await;
    }
}

/// How long a process tries to start before it gives up.
const JOINING: Duration = Duration::from_secs(10);
/// Where the delivery shard stands among the tasks of a node.
const SHARD: usize = 4;

/// Why a node could not start. Its supervisor tries again.
pub(crate) type Failed = Box<dyn std::error::Error>;

/// Joins the nodes of the database, takes over from processes that have ended on the same machine, and reads what is
/// configured.
async fn enter(node: &Arc<Node>, machine: usize) -> Result<(Session, i64), Failed> {
    let lost = |_| Failed::from("the database cannot be reached");
    let session = node.link.connect().await.map_err(lost)?;
    let (me, lease) = (node.id, node.lease);
    let lease = Millis::try_from(lease.as_millis())?;
    let join = node
        .link
        .trip(session, move |base| base.join(session, me, machine, lease));
    join.await.map_err(lost)?;
    let others = node.link.trip(session, move |base| base.others(me));
    let others = others.await.map_err(lost)?;
    let dead = ear::dead(node, &mut Silence::default(), &others, Instant::now());
    ear::take_over(node, session, &dead).await.map_err(lost)?;
    let load = node.link.trip(session, Base::load);
    let (loaded, version) = load.await.map_err(lost)?;
    node.live.reset(loaded);
    node.live.shows(version.cast_unsigned());
    Ok((session, version))
}

/// Looks for due rows of shards that were taken, and from time to time: `app::sweeps`.
async fn look_for_due(node: Arc<Node>, store: Arc<SimStore>) {
    let mut look = tokio::time::interval(LOOK_FOR_DUE);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = node.owned.to_look() => {}
            _ = look.tick() => {}
        }
        if let Ok(due) = store.due_endpoints().await {
            let ours = due.into_iter().filter(|(_, id, _)| node.owned.owns(*id));
            let hints = ours.map(|(workspace, id, at)| Hint::Due(workspace, id, at));
            node.inboxes.hint(hints.collect());
        } else {
            node.owned.look();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Lets the delivery shard forget what is another node's from now on: `app::sweeps`.
async fn forget_queues(node: Arc<Node>) {
    loop {
        node.owned.lost().await;
        node.inboxes.disown();
    }
}

fn parts(ashore: &Ashore, wiring: &Wiring) -> dispatch::Parts {
    let ground = &ashore.ground;
    let signer: Arc<dyn Clock> = match ground.mutant {
        Mutant::StaleSigner => Arc::new(Stale(Arc::clone(&ground.clock))),
        _ => Arc::clone(&wiring.clock),
    };
    let keys = KeyCache::new(Arc::clone(&ashore.sealer));
    let live = &wiring.live;
    dispatch::Parts {
        store: Arc::clone(&wiring.store) as _,
        live: Arc::clone(live),
        owned: Arc::clone(&wiring.owned),
        courier: Arc::new(Courier::new(Arc::clone(live), keys, signer)),
        client: Arc::clone(&wiring.client),
        clock: Arc::clone(&wiring.clock),
        entropy: Arc::clone(&ashore.entropy) as _,
        metrics: Arc::new(Metrics::default()),
        disable_after: 5 * DAY,
    }
}

/// What the server does on its periods: `app::sweeps`, without the disk and the counts.
async fn keep_house(service: Arc<Service>, prober: Arc<dyn Prober>) {
    let mut probes = JoinSet::new();
    for look in 1_u32.. {
        tokio::time::sleep(LOOK).await;
        while probes.try_join_next().is_some() {}
        // Failures are those of the store; the next look does it again.
        let _ = service.prove_rotations(&prober, &mut probes).await;
        let _ = service.keep_findings().await;
        if look % LOOKS_PER_SETTLE == 0 {
            let _ = service.settle().await;
        }
    }
}

/// Stands for what takes no part.
struct Anything;

impl TargetPolicy for Anything {
    fn check(&self, _: &url::Url) -> Result<(), String> {
        Ok(())
    }
}

impl MasterKeys for Anything {
    fn next(&self, _: &[MasterKey]) -> Result<Vec<MasterKey>, String> {
        Err("the master key stays".to_owned())
    }

    fn keep_check(&self, _: Vec<u8>) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// See [`Mutant::StaleSigner`].
struct Stale(Arc<SimClock>);

impl Clock for Stale {
    fn now(&self) -> Timestamp {
        self.0.now().before(STALE)
    }
}

/// Probes run beside the node's own tasks, and stop with them.
struct Behind(Arc<Gate>, Probes);

impl Prober for Behind {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, keys: &'a [ProbeKey]) -> ProbeFuture<'a> {
        Box::pin(self.0.hold(self.1.probe(endpoint, keys)))
    }
}

/// See [`Mutant::BelievesProbes`].
struct Believing(Probes);

impl Prober for Believing {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, keys: &'a [ProbeKey]) -> ProbeFuture<'a> {
        Box::pin(async move {
            let mut probed = self.0.probe(endpoint, keys).await?;
            if keys.iter().all(|key| *key != ProbeKey::Random) {
                probed.status = Some(200);
            }
            Ok(probed)
        })
    }
}
