//! The demo's client: one keep-alive connection, as any program that publishes would use it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

pub(super) struct Api {
    connection: SendRequest<Full<Bytes>>,
    host: String,
    authorization: Zeroizing<String>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The server cannot be reached.
    #[error("the server cannot be reached")]
    Connect(#[from] std::io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[from] hyper::Error),
    /// The request could not be written.
    #[error("the request is not valid")]
    Request(#[from] http::Error),
    /// The server refused.
    #[error("the server answered {status}: {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The problem's detail.
        detail: String,
    },
}

impl Api {
    pub(super) async fn connect(address: SocketAddr, key: &str) -> Result<Self, ApiError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        // The task ends with the connection, which ends with this client.
        tokio::spawn(driver);
        let authorization = Zeroizing::new(format!("Bearer {key}"));
        Ok(Self {
            connection,
            host: address.to_string(),
            authorization,
        })
    }

    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, self.authorization.as_str())
            .body(Full::from(body.to_string()))?;
        self.send(request).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Value, ApiError> {
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, self.authorization.as_str())
            .body(Full::default())?;
        self.send(request).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Value, ApiError> {
        self.connection.ready().await?;
        let answer = self.connection.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(body);
        }
        Err(ApiError::Refused {
            status,
            detail: super::text(&body, "/detail"),
        })
    }
}
