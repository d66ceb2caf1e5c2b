//! `promtool`, which judges the alert rules: Debian has it in its package of Prometheus. That package would also
//! start a Prometheus on this machine, so it is taken apart below the target directory and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Installed, is_debian, make, works};
use crate::steps::{self, Failure};
use crate::workspace::Workspace;

const NAME: &str = "promtool";
const PACKAGE: &str = "prometheus";

/// Where it is: of the machine's own, of a run before, or of Debian's package.
pub(super) fn find(
    workspace: &Workspace,
    directory: &Path,
) -> Result<(PathBuf, Installed), Failure> {
    let asked = &["--version"];
    if works(workspace, NAME, asked) {
        return Ok((NAME.into(), Installed::Before));
    }
    let unpacked = directory.join("usr/bin").join(NAME);
    if works(workspace, &unpacked.display().to_string(), asked) {
        return Ok((unpacked, Installed::Before));
    }
    let failed = |what: &str| {
        let advice = format!("{what}; put `{NAME}` of Prometheus 2.42 or newer on the path");
        Ok((unpacked.clone(), Installed::Failed(advice)))
    };
    if !is_debian() {
        return failed("there is no promtool, and this is no Debian to take it from");
    }
    make(directory)?;
    if !(download(workspace, directory)? || update_and_download(workspace, directory)?) {
        return failed("`apt-get download prometheus` failed (see above)");
    }
    let Some(package) = package_in(directory)? else {
        return failed("`apt-get download prometheus` brought nothing");
    };
    let mut unpack = workspace.command("dpkg-deb");
    unpack.arg("-x").arg(&package).arg(directory);
    let done = steps::status(&mut unpack)?;
    fs::remove_file(&package).map_err(|error| Failure::file(&package, error))?;
    if !(done && works(workspace, &unpacked.display().to_string(), asked)) {
        return failed("the promtool of Debian's package does not work");
    }
    Ok((unpacked, Installed::Now))
}

fn download(workspace: &Workspace, directory: &Path) -> Result<bool, Failure> {
    let mut apt = workspace.command("apt-get");
    apt.args(["download", "-q", PACKAGE]);
    apt.current_dir(directory).stdin(Stdio::null());
    steps::status(&mut apt)
}

/// The lists may be older than the mirror, or not there.
fn update_and_download(workspace: &Workspace, directory: &Path) -> Result<bool, Failure> {
    let mut apt = workspace.command("apt-get");
    apt.args(["update", "-q"]).stdin(Stdio::null());
    Ok(steps::status(&mut apt)? && download(workspace, directory)?)
}

fn package_in(directory: &Path) -> Result<Option<PathBuf>, Failure> {
    let listed = fs::read_dir(directory).map_err(|error| Failure::file(directory, error))?;
    let mut paths = listed.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.find(|path| path.extension().is_some_and(|extension| extension == "deb")))
}
