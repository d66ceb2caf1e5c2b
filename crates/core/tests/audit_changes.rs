//! What an audit entry says of a change, and what it never says.

use std::collections::BTreeMap;

use hookturn_core::audit::{AuditAction, AuditEntry, Changes, Subject};
use hookturn_core::endpoint::TargetUrl;
use hookturn_core::limits;

fn written(changes: Changes) -> BTreeMap<String, String> {
    let entry = AuditEntry::new(AuditAction::EndpointUpdated, Subject::default());
    changes.write(entry).detail
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn g9_a_field_is_told_with_its_old_and_its_new_value() {
    let changes = Changes::new()
        .field("description", &"a", &"b", ToString::to_string)
        .field("same", &1, &1, ToString::to_string)
        .optional("limit", Some(&5), None);
    assert_eq!(
        written(changes),
        map(&[
            ("changed", "description, limit"),
            ("description", "b"),
            ("description.was", "a"),
            ("limit", "none"),
            ("limit.was", "5"),
        ])
    );
    assert_eq!(written(Changes::new()), map(&[("changed", "nothing")]));
}

#[test]
fn g9_of_custom_headers_only_the_names_are_told() {
    let old = map(&[("x-gone", "s1"), ("x-key", "s2"), ("x-same", "s3")]);
    let new = map(&[("x-key", "s4"), ("x-new", "s5"), ("x-same", "s3")]);
    let detail = written(Changes::new().headers("headers", &old, &new));
    assert_eq!(
        detail,
        map(&[
            ("changed", "headers"),
            ("headers.added", "x-new"),
            ("headers.changed", "x-key"),
            ("headers.removed", "x-gone"),
        ])
    );
}

#[test]
fn g9_of_a_url_only_the_origin_is_told_and_which_one_it_is() {
    let url = |text| TargetUrl::new(text).unwrap();
    let old = url("https://a.example:8443/T0/credential?token=credential");
    let new = url("https://a.example:8443/T0/credential?token=another");
    let detail = written(Changes::new().url("url", Some(&old), Some(&new)));
    assert!(detail["url"].starts_with("https://a.example:8443 (sha256 "));
    assert_ne!(detail["url"], detail["url.was"]);
    assert!(!format!("{detail:?}").contains("credential"), "{detail:?}");
    let first = written(Changes::new().url("url", None, Some(&new)));
    assert_eq!(first["url.was"], "none");
}

#[test]
fn a_long_value_is_cut() {
    let long = "ä".repeat(limits::AUDIT_VALUE_CHARS + 1);
    let detail = written(Changes::new().field("name", &"", &long.as_str(), ToString::to_string));
    let shown = &detail["name"];
    assert_eq!(shown.chars().count(), limits::AUDIT_VALUE_CHARS + 1);
    assert!(shown.ends_with('…'));
}
