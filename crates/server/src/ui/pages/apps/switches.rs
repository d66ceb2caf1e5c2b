//! Pausing, enabling, disabling and deleting an endpoint. What each does is said where it is asked for.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::{ClientId, EndpointId};
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::frame::page;
use super::super::super::stale::Stale;
use super::super::super::visitor::{Sent, Visitor};
use super::endpoint::EndpointPage;
use super::values::endpoint_id;
use crate::service::ServiceError;
use crate::service::endpoints::Switch;

/// A switch, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The word of the form.
    pub to: &'static str,
    /// What it is called.
    pub word: &'static str,
    /// What happens, in a sentence or two.
    pub consequence: &'static str,
}

/// Sends again.
pub const ENABLE: Offer = Offer {
    to: "enabled",
    word: "Enable",
    consequence: "New messages are sent again, and what waited while it was paused goes out now, oldest \
        first. What was given up stays given up: send it again from the list of deliveries.",
};
/// Keeps and waits.
pub const PAUSE: Offer = Offer {
    to: "paused",
    word: "Pause",
    consequence: "Nothing more is sent to it. Messages are kept and wait, and are sent in order when it is \
        enabled again. Nothing is lost.",
};
/// Takes nothing.
pub const DISABLE: Offer = Offer {
    to: "disabled",
    word: "Disable",
    consequence: "It takes no messages any more. What is published meanwhile is never sent to it, and what \
        is waiting is given up as exhausted.",
};

/// Sends although the receiver asked to wait.
pub const RESUME: Offer = Offer {
    to: "enabled",
    word: "Resume",
    consequence: "What waits because the receiver answered with Retry-After is sent now. If it answers so \
        again, it is left alone again. A delivery that waits for a retry of its own keeps its time.",
};

/// The switches that change something for an endpoint in this state, whose receiver asked to wait or not.
pub(super) fn offers(state: &str, held: bool) -> Vec<Offer> {
    let resume = (held && state == RESUME.to).then_some(RESUME);
    let others = [ENABLE, PAUSE, DISABLE]
        .into_iter()
        .filter(|offer| offer.to != state);
    resume.into_iter().chain(others).collect()
}

/// The form of a switch.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Asked {
    to: String,
    version: u64,
    #[serde(default)]
    seen: i64,
}

/// The form that deletes.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Version {
    version: u64,
    #[serde(default)]
    seen: i64,
}

/// The endpoint's page with what was refused, and what happened where somebody else was first.
async fn refused(
    ui: &UiState,
    visitor: &Visitor,
    (app, id): (ClientId, EndpointId),
    error: &ServiceError,
    seen: i64,
) -> Result<Response, UiError> {
    let mut shown = EndpointPage::of(ui, visitor, (app, id)).await?;
    if let ServiceError::PreconditionFailed { .. } = error {
        let reload = format!("apps/{app}/endpoints/{id}");
        let stale = Stale::of(ui, visitor, id.to_string(), seen, reload);
        shown.stale = Some(stale.await?);
    } else {
        shown.error = Some(error.to_string());
    }
    Ok(page(status_of(error), &shown))
}

pub(in crate::ui) async fn switch(
    State(ui): State<UiState>,
    Path((app, id)): Path<(String, String)>,
    sent: Sent<Asked>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let (app, id) = endpoint_id((&app, &id), &visitor)?;
    let to = match fields.to.as_str() {
        "enabled" => Switch::Enabled,
        "paused" => Switch::Paused,
        "disabled" => Switch::Disabled,
        _ => return Err(UiError::unreadable(&visitor.base)),
    };
    let version = Some(fields.version);
    let done = ui
        .service
        .switch_endpoint(&visitor.caller, app, id, to, version, None);
    match done.await {
        Ok(_) => {
            let back = format!("{}apps/{app}/endpoints/{id}", visitor.base);
            Ok(Redirect::to(&back).into_response())
        }
        Err(error) => refused(&ui, &visitor, (app, id), &error, fields.seen).await,
    }
}

pub(in crate::ui) async fn delete(
    State(ui): State<UiState>,
    Path((app, id)): Path<(String, String)>,
    sent: Sent<Version>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let (app, id) = endpoint_id((&app, &id), &visitor)?;
    let version = Some(fields.version);
    let done = ui
        .service
        .delete_endpoint(&visitor.caller, app, id, version, None);
    match done.await {
        Ok(()) => Ok(Redirect::to(&format!("{}apps/{app}", visitor.base)).into_response()),
        Err(error) => refused(&ui, &visitor, (app, id), &error, fields.seen).await,
    }
}
