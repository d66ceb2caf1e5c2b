//! Messages and deliveries.

use bytes::Bytes;
use hookturn_core::audit::AuditAction;
use hookturn_core::delivery::{DeliveryState, DeliveryStatus};
use hookturn_core::limits;
use hookturn_core::time::HOUR;

use super::super::deliveries::{DeliveryFilter, Recover, Recovered};
use super::super::endpoints::{NewEndpoint, Switch};
use super::super::idempotency::Lookup;
use super::super::messages::NewMessageInput;
use super::super::testing::{Bench, endpoint_input, first_page, fresh_key, message};
use super::super::{Recording, ServiceError};

#[tokio::test]
async fn a_message_becomes_a_delivery_for_each_endpoint_that_wants_it() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let all = bench.endpoint(app).await.endpoint.id;
    let only_paid = NewEndpoint {
        events: vec!["invoice.*".to_owned()],
        ..endpoint_input()
    };
    let paid = service.create_endpoint(owner, app, only_paid, None).await;
    let paid = paid.unwrap().endpoint.id;
    let ids = service
        .publish_batch(
            owner,
            app,
            vec![message("user.created"), message("invoice.paid")],
            None,
        )
        .await
        .unwrap();
    assert!(ids[0] < ids[1]);
    let mut expected = vec![(ids[0], all), (ids[1], all), (ids[1], paid)];
    let listed = service
        .deliveries(owner, app, DeliveryFilter::default(), first_page())
        .await
        .unwrap();
    let mut found: Vec<_> = listed
        .items
        .iter()
        .map(|delivery| (delivery.message, delivery.endpoint))
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    let read = service.message(owner, app, ids[1]).await.unwrap();
    assert_eq!(read.payload, message("invoice.paid").payload);
    let messages = service.messages(owner, app, None, None, first_page()).await;
    let messages: Vec<_> = messages.unwrap().items.iter().map(|m| m.id).collect();
    assert_eq!(messages, [ids[1], ids[0]]);
    let types = service.event_types(owner).await.unwrap();
    let types: Vec<_> = types.iter().map(|t| t.as_str().to_owned()).collect();
    assert_eq!(types, ["invoice.paid", "user.created"]);
}

#[tokio::test]
async fn a_message_out_of_bounds_is_refused_and_a_batch_is_whole_or_not() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let large = NewMessageInput {
        payload: Bytes::from(vec![b'1'; limits::PAYLOAD_BYTES + 1]),
        ..message("a.b")
    };
    let refused = service.publish(owner, app, large, None).await;
    assert!(matches!(refused, Err(ServiceError::TooLarge { .. })));
    let bad = NewMessageInput {
        event_id: Some("a\nb".to_owned()),
        ..message("a.b")
    };
    let refused = service
        .publish_batch(owner, app, vec![message("a.b"), bad], None)
        .await;
    assert!(
        matches!(refused, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/messages/1/eventId")
    );
    for count in [0, limits::BATCH_MESSAGES + 1] {
        let refused = service.publish_batch(owner, app, vec![message("a.b"); count], None);
        assert!(
            matches!(refused.await, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/messages")
        );
    }
    let stored = service.messages(owner, app, None, None, first_page()).await;
    assert_eq!(stored.unwrap().items.len(), 0);
    let ghost = "ghost000".parse().unwrap();
    let refused = service.publish(owner, ghost, message("a.b"), None).await;
    assert!(matches!(
        refused,
        Err(ServiceError::NotFound { what: "app" })
    ));
}

#[tokio::test]
async fn publishing_twice_under_one_key_stores_one_message() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let recording = Recording {
        key: fresh_key(&bench.owner),
        fingerprint: [0; 32],
        render: &|id: &hookturn_core::id::MessageId| id.to_string().into_bytes(),
    };
    let publish = async || {
        bench
            .service
            .publish(&bench.owner, app, message("a.b"), Some(recording))
            .await
    };
    publish().await.unwrap();
    assert!(matches!(
        publish().await,
        Err(ServiceError::IdempotencyKeyUsed)
    ));
    let stored = bench
        .service
        .messages(&bench.owner, app, None, None, first_page())
        .await;
    assert_eq!(stored.unwrap().items.len(), 1);
}

#[tokio::test]
async fn recover_counts_in_a_dry_run_and_queues_otherwise() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    let since = service.now();
    service
        .publish_batch(owner, app, vec![message("a.b"); 7], None)
        .await
        .unwrap();
    bench.exhaust(endpoint).await;
    bench.clock.advance(HOUR);
    let input = Recover {
        since,
        until: None,
        status: DeliveryStatus::Exhausted,
        dry_run: true,
    };
    let count = async |status| {
        let filter = DeliveryFilter {
            status: Some(status),
            ..DeliveryFilter::default()
        };
        let listed = service.deliveries(owner, app, filter, first_page());
        listed.await.unwrap().items.len()
    };
    let recover = async |input| service.recover(owner, app, endpoint, input, None).await;
    for _ in 0..2 {
        let counted = recover(input).await.unwrap();
        assert_eq!((counted.count, counted.has_more), (7, false));
    }
    assert_eq!(count(DeliveryStatus::Exhausted).await, 7);
    let done = Recover {
        dry_run: false,
        ..input
    };
    assert_eq!(recover(done).await.unwrap().count, 7);
    assert_eq!(recover(done).await.unwrap().count, 0);
    assert_eq!(count(DeliveryStatus::Pending).await, 7);
    let pending = Recover {
        status: DeliveryStatus::Pending,
        ..input
    };
    assert!(
        matches!(recover(pending).await, Err(ServiceError::Invalid { pointer, .. }) if pointer == "/status")
    );
}

#[tokio::test]
async fn a_recover_is_audited_with_its_blocks_and_answered_once() {
    const MESSAGES: usize = limits::RECOVER_BLOCK + 5;
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    let since = service.now();
    for count in [MESSAGES / 2, MESSAGES - MESSAGES / 2] {
        let messages = vec![message("a.b"); count];
        let published = service.publish_batch(owner, app, messages, None);
        published.await.unwrap();
    }
    bench.exhaust(endpoint).await;
    bench.exhaust(endpoint).await;
    bench.clock.advance(HOUR);
    let input = Recover {
        since,
        until: None,
        status: DeliveryStatus::Exhausted,
        dry_run: false,
    };
    let render = |done: &Recovered| done.count.to_string().into_bytes();
    let recording = Recording {
        key: fresh_key(owner),
        fingerprint: [7; 32],
        render: &render,
    };
    let recover = async || {
        let recover = service.recover(owner, app, endpoint, input, Some(recording));
        recover.await
    };
    let done = recover().await.unwrap();
    assert_eq!((done.count, done.has_more), (MESSAGES, false));
    let log = service.audit_log(owner, 0, 200).await.unwrap().items;
    let counts: Vec<_> = log
        .iter()
        .filter(|recorded| recorded.entry.action == AuditAction::DeliveriesRecovered)
        .map(|recorded| recorded.entry.detail["count"].clone())
        .collect();
    assert_eq!(counts, [limits::RECOVER_BLOCK.to_string(), "5".to_owned()]);
    let again = recover().await.unwrap_err();
    assert!(
        matches!(again, ServiceError::IdempotencyKeyUsed),
        "{again:?}"
    );
    let kept = service
        .replay(owner, recording.key, recording.fingerprint)
        .await;
    let Ok(Some(Lookup::Replay(answer))) = kept else {
        panic!("{kept:?}");
    };
    assert_eq!(*answer, MESSAGES.to_string().into_bytes());
}

#[tokio::test]
async fn retries_at_the_same_time_all_happen() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    service
        .publish(owner, app, message("a.b"), None)
        .await
        .unwrap();
    bench.exhaust(endpoint).await;
    let listed = service.deliveries(owner, app, DeliveryFilter::default(), first_page());
    let id = listed.await.unwrap().items[0].id;
    let retries = (0..8).map(|_| service.retry_delivery(owner, id, None));
    for retried in futures_util::future::join_all(retries).await {
        retried.unwrap();
    }
    let log = service.audit_log(owner, 0, 200).await.unwrap().items;
    let retried = log
        .iter()
        .filter(|recorded| recorded.entry.action == AuditAction::DeliveryRetried);
    assert_eq!(retried.count(), 8);
}

#[tokio::test]
async fn a_retry_queues_and_is_audited_and_a_disabled_endpoint_takes_none() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    let sent = service
        .send_test(owner, app, endpoint, message("hookturn.test"), None)
        .await
        .unwrap();
    bench.exhaust(endpoint).await;
    let (settled, _) = service.delivery(owner, sent.delivery).await.unwrap();
    assert_eq!(settled.state.status(), DeliveryStatus::Exhausted);
    assert_eq!(settled.message, sent.message);

    let retried = service
        .retry_delivery(owner, sent.delivery, None)
        .await
        .unwrap();
    assert!(matches!(retried.state, DeliveryState::Pending { .. }));
    let log = service.audit_log(owner, 0, 200).await.unwrap().items;
    let last = &log.last().unwrap().entry;
    assert_eq!(last.action, AuditAction::DeliveryRetried);
    assert_eq!(last.subject.delivery, Some(sent.delivery));

    service
        .switch_endpoint(owner, app, endpoint, Switch::Disabled, None, None)
        .await
        .unwrap();
    let refused = service.retry_delivery(owner, sent.delivery, None).await;
    let test = service
        .send_test(owner, app, endpoint, message("hookturn.test"), None)
        .await;
    for code in [refused.unwrap_err().code(), test.unwrap_err().code()] {
        assert_eq!(code, "endpoint_disabled");
    }
}
