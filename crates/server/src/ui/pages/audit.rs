//! The audit log: searched, exported, and proven whole.

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use hookturn_core::audit::{AuditAction, Recorded};
use hookturn_core::time::Timestamp;
use http::{StatusCode, header};
use serde::Deserialize;

use super::super::UiState;
use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::problems::Problems;
use super::super::stale::Change;
use super::super::text::{When, visible};
use super::super::visitor::{Sent, Visitor};
use super::sign_in::NoFields;
use crate::service::audit::{AuditFilter, AuditFound, AuditProof};
use crate::service::{Caller, Service};

/// Entries on one page.
const ROWS: usize = 50;

/// The page.
#[derive(Debug, Template)]
#[template(path = "audit.html")]
pub struct Audit {
    /// Around it.
    pub frame: Frame,
    /// The entries, newest first.
    pub rows: Vec<Row>,
    /// Below which entry the search goes on, if it does.
    pub rest_below: Option<u64>,
    /// What was asked for.
    pub wanted: Wanted,
    /// Every action that there is.
    pub actions: Vec<&'static str>,
    /// What is known about the chain.
    pub chain: Chain,
    /// What was wrong with the filter.
    pub problems: Problems,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number.
    pub seq: u64,
    /// When, what and who.
    pub change: Change,
    /// Who, as the log has it.
    pub actor_id: String,
    /// What it is about, by kind of id.
    pub subject: Vec<(&'static str, String)>,
    /// More, by name.
    pub detail: Vec<(String, String)>,
    /// Why.
    pub reason: Option<String>,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

/// What is known about the chain.
#[derive(Debug, Clone)]
pub enum Chain {
    /// It was not looked at since the server started.
    Unknown,
    /// Every entry up to this number followed from the one before.
    Whole {
        /// The number of the last entry.
        seq: u64,
        /// Its hash, in hexadecimal digits.
        hash: String,
        /// When it was looked at.
        at: When,
    },
    /// An entry does not.
    Broken {
        /// Its number, and why.
        words: String,
    },
}

/// What to find.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// An action, or the beginning of one.
    pub action: String,
    /// Who.
    pub actor: String,
    /// An id or a fingerprint.
    pub subject: String,
    /// Not before.
    pub since: String,
    /// Before.
    pub until: String,
    before: Option<u64>,
}

impl Wanted {
    /// The filter as a query, for links.
    pub fn query(&self) -> String {
        let fields = [
            ("action", &self.action),
            ("actor", &self.actor),
            ("subject", &self.subject),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(given)
            .finish()
    }

    /// Whether this is not the first page.
    pub fn is_later(&self) -> bool {
        self.before.is_some()
    }

    /// Whether anything is asked for.
    pub fn is_filter(&self) -> bool {
        !self.query().is_empty()
    }

    fn filter(&self) -> Result<AuditFilter, Problems> {
        let mut problems = Problems::default();
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let actor = text(&self.actor).and_then(|actor| {
            let read = actor.parse();
            read.map_err(|error: hookturn_core::audit::ParseActorError| {
                problems.add("actor", error.to_string());
            })
            .ok()
        });
        let since = time(&self.since, "since", &mut problems);
        let until = time(&self.until, "until", &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(AuditFilter {
            action: text(&self.action),
            actor,
            subject: text(&self.subject),
            since,
            until,
        })
    }
}

/// A time of a form: as the browser's field writes it, which is taken as UTC, or RFC 3339.
fn time(text: &str, field: &'static str, problems: &mut Problems) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let short = text.len() == "2026-11-21T20:00".len();
    let whole = if short {
        format!("{text}:00Z")
    } else {
        text.to_owned()
    };
    let whole = if whole.len() == "2026-11-21T20:00:00".len() {
        format!("{whole}Z")
    } else {
        whole
    };
    let at = whole.parse().ok();
    if at.is_none() {
        problems.add(
            field,
            "write a date and time such as 2026-11-21T20:00, in UTC",
        );
    }
    at
}

impl Row {
    fn new(recorded: &Recorded, visitor: &Visitor, now: Timestamp) -> Self {
        let detail = recorded.entry.detail.iter();
        Self {
            seq: recorded.seq,
            change: Change::new(recorded, visitor, now),
            actor_id: recorded.context.actor.to_string(),
            subject: recorded.entry.subject.ids().collect(),
            detail: detail
                .map(|(name, value)| (name.clone(), visible(value)))
                .collect(),
            reason: recorded.context.reason.as_deref().map(visible),
            hash: hex::encode(recorded.hash),
        }
    }
}

impl Audit {
    async fn of(ui: &UiState, visitor: &Visitor, wanted: Wanted) -> Result<Self, UiError> {
        let now = ui.clock.now();
        let (found, problems) = match wanted.filter() {
            Ok(filter) => {
                let found = ui
                    .service
                    .search_audit(&visitor.caller, &filter, wanted.before, ROWS)
                    .await
                    .map_err(|error| UiError::service(&error, &visitor.base))?;
                (found, Problems::default())
            }
            Err(problems) => {
                let nothing = AuditFound {
                    entries: Vec::new(),
                    rest_below: None,
                };
                (nothing, problems)
            }
        };
        let proof = ui.service.audit_proof(&visitor.caller).await;
        let proof = proof.map_err(|error| UiError::service(&error, &visitor.base))?;
        let entries = found.entries.iter();
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Audit, "Audit"),
            rows: entries.map(|entry| Row::new(entry, visitor, now)).collect(),
            rest_below: found.rest_below,
            wanted,
            actions: actions(),
            chain: proof.map_or(Chain::Unknown, |(head, at)| Chain::Whole {
                seq: head.seq,
                hash: hex::encode(head.hash),
                at: When::new(at, now),
            }),
            problems,
        })
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let now = Timestamp::from_millis(1_784_505_600_000);
        let sample = |rows: Vec<Row>, chain: Chain, problems: Problems| Self {
            frame: Frame::sample(Part::Audit, "Audit"),
            rows,
            rest_below: None,
            wanted: Wanted::default(),
            actions: actions(),
            chain,
            problems,
        };
        let row = Row {
            seq: 7,
            change: Change {
                at: When::new(now.before(90_000), now),
                action: "secret.revealed".to_owned(),
                actor: "the key <b>ops</b>".to_owned(),
                fingerprint: Some("0a1b2c3d".to_owned()),
            },
            actor_id: "key_1".to_owned(),
            subject: vec![("keyringId", "kr_1".to_owned())],
            detail: vec![("cause".to_owned(), visible("\u{202e}<script>"))],
            reason: Some("lost".to_owned()),
            hash: "ab".repeat(32),
        };
        let whole = Chain::Whole {
            seq: 7,
            hash: "ab".repeat(32),
            at: When::new(now, now),
        };
        let broken = Chain::Broken {
            words: "entry 3 does not follow from the one before".to_owned(),
        };
        let wrong = Problems::field("since", "write a date and time");
        vec![
            (
                "audit-empty",
                sample(Vec::new(), Chain::Unknown, Problems::default()),
            ),
            ("audit", sample(vec![row], whole, Problems::default())),
            ("audit-error", sample(Vec::new(), broken, wrong)),
        ]
    }
}

fn actions() -> Vec<&'static str> {
    AuditAction::KNOWN.iter().map(AuditAction::as_str).collect()
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, UiError> {
    let audit = Audit::of(&ui, &visitor, wanted).await?;
    let status = if audit.problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    Ok(page(status, &audit))
}

/// Proves the chain from its first entry, and shows the page with what was found.
pub(in crate::ui) async fn verify(
    State(ui): State<UiState>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let proof = ui.service.verify_audit(&visitor.caller).await;
    let proof = proof.map_err(|error| UiError::service(&error, &visitor.base))?;
    let mut audit = Audit::of(&ui, &visitor, Wanted::default()).await?;
    if let AuditProof::Broken(broken) = proof {
        audit.chain = Chain::Broken {
            words: broken.to_string(),
        };
    }
    Ok(page(StatusCode::OK, &audit))
}

/// Every entry that the filter takes, oldest first, one JSON document a line: what
/// `hookturn audit verify --file` reads when nothing is filtered.
pub(in crate::ui) async fn export(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, UiError> {
    let Ok(filter) = wanted.filter() else {
        return Ok(page(
            StatusCode::UNPROCESSABLE_ENTITY,
            &Audit::of(&ui, &visitor, wanted).await?,
        ));
    };
    let first = ui.service.audit_block(&visitor.caller, 0).await;
    let first = first.map_err(|error| UiError::service(&error, &visitor.base))?;
    let from = Export {
        service: ui.service,
        caller: visitor.caller,
        filter,
        block: Some(first),
    };
    let lines = stream::try_unfold(from, |export| async move { export.next().await });
    let kind = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"audit.ndjson\"",
        ),
    ];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// An export under way: it holds one block at a time.
struct Export {
    service: std::sync::Arc<Service>,
    caller: Caller,
    filter: AuditFilter,
    /// The block to write next; none at the end.
    block: Option<Vec<Recorded>>,
}

impl Export {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        let Some(block) = self.block.take() else {
            return Ok(None);
        };
        let Some(last) = block.last().map(|entry| entry.seq) else {
            return Ok(None);
        };
        let mut lines = Vec::new();
        for entry in block.iter().filter(|entry| self.filter.takes(entry)) {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        // The client sees a body that ends early, and not a log that looks whole.
        let next = self.service.audit_block(&self.caller, last).await;
        self.block = Some(next.map_err(std::io::Error::other)?);
        Ok(Some((Bytes::from(lines), self)))
    }
}
