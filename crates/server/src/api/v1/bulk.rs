//! `/v1/bulk-rotations`: many keyrings moved by one command, in waves.

use std::collections::BTreeMap;

use axum::extract::State;
use hookturn_core::bulk::{
    Bulk, BulkCommand, BulkItem, BulkState, ItemCounts, ItemKind, ItemState, Manner, Pacing,
    Selector,
};
use hookturn_core::id::{BulkId, ClientId, KeyringId, RotationId, SecretId};
use hookturn_core::limits;
use hookturn_core::store::Page;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use hookturn_verify::Fingerprint;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Read, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Object, Whole, Why};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::keyrings::millis;
use super::leaks::HashText;
use super::page_answer;
use super::proving::ProofPolicyView;
use super::released::ReleaseView;
use super::rotations::ModeWord;
use crate::service::ServiceError;
use crate::service::bulk::{BulkProgress, NewBulk, PlannedKeyring, ShownItem, StartedBulk};

/// Keyrings of a plan that are shown; the others are counted.
const SHOWN: usize = 20;

/// A fingerprint in a request.
#[derive(Debug, Clone, Copy)]
struct PrintText(Fingerprint);

impl<'de> Deserialize<'de> for PrintText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match text.parse() {
            Ok(print) if lower => Ok(Self(print)),
            Ok(_) | Err(_) => Err(de::Error::custom("expected 8 lowercase hex digits")),
        }
    }
}

/// Which keyrings: everything that is named must hold, of each list one entry is enough.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewSelector)]
pub(in crate::api) struct SelectorInput {
    /// Every keyring of the workspace that signs for an endpoint, unless more is named.
    #[serde(default)]
    all: bool,
    /// Those that sign for an endpoint of one of these apps.
    #[schema(value_type = Vec<schema::ClientIdText>, max_items = 1_000)]
    #[serde(default)]
    apps: Vec<ClientId>,
    /// Those that sign for an endpoint of an app with all these labels.
    #[schema(value_type = schema::Labels)]
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// These.
    #[schema(value_type = Vec<schema::KeyringIdText>, max_items = 1_000)]
    #[serde(default)]
    keyrings: Vec<KeyringId>,
    /// Those whose active secret is at least this old, in seconds.
    #[schema(value_type = Option<u64>, maximum = 3_153_600_000_u64)]
    older_than_seconds: Option<Whole<u64>>,
    /// Those whose active secret has one of these fingerprints.
    #[schema(value_type = Vec<schema::FingerprintText>, max_items = 1_000)]
    #[serde(default)]
    fingerprints: Vec<PrintText>,
    /// Those whose active secret has one of these SHA-256 of its text. They are not kept.
    #[schema(value_type = Vec<schema::LeakHashText>, max_items = 200)]
    #[serde(default)]
    hashes: Vec<HashText>,
}

/// Which keyrings shall be rotated, how, and how fast.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct StartBulk {
    /// Which keyrings.
    #[schema(value_type = SelectorInput)]
    selector: Object<SelectorInput>,
    /// How each moves to its new secret.
    #[schema(value_type = schema::ModeText)]
    mode: ModeWord,
    /// For `overlap` and `staged`: how long the old secret stays, in seconds; each keyring's default
    /// without.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    overlap_seconds: Option<Whole<u32>>,
    /// For mode `proven`: how much proof is enough.
    #[schema(value_type = Option<ProofPolicyView>)]
    policy: Option<Object<ProofPolicyView>>,
    /// Where each wave ends, in percent of all keyrings, growing and ending at 100; 1, 10, 50 and 100
    /// without.
    #[schema(value_type = Option<Vec<u8>>, min_items = 1, max_items = 20)]
    waves: Option<Vec<Whole<u8>>>,
    /// How long to wait between two waves, in seconds.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    pause_seconds: Option<Whole<u32>>,
    /// Rotations under way at once; in modes that wait for no proof, rotations opened in one step, four of
    /// which are taken a second. 50 without.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000)]
    concurrency: Option<Whole<u32>>,
    /// Stop when more than this share of a wave failed, in percent: 0 at the first, 100 never. 10 without.
    #[schema(value_type = Option<u8>, maximum = 100)]
    stop_at_failed_percent: Option<Whole<u8>>,
    /// For mode `proven`: how long a rotation that is not proved holds its place, in seconds. It then goes
    /// on by itself. A day without.
    #[schema(value_type = Option<u32>, maximum = 2_592_000)]
    patience_seconds: Option<Whole<u32>>,
    /// Plan only: nothing is stored and nothing rotated.
    #[serde(default)]
    dry_run: bool,
    /// Why.
    #[schema(max_length = 256, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    reason: Option<String>,
}

impl StartBulk {
    fn manner(&mut self) -> Result<Manner, ServiceError> {
        let overlap = millis(self.overlap_seconds);
        if self.policy.is_some() && !matches!(self.mode, ModeWord::Proven) {
            return Err(ServiceError::invalid("/policy", "belongs to mode proven"));
        }
        match self.mode {
            ModeWord::Immediate if overlap.is_some_and(|overlap| overlap > 0) => Err(
                ServiceError::invalid("/overlapSeconds", "an immediate rotation has no overlap"),
            ),
            ModeWord::Immediate => Ok(Manner::Immediate),
            ModeWord::Overlap => Ok(Manner::Overlap { overlap }),
            ModeWord::Staged => Ok(Manner::Staged { overlap }),
            ModeWord::Proven if overlap.is_some() => Err(ServiceError::invalid(
                "/overlapSeconds",
                "mode proven takes its times from its policy: quietMillis and deadlineMillis",
            )),
            ModeWord::Proven => Ok(Manner::Proven {
                policy: self
                    .policy
                    .take()
                    .map(|policy| policy.0.into())
                    .unwrap_or_default(),
            }),
        }
    }

    fn input(mut self) -> Result<NewBulk, ServiceError> {
        let manner = self.manner()?;
        let usual = Pacing::default();
        let selector = self.selector.0;
        Ok(NewBulk {
            selector: Selector {
                all: selector.all,
                apps: selector.apps,
                labels: selector.labels,
                keyrings: selector.keyrings,
                older_than_millis: selector
                    .older_than_seconds
                    .map(|seconds| seconds.get().saturating_mul(SECOND)),
                fingerprints: selector.fingerprints.iter().map(|print| print.0).collect(),
                secrets: None,
            },
            hashes: selector.hashes.iter().map(|hash| hash.0).collect(),
            manner,
            pacing: Pacing {
                waves: self.waves.map_or(usual.waves, |waves| {
                    waves.into_iter().map(Whole::get).collect()
                }),
                pause_millis: millis(self.pause_seconds).unwrap_or(usual.pause_millis),
                concurrency: self.concurrency.map_or(usual.concurrency, Whole::get),
                stop_at_failed_percent: self
                    .stop_at_failed_percent
                    .map_or(usual.stop_at_failed_percent, Whole::get),
                patience_millis: millis(self.patience_seconds).unwrap_or(usual.patience_millis),
            },
            dry_run: self.dry_run,
        })
    }
}

/// Which keyrings were meant, as it is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Selector)]
struct SelectorView {
    /// Every keyring.
    all: bool,
    /// Of these apps.
    #[schema(value_type = Vec<schema::ClientIdText>)]
    apps: Vec<ClientId>,
    /// Of apps with these labels.
    #[schema(value_type = schema::Labels)]
    labels: BTreeMap<String, String>,
    /// These keyrings.
    #[schema(value_type = Vec<schema::KeyringIdText>)]
    keyrings: Vec<KeyringId>,
    /// Age of the active secret in seconds, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    older_than_seconds: Option<u64>,
    /// Fingerprints of the active secret.
    #[schema(value_type = Vec<schema::FingerprintText>)]
    fingerprints: Vec<String>,
    /// The secrets that the given hashes were found to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::SecretIdText>>)]
    secrets: Option<Vec<SecretId>>,
}

impl SelectorView {
    fn new(selector: &Selector) -> Self {
        Self {
            all: selector.all,
            apps: selector.apps.clone(),
            labels: selector.labels.clone(),
            keyrings: selector.keyrings.clone(),
            older_than_seconds: selector.older_than_millis.map(|millis| millis / SECOND),
            fingerprints: selector
                .fingerprints
                .iter()
                .map(ToString::to_string)
                .collect(),
            secrets: selector.secrets.clone(),
        }
    }
}

/// Many rotations that were asked for at once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BulkRotation)]
pub(in crate::api) struct BulkView {
    /// Its id.
    #[schema(value_type = schema::BulkIdText)]
    id: BulkId,
    /// Where it is.
    #[schema(value_type = schema::BulkStateText)]
    state: &'static str,
    /// The same in a sentence.
    words: String,
    /// How each keyring moves to its new secret.
    #[schema(value_type = schema::ModeText)]
    mode: &'static str,
    /// For `overlap` and `staged`: how long the old secret stays, in seconds, where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap_seconds: Option<u64>,
    /// For mode `proven`.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<ProofPolicyView>,
    /// Which keyrings.
    selector: SelectorView,
    /// How many there are.
    keyrings: u32,
    /// How many each wave has.
    waves: Vec<u32>,
    /// The present wave, from 1.
    wave: u32,
    /// When the present wave began or may begin.
    #[schema(value_type = schema::TimeText)]
    wave_at: Timestamp,
    /// How long to wait between two waves, in seconds.
    #[schema(value_type = u64)]
    pause_seconds: Millis,
    /// Rotations under way at once.
    concurrency: u32,
    /// The share of failures at which it stops, in percent.
    stop_at_failed_percent: u8,
    /// How long it waits for a proof, in seconds.
    #[schema(value_type = u64)]
    patience_seconds: Millis,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it was started.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it was paused, stopped, completed or cancelled, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    since: Option<Timestamp>,
    /// Grows with every change; the ETag.
    version: u64,
}

impl BulkView {
    fn new(bulk: &Bulk) -> Self {
        let (overlap, policy) = match bulk.manner {
            Manner::Immediate => (None, None),
            Manner::Overlap { overlap } | Manner::Staged { overlap } => (overlap, None),
            Manner::Proven { policy } => (None, Some(policy.into())),
        };
        let starts = std::iter::once(0).chain(bulk.wave_ends.iter().copied());
        let waves = bulk
            .wave_ends
            .iter()
            .zip(starts)
            .map(|(end, start)| end - start);
        let since = match bulk.state {
            BulkState::Running => None,
            BulkState::Paused { at }
            | BulkState::Stopped { at, .. }
            | BulkState::Completed { at }
            | BulkState::Cancelled { at } => Some(at),
        };
        Self {
            id: bulk.id,
            state: bulk.state.as_str(),
            words: words(bulk.state),
            mode: bulk.manner.as_str(),
            overlap_seconds: overlap.map(|overlap| overlap / SECOND),
            policy,
            selector: SelectorView::new(&bulk.selector),
            keyrings: bulk.keyrings(),
            waves: waves.collect(),
            wave: bulk.wave + 1,
            wave_at: bulk.wave_at,
            pause_seconds: bulk.pacing.pause_millis / SECOND,
            concurrency: bulk.pacing.concurrency,
            stop_at_failed_percent: bulk.pacing.stop_at_failed_percent,
            patience_seconds: bulk.pacing.patience_millis / SECOND,
            reason: bulk.context.reason.clone(),
            created_at: bulk.created_at,
            since,
            version: bulk.version,
        }
    }
}

/// Where a bulk rotation is, and what that means.
fn words(state: BulkState) -> String {
    match state {
        BulkState::Running => "it opens rotations, wave after wave".to_owned(),
        BulkState::Paused { .. } => {
            "paused: it opens nothing until it is resumed; what it opened goes on".to_owned()
        }
        BulkState::Stopped { failed, of, .. } => format!(
            "stopped: {failed} of {of} rotations of this wave failed; look at the failed ones, then resume or cancel"
        ),
        BulkState::Completed { .. } => "everything it was to open was opened or tried".to_owned(),
        BulkState::Cancelled { .. } => {
            "cancelled: it opens nothing more; what it opened goes on".to_owned()
        }
    }
}

/// What became of the keyrings of a bulk rotation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BulkCounts {
    /// Not opened yet.
    waiting: u32,
    /// Open, and waited for until they are proved.
    running: u32,
    /// Open and not proved for so long that they are waited for no longer; they go on.
    stalled: u32,
    /// Their new secret signs; in mode `staged`, it waits for its owner.
    done: u32,
    /// Not opened, or come to nothing.
    failed: u32,
}

impl From<ItemCounts> for BulkCounts {
    fn from(counts: ItemCounts) -> Self {
        Self {
            waiting: counts.waiting,
            running: counts.running,
            stalled: counts.stalled,
            done: counts.done,
            failed: counts.failed,
        }
    }
}

/// A bulk rotation and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BulkProgress)]
pub(in crate::api) struct BulkProgressView {
    /// It.
    #[serde(flatten)]
    bulk: BulkView,
    /// What became of its keyrings.
    counts: BulkCounts,
}

impl BulkProgressView {
    fn answer(progress: &BulkProgress) -> Answer {
        let view = Self {
            bulk: BulkView::new(&progress.bulk),
            counts: progress.counts.into(),
        };
        Answer::ok(&view).version(progress.bulk.version)
    }
}

/// A plan, and the bulk rotation that was started with it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct BulkPlan {
    /// The bulk rotation; of a dry run nothing is kept, and its id means nothing.
    #[serde(flatten)]
    bulk: BulkView,
    /// Whether nothing was started.
    dry_run: bool,
    /// Rotations that could not be opened now, by reason. They count as failures unless that changes.
    obstacles: Vec<ObstacleView>,
    /// The first keyrings in the order of the bulk rotation.
    first: Vec<PlannedView>,
}

/// Why rotations could not be opened now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BulkObstacle)]
struct ObstacleView {
    /// A stable word.
    code: String,
    /// How many.
    keyrings: u32,
    /// What is in the way of the first of them, and what to do.
    message: String,
}

/// A keyring of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlannedKeyring)]
struct PlannedView {
    /// It.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// The fingerprint of its active secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::FingerprintText>)]
    fingerprint: Option<String>,
    /// When that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    secret_created_at: Option<Timestamp>,
    /// Why its rotation could not be opened now.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<String>,
}

impl BulkPlan {
    fn new(started: &StartedBulk) -> Self {
        let mut obstacles: BTreeMap<&str, ObstacleView> = BTreeMap::new();
        for (code, message) in started
            .keyrings
            .iter()
            .filter_map(|one| one.obstacle.as_ref())
        {
            obstacles
                .entry(code)
                .or_insert_with(|| ObstacleView {
                    code: code.clone(),
                    keyrings: 0,
                    message: message.clone(),
                })
                .keyrings += 1;
        }
        let planned = |one: &PlannedKeyring| PlannedView {
            keyring_id: one.keyring.id,
            fingerprint: one
                .keyring
                .active()
                .map(|active| active.fingerprint.to_string()),
            secret_created_at: one.keyring.active().map(|active| active.created_at),
            obstacle: one.obstacle.as_ref().map(|(code, _)| code.clone()),
        };
        let mut bulk = BulkView::new(&started.bulk);
        if started.dry_run {
            bulk.state = "planned";
            let words = if started.keyrings.is_empty() {
                "no keyring has what the selector names and an active secret that signs for an endpoint: \
                 nothing would be rotated"
            } else {
                "nothing was started and nothing is kept of this plan, its id included: ask again without \
                 dryRun to open these rotations, wave after wave"
            };
            words.clone_into(&mut bulk.words);
        }
        Self {
            bulk,
            dry_run: started.dry_run,
            obstacles: obstacles.into_values().collect(),
            first: started.keyrings.iter().take(SHOWN).map(planned).collect(),
        }
    }

    fn answer(started: &StartedBulk) -> Answer {
        let view = Self::new(started);
        if started.dry_run {
            Answer::ok(&view)
        } else {
            Answer::created(format!("/v1/bulk-rotations/{}", started.bulk.id), &view)
                .version(started.bulk.version)
        }
    }
}

/// One keyring of a bulk rotation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BulkItem)]
pub(in crate::api) struct ItemView {
    /// Its place in the order, from 0.
    position: u32,
    /// The keyring.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// What became of it.
    #[schema(value_type = schema::BulkItemStateText)]
    state: &'static str,
    /// When it became that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TimeText>)]
    at: Option<Timestamp>,
    /// The rotation that was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RotationIdText>)]
    rotation_id: Option<RotationId>,
    /// Where that rotation is now, while it is the latest of the keyring.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::StageText>)]
    stage: Option<&'static str>,
    /// A stable word for why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Why it failed, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Whether receivers still accept the old secret, as far as they were asked; the first 20 endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    releases: Vec<ReleaseView>,
}

impl ItemView {
    fn new(shown: ShownItem, now: Timestamp) -> Self {
        let BulkItem {
            position,
            keyring,
            state,
            ..
        } = shown.item;
        let kind = state.kind();
        let (rotation_id, at, code, message) = match state {
            ItemState::Waiting => (None, None, None, None),
            ItemState::Running { rotation, at }
            | ItemState::Stalled { rotation, at }
            | ItemState::Done { rotation, at } => (Some(rotation), Some(at), None, None),
            ItemState::Failed {
                rotation,
                code,
                message,
                at,
            } => (rotation, Some(at), Some(code), Some(message)),
        };
        let releases = shown.releases.into_iter();
        Self {
            position,
            keyring_id: keyring,
            state: kind.as_str(),
            at,
            rotation_id,
            stage: shown
                .rotation
                .map(|rotation| rotation.stage.at(now).as_str()),
            code,
            message,
            releases: releases
                .map(|(endpoint, release)| ReleaseView::known(endpoint, release))
                .collect(),
        }
    }
}

/// Rotate many keyrings, in waves; or see what that would do.
///
/// Each keyring gets a new secret in a rotation of its own. A rotation that cannot be opened is a failure of
/// the bulk rotation and changes nothing. The values of the new secrets are not in the answer: reveal them
/// one by one.
#[utoipa::path(post, path = "/v1/bulk-rotations", tag = "Bulk rotations", operation_id = "startBulkRotation",
    request_body = StartBulk,
    responses(
        (status = 200, description = "The plan; nothing was started.", body = BulkPlan),
        (status = 201, description = "Started.", body = BulkPlan,
            headers(("ETag" = String, description = "Its version."))),
    ))]
pub(in crate::api) async fn start(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: StartBulk = body.parse()?;
    let caller = call.because(asked.reason.as_deref())?;
    let input = asked.input()?;
    let record = |started: &StartedBulk| BulkPlan::answer(started).to_bytes();
    let started = api
        .service
        .start_bulk(&caller, input, once.record(&record))
        .await;
    Ok(BulkPlan::answer(&once.settle(&api.service, started).await?))
}

const LIST: &str = "bulk-rotations";

/// List bulk rotations, newest first.
#[utoipa::path(get, path = "/v1/bulk-rotations", tag = "Bulk rotations", operation_id = "listBulkRotations",
    responses((status = 200, description = "A page.", body = PageView<BulkView>)))]
pub(in crate::api) async fn list(
    State(api): State<ApiState>,
    call: Call<Read>,
    mut query: Query,
) -> Outcome {
    let page = Page {
        before: query.take_cursor(LIST)?,
        limit: query.take_limit()?,
    };
    let uri = query.finish()?;
    let listed = api.service.bulks(&call.caller, page).await?;
    Ok(page_answer(listed, LIST, &uri, |bulk| {
        (bulk.id, BulkView::new(&bulk))
    }))
}

/// Get a bulk rotation and how far it is.
#[utoipa::path(get, path = "/v1/bulk-rotations/{bulkId}", tag = "Bulk rotations", operation_id = "getBulkRotation",
    responses((status = 200, description = "It, with counts of its keyrings.", body = BulkProgressView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<BulkId>,
) -> Outcome {
    let progress = api.service.bulk(&call.caller, id).await?;
    Ok(BulkProgressView::answer(&progress))
}

const ITEMS: &str = "bulk-items";

/// The one value of `state`.
struct KindText(ItemKind);

impl std::str::FromStr for KindText {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(Self)
    }
}

/// List the keyrings of a bulk rotation in its order, with what became of each.
#[utoipa::path(get, path = "/v1/bulk-rotations/{bulkId}/items", tag = "Bulk rotations", operation_id = "listBulkItems",
    params(("state" = Option<schema::BulkItemStateText>, Query, description = "Only those in this state.")),
    responses((status = 200, description = "A page.", body = PageView<ItemView>)))]
pub(in crate::api) async fn items(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<BulkId>,
    mut query: Query,
) -> Outcome {
    let after: Option<u32> = query.take_cursor(ITEMS)?;
    let limit = query.take_limit()?;
    let kind = query.take::<KindText>("state", "waiting, running, stalled, done or failed")?;
    let uri = query.finish()?;
    let from = after.map_or(0, |after| after.saturating_add(1));
    let listed = api
        .service
        .bulk_items(&call.caller, id, kind.map(|kind| kind.0), from, limit)
        .await?;
    let now = api.service.now();
    Ok(page_answer(listed, ITEMS, &uri, |item| {
        (item.item.position, ItemView::new(item, now))
    }))
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $command:expr, $path:literal, $operation:literal;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "Bulk rotations", operation_id = $operation,
            request_body = Option<Why>,
            responses((status = 200, description = "As it is now.", body = BulkProgressView,
                headers(("ETag" = String, description = "Its version.")))))]
        pub(in crate::api) async fn $name(
            State(api): State<ApiState>,
            call: Call<Secrets>,
            Ids(id): Ids<BulkId>,
            body: JsonBody<{ limits::BODY_BYTES }>,
        ) -> Outcome {
            let once = call.once(&api, &body.bytes).await?;
            let why: Why = body.parse_or_default()?;
            let caller = call.because(why.reason.as_deref())?;
            let record = |out: &BulkProgress| BulkProgressView::answer(out).to_bytes();
            let out = api
                .service
                .command_bulk(&caller, id, $command, call.if_match()?, once.record(&record))
                .await;
            Ok(BulkProgressView::answer(&once.settle(&api.service, out).await?))
        }
    )*};
}

commands! {
    /// Open nothing more until it is resumed. What was opened goes on.
    pause = BulkCommand::Pause, "/v1/bulk-rotations/{bulkId}/pause", "pauseBulkRotation";
    /// Go on after a pause, or after a stop in spite of its failures.
    resume = BulkCommand::Resume, "/v1/bulk-rotations/{bulkId}/resume", "resumeBulkRotation";
    /// Open nothing more, ever. What was opened goes on.
    cancel = BulkCommand::Cancel, "/v1/bulk-rotations/{bulkId}/cancel", "cancelBulkRotation";
}
