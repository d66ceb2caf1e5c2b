//! Requests that finish although their client left.
//!
//! A handler is a future of its connection: when the client goes, hyper drops it wherever it waits. A
//! test event would have been sent and its answer not stored, and the same Idempotency-Key would send
//! another. So every request that may change something runs in a task of its own, from reading its body
//! to its last step, and the connection only waits for it:
//!
//! 1. A body that never ends, because the client left while it sent, ends its request as before.
//! 2. [`limits::LEFT_REQUESTS`] may go on without a client; one more is dropped where it waits, as every
//!    request was before: whoever opens and drops connections by the thousand is not promised anything.
//! 3. When the server stops, it waits for them as long as for deliveries: [`Finishing::ended`].
//!
//! Publishing without a key stays on its connection: it is one commit, which happens whole or not at
//! all whoever waits for it, and the busiest road there is.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::extract::{MatchedPath, Request};
use hookturn_core::limits;
use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::TaskTracker;

use super::{idempotency, router};

/// The requests that finish whoever waits for them. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Finishing {
    running: TaskTracker,
    left: Arc<Semaphore>,
}

impl Default for Finishing {
    fn default() -> Self {
        Self {
            running: TaskTracker::new(),
            left: Arc::new(Semaphore::new(limits::LEFT_REQUESTS)),
        }
    }
}

impl Finishing {
    /// Waits until none runs. For a server that takes no new ones.
    pub async fn ended(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Runs a request in a task of its own.
    pub(super) fn run<F>(&self, request: F) -> Attended<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let place = Place::default();
        let held = Arc::clone(&place);
        let task = self.running.spawn(async move {
            let answer = request.await;
            drop(held);
            answer
        });
        Attended {
            task,
            place,
            left: Arc::clone(&self.left),
        }
    }
}

/// Holds the permit of a request whose client left, until it ends.
type Place = Arc<OnceLock<OwnedSemaphorePermit>>;

/// A request in its task, for whoever waits for the answer.
pub(super) struct Attended<T> {
    task: JoinHandle<T>,
    place: Place,
    left: Arc<Semaphore>,
}

impl<T> Future for Attended<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.task).poll(context));
        Poll::Ready(match ended {
            // As if it had run here: the connection ends with it.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            ended => ended,
        })
    }
}

impl<T> Drop for Attended<T> {
    fn drop(&mut self) {
        if self.task.is_finished() {
            return;
        }
        match Arc::clone(&self.left).try_acquire_owned() {
            // Given back with the last of the two that hold the place. It was empty.
            Ok(permit) => drop(self.place.set(permit)),
            Err(_) => self.task.abort(),
        }
    }
}

/// Whether a request is one of those that finish.
pub(super) fn finishes(request: &Request) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return false;
    }
    let route = request.extensions().get::<MatchedPath>();
    let publishes = route.is_some_and(|route| is_publishing(route.as_str()));
    !publishes || request.headers().contains_key(idempotency::HEADER)
}

fn is_publishing(route: &str) -> bool {
    router::PUBLISHING.contains(&route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::workspace::Scope;
    use tokio::sync::oneshot;

    /// A request that says when it begins, waits to be told to go on, and says when it ends. What it
    /// held to say so is dropped with it.
    fn request() -> (
        impl Future<Output = ()> + Send,
        oneshot::Receiver<()>,
        oneshot::Sender<()>,
        oneshot::Receiver<()>,
    ) {
        let (begin, begun) = oneshot::channel();
        let (go_on, told) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let request = async move {
            begin.send(()).unwrap();
            told.await.unwrap();
            end.send(()).unwrap();
        };
        (request, begun, go_on, ended)
    }

    #[tokio::test]
    async fn a_request_goes_on_without_its_client_and_is_waited_for() {
        let finishing = Finishing::default();
        let (request, begun, go_on, ended) = request();
        let attended = finishing.run(request);
        begun.await.unwrap();
        drop(attended);
        assert_eq!(
            finishing.left.available_permits(),
            limits::LEFT_REQUESTS - 1
        );
        go_on.send(()).unwrap();
        finishing.ended().await;
        ended.await.unwrap();
        assert_eq!(finishing.left.available_permits(), limits::LEFT_REQUESTS);
    }

    #[tokio::test]
    async fn one_beyond_the_bound_is_dropped() {
        let finishing = Finishing::default();
        let taken = u32::try_from(limits::LEFT_REQUESTS).unwrap();
        let others = finishing.left.try_acquire_many(taken).unwrap();
        let (request, begun, go_on, ended) = request();
        let attended = finishing.run(request);
        begun.await.unwrap();
        drop(attended);
        ended.await.unwrap_err();
        finishing.ended().await;
        drop((others, go_on));
    }

    #[test]
    fn what_only_publishes_is_what_only_needs_the_scope_to_publish() {
        for route in router::ROUTES.iter().filter(|route| route.method == "post") {
            let publishes = route.scope == Some(Scope::Publish);
            assert_eq!(is_publishing(route.path), publishes, "{}", route.path);
        }
    }

    #[test]
    fn every_request_that_may_change_something_finishes() {
        for (method, key, wanted) in [
            ("GET", true, false),
            ("HEAD", true, false),
            ("POST", false, true),
            ("PATCH", false, true),
            ("DELETE", false, true),
            ("PUT", true, true),
        ] {
            let mut request = Request::builder().method(method).uri("/connect/v1/apps");
            if key {
                request = request.header(idempotency::HEADER, "k");
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            assert_eq!(finishes(&request), wanted, "{method}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_there_takes_no_place() {
        let finishing = Finishing::default();
        assert_eq!(finishing.run(async { 7 }).await.unwrap(), 7);
        assert_eq!(finishing.left.available_permits(), limits::LEFT_REQUESTS);
    }
}
