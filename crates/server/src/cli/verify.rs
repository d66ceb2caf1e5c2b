//! `hookturn verify`: which secret signed a captured request, by name and fingerprint; or the reason
//! why none did, with what to do about it.

use std::path::PathBuf;

use clap::Args;
use hookturn_core::time::Timestamp;
use hookturn_verify::{HeaderNames, Received, Scheme, Verified, Verifier, VerifyError};
use serde_json::{Value, json};

use super::Edge;
use super::args::Span;
use super::exit::{Exit, Failure, Outcome, shown};
use super::input::{self, NamedKey};
use super::output::{Format, Output, printable};
use super::request::{Captured, header_line};
use super::sign::scheme;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// How the request is signed: standard, hopae, kore or github.
    #[arg(long, value_parser = scheme)]
    scheme: Scheme,
    /// File of secrets (or whpk_ public keys), one a line, bare or as name=secret; `-` for standard
    /// input.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// The captured request: raw HTTP, or JSON {method, url, headers, body | bodyBase64}.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["headers", "body"])]
    request: Option<PathBuf>,
    /// A header of the request; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<(String, String)>,
    /// The raw body of the request, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Method of the request (kore).
    #[arg(long)]
    method: Option<String>,
    /// URL as the sender has it configured (kore).
    #[arg(long)]
    url: Option<String>,
    /// The time to judge the timestamp by, for old captures: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    now: Option<Timestamp>,
    #[command(flatten)]
    options: Options,
}

/// What a verifier needs besides scheme and secrets.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How far a timestamp may lie from now.
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    tolerance: Span,
    /// The signature's header, if the sender renamed it.
    #[arg(long, value_name = "NAME")]
    signature_header: Option<String>,
    /// The message id's header, if the sender renamed it.
    #[arg(long, value_name = "NAME")]
    id_header: Option<String>,
    /// The timestamp's header, if the sender renamed it.
    #[arg(long, value_name = "NAME")]
    timestamp_header: Option<String>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Timestamp::from_millis(seconds.saturating_mul(1_000)));
    }
    text.parse::<Timestamp>().map_err(|error| error.to_string())
}

/// A verifier over the keys, with what the options change.
pub(super) fn verifier(
    scheme: Scheme,
    keys: &[NamedKey],
    options: &Options,
    url: Option<&str>,
) -> Result<Verifier, Failure> {
    let tolerance = u32::try_from(options.tolerance.seconds()).unwrap_or(u32::MAX);
    let verifier = input::verifier(scheme, keys)?
        .header_names(options.names(scheme))
        .tolerance_seconds(tolerance);
    Ok(match url {
        Some(url) => verifier.url(url),
        None => verifier,
    })
}

impl Options {
    /// The headers that are looked for.
    fn names(&self, scheme: Scheme) -> HeaderNames {
        let mut names = HeaderNames::of(scheme);
        let lower = |name: &String| name.to_ascii_lowercase().into();
        if let Some(name) = &self.signature_header {
            names.signature = lower(name);
        }
        if let (Some(name), true) = (&self.id_header, names.id.is_some()) {
            names.id = Some(lower(name));
        }
        if let (Some(name), true) = (&self.timestamp_header, names.timestamp.is_some()) {
            names.timestamp = Some(lower(name));
        }
        names
    }
}

/// Headers that a signature is looked for in and that the capture does not have, each with the option
/// that names another.
fn missing(asked: &Verify, captured: &Captured) -> Vec<(String, &'static str)> {
    let names = asked.options.names(asked.scheme);
    [
        (Some(names.signature), "--signature-header"),
        (names.id, "--id-header"),
        (names.timestamp, "--timestamp-header"),
    ]
    .into_iter()
    .filter_map(|(name, option)| Some((name?.into_owned(), option)))
    .filter(|(name, _)| captured.header(name).is_none())
    .collect()
}

/// Checks a captured request.
pub(super) fn check(
    verifier: &Verifier,
    captured: &Captured,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    captured.with_headers(|headers| {
        let received = Received {
            method: &captured.method,
            url: &captured.url,
            headers,
            body: &captured.body,
        };
        verifier.verify(&received, now.as_seconds())
    })
}

pub(super) fn run(asked: &Verify, edge: &Edge, output: &mut Output) -> Outcome {
    let sources = [
        Some(&asked.secret_file),
        asked.request.as_ref(),
        asked.body.as_ref(),
    ];
    if sources
        .into_iter()
        .flatten()
        .filter(|path| input::is_stdin(path))
        .count()
        > 1
    {
        return Err(Failure::usage(
            "standard input can hold one of secrets, request and body",
        ));
    }
    let captured = captured(asked)?;
    let keys = input::keys(&asked.secret_file)?;
    let verifier = verifier(asked.scheme, &keys, &asked.options, asked.url.as_deref())?;
    let now = asked.now.unwrap_or_else(|| edge.clock.now());
    match check(&verifier, &captured, now) {
        Ok(proved) => {
            let document = signed_by(&verifier, &proved);
            match output.format {
                Format::Table => output.object(&document)?,
                Format::Json => output.json(&document)?,
            }
            Ok(Exit::Done)
        }
        Err(error) => refuse(&error, asked, &keys, &captured, output),
    }
}

fn captured(asked: &Verify) -> Result<Captured, Failure> {
    let mut captured = match (&asked.request, &asked.body) {
        (Some(path), _) => Captured::read(path)?,
        (None, Some(_)) if asked.headers.is_empty() => {
            let what = "the headers of the request are missing: its signature is in one of them";
            return Err(incomplete(asked, what));
        }
        (None, Some(body)) => Captured {
            method: "POST".to_owned(),
            headers: asked
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
            body: input::read(body, input::BODY_BYTES)?,
            ..Captured::default()
        },
        (None, None) if asked.headers.is_empty() => {
            let what = "there is no request: give it by --request, or by --header and --body";
            return Err(incomplete(asked, what));
        }
        (None, None) => {
            let what = "the body of the request is missing: give its raw bytes by --body";
            return Err(incomplete(asked, what));
        }
    };
    if let Some(method) = &asked.method {
        captured.method.clone_from(method);
    }
    Ok(captured)
}

/// What is missing of a request, with a command that has all of it.
fn incomplete(asked: &Verify, what: &str) -> Failure {
    let names = asked.options.names(asked.scheme);
    let names = [names.id, names.timestamp, Some(names.signature)];
    let headers: Vec<_> = names
        .into_iter()
        .flatten()
        .map(|name| format!("--header '{name}: …'"))
        .collect();
    Failure::usage(what).next(format!(
        "give every header that it came with, for example: hookturn verify --scheme {} --secret-file {} \
         --body {} {}",
        asked.scheme,
        shown(&asked.secret_file),
        asked.body.as_deref().map_or("body.json".into(), shown),
        headers.join(" "),
    ))
}

/// What a valid request proved.
pub(super) fn signed_by(verifier: &Verifier, proved: &Verified) -> Value {
    let mut document = json!({
        "valid": true,
        "secret": verifier.name(proved.secret),
        "fingerprint": proved.fingerprint.to_string(),
        "signatureIndex": proved.signature_index,
    });
    if let Some(id) = &proved.id {
        document["messageId"] = id.as_str().into();
    }
    if let Some(seconds) = proved.timestamp {
        let time = Timestamp::from_millis(seconds.saturating_mul(1_000));
        document["signedAt"] = time.to_string().into();
    }
    document
}

fn refuse(
    error: &VerifyError,
    asked: &Verify,
    keys: &[NamedKey],
    captured: &Captured,
    output: &mut Output,
) -> Outcome {
    let tried: Vec<_> = keys
        .iter()
        .map(|named| format!("{} ({})", named.name, named.key.fingerprint()))
        .collect();
    let missing = missing(asked, captured);
    let next = advice(error, asked.scheme, captured, &missing);
    let missing: Vec<_> = missing.into_iter().map(|(name, _)| name).collect();
    if output.format == Format::Json {
        output.json(&json!({
            "valid": false,
            "reason": reason(error),
            "detail": error.to_string(),
            "next": next,
            "tried": tried,
            "missing": missing,
            "headers": captured.header_names(),
        }))?;
        return Ok(Exit::NotVerified);
    }
    let mut failure = Failure::new(Exit::NotVerified, format!("not valid: {error}"))
        .fact("reason", reason(error))
        .fact("tried", tried.join(", "));
    if matches!(error, VerifyError::MissingHeader { .. }) {
        let names = captured.header_names();
        let had = match names.as_slice() {
            [] => "none".to_owned(),
            names => printable(&names.join(", ")),
        };
        failure = failure
            .fact("missing", missing.join(", "))
            .fact("headers", had);
    }
    Err(failure.next(next))
}

/// A stable word for the reason.
pub(super) fn reason(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::NoSecrets => "no_secrets",
        VerifyError::MissingHeader { .. } => "missing_header",
        VerifyError::Malformed { .. } => "malformed",
        VerifyError::NoUrl => "no_url",
        VerifyError::TooOld { .. } => "too_old",
        VerifyError::TooNew { .. } => "too_new",
        VerifyError::NoMatch { .. } => "no_match",
        VerifyError::WouldMatchIfReserialized { .. } => "would_match_if_reserialized",
        // The list may grow with the crate.
        _ => "other",
    }
}

fn advice(
    error: &VerifyError,
    asked: Scheme,
    captured: &Captured,
    missing: &[(String, &'static str)],
) -> String {
    let text = match error {
        VerifyError::MissingHeader { .. } => {
            let other = Scheme::ALL.into_iter().find(|scheme| {
                *scheme != asked
                    && captured
                        .header(&HeaderNames::of(*scheme).signature)
                        .is_some()
            });
            if let Some(other) = other {
                return format!(
                    "the request carries a header of the {other} scheme: try --scheme {other}"
                );
            }
            let options: Vec<_> = missing.iter().map(|(_, option)| *option).collect();
            return format!(
                "check that the capture holds every header; one that the sender renamed is named by {}",
                options.join(", ")
            );
        }
        VerifyError::Malformed { .. } => {
            "check that the header was captured whole, and that --scheme is the sender's"
        }
        VerifyError::NoUrl => "give the URL as the sender has it configured by --url",
        VerifyError::TooOld { .. } => {
            "for an old capture give the time of its receipt by --now; on a live receiver check the clock"
        }
        VerifyError::TooNew { .. } => "check the clocks of sender and receiver",
        VerifyError::WouldMatchIfReserialized { .. } => {
            "verify the raw bytes, before any JSON parser has touched them"
        }
        VerifyError::NoMatch { .. } if asked == Scheme::Kore => {
            "compare the fingerprints with the sender's, and give its exact URL by --url"
        }
        _ => {
            "compare the fingerprints with those the sender shows, and check that the body is what was received, byte for byte"
        }
    };
    text.to_owned()
}
