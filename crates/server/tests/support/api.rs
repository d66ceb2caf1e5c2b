//! A small client of the native API: one connection a call, and a panic that shows the problem where
//! the answer is not the expected kind.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::within_deadline;

/// A client with an API key.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) key: &'static str,
}

/// The value of a secret, as it is shown once.
#[derive(Clone)]
pub(crate) struct SecretValue {
    pub(crate) value: String,
    /// Of an Ed25519 one.
    pub(crate) public_key: Option<String>,
}

impl SecretValue {
    fn of(view: &Value) -> Self {
        Self {
            value: text(view, "value"),
            public_key: view["publicKey"].as_str().map(str::to_owned),
        }
    }
}

/// An endpoint that was made.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) keyring_id: String,
    pub(crate) secret: SecretValue,
}

/// A rotation that was opened.
pub(crate) struct Rotation {
    pub(crate) id: String,
    pub(crate) secret: SecretValue,
}

impl Api {
    pub(super) fn new(address: SocketAddr, key: &'static str) -> Self {
        Self { address, key }
    }

    /// Sends any request and answers its status and body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> (StatusCode, Bytes) {
        let answer = self.exchange(method, path, &[], body).await;
        (answer.status(), answer.into_body())
    }

    /// Sends any request with more headers and answers all that came back.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Response<Bytes> {
        let answered = self.try_exchange(method, path, headers, body).await;
        answered.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The same with a server that may be gone.
    pub(crate) async fn try_exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json");
        // Instead of what is there.
        for (name, value) in headers {
            let name = name.parse::<HeaderName>().unwrap();
            let headers = request.headers_mut().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        within_deadline(path, async {
            let stream = TcpStream::connect(self.address).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            connection.abort();
            Ok(Response::from_parts(head, body))
        })
        .await
    }

    /// Gets a resource that must be there.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.successful(Method::GET, path, String::new()).await
    }

    /// Posts what must succeed.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.successful(Method::POST, path, body.to_string()).await
    }

    async fn successful(&self, method: Method, path: &str, body: String) -> Value {
        let (status, answer) = self.send(method, path, body).await;
        assert!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        serde_json::from_slice(&answer).unwrap()
    }

    /// Makes an app and answers its `clientId`.
    pub(crate) async fn create_app(&self, name: &str) -> String {
        let made = self.post("/v1/apps", &json!({ "name": name })).await;
        text(&made, "clientId")
    }

    /// Makes an endpoint with a keyring of its own.
    pub(crate) async fn create_endpoint(&self, app: &str, endpoint: &Value) -> Endpoint {
        let made = self
            .post(&format!("/v1/apps/{app}/endpoints"), endpoint)
            .await;
        Endpoint {
            id: text(&made, "id"),
            keyring_id: text(&made, "keyringId"),
            secret: SecretValue::of(&made["secret"]),
        }
    }

    /// Publishes a payload byte by byte as given, and answers the message's id.
    pub(crate) async fn publish(&self, app: &str, event_type: &str, payload: &str) -> String {
        let path = format!("/v1/apps/{app}/messages");
        let body = format!(r#"{{"eventType":"{event_type}","payload":{payload}}}"#);
        text(&self.successful(Method::POST, &path, body).await, "id")
    }

    /// Opens a rotation.
    pub(crate) async fn rotate(&self, keyring_id: &str, rotation: &Value) -> Rotation {
        let path = format!("/v1/keyrings/{keyring_id}/rotations");
        let opened = self.post(&path, rotation).await;
        Rotation {
            id: text(&opened, "id"),
            secret: SecretValue::of(&opened["secret"]),
        }
    }
}

fn text(view: &Value, field: &str) -> String {
    match view[field].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("there is no text `{field}` in {view}"),
    }
}
