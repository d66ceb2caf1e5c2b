//! Publishing within an application's own transaction, through to the receiver.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::desk::Desk;
use crate::support::cluster::cluster;
use crate::support::{Api, Receiver, within_deadline};

fn database(desk: &Desk) -> &str {
    desk.url.rsplit('/').next().unwrap()
}

/// The application's own connection.
async fn connect(desk: &Desk) -> tokio_postgres::Client {
    cluster().connect(database(desk)).await
}

/// The ids of the publisher of an app's messages, oldest first.
async fn event_ids(api: &Api, app: &str) -> Vec<String> {
    let path = format!("/v1/apps/{app}/messages?limit=200");
    let mut page = api.get(&path).await;
    let mut ids = Vec::new();
    loop {
        let of_page = page["data"].as_array().unwrap().iter();
        ids.extend(of_page.map(|message| message["eventId"].as_str().unwrap_or("").to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else {
            ids.reverse();
            return ids;
        };
        page = api.get(&format!("{path}&cursor={cursor}")).await;
    }
}

/// Waits until every event left the outbox.
async fn until_empty(client: &tokio_postgres::Client) {
    within_deadline("the outbox is emptied", async {
        let there = "SELECT EXISTS (SELECT FROM hookturn.outbox)";
        while client
            .query_one(there, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
        {}
    })
    .await;
}

#[tokio::test]
async fn an_event_of_a_committed_transaction_is_delivered_and_the_order_is_kept() {
    let desk = Desk::new().await;
    let mut receiver = Receiver::start().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin(), "ordered": true });
    api.create_endpoint(&app, &asked).await;
    let client = connect(&desk).await;
    client
        .batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY)")
        .await
        .unwrap();
    let publish = "SELECT hookturn.publish($1, 'order.paid', $2::text::json, $3)";
    for (number, end) in [(1_i64, "COMMIT"), (2, "ROLLBACK"), (3, "COMMIT")] {
        client.batch_execute("BEGIN").await.unwrap();
        let order = "INSERT INTO orders (id) VALUES ($1)";
        client.execute(order, &[&number]).await.unwrap();
        // The bytes arrive as they were published.
        let payload = format!(r#"{{ "order":  {number}.0, "b": 1, "a": 2 }}"#);
        let event = format!("order-{number}");
        client
            .query_one(publish, &[&app, &payload, &event])
            .await
            .unwrap();
        client.batch_execute(end).await.unwrap();
    }
    for number in [1, 3] {
        let got = receiver.next().await;
        let payload = format!(r#"{{ "order":  {number}.0, "b": 1, "a": 2 }}"#);
        assert_eq!(got.text(), payload);
    }
    until_empty(&client).await;
    assert_eq!(event_ids(&api, &app).await, ["order-1", "order-3"]);
    server.stop().await;
}

/// The same event that is published again is the same message; another one under its id is refused and kept.
#[tokio::test]
async fn what_was_published_is_a_message_once_and_what_cannot_be_one_is_kept_with_the_reason() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let gone = api.create_app("gone").await;
    let client = connect(&desk).await;
    let deep = format!("{}{}", "[".repeat(63), "]".repeat(63));
    let events = [
        (&app, "order.paid", r#"{"n":1}"#, Some("a")),
        (&app, "order.paid", r#"{"n":1}"#, Some("a")),
        (&app, "order.paid", r#"{"n":2}"#, Some("a")),
        (&app, "order.paid", r#"{"n":3}"#, Some("b")),
        (&app, "order.paid", r#"{"n":4}"#, None),
        (&app, "order.paid", r#"{"n":4}"#, None),
        (&app, "order.deep", &*deep, Some("c")),
        (&gone, "order.paid", r#"{"n":5}"#, Some("d")),
    ];
    client.batch_execute("BEGIN").await.unwrap();
    for (app, event_type, payload, event_id) in events {
        let publish = "SELECT hookturn.publish($1, $2, $3::text::json, $4)";
        client
            .query_one(publish, &[app, &event_type, &payload, &event_id])
            .await
            .unwrap();
    }
    let delete = format!("/v1/apps/{gone}");
    let (status, _) = api.send(Method::DELETE, &delete, String::new()).await;
    assert!(status.is_success());
    client.batch_execute("COMMIT").await.unwrap();
    until_empty(&client).await;
    assert_eq!(event_ids(&api, &app).await, ["a", "b", "", ""]);
    let refused = "SELECT reason, coalesce(event_id, '') FROM hookturn.outbox_refused
                   ORDER BY convert_from(payload, 'UTF8') COLLATE \"C\"";
    let refused: Vec<(String, String)> = client
        .query(refused, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let [deep, other, gone] = &*refused else {
        panic!("{refused:?}");
    };
    assert!(deep.0.contains("/payload") && deep.1 == "c", "{deep:?}");
    assert!(
        other.0.contains("another event") && other.1 == "a",
        "{other:?}"
    );
    assert!(
        gone.0.contains("app does not exist") && gone.1 == "d",
        "{gone:?}"
    );
    let (_, metrics) = api.send(Method::GET, "/metrics", String::new()).await;
    let metrics = std::str::from_utf8(&metrics).unwrap();
    for line in [
        "hookturn_outbox_total{outcome=\"accepted\"} 4",
        "hookturn_outbox_total{outcome=\"repeated\"} 1",
        "hookturn_outbox_total{outcome=\"refused\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // After a restart it is still the same event.
    server.stop().await;
    let again = "SELECT hookturn.publish($1, 'order.paid', '{\"n\":1}', 'a')";
    client.query_one(again, &[&app]).await.unwrap();
    let server = desk.serve().await;
    until_empty(&client).await;
    assert_eq!(event_ids(&server.api(), &app).await.len(), 4);
    server.stop().await;
}

/// The server is killed again and again while an application publishes: each event becomes one message.
#[tokio::test]
async fn a_server_that_is_killed_in_between_makes_each_event_one_message() {
    const EVENTS: i64 = 600;
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let app = server.api().create_app("shop").await;
    let publisher = {
        let (client, app) = (connect(&desk).await, app.clone());
        tokio::spawn(async move {
            let publish = "SELECT hookturn.publish($1, 'order.paid', '{}', $2)";
            for number in 0..EVENTS {
                let id = format!("{number:04}");
                client.query_one(publish, &[&app, &id]).await.unwrap();
            }
        })
    };
    let client = connect(&desk).await;
    let mut server = Some(server);
    for part in 1..4 {
        let made = "SELECT count(*) FROM hookturn.message";
        within_deadline("some became messages", async {
            while client.query_one(made, &[]).await.unwrap().get::<_, i64>(0) < part * EVENTS / 5 {}
        })
        .await;
        server.take().unwrap().kill().await;
        server = Some(desk.serve().await);
    }
    within_deadline("all are published", publisher)
        .await
        .unwrap();
    until_empty(&client).await;
    let server = server.unwrap();
    let ids = event_ids(&server.api(), &app).await;
    let wanted: Vec<String> = (0..EVENTS).map(|number| format!("{number:04}")).collect();
    assert_eq!(ids, wanted);
    server.stop().await;
}

/// What a caller does wrong is an error of its own transaction, each with a code of its own.
#[tokio::test]
async fn what_cannot_be_published_is_an_error_where_it_is_published() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let app = server.api().create_app("shop").await;
    let client = connect(&desk).await;
    let publish = "SELECT hookturn.publish($1, $2, $3::text::json, $4)";
    let large = format!("\"{}\"", "a".repeat(262_143));
    let fits = format!("\"{}\"", "a".repeat(262_142));
    let long = "a".repeat(129);
    let wide = "ä".repeat(128);
    let cases: [(&str, &str, &str, Option<&str>, &str); 9] = [
        ("nobodyis", "a", "1", None, "HK001"),
        (&app, "", "1", None, "HK002"),
        (&app, "with space", "1", None, "HK002"),
        (&app, &long, "1", None, "HK002"),
        (&app, "a", &large, None, "HK003"),
        (
            &app,
            "a",
            "{",
            None,
            SqlState::INVALID_TEXT_REPRESENTATION.code(),
        ),
        (&app, "a", "1", Some(""), "HK004"),
        (&app, "a", "1", Some(&long), "HK004"),
        (&app, "a", "1", Some("a\nb"), "HK004"),
    ];
    for (app, event_type, payload, event_id, code) in cases {
        let refused = client
            .query_one(publish, &[&app, &event_type, &payload, &event_id])
            .await
            .unwrap_err();
        assert_eq!(refused.code().unwrap().code(), code, "{refused:?}");
    }
    let nothing = "SELECT hookturn.publish($1, 'a', NULL)";
    let refused = client.query_one(nothing, &[&app]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "HK003");
    for (payload, event_id) in [(&*fits, Some(&*wide)), ("null", None)] {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&app, &"a.B_c-d:1", &payload, &event_id];
        client.query_one(publish, &values).await.unwrap();
    }
    until_empty(&client).await;
    assert_eq!(event_ids(&server.api(), &app).await, [&*wide, ""]);
    server.stop().await;
}

/// The right to call the function is all that an application needs, and it is given to nobody unasked.
#[tokio::test]
async fn an_application_needs_the_right_to_publish_and_no_other() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let client = connect(&desk).await;
    let role = format!("shop_{}", database(&desk));
    client
        .batch_execute(&format!("CREATE ROLE {role}; SET ROLE {role}"))
        .await
        .unwrap();
    let publish = format!("SELECT hookturn.publish('{app}', 'order.paid', '1', 'a')");
    let denied = client.batch_execute(&publish).await.unwrap_err();
    assert_eq!(denied.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let usage = format!("RESET ROLE; GRANT USAGE ON SCHEMA hookturn TO {role}; SET ROLE {role}");
    client.batch_execute(&usage).await.unwrap();
    let denied = client.batch_execute(&publish).await.unwrap_err();
    assert_eq!(denied.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let grant = format!(
        "RESET ROLE; GRANT EXECUTE ON FUNCTION hookturn.publish(text, text, json, text, text) TO {role}; SET ROLE {role}"
    );
    client.batch_execute(&grant).await.unwrap();
    // A table of the same name that it puts first, or an operator, is not what the function uses.
    client
        .batch_execute(
            "CREATE TEMP TABLE app (workspace uuid, id text); CREATE TEMP TABLE outbox (id uuid)",
        )
        .await
        .unwrap();
    client
        .batch_execute("SET search_path = pg_temp, public, hookturn")
        .await
        .unwrap();
    client.batch_execute(&publish).await.unwrap();
    for sql in [
        "SELECT * FROM hookturn.outbox",
        "SELECT * FROM hookturn.secret",
        "SELECT * FROM hookturn.app",
        "DELETE FROM hookturn.outbox",
        "INSERT INTO hookturn.outbox_refused SELECT * FROM hookturn.outbox_refused",
    ] {
        let denied = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(
            denied.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}"
        );
    }
    client.batch_execute("RESET ROLE").await.unwrap();
    until_empty(&client).await;
    assert_eq!(event_ids(&api, &app).await, ["a"]);
    let tidy = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    client.batch_execute(&tidy).await.unwrap();
    server.stop().await;
}

/// Events wait in the database while no server runs, or the server has lost it.
#[tokio::test]
async fn events_wait_for_a_server() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let app = server.api().create_app("shop").await;
    server.stop().await;
    let client = connect(&desk).await;
    let publish = format!("SELECT hookturn.publish('{app}', 'order.paid', '1', 'early')");
    client.batch_execute(&publish).await.unwrap();
    let server = desk.serve().await;
    until_empty(&client).await;
    // Every connection of the server is cut: it comes back, and listens again.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query_one(cut, &[]).await.unwrap();
    let publish = format!("SELECT hookturn.publish('{app}', 'order.paid', '1', 'late')");
    client.batch_execute(&publish).await.unwrap();
    until_empty(&client).await;
    let ids: BTreeSet<_> = event_ids(&server.api(), &app).await.into_iter().collect();
    assert_eq!(ids, BTreeSet::from(["early".to_owned(), "late".to_owned()]));
    let _: Value = server.api().get("/readyz").await;
    server.stop().await;
}
