//! The parts of the bench that measure a store on PostgreSQL, on clusters of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::costs::{Apart, Cost, OfDatabase};
use crate::fence::{Fence, fence};
use crate::fixture::{Bench, Fixture};
use crate::number::Epoch;
use crate::place::{Engine, Place};
use crate::report::{self, Report, Row, Starts};
use crate::scenario::{self, Effort, Kind, single};
use crate::stored::{self, Stored};
use crate::wire::Wire;

/// A directory that PostgreSQL's user reaches.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn several_nodes_are_judged_by_ratios_fences_and_memory() {
    let row = |name: &str, rate, peak| Row {
        deliveries_per_second: Some(rate),
        database_seconds_per_10k: Some(0.75),
        peak_memory_mb: Some(peak),
        lost: Some(0),
        duplicates: Some(0),
        ..Row::named(name)
    };
    let answered = |answer_p99_ms| {
        Some(Fence {
            changes: 320,
            told_p99_ms: answer_p99_ms - 1.0,
            answer_p99_ms,
            ..Fence::default()
        })
    };
    let rows = vec![
        Row {
            ceiling_per_second: Some(100_000.0),
            ..row(scenario::SINGLE, 4_999.0, 70.0)
        },
        row(scenario::BATCH, 9_000.0, 120.0),
        row(scenario::ONE_NODE, 5_000.0, 60.0),
        row(scenario::TWO_NODES, 5_000.0, 80.1),
        Row {
            fence: answered(100.0),
            ..row(scenario::FENCE, 500.0, 60.0)
        },
        Row {
            fence: answered(2_500.1),
            ..row(scenario::FENCE_SILENT, 500.0, 60.0)
        },
        row(scenario::EMPTY, 5_000.0, 60.0),
        Row {
            stored: Some(Stored {
                messages: 10_000_000,
                ..Stored::default()
            }),
            ..row(scenario::STORED, 4_500.0, 60.0)
        },
    ];
    let apart = report::Apart {
        starts: Some(Starts {
            idle_memory_mb: Some(30.0),
            ..Starts::default()
        }),
        database: Some("PostgreSQL 15".to_owned()),
        costs: costs(),
        ..report::Apart::default()
    };
    let report = Report::new(crate::a_machine(), apart, rows);
    let passed: Vec<Option<bool>> = report.targets.iter().map(|target| target.passed).collect();
    let expected = [
        false, true, true, true, true, false, true, false, true, true, true,
    ];
    assert_eq!(passed, expected.map(Some));
    insta::assert_snapshot!(report::text(&report));
}

/// What a message takes is 1,000 bytes of the log, and each of its deliveries 500.
fn costs() -> Vec<Cost> {
    let cost = |load: &str, messages: u32, fan_out: u32| Cost {
        load: load.to_owned(),
        seconds: 2.0,
        messages: u64::from(messages),
        fan_out,
        server_micros: f64::from(messages) * 100.0,
        database: Some(OfDatabase {
            micros: f64::from(messages) * f64::from(fan_out) * 50.0,
            wal_bytes: f64::from(messages) * f64::from(1_000 + 500 * fan_out),
            commits: f64::from(messages) / 4.0,
            statements: Some(1.75),
            ..OfDatabase::default()
        }),
        file: None,
    };
    let idle = Cost {
        messages: 0,
        server_micros: 3_000.0,
        ..cost("idle", 4, 1)
    };
    vec![
        idle,
        cost("fan-out 1", 1_000, 1),
        cost("fan-out 10", 100, 10),
    ]
}

#[test]
fn a_message_and_a_delivery_are_told_apart_by_the_fan_out() {
    let wal = |cost: &Cost| {
        let messages = u32::try_from(cost.messages).unwrap();
        Some(cost.database.unwrap().wal_bytes / f64::from(messages))
    };
    let apart = Apart::of(&costs(), wal).unwrap();
    assert!((apart.message - 1_000.0).abs() < 1e-6, "{}", apart.message);
    assert!((apart.delivery - 500.0).abs() < 1e-6, "{}", apart.delivery);
}

#[test]
fn a_fence_is_read_from_its_header() {
    let head = b"HTTP/1.1 201 Created\r\nHookturn-Fence: nodes=3, confirmed=2, millis=2011\r\n\r\n";
    assert_eq!(fence(head), Some([3, 2, 2_011]));
    assert_eq!(fence(b"HTTP/1.1 201 Created\r\n\r\n"), None);
}

#[tokio::test]
async fn a_round_trip_is_counted_once_however_much_it_carries() {
    let directory = directory();
    let cluster = Cluster::start(directory.path(), &[]).unwrap();
    let wire = Wire::start(cluster.socket()).unwrap();
    let url = wire.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let before = wire.turns();
    for _ in 0..3 {
        client.simple_query("SELECT 1").await.unwrap();
    }
    assert_eq!(wire.turns() - before, 3);
    // Sent together, before any answer.
    let two = futures_util::future::join(
        client.simple_query("SELECT 1"),
        client.simple_query("SELECT 2"),
    );
    let (one, other) = two.await;
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(wire.turns() - before, 4);
    assert!(cluster.cpu().unwrap() > Duration::ZERO);
}

/// A database that is filled holds what the server wrote itself, day by day, and the server finds it.
#[tokio::test]
async fn a_filled_database_has_whole_deliveries_in_every_day() {
    let directory = directory();
    let bench = Bench {
        epoch: Epoch::start(),
        dir: directory.path().to_owned(),
        binary: env!("CARGO_BIN_EXE_hookturn").into(),
        engine: Engine::Postgres,
        effort: Effort::new(true, None),
    };
    let place = Place::make(&bench).await.unwrap();
    let load = single("filled", Kind::Stored, 1);
    let mut full = Fixture::start_in(&bench, &load, place).await.unwrap();
    full.part().await.unwrap();
    let stored = stored::fill(&full, 400, 256).await.unwrap();
    // Twenty a day, and one that made each of the older days.
    assert_eq!(stored.messages, 419);
    let (cluster, name) = full.place().cluster().unwrap();
    let client = cluster.connect(name).await.unwrap();
    let whole = "SELECT s.settled_at / 86400000, count(*) FROM hookturn.settled s
                 JOIN hookturn.message m ON m.workspace = s.workspace AND m.app = s.app AND m.id = s.message
                 JOIN hookturn.attempt a ON a.workspace = s.workspace AND a.delivery = s.delivery
                 WHERE m.accepted_at / 86400000 = s.settled_at / 86400000
                 GROUP BY 1 ORDER BY 1";
    let days = client.query(whole, &[]).await.unwrap();
    let counts: Vec<i64> = days.iter().map(|day| day.get(1)).collect();
    assert_eq!(counts, [vec![21; 19], vec![20]].concat());
    full.join().await.unwrap();
    let path = format!("/v1/apps/{}/messages?limit=100", full.app);
    let newest = full.api.call("GET", &path, &Value::Null).await.unwrap();
    assert_eq!(newest["data"].as_array().unwrap().len(), 100);
}
