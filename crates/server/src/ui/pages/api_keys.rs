//! API keys: made with scopes and an end, shown once; ended and revoked.

use std::fmt;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::id::ApiKeyId;
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, Environment, Reach, Scope, Scopes};
use http::StatusCode;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::error::UiError;
use super::super::frame::{Frame, Part, page};
use super::super::once::{self, Asked};
use super::super::problems::{Fields, Problems};
use super::super::text::{When, visible};
use super::super::visitor::{Sent, Visitor};
use super::super::{UiState, span};
use super::keyrings::{given, id};
use super::sign_in::NoFields;
use crate::service::api_keys::{ListedKey, NewApiKey, NewKey, NewReach};

/// Keys on one page.
const ROWS: usize = 50;

/// The fields of the forms.
const FIELDS: &Fields = &[
    ("/name", "name"),
    ("/scopes", "scopes"),
    ("/expiresAt", "expires"),
];

/// The list, and the form that makes one.
#[derive(Debug, Template)]
#[template(path = "api_keys.html")]
pub struct ApiKeys {
    /// Around it.
    pub frame: Frame,
    /// The keys, newest first.
    pub rows: Vec<KeyView>,
    /// Whether this is not the first page.
    pub is_later: bool,
    /// Where the next page begins.
    pub next: Option<String>,
    /// The scopes that the visitor may give.
    pub scopes: Vec<ScopeChoice>,
    /// What was typed.
    pub typed: Typed,
    /// What was wrong.
    pub problems: Problems,
}

/// A scope, and what it lets somebody do.
#[derive(Debug, Clone, Copy)]
pub struct ScopeChoice {
    /// The word.
    pub word: &'static str,
    /// What it allows.
    pub meaning: &'static str,
    /// Whether it is ticked.
    pub is_ticked: bool,
}

/// A key, never its text.
#[derive(Debug, Clone)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The last characters of its text.
    pub hint: String,
    /// What it reaches.
    pub reach: &'static str,
    /// Its scopes.
    pub scopes: String,
    /// `live`, `expired` or `revoked`.
    pub state: &'static str,
    /// When it was made.
    pub created: When,
    /// When it was last used.
    pub used: Option<When>,
    /// When it ends.
    pub expires: Option<When>,
    /// Whether it is the visitor's own.
    pub is_own: bool,
}

/// What was typed for a new key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Typed {
    /// Its name.
    pub name: String,
    /// When it ends.
    pub expires: String,
    /// `test`, `prod` or `operator`.
    pub reach: String,
    publish: Option<String>,
    manage: Option<String>,
    secrets: Option<String>,
    read: Option<String>,
}

impl Typed {
    fn ticked(&self, scope: Scope) -> bool {
        let ticked = match scope {
            Scope::Publish => &self.publish,
            Scope::Manage => &self.manage,
            Scope::Secrets => &self.secrets,
            Scope::Read => &self.read,
        };
        ticked.is_some()
    }
}

impl KeyView {
    fn new(key: &ApiKey, used: Option<Timestamp>, visitor: &Visitor, now: Timestamp) -> Self {
        let when = |at| When::new(at, now);
        let scopes: Vec<_> = key.scopes.iter().map(Scope::as_str).collect();
        Self {
            id: key.id.to_string(),
            name: visible(&key.name),
            hint: key.hint.clone(),
            reach: match key.reach {
                Reach::Operator => "operator, every workspace",
                Reach::Workspace {
                    environment: Environment::Test,
                    ..
                } => "workspace, test",
                Reach::Workspace {
                    environment: Environment::Prod,
                    ..
                } => "workspace, prod",
            },
            scopes: scopes.join(", "),
            state: match key.revoked_at {
                Some(_) => "revoked",
                None if key.is_live(now) => "live",
                None => "expired",
            },
            created: when(key.created_at),
            used: used.map(when),
            expires: key.expires_at.map(when),
            is_own: key.id == visitor.caller.key.id,
        }
    }

    /// Whether it opens anything.
    pub fn is_live(&self) -> bool {
        self.state == "live"
    }
}

fn choices(may: impl Fn(Scope) -> bool, ticked: impl Fn(Scope) -> bool) -> Vec<ScopeChoice> {
    let meaning = |scope| match scope {
        Scope::Publish => "publish messages",
        Scope::Manage => "create and change apps, endpoints, API keys and settings",
        Scope::Secrets => "create, reveal and rotate secrets",
        Scope::Read => "see everything except the value of a secret; the dashboard needs it",
    };
    let all = Scope::ALL.into_iter().filter(|scope| may(*scope));
    all.map(|scope| ScopeChoice {
        word: scope.as_str(),
        meaning: meaning(scope),
        is_ticked: ticked(scope),
    })
    .collect()
}

impl ApiKeys {
    async fn of(
        ui: &UiState,
        visitor: &Visitor,
        before: Option<ApiKeyId>,
        typed: Typed,
    ) -> Result<Self, UiError> {
        let part = Page {
            before,
            limit: ROWS,
        };
        let listed = ui.service.api_keys(&visitor.caller, part).await;
        let listed = listed.map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        let view =
            |listed: &ListedKey| KeyView::new(&listed.key, listed.last_used_at, visitor, now);
        let last = listed.items.last().map(|listed| listed.key.id.to_string());
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::ApiKeys, "API keys"),
            rows: listed.items.iter().map(view).collect(),
            is_later: before.is_some(),
            next: last.filter(|_| listed.has_more),
            scopes: choices(|scope| visitor.may(scope), |scope| typed.ticked(scope)),
            typed,
            problems: Problems::default(),
        })
    }
}

/// Where a page of the list begins.
#[derive(Debug, Default, Deserialize)]
pub(in crate::ui) struct Place {
    #[serde(default)]
    before: String,
}

pub(in crate::ui) async fn list(
    State(ui): State<UiState>,
    visitor: Visitor,
    Query(place): Query<Place>,
) -> Result<Response, UiError> {
    let before = match place.before.as_str() {
        "" => None,
        text => Some(id(text, "API key", &visitor)?),
    };
    let keys = ApiKeys::of(&ui, &visitor, before, Typed::default()).await?;
    Ok(page(StatusCode::OK, &keys))
}

/// When a key ends: a span from now on, or a time.
fn end(text: &str, now: Timestamp) -> Result<Option<Timestamp>, &'static str> {
    let Some(text) = given(text) else {
        return Ok(None);
    };
    let after = span::read(&text).map(|span| now.after(span));
    let at = after.or_else(|_| text.parse());
    at.map(Some)
        .map_err(|_| "write a span such as 90 d, or a time such as 2027-01-31T00:00:00Z")
}

pub(in crate::ui) async fn create(
    State(ui): State<UiState>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let now = ui.clock.now();
    let expires_at = match end(&fields.expires, now) {
        Ok(end) => end,
        Err(message) => {
            let mut shown = ApiKeys::of(&ui, &visitor, None, fields).await?;
            shown.problems = Problems::field("expires", message);
            return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &shown));
        }
    };
    let scopes: Scopes = Scope::ALL
        .into_iter()
        .filter(|scope| fields.ticked(*scope))
        .collect();
    let input = NewApiKey {
        name: fields.name.clone(),
        reach: match fields.reach.as_str() {
            "operator" => NewReach::Operator,
            "prod" => NewReach::Workspace(Environment::Prod),
            _ => NewReach::Workspace(Environment::Test),
        },
        scopes,
        expires_at,
    };
    let once = match once::asked(&ui, &visitor, "api-keys").await? {
        Asked::Again(kept) => return KeyText::again(&ui, &visitor, &kept).await,
        Asked::First(once) => once,
    };
    let record = |made: &NewKey| format!("{} {}", made.key.id, made.text.as_str()).into_bytes();
    let recording = once.as_ref().map(|once| once.record(&record));
    match ui
        .service
        .create_api_key(&visitor.caller, input, recording)
        .await
    {
        Ok(made) => {
            let shown = KeyText::new(&ui, &visitor, &made.key, made.text);
            Ok(page(StatusCode::CREATED, &shown))
        }
        Err(error) => {
            let (problems, status) = Problems::refused(&error, &visitor, FIELDS)?;
            let mut shown = ApiKeys::of(&ui, &visitor, None, fields).await?;
            shown.problems = problems;
            Ok(page(status, &shown))
        }
    }
}

/// The text of a key, shown once.
#[derive(Template)]
#[template(path = "api_key_text.html")]
pub struct KeyText {
    /// Around it.
    pub frame: Frame,
    /// The key.
    pub key: KeyView,
    /// Its text.
    pub text: Zeroizing<String>,
}

impl fmt::Debug for KeyText {
    /// Without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyText")
            .field("key", &self.key.id)
            .finish_non_exhaustive()
    }
}

/// One key, and what may be done to it.
#[derive(Debug, Template)]
#[template(path = "api_key.html")]
pub struct OneKey {
    /// Around it.
    pub frame: Frame,
    /// The key.
    pub key: KeyView,
    /// What was typed as another end.
    pub expires: String,
    /// What was wrong.
    pub problems: Problems,
}

impl OneKey {
    async fn of(ui: &UiState, visitor: &Visitor, id: ApiKeyId) -> Result<Self, UiError> {
        let key = ui.service.api_key(&visitor.caller, id).await;
        let listed = key.map_err(|error| UiError::service(&error, &visitor.base))?;
        let now = ui.clock.now();
        Ok(Self {
            frame: Frame::new(ui, visitor, Part::ApiKeys, &listed.key.name),
            key: KeyView::new(&listed.key, listed.last_used_at, visitor, now),
            expires: String::new(),
            problems: Problems::default(),
        })
    }
}

pub(in crate::ui) async fn show(
    State(ui): State<UiState>,
    Path(key): Path<String>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    let id = id(&key, "API key", &visitor)?;
    Ok(page(StatusCode::OK, &OneKey::of(&ui, &visitor, id).await?))
}

/// The form of another end.
#[derive(Debug, Deserialize)]
pub(in crate::ui) struct End {
    #[serde(default)]
    expires: String,
}

pub(in crate::ui) async fn expire(
    State(ui): State<UiState>,
    Path(key): Path<String>,
    sent: Sent<End>,
) -> Result<Response, UiError> {
    let Sent { visitor, fields } = sent;
    let id: ApiKeyId = id(&key, "API key", &visitor)?;
    let (problems, status) = match end(&fields.expires, ui.clock.now()) {
        Ok(Some(at)) => match ui.service.expire_api_key(&visitor.caller, id, at).await {
            Ok(_) => {
                let to = format!("{}api-keys/{id}", visitor.base);
                return Ok(Redirect::to(&to).into_response());
            }
            Err(error) => Problems::refused(&error, &visitor, FIELDS)?,
        },
        Ok(None) => (
            Problems::field("expires", "say when it shall end"),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        Err(message) => (
            Problems::field("expires", message),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    };
    let mut shown = OneKey::of(&ui, &visitor, id).await?;
    (shown.expires, shown.problems) = (fields.expires, problems);
    Ok(page(status, &shown))
}

pub(in crate::ui) async fn revoke(
    State(ui): State<UiState>,
    Path(key): Path<String>,
    sent: Sent<NoFields>,
) -> Result<Response, UiError> {
    let visitor = sent.visitor;
    let id: ApiKeyId = id(&key, "API key", &visitor)?;
    let revoked = ui.service.revoke_api_key(&visitor.caller, id, None).await;
    revoked.map_err(|error| UiError::service(&error, &visitor.base))?;
    Ok(Redirect::to(&format!("{}api-keys", visitor.base)).into_response())
}

fn sample_key(state: &'static str) -> KeyView {
    let now = Timestamp::from_millis(1_784_505_600_000);
    KeyView {
        id: "key_1".to_owned(),
        name: "<b>deploy</b>".to_owned(),
        hint: "a1b2".to_owned(),
        reach: "workspace, test",
        scopes: "publish, read".to_owned(),
        state,
        created: When::new(now.before(90_000), now),
        used: Some(When::new(now, now)),
        expires: Some(When::new(now.after(90_000_000), now)),
        is_own: state == "live",
    }
}

impl ApiKeys {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |rows: Vec<KeyView>, problems: Problems| Self {
            frame: Frame::sample(Part::ApiKeys, "API keys"),
            rows,
            is_later: false,
            next: None,
            scopes: choices(|_| true, |scope| scope == Scope::Read),
            typed: Typed::default(),
            problems,
        };
        let rows = || vec![sample_key("live"), sample_key("revoked")];
        vec![
            ("api-keys-empty", sample(Vec::new(), Problems::default())),
            ("api-keys", sample(rows(), Problems::default())),
            (
                "api-keys-error",
                sample(rows(), Problems::field("name", "must not be blank")),
            ),
        ]
    }
}

impl OneKey {
    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let sample = |state, problems| Self {
            frame: Frame::sample(Part::ApiKeys, "An API key"),
            key: sample_key(state),
            expires: String::new(),
            problems,
        };
        let wrong = Problems::field("expires", "must be in the future");
        vec![
            ("api-key", sample("live", Problems::default())),
            ("api-key-revoked", sample("revoked", Problems::default())),
            ("api-key-error", sample("live", wrong)),
        ]
    }
}

impl KeyText {
    fn new(ui: &UiState, visitor: &Visitor, key: &ApiKey, text: Zeroizing<String>) -> Self {
        Self {
            frame: Frame::new(ui, visitor, Part::ApiKeys, "The new API key"),
            key: KeyView::new(key, None, visitor, ui.clock.now()),
            text,
        }
    }

    /// The answer of a form that was carried out before: the id of the key and its text.
    async fn again(ui: &UiState, visitor: &Visitor, kept: &[u8]) -> Result<Response, UiError> {
        let kept = std::str::from_utf8(kept).ok();
        let Some((made, text)) = kept.and_then(|kept| kept.split_once(' ')) else {
            return Err(UiError::unreadable(&visitor.base));
        };
        let made = id(made, "API key", visitor)?;
        let found = ui.service.api_key(&visitor.caller, made).await;
        let found = found.map_err(|error| UiError::service(&error, &visitor.base))?;
        let text = Zeroizing::new(text.to_owned());
        let shown = Self::new(ui, visitor, &found.key, text);
        Ok(page(StatusCode::CREATED, &shown))
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let shown = Self {
            frame: Frame::sample(Part::ApiKeys, "The new API key"),
            key: sample_key("live"),
            text: Zeroizing::new("sk_workspace_test_sample".to_owned()),
        };
        vec![("api-key-text", shown)]
    }
}
