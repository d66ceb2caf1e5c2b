//! Searching for deliveries, sending them again, and looking at captured requests.

use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::limits;
use hookturn_core::store::{SearchFrom, Store as _};
use hookturn_core::time::HOUR;
use hookturn_core::workspace::Scope;
use hookturn_verify::{Content, Scheme, Secret, Signer, sign};

use super::super::ServiceError;
use super::super::endpoints::Switch;
use super::super::inspecting::CapturedRequest;
use super::super::keyrings::NewSecretInput;
use super::super::searching::Search;
use super::super::testing::{Bench, message};

fn exhausted() -> Search {
    Search {
        status: Some(DeliveryStatus::Exhausted),
        ..Search::default()
    }
}

#[tokio::test]
async fn what_matches_is_counted_then_queued_in_blocks_and_audited() {
    const MESSAGES: usize = limits::RECOVER_BLOCK + 5;
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    for count in [MESSAGES / 2, MESSAGES - MESSAGES / 2] {
        let messages = vec![message("a.b"); count];
        let published = service.publish_batch(owner, app, messages, None);
        published.await.unwrap();
    }
    bench.exhaust(endpoint).await;
    bench.exhaust(endpoint).await;
    bench.clock.advance(HOUR);
    let last = service.last_exhausted(owner, endpoint).await.unwrap();
    assert!(last.is_some());
    let retry = async |dry_run| {
        let search = exhausted();
        let retried = service.retry_matching(owner, &search, SearchFrom::Newest, dry_run);
        let retried = retried.await.unwrap();
        assert_eq!(retried.resume, None);
        (retried.queued, retried.left_out)
    };
    let disable = service.switch_endpoint(owner, app, endpoint, Switch::Disabled, None, None);
    disable.await.unwrap();
    assert_eq!(retry(false).await, (0, MESSAGES), "it takes nothing");
    let enable = service.switch_endpoint(owner, app, endpoint, Switch::Enabled, None, None);
    enable.await.unwrap();
    assert_eq!(retry(true).await, (MESSAGES, 0));
    assert_eq!(retry(false).await, (MESSAGES, 0));
    assert_eq!(retry(false).await, (0, 0), "what is pending is left alone");
    let log = bench.store.audit_log(owner.workspace, 0, 1_000);
    let log = log.await.unwrap();
    let counts: Vec<_> = log
        .iter()
        .filter_map(|recorded| recorded.entry.detail.get("count").cloned())
        .collect();
    assert_eq!(counts, ["1000", "5"]);
}

#[tokio::test]
async fn nothing_of_another_workspace_is_found_or_sent() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let endpoint = bench.endpoint(app).await.endpoint.id;
    service
        .publish(owner, app, message("a.b"), None)
        .await
        .unwrap();
    bench.exhaust(endpoint).await;
    bench.clock.advance(HOUR);
    let stranger = bench.stranger().await;
    let all = Search::default();
    let look = service.search_deliveries(&stranger, &all, SearchFrom::Newest, 50);
    assert!(look.await.unwrap().items.is_empty());
    let failed = exhausted();
    let retried = service.retry_matching(&stranger, &failed, SearchFrom::Newest, false);
    assert_eq!(retried.await.unwrap().queued, 0);
    let named = Search {
        app: Some(app),
        ..Search::default()
    };
    let look = service.search_deliveries(&stranger, &named, SearchFrom::Newest, 50);
    assert!(matches!(look.await, Err(ServiceError::NotFound { .. })));
    assert!(service.endpoint_shown(&stranger, endpoint).is_none());
    let captured = CapturedRequest::default();
    let checked = service.check_captured(&stranger, app, endpoint, &captured);
    assert!(matches!(checked.await, Err(ServiceError::NotFound { .. })));
    let found = service.search_deliveries(owner, &all, SearchFrom::Newest, 50);
    let id = found.await.unwrap().items[0].delivery.id;
    let inspected = service.inspect(&stranger, id).await;
    assert!(matches!(inspected, Err(ServiceError::NotFound { .. })));
    let reader = bench.limited(&[Scope::Read]).await;
    let retried = service.retry_matching(&reader, &failed, SearchFrom::Newest, true);
    assert!(matches!(retried.await, Err(ServiceError::Forbidden { .. })));
}

#[tokio::test]
async fn pages_of_a_search_lead_on_both_ways() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    bench.endpoint(app).await;
    let messages = vec![message("a.b"); 7];
    service
        .publish_batch(owner, app, messages, None)
        .await
        .unwrap();
    let search = Search::default();
    let look = async |from| {
        let page = service.search_deliveries(owner, &search, from, 3).await;
        page.unwrap()
    };
    let first = look(SearchFrom::Newest).await;
    assert_eq!((first.items.len(), first.newer), (3, None));
    let second = look(SearchFrom::OlderThan(first.older.unwrap())).await;
    let third = look(SearchFrom::OlderThan(second.older.unwrap())).await;
    assert_eq!((third.items.len(), third.older), (1, None));
    let back = look(SearchFrom::NewerThan(third.newer.unwrap())).await;
    let ids = |page: &super::super::searching::Found| {
        let ids = page.items.iter().map(|item| item.delivery.id);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&back), ids(&second));
    let top = look(SearchFrom::NewerThan(back.newer.unwrap())).await;
    assert_eq!((ids(&top), top.newer), (ids(&first), None));
    let than = third.items[0].delivery.id;
    let newer = service.count_newer(owner, &search, than).await.unwrap();
    assert_eq!((newer.count, newer.has_more), (6, false));
}

#[tokio::test]
async fn a_captured_request_is_traced_to_the_secret_that_signed_it() {
    let bench = Bench::new().await;
    let (service, owner) = (&bench.service, &bench.owner);
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let old = made.once.unwrap();
    let (endpoint, keyring) = (made.endpoint.id, made.endpoint.keyring);
    let input = NewSecretInput {
        name: Some("next".to_owned()),
        ..NewSecretInput::default()
    };
    let new = service
        .create_secret(owner, keyring, input, None, None)
        .await;
    let new = new.unwrap().once;
    let seconds = service.now().as_seconds() - 90_000;
    let captured = |secret: &Secret, body: &str, pasted: &str| {
        let content = Content {
            id: "msg_1",
            timestamp: seconds,
            method: "POST",
            url: "https://receiver.example/hooks",
            body: body.as_bytes(),
        };
        let signer = Signer::new(Scheme::Standard, secret).unwrap();
        let signature = sign(Scheme::Standard, &[&signer], &content).unwrap();
        let headers = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signature),
        ];
        CapturedRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            bodies: vec![b"wrong".to_vec(), pasted.as_bytes().to_vec()],
        }
    };
    for secret in [&old, &new] {
        let captured = captured(&secret.value, "{}\n", "{}\n");
        let checked = service.check_captured(owner, app, endpoint, &captured);
        let checked = checked.await.unwrap();
        let signed = checked.result.unwrap();
        assert_eq!(signed.secret.id, secret.secret.id);
        assert_eq!((signed.form, checked.tried, checked.erased), (1, 2, 0));
        assert_eq!(signed.at.unwrap().as_seconds(), seconds);
    }
    let foreign = Secret::generate([7; 32]);
    for captured in [
        captured(&foreign, "{}", "{}"),
        captured(&old.value, "{}", "{} "),
    ] {
        let checked = service.check_captured(owner, app, endpoint, &captured);
        assert!(checked.await.unwrap().result.is_err());
    }
}
