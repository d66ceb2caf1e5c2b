//! The schema of a PostgreSQL store, brought up to date apart from a start.

use super::engine::target;
use super::process::on_runtime;
use super::{DatabaseError, Failure};
use crate::config::Database;
use crate::store::postgres;

pub use crate::store::postgres::{Plan, PlannedStep};

/// Says what [`migrate`] would do, and does nothing.
pub fn plan(database: &Database) -> Result<Plan, Failure> {
    asked(async { postgres::plan(&target(database)?).await })
}

/// Brings the schema of a database up to date, also while servers of this version or the one before work on
/// it. Returns what was missing.
pub fn migrate(database: &Database) -> Result<Plan, Failure> {
    asked(async { postgres::migrate(&target(database)?).await })
}

fn asked(work: impl Future<Output = Result<Plan, DatabaseError>>) -> Result<Plan, Failure> {
    Ok(on_runtime(work)??)
}
