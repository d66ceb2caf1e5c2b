//! Operational events: what the operator's own endpoint is told, as a pure function of the audit log.
//!
//! The audit log is the source. An entry whose action stands in [`REPORTED`] becomes one event of the
//! type `hookturn.` and the action, for each place that asked for it; nothing else does, so that every
//! event can be found in the history, and a new kind of event is a new kind of entry first.
//!
//! An event is for people and programs: ids, fingerprints, names, times, and [`words`]. It never holds
//! the value of a secret, because no audit entry does.

use std::collections::BTreeMap;

use hookturn_verify::Fingerprint;
use serde::Serialize;

use crate::audit::{Actor, AuditAction, Recorded, Subject};
use crate::id::WorkspaceId;
use crate::message::EventType;
use crate::time::Timestamp;

/// What the types of all operational events begin with.
pub const PREFIX: &str = "hookturn.";

/// The actions that are reported, each with what it means.
pub const REPORTED: &[(AuditAction, &str)] = &[
    (AuditAction::RotationOpened, "A rotation was opened."),
    (
        AuditAction::RotationProved,
        "Every endpoint that counts proved that it holds the new secret of a rotation.",
    ),
    (
        AuditAction::RotationPromoted,
        "The new secret of a staged or proven rotation became the active one.",
    ),
    (
        AuditAction::RotationStalled,
        "A rotation of mode `proven` makes no progress towards its proof.",
    ),
    (
        AuditAction::RotationDeadlineNear,
        "The deadline of a rotation is near, and it is not over; in modes `overlap` and `staged` while an endpoint is not known to hold the new secret.",
    ),
    (
        AuditAction::RotationExtended,
        "The secret that leaves may sign for longer, by command or because it is still needed.",
    ),
    (
        AuditAction::RotationFinished,
        "The secret that leaves was retired before its end, by command or because it was not needed any more; `rotation.completed` follows, unless the rotation was undone.",
    ),
    (
        AuditAction::RotationCompleted,
        "The old secret is retired, and the rotation over.",
    ),
    (
        AuditAction::RotationCancelled,
        "The new secret of a staged rotation was dropped before it was active.",
    ),
    (
        AuditAction::RotationUndone,
        "The old secret of a rotation was made active again.",
    ),
    (
        AuditAction::SecretRevealed,
        "The value of a secret was shown to the holder of an API key.",
    ),
    (
        AuditAction::SecretCompromised,
        "A secret was marked as leaked.",
    ),
    (
        AuditAction::EndpointDoesNotVerify,
        "A receiver accepted a request that was signed with a random key: it verifies nothing.",
    ),
    (
        AuditAction::EndpointDisabled,
        "An endpoint was disabled, by its owner, by 410 or after failing for too long.",
    ),
    (
        AuditAction::ScheduleSkipped,
        "A rotation that a schedule was to open cannot be opened yet; it is tried again.",
    ),
];

/// The type of the event that reports an action; none for what is not reported.
pub fn event_type(action: &AuditAction) -> Option<EventType> {
    let reported = REPORTED.iter().any(|(known, _)| known == action);
    let text = reported.then(|| format!("{PREFIX}{action}"))?;
    // Actions are words of letters, dots and underscores, far shorter than an event type may be.
    EventType::new(&text).ok()
}

/// What the things are called that an entry names by id, as far as they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The workspace's name.
    pub workspace: String,
    /// The app's name.
    pub app: Option<String>,
    /// The endpoint's URL.
    pub url: Option<String>,
    /// The name of the secret it is about.
    pub secret: Option<String>,
    /// The fingerprint of the secret that a rotation moves away from.
    pub from: Option<Fingerprint>,
    /// The word of what happens at the deadline of the rotation.
    pub on_deadline: Option<&'static str>,
}

/// An event as it is sent: the payload of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    /// The event type.
    pub r#type: &'a str,
    /// When it happened.
    pub at: Timestamp,
    /// What happened, in a sentence.
    pub words: String,
    /// The workspace it happened in.
    pub workspace_id: WorkspaceId,
    /// Its name.
    pub workspace: &'a str,
    /// The number of the entry in the workspace's audit log.
    pub sequence: u64,
    /// Who did it.
    pub by: Actor,
    /// Why, in their own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The ids of what it was done to.
    #[serde(flatten)]
    pub subject: Subject,
    /// The app's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<&'a str>,
    /// The endpoint's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
    /// The name of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<&'a str>,
    /// The fingerprint of the secret it is about: of a rotation, the one it brings.
    #[serde(
        with = "crate::fingerprint::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub fingerprint: Option<Fingerprint>,
    /// The fingerprint of the secret that a rotation moves away from.
    #[serde(
        with = "crate::fingerprint::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub from_fingerprint: Option<Fingerprint>,
    /// More, by name, as in the audit log.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: &'a BTreeMap<String, String>,
}

impl<'a> Event<'a> {
    /// The event that reports an entry.
    pub fn of(event_type: &'a EventType, recorded: &'a Recorded, names: &'a Names) -> Self {
        let entry = &recorded.entry;
        Self {
            r#type: event_type.as_str(),
            at: recorded.at,
            words: words(recorded, names),
            workspace_id: recorded.workspace,
            workspace: &names.workspace,
            sequence: recorded.seq,
            by: recorded.context.actor,
            reason: recorded.context.reason.as_deref(),
            subject: entry.subject,
            app: names.app.as_deref(),
            url: names.url.as_deref(),
            secret_name: names.secret.as_deref(),
            fingerprint: entry.fingerprint,
            from_fingerprint: names.from,
            detail: &entry.detail,
        }
    }
}

/// What happened, in a sentence that says no more than the entry.
pub fn words(recorded: &Recorded, names: &Names) -> String {
    let entry = &recorded.entry;
    let detail = |name: &str| entry.detail.get(name).map_or("?", String::as_str);
    let whose = whose(&entry.subject, names);
    let shown = |fingerprint: Option<Fingerprint>| {
        fingerprint.map_or_else(|| "?".to_owned(), |fingerprint| fingerprint.to_string())
    };
    let (new, old) = (shown(entry.fingerprint), shown(names.from));
    match &entry.action {
        AuditAction::RotationOpened => format!(
            "a rotation of {whose} in mode {} was opened: secret {new} is to take the place of {old}",
            detail("mode")
        ),
        AuditAction::RotationProved => format!(
            "{whose} proved to hold secret {new}: {} requests in a row that were signed with it alone \
             were accepted, and one signed with a random key was refused (endpoints proved: {})",
            detail("passes"),
            detail("endpoints")
        ),
        AuditAction::RotationPromoted => {
            let grounds = match entry.detail.get("grounds").map(String::as_str) {
                Some("proof") => "because it was proved",
                Some("force") => "by force, without proof",
                Some(_) | None => "because its owner asked for it",
            };
            format!("secret {new} is the active one of {whose} now, {grounds}")
        }
        AuditAction::RotationStalled => format!(
            "the rotation of {whose} to secret {new} makes no progress: {}",
            stall_words(detail("why"), &entry.detail)
        ),
        AuditAction::RotationDeadlineNear => {
            let then = match (detail("stage"), names.on_deadline) {
                ("staged", _) => {
                    "without proof nothing happens then, and the old secret stays active"
                }
                (_, Some("cut")) => "the old secret is retired then, needed or not",
                (_, Some(_) | None) => "the old secret stays for longer while it is needed",
            };
            format!(
                "the rotation of {whose} to secret {new} is not over, and its deadline is {}: {then}",
                detail("deadline")
            )
        }
        AuditAction::RotationExtended => format!(
            "the secret that leaves {whose} may sign until {}",
            detail("retireAt")
        ),
        AuditAction::RotationFinished => {
            // After an undo that is the new one, and the entry does not say which it was.
            format!("the secret that leaves {whose} was retired before its end")
        }
        AuditAction::RotationCompleted => format!(
            "the rotation of {whose} to secret {new} is over: {old} signs no longer{}",
            known_words(&entry.detail)
        ),
        AuditAction::RotationCancelled => {
            format!("the rotation of {whose} to secret {new} was cancelled: {old} stays active")
        }
        AuditAction::RotationUndone => {
            format!("the rotation of {whose} to secret {new} was undone: {old} is active again")
        }
        AuditAction::SecretRevealed => {
            format!(
                "the value of secret {new} of {whose} was shown to {}",
                recorded.context.actor
            )
        }
        AuditAction::SecretCompromised => {
            format!("secret {new} of {whose} was marked as leaked: rotate away from it")
        }
        AuditAction::EndpointDoesNotVerify => format!(
            "{whose} accepted a request that was signed with a random key: it verifies nothing, and \
             anyone can send it events"
        ),
        AuditAction::EndpointDisabled => match entry.detail.get("why").map(String::as_str) {
            Some("gone") => format!("{whose} answered 410 and is disabled: nothing is sent to it"),
            Some("failing") => format!(
                "{whose} accepted nothing for too long and is disabled: nothing is sent to it until it is enabled again"
            ),
            Some(_) | None => format!("{whose} was disabled: nothing is sent to it"),
        },
        AuditAction::ScheduleSkipped => format!(
            "the rotation of {whose} that was due at {} by schedule {} was not opened: {}; it is tried again",
            detail("dueAt"),
            detail("schedule"),
            detail("words")
        ),
        other => format!("{other} of {whose}"),
    }
}

/// Whom an entry is about, for people.
fn whose(subject: &Subject, names: &Names) -> String {
    match (subject.endpoint, &names.app, subject.keyring) {
        (Some(endpoint), Some(app), _) => format!("endpoint {endpoint} of {app}"),
        (Some(endpoint), None, _) => format!("endpoint {endpoint}"),
        (None, _, Some(keyring)) => format!("keyring {keyring}"),
        (None, _, None) => format!("workspace {}", names.workspace),
    }
}

/// What was known of the receivers when a rotation ended, if its entry tells.
fn known_words(detail: &BTreeMap<String, String>) -> String {
    let known = |name: &str| detail.get(name);
    match (
        known("endpoints"),
        known("acceptNew"),
        known("refuseNew"),
        known("acceptOld"),
    ) {
        (Some(endpoints), Some(accept), Some(refuse), Some(old)) => format!(
            "; as far as was known, of {endpoints} endpoint(s) {accept} accepted the new secret last, \
             {refuse} refused it in a probe, and {old} still accepted the old one"
        ),
        _ => String::new(),
    }
}

fn stall_words(why: &str, detail: &BTreeMap<String, String>) -> String {
    let last = detail.get("last").map_or("?", String::as_str);
    match why {
        "nobody_counts" => {
            "no endpoint accepted anything lately, so there is none to prove it by".to_owned()
        }
        "not_asked" => "nothing was asked yet".to_owned(),
        "endpoint_not_enabled" => {
            "the receiver cannot be asked, because its endpoint is not enabled: enable it, or cancel \
             the rotation"
                .to_owned()
        }
        "probes_off" => {
            "the receiver cannot be asked, because probes are turned off for its endpoint: turn them \
             on, or cancel the rotation"
                .to_owned()
        }
        "never_contacted" => {
            "the receiver cannot be asked, because its endpoint accepted nothing yet: send a test \
             event, or cancel the rotation"
                .to_owned()
        }
        "does_not_verify" => {
            "the receiver verifies nothing, so nothing can be proved about it".to_owned()
        }
        "unreachable" => "the receiver does not answer in a way that says anything".to_owned(),
        "refuses" => format!("the receiver refuses the new secret, last at {last}"),
        "mixed" => format!(
            "the receiver accepts and refuses the new secret by turns, as a half-deployed fleet does; it refused last at {last}"
        ),
        _ => format!("nothing was accepted since {last}"),
    }
}
