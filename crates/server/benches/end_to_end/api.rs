//! The few calls of the native API that set a scenario up.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::http::Connection;
use crate::number::Error;
use crate::process::api_key;

/// What every message says it is.
const EVENT_TYPE: &str = "order.created";

/// A connection to the server's API.
pub(crate) struct Api {
    addr: SocketAddr,
    connection: Connection,
}

impl Api {
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self, Error> {
        let connection = Connection::open(addr).await?;
        Ok(Self { addr, connection })
    }

    /// Where the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One call; any answer but a 2xx is an error with the server's own words.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let request = request(self.addr, method, path, &body);
        let answer = self.connection.exchange(&request).await?;
        if !(200..300).contains(&answer.status) {
            let words = String::from_utf8_lossy(answer.body);
            return Err(format!("{method} {path} answered {}: {words}", answer.status).into());
        }
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(answer.body)?)
    }

    /// A number that the server's metrics show.
    pub(crate) async fn metric(&mut self, name: &str) -> Result<f64, Error> {
        let request = request(self.addr, "GET", "/metrics", b"");
        let answer = self.connection.exchange(&request).await?;
        let text = String::from_utf8_lossy(answer.body);
        let found = text.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then_some(value)
        });
        Ok(found
            .ok_or_else(|| format!("the server shows no {name}"))?
            .parse()?)
    }

    /// Makes an app and returns its `clientId`.
    pub(crate) async fn create_app(&mut self) -> Result<String, Error> {
        let app = self
            .call("POST", "/v1/apps", &json!({ "name": "bench" }))
            .await?;
        text(&app, "clientId")
    }

    /// Makes an endpoint.
    pub(crate) async fn create_endpoint(
        &mut self,
        app: &str,
        url: &str,
        max_in_flight: u32,
    ) -> Result<Endpoint, Error> {
        let wanted = json!({ "url": url, "preset": "standard", "maxInFlight": max_in_flight });
        let path = format!("/v1/apps/{app}/endpoints");
        let made = self.call("POST", &path, &wanted).await?;
        Ok(Endpoint {
            id: text(&made, "id")?,
            keyring: text(&made, "keyringId")?,
            secret: text(&made["secret"], "value")?,
        })
    }
}

/// Makes `count` things over many connections at once, and returns them in order.
pub(crate) async fn make_many<T>(
    addr: SocketAddr,
    count: u32,
    connections: u32,
    make: impl AsyncFn(&mut Api, u32) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let make = &make;
    let workers = (0..connections).map(|first| async move {
        let mut api = Api::open(addr).await?;
        let mut made = Vec::new();
        for number in (first..count).step_by(connections as usize) {
            made.push((number, make(&mut api, number).await?));
        }
        Ok::<_, Error>(made)
    });
    let mut all: Vec<(u32, T)> = try_join_all(workers).await?.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

/// A made endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) keyring: String,
    /// The text of its first secret. It guards nothing: the store is removed after the run.
    pub(crate) secret: String,
}

/// A field of an answer that must be there.
pub(crate) fn text(answer: &Value, field: &str) -> Result<String, Error> {
    match answer[field].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("an answer of the server has no `{field}`: {answer}").into()),
    }
}

/// The bytes of a request that publishes `messages` messages with payloads of `payload` bytes.
pub(crate) fn publish(addr: SocketAddr, app: &str, messages: u32, payload: usize) -> Arc<[u8]> {
    let message = format!(
        r#"{{"eventType":"{EVENT_TYPE}","payload":{}}}"#,
        self::payload(payload)
    );
    let (path, body) = if messages == 1 {
        (format!("/v1/apps/{app}/messages"), message)
    } else {
        let all = vec![message; messages as usize].join(",");
        let body = format!(r#"{{"messages":[{all}]}}"#);
        (format!("/v1/apps/{app}/messages/batch"), body)
    };
    request(addr, "POST", &path, body.as_bytes()).into()
}

/// A JSON object of exactly this many bytes (at least 40).
pub(crate) fn payload(bytes: usize) -> String {
    let start = r#"{"orderId":"ord_20417","note":""#;
    let end = r#""}"#;
    let note = "x".repeat(bytes.saturating_sub(start.len() + end.len()));
    format!("{start}{note}{end}")
}

/// The bytes of a request with the bench's key.
pub(crate) fn request(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {}\r\n",
        api_key()
    );
    if !body.is_empty() || method != "GET" {
        // Writing to a string cannot fail.
        let _written = write!(
            head,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
