//! Tests of the public API: vectors, the rules one by one, properties, redaction.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod properties;
mod redaction;
mod request;
mod signing;
mod vectors;
mod verifying;
