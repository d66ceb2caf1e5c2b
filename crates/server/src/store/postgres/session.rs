//! The writer's connection: how it comes about, at the start and after it was lost.
//!
//! At the start the process takes the database ([`tenure`](super::tenure)), brings the schema up to date and
//! reads everything configured. After a loss it takes the lock again, makes sure that nobody else had the
//! database meanwhile, and asks for the fate of the transaction that was under way: what was committed happens
//! in memory before anything else is written, so that no signer goes on with a keyring that has moved on (G4).

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::{Configuration, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::{OpenError, Session, Target};
use super::days::{self, Day};
use super::rows::{Outcome, run};
use super::tenure::{GRACE, Tenure};
use super::{loading, migrate};
use crate::store::live::Live;

/// How long coming back may take, before it is given up and tried anew.
const COMING_BACK: Duration = Duration::from_secs(10);

/// A connection that has the database.
pub(super) struct Owned {
    pub(super) session: Session,
    /// Told when the connection ends by itself.
    pub(super) ended: Arc<Notify>,
    /// When the round trip began that showed that the lock is held.
    pub(super) confirmed: Instant,
    pub(super) days: BTreeSet<Day>,
}

/// The database belongs to someone else now. This process must not write or sign any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "another hookturn process took the database while this one had lost it ({by}); this one stopped sending and ends: what it had not recorded is due there"
)]
pub struct Gone {
    /// Who has it, as far as known.
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

/// Connects under the process's name. When the connection ends by itself, nothing is signed from that
/// moment on, and whoever waits is told.
async fn connect(
    target: &Target,
    tenure: &Tenure,
    live: &Arc<Live>,
) -> Result<(Session, Arc<Notify>), OpenError> {
    let ended = Arc::new(Notify::new());
    let (told, view) = (Arc::clone(&ended), Arc::clone(live));
    let end = move || {
        view.confirm_no_longer();
        told.notify_one();
    };
    let session = target.reach_as(tenure.name(), end).await?;
    Ok((session, ended))
}

/// Rows that are joined to arrays are few, and the tables may have grown since they were last counted: a plan
/// is made once, and it is the one by the keys. An answer means that the log was synced (G1), whatever the
/// database's default is; waiting for replicas is left to it.
async fn settle(session: &Session) -> Outcome<()> {
    let settings =
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
                    SET plan_cache_mode = force_generic_plan;
                    SELECT set_config('synchronous_commit', 'on', false)
                    WHERE current_setting('synchronous_commit') = 'off'";
    run(session, "connect to the database", settings).await
}

/// A round trip. Returns when it began.
pub(super) async fn round_trip(session: &Session) -> Outcome<Instant> {
    let begun = Instant::now();
    run(session, "confirm the lock", "SELECT 1").await?;
    Ok(begun)
}

/// Takes the database and reads everything configured.
pub(super) async fn open(
    target: &Target,
    tenure: &mut Tenure,
    live: &Arc<Live>,
) -> Result<(Owned, Configuration), OpenError> {
    let (mut session, ended) = connect(target, tenure, live).await?;
    // Before anything is changed: another version may be at work.
    match tenure.lock(&session).await.map_err(OpenError::Failed)? {
        Ok(()) => {}
        Err(holder) => {
            return Err(OpenError::InUse {
                database: target.name(),
                holder,
            });
        }
    }
    let locked = Instant::now();
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    migrate::migrate(&tx).await?;
    tx.commit().await.map_err(OpenError::Migration)?;
    let in_order = tenure.take(&session).await.map_err(OpenError::Failed)?;
    let loaded = prepare(&session).await.map_err(OpenError::Contents)?;
    settle(&session).await.map_err(OpenError::Failed)?;
    if !in_order {
        tracing::info!(
            "the last process on this database did not say that it ended: until {} s have passed, it may still sign",
            GRACE.as_secs()
        );
        sleep_until(locked + GRACE).await;
    }
    let days = days::known(&session).await.map_err(OpenError::Failed)?;
    let confirmed = round_trip(&session).await.map_err(OpenError::Failed)?;
    let owned = Owned {
        session,
        ended,
        confirmed,
        days,
    };
    Ok((owned, loaded))
}

/// Makes the days ahead and reads everything configured.
async fn prepare(session: &Session) -> Outcome<Configuration> {
    const STEP: &str = "prepare the database";
    let today = days::now(session).await?;
    run(session, STEP, "BEGIN").await?;
    days::make(session, Day::ahead(today)).await?;
    run(session, STEP, "COMMIT").await?;
    loading::load(session).await
}

/// A connection that was lost and is back, and the number of the last transaction that was committed.
pub(super) type Back = (Owned, i64);

/// Comes back after a loss, not before `at`.
pub(super) async fn come_back(
    at: Instant,
    target: Target,
    tenure: Tenure,
    live: Arc<Live>,
) -> Result<Back, Away> {
    sleep_until(at).await;
    let back = try_coming_back(&target, &tenure, &live);
    timeout(COMING_BACK, back).await.unwrap_or_else(|_| {
        Err(Away::Unreachable(StoreError::Unwritable {
            step: "connect to the database",
            source: "it does not answer".into(),
        }))
    })
}

async fn try_coming_back(target: &Target, tenure: &Tenure, live: &Arc<Live>) -> Result<Back, Away> {
    let connected = connect(target, tenure, live).await;
    let (mut session, ended) = connected.map_err(|error| StoreError::Unwritable {
        step: "connect to the database",
        source: Box::new(error),
    })?;
    if let Err(holder) = tenure.lock(&session).await? {
        return Err(Away::Gone(Gone::to(holder.to_string())));
    }
    served(&mut session).await?;
    let Some(written) = tenure.goes_on(&session).await? else {
        return Err(Away::Gone(Gone::to("which has ended since")));
    };
    settle(&session).await?;
    let days = days::known(&session).await?;
    let confirmed = round_trip(&session).await?;
    let owned = Owned {
        session,
        ended,
        confirmed,
        days,
    };
    Ok((owned, written))
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

/// Says why the database is away, with what is behind it.
pub(super) fn warn(error: &StoreError) {
    let cause = error.source().map(crate::telemetry::explain);
    tracing::warn!(%error, cause, "the store has no connection to its database; it is tried again");
}
