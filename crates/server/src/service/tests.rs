//! The service on the real embedded store, use case by use case.

mod access;
mod audit;
mod bulk;
mod changes;
mod configuration;
mod denials;
mod leaks;
mod replays;
mod rotation;
mod schedules;
mod sweeping;
mod traffic;
