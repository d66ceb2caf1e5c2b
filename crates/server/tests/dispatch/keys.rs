//! G3 and G4: signed at send time by keys that are live at that moment.

use hookturn::service::rotation::ModeName;
use hookturn_core::delivery::{DeliveryStatus, ExchangeReason};
use hookturn_core::endpoint::Preset;
use hookturn_core::time::{HOUR, SECOND};

use crate::delivering::retrying;
use crate::receiver::{Receiver, gated, status};
use crate::rig::{Rig, verifier};

#[tokio::test(flavor = "multi_thread")]
async fn g3_a_retry_is_signed_by_the_key_that_is_live_then() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
    let old = made.once.unwrap().value;
    let message = rig.publish("{}").await;
    rig.until_attempts(message, 1).await;
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Immediate, None)
        .await
        .once;
    rig.advance(SECOND);
    let (_, attempts) = rig.until_settled(message).await;
    let keys = verifier(Preset::Standard, &[("old", &old), ("new", &new.value)]);
    let signers: Vec<_> = receiver
        .rest()
        .iter()
        .map(|seen| seen.signer(&keys))
        .collect();
    assert_eq!(signers, ["old", "new"]);
    assert_eq!(
        attempts[1].exchanges[0].signed_with[0].secret,
        new.secret.id
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_after_its_end_the_old_key_signs_nothing_though_no_sweep_ran() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(401)).await;
    let made = rig
        .endpoint_with(retrying(receiver.url(), &[HOUR, HOUR]))
        .await;
    let old = made.once.unwrap().value;
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Overlap, Some(2 * HOUR))
        .await
        .once;
    let keys = verifier(Preset::Standard, &[("old", &old), ("new", &new.value)]);
    let message = rig.publish("{}").await;
    for attempt in 1..=2 {
        rig.until_attempts(message, attempt).await;
        let signers: Vec<_> = receiver
            .rest()
            .iter()
            .map(|seen| seen.signer(&keys))
            .collect();
        assert_eq!(signers, ["old", "new"], "attempt {attempt}");
        rig.advance(HOUR);
    }
    rig.until_settled(message).await;
    let signers: Vec<_> = receiver
        .rest()
        .iter()
        .map(|seen| seen.signer(&keys))
        .collect();
    assert_eq!(signers, ["new"], "exactly at its end it is retired");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_fallback_never_uses_a_key_that_was_retired_between_the_exchanges() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let keyring = made.endpoint.keyring;
    let old = made.once.unwrap().value;
    let opened = rig.rotate(keyring, ModeName::Overlap, Some(HOUR)).await;
    let keys = verifier(
        Preset::Standard,
        &[("old", &old), ("new", &opened.once.value)],
    );
    // A receiver that holds the new key only teaches the belief that makes the old one the fallback.
    let held = verifier(Preset::Standard, &[("new", &opened.once.value)]);
    receiver.answer(move |seen| status(if seen.verify(&held).is_ok() { 200 } else { 401 }));
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    assert_eq!(receiver.rest().len(), 2);
    receiver.answer(|_| gated(401));
    let message = rig.publish("2").await;
    assert_eq!(receiver.next().await.signer(&keys), "new");
    let finished = rig
        .service()
        .finish_rotation(rig.caller(), opened.rotation.id, None, None);
    finished.await.unwrap();
    receiver.open_gate();
    let (delivery, attempts) = rig.until_settled(message).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Exhausted);
    assert_eq!(attempts[0].exchanges.len(), 1);
    assert_eq!(receiver.rest().len(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_a_pending_key_signs_for_a_receiver_that_refused_the_current_one() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let old = made.once.unwrap().value;
    let new = rig
        .rotate(made.endpoint.keyring, ModeName::Staged, Some(HOUR))
        .await
        .once
        .value;
    let keys = verifier(Preset::Standard, &[("old", &old), ("new", &new)]);
    for _ in 0..2 {
        let message = rig.publish("1").await;
        rig.until_settled(message).await;
        assert_eq!(receiver.next().await.signer(&keys), "old");
    }
    // It deploys early, and then goes back.
    let steps = [
        (&new, &["old", "new"][..], ExchangeReason::Current),
        (&new, &["old", "new"], ExchangeReason::Current),
        (&new, &["old", "new"], ExchangeReason::Current),
        (&new, &["new"], ExchangeReason::Belief),
        (&new, &["new"], ExchangeReason::Belief),
        (&old, &["new", "old"], ExchangeReason::Belief),
        (&old, &["new", "old"], ExchangeReason::Belief),
        (&old, &["old"], ExchangeReason::Current),
    ];
    for (held, signers, reason) in steps {
        let held = verifier(Preset::Standard, &[("held", held)]);
        receiver.answer(move |seen| status(if seen.verify(&held).is_ok() { 200 } else { 403 }));
        let message = rig.publish("2").await;
        let (delivery, attempts) = rig.until_settled(message).await;
        assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
        assert_eq!(attempts.len(), 1);
        let told: Vec<_> = attempts[0].exchanges.iter().map(|e| e.reason).collect();
        let fallback = signers.iter().skip(1).map(|_| ExchangeReason::Fallback);
        let reasons: Vec<_> = std::iter::once(reason).chain(fallback).collect();
        assert_eq!(told, reasons);
        let seen: Vec<_> = receiver
            .rest()
            .iter()
            .map(|seen| seen.signer(&keys))
            .collect();
        assert_eq!(seen, signers);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_key_found_compromised_between_the_exchanges_is_no_fallback() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| gated(401)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let keyring = made.endpoint.keyring;
    let old = made.once.unwrap().value;
    let new = rig
        .rotate(keyring, ModeName::Overlap, Some(HOUR))
        .await
        .once;
    let keys = verifier(Preset::Standard, &[("old", &old), ("new", &new.value)]);
    let message = rig.publish("1").await;
    assert_eq!(receiver.next().await.signer(&keys), "old");
    let marked = rig
        .service()
        .compromise_secret(rig.caller(), keyring, new.secret.id, None, None);
    marked.await.unwrap();
    receiver.open_gate();
    let (_, attempts) = rig.until_settled(message).await;
    assert_eq!(attempts[0].exchanges.len(), 1);
    assert_eq!(receiver.rest().len(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_compromised_retiring_key_is_no_fallback() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(401)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let keyring = made.endpoint.keyring;
    let old = made.once.unwrap();
    let new = rig
        .rotate(keyring, ModeName::Overlap, Some(HOUR))
        .await
        .once;
    let marked = rig
        .service()
        .compromise_secret(rig.caller(), keyring, old.secret.id, None, None);
    marked.await.unwrap();
    let keys = verifier(
        Preset::Standard,
        &[("old", &old.value), ("new", &new.value)],
    );
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    let signers: Vec<_> = receiver
        .rest()
        .iter()
        .map(|seen| seen.signer(&keys))
        .collect();
    assert_eq!(signers, ["new"]);
    rig.stop().await;
}
