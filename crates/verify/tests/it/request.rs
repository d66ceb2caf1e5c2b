//! A request as a sender makes it, held so that tests can change any part of it.

use hookturn_verify::{
    Content, HeaderNames, Received, Scheme, Secret, Signer, Verified, Verifier, VerifyError, sign,
};

/// The time of signing in these tests.
pub(crate) const NOW: i64 = 1_784_505_600;

/// What is signed where a test does not say otherwise.
pub(crate) const CONTENT: Content<'_> = Content {
    id: "msg_1",
    timestamp: NOW,
    method: "POST",
    url: "https://r.example/in",
    body: b"{}",
};

/// A signed request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) scheme: Scheme,
    pub(crate) id: Vec<u8>,
    pub(crate) timestamp: Vec<u8>,
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) body: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Request {
    /// Signs `body` at [`NOW`] with all of the secrets.
    pub(crate) fn signed(scheme: Scheme, secrets: &[&Secret], body: &[u8]) -> Self {
        let signers: Vec<_> = secrets
            .iter()
            .map(|secret| Signer::new(scheme, secret).unwrap())
            .collect();
        let (id, method, url) = (
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
            "POST",
            "https://r.example/in",
        );
        let content = Content {
            id,
            timestamp: NOW,
            method,
            url,
            body,
        };
        let signature = sign(scheme, &signers.iter().collect::<Vec<_>>(), &content).unwrap();
        Self {
            scheme,
            id: id.into(),
            timestamp: NOW.to_string().into(),
            method: method.to_owned(),
            url: url.to_owned(),
            body: body.to_vec(),
            signature: signature.into(),
        }
    }

    /// Hands the request to the verifier with the scheme's own header names.
    pub(crate) fn verify_at(&self, verifier: &Verifier, now: i64) -> Result<Verified, VerifyError> {
        let names = HeaderNames::of(self.scheme);
        let mut headers = vec![(names.signature.as_ref(), self.signature.as_slice())];
        headers.extend(names.id.as_deref().map(|name| (name, self.id.as_slice())));
        headers.extend(
            names
                .timestamp
                .as_deref()
                .map(|name| (name, self.timestamp.as_slice())),
        );
        let request = Received {
            method: &self.method,
            url: &self.url,
            headers: &headers,
            body: &self.body,
        };
        verifier.verify(&request, now)
    }

    pub(crate) fn verify(&self, verifier: &Verifier) -> Result<Verified, VerifyError> {
        self.verify_at(verifier, NOW)
    }
}

/// A verifier that knows the secrets under the names `0`, `1`, …
pub(crate) fn verifier(scheme: Scheme, secrets: &[&Secret]) -> Verifier {
    let mut verifier = Verifier::new(scheme);
    for (index, secret) in secrets.iter().enumerate() {
        verifier = verifier.secret(index.to_string(), secret).unwrap();
    }
    verifier
}

/// A symmetric secret that is different for each number.
pub(crate) fn secret(number: u8) -> Secret {
    Secret::generate([number; 32])
}
