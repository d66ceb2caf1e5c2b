//! When a delivery is tried again, and when it is not.

use hookturn::service::deliveries::Recover;
use hookturn::service::endpoints::{EndpointPatch, NewEndpoint, Switch};
use hookturn_core::delivery::{DeliveryState, DeliveryStatus, ExhaustedReason};
use hookturn_core::endpoint::{DisabledReason, EndpointState, Preset};
use hookturn_core::id::{EndpointId, MessageId};
use hookturn_core::limits::RETRY_AFTER_MAX;
use hookturn_core::time::{HOUR, MINUTE, SECOND, Timestamp};

use crate::delivering::retrying;
use crate::receiver::{Receiver, Reply, status};
use crate::rig::{Marker, Rig, START};

fn preset(url: String, preset: Preset) -> NewEndpoint {
    NewEndpoint {
        url: Some(url),
        preset,
        ..NewEndpoint::default()
    }
}

fn exhausted(state: DeliveryState) -> ExhaustedReason {
    match state {
        DeliveryState::Exhausted { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn due_at(state: DeliveryState) -> Timestamp {
    match state {
        DeliveryState::Pending { due_at } => due_at,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hopae_is_retried_after_exactly_1_5_and_30_seconds() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    rig.endpoint_with(preset(receiver.url(), Preset::Hopae))
        .await;
    let message = rig.publish("{}").await;
    for (attempt, wait) in [(1, SECOND), (2, 5 * SECOND), (3, 30 * SECOND)] {
        rig.until_attempts(message, attempt).await;
        rig.advance(wait - 1);
        marker.pass(&rig).await;
        assert_eq!(
            rig.delivery_of(message).await.1.len(),
            attempt,
            "not a millisecond early"
        );
        rig.advance(1);
    }
    let (delivery, _) = rig.until_settled(message).await;
    assert_eq!(exhausted(delivery.state), ExhaustedReason::AttemptsUsed);
    let times: Vec<_> = receiver
        .rest()
        .iter()
        .map(|seen| seen.at.since(START))
        .collect();
    assert_eq!(times, [0, 1_000, 6_000, 36_000]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_schedule_is_stretched_by_at_most_its_jitter() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(400)).await;
    rig.endpoint(receiver.url()).await;
    let messages = rig.publish_many((0..20).map(|n| n.to_string())).await;
    let mut waits = Vec::new();
    for message in messages {
        let (delivery, _) = rig.until_attempts(message, 1).await;
        waits.push(due_at(delivery.state).since(START));
    }
    assert!(
        waits.iter().all(|wait| (5_000..=6_000).contains(wait)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 10, "they spread: {waits:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_holds_the_endpoint_and_delays_the_delivery() {
    let date = "Mon, 20 Jul 2026 01:00:00 GMT".to_owned();
    for (code, value, wait) in [
        (429, "90".to_owned(), 90 * SECOND),
        (503, date, HOUR),
        (429, "99999999999".to_owned(), RETRY_AFTER_MAX),
    ] {
        let mut rig = Rig::new().await;
        let mut marker = Marker::new(&rig).await;
        let mut receiver = Receiver::new(&rig.clock, move |seen| match seen.number {
            0 => Reply {
                headers: vec![("retry-after", value.clone())],
                ..status(code)
            },
            _ => status(200),
        })
        .await;
        rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
        let first = rig.publish("1").await;
        let (delivery, _) = rig.until_attempts(first, 1).await;
        assert_eq!(due_at(delivery.state), START.after(wait));
        let second = rig.publish("2").await;
        rig.advance(wait - 1);
        marker.pass(&rig).await;
        assert_eq!(receiver.rest().len(), 1, "everyone waits");
        rig.advance(1);
        rig.until_settled(first).await;
        rig.until_settled(second).await;
        let times: Vec<_> = receiver.rest().iter().map(|seen| seen.at).collect();
        assert_eq!(times, [START.after(wait); 2]);
        rig.stop().await;
    }
}

/// A receiver that asks for an hour with its first answer, and the endpoint of it.
async fn asking_to_wait(rig: &Rig, delays: &[u64]) -> (Receiver, EndpointId) {
    let receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => Reply {
            headers: vec![("retry-after", "3600".to_owned())],
            ..status(429)
        },
        _ => status(200),
    })
    .await;
    let made = rig.endpoint_with(retrying(receiver.url(), delays)).await;
    (receiver, made.endpoint.id)
}

fn held(rig: &Rig, endpoint: EndpointId) -> Option<(Timestamp, u16)> {
    let endpoint = rig.live().endpoint(endpoint).unwrap();
    let hold = rig.service().standstill(&endpoint).held?;
    Some((hold.until, hold.status))
}

#[derive(Debug, Clone, Copy)]
enum Lift {
    Retry,
    Recover,
    AnotherUrl,
    Enable,
    PauseAndEnable,
}

async fn lift(rig: &Rig, lift: Lift, endpoint: EndpointId, first: MessageId, url: String) {
    match lift {
        Lift::Retry => rig.requeue(rig.delivery_of(first).await.0.id).await,
        Lift::Recover => {
            let input = Recover {
                since: START,
                until: None,
                status: DeliveryStatus::Exhausted,
                dry_run: false,
            };
            let recovered = rig
                .service()
                .recover(rig.caller(), rig.app, endpoint, input, None);
            assert_eq!(recovered.await.unwrap().count, 1);
        }
        Lift::AnotherUrl => {
            let url = Some(format!("{url}/other"));
            let patch = EndpointPatch {
                url,
                ..EndpointPatch::default()
            };
            rig.patch(endpoint, patch).await;
        }
        Lift::Enable => rig.switch(endpoint, Switch::Enabled).await,
        Lift::PauseAndEnable => {
            rig.switch(endpoint, Switch::Paused).await;
            rig.switch(endpoint, Switch::Enabled).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_shown_and_lifted_by_whoever_wants_to_send() {
    for how in [
        Lift::Retry,
        Lift::Recover,
        Lift::AnotherUrl,
        Lift::Enable,
        Lift::PauseAndEnable,
    ] {
        let mut rig = Rig::new().await;
        let mut marker = Marker::new(&rig).await;
        let (mut receiver, endpoint) = asking_to_wait(&rig, &[]).await;
        let first = rig.publish("1").await;
        rig.until_settled(first).await;
        let second = rig.publish("2").await;
        marker.pass(&rig).await;
        assert_eq!(receiver.rest().len(), 1, "{how:?}: everyone waits");
        assert_eq!(held(&rig, endpoint), Some((START.after(HOUR), 429)));
        rig.advance(SECOND);
        lift(&rig, how, endpoint, first, receiver.url()).await;
        let (delivery, _) = rig.until_settled(second).await;
        assert_eq!(
            delivery.state.status(),
            DeliveryStatus::Delivered,
            "{how:?}"
        );
        rig.until("nothing is held any more", async || {
            held(&rig, endpoint).is_none().then_some(())
        })
        .await;
        assert_eq!(rig.now(), START.after(SECOND), "{how:?}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_what_is_enabled_changes_nothing_but_ends_a_hold_once() {
    let mut rig = Rig::new().await;
    let (_receiver, endpoint) = asking_to_wait(&rig, &[]).await;
    let version = |rig: &Rig| rig.live().endpoint(endpoint).unwrap().version;
    rig.switch(endpoint, Switch::Enabled).await;
    assert_eq!(version(&rig), 1);
    let message = rig.publish("1").await;
    rig.until_settled(message).await;
    rig.advance(SECOND);
    for _ in 0..2 {
        rig.switch(endpoint, Switch::Enabled).await;
        assert_eq!(version(&rig), 2);
        assert_eq!(held(&rig, endpoint), None);
    }
    let log = rig.audit_actions().await;
    let told = log
        .iter()
        .any(|(_, entry)| entry.to_string().contains("resumedAt"));
    assert!(told, "{log:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlasts_a_restart() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let (mut receiver, endpoint) = asking_to_wait(&rig, &[]).await;
    let first = rig.publish("1").await;
    rig.until_settled(first).await;
    let second = rig.publish("2").await;
    rig.restart().await;
    marker.pass(&rig).await;
    marker.pass(&rig).await;
    assert_eq!(receiver.rest().len(), 1);
    assert_eq!(held(&rig, endpoint), Some((START.after(HOUR), 429)));
    rig.advance(HOUR);
    rig.until_settled(second).await;
    assert_eq!(held(&rig, endpoint), None);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_what_was_sent_before_the_owner_enabled_it_holds_nothing() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| Reply {
        headers: vec![("retry-after", "3600".to_owned())],
        gated: seen.number == 0,
        ..status(if seen.number == 0 { 503 } else { 200 })
    })
    .await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    let endpoint = made.endpoint.id;
    let first = rig.publish("1").await;
    receiver.next().await;
    rig.advance(SECOND);
    rig.switch(endpoint, Switch::Paused).await;
    rig.switch(endpoint, Switch::Enabled).await;
    receiver.open_gate();
    rig.until_settled(first).await;
    assert_eq!(held(&rig, endpoint), None);
    let second = rig.publish("2").await;
    rig.until_settled(second).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_on_other_answers_means_nothing() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| Reply {
        headers: vec![("retry-after", "3600".to_owned())],
        ..status(500)
    })
    .await;
    rig.endpoint_with(retrying(receiver.url(), &[SECOND])).await;
    let message = rig.publish("1").await;
    let (delivery, _) = rig.until_attempts(message, 1).await;
    assert_eq!(due_at(delivery.state), START.after(SECOND));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_the_endpoint_and_exhausts_what_waits() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| match seen.number {
        0 => status(500),
        _ => status(410),
    })
    .await;
    let made = rig
        .endpoint_with(retrying(receiver.url(), &[10 * HOUR]))
        .await;
    let waiting = rig.publish("1").await;
    rig.until_attempts(waiting, 1).await;
    let gone = rig.publish("2").await;
    let (delivery, _) = rig.until_settled(gone).await;
    assert_eq!(exhausted(delivery.state), ExhaustedReason::Gone);
    let (delivery, attempts) = rig.until_settled(waiting).await;
    assert_eq!(exhausted(delivery.state), ExhaustedReason::EndpointDisabled);
    assert_eq!(attempts.len(), 1);
    let endpoint = rig.live().endpoint(made.endpoint.id).unwrap();
    let reason = DisabledReason::Gone;
    let since = rig.now();
    assert_eq!(endpoint.state, EndpointState::Disabled { since, reason });
    let disabled: Vec<_> = rig
        .audit_actions()
        .await
        .into_iter()
        .filter(|(action, _)| action == "endpoint.disabled")
        .collect();
    assert_eq!(disabled.len(), 1);
    assert!(disabled[0].1.to_string().contains("gone"), "{disabled:?}");
    assert_eq!(receiver.rest().len(), 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kore_retries_transient_failures_only_and_once() {
    for (code, attempts, reason) in [
        (404, 1, ExhaustedReason::NotRetried),
        (401, 1, ExhaustedReason::NotRetried),
        (429, 1, ExhaustedReason::NotRetried),
        (408, 2, ExhaustedReason::AttemptsUsed),
        (423, 2, ExhaustedReason::AttemptsUsed),
        (502, 2, ExhaustedReason::AttemptsUsed),
    ] {
        let mut rig = Rig::new().await;
        let receiver = Receiver::new(&rig.clock, move |_| status(code)).await;
        rig.endpoint_with(preset(receiver.url(), Preset::Kore))
            .await;
        let message = rig.publish("{}").await;
        rig.until_attempts(message, 1).await;
        rig.advance(MINUTE);
        let (delivery, made) = rig.until_settled(message).await;
        assert_eq!(
            (exhausted(delivery.state), made.len()),
            (reason, attempts),
            "{code}"
        );
        rig.stop().await;
    }
}
