//! Hookturn, the server: everything the `hookturn` binary is made of.
//!
//! ARCHITECTURE.md at the root of the repository has the map. Modules stand in layers, lowest first:
//! `telemetry`, `config` ← `store`, `outbound` ← `courier` ← `service`, `dispatch` ← `api`, `ui` ←
//! `app` ← `demo` ← `cli`; a test fails on an upward `use`.

// `println!` and its like panic when nobody reads any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod courier;
pub mod demo;
pub mod dispatch;
pub mod outbound;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod ui;
