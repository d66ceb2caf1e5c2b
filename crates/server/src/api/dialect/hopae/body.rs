//! Request bodies of the dialect, and what its errors say about them.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use hookturn_core::limits;
use serde::Deserialize;
use serde_json::Value;

use super::super::super::json::{self, Nothing};
use super::super::super::problem::Problem;

/// A request body, read as JSON whatever it is declared as. It may hold secrets, so it has no
/// `Debug`.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        json::collect(request, limits::BODY_BYTES).await.map(Self)
    }
}

impl Body {
    /// The body as a `T`. Without one, what is missing is the body.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        if self.0.trim_ascii().is_empty() {
            return Err(Problem::missing_field("", "is missing: send a JSON object"));
        }
        json::parse(&self.0).map_err(|problem| {
            // No body has this field, and whoever sends it wants something that exists.
            match problem.errors().first().and_then(|e| e.pointer.clone()) {
                Some(pointer) if pointer.ends_with("/secret") => self.locate(Problem::field(
                    pointer,
                    "cannot be set: POST …/rotate-secret makes a new one",
                )),
                Some(_) | None => self.locate(problem),
            }
        })
    }

    /// The same bytes for every body that says nothing: none, white space, `{}`.
    pub(super) fn canonical(&self) -> &[u8] {
        if self.says_nothing() { b"" } else { &self.0 }
    }

    /// Refuses a body that says something.
    pub(super) fn must_be_empty(&self) -> Result<(), Problem> {
        if self.says_nothing() {
            return Ok(());
        }
        self.parse::<Nothing>().map(drop)
    }

    fn says_nothing(&self) -> bool {
        self.0.trim_ascii().is_empty() || json::parse::<Nothing>(&self.0).is_ok()
    }

    /// Adds the value that was given for the field a problem is about. Texts are left out: a secret
    /// may stand anywhere in a body.
    pub(super) fn locate(&self, problem: impl Into<Problem>) -> Problem {
        let problem = problem.into();
        let pointer = problem.errors().first().and_then(|e| e.pointer.clone());
        let given = pointer.and_then(|pointer| {
            let body: Value = serde_json::from_slice(&self.0).ok()?;
            body.pointer(&pointer)
                .filter(|value| value.is_number() || value.is_boolean())
                .cloned()
        });
        match given {
            Some(value) => problem.with("value", value),
            None => problem,
        }
    }
}
