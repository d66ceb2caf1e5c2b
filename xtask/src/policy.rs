//! The dependency policy: which crates, licences and sources may be part of a build.
//!
//! `deny.toml` is the one place where the policy is written, in the format of cargo-deny; this
//! module enforces it without that tool, which takes minutes to build. So that the two cannot
//! disagree in silence, a key that this module does not enforce is refused.
//!
//! What counts is what cargo would compile for some target with every feature of ours: `cargo tree`
//! tells that. `cargo metadata` and the lock file also name crates that no feature turns on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::spdx;
use crate::steps::{self, Failure};
use crate::workspace::Workspace;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What the check found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) packages: usize,
    pub(crate) violations: Vec<String>,
}

/// `deny.toml`, understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    /// Crate name to the reason it is banned.
    banned: BTreeMap<String, String>,
    /// Crate name to the features that must stay off.
    banned_features: BTreeMap<String, BTreeSet<String>>,
    licences: BTreeSet<String>,
}

/// One package of the build.
#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    features: BTreeSet<String>,
    licence: Option<String>,
    /// `None` for a package of this repository.
    source: Option<String>,
}

/// Reads `deny.toml` and holds every package of the build against it.
pub(crate) fn check(workspace: &Workspace) -> Result<Report, Failure> {
    let path = workspace.root().join("deny.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let policy = parse(&text).map_err(|reason| Failure::file(&path, reason))?;
    let packages = packages(workspace)?;
    let violations = packages
        .iter()
        .flat_map(|package| violations(&policy, package))
        .collect();
    Ok(Report {
        packages: packages.len(),
        violations,
    })
}

/// Every rule that `package` breaks, in words.
fn violations(policy: &Policy, package: &Package) -> Vec<String> {
    let id = format!("{} {}", package.name, package.version);
    let mut found = Vec::new();
    if let Some(reason) = policy.banned.get(&package.name) {
        found.push(format!(
            "{id} is banned: {reason} (who asks for it: cargo tree --target all -i {})",
            package.name
        ));
    }
    if let Some(banned) = policy.banned_features.get(&package.name) {
        for feature in package.features.intersection(banned) {
            found.push(format!("{id} is built with its banned feature `{feature}`"));
        }
    }
    match package.licence.as_deref() {
        None => found.push(format!("{id} names no licence")),
        Some(expression) => match spdx::satisfied(expression, &policy.licences) {
            Ok(true) => {}
            Ok(false) => found.push(format!(
                "{id} is under `{expression}`, which is not allowed"
            )),
            Err(reason) => found.push(format!("{id} has the licence `{expression}`: {reason}")),
        },
    }
    match package.source.as_deref() {
        None | Some(CRATES_IO) => {}
        Some(other) => found.push(format!("{id} comes from {other}, not from crates.io")),
    }
    found
}

/// Understands `deny.toml`, refusing every key whose meaning is not enforced here.
fn parse(text: &str) -> Result<Policy, String> {
    let document: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    only_keys(
        "the document",
        &document,
        &["graph", "bans", "licenses", "sources"],
    )?;
    let mut policy = Policy::default();

    let graph = table(&document, "graph")?;
    only_keys("graph", graph, &["all-features"])?;
    if graph.get("all-features") != Some(&toml::Value::Boolean(true)) {
        return Err("`all-features` must be true".into());
    }

    let bans = table(&document, "bans")?;
    only_keys("bans", bans, &["multiple-versions", "deny", "features"])?;
    require(bans, "multiple-versions", "allow")?;
    for entry in tables(bans, "deny")? {
        only_keys("bans.deny", entry, &["crate", "reason"])?;
        policy.banned.insert(
            string(entry, "crate")?.to_owned(),
            string(entry, "reason")?.to_owned(),
        );
    }
    for entry in tables(bans, "features")? {
        only_keys("bans.features", entry, &["crate", "deny", "reason"])?;
        let features = strings(entry, "deny")?.collect();
        policy
            .banned_features
            .insert(string(entry, "crate")?.to_owned(), features);
    }

    let licences = table(&document, "licenses")?;
    only_keys("licenses", licences, &["allow"])?;
    policy.licences = strings(licences, "allow")?.collect();

    let sources = table(&document, "sources")?;
    only_keys("sources", sources, &["unknown-registry", "unknown-git"])?;
    require(sources, "unknown-registry", "deny")?;
    require(sources, "unknown-git", "deny")?;
    Ok(policy)
}

fn only_keys(place: &str, table: &toml::Table, known: &[&str]) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "{place} has the key `{key}`, which xtask/src/policy.rs does not enforce; \
             teach it the key first"
        )),
    }
}

fn require(table: &toml::Table, key: &str, value: &str) -> Result<(), String> {
    if string(table, key)? == value {
        Ok(())
    } else {
        Err(format!("`{key}` must be \"{value}\""))
    }
}

fn table<'a>(parent: &'a toml::Table, key: &str) -> Result<&'a toml::Table, String> {
    parent
        .get(key)
        .and_then(toml::Value::as_table)
        .ok_or_else(|| format!("the table `{key}` is missing"))
}

fn tables<'a>(parent: &'a toml::Table, key: &str) -> Result<Vec<&'a toml::Table>, String> {
    array(parent, key)?
        .iter()
        .map(|entry| {
            entry
                .as_table()
                .ok_or_else(|| format!("`{key}` must hold tables"))
        })
        .collect()
}

fn strings<'a>(
    parent: &'a toml::Table,
    key: &str,
) -> Result<impl Iterator<Item = String> + use<'a>, String> {
    let array = array(parent, key)?;
    if array.iter().all(toml::Value::is_str) {
        Ok(array
            .iter()
            .filter_map(toml::Value::as_str)
            .map(str::to_owned))
    } else {
        Err(format!("`{key}` must hold strings"))
    }
}

fn array<'a>(parent: &'a toml::Table, key: &str) -> Result<&'a toml::value::Array, String> {
    parent
        .get(key)
        .and_then(toml::Value::as_array)
        .ok_or_else(|| format!("the list `{key}` is missing"))
}

fn string<'a>(parent: &'a toml::Table, key: &str) -> Result<&'a str, String> {
    parent
        .get(key)
        .and_then(toml::Value::as_str)
        .ok_or_else(|| format!("the text `{key}` is missing"))
}

/// What cargo would compile, with what it says about itself.
fn packages(workspace: &Workspace) -> Result<Vec<Package>, Failure> {
    let mut tree = workspace.cargo(["tree", "--workspace", "--locked", "--target", "all"]);
    tree.args([
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--no-dedupe",
    ]);
    tree.args(["--all-features", "--format", "{p}|{f}"]);
    let tree = text_of(workspace, tree)?;
    let mut metadata = workspace.cargo(["metadata", "--format-version", "1", "--locked"]);
    metadata.args(["--all-features"]);
    let metadata: Value = serde_json::from_str(&text_of(workspace, metadata)?)
        .map_err(|error| Failure::file(workspace.root(), format!("cargo metadata: {error}")))?;
    join(&compiled(&tree), &metadata).map_err(|reason| Failure::file(workspace.root(), reason))
}

fn text_of(workspace: &Workspace, mut command: Command) -> Result<String, Failure> {
    let bytes = steps::output(&mut command)?.ok_or_else(|| {
        let lock = workspace.root().join("Cargo.lock");
        Failure::file(
            &lock,
            "cargo could not resolve the workspace (see above); is it up to date?",
        )
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Name and version to features, from lines such as `hyper v1.12.0|client,http1`.
///
/// One package can be compiled twice with different features; their union counts.
fn compiled(tree: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut compiled: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let version = version.trim_start_matches('v');
        compiled
            .entry((name.to_owned(), version.to_owned()))
            .or_default()
            .extend(
                features
                    .split(',')
                    .filter(|feature| !feature.is_empty())
                    .map(str::to_owned),
            );
    }
    compiled
}

/// Adds licence and source to each compiled package; one that metadata does not know is an error.
fn join(
    compiled: &BTreeMap<(String, String), BTreeSet<String>>,
    metadata: &Value,
) -> Result<Vec<Package>, String> {
    let described = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    compiled
        .iter()
        .map(|((name, version), features)| {
            let package = described
                .iter()
                .find(|package| package["name"] == **name && package["version"] == **version)
                .ok_or_else(|| format!("cargo metadata does not know {name} {version}"))?;
            Ok(Package {
                name: name.clone(),
                version: version.clone(),
                features: features.clone(),
                licence: package["license"].as_str().map(str::to_owned),
                source: package["source"].as_str().map(str::to_owned),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
        [graph]
        all-features = true
        [bans]
        multiple-versions = "allow"
        deny = [{ crate = "openssl", reason = "rustls" }]
        features = [{ crate = "rustls", deny = ["ring"] }]
        [licenses]
        allow = ["MIT"]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    fn package(name: &str) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            features: BTreeSet::new(),
            licence: Some("MIT OR GPL-3.0".into()),
            source: Some(CRATES_IO.into()),
        }
    }

    fn found(package: &Package) -> Vec<String> {
        violations(&parse(DENY).unwrap(), package)
    }

    #[test]
    fn a_package_that_breaks_no_rule_passes() {
        assert_eq!(found(&package("hyper")), Vec::<String>::new());
        let ours = Package {
            source: None,
            ..package("hookturn")
        };
        assert_eq!(found(&ours), Vec::<String>::new());
    }

    #[test]
    fn every_rule_finds_its_offender() {
        let ring = Package {
            features: ["ring".to_owned()].into(),
            ..package("rustls")
        };
        let unlicensed = Package {
            licence: None,
            ..package("a")
        };
        let copyleft = Package {
            licence: Some("GPL-3.0".into()),
            ..package("a")
        };
        let malformed = Package {
            licence: Some("MIT AND".into()),
            ..package("a")
        };
        let git = Package {
            source: Some("git+https://example.com/a".into()),
            ..package("a")
        };
        for (offender, words) in [
            (package("openssl"), "is banned: rustls"),
            (ring, "banned feature `ring`"),
            (unlicensed, "names no licence"),
            (copyleft, "which is not allowed"),
            (malformed, "expected a licence"),
            (git, "not from crates.io"),
        ] {
            let found = found(&offender);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(words), "{found:?}");
        }
    }

    #[test]
    fn the_checked_in_policy_is_understood() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml");
        let policy = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        for name in ["openssl", "native-tls", "reqwest", "ring", "chrono"] {
            assert!(policy.banned.contains_key(name), "{name} is not banned");
        }
        assert!(policy.banned_features["rustls"].contains("ring"));
        assert!(policy.licences.contains("MIT"));
    }

    #[test]
    fn a_key_that_is_not_enforced_is_refused() {
        for (from, to) in [
            ("all-features = true", "all-features = false"),
            ("[licenses]", "[advisories]\n[licenses]"),
            ("[licenses]", "[licenses]\nexceptions = []"),
            (
                "\"deny\"\n        unknown-git",
                "\"warn\"\n        unknown-git",
            ),
            (
                "reason = \"rustls\"",
                "reason = \"rustls\", wrappers = [\"x\"]",
            ),
        ] {
            let changed = DENY.replacen(from, to, 1);
            assert_ne!(changed, DENY);
            assert!(parse(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn features_of_all_builds_of_a_package_are_united() {
        let compiled = compiled("a v1.0.0|x,y\nb v2.0.0 (proc-macro)|\n\na v1.0.0|z (*)\n");
        assert_eq!(compiled.len(), 2);
        let features = &compiled[&("a".to_owned(), "1.0.0".to_owned())];
        assert!(features.contains("x") && features.contains("y"));
    }

    #[test]
    fn a_package_without_description_is_an_error() {
        let compiled = compiled("a v1.0.0|");
        let metadata = serde_json::json!({"packages": []});
        assert!(join(&compiled, &metadata).is_err());
    }
}
