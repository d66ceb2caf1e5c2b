//! G10: a receiver cannot hurt the sender. Each test is one receiver that tries.

#![expect(
    clippy::unwrap_used,
    reason = "a test's receivers and helpers fail the test as its body does"
)]

#[path = "outbound_hostile/addresses.rs"]
mod addresses;
#[path = "outbound_hostile/answers.rs"]
mod answers;
#[path = "outbound_hostile/connections.rs"]
mod connections;
#[path = "outbound_hostile/support.rs"]
mod support;
#[path = "outbound_hostile/tls.rs"]
mod tls;
