//! From arguments to one request and back to what is shown: what every client command has in common.
//!
//! A command decides purely which request it makes and how the answer is shown (its [`Plan`]);
//! [`run`] does it.

use std::path::PathBuf;

use hookturn_core::time::Clock;
use serde_json::Value;

use super::Edge;
use super::args::{Paging, Remote};
use super::client::{Answer, Client, Request};
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Column, Format, Output};

/// What a client command does.
pub(super) struct Plan {
    pub(super) request: Request,
    pub(super) show: Show,
    /// What it means that it was done, said once it was: a refused command has no effect to explain.
    pub(super) effect: Option<String>,
    /// Where the value goes that the answer shows once.
    pub(super) value_out: Option<PathBuf>,
}

/// How the answer is shown.
pub(super) enum Show {
    /// A page of a list; every page if asked for.
    List {
        columns: &'static [Column],
        all: bool,
    },
    /// One thing.
    Object,
    /// This sentence.
    Sentence(String),
    /// What came of a test: its summary, and an exit code that says whether it passed.
    Test,
}

impl Plan {
    pub(super) fn object(request: Request) -> Self {
        Self {
            request,
            show: Show::Object,
            effect: None,
            value_out: None,
        }
    }

    pub(super) fn sentence(request: Request, sentence: impl Into<String>) -> Self {
        Self {
            show: Show::Sentence(sentence.into()),
            ..Self::object(request)
        }
    }

    pub(super) fn test(request: Request) -> Self {
        Self {
            show: Show::Test,
            ..Self::object(request)
        }
    }

    pub(super) fn list(request: Request, paging: Paging, columns: &'static [Column]) -> Self {
        let request = request
            .with("limit", paging.limit)
            .with("cursor", paging.cursor);
        Self {
            show: Show::List {
                columns,
                all: paging.all,
            },
            ..Self::object(request)
        }
    }

    pub(super) fn value_out(mut self, path: Option<PathBuf>) -> Self {
        self.value_out = path;
        self
    }

    pub(super) fn effect(mut self, sentence: impl Into<String>) -> Self {
        self.effect = Some(sentence.into());
        self
    }
}

/// A group of client commands.
pub(super) trait Planned: clap::Subcommand {
    /// Decides what is asked of the server.
    fn plan(self, clock: &dyn Clock) -> Result<Plan, Failure>;
}

/// Runs a command that makes one request (or one for each page).
pub(super) fn run<C: Planned>(remote: Remote<C>, edge: &Edge, output: &mut Output) -> Outcome {
    let plan = remote.command.plan(edge.clock.as_ref())?;
    let client = remote.connection.client(edge)?;
    carry_out(plan, &client, output)
}

pub(super) fn carry_out(plan: Plan, client: &Client, output: &mut Output) -> Outcome {
    output::check_free(plan.value_out.as_ref())?;
    if let Some(warning) = client.warning() {
        output.hint(warning);
    }
    let mut request = plan.request;
    loop {
        let answer = client.call(&request)?;
        if answer.replayed {
            output.hint("this was done before under the same key; here is the answer of that time");
        } else if let Some(sentence) = &plan.effect {
            output.hint(sentence);
        }
        match &plan.show {
            Show::List { columns, all } => {
                let next = show_page(&answer, columns, *all, output)?;
                match next {
                    Some(cursor) => {
                        request.query.retain(|(name, _)| *name != "cursor");
                        request.query.push(("cursor", cursor));
                    }
                    None => return Ok(Exit::Done),
                }
            }
            Show::Object => {
                show_object(&answer, plan.value_out.as_deref(), output)?;
                return Ok(Exit::Done);
            }
            Show::Test => return show_test(&answer, output),
            Show::Sentence(sentence) => {
                match output.format {
                    Format::Table => output.line(sentence)?,
                    Format::Json => show_bytes(&answer, output)?,
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// Shows a page and returns the cursor of the next one, if that is wanted.
fn show_page(
    answer: &Answer,
    columns: &[Column],
    all: bool,
    output: &mut Output,
) -> Result<Option<String>, Failure> {
    let document = answer.json()?;
    let next = document["nextCursor"].as_str().map(str::to_owned);
    match output.format {
        Format::Json => show_bytes(answer, output)?,
        Format::Table => match document["data"].as_array() {
            Some(items) if !items.is_empty() => output.list(columns, items)?,
            Some(_) | None => output.hint("nothing to list"),
        },
    }
    match next {
        Some(cursor) if all => Ok(Some(cursor)),
        Some(cursor) => {
            output.hint(format!(
                "there is more: --cursor {cursor} shows the next page, --all everything"
            ));
            Ok(None)
        }
        None => Ok(None),
    }
}

fn show_bytes(answer: &Answer, output: &mut Output) -> Result<(), Failure> {
    if answer.body.is_empty() {
        return Ok(());
    }
    output.bytes(&answer.body)?;
    output.bytes(b"\n")
}

fn show_test(answer: &Answer, output: &mut Output) -> Outcome {
    let document = answer.json()?;
    match output.format {
        Format::Table => {
            let summary = document["summary"].as_str().unwrap_or_default();
            output.line(output::printable(summary))?;
            output.hint("the whole exchange: the same command with --output json");
        }
        Format::Json => show_bytes(answer, output)?,
    }
    Ok(if document["accepted"] == true {
        Exit::Done
    } else {
        Exit::Unexpected
    })
}

fn show_object(
    answer: &Answer,
    value_out: Option<&std::path::Path>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut document = match output.format {
        Format::Table => answer.table()?,
        Format::Json => answer.json()?,
    };
    let shown_once = once(&mut document);
    match (value_out, shown_once) {
        (None, None) => {}
        (None, Some(_)) => {
            output.hint("keep the value where only its users can read it");
        }
        (Some(path), Some(value)) => {
            let text = value.as_str().unwrap_or_default().as_bytes();
            output::write_private(path, text).map_err(|failure| {
                let key = answer.idempotency_key.clone().unwrap_or_default();
                failure.fact("idempotencyKey", &key).next(format!(
                    "the value was made: run the same command with --idempotency-key {key} and another --value-out to get it"
                ))
            })?;
            *value = Value::String(format!("(written to {})", path.display()));
            // What stays is not the server's own bytes any more: the value is out of it.
            return match output.format {
                Format::Table => output.object(&document),
                Format::Json => output.json(&document),
            };
        }
        (Some(_), None) => output.hint("the answer holds no value; no file was written"),
    }
    match output.format {
        Format::Table => output.object(&document),
        Format::Json => show_bytes(answer, output),
    }
}

/// The value that an answer shows once: of an endpoint's or a rotation's new secret, of a secret, of
/// an API key.
fn once(document: &mut Value) -> Option<&mut Value> {
    let place = ["/secret/value", "/value", "/key"]
        .into_iter()
        .find(|place| document.pointer(place).is_some_and(Value::is_string))?;
    document.pointer_mut(place)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_value_that_is_shown_once_is_found() {
        for (mut document, value) in [
            (json!({"id": "a", "value": "v"}), Some("v")),
            (
                json!({"rotation": {"id": "r"}, "secret": {"value": "v"}}),
                Some("v"),
            ),
            (json!({"key": "k", "name": "value"}), Some("k")),
            (json!({"id": "a", "key": {"id": 1}}), None),
            (Value::Null, None),
        ] {
            let found = once(&mut document).and_then(|found| found.as_str().map(str::to_owned));
            assert_eq!(found.as_deref(), value);
        }
    }
}
