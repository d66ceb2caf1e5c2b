//! An app's primary endpoint: the one webhook configuration that an app has in Hopae's words.
//!
//! It is an endpoint like any other, of preset `hopae`, with a keyring of its own; the app remembers
//! which one it is. The native API shows it, changes it and delivers to it like the rest.
//!
//! 1. An app that is made here has one from the start: disabled, without a URL, with a secret.
//! 2. An app that was made otherwise has none until it is patched or rotated here. Until then it
//!    reads as the preset's defaults, disabled, without a secret. A deleted one counts as none.
//! 3. What is patched is merged. Saying what is so already changes nothing: `enabled: false` leaves
//!    a paused endpoint paused, the reason why it is disabled stays, and so do delays and parts of a
//!    second that the native API set.
//! 4. Rotating is immediate, or an overlap where the app (or else the workspace) says how long. An
//!    overlap is refused while a rotation is open: a live secret is not thrown away.
//! 5. A secret is shown to keys with the scope `secrets` where the workspace's policy lets it be
//!    seen again, and that is audited before it leaves; everyone else sees its last characters.

use std::sync::Arc;

use hookturn_core::audit::{AuditAction, AuditEntry};
use hookturn_core::endpoint::{Endpoint, EndpointState, Preset, TargetUrl};
use hookturn_core::id::{ClientId, KeyringId, RotationId};
use hookturn_core::limits;
use hookturn_core::message::EventFilter;
use hookturn_core::retry::RetryPolicy;
use hookturn_core::rotation::{Command, KeyKind, Mode, Rotation, SecretVersion, Stage, apply};
use hookturn_core::store::Write;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use hookturn_core::workspace::{App, RevealPolicy, Scope};
use hookturn_verify::Secret;

use super::super::apps::{entry as app_entry, updated as app_updated};
use super::super::keyrings::{SecretOnce, revealed};
use super::super::{Caller, Decision, Recording, Service, ServiceError, check_name};
use super::patch::{EndpointPatch, Switch, patched, replaced};
use super::{NewEndpoint, checks};

/// Shortest secret whose last characters are shown in its redacted form.
const HINTED_CHARS: usize = 32;
/// How many of them.
const HINT_CHARS: usize = 4;

/// An app with its primary endpoint, if it has one.
#[derive(Debug, Clone)]
pub struct ConfiguredApp {
    /// The app.
    pub app: Arc<App>,
    /// Its primary endpoint.
    pub primary: Option<Arc<Endpoint>>,
}

/// A primary endpoint with its active secret, as far as the caller may see it.
#[derive(Debug, Clone, Default)]
pub struct PrimaryConfig {
    /// The endpoint; none if the app has no primary one.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Its active secret.
    pub secret: Option<ShownSecret>,
}

/// A secret as far as a caller may see it. `Debug` never shows the value.
#[derive(Debug, Clone)]
pub enum ShownSecret {
    /// The value; the reveal is in the audit log.
    Value(Secret),
    /// Its last characters only.
    Redacted {
        /// Four of them, or none of a secret that is too short to spare any.
        last: String,
    },
}

/// What to change of a primary endpoint; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct PrimaryPatch {
    /// Where deliveries go.
    pub url: Option<String>,
    /// Whether it takes deliveries.
    pub enabled: Option<bool>,
    /// Retries after the first attempt.
    pub retry_attempts: Option<u32>,
    /// Longest time of one exchange in seconds.
    pub timeout_seconds: Option<u32>,
    /// Event types, as a whole; all of them when empty.
    pub events: Option<Vec<String>>,
}

/// What to change of an app and its primary endpoint.
#[derive(Debug, Clone, Default)]
pub struct ConfiguredAppPatch {
    /// The app's name.
    pub name: Option<String>,
    /// Its primary endpoint.
    pub webhook_config: Option<PrimaryPatch>,
}

/// A [`PrimaryPatch`] whose fields are what they must be.
#[derive(Debug, Clone, Default)]
struct Checked {
    url: Option<TargetUrl>,
    enabled: Option<bool>,
    retry: Option<RetryPolicy>,
    timeout_millis: Option<Millis>,
    events: Option<EventFilter>,
}

/// A primary endpoint that was made.
struct Made {
    app: App,
    endpoint: Endpoint,
    once: SecretOnce,
}

impl Service {
    /// One app with its primary endpoint. Needs `read`.
    pub async fn configured_app(
        &self,
        caller: &Caller,
        id: ClientId,
    ) -> Result<ConfiguredApp, ServiceError> {
        self.require(caller, Scope::Read).await?;
        Ok(self.configured(self.own_app(caller, id)?))
    }

    /// The apps of the workspace, newest first: `limit` of them after the first `offset`, and how
    /// many there are. Needs `read`.
    pub async fn configured_apps(
        &self,
        caller: &Caller,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<ConfiguredApp>, usize), ServiceError> {
        self.require(caller, Scope::Read).await?;
        let apps = self.live.apps(caller.workspace);
        let total = apps.len();
        let page = apps.into_iter().skip(offset).take(limit);
        Ok((page.map(|app| self.configured(app)).collect(), total))
    }

    /// Makes an app with its primary endpoint. Needs `manage`.
    pub async fn create_configured_app(
        &self,
        caller: &Caller,
        name: String,
        recording: Option<Recording<'_, ConfiguredApp>>,
    ) -> Result<ConfiguredApp, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        check_name("/name", &name)?;
        self.change(caller, recording, |now| {
            let app = App {
                id: ClientId::new(self.entropy.as_ref()),
                workspace: caller.workspace,
                name: name.clone(),
                labels: std::collections::BTreeMap::new(),
                rotation_overlap_seconds: None,
                primary_endpoint: None,
                version: 1,
                created_at: now,
                updated_at: now,
            };
            let mut made = self.make_primary(caller, app, &Checked::default(), now)?;
            made.audit
                .insert(0, app_entry(AuditAction::AppCreated, &made.out.app));
            Ok(made.answering(Made::into_configured).hiding())
        })
        .await
    }

    /// Changes an app and its primary endpoint, which is made if it is needed. Needs `manage`.
    pub async fn patch_configured_app(
        &self,
        caller: &Caller,
        id: ClientId,
        patch: ConfiguredAppPatch,
    ) -> Result<ConfiguredApp, ServiceError> {
        const AT: &str = "/webhookConfig";
        self.require(caller, Scope::Manage).await?;
        if let Some(name) = &patch.name {
            check_name("/name", name)?;
        }
        let checked = match patch.webhook_config {
            Some(given) => Some(self.checked(given).map_err(|error| error.below(AT))?),
            None => None,
        };
        let _turn = self.turns.of(&(caller.workspace, id)).await;
        self.change(caller, None, |now| {
            let old = self.own_app(caller, id)?;
            let app = App {
                name: patch.name.clone().unwrap_or_else(|| old.name.clone()),
                version: old.version + 1,
                updated_at: now,
                ..App::clone(&old)
            };
            let renamed = app_updated(&old, &app);
            let (mut decision, app_is_written) = match &checked {
                None => (Decision::nothing(self.configured(Arc::clone(&old))), false),
                Some(checked) => self
                    .merge_primary(caller, &old, &app, checked, now)
                    .map_err(|error| error.below(AT))?,
            };
            if app.name != old.name {
                decision.audit.insert(0, renamed);
                if !app_is_written {
                    decision.writes.insert(0, Write::App(app.clone()));
                    decision.out.app = Arc::new(app);
                }
            }
            Ok(decision)
        })
        .await
    }

    /// Deletes an app as [`Service::delete_app`] does, and says what it was. Needs `manage`.
    pub async fn delete_configured_app(
        &self,
        caller: &Caller,
        id: ClientId,
    ) -> Result<ConfiguredApp, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let was = self.configured(self.own_app(caller, id)?);
        self.delete_app(caller, id, None, None).await?;
        Ok(was)
    }

    /// An app's primary endpoint with its active secret. Needs `read`.
    pub async fn primary_config(
        &self,
        caller: &Caller,
        id: ClientId,
    ) -> Result<PrimaryConfig, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let app = self.own_app(caller, id)?;
        let Some(endpoint) = self.primary(&app) else {
            return Ok(PrimaryConfig::default());
        };
        let mut audit = Vec::new();
        let secret = self.show_active(caller, &endpoint, &mut audit)?;
        if !audit.is_empty() {
            self.store
                .audit(caller.workspace, caller.context(), audit, self.clock.now())
                .await?;
        }
        Ok(PrimaryConfig {
            endpoint: Some(endpoint),
            secret,
        })
    }

    /// Changes an app's primary endpoint, which is made if there is none. Needs `manage`.
    pub async fn patch_primary(
        &self,
        caller: &Caller,
        id: ClientId,
        patch: PrimaryPatch,
    ) -> Result<PrimaryConfig, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let checked = self.checked(patch)?;
        let _turn = self.turns.of(&(caller.workspace, id)).await;
        self.change(caller, None, |now| {
            let old = self.own_app(caller, id)?;
            if let Some(primary) = self.primary(&old) {
                let merged = self.merged(caller, &primary, &checked, now)?;
                let mut audit = merged.audit;
                let secret = self.show_active(caller, &merged.out, &mut audit)?;
                return Ok(Decision {
                    shows: None,
                    writes: merged.writes,
                    audit,
                    out: PrimaryConfig {
                        endpoint: Some(Arc::new(merged.out)),
                        secret,
                    },
                });
            }
            let mut made = self.make_primary(caller, touched(&old, now), &checked, now)?;
            let Made { endpoint, once, .. } = &made.out;
            let (keyring, secret) = (endpoint.keyring, &once.secret);
            let value = once.value.clone();
            let shown = self.show(caller, keyring, secret, value, &mut made.audit)?;
            Ok(made.answering(|made| PrimaryConfig {
                endpoint: Some(Arc::new(made.endpoint)),
                secret: Some(shown),
            }))
        })
        .await
    }

    /// Rotates the secret of an app's primary endpoint, which is made if there is none: see the
    /// module text. When this is answered, no attempt of this node starts under the secret that an
    /// immediate rotation retired. Needs `secrets`.
    pub async fn rotate_primary(
        &self,
        caller: &Caller,
        id: ClientId,
        recording: Option<Recording<'_, SecretOnce>>,
    ) -> Result<SecretOnce, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let turn = self.turns.of(&(caller.workspace, id)).await;
        let app = self.live.app(caller.workspace, id);
        let keyring_turn = match app.and_then(|app| self.primary(&app)) {
            Some(primary) => Some(self.keyring_turn(primary.keyring).await?),
            None => None,
        };
        self.change_in_turn((turn, keyring_turn), caller, recording, |now| {
            let app = self.own_app(caller, id)?;
            match self.primary(&app) {
                Some(primary) => self.rotated(caller, &app, &primary, now),
                None => Ok(self
                    .make_primary(caller, touched(&app, now), &Checked::default(), now)?
                    .answering(|made| made.once)),
            }
        })
        .await
    }
}

/// Decisions.
impl Service {
    /// The primary endpoint of an app. One that was deleted counts as none.
    fn primary(&self, app: &App) -> Option<Arc<Endpoint>> {
        self.live
            .endpoint(app.primary_endpoint?)
            .filter(|endpoint| endpoint.workspace == app.workspace && endpoint.app == app.id)
            .filter(|endpoint| !matches!(endpoint.state, EndpointState::Deleted { .. }))
    }

    fn configured(&self, app: Arc<App>) -> ConfiguredApp {
        let primary = self.primary(&app);
        ConfiguredApp { app, primary }
    }

    fn checked(&self, patch: PrimaryPatch) -> Result<Checked, ServiceError> {
        let url = match patch.url {
            Some(url) => Some(self.target(&url)?),
            None => None,
        };
        let retries = patch.retry_attempts.map(|retries| retries as usize);
        if retries.is_some_and(|retries| retries > limits::RETRIES) {
            let message = format!("expected a whole number from 0 to {}", limits::RETRIES);
            return Err(ServiceError::invalid("/retryAttempts", message));
        }
        let timeout_millis = patch
            .timeout_seconds
            .map(|seconds| Millis::from(seconds) * SECOND);
        let span = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
        if timeout_millis.is_some_and(|timeout| !span.contains(&timeout)) {
            let (least, most) = (span.start() / SECOND, span.end() / SECOND);
            let message = format!("expected a whole number from {least} to {most}");
            return Err(ServiceError::invalid("/timeoutSeconds", message));
        }
        Ok(Checked {
            url,
            enabled: patch.enabled,
            retry: retries.map(RetryPolicy::hopae),
            timeout_millis,
            events: patch.events.map(checks::events).transpose()?,
        })
    }

    /// Changes or makes the primary endpoint of `old`, which becomes `app` if it is made. Says
    /// whether the app is among the writes.
    fn merge_primary(
        &self,
        caller: &Caller,
        old: &Arc<App>,
        app: &App,
        checked: &Checked,
        now: Timestamp,
    ) -> Result<(Decision<ConfiguredApp>, bool), ServiceError> {
        if let Some(primary) = self.primary(old) {
            let merged = self.merged(caller, &primary, checked, now)?;
            let app = Arc::clone(old);
            let decision = merged.answering(|endpoint| ConfiguredApp {
                app,
                primary: Some(Arc::new(endpoint)),
            });
            return Ok((decision, false));
        }
        let made = self.make_primary(caller, app.clone(), checked, now)?;
        Ok((made.answering(Made::into_configured), true))
    }

    fn merged(
        &self,
        caller: &Caller,
        old: &Endpoint,
        checked: &Checked,
        now: Timestamp,
    ) -> Result<Decision<Endpoint>, ServiceError> {
        let endpoint = checked.merge(old, now)?;
        checks::check(&endpoint, &self.own_workspace(caller)?.settings)?;
        Ok(replaced(old, endpoint))
    }

    /// Gives `app`, whose version is the one to be written, a primary endpoint.
    fn make_primary(
        &self,
        caller: &Caller,
        app: App,
        checked: &Checked,
        now: Timestamp,
    ) -> Result<Decision<Made>, ServiceError> {
        self.check_room(&app)?;
        let input = NewEndpoint {
            preset: Preset::Hopae,
            state: Switch::Disabled,
            ..NewEndpoint::default()
        };
        let blank = self.new_endpoint(&app, &input, EventFilter::default(), now);
        let endpoint = Endpoint {
            version: blank.version,
            ..checked.merge(&blank, now)?
        };
        checks::check(&endpoint, &self.own_workspace(caller)?.settings)?;
        let app = App {
            primary_endpoint: Some(endpoint.id),
            ..app
        };
        let mut decision = self.on_own_keyring(endpoint, KeyKind::Symmetric, None, None, now)?;
        decision.writes.insert(0, Write::App(app.clone()));
        // A keyring of its own always comes with its first secret.
        let once = decision.out.once.take();
        let once = once.ok_or(ServiceError::not_found("secret"))?;
        Ok(decision.answering(|created| Made {
            app,
            endpoint: created.endpoint,
            once,
        }))
    }

    fn rotated(
        &self,
        caller: &Caller,
        app: &App,
        primary: &Endpoint,
        now: Timestamp,
    ) -> Result<Decision<SecretOnce>, ServiceError> {
        let keyring = self.own_keyring(caller, primary.keyring)?;
        let settings = &self.own_workspace(caller)?.settings;
        let overlap = app
            .rotation_overlap_seconds
            .or(settings.rotation_overlap_seconds)
            .map_or(0, |seconds| Millis::from(seconds) * SECOND);
        let mode = match (overlap, keyring.rotation_in_the_way(now)) {
            (0, _) => Mode::Immediate,
            (_, Some(open)) => return Err(still_open(open, settings.reveal_secrets)),
            (overlap, None) => Mode::Overlap { overlap },
        };
        let value = self.value_for(&keyring, None)?;
        let secret = self.named(&value, None, now);
        let id = secret.id;
        let command = Command::Rotate {
            rotation: RotationId::new(now, self.entropy.as_ref()),
            mode,
            secret,
            reason: None,
        };
        let applied = apply(&keyring, command, now)?;
        self.with_new_secret(applied, id, value, |once, _| once)
    }

    /// The active secret of an endpoint's keyring as far as the caller may see it.
    fn show_active(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        audit: &mut Vec<AuditEntry>,
    ) -> Result<Option<ShownSecret>, ServiceError> {
        let keyring = self.own_keyring(caller, endpoint.keyring)?;
        let Some(active) = keyring.active() else {
            return Ok(None);
        };
        let Some(value) = self.unseal(active.id)? else {
            return Ok(None);
        };
        self.show(caller, keyring.id, active, value, audit)
            .map(Some)
    }

    fn show(
        &self,
        caller: &Caller,
        keyring: KeyringId,
        secret: &SecretVersion,
        value: Secret,
        audit: &mut Vec<AuditEntry>,
    ) -> Result<ShownSecret, ServiceError> {
        let policy = self.own_workspace(caller)?.settings.reveal_secrets;
        if caller.may(Scope::Secrets) && policy == RevealPolicy::Allowed {
            audit.push(revealed(keyring, secret));
            return Ok(ShownSecret::Value(value));
        }
        let text = value.expose();
        let length = text.chars().count();
        let last = if length < HINTED_CHARS {
            String::new()
        } else {
            text.chars().skip(length - HINT_CHARS).collect()
        };
        Ok(ShownSecret::Redacted { last })
    }
}

impl Checked {
    /// `old` with what is given here; its version is the next one.
    fn merge(&self, old: &Endpoint, now: Timestamp) -> Result<Endpoint, ServiceError> {
        let is_on = matches!(old.state, EndpointState::Enabled);
        let switch = self.enabled.filter(|on| *on != is_on).map(|on| {
            if on {
                Switch::Enabled
            } else {
                Switch::Disabled
            }
        });
        // Parts of a second and delays of the native API's own stay as long as what is shown of them
        // is only repeated.
        let retry = self
            .retry
            .clone()
            .filter(|retry| retry.delays_millis.len() != old.retry.delays_millis.len());
        let timeout_millis = self
            .timeout_millis
            .filter(|timeout| *timeout != old.timeout_millis.div_ceil(SECOND) * SECOND);
        // The time to connect is not spoken of here: it follows the preset unless it was chosen.
        let preset = old.preset.connect_timeout_millis();
        let is_preset = old.connect_timeout_millis == preset.min(old.timeout_millis);
        let connect_timeout_millis = timeout_millis
            .filter(|_| is_preset)
            .map(|timeout| preset.min(timeout));
        let patch = EndpointPatch {
            state: switch,
            retry,
            timeout_millis,
            connect_timeout_millis,
            ..EndpointPatch::default()
        };
        let merged = patched(old, patch, self.url.clone(), self.events.clone(), now);
        if merged.url.is_none() && merged.state.takes_messages() {
            let message = "an enabled webhook needs a URL: send one with `enabled`, or before";
            return Err(ServiceError::missing("/url", message));
        }
        Ok(merged)
    }
}

impl Made {
    fn into_configured(self) -> ConfiguredApp {
        ConfiguredApp {
            app: Arc::new(self.app),
            primary: Some(Arc::new(self.endpoint)),
        }
    }
}

/// The next version of an app.
fn touched(app: &App, now: Timestamp) -> App {
    App {
        version: app.version + 1,
        updated_at: now,
        ..app.clone()
    }
}

/// Why a second overlap is refused: the two live secrets would become one of them and a stranger.
fn still_open(open: &Rotation, reveals: RevealPolicy) -> ServiceError {
    let id = open.id;
    let current = match reveals {
        RevealPolicy::Allowed => "GET webhook-config shows the current secret",
        RevealPolicy::Never => {
            "this workspace does not show the current secret again (only a replay of the call that \
             made it does, under its Idempotency-Key)"
        }
    };
    let message = match open.stage {
        Stage::Staged => format!(
            "a new secret of this app is pending in rotation {id}: nothing was changed, and {current}. \
             Finish what is open first: POST /v1/rotations/{id}/promote or /v1/rotations/{id}/cancel"
        ),
        Stage::Overlap { retire_at } => format!(
            "a rotation of this app is open until {retire_at}: its old and its new secret are both \
             live, nothing was changed, and {current}. To rotate again before that, finish it first: \
             POST /v1/rotations/{id}/finish"
        ),
        Stage::Undone { retire_at, .. } => format!(
            "the last rotation of this app was undone: the secret it brought stays live until \
             {retire_at}, for receivers that deployed it, nothing was changed, and {current}. To rotate \
             again before that, finish it first: POST /v1/rotations/{id}/finish"
        ),
        Stage::Completed { .. } | Stage::Cancelled { .. } => {
            format!("rotation {id} of this app is ending: nothing was changed, try again")
        }
    };
    ServiceError::conflict("rotation_open", message)
}
