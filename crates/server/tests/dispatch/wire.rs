//! What each preset puts on the wire, against the verifier that receivers use.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hookturn::courier::request::{PrepareError, Prepared, preset_header_names};
use hookturn::service::ServiceError;
use hookturn::service::endpoints::{KeyringChoice, NewEndpoint};
use hookturn::service::workspaces::WorkspacePatch;
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::endpoint::{HeaderRenames, Method, Preset, TargetUrl};
use hookturn_core::id::MessageId;
use hookturn_core::message::{EventType, Message};
use hookturn_core::workspace::Workspace;
use hookturn_verify::{HeaderNames, Secret, Signer, Verifier};
use serde_json::Value;

use crate::receiver::{Receiver, Reply, Seen, status};
use crate::rig::{Rig, START, verifier};

const PAYLOAD: &str = r#"{"amount": 1.0, "text":"a b"}"#;

/// One request of a preset, and a verifier that holds its secret.
async fn one(rig: &Rig, preset: Preset, method: Method) -> (Seen, Verifier) {
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            url: Some(receiver.url()),
            preset,
            method,
            headers: BTreeMap::from([("x-tenant".to_owned(), "blue".to_owned())]),
            ..NewEndpoint::default()
        })
        .await;
    let message = rig.publish(PAYLOAD).await;
    rig.until_settled(message).await;
    let seen = receiver.next().await;
    let deleted =
        rig.service()
            .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
    deleted.await.unwrap();
    let verifier = verifier(preset, &[("only", &made.once.unwrap().value)]);
    (seen, verifier.url(receiver.url()))
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_every_preset_is_verified_over_exactly_the_bytes_on_the_wire() {
    let mut rig = Rig::new().await;
    for preset in Preset::ALL {
        let (seen, verifier) = one(&rig, preset, Method::Post).await;
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.signer(&verifier), "only", "{preset}");
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert_eq!(seen.header("x-tenant"), Some("blue"));
        let body = std::str::from_utf8(&seen.body).unwrap();
        match preset {
            Preset::Standard => {
                assert_eq!(body, PAYLOAD);
                assert!(seen.id().starts_with("msg_"));
            }
            Preset::Github => {
                assert_eq!(body, PAYLOAD);
                assert_eq!(seen.header("x-github-event"), Some("order.paid"));
                assert!(
                    seen.header("x-github-delivery")
                        .unwrap()
                        .starts_with("msg_")
                );
            }
            Preset::Hopae => {
                assert!(body.contains(PAYLOAD), "the payload is not touched: {body}");
                let envelope: Value = serde_json::from_str(body).unwrap();
                assert_eq!(envelope["event"], "order.paid");
                assert_eq!(envelope["clientId"], rig.app.as_str());
                let signature = seen.header("x-hopae-signature").unwrap();
                assert_eq!(signature.matches("v1=").count(), 1);
            }
            Preset::Kore => {
                assert_eq!(body, r#"{"amount":1.0,"text":"a b"}"#);
                assert_eq!(seen.header("date"), Some("2026-07-20T00:00:00Z"));
                assert!(
                    seen.header("kore-idempotency-token")
                        .unwrap()
                        .starts_with("msg_")
                );
            }
            Preset::KoreStream => {
                let events: Value = serde_json::from_str(body).unwrap();
                assert_eq!(events.as_array().unwrap().len(), 1);
                assert_eq!(events[0]["type"], "order.paid");
            }
        }
        let mut forged = seen.clone();
        forged.body.push(b' ');
        assert!(forged.verify(&verifier).is_err(), "{preset}");
    }
    rig.stop().await;
}

/// The receiver closed the connection while it was idle: that is not the delivery's fault.
#[tokio::test(flavor = "multi_thread")]
async fn g2_a_stale_connection_costs_no_attempt_and_the_duplicate_has_the_same_id() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |seen| Reply {
        close: seen.number == 1,
        ..status(200)
    })
    .await;
    let made = rig.endpoint(receiver.url()).await;
    let verifier = verifier(Preset::Standard, &[("only", &made.once.unwrap().value)]);
    let first = rig.publish(PAYLOAD).await;
    rig.until_settled(first).await;
    let second = rig.publish(PAYLOAD).await;
    let (delivery, attempts) = rig.until_settled(second).await;
    assert_eq!(delivery.state.status(), DeliveryStatus::Delivered);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].exchanges.len(), 1);
    assert_eq!(attempts[0].exchanges[0].status(), Some(200));
    let seen = receiver.take(3).await;
    assert_eq!(receiver.rest().len(), 0);
    assert_eq!(seen[1].id(), seen[2].id());
    assert_ne!(seen[0].id(), seen[1].id());
    for seen in &seen {
        assert_eq!(seen.signer(&verifier), "only");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kore_callbacks_by_get_have_no_body() {
    let mut rig = Rig::new().await;
    let (seen, verifier) = one(&rig, Preset::Kore, Method::Get).await;
    assert_eq!((seen.method.as_str(), seen.body.len()), ("GET", 0));
    assert_eq!(seen.header("content-type"), None);
    assert_eq!(seen.path, "/hook?amount=1.0&text=a+b");
    assert_eq!(seen.signer(&verifier), "only");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_white_label_renames_the_headers_of_every_preset() {
    let mut rig = Rig::new().await;
    let renames = |preset: Preset| HeaderRenames {
        id: Some("acme-id".to_owned()),
        timestamp: (preset == Preset::Standard).then(|| "acme-timestamp".to_owned()),
        signature: Some("acme-signature".to_owned()),
    };
    let renamed = [
        Preset::Standard,
        Preset::Kore,
        Preset::KoreStream,
        Preset::Github,
    ];
    let mut header_names: BTreeMap<_, _> = renamed
        .iter()
        .map(|preset| (*preset, renames(*preset)))
        .collect();
    let hopae = HeaderRenames {
        signature: Some("acme-signature".to_owned()),
        ..HeaderRenames::default()
    };
    header_names.insert(Preset::Hopae, hopae);
    let patch = WorkspacePatch {
        header_names: Some(header_names),
        ..WorkspacePatch::default()
    };
    let workspace = rig.caller().workspace;
    let patched = rig
        .service()
        .patch_workspace(rig.caller(), workspace, patch, None, None);
    patched.await.unwrap();
    for preset in Preset::ALL {
        let (seen, verifier) = one(&rig, preset, Method::Post).await;
        let usual = HeaderNames::of(preset.scheme());
        assert_eq!(seen.header(&usual.signature), None, "{preset}");
        assert_eq!(seen.header("webhook-id"), None);
        assert_eq!(seen.header("webhook-timestamp"), None);
        let names = HeaderNames {
            id: usual.id.map(|_| Cow::Borrowed("acme-id")),
            timestamp: usual.timestamp.map(|_| Cow::Borrowed("acme-timestamp")),
            signature: Cow::Borrowed("acme-signature"),
        };
        assert_eq!(
            seen.signer(&verifier.header_names(names)),
            "only",
            "{preset}"
        );
        let id = seen.header("acme-id");
        assert_eq!(id.is_some(), preset != Preset::Hopae, "{preset} {id:?}");
    }
    rig.stop().await;
}

/// Names that a white label could ask for, those of the presets among them.
const ASKED: [&str; 19] = [
    "webhook-id",
    "Webhook-Timestamp",
    "webhook-signature",
    "x-hopae-signature",
    "kore-idempotency-token",
    "kore-signature",
    "x-github-delivery",
    "x-github-event",
    "x-hub-signature-256",
    "date",
    "host",
    "content-type",
    "transfer-encoding",
    "via",
    "authorization",
    "hookturn-probe",
    "acme-two",
    "Acme-One",
    "no name",
];

fn renames(fields: &[(&str, &str)]) -> HeaderRenames {
    let name = |wanted: &str| {
        let found = fields.iter().find(|(field, _)| *field == wanted);
        found.map(|(_, name)| (*name).to_owned())
    };
    HeaderRenames {
        id: name("id"),
        timestamp: name("timestamp"),
        signature: name("signature"),
    }
}

fn white_label(preset: Preset, fields: &[(&str, &str)]) -> WorkspacePatch {
    WorkspacePatch {
        header_names: Some(BTreeMap::from([(preset, renames(fields))])),
        ..WorkspacePatch::default()
    }
}

/// Renames, and the pointer if they are refused.
async fn rename(rig: &Rig, preset: Preset, fields: &[(&str, &str)]) -> Result<(), String> {
    let patch = white_label(preset, fields);
    let workspace = rig.caller().workspace;
    let patched = rig
        .service()
        .patch_workspace(rig.caller(), workspace, patch, None, None);
    match patched.await {
        Ok(_) => Ok(()),
        Err(ServiceError::Invalid { pointer, .. }) => Err(pointer),
        Err(other) => panic!("{preset} {fields:?}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_no_rename_that_is_accepted_takes_a_header_from_a_request() {
    let mut rig = Rig::new().await;
    for preset in Preset::ALL {
        let mut cases: Vec<Vec<(&str, &str)>> = ["id", "timestamp", "signature"]
            .into_iter()
            .flat_map(|field| ASKED.map(|name| vec![(field, name)]))
            .collect();
        // Names that change places stay three names.
        cases.push(vec![
            ("id", "webhook-timestamp"),
            ("timestamp", "webhook-id"),
        ]);
        for fields in cases {
            if let Err(pointer) = rename(&rig, preset, &fields).await {
                let field = fields[0].0;
                assert_eq!(pointer, format!("/headerNames/{preset}/{field}"));
            } else {
                let (seen, verifier) = one(&rig, preset, Method::Post).await;
                let label = renames(&fields);
                let usual = preset_header_names(preset);
                let of = |renamed: Option<String>, usual: Option<Cow<'static, str>>| {
                    // On the wire every name is in lower case.
                    let renamed = renamed.map(|name| name.to_ascii_lowercase());
                    usual.map(|usual| renamed.map_or(usual, Cow::Owned))
                };
                let names = HeaderNames {
                    id: of(label.id, usual.id),
                    timestamp: of(label.timestamp, usual.timestamp),
                    signature: of(label.signature, Some(usual.signature)).unwrap(),
                };
                let present = [&names.id, &names.timestamp];
                for name in present.into_iter().flatten() {
                    assert!(seen.header(name).is_some(), "{preset} {fields:?}: {name}");
                }
                let id = names.id.clone();
                assert_eq!(
                    seen.signer(&verifier.header_names(names)),
                    "only",
                    "{preset} {fields:?}"
                );
                if let Some(id) = id {
                    let id = seen.header(&id).unwrap();
                    assert!(id.starts_with("msg_"), "{preset} {fields:?}: {id}");
                }
            }
            rename(&rig, preset, &[]).await.unwrap();
        }
    }
    rig.stop().await;
}

/// Renames that were accepted once, and took the signature or the id from every request.
const HARMFUL: [(Preset, &str, &str); 9] = [
    (Preset::Standard, "signature", "webhook-id"),
    (Preset::Standard, "signature", "webhook-timestamp"),
    (Preset::Standard, "id", "webhook-signature"),
    (Preset::Standard, "timestamp", "webhook-signature"),
    (Preset::Standard, "id", "webhook-timestamp"),
    (Preset::Github, "signature", "x-github-event"),
    (Preset::Github, "signature", "x-github-delivery"),
    (Preset::Kore, "signature", "kore-idempotency-token"),
    (Preset::KoreStream, "signature", "date"),
];

#[tokio::test(flavor = "multi_thread")]
async fn g3_a_stored_white_label_that_takes_a_header_away_lets_nothing_out() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    for (preset, field, name) in HARMFUL {
        let made = rig
            .endpoint_with(NewEndpoint {
                url: Some(receiver.url()),
                preset,
                ..NewEndpoint::default()
            })
            .await;
        let view = rig.live().signing(made.endpoint.id).unwrap();
        let mut workspace = Workspace::clone(&view.workspace);
        let stored = white_label(preset, &[(field, name)]).header_names;
        workspace.settings.header_names = stored.unwrap();
        let prepared = Prepared::new(view.endpoint, Arc::new(workspace)).unwrap();
        let message = Message {
            id: MessageId::from_bytes([9; 16]),
            workspace: rig.caller().workspace,
            app: rig.app,
            event_type: EventType::new("order.paid").unwrap(),
            event_id: None,
            payload: Bytes::from_static(b"{}"),
            accepted_at: START,
        };
        let outgoing = prepared.outgoing(&[&message]).unwrap();
        let refused = prepared.signed(&outgoing, "v1,c2lnbmF0dXJl".to_owned(), rig.now());
        assert!(
            matches!(refused, Err(PrepareError::Overwritten { .. })),
            "{preset} {field} {name}: {refused:?}"
        );
        let pointer = rename(&rig, preset, &[(field, name)]).await.unwrap_err();
        assert_eq!(pointer, format!("/headerNames/{preset}/{field}"));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_white_label_takes_no_name_that_an_endpoint_sends_already() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let with_header = |name: &str| NewEndpoint {
        url: Some(receiver.url()),
        headers: BTreeMap::from([(name.to_owned(), "blue".to_owned())]),
        ..NewEndpoint::default()
    };
    let made = rig.endpoint_with(with_header("X-Tenant")).await;
    let taken = [("signature", "x-tenant")];
    let pointer = rename(&rig, Preset::Standard, &taken).await.unwrap_err();
    assert_eq!(pointer, "/headerNames/standard/signature");
    // The header is sent by endpoints of another preset only.
    rename(&rig, Preset::Hopae, &taken).await.unwrap();

    let deleted =
        rig.service()
            .delete_endpoint(rig.caller(), rig.app, made.endpoint.id, None, None);
    deleted.await.unwrap();
    rename(&rig, Preset::Standard, &taken).await.unwrap();
    let refused =
        rig.service()
            .create_endpoint(rig.caller(), rig.app, with_header("X-Tenant"), None);
    match refused.await.map(|made| made.endpoint.id) {
        Err(ServiceError::Invalid { pointer, .. }) => assert_eq!(pointer, "/headers/X-Tenant"),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ed25519_keyring_signs_what_its_public_key_verifies() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(200)).await;
    let made = rig
        .endpoint_with(NewEndpoint {
            url: Some(receiver.url()),
            keyring: KeyringChoice::Own {
                kind: hookturn_core::rotation::KeyKind::Ed25519,
                secret: None,
                secret_name: None,
            },
            ..NewEndpoint::default()
        })
        .await;
    rig.publish(PAYLOAD).await;
    let public = made.once.unwrap().value.public_key().unwrap();
    let verifier = Verifier::new(Preset::Standard.scheme())
        .public_key("public", &public)
        .unwrap();
    assert_eq!(receiver.next().await.signer(&verifier), "public");
    rig.stop().await;
}

/// KORE's published vectors: its scheme signs neither id nor time, so they come out of `Prepared`
/// to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn kore_published_vectors_are_signed_to_the_byte() {
    let file: Value =
        serde_json::from_str(include_str!("../../../verify/tests/vectors/kore.json")).unwrap();
    let mut rig = Rig::new().await;
    let made = rig
        .endpoint_with(NewEndpoint {
            url: Some("http://127.0.0.1:9/".to_owned()),
            preset: Preset::Kore,
            ..NewEndpoint::default()
        })
        .await;
    let view = rig.live().signing(made.endpoint.id).unwrap();
    let mut endpoint = made.endpoint;
    endpoint.url = Some(TargetUrl::new(file["url"].as_str().unwrap()).unwrap());
    let prepared = Prepared::new(Arc::new(endpoint), view.workspace).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let message = Message {
            id: MessageId::from_bytes([9; 16]),
            workspace: rig.caller().workspace,
            app: rig.app,
            event_type: EventType::new("order.paid").unwrap(),
            event_id: None,
            payload: Bytes::copy_from_slice(text("body").as_bytes()),
            accepted_at: START,
        };
        let outgoing = prepared.outgoing(&[&message]).unwrap();
        assert_eq!(outgoing.body(), text("body"), "nothing to minify");
        let secret = Secret::parse(text("secret")).unwrap();
        let signer = Arc::new(Signer::new(Preset::Kore.scheme(), &secret).unwrap());
        let signed = prepared.sign(&outgoing, &[signer], START).unwrap();
        assert_eq!(signed.signature, text("signature"));
        assert_eq!(signed.headers["kore-signature"], text("signature"));
    }
    rig.stop().await;
}
