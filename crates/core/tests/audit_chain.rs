//! G9: the audit log's hash chain, and its stored form.

use hookturn_core::audit::{
    Actor, AuditAction, AuditEntry, Broken, Context, Damage, Head, Recorded, Subject, chain,
    verify_chain,
};
use hookturn_core::id::{
    ApiKeyId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use hookturn_core::time::Timestamp;
use hookturn_verify::Fingerprint;
use proptest::prelude::*;

fn entry() -> AuditEntry {
    let subject = Subject {
        app: "HqTRDIY8".parse::<ClientId>().ok(),
        endpoint: Some(EndpointId::from_bytes([1; 16])),
        keyring: Some(KeyringId::from_bytes([2; 16])),
        secret: Some(SecretId::from_bytes([3; 16])),
        rotation: Some(RotationId::from_bytes([4; 16])),
        api_key: Some(ApiKeyId::from_bytes([5; 16])),
        message: Some(MessageId::from_bytes([6; 16])),
        delivery: Some(DeliveryId::from_bytes([7; 16])),
    };
    AuditEntry {
        fingerprint: Some(Fingerprint::from_bytes([0xab; 4])),
        ..AuditEntry::new(AuditAction::SecretActivated, subject).with("was", "pending")
    }
}

fn context() -> Context {
    Context {
        actor: Actor::ApiKey(ApiKeyId::from_bytes([8; 16])),
        request_id: Some("req_1".to_owned()),
        reason: Some("yearly".to_owned()),
    }
}

fn log(length: u64) -> Vec<Recorded> {
    let mut head = Head::START;
    let workspace = WorkspaceId::from_bytes([9; 16]);
    (0..length)
        .map(|number| {
            let at = Timestamp::EPOCH.after(number);
            let recorded = chain(head, at, workspace, context(), entry());
            head = recorded.head();
            recorded
        })
        .collect()
}

type Alteration = (&'static str, fn(&mut Recorded));

/// Every way to change one field of an entry.
fn alterations() -> Vec<Alteration> {
    vec![
        ("at", |r| r.at = r.at.after(1)),
        ("workspace", |r| {
            r.workspace = WorkspaceId::from_bytes([0; 16]);
        }),
        ("actor", |r| r.context.actor = Actor::System),
        ("request id", |r| r.context.request_id = None),
        ("reason", |r| r.context.reason = Some(String::new())),
        ("action", |r| r.entry.action = AuditAction::SecretRetired),
        ("app", |r| r.entry.subject.app = None),
        ("endpoint", |r| r.entry.subject.endpoint = None),
        ("keyring", |r| r.entry.subject.keyring = None),
        ("secret", |r| r.entry.subject.secret = None),
        ("rotation", |r| r.entry.subject.rotation = None),
        ("api key", |r| r.entry.subject.api_key = None),
        ("message", |r| r.entry.subject.message = None),
        ("delivery", |r| r.entry.subject.delivery = None),
        ("fingerprint", |r| r.entry.fingerprint = None),
        ("detail value", |r| {
            r.entry.detail.insert("was".to_owned(), "active".to_owned());
        }),
        ("detail added", |r| {
            r.entry.detail.insert("x".to_owned(), String::new());
        }),
        ("hash", |r| r.hash[31] ^= 1),
    ]
}

#[test]
fn g9_a_change_of_any_field_is_found_at_its_entry() {
    for (field, alter) in alterations() {
        let mut log = log(3);
        alter(&mut log[1]);
        let broken = verify_chain(Head::START, &log);
        assert_eq!(
            broken,
            Err(Broken {
                seq: 2,
                why: Damage::Altered
            }),
            "{field}"
        );
    }
}

#[test]
fn g9_a_forged_entry_breaks_the_next_one() {
    for (field, alter) in alterations()
        .into_iter()
        .filter(|(field, _)| *field != "hash")
    {
        let mut log = log(3);
        alter(&mut log[1]);
        log[1].hash = log[1].compute_hash();
        let broken = verify_chain(Head::START, &log);
        assert_eq!(
            broken,
            Err(Broken {
                seq: 3,
                why: Damage::Unchained
            }),
            "{field}"
        );
    }
}

#[test]
fn g9_a_missing_entry_and_a_cut_end_are_found() {
    let whole = log(4);
    let head = verify_chain(Head::START, &whole).unwrap();
    assert_eq!(head, whole[3].head());
    let mut holed = whole.clone();
    holed.remove(1);
    assert_eq!(
        verify_chain(Head::START, &holed),
        Err(Broken {
            seq: 2,
            why: Damage::Gap { found: 3 }
        })
    );
    assert_ne!(verify_chain(Head::START, &whole[..3]).unwrap(), head);
    assert_eq!(verify_chain(whole[1].head(), &whole[2..]), Ok(head));
}

/// The layout is a promise to whoever verifies an export: this value was computed apart from this
/// program, from the layout as `compute_hash` documents it.
#[test]
fn g9_the_documented_layout_gives_this_hash() {
    assert_eq!(
        hex::encode(log(1)[0].hash),
        "19e0ad2d15a8c7922bb761ae1ec9cca3807c7ce7176befb7473d6954a220e660"
    );
}

#[test]
fn neighbouring_fields_do_not_run_into_each_other() {
    let recorded = |request_id: &str, reason: &str| {
        let context = Context {
            actor: Actor::Local,
            request_id: Some(request_id.to_owned()),
            reason: Some(reason.to_owned()),
        };
        let workspace = WorkspaceId::from_bytes([9; 16]);
        chain(Head::START, Timestamp::EPOCH, workspace, context, entry()).hash
    };
    assert_ne!(recorded("ab", "c"), recorded("a", "bc"));
}

#[test]
fn the_texts_of_actions_are_distinct_and_are_read_back() {
    for (index, action) in AuditAction::KNOWN.iter().enumerate() {
        assert_eq!(&AuditAction::from(action.as_str()), action);
        assert!(!AuditAction::KNOWN[..index].contains(action));
    }
    let other = AuditAction::from("secret.beamed_up");
    assert_eq!(other, AuditAction::Other("secret.beamed_up".to_owned()));
    assert_eq!(other.as_str(), "secret.beamed_up");
}

fn actors() -> impl Strategy<Value = Actor> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|bytes| Actor::ApiKey(ApiKeyId::from_bytes(bytes))),
        Just(Actor::Local),
        Just(Actor::Bootstrap),
        Just(Actor::System),
    ]
}

proptest! {
    #[test]
    fn stored_entries_are_read_back_whole(
        actor in actors(),
        action in prop_oneof!["[a-z]{1,8}\\.[a-z]{1,8}", Just("secret.created".to_owned())],
        secret in prop::option::of(any::<[u8; 16]>()),
        fingerprint in prop::option::of(any::<[u8; 4]>()),
        reason in prop::option::of("\\PC{0,20}"),
        detail in prop::collection::btree_map("[a-z]{1,5}", "\\PC{0,10}", 0..4),
    ) {
        let entry = AuditEntry {
            action: action.as_str().into(),
            subject: Subject { secret: secret.map(SecretId::from_bytes), ..Subject::default() },
            fingerprint: fingerprint.map(Fingerprint::from_bytes),
            detail,
        };
        let context = Context { actor, request_id: None, reason };
        let workspace = WorkspaceId::from_bytes([9; 16]);
        let recorded = chain(Head::START, Timestamp::EPOCH, workspace, context, entry);
        let text = serde_json::to_string(&recorded).unwrap();
        let read: Recorded = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &recorded);
        prop_assert!(verify_chain(Head::START, [&read]).is_ok());
    }
}
