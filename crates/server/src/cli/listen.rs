//! `hookturn listen`: a receiver on this machine that verifies and prints what it is sent.
//!
//! It binds the loopback interface only. Every request has bounds: headers, body, time, and how many
//! are open at once. Connections answer by themselves; one loop prints, in the order of arrival, so
//! that lines never mix.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hookturn_core::time::{Clock, Timestamp};
use hookturn_verify::{Scheme, Verifier};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::input::{self, BODY_BYTES};
use super::output::{Format, Output, printable};
use super::request::Captured;
use super::sign::scheme;
use super::verify::{self, Options};

/// Connections that may be open at once.
const CONNECTIONS: usize = 64;
/// Headers of one request.
const HEADERS: usize = 100;
/// All headers of one request together, in bytes.
const HEADER_BYTES: usize = 64 * 1024;
/// Longest time to send the headers, and the body.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of a body, what is printed, in bytes.
const SHOWN_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Port on 127.0.0.1; 0 for any free one.
    #[arg(long, default_value_t = 8091)]
    port: u16,
    /// How requests are signed: standard, hopae, kore or github.
    #[arg(long, value_parser = scheme, default_value = "standard")]
    scheme: Scheme,
    /// File of secrets, one a line, bare or as name=secret; `-` for standard input. Without it
    /// nothing is verified.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// URL as the sender has it configured (kore).
    #[arg(long)]
    url: Option<String>,
    /// Answer every request with this status; otherwise 204 to valid ones and 401 to others.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=599))]
    answer: Option<u16>,
    /// Stop after so many requests.
    #[arg(long)]
    count: Option<u64>,
    /// One JSON object a line, as --output json does.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

/// What connections need.
struct Receiver {
    verifier: Option<Verifier>,
    answer: Option<StatusCode>,
    clock: Arc<dyn Clock>,
    seen: mpsc::Sender<Seen>,
}

/// A request, and what became of it.
struct Seen {
    at: Timestamp,
    target: String,
    captured: Captured,
    verdict: Verdict,
    answered: StatusCode,
}

enum Verdict {
    Valid(Value),
    Invalid {
        reason: &'static str,
        detail: String,
    },
    NotVerified,
}

pub(super) fn run(asked: &Listen, edge: &Edge, output: &mut Output) -> Outcome {
    if asked.json {
        output.format = Format::Json;
    }
    let verifier = match &asked.secret_file {
        Some(path) => {
            let keys = input::keys(path)?;
            Some(verify::verifier(
                asked.scheme,
                &keys,
                &asked.options,
                asked.url.as_deref(),
            )?)
        }
        None => None,
    };
    let answer = asked
        .answer
        .map(StatusCode::from_u16)
        .transpose()
        .map_err(|_| Failure::usage("--answer takes an HTTP status"))?;
    let (seen, shown) = mpsc::channel(CONNECTIONS);
    let receiver = Arc::new(Receiver {
        verifier,
        answer,
        clock: Arc::clone(&edge.clock),
        seen,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::LocalFile, format!("cannot start a runtime: {error}"))
        })?;
    runtime.block_on(listen(asked.port, asked.count, receiver, shown, output))
}

async fn listen(
    port: u16,
    count: Option<u64>,
    receiver: Arc<Receiver>,
    mut shown: mpsc::Receiver<Seen>,
    output: &mut Output,
) -> Outcome {
    let unusable = |error: std::io::Error| {
        Failure::new(
            Exit::AddressInUse,
            format!("cannot listen on 127.0.0.1:{port}: {error}"),
        )
        .next("choose another --port, or 0 for any free one")
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    if receiver.verifier.is_none() {
        output.hint("nothing is verified: name the secrets by --secret-file");
    }
    output.hint(format!("listening on http://{address}"));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut printed = 0;
    let mut every_one_valid = true;
    while count.is_none_or(|count| printed < count) {
        tokio::select! {
            accepted = accept(&listener, &places) => {
                if let Some((stream, place)) = accepted {
                    let connection = graceful.watch(serve(stream, Arc::clone(&receiver)));
                    tokio::spawn(async move {
                        // A client that breaks off harms nobody else.
                        let _ = connection.await;
                        drop(place);
                    });
                }
            }
            Some(seen) = shown.recv() => {
                every_one_valid &= !matches!(seen.verdict, Verdict::Invalid { .. });
                print(&seen, output)?;
                printed += 1;
            }
        }
    }
    // The last answers are on their way.
    drop(shown);
    let _ = tokio::time::timeout(Duration::from_secs(2), graceful.shutdown()).await;
    if every_one_valid {
        Ok(Exit::Done)
    } else {
        Ok(Exit::NotVerified)
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, place))
}

fn serve(
    stream: TcpStream,
    receiver: Arc<Receiver>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = service_fn(move |request| {
        let receiver = Arc::clone(&receiver);
        async move { Ok::<_, Infallible>(receive(request, &receiver).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

async fn receive(request: Request<Incoming>, receiver: &Receiver) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    let limited = Limited::new(body, BODY_BYTES).collect();
    let body = match tokio::time::timeout(PATIENCE, limited).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return response(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(Err(_)) => return response(StatusCode::BAD_REQUEST),
        Err(_) => return response(StatusCode::REQUEST_TIMEOUT),
    };
    let target = head.uri.to_string();
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let captured = Captured {
        method: head.method.to_string(),
        url: host.map_or_else(String::new, |host| format!("http://{host}{target}")),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        body: Zeroizing::new(body.to_vec()),
    };
    let at = receiver.clock.now();
    let verdict = judge(receiver, &captured, at);
    let answered = receiver.answer.unwrap_or(match verdict {
        Verdict::Valid(_) | Verdict::NotVerified => StatusCode::NO_CONTENT,
        Verdict::Invalid { .. } => StatusCode::UNAUTHORIZED,
    });
    let seen = Seen {
        at,
        target,
        captured,
        verdict,
        answered,
    };
    // Nobody prints any more once the count is reached; the answer is the same.
    let _ = receiver.seen.send(seen).await;
    response(answered)
}

fn judge(receiver: &Receiver, captured: &Captured, now: Timestamp) -> Verdict {
    let Some(verifier) = &receiver.verifier else {
        return Verdict::NotVerified;
    };
    match verify::check(verifier, captured, now) {
        Ok(proved) => Verdict::Valid(verify::signed_by(verifier, &proved)),
        Err(error) => Verdict::Invalid {
            reason: verify::reason(&error),
            detail: error.to_string(),
        },
    }
}

fn response(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

fn print(seen: &Seen, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(&as_json(seen)),
        Format::Table => output.line(as_text(seen)),
    }
}

/// The value of a header as it may be shown: what lets someone in is hidden.
fn shown<'v>(name: &str, value: &'v [u8]) -> std::borrow::Cow<'v, str> {
    match name {
        "authorization" | "proxy-authorization" | "cookie" => "(hidden)".into(),
        _ => String::from_utf8_lossy(value),
    }
}

fn as_json(seen: &Seen) -> Value {
    let headers: Vec<_> = seen
        .captured
        .headers
        .iter()
        .map(|(name, value)| json!([name, shown(name, value)]))
        .collect();
    let body = &seen.captured.body;
    let mut document = match &seen.verdict {
        Verdict::Valid(signed_by) => signed_by.clone(),
        Verdict::Invalid { reason, detail } => {
            json!({"valid": false, "reason": reason, "detail": detail})
        }
        Verdict::NotVerified => json!({"valid": null}),
    };
    document["at"] = seen.at.to_string().into();
    document["method"] = seen.captured.method.as_str().into();
    document["target"] = seen.target.as_str().into();
    document["headers"] = headers.into();
    document["bodyBytes"] = body.len().into();
    document["body"] = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]).into();
    document["answered"] = seen.answered.as_u16().into();
    document
}

fn as_text(seen: &Seen) -> String {
    let Captured {
        method,
        headers,
        body,
        ..
    } = &seen.captured;
    let mut text = format!("{} {method} {}\n", seen.at, printable(&seen.target));
    for (name, value) in headers {
        let _ = writeln!(text, "  {name}: {}", printable(&shown(name, value)));
    }
    let pretty = serde_json::from_slice::<Value>(body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let mut left = SHOWN_BYTES;
    for line in pretty.lines() {
        let line = printable(line);
        if line.len() > left {
            let _ = writeln!(text, "  … {} bytes in all", body.len());
            break;
        }
        left -= line.len();
        let _ = writeln!(text, "  {line}");
    }
    let verdict = match &seen.verdict {
        Verdict::Valid(by) => format!(
            "valid: signed by {} ({})",
            by["secret"].as_str().unwrap_or_default(),
            by["fingerprint"].as_str().unwrap_or_default()
        ),
        Verdict::Invalid { reason, detail } => format!("NOT VALID ({reason}): {detail}"),
        Verdict::NotVerified => "not verified".to_owned(),
    };
    let answered = seen.answered.as_u16();
    let _ = write!(text, "  => {verdict}; answered {answered}");
    text
}
