//! The rules of secrets, schemes and signing, one by one.

use crate::request::{CONTENT, secret};
use hookturn_verify::{
    Content, PublicKey, Scheme, Secret, SecretError, SignError, Signer, Verifier, sign,
};

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
    for letter in ["a", "é", "🦘"] {
        let longest = letter.repeat(512);
        assert_eq!(Secret::parse(&longest).unwrap().expose(), longest);
        let too_long = SecretError::TooLong {
            characters: 513,
            limit: 512,
        };
        assert_eq!(Secret::parse(&letter.repeat(513)).unwrap_err(), too_long);
    }
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
