//! Apps: the consumers of webhooks in a workspace.
//!
//! An app's version counts the creation of its endpoints too, so that creating an endpoint and
//! deleting its app cannot cross: one of them loses and decides again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry, Changes, Subject};
use hookturn_core::id::ClientId;
use hookturn_core::limits::LABELS;
use hookturn_core::store::{Page, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{App, Scope};

use super::page::Listed;
use super::workspaces::check_overlap_seconds;
use super::{
    Caller, Decision, Recording, Service, ServiceError, check_name, check_text, check_version,
};

/// What a new app shall be.
#[derive(Debug, Clone, Default)]
pub struct NewApp {
    /// For people.
    pub name: String,
    /// Free text pairs.
    pub labels: BTreeMap<String, String>,
    /// Overlap of a dialect's rotate call in seconds.
    pub rotation_overlap_seconds: Option<u32>,
}

/// What to change of an app; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AppPatch {
    /// Its name.
    pub name: Option<String>,
    /// Its labels, as a whole.
    pub labels: Option<BTreeMap<String, String>>,
    /// Overlap of a dialect's rotate call in seconds.
    pub rotation_overlap_seconds: Option<Option<u32>>,
}

/// The place of an app in lists: client ids do not sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppPlace {
    /// When it was made.
    pub created_at: Timestamp,
    /// Its id.
    pub id: ClientId,
}

impl AppPlace {
    /// The place of an app.
    pub const fn of(app: &App) -> Self {
        Self {
            created_at: app.created_at,
            id: app.id,
        }
    }
}

impl Service {
    /// Makes an app. Needs `manage`.
    pub async fn create_app(
        &self,
        caller: &Caller,
        input: NewApp,
        recording: Option<Recording<'_, App>>,
    ) -> Result<App, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        check_name("/name", &input.name)?;
        check_labels(&input.labels)?;
        check_overlap_seconds(input.rotation_overlap_seconds)?;
        self.change(caller, recording, |now| {
            // A client id that is taken is a conflict, and the next try draws another.
            let app = App {
                id: ClientId::new(self.entropy.as_ref()),
                workspace: caller.workspace,
                name: input.name.clone(),
                labels: input.labels.clone(),
                rotation_overlap_seconds: input.rotation_overlap_seconds,
                primary_endpoint: None,
                version: 1,
                created_at: now,
                updated_at: now,
            };
            Ok(Decision {
                shows: None,
                writes: vec![Write::App(app.clone())],
                audit: vec![entry(AuditAction::AppCreated, &app)],
                out: app,
            })
        })
        .await
    }

    /// A page of apps, newest first. Needs `read`.
    pub async fn apps(
        &self,
        caller: &Caller,
        page: Page<AppPlace>,
    ) -> Result<Listed<Arc<App>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let apps = self.live.apps(caller.workspace);
        Ok(Listed::of(apps, &page, |app| AppPlace::of(app)))
    }

    /// One app. Needs `read`.
    pub async fn app(&self, caller: &Caller, id: ClientId) -> Result<Arc<App>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_app(caller, id)
    }

    pub(super) fn own_app(&self, caller: &Caller, id: ClientId) -> Result<Arc<App>, ServiceError> {
        let found = self.live.app(caller.workspace, id);
        if found.is_none() {
            self.note_foreign_app(caller, id);
        }
        found.ok_or(ServiceError::not_found("app"))
    }

    /// Changes an app. What is so already changes nothing, its version included. Needs `manage`.
    pub async fn patch_app(
        &self,
        caller: &Caller,
        id: ClientId,
        patch: AppPatch,
        if_match: Option<u64>,
        recording: Option<Recording<'_, App>>,
    ) -> Result<App, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        if let Some(name) = &patch.name {
            check_name("/name", name)?;
        }
        if let Some(labels) = &patch.labels {
            check_labels(labels)?;
        }
        check_overlap_seconds(patch.rotation_overlap_seconds.flatten())?;
        self.change(caller, recording, |now| {
            let old = self.own_app(caller, id)?;
            check_version(if_match, old.version)?;
            let patch = patch.clone();
            let app = App {
                name: patch.name.unwrap_or_else(|| old.name.clone()),
                labels: patch.labels.unwrap_or_else(|| old.labels.clone()),
                rotation_overlap_seconds: patch
                    .rotation_overlap_seconds
                    .unwrap_or(old.rotation_overlap_seconds),
                ..App::clone(&old)
            };
            if app == *old {
                return Ok(Decision::nothing(app));
            }
            let app = App {
                version: old.version + 1,
                updated_at: now,
                ..app
            };
            Ok(Decision {
                shows: None,
                writes: vec![Write::App(app.clone())],
                audit: vec![updated(&old, &app)],
                out: app,
            })
        })
        .await
    }

    /// Deletes an app with its endpoints, and erases the secrets of their own keyrings. What was
    /// waiting is exhausted by dispatch. Needs `manage`.
    pub async fn delete_app(
        &self,
        caller: &Caller,
        id: ClientId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ()>>,
    ) -> Result<(), ServiceError> {
        self.require(caller, Scope::Manage).await?;
        self.change(caller, recording, |now| {
            let app = self.own_app(caller, id)?;
            check_version(if_match, app.version)?;
            let mut writes = Vec::new();
            let mut audit = Vec::new();
            for endpoint in self.live.endpoints(caller.workspace, id) {
                self.remove_endpoint(&endpoint, now, &mut writes, &mut audit);
            }
            writes.push(Write::RemoveApp {
                workspace: caller.workspace,
                app: id,
                version: app.version,
            });
            audit.push(entry(AuditAction::AppDeleted, &app));
            Ok(Decision {
                shows: None,
                writes,
                audit,
                out: (),
            })
        })
        .await
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    if labels.len() > LABELS {
        return Err(ServiceError::invalid(
            "/labels",
            format!("at most {LABELS} labels"),
        ));
    }
    for (name, value) in labels {
        let pointer = format!("/labels/{}", name.replace('~', "~0").replace('/', "~1"));
        check_name(&pointer, name)?;
        check_text(&pointer, value)?;
    }
    Ok(())
}

/// What changed of an app.
pub(super) fn updated(old: &App, new: &App) -> AuditEntry {
    let labels = |labels: &BTreeMap<String, String>| {
        let pairs: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(", ")
    };
    let overlap = |app: &App| app.rotation_overlap_seconds;
    Changes::new()
        .field("name", &old.name, &new.name, String::clone)
        .field("labels", &old.labels, &new.labels, labels)
        .optional(
            "rotationOverlapSeconds",
            overlap(old).as_ref(),
            overlap(new).as_ref(),
        )
        .write(entry(AuditAction::AppUpdated, new))
}

pub(super) fn entry(action: AuditAction, app: &App) -> AuditEntry {
    let subject = Subject {
        app: Some(app.id),
        ..Subject::default()
    };
    AuditEntry::new(action, subject).with("name", &app.name)
}
