//! The demo is a promise to newcomers: nothing lost, whoever deploys when, and nothing called proved
//! that is not.

use std::time::Duration;

use hookturn::demo::{Options, Telling, run};

/// G3, G4, G6, G7: receivers of every class, each deploying its new secret at another moment.
#[tokio::test(flavor = "multi_thread")]
async fn g6_g7_the_demo_loses_nothing_and_proves_what_verifies() {
    let demo = run(Options {
        per_second: 100,
        step: Duration::from_millis(300),
        progress: Telling::Not,
    })
    .await
    .unwrap();
    let report = demo.report.clone();
    demo.stop().await;
    let table = report.table();
    println!("{table}");
    assert!(report.is_clean(), "{table}");
    let classes: Vec<_> = report.rows.iter().map(|row| row.class.as_str()).collect();
    let expected = [
        "list_aware",
        "first_only",
        "last_only",
        "single",
        "single",
        "single",
        "list_aware",
        "does_not_verify",
    ];
    assert_eq!(classes, expected, "{table}");
    for row in &report.rows {
        assert_eq!(row.delivered, report.messages, "{table}");
        assert_eq!(row.duplicates, 0, "{table}");
        assert!(row.probes > 0, "{table}");
        if let Some(proved) = row.proved {
            assert!(proved.passes >= 59, "{table}");
            assert!(
                Some(proved.promoted_seconds) > row.deployed_seconds,
                "promoted before it had deployed: {table}"
            );
        } else {
            assert!(row.words.contains("verifies nothing"), "{}", row.words);
        }
    }
    // The window really was one: somebody was refused and then served with the other secret.
    assert!(report.rows.iter().any(|row| row.refused > 0), "{table}");
}
