//! The command line as its users meet it: the binary, run with arguments and files.
//!
//! Commands that talk to a server are in `cli_server.rs`; here no server runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "cli/support.rs"]
mod support;

#[path = "cli/help.rs"]
mod help;
#[path = "cli/listening.rs"]
mod listening;
#[path = "cli/local.rs"]
mod local;
#[path = "cli/signing.rs"]
mod signing;
