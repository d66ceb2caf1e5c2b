//! Properties over generated secrets, requests and damage.

use crate::request::{NOW, Request, verifier};
use hookturn_verify::{
    Fingerprint, HeaderNames, PublicKey, Received, Scheme, Secret, Signer, Verifier,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn scheme() -> impl Strategy<Value = Scheme> {
    prop::sample::select(Scheme::ALL.to_vec())
}

/// Secrets that the scheme accepts, symmetric ones.
fn secret_for(scheme: Scheme) -> BoxedStrategy<Secret> {
    let generated = any::<[u8; 32]>().prop_map(Secret::generate);
    let imported = match scheme {
        Scheme::Standard => vec(any::<u8>(), 24..=64)
            .prop_map(|key| base64("whsec_", &key))
            .boxed(),
        _ => "[ -~äß漢]{1,120}"
            .prop_filter("key pairs are made apart", |text| {
                !text.starts_with("whsk_") && !text.starts_with("whpk_")
            })
            .boxed(),
    };
    prop_oneof![
        generated,
        imported.prop_map(|text| Secret::parse(&text).unwrap())
    ]
    .boxed()
}

fn base64(prefix: &str, bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!(
        "{prefix}{}",
        base64::engine::general_purpose::STANDARD.encode(bytes)
    )
}

/// A scheme and different secrets for it.
fn scheme_and_secrets() -> impl Strategy<Value = (Scheme, Vec<Secret>)> {
    scheme()
        .prop_flat_map(|scheme| (Just(scheme), vec(secret_for(scheme), 1..6)))
        .prop_filter("secrets differ", |(_, secrets)| {
            secrets
                .iter()
                .enumerate()
                .all(|(i, secret)| !secrets[..i].contains(secret))
        })
}

fn flip(bytes: &mut [u8], at: prop::sample::Index, bit: u8) {
    let at = at.index(bytes.len());
    bytes[at] ^= 1 << bit;
}

proptest! {
    #[test]
    fn the_secret_that_signed_is_named(
        (scheme, secrets) in scheme_and_secrets(),
        pick in any::<prop::sample::Index>(),
        body in vec(any::<u8>(), 0..300),
    ) {
        let known: Vec<_> = secrets.iter().collect();
        let signed_by = pick.index(known.len());
        let request = Request::signed(scheme, &[known[signed_by]], &body);
        let verified = request.verify(&verifier(scheme, &known)).unwrap();
        prop_assert_eq!(verified.secret, signed_by);
        prop_assert_eq!(verified.signature_index, 0);
        prop_assert_eq!(verified.fingerprint, known[signed_by].fingerprint());
        prop_assert_eq!(verified.timestamp, scheme.is_timestamped().then_some(NOW));
    }

    #[test]
    fn every_one_of_several_signatures_verifies(
        secrets in vec(secret_for(Scheme::Standard), 2..5),
        pick in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = secrets.iter().collect();
        let request = Request::signed(Scheme::Standard, &all, b"{}");
        let position = pick.index(all.len());
        let verified = request.verify(&verifier(Scheme::Standard, &[all[position]])).unwrap();
        let first = all.iter().position(|secret| *secret == all[position]).unwrap();
        prop_assert_eq!(verified.signature_index, first);
        prop_assert_eq!(verified.secret, 0);
    }

    #[test]
    fn a_stranger_is_refused(
        (scheme, secrets) in scheme_and_secrets(),
        body in vec(any::<u8>(), 0..100),
    ) {
        prop_assume!(secrets.len() > 1);
        let request = Request::signed(scheme, &[&secrets[0]], &body);
        let others: Vec<_> = secrets[1..].iter().collect();
        prop_assert!(request.verify(&verifier(scheme, &others)).is_err());
    }

    #[test]
    fn one_changed_bit_is_refused(
        (scheme, secrets) in scheme_and_secrets(),
        body in vec(any::<u8>(), 1..100),
        field in 0..4,
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut request = Request::signed(scheme, &[&secrets[0]], &body);
        match field {
            0 => flip(&mut request.body, at, bit),
            1 if scheme == Scheme::Standard => flip(&mut request.id, at, bit),
            2 if scheme == Scheme::Standard => flip(&mut request.timestamp, at, bit),
            _ => flip(&mut request.signature, at, bit),
        }
        prop_assert!(request.verify(&verifier(scheme, &[&secrets[0]])).is_err());
    }

    #[test]
    fn secrets_survive_their_text(scheme in scheme(), random in any::<[u8; 32]>()) {
        let secret = Secret::generate(random);
        prop_assert_eq!(secret.usable_for(scheme), Ok(()));
        prop_assert_eq!(secret.expose().len(), "whsec_".len() + 64);
        let read = Secret::parse(secret.expose()).unwrap();
        prop_assert_eq!(&read, &secret);
        let name = secret.fingerprint().to_string();
        prop_assert_eq!(name.parse::<Fingerprint>(), Ok(read.fingerprint()));
        prop_assert_eq!(Fingerprint::from_bytes(read.fingerprint().to_bytes()), read.fingerprint());
    }

    #[test]
    fn parsing_never_panics(text in any::<String>(), prefix in "(whsec_|whsk_|whpk_)?", short in "[A-Za-z0-9+/=]{0,100}") {
        for text in [text.clone(), format!("{prefix}{text}"), format!("{prefix}{short}")] {
            if let Ok(secret) = Secret::parse(&text) {
                prop_assert_eq!(secret.expose(), &text);
                for scheme in Scheme::ALL {
                    let usable = secret.usable_for(scheme);
                    prop_assert_eq!(Signer::new(scheme, &secret).err(), usable.err());
                    prop_assert_eq!(Verifier::new(scheme).secret("", &secret).err(), usable.err());
                }
            }
            let _ = text.parse::<PublicKey>();
            let _ = text.parse::<Fingerprint>();
            let _ = text.parse::<Scheme>();
        }
    }

    #[test]
    fn verifying_never_panics(
        scheme in scheme(),
        signature in hostile_signature(),
        id in vec(any::<u8>(), 0..40),
        timestamp in prop_oneof![vec(any::<u8>(), 0..30), "[0-9]{1,20}".prop_map(String::into_bytes)],
        method in any::<String>(),
        url in any::<String>(),
        body in hostile_body(),
        now in any::<i64>(),
    ) {
        let names = HeaderNames::of(scheme);
        let headers = [
            (names.id.as_deref().unwrap_or(""), id.as_slice()),
            (names.timestamp.as_deref().unwrap_or(""), timestamp.as_slice()),
            (&*names.signature, signature.as_slice()),
        ];
        let request = Received { method: &method, url: &url, headers: &headers, body: &body };
        let verifier = verifier(scheme, &[&crate::request::secret(1), &crate::request::secret(2)])
            .tolerance_seconds(u32::MAX);
        prop_assert!(verifier.verify(&request, now).is_err());
    }
}

/// Bytes that get some way into the parsers before they go wrong.
fn hostile_signature() -> impl Strategy<Value = Vec<u8>> {
    let digest = any::<[u8; 32]>().prop_map(|bytes| base64("v1,", &bytes));
    prop_oneof![
        vec(any::<u8>(), 0..200),
        "((v1|v1a|v2)?,?[A-Za-z0-9+/=]{0,90} {0,2}){0,40}".prop_map(String::into_bytes),
        digest.prop_map(String::into_bytes),
        "(sha256=)?[0-9a-f]{64}".prop_map(String::into_bytes),
        "(t=[0-9]{1,20},?){0,3}(v1=[0-9a-f]{64},?){0,3}".prop_map(String::into_bytes),
    ]
}

/// Bodies that exercise the search for rewrites.
fn hostile_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..100),
        r#"[\[{]([\[\]{},:"\\/ \n]|\\u[0-9a-fD]{0,5}|\\u[dD]83[dD]|é|😀|a){0,60}"#
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    // An Ed25519 operation takes milliseconds without optimisation.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ed25519_signs_beside_hmac(
        seed in any::<[u8; 32]>(),
        random in any::<[u8; 32]>(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (pair, symmetric) = (Secret::generate_ed25519(seed), Secret::generate(random));
        prop_assert_eq!(&Secret::parse(pair.expose()).unwrap(), &pair);
        let public = pair.public_key().unwrap();
        prop_assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        prop_assert_eq!(public.fingerprint(), pair.fingerprint());

        let request = Request::signed(Scheme::Standard, &[&symmetric, &pair], b"{}");
        let by_key = Verifier::new(Scheme::Standard).public_key("public", &public).unwrap();
        let verified = request.verify(&by_key).unwrap();
        prop_assert_eq!(verified.signature_index, 1);
        prop_assert_eq!(verified.fingerprint, pair.fingerprint());
        let by_both = verifier(Scheme::Standard, &[&pair, &symmetric]);
        prop_assert_eq!(request.verify(&by_both).unwrap().secret, 0);

        let mut damaged = Request::signed(Scheme::Standard, &[&pair], b"{}");
        flip(&mut damaged.signature, at, bit);
        prop_assert!(damaged.verify(&by_key).is_err());
    }
}
