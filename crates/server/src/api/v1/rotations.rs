//! Rotations: opened on a keyring, then moved by their own id.

use axum::extract::State;
use hookturn_core::id::{KeyringId, RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::rotation::{Rotation, Stage};
use hookturn_core::store::Page;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Read, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Object, Whole, Why};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::keyrings::{GivenSecret, SecretWithValue, millis};
use super::page_answer;
use super::proving::{PromotionView, ProofPolicyView, ShownRotation};
use crate::service::rotation::{
    ChangedRotation, ModeName, NewRotation, OpenedRotation, RotationFilter,
};

/// How to rotate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct OpenRotation {
    /// How to move to the new secret.
    #[schema(value_type = schema::ModeText)]
    mode: ModeWord,
    /// How long the old secret stays, in seconds; longer than the retries of a delivery without it.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    overlap_seconds: Option<Whole<u32>>,
    /// For mode `proven`: how much proof is enough, and when the old secret goes. What is left out is
    /// as the default says.
    #[schema(value_type = Option<ProofPolicyView>)]
    policy: Option<Object<ProofPolicyView>>,
    /// For mode `proven`: when the old secret goes at the latest, in place of the policy's `deadlineMillis`.
    #[schema(value_type = Option<schema::TimeText>)]
    deadline_at: Option<Timestamp>,
    /// What the new secret is called.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    name: Option<String>,
    /// A value to import; generated without it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    secret: Option<GivenSecret>,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ModeWord {
    Immediate,
    Overlap,
    Staged,
    Proven,
}

impl From<ModeWord> for ModeName {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Immediate => Self::Immediate,
            ModeWord::Overlap => Self::Overlap,
            ModeWord::Staged => Self::Staged,
            ModeWord::Proven => Self::Proven,
        }
    }
}

/// Until when the retiring secret may sign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct ExtendRotation {
    /// Later than the present end, and at most 30 days from now.
    #[schema(value_type = schema::TimeText)]
    retire_at: Timestamp,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// A move of a keyring from its active secret to the next.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rotation)]
pub(in crate::api) struct RotationView {
    /// Its id.
    #[schema(value_type = schema::RotationIdText)]
    id: RotationId,
    /// The keyring it moves.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// How it moves.
    #[schema(value_type = schema::ModeText)]
    mode: &'static str,
    /// How long the old secret stays, in seconds.
    #[schema(value_type = u64)]
    overlap_seconds: Millis,
    /// Where it is.
    #[schema(value_type = schema::StageText)]
    stage: &'static str,
    /// Whether it is open, so that no second one may start.
    open: bool,
    /// When it was opened.
    #[schema(value_type = schema::TimeText)]
    opened_at: Timestamp,
    /// The secret that was active when it opened.
    #[schema(value_type = schema::SecretIdText)]
    from_secret_id: SecretId,
    /// The secret it brings.
    #[schema(value_type = schema::SecretIdText)]
    to_secret_id: SecretId,
    /// The deadline, while it is open. Staged, in mode `proven`: the policy's, which promotes nothing and cancels
    /// nothing. In the overlap: the end of the old secret as it stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    deadline_at: Option<Timestamp>,
    /// From when on the secret that leaves signs no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    retire_at: Option<Timestamp>,
    /// Until when the old secret stays in the overlap whether or not it is needed, because somebody extended the
    /// rotation. Absent when nobody did, and from that time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    kept_until: Option<Timestamp>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    ended_at: Option<Timestamp>,
    /// Why it was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When its new secret became active, and on what grounds; for modes that wait for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    promotion: Option<PromotionView>,
    /// What happens to deliveries, those under way and those to come, in a sentence. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<String>,
    /// Grows with every command that changed it.
    version: u64,
}

impl RotationView {
    /// As it is in a list.
    fn listed(rotation: &Rotation, now: Timestamp) -> Self {
        Self {
            deliveries: None,
            ..Self::new(rotation, now)
        }
    }

    pub(super) fn new(rotation: &Rotation, now: Timestamp) -> Self {
        let stage = rotation.stage.at(now);
        let (retire_at, ended_at) = match stage {
            Stage::Staged => (None, None),
            Stage::Overlap { retire_at } => (Some(retire_at), None),
            Stage::Completed { at } | Stage::Cancelled { at } => (None, Some(at)),
            Stage::Undone { at, retire_at } => (Some(retire_at), Some(at)),
        };
        Self {
            id: rotation.id,
            keyring_id: rotation.keyring,
            mode: rotation.mode.as_str(),
            overlap_seconds: rotation.mode.overlap() / SECOND,
            stage: stage.as_str(),
            open: stage.is_open(),
            opened_at: rotation.opened_at,
            from_secret_id: rotation.from,
            to_secret_id: rotation.to,
            deadline_at: rotation.deadline_at(now),
            retire_at,
            kept_until: rotation.kept_at(now),
            ended_at,
            reason: rotation.reason.clone(),
            promotion: rotation.promotion.as_ref().map(PromotionView::new),
            deliveries: Some(rotation.deliveries(now)),
            version: rotation.version,
        }
    }
}

/// A rotation that was opened.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct OpenedRotationView {
    /// It.
    #[serde(flatten)]
    rotation: RotationView,
    /// The new secret, with its value this once (and again on an idempotent replay).
    secret: SecretWithValue,
}

/// Rotate a keyring to a new secret.
#[utoipa::path(post, path = "/v1/keyrings/{keyringId}/rotations", tag = "Rotations", operation_id = "openRotation",
    request_body = OpenRotation,
    responses((status = 201, description = "Opened; the new secret's value is shown this once.", body = OpenedRotationView,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn open(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<KeyringId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: OpenRotation = body.parse()?;
    let input = NewRotation {
        mode: asked.mode.into(),
        overlap: millis(asked.overlap_seconds),
        policy: asked.policy.map(|policy| policy.0.into()),
        deadline_at: asked.deadline_at,
        name: asked.name,
        value: asked.secret.map(GivenSecret::into_inner),
        reason: asked.reason,
    };
    let now = api.service.now();
    let render = |opened: &OpenedRotation| {
        let view = OpenedRotationView {
            rotation: RotationView::new(&opened.rotation, now),
            secret: SecretWithValue::new(&opened.once, now),
        };
        Answer::created(format!("/v1/rotations/{}", opened.rotation.id), &view)
            .version(opened.keyring.version)
    };
    let record = |opened: &OpenedRotation| render(opened).to_bytes();
    let opened = api
        .service
        .open_rotation(
            &call.caller,
            id,
            input,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(render(&once.settle(&api.service, opened).await?))
}

const LIST: &str = "rotations";

/// List rotations, newest first.
#[utoipa::path(get, path = "/v1/rotations", tag = "Rotations", operation_id = "listRotations",
    params(
        ("state" = Option<String>, Query, description = "`open`: only those that are open.", pattern = "^open$"),
        ("keyringId" = Option<schema::KeyringIdText>, Query, description = "Only of this keyring."),
    ),
    responses((status = 200, description = "A page.", body = PageView<RotationView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let filter = RotationFilter {
        keyring: query.take("keyringId", "the id of a keyring")?,
        open: query.take::<OnlyOpen>("state", "`open`")?.is_some(),
    };
    let uri = query.finish()?;
    let listed = api.service.rotations(&call.caller, filter, page).await?;
    let now = api.service.now();
    Ok(page_answer(listed, LIST, &uri, |rotation| {
        (rotation.id, RotationView::listed(&rotation, now))
    }))
}

/// The one value of `state`.
struct OnlyOpen;

impl std::str::FromStr for OnlyOpen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        (text == "open").then_some(Self).ok_or(())
    }
}

/// Get a rotation.
#[utoipa::path(get, path = "/v1/rotations/{rotationId}", tag = "Rotations", operation_id = "getRotation",
    responses((status = 200, description = "The rotation, with what is known of each endpoint.", body = ShownRotation,
        headers(("ETag" = String, description = "Its keyring's version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<RotationId>,
) -> Outcome {
    let rotation = api.service.rotation(&call.caller, id).await?;
    let view = RotationView::new(&rotation, api.service.now());
    let standings = api.service.standings(&call.caller, &rotation).await;
    let answer = Answer::ok(&ShownRotation::new(
        view,
        &rotation,
        &standings.unwrap_or_default(),
    ));
    // The keyring of a deleted endpoint is gone, its rotations are history: nothing to compare.
    match api.service.keyring(&call.caller, rotation.keyring).await {
        Ok(keyring) => Ok(answer.version(keyring.version)),
        Err(_) => Ok(answer),
    }
}

fn changed(changed: &ChangedRotation, now: Timestamp) -> Answer {
    Answer::ok(&RotationView::new(&changed.rotation, now)).version(changed.keyring.version)
}

/// Lets the retiring secret sign until a later time.
#[utoipa::path(post, path = "/v1/rotations/{rotationId}/extend", tag = "Rotations", operation_id = "extendRotation",
    request_body = ExtendRotation,
    responses((status = 200, description = "As it is now.", body = RotationView,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn extend(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<RotationId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: ExtendRotation = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let record = |out: &ChangedRotation| changed(out, api.service.now()).to_bytes();
    let out = api
        .service
        .extend_rotation(
            &caller,
            id,
            asked.retire_at,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(changed(
        &once.settle(&api.service, out).await?,
        api.service.now(),
    ))
}

/// Whether to promote without proof.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in crate::api) struct PromoteRotation {
    /// Promote a rotation of mode `proven` although it is not proved. It is in the audit log.
    force: bool,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

/// Makes the pending secret of a staged rotation the active one.
///
/// A rotation of mode `proven` is promoted by its proof as it stands now, or by force.
#[utoipa::path(post, path = "/v1/rotations/{rotationId}/promote", tag = "Rotations", operation_id = "promoteRotation",
    request_body = Option<PromoteRotation>,
    responses((status = 200, description = "As it is now.", body = RotationView,
        headers(("ETag" = String, description = "The keyring's version.")))))]
pub(in crate::api) async fn promote(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<RotationId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: PromoteRotation = body.parse_or_default()?;
    let caller = call.because(asked.reason.as_deref())?;
    let record = |out: &ChangedRotation| changed(out, api.service.now()).to_bytes();
    let out = api
        .service
        .promote_rotation(
            &caller,
            id,
            asked.force,
            call.if_match()?,
            once.record(&record),
        )
        .await;
    Ok(changed(
        &once.settle(&api.service, out).await?,
        api.service.now(),
    ))
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $method:ident, $path:literal, $operation:literal;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "Rotations", operation_id = $operation,
            request_body = Option<Why>,
            responses((status = 200, description = "As it is now.", body = RotationView,
                headers(("ETag" = String, description = "The keyring's version.")))))]
        pub(in crate::api) async fn $name(
            State(api): State<ApiState>,
            call: Call<Secrets>,
            Ids(id): Ids<RotationId>,
            body: JsonBody<{ limits::BODY_BYTES }>,
        ) -> Outcome {
            let once = call.once(&api, &body.bytes).await?;
            let why: Why = body.parse_or_default()?;
            let caller = call.because(why.reason.as_deref())?;
            let record = |out: &ChangedRotation| changed(out, api.service.now()).to_bytes();
            let out = api
                .service
                .$method(&caller, id, call.if_match()?, once.record(&record))
                .await;
            Ok(changed(&once.settle(&api.service, out).await?, api.service.now()))
        }
    )*};
}

commands! {
    /// Makes the old secret active again.
    undo = undo_rotation, "/v1/rotations/{rotationId}/undo", "undoRotation";
    /// Retires the retiring secret now.
    finish = finish_rotation, "/v1/rotations/{rotationId}/finish", "finishRotation";
    /// Drops the pending secret of a staged rotation.
    cancel = cancel_rotation, "/v1/rotations/{rotationId}/cancel", "cancelRotation";
}
