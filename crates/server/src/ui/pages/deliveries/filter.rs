//! The filters of the list, as they stand in its address.

use hookturn_core::delivery::{CodeClass, DeliveryStatus};
use hookturn_core::id::DeliveryId;
use hookturn_core::message::EventType;
use hookturn_core::store::SearchFrom;
use hookturn_core::time::Timestamp;
use serde::Deserialize;

use super::super::super::form::{Control, Field, Wrong};
use crate::service::searching::Search;

/// The address of the list, or the hidden fields of its form: texts as they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::ui) struct Filter {
    pub(super) app: String,
    pub(super) status: String,
    pub(super) class: String,
    pub(super) r#type: String,
    pub(super) endpoint: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) id: String,
    pub(super) text: String,
    pub(super) before: String,
    pub(super) after: String,
}

const STATUSES: &[(&str, &str)] = &[
    ("", "any"),
    ("pending", "pending"),
    ("delivered", "delivered"),
    ("exhausted", "exhausted"),
];
const CLASSES: &[(&str, &str)] = &[
    ("", "any"),
    ("2xx", "2xx accepted"),
    ("3xx", "3xx redirect"),
    ("4xx", "4xx refused"),
    ("5xx", "5xx failed"),
    ("other", "another code"),
    ("none", "no answer"),
];

impl Filter {
    /// The parts with their names, as they stand in an address; the page's place is not among them.
    pub(super) fn parts(&self) -> Vec<(&'static str, &str)> {
        let parts = [
            ("app", &self.app),
            ("status", &self.status),
            ("class", &self.class),
            ("type", &self.r#type),
            ("endpoint", &self.endpoint),
            ("since", &self.since),
            ("until", &self.until),
            ("id", &self.id),
            ("text", &self.text),
        ];
        let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| (name, value.as_str())).collect()
    }

    /// The filters of a form that was sent, among whatever else it holds.
    pub(super) fn of_pairs(pairs: &[(String, String)]) -> Self {
        let value = |name: &str| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map_or_else(String::new, |(_, value)| value.clone())
        };
        Self {
            app: value("app"),
            status: value("status"),
            class: value("class"),
            r#type: value("type"),
            endpoint: value("endpoint"),
            since: value("since"),
            until: value("until"),
            id: value("id"),
            text: value("text"),
            before: String::new(),
            after: String::new(),
        }
    }

    /// The list with these filters, at a place in it.
    pub(super) fn link(&self, place: Option<(&str, DeliveryId)>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.parts());
        if let Some((way, id)) = place {
            query.append_pair(way, &id.to_string());
        }
        match query.finish().as_str() {
            "" => "deliveries".to_owned(),
            query => format!("deliveries?{query}"),
        }
    }

    /// Where in the list the page is. A place that cannot be read is the beginning.
    pub(super) fn from(&self) -> SearchFrom {
        let id = |text: &str| text.parse::<DeliveryId>().ok();
        match (id(&self.before), id(&self.after)) {
            (Some(before), _) => SearchFrom::OlderThan(before),
            (None, Some(after)) => SearchFrom::NewerThan(after),
            (None, None) => SearchFrom::Newest,
        }
    }

    /// What to look for, or what was wrong.
    pub(super) fn search(&self) -> Result<Search, Wrong> {
        let mut wrong = Wrong::default();
        let mut search = Search {
            app: read("app", &self.app, "eight letters and digits", &mut wrong),
            endpoint: read("endpoint", &self.endpoint, "an id like ep_…", &mut wrong),
            since: time("since", &self.since, &mut wrong),
            until: time("until", &self.until, &mut wrong),
            text: Some(self.text.clone()).filter(|text| !text.is_empty()),
            ..Search::default()
        };
        if !self.status.is_empty() {
            let mut all = [
                DeliveryStatus::Pending,
                DeliveryStatus::Delivered,
                DeliveryStatus::Exhausted,
            ]
            .into_iter();
            search.status = all.find(|status| status.as_str() == self.status);
            if search.status.is_none() {
                wrong.note("status", "must be pending, delivered or exhausted");
            }
        }
        if !self.class.is_empty() {
            let mut all = CodeClass::ALL.into_iter();
            search.class = all.find(|class| class.as_str() == self.class);
            if search.class.is_none() {
                let words: Vec<_> = CodeClass::ALL.iter().map(|class| class.as_str()).collect();
                wrong.note("class", format!("must be one of {}", words.join(", ")));
            }
        }
        if !self.r#type.trim().is_empty() {
            match EventType::new(self.r#type.trim()) {
                Ok(event_type) => search.event_type = Some(event_type),
                Err(why) => wrong.note("type", why.to_string()),
            }
        }
        match self.id.trim() {
            "" => {}
            id if id.starts_with("msg_") => {
                search.message = read("id", id, "an id like msg_…", &mut wrong);
            }
            id => search.delivery = read("id", id, "an id like dlv_… or msg_…", &mut wrong),
        }
        if let (Some(since), Some(until)) = (search.since, search.until)
            && until <= since
        {
            wrong.note("until", "must be after the first time");
        }
        if wrong.is_empty() {
            Ok(search)
        } else {
            Err(wrong)
        }
    }

    /// The form.
    #[rustfmt::skip]
    pub(super) fn fields(&self, wrong: &Wrong) -> Vec<Field> {
        let field = |name, label, value: &str, hint, control| Field {
            name, label, value: value.to_owned(), hint, error: wrong.with(name), control,
        };
        let line = Control::Line("text");
        let time = Control::Line("datetime-local");
        vec![
            field("status", "Status", &self.status, "", Control::Choice(STATUSES)),
            field("class", "Last answer", &self.class, "", Control::Choice(CLASSES)),
            field("type", "Event type", &self.r#type, "", line),
            field("app", "App", &self.app, "Its client id.", line),
            field("endpoint", "Endpoint", &self.endpoint, "", line),
            field("since", "Made from (UTC)", &local(&self.since), "", time),
            field("until", "Made before (UTC)", &local(&self.until), "", time),
            field("id", "Id", &self.id, "Of a delivery or a message.", line),
            field("text", "Text in the payload", &self.text, "As it is written there.", line),
        ]
    }
}

fn read<T: std::str::FromStr>(
    name: &'static str,
    text: &str,
    expected: &str,
    wrong: &mut Wrong,
) -> Option<T> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let read = text.parse().ok();
    if read.is_none() {
        wrong.note(name, format!("expected {expected}"));
    }
    read
}

/// A time as a browser's field gives it (in UTC, with or without seconds), or as everything else does.
fn time(name: &'static str, text: &str, wrong: &mut Wrong) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let read = [format!("{text}Z"), format!("{text}:00Z"), text.to_owned()]
        .iter()
        .find_map(|form| form.parse().ok());
    if read.is_none() {
        wrong.note(name, "expected a time such as 2026-11-21T20:00");
    }
    read
}

/// A time as a browser's field takes it.
fn local(text: &str) -> String {
    text.trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_address_is_what_is_looked_for() {
        let filter = Filter {
            status: "exhausted".to_owned(),
            class: "5xx".to_owned(),
            since: "2026-11-21T20:00".to_owned(),
            until: "2026-11-21T20:00:01Z".to_owned(),
            text: "a&b".to_owned(),
            ..Filter::default()
        };
        let search = filter.search().unwrap();
        assert_eq!(search.status, Some(DeliveryStatus::Exhausted));
        assert_eq!(search.class, Some(CodeClass::Failed));
        assert_eq!(search.until.unwrap().since(search.since.unwrap()), 1_000);
        let link = filter.link(None);
        let (_, query) = link.split_once('?').unwrap();
        let again: Filter = serde_urlencoded::from_str(query).unwrap();
        assert_eq!(again, filter);
    }

    #[test]
    fn what_cannot_be_is_told_at_its_field() {
        let filter = Filter {
            app: "no".to_owned(),
            endpoint: "no".to_owned(),
            since: "soon".to_owned(),
            id: "msg_no".to_owned(),
            r#type: "no spaces".to_owned(),
            status: "Exhausted".to_owned(),
            class: "bogus".to_owned(),
            ..Filter::default()
        };
        let wrong = filter.search().unwrap_err();
        for field in ["app", "endpoint", "since", "id", "type", "status", "class"] {
            assert!(wrong.with(field).is_some(), "{field}");
        }
    }
}
