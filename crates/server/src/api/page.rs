//! Query parameters and pages of lists.
//!
//! A list answers `{data, hasMore, nextCursor}`. A cursor is opaque: it names the list it belongs
//! to and the last item that was shown, so that it stays valid while items come and go.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookturn_core::limits;
use hookturn_core::time::Timestamp;
use http::Uri;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;

/// What a time in a query looks like.
const A_TIME: &str = "an RFC 3339 date and time such as 2026-11-21T20:00:00Z";

/// The query of a request. Every parameter is taken by name; what is left is refused.
#[derive(Debug)]
pub(super) struct Query {
    uri: Uri,
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(text.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Ok(Self {
            uri: parts.uri.clone(),
            pairs,
        })
    }
}

impl Query {
    /// Takes a parameter; `expected` says what its value looks like.
    pub(super) fn take<T: FromStr>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(place) = self.pairs.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, value) = self.pairs.remove(place);
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Problem::parameter(name, format!("expected {expected}"))),
        }
    }

    /// Takes `since` and `until`. A span that ends before it begins is a mistake and no empty list.
    pub(super) fn take_span(&mut self) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let since: Option<Timestamp> = self.take("since", A_TIME)?;
        let until: Option<Timestamp> = self.take("until", A_TIME)?;
        match (since, until) {
            (Some(since), Some(until)) if until < since => Err(Problem::parameter(
                "until",
                "expected a time that is not before since",
            )),
            span => Ok(span),
        }
    }

    /// Takes `limit`.
    pub(super) fn take_limit(&mut self) -> Result<usize, Problem> {
        let limit = self.take("limit", "a whole number from 1 to 200")?;
        match limit.unwrap_or(limits::PAGE_DEFAULT) {
            limit if (1..=limits::PAGE_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::parameter(
                "limit",
                format!("expected a whole number from 1 to {}", limits::PAGE_MAX),
            )),
        }
    }

    /// Takes `cursor`, which must come from the same list; an empty one is the beginning.
    pub(super) fn take_cursor<T: FromStr>(&mut self, list: &str) -> Result<Option<T>, Problem> {
        let text = self.take::<String>("cursor", "a text")?;
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let foreign = || {
            Problem::parameter(
                "cursor",
                "expected the nextCursor of an earlier page of this list",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(&text).map_err(|_| foreign())?;
        let plain = String::from_utf8(bytes).map_err(|_| foreign())?;
        let place = plain
            .strip_prefix(list)
            .and_then(|rest| rest.strip_prefix('|'))
            .ok_or_else(foreign)?;
        place.parse().map(Some).map_err(|_| foreign())
    }

    /// Refuses what was not taken. Returns where the list is, for the link to its next page.
    pub(super) fn finish(self) -> Result<ListUri, Problem> {
        match self.pairs.first() {
            None => Ok(ListUri(self.uri)),
            // A value that is not asked for is not repeated.
            Some((name, _)) => Err(Problem::parameter(
                name,
                "unknown or repeated query parameter",
            )),
        }
    }
}

/// Where a list was read.
#[derive(Debug)]
pub(super) struct ListUri(Uri);

impl ListUri {
    /// The value of `Link` that leads to the page after `cursor`.
    pub(super) fn next_link(&self, cursor: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let old = self.0.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(old.as_bytes()) {
            if name != "cursor" {
                query.append_pair(&name, &value);
            }
        }
        query.append_pair("cursor", cursor);
        format!("<{}?{}>; rel=\"next\"", self.0.path(), query.finish())
    }
}

/// The opaque text that continues `list` after `place`.
pub(super) fn cursor(list: &str, place: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}|{place}"))
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageView<T> {
    /// The items, in the order of the list.
    #[schema(max_items = 200)]
    pub(super) data: Vec<T>,
    /// Whether there are more.
    pub(super) has_more: bool,
    /// Give it as `cursor` to get the next page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(uri: &str) -> Query {
        let uri: Uri = uri.parse().unwrap();
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        Query { uri, pairs }
    }

    #[test]
    fn a_cursor_belongs_to_its_list() {
        let text = cursor("apps", 42);
        let at = |list| query(&format!("/v1/apps?cursor={text}")).take_cursor::<u64>(list);
        assert_eq!(at("apps").unwrap(), Some(42));
        assert!(at("audit").is_err());
        assert!(
            query("/v1/apps?cursor=!")
                .take_cursor::<u64>("apps")
                .is_err()
        );
    }

    #[test]
    fn limits_are_one_to_two_hundred() {
        for (text, wanted) in [
            ("", Some(50)),
            ("limit=1", Some(1)),
            ("limit=200", Some(200)),
            ("limit=0", None),
            ("limit=201", None),
            ("limit=-1", None),
            ("limit=", None),
            ("limit=99999999999999999999999", None),
        ] {
            assert_eq!(
                query(&format!("/?{text}")).take_limit().ok(),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert!(query("/?stat=open").finish().is_err());
        let mut twice = query("/?limit=1&limit=2");
        twice.take_limit().unwrap();
        assert!(twice.finish().is_err());
    }

    #[test]
    fn the_next_link_keeps_the_filters() {
        let uri = ListUri("/v1/x?status=pending&cursor=old".parse().unwrap());
        assert_eq!(
            uri.next_link("new"),
            "</v1/x?status=pending&cursor=new>; rel=\"next\""
        );
    }
}
