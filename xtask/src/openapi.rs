//! `cargo xtask openapi`: keeps the checked-in API descriptions equal to what the server serves.

use std::path::PathBuf;

use crate::steps::{self, Failure, Outcome};
use crate::workspace::Workspace;

/// One checked-in description, and how the server prints it.
struct Description {
    /// Below the workspace's root.
    path: &'static str,
    arguments: &'static [&'static str],
}

/// Every description: the native API, then the dialects.
const DESCRIPTIONS: &[Description] = &[
    Description {
        path: "docs/api/openapi.json",
        arguments: &["openapi"],
    },
    Description {
        path: "docs/api/hopae.openapi.json",
        arguments: &["openapi", "hopae"],
    },
    Description {
        path: "docs/api/kore.openapi.json",
        arguments: &["openapi", "kore"],
    },
];

/// Whether there is anything to compare with.
pub(crate) fn is_checked_in(workspace: &Workspace) -> bool {
    DESCRIPTIONS
        .iter()
        .any(|description| description.file(workspace).exists())
}

/// Writes the descriptions that the server prints.
pub(crate) fn write(workspace: &Workspace) -> Result<Outcome, Failure> {
    let mut written = Vec::new();
    for description in DESCRIPTIONS {
        let path = description.file(workspace);
        let Some(printed) = description.printed(workspace)? else {
            return Ok(Outcome::Failed(format!(
                "`hookturn {}` printed no JSON document; {} was not written",
                description.arguments.join(" "),
                description.path
            )));
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| Failure::file(directory, error))?;
        }
        std::fs::write(&path, printed).map_err(|error| Failure::file(&path, error))?;
        written.push(description.path);
    }
    Ok(Outcome::Passed(format!("wrote {}", written.join(", "))))
}

/// Compares the descriptions that the server prints with those checked in.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome, Failure> {
    for description in DESCRIPTIONS {
        let path = description.file(workspace);
        let kept = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
        let Some(printed) = description.printed(workspace)? else {
            return Ok(Outcome::Failed(format!(
                "`hookturn {}` printed no JSON document",
                description.arguments.join(" ")
            )));
        };
        if let Some(line) = first_difference(&kept, &printed) {
            return Ok(Outcome::Failed(format!(
                "{} differs from the server, first in line {line}; run `cargo xtask openapi` and \
                 commit the result",
                description.path
            )));
        }
    }
    Ok(Outcome::Passed(String::new()))
}

impl Description {
    fn file(&self, workspace: &Workspace) -> PathBuf {
        workspace.root().join(self.path)
    }

    /// What the server prints, if it is a JSON document.
    fn printed(&self, workspace: &Workspace) -> Result<Option<String>, Failure> {
        let mut command = workspace.cargo(["run", "--quiet", "--locked", "--package", "hookturn"]);
        command.arg("--").args(self.arguments);
        let Some(bytes) = steps::output(&mut command)? else {
            return Ok(None);
        };
        Ok(String::from_utf8(bytes)
            .ok()
            .filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok()))
    }
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
