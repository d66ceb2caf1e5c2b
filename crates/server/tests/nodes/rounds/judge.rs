//! What was acknowledged, what came, and whether that is what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::Clock as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fleet::{Crowd, delivery_of, signer};
use crate::support::{Api, Endpoint, Receiver};

/// Endpoints of the app without order.
const ENDPOINTS: usize = 6;
/// How well a node whose clock is off knows the time, in milliseconds.
const PRECISION: i64 = 100;
/// The path of the ordered endpoint.
const ORDERED: &str = "/ordered";

/// The secrets of an endpoint, oldest first, and when each was known to be retired.
#[derive(Default)]
struct Secrets {
    values: Vec<String>,
    /// In milliseconds since the epoch; of all but the last.
    retired: Vec<i64>,
}

#[derive(Default)]
struct Known {
    /// What was acknowledged, with the time at which it was asked for, in order of the answers.
    acknowledged: Vec<(String, i64, bool)>,
    secrets: BTreeMap<String, Secrets>,
}

pub(super) struct Judge {
    apps: [String; 2],
    keyrings: Vec<(String, String)>,
    known: Mutex<Known>,
    receiver: Mutex<Receiver>,
}

fn now() -> i64 {
    SystemClock.now().as_millis()
}

impl Judge {
    pub(super) async fn make(api: &Api) -> Self {
        let crowd = Crowd::make(api, ENDPOINTS, Receiver::start().await).await;
        let ordered = api.create_app("in order").await;
        let url = format!("{}{ORDERED}", crowd.receiver.origin());
        let asked = json!({ "url": url, "ordered": true });
        let last = api.create_endpoint(&ordered, &asked).await;
        let paths = (0..ENDPOINTS).map(|number| format!("/{number}"));
        let endpoints: Vec<(String, Endpoint)> = paths
            .zip(crowd.endpoints)
            .chain([(ORDERED.to_owned(), last)])
            .collect();
        let secrets = endpoints.iter().map(|(path, endpoint)| {
            let first = Secrets {
                values: vec![endpoint.secret.value.clone()],
                retired: Vec::new(),
            };
            (path.clone(), first)
        });
        Self {
            apps: [crowd.app, ordered],
            known: Mutex::new(Known {
                secrets: secrets.collect(),
                ..Known::default()
            }),
            keyrings: endpoints
                .into_iter()
                .map(|(path, endpoint)| (path, endpoint.keyring_id))
                .collect(),
            receiver: Mutex::new(crowd.receiver),
        }
    }

    pub(super) fn apps(&self) -> &[String] {
        &self.apps
    }

    /// The keyring that is rotated in a round.
    pub(super) fn keyring(&self, round: usize) -> &str {
        &self.keyrings[round % self.keyrings.len()].1
    }

    /// The rotation of a round was answered.
    pub(super) fn rotated(&self, round: usize, value: &str) {
        let path = &self.keyrings[round % self.keyrings.len()].0;
        let mut known = self.known.lock().unwrap();
        let secrets = known.secrets.get_mut(path).unwrap();
        secrets.retired.push(now());
        secrets.values.push(value.to_owned());
    }

    /// Publishes a message. Returns whether it was acknowledged.
    pub(super) async fn publish(&self, api: &Api, ordered: bool) -> bool {
        let path = format!("/v1/apps/{}/messages", self.apps[usize::from(ordered)]);
        let body = r#"{"eventType":"order.paid","payload":{}}"#.to_owned();
        let asked = now();
        let Ok(answer) = api.try_exchange(Method::POST, &path, &[], body).await else {
            return false;
        };
        if answer.status() != StatusCode::ACCEPTED {
            let shown = String::from_utf8_lossy(answer.body());
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{shown}");
            return false;
        }
        let view: Value = serde_json::from_slice(answer.body()).unwrap();
        let id = view["id"].as_str().unwrap().to_owned();
        let mut known = self.known.lock().unwrap();
        known.acknowledged.push((id, asked, ordered));
        true
    }

    /// Judges what came, when nothing is due any more. Says what there was.
    pub(super) fn verdict(&self) -> String {
        let known = self.known.lock().unwrap();
        let came = self.receiver.lock().unwrap().taken();
        let asked: HashMap<&str, i64> = known
            .acknowledged
            .iter()
            .map(|(id, at, _)| (id.as_str(), *at))
            .collect();
        let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut in_order = Vec::new();
        for request in &came {
            let (path, id) = delivery_of(request);
            let secrets = &known.secrets[&path];
            let values: Vec<&str> = secrets.values.iter().map(String::as_str).collect();
            let by = signer(request, &values);
            let by = by.unwrap_or_else(|| panic!("{path} {id} is signed by nobody"));
            let signed_at: i64 = request.header("webhook-timestamp").parse().unwrap();
            if let Some(retired) = secrets.retired.get(by) {
                let late = signed_at * 1_000 > retired + PRECISION;
                let young = asked.get(id.as_str()).is_some_and(|asked| asked > retired);
                assert!(
                    !late && !young,
                    "{path} {id}: signed at {signed_at} with what was retired at {retired}"
                );
            }
            let count = seen.entry((path.clone(), id.clone())).or_default();
            *count += 1;
            if path == ORDERED && *count == 1 && asked.contains_key(id.as_str()) {
                in_order.push(id);
            }
        }
        let lost: BTreeSet<_> = known
            .acknowledged
            .iter()
            .flat_map(|(id, _, ordered)| {
                let paths: Vec<String> = if *ordered {
                    vec![ORDERED.to_owned()]
                } else {
                    (0..ENDPOINTS).map(|number| format!("/{number}")).collect()
                };
                paths.into_iter().map(move |path| (path, id.clone()))
            })
            .filter(|delivery| !seen.contains_key(delivery))
            .collect();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        let published = known.acknowledged.iter().filter(|(_, _, ordered)| *ordered);
        let published: Vec<_> = published.map(|(id, _, _)| id.clone()).collect();
        assert_eq!(in_order, published, "the order was not kept");
        let again = seen.values().filter(|count| **count > 1).count();
        format!(
            "{} messages acknowledged, 0 lost, {} of them in order, {} requests, {again} deliveries sent more than once",
            known.acknowledged.len(),
            published.len(),
            came.len()
        )
    }
}
