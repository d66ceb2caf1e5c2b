//! The `hookturn` binary.
fn main() {}
