//! The published and independently computed vectors: each is signed to the byte and verified.

use hookturn_verify::{
    Content, HeaderNames, PublicKey, Received, Scheme, Secret, Signer, Verified, Verifier,
    VerifyError, sign,
};
use serde_json::Value;

const STANDARD: &str = include_str!("../vectors/standard.json");
const HOPAE: &str = include_str!("../vectors/hopae.json");
const KORE: &str = include_str!("../vectors/kore.json");
const GITHUB: &str = include_str!("../vectors/github.json");

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is text in {value}"))
}

fn vectors(file: &Value) -> &[Value] {
    let vectors = file["vectors"].as_array().expect("a list of vectors");
    assert!(!vectors.is_empty());
    vectors
}

fn content(vector: &Value) -> Content<'_> {
    Content {
        id: vector["id"].as_str().unwrap_or_default(),
        timestamp: vector["timestamp"].as_i64().unwrap_or_default(),
        method: "POST",
        url: "https://receiver.example",
        body: text(vector, "body").as_bytes(),
    }
}

fn sign_one(scheme: Scheme, secret: &str, content: &Content<'_>) -> String {
    let secret = Secret::parse(secret).unwrap();
    let signer = Signer::new(scheme, &secret).unwrap();
    sign(scheme, &[&signer], content).unwrap()
}

fn verify(
    verifier: &Verifier,
    content: &Content<'_>,
    signature: &str,
) -> Result<Verified, VerifyError> {
    let names = HeaderNames::of(verifier.scheme());
    let timestamp = content.timestamp.to_string();
    let headers = [
        (
            names.id.as_deref().unwrap_or("unused-id"),
            content.id.as_bytes(),
        ),
        (
            names.timestamp.as_deref().unwrap_or("unused-timestamp"),
            timestamp.as_bytes(),
        ),
        (&*names.signature, signature.as_bytes()),
    ];
    let request = Received {
        method: content.method,
        url: content.url,
        headers: &headers,
        body: content.body,
    };
    verifier.verify(&request, content.timestamp)
}

fn verifier(scheme: Scheme, secret: &str) -> Verifier {
    Verifier::new(scheme)
        .secret("vector", &Secret::parse(secret).unwrap())
        .unwrap()
}

#[test]
fn standard_vectors_sign_and_verify() {
    let file: Value = serde_json::from_str(STANDARD).unwrap();
    for vector in vectors(&file) {
        let content = content(vector);
        let expected = text(vector, "signature");
        let secret = text(vector, "secret");
        assert_eq!(sign_one(Scheme::Standard, secret, &content), expected);
        let verified = verify(&verifier(Scheme::Standard, secret), &content, expected).unwrap();
        assert_eq!(verified.id.as_deref(), Some(content.id));
        assert_eq!(verified.timestamp, Some(content.timestamp));
        if let Some(public) = vector["public"].as_str() {
            let key: PublicKey = public.parse().unwrap();
            assert_eq!(key.to_string(), public);
            assert_eq!(Secret::parse(secret).unwrap().public_key(), Some(key));
            let by_public_key = Verifier::new(Scheme::Standard)
                .public_key("public", &key)
                .unwrap();
            let verified_by_key = verify(&by_public_key, &content, expected).unwrap();
            assert_eq!(verified_by_key.fingerprint, verified.fingerprint);
        }
    }
}

#[test]
fn standard_refuses_what_must_not_verify_as_a() {
    let file: Value = serde_json::from_str(STANDARD).unwrap();
    let a = &vectors(&file)[0];
    let content = content(a);
    let verifier = verifier(Scheme::Standard, text(a, "secret"));
    let refused = file["must_not_verify_as_A"].as_array().unwrap();
    assert!(!refused.is_empty());
    for signature in refused {
        let signature = signature.as_str().unwrap();
        let error = verify(&verifier, &content, signature).unwrap_err();
        assert!(
            matches!(
                error,
                VerifyError::NoMatch { .. } | VerifyError::Malformed { .. }
            ),
            "{signature}: {error:?}"
        );
        // The same beside the right one does no harm.
        let both = format!("{signature} {}", text(a, "signature"));
        assert_eq!(
            verify(&verifier, &content, &both).unwrap().signature_index,
            1
        );
    }
}

#[test]
fn hopae_vectors_sign_and_verify() {
    let file: Value = serde_json::from_str(HOPAE).unwrap();
    for vector in vectors(&file) {
        let content = content(vector);
        let secret = text(vector, "secret");
        let expected = format!("t={},v1={}", content.timestamp, text(vector, "v1"));
        assert_eq!(sign_one(Scheme::Hopae, secret, &content), expected);
        let verified = verify(&verifier(Scheme::Hopae, secret), &content, &expected).unwrap();
        assert_eq!(verified.timestamp, Some(content.timestamp));
        assert_eq!(verified.id, None);
    }
}

#[test]
fn hopae_keys_are_the_whole_text() {
    let file: Value = serde_json::from_str(HOPAE).unwrap();
    let completed = &vectors(&file)[0];
    assert_eq!(text(completed, "name"), "completed");
    let content = content(completed);
    let verifier = verifier(Scheme::Hopae, text(completed, "secret"));
    let wrong = file["must_not_equal_completed"].as_object().unwrap();
    assert!(!wrong.is_empty());
    for (how, v1) in wrong {
        let v1 = v1.as_str().unwrap();
        let header = format!("t={},v1={v1}", content.timestamp);
        let error = verify(&verifier, &content, &header).unwrap_err();
        assert_eq!(error, VerifyError::NoMatch { signatures: 1 }, "{how}");
    }
}

#[test]
fn kore_vectors_sign_and_verify() {
    let file: Value = serde_json::from_str(KORE).unwrap();
    for vector in vectors(&file) {
        let content = Content {
            method: text(&file, "method"),
            url: text(&file, "url"),
            ..content(vector)
        };
        let secret = text(vector, "secret");
        let expected = text(vector, "signature");
        assert_eq!(sign_one(Scheme::Kore, secret, &content), expected);
        assert!(verify(&verifier(Scheme::Kore, secret), &content, expected).is_ok());
    }
}

#[test]
fn kore_cuts_the_url_and_does_not_normalise_it() {
    let file: Value = serde_json::from_str(KORE).unwrap();
    let third = &vectors(&file)[2];
    assert_eq!(text(third, "name"), "3");
    let urls = file["same_signature_as_3_for_urls"].as_array().unwrap();
    assert!(!urls.is_empty());
    for url in urls {
        let content = Content {
            method: text(&file, "method"),
            url: url.as_str().unwrap(),
            ..content(third)
        };
        let expected = text(third, "signature");
        assert_eq!(
            sign_one(Scheme::Kore, text(third, "secret"), &content),
            expected
        );
        assert!(
            verify(
                &verifier(Scheme::Kore, text(third, "secret")),
                &content,
                expected
            )
            .is_ok()
        );
    }
}

#[test]
fn github_vectors_sign_and_verify() {
    let file: Value = serde_json::from_str(GITHUB).unwrap();
    for vector in vectors(&file) {
        let content = content(vector);
        let secret = text(vector, "secret");
        let expected = text(vector, "signature");
        assert_eq!(sign_one(Scheme::Github, secret, &content), expected);
        assert!(verify(&verifier(Scheme::Github, secret), &content, expected).is_ok());
    }
}
