//! One secret: what is known of it, and what may be done to it, each with what it does.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::{KeyringId, SecretId};
use hookturn_core::workspace::RevealPolicy;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::super::super::UiState;
use super::super::super::error::UiError;
use super::super::super::frame::{Frame, Part, page};
use super::super::super::problems::{Fields, Problems};
use super::super::super::ring::{Ring, SecretView};
use super::super::super::snippets::Snippet;
use super::super::super::stale::Stale;
use super::super::super::visitor::{Sent, Visitor};
use super::value::{Cause, SHOWN_SECONDS, SecretValue, snippets_of};
use super::{Seen, given, id, keyring, stale};
use crate::service::ServiceError;
use crate::service::keyrings::ChangedSecret;

/// The fields of its forms.
const FIELDS: &Fields = &[("/name", "name"), ("/reason", "reason")];

/// The page.
#[derive(Debug, Template)]
#[template(path = "secret.html")]
pub struct OneSecret {
    /// Around it.
    pub frame: Frame,
    /// The keyring.
    pub ring: Ring,
    /// The secret.
    pub secret: SecretView,
    /// What it is called; what was typed instead.
    pub name: String,
    /// Whether the workspace lets it be shown.
    pub may_reveal: bool,
    /// What receivers verify with, of an Ed25519 secret.
    pub public_key: Option<String>,
    /// How a receiver verifies.
    pub snippets: Vec<Snippet>,
    /// Seconds for which a value is shown.
    pub shown_seconds: u32,
    /// What was wrong.
    pub problems: Problems,
    /// What happened meanwhile.
    pub stale: Option<Stale>,
}

/// What a path names.
type Ids = Path<(String, String)>;

fn ids(
    (keyring, secret): &(String, String),
    visitor: &Visitor,
) -> Result<(KeyringId, SecretId), UiError> {
    Ok((
        id(keyring, "keyring", visitor)?,
        id(secret, "secret", visitor)?,
    ))
}

impl OneSecret {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        (ring, secret): (KeyringId, SecretId),
    ) -> Result<Self, UiError> {
        let told = |error: ServiceError| UiError::service(&error, &visitor.base);
        let keyring = keyring(ui, visitor, ring).await?;
        let missing = || told(ServiceError::not_found("secret"));
        let found = keyring.secret(secret).ok_or_else(missing)?;
        let caller = &visitor.caller;
        let workspace = ui.service.workspace(caller, caller.workspace).await;
        let settings = workspace.map_err(told)?.settings.clone();
        let public_key = ui.service.public_key(caller, ring, secret).await;
        let ring = Ring::of(ui, visitor, &keyring).await?;
        let view = SecretView::new(found, ui.clock.now());
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::Secrets, &view.name),
            name: found.name.clone().unwrap_or_default(),
            may_reveal: settings.reveal_secrets == RevealPolicy::Allowed,
            public_key: public_key.map_err(told)?.map(|key| key.to_string()),
            snippets: snippets_of(ui, visitor, &ring)?,
            shown_seconds: SHOWN_SECONDS,
            secret: view,
            ring,
            problems: Problems::default(),
            stale: None,
        })
    }

    async fn refused(
        ui: &UiState,
        visitor: &Visitor,
        ids: (KeyringId, SecretId),
        error: &ServiceError,
        seen: Seen,
    ) -> Result<(Self, StatusCode), UiError> {
        if let ServiceError::PreconditionFailed { .. } = error {
            let mut shown = Self::of(ui, visitor, ids).await?;
            let reload = format!("keyrings/{}/secrets/{}", ids.0, ids.1);
            shown.stale = Some(stale(ui, visitor, ids.0, seen.seen, reload).await?);
            return Ok((shown, StatusCode::PRECONDITION_FAILED));
        }
        let (problems, status) = Problems::refused(error, visitor, FIELDS)?;
        let mut shown = Self::of(ui, visitor, ids).await?;
        shown.problems = problems;
        Ok((shown, status))
    }

    /// To the secret's page after a change, or this page again with what was wrong.
    async fn answer(
        ui: &UiState,
        visitor: &Visitor,
        ids: (KeyringId, SecretId),
        seen: Seen,
        changed: Result<ChangedSecret, ServiceError>,
    ) -> Result<Response, UiError> {
        match changed {
            Ok(_) => {
                let to = format!("{}keyrings/{}/secrets/{}", visitor.base, ids.0, ids.1);
                Ok(Redirect::to(&to).into_response())
            }
            Err(error) => {
                let (shown, status) = Self::refused(ui, visitor, ids, &error, seen).await?;
                Ok(page(status, &shown))
            }
        }
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(path): Ids,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let ids = ids(&path, &visitor)?;
    Ok(page(
        StatusCode::OK,
        &OneSecret::of(&ui, &visitor, ids).await?,
    ))
}

pub(in crate::ui) async fn reveal(
    State(ui): State<UiState>,
    Path(path): Ids,
    sent: Sent<Seen>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let ids = ids(&path, &visitor)?;
    let revealed = ui
        .service
        .reveal_secret(&visitor.caller, ids.0, ids.1)
        .await;
    let once = match revealed {
        Ok(once) => once,
        Err(error) => {
            let (shown, status) = OneSecret::refused(&ui, &visitor, ids, &error, fields).await?;
            return Ok(page(status, &shown));
        }
    };
    let keyring = keyring(&ui, &visitor, ids.0).await?;
    let shown = SecretValue::of(&ui, &visitor, &keyring, &once, Cause::Revealed).await?;
    let mut response = page(StatusCode::OK, &shown);
    let back = format!(
        "{SHOWN_SECONDS}; url={}keyrings/{}/secrets/{}",
        visitor.base, ids.0, ids.1
    );
    if let Ok(back) = HeaderValue::from_str(&back) {
        response.headers_mut().insert(header::REFRESH, back);
    }
    Ok(response)
}

/// The form of a name.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct Rename {
    version: u64,
    seen: i64,
    #[serde(default)]
    name: String,
}

pub(in crate::ui) async fn rename(
    State(ui): State<UiState>,
    Path(path): Ids,
    sent: Sent<Rename>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let ids = ids(&path, &visitor)?;
    let name = given(&fields.name);
    let version = Some(fields.version);
    let renamed = ui
        .service
        .rename_secret(&visitor.caller, ids.0, ids.1, name, version, None)
        .await;
    let Err(error) = renamed else {
        let to = format!("{}keyrings/{}", visitor.base, ids.0);
        return Ok(Redirect::to(&to).into_response());
    };
    let seen = Seen {
        version: fields.version,
        seen: fields.seen,
    };
    let (mut shown, status) = OneSecret::refused(&ui, &visitor, ids, &error, seen).await?;
    shown.name = fields.name;
    Ok(page(status, &shown))
}

pub(in crate::ui) async fn destroy(
    State(ui): State<UiState>,
    Path(path): Ids,
    sent: Sent<Seen>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let ids = ids(&path, &visitor)?;
    let version = Some(fields.version);
    let destroyed = ui
        .service
        .destroy_secret(&visitor.caller, ids.0, ids.1, version, None)
        .await;
    OneSecret::answer(&ui, &visitor, ids, fields, destroyed).await
}
