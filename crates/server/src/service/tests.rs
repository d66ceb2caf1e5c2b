//! The service on the real embedded store, use case by use case.

mod access;
mod audit;
mod audit_search;
mod configuration;
mod rotation;
mod searching;
mod traffic;
