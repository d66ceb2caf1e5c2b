//! Another master key while several nodes work: none of them loses what another sealed, and nothing stays under the
//! former key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hookturn::cli::exit::Exit;
use hookturn::store::seal::MasterKey;
use http::{Method, StatusCode};
use serde_json::json;

use crate::desk::{Desk, Ran};
use crate::fleet::{Crowd, LEASE, delivery_of, shards, signer, until_ready_is, until_shared};
use crate::support::cluster::cluster;
use crate::support::{Api, Receiver, Server, within_deadline};

const OPERATOR: &str = "sk_operator_of_the_running_server_0000000001";

fn old() -> String {
    "a7".repeat(32)
}

fn new() -> String {
    "b8".repeat(32)
}

fn both() -> String {
    format!("{},{}", new(), old())
}

fn id_of(key: &str) -> String {
    MasterKey::parse_list(key).unwrap()[0].id()
}

async fn serve(desk: &Desk, keys: &str) -> Server {
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY", keys),
        LEASE,
    ];
    Server::start_with(desk.directory.path(), OPERATOR, &variables).await
}

/// Runs `hookturn master-key rotate` at a node.
async fn rotate(desk: &Desk, node: &Server) -> Ran {
    let (server, desk) = (node.origin(), desk.directory.path().to_owned());
    let ran = tokio::task::spawn_blocking(move || {
        let variables = [
            ("HOOKTURN_SERVER", server.as_str()),
            ("HOOKTURN_API_KEY", OPERATOR),
        ];
        Ran::of_program(&desk, &["master-key", "rotate"], &variables)
    });
    ran.await.unwrap()
}

fn doctor(desk: &Desk, keys: &str) -> Ran {
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY", keys),
        ("HOOKTURN_LISTEN", "127.0.0.1:0"),
    ];
    desk.run(&["doctor"], &variables)
}

/// How many secrets, and other boxes that are kept, are sealed under another key than this one.
async fn not_under(desk: &Desk, key: &str) -> i64 {
    let client = cluster()
        .connect(desk.url.rsplit('/').next().unwrap())
        .await;
    let sql = "SELECT count(*) FROM (
                   SELECT sealed FROM hookturn.secret UNION ALL
                   SELECT value FROM hookturn.meta WHERE key IN ('mark_key', 'master_key_check')) AS boxes
               WHERE encode(substring(sealed FROM 2 FOR 8), 'hex') <> $1";
    client.query_one(sql, &[&id_of(key)]).await.unwrap().get(0)
}

/// What is made anew while the key changes: rotations of one endpoint, endpoints, messages, at every node in turn, until it is
/// told to stop. Returns the messages, and which secrets the endpoint may be signed with.
async fn load(
    apis: Vec<Api>,
    app: String,
    keyring: String,
    stop: Arc<AtomicBool>,
) -> (Vec<String>, Vec<String>) {
    let (mut messages, mut secrets) = (Vec::new(), Vec::new());
    let other = apis[0].create_app("another").await;
    for api in apis.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        messages.push(api.publish(&app, "order.paid", "{}").await);
        let opened = api.rotate(&keyring, &json!({ "mode": "immediate" })).await;
        secrets.push(opened.secret.value);
        let nowhere = json!({ "url": "http://127.0.0.1:9/" });
        api.create_endpoint(&other, &nowhere).await;
    }
    (messages, secrets)
}

/// The crowd's endpoints, and every secret that each may be signed with.
struct Known(BTreeMap<String, Vec<String>>);

impl Known {
    fn of(crowd: &Crowd) -> Self {
        let secrets = crowd.endpoints.iter().enumerate();
        Self(
            secrets
                .map(|(number, made)| (format!("/{number}"), vec![made.secret.value.clone()]))
                .collect(),
        )
    }

    fn add(&mut self, number: usize, secrets: impl IntoIterator<Item = String>) {
        self.0
            .get_mut(&format!("/{number}"))
            .unwrap()
            .extend(secrets);
    }

    /// Waits for these deliveries; each must be signed with a secret of its endpoint, whose place is returned.
    async fn receive(
        &self,
        crowd: &mut Crowd,
        mut missing: BTreeSet<(String, String)>,
    ) -> BTreeMap<(String, String), usize> {
        let mut by = BTreeMap::new();
        while !missing.is_empty() {
            let request = crowd.receiver.next().await;
            let delivery = delivery_of(&request);
            let secrets: Vec<&str> = self.0[&delivery.0].iter().map(String::as_str).collect();
            let place = signer(&request, &secrets);
            by.insert(
                delivery.clone(),
                place.expect("it is signed with a live secret"),
            );
            missing.remove(&delivery);
        }
        by
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_another_master_key_seals_everything_while_nodes_are_replaced_deliver_and_rotate() {
    let desk = Desk::new().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(serve(&desk, &old()).await);
    }
    until_shared(&nodes.iter().collect::<Vec<_>>()).await;
    let mut crowd = Crowd::make(&nodes[0].api(), 6, Receiver::start().await).await;
    let mut known = Known::of(&crowd);
    let mut open = Vec::new();
    for (number, mode) in ["overlap", "staged"].into_iter().enumerate() {
        let keyring = &crowd.endpoints[number].keyring_id;
        let opened = nodes[1]
            .api()
            .rotate(keyring, &json!({ "mode": mode }))
            .await;
        known.add(number, [opened.secret.value]);
        open.push(opened.id);
    }
    let mut wanted = BTreeSet::new();
    for place in 0..nodes.len() {
        nodes.remove(place).stop().await;
        nodes.insert(place, serve(&desk, &both()).await);
        // What one seals is opened by all, whichever keys they have.
        let keyring = &crowd.endpoints[2].keyring_id;
        let opened = nodes[place]
            .api()
            .rotate(keyring, &json!({ "mode": "immediate" }))
            .await;
        known.add(2, [opened.secret.value]);
        for node in &nodes {
            let id = node.api().publish(&crowd.app, "order.paid", "{}").await;
            wanted.extend(crowd.deliveries_of(&id));
        }
        if place < nodes.len() - 1 {
            let words = [
                "not every node has the new master key",
                "nothing was changed",
            ];
            rotate(&desk, &nodes[place])
                .await
                .refused(Exit::Conflict.code(), &words);
        }
        assert_eq!(not_under(&desk, &old()).await, 0);
    }
    doctor(&desk, &both()).done_with(&["the first key that is given is not the one that seals"]);

    let stop = Arc::new(AtomicBool::new(false));
    let apis = nodes.iter().map(Server::api).collect();
    let keyring = crowd.endpoints[3].keyring_id.clone();
    let under_way = tokio::spawn(load(apis, crowd.app.clone(), keyring, Arc::clone(&stop)));
    rotate(&desk, &nodes[1]).await.done();
    stop.store(true, Ordering::Relaxed);
    let (messages, secrets) = under_way.await.unwrap();
    known.add(3, secrets);
    wanted.extend(messages.iter().flat_map(|id| crowd.deliveries_of(id)));
    assert_eq!(not_under(&desk, &new()).await, 0);
    known.receive(&mut crowd, wanted).await;

    // The former key is not needed any more, and of no use alone.
    doctor(&desk, &new()).done_with(&["everything is sealed under it"]);
    let serve_old = ["serve", "--listen", "127.0.0.1:0"];
    let variables = [
        ("HOOKTURN_STORE", desk.url.as_str()),
        ("HOOKTURN_MASTER_KEY", &old()),
    ];
    desk.run(&serve_old, &variables)
        .refused(Exit::MasterKey.code(), &["does not fit this database"]);
    for place in 0..nodes.len() {
        nodes.remove(place).stop().await;
        nodes.insert(place, serve(&desk, &new()).await);
    }
    let api = nodes[2].api();
    for command in ["promote", "finish"] {
        let path = format!("/v1/rotations/{}/{command}", open[1]);
        api.post(&path, &json!({})).await;
    }
    let last = api.publish(&crowd.app, "order.paid", "{}").await;
    let wanted = crowd.deliveries_of(&last);
    let by = known.receive(&mut crowd, wanted).await;
    assert_eq!(
        by[&("/1".to_owned(), last)],
        1,
        "signed with the secret that was staged"
    );
    for node in nodes {
        node.stop().await;
    }
}

/// A node says of itself which keys it has. Should one be at work that has not, it harms nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_node_without_the_current_master_key_is_not_ready_and_sends_and_changes_nothing() {
    let desk = Desk::new().await;
    // Whoever is the first on a database makes its first key current.
    serve(&desk, &old()).await.stop().await;
    let one = serve(&desk, &both()).await;
    let other = serve(&desk, &old()).await;
    until_shared(&[&one, &other]).await;
    let (here, there) = (one.api(), other.api());
    let mut crowd = Crowd::make(&there, 6, Receiver::start().await).await;
    let known = Known::of(&crowd);
    let process = format!("process {}", other.process());
    rotate(&desk, &one)
        .await
        .refused(Exit::Conflict.code(), &[&process, "lacks it"]);

    let client = cluster()
        .connect(desk.url.rsplit('/').next().unwrap())
        .await;
    let lie = "UPDATE hookturn.node SET master_keys = master_keys || $1::text WHERE name LIKE '%' || $2::text || ',%'";
    assert_eq!(
        client
            .execute(lie, &[&id_of(&new()), &process])
            .await
            .unwrap(),
        1
    );
    rotate(&desk, &one).await.done();
    let why = until_ready_is(&there, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(why.contains("was not given the new one"), "{why}");
    let shared = async { while shards(&here).await < crate::fleet::SHARDS {} };
    within_deadline("the other gives up its shards", shared).await;
    // It says so of itself a little later.
    let none = async { while shards(&there).await > 0 {} };
    within_deadline("the other owns nothing", none).await;
    let body = json!({ "name": "sealed by it" }).to_string();
    let (status, told) = there.send(Method::POST, "/v1/apps", body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told:?}");
    assert_eq!(not_under(&desk, &new()).await, 0);

    // What it accepts is sent by the other.
    let id = there.publish(&crowd.app, "order.paid", "{}").await;
    let wanted = crowd.deliveries_of(&id);
    known.receive(&mut crowd, wanted).await;
    assert!(
        other
            .log()
            .contains("start it again with that key before the present one")
    );
    other.stop().await;
    let other = serve(&desk, &both()).await;
    until_shared(&[&one, &other]).await;
    one.stop().await;
    other.stop().await;
}
