//! What may be done to a rotation: each with what it does to deliveries, those in flight included.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::RotationId;
use hookturn_core::rotation::{Keyring, Mode, Rotation, SecretStatus, Stage};
use hookturn_core::time::Timestamp;
use http::StatusCode;
use serde::Deserialize;

use super::super::super::error::UiError;
use super::super::super::frame::page;
use super::super::super::problems::{Fields, Problems};
use super::super::super::visitor::{Sent, Visitor};
use super::super::super::{UiState, span};
use super::super::keyrings::{given, id, stale};
use super::OneRotation;
use super::panel::Panel;
use crate::service::ServiceError;

/// The fields of the forms.
const FIELDS: &Fields = &[("/reason", "reason"), ("/retireAt", "by")];

/// Something that may be done.
#[derive(Debug, Clone, Copy)]
pub struct Action {
    /// The last part of its path.
    pub name: &'static str,
    /// What the button says.
    pub button: &'static str,
    /// What it does to deliveries.
    pub consequence: &'static str,
    /// Whether deliveries may be refused because of it.
    pub is_risky: bool,
    /// Whether it must be said why.
    pub needs_reason: bool,
    /// Whether it asks for a time.
    pub has_time: bool,
}

const PLAIN: Action = Action {
    name: "",
    button: "",
    consequence: "",
    is_risky: false,
    needs_reason: false,
    has_time: false,
};

const PROMOTE: Action = Action {
    name: "promote",
    button: "Promote",
    consequence: "The new secret becomes the active one. Requests on the wire keep the signature they have; every later attempt is signed anew, and for the overlap what a receiver refuses with one secret is sent again at once with the other.",
    ..PLAIN
};

const PROMOTE_AT_ONCE: Action = Action {
    consequence: "The new secret becomes the active one, and the old one stops at once, for this rotation has no overlap. Requests on the wire keep the signature they have; a receiver without the new secret refuses the next ones, and they are retried on their schedule.",
    is_risky: true,
    ..PROMOTE
};

const FORCE: Action = Action {
    name: "force",
    button: "Promote without proof",
    consequence: "The new secret becomes the active one although it is not proved that every receiver holds it. The old one stays live for the quiet time and until the deadline, so what is refused with one is sent again with the other; after that, a receiver without the new secret refuses. That you forced it is in the audit log.",
    is_risky: true,
    needs_reason: true,
    ..PLAIN
};

const EXTEND: Action = Action {
    name: "extend",
    button: "Extend",
    consequence: "The secret that leaves stays live for longer. Nothing changes for deliveries.",
    has_time: true,
    ..PLAIN
};

const FINISH: Action = Action {
    name: "finish",
    button: "Finish now",
    consequence: "The secret that leaves stops at once: nothing more is signed with it when this is answered. Requests on the wire keep the signature they have; a receiver that still needs it refuses from then on, and those deliveries are retried with the other secret.",
    is_risky: true,
    ..PLAIN
};

const UNDO: Action = Action {
    name: "undo",
    button: "Undo",
    consequence: "The old secret becomes the active one again, and the new one stays live for receivers that had switched: for the overlap (the quiet time of a rotation that proves itself), or for as long as the old one would have stayed if that is longer. Requests on the wire keep the signature they have; retries are signed anew.",
    ..PLAIN
};

const CANCEL: Action = Action {
    name: "cancel",
    button: "Cancel",
    consequence: "The new secret is dropped and its value erased. Deliveries are signed with the old one, as before; a receiver that switched already refuses them until it goes back.",
    is_risky: true,
    ..PLAIN
};

/// Each of them, for samples.
pub(super) fn every_action() -> Vec<Action> {
    vec![PROMOTE, FORCE, EXTEND, UNDO, FINISH, CANCEL]
}

/// What may be done to `rotation` at `now`. Only the latest rotation of a keyring changes.
pub(super) fn possible(
    rotation: &Rotation,
    keyring: &Keyring,
    panel: &Panel,
    now: Timestamp,
) -> Vec<Action> {
    let is_latest = keyring
        .rotation
        .as_ref()
        .is_some_and(|latest| latest.id == rotation.id);
    if !is_latest {
        return Vec::new();
    }
    let may_undo = keyring
        .secret(rotation.from)
        .is_some_and(|old| old.compromised.is_none() && old.status(now) != SecretStatus::Destroyed);
    let undo = may_undo.then_some(UNDO);
    match rotation.stage.at(now) {
        Stage::Staged => vec![promotion(rotation.mode, panel), CANCEL],
        Stage::Overlap { .. } => [EXTEND].into_iter().chain(undo).chain([FINISH]).collect(),
        Stage::Completed { .. } => undo.into_iter().collect(),
        Stage::Undone { retire_at, .. } if now < retire_at => vec![EXTEND, FINISH],
        Stage::Undone { .. } | Stage::Cancelled { .. } => Vec::new(),
    }
}

fn promotion(mode: Mode, panel: &Panel) -> Action {
    match mode {
        Mode::Proven { .. } => {
            let all = !panel.endpoints.is_empty() && panel.proved == panel.endpoints.len();
            if all { PROMOTE } else { FORCE }
        }
        Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } if mode.overlap() == 0 => {
            PROMOTE_AT_ONCE
        }
        Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => PROMOTE,
    }
}

/// The form of any of them.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Asked {
    version: u64,
    seen: i64,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
}

pub(in crate::ui) async fn act(
    State(ui): State<UiState>,
    Path((rotation, action)): Path<(String, String)>,
    sent: Sent<Asked>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: RotationId = id(&rotation, "rotation", &visitor)?;
    let done = match carry_out(&ui, &visitor, id, &action, &fields).await {
        Ok(done) => done,
        Err(problems) => {
            let mut shown = OneRotation::of(&ui, &visitor, id).await?;
            (shown.refused, shown.problems) = (action, problems);
            (shown.reason, shown.by) = (fields.reason, fields.by);
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let Err(error) = done else {
        let to = format!("{}rotations/{id}", visitor.base);
        return Ok(Redirect::to(&to).into_response());
    };
    let (problems, status) = match &error {
        ServiceError::PreconditionFailed { .. } => {
            (Problems::default(), StatusCode::PRECONDITION_FAILED)
        }
        other => Problems::refused(other, &visitor, FIELDS)?,
    };
    let mut shown = OneRotation::of(&ui, &visitor, id).await?;
    if status == StatusCode::PRECONDITION_FAILED
        && let Some(ring) = &shown.ring
    {
        let keyring = super::super::keyrings::id(&ring.id, "keyring", &visitor)?;
        let reload = format!("rotations/{id}");
        shown.stale = Some(stale(&ui, &visitor, keyring, fields.seen, reload).await?);
    }
    (shown.refused, shown.problems) = (action, problems);
    (shown.reason, shown.by) = (fields.reason, fields.by);
    Ok(page(status, &shown))
}

/// Does what a form asks for; the outer error is about its fields.
async fn carry_out(
    ui: &UiState,
    visitor: &Visitor,
    id: RotationId,
    action: &str,
    asked: &Asked,
) -> Result<Result<(), ServiceError>, Problems> {
    let reason = given(&asked.reason);
    if action == FORCE.name && reason.is_none() {
        return Err(Problems::field(
            "reason",
            "say why it is promoted without proof",
        ));
    }
    let caller = match visitor.caller.because(reason.as_deref()) {
        Ok(caller) => caller,
        Err(error) => return Ok(Err(error)),
    };
    let (service, version) = (&ui.service, Some(asked.version));
    let done = match action {
        "promote" => {
            service
                .promote_rotation(&caller, id, false, version, None)
                .await
        }
        "force" => {
            service
                .promote_rotation(&caller, id, true, version, None)
                .await
        }
        "finish" => service.finish_rotation(&caller, id, version, None).await,
        "undo" => service.undo_rotation(&caller, id, version, None).await,
        "cancel" => service.cancel_rotation(&caller, id, version, None).await,
        "extend" => {
            let by = span::read(&asked.by).map_err(|message| Problems::field("by", message))?;
            let end = match service.rotation(&caller, id).await.map(|found| found.stage) {
                Ok(Stage::Overlap { retire_at } | Stage::Undone { retire_at, .. }) => retire_at,
                // The service says why there is nothing to extend.
                Ok(Stage::Staged | Stage::Completed { .. } | Stage::Cancelled { .. }) => {
                    ui.clock.now()
                }
                Err(error) => return Ok(Err(error)),
            };
            service
                .extend_rotation(&caller, id, end.after(by), version, None)
                .await
        }
        _ => return Ok(Err(ServiceError::not_found("page"))),
    };
    Ok(done.map(|_| ()))
}
