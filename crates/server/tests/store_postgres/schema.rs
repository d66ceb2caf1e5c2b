//! What a distributed PostgreSQL (Citus, Yugabyte) would refuse is not in the schema.

use super::support::cluster::cluster;
use hookturn::store::postgres::{self, OpenError};

use super::engine::{Place, open};

/// Tables of what is found, or unique, over all workspaces; each is keyed by that alone.
const GLOBAL: [&str; 10] = [
    "api_key",
    "api_key_hash",
    "idempotency",
    "meta",
    "migration",
    "node",
    "shard_owner",
    "view_change",
    "view_head",
    "workspace_name",
];

/// A database with its schema, and a connection beside the store.
async fn made() -> (Place, tokio_postgres::Client) {
    let place = Place::fresh().await;
    drop(open(&place.target()).await.unwrap());
    let client = cluster().connect(&place.database).await;
    (place, client)
}

async fn names(client: &tokio_postgres::Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_key_begins_with_the_workspace_or_is_the_one_thing_a_table_is_found_by() {
    let (_place, client) = made().await;
    let sql = "SELECT t.relname::text, array_agg(a.attname::text ORDER BY k.place)
               FROM pg_index i
               JOIN pg_class t ON t.oid = i.indrelid AND NOT t.relispartition
               CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attribute, place)
               JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attribute
               WHERE t.relnamespace = 'hookturn'::regnamespace AND i.indisunique
               GROUP BY t.relname, i.indexrelid";
    let rows = client.query(sql, &[]).await.unwrap();
    assert!(rows.len() > 20, "the query finds the keys");
    for row in rows {
        let (table, columns): (String, Vec<String>) = (row.get(0), row.get(1));
        let global = GLOBAL.contains(&table.as_str()) && columns.len() == 1;
        assert!(columns[0] == "workspace" || global, "{table}: {columns:?}");
    }
}

#[tokio::test]
async fn there_is_a_key_for_every_table_and_no_foreign_key_and_no_sequence() {
    let (_place, client) = made().await;
    let without = "SELECT relname::text FROM pg_class t
                   WHERE relnamespace = 'hookturn'::regnamespace AND relkind IN ('r', 'p')
                     AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary)";
    assert_eq!(names(&client, without).await, [""; 0]);
    let foreign = "SELECT conname::text FROM pg_constraint
                   WHERE connamespace = 'hookturn'::regnamespace AND contype = 'f'";
    assert_eq!(names(&client, foreign).await, [""; 0]);
    let sequences = "SELECT relname::text FROM pg_class
                     WHERE relnamespace = 'hookturn'::regnamespace AND relkind = 'S'";
    assert_eq!(names(&client, sequences).await, [""; 0]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (place, client) = made().await;
    let newer = "INSERT INTO hookturn.migration (number) VALUES (1000)";
    client.batch_execute(newer).await.unwrap();
    let error = open(&place.target()).await.unwrap_err();
    assert!(error.to_string().contains("newer"), "{error}");
    let seen = "SELECT max(number)::text FROM hookturn.migration";
    assert_eq!(names(&client, seen).await, ["1000"]);
}

#[tokio::test]
async fn a_newer_schema_that_serves_this_version_is_worked_on() {
    let (place, client) = made().await;
    let known: i32 = client
        .query_one("SELECT max(number) FROM hookturn.migration", &[])
        .await
        .unwrap()
        .get(0);
    let newer = format!("INSERT INTO hookturn.migration (number, serves) VALUES (1000, {known})");
    client.batch_execute(&newer).await.unwrap();
    drop(open(&place.target()).await.unwrap());
    let plan = postgres::plan(&place.target()).await.unwrap();
    assert_eq!((plan.found, plan.steps.len()), (1000, 0));
    let next =
        format!("INSERT INTO hookturn.migration (number, serves) VALUES (1001, {known} + 1)");
    client.batch_execute(&next).await.unwrap();
    let error = open(&place.target()).await.unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 1001, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_step_that_was_changed_after_it_was_run_is_refused() {
    let (place, client) = made().await;
    let other = "UPDATE hookturn.migration SET sha256 = decode('00', 'hex') WHERE number = 1";
    client.batch_execute(other).await.unwrap();
    let error = open(&place.target()).await.unwrap_err();
    assert!(
        matches!(error, OpenError::OtherSchema { number: 1 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_plan_changes_nothing_and_many_who_migrate_at_once_do_it_once() {
    let place = Place::fresh().await;
    let target = place.target();
    let plan = postgres::plan(&target).await.unwrap();
    assert_eq!(plan.found, 0);
    assert_eq!(plan.steps.len(), usize::try_from(plan.known).unwrap());
    let client = cluster().connect(&place.database).await;
    let there = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'hookturn'";
    assert_eq!(names(&client, there).await, [""; 0]);
    let migrations = (0..4).map(|_| postgres::migrate(&target));
    let mut steps = 0;
    for done in futures_util::future::join_all(migrations).await {
        steps += done.unwrap().steps.len();
    }
    assert_eq!(steps, plan.steps.len());
}

/// The first schema was in use before there was a second: its tables are brought along.
#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_to_date_with_what_it_holds() {
    let place = Place::fresh().await;
    let client = cluster().connect(&place.database).await;
    let first = include_str!("../../src/store/postgres/schema/0001.sql");
    let made = format!(
        "CREATE SCHEMA hookturn; SET search_path = hookturn;
         CREATE TABLE migration (number integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
         {first}; INSERT INTO migration (number) VALUES (1);
         INSERT INTO meta (key, value) VALUES ('kept', 'x')"
    );
    client.batch_execute(&made).await.unwrap();
    let store = open(&place.target()).await.unwrap();
    assert_eq!(store.meta("kept").await.unwrap().unwrap(), b"x");
    let unkept =
        "SELECT number::text FROM hookturn.migration WHERE sha256 IS NULL OR serves IS NULL";
    assert_eq!(names(&client, unkept).await, [""; 0]);
}
