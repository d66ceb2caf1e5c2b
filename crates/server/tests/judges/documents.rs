//! Schemathesis, which knows an API only by its OpenAPI document, examines the running server against
//! every document that it serves: no 5xx, no status, header or body that the document does not promise,
//! nothing accepted that the document forbids, nothing refused that it allows.
//!
//! The server is real and filled before, so that made-up requests meet real apps, endpoints, messages
//! and secrets. It can deliver to one receiver on loopback and is never given another target: see
//! `tests/judges/schemathesis/hooks.py`. What is left out, and why, is in `schemathesis.toml` beside it.
//!
//! By hand, for longer, or elsewhere:
//! ```text
//! HOOKTURN_SCHEMATHESIS_EXAMPLES=500 HOOKTURN_SCHEMATHESIS_SEED=7 cargo xtask test
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hookturn::telemetry::SystemClock;
use hookturn_core::time::{Clock as _, Millis};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::panel::installed;
use crate::support::{Api, Receiver, Server};

/// A document that the server serves.
struct Document {
    name: &'static str,
    /// Where it is served, without a key.
    path: &'static str,
    /// What stands before its paths.
    prefix: &'static str,
    /// The key it is examined with: the one that may do most.
    key: &'static str,
}

/// An operator's key, which may also make workspaces and rotate the master key.
const OPERATOR_KEY: &str = "sk_operator_of_the_running_server_0000000001";

/// Every document. One that is not served fails its test.
const DOCUMENTS: &[Document] = &[
    Document {
        name: "native",
        path: "/openapi.json",
        prefix: "",
        key: OPERATOR_KEY,
    },
    Document {
        name: "hopae",
        path: "/connect/v1/openapi.json",
        prefix: "",
        key: OPERATOR_KEY,
    },
    Document {
        name: "kore",
        path: "/kore/v1/openapi.json",
        prefix: "",
        key: OPERATOR_KEY,
    },
];

/// Examples of each operation and phase. With these a document takes half a minute on a quiet machine.
const EXAMPLES: &str = "12";
const SEED: &str = "20261121";

const DAY: Millis = 24 * 60 * 60 * 1_000;

/// Longest examination with the default examples, on a busy machine; more examples get more.
const LONGEST: Duration = Duration::from_mins(9);

#[tokio::test]
async fn the_native_api_keeps_to_its_document() {
    examine("native").await;
}

#[tokio::test]
async fn the_hopae_dialect_keeps_to_its_document() {
    examine("hopae").await;
}

#[tokio::test]
async fn the_kore_dialect_keeps_to_its_document() {
    examine("kore").await;
}

/// Every document has its test, so that one which is added to the list is examined.
#[test]
fn every_document_is_examined() {
    let source = include_str!("documents.rs");
    for document in DOCUMENTS {
        let examined = format!("examine(\"{}\").await;", document.name);
        assert!(source.contains(&examined), "{} has no test", document.name);
    }
}

async fn examine(name: &str) {
    let document = DOCUMENTS.iter().find(|document| document.name == name);
    let document = document.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let server = Server::start_with_key(&data, document.key).await;
    let receiver = Receiver::start().await;
    let api = server.api();
    let (status, body) = api.send(Method::GET, document.path, String::new()).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "{name}: {} is not served",
        document.path
    );
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        body["paths"]
            .as_object()
            .is_some_and(|paths| !paths.is_empty())
    );

    let world = World::fill(&api, &receiver).await;
    let inspection = Inspection {
        document,
        server: &server,
        receiver: receiver.origin(),
        directory: directory.path(),
    };
    let report = inspection.run(&world).await;
    assert!(
        report.passed,
        "{name}: schemathesis found faults:\n{}",
        report.text
    );
    let unreached = inspection.never_accepted();
    assert!(
        unreached.is_empty(),
        "{name}: never accepted, so not examined: {unreached:#?}"
    );
    server.stop().await;
}

/// The things that are there, by the names that `schemathesis.toml` binds to parameters.
#[derive(Default)]
struct World {
    lists: BTreeMap<&'static str, Vec<String>>,
}

impl World {
    /// One app that stays, with endpoints, deliveries and rotations in every state, and some of each
    /// that requests may remove.
    async fn fill(api: &Api, receiver: &Receiver) -> Self {
        let mut world = Self::default();
        let app = api.create_app("schemathesis").await;
        world.add("clientIds", &app);
        for preset in ["standard", "hopae", "kore", "github"].repeat(8) {
            let url = format!("{}/{preset}", receiver.origin());
            let endpoint = json!({ "url": url, "preset": preset });
            let made = api.create_endpoint(&app, &endpoint).await;
            world.add("endpointIds", &made.id);
            world.rotate(api, &made.keyring_id).await;
        }
        for number in 0..4 {
            let payload = format!("{{\"number\":{number}}}");
            let message = api.publish(&app, "schemathesis.seed", &payload).await;
            world.add("messageIds", &message);
        }
        let listed = api.get(&format!("/v1/apps/{app}/deliveries?limit=8")).await;
        world.add_all("deliveryIds", &listed["data"], "id");
        for number in 0..6 {
            let spare = api.create_app(&format!("spare {number}")).await;
            world.add("spareClientIds", &spare);
            let endpoint = json!({ "url": receiver.origin() });
            let made = api.create_endpoint(&app, &endpoint).await;
            world.add("spareEndpointIds", &made.id);
            let key = json!({ "name": "spare", "scopes": ["read"] });
            let key = api.post("/v1/api-keys", &key).await;
            world.add_all("spareApiKeyIds", &json!([key]), "id");
        }
        world.rotate_in_bulk(api).await;
        for name in ["first", "second"] {
            let secret = api.post("/kore/v1/secrets", &json!({ "Name": name })).await;
            world.add_all("sharedSecretIds", &json!([secret]), "id");
        }
        let keys = api.get("/v1/api-keys").await;
        let own = keys["data"].as_array().unwrap();
        let own: Vec<&Value> = own
            .iter()
            .filter(|key| key["name"] == "bootstrap")
            .collect();
        world.add_all("keptApiKeyIds", &json!(own), "id");
        let workspaces = api.get("/v1/workspaces").await;
        world.add_all("workspaceIds", &workspaces["data"], "id");
        world.add("workspaces", "default");
        for number in 0..16 {
            let schedule = json!({ "name": format!("schedule {number}"), "everyDays": 90 });
            let schedule = api.post("/v1/schedules", &schedule).await;
            world.add_all("scheduleIds", &json!([schedule]), "id");
        }
        for zone in ["UTC", "Europe/Berlin", "America/New_York"] {
            world.add("timeZones", zone);
        }
        for digit in ["1", "2", "3", "4"] {
            world.add("secrets", &format!("whsec_{}", digit.repeat(64)));
        }
        for days in 10..20 {
            world.add("later", &SystemClock.now().after(days * DAY).to_string());
        }
        world
    }

    /// Every fourth keyring has no open rotation, the others one that is staged or overlaps. All were rotated
    /// before.
    async fn rotate(&mut self, api: &Api, keyring: &str) {
        self.add("keyringIds", keyring);
        api.rotate(keyring, &json!({ "mode": "immediate" })).await;
        let mode = match self.lists["keyringIds"].len() % 4 {
            0 => return,
            1 => "staged",
            _ => "overlap",
        };
        let open = api.rotate(keyring, &json!({ "mode": mode })).await;
        self.add("rotationIds", &open.id);
        if !self.lists.contains_key("secretKeyringIds") {
            self.add("secretKeyringIds", keyring);
            let secrets = api.get(&format!("/v1/keyrings/{keyring}/secrets")).await;
            self.add_all("secretIds", &secrets["data"], "id");
        }
    }

    /// Bulk rotations that wait for a day between their two waves, so that they stay as they are put.
    async fn rotate_in_bulk(&mut self, api: &Api) {
        let keyrings = self.lists["keyringIds"].clone();
        let pairs = keyrings.chunks(2).take(6);
        for (list, pair) in ["bulkIds", "spareBulkIds"].repeat(3).into_iter().zip(pairs) {
            let bulk = json!({
                "selector": { "keyrings": pair },
                "mode": "overlap",
                "waves": [50, 100],
                "pauseSeconds": 86_400,
                "stopAtFailedPercent": 100,
            });
            let started = api.post("/v1/bulk-rotations", &bulk).await;
            self.add_all(list, &json!([started]), "id");
        }
    }

    fn add(&mut self, list: &'static str, text: &str) {
        self.lists.entry(list).or_default().push(text.to_owned());
    }

    fn add_all(&mut self, list: &'static str, items: &Value, field: &str) {
        for item in items.as_array().unwrap() {
            self.add(list, item[field].as_str().unwrap());
        }
    }

    /// The lists as schemathesis reads them.
    fn dictionaries(&self) -> String {
        let mut text = String::from("\n[dictionaries]\n");
        for (name, values) in &self.lists {
            // Ids and names: a JSON list of them is a TOML list too.
            writeln!(text, "{name} = {{ values = {} }}", json!(values)).unwrap();
        }
        text
    }
}

/// One run of schemathesis.
struct Inspection<'a> {
    document: &'a Document,
    server: &'a Server,
    receiver: String,
    directory: &'a Path,
}

/// How it ended, and what it printed.
struct Report {
    passed: bool,
    text: String,
}

impl Inspection<'_> {
    async fn run(&self, world: &World) -> Report {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges/schemathesis");
        let config = self.directory.join("schemathesis.toml");
        let rules = std::fs::read_to_string(sources.join("schemathesis.toml")).unwrap();
        std::fs::write(&config, rules + &world.dictionaries()).unwrap();
        std::fs::copy(sources.join("hooks.py"), self.directory.join("hooks.py")).unwrap();
        let origin = self.server.origin();
        let examples = setting("HOOKTURN_SCHEMATHESIS_EXAMPLES", EXAMPLES);
        let child = Command::new(installed("HOOKTURN_JUDGE_PYTHON").with_file_name("schemathesis"))
            .arg("--config-file")
            .arg(&config)
            .args(["run", &format!("{origin}{}", self.document.path)])
            .args(["--url", &format!("{origin}{}", self.document.prefix)])
            .args(["--max-examples", &examples])
            .args(["--seed", &setting("HOOKTURN_SCHEMATHESIS_SEED", SEED)])
            .arg("--no-color")
            .current_dir(self.directory)
            .env_clear()
            .env("PYTHONPATH", self.directory)
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("HOOKTURN_API_KEY", self.document.key)
            .env("HOOKTURN_RECEIVER", &self.receiver)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut running = Running(child.unwrap_or_else(|error| {
            panic!("schemathesis did not start: {error}: run cargo xtask test")
        }));
        let text = tokio::time::timeout(longest(&examples), running.output()).await;
        let text = text.expect("schemathesis ends in time");
        let passed = running.0.wait().unwrap().success();
        // In the log of a run that passed, the summary shows how much it was.
        println!("{text}");
        Report { passed, text }
    }

    /// Operations that answered no request with a success, each with what they answered.
    fn never_accepted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("statuses.json")).unwrap();
        let statuses: BTreeMap<String, Vec<u16>> = serde_json::from_str(&text).unwrap();
        let mut never = Vec::new();
        for (operation, statuses) in statuses {
            // Only a database that applications share has an outbox; `tests/postgres` asks there.
            let needs_outbox = operation.contains("/v1/outbox/refused/{");
            let accepted = statuses.iter().any(|status| (200..300).contains(status));
            if !accepted && !needs_outbox {
                never.push(format!("{operation}: {statuses:?}"));
            }
        }
        never
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test looks is for who runs it to say; the server never reads it"
)]
fn setting(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn longest(examples: &str) -> Duration {
    let default: u32 = EXAMPLES.parse().unwrap();
    let wanted: u32 = examples.parse().unwrap();
    LONGEST * wanted.div_ceil(default)
}

/// Schemathesis while it runs; killed when the test gives up on it.
struct Running(Child);

impl Running {
    /// Everything it prints until it ends.
    async fn output(&mut self) -> String {
        let mut output = self.0.stdout.take().unwrap();
        let (finish, finished) = oneshot::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = finish.send(output.read_to_string(&mut text).map(|_| text));
        });
        finished.await.unwrap().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
