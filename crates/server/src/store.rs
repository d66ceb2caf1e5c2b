//! Stores: engines behind the [`Store`](hookturn_core::store::Store) trait, the live view they keep,
//! and the sealing of what must not rest in plain text.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod copying;
mod encoding;
pub mod happened;
pub mod live;
#[cfg(any(test, feature = "conformance"))]
pub mod model;
pub mod outbox;
pub mod owned;
pub mod postgres;
pub mod seal;
pub mod sharing;
pub mod sqlite;
mod waiting;
