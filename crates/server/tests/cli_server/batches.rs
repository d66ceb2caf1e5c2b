//! `hookturn message send-batch` with more lines than one request takes.

use super::Ready;

/// Messages of one request.
const MOST: usize = 1_000;

#[test]
fn a_batch_of_several_requests_goes_on_where_it_was_refused() {
    let Ready { server, app, .. } = Ready::new();
    let line = "{\"eventType\":\"order.sent\",\"payload\":{}}\n";
    // An empty line counts for its number, and makes no message.
    let good = format!("\n{}", line.repeat(MOST));
    let wrong = "{\"eventType\":\"not a type\",\"payload\":{}}\n";
    let batch = [
        "message",
        "send-batch",
        &app,
        "--file",
        "lines",
        "--idempotency-key",
        "nightly-7",
    ];
    server.place.file("lines", format!("{good}{line}{wrong}"));
    let refused = server.run(&batch).refused(1);
    let bad = MOST + 3;
    assert!(
        refused.contains(&format!("field: line {bad} of the input: /eventType")),
        "{refused}"
    );
    assert!(
        refused.contains("accepted: 1000 messages before"),
        "{refused}"
    );
    assert!(
        refused.contains("--idempotency-key nightly-7:"),
        "{refused}"
    );
    let json = server
        .run(&[&batch[..], &["-o", "json"]].concat())
        .refused(1);
    assert!(json.contains(&format!("\"line\":{bad}")), "{json}");

    server.place.file("lines", format!("{good}{line}{line}"));
    for _ in 0..2 {
        let ids = server.run(&batch).done();
        assert_eq!(ids.lines().count(), MOST + 2);
    }
    let list = [
        "message", "list", &app, "--limit", "200", "--all", "-o", "json",
    ];
    let listed = server.run(&list).done();
    let pages = listed.lines().map(|page| {
        let page: serde_json::Value = serde_json::from_str(page).unwrap();
        page["data"].as_array().unwrap().len()
    });
    assert_eq!(pages.sum::<usize>(), MOST + 2, "some are there twice");
}
