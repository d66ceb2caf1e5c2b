//! What these tests stand on: nodes, what they say of themselves, and receivers that many endpoints share.

use std::collections::{BTreeMap, BTreeSet};

use hookturn_verify::{Received, Scheme, Secret, Verifier};
use http::{Method, StatusCode};
use serde_json::json;

use crate::desk::Desk;
use crate::support::{Api, Captured, Endpoint, Receiver, Server, within_deadline};

/// All shards there are.
pub(crate) const SHARDS: u32 = 256;
/// The shortest lease that may be configured.
pub(crate) const LEASE: (&str, &str) = ("HOOKTURN_LEASE_SECONDS", "3");

/// By how many milliseconds a process has its clock wrong.
pub(crate) const CLOCK_SHIFT: &str = "HOOKTURN_TEST_CLOCK_SHIFT_MILLIS";

/// How many seconds after the end of its lease each node was taken over, the latest last.
pub(crate) async fn lateness_of_takeovers(desk: &Desk) -> Vec<f64> {
    let connected = tokio_postgres::connect(&desk.url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT extract(epoch FROM taken_over_at - lease_until)::float8 FROM hookturn.node
               WHERE taken_over_at IS NOT NULL ORDER BY taken_over_at";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A number that a node's metrics show.
pub(crate) async fn metric(api: &Api, name: &str) -> f64 {
    let answer = api
        .exchange(Method::GET, "/metrics", &[], String::new())
        .await;
    let text = String::from_utf8(answer.into_body().to_vec()).unwrap();
    let line = text.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == name).then_some(value)
    });
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

/// How many shards a node owns.
pub(crate) async fn shards(api: &Api) -> u32 {
    let owned = metric(api, "hookturn_shards_owned").await;
    format!("{owned}").parse().unwrap()
}

/// Waits until these nodes own every shard, each its share.
pub(crate) async fn until_shared(nodes: &[&Server]) {
    let shared = async {
        loop {
            let mut owned = Vec::new();
            for node in nodes {
                owned.push(shards(&node.api()).await);
            }
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            if owned.iter().sum::<u32>() == SHARDS && most - least <= 1 {
                return;
            }
        }
    };
    within_deadline("the nodes share the shards", shared).await;
}

/// Waits until a node says so of itself. Returns what it said.
pub(crate) async fn until_ready_is(api: &Api, wanted: StatusCode) -> String {
    let asked = async {
        loop {
            let answer = api
                .exchange(Method::GET, "/readyz", &[], String::new())
                .await;
            if answer.status() == wanted {
                return String::from_utf8(answer.into_body().to_vec()).unwrap();
            }
        }
    };
    within_deadline("readiness follows", asked).await
}

/// Many endpoints of one app, so that every node owns some; all of them lead to one receiver, each by a path of
/// its own.
pub(crate) struct Crowd {
    pub(crate) app: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) receiver: Receiver,
}

impl Crowd {
    pub(crate) async fn make(api: &Api, endpoints: usize, receiver: Receiver) -> Self {
        let app = api.create_app("shop").await;
        let mut made = Vec::new();
        for number in 0..endpoints {
            let asked = json!({ "url": format!("{}/{number}", receiver.origin()) });
            made.push(api.create_endpoint(&app, &asked).await);
        }
        Self {
            app,
            endpoints: made,
            receiver,
        }
    }

    /// What one message comes to: its id at each endpoint.
    pub(crate) fn deliveries_of(&self, message: &str) -> BTreeSet<(String, String)> {
        (0..self.endpoints.len())
            .map(|number| (format!("/{number}"), message.to_owned()))
            .collect()
    }

    /// Takes requests until all of these have come. Returns how often each came.
    pub(crate) async fn receive(
        &mut self,
        wanted: &BTreeSet<(String, String)>,
    ) -> BTreeMap<(String, String), usize> {
        let mut came = BTreeMap::new();
        let mut missing = wanted.clone();
        while !missing.is_empty() {
            let request = self.receiver.next().await;
            let delivery = delivery_of(&request);
            missing.remove(&delivery);
            *came.entry(delivery).or_default() += 1;
        }
        came
    }
}

/// Where a request went, and which message it carried.
pub(crate) fn delivery_of(request: &Captured) -> (String, String) {
    (
        request.path.clone(),
        request.header("webhook-id").to_owned(),
    )
}

/// Waits until nothing is due any more.
pub(crate) async fn until_settled(api: &Api, app: &str) {
    let path = format!("/v1/apps/{app}/deliveries?status=pending&limit=1");
    let settled = async {
        loop {
            let found = api.get(&path).await;
            if found["data"].as_array().unwrap().is_empty() {
                return;
            }
        }
    };
    within_deadline("everything is settled", settled).await;
}

/// Which of these secrets signed a request in the scheme `standard`; none if none did.
pub(crate) fn signer(request: &Captured, secrets: &[&str]) -> Option<usize> {
    let mut verifier = Verifier::new(Scheme::Standard);
    for secret in secrets {
        let secret = Secret::parse(secret).unwrap();
        verifier = verifier.secret("known", &secret).unwrap();
    }
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let received = Received {
        method: "POST",
        url: "",
        headers: &headers.as_slice(),
        body: &request.body,
    };
    let signed_at = request.header("webhook-timestamp").parse().unwrap();
    let verified = verifier.verify(&received, signed_at).ok()?;
    Some(verified.secret)
}
