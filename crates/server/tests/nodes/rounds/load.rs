//! The load: clients that publish one message after the other, to whichever node answers, and one rotation a round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::judge::Judge;
use crate::support::{Api, within_deadline};

/// Clients that publish to the unordered endpoints; one more publishes to the ordered one.
const CLIENTS: usize = 3;

pub(super) struct Load {
    judge: Arc<Judge>,
    nodes: Arc<RwLock<Vec<Api>>>,
    over: Arc<AtomicBool>,
    acknowledged: watch::Receiver<usize>,
    clients: Vec<JoinHandle<()>>,
}

/// A node to ask, at the turn of `number`.
fn turn(nodes: &RwLock<Vec<Api>>, number: usize) -> Api {
    let nodes = nodes.read().unwrap();
    nodes[number % nodes.len()].clone()
}

impl Load {
    pub(super) fn start(judge: Arc<Judge>, nodes: Vec<Api>) -> Self {
        let nodes = Arc::new(RwLock::new(nodes));
        let over = Arc::new(AtomicBool::new(false));
        let (count, acknowledged) = watch::channel(0);
        let clients = (0..=CLIENTS).map(|client| {
            let (judge, nodes, over) = (Arc::clone(&judge), Arc::clone(&nodes), Arc::clone(&over));
            let count = count.clone();
            tokio::spawn(async move {
                let mut number = client;
                while !over.load(Ordering::SeqCst) {
                    let api = turn(&nodes, number);
                    number += 1;
                    if judge.publish(&api, client == CLIENTS).await {
                        count.send_modify(|count| *count += 1);
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let clients = clients.collect();
        Self {
            judge,
            nodes,
            over,
            acknowledged,
            clients,
        }
    }

    /// The nodes that there are now.
    pub(super) fn lead_to(&self, nodes: Vec<Api>) {
        *self.nodes.write().unwrap() = nodes;
    }

    /// Waits until so many more messages were acknowledged.
    pub(super) async fn more(&mut self, more: usize) {
        let wanted = *self.acknowledged.borrow() + more;
        let reached = self.acknowledged.wait_for(|count| *count >= wanted);
        within_deadline("messages are accepted", reached)
            .await
            .unwrap();
    }

    /// Rotates at once, by the same request at one node after the other until one answers it.
    pub(super) fn rotate(&self, round: usize, first: usize) -> JoinHandle<()> {
        let (judge, nodes) = (Arc::clone(&self.judge), Arc::clone(&self.nodes));
        tokio::spawn(async move {
            let keyring = judge.keyring(round);
            let path = format!("/v1/keyrings/{keyring}/rotations");
            let key = format!("round-{round}");
            let body = json!({ "mode": "immediate" }).to_string();
            let mut number = first;
            let rotated = async {
                loop {
                    let api = turn(&nodes, number);
                    number += 1;
                    let headers = [("idempotency-key", key.as_str())];
                    let asked = api.try_exchange(Method::POST, &path, &headers, body.clone());
                    if let Ok(answer) = asked.await
                        && answer.status() == StatusCode::CREATED
                    {
                        let view: Value = serde_json::from_slice(answer.body()).unwrap();
                        let value = view["secret"]["value"].as_str().unwrap();
                        return judge.rotated(round, value);
                    }
                    tokio::task::yield_now().await;
                }
            };
            within_deadline("a rotation is answered", rotated).await;
        })
    }

    pub(super) async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}
