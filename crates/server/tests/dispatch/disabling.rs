//! Endpoints that are disabled, by themselves or by their owner, or deleted.

use hookturn::service::endpoints::{NewEndpoint, Switch};
use hookturn::service::workspaces::WorkspacePatch;
use hookturn_core::delivery::{DeliveryState, DeliveryStatus, ExhaustedReason};
use hookturn_core::endpoint::{DisabledReason, EndpointState, Preset};
use hookturn_core::limits::DISABLE_AFTER_FAILURES;
use hookturn_core::time::{DAY, HOUR, SECOND};

use crate::delivering::retrying;
use crate::receiver::{Receiver, status};
use crate::rig::{Marker, Rig, verifier};

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_too_long_is_disabled_and_its_owner_is_told() {
    let mut rig = Rig::new().await;
    let mut told = Receiver::new(&rig.clock, |_| status(200)).await;
    let operational = rig.new_app().await;
    let listener = rig
        .endpoint_in(
            operational,
            NewEndpoint {
                url: Some(told.url()),
                ..NewEndpoint::default()
            },
        )
        .await;
    let patch = WorkspacePatch {
        operational_app: Some(Some(operational)),
        ..WorkspacePatch::default()
    };
    let workspace = rig.caller().workspace;
    let patched = rig
        .service()
        .patch_workspace(rig.caller(), workspace, patch, None, None);
    patched.await.unwrap();
    let receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    // With the last two: as many as it takes.
    for _ in 2..DISABLE_AFTER_FAILURES {
        let early = rig.publish("1").await;
        rig.until_settled(early).await;
    }
    rig.advance(rig.disable_after - 1);
    let second = rig.publish("2").await;
    rig.until_settled(second).await;
    assert_eq!(
        rig.live().endpoint(made.endpoint.id).unwrap().state,
        EndpointState::Enabled
    );
    rig.advance(1);
    let third = rig.publish("3").await;
    let (delivery, _) = rig.until_settled(third).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Exhausted);
    rig.until("it is disabled", async || {
        let endpoint = rig.live().endpoint(made.endpoint.id).unwrap();
        matches!(endpoint.state, EndpointState::Disabled { .. }).then_some(())
    })
    .await;
    assert_eq!(rig.service().report_events().await.unwrap(), 1);
    let event = told.next().await;
    let key = verifier(Preset::Standard, &[("only", &listener.once.unwrap().value)]);
    assert_eq!(event.signer(&key), "only");
    let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["endpointId"], made.endpoint.id.to_string());
    assert_eq!(body["type"], "hookturn.endpoint.disabled");
    assert_eq!(body["detail"]["why"], "failing");
    let since = rig.now();
    let state = rig.live().endpoint(made.endpoint.id).unwrap().state.clone();
    assert_eq!(
        state,
        EndpointState::Disabled {
            since,
            reason: DisabledReason::Failing
        }
    );
    let audited = rig.audit_actions().await;
    let disabled: Vec<_> = audited
        .iter()
        .filter(|(action, _)| action == "endpoint.disabled")
        .collect();
    assert_eq!(disabled.len(), 1);
    assert!(disabled[0].1.to_string().contains("failing"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lone_failures_far_apart_disable_nothing() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(500)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    for _ in 0..3 {
        let message = rig.publish("1").await;
        rig.until_settled(message).await;
        rig.advance(rig.disable_after);
    }
    let state = rig.live().endpoint(made.endpoint.id).unwrap().state.clone();
    assert_eq!(state, EndpointState::Enabled);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_success_starts_the_time_of_failing_anew() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |seen| {
        status(if seen.number == 1 { 200 } else { 500 })
    })
    .await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[])).await;
    for _ in 0..3 {
        let message = rig.publish("1").await;
        rig.until_settled(message).await;
        rig.advance(rig.disable_after - DAY);
    }
    // A restart must not forget since when it fails, how often, nor that it did not before. With the
    // one before it and the last one: as many failures as it takes.
    rig.restart().await;
    for _ in 2..DISABLE_AFTER_FAILURES {
        let message = rig.publish("2").await;
        rig.until_settled(message).await;
    }
    assert_eq!(
        rig.live().endpoint(made.endpoint.id).unwrap().state,
        EndpointState::Enabled
    );
    rig.advance(DAY);
    let message = rig.publish("3").await;
    rig.until_settled(message).await;
    rig.until("it is disabled", async || {
        let endpoint = rig.live().endpoint(made.endpoint.id).unwrap();
        matches!(endpoint.state, EndpointState::Disabled { .. }).then_some(())
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_what_waits_for_a_disabled_or_deleted_endpoint_is_exhausted_at_once() {
    for (delete, wanted) in [
        (false, ExhaustedReason::EndpointDisabled),
        (true, ExhaustedReason::EndpointDeleted),
    ] {
        let mut rig = Rig::new().await;
        let mut receiver = Receiver::new(&rig.clock, |_| status(404)).await;
        let made = rig
            .endpoint_with(retrying(receiver.url(), &[10 * HOUR, 3 * DAY]))
            .await;
        // More than one block of them, due in the far future.
        let messages = rig.publish_many((0..1_200).map(|n| n.to_string())).await;
        rig.until("all failed once", async || {
            let reads = rig
                .deliveries(hookturn::service::deliveries::DeliveryFilter::default())
                .await;
            reads
                .iter()
                .all(|delivery| delivery.attempts == 1)
                .then_some(())
        })
        .await;
        if delete {
            let deleted =
                rig.service()
                    .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
            deleted.await.unwrap();
        } else {
            rig.switch(made.endpoint.id, Switch::Disabled).await;
        }
        rig.until_nothing_is_due().await;
        for message in messages.iter().step_by(100) {
            let (delivery, attempts) = rig.delivery_of(*message).await;
            assert_eq!(attempts.len(), 1);
            match delivery.state {
                DeliveryState::Exhausted { reason, .. } => assert_eq!(reason, wanted),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(receiver.rest().len(), 1_200);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_an_attempt_in_flight_while_its_endpoint_is_deleted_is_recorded() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| crate::receiver::gated(500)).await;
    let made = rig.endpoint_with(retrying(receiver.url(), &[HOUR])).await;
    let message = rig.publish("1").await;
    receiver.next().await;
    let deleted =
        rig.service()
            .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
    deleted.await.unwrap();
    receiver.open_gate();
    let (delivery, attempts) = rig.until_settled(message).await;
    assert_eq!(attempts.len(), 1);
    let DeliveryState::Exhausted { reason, .. } = delivery.state else {
        panic!("{delivery:?}");
    };
    assert_eq!(reason, ExhaustedReason::EndpointDeleted);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_enabled_again_keeps_the_schedule_of_what_waits() {
    let mut rig = Rig::new().await;
    let mut marker = Marker::new(&rig).await;
    let mut receiver = Receiver::new(&rig.clock, |seen| {
        status(if seen.number == 0 { 500 } else { 200 })
    })
    .await;
    let made = rig
        .endpoint_with(retrying(receiver.url(), &[10 * SECOND]))
        .await;
    let waiting = rig.publish("1").await;
    rig.until_attempts(waiting, 1).await;
    rig.switch(made.endpoint.id, Switch::Paused).await;
    let paused = rig.publish("2").await;
    rig.advance(SECOND);
    marker.pass(&rig).await;
    assert_eq!(
        receiver.rest().len(),
        1,
        "nothing is sent while it is paused"
    );
    rig.switch(made.endpoint.id, Switch::Enabled).await;
    rig.until_settled(paused).await;
    assert_eq!(receiver.rest().len(), 1);
    rig.advance(9 * SECOND);
    rig.until_settled(waiting).await;
    assert_eq!(receiver.rest().len(), 1);
    rig.stop().await;
}
