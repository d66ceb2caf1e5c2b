//! Cuts the fuzzer's bytes into a request, and says what must hold for every one.

use hookturn_verify::{HeaderNames, Received, Scheme, Secret, Verifier};

/// Lines of `data`: signature, id, timestamp, method, URL; the rest is the body.
pub fn verify(scheme: Scheme, data: &[u8]) {
    let mut fields = data.splitn(6, |byte| *byte == b'\n');
    let mut next = || fields.next().unwrap_or_default();
    let (signature, id, timestamp) = (next(), next(), next());
    let (method, url) = (
        String::from_utf8_lossy(next()),
        String::from_utf8_lossy(next()),
    );
    let body = next();

    let names = HeaderNames::of(scheme);
    let headers = [
        (names.signature.as_ref(), signature),
        (names.id.as_deref().unwrap_or("-"), id),
        (names.timestamp.as_deref().unwrap_or("-"), timestamp),
    ];
    let request = Received {
        method: &method,
        url: &url,
        headers: &headers,
        body,
    };
    let mut verifier = Verifier::new(scheme).tolerance_seconds(u32::MAX);
    for number in 1..3 {
        let secret = Secret::generate([number; 32]);
        verifier = verifier
            .secret(number.to_string(), &secret)
            .expect("fits every scheme");
    }
    if scheme == Scheme::Standard {
        let pair = Secret::generate_ed25519([3; 32]);
        verifier = verifier
            .secret("pair", &pair)
            .expect("fits the standard scheme");
    }
    // A match would mean that the fuzzer found a signature without the key.
    let error = verifier
        .verify(&request, 1_784_505_600)
        .expect_err("nothing was signed");
    assert!(!error.to_string().is_empty());
}
