//! Which endpoints of a shared keyring must be proved.

use std::sync::Arc;

use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::rotation::Rotation;
use hookturn_core::store::{ReceiverState, Store as _};
use hookturn_core::time::DAY;

use super::super::ServiceError;
use super::super::endpoints::{EndpointPatch, KeyringChoice, NewEndpoint, Switch};
use super::super::keyrings::NewSecretInput;
use super::super::rotation::{ModeName, NewRotation, OpenedRotation};
use super::super::testing::{Bench, endpoint_input};

/// An endpoint of the shared keyring that accepted something now.
async fn user(bench: &Bench) -> Arc<Endpoint> {
    let (service, owner) = (&bench.service, &bench.owner);
    let input = NewEndpoint {
        keyring: KeyringChoice::Shared,
        ..endpoint_input()
    };
    let app = bench.app().await;
    let made = service.create_endpoint(owner, app, input, None).await;
    let endpoint = made.unwrap().endpoint;
    let receiver = ReceiverState {
        accepted_at: Some(service.now()),
        ..ReceiverState::default()
    };
    let receivers = vec![(owner.workspace, endpoint.id, receiver)];
    bench.store.finish(Vec::new(), receivers).await.unwrap();
    bench.live.endpoint(endpoint.id).unwrap()
}

async fn switch(bench: &Bench, endpoint: &Endpoint, state: Switch) {
    let patch = EndpointPatch {
        state: Some(state),
        ..EndpointPatch::default()
    };
    let (service, owner) = (&bench.service, &bench.owner);
    let patched = service.patch_endpoint(owner, endpoint.app, endpoint.id, patch, None, None);
    patched.await.unwrap();
}

async fn open(bench: &Bench) -> Result<OpenedRotation, ServiceError> {
    let workspace = bench.live.workspace(bench.owner.workspace).unwrap();
    let proven = NewRotation {
        mode: ModeName::Proven,
        overlap: None,
        policy: None,
        deadline_at: None,
        name: None,
        value: None,
        reason: None,
    };
    let (service, owner) = (&bench.service, &bench.owner);
    let shared = workspace.shared_keyring;
    service
        .open_rotation(owner, shared, proven, None, None)
        .await
}

/// The endpoints that are listed, each with why it cannot be asked.
async fn listed(bench: &Bench, rotation: &Rotation) -> Vec<(Arc<Endpoint>, Option<&'static str>)> {
    let standings = bench.service.standings(&bench.owner, rotation).await;
    let mut listed: Vec<_> = standings
        .unwrap()
        .into_iter()
        .map(|known| {
            let words = known.words(&ProofPolicy::default());
            let way_out = words.contains("delete it, wait") && words.contains("force");
            assert_eq!(way_out, known.unasked.is_some(), "{words}");
            (known.endpoint, known.unasked)
        })
        .collect();
    listed.sort_by_key(|(endpoint, _)| endpoint.id);
    listed
}

#[tokio::test]
async fn g7_a_disabled_endpoint_of_a_shared_keyring_counts_while_it_accepted_something_lately() {
    let bench = Bench::new().await;
    let workspace = bench.live.workspace(bench.owner.workspace).unwrap();
    let secret = NewSecretInput::default();
    let (service, owner) = (&bench.service, &bench.owner);
    let made = service.create_secret(owner, workspace.shared_keyring, secret, None, None);
    made.await.unwrap();
    // Ids sort by their millisecond.
    let first = user(&bench).await;
    bench.clock.advance(1);
    let second = user(&bench).await;
    bench.clock.advance(1);
    let third = user(&bench).await;
    for endpoint in [&first, &second, &third] {
        switch(&bench, endpoint, Switch::Disabled).await;
    }
    // Where none can be asked there is nothing to prove.
    let refused = open(&bench).await.unwrap_err();
    assert_eq!(refused.code(), "nothing_to_prove");
    switch(&bench, &second, Switch::Enabled).await;
    let rotation = open(&bench).await.unwrap().rotation;
    let ids = async || -> Vec<_> {
        let listed = listed(&bench, &rotation).await;
        listed
            .iter()
            .map(|(endpoint, unasked)| (endpoint.id, *unasked))
            .collect()
    };
    let not_enabled = Some("endpoint_not_enabled");
    let all = [
        (first.id, not_enabled),
        (second.id, None),
        (third.id, not_enabled),
    ];
    assert_eq!(ids().await, all);
    // One that is deleted does not count, and one that accepted nothing for long does not either.
    let deleted = service.delete_endpoint(owner, third.app, third.id, None, None);
    deleted.await.unwrap();
    assert_eq!(ids().await, all[..2]);
    bench.clock.advance(8 * DAY);
    assert_eq!(ids().await, []);
}
