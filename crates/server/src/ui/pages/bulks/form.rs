//! The form of a bulk rotation: which keyrings, how and how fast; then its plan, which rotates nothing;
//! then its start, which happens once however often the form is sent, and only of what was planned.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::bulk::{Manner, Pacing, Selector};
use hookturn_core::id::BulkId;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::time::Millis;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::error::{UiError, status_of};
use super::super::super::form::{self, Control, Field, Wrong};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::once::{self, Asked};
use super::super::super::ring::Ring;
use super::super::super::text::visible;
use super::super::super::visitor::{Sent, Visitor};
use super::super::super::{UiState, span};
use super::super::keyrings::given;
use crate::service::ServiceError;
use crate::service::bulk::{NewBulk, StartedBulk};
use crate::service::leaks::LeakHash;

/// Keyrings of a plan that are shown; the others are counted.
const SHOWN: usize = 20;

/// Where the service's pointers show up.
const POINTERS: &[(&str, &str)] = &[
    ("/selector/apps", "apps"),
    ("/selector/labels", "labels"),
    ("/selector/fingerprints", "fingerprints"),
    ("/selector/hashes", "hashes"),
    ("/waves", "waves"),
    ("/concurrency", "concurrency"),
    ("/stopAtFailedPercent", "stop_at"),
    ("/pauseSeconds", "pause"),
    ("/patienceSeconds", "patience"),
    ("/overlapSeconds", "overlap"),
    ("/reason", "reason"),
];

const MODES: &[(&str, &str)] = &[
    (
        "proven",
        "proven: each becomes active when its receiver is proved to hold it",
    ),
    (
        "overlap",
        "overlap: new signs now, old stays live for the overlap",
    ),
    (
        "staged",
        "staged: nothing changes until each is activated by hand",
    ),
    ("immediate", "immediate: the old secret stops at once"),
];

/// The form, with the plan once there is one.
#[derive(Debug, Template)]
#[template(path = "bulk_form.html")]
pub struct BulkForm {
    /// Around it.
    pub frame: Frame,
    /// Its fields.
    pub fields: Vec<Field>,
    /// What was wrong with the form as a whole.
    pub error: Option<String>,
    /// What would happen.
    pub plan: Option<Plan>,
}

/// What would happen.
#[derive(Debug)]
pub struct Plan {
    /// The fields as the start sends them.
    pub parts: Vec<(&'static str, String)>,
    /// How each keyring moves.
    pub mode: String,
    /// How many keyrings there are.
    pub keyrings: usize,
    /// How many each wave has.
    pub waves: Vec<u32>,
    /// Why rotations could not be opened now: how many, and what to do.
    pub obstacles: Vec<(usize, String)>,
    /// The first keyrings: id, whom it signs for, fingerprint, and what is in the way.
    pub first: Vec<(String, String, String, String)>,
    /// Whether it may be started.
    pub may_start: bool,
}

/// What its fields are about: the first one of each group.
const GROUPS: &[(&str, &str)] = &[
    ("all", "Which keyrings"),
    ("mode", "How"),
    ("waves", "How fast"),
    ("reason", ""),
];

/// What was typed.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::ui) struct Typed {
    all: String,
    apps: String,
    labels: String,
    older: String,
    fingerprints: String,
    hashes: String,
    mode: String,
    overlap: String,
    waves: String,
    pause: String,
    concurrency: String,
    stop_at: String,
    patience: String,
    reason: String,
}

impl Default for Typed {
    fn default() -> Self {
        let usual = Pacing::default();
        let waves: Vec<_> = usual.waves.iter().map(ToString::to_string).collect();
        let empty = String::new;
        Self {
            all: empty(),
            apps: empty(),
            labels: empty(),
            older: empty(),
            fingerprints: empty(),
            hashes: empty(),
            mode: "proven".to_owned(),
            overlap: empty(),
            waves: waves.join(" "),
            pause: span::write(usual.pause_millis),
            concurrency: usual.concurrency.to_string(),
            stop_at: usual.stop_at_failed_percent.to_string(),
            patience: span::write(usual.patience_millis),
            reason: empty(),
        }
    }
}

/// The fields of the form.
#[rustfmt::skip]
fn fields(typed: &Typed, wrong: &Wrong) -> Vec<Field> {
    let field = |name, label, value: &str, hint, control| Field {
        name, label, value: value.to_owned(), hint, error: wrong.with(name), control,
    };
    let (line, number) = (Control::Line("text"), Control::Line("number"));
    vec![
        field("all", "Every keyring of the workspace that signs for an endpoint", &typed.all, "Unless more is named below: all of it must hold.", Control::Tick),
        field("apps", "Of these apps", &typed.apps, "Client ids, one a line.", Control::Area(2)),
        field("labels", "Of apps with all these labels", &typed.labels, "One a line, name: value.", Control::Area(2)),
        field("older", "Whose active secret is at least this old", &typed.older, "Such as 90 d.", line),
        field("fingerprints", "Whose active secret has one of these fingerprints", &typed.fingerprints, "8 hex digits each, one a line.", Control::Area(2)),
        field("hashes", "Whose active secret leaked", &typed.hashes, "SHA-256 of each leaked text in hex, one a line: printf %s \"$LEAKED\" | sha256sum. They are not kept.", Control::Area(2)),
        field("mode", "How each moves", &typed.mode, "", Control::Choice(MODES)),
        field("overlap", "Overlap", &typed.overlap, "For overlap and staged, such as 36 h. Empty: each keyring's default.", line),
        field("waves", "Waves", &typed.waves, "Where each ends, in percent of all, growing to 100.", line),
        field("pause", "Pause between two waves", &typed.pause, "Such as 30 min.", line),
        field("concurrency", "Rotations under way at once", &typed.concurrency, "1 to 1000.", number),
        field("stop_at", "Stop when more of a wave failed than (percent)", &typed.stop_at, "0 stops at the first, 100 never.", number),
        field("patience", "How long an unproved rotation holds its place", &typed.patience, "For proven. After that it goes on by itself and is waited for no longer.", line),
        field("reason", "Why, for the audit log", &typed.reason, "", line),
    ]
}

/// Which keyrings a selector means, in words.
pub(super) fn selected(selector: &Selector) -> Vec<String> {
    let list = |what: &str, names: Vec<String>| {
        (!names.is_empty()).then(|| format!("{what}: {}", visible(&names.join(", "))))
    };
    let texts = |all: &[_]| all.iter().map(ToString::to_string).collect();
    let labels = selector.labels.iter();
    let labels = labels.map(|(name, value)| format!("{name}={value}"));
    let prints = selector.fingerprints.iter().map(ToString::to_string);
    let keyrings = selector.keyrings.iter().map(ToString::to_string);
    let said = [
        list("of apps", texts(&selector.apps)),
        list("of apps with the labels", labels.collect()),
        list("keyrings", keyrings.collect()),
        selector
            .older_than_millis
            .map(|age| format!("active secret at least {} old", span::write(age))),
        list("fingerprint", prints.collect()),
        selector
            .secrets
            .as_ref()
            .map(|secrets| format!("leaked: {} secrets were found", secrets.len())),
    ];
    let mut said: Vec<_> = said.into_iter().flatten().collect();
    if said.is_empty() {
        said.push("every keyring that signs for an endpoint".to_owned());
    }
    said
}

impl Typed {
    /// What the start repeats.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let fields = fields(self, &Wrong::default()).into_iter();
        fields.map(|field| (field.name, field.value)).collect()
    }

    /// The bulk rotation to plan or start, or what was wrong.
    fn input(&self, dry_run: bool) -> Result<NewBulk, Wrong> {
        let mut wrong = Wrong::default();
        let labels = form::pairs(&self.labels, ':').unwrap_or_else(|why| {
            wrong.note("labels", why);
            BTreeMap::new()
        });
        let selector = Selector {
            all: self.all == "on",
            apps: each("apps", &self.apps, "a client id", &mut wrong),
            labels,
            keyrings: Vec::new(),
            older_than_millis: time("older", &self.older, &mut wrong),
            fingerprints: each(
                "fingerprints",
                &self.fingerprints,
                "8 hex digits",
                &mut wrong,
            ),
            secrets: None,
        };
        let hashes: Vec<Hash> = each("hashes", &self.hashes, "64 hex digits", &mut wrong);
        let manner = self.manner(&mut wrong);
        let usual = Pacing::default();
        let pacing = Pacing {
            waves: each("waves", &self.waves, "a number", &mut wrong),
            pause_millis: time("pause", &self.pause, &mut wrong).unwrap_or(usual.pause_millis),
            concurrency: number("concurrency", &self.concurrency, &mut wrong)
                .unwrap_or(usual.concurrency),
            stop_at_failed_percent: number("stop_at", &self.stop_at, &mut wrong)
                .unwrap_or(usual.stop_at_failed_percent),
            patience_millis: time("patience", &self.patience, &mut wrong)
                .unwrap_or(usual.patience_millis),
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(NewBulk {
            selector,
            hashes: hashes.into_iter().map(|hash| hash.0).collect(),
            manner,
            pacing,
            dry_run,
        })
    }

    fn manner(&self, wrong: &mut Wrong) -> Manner {
        let overlap = time("overlap", &self.overlap, wrong);
        match self.mode.as_str() {
            "immediate" => {
                if overlap.is_some_and(|overlap| overlap > 0) {
                    wrong.note("overlap", "an immediate rotation has no overlap");
                }
                Manner::Immediate
            }
            "overlap" => Manner::Overlap { overlap },
            "staged" => Manner::Staged { overlap },
            "proven" => Manner::Proven {
                policy: ProofPolicy::default(),
            },
            _ => {
                wrong.note("mode", "choose a mode");
                Manner::Immediate
            }
        }
    }
}

/// A hash as it is typed.
struct Hash(LeakHash);

impl std::str::FromStr for Hash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(LeakHash(bytes)))
    }
}

/// The words of a field, each read.
fn each<T: std::str::FromStr>(
    name: &'static str,
    text: &str,
    what: &str,
    wrong: &mut Wrong,
) -> Vec<T> {
    let words = text.split([',', ' ', '\n', '\r', '\t', '%']);
    let mut all = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        match word.parse() {
            Ok(read) => all.push(read),
            Err(_) => wrong.note(name, format!("{}: expected {what}", visible(word))),
        }
    }
    all
}

fn time(name: &'static str, text: &str, wrong: &mut Wrong) -> Option<Millis> {
    let text = given(text)?;
    let read = span::read(&text);
    if let Err(why) = read {
        wrong.note(name, why);
    }
    read.ok()
}

fn number<T: std::str::FromStr>(name: &'static str, text: &str, wrong: &mut Wrong) -> Option<T> {
    let read = given(text)?.parse().ok();
    if read.is_none() {
        wrong.note(name, "expected a whole number in its bounds");
    }
    read
}

impl BulkForm {
    /// Its fields under what they are about.
    pub fn groups(&self) -> Vec<(&'static str, &[Field])> {
        form::grouped(&self.fields, GROUPS)
    }

    pub(super) fn new(frame: Frame, typed: &Typed, wrong: &Wrong, plan: Option<Plan>) -> Self {
        Self {
            frame,
            fields: fields(typed, wrong),
            error: wrong.with(""),
            plan,
        }
    }

    fn of(ui: &UiState, visitor: &Visitor, typed: &Typed, wrong: &Wrong) -> Self {
        let frame = Frame::new(ui, visitor, Part::Rotations, "New bulk rotation");
        Self::new(frame, typed, wrong, None)
    }
}

impl Plan {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        typed: &Typed,
        planned: &StartedBulk,
    ) -> Result<Self, UiError> {
        let mut obstacles: BTreeMap<&str, (usize, String)> = BTreeMap::new();
        for (code, message) in planned
            .keyrings
            .iter()
            .filter_map(|one| one.obstacle.as_ref())
        {
            let known = obstacles.entry(code);
            known.or_insert_with(|| (0, visible(message))).0 += 1;
        }
        let mut first = Vec::new();
        for one in planned.keyrings.iter().take(SHOWN) {
            let ring = Ring::of(ui, visitor, &one.keyring).await?;
            let active = one.keyring.active();
            first.push((
                ring.id,
                ring.title,
                active.map_or_else(String::new, |active| active.fingerprint.to_string()),
                one.obstacle
                    .as_ref()
                    .map_or_else(String::new, |(_, message)| visible(message)),
            ));
        }
        let ends = &planned.bulk.wave_ends;
        let starts = std::iter::once(&0).chain(ends);
        Ok(Self {
            parts: typed.parts(),
            mode: typed.mode.clone(),
            keyrings: planned.keyrings.len(),
            waves: ends
                .iter()
                .zip(starts)
                .map(|(end, start)| end - start)
                .collect(),
            obstacles: obstacles.into_values().collect(),
            first,
            may_start: !planned.keyrings.is_empty(),
        })
    }
}

pub(in crate::ui) async fn new(
    State(ui): State<UiState>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let scope = hookturn_core::workspace::Scope::Secrets;
    let may = ui.service.require(&visitor.caller, scope).await;
    may.map_err(|error| UiError::service(&error, &visitor.base))?;
    let form = BulkForm::of(&ui, &visitor, &Typed::default(), &Wrong::default());
    Ok(page(StatusCode::OK, &form))
}

/// Answers what was refused: in the form where its sender can mend it.
fn refused(
    ui: &UiState,
    visitor: &Visitor,
    typed: &Typed,
    error: &ServiceError,
) -> Result<Response, UiError> {
    match error {
        ServiceError::Invalid { .. }
        | ServiceError::Missing { .. }
        | ServiceError::Conflict { .. }
        | ServiceError::RateLimited { .. }
        | ServiceError::Rejected(_) => {
            let form = BulkForm::of(ui, visitor, typed, &Wrong::of(error, POINTERS));
            Ok(page(status_of(error), &form))
        }
        error => Err(UiError::service(error, &visitor.base)),
    }
}

pub(in crate::ui) async fn plan(
    State(ui): State<UiState>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let input = match typed.input(true) {
        Ok(input) => input,
        Err(wrong) => {
            let form = BulkForm::of(&ui, &visitor, &typed, &wrong);
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &form));
        }
    };
    match ui.service.start_bulk(&visitor.caller, input, None).await {
        Ok(planned) => {
            let mut form = BulkForm::of(&ui, &visitor, &typed, &Wrong::default());
            form.plan = Some(Plan::of(&ui, &visitor, &typed, &planned).await?);
            Ok(page(StatusCode::OK, &form))
        }
        Err(error) => refused(&ui, &visitor, &typed, &error),
    }
}

pub(in crate::ui) async fn start(
    State(ui): State<UiState>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let input = match typed.input(false) {
        Ok(input) => input,
        Err(wrong) => {
            let form = BulkForm::of(&ui, &visitor, &typed, &wrong);
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &form));
        }
    };
    let caller = match visitor.caller.because(given(&typed.reason).as_deref()) {
        Ok(caller) => caller,
        Err(error) => return refused(&ui, &visitor, &typed, &error),
    };
    let once = match once::asked(&ui, &visitor, "bulk-rotations").await? {
        Asked::Again(kept) => return Ok(to_bulk(&visitor, &String::from_utf8_lossy(&kept))),
        Asked::First(Some(once)) => once,
        // What it says was not planned.
        Asked::First(None) => {
            let message = "the form was sent before, or is another than was planned: look at the list of bulk rotations, then plan anew";
            let again = ServiceError::conflict("already_started", message);
            return refused(&ui, &visitor, &typed, &again);
        }
    };
    let render = |started: &StartedBulk| started.bulk.id.to_string().into_bytes();
    let recording = Some(once.record(&render));
    let started = ui.service.start_bulk(&caller, input, recording).await;
    match started {
        Ok(started) => Ok(to_bulk(&visitor, &started.bulk.id.to_string())),
        Err(error) => refused(&ui, &visitor, &typed, &error),
    }
}

/// Leads to a bulk rotation; to the list when the text is none.
fn to_bulk(visitor: &Visitor, id: &str) -> Response {
    let known = id.parse::<BulkId>().is_ok();
    let path = if known {
        format!("/{id}")
    } else {
        String::new()
    };
    Redirect::to(&format!("{}bulk-rotations{path}", visitor.base)).into_response()
}
