//! The value of a secret, on a page of its own: after it was made, or on request.
//!
//! It is in the answer to the form, and to the very same form sent again (see `once`), and on no
//! page that can be asked for. A value that was asked for goes away by itself: the browser
//! is told to leave the page, with or without script.

use std::fmt;

use askama::Template;
use hookturn_core::rotation::Keyring;
use zeroize::Zeroizing;

use super::super::super::UiState;
use super::super::super::error::UiError;
use super::super::super::frame::{Frame, Part};
use super::super::super::ring::{Ring, SecretView};
use super::super::super::snippets::{Snippet, snippets};
use super::super::super::visitor::Visitor;
use crate::service::keyrings::SecretOnce;

/// Seconds after which a value that was asked for goes away.
pub(super) const SHOWN_SECONDS: u32 = 60;

/// The page.
#[derive(Template)]
#[template(path = "secret_value.html")]
pub struct SecretValue {
    /// Around it.
    pub frame: Frame,
    /// The keyring.
    pub ring: Ring,
    /// The secret.
    pub secret: SecretView,
    /// Its value.
    pub value: Zeroizing<String>,
    /// The same, as a link that saves it as a file.
    pub download: Zeroizing<String>,
    /// What receivers verify with, of an Ed25519 secret.
    pub public_key: Option<String>,
    /// Why it is shown.
    pub cause: Cause,
    /// Seconds until it goes away.
    pub shown_seconds: u32,
    /// How a receiver verifies.
    pub snippets: Vec<Snippet>,
}

impl fmt::Debug for SecretValue {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("secret", &self.secret.id)
            .finish_non_exhaustive()
    }
}

/// Why a value is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It is the first secret of its keyring.
    First,
    /// It was made, and waits.
    Staged {
        /// The rotation that brings it.
        rotation: String,
    },
    /// A rotation was opened.
    Rotated {
        /// The rotation.
        rotation: String,
        /// How it moves.
        mode: &'static str,
    },
    /// Somebody asked for it.
    Revealed,
}

impl Cause {
    /// Whether somebody asked for it.
    pub fn is_revealed(&self) -> bool {
        *self == Self::Revealed
    }

    /// The rotation that brings it.
    pub fn rotation(&self) -> Option<&str> {
        match self {
            Self::First | Self::Revealed => None,
            Self::Staged { rotation } | Self::Rotated { rotation, .. } => Some(rotation),
        }
    }

    /// What it means, in a sentence or two.
    pub fn words(&self) -> &'static str {
        match self {
            Self::First => "It signs from now on. Hand it to whoever runs the receiver.",
            Self::Staged { .. } | Self::Rotated { mode: "staged", .. } => {
                "Nothing changes for deliveries yet: hand it to whoever runs the receiver, then activate it."
            }
            Self::Rotated { mode: "proven", .. } => {
                "Deliveries go on as before. Hand it to whoever runs the receiver: the rotation finds out when it is there and activates it."
            }
            Self::Rotated {
                mode: "overlap", ..
            } => {
                "It signs already, and the old one stays live for a while: hand it to whoever runs the receiver before that ends."
            }
            Self::Rotated { .. } => {
                "It alone signs from now on: hand it to whoever runs the receiver at once."
            }
            Self::Revealed => "That it was shown, when and to which key, is in the audit log.",
        }
    }
}

impl SecretValue {
    pub(super) async fn of(
        ui: &UiState,
        visitor: &Visitor,
        keyring: &Keyring,
        once: &SecretOnce,
        cause: Cause,
    ) -> Result<Self, UiError> {
        let ring = Ring::of(ui, visitor, keyring).await?;
        let frame = Frame::new(ui, visitor, Part::Secrets, "The value of a secret");
        let secret = SecretView::new(&once.secret, ui.clock.now());
        let value = Zeroizing::new(once.value.expose().to_owned());
        let public_key = once.value.public_key().map(|key| key.to_string());
        let snippets = snippets_of(ui, visitor, &ring)?;
        Ok(Self::new(
            frame,
            ring,
            secret,
            (value, public_key),
            cause,
            snippets,
        ))
    }

    pub(super) fn new(
        frame: Frame,
        ring: Ring,
        secret: SecretView,
        (value, public_key): (Zeroizing<String>, Option<String>),
        cause: Cause,
        snippets: Vec<Snippet>,
    ) -> Self {
        let encoded = url::form_urlencoded::byte_serialize(value.as_bytes());
        let mut download = Zeroizing::new(String::with_capacity(64 + 3 * value.len()));
        download.push_str("data:text/plain;charset=utf-8,");
        // A form writes a space as `+`; nothing else differs.
        download.extend(encoded.map(|part| if part == "+" { "%20" } else { part }));
        Self {
            frame,
            ring,
            secret,
            value,
            download,
            public_key,
            cause,
            shown_seconds: SHOWN_SECONDS,
            snippets,
        }
    }
}

/// How the receivers of a keyring verify: by the preset of its first endpoint.
pub(super) fn snippets_of(
    ui: &UiState,
    visitor: &Visitor,
    ring: &Ring,
) -> Result<Vec<Snippet>, UiError> {
    let preset = ring.users.first().and_then(|user| user.preset.parse().ok());
    let preset = preset.unwrap_or_default();
    let names = ui.service.header_names(&visitor.caller, preset);
    let names = names.map_err(|error| UiError::service(&error, &visitor.base))?;
    Ok(snippets(preset, &names, ring.is_ed25519))
}
