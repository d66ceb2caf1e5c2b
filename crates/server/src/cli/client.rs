//! A small client of the native API.
//!
//! One request at a time, one connection each, over a current-thread runtime, so that commands read
//! like plain functions. Time and the answer's size are bounded.
//!
//! Every POST carries an `Idempotency-Key`. A GET or POST whose answer got lost (the request was
//! sent, the connection broke) is sent once more, a POST with the same key: the server then answers
//! what it answered before, a new secret's value included. PATCH and DELETE are not repeated.
//!
//! This is no road for deliveries: those go through `outbound`, which owns the address policy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookturn_core::id::{Entropy, draw};
use http::{HeaderValue, Method, Request as HttpRequest, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;
use zeroize::Zeroizing;

use super::exit::{Exit, Failure};

/// Longest time to reach the server.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: a page of 200 items with room.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// How often a repeated request asks again while the first one is still running.
const STILL_RUNNING_TRIES: u32 = 20;
/// Between two of those.
const STILL_RUNNING_WAIT: Duration = Duration::from_millis(250);

/// One request of the API.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    pub(super) if_match: Option<u64>,
    /// Why, for the audit log, where the body has no place for it.
    pub(super) reason: Option<String>,
    /// Whether it changes nothing: then it carries no key, for nothing can be done twice.
    harmless: bool,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            if_match: None,
            reason: None,
            harmless: false,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    pub(super) fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PATCH, path).json(body)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// With a body. Its reason goes into the header too, as far as one can carry it: whoever may not do
    /// this is refused before the body is read, and that is in the audit log with the reason.
    pub(super) fn json(mut self, body: &Value) -> Self {
        let reason = body["reason"].as_str();
        let fits = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let reason = reason.filter(|text| !text.is_empty()).filter(fits);
        if let Some(reason) = reason {
            self.reason = Some(reason.to_owned());
        }
        self.bytes(body.to_string().into_bytes())
    }

    pub(super) fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Some(Zeroizing::new(body));
        self
    }

    /// With a query parameter, if there is a value.
    pub(super) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(super) fn if_match(mut self, version: Option<u64>) -> Self {
        self.if_match = version;
        self
    }

    pub(super) fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }

    /// A POST that only asks, such as a search or a dry run.
    pub(super) fn harmless(mut self) -> Self {
        self.harmless = true;
        self
    }

    fn target(&self, base: &str) -> String {
        let mut target = format!("{}{}", base.trim_end_matches('/'), self.path);
        if !self.query.is_empty() {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&self.query);
            target.push('?');
            target.push_str(&query.finish());
        }
        target
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether the server gave the answer of an earlier request with the same key.
    pub(super) replayed: bool,
    /// What repeats the request, if it was a POST.
    pub(super) idempotency_key: Option<String>,
    /// The version that `If-Match` compares, as the ETag has it: of a rotation that of its keyring.
    pub(super) version: Option<u64>,
    pub(super) body: Bytes,
}

impl Answer {
    /// The document; `Null` for an answer without one.
    pub(super) fn json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|_| foreign())
    }

    /// The document for people: a rotation with the version that `--if-version` compares, which is that of its
    /// keyring, instead of its own, which nothing compares.
    pub(super) fn table(&self) -> Result<Value, Failure> {
        let mut document = self.json()?;
        if let (Some(version), Some(members)) = (self.version, document.as_object_mut())
            && members.contains_key("keyringId")
            && members.contains_key("stage")
        {
            members.remove("version");
            members.insert("keyringVersion".to_owned(), version.into());
        }
        Ok(document)
    }
}

fn foreign() -> Failure {
    Failure::new(Exit::ServerError, "the answer is not one of Hookturn's API")
        .next("check that --server names a hookturn server and not a proxy or another program")
}

/// Where the server is and who asks.
pub(super) struct Client {
    server: Url,
    key: Zeroizing<String>,
    workspace: Option<HeaderValue>,
    timeout: Duration,
    idempotency_key: Option<String>,
    entropy: Arc<dyn Entropy>,
    tls: Option<Arc<ClientConfig>>,
    runtime: tokio::runtime::Runtime,
}

/// How to make a [`Client`].
pub(super) struct Access<'a> {
    pub(super) server: &'a str,
    pub(super) key: Zeroizing<String>,
    pub(super) workspace: Option<&'a str>,
    pub(super) timeout_seconds: u64,
    pub(super) idempotency_key: Option<String>,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) entropy: Arc<dyn Entropy>,
}

/// How an exchange without an answer ended.
enum Lost {
    /// Nothing was sent.
    BeforeSending(String),
    /// The server may have done what was asked.
    AfterSending(String),
}

impl Client {
    pub(super) fn new(access: Access<'_>) -> Result<Self, Failure> {
        let server = parse_server(access.server)?;
        let workspace = access.workspace.map(HeaderValue::from_str).transpose();
        let workspace =
            workspace.map_err(|_| Failure::usage("--workspace takes an id or a name"))?;
        let tls = match server.scheme() {
            "https" => Some(tls(access.ca_file)?),
            _ => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            Failure::new(Exit::LocalFile, format!("cannot start a runtime: {error}"))
        })?;
        Ok(Self {
            server,
            key: access.key,
            workspace,
            timeout: Duration::from_secs(access.timeout_seconds),
            idempotency_key: access.idempotency_key,
            entropy: access.entropy,
            tls,
            runtime,
        })
    }

    /// A sentence when the API key would travel where others can read it.
    pub(super) fn warning(&self) -> Option<String> {
        let host = self.server.host_str().unwrap_or_default();
        let local = match self.server.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        (self.server.scheme() == "http" && !local).then(|| {
            format!(
                "warning: the API key travels unencrypted to {host}; use https outside of tests"
            )
        })
    }

    /// Sends a request and returns the answer, if it is a success.
    pub(super) fn call(&self, request: &Request) -> Result<Answer, Failure> {
        let keyed = request.method == Method::POST && !request.harmless;
        let idempotency_key = keyed.then(|| self.command_key());
        self.runtime
            .block_on(self.exchange(request, idempotency_key.as_deref()))
    }

    /// Sends one of several requests that are one command. `key` is the command's; the request's own is made
    /// from it and from its number, so that the command as a whole can be repeated.
    pub(super) fn call_part(
        &self,
        request: &Request,
        key: &str,
        number: usize,
    ) -> Result<Answer, Failure> {
        self.runtime
            .block_on(self.exchange(request, Some(&format!("{key}.{number}"))))
    }

    /// The key of a command: the one that was given, or a new one.
    pub(super) fn command_key(&self) -> String {
        let drawn = || hex::encode(draw::<16>(self.entropy.as_ref()));
        self.idempotency_key.clone().unwrap_or_else(drawn)
    }

    /// The same for a step before the one that was asked for: a key that was named belongs to that.
    pub(super) fn call_apart(&self, request: &Request) -> Result<Answer, Failure> {
        let key = hex::encode(draw::<16>(self.entropy.as_ref()));
        self.runtime.block_on(self.exchange(request, Some(&key)))
    }

    /// Waits.
    pub(super) fn wait(&self, span: Duration) {
        // Made inside, where there is a clock.
        self.runtime
            .block_on(async { tokio::time::sleep(span).await });
    }

    async fn exchange(&self, request: &Request, key: Option<&str>) -> Result<Answer, Failure> {
        let repeatable = matches!(request.method, Method::GET | Method::POST);
        let mut repeated = false;
        let mut tries = 0;
        loop {
            match self.once(request, key).await {
                Ok((status, mut answer)) => match Exit::of_status(status) {
                    Exit::Done => {
                        answer.idempotency_key = key.map(str::to_owned);
                        return Ok(answer);
                    }
                    exit => {
                        let document = answer.json().unwrap_or(Value::Null);
                        let running = document["code"] == "idempotency_in_progress";
                        if !(repeated && running && tries < STILL_RUNNING_TRIES) {
                            return Err(refusal(exit, status, document));
                        }
                        tries += 1;
                        tokio::time::sleep(STILL_RUNNING_WAIT).await;
                    }
                },
                Err(Lost::AfterSending(_)) if repeatable && !repeated => repeated = true,
                Err(Lost::AfterSending(why)) => return Err(self.unanswered(&why, key)),
                Err(Lost::BeforeSending(why)) if repeated => {
                    return Err(self.unanswered(&why, key));
                }
                Err(Lost::BeforeSending(why)) => return Err(self.unreachable(&why)),
            }
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "no hookturn server answers at {}: {why}; nothing was sent",
                self.server
            ),
        )
        .next("start one with `hookturn serve`, or name another with --server or HOOKTURN_SERVER")
    }

    fn unanswered(&self, why: &str, key: Option<&str>) -> Failure {
        let failure = Failure::new(
            Exit::Unreachable,
            format!(
                "the answer of {} got lost: {why}; the request may have been done",
                self.server
            ),
        );
        match key {
            Some(key) => failure.fact("idempotencyKey", key).next(format!(
                "run the same command again with --idempotency-key {key}: it is done once, and answers as the first time"
            )),
            None => failure.next("look at what it is now, then decide whether to run it again"),
        }
    }

    async fn once(&self, request: &Request, key: Option<&str>) -> Result<(u16, Answer), Lost> {
        let stream = tokio::time::timeout(CONNECT.min(self.timeout), self.connect())
            .await
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
            .map_err(Lost::BeforeSending)?;
        let exchange = self.over(stream, request, key);
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                let seconds = self.timeout.as_secs();
                Err(Lost::AfterSending(format!("no answer within {seconds} s")))
            })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let host = self.server.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.server.port_or_known_default().unwrap_or(80);
        let socket = TcpStream::connect((host, port))
            .await
            .map_err(|error| error.to_string())?;
        let _ = socket.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let secured = TlsConnector::from(Arc::clone(tls))
            .connect(name, socket)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(secured))
    }

    async fn over(
        &self,
        stream: Box<dyn Stream>,
        request: &Request,
        key: Option<&str>,
    ) -> Result<(u16, Answer), Lost> {
        let prepared = self
            .prepare(request, key)
            .map_err(|error| Lost::BeforeSending(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Lost::BeforeSending(error.to_string()))?;
        let connection = tokio::spawn(connection);
        let answered = async {
            let response = sender
                .send_request(prepared)
                .await
                .map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            let replayed = head
                .headers
                .get("idempotency-replayed")
                .is_some_and(|value| value == "true");
            let version = head.headers.get(header::ETAG).and_then(|value| {
                let version = value.to_str().ok()?.trim_matches('"');
                version.parse().ok()
            });
            Ok((
                head.status.as_u16(),
                Answer {
                    replayed,
                    idempotency_key: None,
                    version,
                    body,
                },
            ))
        }
        .await;
        connection.abort();
        answered.map_err(Lost::AfterSending)
    }

    fn prepare(
        &self,
        request: &Request,
        key: Option<&str>,
    ) -> Result<HttpRequest<Full<Bytes>>, http::Error> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.key.as_str()))?;
        bearer.set_sensitive(true);
        let host = &self.server[url::Position::BeforeHost..url::Position::AfterPort];
        let mut builder = HttpRequest::builder()
            .method(request.method.clone())
            .uri(request.target(self.server.path()))
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json, application/problem+json")
            .header(
                header::USER_AGENT,
                concat!("hookturn-cli/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(workspace) = &self.workspace {
            builder = builder.header("hookturn-workspace", workspace);
        }
        if let Some(key) = key {
            builder = builder.header("idempotency-key", key);
        }
        if let Some(version) = request.if_match {
            builder = builder.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if let Some(reason) = &request.reason {
            builder = builder.header("hookturn-reason", reason);
        }
        let body = request
            .body
            .as_ref()
            .map(|body| Bytes::copy_from_slice(body));
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder.body(Full::new(body.unwrap_or_default()))
    }
}

/// A plain or a TLS connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn parse_server(text: &str) -> Result<Url, Failure> {
    let refused = |why: &str| {
        Failure::usage(format!("the server's URL cannot be used: {why}"))
            .next("give one such as http://127.0.0.1:8090 by --server or HOOKTURN_SERVER")
    };
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("it starts with neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it holds a user name or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it holds a query or a fragment"));
    }
    Ok(url)
}

fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_file {
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "{} holds no usable certificate: {error}",
                path.display()
            ))
            .next("give a PEM file with the certificate of your authority")
        };
        let text = std::fs::read(path).map_err(|error| Failure::reading(path, &error))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
            found += 1;
        }
        if found == 0 {
            return Err(unusable(&"it has no CERTIFICATE block"));
        }
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What an error answer means to whoever typed the command.
fn refusal(exit: Exit, status: u16, document: Value) -> Failure {
    let Some(code) = document["code"].as_str().map(str::to_owned) else {
        return Failure::new(
            Exit::of_status(status),
            format!("the answer has status {status} and is not one of Hookturn's API"),
        )
        .next("check that --server names a hookturn server and not a proxy or another program");
    };
    let text = |name: &str| document[name].as_str().map(super::output::printable);
    let what = text("detail").or(text("title"));
    let exit = match &*code {
        "audit_unreadable" => Exit::NotVerified,
        _ => exit,
    };
    let mut failure =
        Failure::new(exit, what.unwrap_or_else(|| format!("status {status}"))).fact("code", &code);
    for error in document["errors"].as_array().into_iter().flatten() {
        let place = error["pointer"].as_str().or(error["parameter"].as_str());
        let detail = error["detail"].as_str().unwrap_or_default();
        let line = format!("{}: {detail}", place.unwrap_or("/"));
        failure = failure.fact("field", super::output::printable(&line));
    }
    if let Some(entry) = document["entry"].as_u64() {
        failure = failure.fact("entry", entry.to_string());
    }
    if let Some(id) = text("requestId") {
        failure = failure.fact("requestId", id);
    }
    match advice(&code, &document) {
        Some(next) => failure.next(next).document(document),
        None => failure.document(document),
    }
}

/// What to do next, where the server's own sentence cannot know that a command was typed.
fn advice(code: &str, document: &Value) -> Option<String> {
    let known = match code {
        "unauthorized" => {
            "give a valid key by HOOKTURN_API_KEY or --api-key-file; the server printed one at its first start"
        }
        "forbidden" => {
            let scope = document["needsScope"].as_str()?;
            return Some(format!(
                "use a key with the scope `{scope}`; make one with `hookturn api-key create --scope {scope}`"
            ));
        }
        "not_found" => {
            "list what there is; an operator key looks into one workspace at a time: choose it with --workspace"
        }
        "precondition_failed" => {
            let version = document["currentVersion"].as_u64()?;
            return Some(format!(
                "look at it again; it has version {version} now, give that by --if-version"
            ));
        }
        "pending_exists" => {
            let rotation = document["openRotationId"].as_str()?;
            return Some(format!(
                "activate that secret, drop it with `hookturn rotation cancel {rotation}`, or give --replace-pending, which destroys it"
            ));
        }
        "idempotency_mismatch" => {
            "that --idempotency-key belongs to another request; leave it out or choose another"
        }
        _ => "",
    };
    if !known.is_empty() {
        return Some(known.to_owned());
    }
    if let Some(id) = document["openRotationId"].as_str() {
        return Some(format!(
            "look at it with `hookturn rotation show {id}`, then finish, undo or cancel it"
        ));
    }
    (document["retryable"] == true).then(|| "run the same command again in a moment".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn servers_are_http_or_https_without_credentials() {
        for good in ["http://127.0.0.1:8090", "https://hooks.example/base/"] {
            parse_server(good).unwrap();
        }
        for bad in [
            "127.0.0.1:8090",
            "ftp://a",
            "http://u:p@a",
            "http://a/?x=1",
            "",
        ] {
            assert_eq!(parse_server(bad).unwrap_err().exit(), Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn a_base_path_and_a_query_end_up_in_the_target() {
        let request = Request::get("/v1/apps")
            .with("limit", Some(5))
            .with("cursor", Some("a b"))
            .with("none", None::<u8>);
        assert_eq!(request.target("/"), "/v1/apps?limit=5&cursor=a+b");
        assert_eq!(request.target("/base/"), "/base/v1/apps?limit=5&cursor=a+b");
    }

    #[test]
    fn a_refusal_keeps_the_servers_sentence_and_adds_what_to_type() {
        let document = json!({"detail": "rotation rot_1 is open", "code": "rotation_open",
            "requestId": "r", "openRotationId": "rot_1",
            "errors": [{"pointer": "/mode", "detail": "no"}]});
        let failure = refusal(Exit::Conflict, 409, document.clone());
        let text = failure.to_string();
        for part in [
            "rotation rot_1 is open",
            "code: rotation_open",
            "requestId: r",
            "/mode: no",
            "hookturn rotation show rot_1",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(failure.to_json(), document);
    }

    #[test]
    fn an_answer_that_is_not_ours_says_so() {
        let failure = refusal(Exit::NotFound, 404, Value::Null);
        assert!(failure.to_string().contains("not one of Hookturn's API"));
    }
}
