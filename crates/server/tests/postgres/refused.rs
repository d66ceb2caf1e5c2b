//! What becomes of events that an application published and that could not be accepted.

use hookturn::cli::exit::Exit;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::desk::{Desk, Ran};
use crate::support::cluster::cluster;
use crate::support::{Api, Server, within_deadline};

const OPERATOR: &str = "sk_operator_of_the_running_server_0000000001";
const LIST: &str = "/v1/outbox/refused";

async fn serve(desk: &Desk) -> Server {
    let key = desk.key_file();
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY_FILE", &key),
    ];
    Server::start_with(desk.directory.path(), OPERATOR, &variables).await
}

async fn connect(desk: &Desk) -> tokio_postgres::Client {
    let database = desk.url.rsplit('/').next().unwrap();
    cluster().connect(database).await
}

/// Publishes an event whose payload only the server finds too deep, and answers its id.
async fn publish_deep(client: &tokio_postgres::Client, app: &str, event: &str) -> String {
    let deep = format!("{}{}", "[".repeat(63), "]".repeat(63));
    let sql = "SELECT hookturn.publish($1, 'order.deep', $2::text::json, $3)::text";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&app, &deep, &event];
    client.query_one(sql, &values).await.unwrap().get(0)
}

/// Waits until so many events are refused. Returns them.
async fn until_refused(api: &Api, count: usize) -> Vec<Value> {
    within_deadline("events are refused", async {
        loop {
            let listed = api.get(LIST).await;
            let data = listed["data"].as_array().unwrap();
            if data.len() == count {
                return data.clone();
            }
        }
    })
    .await
}

fn command(desk: &Desk, server: &Server, arguments: &[&str]) -> Ran {
    let origin = server.origin();
    let variables = [
        ("HOOKTURN_SERVER", &*origin),
        ("HOOKTURN_API_KEY", OPERATOR),
    ];
    desk.run(arguments, &variables)
}

#[tokio::test]
async fn an_operator_sees_refused_events_with_the_reason_page_by_page_and_removes_them() {
    let desk = Desk::new().await;
    let server = serve(&desk).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let client = connect(&desk).await;
    assert_eq!(api.get(LIST).await["data"], json!([]));
    let mut ids = Vec::new();
    for event in ["a", "b", "c"] {
        ids.push(publish_deep(&client, &app, event).await);
    }
    // The last first.
    ids.reverse();
    let listed = until_refused(&api, 3).await;
    let found: Vec<&str> = listed
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(found, ids);
    let first = &listed[0];
    assert_eq!(
        (&first["clientId"], &first["eventId"]),
        (&json!(app), &json!("c"))
    );
    assert_eq!(
        (&first["eventType"], &first["payloadBytes"]),
        (&json!("order.deep"), &json!(126))
    );
    assert!(
        first["reason"].as_str().unwrap().contains("/payload"),
        "{first}"
    );
    assert!(
        first["publishedAt"].as_str() <= first["refusedAt"].as_str(),
        "{first}"
    );
    let mut paged = Vec::new();
    let mut path = format!("{LIST}?limit=1");
    loop {
        let page = api.get(&path).await;
        paged.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("{LIST}?limit=1&cursor={cursor}");
    }
    assert_eq!(paged, listed);

    let told = command(&desk, &server, &["outbox", "refused"]).done();
    assert!(
        told.contains(&ids[0]) && told.contains("order.deep"),
        "{told}"
    );
    command(
        &desk,
        &server,
        &["outbox", "drop", &ids[1], "--reason", "a test order"],
    )
    .done();
    command(&desk, &server, &["outbox", "drop", &ids[1]])
        .refused(Exit::NotFound.code(), &["refused event"]);
    command(&desk, &server, &["outbox", "drop", "nothing"])
        .refused(Exit::NotFound.code(), &["refused event"]);
    assert_eq!(
        until_refused(&api, 2).await,
        [listed[0].clone(), listed[2].clone()]
    );
    let log = api.get("/v1/audit?limit=200").await;
    let entry = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["action"] == "outbox.dropped")
        .unwrap();
    assert_eq!(
        (&entry["detail"]["event"], &entry["reason"]),
        (&json!(ids[1]), &json!("a test order"))
    );
    server.stop().await;
}

#[tokio::test]
async fn an_event_that_is_published_again_is_looked_at_again() {
    let desk = Desk::new().await;
    let server = serve(&desk).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let client = connect(&desk).await;
    let publish = "SELECT hookturn.publish($1, 'order.paid', $2::text::json, 'one')";
    for payload in ["1", "2"] {
        client.query_one(publish, &[&app, &payload]).await.unwrap();
    }
    let refused = until_refused(&api, 1).await;
    let id = refused[0]["id"].as_str().unwrap().to_owned();
    // Nothing was mended: it is refused again, with a later time.
    command(&desk, &server, &["outbox", "retry", &id]).done();
    let again = within_deadline("it is refused again", async {
        loop {
            let found = until_refused(&api, 1).await;
            if found[0]["refusedAt"] != refused[0]["refusedAt"] {
                return found;
            }
        }
    })
    .await;
    assert_eq!(
        (&again[0]["id"], &again[0]["reason"]),
        (&refused[0]["id"], &refused[0]["reason"])
    );
    // As if a day had gone by.
    client
        .batch_execute("DELETE FROM hookturn.idempotency")
        .await
        .unwrap();
    command(&desk, &server, &["outbox", "retry", &id]).done();
    until_refused(&api, 0).await;
    let messages = format!("/v1/apps/{app}/messages");
    within_deadline("it becomes a message", async {
        while api.get(&messages).await["data"].as_array().unwrap().len() < 2 {}
    })
    .await;
    server.stop().await;
}

/// Who publishes is the operator, and so is who is told of it.
#[tokio::test]
async fn nobody_but_operators_sees_refused_events() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let api = server.api();
    let event = format!("{LIST}/00000000-0000-4000-8000-000000000000");
    for (method, path) in [
        (Method::GET, LIST.to_owned()),
        (Method::POST, format!("{event}/retry")),
        (Method::DELETE, event),
    ] {
        let (status, _) = api.send(method, &path, String::new()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    server.stop().await;
}
