//! What a distributed PostgreSQL (Citus, Yugabyte) would refuse is not in the schema.

use super::cluster::cluster;
use super::engine::{Place, open};

/// Tables of what is found, or unique, over all workspaces; each is keyed by that alone.
const GLOBAL: [&str; 6] = [
    "api_key",
    "api_key_hash",
    "idempotency",
    "meta",
    "migration",
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
