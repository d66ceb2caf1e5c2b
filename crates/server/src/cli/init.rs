//! `hookturn init`: a commented configuration file and a data directory. Nothing is overwritten.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, check_free, write_private};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "hookturn.toml")]
    config: PathBuf,
    /// The directory of database and master key; made if it is missing.
    #[arg(long, value_name = "DIR", default_value = "hookturn-data")]
    data_dir: PathBuf,
}

pub(super) fn run(asked: &Init, output: &mut Output) -> Outcome {
    check_free(Some(&asked.config))?;
    make_directory(&asked.data_dir)?;
    write_private(&asked.config, sample(&asked.data_dir)?.as_bytes())?;
    output.line(format!("wrote {}", asked.config.display()))?;
    output.line(format!("data directory {}", asked.data_dir.display()))?;
    let flag = if asked.config == Path::new("hookturn.toml") {
        String::new()
    } else {
        format!(" --config {}", asked.config.display())
    };
    output.hint(format!(
        "next: `hookturn doctor{flag}` looks whether all is well, `hookturn serve{flag}` starts the server"
    ));
    Ok(Exit::Done)
}

/// The sample configuration with this data directory.
fn sample(data_dir: &Path) -> Result<String, Failure> {
    let text = data_dir
        .to_str()
        .ok_or_else(|| Failure::usage("the name of the data directory is not UTF-8"))?;
    let line = format!("data_dir = {}", toml::Value::from(text));
    let with_directory = |known: &str| {
        if known.starts_with("data_dir = ") {
            format!("{line}\n")
        } else {
            format!("{known}\n")
        }
    };
    Ok(config::sample().lines().map(with_directory).collect())
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| {
        Failure::new(
            Exit::DataDirectory,
            format!(
                "cannot make the data directory {}: {error}; nothing was written",
                path.display()
            ),
        )
        .next("choose another --data-dir, or make it as a user who may")
    })
}
