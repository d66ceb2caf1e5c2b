//! The `hookturn` binary.

use std::process::ExitCode;

/// Short-lived allocations of many sizes on few threads: mimalloc costs less than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: with two providers in one binary, rustls takes none by itself.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return hookturn::cli::exit::Exit::ServeFailed.into();
    }
    hookturn::cli::run()
}
