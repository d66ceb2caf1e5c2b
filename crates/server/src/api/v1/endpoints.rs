//! Endpoints: where the deliveries of an app go, and how.

use std::collections::BTreeMap;

use axum::extract::State;
use hookturn_core::endpoint::{BodyForm, DisabledReason, Endpoint, EndpointState, Method, Preset};
use hookturn_core::id::{ClientId, EndpointId, KeyringId, MessageId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::Findings;
use hookturn_core::retry::{RetryOn, RetryPolicy};
use hookturn_core::rotation::KeyKind;
use hookturn_core::store::{Hold, Page, ReceiverState};
use hookturn_core::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::auth::{Call, Ids, Manage, Read};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Nothing, Whole, given, nullable, or_default, reset};
use super::super::page::{PageView, Query};
use super::super::problem::Problem;
use super::super::schema;
use super::super::{ApiState, TestReport};
use super::deliveries::AttemptView;
use super::keyrings::{GivenSecret, SecretWithValue};
use super::page_answer;
use super::probe::ProbeSettingsView;
use super::proving::FindingView;
use crate::service::endpoints::{
    CreatedEndpoint, Defaulted, EndpointPatch, KeyringChoice, NewEndpoint, Switch,
};
use crate::service::inspecting::Standstill;

/// An endpoint to make. What is absent is as its preset documents.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct CreateEndpoint {
    /// Where deliveries go. Only a disabled endpoint may have none.
    #[schema(format = "uri", max_length = 2048)]
    url: Option<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    description: String,
    /// The shape of a known sender; `standard` without it.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::PresetText>)]
    preset: Preset,
    /// The HTTP method.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::MethodText>)]
    method: Method,
    /// How the payload becomes the body; `form` for the preset `kore` only.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::BodyFormText>)]
    body_form: BodyForm,
    /// Which event types it wants; all of them when empty.
    #[serde(default)]
    #[schema(value_type = Vec<schema::EventFilterText>, max_items = 200)]
    events: Vec<String>,
    /// Sent with every delivery, after ours: at most 20, 8 KiB together.
    #[serde(default)]
    #[schema(value_type = schema::CustomHeaders)]
    headers: BTreeMap<String, String>,
    /// Which keyring signs: one of its own, or the workspace's shared one.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::KeyringChoiceText>)]
    keyring: KeyringWord,
    /// What kind of keys its own keyring holds.
    #[schema(value_type = Option<schema::KeyKindText>)]
    secret_type: Option<KeyKind>,
    /// A value to import as its first secret; generated without it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    secret: Option<GivenSecret>,
    /// What its first secret is called.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    secret_name: Option<String>,
    /// How it starts.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::SwitchText>)]
    state: StateWord,
    /// When a failed delivery is tried again.
    retry: Option<RetryView>,
    /// Longest time of one exchange, in milliseconds.
    #[schema(value_type = Option<u64>, minimum = 1000, maximum = 60_000)]
    timeout_millis: Option<Whole<Millis>>,
    /// Longest time to connect, in milliseconds, within the timeout.
    #[schema(value_type = Option<u64>, minimum = 1000, maximum = 60_000)]
    connect_timeout_millis: Option<Whole<Millis>>,
    /// Exchanges that may be open to it at once.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    max_in_flight: Option<Whole<u32>>,
    /// Attempts per second; not limited without it. A burst is allowed: after a second without any, so many go out
    /// at once, and further ones follow evenly.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    rate_limit_per_second: Option<Whole<u32>>,
    /// Whether deliveries keep the order of acceptance: one at a time, a failure holds the rest.
    #[serde(default)]
    ordered: bool,
    /// Whether and with what it is probed.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<ProbeSettingsView>)]
    probe: ProbeSettingsView,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum KeyringWord {
    #[default]
    Own,
    Workspace,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StateWord {
    #[default]
    Enabled,
    Paused,
    Disabled,
}

impl From<StateWord> for Switch {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Enabled => Self::Enabled,
            StateWord::Paused => Self::Paused,
            StateWord::Disabled => Self::Disabled,
        }
    }
}

impl CreateEndpoint {
    fn keyring_choice(&mut self) -> Result<KeyringChoice, Problem> {
        if self.keyring == KeyringWord::Own {
            return Ok(KeyringChoice::Own {
                kind: self.secret_type.unwrap_or_default(),
                secret: self.secret.take().map(GivenSecret::into_inner),
                secret_name: self.secret_name.take(),
            });
        }
        let own_only = [
            ("/secret", self.secret.is_some()),
            ("/secretName", self.secret_name.is_some()),
            ("/secretType", self.secret_type.is_some()),
        ];
        match own_only.into_iter().find(|(_, given)| *given) {
            Some((pointer, _)) => Err(Problem::field(
                pointer,
                "belongs to a keyring of the endpoint's own: leave it out with keyring workspace",
            )),
            None => Ok(KeyringChoice::Shared),
        }
    }
}

/// What to change of an endpoint. What is absent stays, and `null` puts a field back to its default. Preset and
/// keyring never change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
pub(in crate::api) struct PatchEndpoint {
    /// Where deliveries go. It cannot be `null`: disable the endpoint to send nothing.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false, format = "uri", max_length = 2048)]
    url: Option<String>,
    /// For people; `null` for none.
    #[serde(default, deserialize_with = "reset")]
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    description: Option<String>,
    /// The HTTP method; `null` for POST.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<schema::MethodText>)]
    method: Option<Method>,
    /// How the payload becomes the body; `null` for JSON.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<schema::BodyFormText>)]
    body_form: Option<BodyForm>,
    /// Which event types it wants, as a whole; `null` for all of them.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<Vec<schema::EventFilterText>>, max_items = 200)]
    events: Option<Vec<String>>,
    /// Sent with every delivery, as a whole; `null` for none.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<schema::CustomHeaders>)]
    headers: Option<BTreeMap<String, String>>,
    /// Whether it takes deliveries. It cannot be `null`. With `enabled` it is sent to at once, also if its receiver
    /// had asked to wait.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = schema::SwitchText, required = false)]
    state: Option<StateWord>,
    /// When a failed delivery is tried again; `null` for what the preset documents.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RetryView>)]
    retry: Option<Option<RetryView>>,
    /// Longest time of one exchange, in milliseconds; `null` for what the preset documents.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, minimum = 1000, maximum = 60_000)]
    timeout_millis: Option<Option<Whole<Millis>>>,
    /// Longest time to connect, in milliseconds; `null` for what the preset documents, within the timeout.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, minimum = 1000, maximum = 60_000)]
    connect_timeout_millis: Option<Option<Whole<Millis>>>,
    /// Exchanges that may be open to it at once; `null` for the server's setting.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    max_in_flight: Option<Option<Whole<u32>>>,
    /// Attempts per second; `null` for no limit. A burst is allowed: after a second without any, so many go out at
    /// once, and further ones follow evenly.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    rate_limit_per_second: Option<Option<Whole<u32>>>,
    /// Whether deliveries keep the order of acceptance; `null` for not. From when it is switched on, nothing that is
    /// accepted passes what waits for its retry.
    #[serde(default, deserialize_with = "reset")]
    ordered: Option<bool>,
    /// Whether and with what it is probed, as a whole; `null` for the default.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<ProbeSettingsView>)]
    probe: Option<ProbeSettingsView>,
    /// Why; kept in the audit log.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

impl PatchEndpoint {
    /// The fields that are `null` and whose default is not the same for every endpoint.
    fn defaulted(&self) -> Vec<Defaulted> {
        let all = [
            (Defaulted::Retry, matches!(self.retry, Some(None))),
            (
                Defaulted::Timeout,
                matches!(self.timeout_millis, Some(None)),
            ),
            (
                Defaulted::ConnectTimeout,
                matches!(self.connect_timeout_millis, Some(None)),
            ),
            (
                Defaulted::MaxInFlight,
                matches!(self.max_in_flight, Some(None)),
            ),
        ];
        let nulls = all.into_iter().filter(|(_, null)| *null);
        nulls.map(|(field, _)| field).collect()
    }
}

/// When a failed delivery is tried again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RetryPolicy)]
pub(in crate::api) struct RetryView {
    /// Delay before each retry, in milliseconds; as many retries as entries, each at most 3 days.
    #[schema(value_type = Vec<schema::RetryDelay>, max_items = 30)]
    delays_millis: Vec<Whole<Millis>>,
    /// Each delay is stretched by a random share of up to this many percent.
    #[serde(default)]
    #[schema(value_type = u8, maximum = 100)]
    jitter_percent: Whole<u8>,
    /// Which failures are worth a retry.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<schema::RetryOnText>)]
    retry_on: RetryOn,
}

impl From<RetryView> for RetryPolicy {
    fn from(view: RetryView) -> Self {
        Self {
            delays_millis: view.delays_millis.into_iter().map(Whole::get).collect(),
            jitter_percent: view.jitter_percent.get(),
            retry_on: view.retry_on,
        }
    }
}

impl From<&RetryPolicy> for RetryView {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            delays_millis: policy.delays_millis.iter().copied().map(Whole).collect(),
            jitter_percent: Whole(policy.jitter_percent),
            retry_on: policy.retry_on,
        }
    }
}

/// A URL of an app.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Endpoint)]
pub(in crate::api) struct EndpointView {
    /// Its id.
    #[schema(value_type = schema::EndpointIdText)]
    id: EndpointId,
    /// The app it belongs to.
    #[schema(value_type = schema::ClientIdText)]
    client_id: ClientId,
    /// Where deliveries go, as it was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// For people.
    description: String,
    /// The shape of a known sender.
    #[schema(value_type = schema::PresetText)]
    preset: Preset,
    /// The HTTP method.
    #[schema(value_type = schema::MethodText)]
    method: Method,
    /// How the payload becomes the body.
    #[schema(value_type = schema::BodyFormText)]
    body_form: BodyForm,
    /// Which event types it wants; all of them when empty.
    #[schema(value_type = Vec<schema::EventFilterText>)]
    events: Vec<String>,
    /// Sent with every delivery, after ours.
    headers: BTreeMap<String, String>,
    /// The keyring that signs.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// Whether it takes deliveries.
    #[schema(value_type = schema::EndpointStateText)]
    state: &'static str,
    /// Since when it is paused or disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    state_since: Option<Timestamp>,
    /// Why it is disabled: `byOwner`, `gone` or `failing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::DisabledReasonText>)]
    disabled_reason: Option<DisabledReason>,
    /// When a failed delivery is tried again.
    retry: RetryView,
    /// Longest time of one exchange, in milliseconds.
    #[schema(value_type = u64)]
    timeout_millis: Millis,
    /// Longest time to connect, in milliseconds.
    #[schema(value_type = u64)]
    connect_timeout_millis: Millis,
    /// Exchanges that may be open to it at once.
    max_in_flight: u32,
    /// Attempts per second, if limited; as many may go out at once after a second without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_per_second: Option<u32>,
    /// Whether deliveries keep the order of acceptance.
    ordered: bool,
    /// Whether and with what it is probed.
    probe: ProbeSettingsView,
    /// What is known of the receiver. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<ReceiverView>,
    /// Grows with every change; the ETag.
    version: u64,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = schema::TimeText)]
    updated_at: Timestamp,
}

/// What is known of the verifier behind an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Receiver)]
pub(in crate::api) struct ReceiverView {
    /// How it treats a request with several signatures; `unknown` until it was rehearsed.
    #[schema(value_type = schema::ReceiverClassText)]
    class: &'static str,
    /// The secret it is believed to hold: the last that alone was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SecretIdText>)]
    holds_secret_id: Option<SecretId>,
    /// When it last accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    accepted_at: Option<Timestamp>,
    /// Since when it accepted nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    failing_since: Option<Timestamp>,
    /// That nothing is sent for a time because it asked for that. Present while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<HeldView>,
    /// Until when nothing is sent because too many attempts failed in a row, as far as the node that answers
    /// knows. Present while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    breaker_open_until: Option<Timestamp>,
    /// What the last rehearsal found.
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsed: Option<FindingView>,
}

/// A receiver that asked to be left alone for a time. Enabling the endpoint, another URL, and a retry or recover
/// by hand end it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Held)]
pub(in crate::api) struct HeldView {
    /// Until when nothing is sent.
    #[schema(value_type = schema::TimeText)]
    until: Timestamp,
    /// What it answered with `Retry-After`.
    #[schema(value_type = u16, minimum = 429, maximum = 503, example = 429)]
    status: u16,
    /// When the exchange began in which it answered so.
    #[schema(value_type = schema::TimeText)]
    since: Timestamp,
    /// The same in a sentence, and what ends it.
    detail: String,
}

impl From<Hold> for HeldView {
    fn from(hold: Hold) -> Self {
        Self {
            until: hold.until,
            status: hold.status,
            since: hold.since,
            detail: format!(
                "held until {} because {}: enable the endpoint, or retry a delivery, to send before; the delivery that was told to wait does so until it is retried itself",
                hold.until,
                hold.because()
            ),
        }
    }
}

impl ReceiverView {
    fn new(
        receiver: &ReceiverState,
        findings: &Findings,
        is_pending: bool,
        standstill: Standstill,
    ) -> Self {
        Self {
            held: standstill.held.map(Into::into),
            breaker_open_until: standstill.breaker_open_until,
            class: findings.class().as_str(),
            holds_secret_id: receiver.view.belief.map(|belief| belief.secret),
            accepted_at: receiver.accepted_at.max(findings.tested_at),
            failing_since: receiver.failing_since,
            rehearsed: findings
                .rehearsed
                .as_ref()
                .map(|found| FindingView::new(found, is_pending)),
        }
    }
}

impl EndpointView {
    fn new(endpoint: &Endpoint) -> Self {
        let (state_since, disabled_reason) = match endpoint.state {
            EndpointState::Enabled => (None, None),
            EndpointState::Paused { since } | EndpointState::Deleted { since } => {
                (Some(since), None)
            }
            EndpointState::Disabled { since, reason } => (Some(since), Some(reason)),
        };
        Self {
            id: endpoint.id,
            client_id: endpoint.app,
            url: endpoint.url.as_ref().map(|url| url.as_str().to_owned()),
            description: endpoint.description.clone(),
            preset: endpoint.preset,
            method: endpoint.method,
            body_form: endpoint.body_form,
            events: endpoint.events.clone().into(),
            headers: endpoint.headers.clone(),
            keyring_id: endpoint.keyring,
            state: endpoint.state.as_str(),
            state_since,
            disabled_reason,
            retry: (&endpoint.retry).into(),
            timeout_millis: endpoint.timeout_millis,
            connect_timeout_millis: endpoint.connect_timeout_millis,
            max_in_flight: endpoint.max_in_flight,
            rate_limit_per_second: endpoint.rate_limit_per_second,
            ordered: endpoint.ordered,
            probe: (&endpoint.probe).into(),
            receiver: None,
            version: endpoint.version,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

/// An endpoint that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct CreatedEndpointView {
    /// It.
    #[serde(flatten)]
    endpoint: EndpointView,
    /// The first secret of its own keyring, with its value this once. Absent with the workspace's
    /// keyring.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<SecretWithValue>,
}

/// Make an endpoint. It can be signed for from the start.
#[utoipa::path(post, path = "/v1/apps/{clientId}/endpoints", tag = "Endpoints", operation_id = "createEndpoint",
    request_body = CreateEndpoint,
    responses((status = 201, description = "Made; its first secret's value is shown this once.", body = CreatedEndpointView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn create(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids(app): Ids<ClientId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let mut asked: CreateEndpoint = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let input = NewEndpoint {
        keyring: asked.keyring_choice()?,
        url: asked.url,
        description: asked.description,
        preset: asked.preset,
        method: asked.method,
        body_form: asked.body_form,
        events: asked.events,
        headers: asked.headers,
        state: asked.state.into(),
        retry: asked.retry.map(Into::into),
        timeout_millis: asked.timeout_millis.map(Whole::get),
        connect_timeout_millis: asked.connect_timeout_millis.map(Whole::get),
        max_in_flight: asked.max_in_flight.map(Whole::get),
        rate_limit_per_second: asked.rate_limit_per_second.map(Whole::get),
        ordered: asked.ordered,
        probe: asked.probe.try_into()?,
    };
    let now = api.service.now();
    let render = |made: &CreatedEndpoint| {
        let view = CreatedEndpointView {
            endpoint: EndpointView::new(&made.endpoint),
            secret: made
                .once
                .as_ref()
                .map(|once| SecretWithValue::new(once, now)),
        };
        let place = format!("/v1/apps/{app}/endpoints/{}", made.endpoint.id);
        Answer::created(place, &view).version(made.endpoint.version)
    };
    let record = |made: &CreatedEndpoint| render(made).to_bytes();
    let made = api
        .service
        .create_endpoint(&caller, app, input, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

const LIST: &str = "endpoints";

/// List an app's endpoints, newest first.
#[utoipa::path(get, path = "/v1/apps/{clientId}/endpoints", tag = "Endpoints", operation_id = "listEndpoints",
    responses((status = 200, description = "A page.", body = PageView<EndpointView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(app): Ids<ClientId>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let uri = query.finish()?;
    let listed = api.service.endpoints(&call.caller, app, page).await?;
    Ok(page_answer(listed, LIST, &uri, |endpoint| {
        (endpoint.id, EndpointView::new(&endpoint))
    }))
}

fn shown(endpoint: &Endpoint) -> Answer {
    Answer::ok(&EndpointView::new(endpoint)).version(endpoint.version)
}

/// Get an endpoint.
#[utoipa::path(get, path = "/v1/apps/{clientId}/endpoints/{endpointId}", tag = "Endpoints", operation_id = "getEndpoint",
    responses((status = 200, description = "The endpoint.", body = EndpointView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids((app, id)): Ids<(ClientId, EndpointId)>,
) -> Outcome {
    let endpoint = api.service.endpoint(&call.caller, app, id).await?;
    let receiver = api.service.receiver(&call.caller, app, id).await?;
    let findings = api.service.findings(&call.caller, id).await?;
    let keyring = api.service.keyring(&call.caller, endpoint.keyring).await?;
    let view = EndpointView {
        receiver: Some(ReceiverView::new(
            &receiver,
            &findings,
            keyring.pending().is_some(),
            api.service.standstill(&endpoint),
        )),
        ..EndpointView::new(&endpoint)
    };
    Ok(Answer::ok(&view).version(endpoint.version))
}

/// Change an endpoint, or enable, pause or disable it.
#[utoipa::path(patch, path = "/v1/apps/{clientId}/endpoints/{endpointId}", tag = "Endpoints", operation_id = "patchEndpoint",
    request_body = PatchEndpoint,
    responses((status = 200, description = "As it is now.", body = EndpointView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn patch(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids((app, id)): Ids<(ClientId, EndpointId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let asked: PatchEndpoint = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let patch = EndpointPatch {
        defaulted: asked.defaulted(),
        url: asked.url,
        description: asked.description,
        method: asked.method,
        body_form: asked.body_form,
        events: asked.events,
        headers: asked.headers,
        state: asked.state.map(Into::into),
        retry: asked.retry.flatten().map(Into::into),
        timeout_millis: asked.timeout_millis.flatten().map(Whole::get),
        connect_timeout_millis: asked.connect_timeout_millis.flatten().map(Whole::get),
        max_in_flight: asked.max_in_flight.flatten().map(Whole::get),
        rate_limit_per_second: asked
            .rate_limit_per_second
            .map(|limit| limit.map(Whole::get)),
        ordered: asked.ordered,
        probe: asked.probe.map(TryInto::try_into).transpose()?,
    };
    let endpoint = api
        .service
        .patch_endpoint(&caller, app, id, patch, call.if_match()?, None)
        .await?;
    Ok(shown(&endpoint))
}

/// Delete an endpoint and erase the secrets of its own keyring.
#[utoipa::path(delete, path = "/v1/apps/{clientId}/endpoints/{endpointId}", tag = "Endpoints", operation_id = "deleteEndpoint",
    responses((status = 204, description = "Deleted.")))]
pub(in crate::api) async fn delete(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids((app, id)): Ids<(ClientId, EndpointId)>,
) -> Outcome {
    api.service
        .delete_endpoint(&call.caller, app, id, call.if_match()?, None)
        .await?;
    Ok(Answer::no_content())
}

/// What came of a test event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct TestResult {
    /// Whether the receiver accepted it.
    accepted: bool,
    /// Whether a connection to the receiver stood, TLS included.
    connected: bool,
    /// What happened and what to do about it, in a sentence.
    summary: String,
    /// The id the receiver saw.
    #[schema(value_type = schema::MessageIdText)]
    message_id: MessageId,
    /// What was sent and answered.
    attempt: AttemptView,
}

/// Send a test event now, once, and wait for what comes of it. Needs `read` as well, because it
/// shows what the receiver answered.
#[utoipa::path(post, path = "/v1/apps/{clientId}/endpoints/{endpointId}/test", tag = "Endpoints", operation_id = "testEndpoint",
    responses((status = 200, description = "It was tried; `connected`, `accepted` and `summary` say what came of it.", body = TestResult)))]
pub(in crate::api) async fn test(
    State(api): State<ApiState>,
    call: Call<Manage>,
    Ids((app, id)): Ids<(ClientId, EndpointId)>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let _: Nothing = body.parse_or_default()?;
    let endpoint = api.service.endpoint(&call.caller, app, id).await?;
    let names = api.service.secret_names(id);
    let report = api.tests.send_test(&call.caller, endpoint).await?;
    let render = |report: &TestReport| {
        Answer::ok(&TestResult {
            accepted: report.attempt.accepted(),
            connected: report.connected,
            summary: report.summary.clone(),
            message_id: report.message,
            attempt: AttemptView::new(&report.attempt, &names),
        })
    };
    let record = |report: &TestReport| render(report).to_bytes();
    let kept = api
        .service
        .keep_answer(&call.caller, report, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, kept).await?))
}
