//! What a change of settings did, as details of its audit entry.
//!
//! `changed` names every field that is different, in the words of the API, or says `nothing`. A field
//! whose value harms nobody has two more details: `field` is its value now and `field.was` the one
//! before, `none` where there is none. Values are cut after [`limits::AUDIT_VALUE_CHARS`].
//!
//! What may hold a credential is never written down, for an entry stays forever:
//!
//! 1. Of custom headers only the names: `headers.added`, `headers.removed`, `headers.changed`.
//! 2. Of a URL only its origin, and the first 8 hex digits of the SHA-256 of its text: the path and the
//!    query of a webhook often are its credential. The digits tell one URL from another.

use std::collections::BTreeMap;
use std::fmt::Display;

use sha2::{Digest, Sha256};

use super::AuditEntry;
use crate::endpoint::TargetUrl;
use crate::limits;

/// The differences between a thing before and after a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    fields: Vec<&'static str>,
    details: Vec<(String, String)>,
}

impl Changes {
    /// No field has been compared yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares a field whose value harms nobody.
    pub fn field<T: PartialEq>(
        self,
        name: &'static str,
        old: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) -> Self {
        if old == new {
            return self;
        }
        self.told(name, &show(old), &show(new))
    }

    /// Compares a field that may be absent.
    pub fn optional<T: PartialEq + Display>(
        self,
        name: &'static str,
        old: Option<&T>,
        new: Option<&T>,
    ) -> Self {
        self.field(name, &old, &new, |value| {
            value.map_or_else(|| "none".to_owned(), ToString::to_string)
        })
    }

    /// Compares URLs; see the module text.
    pub fn url(self, name: &'static str, old: Option<&TargetUrl>, new: Option<&TargetUrl>) -> Self {
        self.field(name, &old, &new, |url| {
            url.map_or_else(|| "none".to_owned(), origin_of)
        })
    }

    /// Compares custom headers; see the module text.
    pub fn headers(
        mut self,
        name: &'static str,
        old: &BTreeMap<String, String>,
        new: &BTreeMap<String, String>,
    ) -> Self {
        if old == new {
            return self;
        }
        let names = |wanted: &dyn Fn(&str) -> bool, of: &BTreeMap<String, String>| {
            let names: Vec<_> = of.keys().filter(|name| wanted(name)).cloned().collect();
            names.join(", ")
        };
        let kinds = [
            ("added", names(&|name| !old.contains_key(name), new)),
            ("removed", names(&|name| !new.contains_key(name), old)),
            (
                "changed",
                names(
                    &|name| old.contains_key(name) && old.get(name) != new.get(name),
                    new,
                ),
            ),
        ];
        self.fields.push(name);
        for (kind, names) in kinds {
            if !names.is_empty() {
                self.details.push((format!("{name}.{kind}"), cut(&names)));
            }
        }
        self
    }

    /// The entry with what was found.
    pub fn write(self, entry: AuditEntry) -> AuditEntry {
        let changed = if self.fields.is_empty() {
            "nothing".to_owned()
        } else {
            self.fields.join(", ")
        };
        let details = self.details.iter();
        details.fold(entry.with("changed", changed), |entry, (name, value)| {
            entry.with(name, value)
        })
    }

    fn told(mut self, name: &'static str, old: &str, new: &str) -> Self {
        self.fields.push(name);
        self.details.push((name.to_owned(), cut(new)));
        self.details.push((format!("{name}.was"), cut(old)));
        self
    }
}

fn origin_of(url: &TargetUrl) -> String {
    let digest = Sha256::digest(url.as_str().as_bytes());
    let origin = url.url().origin().ascii_serialization();
    format!("{origin} (sha256 {})", hex::encode(&digest[..4]))
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(limits::AUDIT_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
