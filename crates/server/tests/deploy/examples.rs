//! The examples of docs/outbox.md, run as they are written, each by its language's own client of PostgreSQL.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::files::{installed, made};
use crate::support::cluster::cluster;
use crate::support::{Receiver, Server};

const KEY: &str = "sk_workspace_test_of_the_running_server_0001";
const PAGE: &str = include_str!("../../../../docs/outbox.md");

/// The first block of the page in a language.
fn block(language: &str) -> String {
    let fence = format!("```{language}\n");
    let (_, rest) = PAGE.split_once(&fence).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_examples_publish_what_they_store() {
    let directory = tempfile::tempdir().unwrap();
    let database = cluster().create_database().await;
    let url = cluster().url(&database);
    fs::write(directory.path().join("master.key"), "a7".repeat(32)).unwrap();
    let key = directory.path().join("master.key").display().to_string();
    let variables = [
        ("HOOKTURN_STORE", &*url),
        ("HOOKTURN_MASTER_KEY_FILE", &*key),
    ];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    let mut receiver = Receiver::start().await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let asked = json!({ "url": receiver.origin() });
    api.create_endpoint(&app, &asked).await;
    let client = cluster().connect(&database).await;
    let table = "CREATE TABLE orders (id bigint PRIMARY KEY, total bigint NOT NULL)";
    client.batch_execute(table).await.unwrap();
    let place = tempfile::tempdir().unwrap();

    let python = place.path().join("publish.py");
    let names = "import os\nDATABASE_URL, APP = os.environ['DATABASE_URL'], os.environ['APP']\n";
    fs::write(&python, format!("{names}{}", block("python"))).unwrap();
    run(installed("HOOKTURN_JUDGE_PYTHON"), &python, &url, &app);
    let body: serde_json::Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(body, json!({ "order": 42, "total": 1999 }));

    // Node finds a package beside the script or above it.
    let modules = installed("HOOKTURN_JUDGE_NODE").join("node_modules");
    std::os::unix::fs::symlink(modules, place.path().join("node_modules")).unwrap();
    let node = place.path().join("publish.mjs");
    let names = "const { DATABASE_URL, APP } = process.env;\n";
    fs::write(&node, format!("{names}{}", block("js"))).unwrap();
    run("node", &node, &url, &app);
    let got = receiver.next().await;
    assert_eq!(got.text(), r#"{"order":43,"total":2999}"#);

    // The first block is run as well, with this app in the place of the one it names.
    let sql = block("sql").replace("a1B2c3D4", &app).replace("42", "44");
    client.batch_execute(&sql).await.unwrap();
    let got = receiver.next().await;
    assert_eq!(got.text(), r#"{"order": 44, "total": 1999}"#);
    let orders = "SELECT count(*) FROM orders";
    let orders = client.query_one(orders, &[]).await.unwrap();
    assert_eq!(orders.get::<_, i64>(0), 3);
    server.stop().await;
}

fn run(program: impl AsRef<std::ffi::OsStr>, script: &Path, url: &str, app: &str) {
    let mut command = Command::new(program);
    command.arg(script).env("DATABASE_URL", url).env("APP", app);
    made(&mut command);
}
