//! The audit log, searched from its end.

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::store::Store as _;
use hookturn_core::workspace::Scope;

use super::super::audit::AuditFilter;
use super::super::testing::Bench;
use super::super::{Caller, ServiceError};

/// Adds `count` entries without a subject.
async fn fill(bench: &Bench, count: u64) {
    let context = Context {
        actor: Actor::System,
        request_id: None,
        reason: None,
    };
    let entry = |n| AuditEntry::new(AuditAction::AppUpdated, Subject::default()).with("n", n);
    let entries = (0..count).map(entry).collect();
    let now = bench.service.now();
    let workspace = bench.owner.workspace;
    let added = bench.store.audit(workspace, context, entries, now).await;
    added.unwrap();
}

async fn found(bench: &Bench, caller: &Caller, filter: &AuditFilter) -> Vec<String> {
    let found = bench.service.search_audit(caller, filter, None, 50).await;
    let entries = found.unwrap().entries.into_iter();
    entries
        .map(|recorded| recorded.entry.action.to_string())
        .collect()
}

#[tokio::test]
async fn entries_are_found_by_action_actor_subject_and_time_newest_first() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let all = found(&bench, &bench.owner, &AuditFilter::default()).await;
    assert_eq!(all.last().unwrap(), "workspace.created");

    let of_secrets = AuditFilter {
        action: Some("secret.".to_owned()),
        ..AuditFilter::default()
    };
    let secrets = found(&bench, &bench.owner, &of_secrets).await;
    assert!(!secrets.is_empty() && secrets.iter().all(|a| a.starts_with("secret.")));
    let bootstrap = AuditFilter {
        actor: Some(Actor::Bootstrap),
        ..AuditFilter::default()
    };
    let by_bootstrap = found(&bench, &bench.owner, &bootstrap).await;
    assert!(!by_bootstrap.contains(&"endpoint.created".to_owned()));
    for subject in [
        made.endpoint.keyring.to_string(),
        made.once.unwrap().secret.fingerprint.to_string(),
    ] {
        let about = AuditFilter {
            subject: Some(subject),
            ..AuditFilter::default()
        };
        let about = found(&bench, &bench.owner, &about).await;
        assert!(about.contains(&"secret.created".to_owned()), "{about:?}");
        assert!(!about.contains(&"workspace.created".to_owned()));
    }
    let later = AuditFilter {
        since: Some(bench.service.now().after(1)),
        ..AuditFilter::default()
    };
    assert!(found(&bench, &bench.owner, &later).await.is_empty());
    let earlier = AuditFilter {
        until: Some(bench.service.now()),
        ..AuditFilter::default()
    };
    assert!(found(&bench, &bench.owner, &earlier).await.is_empty());
}

#[tokio::test]
async fn a_search_is_bounded_and_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    bench.app().await;
    fill(&bench, 12_500).await;
    let first = AuditFilter {
        action: Some("app.created".to_owned()),
        ..AuditFilter::default()
    };
    let service = &bench.service;
    let looked = service.search_audit(&bench.owner, &first, None, 50).await;
    let looked = looked.unwrap();
    assert!(looked.entries.is_empty());
    let below = looked.rest_below.expect("it says where it stopped");
    assert!(below > 1_000, "{below}");
    let looked = service.search_audit(&bench.owner, &first, Some(below), 50);
    let looked = looked.await.unwrap();
    assert_eq!((looked.entries.len(), looked.rest_below), (1, None));

    let (mut below, mut seen) = (None, Vec::new());
    loop {
        let every = AuditFilter::default();
        let part = service.search_audit(&bench.owner, &every, below, 200).await;
        let part = part.unwrap();
        seen.extend(part.entries.iter().map(|entry| entry.seq));
        below = part.rest_below;
        if below.is_none() {
            break;
        }
    }
    let whole: Vec<u64> = (1..=seen[0]).rev().collect();
    assert_eq!(seen, whole, "each entry once");
}

#[tokio::test]
async fn g9_the_last_proof_is_remembered_and_each_workspace_has_its_own() {
    let bench = Bench::new().await;
    bench.app().await;
    let service = &bench.service;
    assert_eq!(service.audit_proof(&bench.owner).await.unwrap(), None);
    service.verify_audit(&bench.owner).await.unwrap();
    let (head, at) = service.audit_proof(&bench.owner).await.unwrap().unwrap();
    assert_eq!(at, service.now());
    let every = AuditFilter::default();
    let newest = service.search_audit(&bench.owner, &every, None, 1);
    assert_eq!(newest.await.unwrap().entries[0].head(), head);
    let stranger = bench.stranger().await;
    assert_eq!(service.audit_proof(&stranger).await.unwrap(), None);
    let blind = bench.limited(&[Scope::Publish]).await;
    let refused = service.search_audit(&blind, &every, None, 1);
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, ServiceError::Forbidden { .. }));
}
