//! The commands beside a server on a database.

use http::Method;
use serde_json::json;

use hookturn::cli::exit::Exit;

use crate::desk::{Desk, KEY};
use crate::support::{Receiver, Server};

#[tokio::test]
async fn a_backup_beside_a_server_is_restored_into_an_empty_database_and_signs_with_the_same_key() {
    let desk = Desk::new().await;
    let mut receiver = Receiver::start().await;
    let server = desk.serve().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    let endpoint = api.create_endpoint(&app, &asked).await;
    let made = desk.run_here(&["backup", "copy"]).done();
    assert!(made.contains("wrote copy"), "{made}");
    desk.run_here(&["backup", "copy"])
        .refused(Exit::LocalFile.code(), &["exists already"]);
    desk.run_here(&["restore", "copy"])
        .refused(Exit::DatabaseInUse.code(), &["in use"]);
    server.stop().await;
    desk.run_here(&["restore", "copy"])
        .refused(Exit::LocalFile.code(), &["not empty"]);

    let other = Desk::new().await;
    std::fs::copy(desk.path("copy"), other.path("copy")).unwrap();
    other.run_here(&["restore", "copy"]).done();
    let server = other.serve().await;
    let api = server.api();
    let path = format!("/v1/keyrings/{}/secrets", endpoint.keyring_id);
    let secrets = api.get(&path).await;
    let secret = secrets["data"][0]["id"].as_str().unwrap();
    let shown = api
        .post(&format!("{path}/{secret}/reveal"), &json!({}))
        .await;
    assert_eq!(shown["value"], endpoint.secret.value.as_str());
    let id = api.publish(&app, "order.paid", "{}").await;
    assert_eq!(receiver.next().await.header("webhook-id"), id);
    server.stop().await;
}

#[tokio::test]
async fn migrate_says_what_it_would_do_does_it_and_has_nothing_left_to_do() {
    let desk = Desk::new().await;
    let planned = desk.run_here(&["migrate", "--dry-run"]).done();
    for words in [
        "would be brought from schema 0",
        "CREATE TABLE message",
        "shard_owner",
    ] {
        assert!(planned.contains(words), "{words}: {planned}");
    }
    let done = desk.run_here(&["migrate"]).done();
    assert!(done.contains("was brought from schema 0"), "{done}");
    let again = desk.run_here(&["migrate", "--dry-run"]).done();
    assert!(again.contains("nothing to do"), "{again}");
    // Beside a server too.
    let server = desk.serve().await;
    assert!(desk.run_here(&["migrate"]).done().contains("nothing to do"));
    server.stop().await;
    desk.run(&["migrate"], &[])
        .refused(Exit::Usage.code(), &["embedded store", "--store"]);
    desk.run(&["restore", "copy"], &[])
        .refused(Exit::Usage.code(), &["embedded store", "--store"]);
}

#[tokio::test]
async fn doctor_tells_of_the_database_and_who_works_on_it_and_asks_for_no_data_directory() {
    let desk = Desk::new().await;
    let empty = desk.run_here(&["doctor"]);
    let told = empty.out.clone();
    empty.done();
    assert!(told.contains("no tables yet"), "{told}");
    assert!(!told.contains("data directory"), "{told}");
    let server = desk.serve().await;
    desk.run_here(&["doctor"]).done_with(&[
        "in use by hookturn on",
        "PostgreSQL 1",
        "fits the database: everything is sealed under it",
    ]);
    server.stop().await;
    let other = "b8".repeat(32);
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY", &other),
    ];
    desk.run(&["doctor"], &variables)
        .refused(Exit::Unhealthy.code(), &["does not fit this database"]);
}

/// The key comes from outside: the server says how, and does it once both keys are given.
#[tokio::test]
async fn a_master_key_is_rotated_when_both_are_given() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    let api = server.api();
    let operator = json!({ "name": "op", "reach": "operator", "scopes": ["manage"] });
    let app = api.create_app("shop").await;
    let endpoint = api
        .create_endpoint(&app, &json!({ "url": "http://127.0.0.1:9/" }))
        .await;
    let (status, _) = api
        .send(Method::POST, "/v1/api-keys", operator.to_string())
        .await;
    assert!(
        status.is_client_error(),
        "a workspace key makes no operator"
    );
    server.stop().await;
    let keys = format!("{},{}", "b8".repeat(32), "a7".repeat(32));
    std::fs::write(desk.path("master.key"), &keys).unwrap();
    let server = desk.serve().await;
    let path = format!("/v1/keyrings/{}/secrets", endpoint.keyring_id);
    let secrets = server.api().get(&path).await;
    let secret = secrets["data"][0]["id"].as_str().unwrap().to_owned();
    let shown = server
        .api()
        .post(&format!("{path}/{secret}/reveal"), &json!({}))
        .await;
    assert_eq!(shown["value"], endpoint.secret.value.as_str());
    server.stop().await;
}

/// The audit log is the same chain wherever it is kept.
#[tokio::test]
async fn g9_the_audit_log_of_a_database_is_verified_by_the_command() {
    let desk = Desk::new().await;
    let server = desk.serve().await;
    server.api().create_app("shop").await;
    let variables = [
        ("HOOKTURN_SERVER", server.origin()),
        ("HOOKTURN_API_KEY", KEY.to_owned()),
    ];
    let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let ran = desk.run(&["audit", "verify"], &variables);
    assert_eq!(ran.code, Some(0), "{} {}", ran.out, ran.err);
    Server::stop(server).await;
}
