//! `/kore/v1/secrets`.

use axum::extract::FromRequestParts;
use axum::extract::State;
use hookturn_core::id::SecretId;
use hookturn_core::rotation::{Keyring, Rejected, SecretState, SecretStatus, SecretVersion, Stage};
use hookturn_core::time::Timestamp;
use http::request::Parts;
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use std::convert::Infallible;
use std::str::FromStr;
use utoipa::ToSchema;

use super::super::super::ApiState;
use super::super::super::auth::{Call, Ids, Read, Secrets};
use super::super::super::idempotency::{Answer, Outcome};
use super::super::super::json::AnyBody;
use super::super::super::page::Query;
use super::super::super::problem::Problem;
use super::super::super::schema;
use crate::service::ServiceError;
use crate::service::keyrings::{CreatedSecret, SharedPatch};

/// Items on one page when none is asked for, as KORE documents.
const PAGE_SIZE: u32 = 10;
/// Items on one page at most.
const PAGE_SIZE_MAX: u32 = 1_000;
/// The last page that can be asked for: what every client can count to.
const PAGE_NUMBER_MAX: u32 = 2_147_483_647;

/// A secret to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[schema(as = CreateSecret)]
pub(super) struct CreateKoreSecret {
    /// What it is called.
    #[schema(
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\u0000-\\u001f\\u007f-\\u009f\\s][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
}

/// What shall change. Without a member nothing does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[schema(as = ChangeSecret)]
pub(super) struct ChangeKoreSecret {
    /// What it shall be called.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false, max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\u0000-\\u001f\\u007f-\\u009f\\s][^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    name: Option<String>,
    /// `active` makes the pending secret the active one; the old one stops at once.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = ActiveWord, required = false)]
    status: Option<ActiveWord>,
}

/// The one status that can be asked for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActiveWord {
    /// The secret that signs.
    Active,
}

/// An absent member is `None`; `null` is not a value of it.
fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A status that is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StatusWord {
    /// It signs.
    Active,
    /// It waits to be activated.
    Pending,
}

impl StatusWord {
    /// The word for a secret that is not disabled.
    fn of(secret: &SecretVersion, now: Timestamp) -> Option<Self> {
        match secret.status(now) {
            SecretStatus::Active => Some(Self::Active),
            SecretStatus::Pending => Some(Self::Pending),
            SecretStatus::Retiring | SecretStatus::Retired | SecretStatus::Destroyed => None,
        }
    }
}

impl FromStr for StatusWord {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "active" => Ok(Self::Active),
            "pending" => Ok(Self::Pending),
            _ => Err(()),
        }
    }
}

/// A secret, never its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub(super) struct KoreSecret {
    /// Its id.
    #[schema(value_type = schema::SecretIdText)]
    id: SecretId,
    /// What it is called; empty for one that was made elsewhere without a name.
    name: String,
    /// Whether it signs or waits.
    status: StatusWord,
    /// When it was made, renamed or activated, whichever was last.
    #[schema(value_type = schema::TimeText)]
    last_modified: Timestamp,
}

impl KoreSecret {
    fn new(secret: &SecretVersion, status: StatusWord) -> Self {
        let since = match secret.state {
            SecretState::Pending => secret.created_at,
            SecretState::Active { since } | SecretState::Retiring { since, .. } => since,
            SecretState::Retired { at } | SecretState::Destroyed { at } => at,
        };
        let renamed = secret.renamed_at.unwrap_or(secret.created_at);
        Self {
            id: secret.id,
            name: secret.name.clone().unwrap_or_default(),
            status,
            last_modified: since.max(renamed),
        }
    }
}

/// A secret that was made, with its value this once.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedSecret)]
pub(super) struct CreatedKoreSecret {
    /// Its id.
    #[schema(value_type = schema::SecretIdText)]
    id: SecretId,
    /// What it is called.
    name: String,
    /// Its value, which is in no other answer: the text as it stands is the key.
    #[schema(example = "whsec_…")]
    secret: String,
    /// `active` for the first secret of the workspace, `pending` for every later one.
    status: StatusWord,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    last_modified: Timestamp,
}

/// A page of secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecretPage)]
pub(super) struct KorePage {
    /// The secrets: the active one, then the pending one.
    data: Vec<KoreSecret>,
    /// Where in the list this is.
    meta_data: MetaData,
}

/// Where in a list a page is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetaData {
    /// Items of the whole list.
    count: usize,
    /// Items on one page.
    page_size: u32,
    /// This page; the first is 1.
    page_number: u32,
    /// The page before, if there is one.
    #[schema(required, format = "uri-reference")]
    previous_page_url: Option<String>,
    /// The page after, if there is one.
    #[schema(required, format = "uri-reference")]
    next_page_url: Option<String>,
}

/// Makes a secret. The first one of the workspace is active, a later one pending: it takes the place
/// of the pending one that was, whose value is erased.
#[utoipa::path(post, path = "/kore/v1/secrets", tag = "Secrets", operation_id = "createSecret",
    request_body = CreateKoreSecret,
    responses((status = 201, description = "Made; its value is in `secret` this once.", body = CreatedKoreSecret)))]
pub(super) async fn create(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    body: AnyBody,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateKoreSecret = body.parse()?;
    let render = |made: &CreatedSecret| {
        let secret = &made.once.secret;
        // It was made a moment ago: what is not pending is the first one.
        let status = match secret.state {
            SecretState::Pending => StatusWord::Pending,
            _ => StatusWord::Active,
        };
        let KoreSecret {
            id,
            name,
            status,
            last_modified,
        } = KoreSecret::new(secret, status);
        let view = CreatedKoreSecret {
            id,
            name,
            secret: made.once.value.expose().to_owned(),
            status,
            last_modified,
        };
        Answer::json(StatusCode::CREATED, &view)
    };
    let record = |made: &CreatedSecret| render(made).to_bytes();
    let made = api
        .service
        .create_shared_secret(&call.caller, asked.name, once.record(&record))
        .await
        .map_err(as_named_here);
    Ok(render(&once.settle(&api.service, made).await?))
}

/// Lists the secrets that are not disabled.
#[utoipa::path(get, path = "/kore/v1/secrets", tag = "Secrets", operation_id = "listSecrets",
    params(
        ("status" = Option<StatusWord>, Query, description = "Only those of this status."),
        ("page_number" = Option<u32>, Query, description = "Which page; 1 without.", minimum = 1, maximum = 2_147_483_647),
        ("page_size" = Option<u32>, Query, description = "Items on one page; 10 without.", minimum = 1, maximum = 1000),
    ),
    responses((status = 200, description = "A page; one after the last is empty.", body = KorePage)))]
pub(super) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    base: BaseUrl,
    mut query: Query,
) -> Outcome {
    let status = query.take("status", "`active` or `pending`")?;
    let number = take_number(&mut query, "page_number", 1, PAGE_NUMBER_MAX)?;
    let size = take_number(&mut query, "page_size", PAGE_SIZE, PAGE_SIZE_MAX)?;
    query.finish()?;
    let keyring = api.service.shared_keyring(&call.caller).await?;
    let listed = listed(&keyring, status, api.service.now());
    let page = Page {
        base,
        status,
        number,
        size,
    };
    Ok(Answer::ok(&page.of(listed)))
}

/// Renames a secret, or activates the pending one, or both at once.
#[utoipa::path(patch, path = "/kore/v1/secrets/{secretId}", tag = "Secrets", operation_id = "changeSecret",
    request_body = ChangeKoreSecret,
    responses((status = 200, description = "The secret as it is now.", body = KoreSecret)))]
pub(super) async fn change(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<SecretId>,
    body: AnyBody,
) -> Outcome {
    let asked: ChangeKoreSecret = body.parse()?;
    let patch = SharedPatch {
        name: asked.name,
        activate: asked.status.is_some(),
    };
    let changed = api
        .service
        .change_shared_secret(&call.caller, id, patch)
        .await
        .map_err(as_named_here)?;
    // Nothing else can be changed, see the service.
    let status = match changed.secret.state {
        SecretState::Pending => StatusWord::Pending,
        _ => StatusWord::Active,
    };
    Ok(Answer::ok(&KoreSecret::new(&changed.secret, status)))
}

/// The service calls a secret's name `/name`; the body of these calls has it as `Name`. And what is in
/// the way here was opened by the native API, where most of what may be done about it is: the words are
/// those of a caller who knows create and activate only.
fn as_named_here(error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Invalid { pointer, message } if pointer == "/name" => {
            ServiceError::invalid("/Name", message)
        }
        ServiceError::Rejected(Rejected::RotationOpen {
            open,
            stage: Stage::Overlap { retire_at },
        }) => ServiceError::conflict(
            "rotation_open",
            format!(
                "nothing was made: the last rotation of this keyring was given an overlap, and the \
                 secret before the active one signs until {retire_at}. Repeat this call then, or end \
                 the overlap first: POST /v1/rotations/{open}/finish"
            ),
        ),
        ServiceError::Rejected(Rejected::RotationOpen {
            open,
            stage: Stage::Undone { retire_at, .. },
        }) => ServiceError::conflict(
            "rotation_open",
            format!(
                "nothing was made: the last rotation of this keyring was undone, and the secret it \
                 brought stays live until {retire_at}, for receivers that deployed it. Repeat this call \
                 then, or end that first: POST /v1/rotations/{open}/finish"
            ),
        ),
        ServiceError::Rejected(Rejected::NotProven { rotation }) => ServiceError::conflict(
            "not_proven",
            format!(
                "nothing was changed: this secret waits for the proof that receivers hold it, and is \
                 activated by it. POST /v1/rotations/{rotation}/promote forces it, and a secret that \
                 is created here takes its place"
            ),
        ),
        other => other,
    }
}

fn take_number(query: &mut Query, name: &str, absent: u32, most: u32) -> Result<u32, Problem> {
    let expected = format!("a whole number from 1 to {most}");
    match query.take(name, &expected)?.unwrap_or(absent) {
        number if (1..=most).contains(&number) => Ok(number),
        _ => Err(Problem::parameter(name, format!("expected {expected}"))),
    }
}

/// The active secret, then the pending one.
fn listed(keyring: &Keyring, wanted: Option<StatusWord>, now: Timestamp) -> Vec<KoreSecret> {
    [keyring.active(), keyring.pending()]
        .into_iter()
        .flatten()
        .filter_map(|secret| Some((secret, StatusWord::of(secret, now)?)))
        .filter(|(_, status)| wanted.is_none_or(|wanted| wanted == *status))
        .map(|(secret, status)| KoreSecret::new(secret, status))
        .collect()
}

/// A page that was asked for.
struct Page {
    base: BaseUrl,
    status: Option<StatusWord>,
    number: u32,
    size: u32,
}

impl Page {
    fn of(&self, listed: Vec<KoreSecret>) -> KorePage {
        let count = listed.len();
        let size = self.size as usize;
        let pages = u32::try_from(count.div_ceil(size)).unwrap_or(u32::MAX);
        let before = (self.number - 1) as usize;
        let data = listed
            .into_iter()
            .skip(before.saturating_mul(size))
            .take(size)
            .collect();
        KorePage {
            data,
            meta_data: MetaData {
                count,
                page_size: self.size,
                page_number: self.number,
                // From beyond the end the way back leads to the last page that has items.
                previous_page_url: (self.number > 1)
                    .then(|| self.url((self.number - 1).min(pages.max(1)))),
                next_page_url: (self.number < pages).then(|| self.url(self.number + 1)),
            },
        }
    }

    fn url(&self, number: u32) -> String {
        let status = match self.status {
            None => "",
            Some(StatusWord::Active) => "&status=active",
            Some(StatusWord::Pending) => "&status=pending",
        };
        format!(
            "{}{}/secrets?page_size={}&page_number={number}{status}",
            self.base.0,
            super::BASE,
            self.size
        )
    }
}

/// How the caller reached this server: scheme and authority as it named them, so that a link leads
/// back the same way. Empty, for a relative link, when that is not known. It is told to nobody else.
#[derive(Debug)]
pub(super) struct BaseUrl(String);

impl<S: Send + Sync> FromRequestParts<S> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-proto");
        let text = |name| parts.headers.get(name)?.to_str().ok();
        let authority = parts
            .uri
            .authority()
            .cloned()
            .or_else(|| text(header::HOST)?.parse().ok());
        let scheme = match text(FORWARDED) {
            Some(proto) if proto.eq_ignore_ascii_case("https") => "https",
            _ => "http",
        };
        Ok(Self(match authority {
            Some(authority) if !authority.as_str().contains('@') => {
                format!("{scheme}://{authority}")
            }
            Some(_) | None => String::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(number: u32, size: u32, count: usize) -> (Option<String>, Option<String>) {
        let secret = || KoreSecret {
            id: SecretId::from_bytes([0; 16]),
            name: String::new(),
            status: StatusWord::Active,
            last_modified: Timestamp::from_millis(0),
        };
        let page = Page {
            base: BaseUrl("https://h".to_owned()),
            status: Some(StatusWord::Pending),
            number,
            size,
        };
        let meta = page.of((0..count).map(|_| secret()).collect()).meta_data;
        (meta.previous_page_url, meta.next_page_url)
    }

    #[test]
    fn links_lead_to_pages_that_exist() {
        let at = |number: u32| {
            Some(format!(
                "https://h/kore/v1/secrets?page_size=1&page_number={number}&status=pending"
            ))
        };
        assert_eq!(meta(1, 1, 0), (None, None));
        assert_eq!(meta(1, 1, 1), (None, None));
        assert_eq!(meta(1, 1, 3), (None, at(2)));
        assert_eq!(meta(2, 1, 3), (at(1), at(3)));
        assert_eq!(meta(3, 1, 3), (at(2), None));
        assert_eq!(meta(9, 1, 3), (at(3), None));
        assert_eq!(meta(u32::MAX, 1, 0), (at(1), None));
    }
}
