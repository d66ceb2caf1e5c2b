//! `hookturn message`: publish events and look at them.
//!
//! A payload goes into the request as it was given, byte for byte except for white space around it:
//! what is signed is what was published.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hookturn_core::limits;
use hookturn_core::time::Clock;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Id, Paging, Remote, When};
use super::client::Request;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Column, Format, Output};
use super::plan::{Plan, Planned};
use super::{Edge, input, plan};

#[derive(Debug, Subcommand)]
pub(super) enum Message {
    /// Publish one message.
    Send(Send),
    /// Publish many messages: one JSON object {eventType, payload, eventId?} a line.
    ///
    /// More lines than one request takes are sent in several, each all or none. The n-th has the idempotency
    /// key KEY.n, made of that of the command: repeat the command with the same lines and the same
    /// --idempotency-key after a failure, and it goes on where it stopped.
    SendBatch {
        /// The app's id.
        app: Id,
        /// The lines, `-` for standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// List an app's messages, newest first, without their payloads.
    List {
        /// The app's id.
        app: Id,
        /// Accepted at or after this time; a span such as 2h counts back from now.
        #[arg(long, value_name = "TIME")]
        since: Option<When>,
        /// Accepted before this time.
        #[arg(long, value_name = "TIME")]
        until: Option<When>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a message with its payload.
    Show {
        /// The app's id.
        app: Id,
        /// The message's id.
        message: Id,
    },
}

#[derive(Debug, Args)]
pub(super) struct Send {
    /// The app's id.
    app: Id,
    /// What happened, such as order.paid.
    event_type: String,
    /// File with the payload (JSON), `-` for standard input.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "json",
        default_value = "-"
    )]
    file: PathBuf,
    /// The payload itself.
    #[arg(long, value_name = "JSON")]
    json: Option<String>,
    /// Your own id of the event.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMessage<'a> {
    event_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("EVENT TYPE", "eventType"),
    ("EVENT ID", "eventId"),
    ("ACCEPTED", "acceptedAt"),
];

impl Planned for Message {
    fn plan(self, clock: &dyn Clock) -> Result<Plan, Failure> {
        Ok(match self {
            Self::Send(send) => Plan::object(send.request()?),
            Self::SendBatch { app, file } => {
                let mut requests = batches(&app, &file)?;
                if requests.len() > 1 {
                    return Err(Failure::usage("more than one batch"));
                }
                // There is at least one: an empty file was refused.
                Plan::object(requests.remove(0).request)
            }
            Self::List {
                app,
                since,
                until,
                paging,
            } => {
                let request = Request::get(format!("/v1/apps/{app}/messages"))
                    .with("since", since.map(|when| when.past(clock)))
                    .with("until", until.map(|when| when.past(clock)));
                Plan::list(request, paging, COLUMNS)
            }
            Self::Show { app, message } => {
                Plan::object(Request::get(format!("/v1/apps/{app}/messages/{message}")))
            }
        })
    }
}

impl Send {
    fn request(&self) -> Result<Request, Failure> {
        let text = match &self.json {
            Some(text) => zeroize::Zeroizing::new(text.clone()),
            None => input::text(&self.file, limits::PAYLOAD_BYTES)?,
        };
        let payload: &RawValue = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format!(
                "the payload is not JSON: {error}; nothing was sent"
            ))
        })?;
        let message = NewMessage {
            event_type: &self.event_type,
            payload,
            event_id: self.event_id.as_deref(),
        };
        let body =
            serde_json::to_vec(&message).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Request::new(
            http::Method::POST,
            format!("/v1/apps/{}/messages", self.app),
        )
        .bytes(body))
    }
}

/// Room for what stands around the messages of a batch, in bytes.
const AROUND: usize = 64;

/// One request of several, with the line of the input of each of its messages.
#[derive(Debug)]
struct Batch {
    request: Request,
    lines: Vec<usize>,
}

/// The requests for the lines of a file: as many messages in each as the server takes.
fn batches(app: &Id, file: &Path) -> Result<Vec<Batch>, Failure> {
    let text = input::text(file, input::BULK_BYTES)?;
    let mut bodies: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        serde_json::from_str::<&RawValue>(line).map_err(|error| {
            Failure::usage(format!(
                "line {number} is not JSON: {error}; nothing was sent"
            ))
        })?;
        let full = |body: &[u8], lines: &[usize]| {
            lines.len() == limits::BATCH_MESSAGES
                || body.len() + line.len() + AROUND > limits::BATCH_BODY_BYTES
        };
        match bodies.last_mut() {
            Some((body, lines)) if !full(body, lines) => {
                body.push(b',');
                body.extend_from_slice(line.as_bytes());
                lines.push(number);
            }
            Some(_) | None => {
                let body = [b"{\"messages\":[", line.as_bytes()].concat();
                bodies.push((body, vec![number]));
            }
        }
    }
    if bodies.is_empty() {
        return Err(Failure::usage(
            "there is no message to send: every line is empty",
        ));
    }
    let path = format!("/v1/apps/{app}/messages/batch");
    let batch = |(mut body, lines): (Vec<u8>, Vec<usize>)| {
        body.extend_from_slice(b"]}");
        Batch {
            request: Request::new(http::Method::POST, path.clone()).bytes(body),
            lines,
        }
    };
    Ok(bodies.into_iter().map(batch).collect())
}

/// Runs a message command. A batch may need several requests: each is all or none.
pub(super) fn run(remote: Remote<Message>, edge: &Edge, output: &mut Output) -> Outcome {
    let Message::SendBatch { app, file } = &remote.command else {
        return plan::run(remote, edge, output);
    };
    let batches = batches(app, file)?;
    let client = remote.connection.client(edge)?;
    let key = client.command_key();
    let mut sent = 0;
    for (number, batch) in (1..).zip(&batches) {
        let answered = client.call_part(&batch.request, &key, number);
        let answer = answered.map_err(|failure| {
            let again = format!(
                "run the same command again with --idempotency-key {key}: what was accepted is not accepted twice, and the rest follows"
            );
            let is_lost = failure.knows("idempotencyKey");
            let failure = failure
                .by_lines("messages", &batch.lines)
                .fact("accepted", format!("{sent} messages before this batch"));
            if sent == 0 && !is_lost {
                return failure;
            }
            let failure = failure.instead("idempotencyKey", &key);
            match failure.exit() {
                Exit::Refused => failure.next(format!("correct the input, then {again}")),
                _ => failure.next(again),
            }
        })?;
        let document = answer.json()?;
        let ids = document["ids"].as_array().map_or(&[][..], Vec::as_slice);
        sent += ids.len();
        match output.format {
            Format::Json => {
                output.bytes(&answer.body)?;
                output.bytes(b"\n")?;
            }
            Format::Table => {
                for id in ids {
                    output.line(id.as_str().unwrap_or_default())?;
                }
            }
        }
    }
    output.hint(format!("{sent} messages accepted"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches_of(text: &str) -> Result<Vec<Batch>, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        std::fs::write(&path, text).unwrap();
        batches(&"app_1".parse().unwrap(), &path)
    }

    #[test]
    fn a_payload_keeps_its_bytes() {
        let send = Send {
            app: "app_1".parse().unwrap(),
            event_type: "a.b".into(),
            file: "-".into(),
            json: Some(" {\"n\": 1.0,  \"e\":\"\\u00e4\"} ".into()),
            event_id: None,
        };
        let body = send.request().unwrap().body.unwrap();
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            "{\"eventType\":\"a.b\",\"payload\":{\"n\": 1.0,  \"e\":\"\\u00e4\"}}"
        );
    }

    #[test]
    fn lines_become_batches_that_the_server_takes() {
        let lines = "{\"eventType\":\"a\",\"payload\":1}\n".repeat(limits::BATCH_MESSAGES + 1);
        let requests = batches_of(&lines).unwrap();
        let counts: Vec<_> = requests
            .iter()
            .map(|batch| {
                let body = batch.request.body.as_ref().unwrap();
                let document: serde_json::Value = serde_json::from_slice(body).unwrap();
                document["messages"].as_array().unwrap().len()
            })
            .collect();
        assert_eq!(counts, [limits::BATCH_MESSAGES, 1]);
        assert_eq!(requests[1].lines, [limits::BATCH_MESSAGES + 1]);
        assert_eq!(batches_of("\n\n").unwrap_err().exit(), Exit::Usage);
        assert_eq!(batches_of("{\n").unwrap_err().exit(), Exit::Usage);
    }
}
