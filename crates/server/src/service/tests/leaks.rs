//! Leaks: who finds which secret, and what is kept of a search.

use std::sync::Arc;

use hookturn_core::audit::AuditAction;
use hookturn_core::limits;
use hookturn_core::rotation::SecretStatus;
use hookturn_core::store::{Store as _, Write};
use hookturn_core::workspace::Scope;
use zeroize::Zeroizing;

use super::super::Caller;
use super::super::ServiceError;
use super::super::leaks::{FoundSecret, LeakHash, LeakSearch};
use super::super::rotation::{ModeName, NewRotation};
use super::super::testing::Bench;

fn hashes(texts: &[&str]) -> LeakSearch {
    LeakSearch {
        hashes: texts.iter().map(|text| LeakHash::of(text)).collect(),
        text: None,
    }
}

async fn search(bench: &Bench, caller: &Caller, text: &str) -> Vec<FoundSecret> {
    let found = bench.service.search_leaks(caller, hashes(&[text])).await;
    found.unwrap().remove(0).found
}

fn immediate() -> NewRotation {
    NewRotation {
        mode: ModeName::Immediate,
        overlap: None,
        deadline_at: None,
        policy: None,
        name: None,
        value: None,
        reason: None,
    }
}

#[tokio::test]
async fn a_secret_is_found_by_its_hash_in_every_state() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let keyring = made.endpoint.keyring;
    let first = made.once.unwrap();
    let text = first.value.expose();
    let found = search(&bench, &bench.owner, text).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].keyring), (first.secret.id, keyring));
    assert_eq!(found[0].endpoints[0].id, made.endpoint.id);
    assert!(found[0].advice.commands[0].contains("secret compromise"));
    assert!(found[0].advice.commands[1].contains("--mode immediate"));
    let rotate = bench
        .service
        .open_rotation(&bench.owner, keyring, immediate(), None, None);
    rotate.await.unwrap();
    let status = |found: &[FoundSecret]| {
        let secret = found[0].secret.as_ref().unwrap();
        secret.status(bench.service.now())
    };
    let found = search(&bench, &bench.owner, text).await;
    assert_eq!(status(&found), SecretStatus::Retired);
    // An undo would bring it back.
    assert!(found[0].advice.commands[0].contains("secret compromise"));
    let destroy = bench
        .service
        .destroy_secret(&bench.owner, keyring, first.secret.id, None, None);
    destroy.await.unwrap();
    let found = search(&bench, &bench.owner, text).await;
    assert_eq!(status(&found), SecretStatus::Destroyed);
    assert!(
        search(&bench, &bench.owner, "whsec_unknown")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_text_is_found_whole_and_without_its_prefix() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let once = bench.endpoint(app).await.once.unwrap();
    let text = once.value.expose().to_owned();
    let bare = text.strip_prefix("whsec_").unwrap().to_owned();
    for text in [text, bare] {
        let asked = LeakSearch {
            hashes: Vec::new(),
            text: Some(Zeroizing::new(text)),
        };
        let found = bench.service.search_leaks(&bench.owner, asked).await;
        assert_eq!(found.unwrap()[0].found[0].id, once.secret.id);
    }
}

#[tokio::test]
async fn a_workspace_finds_its_own_and_an_operator_all() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let once = bench.endpoint(app).await.once.unwrap();
    let stranger = bench.stranger().await;
    assert!(
        search(&bench, &stranger, once.value.expose())
            .await
            .is_empty()
    );
    let other = bench.service.live.workspace(stranger.workspace).unwrap();
    let operator = bench.operator_in(&other);
    let found = search(&bench, &operator, once.value.expose()).await;
    assert_eq!(found[0].workspace.id, bench.owner.workspace);
    assert!(found[0].advice.commands[0].contains(&found[0].workspace.id.to_string()));
    // The owner's log says that it was found, the searcher's that somebody searched.
    for (workspace, action) in [
        (bench.owner.workspace, AuditAction::LeakFound),
        (stranger.workspace, AuditAction::LeakSearched),
    ] {
        let log = bench.store.audit_log(workspace, 0, 1_000).await.unwrap();
        assert!(
            log.iter().any(|entry| entry.entry.action == action),
            "{action}"
        );
    }
    let reader = bench.limited(&[Scope::Read]).await;
    let refused = bench.service.search_leaks(&reader, hashes(&["x"])).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })));
}

#[tokio::test]
async fn g8_neither_the_string_nor_its_hash_is_kept() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let once = bench.endpoint(app).await.once.unwrap();
    let text = once.value.expose();
    search(&bench, &bench.owner, text).await;
    search(&bench, &bench.owner, "a string that is no secret of ours").await;
    let disk = bench.disk().await;
    for needle in [text, "a string that is no secret of ours"] {
        let hash = LeakHash::of(needle).0;
        let encoded = hex::encode(hash);
        for needle in [needle.as_bytes(), &hash, encoded.as_bytes()] {
            assert!(!disk.windows(needle.len()).any(|window| window == needle));
        }
    }
    let log = bench.store.audit_log(bench.owner.workspace, 0, 1_000).await;
    let searched = log.unwrap();
    let searched: Vec<_> = searched
        .iter()
        .filter(|entry| entry.entry.action == AuditAction::LeakSearched)
        .map(|entry| entry.entry.detail["found"].clone())
        .collect();
    assert_eq!(searched, ["1", "0"]);
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_refused_for_a_while() {
    let bench = Bench::new().await;
    for _ in 0..limits::LEAK_SEARCH_BURST {
        search(&bench, &bench.owner, "whsec_unknown").await;
    }
    let ask = || bench.service.search_leaks(&bench.owner, hashes(&["x"]));
    let refused = ask().await;
    assert!(matches!(refused, Err(ServiceError::RateLimited { .. })));
    bench.clock.advance(1_000);
    assert!(ask().await.is_ok());
    let many = LeakSearch {
        hashes: vec![LeakHash([1; 32]); limits::LEAK_HASHES + 1],
        text: None,
    };
    for impossible in [many, LeakSearch::default()] {
        let refused = bench
            .service
            .search_leaks(&bench.operator, impossible)
            .await;
        assert!(matches!(
            refused,
            Err(ServiceError::Invalid { .. } | ServiceError::Missing { .. })
        ));
    }
}

/// What an upgrade finds: secrets that were made before there were marks, and no key.
#[tokio::test]
async fn older_secrets_are_marked_before_the_first_search() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let made = bench.endpoint(app).await;
    let once = made.once.unwrap();
    let sealed = bench.service.live.sealed_secret(once.secret.id).unwrap();
    let mut older = sealed.as_ref().clone();
    let text = "whsec_imported_long_before_there_were_marks";
    older.secret = hookturn_core::id::SecretId::from_bytes([9; 16]);
    older.sealed = Arc::from(
        bench
            .service
            .sealer
            .seal(crate::store::seal::Place::Secret(&older), text.as_bytes()),
    );
    let unmarked = vec![Write::Secret(older)];
    bench.service.write_for_system(unmarked).await.unwrap();
    let found = search(&bench, &bench.owner, text).await;
    assert_eq!(
        found[0].id,
        hookturn_core::id::SecretId::from_bytes([9; 16])
    );
    assert_eq!(bench.service.mark_secrets().await.unwrap(), 0);
}

#[tokio::test]
async fn a_new_master_key_changes_no_mark() {
    let bench = Bench::new().await;
    let app = bench.app().await;
    let once = bench.endpoint(app).await.once.unwrap();
    bench
        .service
        .rotate_master_key(&bench.operator)
        .await
        .unwrap();
    let current = vec![bench.service.sealer.master_keys()[0].clone()];
    bench.service.sealer.replace_keys(current);
    let found = search(&bench, &bench.owner, once.value.expose()).await;
    assert_eq!(found[0].id, once.secret.id);
}
