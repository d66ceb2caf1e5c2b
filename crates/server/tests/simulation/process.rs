//! One process of the server, from its start to its crash: service, dispatch on one shard, courier,
//! probes and the house-keeping, all on the caller's thread.

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
use hookturn::store::seal::{MasterKey, Sealer};
use hookturn::telemetry::metrics::Metrics;
use hookturn_core::delivery::Next;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::ProbeKey;
use hookturn_core::store::{Finish, Store as _, StoreFuture};
use hookturn_core::time::{Clock, DAY, Millis, Timestamp};
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use crate::clock::SimClock;
use crate::engine::{Faults, Ground, SimStore};
use crate::judge::Judge;
use crate::mutant::Mutant;
use crate::network::Net;
use crate::random::{Random, Seeded};

const API_KEY: &str = "sk_operator_0123456789abcdef0123456789abcdef0123456789";
/// How often the house-keeping looks around, and after how many looks it settles keyrings.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS_PER_SETTLE: u32 = 4;
/// How far the signer of [`Mutant::StaleSigner`] is behind.
const STALE: Millis = 20_000;

/// What outlives a process.
pub(crate) struct Ashore {
    pub(crate) disk: Disk,
    pub(crate) ground: Ground,
    entropy: Arc<Seeded>,
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
    tasks: [JoinHandle<()>; 3],
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
        };
        let policy = AddressPolicy {
            allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
            allow_http: true,
        };
        let resolver = Arc::new(SystemResolver::new());
        let mut client = ClientConfig::new(policy, resolver, None).unwrap();
        client.dialer = Some(Arc::new(net));
        Self {
            disk: Disk::default(),
            ground: Ground {
                judge,
                clock,
                faults: Arc::new(Mutex::new(Faults::default())),
                random: Arc::new(Mutex::new(Random::new(seed, "store"))),
                mutant,
            },
            entropy,
            sealer,
            client: Arc::new(client),
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
        let service = Arc::new(Service::new(service::Parts {
            store: Arc::clone(&store) as _,
            live: Arc::clone(&live),
            sealer: Arc::clone(&ashore.sealer),
            clock: Arc::clone(&ashore.ground.clock) as _,
            entropy: Arc::clone(&ashore.entropy) as _,
            targets: Arc::new(Anything),
            master_keys: Arc::new(Anything),
            settings: service::Settings::default(),
        }));
        service.bootstrap(API_KEY.to_owned()).await.unwrap();
        let key = service.authenticate(API_KEY).unwrap();
        let caller = service.caller_for(key, None, "req_sim", None).unwrap();
        let parts = parts(ashore, &live, &store);
        let probes = Probes::new(&parts.courier, &parts);
        let prober: Arc<dyn Prober> = match ashore.ground.mutant {
            Mutant::BelievesProbes => Arc::new(Believing(probes)),
            _ => Arc::new(probes),
        };
        let shard = Dispatch::start_here(parts, inboxes.clone());
        let shard = spawn_local(shard.await.unwrap());
        let house = spawn_local(keep_house(Arc::clone(&service), Arc::clone(&prober)));
        *ashore.ground.faults.lock().unwrap() = faults;
        Self {
            service,
            store,
            live,
            prober,
            caller,
            inboxes,
            tasks: [writer, shard, house],
        }
    }

    /// Whether a part of it ended, which none does unless it panics.
    pub(crate) fn is_damaged(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }
}

fn parts(ashore: &Ashore, live: &Arc<Live>, store: &Arc<SimStore>) -> dispatch::Parts {
    let ground = &ashore.ground;
    let signer: Arc<dyn Clock> = match ground.mutant {
        Mutant::StaleSigner => Arc::new(Stale(Arc::clone(&ground.clock))),
        _ => Arc::clone(&ground.clock) as _,
    };
    let keys = KeyCache::new(Arc::clone(&ashore.sealer));
    dispatch::Parts {
        store: Arc::clone(store) as _,
        live: Arc::clone(live),
        owned: Arc::default(),
        courier: Arc::new(Courier::new(Arc::clone(live), keys, signer)),
        client: Arc::clone(&ashore.client),
        clock: Arc::clone(&ground.clock) as _,
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
