//! The writer's connection: how it comes about, at the start and after it was lost.
//!
//! At the start the process joins the nodes of the database ([`node`](super::node)), brings the schema up to date and
//! reads everything configured. After a loss it ends what may be left of its earlier session, makes sure that
//! nobody took it over meanwhile, and asks for the fate of the transaction that was under way: what was committed
//! happens in memory before anything else is written, so that no signer goes on with a keyring that has moved on
//! (G4).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::{Configuration, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::configuration::meta;
use super::connect::{OpenError, Session, Target};
use super::days::{self, Day};
use super::node::{Hold, Node};
use super::rows::{Outcome, run};
use super::takeover;
use super::{loading, migrate};
use crate::store::live::Live;
use crate::store::seal::CHECK;
use crate::store::sharing::lease::Silence;

/// How long coming back may take, before it is given up and tried anew.
const COMING_BACK: Duration = Duration::from_secs(10);

/// A connection by which a node can write.
pub(super) struct Seat {
    pub(super) session: Session,
    /// Told when the connection ends by itself.
    pub(super) ended: Arc<Notify>,
    pub(super) days: BTreeSet<Day>,
}

/// What a node begins with.
pub(super) struct Loaded {
    pub(super) configuration: Configuration,
    /// The version of the view that it is as of.
    pub(super) version: i64,
    /// The box of the master key that is current. It may be newer than the rest, which is as well.
    pub(super) master_key: Option<Vec<u8>>,
}

/// This process is not one of the nodes of its database any more. It must not write or sign, and ends.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "this node was taken over: {by}; it stopped sending and ends, and what it had not recorded is sent by the others: start it again"
)]
pub struct Gone {
    /// By whom or why, as far as known.
    by: String,
}

impl Gone {
    pub(super) fn to(by: impl Into<String>) -> Self {
        Self { by: by.into() }
    }
}

/// Why there is no connection after a loss.
pub(super) enum Away {
    /// The database cannot be reached yet; it is tried again.
    Unreachable(StoreError),
    /// For good.
    Gone(Gone),
}

impl From<StoreError> for Away {
    fn from(error: StoreError) -> Self {
        Self::Unreachable(error)
    }
}

/// Connects under the node's name. When the connection ends by itself, nothing is signed from that
/// moment on, and whoever waits is told.
async fn connect(
    target: &Target,
    node: &Node,
    live: &Arc<Live>,
) -> Result<(Session, Arc<Notify>), OpenError> {
    let ended = Arc::new(Notify::new());
    let (told, view) = (Arc::clone(&ended), Arc::clone(live));
    let end = move || {
        view.confirm_no_longer();
        told.notify_one();
    };
    let session = target.reach_as(node.name(), end).await?;
    Ok((session, ended))
}

/// Rows that are joined to arrays are few, and the tables may have grown since they were last counted: a plan
/// is made once, and it is the one by the keys. What looks expensive by that is not: it is not compiled either. No other node is
/// waited for without end. An answer means that the log was synced (G1), whatever the
/// database's default is; waiting for replicas is left to it.
async fn settle(session: &Session, node: &Node) -> Outcome<()> {
    let settings = format!(
        "SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
                    SET plan_cache_mode = force_generic_plan;
                    SELECT set_config('synchronous_commit', 'on', false)
                    WHERE current_setting('synchronous_commit') = 'off';
                    SET lock_timeout = {}",
        node.patience().as_millis()
    );
    run(session, "connect to the database", &settings).await
}

/// A round trip. Returns when it began.
pub(super) async fn round_trip(session: &Session) -> Outcome<Instant> {
    let begun = Instant::now();
    run(session, "look at the database", "SELECT 1").await?;
    Ok(begun)
}

/// Joins the nodes of the database and reads everything configured, as of a version of the view.
pub(super) async fn open(
    target: &Target,
    node: &Node,
    live: &Arc<Live>,
) -> Result<(Seat, Loaded), OpenError> {
    let (mut session, ended) = connect(target, node, live).await?;
    // Before anything is changed: a version that knows no nodes may be at work.
    let locked = Node::lock(&session, Hold::Together).await;
    if let Err(holder) = locked.map_err(OpenError::Failed)? {
        return Err(OpenError::InUse {
            database: target.name(),
            holder,
        });
    }
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    migrate::migrate(&tx).await?;
    tx.commit().await.map_err(OpenError::Migration)?;
    settle(&session, node).await.map_err(OpenError::Failed)?;
    node.join(&session).await.map_err(OpenError::Failed)?;
    bury(&session, node).await.map_err(OpenError::Failed)?;
    let (configuration, version) = prepare(&session).await.map_err(OpenError::Contents)?;
    // Asked after it joined: whoever makes another key current sees this node, or this node sees that key.
    let master_key = meta(&session, CHECK).await.map_err(OpenError::Failed)?;
    let days = days::known(&session).await.map_err(OpenError::Failed)?;
    let seat = Seat {
        session,
        ended,
        days,
    };
    let loaded = Loaded {
        configuration,
        version,
        master_key,
    };
    Ok((seat, loaded))
}

/// Takes over from processes that have ended on this machine: nobody else need wait for their leases.
async fn bury(session: &Session, node: &Node) -> Outcome<()> {
    let dead = takeover::dead(session, node, &mut Silence::default(), Instant::now()).await?;
    for other in &dead {
        takeover::take_over(session, node, other).await?;
    }
    Ok(())
}

/// Makes the days ahead and reads everything configured.
async fn prepare(session: &Session) -> Outcome<(Configuration, i64)> {
    const STEP: &str = "prepare the database";
    let today = days::now(session).await?;
    run(session, STEP, "BEGIN").await?;
    days::make(session, Day::ahead(today)).await?;
    run(session, STEP, "COMMIT").await?;
    loading::load_as_of(session).await
}

/// A connection that was lost and is back, and the number of the last transaction that was committed.
pub(super) type Back = (Seat, i64);

/// Comes back after a loss, not before `at`.
pub(super) async fn come_back(
    at: Instant,
    target: Target,
    node: Node,
    live: Arc<Live>,
) -> Result<Back, Away> {
    sleep_until(at).await;
    let back = try_coming_back(&target, &node, &live);
    timeout(COMING_BACK, back).await.unwrap_or_else(|_| {
        Err(Away::Unreachable(StoreError::Unwritable {
            step: "connect to the database",
            source: "it does not answer".into(),
        }))
    })
}

async fn try_coming_back(target: &Target, node: &Node, live: &Arc<Live>) -> Result<Back, Away> {
    let connected = connect(target, node, live).await;
    let (mut session, ended) = connected.map_err(|error| StoreError::Unwritable {
        step: "connect to the database",
        source: Box::new(error),
    })?;
    if let Err(holder) = Node::lock(&session, Hold::Together).await? {
        return Err(Away::Gone(Gone::to(format!(
            "{holder} has the database alone"
        ))));
    }
    served(&mut session).await?;
    settle(&session, node).await?;
    let Some(written) = node.go_on(&session).await? else {
        let why =
            "another hookturn process took its shards while it was away for longer than its lease";
        return Err(Away::Gone(Gone::to(why)));
    };
    let days = days::known(&session).await?;
    let seat = Seat {
        session,
        ended,
        days,
    };
    Ok((seat, written))
}

/// Ends the process's work on a database that was migrated, while it was away, to what does not serve it.
async fn served(session: &mut Session) -> Result<(), Away> {
    let asked = async {
        let tx = session.transaction().await.map_err(OpenError::Migration)?;
        migrate::check(&tx).await
    };
    asked.await.map_err(|error| match error {
        OpenError::Newer { .. } | OpenError::OtherSchema { .. } => {
            Away::Gone(Gone::to(error.to_string()))
        }
        other => Away::Unreachable(StoreError::Unwritable {
            step: "connect to the database",
            source: Box::new(other),
        }),
    })
}
