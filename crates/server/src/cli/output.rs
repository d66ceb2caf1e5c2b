//! What commands print: tables for people, JSON for programs, and new secrets into files.
//!
//! Standard output holds the result and nothing else; hints go to standard error. `--output json`
//! prints the API's own document, byte for byte as it was sent.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use hookturn_core::text::is_hidden;
use serde_json::Value;

use super::exit::{Exit, Failure};

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's own JSON.
    Json,
}

/// A column of a list: its heading, and the member of an item it shows.
pub(super) type Column = (&'static str, &'static str);

/// Where a command prints to.
pub(super) struct Output {
    pub(super) format: Format,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    pub(super) fn of_process(format: Format) -> Self {
        Self {
            format,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Prints a line of the result, for people.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(format!("{}\n", escaped(text.as_ref(), is_hidden)).as_bytes())
    }

    /// Prints bytes of the result.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        written.map_err(|error| {
            // `| head` has seen enough: that is no failure of ours.
            let exit = match error.kind() {
                io::ErrorKind::BrokenPipe => Exit::Done,
                _ => Exit::LocalFile,
            };
            Failure::new(exit, format!("cannot write the result: {error}"))
        })
    }

    /// Prints a line for people, to standard error; whether it arrives changes nothing.
    pub(super) fn hint(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.err, "{}", escaped(text.as_ref(), is_hidden));
    }

    /// Prints a failure.
    pub(super) fn failure(&mut self, failure: &Failure) {
        if failure.exit() == Exit::Done {
            return;
        }
        match self.format {
            Format::Table => self.hint(failure.to_string()),
            Format::Json => {
                let _ = writeln!(self.err, "{}", failure.to_json());
            }
        }
    }

    /// Prints a list as a table.
    pub(super) fn list(&mut self, columns: &[Column], items: &[Value]) -> Result<(), Failure> {
        let mut table = table();
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for item in items {
            table.add_row(
                columns
                    .iter()
                    .map(|(_, member)| cell(member_of(item, member))),
            );
        }
        self.line(table.trim_fmt())
    }

    /// Prints one thing, a member a line. Nested members have dotted names.
    pub(super) fn object(&mut self, value: &Value) -> Result<(), Failure> {
        let mut table = table();
        for (name, value) in flattened(value) {
            table.add_row([name, value]);
        }
        self.line(table.trim_fmt())
    }

    /// Prints any value as JSON.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.bytes(format!("{value}\n").as_bytes())
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A member by its dotted name.
fn member_of<'v>(item: &'v Value, member: &str) -> Option<&'v Value> {
    member
        .split('.')
        .try_fold(item, |value, name| value.get(name))
}

/// A value in a cell: absent things are a dash, so that columns stay readable.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(|item| !item.is_object()) => {
            let texts: Vec<_> = items.iter().map(|item| cell(Some(item))).collect();
            texts.join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// Text that cannot move the cursor, colour the terminal or turn the direction of what stands around it: a
/// receiver may have written it.
pub(super) fn printable(text: &str) -> String {
    escaped(text, |character| {
        character.is_control() || is_hidden(character)
    })
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn flattened(value: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    rows
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                flatten(&dotted(name, member), value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&dotted(name, &(index + 1).to_string()), item, rows);
            }
        }
        other => rows.push((name.to_owned(), cell(Some(other)))),
    }
}

fn dotted(name: &str, member: &str) -> String {
    if name.is_empty() {
        printable(member)
    } else {
        format!("{name}.{}", printable(member))
    }
}

/// Writes a new file that its owner alone can read. Nothing is overwritten.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::writing(path, &error);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(refused)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(refused)
}

/// Makes sure that a value can be kept *before* the server makes it: a file that exists already is
/// found too late otherwise.
pub(super) fn check_free(path: Option<&PathBuf>) -> Result<(), Failure> {
    match path {
        Some(path) if path.symlink_metadata().is_ok() => {
            Err(Failure::writing(path, &io::ErrorKind::AlreadyExists.into()))
        }
        Some(path) => {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                Some(_) | None => Path::new("."),
            };
            match parent.metadata() {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::writing(path, &error)),
            }
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_thing_is_shown_with_dotted_names() {
        let value = json!({"id": "a", "secret": {"value": "v"}, "scopes": ["read", "manage"],
            "attempts": [{"number": 1}], "none": null});
        let rows = flattened(&value);
        let find = |name: &str| {
            rows.iter()
                .find(|row| row.0 == name)
                .map(|row| row.1.as_str())
        };
        assert_eq!(find("secret.value"), Some("v"));
        assert_eq!(find("scopes"), Some("read, manage"));
        assert_eq!(find("attempts.1.number"), Some("1"));
        assert_eq!(find("none"), Some("-"));
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        for hidden in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let code = u32::from(hidden);
            assert_eq!(
                printable(&format!("a{hidden}b")),
                format!("a\\u{{{code:x}}}b")
            );
        }
        assert_eq!(
            printable("\u{200e}\u{200f}\u{61c}"),
            "\\u{200e}\\u{200f}\\u{61c}"
        );
        assert_eq!(printable("שלום ü 語"), "שלום ü 語");
    }

    #[test]
    fn a_private_file_is_made_once_and_readable_by_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        check_free(Some(&path)).unwrap();
        write_private(&path, b"x").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(
            write_private(&path, b"y").unwrap_err().exit(),
            Exit::LocalFile
        );
        assert_eq!(check_free(Some(&path)).unwrap_err().exit(), Exit::LocalFile);
        let nowhere = directory.path().join("no/where");
        assert_eq!(
            check_free(Some(&nowhere)).unwrap_err().exit(),
            Exit::LocalFile
        );
    }
}
