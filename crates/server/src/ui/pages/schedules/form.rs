//! The form that makes or changes a schedule.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use hookturn_core::schedule::Schedule;
use http::StatusCode;

use super::super::super::UiState;
use super::super::super::error::{UiError, status_of};
use super::super::super::form::{Changed, Field, Wrong, changes, grouped, snapshot};
use super::super::super::frame::{Frame, Part, page};
use super::super::super::once::{self, Asked};
use super::super::super::visitor::{Sent, Visitor};
use super::known;
use super::values::{GROUPS, POINTERS, Typed, fields};
use crate::service::ServiceError;
use crate::service::schedules::ShownSchedule;

/// The form.
#[derive(Debug, Template)]
#[template(path = "schedule_form.html")]
pub struct ScheduleForm {
    /// Around it.
    pub frame: Frame,
    /// The schedule that is changed; none for a new one.
    pub id: Option<String>,
    /// Its fields.
    pub fields: Vec<Field>,
    /// What was wrong with the form as a whole.
    pub error: Option<String>,
    /// What somebody else changed meanwhile.
    pub changed: Vec<Changed>,
    /// The version that it changes.
    pub version: u64,
    /// What the form showed when it was opened.
    pub was: String,
}

impl ScheduleForm {
    /// Its fields under what they are about.
    pub fn groups(&self) -> Vec<(&'static str, &[Field])> {
        grouped(&self.fields, GROUPS)
    }

    fn new(frame: Frame, id: Option<String>, typed: &Typed, wrong: &Wrong) -> Self {
        let fields = fields(typed, id.is_none(), wrong);
        Self {
            frame,
            id,
            was: snapshot(&fields),
            fields,
            error: wrong.with(""),
            changed: Vec::new(),
            version: typed.version,
        }
    }

    fn of_new(ui: &UiState, visitor: &Visitor, typed: &Typed, wrong: &Wrong) -> Self {
        let frame = Frame::new(ui, visitor, Part::Rotations, "New schedule");
        Self::new(frame, None, typed, wrong)
    }

    fn of(ui: &UiState, visitor: &Visitor, old: &Schedule, typed: &Typed, wrong: &Wrong) -> Self {
        let frame = Frame::new(ui, visitor, Part::Rotations, "Change the schedule");
        Self::new(frame, Some(old.id.to_string()), typed, wrong)
    }

    /// The page as it is rendered for its samples.
    pub fn samples() -> Vec<(&'static str, Self)> {
        let frame = || Frame::sample(Part::Rotations, "Schedule");
        let typed = Typed {
            name: "<b>yearly\u{202e}\"".to_owned(),
            weekly: "friday 18:00 - monday 08:00".to_owned(),
            ..Typed::of_new()
        };
        let mut wrong = Wrong::default();
        for field in ["", "name", "which", "weekly"] {
            wrong.note(field, "cannot be so");
        }
        let id = || Some("sch_1".to_owned());
        let fine = Wrong::default();
        let mut raced = Self::new(frame(), id(), &typed, &fine);
        raced.changed = vec![Changed {
            label: "Time zone",
            was: "UTC".to_owned(),
            now: "Europe/Berlin".to_owned(),
            yours: "UTC".to_owned(),
        }];
        vec![
            (
                "schedule-new",
                Self::new(frame(), None, &Typed::of_new(), &fine),
            ),
            (
                "schedule-new-error",
                Self::new(frame(), None, &typed, &wrong),
            ),
            ("schedule-edit", Self::new(frame(), id(), &typed, &fine)),
            ("schedule-edit-raced", raced),
        ]
    }
}

/// Refuses whoever may not change secrets: what they may not do is not shown.
async fn required(ui: &UiState, visitor: &Visitor) -> Result<(), UiError> {
    let scope = hookturn_core::workspace::Scope::Secrets;
    let may = ui.service.require(&visitor.caller, scope).await;
    may.map_err(|error| UiError::service(&error, &visitor.base))
}

pub(in crate::ui) async fn new(
    State(ui): State<UiState>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    required(&ui, &visitor).await?;
    let form = ScheduleForm::of_new(&ui, &visitor, &Typed::of_new(), &Wrong::default());
    Ok(page(StatusCode::OK, &form))
}

pub(in crate::ui) async fn create(
    State(ui): State<UiState>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let led_to =
        |id: &str| Redirect::to(&format!("{}schedules/{id}", visitor.base)).into_response();
    let once = match once::asked(&ui, &visitor, "schedules").await? {
        Asked::Again(kept) => return Ok(led_to(&String::from_utf8_lossy(&kept))),
        Asked::First(once) => once,
    };
    let record = |made: &ShownSchedule| made.schedule.id.to_string().into_bytes();
    let recording = once.as_ref().map(|once| once.record(&record));
    let (status, wrong) = match typed.new_schedule() {
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Ok(input) => {
            let made = ui
                .service
                .create_schedule(&visitor.caller, input, recording);
            match made.await {
                Ok(made) => return Ok(led_to(&made.schedule.id.to_string())),
                Err(error @ ServiceError::Forbidden { .. }) => {
                    return Err(UiError::service(&error, &visitor.base));
                }
                Err(error) => (status_of(&error), Wrong::of(&error, POINTERS)),
            }
        }
    };
    let form = ScheduleForm::of_new(&ui, &visitor, &typed, &wrong);
    Ok(page(status, &form))
}

pub(in crate::ui) async fn edit(
    State(ui): State<UiState>,
    Path(schedule): Path<String>,
    visitor: Visitor,
) -> Result<Response, UiError> {
    required(&ui, &visitor).await?;
    let old = known(&ui, &visitor, &schedule).await?.schedule;
    let form = ScheduleForm::of(&ui, &visitor, &old, &Typed::of(&old), &Wrong::default());
    Ok(page(StatusCode::OK, &form))
}

pub(in crate::ui) async fn change(
    State(ui): State<UiState>,
    Path(schedule): Path<String>,
    sent: Sent<Typed>,
) -> Result<Response, UiError> {
    let Sent {
        visitor,
        fields: typed,
    } = sent;
    let seen = known(&ui, &visitor, &schedule).await?.schedule;
    let (status, wrong) = match typed.patch() {
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Ok(patch) => {
            let version = Some(typed.version);
            let service = &ui.service;
            let changed = service.patch_schedule(&visitor.caller, seen.id, patch, version);
            match changed.await {
                Ok(_) => {
                    let there = format!("{}schedules/{}", visitor.base, seen.id);
                    return Ok(Redirect::to(&there).into_response());
                }
                Err(error @ (ServiceError::NotFound { .. } | ServiceError::Forbidden { .. })) => {
                    return Err(UiError::service(&error, &visitor.base));
                }
                Err(error) => (status_of(&error), Wrong::of(&error, POINTERS)),
            }
        }
    };
    let mut form = ScheduleForm::of(&ui, &visitor, &seen, &typed, &wrong);
    form.was.clone_from(&typed.was);
    if status == StatusCode::PRECONDITION_FAILED {
        let now = known(&ui, &visitor, &schedule).await?.schedule;
        let stored = fields(&Typed::of(&now), false, &Wrong::default());
        form.changed = changes(&typed.was, &stored, &form.fields);
        form.was = snapshot(&stored);
        form.version = now.version;
    }
    Ok(page(status, &form))
}
