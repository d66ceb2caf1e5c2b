//! Steady state: one secret, one signature, and payloads as awkward as JSON lets them be.

use bytes::Bytes;
use serde_json::json;

use crate::panel::Hearing;
use crate::senders::{ALL, Stand};
use crate::support::{Captured, Receiver, SecretValue, Server};

/// Payloads, each as published and without insignificant white space.
const PAYLOADS: &[(&str, &str)] = &[
    (r#"{"plain":true}"#, r#"{"plain":true}"#),
    (
        r#"{"raw":"naïve – 東京 – 🦘 – العربية – é","key ✓":null}"#,
        r#"{"raw":"naïve – 東京 – 🦘 – العربية – é","key ✓":null}"#,
    ),
    (
        "{\"separators\":\"\u{2028}\u{2029}\u{7f}\u{feff}\"}",
        "{\"separators\":\"\u{2028}\u{2029}\u{7f}\u{feff}\"}",
    ),
    (
        r#"{"escapes":"\u0000\u00e9\ud83e\udd98\/\\\"\b\f\n\r\t</script>"}"#,
        r#"{"escapes":"\u0000\u00e9\ud83e\udd98\/\\\"\b\f\n\r\t</script>"}"#,
    ),
    (
        r#"{"big":123456789012345678901234567890,"exact":1.10,"small":-0.0,"e":1E+2,"tiny":5e-324}"#,
        r#"{"big":123456789012345678901234567890,"exact":1.10,"small":-0.0,"e":1E+2,"tiny":5e-324}"#,
    ),
    (
        r#"{"nested":[[[[[[[[{"a":{"b":[{"c":[]},{}]}}]]]]]]]],"twice":1,"twice":2}"#,
        r#"{"nested":[[[[[[[[{"a":{"b":[{"c":[]},{}]}}]]]]]]]],"twice":1,"twice":2}"#,
    ),
    (
        "{ \"white\" :\t\"kept  \\\" here \" ,\r\n  \"list\" : [ 1 , 2 ] }",
        "{\"white\":\"kept  \\\" here \",\"list\":[1,2]}",
    ),
    (r#"["not","an","object"]"#, r#"["not","an","object"]"#),
    (
        "\"just a text, with v1,tokens=and.dots\"",
        "\"just a text, with v1,tokens=and.dots\"",
    ),
];

/// The request with another byte in its body, or with a body where there was none.
fn with_another_body(captured: &Captured) -> Captured {
    let mut body = captured.body.to_vec();
    match body.iter().rposition(u8::is_ascii_alphanumeric) {
        Some(at) => body[at] ^= 1,
        None => body.push(b' '),
    }
    Captured {
        body: Bytes::from(body),
        ..captured.clone()
    }
}

/// The request with `name` set to what `change` makes of its value.
fn with_another(captured: &Captured, name: &str, change: impl Fn(&str) -> String) -> Captured {
    let mut changed = captured.clone();
    let line = changed.headers.iter_mut().find(|(known, _)| known == name);
    let (_, value) = line.unwrap();
    *value = change(value);
    changed
}

#[tokio::test]
async fn judges_accept_what_the_server_signed_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for sender in ALL {
        let mut stand = Stand::build(&api, *sender, Receiver::start().await).await;
        for (payload, minified) in PAYLOADS {
            let captured = stand.deliver(&api, payload).await;
            sender.check_body(payload, minified, &captured);
            let (own, other) = (&stand.endpoint.secret, &stand.other_secret);
            stand.hear(&mut hearing, payload, &captured, own, other);
            let name = format!("{}, {payload}, another body", sender.name);
            let tampered = with_another_body(&captured);
            hearing.rejects(&name, &stand.receiving, own, &tampered);
        }
    }
    server.stop().await;
    hearing.close().await;
}

#[tokio::test]
async fn judges_refuse_when_what_was_signed_beside_the_body_is_changed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    let later = |seconds: &str| (seconds.parse::<i64>().unwrap() + 1).to_string();
    for sender in ALL {
        let mut stand = Stand::build(&api, *sender, Receiver::start().await).await;
        let captured = stand.deliver(&api, PAYLOADS[0].0).await;
        let changed = match stand.receiving.scheme {
            "standard" | "standard-v1a" => vec![
                with_another(&captured, "webhook-id", |id| format!("{id}0")),
                with_another(&captured, "webhook-timestamp", later),
            ],
            "hopae" => vec![with_another(&captured, "x-hopae-signature", |value| {
                let (time, rest) = value.split_once(',').unwrap();
                format!("t={},{rest}", later(time.strip_prefix("t=").unwrap()))
            })],
            "kore" => vec![Captured {
                method: if sender.name.contains("without") {
                    "POST"
                } else {
                    "GET"
                }
                .to_owned(),
                ..captured.clone()
            }],
            // Signs the body alone.
            _ => Vec::new(),
        };
        let secret = &stand.endpoint.secret;
        for request in &changed {
            let name = format!("{}, changed {request:?}", sender.name);
            hearing.rejects(&name, &stand.receiving, secret, request);
        }
        hearing.accepts(sender.name, &stand.receiving, secret, &captured);
    }
    server.stop().await;
    hearing.close().await;
}

#[tokio::test]
async fn judges_accept_test_events() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for sender in ALL {
        let mut stand = Stand::build(&api, *sender, Receiver::start().await).await;
        let path = format!(
            "/v1/apps/{}/endpoints/{}/test",
            stand.app, stand.endpoint.id
        );
        let report = api.post(&path, &json!({})).await;
        assert_eq!(report["accepted"], true, "{report}");
        let captured = stand.receiver.next().await;
        let (own, other) = (&stand.endpoint.secret, &stand.other_secret);
        stand.hear(&mut hearing, "test event", &captured, own, other);
    }
    server.stop().await;
    hearing.close().await;
}

#[tokio::test]
async fn judges_accept_under_imported_secrets_of_every_form() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path()).await;
    let api = server.api();
    let mut hearing = Hearing::open();
    for sender in ALL {
        let imported = json!({ "secret": sender.published_secret });
        let receiver = Receiver::start().await;
        let mut stand = Stand::build_with(&api, *sender, receiver, imported).await;
        let captured = stand.deliver(&api, PAYLOADS[0].0).await;
        let held = SecretValue {
            value: sender.published_secret.to_owned(),
            public_key: stand.endpoint.secret.public_key.clone(),
        };
        stand.hear(
            &mut hearing,
            "imported",
            &captured,
            &held,
            &stand.other_secret,
        );
        assert_eq!(stand.endpoint.secret.value, held.value);
    }
    server.stop().await;
    hearing.close().await;
}
