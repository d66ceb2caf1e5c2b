//! What can go wrong, by boundary: a secret is refused, a request cannot be signed, a request does
//! not verify. No error holds any part of a secret.

use crate::rewrite::Rewrite;
use crate::scheme::Scheme;

/// A text is not a secret, or not one that a scheme can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The text is empty.
    #[error("secret is empty; give the text the sender showed")]
    Empty,
    /// The text is longer than any scheme allows.
    #[error("secret has {characters} characters, more than the limit of {limit}")]
    TooLong {
        /// Length of the text in characters.
        characters: usize,
        /// The longest text that is accepted, in characters.
        limit: usize,
    },
    /// The text holds a control character, such as a line feed.
    #[error(
        "secret holds a control character, such as a line feed from copying; remove it and retry"
    )]
    ControlCharacter,
    /// A `whpk_` public key was given where a secret is needed.
    #[error("a whpk_ text is a public key: it verifies, but cannot sign; give the whsk_ text")]
    PublicKeyNotSecret,
    /// The text after `whsk_` is not a key pair.
    #[error("not an Ed25519 secret key: {what}")]
    Ed25519Key {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The text is not a usable `whpk_` public key.
    #[error("not an Ed25519 public key: {what}")]
    PublicKey {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Standard Webhooks needs a `whsec_` or `whsk_` text.
    #[error("the standard scheme needs a secret that starts with whsec_ or whsk_")]
    Prefix,
    /// The text after `whsec_` is not padded standard base64.
    #[error("the standard scheme needs padded standard base64 after whsec_")]
    Base64,
    /// The decoded key is too short or too long for Standard Webhooks.
    #[error("the standard scheme needs a key of 24 to 64 bytes, this one decodes to {bytes}")]
    KeyLength {
        /// Length of the decoded key in bytes.
        bytes: usize,
    },
    /// Ed25519 keys sign in Standard Webhooks only.
    #[error("an Ed25519 key cannot be used in the {scheme} scheme, only in standard")]
    Ed25519NotInScheme {
        /// The scheme that was asked for.
        scheme: Scheme,
    },
}

/// A text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 8 lowercase hex digits")]
pub struct FingerprintError;

/// A text is not the name of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown scheme; the schemes are standard, hopae, kore and github")]
pub struct SchemeError;

/// A request cannot be signed. Always the caller's mistake; nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is no key to sign with.
    #[error("no key to sign with")]
    NoSigner,
    /// More than one key, in a scheme whose header carries one signature.
    #[error("the {scheme} scheme carries one signature only, {signers} keys were given")]
    OneSignatureOnly {
        /// The scheme that was asked for.
        scheme: Scheme,
        /// How many keys were given.
        signers: usize,
    },
    /// A key was expanded for another scheme.
    #[error("key was expanded for the {signer} scheme and cannot sign in {scheme}")]
    SchemeMismatch {
        /// The scheme that was asked for.
        scheme: Scheme,
        /// The scheme the key was expanded for.
        signer: Scheme,
    },
    /// The message id cannot be signed unambiguously.
    #[error("message id must be visible ASCII without a dot, and not empty")]
    Id,
    /// The timestamp lies before 1970.
    #[error("timestamp is negative; give Unix seconds")]
    Timestamp,
    /// The KORE scheme signs the URL and the method, and one of them is empty.
    #[error("the kore scheme signs the method and the URL; both must be given")]
    Target,
}

/// A request does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The verifier holds no secret.
    #[error("no secret to verify with; give the verifier at least one")]
    NoSecrets,
    /// A header that the scheme needs is not there.
    #[error("header {name} is missing; the request was not signed in this scheme")]
    MissingHeader {
        /// Name of the header.
        name: String,
    },
    /// A header is there and does not have the scheme's form.
    #[error("header {header} is malformed: {what}")]
    Malformed {
        /// Name of the header.
        header: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The scheme signs the URL, and neither the verifier nor the request has one.
    #[error("the scheme signs the URL; give the verifier the URL as the sender has it")]
    NoUrl,
    /// The timestamp lies too far in the past.
    #[error(
        "timestamp is {by_seconds} s older than the tolerance allows; the request was replayed, or a clock is wrong"
    )]
    TooOld {
        /// Seconds beyond the tolerance.
        by_seconds: u64,
    },
    /// The timestamp lies too far in the future.
    #[error("timestamp is {by_seconds} s newer than the tolerance allows; a clock is wrong")]
    TooNew {
        /// Seconds beyond the tolerance.
        by_seconds: u64,
    },
    /// No signature was made by any of the secrets over these bytes.
    #[error(
        "none of the {signatures} signatures was made with a known secret over these bytes; check that the secret is the sender's and that the body is raw"
    )]
    NoMatch {
        /// How many signatures of a known version the header held.
        signatures: usize,
    },
    /// A known secret did sign, but not these bytes: the receiver changed the request first.
    #[error("{how}; the secret is right: verify the request as it was received")]
    WouldMatchIfReserialized {
        /// What the receiver did to the request.
        how: Rewrite,
    },
}
