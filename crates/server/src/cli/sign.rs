//! `hookturn sign`: signs a body as a sender would, and prints the headers.

use std::path::PathBuf;

use clap::Args;
use hookturn_core::id::MessageId;
use hookturn_verify::{Content, HeaderNames, Scheme, Signer, sign};
use serde_json::{Map, Value, json};

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::input::{self, Key, NamedKey};
use super::output::{Format, Output};

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// How to sign: standard, hopae, kore or github.
    #[arg(long, value_parser = scheme)]
    scheme: Scheme,
    /// File of secrets, one a line, bare or as name=secret; `-` for standard input. Several sign
    /// together, in their order, where the scheme allows it.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// File with the body, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Message id (standard); a new one without.
    #[arg(long)]
    id: Option<String>,
    /// Unix seconds to sign (standard, hopae); now without.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// URL as the sender has it configured (kore).
    #[arg(long)]
    url: Option<String>,
    /// Method of the request (kore).
    #[arg(long, default_value = "POST")]
    method: String,
}

pub(super) fn scheme(text: &str) -> Result<Scheme, String> {
    text.parse::<Scheme>().map_err(|error| error.to_string())
}

pub(super) fn run(asked: &Sign, edge: &Edge, output: &mut Output) -> Outcome {
    if input::is_stdin(&asked.secret_file) && input::is_stdin(&asked.file) {
        return Err(Failure::usage(
            "standard input can hold the secret or the body, not both",
        ));
    }
    if asked.scheme == Scheme::Kore && asked.url.is_none() {
        return Err(
            Failure::usage("the kore scheme signs the URL, and there is none")
                .next("give the URL as the sender has it configured by --url"),
        );
    }
    let signers = signers(asked.scheme, &input::keys(&asked.secret_file)?)?;
    let body = input::read(&asked.file, input::BODY_BYTES)?;
    let now = edge.clock.now();
    let id = match &asked.id {
        Some(id) => id.clone(),
        None => MessageId::new(now, edge.entropy.as_ref()).to_string(),
    };
    let timestamp = asked.timestamp.unwrap_or(now.as_seconds());
    let content = Content {
        id: &id,
        timestamp,
        method: &asked.method,
        url: asked.url.as_deref().unwrap_or_default(),
        body: &body,
    };
    let borrowed: Vec<_> = signers.iter().collect();
    let signature = sign(asked.scheme, &borrowed, &content)
        .map_err(|error| Failure::usage(error.to_string()))?;
    print(&headers(asked.scheme, id, timestamp, signature), output)
}

fn signers(scheme: Scheme, keys: &[NamedKey]) -> Result<Vec<Signer>, Failure> {
    let signer = |named: &NamedKey| match &named.key {
        Key::Secret(secret) => Signer::new(scheme, secret)
            .map_err(|error| Failure::usage(format!("`{}` cannot sign: {error}", named.name))),
        Key::Public(_) => Err(Failure::usage(format!(
            "`{}` is a public key, which cannot sign; give the whsk_ text",
            named.name
        ))),
    };
    keys.iter().map(signer).collect()
}

fn headers(scheme: Scheme, id: String, timestamp: i64, signature: String) -> Vec<(String, String)> {
    let names = HeaderNames::of(scheme);
    let mut headers = Vec::new();
    headers.extend(names.id.map(|name| (name.into_owned(), id)));
    headers.extend(
        names
            .timestamp
            .map(|name| (name.into_owned(), timestamp.to_string())),
    );
    headers.push((names.signature.into_owned(), signature));
    headers
}

fn print(headers: &[(String, String)], output: &mut Output) -> Outcome {
    match output.format {
        Format::Table => {
            for (name, value) in headers {
                output.line(format!("{name}: {value}"))?;
            }
        }
        Format::Json => {
            let members: Map<String, Value> = headers
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect();
            output.json(&json!({ "headers": members }))?;
        }
    }
    Ok(Exit::Done)
}
