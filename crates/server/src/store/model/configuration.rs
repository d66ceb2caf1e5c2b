//! Configuration: versioned documents changed by compare-and-swap, and sealed secrets.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::id::{
    ApiKeyId, ClientId, EndpointId, KeyringId, RotationId, SecretId, WorkspaceId,
};
use hookturn_core::proof::Findings;
use hookturn_core::rotation::{Keyring, Rotation};
use hookturn_core::store::{
    Configuration, KeptFigures, Page, ReceiverState, SealedSecret, StoreError, Write,
};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{ApiKey, App, Workspace};

use super::Outcome;
use super::bulks::{Bulks, Marks};
use super::planned::Planned;

/// Every document, by its id.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    api_keys: BTreeMap<ApiKeyId, ApiKey>,
    api_key_uses: BTreeMap<ApiKeyId, Timestamp>,
    apps: BTreeMap<(WorkspaceId, ClientId), App>,
    pub(super) endpoints: BTreeMap<EndpointId, Endpoint>,
    keyrings: BTreeMap<KeyringId, Keyring>,
    pub(super) rotations: BTreeMap<RotationId, Rotation>,
    pub(super) secrets: BTreeMap<SecretId, SealedSecret>,
    pub(super) receivers: BTreeMap<EndpointId, ReceiverState>,
    findings: BTreeMap<EndpointId, Findings>,
    pub(super) bulks: Bulks,
    pub(super) marks: Marks,
    pub(super) planned: Planned,
    figures: BTreeMap<WorkspaceId, KeptFigures>,
}

impl Documents {
    pub(super) fn load(&self) -> Configuration {
        let owner = |id: &EndpointId| self.endpoints.get(id).map(|endpoint| endpoint.workspace);
        let mut loaded = Configuration {
            workspaces: self.workspaces.values().cloned().collect(),
            api_keys: self.api_keys.values().cloned().collect(),
            apps: self.apps.values().cloned().collect(),
            endpoints: self.endpoints.values().cloned().collect(),
            keyrings: self.keyrings.values().cloned().collect(),
            secrets: self.secrets.values().cloned().collect(),
            receivers: self
                .receivers
                .iter()
                .filter_map(|(id, receiver)| Some((owner(id)?, *id, receiver.clone())))
                .collect(),
            findings: self
                .findings
                .iter()
                .map(|(id, found)| (*id, *found))
                .collect(),
            api_key_uses: self
                .api_key_uses
                .iter()
                .map(|(id, at)| (*id, *at))
                .collect(),
            bulks: self.bulks.open(),
            mark_key: self.marks.key(),
            ..Configuration::default()
        };
        self.planned.load(&mut loaded);
        loaded
    }

    pub(super) fn workspaces(&self) -> impl Iterator<Item = WorkspaceId> {
        self.workspaces.keys().copied()
    }

    pub(super) fn known_workspace(&self, id: WorkspaceId) -> Outcome<()> {
        if self.workspaces.contains_key(&id) {
            Ok(())
        } else {
            Err(conflict("workspace", &id))
        }
    }

    /// Writes one document if its version is the next one.
    pub(super) fn write(&mut self, write: &Write) -> Outcome<()> {
        match write {
            Write::Workspace(workspace) => self.put_workspace(workspace),
            Write::ApiKey(key) => self.put_api_key(key),
            Write::App(app) => {
                let known = self.apps.get(&(app.workspace, app.id));
                next_version(
                    known.map(|known| known.version),
                    app.version,
                    "app",
                    &app.id,
                )?;
                self.apps.insert((app.workspace, app.id), app.clone());
                Ok(())
            }
            Write::RemoveApp {
                workspace,
                app,
                version,
            } => {
                let known = self.apps.get(&(*workspace, *app));
                if known.is_none_or(|known| known.version != *version) {
                    return Err(conflict("app", app));
                }
                self.apps.remove(&(*workspace, *app));
                Ok(())
            }
            Write::Endpoint(endpoint) => self.put_endpoint(endpoint),
            Write::Keyring(keyring) => {
                let known = self.keyrings.get(&keyring.id).map(|known| known.version);
                next_version(known, keyring.version, "keyring", &keyring.id)?;
                self.keyrings.insert(keyring.id, keyring.clone());
                Ok(())
            }
            Write::Rotation(rotation) => {
                self.rotations.insert(rotation.id, rotation.clone());
                Ok(())
            }
            Write::Secret(secret) => match self.secrets.insert(secret.secret, secret.clone()) {
                None => Ok(()),
                Some(_) => Err(StoreError::Duplicate {
                    what: format!("secret {}", secret.secret),
                }),
            },
            Write::Findings {
                endpoint, findings, ..
            } => {
                let known = self.endpoints.get(endpoint);
                if known.is_some_and(|known| !is_deleted(known)) {
                    self.findings.insert(*endpoint, *findings);
                }
                Ok(())
            }
            Write::EraseSecret { secret, .. } => {
                self.secrets.remove(secret);
                Ok(())
            }
            Write::Mark(marked) => {
                let has_value = self.secrets.contains_key(&marked.secret);
                self.marks.put(marked, has_value);
                Ok(())
            }
            Write::MarkKey { sealed, old } => self.marks.put_key(sealed, old.as_ref()),
            Write::Bulk(bulk) => self.bulks.put(bulk),
            Write::BulkItem(item) => self.bulks.put_item(item),
            Write::Noted { keyring, noted, .. } => {
                self.planned.note(*keyring, noted);
                Ok(())
            }
            // Its messages are traffic, and written there.
            Write::Reported {
                workspace,
                after,
                through,
                ..
            } => self.planned.report(*workspace, *after, *through),
            Write::Schedule(schedule) => self.planned.put(schedule),
            Write::RemoveSchedule {
                schedule, version, ..
            } => self.planned.remove(*schedule, *version),
            Write::ScheduleNote {
                schedule,
                keyring,
                note,
                ..
            } => self.planned.put_note(*schedule, *keyring, note),
            // Traffic, and written there.
            Write::Requeue { .. } => Ok(()),
        }
    }

    fn put_workspace(&mut self, workspace: &Workspace) -> Outcome<()> {
        let known = self.workspaces.get(&workspace.id);
        next_version(
            known.map(|known| known.version),
            workspace.version,
            "workspace",
            &workspace.id,
        )?;
        let namesake = |other: &Workspace| other.name == workspace.name && other.id != workspace.id;
        if self.workspaces.values().any(namesake) {
            return Err(StoreError::Duplicate {
                what: format!("a workspace named {}", workspace.name),
            });
        }
        self.workspaces.insert(workspace.id, workspace.clone());
        Ok(())
    }

    fn put_api_key(&mut self, key: &ApiKey) -> Outcome<()> {
        let known = self.api_keys.get(&key.id).map(|known| known.version);
        next_version(known, key.version, "API key", &key.id)?;
        let same = |other: &ApiKey| other.hash == key.hash && other.id != key.id;
        if self.api_keys.values().any(same) {
            return Err(StoreError::Duplicate {
                what: "an API key with this text".to_owned(),
            });
        }
        self.api_keys.insert(key.id, key.clone());
        Ok(())
    }

    fn put_endpoint(&mut self, endpoint: &Endpoint) -> Outcome<()> {
        let known = self.endpoints.get(&endpoint.id).map(|known| known.version);
        next_version(known, endpoint.version, "endpoint", &endpoint.id)?;
        self.endpoints.insert(endpoint.id, endpoint.clone());
        Ok(())
    }

    pub(super) fn rotations(
        &self,
        workspace: WorkspaceId,
        keyring: Option<KeyringId>,
        page: Page<RotationId>,
    ) -> Vec<Rotation> {
        let wanted = |rotation: &&Rotation| {
            rotation.workspace == workspace
                && keyring.is_none_or(|only| rotation.keyring == only)
                && page.before.is_none_or(|before| rotation.id < before)
        };
        let newest_first = self.rotations.values().rev();
        newest_first
            .filter(wanted)
            .take(page.limit)
            .cloned()
            .collect()
    }

    /// Secrets that have a value and no mark, the oldest first.
    pub(super) fn unmarked(&self, limit: usize) -> Vec<SecretId> {
        let all = self.secrets.keys().copied();
        all.filter(|secret| !self.marks.is_marked(*secret))
            .take(limit)
            .collect()
    }

    pub(super) fn reseal(
        &mut self,
        swaps: Vec<(SealedSecret, Arc<[u8]>)>,
        done: &mut Vec<(SealedSecret, Arc<[u8]>)>,
    ) -> usize {
        for (fresh, old) in swaps {
            if let Some(held) = self.secrets.get_mut(&fresh.secret)
                && held.sealed == old
            {
                *held = fresh.clone();
                done.push((fresh, old));
            }
        }
        done.len()
    }

    pub(super) fn touch(&mut self, uses: Vec<(ApiKeyId, Timestamp)>) {
        for (key, used_at) in uses {
            let known = self.api_key_uses.entry(key).or_insert(used_at);
            *known = used_at.max(*known);
        }
    }

    pub(super) fn keep_figures(&mut self, kept: Vec<KeptFigures>, forget_before: Timestamp) {
        let kept = kept.into_iter().map(|one| (one.workspace, one));
        self.figures.extend(kept);
        self.figures.retain(|_, one| one.at >= forget_before);
    }

    pub(super) fn kept_figures(&self, limit: usize) -> Vec<KeptFigures> {
        let mut kept: Vec<_> = self.figures.values().cloned().collect();
        kept.sort_by_key(|one| std::cmp::Reverse(one.at));
        kept.truncate(limit);
        kept
    }

    /// Forgets endpoints that were deleted before this time and that `needed` does not name.
    pub(super) fn forget(
        &mut self,
        deleted_before: Timestamp,
        needed: impl Fn(EndpointId) -> bool,
    ) -> Vec<EndpointId> {
        let gone = |endpoint: &Endpoint| match endpoint.state {
            EndpointState::Deleted { since } => since < deleted_before && !needed(endpoint.id),
            _ => false,
        };
        let forgotten: Vec<_> = self.endpoints.values().filter(|one| gone(one)).collect();
        let forgotten: Vec<_> = forgotten.iter().map(|endpoint| endpoint.id).collect();
        for id in &forgotten {
            self.endpoints.remove(id);
            self.receivers.remove(id);
            self.findings.remove(id);
        }
        forgotten
    }
}

const fn is_deleted(endpoint: &Endpoint) -> bool {
    matches!(endpoint.state, EndpointState::Deleted { .. })
}

pub(super) fn conflict(kind: &str, id: &dyn Display) -> StoreError {
    StoreError::Conflict {
        what: format!("{kind} {id}"),
    }
}

/// Version 1 must not exist yet, and any other must be one more than what is stored.
pub(super) fn next_version(
    known: Option<u64>,
    version: u64,
    kind: &str,
    id: &dyn Display,
) -> Outcome<()> {
    let expected = match known {
        None => version == 1,
        Some(known) => version > 1 && known == version - 1,
    };
    if expected {
        Ok(())
    } else {
        Err(conflict(kind, id))
    }
}
