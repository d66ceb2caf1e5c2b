//! How a server starts on a database, and why it does not.

use serde_json::json;

use hookturn::cli::exit::Exit;

use crate::desk::{Desk, files};
use crate::support::cluster::cluster;
use crate::support::{Api, Receiver};

/// An endpoint, its app and the value of its first secret.
async fn endpoint(api: &Api, receiver: &Receiver) -> (String, crate::support::Endpoint) {
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    let endpoint = api.create_endpoint(&app, &asked).await;
    (app, endpoint)
}

#[tokio::test]
async fn a_server_on_a_database_delivers_rotates_and_goes_on_after_a_restart_and_a_crash() {
    let desk = Desk::new().await;
    let mut receiver = Receiver::start().await;
    let server = desk.serve().await;
    let api = server.api();
    let (app, endpoint) = endpoint(&api, &receiver).await;
    let first = api.publish(&app, "order.paid", r#"{"n":1}"#).await;
    assert_eq!(receiver.next().await.header("webhook-id"), first);
    let immediate = json!({ "mode": "immediate" });
    api.rotate(&endpoint.keyring_id, &immediate).await;
    server.stop().await;
    // Nothing of the store is in a directory of this machine.
    assert_eq!(files(desk.directory.path()), ["master.key"]);

    let server = desk.serve().await;
    let api = server.api();
    let second = api.publish(&app, "order.paid", r#"{"n":2}"#).await;
    assert_eq!(receiver.next().await.header("webhook-id"), second);
    server.kill().await;

    let server = desk.serve().await;
    let third = server.api().publish(&app, "order.paid", r#"{"n":3}"#).await;
    // The record of the second may have been lost with the process: then it comes once more.
    loop {
        let id = receiver.next().await.header("webhook-id").to_owned();
        if id == third {
            break;
        }
        assert_eq!(id, second);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_second_server_joins_and_each_knows_what_the_other_made() {
    let desk = Desk::new().await;
    let (one, other) = (desk.serve().await, desk.serve().await);
    let app = other.api().create_app("shop").await;
    let found = one.api().get(&format!("/v1/apps/{app}")).await;
    assert_eq!(found["name"], "shop");
    let told = desk.run_here(&["doctor"]).done();
    assert_eq!(told.matches("hookturn on").count(), 2, "{told}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_step_of_the_schema_that_fails_is_named_and_changes_nothing() {
    let desk = Desk::new().await;
    let client = cluster()
        .connect(desk.url.rsplit('/').next().unwrap())
        .await;
    let in_the_way =
        "CREATE SCHEMA hookturn; CREATE TABLE hookturn.message (of_somebody_else text)";
    client.batch_execute(in_the_way).await.unwrap();
    for command in [&["migrate"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let ran = desk.run_here(command);
        assert!(!ran.err.contains("CREATE"), "{ran:?}");
        ran.refused(
            Exit::ServeFailed.code(),
            &[
                "from schema 0 to",
                "step 1 (the tables) failed; nothing was changed",
                "`hookturn migrate`",
                "already exists",
            ],
        );
    }
    let there = "SELECT count(*) FROM pg_tables WHERE schemaname = 'hookturn'";
    let there: i64 = client.query_one(there, &[]).await.unwrap().get(0);
    assert_eq!(there, 1);
}

/// Several machines may share a database: a key that one of them made for itself would be no use to the others.
#[tokio::test]
async fn a_master_key_is_never_made_for_a_database_and_must_fit_it() {
    let desk = Desk::new().await;
    let store = ("HOOKTURN_STORE", desk.url.as_str());
    let missing = desk.run(&["serve", "--listen", "127.0.0.1:0"], &[store]);
    let words = ["master key is missing", "master-key generate"];
    missing.refused(Exit::MasterKey.code(), &words);
    assert_eq!(files(desk.directory.path()), ["master.key"]);
    desk.serve().await.stop().await;
    let other = "b8".repeat(32);
    let wrong = desk.run(
        &["serve", "--listen", "127.0.0.1:0"],
        &[store, ("HOOKTURN_MASTER_KEY", &other)],
    );
    wrong.refused(Exit::MasterKey.code(), &["does not fit this database"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_as_a_newer_file_is() {
    let desk = Desk::new().await;
    desk.serve().await.stop().await;
    let database = desk.url.rsplit('/').next().unwrap();
    let client = cluster().connect(database).await;
    let newer = "INSERT INTO hookturn.migration (number) VALUES (1000)";
    client.batch_execute(newer).await.unwrap();
    let refused = desk.run_here(&["serve", "--listen", "127.0.0.1:0"]);
    let words = [
        "has schema 1000, newer than the",
        "start the newer hookturn",
    ];
    refused.refused(Exit::DatabaseNewer.code(), &words);
}

/// Whatever goes wrong, the password is not told, not even where the URL is.
#[tokio::test]
async fn g8_a_password_is_shown_nowhere() {
    const PASSWORD: &str = "planted-secret";
    let desk = Desk::new().await;
    let key = desk.key_file();
    let nobody = format!("postgres://hookturn:{PASSWORD}@127.0.0.1:1/hookturn");
    let odd = format!("postgres://hookturn:{PASSWORD}@127.0.0.1:port/hookturn");
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    for (url, exit) in [(nobody, Exit::DatabaseUnreachable), (odd, Exit::Config)] {
        let variables = [
            ("HOOKTURN_STORE", url.as_str()),
            ("HOOKTURN_MASTER_KEY_FILE", &key),
            ("HOOKTURN_LOG", "trace"),
        ];
        for command in [&serve[..], &["doctor"], &["migrate"], &["backup", "x"]] {
            let ran = desk.run(command, &variables);
            let told = format!("{}{}", ran.out, ran.err);
            assert!(!told.contains(PASSWORD), "{told}");
            let code = if command == ["doctor"] {
                Exit::Unhealthy
            } else {
                exit
            };
            ran.refused(code.code(), &["database"; 0]);
        }
        let as_argument = desk.run(
            &["serve", "--store", &url],
            &[("HOOKTURN_MASTER_KEY_FILE", &key)],
        );
        assert!(!as_argument.err.contains(PASSWORD), "{}", as_argument.err);
        as_argument.refused(Exit::Config.code(), &["HOOKTURN_STORE_PASSWORD_FILE"]);
    }
    // One that works is not in the log either.
    std::fs::write(desk.path("password"), PASSWORD).unwrap();
    let password = desk.path("password").display().to_string();
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_STORE_PASSWORD_FILE", &password),
        ("HOOKTURN_MASTER_KEY_FILE", &key),
        ("HOOKTURN_LOG", "trace"),
    ];
    let directory = desk.directory.path();
    let server = crate::support::Server::start_with(directory, crate::desk::KEY, &variables).await;
    server.api().create_app("shop").await;
    assert!(!server.log().contains(PASSWORD));
    server.stop().await;
}
