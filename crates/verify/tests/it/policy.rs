//! The rules of signing and verifying, one by one.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::request::{NOW, Request, secret, verifier};
use hookturn_verify::{
    Content, HeaderNames, PublicKey, Received, Rewrite, Scheme, Secret, SecretError, SignError,
    Signer, Verifier, VerifyError, from_fn, sign,
};

const CONTENT: Content<'_> = Content {
    id: "msg_1",
    timestamp: NOW,
    method: "POST",
    url: "https://r.example/in",
    body: b"{}",
};

fn would_match(how: Rewrite) -> VerifyError {
    VerifyError::WouldMatchIfReserialized { how }
}

// Secrets.

#[test]
fn secrets_are_any_text_within_bounds() {
    for text in [
        "12345",
        "It's a Secret to Everybody",
        "whsec_",
        "whsec_!",
        "pässword",
    ] {
        assert_eq!(Secret::parse(text).unwrap().expose(), text);
    }
    assert_eq!(Secret::parse(&"a".repeat(512)).unwrap().expose().len(), 512);
    let too_long = SecretError::TooLong {
        bytes: 513,
        limit: 512,
    };
    assert_eq!(Secret::parse(&"a".repeat(513)).unwrap_err(), too_long);
    assert_eq!(Secret::parse("").unwrap_err(), SecretError::Empty);
    for text in ["a\n", "\ta", "a\0b", "a\u{7f}", "a\u{85}"] {
        assert_eq!(
            Secret::parse(text).unwrap_err(),
            SecretError::ControlCharacter,
            "{text:?}"
        );
    }
    let public = Secret::generate_ed25519([1; 32])
        .public_key()
        .unwrap()
        .to_string();
    assert_eq!(
        Secret::parse(&public).unwrap_err(),
        SecretError::PublicKeyNotSecret
    );
}

#[test]
fn standard_needs_a_decodable_key_of_its_length() {
    let usable = |text: &str| Secret::parse(text).unwrap().usable_for(Scheme::Standard);
    let of_bytes = |bytes: usize| format!("whsec_{}", "AAAA".repeat(bytes / 3));
    assert_eq!(usable(&of_bytes(24)), Ok(()));
    assert_eq!(usable(&of_bytes(63)), Ok(()));
    assert_eq!(
        usable(&of_bytes(21)),
        Err(SecretError::KeyLength { bytes: 21 })
    );
    assert_eq!(
        usable(&of_bytes(66)),
        Err(SecretError::KeyLength { bytes: 66 })
    );
    assert_eq!(usable("whsec_"), Err(SecretError::KeyLength { bytes: 0 }));
    assert_eq!(usable("plain"), Err(SecretError::Prefix));
    // Unpadded, of the URL alphabet, and with bits that no encoder sets.
    for damaged in ["AAAAAA", "AA-_AAAA", "AAAAAB=="] {
        let text = format!("{}{damaged}", of_bytes(24));
        assert_eq!(usable(&text), Err(SecretError::Base64), "{text}");
    }
}

#[test]
fn ed25519_is_for_standard_alone() {
    let pair = Secret::generate_ed25519([7; 32]);
    let public = pair.public_key().unwrap();
    assert_eq!(pair.usable_for(Scheme::Standard), Ok(()));
    assert_eq!(secret(1).public_key(), None);
    for scheme in [Scheme::Hopae, Scheme::Kore, Scheme::Github] {
        let error = SecretError::Ed25519NotInScheme { scheme };
        assert_eq!(Signer::new(scheme, &pair).unwrap_err(), error);
        assert_eq!(Verifier::new(scheme).secret("", &pair).unwrap_err(), error);
        assert_eq!(
            Verifier::new(scheme).public_key("", &public).unwrap_err(),
            error
        );
    }
}

#[test]
fn ed25519_halves_must_belong_together() {
    let encoded = |secret: &Secret| secret.expose()["whsk_".len()..].to_owned();
    let (one, other) = (
        Secret::generate_ed25519([1; 32]),
        Secret::generate_ed25519([2; 32]),
    );
    // 32 bytes are 42 digits and two thirds of one, so the cut lies a little before the half.
    let mixed = format!("whsk_{}{}", &encoded(&one)[..40], &encoded(&other)[40..]);
    assert!(matches!(
        Secret::parse(&mixed),
        Err(SecretError::Ed25519Key { .. })
    ));
    assert!(matches!(
        Secret::parse("whsk_"),
        Err(SecretError::Ed25519Key { .. })
    ));
}

#[test]
fn weak_public_keys_are_refused() {
    // The neutral point: a signature of zeros verifies under it.
    let neutral = "whpk_AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(matches!(
        neutral.parse::<PublicKey>(),
        Err(SecretError::PublicKey { .. })
    ));
    for text in ["", "whpk_", "whsk_AAAA", "whpk_AAAA"] {
        assert!(
            matches!(
                text.parse::<PublicKey>(),
                Err(SecretError::PublicKey { .. })
            ),
            "{text}"
        );
    }
}

// Schemes.

#[test]
fn schemes_are_named() {
    for scheme in Scheme::ALL {
        assert_eq!(scheme.as_str().parse(), Ok(scheme));
        assert_eq!(scheme.to_string(), scheme.as_str());
        assert_eq!(scheme.carries_many_signatures(), scheme == Scheme::Standard);
    }
    assert!("Standard".parse::<Scheme>().is_err());
}

// Signing.

#[test]
fn signatures_are_joined_by_one_space_in_the_order_of_the_keys() {
    let (one, pair) = (secret(1), Secret::generate_ed25519([2; 32]));
    let signers = [&one, &pair].map(|secret| Signer::new(Scheme::Standard, secret).unwrap());
    let header = sign(Scheme::Standard, &[&signers[1], &signers[0]], &CONTENT).unwrap();
    let tokens: Vec<_> = header.split(' ').collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!((tokens[0].len(), &tokens[0][..4]), (92, "v1a,"));
    assert_eq!((tokens[1].len(), &tokens[1][..3]), (47, "v1,"));
    assert_eq!(
        sign(Scheme::Standard, &[&signers[0]], &CONTENT).unwrap(),
        tokens[1]
    );
}

#[test]
fn signing_needs_one_key_and_no_more_than_the_scheme_carries() {
    for scheme in Scheme::ALL {
        assert_eq!(sign(scheme, &[], &CONTENT), Err(SignError::NoSigner));
        let signer = Signer::new(scheme, &secret(1)).unwrap();
        assert_eq!(signer.fingerprint(), secret(1).fingerprint());
        let twice = sign(scheme, &[&signer, &signer], &CONTENT);
        if scheme == Scheme::Standard {
            assert!(twice.is_ok());
        } else {
            assert_eq!(
                twice,
                Err(SignError::OneSignatureOnly { scheme, signers: 2 })
            );
        }
    }
}

#[test]
fn keys_sign_in_the_scheme_they_were_made_for() {
    for scheme in Scheme::ALL {
        for other in Scheme::ALL.into_iter().filter(|other| *other != scheme) {
            let signer = Signer::new(other, &secret(1)).unwrap();
            let mismatch = SignError::SchemeMismatch {
                scheme,
                signer: other,
            };
            assert_eq!(sign(scheme, &[&signer], &CONTENT), Err(mismatch));
        }
    }
}

#[test]
fn content_that_cannot_be_signed_is_refused() {
    let sign_one = |scheme, content: &Content<'_>| {
        sign(
            scheme,
            &[&Signer::new(scheme, &secret(1)).unwrap()],
            content,
        )
    };
    for id in ["", "a.b", "a b", "a\nb", "ä"] {
        let content = Content { id, ..CONTENT };
        assert_eq!(
            sign_one(Scheme::Standard, &content),
            Err(SignError::Id),
            "{id:?}"
        );
        assert!(sign_one(Scheme::Hopae, &content).is_ok());
    }
    let early = Content {
        timestamp: -1,
        ..CONTENT
    };
    assert_eq!(
        sign_one(Scheme::Standard, &early),
        Err(SignError::Timestamp)
    );
    assert_eq!(sign_one(Scheme::Hopae, &early), Err(SignError::Timestamp));
    assert!(sign_one(Scheme::Github, &early).is_ok());
    for (method, url) in [
        ("", "https://r.example"),
        ("POST", ""),
        ("POST", "?a"),
        ("POST", "#"),
    ] {
        let content = Content {
            method,
            url,
            ..CONTENT
        };
        assert_eq!(sign_one(Scheme::Kore, &content), Err(SignError::Target));
    }
}

#[test]
fn kore_signs_the_method_in_capitals() {
    let signer = Signer::new(Scheme::Kore, &secret(1)).unwrap();
    let lower = Content {
        method: "post",
        ..CONTENT
    };
    assert_eq!(
        sign(Scheme::Kore, &[&signer], &lower),
        sign(Scheme::Kore, &[&signer], &CONTENT)
    );
}

// Verifying.

#[test]
fn a_verifier_needs_a_secret() {
    let request = Request::signed(Scheme::Standard, &[&secret(1)], b"{}");
    let error = request
        .verify(&Verifier::new(Scheme::Standard))
        .unwrap_err();
    assert_eq!(error, VerifyError::NoSecrets);
}

#[test]
fn missing_headers_are_named() {
    for scheme in Scheme::ALL {
        let names = HeaderNames::of(scheme);
        let names = [names.id, names.timestamp, Some(names.signature)];
        let names: Vec<_> = names.into_iter().flatten().collect();
        let request = Request::signed(scheme, &[&secret(1)], b"{}");
        for missing in &names {
            let headers = from_fn(|name| match name {
                name if name == missing => None,
                "webhook-id" => Some(&request.id),
                "webhook-timestamp" => Some(&request.timestamp),
                _ => Some(&request.signature),
            });
            let received = Received {
                method: &request.method,
                url: &request.url,
                headers: &headers,
                body: &request.body,
            };
            let error = verifier(scheme, &[&secret(1)])
                .verify(&received, NOW)
                .unwrap_err();
            assert_eq!(
                error,
                VerifyError::MissingHeader {
                    name: missing.to_string()
                }
            );
        }
    }
}

#[test]
fn the_tolerance_counts_both_ways_and_includes_its_ends() {
    for scheme in [Scheme::Standard, Scheme::Hopae] {
        let request = Request::signed(scheme, &[&secret(1)], b"{}");
        let verifier = verifier(scheme, &[&secret(1)]);
        assert!(request.verify_at(&verifier, NOW + 300).is_ok());
        assert!(request.verify_at(&verifier, NOW - 300).is_ok());
        let old = request.verify_at(&verifier, NOW + 301).unwrap_err();
        assert_eq!(old, VerifyError::TooOld { by_seconds: 1 });
        let new = request.verify_at(&verifier, NOW - 307).unwrap_err();
        assert_eq!(new, VerifyError::TooNew { by_seconds: 7 });
        let narrow = verifier.tolerance_seconds(0);
        assert!(request.verify_at(&narrow, NOW).is_ok());
        let old = request.verify_at(&narrow, i64::MAX).unwrap_err();
        assert_eq!(
            old,
            VerifyError::TooOld {
                by_seconds: i64::MAX.abs_diff(NOW)
            }
        );
    }
    for scheme in [Scheme::Kore, Scheme::Github] {
        let request = Request::signed(scheme, &[&secret(1)], b"{}");
        assert!(
            request
                .verify_at(&verifier(scheme, &[&secret(1)]), i64::MAX)
                .is_ok()
        );
    }
}

#[test]
fn malformed_headers_are_named() {
    let good = |scheme| Request::signed(scheme, &[&secret(1)], b"{}");
    let refused = |request: &Request, name: &str| {
        let error = request
            .verify(&verifier(request.scheme, &[&secret(1)]))
            .unwrap_err();
        assert!(
            matches!(&error, VerifyError::Malformed { header, .. } if header == name),
            "{request:?}: {error:?}"
        );
    };
    for id in ["", "a.b", "a b", "\u{e4}"] {
        refused(
            &Request {
                id: id.into(),
                ..good(Scheme::Standard)
            },
            "webhook-id",
        );
    }
    for timestamp in ["", "x", "-1", "01", "1.5", " 1784505600"] {
        let request = Request {
            timestamp: timestamp.into(),
            ..good(Scheme::Standard)
        };
        refused(&request, "webhook-timestamp");
    }
    let hex = "0".repeat(64);
    let cases = [
        (
            Scheme::Standard,
            "webhook-signature",
            vec![String::new(), "v2,AAAA".into(), "v1".into()],
        ),
        (
            Scheme::Hopae,
            "x-hopae-signature",
            vec![
                String::new(),
                format!("v1={hex}"),
                format!("t={NOW}"),
                format!("t={NOW}, v1={hex}"),
                format!("t=0{NOW},v1={hex}"),
                format!("t={NOW},v1={}", "A".repeat(64)),
            ],
        ),
        (
            Scheme::Kore,
            "kore-signature",
            vec![String::new(), "0".repeat(63), "A".repeat(64)],
        ),
        (
            Scheme::Github,
            "x-hub-signature-256",
            vec![
                String::new(),
                hex.clone(),
                format!("sha1={hex}"),
                format!("sha256={hex}0"),
            ],
        ),
    ];
    for (scheme, name, signatures) in cases {
        for signature in signatures {
            refused(
                &Request {
                    signature: signature.into(),
                    ..good(scheme)
                },
                name,
            );
        }
    }
}

#[test]
fn standard_reads_all_tokens_and_skips_what_it_does_not_know() {
    let request = Request::signed(Scheme::Standard, &[&secret(1)], b"{}");
    let token = String::from_utf8(request.signature.clone()).unwrap();
    let verifier = verifier(Scheme::Standard, &[&secret(1)]);
    for (header, position) in [
        (format!("v9,x {token}"), 1),
        (format!("{token} v1,short"), 0),
        (format!("bare  v1, {token}"), 2),
        (format!("{token} {token}"), 0),
        (format!("{}{token}", "v2,x ".repeat(100)), 100),
    ] {
        let request = Request {
            signature: header.clone().into(),
            ..request.clone()
        };
        assert_eq!(
            request.verify(&verifier).unwrap().signature_index,
            position,
            "{header}"
        );
    }
    let flood = Request {
        signature: format!("{token} ").repeat(33).into(),
        ..request
    };
    assert!(matches!(
        flood.verify(&verifier),
        Err(VerifyError::Malformed { .. })
    ));
}

#[test]
fn no_match_counts_the_signatures() {
    let request = Request::signed(Scheme::Standard, &[&secret(1), &secret(2)], b"{}");
    let error = request
        .verify(&verifier(Scheme::Standard, &[&secret(3)]))
        .unwrap_err();
    assert_eq!(error, VerifyError::NoMatch { signatures: 2 });
}

#[test]
fn hopae_keeps_the_last_of_a_repeated_name_as_its_published_verifier_does() {
    let sign = |number| {
        String::from_utf8(Request::signed(Scheme::Hopae, &[&secret(number)], b"{}").signature)
            .unwrap()
    };
    let v1 = |header: &str| header.split_once(",v1=").unwrap().1.to_owned();
    let verifier = verifier(Scheme::Hopae, &[&secret(1)]);
    let verify = |signature: String| {
        let request = Request::signed(Scheme::Hopae, &[&secret(1)], b"{}");
        Request {
            signature: signature.into(),
            ..request
        }
        .verify(&verifier)
    };
    let (ours, theirs) = (v1(&sign(1)), v1(&sign(2)));
    assert!(verify(format!("t={NOW},v1={theirs},v1={ours}")).is_ok());
    assert!(verify(format!("t={NOW},v1={ours},v1={theirs}")).is_err());
    assert!(verify(format!("v0=x,t=5,v1={ours},t={NOW},v2,=,")).is_ok());
    assert!(verify(format!("t={NOW},v1={ours},t=5")).is_err());
}

#[test]
fn renamed_headers_are_read() {
    let request = Request::signed(Scheme::Standard, &[&secret(1)], b"{}");
    let names = HeaderNames {
        id: Some(Cow::Borrowed("svix-id")),
        timestamp: Some(Cow::Owned("svix-timestamp".to_owned())),
        signature: Cow::Borrowed("svix-signature"),
    };
    let verifier = verifier(Scheme::Standard, &[&secret(1)]).header_names(names);
    assert_eq!(
        request.verify(&verifier).unwrap_err(),
        VerifyError::MissingHeader {
            name: "svix-id".to_owned()
        }
    );
    let map = HashMap::from([
        ("svix-id", request.id.clone()),
        ("svix-timestamp", request.timestamp.clone()),
        ("svix-signature", request.signature.clone()),
    ]);
    let headers = from_fn(|name| map.get(name).map(Vec::as_slice));
    let received = Received {
        method: "POST",
        url: "",
        headers: &headers,
        body: &request.body,
    };
    assert!(verifier.verify(&received, NOW).is_ok());
}

#[test]
fn names_of_headers_have_no_case() {
    let request = Request::signed(Scheme::Github, &[&secret(1)], b"{}");
    let headers: &[(&str, &[u8])] = &[("X-Hub-Signature-256", &request.signature)];
    let received = Received {
        method: "POST",
        url: "",
        headers: &headers,
        body: b"{}",
    };
    assert!(
        verifier(Scheme::Github, &[&secret(1)])
            .verify(&received, NOW)
            .is_ok()
    );
}

#[test]
fn kore_prefers_the_configured_url() {
    let mut request = Request::signed(Scheme::Kore, &[&secret(1)], b"{}");
    let configured = request.url.clone();
    request.url = "/in".to_owned();
    let verifier = verifier(Scheme::Kore, &[&secret(1)]);
    assert!(request.verify(&verifier).is_err());
    request.url = String::new();
    assert_eq!(request.verify(&verifier).unwrap_err(), VerifyError::NoUrl);
    assert!(request.verify(&verifier.url(configured)).is_ok());
}

// Reasons.

#[test]
fn a_rewritten_body_is_told_from_a_wrong_secret() {
    let cases = [
        (
            r#"{"a":[1,{}],"b":"x y"}"#,
            r#"{ "a": [1, { }], "b": "x y" }"#,
            Rewrite::JsonWhitespace,
        ),
        (
            r#"{"a": [1, {}], "b": "x"}"#,
            r#"{"a":[1,{}],"b":"x"}"#,
            Rewrite::JsonWhitespace,
        ),
        (
            "{\n  \"a\": [\n    1,\n    {}\n  ]\n}",
            r#"{"a":[1,{}]}"#,
            Rewrite::JsonWhitespace,
        ),
        (
            "{\n    \"a\": [\n        1\n    ]\n}",
            r#"{"a":[1]}"#,
            Rewrite::JsonWhitespace,
        ),
        ("{}\n", "{}", Rewrite::TrailingWhitespace),
        ("{}", "{}\r\n", Rewrite::TrailingWhitespace),
        ("a=1", "a=1 ", Rewrite::TrailingWhitespace),
        ("[\r\n1,\r\n2]", "[\n1,\n2]", Rewrite::LineEnds),
        ("a\nb", "a\r\nb", Rewrite::LineEnds),
        (
            r#"{"a": "caf\u00e9 \ud83d\ude00"}"#,
            r#"{"a":"café 😀"}"#,
            Rewrite::JsonEscapes,
        ),
        (
            r#"{"a":"café 😀"}"#,
            r#"{"a": "caf\u00e9 \ud83d\ude00"}"#,
            Rewrite::JsonEscapes,
        ),
        (
            r#"{"a":"http:\/\/x\/\u00e9"}"#,
            r#"{"a":"http://x/é"}"#,
            Rewrite::JsonEscapes,
        ),
        (
            r#"{"a":"http://x \u0007"}"#,
            r#"{"a":"http:\/\/x \u0007"}"#,
            Rewrite::JsonEscapes,
        ),
    ];
    for scheme in Scheme::ALL {
        let verifier = verifier(scheme, &[&secret(1), &secret(2)]);
        for (sent, received, how) in cases {
            let request = Request::signed(scheme, &[&secret(2)], sent.as_bytes());
            assert!(request.verify(&verifier).is_ok());
            let rewritten = Request {
                body: received.into(),
                ..request.clone()
            };
            let error = rewritten.verify(&verifier).unwrap_err();
            assert_eq!(
                error,
                would_match(how),
                "{scheme}: {sent:?} as {received:?}"
            );
            let unexplained = rewritten
                .verify(&verifier.clone().diagnose(false))
                .unwrap_err();
            assert_eq!(unexplained, VerifyError::NoMatch { signatures: 1 });
        }
    }
}

#[test]
fn a_changed_value_is_not_called_rewritten() {
    let request = Request::signed(Scheme::Standard, &[&secret(1)], br#"{"a": 1}"#);
    let changed = Request {
        body: br#"{"a":2}"#.to_vec(),
        ..request
    };
    let error = changed
        .verify(&verifier(Scheme::Standard, &[&secret(1)]))
        .unwrap_err();
    assert_eq!(error, VerifyError::NoMatch { signatures: 1 });
}

#[test]
fn a_slash_at_the_end_of_the_kore_url_is_noticed() {
    let verifier = verifier(Scheme::Kore, &[&secret(1)]);
    let request = Request::signed(Scheme::Kore, &[&secret(1)], b"{}");
    let with = format!("{}/?x=1", request.url);
    let error = Request {
        url: with,
        ..request.clone()
    }
    .verify(&verifier)
    .unwrap_err();
    assert_eq!(error, would_match(Rewrite::UrlTrailingSlash));

    let signer = Signer::new(Scheme::Kore, &secret(1)).unwrap();
    let content = Content {
        url: "https://r.example/",
        ..CONTENT
    };
    let signature = sign(Scheme::Kore, &[&signer], &content).unwrap().into();
    let without = Request {
        url: "https://r.example".to_owned(),
        signature,
        ..request
    };
    let error = without.verify(&verifier).unwrap_err();
    assert_eq!(error, would_match(Rewrite::UrlTrailingSlash));
}

#[test]
fn values_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Secret>();
    shared::<Signer>();
    shared::<Verifier>();
    shared::<VerifyError>();
}
