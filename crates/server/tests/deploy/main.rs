//! The files below `deploy/`: that they name only what there is, that others can read them, and that what they say
//! of the server is so.
//!
//! What reads them is what their users have: `systemd-analyze`, `promtool`, a YAML parser, and Go's own templates
//! for the chart. `cargo xtask test` installs these; without it these tests fail.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod chart;
mod examples;
mod files;
mod metrics;
mod notified;
mod settings;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with other tests of the running program"
)]
mod support;
mod unit;
