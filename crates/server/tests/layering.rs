//! The server's modules form layers, and a module uses only what stands below it.
//!
//! ```text
//! telemetry, config ← store, outbound ← courier ← service, dispatch ← api, ui ← app ← demo ← cli
//! ```
//!
//! The test reads the sources: every path that begins at the crate's root, in a `use` or inline,
//! must lead to a module that [`LAYERS`] permits. Comments and text in quotes do not count. A module
//! that the table does not name fails too, so that nobody adds one without deciding where it stands.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Every top-level module, lowest first, with the modules it may use beside itself.
///
/// Modules of one layer do not know each other. `service` and `dispatch` meet only in what the
/// store says; the pages and the API reach the store only through `service`; `app` wires everything
/// and is the one module above `service` that touches the store; the command line starts `app` or
/// calls `service`.
const LAYERS: &[(&str, &[&str])] = &[
    ("telemetry", &[]),
    ("config", &[]),
    ("store", &["telemetry", "config"]),
    ("outbound", &["telemetry", "config"]),
    ("courier", &["telemetry", "config", "store", "outbound"]),
    (
        "service",
        &["telemetry", "config", "store", "outbound", "courier"],
    ),
    (
        "dispatch",
        &["telemetry", "config", "store", "outbound", "courier"],
    ),
    ("api", &["telemetry", "config", "service"]),
    ("ui", &["telemetry", "config", "service"]),
    (
        "app",
        &[
            "telemetry",
            "config",
            "store",
            "outbound",
            "courier",
            "service",
            "dispatch",
            "api",
            "ui",
        ],
    ),
    ("demo", &["telemetry", "config", "app"]),
    (
        "cli",
        &["telemetry", "config", "service", "api", "app", "demo"],
    ),
];

/// The crate's roots only declare modules and re-export; the layers begin below them.
const ROOTS: &[&str] = &["lib", "main"];

#[derive(Debug, PartialEq, Eq)]
enum Violation {
    /// `from` uses `to`, which it may not know.
    Upward {
        line: usize,
        from: String,
        to: String,
    },
    /// A module that the table does not name.
    Unplaced { line: usize, module: String },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upward { line, from, to } => write!(
                f,
                "line {line}: `{from}` must not use `crate::{to}`; move the code to a layer that \
                 may, or hand the thing in from above"
            ),
            Self::Unplaced { line, module } => write!(
                f,
                "line {line}: `{module}` has no place yet; put it in LAYERS in tests/layering.rs"
            ),
        }
    }
}

#[test]
fn no_module_uses_one_above_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&sources).unwrap();
    assert!(
        !files.is_empty(),
        "no source was found in {}",
        sources.display()
    );
    let violations: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let place = file.strip_prefix(&sources).unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            check(place, &text)
                .into_iter()
                .map(move |violation| format!("src/{}, {violation}", place.display()))
        })
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Every violation in one file, whose path is relative to `src`.
fn check(file: &Path, text: &str) -> Vec<Violation> {
    let names = module_path(file);
    let Some(from) = names.first() else {
        return Vec::new();
    };
    if names.len() == 1 && ROOTS.contains(&from.as_str()) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == from) else {
        return vec![Violation::Unplaced {
            line: 1,
            module: from.clone(),
        }];
    };
    uses(&code_only(text), names.len())
        .into_iter()
        .filter(|(_, to)| to != from && !allowed.contains(&to.as_str()))
        .map(|(line, to)| {
            if LAYERS.iter().any(|(name, _)| *name == to) {
                let from = from.clone();
                Violation::Upward { line, from, to }
            } else {
                Violation::Unplaced { line, module: to }
            }
        })
        .collect()
}

/// `service/apps.rs` is `["service", "apps"]`; `service.rs` and `service/mod.rs` are `["service"]`.
fn module_path(file: &Path) -> Vec<String> {
    file.with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .filter(|part| part != "mod")
        .collect()
}

/// The top-level modules that `code` names, with the line of each: behind `crate::`, and behind as
/// many `super::` as lead from a module `depth` below the root to the root.
fn uses(code: &str, depth: usize) -> BTreeSet<(usize, String)> {
    let above = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for root in ["crate::", above.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            // Not `other_crate::`, and not the tail of a longer chain, which leads elsewhere.
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let after = &code[at + root.len()..];
            for (offset, name) in first_names(after) {
                // `crate::Item` and `crate::function!` are the root's own, not a module's.
                let is_module = after[offset + name.len()..].trim_start().starts_with("::");
                let is_layer = LAYERS.iter().any(|(layer, _)| *layer == name);
                if is_layer || (root == "crate::" && is_module && name != "super") {
                    let line = code[..at + root.len() + offset].matches('\n').count() + 1;
                    found.insert((line, name.to_owned()));
                }
            }
        }
    }
    found
}

/// The first name of a path, or of every path in a group such as `{store, service::{a, b}}`, with
/// its offset in `text`.
fn first_names(text: &str) -> Vec<(usize, &str)> {
    if !text.trim_start().starts_with('{') {
        return name_at(text, 0).into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && character == '}' {
            break;
        }
        if depth == 1 && matches!(character, '{' | ',') {
            names.extend(name_at(text, at + 1));
        }
    }
    names
}

/// The identifier that begins at or after `start`, past white space.
fn name_at(text: &str, start: usize) -> Option<(usize, &str)> {
    let rest = &text[start..];
    let trimmed = rest.trim_start();
    let offset = start + rest.len() - trimmed.len();
    let end = trimmed
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(trimmed.len());
    (end > 0).then(|| (offset, &trimmed[..end]))
}

/// The text with comments and the insides of string literals blanked out, line by line as it was.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(end) = raw_string_end(rest) {
            end
        } else if character == '"' {
            string_end(rest)
        } else if let Some(end) = quoted_character_end(rest) {
            end
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    code
}

/// Where the raw string that begins here ends, if one begins here.
fn raw_string_end(text: &str) -> Option<usize> {
    let marks = text.strip_prefix('r')?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let body = marks[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = 1 + hashes + 1;
    Some(
        body.find(&close)
            .map_or(text.len(), |end| start + end + close.len()),
    )
}

/// Where the character literal that begins here ends, if it is one that could mislead: a quote or
/// an escape. Lifetimes begin alike and are left alone.
fn quoted_character_end(text: &str) -> Option<usize> {
    if text.starts_with("'\"'") {
        return Some(3);
    }
    let escaped = text.strip_prefix("'\\")?;
    // The escaped character may itself be a quote.
    let end = escaped.char_indices().skip(1).find(|(_, c)| *c == '\'')?.0;
    Some("'\\".len() + end + 1)
}

/// Where the string that begins here with a quote ends, past its closing quote.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn rust_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn the_table_is_ordered_so_that_no_two_modules_can_use_each_other() {
    for (place, (name, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            let below = LAYERS[..place].iter().any(|(lower, _)| lower == used);
            assert!(
                below,
                "`{name}` may use `{used}`, which does not stand before it"
            );
        }
    }
}

/// Every module that `text` uses against the rules, as a file at `place`.
fn offenders(place: &str, text: &str) -> Vec<String> {
    check(Path::new(place), text)
        .into_iter()
        .map(|violation| match violation {
            Violation::Upward { to, .. } => to,
            Violation::Unplaced { module, .. } => format!("unplaced {module}"),
        })
        .collect()
}

#[test]
fn upward_and_sideways_uses_are_found_in_every_form() {
    for (place, text, found) in [
        ("store.rs", "use crate::service::Service;", "service"),
        ("service/apps.rs", "use crate::dispatch;", "dispatch"),
        ("dispatch/worker.rs", "use crate::service;", "service"),
        ("api/v1/apps.rs", "use crate::store::Store;", "store"),
        ("ui/pages.rs", "let s = crate::store::open();", "store"),
        ("cli.rs", "use crate::store::sqlite;", "store"),
        (
            "cli/serve.rs",
            "pub(crate) use crate::dispatch::Shard;",
            "dispatch",
        ),
        (
            "config.rs",
            "use crate::{\n    config::A,\n    app::{B, C},\n};",
            "app",
        ),
        ("telemetry.rs", "use super::config;", "config"),
        ("store/sqlite.rs", "use super::super::api::page;", "api"),
        ("store/sqlite/mod.rs", "use super::super::api::page;", "api"),
        ("outbound.rs", "let a = \"//\"; crate::api::run();", "api"),
        (
            "outbound.rs",
            "let a = ['\"', '\\'', '\\u{22}']; crate::api::run(); // '\"'",
            "api",
        ),
        (
            "outbound.rs",
            "let a = r#\"\"//\"#; crate::api::run();",
            "api",
        ),
        ("service.rs", "use crate::clock::now;", "unplaced clock"),
        ("clock.rs", "", "unplaced clock"),
    ] {
        assert_eq!(offenders(place, text), [found], "{place}: {text}");
    }
}

#[test]
fn what_is_permitted_or_is_no_use_at_all_passes() {
    for (place, text) in [
        (
            "store.rs",
            "use crate::{config, telemetry::metrics, store::seal};",
        ),
        (
            "service/apps.rs",
            "use crate::store::Store;\nuse super::endpoints;",
        ),
        ("service/apps.rs", "mod tests { use super::super::access; }"),
        ("app.rs", "use crate::{api, cli_free, store, ui, dispatch};"),
        (
            "cli/serve.rs",
            "use crate::app;\nuse crate::service::Backup;",
        ),
        (
            "store.rs",
            "//! See [`crate::service`].\n/* crate::api::x */",
        ),
        (
            "store.rs",
            "let text = \"crate::api::x\";\nlet raw = r\"crate::api::x\";",
        ),
        ("store.rs", "use other_crate::api::Thing;"),
        ("store.rs", "use crate::Error;"),
        ("lib.rs", "pub mod cli;\npub use crate::cli::main;"),
        ("main.rs", "fn main() { hookturn::cli::main() }"),
    ] {
        assert_eq!(
            offenders(place, text),
            Vec::<String>::new(),
            "{place}: {text}"
        );
    }
}

#[test]
fn a_violation_names_its_line_and_what_to_do() {
    let upward = check(Path::new("store.rs"), "/* a\nb */\n\nuse crate::api::x;");
    assert!(
        upward[0]
            .to_string()
            .starts_with("line 4: `store` must not use `crate::api`")
    );
    let unplaced = check(Path::new("clock.rs"), "");
    assert!(unplaced[0].to_string().contains("put it in LAYERS"));
}
