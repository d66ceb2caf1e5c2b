//! Test events: what whoever sends one promises, and what comes of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hookturn_core::delivery::Attempt;
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::MessageId;

use super::{Caller, ServiceError};

/// A future that [`TestSender`] returns.
pub type TestFuture<'a> =
    Pin<Box<dyn Future<Output = Result<TestReport, ServiceError>> + Send + 'a>>;

/// Sends one test event to an endpoint and waits for what comes of it.
pub trait TestSender: Send + Sync {
    /// Sends a fresh message of type `hookturn.test`, signed as a delivery would be, once. Nothing
    /// is stored but what is learned of the receiver.
    fn send_test<'a>(&'a self, caller: &'a Caller, endpoint: Arc<Endpoint>) -> TestFuture<'a>;
}

/// What came of a test event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// The id the receiver saw.
    pub message: MessageId,
    /// What was sent and answered.
    pub attempt: Attempt,
    /// Whether a connection to the receiver stood, TLS included.
    pub connected: bool,
    /// What happened, and what to do about it, in a sentence for people.
    pub summary: String,
}
