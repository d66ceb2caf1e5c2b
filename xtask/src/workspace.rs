//! Where things are, and how a child process is started from here.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::Failure;

/// The repository's root and its target directory, both absolute.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the repository from the manifest that `cargo run` names, not from the path compiled
    /// in: two checkouts may share one target directory.
    pub(crate) fn locate() -> Result<Self, Failure> {
        let manifest = environment("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .ok_or_else(|| Failure::file(&manifest, "has no directory above it"))?
            .to_path_buf();
        let target =
            environment("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = std::path::absolute(&target).map_err(|error| Failure::file(&target, error))?;
        Ok(Self { root, target })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A command in the repository's root, started as a shell would start it.
    ///
    /// The variables that `cargo run` sets about *this* package are taken away again: build scripts
    /// that watch them would otherwise rebuild whenever a build comes from here and then from a
    /// shell.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            if belongs_to_this_package(&name) {
                command.env_remove(name);
            }
        }
        command
    }

    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command("cargo");
        command.args(arguments);
        command
    }

    /// Whether `cargo NAME` is installed.
    pub(crate) fn has_cargo_tool(&self, name: &str) -> bool {
        self.cargo([name, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn belongs_to_this_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || name == "CARGO_BIN_NAME"
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_PRIMARY_PACKAGE"
}

#[expect(
    clippy::disallowed_methods,
    reason = "xtask is its own edge and has no configuration to read the environment in"
)]
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_variables_about_this_package_are_removed() {
        for removed in [
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
        ] {
            assert!(belongs_to_this_package(OsStr::new(removed)), "{removed}");
        }
        for kept in [
            "CARGO_TARGET_DIR",
            "CARGO_HOME",
            "CARGO_INCREMENTAL",
            "PATH",
        ] {
            assert!(!belongs_to_this_package(OsStr::new(kept)), "{kept}");
        }
    }
}
