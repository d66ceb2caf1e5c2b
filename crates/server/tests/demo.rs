//! The demo is a promise to newcomers: nothing lost, whoever deploys when.

use hookturn::demo::{Options, run};

/// G3, G4, G6: six kinds of receivers, each deploying its new secret at another moment of an overlap.
#[tokio::test(flavor = "multi_thread")]
async fn g6_the_demo_loses_nothing_and_no_retired_key_signs() {
    let demo = run(Options {
        messages: 300,
        per_second: 300,
        progress: false,
    })
    .await
    .unwrap();
    let report = demo.report.clone();
    demo.stop().await;
    assert_eq!(report.rows.len(), 6);
    assert!(report.is_clean(), "{}", report.table());
    for row in &report.rows {
        assert_eq!(row.delivered, report.messages, "{}", report.table());
        assert!(row.deployed_percent.is_some(), "{}", report.table());
        assert_eq!(row.duplicates, 0, "{}", report.table());
    }
    // The window really was one: somebody was refused and then served by the fallback.
    assert!(
        report.rows.iter().any(|row| row.rejected > 0),
        "{}",
        report.table()
    );
    assert!(
        report.rows.iter().any(|row| row.unavailable > 0),
        "{}",
        report.table()
    );
    println!("{}", report.table());
}
