//! Every sample of every page is rendered and looked at as a browser would parse it.

use std::collections::BTreeSet;

use hookturn::ui::pages::samples;

/// Elements without an end.
const VOID: [&str; 5] = ["meta", "link", "base", "input", "br"];

/// A tag with its attributes, as they stand there.
#[derive(Debug)]
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
    closes: bool,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn opens(&self, name: &str) -> bool {
        !self.closes && self.name == name
    }
}

/// The tags of a page, in order. What stands between them is text.
fn tags(html: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(after) = after.strip_prefix('!') {
            rest = after.split_once('>').unwrap().1;
            continue;
        }
        let closes = after.starts_with('/');
        let after = after.trim_start_matches('/');
        let end = after.find([' ', '>', '\n']).unwrap();
        let (name, mut inside) = after.split_at(end);
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()),
            "a `<` of a text is not escaped: {after:.60}"
        );
        let mut attributes = Vec::new();
        loop {
            inside = inside.trim_start();
            if let Some(after) = inside.strip_prefix('>') {
                rest = after;
                break;
            }
            let end = inside.find(['=', ' ', '>', '\n']).unwrap();
            let (attribute, after) = inside.split_at(end);
            assert!(!attribute.is_empty(), "a broken attribute: {inside:.60}");
            if let Some(quoted) = after.strip_prefix("=\"") {
                let (value, after) = quoted.split_once('"').unwrap();
                attributes.push((attribute.to_owned(), value.to_owned()));
                inside = after;
            } else {
                assert!(!after.starts_with('='), "not in quotes: {inside:.60}");
                attributes.push((attribute.to_owned(), String::new()));
                inside = after;
            }
        }
        tags.push(Tag {
            name: name.to_owned(),
            attributes,
            closes,
        });
    }
    tags
}

/// A page without what stands in its fields.
pub(crate) fn without_values(html: &str) -> String {
    let without = |html: &str, start: &str, end: &str| {
        let mut parts = html.split(start);
        let mut kept = parts.next().unwrap().to_owned();
        for part in parts {
            kept.push_str(part.split_once(end).unwrap().1);
        }
        kept
    };
    let html = without(html, " value=\"", "\"");
    without(&html, "<textarea", "</textarea>")
}

fn every(check: impl Fn(&str, &str, &[Tag])) {
    let all = samples();
    assert!(all.len() > 20, "{}", all.len());
    for (name, html) in all {
        let html = html.unwrap_or_else(|error| panic!("{name} is not rendered: {error}"));
        check(name, &html, &tags(&html));
    }
}

#[test]
fn sample_names_are_unique() {
    let names: Vec<_> = samples().into_iter().map(|(name, _)| name).collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
}

#[test]
fn every_sample_is_closed_as_it_was_opened() {
    every(|name, _, tags| {
        let mut open = Vec::new();
        for tag in tags.iter().filter(|tag| !VOID.contains(&&*tag.name)) {
            if tag.closes {
                assert_eq!(open.pop(), Some(&*tag.name), "{name}: {open:?}");
            } else {
                open.push(&*tag.name);
            }
        }
        assert!(open.is_empty(), "{name}: {open:?}");
    });
}

#[test]
fn every_sample_has_one_first_heading_and_skips_no_level() {
    every(|name, _, tags| {
        let levels: Vec<u32> = tags
            .iter()
            .filter(|tag| !tag.closes)
            .filter_map(|tag| tag.name.strip_prefix('h')?.parse().ok())
            .collect();
        let firsts = levels.iter().filter(|level| **level == 1).count();
        assert_eq!(firsts, 1, "{name}: {levels:?}");
        for pair in levels.windows(2) {
            assert!(pair[1] <= pair[0] + 1, "{name}: {levels:?}");
        }
    });
}

#[test]
fn no_sample_has_anything_inline() {
    every(|name, html, tags| {
        for tag in tags {
            assert_ne!(tag.name, "style", "{name}");
            let inline = tag.opens("script") && tag.get("src").is_none();
            assert!(!inline, "{name}: {tag:?}");
            for (attribute, value) in &tag.attributes {
                let handler = attribute.starts_with("on") || attribute == "style";
                assert!(!handler, "{name}: {tag:?}");
                assert!(!value.starts_with("javascript:"), "{name}: {tag:?}");
            }
        }
        // A field holds what was typed as it is, and what it does stays within it.
        let html = without_values(html);
        let hidden = html.chars().find(|c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\0'));
        assert_eq!(hidden, None, "{name}: text that changes how others read");
    });
}

#[test]
fn every_id_is_there_once_and_every_reference_is_to_one() {
    every(|name, _, tags| {
        let ids: Vec<_> = tags.iter().filter_map(|tag| tag.get("id")).collect();
        let unique: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(unique.len(), ids.len(), "{name}: {ids:?}");
        for tag in tags {
            for attribute in ["for", "aria-labelledby", "aria-describedby", "data-copy"] {
                for id in tag.get(attribute).unwrap_or_default().split(' ') {
                    assert!(id.is_empty() || unique.contains(id), "{name}: {tag:?}");
                }
            }
        }
    });
}

#[test]
fn every_field_has_a_label_and_every_form_its_token() {
    every(|name, _, tags| {
        let labelled: BTreeSet<_> = tags
            .iter()
            .filter(|tag| tag.opens("label"))
            .filter_map(|tag| tag.get("for"))
            .collect();
        for tag in tags.iter().filter(|tag| !tag.closes) {
            let field = ["input", "select", "textarea"].contains(&&*tag.name);
            if !field || tag.get("type") == Some("hidden") {
                continue;
            }
            let id = tag.get("id").unwrap_or_default();
            assert!(labelled.contains(id), "{name}: {tag:?}");
        }
        let posts = |tag: &&Tag| tag.opens("form") && tag.get("method") == Some("post");
        let forms = tags.iter().filter(posts).count();
        let tokens = |tag: &&Tag| tag.get("name") == Some("form_token");
        let needed = if name.starts_with("sign-in") {
            0
        } else {
            forms
        };
        assert_eq!(tags.iter().filter(tokens).count(), needed, "{name}");
    });
}

#[test]
fn every_link_is_relative_so_that_a_prefix_may_stand_before_it() {
    every(|name, _, tags| {
        for tag in tags.iter().filter(|tag| tag.name != "base") {
            for attribute in ["href", "action", "src", "data-live"] {
                let value = tag.get(attribute).unwrap_or("x");
                let absolute = value.starts_with('/') || value.contains("://");
                assert!(!absolute, "{name}: {tag:?}");
                // Within a page it would lead to the base.
                assert!(!value.starts_with('#'), "{name}: {tag:?}");
            }
        }
    });
}
