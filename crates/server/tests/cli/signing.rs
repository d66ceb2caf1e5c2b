//! `sign` and `verify`, which must agree with each other.

use crate::support::{Place, SECRETS};

const URL: &str = "https://receiver.example/hook";
const BODY: &str = "{\"b\": 1, \"a\": \"ä\"}";

/// Signs `BODY` and returns the headers as `name: value` lines.
fn sign(place: &Place, scheme: &str, secrets: &[usize], more: &[&str]) -> String {
    place.file("body", BODY);
    let secrets = place.secrets(secrets);
    let mut arguments = vec![
        "sign",
        "--scheme",
        scheme,
        "--secret-file",
        secrets,
        "--file",
        "body",
        "--url",
        URL,
    ];
    arguments.extend_from_slice(more);
    place.run(&arguments).done()
}

/// Puts a captured request into `request` and verifies it against all three secrets.
fn verify(
    place: &Place,
    scheme: &str,
    headers: &str,
    body: &str,
    more: &[&str],
) -> crate::support::Ran {
    let raw = format!("POST /hook HTTP/1.1\nhost: receiver.example\n{headers}\n{body}");
    place.file("request", raw);
    place.secrets(&[0, 1, 2]);
    let mut arguments = vec![
        "verify",
        "--scheme",
        scheme,
        "--secret-file",
        "secrets",
        "--request",
        "request",
        "--url",
        URL,
        "-o",
        "json",
    ];
    arguments.extend_from_slice(more);
    place.run(&arguments)
}

#[test]
fn what_is_signed_verifies_in_every_scheme_and_names_the_secret() {
    for scheme in ["standard", "hopae", "kore", "github"] {
        for (index, (name, _)) in SECRETS.iter().enumerate() {
            let place = Place::new();
            let headers = sign(&place, scheme, &[index], &[]);
            let proved = verify(&place, scheme, &headers, BODY, &[]).json();
            assert_eq!(proved["valid"], true, "{scheme}");
            assert_eq!(proved["secret"], *name, "{scheme}");
            assert_eq!(proved["fingerprint"].as_str().unwrap().len(), 8);
        }
    }
}

#[test]
fn two_secrets_sign_together_where_the_scheme_allows_it() {
    let place = Place::new();
    let headers = sign(
        &place,
        "standard",
        &[2, 1],
        &["--id", "msg_1", "--timestamp", "1700000000"],
    );
    assert_eq!(headers.matches("v1,").count(), 2);
    let proved = verify(&place, "standard", &headers, BODY, &["--now", "1700000010"]).json();
    // Of three known secrets the second in the file is the first that matches.
    assert_eq!(proved["secret"], "second");
    assert_eq!(proved["messageId"], "msg_1");
    assert_eq!(proved["signedAt"], "2023-11-14T22:13:20.000Z");
    let secrets = place.secrets(&[0, 1]);
    let arguments = [
        "sign",
        "--scheme",
        "github",
        "--secret-file",
        secrets,
        "--file",
        "body",
    ];
    assert!(
        place
            .run(&arguments)
            .refused(2)
            .contains("one signature only")
    );
}

#[test]
fn a_request_as_json_or_by_arguments_verifies_too() {
    let place = Place::new();
    let headers = sign(&place, "github", &[0], &[]);
    let (name, value) = headers.trim().split_once(": ").unwrap();
    let request = serde_json::json!({"headers": {name: value}, "body": BODY}).to_string();
    place.file("request.json", request);
    let by_file = [
        "verify",
        "--scheme",
        "github",
        "--secret-file",
        "secrets",
        "--request",
        "request.json",
    ];
    assert!(place.run(&by_file).done().contains("first"));
    let by_arguments = [
        "verify",
        "--scheme",
        "github",
        "--secret-file",
        "secrets",
        "--body",
        "body",
        "--header",
        headers.trim(),
    ];
    assert!(place.run(&by_arguments).done().contains("first"));
}

#[test]
fn a_request_without_its_headers_or_body_says_what_is_missing_with_an_example() {
    let place = Place::new();
    place.file("body", BODY);
    let secrets = place.secrets(&[0]);
    let verify = ["verify", "--scheme", "standard", "--secret-file", secrets];
    let header = ["--header", "webhook-id: msg_1"];
    for (more, missing) in [
        (
            &["--body", "body"][..],
            "the headers of the request are missing",
        ),
        (&header, "the body of the request is missing"),
        (&[], "there is no request"),
    ] {
        let said = place.run(&[&verify[..], more].concat()).refused(2);
        assert!(said.contains(missing), "{said}");
        for part in [
            "for example: hookturn verify --scheme standard --secret-file secrets --body body",
            " --header 'webhook-id: …' --header 'webhook-timestamp: …' --header 'webhook-signature: …'",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn every_refusal_has_its_reason_and_says_what_to_do() {
    let place = Place::new();
    let headers = sign(&place, "standard", &[0], &["--timestamp", "1700000000"]);
    let reserialised = "{\"b\":1,\"a\":\"ä\"}";
    let other = "{\"b\": 2}";
    for (body, now, reason, part) in [
        (
            reserialised,
            "1700000000",
            "would_match_if_reserialized",
            "raw bytes",
        ),
        (other, "1700000000", "no_match", "fingerprints"),
        (BODY, "1700000301", "too_old", "--now"),
        (BODY, "1699999699", "too_new", "clocks"),
    ] {
        let ran = verify(&place, "standard", &headers, body, &["--now", now]);
        assert_eq!(ran.code, 20, "{ran:?}");
        let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(document["reason"], reason);
        assert!(
            document["next"].as_str().unwrap().contains(part),
            "{document}"
        );
    }
    let ran = verify(&place, "github", &headers, BODY, &[]);
    assert_eq!(ran.code, 20);
    assert!(ran.out.contains("try --scheme standard"), "{}", ran.out);
}

#[test]
fn a_missing_header_is_named_with_those_that_the_capture_had() {
    let place = Place::new();
    let headers = sign(&place, "standard", &[0], &[]);
    let without = |name: &str| -> String {
        let lines = headers.split_inclusive('\n');
        lines.filter(|line| !line.starts_with(name)).collect()
    };
    let as_captured = [
        "verify",
        "--scheme",
        "standard",
        "--secret-file",
        "secrets",
        "--request",
        "request",
    ];
    for (missing, option) in [
        ("webhook-signature", "--signature-header"),
        ("webhook-id", "--id-header"),
        ("webhook-timestamp", "--timestamp-header"),
    ] {
        let ran = verify(&place, "standard", &without(missing), BODY, &[]);
        assert_eq!(ran.code, 20, "{ran:?}");
        let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(document["reason"], "missing_header");
        assert_eq!(document["missing"], serde_json::json!([missing]));
        let had = document["headers"].as_array().unwrap();
        assert_eq!(had.len(), headers.lines().count(), "{document}");
        assert_eq!(had[0], "host", "{document}");
        assert!(document["next"].as_str().unwrap().ends_with(option));
        let said = place.run(&as_captured);
        let said = said.refused(20);
        assert!(said.contains(&format!("  missing: {missing}\n")), "{said}");
        assert!(said.contains("  headers: host, "), "{said}");
    }
    // A sender's header that moves the cursor is shown as text.
    place.file("request", "POST / HTTP/1.1\nx\u{1b}[2J: 1\n\n{}");
    let said = place.run(&as_captured);
    let said = said.refused(20);
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn g8_nothing_that_is_printed_holds_a_secret() {
    let place = Place::new();
    let headers = sign(&place, "standard", &[0], &[]);
    let valid = verify(&place, "standard", &headers, BODY, &[]);
    let invalid = verify(&place, "standard", &headers, "x", &[]);
    // Secrets that cannot be used are not repeated either.
    place.file("bad", "first=whsec_planted!\nwhsk_planted\n");
    let unusable = place.run(&[
        "sign",
        "--scheme",
        "standard",
        "--secret-file",
        "bad",
        "--file",
        "body",
    ]);
    assert_eq!(unusable.code, 2);
    assert!(unusable.err.contains("line 2 of bad"), "{unusable:?}");
    let printed = format!("{headers}{valid:?}{invalid:?}{unusable:?}");
    for (_, secret) in SECRETS {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(!printed.contains("planted"), "{printed}");
}

#[test]
fn standard_input_holds_one_thing() {
    let place = Place::new();
    let arguments = [
        "sign",
        "--scheme",
        "github",
        "--secret-file",
        "-",
        "--file",
        "-",
    ];
    assert!(place.run(&arguments).refused(2).contains("not both"));
    place.secrets(&[0]);
    let arguments = [
        "sign",
        "--scheme",
        "kore",
        "--secret-file",
        "secrets",
        "--file",
        "-",
    ];
    assert!(place.run(&arguments).refused(2).contains("--url"));
}
