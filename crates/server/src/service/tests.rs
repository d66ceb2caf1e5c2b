//! The service on the real embedded store, use case by use case.

mod access;
mod audit;
mod bulk;
mod configuration;
mod leaks;
mod rotation;
mod sweeping;
mod traffic;
