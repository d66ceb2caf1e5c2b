//! `/v1/rotations/{rotationId}/released`: whether receivers still accept a rotation's old secret.

use axum::extract::State;
use hookturn_core::id::{EndpointId, RotationId};
use hookturn_core::limits;
use hookturn_core::proof::Release;
use hookturn_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Why};
use super::super::schema;
use crate::service::released::ReleaseReport;

/// What a receiver answered to the old secret alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReleaseAnswer)]
pub(in crate::api) struct ReleaseView {
    /// The endpoint.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// What the latest answer says.
    #[schema(value_type = schema::ReleaseText)]
    release: &'static str,
    /// The same in a sentence.
    words: String,
    /// When the request was sent that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    at: Option<Timestamp>,
    /// Status of the answer to the request of this command, if that is what says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 999)]
    status: Option<u16>,
    /// Why it was not asked, or why its answer to this command says nothing, while an earlier one may.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl ReleaseView {
    /// What is known of an endpoint, without a request of now.
    pub(super) fn known(endpoint_id: EndpointId, release: Release) -> Self {
        let (words, at) = match release {
            Release::NotAsked => (
                "nobody asked whether it refuses the old secret".to_owned(),
                None,
            ),
            Release::Released { refusals, at } => (
                format!(
                    "it refused the old secret, {refusals} of the last {refusals} times: released"
                ),
                Some(at),
            ),
            Release::StillAccepts { at } => {
                ("it still accepts the old secret".to_owned(), Some(at))
            }
            Release::NoAnswer { at } => (
                "it did not answer in a way that says anything about the old secret".to_owned(),
                Some(at),
            ),
        };
        Self {
            endpoint_id,
            release: release.as_str(),
            words,
            at,
            status: None,
            failure: None,
        }
    }
}

/// What the receivers of a rotation answered to its old secret alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReleaseReport)]
pub(in crate::api) struct ReleaseReportView {
    /// The rotation.
    #[schema(value_type = schema::RotationIdText)]
    rotation_id: RotationId,
    /// The answers in a sentence.
    words: String,
    /// How many refused the old secret at last.
    released: usize,
    /// How many accepted it at last.
    still_accept: usize,
    /// Each endpoint of the keyring; at most 200, those that were asked longest ago first.
    endpoints: Vec<ReleaseView>,
}

impl ReleaseReportView {
    fn new(report: &ReleaseReport) -> Self {
        let (released, still_accept) = report.tally();
        let total = report.endpoints.len();
        let words = if still_accept == 0 {
            format!("released by {released} of {total}")
        } else {
            format!("released by {released} of {total}; {still_accept} still accept the old secret")
        };
        let endpoints = report.endpoints.iter().map(|answer| ReleaseView {
            status: answer.status,
            failure: answer.failure.clone(),
            ..ReleaseView::known(answer.endpoint, answer.release)
        });
        Self {
            rotation_id: report.rotation,
            words,
            released,
            still_accept,
            endpoints: endpoints.collect(),
        }
    }
}

/// Ask the receivers of a rotation whether they still accept its old secret.
///
/// Sends each endpoint one inert request of type `hookturn.probe` that the old secret alone signs: the only
/// way to see from outside that it is dropped. An old secret that is retired signs nothing, this included: 409. The command is in the
/// audit log before anything is signed.
#[utoipa::path(post, path = "/v1/rotations/{rotationId}/released", tag = "Rotations", operation_id = "askReleased",
    request_body = Option<Why>,
    responses((status = 200, description = "What they answered.", body = ReleaseReportView)))]
pub(in crate::api) async fn ask(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<RotationId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let why: Why = body.parse_or_default()?;
    let caller = call.because(why.reason.as_deref())?;
    let render = |report: &ReleaseReport| Answer::ok(&ReleaseReportView::new(report));
    let record = |report: &ReleaseReport| render(report).to_bytes();
    let report = api
        .service
        .ask_released(
            &caller,
            id,
            call.if_match()?,
            api.prober.as_ref(),
            once.record(&record),
        )
        .await;
    Ok(render(&once.settle(&api.service, report).await?))
}
