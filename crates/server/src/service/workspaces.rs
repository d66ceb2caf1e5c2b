//! Workspaces: customer accounts of the operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry, Changes, Subject};
use hookturn_core::endpoint::{Endpoint, EndpointState, HeaderRenames, Preset};
use hookturn_core::id::{ClientId, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::{Page, Write};
use hookturn_core::time::SECOND;
use hookturn_core::workspace::{Reach, RevealPolicy, Scope, Workspace, WorkspaceSettings};
use hookturn_verify::HeaderNames;

use super::endpoints::check_header_name;
use super::page::Listed;
use super::{Caller, Decision, Recording, Service, ServiceError, check_version};
use crate::courier::request::{extra_header_name, header_names, preset_header_names};

/// What to change of a workspace; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct WorkspacePatch {
    /// Its name.
    pub name: Option<String>,
    /// Whether secrets can be revealed; needs `secrets`.
    pub reveal_secrets: Option<RevealPolicy>,
    /// White label, as a whole.
    pub header_names: Option<BTreeMap<Preset, HeaderRenames>>,
    /// Overlap of a dialect's rotate call in seconds.
    pub rotation_overlap_seconds: Option<Option<u32>>,
    /// The app that receives Hookturn's own events.
    pub operational_app: Option<Option<ClientId>>,
}

impl Service {
    /// The name of the workspace that a caller acts in.
    pub fn workspace_name(&self, caller: &Caller) -> String {
        let found = self.live.workspace(caller.workspace);
        found.map_or_else(|| caller.workspace.to_string(), |found| found.name.clone())
    }

    /// The header names of a preset in the workspace that a caller acts in.
    pub fn header_names(
        &self,
        caller: &Caller,
        preset: Preset,
    ) -> Result<HeaderNames, ServiceError> {
        let workspace = self.own_workspace(caller)?;
        Ok(header_names(preset, &workspace))
    }

    /// Makes a workspace with an empty shared keyring. Operators only; needs `manage`.
    pub async fn create_workspace(
        &self,
        caller: &Caller,
        name: String,
        recording: Option<Recording<'_, Workspace>>,
    ) -> Result<Workspace, ServiceError> {
        self.require_operator(caller).await?;
        self.require(caller, Scope::Manage).await?;
        check_workspace_name(&name)?;
        let id = WorkspaceId::new(self.clock.now(), self.entropy.as_ref());
        self.change_of(id, (), caller, recording, |now| {
            let (writes, audit, out) = self.new_workspace(id, &name, now);
            Ok(Decision {
                shows: None,
                writes,
                audit,
                out,
            })
        })
        .await
    }

    /// The workspaces the caller's key reaches, newest first. Needs `read`.
    pub async fn workspaces(
        &self,
        caller: &Caller,
        page: Page<WorkspaceId>,
    ) -> Result<Listed<Arc<Workspace>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let all = self.live.workspaces().into_iter().rev();
        let reached = all.filter(|workspace| reaches(caller, workspace.id));
        Ok(Listed::of(reached, &page, |workspace| workspace.id))
    }

    /// One workspace. Needs `read`.
    pub async fn workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
    ) -> Result<Arc<Workspace>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.reached_workspace(caller, id)
    }

    /// The id of the workspace that has this id or name.
    pub fn workspace_called(&self, called: &str) -> Result<WorkspaceId, ServiceError> {
        self.workspace_id(called)
            .ok_or(ServiceError::not_found("workspace"))
    }

    fn reached_workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
    ) -> Result<Arc<Workspace>, ServiceError> {
        let found = self.live.workspace(id);
        if let Some(foreign) = found.as_deref()
            && !reaches(caller, foreign.id)
        {
            self.note_foreign(caller, foreign.id);
        }
        found
            .filter(|workspace| reaches(caller, workspace.id))
            .ok_or(ServiceError::not_found("workspace"))
    }

    /// The caller's own workspace, which settings are asked of.
    pub(super) fn own_workspace(&self, caller: &Caller) -> Result<Arc<Workspace>, ServiceError> {
        self.reached_workspace(caller, caller.workspace)
    }

    /// Changes a workspace's settings. What is so already changes nothing, its version included. Needs
    /// `manage`; the reveal policy needs `secrets` too.
    pub async fn patch_workspace(
        &self,
        caller: &Caller,
        id: WorkspaceId,
        patch: WorkspacePatch,
        if_match: Option<u64>,
        recording: Option<Recording<'_, Workspace>>,
    ) -> Result<Workspace, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        if patch.reveal_secrets.is_some() {
            self.require(caller, Scope::Secrets).await?;
        }
        self.check_workspace_patch(id, &patch)?;
        self.change_of(id, (), caller, recording, |now| {
            let old = self.reached_workspace(caller, id)?;
            check_version(if_match, old.version)?;
            if let Some(name) = &patch.name {
                self.check_name_is_free(id, name)?;
            }
            let patch = patch.clone();
            let settings = &old.settings;
            let out = Workspace {
                name: patch.name.unwrap_or_else(|| old.name.clone()),
                settings: WorkspaceSettings {
                    reveal_secrets: patch.reveal_secrets.unwrap_or(settings.reveal_secrets),
                    header_names: patch
                        .header_names
                        .unwrap_or_else(|| settings.header_names.clone()),
                    rotation_overlap_seconds: patch
                        .rotation_overlap_seconds
                        .unwrap_or(settings.rotation_overlap_seconds),
                    operational_app: patch.operational_app.unwrap_or(settings.operational_app),
                },
                ..Workspace::clone(&old)
            };
            if out == *old {
                return Ok(Decision::nothing(out));
            }
            let out = Workspace {
                version: old.version + 1,
                updated_at: now,
                ..out
            };
            Ok(Decision {
                shows: None,
                writes: vec![Write::Workspace(out.clone())],
                audit: vec![updated(&old, &out)],
                out,
            })
        })
        .await
    }

    fn check_name_is_free(&self, id: WorkspaceId, name: &str) -> Result<(), ServiceError> {
        match self.live.workspace_named(name) {
            Some(other) if other.id != id => Err(ServiceError::conflict(
                "already_exists",
                format!("a workspace named {name} already exists; choose another name"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn check_workspace_patch(
        &self,
        id: WorkspaceId,
        patch: &WorkspacePatch,
    ) -> Result<(), ServiceError> {
        if let Some(name) = &patch.name {
            check_workspace_name(name)?;
        }
        for (preset, renames) in patch.header_names.iter().flatten() {
            check_renames(*preset, renames)?;
            self.check_no_custom_header(id, *preset, renames)?;
        }
        if let Some(overlap) = patch.rotation_overlap_seconds {
            check_overlap_seconds(overlap)?;
        }
        match patch.operational_app.flatten() {
            Some(app) if self.live.app(id, app).is_none() => {
                Err(ServiceError::invalid("/operationalApp", "no such app"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that no endpoint has a custom header of a name that the white label takes.
    fn check_no_custom_header(
        &self,
        id: WorkspaceId,
        preset: Preset,
        renames: &HeaderRenames,
    ) -> Result<(), ServiceError> {
        let concerned = |endpoint: &Arc<Endpoint>| {
            endpoint.workspace == id
                && endpoint.preset == preset
                && !matches!(endpoint.state, EndpointState::Deleted { .. })
        };
        for endpoint in self.live.all_endpoints().into_iter().filter(concerned) {
            for (field, name) in fields_of(renames) {
                let Some(name) = name else { continue };
                let mut custom = endpoint.headers.keys();
                if custom.any(|custom| custom.eq_ignore_ascii_case(name)) {
                    let pointer = format!("/headerNames/{preset}/{field}");
                    let message = format!(
                        "the endpoint {} has a custom header of this name; take it away first, or choose another name",
                        endpoint.id
                    );
                    return Err(ServiceError::invalid(pointer, message));
                }
            }
        }
        Ok(())
    }
}

/// The header names of a preset before anybody renames them.
pub fn own_header_names(preset: Preset) -> HeaderNames {
    preset_header_names(preset)
}

fn reaches(caller: &Caller, id: WorkspaceId) -> bool {
    match caller.key.reach {
        Reach::Operator => true,
        Reach::Workspace { workspace, .. } => workspace == id,
    }
}

/// What changed of a workspace.
fn updated(old: &Workspace, new: &Workspace) -> AuditEntry {
    let Workspace {
        name,
        settings:
            WorkspaceSettings {
                reveal_secrets,
                header_names,
                rotation_overlap_seconds,
                operational_app,
            },
        ..
    } = new;
    let was = &old.settings;
    Changes::new()
        .field("name", &old.name, name, String::clone)
        .field(
            "revealSecrets",
            &was.reveal_secrets,
            reveal_secrets,
            |policy| reveal_word(*policy).to_owned(),
        )
        .field("headerNames", &was.header_names, header_names, renames)
        .optional(
            "rotationOverlapSeconds",
            was.rotation_overlap_seconds.as_ref(),
            rotation_overlap_seconds.as_ref(),
        )
        .optional(
            "operationalApp",
            was.operational_app.as_ref(),
            operational_app.as_ref(),
        )
        .write(AuditEntry::new(
            AuditAction::WorkspaceUpdated,
            Subject::default(),
        ))
}

/// `hopae.signature=X-Acme-Signature, …`
fn renames(all: &BTreeMap<Preset, HeaderRenames>) -> String {
    let named = all.iter().flat_map(|(preset, renames)| {
        fields_of(renames)
            .into_iter()
            .filter_map(move |(field, name)| {
                let name = name.as_ref()?;
                Some(format!("{preset}.{field}={name}"))
            })
    });
    named.collect::<Vec<_>>().join(", ")
}

const fn reveal_word(policy: RevealPolicy) -> &'static str {
    match policy {
        RevealPolicy::Allowed => "allowed",
        RevealPolicy::Never => "never",
    }
}

/// A workspace is named in a header, in paths and on command lines: it must neither look like an id nor
/// lead to another path, as dots alone would.
fn check_workspace_name(name: &str) -> Result<(), ServiceError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=limits::TEXT_CHARS).contains(&name.len()) && name.bytes().all(word);
    let is_dots = name.bytes().all(|byte| byte == b'.');
    if !fits || is_dots || name.parse::<WorkspaceId>().is_ok() {
        let message = format!(
            "a workspace's name is 1 to {} letters, digits, `-`, `_` and `.`, not dots alone, and no id",
            limits::TEXT_CHARS
        );
        return Err(ServiceError::invalid("/name", message));
    }
    Ok(())
}

pub(super) fn check_overlap_seconds(overlap: Option<u32>) -> Result<(), ServiceError> {
    let most = limits::OVERLAP_MAX / SECOND;
    if overlap.is_some_and(|overlap| u64::from(overlap) > most) {
        let message = format!("an overlap lasts at most {most} seconds");
        return Err(ServiceError::invalid("/rotationOverlapSeconds", message));
    }
    Ok(())
}

/// Checks that every header of a preset has a name of its own, those that keep theirs included: of two
/// with one name, one is not sent.
fn check_renames(preset: Preset, renames: &HeaderRenames) -> Result<(), ServiceError> {
    let own = preset_header_names(preset);
    let own = [own.id, own.timestamp, Some(own.signature)];
    let fields = fields_of(renames).into_iter().zip(own);
    // Those that keep their names come first, so that what is refused is always a rename.
    let (renamed, kept): (Vec<_>, Vec<_>) = fields.partition(|((_, name), _)| name.is_some());
    let mut taken: Vec<String> = kept
        .into_iter()
        .filter_map(|(_, own)| Some(own?.into_owned()))
        .chain(extra_header_name(preset).map(|extra| extra.to_string()))
        .collect();
    for (field, name) in renamed.into_iter().filter_map(|((field, name), _)| {
        let name = name.as_deref()?;
        Some((field, name))
    }) {
        let pointer = format!("/headerNames/{preset}/{field}");
        check_header_name(name).map_err(|message| ServiceError::invalid(&*pointer, message))?;
        let lower = name.to_ascii_lowercase();
        if taken.contains(&lower) {
            let message = format!("another header of the preset {preset} is named {lower}");
            return Err(ServiceError::invalid(pointer, message));
        }
        taken.push(lower);
    }
    Ok(())
}

/// The names of a white label by their fields.
fn fields_of(renames: &HeaderRenames) -> [(&'static str, &Option<String>); 3] {
    [
        ("id", &renames.id),
        ("timestamp", &renames.timestamp),
        ("signature", &renames.signature),
    ]
}
