//! The service on the real embedded store, use case by use case.

mod access;
mod audit;
mod audit_search;
mod bulk;
mod changes;
mod configuration;
mod counted;
mod denials;
mod extending;
mod leaks;
mod metered;
mod notices;
mod probing;
mod replays;
mod rotation;
mod schedules;
mod searching;
mod sweeping;
mod traffic;
