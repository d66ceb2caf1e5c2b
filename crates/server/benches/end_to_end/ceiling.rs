//! The ceiling: sign and POST with nothing stored, by the client that the server delivers with, to the
//! same receiver, over as many connections, on two threads.
//!
//! It is measured right before and right after every run, and the report divides by the mean of both:
//! absolute rates belong to a machine and a moment, their ratio travels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hookturn::outbound::{
    AddressPolicy, Client, ClientConfig, Request, Sending, SystemResolver, Target,
};
use hookturn::telemetry::SystemClock;
use hookturn_core::id::MessageId;
use hookturn_core::time::Clock;
use hookturn_verify::{Content, Scheme, Secret, Signer, sign};
use http::{HeaderMap, HeaderValue, Method};
use tokio::time::{Instant, sleep_until};

use crate::api::payload;
use crate::number::{Epoch, Error, rate};
use crate::receiver::Receiver;

const THREADS: usize = 2;
/// Connecting and filling caches, before counting starts.
const WARM_UP: Duration = Duration::from_millis(250);
/// Time for one exchange, over connect and answer.
const TIMEOUT_MILLIS: u64 = 10_000;

/// Measures requests a second over this many connections for about this long.
pub(crate) async fn measure(
    connections: usize,
    payload_bytes: usize,
    time: Duration,
    epoch: Epoch,
) -> Result<f64, Error> {
    let receiver = Receiver::start(epoch)?;
    let began = Instant::now();
    let ends = began + WARM_UP + time;
    let sender = Arc::new(Sender::new(&receiver.url(0), payload_bytes)?);
    let threads = (0..THREADS)
        .map(|thread| {
            let share = (connections + thread) / THREADS;
            start_thread(Arc::clone(&sender), share, ends)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    sleep_until(began + WARM_UP).await;
    let (from, first) = (Instant::now(), receiver.count());
    sleep_until(ends).await;
    let (elapsed, last) = (from.elapsed(), receiver.count());
    for thread in threads {
        match thread.join() {
            Ok(finished) => finished?,
            Err(_) => return Err("a thread of the ceiling panicked".into()),
        }
    }
    Ok(rate(last - first, elapsed))
}

fn start_thread(
    sender: Arc<Sender>,
    connections: usize,
    ends: Instant,
) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name("ceiling".to_owned())
        .spawn(move || runtime.block_on(send_until(sender, connections, ends)))?;
    Ok(thread)
}

async fn send_until(sender: Arc<Sender>, connections: usize, ends: Instant) -> Result<(), Error> {
    let client = Arc::new(Client::new(Arc::clone(&sender.config)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (sender, client) = (Arc::clone(&sender), Arc::clone(&client));
        tasks.spawn(async move {
            while Instant::now() < ends {
                let exchange = client.send(sender.request(), || sender.headers()).await?;
                if let Err(failure) = exchange.result {
                    return Err(format!("the ceiling's request failed: {failure:?}").into());
                }
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }
    Ok(())
}

/// Makes signed requests as a delivery would.
struct Sender {
    config: Arc<ClientConfig>,
    target: Arc<Target>,
    url: String,
    signer: Signer,
    body: Bytes,
    sent: AtomicU64,
}

impl Sender {
    fn new(url: &str, payload_bytes: usize) -> Result<Self, Error> {
        let policy = AddressPolicy {
            allow_nets: vec!["127.0.0.0/8".parse()?],
            allow_http: true,
        };
        let config = ClientConfig::new(policy, Arc::new(SystemResolver::new()), None)?;
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
        Ok(Self {
            config: Arc::new(config),
            target: Arc::new(Target::new(&url.parse()?)?),
            url: url.to_owned(),
            signer: Signer::new(Scheme::Standard, &secret)?,
            body: Bytes::from(payload(payload_bytes)),
            sent: AtomicU64::new(0),
        })
    }

    fn request(&self) -> Request {
        Request {
            method: Method::POST,
            target: Arc::clone(&self.target),
            body: self.body.clone(),
            timeout_millis: TIMEOUT_MILLIS,
            connect_timeout_millis: TIMEOUT_MILLIS,
            sending: Sending::AtLeastOnce,
        }
    }

    fn headers(&self) -> Result<HeaderMap, Error> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let id = MessageId::from_bytes(u128::from(number).to_be_bytes()).to_string();
        let timestamp = SystemClock.now().as_seconds();
        let content = Content {
            id: &id,
            timestamp,
            method: "POST",
            url: &self.url,
            body: &self.body,
        };
        let signature = sign(Scheme::Standard, &[&self.signer], &content)?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert("webhook-id", HeaderValue::try_from(id)?);
        headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
        headers.insert("webhook-signature", HeaderValue::try_from(signature)?);
        Ok(headers)
    }
}
