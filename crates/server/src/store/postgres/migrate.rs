//! The schema of the database: made and brought up to date under a lock, in one transaction.
//!
//! A step only adds (tables, columns, indexes) as long as an older version still works beside it; what that
//! one reads goes in a later step (*expand, then contract*). Each step says which version it still serves
//! ([`Step::serves`]), and a version that meets a newer schema works on it if it is served. So the version
//! before stays in service while, and after, the next one migrates.
//!
//! A step that was released is never changed: its digest is kept in the database and compared.

use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;

use super::connect::{OpenError, SCHEMA, Target};

/// One step of the schema.
struct Step {
    /// What it brings, for people.
    what: &'static str,
    sql: &'static str,
    /// The newest schema that the oldest version knows which works beside this step.
    serves: i32,
}

/// The steps, in order; the database remembers which it has seen.
const STEPS: &[Step] = &[
    Step {
        what: "the tables",
        sql: include_str!("schema/0001.sql"),
        serves: 1,
    },
    Step {
        what: "the figures of the overview",
        sql: include_str!("schema/0002.sql"),
        serves: 1,
    },
    Step {
        what: "who works on the database",
        sql: include_str!("schema/0003.sql"),
        // The first that `serve` offers: without it two processes would not notice each other.
        serves: 3,
    },
    Step {
        what: "several nodes on the database",
        sql: include_str!("schema/0004.sql"),
        // A version before it works on a database alone: it would not see what other nodes change.
        serves: 4,
    },
    Step {
        what: "the outbox of applications",
        sql: include_str!("schema/0005.sql"),
        serves: 4,
    },
    Step {
        what: "which master keys each node has",
        sql: include_str!("schema/0006.sql"),
        serves: 4,
    },
];

/// The step from which on the database keeps what each serves, and its digest.
const KEEPS_DIGESTS: i32 = 3;

/// The newest schema of this version.
pub(super) fn newest() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Locks the schema against others that begin at the same time. "hktn", as in the embedded engine's file.
const LOCK: i64 = 0x686b_746e;

/// What is to be done to a database, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The schema that was found; 0 for none.
    pub found: i32,
    /// The newest schema of this version.
    pub known: i32,
    /// What is missing.
    pub steps: Vec<PlannedStep>,
}

/// A step that a database has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its number.
    pub number: i32,
    /// What it brings.
    pub what: &'static str,
    /// What is run.
    pub sql: &'static str,
}

/// Says what [`apply`] would do, and does nothing.
pub async fn plan(target: &Target) -> Result<Plan, OpenError> {
    let mut session = target.reach().await?;
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    plan_of(&tx).await
}

/// Brings the schema of a database up to date. Servers may work on it meanwhile.
pub async fn apply(target: &Target) -> Result<Plan, OpenError> {
    let mut session = target.reach().await?;
    let tx = session.transaction().await.map_err(OpenError::Migration)?;
    let plan = migrate(&tx).await?;
    tx.commit().await.map_err(OpenError::Migration)?;
    Ok(plan)
}

/// Brings the schema up to date. What is newer than this version, and does not serve it, is refused.
pub(super) async fn migrate(tx: &Transaction<'_>) -> Result<Plan, OpenError> {
    tx.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
        .await
        .map_err(OpenError::Migration)?;
    let plan = plan_of(tx).await?;
    if plan.found == 0 {
        make_list(tx).await.map_err(OpenError::Migration)?;
    }
    for step in &plan.steps {
        let sql = format!(
            "{}; INSERT INTO migration (number) VALUES ({});",
            step.sql, step.number
        );
        tx.batch_execute(&sql)
            .await
            .map_err(|source| OpenError::Step {
                found: plan.found,
                known: plan.known,
                number: step.number,
                what: step.what,
                source,
            })?;
    }
    if !plan.steps.is_empty() && plan.known >= KEEPS_DIGESTS {
        keep_digests(tx).await.map_err(OpenError::Migration)?;
    }
    Ok(plan)
}

/// Refuses a schema that this version must not work on, and changes nothing.
pub(super) async fn check(tx: &Transaction<'_>) -> Result<(), OpenError> {
    plan_of(tx).await.map(drop)
}

pub(super) async fn plan_of(tx: &Transaction<'_>) -> Result<Plan, OpenError> {
    let found = schema(tx).await.map_err(OpenError::Migration)?;
    let known = newest();
    if found > known && serves(tx).await.map_err(OpenError::Migration)? > known {
        return Err(OpenError::Newer { found, known });
    }
    if found >= KEEPS_DIGESTS {
        compare_digests(tx).await?;
    }
    let steps = (1..).zip(STEPS).filter(|(number, _)| *number > found);
    let planned = |(number, step): (i32, &Step)| PlannedStep {
        number,
        what: step.what,
        sql: step.sql,
    };
    Ok(Plan {
        found,
        known,
        steps: steps.map(planned).collect(),
    })
}

/// How many steps the database has seen.
async fn schema(tx: &Transaction<'_>) -> Result<i32, tokio_postgres::Error> {
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let there = tx
        .query_one(there, &[&format!("{SCHEMA}.migration")])
        .await?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    let seen = "SELECT coalesce(max(number), 0) FROM migration";
    tx.query_one(seen, &[]).await.map(|row| row.get(0))
}

/// Makes the schema and the list of its steps. A schema that is there is taken: perhaps this user may not
/// make one.
async fn make_list(tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let there = "SELECT to_regnamespace($1) IS NOT NULL";
    if !tx.query_one(there, &[&SCHEMA]).await?.get::<_, bool>(0) {
        tx.batch_execute(&format!("CREATE SCHEMA {SCHEMA}")).await?;
    }
    let make = "CREATE TABLE IF NOT EXISTS migration
                (number integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())";
    tx.batch_execute(make).await
}

/// The oldest schema that a version may know and still work on this newer one.
async fn serves(tx: &Transaction<'_>) -> Result<i32, tokio_postgres::Error> {
    // One that does not say serves nobody.
    let sql = "SELECT coalesce(max(coalesce(serves, number)), 0) FROM migration";
    tx.query_one(sql, &[]).await.map(|row| row.get(0))
}

fn digest(step: &Step) -> Vec<u8> {
    Sha256::digest(step.sql).to_vec()
}

async fn keep_digests(tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    for (number, step) in (1_i32..).zip(STEPS) {
        let sql =
            "UPDATE migration SET serves = $2, sha256 = $3 WHERE number = $1 AND sha256 IS NULL";
        tx.execute(sql, &[&number, &step.serves, &digest(step)])
            .await?;
    }
    Ok(())
}

/// Refuses a database whose steps were others than ours.
async fn compare_digests(tx: &Transaction<'_>) -> Result<(), OpenError> {
    let sql = "SELECT number, sha256 FROM migration WHERE sha256 IS NOT NULL";
    let rows = tx.query(sql, &[]).await.map_err(OpenError::Migration)?;
    for row in rows {
        let (number, kept): (i32, &[u8]) = (row.get(0), row.get(1));
        let place = usize::try_from(number - 1).ok();
        let ours = place.and_then(|place| STEPS.get(place));
        if ours.is_some_and(|step| digest(step) != kept) {
            return Err(OpenError::OtherSchema { number });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was released. A new step gets a new line; a line that is there never changes.
    const RELEASED: &[(&str, i32)] = &[
        (
            "e0cd83c31ece2dbf74aafe1049fabb1c2f7afd142902114f54970b139c46da42",
            1,
        ),
        (
            "49badef96b6f5bb720c6691412aa43722d468954e0bdde05de888b0add6f6ef7",
            1,
        ),
        (
            "851557ac2364cc5fcd03285d656dfe36d5a99e1f46fb322b935e5e41caf586e0",
            3,
        ),
        (
            "567692c48e71e2e1730f08ce309286e5d606c0d5194627ddbe1423dbdcfba3e9",
            4,
        ),
        (
            "ba9d00a81b7b98409e31d18211c28fbcd773f50cf0c4200c0708ec0699104a06",
            4,
        ),
        (
            "5d17c93128de6e9ee57735844c4ce2e9b28a7d3f5f92dd06c59619979a0d1bfd",
            4,
        ),
    ];

    #[test]
    fn steps_are_only_appended_and_never_changed() {
        let steps: Vec<_> = STEPS
            .iter()
            .map(|step| (hex::encode(digest(step)), step.serves))
            .collect();
        let steps: Vec<_> = steps
            .iter()
            .map(|(sha256, serves)| (&**sha256, *serves))
            .collect();
        assert_eq!(steps, RELEASED);
    }

    #[test]
    fn a_step_serves_itself_or_those_before_it_and_never_less_than_the_step_before() {
        let serves: Vec<_> = STEPS.iter().map(|step| step.serves).collect();
        assert!(serves.is_sorted(), "{serves:?}");
        for (number, serves) in (1..).zip(serves) {
            assert!((1..=number).contains(&serves), "step {number}");
        }
    }
}
