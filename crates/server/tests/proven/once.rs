//! A probe is a question that is asked once, whatever becomes of connections.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Api, Server};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Reads a request whose body is `{"probe":true}` or `{}`; its bytes, or nothing when the client left.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream
            .read(&mut bytes)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        read.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&read);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && body.ends_with('}')
        {
            return Some(text.into_owned());
        }
    }
}

/// A receiver that answers the first request of each connection, keeps the connection, and closes it over
/// the second one, which it has read: as one does whose time for idle connections is over. Where it is, and
/// what it read.
async fn forgetful() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::unbounded_channel();
    let seen = Arc::new(seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(first) = request(&mut stream).await else {
                    return;
                };
                let _ = seen.send(first);
                stream.write_all(OK).await.unwrap();
                if let Some(second) = request(&mut stream).await {
                    let _ = seen.send(second);
                }
            });
        }
    });
    (origin, requests)
}

async fn probes(api: &Api, endpoint: &str) -> usize {
    let probes = api.get(&format!("/v1/endpoints/{endpoint}/probes")).await;
    let mut all = probes["data"].as_array().unwrap().iter();
    assert!(all.all(|probe| probe["status"] == 200), "{probes}");
    probes["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_probe_is_sent_once_where_a_delivery_would_be_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let api = server.api();
    let (origin, mut requests) = forgetful().await;
    let app = api.create_app("forgetful").await;
    let endpoint = api
        .create_endpoint(&app, &json!({ "url": origin, "preset": "standard" }))
        .await;
    // The second message crosses the end of the connection of the first, and is sent again.
    for _ in 0..2 {
        api.publish(&app, "proven.once", "{}").await;
        let before = format!("/v1/apps/{app}/deliveries?status=pending");
        while !api.get(&before).await["data"]
            .as_array()
            .unwrap()
            .is_empty()
        {}
    }
    let path = format!("/v1/apps/{app}/deliveries?limit=1");
    let newest = api.get(&path).await["data"][0]["id"].clone();
    let delivery = api
        .get(&format!("/v1/deliveries/{}", newest.as_str().unwrap()))
        .await;
    let exchange = &delivery["attempts"][0]["exchanges"][0];
    assert_eq!(exchange["resent"], true, "{delivery}");
    assert_eq!(exchange["response"]["status"], 200, "{delivery}");
    // Two rehearsals: their connections are none that anything was sent over before.
    let path = format!("/v1/endpoints/{}/rehearse", endpoint.id);
    for _ in 0..2 {
        let found = api.post(&path, &json!({})).await;
        assert_eq!(found["class"], "does_not_verify", "{found}");
    }
    let asked = probes(&api, &endpoint.id).await;
    assert_eq!(asked, 8);
    server.stop().await;
    let mut seen = Vec::new();
    while let Ok(request) = requests.try_recv() {
        seen.push(request);
    }
    let deliveries = seen.iter().filter(|text| text.ends_with("\r\n\r\n{}"));
    assert_eq!(deliveries.count(), 3);
    assert_eq!(seen.len(), 3 + asked, "{seen:#?}");
}
