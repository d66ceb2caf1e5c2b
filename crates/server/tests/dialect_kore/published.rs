//! KORE's published vectors, URL included, come out of the running program.
//!
//! Their URL is `https://testendpoint.com`. The server is told where that name leads
//! (`HOOKTURN_HOSTS`) and whom to trust for it (`HOOKTURN_EXTRA_ROOTS_FILE`), as an operator would for
//! a receiver of a private network; what is signed and sent is what it would be for the real host.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Captured, Receiver, Server};

const VECTORS: &str = include_str!("../../../verify/tests/vectors/kore.json");
const KEY: &str = "sk_workspace_test_of_the_published_vectors_01";
const NAME: &str = "testendpoint.com";

/// A receiver behind TLS, for one name.
struct Gateway {
    receiver: Receiver,
    /// The certificate to trust, as PEM.
    root: String,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Gateway {
    async fn start(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let receiver = Receiver::start().await;
        let behind = receiver.origin().replace("http://", "");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A handshake or a connection that breaks is the sender's to notice.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self {
            receiver,
            root: made.cert.pem(),
            port,
            task,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn text<'a>(view: &'a Value, name: &str) -> &'a str {
    view[name].as_str().unwrap()
}

/// How a body is published so that it is sent as it stands: JSON as it is, a form as the object of its
/// fields.
fn published(body: &str) -> (&'static str, String) {
    if serde_json::from_str::<Value>(body).is_ok() {
        return ("json", body.to_owned());
    }
    let fields: Vec<_> = body
        .split('&')
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap();
            format!("{}:{}", json!(name), json!(value))
        })
        .collect();
    ("form", format!("{{{}}}", fields.join(",")))
}

#[tokio::test]
async fn every_published_vector_comes_out_of_the_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(NAME).await;
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, &gateway.root).unwrap();
    let hosts = format!("{NAME}=127.0.0.1:{}", gateway.port);
    let variables = [
        ("HOOKTURN_EXTRA_ROOTS_FILE", roots.to_str().unwrap()),
        ("HOOKTURN_HOSTS", &hosts),
    ];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    let api = server.api();
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let url = text(&vectors, "url");
    assert_eq!(url, format!("https://{NAME}"));
    let mut cases: Vec<(&str, &Value)> = Vec::new();
    for vector in vectors["vectors"].as_array().unwrap() {
        cases.push((url, vector));
        if vector["name"] == "3" {
            let same = vectors["same_signature_as_3_for_urls"].as_array().unwrap();
            cases.extend(same.iter().map(|url| (url.as_str().unwrap(), vector)));
        }
    }
    assert_eq!(cases.len(), 6);
    for (url, vector) in cases {
        let (form, payload) = published(text(vector, "body"));
        // An app of its own for each: its event has one receiver.
        let app = api.create_app(url).await;
        let endpoint = json!({
            "url": url, "preset": "kore", "bodyForm": form, "secret": vector["secret"],
        });
        api.create_endpoint(&app, &endpoint).await;
        api.publish(&app, "order.paid", &payload).await;
        let seen: Captured = gateway.receiver.next().await;
        assert_eq!(seen.method, text(&vectors, "method"));
        assert_eq!(seen.header("host"), NAME, "the URL's host and port");
        assert_eq!(seen.text(), text(vector, "body"), "{url}");
        assert_eq!(
            seen.header("kore-signature"),
            text(vector, "signature"),
            "{url}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_configured_address_obeys_the_address_policy() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("HOOKTURN_HOSTS", "receiver.example=10.1.2.3:8443")];
    let server = Server::start_with(directory.path(), KEY, &variables).await;
    let api = server.api();
    let app = api.create_app("shop").await;
    let endpoint = json!({ "url": "https://receiver.example/hooks" });
    let endpoint = api.create_endpoint(&app, &endpoint).await;
    let path = format!("/v1/apps/{app}/endpoints/{}/test", endpoint.id);
    let report = api.post(&path, &json!({})).await;
    assert_eq!(report["connected"], false, "{report}");
    let said = report.to_string();
    assert!(
        said.contains("10.1.2.3") && said.contains("HOOKTURN_ALLOW_NETS"),
        "{said}"
    );
    server.stop().await;
}
