//! What every page has around it: the base of its links, its title, who is signed in, and where the
//! navigation stands.

use askama::Template;
use axum::response::{Html, IntoResponse as _, Response};
use hookturn_core::id::draw;
use hookturn_core::workspace::{Reach, Scope};
use http::{HeaderMap, StatusCode};

use super::UiState;
use super::assets::{ASSETS, Assets};
use super::text::visible;
use super::visitor::Visitor;

/// The parts of the dashboard that the navigation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Numbers and what needs attention.
    Overview,
    /// Apps and their endpoints.
    Apps,
    /// What became of each message.
    Deliveries,
    /// Keyrings and their secrets.
    Secrets,
    /// Moves from one secret to the next.
    Rotations,
    /// What was done, by whom.
    Audit,
    /// Who may do what.
    ApiKeys,
    /// What the workspace's owner may choose.
    Settings,
}

impl Part {
    /// Every part with its path and its word, in order.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Overview, "./", "Overview"),
        (Self::Apps, "apps", "Apps"),
        (Self::Deliveries, "deliveries", "Deliveries"),
        (Self::Secrets, "secrets", "Secrets"),
        (Self::Rotations, "rotations", "Rotations"),
        (Self::Audit, "audit", "Audit"),
        (Self::ApiKeys, "api-keys", "API keys"),
        (Self::Settings, "settings", "Settings"),
    ];

    /// The key that goes there after `g`.
    pub const fn key(self) -> char {
        match self {
            Self::Overview => 'o',
            Self::Apps => 'a',
            Self::Deliveries => 'd',
            Self::Secrets => 's',
            Self::Rotations => 'r',
            Self::Audit => 'u',
            Self::ApiKeys => 'k',
            Self::Settings => 't',
        }
    }

    fn path(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(part, ..)| *part == self)
            .map_or("", |(_, path, _)| path)
    }
}

/// The frame of a page for somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What links are relative to; ends with a slash.
    pub base: String,
    /// The page's title.
    pub title: String,
    /// Where the navigation stands.
    pub part: Part,
    /// The page's own path, for links within it: the base would lead elsewhere.
    pub here: String,
    /// The navigation: every part with its path and its word.
    pub parts: &'static [(Part, &'static str, &'static str)],
    /// The files that pages load.
    pub assets: &'static Assets,
    /// What forms repeat.
    pub form_token: String,
    /// What forms that make something hold of this page, so that they are carried out once.
    pub once: String,
    /// When the page was made, in milliseconds: what forms repeat, to tell what happened since.
    pub seen: i64,
    /// The name of the workspace that is looked at.
    pub workspace: String,
    /// The name of the API key.
    pub key: String,
    /// Whether the key is an operator's.
    pub is_operator: bool,
    /// Whether the key may change configuration.
    pub may_manage: bool,
    /// Whether the key may touch secrets.
    pub may_secrets: bool,
    /// Whether the key may publish.
    pub may_publish: bool,
}

impl Frame {
    /// The frame of a sample page, for a key that may do everything.
    pub fn sample(part: Part, title: &str) -> Self {
        Self {
            base: "/".to_owned(),
            title: title.to_owned(),
            part,
            here: part.path().to_owned(),
            parts: Part::ALL,
            assets: &ASSETS,
            form_token: "0".repeat(32),
            once: "0".repeat(32),
            seen: 0,
            workspace: "default".to_owned(),
            key: "sample".to_owned(),
            is_operator: true,
            may_manage: true,
            may_secrets: true,
            may_publish: true,
        }
    }

    /// Whether the navigation lists a part: what the key may not see is not shown.
    pub fn lists(&self, path: &str) -> bool {
        path != Part::ApiKeys.path() || self.may_manage
    }

    /// The frame of a page for a visitor.
    pub(super) fn new(
        ui: &UiState,
        visitor: &Visitor,
        part: Part,
        title: impl Into<String>,
    ) -> Self {
        let key = &visitor.caller.key;
        Self {
            base: visitor.base.clone(),
            title: visible(&title.into()),
            part,
            here: visitor.here.clone(),
            parts: Part::ALL,
            assets: &ASSETS,
            form_token: visitor.session.form_token.clone(),
            once: hex::encode(draw::<16>(ui.entropy.as_ref())),
            seen: ui.clock.now().as_millis(),
            workspace: ui.service.workspace_name(&visitor.caller),
            key: visible(&key.name),
            is_operator: matches!(key.reach, Reach::Operator),
            may_manage: visitor.may(Scope::Manage),
            may_secrets: visitor.may(Scope::Secrets),
            may_publish: visitor.may(Scope::Publish),
        }
    }
}

/// What links are relative to: `/`, or the prefix that a reverse proxy took off, if that is a plain path.
pub(super) fn base(headers: &HeaderMap) -> String {
    let prefix = headers
        .get("x-forwarded-prefix")
        .and_then(|value| value.to_str().ok())
        .map(|prefix| prefix.trim_matches('/'))
        .filter(|prefix| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
            !prefix.is_empty() && prefix.bytes().all(plain) && !prefix.contains("//")
        });
    match prefix {
        Some(prefix) => format!("/{prefix}/"),
        None => "/".to_owned(),
    }
}

/// A page as an answer.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
