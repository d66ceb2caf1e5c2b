//! Other people's libraries judge what the running server signs.
//!
//! The real binary delivers to a receiver on loopback; the captured requests are handed to the npm
//! and Python libraries that receivers use, and to `node:crypto`, Python `cryptography` and `hashlib`
//! where a scheme has no library. None of them shares code with `hookturn-verify`, which signs. Their
//! verdicts are the test: every one of them must accept what the holder of the secret should accept,
//! and refuse everything else.
//!
//! `cargo xtask test` installs the judges and says where they are; without it these tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "a test's receivers and helpers fail the test as its body does"
)]

#[path = "judges/documents.rs"]
mod documents;
#[path = "judges/hopae_dialect.rs"]
mod hopae_dialect;
#[path = "judges/panel.rs"]
mod panel;
#[path = "judges/rehearsed.rs"]
mod rehearsed;
#[path = "judges/retries.rs"]
mod retries;
#[path = "judges/rotations.rs"]
mod rotations;
#[path = "judges/senders.rs"]
mod senders;
#[path = "judges/signatures.rs"]
mod signatures;
#[path = "judges/snippets.rs"]
mod snippets;
#[expect(dead_code, reason = "these tests use a part of it only")]
mod support;
#[path = "judges/two_signatures.rs"]
mod two_signatures;
