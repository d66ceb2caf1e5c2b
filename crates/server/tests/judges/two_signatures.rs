//! Two signatures on one request, which only receivers that read lists are ever sent: a receiver
//! with either secret accepts, in every library.

use serde_json::json;

use crate::panel::Hearing;
use crate::rehearsed;
use crate::senders::{LISTS, Sender, Stand};
use crate::support::{Api, Captured, Receiver, SecretValue, Server};

const PAYLOAD: &str = "{\"two\": \"signatures – ✓\"}";

/// The request with one of its tokens alone.
fn with_token(sender: Sender, captured: &Captured, index: usize) -> Captured {
    let token = tokens(sender, captured)[index].to_owned();
    let mut one = captured.clone();
    for (_, value) in one
        .headers
        .iter_mut()
        .filter(|(name, _)| name == "webhook-signature")
    {
        value.clone_from(&token);
    }
    one
}

/// The tokens of the signature header; between two of them stands exactly one space.
fn tokens(sender: Sender, captured: &Captured) -> Vec<&str> {
    let tokens: Vec<&str> = sender.signature(captured).split(' ').collect();
    assert!(tokens.iter().all(|token| !token.is_empty()), "{tokens:?}");
    tokens
}

/// Requires two signatures, by `first` and `second` in this order, and that either alone is enough.
fn hear_both(
    stand: &Stand,
    hearing: &mut Hearing,
    when: &str,
    captured: &Captured,
    first: &SecretValue,
    second: &SecretValue,
) {
    assert_eq!(tokens(stand.sender, captured).len(), 2, "{when}");
    stand.hear(hearing, when, captured, first, &stand.other_secret);
    stand.hear(hearing, when, captured, second, &stand.other_secret);
    let alone = with_token(stand.sender, captured, 0);
    stand.hear(
        hearing,
        &format!("{when}, first alone"),
        &alone,
        first,
        second,
    );
    let alone = with_token(stand.sender, captured, 1);
    stand.hear(
        hearing,
        &format!("{when}, second alone"),
        &alone,
        second,
        first,
    );
    let mut tampered = captured.clone();
    tampered.body = [&captured.body[..], b" "].concat().into();
    for secret in [first, second] {
        hearing.rejects(
            &format!("{when}, another body"),
            &stand.receiving,
            secret,
            &tampered,
        );
    }
}

/// A server whose endpoints, one of each sender that writes lists, are known to read lists.
async fn rehearsed(data_dir: &std::path::Path) -> (Server, Vec<Stand>) {
    let server = Server::start(data_dir).await;
    let mut stands = Vec::new();
    for sender in LISTS {
        stands.push(Stand::build(&server.api(), *sender, Receiver::start().await).await);
    }
    server.stop().await;
    rehearsed::all_read_lists(data_dir).await;
    let server = Server::start(data_dir).await;
    for stand in &stands {
        let path = format!("/v1/apps/{}/endpoints/{}", stand.app, stand.endpoint.id);
        let endpoint = server.api().get(&path).await;
        assert_eq!(endpoint["receiver"]["class"], "list_aware", "{endpoint}");
    }
    (server, stands)
}

async fn command(api: &Api, rotation_id: &str, command: &str) {
    api.post(
        &format!("/v1/rotations/{rotation_id}/{command}"),
        &json!({}),
    )
    .await;
}

#[tokio::test]
async fn in_an_overlap_receivers_with_the_new_and_with_the_old_secret_accept() {
    let data = tempfile::tempdir().unwrap();
    let (server, mut stands) = rehearsed(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for stand in &mut stands {
        let old = stand.endpoint.secret.clone();
        let before = stand.deliver(&api, PAYLOAD).await;
        assert_eq!(tokens(stand.sender, &before).len(), 1);

        let overlap = json!({ "mode": "overlap", "overlapSeconds": 3600 });
        let opened = api.rotate(&stand.endpoint.keyring_id, &overlap).await;
        let new = opened.secret;
        stand.hear(&mut hearing, "before the overlap", &before, &old, &new);
        let during = stand.deliver(&api, PAYLOAD).await;
        hear_both(stand, &mut hearing, "overlap", &during, &new, &old);

        command(&api, &opened.id, "finish").await;
        let after = stand.deliver(&api, PAYLOAD).await;
        assert_eq!(tokens(stand.sender, &after).len(), 1);
        stand.hear(&mut hearing, "after the overlap", &after, &new, &old);
    }
    server.stop().await;
    hearing.close().await;
}

#[tokio::test]
async fn while_a_secret_is_staged_receivers_that_hold_it_already_accept() {
    let data = tempfile::tempdir().unwrap();
    let (server, mut stands) = rehearsed(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for stand in &mut stands {
        let current = stand.endpoint.secret.clone();
        let staged = json!({ "mode": "staged", "overlapSeconds": 3600 });
        let opened = api.rotate(&stand.endpoint.keyring_id, &staged).await;
        let pending = opened.secret;
        let during = stand.deliver(&api, PAYLOAD).await;
        hear_both(stand, &mut hearing, "staged", &during, &current, &pending);

        command(&api, &opened.id, "promote").await;
        let promoted = stand.deliver(&api, PAYLOAD).await;
        hear_both(
            stand,
            &mut hearing,
            "promoted",
            &promoted,
            &pending,
            &current,
        );

        command(&api, &opened.id, "undo").await;
        let undone = stand.deliver(&api, PAYLOAD).await;
        hear_both(stand, &mut hearing, "undone", &undone, &current, &pending);
    }
    server.stop().await;
    hearing.close().await;
}
