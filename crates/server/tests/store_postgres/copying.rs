//! Copying an embedded store into a database: whatever it holds, wherever the copy is broken off.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hookturn::store::conformance::{
    Engine, bulks, configuration, finishing, ledger, marks, planned, queue, upkeep,
};
use hookturn::store::copying::{self, Copied, CopyError, Doing, Progress};
use hookturn::store::live::Live;
use hookturn::store::postgres::OpenError;
use hookturn_core::audit::{Head, verify_chain};
use hookturn_core::store::{Configuration, HintSink, Store};

use super::engine::{Place, open};
use super::support::cluster::cluster;

#[path = "../store_sqlite/engine.rs"]
mod sqlite;

/// The embedded engine, whose stores outlive the cases that made them.
#[derive(Default)]
struct Kept(Mutex<Vec<Arc<tempfile::TempDir>>>);

impl Kept {
    fn keep(&self, place: tempfile::TempDir) -> Arc<tempfile::TempDir> {
        let place = Arc::new(place);
        self.0.lock().unwrap().push(Arc::clone(&place));
        place
    }
}

impl Engine for Kept {
    type Place = Arc<tempfile::TempDir>;

    async fn fresh(&self) -> Self::Place {
        self.keep(sqlite::Sqlite.fresh().await)
    }

    async fn open(
        &self,
        place: &Self::Place,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> Arc<dyn Store> {
        sqlite::Sqlite.open(place, live, hints).await
    }

    async fn crash(&self, place: &Self::Place) -> Self::Place {
        self.keep(sqlite::Sqlite.crash(place).await)
    }

    fn backup_path(&self, place: &Self::Place) -> PathBuf {
        sqlite::Sqlite.backup_path(place)
    }

    async fn restore(&self, backup: &Path) -> Self::Place {
        self.keep(sqlite::Sqlite.restore(backup).await)
    }

    async fn check(&self, place: &Self::Place) {
        sqlite::Sqlite.check(place).await;
    }

    async fn rewrite_audit(&self, place: &Self::Place) -> bool {
        sqlite::Sqlite.rewrite_audit(place).await
    }
}

/// What cases of the suite leave behind: rows of every table, in every state that they can have.
async fn populated() -> Vec<PathBuf> {
    let engine = Kept::default();
    configuration::everything_configured_survives_a_restart(&engine).await;
    configuration::findings_are_kept_until_their_endpoint_is_forgotten(&engine).await;
    configuration::rotations_are_paged_newest_first(&engine).await;
    marks::the_key_of_the_marks_is_replaced_only_by_who_knows_it(&engine).await;
    bulks::a_bulk_rotation_and_its_items_survive_a_restart(&engine).await;
    ledger::g4_an_erased_secret_takes_the_answers_that_show_it_with_it(&engine).await;
    planned::g1_a_report_is_accepted_with_its_place_or_not_at_all(&engine).await;
    planned::what_an_owner_was_told_survives_a_restart(&engine).await;
    finishing::an_exhausted_row_says_why(&engine).await;
    finishing::g1_a_row_that_was_queued_meanwhile_stays_and_keeps_both_attempts(&engine).await;
    upkeep::g1_pruning_keeps_what_is_pending(&engine).await;
    let places = engine.0.into_inner().unwrap();
    let mut found = Vec::new();
    for place in places {
        // Given to nobody any more: it stays until the process ends, and the temporary directory is cleaned.
        let path = Arc::into_inner(place).unwrap().keep();
        found.push(path.join("hookturn.db"));
    }
    found
}

fn whole(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

async fn copied(from: &Path, to: &Place) -> Copied {
    copying::copy(from, &to.target(), None, whole)
        .await
        .unwrap()
}

fn of(things: &[impl std::fmt::Debug]) -> impl Iterator<Item = String> {
    things.iter().map(|thing| format!("{thing:?}"))
}

/// Everything of a configuration, whatever the order in which an engine reads it.
fn told(loaded: &Configuration) -> Vec<String> {
    let Configuration {
        workspaces,
        api_keys,
        apps,
        endpoints,
        keyrings,
        secrets,
        receivers,
        findings,
        noted,
        reported,
        schedules,
        schedule_notes,
        api_key_uses,
        bulks,
        mark_key,
    } = loaded;
    let mut lines: Vec<String> = of(workspaces)
        .chain(of(api_keys))
        .chain(of(apps))
        .chain(of(endpoints))
        .chain(of(keyrings))
        .chain(of(secrets))
        .chain(of(receivers))
        .chain(of(findings))
        .chain(of(noted))
        .chain(of(reported))
        .chain(of(schedules))
        .chain(of(schedule_notes))
        .chain(of(api_key_uses))
        .chain(of(bulks))
        .chain([format!("{mark_key:?}")])
        .collect();
    lines.sort();
    lines
}

/// The two engines read the same out of a store and its copy.
async fn same(from: &Path, to: &Place) {
    let (here, there) = (
        sqlite::open(from).unwrap(),
        open(&to.target()).await.unwrap(),
    );
    let (loaded, copied) = (here.load().await.unwrap(), there.load().await.unwrap());
    assert_eq!(told(&loaded), told(&copied));
    for workspace in &loaded.workspaces {
        let log = there.audit_log(workspace.id, 0, 1_000).await.unwrap();
        assert_eq!(log, here.audit_log(workspace.id, 0, 1_000).await.unwrap());
        verify_chain(Head::START, &log).unwrap();
        let types = there.event_types(workspace.id).await.unwrap();
        assert_eq!(types, here.event_types(workspace.id).await.unwrap());
    }
    let (here, there) = (
        here.due_endpoints().await.unwrap(),
        there.due_endpoints().await.unwrap(),
    );
    let sorted = |mut rows: Vec<_>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(here), sorted(there));
}

#[tokio::test]
async fn whatever_a_store_holds_is_copied_and_compared() {
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for from in populated().await {
        let to = Place::fresh().await;
        for table in copied(&from, &to).await.tables {
            *rows.entry(table.name).or_default() += table.sum.rows;
        }
        same(&from, &to).await;
    }
    let empty = rows.iter().filter(|(_, rows)| **rows == 0);
    let empty: Vec<_> = empty.map(|(table, _)| *table).collect();
    assert_eq!(empty, REMOVED, "no row of these was tried");
}

/// Tables whose rows the cases above remove at their end.
const REMOVED: [&str; 3] = ["figures", "schedule", "schedule_note"];

#[tokio::test]
async fn rows_that_only_their_server_understands_are_copied_too() {
    let engine = Kept::default();
    ledger::g4_an_erased_secret_takes_the_answers_that_show_it_with_it(&engine).await;
    let place = engine.0.into_inner().unwrap().remove(0);
    let from = place.path().join("hookturn.db");
    let connection = rusqlite::Connection::open(&from).unwrap();
    let rows = "INSERT INTO figures SELECT id, 7, x'00ff' FROM workspace;
        INSERT INTO schedule SELECT number, randomblob(16), 1, '{}' FROM workspace;
        INSERT INTO schedule_note SELECT workspace, id, randomblob(16), '{\"a\":\"ü\"}' FROM schedule";
    connection.execute_batch(rows).unwrap();
    drop(connection);
    let to = Place::fresh().await;
    let tables = copied(&from, &to).await.tables;
    for name in REMOVED {
        let table = tables.iter().find(|table| table.name == name).unwrap();
        assert!(table.sum.rows > 0, "{name}");
    }
}

/// Broken off after any of its pieces, it goes on there, and becomes the same copy.
#[tokio::test]
async fn a_copy_that_is_broken_off_goes_on_where_it_ended() {
    let engine = Kept::default();
    configuration::everything_configured_survives_a_restart(&engine).await;
    queue::a_settled_delivery_can_be_queued_again(&engine).await;
    let places = engine.0.into_inner().unwrap();
    for place in places {
        let from = place.path().join("hookturn.db");
        let at_once = copied(&from, &Place::fresh().await).await;
        let to = Place::fresh().await;
        let target = to.target();
        let mut runs = 0;
        let mut written = BTreeMap::new();
        let done = loop {
            runs += 1;
            let mut pieces = 0;
            // A row is a piece, and each run writes a few: the last commit is the last thing that happens.
            let result = copying::copy(&from, &target, Some(1), |progress| {
                if progress.doing == Doing::Writing {
                    *written.entry(progress.table).or_insert(0) += 1;
                    pieces += 1;
                }
                if pieces == 4 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            match result.await {
                Ok(copied) => break copied,
                Err(CopyError::Stopped) => {}
                Err(error) => panic!("{error}"),
            }
            if runs == 1 {
                // Half of it is no store.
                let refused = open(&target).await.unwrap_err();
                assert!(matches!(refused, OpenError::HalfCopied { .. }), "{refused}");
            }
        };
        assert!(runs > 3, "{runs}");
        assert_eq!(done, at_once);
        // Nothing was written twice.
        for table in &done.tables {
            let rows = written.get(table.name).copied().unwrap_or(0);
            assert_eq!(rows, table.sum.rows, "{}", table.name);
        }
        same(&from, &to).await;
    }
}

#[tokio::test]
async fn a_database_with_anything_else_in_it_is_left_alone() {
    let engine = Kept::default();
    configuration::everything_configured_survives_a_restart(&engine).await;
    ledger::g9_each_workspace_has_a_chain_of_its_own(&engine).await;
    let places = engine.0.into_inner().unwrap();
    let [one, .., other] = &*places else {
        panic!("two cases have two places");
    };
    let of = |place: &tempfile::TempDir| place.path().join("hookturn.db");
    let used = Place::fresh().await;
    copied(&of(one), &used).await;
    for place in [one, other] {
        let again = copying::copy(&of(place), &used.target(), None, whole).await;
        assert!(
            matches!(again, Err(CopyError::NotEmpty { .. })),
            "{again:?}"
        );
    }
    // Half a copy of one store is not gone on with by another.
    let half = Place::fresh().await;
    let stop = |_: Progress| ControlFlow::Break(());
    let stopped = copying::copy(&of(one), &half.target(), Some(1), stop).await;
    assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
    identify(&of(other));
    let crossed = copying::copy(&of(other), &half.target(), None, whole).await;
    assert!(
        matches!(crossed, Err(CopyError::OtherCopy { .. })),
        "{crossed:?}"
    );
    copied(&of(one), &half).await;
}

/// Gives a store what every store has that a server ran on.
fn identify(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = "INSERT INTO meta (key, value) VALUES ('master_key_check', randomblob(64))";
    connection.execute_batch(sql).unwrap();
}

/// A copy is believed when it was read back, not before: one that something went wrong with is no store.
#[tokio::test]
async fn a_copy_that_differs_is_found_and_no_server_starts_on_it() {
    for (damage, table) in [
        ("UPDATE hookturn.app SET version = version + 1", "app"),
        ("DELETE FROM hookturn.app", "app"),
        (
            "INSERT INTO hookturn.event_type VALUES ('00000000-0000-0000-0000-000000000000', 'a')",
            "event_type",
        ),
    ] {
        let engine = Kept::default();
        configuration::everything_configured_survives_a_restart(&engine).await;
        let place = engine.0.into_inner().unwrap().remove(0);
        let from = place.path().join("hookturn.db");
        let to = Place::fresh().await;
        let target = to.target();
        let stop_when_compared = |progress: Progress| {
            if progress.doing == Doing::Comparing {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let stopped = copying::copy(&from, &target, None, stop_when_compared).await;
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        let client = cluster().connect(&to.database).await;
        client.batch_execute(damage).await.unwrap();
        let error = copying::copy(&from, &target, None, whole)
            .await
            .unwrap_err();
        let CopyError::Differs { tables } = &error else {
            panic!("{error}");
        };
        let [found] = tables[..] else {
            panic!("{tables:?}");
        };
        assert_eq!(found.table, table);
        assert_ne!(found.here, found.there);
        let refused = open(&target).await.unwrap_err();
        assert!(matches!(refused, OpenError::HalfCopied { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_plan_counts_and_changes_nothing() {
    let engine = Kept::default();
    queue::a_settled_delivery_can_be_queued_again(&engine).await;
    let place = engine.0.into_inner().unwrap().remove(0);
    let from = place.path().join("hookturn.db");
    let to = Place::fresh().await;
    let planned = copying::plan(&from, &to.target()).await.unwrap();
    let client = cluster().connect(&to.database).await;
    let there = "SELECT to_regnamespace('hookturn') IS NULL";
    let row = client.query_one(there, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "the plan made a schema");
    assert!(!planned.begun);
    let tables = copied(&from, &to).await.tables;
    let counted: Vec<_> = tables
        .iter()
        .map(|table| (table.name, table.sum.rows))
        .collect();
    assert_eq!(planned.tables, counted);
}

/// A table that is added, or a column, is copied or named as one that is not.
#[tokio::test]
async fn every_table_and_column_of_the_database_is_copied() {
    const OF_THE_DATABASE: [&str; 7] = [
        "migration",
        "node",
        "outbox",
        "outbox_refused",
        "shard_owner",
        "view_change",
        "view_head",
    ];
    /// Written by nodes for each other.
    const OF_THE_NODES: (&str, &str) = ("endpoint", "receiver_at");
    let to = Place::fresh().await;
    drop(open(&to.target()).await.unwrap());
    let client = cluster().connect(&to.database).await;
    let sql = "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE c.relnamespace = 'hookturn'::regnamespace AND c.relkind IN ('r', 'p')
                 AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY c.relname, a.attnum";
    let mut there: BTreeMap<String, Vec<(String, String, bool)>> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let table: String = row.get(0);
        let column: (String, String, bool) = (row.get(1), row.get(2), row.get(3));
        let of_the_nodes = (table.as_str(), column.0.as_str()) == OF_THE_NODES;
        if !of_the_nodes && !OF_THE_DATABASE.contains(&&*table) {
            there.entry(table).or_default().push(column);
        }
    }
    let copied: BTreeMap<_, _> = copying::tables_of_the_copy()
        .map(|(table, columns)| {
            let columns = columns.into_iter();
            let columns =
                columns.map(|(name, kind, null)| (name.to_owned(), kind.to_owned(), null));
            (table.to_owned(), columns.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(there, copied);
}
