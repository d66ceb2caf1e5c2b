//! Three receivers that write down every request, and what may be concluded from their books.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hookturn_verify::{Received, Scheme, Secret, Verifier};

use super::load::{Publishers, payload};
use super::rotations::Rotations;
use crate::support::Endpoint;
use crate::support::receiver::{Arrival, Receiver};

/// Every so-manieth nonce is refused by the flaky receiver for good, so that it is exhausted.
const NEVER_ACCEPTED: u64 = 97;
/// Of the others, every so-manieth is refused the first time.
const ACCEPTED_LATER: u64 = 5;

/// One request, and whether it was accepted.
struct Entry {
    arrival: Arrival,
    accepted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Steady,
    Flaky,
    Rotated,
}

struct Book {
    receiver: Receiver,
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// The books of all receivers, in the order of their endpoints.
pub(super) struct Books {
    all: Vec<Book>,
    /// At the end nobody refuses: else the last retries alone would open the breaker for minutes.
    forgiving: Arc<AtomicBool>,
}

impl Book {
    async fn open(manner: Manner, forgiving: Arc<AtomicBool>) -> Self {
        let entries = Arc::new(Mutex::new(Vec::<Entry>::new()));
        let book = Arc::clone(&entries);
        let seen = Mutex::new(HashSet::new());
        let receiver = Receiver::start(move |arrival| {
            let nonce = nonce(&arrival);
            let first = seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(nonce);
            let refused = manner == Manner::Flaky
                && !forgiving.load(Ordering::Relaxed)
                && (nonce.is_multiple_of(NEVER_ACCEPTED)
                    || (first && nonce.is_multiple_of(ACCEPTED_LATER)));
            let entry = Entry {
                arrival,
                accepted: !refused,
            };
            book.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry);
            async move { if refused { 500 } else { 204 } }
        })
        .await;
        Self { receiver, entries }
    }
}

/// The number in a payload.
fn nonce(arrival: &Arrival) -> u64 {
    let text: String = serde_json::from_slice(&arrival.body).unwrap();
    text.strip_prefix("nonce-").unwrap().parse().unwrap()
}

impl Books {
    pub(super) async fn open() -> Self {
        let forgiving = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        for manner in [Manner::Steady, Manner::Flaky, Manner::Rotated] {
            all.push(Book::open(manner, Arc::clone(&forgiving)).await);
        }
        Self { all, forgiving }
    }

    /// From now on every receiver accepts.
    pub(super) fn forgive(&self) {
        self.forgiving.store(true, Ordering::Relaxed);
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.all.iter().map(|book| book.receiver.url()).collect()
    }

    /// Which endpoint's secret is rotated.
    pub(super) fn rotated(&self) -> usize {
        self.all.len() - 1
    }

    /// Fails on anything that must not be; else counts what was seen.
    pub(super) fn judge(
        &self,
        publishers: &Publishers,
        rotations: &Rotations,
        endpoints: &[Endpoint],
        exhausted: &HashSet<(usize, String)>,
    ) -> String {
        let acknowledged = publishers.acknowledged();
        let (mut requests, mut again, mut late) = (0_usize, 0_usize, HashSet::new());
        let mut ids: HashMap<u64, String> = HashMap::new();
        for (at, book) in self.all.iter().enumerate() {
            let entries = book.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let mut accepted: HashSet<&str> = HashSet::new();
            for entry in entries.iter() {
                let arrival = &entry.arrival;
                let nonce = nonce(arrival);
                assert_eq!(arrival.body, payload(nonce).to_string().as_bytes());
                let id = ids.entry(nonce).or_insert_with(|| arrival.id().to_owned());
                assert_eq!(id, arrival.id(), "nonce {nonce} has two message ids");
                again += usize::from(entry.accepted && !accepted.insert(arrival.id()));
                if !acknowledged.contains_key(&nonce) {
                    late.insert(nonce);
                }
            }
            requests += entries.len();
            if at == self.rotated() {
                rotations.judge(entries.iter().map(|entry| &entry.arrival));
            } else {
                signed(entries.iter().map(|entry| &entry.arrival), &endpoints[at]);
            }
            for (nonce, id) in &acknowledged {
                assert!(
                    accepted.contains(id) || exhausted.contains(&(at, (*id).to_owned())),
                    "{id} (nonce {nonce}) was acknowledged and is lost to endpoint {at}"
                );
            }
        }
        for (nonce, id) in &acknowledged {
            let known = ids.get(nonce).map_or(*id, String::as_str);
            assert_eq!(known, *id, "nonce {nonce} arrived under another id");
        }
        let distinct: HashSet<_> = ids.values().collect();
        assert_eq!(distinct.len(), ids.len(), "an id has two payloads");
        assert!(!acknowledged.is_empty() && requests > 0, "no load at all");
        format!(
            "{} messages acknowledged, 0 lost, {} exhausted deliveries listed, {requests} requests, \
             {again} accepted more than once (same id), {} messages arrived that were never \
             acknowledged",
            acknowledged.len(),
            exhausted.len(),
            late.len(),
        )
    }
}

/// Every request is signed with the endpoint's one secret.
fn signed<'a>(arrivals: impl Iterator<Item = &'a Arrival>, endpoint: &Endpoint) {
    let secret = Secret::parse(&endpoint.secret).unwrap();
    let verifier = Verifier::new(Scheme::Standard)
        .secret("own", &secret)
        .unwrap();
    for arrival in arrivals {
        signer(&verifier, arrival);
    }
}

/// Which secret signed.
pub(super) fn signer(verifier: &Verifier, arrival: &Arrival) -> usize {
    let headers: Vec<(&str, &[u8])> = arrival
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let request = Received {
        method: "POST",
        url: "",
        headers: &headers.as_slice(),
        body: &arrival.body,
    };
    let verified = verifier.verify(&request, timestamp(arrival));
    match verified {
        Ok(verified) => verified.secret,
        Err(error) => panic!("{} is not signed by its endpoint: {error}", arrival.id()),
    }
}

/// The Unix seconds that were signed.
pub(super) fn timestamp(arrival: &Arrival) -> i64 {
    arrival.header("webhook-timestamp").parse().unwrap()
}
