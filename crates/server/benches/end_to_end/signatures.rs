//! Who signed what arrived: every request that a keeping receiver kept is verified after the load, none is
//! sampled, and the processor is left to the server while the load runs.

use hookturn_verify::{Received, Scheme, Secret, Verifier};

use crate::number::Error;

/// What was signed of a request of the standard preset, and with it the signature, as they arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: Box<[u8]>,
    pub(crate) timestamp: Box<[u8]>,
    pub(crate) signature: Box<[u8]>,
    pub(crate) body: Box<[u8]>,
}

/// The secrets of one endpoint: that of its making, and the one it was rotated to.
pub(crate) struct Keys {
    either: Verifier,
    new: Verifier,
}

/// Whose signature a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignedBy {
    Old,
    New,
}

impl Keys {
    pub(crate) fn new(old: &str, new: &str) -> Result<Self, Error> {
        let (old, new) = (Secret::parse(old)?, Secret::parse(new)?);
        let alone = Verifier::new(Scheme::Standard).secret("new", &new)?;
        let either = Verifier::new(Scheme::Standard)
            .secret("new", &new)?
            .secret("old", &old)?;
        Ok(Self { either, new: alone })
    }

    /// Who signed the request; `None` when nobody did who may. The old secret may not once it is retired.
    pub(crate) fn signed(&self, request: &Request, old_is_retired: bool) -> Option<SignedBy> {
        let verifier = if old_is_retired {
            &self.new
        } else {
            &self.either
        };
        let headers: &[(&str, &[u8])] = &[
            ("webhook-id", &request.id),
            ("webhook-timestamp", &request.timestamp),
            ("webhook-signature", &request.signature),
        ];
        let received = Received {
            method: "POST",
            url: "",
            headers: &headers,
            body: &request.body,
        };
        // The load is over: what was fresh when it came is not judged by today's clock.
        let signed_at = std::str::from_utf8(&request.timestamp).ok()?.parse().ok()?;
        let verified = verifier.verify(&received, signed_at).ok()?;
        match verifier.name(verified.secret) {
            Some("new") => Some(SignedBy::New),
            _ => Some(SignedBy::Old),
        }
    }
}
