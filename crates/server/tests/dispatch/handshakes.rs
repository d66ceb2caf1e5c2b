//! G4: a request is signed when its connection can take it. What ends a secret's life while a receiver
//! keeps a connection waiting ends it for the request that waits.

use hookturn::service::endpoints::{CreatedEndpoint, NewEndpoint};
use hookturn::service::rotation::ModeName;
use hookturn_core::delivery::{Attempt, DeliveryStatus, ExchangeReason, ExchangeResult};
use hookturn_core::endpoint::Preset;
use hookturn_core::time::{HOUR, MINUTE, SECOND};
use hookturn_verify::Verifier;

use crate::delivering::retrying;
use crate::receiver::{Receiver, Reply, Seen, hanging_up, parting, status};
use crate::rig::{Rig, verifier};

/// An endpoint whose receiver is behind a closed door.
async fn behind_a_door(rig: &Rig) -> (Receiver, CreatedEndpoint) {
    let receiver = Receiver::behind_a_door(&rig.clock, |_| parting(200)).await;
    let input = NewEndpoint {
        // Real time, which a busy machine may need for a handshake.
        connect_timeout_millis: Some(15 * SECOND),
        timeout_millis: Some(15 * SECOND),
        ..retrying(receiver.url(), &[])
    };
    let made = rig.endpoint_with(input).await;
    (receiver, made)
}

fn verifier_of(old: &CreatedEndpoint, new: &hookturn_verify::Secret) -> Verifier {
    let old = &old.once.as_ref().unwrap().value;
    verifier(Preset::Standard, &[("old", old), ("new", new)])
}

/// The record tells what arrived.
fn recorded(attempts: &[Attempt], seen: &[Seen], keys: &Verifier) {
    let exchanges = attempts.iter().flat_map(|attempt| &attempt.exchanges);
    for (exchange, seen) in std::iter::zip(exchanges, seen) {
        let header = |name: &str| seen.header(name).unwrap().to_owned();
        assert_eq!(exchange.signature, header("webhook-signature"));
        assert_eq!(exchange.timestamp.to_string(), header("webhook-timestamp"));
        let secret = seen.verify(keys).unwrap().fingerprint;
        assert_eq!(exchange.signed_with[0].fingerprint, secret);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_secret_replaced_during_the_handshake_signs_nothing_more() {
    let mut rig = Rig::new().await;
    let (mut receiver, made) = behind_a_door(&rig).await;
    let message = rig.publish("{}").await;
    receiver.knock().await;
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Immediate, None)
        .await
        .once;
    rig.advance(3 * SECOND);
    receiver.door(true);
    let (_, attempts) = rig.until_settled(message).await;
    let seen = receiver.rest();
    let keys = verifier_of(&made, &new.value);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].signer(&keys), "new");
    recorded(&attempts, &seen, &keys);
    assert_eq!(
        attempts[0].exchanges[0].timestamp,
        rig.now().as_seconds(),
        "the time of the signature, not that of the connection's beginning"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_an_overlap_finished_during_the_handshake_is_over() {
    let mut rig = Rig::new().await;
    let (mut receiver, made) = behind_a_door(&rig).await;
    let opened = rig
        .rotate(made.endpoint.keyring, ModeName::Overlap, Some(HOUR))
        .await;
    let message = rig.publish("{}").await;
    receiver.knock().await;
    let finished = rig
        .service()
        .finish_rotation(rig.caller(), opened.rotation.id, None, None);
    finished.await.unwrap();
    receiver.door(true);
    let (_, attempts) = rig.until_settled(message).await;
    let seen = receiver.rest();
    let keys = verifier_of(&made, &opened.once.value);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].signer(&keys), "new");
    recorded(&attempts, &seen, &keys);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_an_overlap_that_ends_during_the_handshake_is_over_to_the_millisecond() {
    for (passes, expected) in [(HOUR - 1, "old"), (HOUR, "new")] {
        let mut rig = Rig::new().await;
        let (mut receiver, made) = behind_a_door(&rig).await;
        let new = rig
            .rotate(made.endpoint.keyring, ModeName::Overlap, Some(HOUR))
            .await
            .once;
        let message = rig.publish("{}").await;
        receiver.knock().await;
        rig.advance(passes);
        receiver.door(true);
        let (_, attempts) = rig.until_settled(message).await;
        let seen = receiver.rest();
        let keys = verifier_of(&made, &new.value);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].signer(&keys), expected, "after {passes} ms");
        recorded(&attempts, &seen, &keys);
        rig.stop().await;
    }
}

/// An attempt in an overlap whose first exchange is refused and whose fallback waits at the door. The
/// receiver believed in holds the new secret, so that the fallback is the old one.
async fn fallback_at_the_door(rig: &Rig) -> Fallback {
    let (mut receiver, made) = behind_a_door(rig).await;
    receiver.door(true);
    let opened = rig
        .rotate(made.endpoint.keyring, ModeName::Overlap, Some(HOUR))
        .await;
    let new = verifier(Preset::Standard, &[("new", &opened.once.value)]);
    receiver.answer(move |seen| parting(if seen.verify(&new).is_ok() { 200 } else { 401 }));
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    assert_eq!(receiver.take(2).await.len(), 2);
    for _ in 0..2 {
        receiver.knock().await;
    }
    let keys = verifier_of(&made, &opened.once.value);
    let old = verifier(Preset::Standard, &[("old", &made.once.unwrap().value)]);
    receiver.answer(move |seen| match seen.verify(&old) {
        Ok(_) => parting(200),
        Err(_) => Reply {
            gated: true,
            ..parting(401)
        },
    });
    let message = rig.publish("2").await;
    let first = receiver.next().await;
    assert_eq!(first.signer(&keys), "new");
    receiver.knock().await;
    receiver.door(false);
    receiver.open_gate();
    receiver.knock().await;
    Fallback {
        receiver,
        rotation: opened.rotation.id,
        message,
        keys,
        first,
    }
}

struct Fallback {
    receiver: Receiver,
    rotation: hookturn_core::id::RotationId,
    message: hookturn_core::id::MessageId,
    keys: Verifier,
    first: Seen,
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_fallback_is_signed_when_its_connection_is_ready() {
    let mut rig = Rig::new().await;
    let mut at = fallback_at_the_door(&rig).await;
    rig.advance(MINUTE);
    at.receiver.door(true);
    let (delivery, attempts) = rig.until_settled(at.message).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
    let second = at.receiver.next().await;
    assert_eq!(second.signer(&at.keys), "old");
    let reasons: Vec<_> = attempts[0].exchanges.iter().map(|e| e.reason).collect();
    assert_eq!(reasons, [ExchangeReason::Belief, ExchangeReason::Fallback]);
    assert_eq!(attempts[0].exchanges[1].timestamp, rig.now().as_seconds());
    recorded(&attempts, &[at.first, second], &at.keys);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_fallback_whose_key_is_retired_during_the_handshake_is_not_sent() {
    for by_command in [true, false] {
        let mut rig = Rig::new().await;
        let mut at = fallback_at_the_door(&rig).await;
        if by_command {
            let finished = rig
                .service()
                .finish_rotation(rig.caller(), at.rotation, None, None);
            finished.await.unwrap();
        } else {
            rig.advance(HOUR);
        }
        at.receiver.door(true);
        let (delivery, attempts) = rig.until_settled(at.message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Exhausted);
        assert_eq!(attempts[0].exchanges.len(), 1);
        assert_eq!(attempts[0].exchanges[0].status(), Some(401));
        assert_eq!(at.receiver.rest().len(), 0, "by command: {by_command}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_kept_connection_that_was_closed_leaves_no_old_signature() {
    let mut rig = Rig::new().await;
    let (mut receiver, made) = behind_a_door(&rig).await;
    receiver.answer(|_| hanging_up(200));
    receiver.door(true);
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    receiver.knock().await;
    receiver.until_closed(1).await;
    receiver.door(false);
    // It was kept, and closed by its receiver: the next request needs another.
    let message = rig.publish("2").await;
    receiver.knock().await;
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Immediate, None)
        .await
        .once;
    receiver.door(true);
    let (_, attempts) = rig.until_settled(message).await;
    let seen = receiver.rest();
    let keys = verifier_of(&made, &new.value);
    let signers: Vec<_> = seen.iter().map(|seen| seen.signer(&keys)).collect();
    assert_eq!(signers, ["old", "new"]);
    recorded(&attempts, &seen[1..], &keys);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_an_exchange_without_a_connection_signs_nothing() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let url = receiver.url();
    rig.endpoint_with(retrying(url.clone(), &[])).await;
    drop(receiver);
    // Its listener ends with its task, which is soon.
    let address = url::Url::parse(&url)
        .unwrap()
        .socket_addrs(|| None)
        .unwrap();
    while tokio::net::TcpStream::connect(address[0]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let message = rig.publish("{}").await;
    let (_, attempts) = rig.until_settled(message).await;
    let [exchange] = &attempts[0].exchanges[..] else {
        panic!("one exchange: {attempts:?}");
    };
    let ExchangeResult::Failed(failure) = &exchange.result else {
        panic!("nobody answers: {exchange:?}");
    };
    assert_eq!(failure.kind, "connect");
    assert_eq!(exchange.signed_with, []);
    assert_eq!(exchange.signature, "");
    rig.stop().await;
}
