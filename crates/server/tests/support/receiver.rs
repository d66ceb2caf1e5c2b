//! A receiver on loopback that keeps every request as it came and answers as the test says.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::within_deadline;

/// A request as it was received.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    pub(crate) method: String,
    /// Path and query as they were in the request line.
    pub(crate) path: String,
    /// One entry for each header line, names in lower case, in the order of arrival of each name.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Captured {
    /// The value of a header that must stand on exactly one line.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.headers.iter().filter(|(known, _)| known == name);
        let (Some((_, value)), None) = (lines.next(), lines.next()) else {
            panic!("not exactly one line of {name}: {:?}", self.headers);
        };
        value
    }

    /// Its body, which must be UTF-8.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    async fn read(request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).unwrap();
            (name.to_string(), value.to_owned())
        });
        Self {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: headers.collect(),
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

/// How a receiver answers a request, perhaps later.
type Answer = dyn Fn(&Captured) -> Pin<Box<dyn Future<Output = StatusCode> + Send>> + Send + Sync;

/// A receiver; it stops listening when dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    captured: mpsc::UnboundedReceiver<Captured>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Accepts everything.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| StatusCode::NO_CONTENT).await
    }

    /// Answers each request with the status that `answer` gives it.
    pub(crate) async fn answering(
        answer: impl Fn(&Captured) -> StatusCode + Send + Sync + 'static,
    ) -> Self {
        Self::answering_later(move |captured| ready(answer(captured))).await
    }

    /// The same, where each answer is sent when its future has it.
    pub(crate) async fn answering_later<Later>(
        answer: impl Fn(&Captured) -> Later + Send + Sync + 'static,
    ) -> Self
    where
        Later: Future<Output = StatusCode> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keep, captured) = mpsc::unbounded_channel();
        let answer: Arc<Answer> = Arc::new(move |captured| Box::pin(answer(captured)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, keep.clone(), Arc::clone(&answer)));
            }
        });
        Self {
            address,
            captured,
            task,
        }
    }

    /// Its origin, without a slash at the end.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests that came and were not taken yet, in the order of their arrival.
    pub(crate) fn taken(&mut self) -> Vec<Captured> {
        std::iter::from_fn(|| self.captured.try_recv().ok()).collect()
    }

    /// The next request that was not taken yet. Requests wait here in the order of their arrival.
    pub(crate) async fn next(&mut self) -> Captured {
        within_deadline("a request arrives", self.captured.recv())
            .await
            .expect("the receiver listens as long as it lives")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection until its client ends it.
async fn serve(stream: TcpStream, keep: mpsc::UnboundedSender<Captured>, answer: Arc<Answer>) {
    let service = service_fn(move |request| {
        let (keep, answer) = (keep.clone(), Arc::clone(&answer));
        async move {
            let captured = Captured::read(request).await;
            let status = answer(&captured);
            // Nobody takes it any more when the test is over.
            let _ = keep.send(captured);
            let status = status.await;
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that breaks is the sender's to notice.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
