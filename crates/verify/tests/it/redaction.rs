//! No secret is ever printed: not by `Debug`, not by an error.

use crate::request::verifier;
use hookturn_verify::{Content, PublicKey, Scheme, Secret, SignError, Signer, VerifyError, sign};

const SYMMETRIC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ED25519: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

/// Any eight characters in a row count as a leak.
fn assert_hidden(secret: &str, shown: &str) {
    let bytes = secret
        .split_once('_')
        .map_or(secret, |(_, encoded)| encoded)
        .as_bytes();
    for window in bytes.windows(8) {
        let window = std::str::from_utf8(window).expect("secrets of this test are ASCII");
        assert!(
            !shown.contains(window),
            "{window:?} of the secret is in {shown:?}"
        );
    }
}

#[test]
fn debug_shows_fingerprints() {
    for text in [SYMMETRIC, ED25519] {
        let secret = Secret::parse(text).unwrap();
        let signer = Signer::new(Scheme::Standard, &secret).unwrap();
        let verifier = verifier(Scheme::Standard, &[&secret]);
        let fingerprint = secret.fingerprint().to_string();
        assert_eq!(fingerprint.len(), 8);
        for shown in [
            format!("{secret:?} {secret:#?}"),
            format!("{signer:?} {signer:#?}"),
            format!("{verifier:?} {verifier:#?}"),
        ] {
            assert_hidden(text, &shown);
            assert!(shown.contains(&fingerprint), "{shown}");
        }
    }
}

#[test]
fn fingerprints_are_the_start_of_sha256() {
    // printf %s whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw | sha256sum; for the key pair, of its whpk_.
    assert_eq!(
        Secret::parse(SYMMETRIC).unwrap().fingerprint().to_string(),
        "96ad2ccd"
    );
    assert_eq!(
        Secret::parse(ED25519).unwrap().fingerprint().to_string(),
        "ff15916e"
    );
}

#[test]
fn errors_hold_no_part_of_a_secret() {
    let damaged = ED25519.replace("6Xb/", "7Xb/");
    let refused = [
        format!("{SYMMETRIC}\n"),
        SYMMETRIC.repeat(20),
        damaged,
        ED25519.replace("==", ""),
        ED25519.replace("whsk_", "whpk_"),
    ];
    for text in refused {
        let error = Secret::parse(&text).unwrap_err();
        assert_hidden(&text, &format!("{error} {error:?} {error:#?}"));
        let error = text.parse::<PublicKey>().unwrap_err();
        assert_hidden(&text, &format!("{error} {error:?} {error:#?}"));
    }
    for text in [
        "whsec_notbase64notbase64!",
        "whsec_c2hvcnQgc2hvcnQ=",
        "plaintextsecret",
    ] {
        let error = Secret::parse(text)
            .unwrap()
            .usable_for(Scheme::Standard)
            .unwrap_err();
        assert_hidden(text, &format!("{error} {error:?}"));
    }
}

#[test]
fn failed_operations_hold_no_part_of_a_secret() {
    let secret = Secret::parse(SYMMETRIC).unwrap();
    let signer = Signer::new(Scheme::Standard, &secret).unwrap();
    let content = Content {
        id: "",
        timestamp: 0,
        method: "POST",
        url: "https://r.example",
        body: b"",
    };
    let error: SignError = sign(Scheme::Standard, &[&signer], &content).unwrap_err();
    assert_hidden(SYMMETRIC, &format!("{error} {error:?}"));

    let mut request = crate::request::Request::signed(Scheme::Standard, &[&secret], b"{}");
    request.body = b"[]".to_vec();
    let error: VerifyError = request
        .verify(&verifier(Scheme::Standard, &[&secret]))
        .unwrap_err();
    assert_hidden(SYMMETRIC, &format!("{error} {error:?}"));
}
