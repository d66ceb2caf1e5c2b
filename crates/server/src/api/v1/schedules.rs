//! Schedules: rules by which rotations are opened.

use axum::extract::State;
use hookturn_core::id::{ClientId, KeyringId, RotationId, ScheduleId};
use hookturn_core::limits;
use hookturn_core::proof::ProofPolicy;
use hookturn_core::schedule::{
    Calendar, DateBlackout, Day, Schedule, Selector, TimeOfDay, Timing, Weekday, WeeklyBlackout,
    Zone,
};
use hookturn_core::store::Page;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::{Call, Ids, Read, Secrets};
use super::super::idempotency::{Answer, Outcome};
use super::super::json::{JsonBody, Object, Whole, given, nullable, reset, whole};
use super::super::page::{PageView, Query};
use super::super::schema;
use super::page_answer;
use super::proving::ProofPolicyView;
use crate::service::ServiceError;
use crate::service::schedules::{NewSchedule, SchedulePatch, ShownSchedule};

/// A schedule to make: for one keyring, for the keyrings of an app's endpoints, or for all of the workspace
/// when it names neither; by the age of the secret or by the calendar, one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "quarterly", "timeZone": "Europe/Berlin", "jitterSeconds": 3600,
    "calendar": { "everyMonths": 3, "dayOfMonth": 1, "time": "04:00" } }))]
pub(in crate::api) struct CreateSchedule {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
    /// For this keyring only.
    #[schema(value_type = Option<schema::KeyringIdText>)]
    keyring_id: Option<KeyringId>,
    /// For the keyrings of this app's endpoints only, without the workspace's shared one.
    #[schema(value_type = Option<schema::ClientIdText>)]
    client_id: Option<ClientId>,
    /// Due when the active secret is so many times 24 hours old.
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 3_650)]
    every_days: Option<Whole<u16>>,
    /// Due by the calendar.
    #[schema(value_type = Option<CalendarView>)]
    calendar: Option<Object<CalendarView>>,
    /// The IANA time zone of calendar and blackouts, such as `Europe/Berlin`; `UTC` without it.
    #[serde(default = "utc")]
    #[schema(value_type = schema::TimeZoneText, required = false)]
    time_zone: Zone,
    /// Each opening is put off by up to so many seconds, so that not all happen at once.
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 604_800)]
    jitter_seconds: u32,
    /// When nothing is opened, every week.
    #[serde(default)]
    #[schema(value_type = Vec<WeeklyView>, max_items = 50)]
    weekly_blackouts: Vec<Object<WeeklyView>>,
    /// On which days nothing is opened.
    #[serde(default)]
    #[schema(value_type = Vec<DatesView>, max_items = 50)]
    date_blackouts: Vec<Object<DatesView>>,
    /// The policy of the rotations. What is left out is as the default says.
    #[schema(value_type = Option<ProofPolicyView>)]
    policy: Option<Object<ProofPolicyView>>,
    /// Whether it opens nothing at first.
    #[serde(default)]
    paused: bool,
}

/// What to change of a schedule. What is absent stays, and `null` puts a field back to its default; lists and policy
/// are replaced as a whole.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
pub(in crate::api) struct PatchSchedule {
    /// For people. It cannot be `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(
        value_type = String,
        required = false,
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: Option<String>,
    /// By the age of the secret from now on; `null` only beside a `calendar`, which takes its place.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 3_650)]
    every_days: Option<Option<Whole<u16>>>,
    /// By the calendar from now on; `null` only beside `everyDays`, which takes its place.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<CalendarView>)]
    calendar: Option<Option<Object<CalendarView>>>,
    /// The IANA time zone of calendar and blackouts; `null` for UTC.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<schema::TimeZoneText>)]
    time_zone: Option<Option<Zone>>,
    /// Each opening is put off by up to so many seconds; `null` for none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, maximum = 604_800)]
    jitter_seconds: Option<Option<Whole<u32>>>,
    /// When nothing is opened, every week; `null` for never.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<Vec<WeeklyView>>, max_items = 50)]
    weekly_blackouts: Option<Vec<Object<WeeklyView>>>,
    /// On which days nothing is opened; `null` for none.
    #[serde(default, deserialize_with = "reset")]
    #[schema(value_type = Option<Vec<DatesView>>, max_items = 50)]
    date_blackouts: Option<Vec<Object<DatesView>>>,
    /// The policy of later rotations; `null` for the default. What is left out is as the default says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<ProofPolicyView>)]
    policy: Option<Option<Object<ProofPolicyView>>>,
    /// Whether it opens nothing; `null` for not. What became due in the meantime by the calendar is not made up for.
    #[serde(default, deserialize_with = "reset")]
    paused: Option<bool>,
}

impl PatchSchedule {
    /// The times, which one of two fields says: the other one may be `null` beside it.
    fn timing(&mut self) -> Result<Option<Timing>, ServiceError> {
        let message = "cannot be null without the other one: a schedule has everyDays or calendar";
        match (&self.every_days, &self.calendar) {
            (Some(None), None | Some(None)) => Err(ServiceError::invalid("/everyDays", message)),
            (None, Some(None)) => Err(ServiceError::invalid("/calendar", message)),
            _ => timing(
                self.every_days.take().flatten(),
                self.calendar.take().flatten(),
            ),
        }
    }
}

const fn utc() -> Zone {
    Zone::UTC
}

/// A day of the month and a time of the day, in every n-th month from January on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Calendar)]
struct CalendarView {
    /// In which months: 1 all, 3 January, April, July and October, 12 January.
    #[serde(default = "every_month", deserialize_with = "whole")]
    #[schema(value_type = schema::EveryMonths, required = false)]
    every_months: u8,
    /// The last day of a month that is shorter.
    #[schema(minimum = 1, maximum = 31)]
    #[serde(deserialize_with = "whole")]
    day_of_month: u8,
    /// One that the clocks skip is moved behind the gap, of one that comes twice the first counts.
    #[schema(value_type = schema::TimeOfDayText)]
    time: TimeOfDay,
}

const fn every_month() -> u8 {
    1
}

/// A part of every week, without its end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WeeklyBlackout)]
struct WeeklyView {
    /// The day on which it begins.
    #[schema(value_type = schema::WeekdayText)]
    from_day: Weekday,
    /// The time at which it begins.
    #[schema(value_type = schema::TimeOfDayText)]
    from_time: TimeOfDay,
    /// The day on which it ends, perhaps in the next week.
    #[schema(value_type = schema::WeekdayText)]
    until_day: Weekday,
    /// The time at which it ends.
    #[schema(value_type = schema::TimeOfDayText)]
    until_time: TimeOfDay,
}

/// Whole days, the last one included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DateBlackout)]
struct DatesView {
    /// The first day.
    #[schema(value_type = schema::DayText)]
    from: Day,
    /// The last day.
    #[schema(value_type = schema::DayText)]
    until: Day,
}

macro_rules! same_fields {
    ($($view:ident = $domain:ident { $($field:ident),+ };)+) => {$(
        impl From<Object<$view>> for $domain {
            fn from(view: Object<$view>) -> Self {
                Self { $($field: view.0.$field),+ }
            }
        }

        impl From<$domain> for $view {
            fn from(known: $domain) -> Self {
                Self { $($field: known.$field),+ }
            }
        }
    )+};
}
same_fields! {
    CalendarView = Calendar { every_months, day_of_month, time };
    WeeklyView = WeeklyBlackout { from_day, from_time, until_day, until_time };
    DatesView = DateBlackout { from, until };
}

fn all<V, D: From<V>>(views: Vec<V>) -> Vec<D> {
    views.into_iter().map(Into::into).collect()
}

fn timing(
    days: Option<Whole<u16>>,
    calendar: Option<Object<CalendarView>>,
) -> Result<Option<Timing>, ServiceError> {
    match (days, calendar) {
        (Some(Whole(days)), None) => Ok(Some(Timing::Age { days })),
        (None, Some(calendar)) => Ok(Some(Timing::Calendar(calendar.into()))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            let message = "give everyDays or calendar, not both";
            Err(ServiceError::invalid("/calendar", message))
        }
    }
}

fn policy(given: Option<Object<ProofPolicyView>>) -> Option<ProofPolicy> {
    given.map(|policy| policy.0.into())
}

impl CreateSchedule {
    fn into_input(self) -> Result<NewSchedule, ServiceError> {
        let selector = match (self.keyring_id, self.client_id) {
            (None, None) => Selector::Workspace,
            (Some(keyring), None) => Selector::Keyring { keyring },
            (None, Some(app)) => Selector::App { app },
            (Some(_), Some(_)) => {
                let message = "give keyringId or clientId, or neither for the whole workspace";
                return Err(ServiceError::invalid("/clientId", message));
            }
        };
        let timing = timing(self.every_days, self.calendar)?;
        Ok(NewSchedule {
            name: self.name,
            selector,
            timing: timing
                .ok_or_else(|| ServiceError::missing("/everyDays", "give everyDays or calendar"))?,
            zone: self.time_zone,
            jitter_seconds: self.jitter_seconds,
            weekly_blackouts: all(self.weekly_blackouts),
            date_blackouts: all(self.date_blackouts),
            policy: policy(self.policy).unwrap_or_default(),
            paused: self.paused,
        })
    }
}

/// A rule by which rotations of mode `proven` are opened. It never promotes one without proof.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Schedule)]
pub(in crate::api) struct ScheduleView {
    /// Its id.
    #[schema(value_type = schema::ScheduleIdText)]
    id: ScheduleId,
    /// For people.
    name: String,
    /// For this keyring only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::KeyringIdText>)]
    keyring_id: Option<KeyringId>,
    /// For the keyrings of this app's endpoints only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ClientIdText>)]
    client_id: Option<ClientId>,
    /// Due when the active secret is so many times 24 hours old.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_days: Option<u16>,
    /// Due by the calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    calendar: Option<CalendarView>,
    /// The time zone of calendar and blackouts.
    #[schema(value_type = schema::TimeZoneText)]
    time_zone: Zone,
    /// Each opening is put off by up to so many seconds.
    jitter_seconds: u32,
    /// When nothing is opened, every week.
    weekly_blackouts: Vec<WeeklyView>,
    /// On which days nothing is opened.
    date_blackouts: Vec<DatesView>,
    /// The policy of the rotations.
    policy: ProofPolicyView,
    /// Whether it opens nothing at the moment.
    paused: bool,
    /// Since when it counts: when it was made, got other times, or was resumed.
    #[schema(value_type = schema::TimeText)]
    since: Timestamp,
    /// Grows with every change; the ETag.
    version: u64,
    /// When it was made.
    #[schema(value_type = schema::TimeText)]
    created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = schema::TimeText)]
    updated_at: Timestamp,
}

impl ScheduleView {
    fn new(schedule: &Schedule) -> Self {
        let (keyring_id, client_id) = match schedule.selector {
            Selector::Workspace => (None, None),
            Selector::Keyring { keyring } => (Some(keyring), None),
            Selector::App { app } => (None, Some(app)),
        };
        let (every_days, calendar) = match schedule.timing {
            Timing::Age { days } => (Some(days), None),
            Timing::Calendar(calendar) => (None, Some(calendar.into())),
        };
        Self {
            id: schedule.id,
            name: schedule.name.clone(),
            keyring_id,
            client_id,
            every_days,
            calendar,
            time_zone: schedule.zone.clone(),
            jitter_seconds: schedule.jitter_seconds,
            weekly_blackouts: all(schedule.weekly_blackouts.clone()),
            date_blackouts: all(schedule.date_blackouts.clone()),
            policy: schedule.policy.into(),
            paused: schedule.paused,
            since: schedule.since,
            version: schedule.version,
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        }
    }
}

/// A schedule with what comes of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ShownSchedule)]
pub(in crate::api) struct ShownScheduleView {
    /// It.
    #[serde(flatten)]
    schedule: ScheduleView,
    /// How many keyrings it is for now.
    keyrings: usize,
    /// The next five openings of all its keyrings together, if each rotation is proved as soon as it is open.
    preview: Vec<PlannedView>,
    /// Keyrings for which a rotation is due that cannot be opened yet. Each is tried again.
    skipped: Vec<SkippedView>,
    /// The latest rotations that it opened.
    opened: Vec<OpenedView>,
}

/// An opening to come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlannedOpening)]
struct PlannedView {
    /// The keyring.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// When it is due.
    #[schema(value_type = schema::TimeText)]
    due_at: Timestamp,
    /// When it is opened, by jitter and blackouts.
    #[schema(value_type = schema::TimeText)]
    opens_at: Timestamp,
}

/// A keyring for which a rotation is due that cannot be opened yet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SkippedOpening)]
struct SkippedView {
    /// The keyring.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// Since when it is due.
    #[schema(value_type = schema::TimeText)]
    due_at: Timestamp,
    /// Why it cannot be opened.
    #[schema(value_type = schema::BlockedText)]
    reason: &'static str,
    /// The same in words, with what helps.
    words: &'static str,
    /// Since when that is known.
    #[schema(value_type = schema::TimeText)]
    since: Timestamp,
}

/// A rotation that a schedule opened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScheduledRotation)]
struct OpenedView {
    /// The keyring.
    #[schema(value_type = schema::KeyringIdText)]
    keyring_id: KeyringId,
    /// The rotation.
    #[schema(value_type = schema::RotationIdText)]
    rotation_id: RotationId,
    /// For which due time.
    #[schema(value_type = schema::TimeText)]
    due_at: Timestamp,
    /// When it was opened.
    #[schema(value_type = schema::TimeText)]
    opened_at: Timestamp,
}

impl ShownScheduleView {
    fn new(shown: &ShownSchedule) -> Self {
        let preview = shown.openings.iter().map(|(keyring, opening)| PlannedView {
            keyring_id: *keyring,
            due_at: opening.due,
            opens_at: opening.opens_at,
        });
        let skipped = shown.skipped.iter().map(|(keyring, skipped)| SkippedView {
            keyring_id: *keyring,
            due_at: skipped.due,
            reason: skipped.why.as_str(),
            words: skipped.why.words(),
            since: skipped.since,
        });
        let opened = shown.opened.iter().map(|(keyring, opened)| OpenedView {
            keyring_id: *keyring,
            rotation_id: opened.rotation,
            due_at: opened.due,
            opened_at: opened.at,
        });
        Self {
            schedule: ScheduleView::new(&shown.schedule),
            keyrings: shown.keyrings,
            preview: preview.collect(),
            skipped: skipped.collect(),
            opened: opened.collect(),
        }
    }
}

/// Make a schedule.
///
/// It opens rotations of mode `proven` when they are due, and each waits for its proof as if a person had
/// opened it. The new secret's value is in no answer: it is revealed where it is deployed.
#[utoipa::path(post, path = "/v1/schedules", tag = "Schedules", operation_id = "createSchedule",
    request_body = CreateSchedule,
    responses((status = 201, description = "Made, with the next five openings.", body = ShownScheduleView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn create(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let once = call.once(&api, &body.bytes).await?;
    let asked: CreateSchedule = body.parse()?;
    let input = asked.into_input()?;
    let render = |made: &ShownSchedule| {
        let place = format!("/v1/schedules/{}", made.schedule.id);
        Answer::created(place, &ShownScheduleView::new(made)).version(made.schedule.version)
    };
    let record = |made: &ShownSchedule| render(made).to_bytes();
    let made = api
        .service
        .create_schedule(&call.caller, input, once.record(&record))
        .await;
    Ok(render(&once.settle(&api.service, made).await?))
}

const LIST: &str = "schedules";

/// List schedules, newest first.
#[utoipa::path(get, path = "/v1/schedules", tag = "Schedules", operation_id = "listSchedules",
    responses((status = 200, description = "A page.", body = PageView<ScheduleView>)))]
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
    let listed = api.service.schedules(&call.caller, page).await?;
    Ok(page_answer(listed, LIST, &uri, |schedule| {
        (schedule.id, ScheduleView::new(&schedule))
    }))
}

fn shown(shown: &ShownSchedule) -> Answer {
    Answer::ok(&ShownScheduleView::new(shown)).version(shown.schedule.version)
}

/// Get a schedule, with the next five openings.
#[utoipa::path(get, path = "/v1/schedules/{scheduleId}", tag = "Schedules", operation_id = "getSchedule",
    responses((status = 200, description = "The schedule.", body = ShownScheduleView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn get(
    State(api): State<ApiState>,
    call: Call<Read>,
    Ids(id): Ids<ScheduleId>,
) -> Outcome {
    Ok(shown(&api.service.schedule(&call.caller, id).await?))
}

/// Change a schedule. New times, and one that is resumed, count from now on.
#[utoipa::path(patch, path = "/v1/schedules/{scheduleId}", tag = "Schedules", operation_id = "patchSchedule",
    request_body = PatchSchedule,
    responses((status = 200, description = "As it is now.", body = ShownScheduleView,
        headers(("ETag" = String, description = "Its version.")))))]
pub(in crate::api) async fn patch(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<ScheduleId>,
    body: JsonBody<{ limits::BODY_BYTES }>,
) -> Outcome {
    let mut asked: PatchSchedule = body.parse()?;
    let patch = SchedulePatch {
        timing: asked.timing()?,
        name: asked.name,
        zone: asked.time_zone.map(|zone| zone.unwrap_or(utc())),
        jitter_seconds: asked
            .jitter_seconds
            .map(|seconds| seconds.map_or(0, Whole::get)),
        weekly_blackouts: asked.weekly_blackouts.map(all),
        date_blackouts: asked.date_blackouts.map(all),
        policy: asked.policy.map(|given| policy(given).unwrap_or_default()),
        paused: asked.paused,
    };
    let patched = api
        .service
        .patch_schedule(&call.caller, id, patch, call.if_match()?)
        .await?;
    Ok(shown(&patched))
}

/// Delete a schedule. Rotations that it opened stay as they are.
#[utoipa::path(delete, path = "/v1/schedules/{scheduleId}", tag = "Schedules", operation_id = "deleteSchedule",
    responses((status = 204, description = "Deleted.")))]
pub(in crate::api) async fn delete(
    State(api): State<ApiState>,
    call: Call<Secrets>,
    Ids(id): Ids<ScheduleId>,
) -> Outcome {
    api.service
        .delete_schedule(&call.caller, id, call.if_match()?)
        .await?;
    Ok(Answer::no_content())
}
