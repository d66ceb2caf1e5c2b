//! Publishers that never stop until the server is gone, and remember what they were answered.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::http::{Api, Connection};
use crate::support::{SOON, within};

/// Publishers of single messages that repeat an unanswered one; those that give up; and batches.
const REPEATING: u64 = 2;
const FORGETFUL: u64 = 2;
const PUBLISHERS: u64 = REPEATING + FORGETFUL + 1;
const BATCH: u64 = 20;

/// What one publisher sends next, and what it has been answered.
#[derive(Debug)]
struct Publisher {
    number: u64,
    kind: Kind,
    sent: u64,
    /// Nonces that are unanswered and will be repeated.
    open: Vec<u64>,
    acknowledged: Vec<(u64, String)>,
    /// Counts the requests of all publishers as they are written.
    written: Arc<watch::Sender<u64>>,
}

/// How many requests the publishers have written since this was asked for.
#[derive(Debug, Clone)]
pub(super) struct Written {
    count: watch::Receiver<u64>,
    before: u64,
}

impl Written {
    /// Waits until so many have been written.
    pub(super) async fn reached(&self, wanted: u64) {
        let mut count = self.count.clone();
        let waiting = count.wait_for(|count| *count - self.before >= wanted);
        within(SOON, "requests of the publishers", waiting)
            .await
            .unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repeating,
    Forgetful,
    Batching,
}

impl Publisher {
    fn new(number: u64, written: &Arc<watch::Sender<u64>>) -> Self {
        let kind = match number {
            0..REPEATING => Kind::Repeating,
            number if number < REPEATING + FORGETFUL => Kind::Forgetful,
            _ => Kind::Batching,
        };
        Self {
            number,
            kind,
            sent: 0,
            open: Vec::new(),
            acknowledged: Vec::new(),
            written: Arc::clone(written),
        }
    }

    /// Numbers that no publisher has used before.
    fn next(&mut self) -> Vec<u64> {
        let count = match self.kind {
            Kind::Repeating | Kind::Forgetful => 1,
            Kind::Batching => BATCH,
        };
        let first = self.sent;
        self.sent += count;
        (first..self.sent)
            .map(|n| self.number * 1_000_000_000 + n)
            .collect()
    }

    /// Publishes these; whether it was answered.
    async fn publish(&mut self, api: &Api, app: &str, nonces: &[u64], on: &mut Connection) -> bool {
        let message = |nonce: &u64| json!({"eventType": "kill.test", "payload": payload(*nonce)});
        let (path, body) = match self.kind {
            Kind::Repeating | Kind::Forgetful => ("messages", message(&nonces[0])),
            Kind::Batching => {
                let messages: Vec<_> = nonces.iter().map(message).collect();
                ("messages/batch", json!({ "messages": messages }))
            }
        };
        let mut request = api.request("POST", &format!("/v1/apps/{app}/{path}"));
        if self.kind != Kind::Forgetful {
            request = request.header("idempotency-key", &format!("nonce-{}", nonces[0]));
        }
        let request = request.body(body.to_string().as_bytes());
        let answer = match on.write(&request.bytes()).await {
            Ok(()) => {
                self.written.send_modify(|count| *count += 1);
                on.reply().await
            }
            Err(error) => Err(error),
        };
        let Ok(reply) = answer else { return false };
        assert_eq!(reply.status, 202, "{reply:?}");
        let answer = reply.json();
        let ids: Vec<Value> = match answer["ids"].as_array() {
            Some(ids) => ids.clone(),
            None => vec![answer["id"].clone()],
        };
        assert_eq!(ids.len(), nonces.len(), "{answer}");
        for (nonce, id) in nonces.iter().zip(ids) {
            self.acknowledged
                .push((*nonce, id.as_str().unwrap().to_owned()));
        }
        true
    }

    /// Publishes until the server is gone.
    async fn run(mut self, api: Api, app: String) -> Self {
        let Ok(mut connection) = Connection::open(api.address).await else {
            return self;
        };
        loop {
            let nonces = self.next();
            if !self.publish(&api, &app, &nonces, &mut connection).await {
                if self.kind != Kind::Forgetful {
                    self.open = nonces;
                }
                return self;
            }
        }
    }
}

/// The payload of a nonce: one text, so that its bytes on the wire are known.
pub(super) fn payload(nonce: u64) -> Value {
    json!(format!("nonce-{nonce:012}"))
}

/// All publishers.
#[derive(Debug)]
pub(super) struct Publishers {
    app: String,
    all: Vec<Publisher>,
    written: Arc<watch::Sender<u64>>,
}

impl Publishers {
    pub(super) fn new(app: &str) -> Self {
        let written = Arc::new(watch::Sender::new(0));
        let one = |number| Publisher::new(number, &written);
        Self {
            app: app.to_owned(),
            all: (0..PUBLISHERS).map(one).collect(),
            written,
        }
    }

    /// Counts requests from now on.
    pub(super) fn written(&self) -> Written {
        let count = self.written.subscribe();
        let before = *count.borrow();
        Written { count, before }
    }

    /// Publishes over a connection each until the server is gone.
    pub(super) async fn run(&mut self, api: Api) {
        let mut running = JoinSet::new();
        for publisher in self.all.drain(..) {
            running.spawn(publisher.run(api.clone(), self.app.clone()));
        }
        self.all = running.join_all().await;
    }

    /// Repeats, with its key, what the last server did not answer.
    pub(super) async fn repeat(&mut self, api: &Api) {
        for publisher in &mut self.all {
            let open = std::mem::take(&mut publisher.open);
            if open.is_empty() {
                continue;
            }
            let mut connection = Connection::open(api.address).await.unwrap();
            let answered = publisher
                .publish(api, &self.app, &open, &mut connection)
                .await;
            assert!(answered, "a repeated request was not answered");
        }
    }

    /// Every nonce that was answered 202, with the id it got.
    pub(super) fn acknowledged(&self) -> HashMap<u64, &str> {
        let every = self.all.iter().flat_map(|one| &one.acknowledged);
        every.map(|(nonce, id)| (*nonce, id.as_str())).collect()
    }
}
