//! Dialects: other products' APIs, served as adapters over the same service.
//!
//! Whoever has a script or a receiver for such a product needs only another base URL. A dialect
//! owns everything below its base path: routes, shapes, error bodies and its OpenAPI document.
//! Nothing of it leaks below the API: its handlers, like those of `/v1`, extract, make one service
//! call and convert. A problem becomes the dialect's own error where it is written out, at the edge,
//! so that an unknown path or an unreadable body answers in the dialect too.

use axum::Router;
use axum::response::Response;

use super::ApiState;
use super::idempotency::{Alphabet, KeyScope};
use super::problem::Problem;

pub(super) mod hopae;
pub(super) mod kore;

/// A product whose API is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Hopae Connect.
    Hopae,
    /// KORE Wireless.
    Kore,
}

/// The dialect that owns a path.
pub(super) fn of(path: &str) -> Option<Dialect> {
    [Dialect::Hopae, Dialect::Kore].into_iter().find(|dialect| {
        path.strip_prefix(dialect.base())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Dialect {
    /// Everything below this path is the dialect's.
    const fn base(self) -> &'static str {
        match self {
            Self::Hopae => hopae::BASE,
            Self::Kore => kore::BASE,
        }
    }

    /// Where its OpenAPI document is.
    pub(super) const fn document(self) -> &'static str {
        match self {
            Self::Hopae => hopae::DOCUMENT,
            Self::Kore => kore::DOCUMENT,
        }
    }

    /// Writes a problem into its response as the dialect says such things.
    pub(super) fn render(self, problem: &Problem, response: &mut Response, request_id: &str) {
        match self {
            Self::Hopae => hopae::error::render(problem, response, request_id),
            Self::Kore => kore::problem::render(problem, response, request_id),
        }
    }
}

/// Which texts are idempotency keys on a path.
pub(super) fn key_alphabet(path: &str) -> Alphabet {
    match of(path) {
        Some(Dialect::Hopae) => Alphabet::Any,
        Some(Dialect::Kore) | None => Alphabet::Visible,
    }
}

/// What the idempotency keys of a path belong to.
pub(super) fn key_scope(path: &str) -> KeyScope {
    match of(path) {
        // Its page says so: two apps may use the same key.
        Some(Dialect::Hopae) => KeyScope::Path,
        Some(Dialect::Kore) | None => KeyScope::Workspace,
    }
}

/// Whether a key that cannot be one is refused on calls that keep no answer, too.
pub(super) fn checks_every_key(path: &str) -> bool {
    match of(path) {
        Some(Dialect::Hopae) => true,
        Some(Dialect::Kore) | None => false,
    }
}

/// The routes of all dialects.
pub(super) fn router() -> Router<ApiState> {
    hopae::router().merge(kore::router())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_owns_what_is_below_its_base() {
        for (path, owner) in [
            ("/connect/v1", Some(Dialect::Hopae)),
            ("/connect/v1/", Some(Dialect::Hopae)),
            ("/connect/v1/nowhere", Some(Dialect::Hopae)),
            ("/connect/v10/apps", None),
            ("/connect", None),
            ("/kore/v1/secrets", Some(Dialect::Kore)),
            ("/kore/v1x", None),
            ("/v1/apps", None),
        ] {
            assert_eq!(of(path), owner, "{path}");
        }
    }
}
