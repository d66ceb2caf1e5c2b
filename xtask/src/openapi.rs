//! `cargo xtask openapi`: keeps the checked-in API description equal to what the server serves.

use std::path::PathBuf;

use crate::steps::{self, Failure, Outcome};
use crate::workspace::Workspace;

/// Where the description is checked in.
pub(crate) fn checked_in(workspace: &Workspace) -> PathBuf {
    workspace.root().join("docs/api/openapi.json")
}

/// Writes the description that the server prints.
pub(crate) fn write(workspace: &Workspace) -> Result<Outcome, Failure> {
    let path = checked_in(workspace);
    let Some(printed) = printed(workspace)? else {
        return Ok(Outcome::Failed(
            "`hookturn openapi` printed no JSON document; nothing was written".into(),
        ));
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| Failure::file(directory, error))?;
    }
    std::fs::write(&path, printed).map_err(|error| Failure::file(&path, error))?;
    Ok(Outcome::Passed(format!("wrote {}", path.display())))
}

/// Compares the description that the server prints with the one checked in.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome, Failure> {
    let path = checked_in(workspace);
    let kept = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let Some(printed) = printed(workspace)? else {
        return Ok(Outcome::Failed(
            "`hookturn openapi` printed no JSON document".into(),
        ));
    };
    Ok(match first_difference(&kept, &printed) {
        None => Outcome::Passed(String::new()),
        Some(line) => Outcome::Failed(format!(
            "docs/api/openapi.json differs from the server, first in line {line}; \
             run `cargo xtask openapi` and commit the result"
        )),
    })
}

/// What `hookturn openapi` prints, if it is a JSON document.
fn printed(workspace: &Workspace) -> Result<Option<String>, Failure> {
    let mut command = workspace.cargo(["run", "--quiet", "--locked", "--package", "hookturn"]);
    command.args(["--", "openapi"]);
    let Some(bytes) = steps::output(&mut command)? else {
        return Ok(None);
    };
    Ok(String::from_utf8(bytes)
        .ok()
        .filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok()))
}

/// The number of the first line that differs; line ends at the very end do not count.
fn first_difference(kept: &str, printed: &str) -> Option<usize> {
    let kept: Vec<&str> = kept.trim_end().lines().collect();
    let printed: Vec<&str> = printed.trim_end().lines().collect();
    let longest = kept.len().max(printed.len());
    (0..longest)
        .find(|&line| kept.get(line) != printed.get(line))
        .map(|line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn a_difference_is_named_by_its_line() {
        assert_eq!(first_difference("{\n}\n", "{\n}"), None);
        assert_eq!(first_difference("{\n1\n}", "{\n2\n}"), Some(2));
        assert_eq!(first_difference("{\n}", "{\n}\n{}"), Some(3));
        assert_eq!(first_difference("", "{}"), Some(1));
    }
}
