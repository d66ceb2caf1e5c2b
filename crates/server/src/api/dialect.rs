//! Other products' APIs over the same service, to the letter: a script that was written for one of
//! them needs another base URL and nothing else.
//!
//! A dialect is a module with its routes, its error body and its own OpenAPI document. What it shares
//! with the native API is everything below the letter: keys and scopes, idempotency, bounds.

use axum::Router;

use super::ApiState;

pub(super) mod kore;

/// The routes of every dialect.
pub(super) fn router() -> Router<ApiState> {
    kore::router()
}
