//! TLS to the database: who is believed, and what happens without it.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use hookturn::cli::exit::Exit;

use crate::desk::Desk;
use crate::support::postmaster::{Postmaster, USER};

/// A certificate authority of the test's own and what it signed: the text to trust, a certificate, its key.
fn signed_for(name: &str) -> (String, String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (root.pem(), certificate.pem(), key.serialize_pem())
}

/// Gives a file to the server's user: it refuses a key that others can read.
fn place(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let user = users
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{USER}:")))
            .unwrap();
        let mut fields = user.split(':').skip(1).map(|field| field.parse().unwrap());
        let (id, group) = (fields.next().unwrap(), fields.next().unwrap());
        chown(path, Some(id), Some(group)).unwrap();
    }
}

/// A server with a certificate for `localhost`, and the file with the authority that signed it.
async fn with_tls() -> (Postmaster, String) {
    let (mut postgres, root) = made_with_tls();
    postgres.run().await;
    (postgres, root)
}

/// The same, not started yet.
pub(crate) fn made_with_tls() -> (Postmaster, String) {
    let mut postgres = Postmaster::make();
    let (root, certificate, key) = signed_for("localhost");
    let directory = postgres.directory().to_owned();
    let file = |name: &str| directory.join(name).display().to_string();
    place(&directory.join("server.crt"), &certificate);
    place(&directory.join("server.key"), &key);
    std::fs::write(directory.join("root.crt"), root).unwrap();
    postgres.set("ssl=on");
    postgres.set(&format!("ssl_cert_file={}", file("server.crt")));
    postgres.set(&format!("ssl_key_file={}", file("server.key")));
    let root = file("root.crt").replace('/', "%2F");
    (postgres, root)
}

#[tokio::test]
async fn a_database_is_believed_when_its_certificate_names_it_and_leads_to_the_authority() {
    let (postgres, root) = with_tls().await;
    let port = postgres.port();
    let url = |host: &str, parameters: &str| {
        format!("postgres://postgres@{host}:{port}/postgres?{parameters}")
    };
    let verified = format!("sslmode=verify-full&sslrootcert={root}");
    let desk = Desk::on(&url("localhost", &verified));
    let server = desk.serve().await;
    server.api().create_app("shop").await;
    let client = postgres.connect("postgres").await;
    let plain = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                 WHERE a.application_name LIKE 'hookturn%' AND NOT s.ssl";
    let plain: i64 = client.query_one(plain, &[]).await.unwrap().get(0);
    assert_eq!(plain, 0, "a connection is not encrypted");
    server.stop().await;
    // The name is wrong; the authority is another; there is none.
    let (other, _, _) = signed_for("localhost");
    std::fs::write(desk.path("other.crt"), other).unwrap();
    let other = desk.path("other.crt").display().to_string();
    let other = format!(
        "sslmode=verify-full&sslrootcert={}",
        other.replace('/', "%2F")
    );
    for (url, exit) in [
        (url("127.0.0.1", &verified), Exit::DatabaseUnreachable),
        (url("localhost", &other), Exit::DatabaseUnreachable),
        (
            url("localhost", "sslmode=verify-full"),
            Exit::DatabaseUnreachable,
        ),
        (
            url("localhost", "sslmode=verify-full&sslrootcert=nowhere.crt"),
            Exit::Config,
        ),
    ] {
        Desk::on(&url)
            .run_here(&["migrate"])
            .refused(exit.code(), &["certificate"]);
    }
    // Encrypted, whoever it is.
    Desk::on(&url("127.0.0.1", "sslmode=require"))
        .run_here(&["migrate"])
        .done();
}

#[tokio::test]
async fn a_database_without_tls_is_refused_where_it_is_required_and_used_where_it_is_not() {
    let postgres = Postmaster::start().await;
    let plain = postgres.url("postgres");
    for mode in ["require", "verify-full"] {
        Desk::on(&format!("{plain}?sslmode={mode}"))
            .run_here(&["migrate"])
            .refused(Exit::DatabaseUnreachable.code(), &["TLS"]);
    }
    for mode in ["disable", "prefer"] {
        Desk::on(&format!("{plain}?sslmode={mode}"))
            .run_here(&["migrate"])
            .done();
    }
}
