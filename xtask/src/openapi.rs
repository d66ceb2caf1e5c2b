//! `cargo xtask openapi`: keeps the checked-in API descriptions equal to what the server serves.

use std::path::PathBuf;

use crate::steps::{self, Failure, Outcome};
use crate::workspace::Workspace;

/// Every description: its file in `docs/api`, and what `hookturn openapi` calls it.
const DOCUMENTS: &[(&str, &str)] = &[("openapi.json", "native"), ("kore.openapi.json", "kore")];

/// Where a description is checked in.
fn checked_in(workspace: &Workspace, file: &str) -> PathBuf {
    workspace.root().join("docs/api").join(file)
}

/// Writes the descriptions that the server prints.
pub(crate) fn write(workspace: &Workspace) -> Result<Outcome, Failure> {
    for (file, api) in DOCUMENTS {
        let path = checked_in(workspace, file);
        let Some(printed) = printed(workspace, api)? else {
            return Ok(not_printed(api));
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| Failure::file(directory, error))?;
        }
        std::fs::write(&path, printed).map_err(|error| Failure::file(&path, error))?;
    }
    Ok(Outcome::Passed("wrote docs/api".into()))
}

/// Compares the descriptions that the server prints with those checked in.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome, Failure> {
    for (file, api) in DOCUMENTS {
        let path = checked_in(workspace, file);
        let kept = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
        let Some(printed) = printed(workspace, api)? else {
            return Ok(not_printed(api));
        };
        if let Some(line) = first_difference(&kept, &printed) {
            return Ok(Outcome::Failed(format!(
                "docs/api/{file} differs from the server, first in line {line}; \
                 run `cargo xtask openapi` and commit the result"
            )));
        }
    }
    Ok(Outcome::Passed(String::new()))
}

fn not_printed(api: &str) -> Outcome {
    Outcome::Failed(format!(
        "`hookturn openapi {api}` printed no JSON document; it was not written"
    ))
}

/// What `hookturn openapi` prints, if it is a JSON document.
fn printed(workspace: &Workspace, api: &str) -> Result<Option<String>, Failure> {
    let mut command = workspace.cargo(["run", "--quiet", "--locked", "--package", "hookturn"]);
    command.args(["--", "openapi", api]);
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
