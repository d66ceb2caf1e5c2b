//! The database's password: SCRAM, over plain connections and bound to the certificate under TLS.

use std::path::Path;

use hookturn::cli::exit::Exit;
use tokio_postgres::NoTls;

use crate::desk::{Desk, KEY, Ran};
use crate::support::Server;
use crate::support::postmaster::{Postmaster, USER};
use crate::tls::made_with_tls;

const PASSWORD: &str = "a planted:pass/word %41";
const WRONG: &str = "another planted one";

/// Starts a server that asks everybody who comes by network for a password, with a user `hookturn` and a database
/// of that user's.
async fn that_asks(mut postgres: Postmaster) -> Postmaster {
    let rules = "local all all trust\nhost all all all scram-sha-256\n";
    let data = postgres.directory().join("data");
    std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    postgres.run().await;
    let socket = postgres.directory().display().to_string();
    let own = format!("host={socket} port={} user={USER}", postgres.port());
    let (client, connection) = tokio_postgres::connect(&own, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let role = format!("CREATE ROLE hookturn LOGIN PASSWORD '{PASSWORD}'");
    client.batch_execute(&role).await.unwrap();
    let database = "CREATE DATABASE hookturn OWNER hookturn";
    client.batch_execute(database).await.unwrap();
    let kept =
        "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'hookturn'";
    let kept: bool = client.query_one(kept, &[]).await.unwrap().get(0);
    assert!(kept, "the server keeps a verifier of SCRAM");
    postgres
}

/// Runs a command with the password in a file.
fn run(desk: &Desk, arguments: &[&str], password: Option<&Path>) -> Ran {
    let key = desk.key_file();
    let password = password.map(|path| path.display().to_string());
    let mut variables = vec![
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY_FILE", &key),
        ("HOOKTURN_LOG", "trace"),
    ];
    if let Some(path) = &password {
        variables.push(("HOOKTURN_STORE_PASSWORD_FILE", path));
    }
    let ran = desk.run(arguments, &variables);
    let told = format!("{}{}", ran.out, ran.err);
    assert!(!told.contains("planted"), "a password is told: {told}");
    ran
}

fn file(desk: &Desk, name: &str, password: &str) -> std::path::PathBuf {
    let path = desk.path(name);
    // As an editor leaves it.
    std::fs::write(&path, format!("{password}\n")).unwrap();
    path
}

#[tokio::test]
async fn g8_a_server_logs_in_by_scram_with_a_password_from_a_file_and_a_wrong_one_is_one_sentence()
{
    let postgres = that_asks(Postmaster::make()).await;
    let url = format!("postgres://hookturn@127.0.0.1:{}/hookturn", postgres.port());
    let desk = Desk::on(&url);
    let (right, wrong) = (
        file(&desk, "password", PASSWORD),
        file(&desk, "wrong", WRONG),
    );
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let refused = [
        (
            Some(wrong.as_path()),
            "hookturn on 127.0.0.1 refuses the password of user hookturn; check the file that HOOKTURN_STORE_PASSWORD_FILE names",
        ),
        (
            None,
            "wants a password of user hookturn, and none is given; put it into a file",
        ),
    ];
    for (password, words) in refused {
        let exit = Exit::DatabaseUnreachable.code();
        run(&desk, &serve, password).refused(exit, &[words]);
        run(&desk, &["migrate"], password).refused(exit, &[words]);
        run(&desk, &["doctor"], password).refused(Exit::Unhealthy.code(), &[words]);
    }
    let (key, right) = (desk.key_file(), right.display().to_string());
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY_FILE", &key),
        ("HOOKTURN_STORE_PASSWORD_FILE", &right),
        ("HOOKTURN_LOG", "trace"),
    ];
    let server = Server::start_with(desk.directory.path(), KEY, &variables).await;
    server.api().create_app("shop").await;
    assert!(!server.log().contains("planted"), "{}", server.log());
    server.stop().await;
}

/// Whoever stands in between shows another certificate than the one that the proof is bound to.
#[tokio::test]
async fn a_proof_is_bound_to_the_servers_certificate_where_there_is_one() {
    let (postgres, root) = made_with_tls();
    let postgres = that_asks(postgres).await;
    let port = postgres.port();
    let on = |host: &str, parameters: &str| {
        Desk::on(&format!(
            "postgres://hookturn@{host}:{port}/hookturn?{parameters}&channel_binding=require"
        ))
    };
    for (host, parameters) in [
        ("127.0.0.1", "sslmode=require".to_owned()),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={root}"),
        ),
    ] {
        let desk = on(host, &parameters);
        let right = file(&desk, "password", PASSWORD);
        run(&desk, &["migrate"], Some(&right)).done();
    }
    let desk = on("127.0.0.1", "sslmode=disable");
    let right = file(&desk, "password", PASSWORD);
    run(&desk, &["migrate"], Some(&right)).refused(
        Exit::DatabaseUnreachable.code(),
        &["server did not use channel binding"],
    );
}
