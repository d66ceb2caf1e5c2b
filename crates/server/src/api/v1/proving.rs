//! `/v1/endpoints/{endpointId}/rehearse`, and what a rotation shows of its proof.

use axum::extract::State;
use hookturn_core::id::{EndpointId, RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::proof::{
    OnDeadline, ProbeAnswer, ProbeKeys, ProofPolicy, Rehearsed, Release, required_passes,
    ruled_out_percent,
};
use hookturn_core::rotation::{Mode, Promotion, PromotionGrounds, Rotation};
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Read, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Why, whole, wholes};
use super::super::schema;
use super::released::ReleaseView;
use super::rotations::RotationView;
use crate::service::proving::{EndpointStanding, ProbePurpose, RehearsalReport, SeenProbe};

/// How much proof is enough, and when the old secret goes. Times are in milliseconds, at most 30 days.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = ProofPolicy)]
pub(in crate::api) struct ProofPolicyView {
    /// How sure to be, in percent. With `stalePercent` it decides how many passes are needed: 59 by default.
    #[schema(minimum = 50, maximum = 99)]
    #[serde(deserialize_with = "whole")]
    confidence_percent: u8,
    /// The share of a fleet that may not go unnoticed without the new secret, in percent.
    #[schema(minimum = 1, maximum = 50)]
    #[serde(deserialize_with = "whole")]
    stale_percent: u8,
    /// Passes further apart than this are not of one run, and a run whose last pass is older proves nothing.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    window_millis: u64,
    /// How long nothing may be refused after the last pass that was needed.
    #[schema(minimum = 0, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    hold_down_millis: u64,
    /// Time between two probes of one endpoint while they are answered.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    probe_every_millis: u64,
    /// The longest time between two probes; each one that is refused or not answered doubles it.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    probe_back_off_max_millis: u64,
    /// Probes of one endpoint in any hour.
    #[schema(value_type = u64, minimum = 1, maximum = 4_294_967_295_u64)]
    #[serde(deserialize_with = "whole")]
    probes_per_hour: u32,
    /// How near in time a refused request with a random key must be to the passes.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    control_every_millis: u64,
    /// Three shares of real deliveries that are signed with the new secret first, in percent, smallest first.
    #[schema(value_type = Vec<u8>, min_items = 3, max_items = 3)]
    #[serde(deserialize_with = "wholes")]
    canary_percent: [u8; 3],
    /// Passes after which the next share is taken.
    #[schema(value_type = u64, maximum = 4_294_967_295_u64)]
    #[serde(deserialize_with = "whole")]
    canary_passes: u32,
    /// Whether the rotation promotes itself when it is proved.
    promote_by_itself: bool,
    /// How long the old secret must not have been needed before it is retired early. It begins when the new secret alone
    /// was accepted, and is over when it is accepted once more after it.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    quiet_millis: u64,
    /// When the old secret retires at the latest, counted from the opening.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    deadline_millis: u64,
    /// What happens at the deadline while the old secret is still needed: the deadline moves, or not.
    #[schema(value_type = schema::OnDeadlineText)]
    on_deadline: OnDeadline,
    /// By how much the deadline moves, when half of it is left.
    #[schema(minimum = 1000, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    extend_millis: u64,
    /// For a shared keyring: endpoints that accepted nothing for this long need not be proved. Counted
    /// from what is noted once a day, so for up to a day more.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    look_back_millis: u64,
    /// How long a rotation may make no progress towards its proof before an operational event says that it stalled.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    stalled_after_millis: u64,
    /// How long before the deadline an operational event says that it is near; at most a quarter of the time to it.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    #[serde(deserialize_with = "whole")]
    deadline_near_millis: u64,
}

/// The same fields on both sides: one list, so that neither forgets one.
macro_rules! same_fields {
    ($($field:ident),+ $(,)?) => {
        impl From<ProofPolicyView> for ProofPolicy {
            fn from(view: ProofPolicyView) -> Self {
                Self { $($field: view.$field),+ }
            }
        }

        impl From<ProofPolicy> for ProofPolicyView {
            fn from(policy: ProofPolicy) -> Self {
                Self { $($field: policy.$field),+ }
            }
        }
    };
}

same_fields!(
    confidence_percent,
    stale_percent,
    window_millis,
    hold_down_millis,
    probe_every_millis,
    probe_back_off_max_millis,
    probes_per_hour,
    control_every_millis,
    canary_percent,
    canary_passes,
    promote_by_itself,
    quiet_millis,
    deadline_millis,
    on_deadline,
    extend_millis,
    look_back_millis,
    stalled_after_millis,
    deadline_near_millis,
);

impl Default for ProofPolicyView {
    fn default() -> Self {
        ProofPolicy::default().into()
    }
}

/// How the new secret of a rotation became active.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Promotion)]
pub(in crate::api) struct PromotionView {
    /// When.
    #[schema(value_type = schema::TimeText)]
    at: Timestamp,
    /// On what grounds: `asked` where the mode asks for none.
    #[schema(value_type = schema::GroundsText)]
    grounds: &'static str,
    /// What was proved about each endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proved: Vec<ProvedView>,
}

/// What was proved about one endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProvedEndpoint)]
struct ProvedView {
    /// The endpoint.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// Requests in a row that were signed with the new secret alone and accepted.
    passes: u32,
}

impl PromotionView {
    pub(super) fn new(promotion: &Promotion) -> Self {
        let (grounds, proved) = match &promotion.grounds {
            PromotionGrounds::Asked => ("asked", [].as_slice()),
            PromotionGrounds::Proof { endpoints } => ("proof", endpoints.as_slice()),
            PromotionGrounds::Force => ("force", [].as_slice()),
        };
        let proved = proved.iter().map(|proved| ProvedView {
            endpoint_id: proved.endpoint,
            passes: proved.passes,
        });
        Self {
            at: promotion.at,
            grounds,
            proved: proved.collect(),
        }
    }
}

/// A rotation, its policy, and where each of its endpoints stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ShownRotation {
    /// It.
    #[serde(flatten)]
    rotation: RotationView,
    /// For mode `proven`.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<ProofPolicyView>,
    /// What is known of each endpoint that counts, as of now.
    endpoints: Vec<EvidenceView>,
}

/// What is known of one endpoint and the new secret of a rotation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Evidence)]
struct EvidenceView {
    /// The endpoint.
    #[schema(value_type = schema::EndpointIdText)]
    endpoint_id: EndpointId,
    /// Where it stands on the way to proof.
    #[schema(value_type = schema::StandingText)]
    standing: &'static str,
    /// Why it cannot be asked at the moment; absent while it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::UnaskedText>)]
    unasked: Option<&'static str>,
    /// The same in a sentence.
    words: String,
    /// Requests in a row that were signed with the new secret alone and accepted.
    passes: u32,
    /// How many of them are needed.
    needed: u32,
    /// The smallest stale share of a fleet, in percent, that the passes rule out with the policy's confidence.
    rules_out_percent: u8,
    /// The last three in words: `59 of 59, rules out 5 % stale at 95 %`; with more than are needed
    /// `90 of 90 (59 needed), …`.
    coverage: String,
    /// Requests in a row that were signed with a random key and refused; of several between which the new secret was
    /// not accepted one counts.
    controls: u32,
    /// How many of them are needed: more once one was accepted.
    controls_needed: u32,
    /// Passes of probes in all.
    probe_passes: u32,
    /// Passes of real deliveries in all: canaries, and fallbacks to the new secret.
    delivery_passes: u32,
    /// Deliveries of the time before the promotion that were signed with the new secret first.
    canaries: u32,
    /// Deliveries that were refused and sent once more at once, signed with the other secret.
    fallbacks: u32,
    /// When the latest of those was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    last_fallback_at: Option<Timestamp>,
    /// Requests signed with the new secret alone that were refused.
    refusals: u32,
    /// When the run of passes began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    first_pass_at: Option<Timestamp>,
    /// When the last pass was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    last_pass_at: Option<Timestamp>,
    /// When the last refusal was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    last_refusal_at: Option<Timestamp>,
    /// Deliveries of the overlap that the old secret alone got accepted.
    old_needed: u32,
    /// When the old secret was last needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    old_needed_at: Option<Timestamp>,
    /// The share of deliveries that is signed with the new secret first, in percent.
    canary_percent: u8,
    /// Whether it still accepts the old secret, once it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<ReleaseView>,
    /// What the last rehearsal found.
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsed: Option<FindingView>,
}

impl ShownRotation {
    pub(super) fn new(
        view: RotationView,
        rotation: &Rotation,
        standings: &[EndpointStanding],
    ) -> Self {
        let policy = match rotation.mode {
            Mode::Proven { policy } => Some(policy),
            Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => None,
        };
        let counted = policy.unwrap_or_default();
        Self {
            rotation: view,
            policy: policy.map(Into::into),
            endpoints: standings
                .iter()
                .map(|standing| EvidenceView::new(standing, &counted))
                .collect(),
        }
    }
}

impl EvidenceView {
    fn new(known: &EndpointStanding, policy: &ProofPolicy) -> Self {
        let evidence = &known.evidence;
        let (controls, controls_needed) = evidence.controls(policy);
        Self {
            endpoint_id: known.endpoint.id,
            standing: known.standing.as_str(),
            unasked: known.unasked,
            words: known.words(policy),
            passes: evidence.run,
            needed: required_passes(policy, evidence.broken),
            rules_out_percent: ruled_out_percent(policy, evidence.run),
            coverage: coverage(evidence.run, evidence.broken, policy),
            controls,
            controls_needed,
            probe_passes: evidence.probe_passes,
            delivery_passes: evidence.delivery_passes,
            canaries: evidence.canaries,
            fallbacks: evidence.fallbacks,
            last_fallback_at: evidence.fallback_at,
            refusals: evidence.refusals,
            first_pass_at: evidence.run_since,
            last_pass_at: evidence.passed_at,
            last_refusal_at: evidence.refused_at,
            old_needed: evidence.old_needed,
            old_needed_at: evidence.old_needed_at,
            canary_percent: evidence.canary_percent(policy),
            released: match evidence.released.verdict() {
                Release::NotAsked => None,
                told => Some(ReleaseView::known(known.endpoint.id, told)),
            },
            rehearsed: known
                .rehearsed
                .as_ref()
                .map(|found| FindingView::new(found, known.is_staged)),
        }
    }
}

/// What passes in a row say of a fleet, in words.
fn coverage(passes: u32, broken: u32, policy: &ProofPolicy) -> String {
    let needed = required_passes(policy, broken);
    let counted = if passes > needed {
        format!("{passes} of {passes} ({needed} needed)")
    } else {
        format!("{passes} of {needed}")
    };
    match ruled_out_percent(policy, passes) {
        100 => format!("{counted}, rules out nothing yet"),
        share => format!(
            "{counted}, rules out {share} % stale at {} %",
            policy.confidence_percent
        ),
    }
}

/// What a rehearsal found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Finding)]
pub(super) struct FindingView {
    /// How the receiver treats several signatures.
    #[schema(value_type = schema::ReceiverClassText)]
    class: &'static str,
    /// What was found, in a sentence.
    words: String,
    /// What it means for a rotation, in a sentence.
    consequence: &'static str,
    /// When.
    #[schema(value_type = schema::TimeText)]
    at: Timestamp,
}

impl FindingView {
    /// `is_pending`: whether a new secret of the keyring waits to be activated.
    pub(super) fn new(rehearsed: &Rehearsed, is_pending: bool) -> Self {
        Self {
            class: rehearsed.class().as_str(),
            words: rehearsed.words(),
            consequence: rehearsed.consequence(is_pending),
            at: rehearsed.at,
        }
    }
}

/// A rehearsal, question by question.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Rehearsal {
    /// What was found.
    #[serde(flatten)]
    finding: FindingView,
    /// The probes, in order.
    probes: Vec<ProbeView>,
}

/// One probe of a rehearsal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Probe)]
struct ProbeView {
    /// The keys that signed it, in order: `current` is the active secret, `random` a key nobody holds.
    #[schema(value_type = Vec<schema::ProbeKeyText>)]
    signed_with: &'static [&'static str],
    /// When it was sent.
    #[schema(value_type = schema::TimeText)]
    sent_at: Timestamp,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 999)]
    status: Option<u16>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

const fn keys_of(keys: ProbeKeys) -> &'static [&'static str] {
    match keys {
        ProbeKeys::Current => &["current"],
        ProbeKeys::CurrentRandom => &["current", "random"],
        ProbeKeys::RandomCurrent => &["random", "current"],
        ProbeKeys::Random => &["random"],
    }
}

/// A probe that was sent to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SentProbe)]
struct SentProbeView {
    /// What it was for: `rehearsal` or `rotation`.
    #[schema(value_type = schema::ProbePurposeText)]
    purpose: &'static str,
    /// The rotation it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RotationIdText>)]
    rotation_id: Option<RotationId>,
    /// The secrets that signed it, in order; `random` stands for a key nobody holds.
    signed_with: Vec<String>,
    /// When it was sent.
    #[schema(value_type = schema::TimeText)]
    sent_at: Timestamp,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 999)]
    status: Option<u16>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// What the answer says about the signature; `threw` is a 500, which repetition explains.
    #[schema(value_type = schema::ProbeAnswerText)]
    answer: ProbeAnswer,
}

/// The last probes of an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SentProbes {
    /// Newest first, at most 32, since the server started.
    data: Vec<SentProbeView>,
}

impl SentProbeView {
    fn new(seen: SeenProbe) -> Self {
        let (purpose, rotation_id) = match seen.purpose {
            ProbePurpose::Rehearsal => ("rehearsal", None),
            ProbePurpose::Rotation(rotation) => ("rotation", Some(rotation)),
        };
        let name = |key: Option<SecretId>| key.map_or("random".to_owned(), |id| id.to_string());
        Self {
            purpose,
            rotation_id,
            signed_with: seen.signed_with.into_iter().map(name).collect(),
            sent_at: seen.probed.sent_at,
            status: seen.probed.status,
            failure: seen.probed.failure,
            answer: seen.answer,
        }
    }
}

/// List the last probes of an endpoint: the inert requests that asked its receiver about secrets.
#[utoipa::path(get, path = "/v1/endpoints/{endpointId}/probes", tag = "Rotations", operation_id = "listProbes",
    responses((status = 200, description = "The probes, newest first.", body = SentProbes)))]
pub(in crate::api) async fn probes(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<EndpointId>,
) -> Outcome {
    let seen = api.service.probes(&call.caller, id).await?;
    Ok(Answer::ok(&SentProbes {
        data: seen.into_iter().map(SentProbeView::new).collect(),
    }))
}

impl Rehearsal {
    fn new(report: &RehearsalReport) -> Self {
        let probes = report.asked.iter().map(|(keys, probed)| ProbeView {
            signed_with: keys_of(*keys),
            sent_at: probed.sent_at,
            status: probed.status,
            failure: probed.failure.clone(),
        });
        Self {
            finding: FindingView::new(&report.rehearsed, report.is_pending),
            probes: probes.collect(),
        }
    }
}

/// Rehearses an endpoint: sends a few inert requests and says how the receiver verifies.
///
/// The requests have the type `hookturn.probe` and are signed with the active secret, a random key, or
/// both. An endpoint that never accepted anything is not rehearsed.
#[utoipa::path(post, path = "/v1/endpoints/{endpointId}/rehearse", tag = "Rotations", operation_id = "rehearseEndpoint",
    request_body = Option<Why>,
    responses((status = 200, description = "What was found.", body = Rehearsal)))]
pub(in crate::api) async fn rehearse(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<EndpointId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let why: Why = body.parse_or_default()?;
    let caller = call.because(why.reason.as_deref())?;
    let render = |report: &RehearsalReport| Answer::ok(&Rehearsal::new(report));
    let record = |report: &RehearsalReport| render(report).to_bytes();
    let report = api
        .service
        .rehearse(&caller, id, api.prober.as_ref(), once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, report).await?))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The table of docs/rotation.md names every field once, with its default.
    #[test]
    fn the_page_has_every_field_of_the_policy_with_its_default() {
        let page = include_str!("../../../../../docs/rotation.md");
        let rows = |field: &str| {
            let start = format!("| `{field}` | ");
            let rest = |line: &'static str| line.strip_prefix(&start);
            page.lines().filter_map(rest).collect::<Vec<&str>>()
        };
        let defaults = serde_json::to_value(ProofPolicyView::default()).unwrap();
        for (field, default) in defaults.as_object().unwrap() {
            let default = match default {
                Value::String(word) => word.clone(),
                Value::Array(items) => {
                    let items: Vec<_> = items.iter().map(Value::to_string).collect();
                    items.join(", ")
                }
                other => other.to_string(),
            };
            let found = rows(field);
            assert_eq!(found.len(), 1, "{field} has not one row");
            assert!(
                found[0].starts_with(&format!("{default} |")),
                "{field} is {default} and not {}",
                found[0]
            );
            let unit = found[0].split('|').nth(1).unwrap().trim();
            assert_eq!(
                unit.starts_with("ms"),
                field.ends_with("Millis"),
                "{field}: {unit}"
            );
        }
    }

    #[test]
    fn coverage_is_said_in_words() {
        let policy = ProofPolicy::default();
        for (passes, broken, words) in [
            (0, 0, "0 of 59, rules out nothing yet"),
            (59, 0, "59 of 59, rules out 5 % stale at 95 %"),
            (59, 1, "59 of 137, rules out 5 % stale at 95 %"),
        ] {
            assert_eq!(coverage(passes, broken, &policy), words);
        }
    }
}
