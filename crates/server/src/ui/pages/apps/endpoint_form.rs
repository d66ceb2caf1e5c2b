//! The form that makes or changes an endpoint.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::ClientId;
use hookturn_core::workspace::Scope;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::form::{Changed, Field, Wrong, changes, snapshot};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::once::{self, Asked};
use super::super::super::visitor::{Sent, Visitor};
use super::values::{POINTERS, Typed, app_id, endpoint_id, fields};
use crate::service::ServiceError;
use crate::service::endpoints::CreatedEndpoint;

/// The form.
#[derive(Debug, Template)]
#[template(path = "endpoint_form.html")]
pub struct EndpointForm {
    /// Around it.
    pub frame: Frame,
    /// The app.
    pub app: String,
    /// The endpoint that is changed; none for a new one.
    pub id: Option<String>,
    /// Its fields.
    pub fields: Vec<Field>,
    /// What was wrong with the form as a whole.
    pub error: Option<String>,
    /// What somebody else changed meanwhile.
    pub changed: Vec<Changed>,
    /// The version that it changes.
    pub version: u64,
    /// What the form showed when it was opened.
    pub was: String,
}

/// An endpoint that was made, with its first secret this once.
#[derive(Debug, Template)]
#[template(path = "endpoint_made.html")]
pub struct EndpointMade {
    /// Around it.
    pub frame: Frame,
    /// The app.
    pub app: String,
    /// The endpoint.
    pub id: String,
    /// Its URL.
    pub url: String,
    /// The secret's fingerprint and value; none with the shared keyring.
    pub secret: Option<(String, String)>,
}

impl EndpointForm {
    fn new(frame: Frame, app: String, id: Option<String>, typed: &Typed, wrong: &Wrong) -> Self {
        let fields = fields(typed, id.is_none(), wrong);
        Self {
            frame,
            app,
            id,
            was: snapshot(&fields),
            fields,
            error: wrong.with(""),
            changed: Vec::new(),
            version: typed.version,
        }
    }

    fn of_new(ui: &UiState, visitor: &Visitor, app: &str, typed: &Typed, wrong: &Wrong) -> Self {
        let frame = Frame::new(ui, visitor, Part::Apps, "New endpoint");
        Self::new(frame, app.to_owned(), None, typed, wrong)
    }

    fn of(ui: &UiState, visitor: &Visitor, old: &Endpoint, typed: &Typed, wrong: &Wrong) -> Self {
        let frame = Frame::new(ui, visitor, Part::Apps, "Change the endpoint");
        let (app, id) = (old.app.to_string(), old.id.to_string());
        Self::new(frame, app, Some(id), typed, wrong)
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |typed: &Typed, id: Option<&str>, wrong: &Wrong| {
            let frame = Frame::sample(Part::Apps, "Endpoint");
            Self::new(
                frame,
                "HqTRDIYa".to_owned(),
                id.map(str::to_owned),
                typed,
                wrong,
            )
        };
        let id = Some("ep_01kxyd5209e0080ex9c8twsqwy");
        let typed = Typed {
            url: "https://shop.example/hooks?a=\"><script>".to_owned(),
            description: "\u{202e}<b>".to_owned(),
            headers: "x-env: prod".to_owned(),
            ordered: "on".to_owned(),
            ..Typed::of_new()
        };
        let mut wrong = Wrong::default();
        for field in ["", "url", "events", "timeout"] {
            wrong.note(field, "cannot be so");
        }
        let mut raced = sample(&typed, id, &wrong);
        raced.changed = vec![Changed {
            label: "Custom headers",
            was: "x-env: test".to_owned(),
            now: "x-env: prod".to_owned(),
            yours: "x-env: test".to_owned(),
        }];
        let fresh = Wrong::default();
        vec![
            ("endpoint-new", sample(&Typed::of_new(), None, &fresh)),
            ("endpoint-new-error", sample(&typed, None, &wrong)),
            ("endpoint-edit", sample(&typed, id, &fresh)),
            ("endpoint-edit-raced", raced),
        ]
    }
}

/// What is told of an endpoint that was made, and kept for its form when that is sent again.
#[derive(Serialize, Deserialize)]
struct Told {
    id: String,
    url: String,
    /// Fingerprint and value.
    secret: Option<(String, String)>,
}

impl Told {
    fn of(made: &CreatedEndpoint) -> Self {
        let url = made.endpoint.url.as_ref();
        Self {
            id: made.endpoint.id.to_string(),
            url: url.map_or_else(String::new, ToString::to_string),
            secret: made.once.as_ref().map(|once| {
                let value = once.value.expose().to_owned();
                (once.secret.fingerprint.to_string(), value)
            }),
        }
    }
}

impl EndpointMade {
    fn new(ui: &UiState, visitor: &Visitor, app: ClientId, told: Told) -> Self {
        Self {
            frame: Frame::new(ui, visitor, Part::Apps, "The endpoint is there"),
            app: app.to_string(),
            id: told.id,
            url: told.url,
            secret: told.secret,
        }
    }

    /// The answer of a form that was carried out before.
    fn again(
        ui: &UiState,
        visitor: &Visitor,
        app: ClientId,
        kept: &[u8],
    ) -> Result<Response, UiError> {
        let told = serde_json::from_slice(kept);
        let told = told.map_err(|_| UiError::unreadable(&visitor.base))?;
        let shown = Self::new(ui, visitor, app, told);
        Ok(page(StatusCode::CREATED, &shown))
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |secret: Option<(String, String)>| Self {
            frame: Frame::sample(Part::Apps, "The endpoint is there"),
            app: "HqTRDIYa".to_owned(),
            id: "ep_01kxyd5209e0080ex9c8twsqwy".to_owned(),
            url: "https://shop.example/hooks".to_owned(),
            secret,
        };
        let shown = ("0a1b2c3d".to_owned(), "whsec_sample".to_owned());
        vec![
            ("endpoint-made", sample(Some(shown))),
            ("endpoint-made-shared", sample(None)),
        ]
    }
}

pub(in crate::ui) async fn new(
    State(ui): State<UiState>,
    visitor: Visitor,
    Path(app): Path<String>,
) -> Result<Response, UiError> {
    let may = ui.service.require(&visitor.caller, Scope::Manage).await;
    may.map_err(|error| UiError::service(&error, &visitor.base))?;
    let app = app_id(&app, &visitor)?;
    let known = ui.service.app(&visitor.caller, app).await;
    known.map_err(|error| UiError::service(&error, &visitor.base))?;
    let (typed, fine) = (Typed::of_new(), Wrong::default());
    let form = EndpointForm::of_new(&ui, &visitor, &app.to_string(), &typed, &fine);
    Ok(page(StatusCode::OK, &form))
}

pub(in crate::ui) async fn create(
    State(ui): State<UiState>,
    Path(app): Path<String>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let app = app_id(&app, &visitor)?;
    let once = match once::asked(&ui, &visitor, &format!("{app} endpoints")).await? {
        Asked::Again(kept) => return EndpointMade::again(&ui, &visitor, app, &kept),
        Asked::First(once) => once,
    };
    let record = |made: &CreatedEndpoint| serde_json::to_vec(&Told::of(made)).unwrap_or_default();
    let recording = once.as_ref().map(|once| once.record(&record));
    let (status, wrong) = match typed.new_endpoint() {
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Ok(input) => {
            let made = ui
                .service
                .create_endpoint(&visitor.caller, app, input, recording);
            match made.await {
                Ok(made) => {
                    let shown = EndpointMade::new(&ui, &visitor, app, Told::of(&made));
                    return Ok(page(StatusCode::CREATED, &shown));
                }
                Err(error @ (ServiceError::NotFound { .. } | ServiceError::Forbidden { .. })) => {
                    return Err(UiError::service(&error, &visitor.base));
                }
                Err(error) => (status_of(&error), Wrong::of(&error, POINTERS)),
            }
        }
    };
    let form = EndpointForm::of_new(&ui, &visitor, &app.to_string(), &typed, &wrong);
    Ok(page(status, &form))
}

pub(in crate::ui) async fn edit(
    State(ui): State<UiState>,
    visitor: Visitor,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, UiError> {
    let may = ui.service.require(&visitor.caller, Scope::Manage).await;
    may.map_err(|error| UiError::service(&error, &visitor.base))?;
    let (app, id) = endpoint_id((&app, &id), &visitor)?;
    let old = ui.service.endpoint(&visitor.caller, app, id).await;
    let old = old.map_err(|error| UiError::service(&error, &visitor.base))?;
    let form = EndpointForm::of(&ui, &visitor, &old, &Typed::of(&old), &Wrong::default());
    Ok(page(StatusCode::OK, &form))
}

pub(in crate::ui) async fn change(
    State(ui): State<UiState>,
    Path((app, id)): Path<(String, String)>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let (app, id) = endpoint_id((&app, &id), &visitor)?;
    let told = |error: ServiceError| UiError::service(&error, &visitor.base);
    let seen = ui.service.endpoint(&visitor.caller, app, id).await;
    let seen = seen.map_err(told)?;
    let (status, wrong) = match typed.patch(&seen) {
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Ok(patch) => {
            let version = Some(typed.version);
            let service = &ui.service;
            let changed = service.patch_endpoint(&visitor.caller, app, id, patch, version, None);
            match changed.await {
                Ok(_) => {
                    let back = format!("{}apps/{app}/endpoints/{id}", visitor.base);
                    return Ok(Redirect::to(&back).into_response());
                }
                Err(error @ (ServiceError::NotFound { .. } | ServiceError::Forbidden { .. })) => {
                    return Err(told(error));
                }
                Err(error) => (status_of(&error), Wrong::of(&error, POINTERS)),
            }
        }
    };
    let mut form = EndpointForm::of(&ui, &visitor, &seen, &typed, &wrong);
    form.was = typed.was.clone();
    if status == StatusCode::PRECONDITION_FAILED {
        let now = ui.service.endpoint(&visitor.caller, app, id).await;
        let now = now.map_err(told)?;
        let stored = fields(&Typed::of(&now), false, &Wrong::default());
        form.changed = changes(&typed.was, &stored, &form.fields);
        form.was = snapshot(&stored);
        form.version = now.version;
    }
    Ok(page(status, &form))
}
