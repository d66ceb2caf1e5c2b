//! Messages: accepted events.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{ClientId, MessageId, WorkspaceId};
use crate::limits;
use crate::time::Timestamp;

/// One accepted event. Immutable: the payload's bytes are the ones the publisher sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id: the same on every attempt of every delivery (G2).
    pub id: MessageId,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// The app it was published to.
    pub app: ClientId,
    /// What happened, such as `verification.completed`.
    pub event_type: EventType,
    /// The publisher's own id of the event, if one was given.
    pub event_id: Option<String>,
    /// A valid JSON text that passed [`crate::payload::check`], untouched.
    pub payload: Bytes,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// What happened: 1 to 128 characters of letters, digits, `.`, `_`, `-` and `:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(Box<str>);

/// The text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event type is 1 to {} characters of letters, digits, `.`, `_`, `-` and `:`",
    limits::EVENT_TYPE_BYTES
)]
pub struct InvalidEventType;

fn is_event_text(text: &str) -> bool {
    (1..=limits::EVENT_TYPE_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'))
}

impl EventType {
    /// Checks and keeps the text.
    pub fn new(text: &str) -> Result<Self, InvalidEventType> {
        if is_event_text(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidEventType)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Which event types an endpoint wants. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct EventFilter(Vec<Box<str>>);

/// Why a list of event types was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEventFilter {
    /// An entry is neither an event type nor `prefix.*`.
    #[error(
        "entry {index}: expected an event type such as `invoice.paid`, or a prefix such as `invoice.*`"
    )]
    Entry {
        /// Position in the list, from 0.
        index: usize,
    },
    /// More entries than allowed.
    #[error("at most {} event types", limits::EVENT_TYPES_PER_ENDPOINT)]
    TooMany,
}

impl EventFilter {
    /// Whether a message of this type is wanted.
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|entry| match entry.strip_suffix('*') {
                Some(prefix) => event_type.as_str().starts_with(prefix),
                None => **entry == *event_type.as_str(),
            })
    }

    /// The entries as given.
    pub fn entries(&self) -> &[Box<str>] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for EventFilter {
    type Error = InvalidEventFilter;

    fn try_from(entries: Vec<String>) -> Result<Self, Self::Error> {
        if entries.len() > limits::EVENT_TYPES_PER_ENDPOINT {
            return Err(InvalidEventFilter::TooMany);
        }
        for (index, entry) in entries.iter().enumerate() {
            let text = entry.strip_suffix(".*").unwrap_or(entry);
            if !is_event_text(text) {
                return Err(InvalidEventFilter::Entry { index });
            }
        }
        Ok(Self(
            entries.into_iter().map(String::into_boxed_str).collect(),
        ))
    }
}

impl From<EventFilter> for Vec<String> {
    fn from(filter: EventFilter) -> Self {
        filter.0.into_iter().map(String::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(entries: &[&str]) -> EventFilter {
        entries
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    #[test]
    fn a_filter_takes_types_prefixes_or_all() {
        let paid = EventType::new("invoice.paid").unwrap();
        for (entries, wanted) in [
            (&[][..], true),
            (&["invoice.paid"][..], true),
            (&["invoice.*"][..], true),
            (&["invoice"][..], false),
            (&["inv.*"][..], false),
            (&["user.created", "invoice.paid"][..], true),
        ] {
            assert_eq!(filter(entries).wants(&paid), wanted, "{entries:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_position() {
        let entries = vec!["ok".to_owned(), "no spaces".to_owned()];
        assert_eq!(
            EventFilter::try_from(entries),
            Err(InvalidEventFilter::Entry { index: 1 })
        );
        assert!(EventType::new("").is_err());
        assert!(EventType::new("a\nb").is_err());
        assert!(EventFilter::try_from(vec!["*".to_owned()]).is_err());
    }
}
