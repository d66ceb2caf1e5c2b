//! A store with many deliveries, written by the store's own code as the server would have: accepted, sent,
//! finished. Nothing is sent; the server that owns the store must be stopped.
//!
//! What is in it: the last twenty days, evenly. Half of the messages are one app's, the others are spread
//! over all apps. One of a hundred deliveries was given up, one of a thousand messages is of a rare type,
//! and the newest of the large app wait for an endpoint that is paused.
//!
//! A database gets another filling: one day of one endpoint's messages, all of them settled, and a message in each
//! day before, so that its partitions are there. [`crate::stored`] makes the other days from that one.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hookturn::store::live::Live;
use hookturn::store::postgres::{PostgresOptions, PostgresStore, Sharing, Target};
use hookturn::store::sqlite::{SqliteOptions, SqliteStore};
use hookturn::telemetry::{SystemClock, SystemEntropy};
use hookturn_core::delivery::{
    Answer, Attempt, Exchange, ExchangeReason, ExchangeResult, ExhaustedReason, Next, SignedWith,
    Timings,
};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, Sequence};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::{Accept, Due, Finish, Hint, HintSink, NewMessage, Store};
use hookturn_core::time::{Clock, DAY, Timestamp};

use crate::number::Error;

/// Messages that are stored together.
const BLOCK: u64 = 4_000;
/// How far back the messages go: less than the shortest usual retention, or they would be removed.
pub(crate) const DAYS: u64 = 20;
/// The common event types.
const TYPES: usize = 20;
/// One message of so many is of the rare type, and one delivery of so many was given up.
const RARE: u64 = 1_000;
const GIVEN_UP: u64 = 100;
/// Deliveries that wait, at most, and at most one of so many.
const WAITING: u64 = 10_000;
const WAITING_SHARE: u64 = 20;
/// How long an attempt took.
const TOOK_MILLIS: u32 = 12;
/// An event type that hardly any message has.
pub(crate) const RARE_TYPE: &str = "customer.erased";
/// One that many have.
pub(crate) const COMMON_TYPE: &str = "order.updated.03";

/// What pages are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Filled {
    /// The app with half of all messages.
    pub(crate) large_app: ClientId,
    /// Its endpoint that gets them.
    pub(crate) busy: EndpointId,
    /// Its endpoint that is paused and has only what waits.
    pub(crate) paused: EndpointId,
    /// One of the other apps.
    pub(crate) small_app: ClientId,
    /// A delivery in the middle of all, and its message.
    pub(crate) middle: (DeliveryId, MessageId),
    /// When that was made.
    pub(crate) middle_at: Timestamp,
}

/// Nobody sends what is stored here.
struct Nobody;

impl HintSink for Nobody {
    fn hint(&self, _: Vec<Hint>) {}
}

struct Filler<S> {
    store: S,
    live: Arc<Live>,
    types: Vec<EventType>,
    rare: EventType,
    /// The endpoint of each app; the first one is the large app's.
    endpoints: Vec<Arc<Endpoint>>,
    /// The one with what waits, where something does.
    paused: Option<Arc<Endpoint>>,
    payload: Bytes,
}

/// Deliveries that are spread evenly over a time. Later ones are written after earlier ones.
struct Span {
    begin: Timestamp,
    millis: u64,
    deliveries: u64,
    sequence: Sequence,
}

impl Span {
    fn new(begin: Timestamp, millis: u64, deliveries: u64) -> Self {
        Self {
            begin,
            millis,
            deliveries,
            sequence: Sequence::default(),
        }
    }
}

/// Fills the store of a server that was stopped; its apps are known by `large_app` and `paused`.
pub(crate) async fn fill(
    database: &Path,
    (large_app, paused): (&str, &str),
    payload: Bytes,
    deliveries: u64,
) -> Result<Filled, Error> {
    let filler = Filler::open(database, (large_app, paused), payload)?;
    let begin = SystemClock.now().before(DAYS * DAY);
    let middle = filler
        .write(&Span::new(begin, DAYS * DAY, deliveries))
        .await?;
    let paused = filler.paused.as_ref().ok_or("nothing waits")?.id;
    let small = filler.endpoints.last().ok_or("there is no app")?;
    Ok(Filled {
        large_app: filler.endpoints[0].app,
        busy: filler.endpoints[0].id,
        paused,
        small_app: small.app,
        middle: (middle.deliveries[0].0, middle.message.id),
        middle_at: middle.message.accepted_at,
    })
}

/// Writes the messages of one endpoint into a database that no server works on: `deliveries` of them within the day
/// that begins then, and one in each of the days before.
pub(crate) async fn fill_day(
    url: &str,
    endpoint: &str,
    payload: Bytes,
    (begin, deliveries): (Timestamp, u64),
) -> Result<(), Error> {
    let live = Arc::new(Live::default());
    let store = PostgresStore::open(PostgresOptions {
        target: Target::parse(url)?,
        live: Arc::clone(&live),
        hints: Arc::new(Nobody),
        sharing: Sharing::default(),
    })
    .await?;
    let endpoint = live
        .endpoint(endpoint.parse()?)
        .ok_or("the endpoint is gone")?;
    let filler = Filler::of(store, live, (vec![endpoint], None), payload)?;
    for day in (1..DAYS).rev() {
        let begin = begin.before(day * DAY);
        filler.write(&Span::new(begin, DAY, 1)).await?;
    }
    filler.write(&Span::new(begin, DAY, deliveries)).await?;
    filler.store.close().await?;
    Ok(())
}

impl Filler<SqliteStore> {
    fn open(
        database: &Path,
        (large_app, paused): (&str, &str),
        payload: Bytes,
    ) -> Result<Self, Error> {
        let live = Arc::new(Live::default());
        let store = SqliteStore::open(SqliteOptions {
            path: database.to_owned(),
            live: Arc::clone(&live),
            hints: Arc::new(Nobody),
        })?;
        let (large_app, paused): (ClientId, EndpointId) = (large_app.parse()?, paused.parse()?);
        let paused = live.endpoint(paused).ok_or("the paused endpoint is gone")?;
        let mut endpoints = live.all_endpoints();
        endpoints.retain(|endpoint| endpoint.id != paused.id);
        endpoints.sort_by_key(|endpoint| (endpoint.app != large_app, endpoint.id));
        if endpoints.is_empty() {
            return Err("the large app has no endpoint".into());
        }
        Self::of(store, live, (endpoints, Some(paused)), payload)
    }
}

impl<S: Store> Filler<S> {
    fn of(
        store: S,
        live: Arc<Live>,
        (endpoints, paused): (Vec<Arc<Endpoint>>, Option<Arc<Endpoint>>),
        payload: Bytes,
    ) -> Result<Self, Error> {
        let types = (0..TYPES).map(|number| EventType::new(&format!("order.updated.{number:02}")));
        Ok(Self {
            store,
            live,
            types: types.collect::<Result<_, _>>()?,
            rare: EventType::new(RARE_TYPE)?,
            endpoints,
            paused,
            payload,
        })
    }

    /// Writes all deliveries of a span, and returns one in its middle.
    async fn write(&self, span: &Span) -> Result<NewMessage, Error> {
        let mut middle = None;
        let mut finishing = None;
        let mut from = 0;
        while from < span.deliveries {
            let until = (from + BLOCK).min(span.deliveries);
            let messages: Vec<NewMessage> = (from..until)
                .map(|number| self.message(span, number))
                .collect();
            if (from..until).contains(&(span.deliveries / 2)) {
                middle = messages.first().cloned();
            }
            let finishes: Vec<Finish> = (from..until)
                .zip(&messages)
                .filter_map(|(number, message)| self.finish(span, number, message))
                .collect();
            let accept = Accept {
                messages,
                idempotency: None,
            };
            self.store.accept(accept).await?;
            // One block is finished while the next one is made.
            if let Some(finishing) = finishing.replace(self.store.finish(finishes, Vec::new())) {
                finishing.await?;
            }
            from = until;
        }
        if let Some(finishing) = finishing {
            finishing.await?;
        }
        middle.ok_or_else(|| "no delivery was asked for".into())
    }

    /// For whom a delivery waits; nobody if it is settled.
    fn waits(&self, span: &Span, number: u64) -> Option<&Endpoint> {
        let waiting = WAITING.min(span.deliveries / WAITING_SHARE);
        let waits = number >= span.deliveries - waiting;
        self.paused.as_deref().filter(|_| waits)
    }

    fn endpoint(&self, span: &Span, number: u64) -> &Endpoint {
        if let Some(paused) = self.waits(span, number) {
            return paused;
        }
        let others = self.endpoints.len() as u64 - 1;
        if others == 0 || number.is_multiple_of(2) {
            return &self.endpoints[0];
        }
        // A stride that is prime to every usual number of apps: neighbours are of different apps.
        let other = (number / 2).wrapping_mul(7_919) % others;
        &self.endpoints[1 + usize::try_from(other).unwrap_or_default()]
    }

    fn message(&self, span: &Span, number: u64) -> NewMessage {
        let endpoint = self.endpoint(span, number);
        let at = span.begin.after(number * span.millis / span.deliveries);
        let event_type = if number % RARE == RARE - 1 {
            &self.rare
        } else {
            &self.types[usize::try_from(number % TYPES as u64).unwrap_or_default()]
        };
        let entropy = &SystemEntropy;
        let message = Message {
            id: MessageId::at_place(span.sequence.next(at), entropy),
            workspace: endpoint.workspace,
            app: endpoint.app,
            event_type: event_type.clone(),
            event_id: None,
            payload: self.payload.clone(),
            accepted_at: at,
        };
        let delivery = DeliveryId::at_place(span.sequence.next(at), entropy);
        NewMessage {
            message: Arc::new(message),
            deliveries: vec![(delivery, endpoint.id)],
        }
    }

    /// What became of the delivery; `None` while it waits.
    fn finish(&self, span: &Span, number: u64, new: &NewMessage) -> Option<Finish> {
        if self.waits(span, number).is_some() {
            return None;
        }
        let (delivery, endpoint) = new.deliveries[0];
        let at = new.message.accepted_at;
        let (status, next) = if number % GIVEN_UP == GIVEN_UP / 2 {
            (503, Next::Exhausted(ExhaustedReason::AttemptsUsed))
        } else {
            (204, Next::Delivered)
        };
        Some(Finish {
            due: Due {
                delivery,
                endpoint,
                due_at: at,
                not_before: at,
                attempts: 0,
                attempts_before_requeue: 0,
                message: Arc::clone(&new.message),
            },
            attempt: Some(self.attempt(self.endpoint(span, number), at, status)),
            next,
            keeps_place: false,
            at: at.after(u64::from(TOOK_MILLIS)),
        })
    }

    fn attempt(&self, endpoint: &Endpoint, at: Timestamp, status: u16) -> Attempt {
        let keyring = self.live.keyring(endpoint.keyring);
        let secrets = keyring.iter().flat_map(|keyring| &keyring.secrets);
        let signed_with = secrets.map(|secret| SignedWith {
            secret: secret.id,
            fingerprint: secret.fingerprint,
        });
        let exchange = Exchange {
            reason: ExchangeReason::Steady,
            signed_with: signed_with.collect(),
            timestamp: at.as_seconds(),
            signature: format!("v1,{}=", "q".repeat(43)),
            result: ExchangeResult::Answered(Answer {
                status,
                headers: vec![("content-length".to_owned(), "0".to_owned())],
                body: Vec::new(),
                truncated: false,
                retry_after_millis: None,
            }),
            timings: Timings::default(),
            resent: false,
        };
        Attempt {
            number: 1,
            started_at: at,
            duration_millis: TOOK_MILLIS,
            exchanges: vec![exchange],
        }
    }
}
