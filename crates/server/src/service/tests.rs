//! The service on the real embedded store, use case by use case.

mod access;
mod audit;
mod changes;
mod configuration;
mod denials;
mod replays;
mod rotation;
mod schedules;
mod traffic;
