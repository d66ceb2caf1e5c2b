//! Sign and verify webhooks, with key rotation in mind.
//!
//! Four schemes ([`Scheme`]): Standard Webhooks (`v1` and `v1a`), Hopae (also the form that Stripe
//! uses), KORE and GitHub. The crate decides and computes; it does no I/O, reads no clock, draws no
//! random numbers and is not async: time and random bytes come in as arguments.
//!
//! # Sign
//!
//! Expand a [`Secret`] into a [`Signer`] once and use it for every request. [`sign()`] returns the
//! value of the signature header; the sender puts it, the id and the timestamp under the names in
//! [`HeaderNames`].
//!
//! ```
//! use hookturn_verify::{Content, Scheme, Secret, Signer, sign};
//!
//! let current = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
//! let signer = Signer::new(Scheme::Standard, &current)?;
//! let content = Content {
//!     id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
//!     timestamp: 1_614_265_330,
//!     method: "POST",
//!     url: "https://receiver.example/hook",
//!     body: br#"{"test": 2432232314}"#,
//! };
//! let header = sign(Scheme::Standard, &[&signer], &content)?;
//! assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Verify
//!
//! A [`Verifier`] takes every secret that may be in use while a rotation is open and says *which*
//! one matched. Give it the raw bytes of the body, before any JSON parser has touched them.
//!
//! ```
//! use hookturn_verify::{Received, Scheme, Secret, Verifier};
//!
//! let verifier = Verifier::new(Scheme::Standard)
//!     .secret("new", &Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")?)?
//!     .secret("old", &Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)?;
//! let headers: &[(&str, &[u8])] = &[
//!     ("webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
//!     ("webhook-timestamp", b"1614265330"),
//!     ("webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! ];
//! let request = Received {
//!     method: "POST",
//!     url: "https://receiver.example/hook",
//!     headers: &headers,
//!     body: br#"{"test": 2432232314}"#,
//! };
//! let now = 1_614_265_340; // Unix seconds, from the receiver's clock
//! let verified = verifier.verify(&request, now)?;
//! assert_eq!(verifier.name(verified.secret), Some("old"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - No input makes a function of this crate panic; work and memory are bounded by the input.
//! - Digests are compared in constant time, and every secret is compared with every signature, so
//!   that the time taken does not tell which secret matched.
//! - The text of a secret is read through [`Secret::expose`] alone. `Debug` shows fingerprints,
//!   errors hold no secret, and keys are wiped from memory when they are dropped (copies that the
//!   compiler leaves in registers or on the stack are beyond a library's reach).
//!
//! # What is not
//!
//! - Replay protection: a receiver that must act once has to remember message ids.
//! - KORE and GitHub carry no timestamp, so a captured request stays valid as long as its secret.

mod encoding;
mod error;
mod headers;
mod key;
mod rewrite;
mod scheme;
mod secret;
mod sign;
mod verifier;

pub use error::{FingerprintError, SchemeError, SecretError, SignError, VerifyError};
pub use headers::{FromFn, HeaderNames, Headers, from_fn};
pub use rewrite::Rewrite;
pub use scheme::Scheme;
pub use secret::{Fingerprint, PublicKey, Secret};
pub use sign::{Content, Signer, sign};
pub use verifier::{Received, Verified, Verifier};

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
