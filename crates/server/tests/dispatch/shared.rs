//! KORE's model: one keyring for many endpoints, all of which switch at *Activate*.

use hookturn::service::deliveries::DeliveryFilter;
use hookturn::service::endpoints::{KeyringChoice, NewEndpoint};
use hookturn::service::keyrings::{CreatedSecret, NewSecretInput};
use hookturn_core::endpoint::{BodyForm, Method, Preset};
use hookturn_core::id::{KeyringId, MessageId};
use hookturn_core::time::SECOND;
use hookturn_verify::Verifier;

use crate::receiver::{Receiver, status};
use crate::rig::{Rig, verifier};

/// Every form in which a keyring of the preset's scheme signs.
const FORMS: [(Preset, Method, BodyForm); 4] = [
    (Preset::Kore, Method::Post, BodyForm::Json),
    (Preset::Kore, Method::Post, BodyForm::Form),
    (Preset::Kore, Method::Get, BodyForm::Json),
    (Preset::KoreStream, Method::Post, BodyForm::Json),
];

async fn secret(rig: &Rig, keyring: KeyringId, name: &str) -> CreatedSecret {
    let input = NewSecretInput {
        name: Some(name.to_owned()),
        overlap: Some(0),
        ..NewSecretInput::default()
    };
    let made = rig
        .service()
        .create_secret(rig.caller(), keyring, input, None, None);
    made.await.unwrap()
}

/// Waits until every delivery of a message was attempted so often.
async fn until_attempted(rig: &Rig, message: MessageId, attempts: u32) {
    let filter = DeliveryFilter {
        message: Some(message),
        ..DeliveryFilter::default()
    };
    rig.until("every endpoint was tried", async || {
        let found = rig.deliveries(filter.clone()).await;
        let all = found.iter().all(|delivery| delivery.attempts >= attempts);
        (found.len() == FORMS.len() && all).then_some(())
    })
    .await;
}

/// Which secret signed the next request of each receiver.
async fn signers(receivers: &mut [(Receiver, Verifier)]) -> Vec<String> {
    let mut names = Vec::new();
    for (receiver, verifier) in receivers {
        names.push(receiver.next().await.signer(verifier).to_owned());
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_g4_every_endpoint_of_a_shared_keyring_switches_at_activate() {
    let mut rig = Rig::new().await;
    let workspace = rig.live().workspace(rig.caller().workspace).unwrap();
    let keyring = workspace.shared_keyring;
    let old = secret(&rig, keyring, "first").await;
    let mut receivers = Vec::new();
    for (preset, method, body_form) in FORMS {
        // The first message fails in a way that is not about the signature, and is retried.
        let receiver = Receiver::new(&rig.clock, |seen| match seen.number {
            0 => status(503),
            _ => status(200),
        })
        .await;
        let input = NewEndpoint {
            url: Some(receiver.url()),
            preset,
            method,
            body_form,
            keyring: KeyringChoice::Shared,
            ..NewEndpoint::default()
        };
        let made = rig.endpoint_with(input).await;
        assert_eq!(made.endpoint.keyring, keyring);
        receivers.push(receiver);
    }
    let straddling = rig.publish(r#"{"n":1}"#).await;
    until_attempted(&rig, straddling, 1).await;

    let new = secret(&rig, keyring, "second").await;
    let held = |receiver: &Receiver| {
        verifier(
            Preset::Kore,
            &[("old", &old.once.value), ("new", &new.once.value)],
        )
        .url(receiver.url())
    };
    let mut receivers: Vec<_> = receivers
        .into_iter()
        .map(|receiver| {
            let held = held(&receiver);
            (receiver, held)
        })
        .collect();
    assert_eq!(signers(&mut receivers).await, ["old"; 4]);
    let pending = rig.publish(r#"{"n":2}"#).await;
    until_attempted(&rig, pending, 1).await;
    assert_eq!(
        signers(&mut receivers).await,
        ["old"; 4],
        "pending only falls back"
    );

    let activated = rig.service().activate_secret(
        rig.caller(),
        keyring,
        new.once.secret.id,
        Some(0),
        None,
        None,
    );
    activated.await.unwrap();
    let after = rig.publish(r#"{"n":3}"#).await;
    until_attempted(&rig, after, 1).await;
    assert_eq!(signers(&mut receivers).await, ["new"; 4]);
    rig.advance(6 * SECOND);
    until_attempted(&rig, straddling, 2).await;
    assert_eq!(
        signers(&mut receivers).await,
        ["new"; 4],
        "a retry of before is signed with the key of now"
    );
    rig.until_nothing_is_due().await;
    for (receiver, _) in &mut receivers {
        assert_eq!(receiver.rest().len(), 0);
    }
    rig.stop().await;
}
