//! Endpoints: created with a secret, changed, switched, deleted.
//!
//! An endpoint that exists can be signed for (G3): it is written in one change with its own keyring
//! and a first active secret, or it uses the workspace's shared keyring, which has an active one.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::endpoint::{
    BodyForm, DisabledReason, Endpoint, EndpointState, Method, Preset, ProbeSettings,
};
use hookturn_core::id::{ClientId, EndpointId, KeyringId, RotationId};
use hookturn_core::limits;
use hookturn_core::message::EventFilter;
use hookturn_core::retry::RetryPolicy;
use hookturn_core::rotation::{Command, KeyKind, Keyring, KeyringOwner, apply};
use hookturn_core::store::{Page, ReceiverState, Write};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::{App, Scope};
use zeroize::Zeroizing;

use super::keyrings::{SecretOnce, dissolve, read_value};
use super::page::Listed;
use super::{Caller, Decision, Recording, Service, ServiceError, check_text, check_version};

mod checks;
mod patch;
mod primary;

pub(super) use checks::check_header_name;
pub use patch::{Defaulted, EndpointPatch, Switch};
pub use primary::{ConfiguredApp, ConfiguredAppPatch, PrimaryConfig, PrimaryPatch, ShownSecret};

/// What a new endpoint shall be; what is `None` is as its preset documents.
#[derive(Debug, Clone, Default)]
pub struct NewEndpoint {
    /// Where deliveries go; without, the endpoint must start disabled.
    pub url: Option<String>,
    /// For people.
    pub description: String,
    /// Scheme, headers, body form and defaults.
    pub preset: Preset,
    /// `GET` for KORE callbacks only.
    pub method: Method,
    /// `Form` for KORE callbacks only.
    pub body_form: BodyForm,
    /// Event types and `prefix.*`; empty for all.
    pub events: Vec<String>,
    /// Custom headers.
    pub headers: BTreeMap<String, String>,
    /// Which keyring signs.
    pub keyring: KeyringChoice,
    /// How it starts.
    pub state: Switch,
    /// When a failed delivery is tried again.
    pub retry: Option<RetryPolicy>,
    /// Longest time of one exchange.
    pub timeout_millis: Option<Millis>,
    /// Longest time to connect.
    pub connect_timeout_millis: Option<Millis>,
    /// Exchanges that may be open at once.
    pub max_in_flight: Option<u32>,
    /// Attempts per second.
    pub rate_limit_per_second: Option<u32>,
    /// Whether deliveries keep the order of acceptance.
    pub ordered: bool,
    /// Whether and with what it is probed.
    pub probe: ProbeSettings,
}

/// Which keyring signs for a new endpoint.
#[derive(Debug, Clone)]
pub enum KeyringChoice {
    /// One of its own.
    Own {
        /// What kind of keys; Ed25519 with the preset `standard` only.
        kind: KeyKind,
        /// A value to import as the first secret; generated without.
        secret: Option<Zeroizing<String>>,
        /// What the first secret is called.
        secret_name: Option<String>,
    },
    /// The workspace's shared one.
    Shared,
}

impl Default for KeyringChoice {
    fn default() -> Self {
        Self::Own {
            kind: KeyKind::default(),
            secret: None,
            secret_name: None,
        }
    }
}

/// An endpoint that was made.
#[derive(Debug, Clone)]
pub struct CreatedEndpoint {
    /// It.
    pub endpoint: Endpoint,
    /// The first secret of its own keyring; none with the shared one.
    pub once: Option<SecretOnce>,
}

impl Service {
    /// Makes an endpoint. Needs `manage`.
    pub async fn create_endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        input: NewEndpoint,
        recording: Option<Recording<'_, CreatedEndpoint>>,
    ) -> Result<CreatedEndpoint, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let url = input
            .url
            .as_deref()
            .map(|url| self.target(url))
            .transpose()?;
        let events = checks::events(input.events.clone())?;
        self.change(caller, recording, |now| {
            let app = self.own_app(caller, app)?;
            self.check_room(&app)?;
            let mut endpoint = self.new_endpoint(&app, &input, events.clone(), now);
            endpoint.url.clone_from(&url);
            checks::check(&endpoint, &self.own_workspace(caller)?.settings)?;
            // The app's version moves with it, so that it cannot be deleted at the same time.
            let touched = App {
                version: app.version + 1,
                ..App::clone(&app)
            };
            let mut decision = match &input.keyring {
                KeyringChoice::Shared => self.on_shared_keyring(caller, endpoint)?,
                KeyringChoice::Own {
                    kind,
                    secret,
                    secret_name,
                } => {
                    self.on_own_keyring(endpoint, *kind, secret.as_ref(), secret_name.clone(), now)?
                }
            };
            decision.writes.insert(0, Write::App(touched));
            Ok(decision)
        })
        .await
    }

    fn check_room(&self, app: &App) -> Result<(), ServiceError> {
        if self.live.endpoints(app.workspace, app.id).len() >= limits::ENDPOINTS_PER_APP {
            let message = format!(
                "an app has at most {} endpoints: delete one first",
                limits::ENDPOINTS_PER_APP
            );
            return Err(ServiceError::conflict("too_many_endpoints", message));
        }
        Ok(())
    }

    fn new_endpoint(
        &self,
        app: &App,
        input: &NewEndpoint,
        events: EventFilter,
        now: Timestamp,
    ) -> Endpoint {
        let preset = input.preset;
        let timeout_millis = input.timeout_millis.unwrap_or(preset.timeout_millis());
        Endpoint {
            id: EndpointId::new(now, self.entropy.as_ref()),
            workspace: app.workspace,
            app: app.id,
            description: input.description.clone(),
            url: None,
            retargeted_at: None,
            resumed_at: None,
            preset,
            method: input.method,
            body_form: input.body_form,
            events,
            headers: input.headers.clone(),
            keyring: KeyringId::new(now, self.entropy.as_ref()),
            state: input.state.at(now),
            retry: input.retry.clone().unwrap_or_else(|| preset.retry()),
            timeout_millis,
            connect_timeout_millis: input
                .connect_timeout_millis
                .unwrap_or(preset.connect_timeout_millis().min(timeout_millis)),
            max_in_flight: input.max_in_flight.unwrap_or(self.settings.max_in_flight),
            rate_limit_per_second: input.rate_limit_per_second,
            ordered: input.ordered,
            probe: input.probe.clone(),
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }

    fn on_own_keyring(
        &self,
        endpoint: Endpoint,
        kind: KeyKind,
        given: Option<&Zeroizing<String>>,
        name: Option<String>,
        now: Timestamp,
    ) -> Result<Decision<CreatedEndpoint>, ServiceError> {
        if kind == KeyKind::Ed25519 && endpoint.preset != Preset::Standard {
            let message = "Ed25519 keys sign with the preset standard only";
            return Err(ServiceError::invalid("/secretType", message));
        }
        if let Some(name) = &name {
            check_text("/secretName", name)?;
        }
        let given = read_value(given, kind, [endpoint.preset.scheme()])?;
        let value = self.new_value(given.as_ref(), kind);
        let secret = self.named(&value, name, now);
        let id = secret.id;
        let owner = KeyringOwner::Endpoint {
            endpoint: endpoint.id,
        };
        let empty = Keyring::new(endpoint.keyring, endpoint.workspace, owner, kind);
        let command = Command::CreateSecret {
            secret,
            rotation: RotationId::new(now, self.entropy.as_ref()),
            overlap: 0,
            replace_pending: false,
            reason: None,
        };
        let applied = apply(&empty, command, now)?;
        let mut decision = self.with_new_secret(applied, id, value, |once, _| CreatedEndpoint {
            endpoint: endpoint.clone(),
            once: Some(once),
        })?;
        let made = [
            entry(AuditAction::EndpointCreated, &endpoint),
            entry(AuditAction::KeyringCreated, &endpoint),
        ];
        decision.audit.splice(0..0, made);
        decision.writes.push(Write::Endpoint(endpoint));
        Ok(decision)
    }

    fn on_shared_keyring(
        &self,
        caller: &Caller,
        endpoint: Endpoint,
    ) -> Result<Decision<CreatedEndpoint>, ServiceError> {
        let shared = self.own_workspace(caller)?.shared_keyring;
        let keyring = self.own_keyring(caller, shared)?;
        if keyring.active().is_none() {
            return Err(ServiceError::conflict(
                "shared_keyring_empty",
                format!(
                    "the workspace's keyring {shared} has no active secret: create the first secret"
                ),
            ));
        }
        // Every secret that may sign for it, now or after a promotion or undo, must fit its scheme.
        for secret in &keyring.secrets {
            let Some(value) = self.unseal(secret.id)? else {
                continue;
            };
            value
                .usable_for(endpoint.preset.scheme())
                .map_err(|error| {
                    ServiceError::invalid(
                        "/keyring",
                        format!("shared secret {}: {error}", secret.id),
                    )
                })?;
        }
        let endpoint = Endpoint {
            keyring: shared,
            ..endpoint
        };
        Ok(Decision {
            shows: None,
            writes: vec![Write::Endpoint(endpoint.clone())],
            audit: vec![entry(AuditAction::EndpointCreated, &endpoint)],
            out: CreatedEndpoint {
                endpoint,
                once: None,
            },
        })
    }

    /// A page of an app's endpoints, newest first. Needs `read`.
    pub async fn endpoints(
        &self,
        caller: &Caller,
        app: ClientId,
        page: Page<EndpointId>,
    ) -> Result<Listed<Arc<Endpoint>>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_app(caller, app)?;
        let endpoints = self.live.endpoints(caller.workspace, app);
        Ok(Listed::of(endpoints.into_iter().rev(), &page, |e| e.id))
    }

    /// One endpoint of an app. Needs `read`.
    pub async fn endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
    ) -> Result<Arc<Endpoint>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.own_endpoint(caller, app, id)
    }

    /// What is known of an endpoint's receiver. Needs `read`.
    pub async fn receiver(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
    ) -> Result<Arc<ReceiverState>, ServiceError> {
        let endpoint = self.endpoint(caller, app, id).await?;
        Ok(self.live.receiver(endpoint.id))
    }

    pub(super) fn own_endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
    ) -> Result<Arc<Endpoint>, ServiceError> {
        let found = self.live.endpoint(id);
        if let Some(foreign) = found.as_deref()
            && foreign.workspace != caller.workspace
        {
            self.note_foreign(caller, foreign.workspace);
        }
        found
            .filter(|endpoint| endpoint.workspace == caller.workspace && endpoint.app == app)
            .filter(|endpoint| !matches!(endpoint.state, EndpointState::Deleted { .. }))
            .ok_or(ServiceError::not_found("endpoint"))
    }

    /// Deletes an endpoint and erases the secrets of its own keyring. What was waiting is exhausted
    /// by dispatch. Needs `manage`.
    pub async fn delete_endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
        if_match: Option<u64>,
        recording: Option<Recording<'_, ()>>,
    ) -> Result<(), ServiceError> {
        self.require(caller, Scope::Manage).await?;
        self.change(caller, recording, |now| {
            let endpoint = self.own_endpoint(caller, app, id)?;
            check_version(if_match, endpoint.version)?;
            let mut writes = Vec::new();
            let mut audit = Vec::new();
            self.remove_endpoint(&endpoint, now, &mut writes, &mut audit);
            let app = self.own_app(caller, app)?;
            if app.primary_endpoint == Some(id) {
                writes.push(Write::App(App {
                    primary_endpoint: None,
                    version: app.version + 1,
                    updated_at: now,
                    ..App::clone(&app)
                }));
            }
            Ok(Decision {
                shows: None,
                writes,
                audit,
                out: (),
            })
        })
        .await
    }

    /// The writes that delete an endpoint.
    pub(super) fn remove_endpoint(
        &self,
        endpoint: &Endpoint,
        now: Timestamp,
        writes: &mut Vec<Write>,
        audit: &mut Vec<AuditEntry>,
    ) {
        let deleted = Endpoint {
            state: EndpointState::Deleted { since: now },
            version: endpoint.version + 1,
            updated_at: now,
            ..endpoint.clone()
        };
        audit.push(entry(AuditAction::EndpointDeleted, &deleted));
        writes.push(Write::Endpoint(deleted));
        let own = self.live.keyring(endpoint.keyring).filter(|keyring| {
            keyring.owner
                == KeyringOwner::Endpoint {
                    endpoint: endpoint.id,
                }
        });
        if let Some(keyring) = own {
            let (ended, recorded) = dissolve(&keyring, now);
            writes.extend(ended);
            audit.extend(recorded);
        }
    }
}

fn entry(action: AuditAction, endpoint: &Endpoint) -> AuditEntry {
    let subject = Subject {
        app: Some(endpoint.app),
        endpoint: Some(endpoint.id),
        keyring: Some(endpoint.keyring),
        ..Subject::default()
    };
    AuditEntry::new(action, subject)
}

/// The disabled state of an owner's choice.
const fn disabled_by_owner(since: Timestamp) -> EndpointState {
    EndpointState::Disabled {
        since,
        reason: DisabledReason::ByOwner,
    }
}
