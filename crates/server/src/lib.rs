//! Hookturn, the server.

pub mod outbound;
