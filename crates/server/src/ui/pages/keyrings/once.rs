//! A form that makes a secret is answered once: sent again, because its answer was lost or its page was
//! loaded anew, it gets the same answer and makes nothing.
//!
//! As every form that makes something ([`super::super::super::once`]), and more strictly: it holds a text of its own
//! keyring, and a form that says other things by now is decided by the keyring's version. A secret that is erased meanwhile is not shown again.

use axum::response::Response;
use hookturn_core::id::{KeyringId, RotationId, SecretId};
use hookturn_core::rotation::{Rotation, SecretStatus};
use hookturn_verify::Secret;
use http::StatusCode;
use sha2::{Digest, Sha256};

use super::super::super::UiState;
use super::super::super::error::UiError;
use super::super::super::frame::page;
use super::super::super::once::{self, Once};
use super::super::super::visitor::Visitor;
use super::keyring;
use super::value::{Cause, SecretValue};
use crate::service::ServiceError;
use crate::service::idempotency::{self, Lookup};
use crate::service::keyrings::SecretOnce;

/// What to do with a form.
pub(super) enum Asked {
    /// Its first time: what is done is recorded with this.
    Fresh(Once),
    /// It was answered: the same answer.
    Again(Response),
    /// Nothing is known, or it says other things by now: its version decides.
    Other,
}

/// What is kept of an answer: ids and mode in words, then the value, which may hold spaces.
pub(super) fn kept(once: &SecretOnce, rotation: Option<&Rotation>, mode: &str) -> Vec<u8> {
    let id = rotation.map_or_else(|| "none".to_owned(), |rotation| rotation.id.to_string());
    let value = once.value.expose();
    format!("{} {id} {mode} {value}", once.secret.id).into_bytes()
}

fn read(kept: &str) -> Option<(SecretId, Cause, Secret)> {
    let mut parts = kept.splitn(4, ' ');
    let secret = parts.next()?.parse().ok()?;
    let rotation = parts.next()?.parse::<RotationId>().ok();
    let mode = parts.next()?;
    let value = Secret::parse(parts.next()?).ok()?;
    let cause = match (rotation.map(|id| id.to_string()), mode) {
        (None, _) => Cause::First,
        (Some(rotation), "created") => Cause::Staged { rotation },
        (Some(rotation), mode) => Cause::Rotated {
            rotation,
            mode: ["immediate", "overlap", "staged", "proven"]
                .into_iter()
                .find(|known| *known == mode)?,
        },
    };
    Some((secret, cause, value))
}

/// Looks whether a form of a keyring was answered before. `text` is its own, `says` what else it says.
pub(super) async fn asked(
    ui: &UiState,
    visitor: &Visitor,
    id: KeyringId,
    text: &str,
    says: &[&str],
) -> Result<Asked, UiError> {
    let told = |error: ServiceError| UiError::service(&error, &visitor.base);
    if text.is_empty() {
        return Ok(Asked::Other);
    }
    let caller = &visitor.caller;
    let path = format!("dashboard {} {id}", caller.key.id);
    let key = idempotency::key(caller.workspace, "POST", &path, text);
    let mut hash = Sha256::new();
    for part in says {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let fingerprint: [u8; 32] = hash.finalize().into();
    match ui
        .service
        .lookup(caller, key, fingerprint)
        .await
        .map_err(told)?
    {
        Lookup::Fresh(guard) => Ok(Asked::Fresh(Once::new(key, fingerprint, guard))),
        Lookup::Replay(kept) => again(ui, visitor, id, &kept).await,
        Lookup::InProgress => Err(told(once::in_progress())),
        Lookup::Mismatch => Ok(Asked::Other),
    }
}

async fn again(
    ui: &UiState,
    visitor: &Visitor,
    id: KeyringId,
    kept: &[u8],
) -> Result<Asked, UiError> {
    let Some((secret, cause, value)) = std::str::from_utf8(kept).ok().and_then(read) else {
        return Ok(Asked::Other);
    };
    let keyring = keyring(ui, visitor, id).await?;
    let Some(secret) = keyring.secret(secret).cloned() else {
        return Ok(Asked::Other);
    };
    if secret.status(ui.clock.now()) == SecretStatus::Destroyed {
        return Ok(Asked::Other);
    }
    let once = SecretOnce { secret, value };
    let shown = SecretValue::of(ui, visitor, &keyring, &once, cause).await?;
    Ok(Asked::Again(page(StatusCode::CREATED, &shown)))
}
