//! Every guarantee of docs/guarantees.md has tests that carry its number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The numbers that the page promises: its table rows begin with `| **G4** |`.
fn promised(page: &str) -> Vec<u32> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| **G")?.split_once("**")?.0.parse().ok())
        .collect()
}

/// How many test functions carry each number.
fn proved(sources: &[String]) -> BTreeMap<u32, usize> {
    let mut count = BTreeMap::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let name = line
            .trim_start()
            .trim_start_matches("pub ")
            .trim_start_matches("async ");
        let number = name
            .strip_prefix("fn g")
            .and_then(|rest| rest.split_once('_'))
            .and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            *count.entry(number).or_insert(0) += 1;
        }
    }
    count
}

fn rust_sources(directory: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_promised_guarantee_has_tests() {
    let page = std::fs::read_to_string(repository().join("docs/guarantees.md")).unwrap();
    let mut sources = Vec::new();
    rust_sources(&repository().join("crates"), &mut sources).unwrap();
    let (promised, proved) = (promised(&page), proved(&sources));
    assert_eq!(promised, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for number in promised {
        let tests = proved.get(&number).copied().unwrap_or_default();
        assert!(
            tests >= 2,
            "G{number} is promised and has {tests} tests that name it"
        );
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    let source =
        "#[test]\nfn g4_x() {}\n    async fn g10_y() {}\nfn grow_z() {}\npub async fn g4_w() {}";
    assert_eq!(
        proved(&[source.to_owned()]),
        BTreeMap::from([(4, 2), (10, 1)])
    );
}
