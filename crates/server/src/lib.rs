//! Hookturn, the server.
