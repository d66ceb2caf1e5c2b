//! Forms: their fields with what was typed and what was wrong with it, and what somebody else changed
//! while a form was open.

use std::collections::BTreeMap;

use hookturn_core::rotation::Rejected;

use super::text::visible;
use crate::service::ServiceError;

/// One field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name, and the beginning of its id.
    pub name: &'static str,
    /// What it asks for.
    pub label: &'static str,
    /// What was typed or is so.
    pub value: String,
    /// What may be typed.
    pub hint: &'static str,
    /// What was wrong with it.
    pub error: Option<String>,
    /// How it is typed.
    pub control: Control,
}

/// How a field is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// On one line; the type of the input.
    Line(&'static str),
    /// On so many lines.
    Area(u8),
    /// One of these values, each with its words.
    Choice(&'static [(&'static str, &'static str)]),
    /// Ticked or not: `on` or nothing.
    Tick,
}

impl Field {
    /// Whether it is ticked or not.
    pub fn is_tick(&self) -> bool {
        self.control == Control::Tick
    }

    /// The type of its one line, if it has one.
    pub fn line(&self) -> Option<&'static str> {
        match self.control {
            Control::Line(kind) => Some(kind),
            Control::Area(_) | Control::Choice(_) | Control::Tick => None,
        }
    }

    /// Its lines, if it has several.
    pub fn area(&self) -> Option<u8> {
        match self.control {
            Control::Area(rows) => Some(rows),
            Control::Line(_) | Control::Choice(_) | Control::Tick => None,
        }
    }

    /// Its options, if it is one of some.
    pub fn choice(&self) -> Option<&'static [(&'static str, &'static str)]> {
        match self.control {
            Control::Choice(options) => Some(options),
            Control::Line(_) | Control::Area(_) | Control::Tick => None,
        }
    }
}

/// The fields of a long form under what they are about. Of each group, `headings` names its first field and
/// what stands above it; a group whose first field is not there goes on with the one before it.
pub(super) fn grouped<'a>(
    fields: &'a [Field],
    headings: &[(&str, &'static str)],
) -> Vec<(&'static str, &'a [Field])> {
    let mut groups = Vec::new();
    let mut end = fields.len();
    for (first, heading) in headings.iter().rev() {
        if let Some(start) = fields.iter().position(|field| field.name == *first) {
            groups.push((*heading, &fields[start..end]));
            end = start;
        }
    }
    groups.reverse();
    groups
}

/// What was wrong with each field; under an empty name, with the form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong(BTreeMap<&'static str, String>);

impl Wrong {
    /// Notes what was wrong with a field; the first word on it stands.
    pub fn note(&mut self, field: &'static str, message: impl Into<String>) {
        self.0.entry(field).or_insert_with(|| message.into());
    }

    /// What was wrong with a field.
    pub fn with(&self, field: &str) -> Option<String> {
        self.0.get(field).cloned()
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the service refused, at the field that its pointer names, or at the form.
    pub fn of(error: &ServiceError, fields: &[(&str, &'static str)]) -> Self {
        let mut wrong = Self::default();
        let (pointer, message) = match error {
            ServiceError::Invalid { pointer, message }
            | ServiceError::Missing { pointer, message } => (pointer.as_str(), message.clone()),
            ServiceError::Rejected(Rejected::OverlapTooLong) => {
                ("/overlapSeconds", error.to_string())
            }
            other => ("", other.to_string()),
        };
        let named = fields
            .iter()
            .find(|(prefix, _)| !pointer.is_empty() && pointer.starts_with(prefix));
        match named {
            Some((prefix, field)) => {
                let below = pointer[prefix.len()..].trim_start_matches('/');
                let numbered = !below.is_empty() && below.bytes().all(|b| b.is_ascii_digit());
                let place = below.replace("~1", "/").replace("~0", "~");
                wrong.note(
                    field,
                    match (below, numbered) {
                        ("", _) | (_, true) => message,
                        _ => format!("{place}: {message}"),
                    },
                );
            }
            None => wrong.note("", message),
        }
        wrong
    }
}

/// A field that somebody else changed while the form was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What it is called.
    pub label: &'static str,
    /// What it was when the form was opened.
    pub was: String,
    /// What it is now.
    pub now: String,
    /// What was typed.
    pub yours: String,
}

/// The values of fields, as a form carries them to tell later what changed.
pub fn snapshot(fields: &[Field]) -> String {
    let values: BTreeMap<_, _> = fields.iter().map(|f| (f.name, f.value.as_str())).collect();
    serde_json::to_string(&values).unwrap_or_default()
}

/// What differs between a snapshot and what is so now.
pub fn changes(snapshot: &str, now: &[Field], typed: &[Field]) -> Vec<Changed> {
    let was: BTreeMap<String, String> = serde_json::from_str(snapshot).unwrap_or_default();
    let typed_as = |name: &str| typed.iter().find(|field| field.name == name);
    now.iter()
        .filter_map(|field| {
            let before = was.get(field.name)?;
            (*before != field.value).then(|| Changed {
                label: field.label,
                was: visible(before),
                now: visible(&field.value),
                yours: typed_as(field.name).map_or_else(String::new, |f| visible(&f.value)),
            })
        })
        .collect()
}

/// The lines of `name: value` that were typed, or which line is none.
pub fn pairs(text: &str, between: char) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    let lines = text.lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) = line
            .split_once(between)
            .ok_or_else(|| format!("line {}: expected name{between} value", number + 1))?;
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        if pairs.insert(name, value).is_some() {
            return Err(format!("line {}: the name is there twice", number + 1));
        }
    }
    Ok(pairs)
}

/// The inverse of [`pairs`].
pub fn lines(pairs: &BTreeMap<String, String>, between: &str) -> String {
    let lines: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}{between}{value}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &str) -> Field {
        Field {
            name,
            label: name,
            value: value.to_owned(),
            hint: "",
            error: None,
            control: Control::Line("text"),
        }
    }

    #[test]
    fn a_refusal_is_told_at_the_field_it_is_about() {
        let fields = [("/headers", "headers"), ("/events", "events")];
        for (pointer, field, told) in [
            ("/headers/x-a~1b", "headers", "x-a/b: no"),
            ("/events/2", "events", "no"),
            ("/else", "", "no"),
            ("", "", "no"),
        ] {
            let wrong = Wrong::of(&ServiceError::invalid(pointer, "no"), &fields);
            assert_eq!(wrong.with(field).as_deref(), Some(told), "{pointer}");
        }
    }

    #[test]
    fn every_field_stands_once_under_what_it_is_about() {
        let fields = ["name", "days", "zone", "paused"].map(|name| field(name, ""));
        let headings = [
            ("name", ""),
            ("kind", "Which"),
            ("days", "When"),
            ("paused", ""),
        ];
        let names = |(heading, fields): &(&'static str, &[Field])| {
            (*heading, fields.iter().map(|field| field.name).collect())
        };
        let groups: Vec<(_, Vec<_>)> = grouped(&fields, &headings).iter().map(names).collect();
        let expected = [
            ("", vec!["name"]),
            ("When", vec!["days", "zone"]),
            ("", vec!["paused"]),
        ];
        assert_eq!(groups, expected);
    }

    #[test]
    fn only_what_somebody_else_changed_is_told() {
        let opened = snapshot(&[field("a", "1"), field("b", "1"), field("c", "1")]);
        let now = [field("a", "1"), field("b", "2"), field("c", "1")];
        let typed = [field("a", "9"), field("b", "3"), field("c", "1")];
        let told = changes(&opened, &now, &typed);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].label, told[0].was.as_str()), ("b", "1"));
        assert_eq!((told[0].now.as_str(), told[0].yours.as_str()), ("2", "3"));
    }

    #[test]
    fn pairs_are_read_line_by_line() {
        let read = pairs("a: 1\r\n\n b : x: y \n", ':').unwrap();
        assert_eq!(lines(&read, ": "), "a: 1\nb: x: y");
        assert!(pairs("a", ':').is_err());
        assert!(pairs("a:1\na:2", ':').is_err());
    }
}
