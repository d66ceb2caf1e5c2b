//! The `hookturn` binary.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    #[allow(clippy::disallowed_methods)]
    let env = std::env::vars().collect();
    let mut flags = hookturn::config::Flags::default();
    let mut args = std::env::args().skip(2);
    while let Some(name) = args.next() {
        let value = args.next();
        match name.as_str() {
            "--data-dir" => flags.data_dir = value.map(Into::into),
            "--listen" => flags.listen = value,
            _ => return ExitCode::from(2),
        }
    }
    let config = hookturn::config::load(flags, &env).unwrap();
    match hookturn::app::serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", hookturn::app::explain(&error));
            ExitCode::FAILURE
        }
    }
}
