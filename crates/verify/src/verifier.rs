//! Verifying: a [`Verifier`] holds every secret that may be in use and says which one matched.
//!
//! The policy, in order; each step has its own [`VerifyError`]:
//! 1. There is a secret to verify with.
//! 2. The headers of the scheme are there.
//! 3. They have the scheme's form.
//! 4. The timestamp, where there is one, lies within the tolerance of `now`, both ends included.
//! 5. At least one signature was made with at least one of the secrets over exactly these bytes.
//!    All are compared, in constant time, whether or not one has matched already; the lowest
//!    secret wins, and of its signatures the first.
//! 6. If none was, likely rewrites of the request are tried, to give a better reason.

use std::borrow::Cow;
use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::error::{SecretError, VerifyError};
use crate::headers::{HeaderNames, Headers};
use crate::key::Keyed;
use crate::rewrite::{self, Rewrite};
use crate::scheme::{Parts, Presented, Scheme, Value, github, hopae, kore, standard};
use crate::secret::{Fingerprint, PublicKey, Secret};

/// Five minutes, as every library of Standard Webhooks and Stripe has it.
const DEFAULT_TOLERANCE_SECONDS: u32 = 300;

/// Verifies requests of one scheme against several secrets.
#[derive(Clone)]
pub struct Verifier {
    scheme: Scheme,
    entries: Vec<Entry>,
    tolerance_seconds: u32,
    names: HeaderNames,
    url: Option<String>,
    diagnose: bool,
}

#[derive(Clone)]
struct Entry {
    name: String,
    fingerprint: Fingerprint,
    key: Key,
}

#[derive(Clone)]
enum Key {
    Keyed(Keyed),
    Ed25519(Box<VerifyingKey>),
}

/// A request as it was received.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// Method of the request (`kore`).
    pub method: &'a str,
    /// URL of the request (`kore`); the verifier's own URL, if it has one, is used instead.
    pub url: &'a str,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The raw bytes of the body, as they arrived.
    pub body: &'a [u8],
}

/// What a request proved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Which secret matched: its index in the order it was given to the verifier.
    pub secret: usize,
    /// The fingerprint of that secret.
    pub fingerprint: Fingerprint,
    /// Which signature of the header matched, counted from 0 over all of them.
    pub signature_index: usize,
    /// The message id, where the scheme signs one.
    pub id: Option<String>,
    /// The time of signing in Unix seconds, where the scheme signs one.
    pub timestamp: Option<i64>,
}

impl Verifier {
    /// A verifier without secrets, with the scheme's header names and a tolerance of 300 seconds.
    pub const fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            entries: Vec::new(),
            tolerance_seconds: DEFAULT_TOLERANCE_SECONDS,
            names: HeaderNames::of(scheme),
            url: None,
            diagnose: true,
        }
    }

    /// Adds a secret under a name of the caller's choice.
    pub fn secret(mut self, name: impl Into<String>, secret: &Secret) -> Result<Self, SecretError> {
        secret.usable_for(self.scheme)?;
        if let Some(key) = secret.public_key() {
            return self.public_key(name, &key);
        }
        let key = Key::Keyed(Keyed::new(self.scheme, secret)?);
        let fingerprint = secret.fingerprint();
        self.entries.push(Entry {
            name: name.into(),
            fingerprint,
            key,
        });
        Ok(self)
    }

    /// Adds an Ed25519 public key under a name of the caller's choice.
    pub fn public_key(
        mut self,
        name: impl Into<String>,
        key: &PublicKey,
    ) -> Result<Self, SecretError> {
        if self.scheme != Scheme::Standard {
            return Err(SecretError::Ed25519NotInScheme {
                scheme: self.scheme,
            });
        }
        let fingerprint = key.fingerprint();
        let key = Key::Ed25519(Box::new(*key.verifying_key()));
        self.entries.push(Entry {
            name: name.into(),
            fingerprint,
            key,
        });
        Ok(self)
    }

    /// How far, in seconds, a timestamp may lie from `now` in either direction.
    pub fn tolerance_seconds(mut self, seconds: u32) -> Self {
        self.tolerance_seconds = seconds;
        self
    }

    /// Other header names, for a sender that renamed them.
    pub fn header_names(mut self, names: HeaderNames) -> Self {
        self.names = names;
        self
    }

    /// The URL as it is configured at the sender. Give it where the URL is signed (`kore`) and a
    /// proxy or a framework shows the receiver another one.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Whether to look for the reason when nothing matches (on by default). It costs a refused
    /// request up to some twenty hashes of its body for each secret.
    pub fn diagnose(mut self, diagnose: bool) -> Self {
        self.diagnose = diagnose;
        self
    }

    /// The scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name of the secret with this index, as it was given.
    pub fn name(&self, secret: usize) -> Option<&str> {
        self.entries.get(secret).map(|entry| entry.name.as_str())
    }

    /// Verifies a request; `now` is in Unix seconds. The module lists the steps.
    pub fn verify(&self, request: &Received<'_>, now: i64) -> Result<Verified, VerifyError> {
        if self.entries.is_empty() {
            return Err(VerifyError::NoSecrets);
        }
        let claim = self.read(request)?;
        if let Some((_, seconds)) = claim.timestamp {
            self.check_age(seconds, now)?;
        }
        let parts = claim.parts(self.scheme, claim.url, request.body);
        let Some((secret, signature_index)) = self.compare(&parts, &claim.presented) else {
            return Err(self.explain(&claim, request.body));
        };
        Ok(Verified {
            secret,
            fingerprint: self.entries[secret].fingerprint,
            signature_index,
            id: claim.id.map(str::to_owned),
            timestamp: claim.timestamp.map(|(_, seconds)| seconds),
        })
    }

    fn read<'r>(&'r self, request: &'r Received<'r>) -> Result<Claim<'r>, VerifyError> {
        let name = self.names.signature.as_ref();
        let malformed = |what| VerifyError::Malformed {
            header: name.to_owned(),
            what,
        };
        let mut claim = Claim {
            id: None,
            timestamp: None,
            method: kore::signed_method(request.method),
            url: self.url.as_deref().unwrap_or(request.url),
            presented: Vec::new(),
        };
        match self.scheme {
            Scheme::Standard => {
                claim.id = Some(self.read_id(request)?);
                claim.timestamp = Some(self.read_timestamp(request)?);
                claim.presented = standard::read(header(request, name)?).map_err(malformed)?;
            }
            Scheme::Hopae => {
                let read = hopae::read(header(request, name)?).map_err(malformed)?;
                claim.timestamp = Some((read.timestamp, read.seconds));
                claim.presented.push(read.presented);
            }
            Scheme::Kore => {
                claim
                    .presented
                    .push(kore::read(header(request, name)?).map_err(malformed)?);
                if kore::signed_url(claim.url).is_empty() {
                    return Err(VerifyError::NoUrl);
                }
            }
            Scheme::Github => {
                claim
                    .presented
                    .push(github::read(header(request, name)?).map_err(malformed)?);
            }
        }
        Ok(claim)
    }

    fn read_id<'r>(&self, request: &'r Received<'_>) -> Result<&'r str, VerifyError> {
        let name = self.names.id.as_deref().unwrap_or("webhook-id");
        let value = header(request, name)?;
        std::str::from_utf8(value)
            .ok()
            .filter(|id| standard::is_id(id.as_bytes()))
            .ok_or_else(|| VerifyError::Malformed {
                header: name.to_owned(),
                what: "it is not visible ASCII without a dot",
            })
    }

    fn read_timestamp<'r>(
        &self,
        request: &'r Received<'_>,
    ) -> Result<(&'r [u8], i64), VerifyError> {
        let name = self
            .names
            .timestamp
            .as_deref()
            .unwrap_or("webhook-timestamp");
        let value = header(request, name)?;
        let seconds = crate::encoding::parse_seconds(value).ok_or_else(|| {
            let what = "it is not a decimal number of Unix seconds";
            VerifyError::Malformed {
                header: name.to_owned(),
                what,
            }
        })?;
        Ok((value, seconds))
    }

    fn check_age(&self, timestamp: i64, now: i64) -> Result<(), VerifyError> {
        let beyond = timestamp
            .abs_diff(now)
            .saturating_sub(u64::from(self.tolerance_seconds));
        match (beyond, timestamp < now) {
            (0, _) => Ok(()),
            (by_seconds, true) => Err(VerifyError::TooOld { by_seconds }),
            (by_seconds, false) => Err(VerifyError::TooNew { by_seconds }),
        }
    }

    /// Compares every secret with every signature; returns the index of the secret that matched
    /// and the position of the signature.
    fn compare(&self, parts: &Parts<'_>, presented: &[Presented]) -> Option<(usize, usize)> {
        let mut found = Choice::from(0);
        let mut secret = 0_u32;
        let mut position = 0_u32;
        for (index, entry) in (0_u32..).zip(&self.entries) {
            let hits = entry.key.hits(parts, presented);
            for (hit, signature) in hits.into_iter().zip(presented) {
                let first = hit & !found;
                secret.conditional_assign(&index, first);
                position.conditional_assign(&signature.position, first);
                found |= hit;
            }
        }
        bool::from(found).then_some((secret as usize, position as usize))
    }

    /// The reason why nothing matched.
    fn explain(&self, claim: &Claim<'_>, body: &[u8]) -> VerifyError {
        if self.diagnose {
            let matches = |url: &str, body: &[u8]| {
                self.compare(&claim.parts(self.scheme, url, body), &claim.presented)
                    .is_some()
            };
            if let Some(how) = rewrite::find(body, |form| matches(claim.url, form)) {
                return VerifyError::WouldMatchIfReserialized { how };
            }
            if self.scheme == Scheme::Kore {
                let url = kore::signed_url(claim.url);
                let other = url
                    .strip_suffix('/')
                    .map_or_else(|| format!("{url}/"), str::to_owned);
                if matches(&other, body) {
                    let how = Rewrite::UrlTrailingSlash;
                    return VerifyError::WouldMatchIfReserialized { how };
                }
            }
        }
        VerifyError::NoMatch {
            signatures: claim.presented.len(),
        }
    }
}

impl Key {
    /// Which of the signatures this key made, one answer for each.
    fn hits(&self, parts: &Parts<'_>, presented: &[Presented]) -> Vec<Choice> {
        match self {
            Self::Keyed(key) => {
                let expected = key.digest(parts);
                let hit = |signature: &Presented| match &signature.value {
                    Value::Digest(digest) => digest.ct_eq(&expected),
                    Value::Ed25519(_) => Choice::from(0),
                };
                presented.iter().map(hit).collect()
            }
            // Nothing here is secret: the check itself need not take constant time.
            Self::Ed25519(key) => {
                let message = parts.concat();
                let hit = |signature: &Presented| match &signature.value {
                    Value::Digest(_) => Choice::from(0),
                    Value::Ed25519(bytes) => {
                        let signature = Signature::from_bytes(bytes);
                        Choice::from(u8::from(key.verify_strict(&message, &signature).is_ok()))
                    }
                };
                presented.iter().map(hit).collect()
            }
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (&entry.name, entry.fingerprint))
            .collect();
        f.debug_struct("Verifier")
            .field("scheme", &self.scheme)
            .field("secrets", &secrets)
            .field("tolerance_seconds", &self.tolerance_seconds)
            .field("names", &self.names)
            .field("url", &self.url)
            .field("diagnose", &self.diagnose)
            .finish()
    }
}

/// What the headers of a request claim.
struct Claim<'r> {
    id: Option<&'r str>,
    /// As it was signed, and in Unix seconds.
    timestamp: Option<(&'r [u8], i64)>,
    method: Cow<'r, str>,
    url: &'r str,
    presented: Vec<Presented>,
}

impl Claim<'_> {
    fn parts<'a>(&'a self, scheme: Scheme, url: &'a str, body: &'a [u8]) -> Parts<'a> {
        let timestamp = self.timestamp.map_or(&b""[..], |(text, _)| text);
        match scheme {
            Scheme::Standard => standard::parts(self.id.unwrap_or_default(), timestamp, body),
            Scheme::Hopae => hopae::parts(timestamp, body),
            Scheme::Kore => kore::parts(&self.method, url, body),
            Scheme::Github => github::parts(body),
        }
    }
}

fn header<'r>(request: &'r Received<'_>, name: &str) -> Result<&'r [u8], VerifyError> {
    request
        .headers
        .get(name)
        .ok_or_else(|| VerifyError::MissingHeader {
            name: name.to_owned(),
        })
}
