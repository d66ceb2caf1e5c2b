//! Changes of an endpoint, and the switch between enabled, paused and disabled.

use std::collections::BTreeMap;

use hookturn_core::audit::{AuditAction, AuditEntry, Changes};
use hookturn_core::endpoint::{
    BodyForm, Endpoint, EndpointState, Method, ProbeSettings, TargetUrl,
};
use hookturn_core::id::{ClientId, EndpointId};
use hookturn_core::message::EventFilter;
use hookturn_core::retry::{RetryOn, RetryPolicy};
use hookturn_core::store::Write;
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::Scope;

use super::super::{Caller, Decision, Recording, Service, ServiceError, check_version};
use super::{checks, disabled_by_owner, entry};

/// Whether an endpoint shall take deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Switch {
    /// Messages are sent.
    #[default]
    Enabled,
    /// Messages wait.
    Paused,
    /// Messages make no delivery.
    Disabled,
}

impl Switch {
    pub(super) const fn at(self, since: Timestamp) -> EndpointState {
        match self {
            Self::Enabled => EndpointState::Enabled,
            Self::Paused => EndpointState::Paused { since },
            Self::Disabled => disabled_by_owner(since),
        }
    }

    const fn is(self, state: &EndpointState) -> bool {
        match self {
            Self::Enabled => matches!(state, EndpointState::Enabled),
            Self::Paused => matches!(state, EndpointState::Paused { .. }),
            Self::Disabled => matches!(state, EndpointState::Disabled { .. }),
        }
    }
}

/// A field whose default depends on the endpoint's preset or on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaulted {
    /// [`EndpointPatch::retry`].
    Retry,
    /// [`EndpointPatch::timeout_millis`].
    Timeout,
    /// [`EndpointPatch::connect_timeout_millis`].
    ConnectTimeout,
    /// [`EndpointPatch::max_in_flight`].
    MaxInFlight,
}

/// What to change of an endpoint; `None` leaves a field as it is. Preset and keyring stay: another
/// scheme needs another endpoint, because its secrets may not fit.
#[derive(Debug, Clone, Default)]
pub struct EndpointPatch {
    /// Where deliveries go.
    pub url: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// `GET` for KORE callbacks only.
    pub method: Option<Method>,
    /// `Form` for KORE callbacks only.
    pub body_form: Option<BodyForm>,
    /// Event types, as a whole.
    pub events: Option<Vec<String>>,
    /// Custom headers, as a whole.
    pub headers: Option<BTreeMap<String, String>>,
    /// Whether it takes deliveries.
    pub state: Option<Switch>,
    /// When a failed delivery is tried again.
    pub retry: Option<RetryPolicy>,
    /// Longest time of one exchange.
    pub timeout_millis: Option<Millis>,
    /// Longest time to connect.
    pub connect_timeout_millis: Option<Millis>,
    /// Exchanges that may be open at once.
    pub max_in_flight: Option<u32>,
    /// Attempts per second; `Some(None)` for no limit.
    pub rate_limit_per_second: Option<Option<u32>>,
    /// Whether deliveries keep the order of acceptance.
    pub ordered: Option<bool>,
    /// Whether and with what it is probed, as a whole.
    pub probe: Option<ProbeSettings>,
    /// Fields that go back to their defaults.
    pub defaulted: Vec<Defaulted>,
}

impl EndpointPatch {
    /// The same with the defaults of `old` where they are asked for.
    fn with_defaults(mut self, old: &Endpoint, max_in_flight: u32) -> Self {
        let preset = old.preset;
        let is_asked = |field| self.defaulted.contains(&field);
        let (retry, timeout) = (is_asked(Defaulted::Retry), is_asked(Defaulted::Timeout));
        let connect = is_asked(Defaulted::ConnectTimeout);
        let in_flight = is_asked(Defaulted::MaxInFlight);
        if retry {
            self.retry = Some(preset.retry());
        }
        if timeout {
            self.timeout_millis = Some(preset.timeout_millis());
        }
        if connect {
            let within = self.timeout_millis.unwrap_or(old.timeout_millis);
            self.connect_timeout_millis = Some(preset.connect_timeout_millis().min(within));
        }
        if in_flight {
            self.max_in_flight = Some(max_in_flight);
        }
        self
    }
}

impl Service {
    /// Changes an endpoint. What is so already changes nothing, its version included; but enabling one whose
    /// receiver asked to wait has it sent to now. Needs `manage`.
    pub async fn patch_endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
        patch: EndpointPatch,
        if_match: Option<u64>,
        recording: Option<Recording<'_, Endpoint>>,
    ) -> Result<Endpoint, ServiceError> {
        self.require(caller, Scope::Manage).await?;
        let url = patch
            .url
            .as_deref()
            .map(|url| self.target(url))
            .transpose()?;
        let events = patch.events.clone().map(checks::events).transpose()?;
        self.change(caller, recording, |now| {
            let old = self.own_endpoint(caller, app, id)?;
            check_version(if_match, old.version)?;
            let wanted = patch
                .clone()
                .with_defaults(&old, self.settings.max_in_flight);
            let mut endpoint = patched(&old, wanted, url.clone(), events.clone(), now);
            if patch.state == Some(Switch::Enabled) && self.is_held(&old, now) {
                endpoint = resumed(&old, endpoint, now);
            }
            checks::check(&endpoint, &self.own_workspace(caller)?.settings)?;
            Ok(replaced(&old, endpoint))
        })
        .await
    }

    /// Enables, pauses or disables an endpoint. Needs `manage`.
    pub async fn switch_endpoint(
        &self,
        caller: &Caller,
        app: ClientId,
        id: EndpointId,
        to: Switch,
        if_match: Option<u64>,
        recording: Option<Recording<'_, Endpoint>>,
    ) -> Result<Endpoint, ServiceError> {
        let patch = EndpointPatch {
            state: Some(to),
            ..EndpointPatch::default()
        };
        self.patch_endpoint(caller, app, id, patch, if_match, recording)
            .await
    }
}

/// `new` as an endpoint that is to be sent to whatever its receiver asked for: also one that was enabled
/// before.
fn resumed(old: &Endpoint, new: Endpoint, now: Timestamp) -> Endpoint {
    Endpoint {
        resumed_at: Some(now),
        version: old.version + 1,
        updated_at: now,
        ..new
    }
}

/// The decision to store what [`patched`] made of `old`.
pub(super) fn replaced(old: &Endpoint, new: Endpoint) -> Decision<Endpoint> {
    if new == *old {
        return Decision::nothing(new);
    }
    Decision {
        shows: None,
        writes: vec![Write::Endpoint(new.clone())],
        audit: vec![updated(old, &new)],
        out: new,
    }
}

/// The next version of `old`; `old` itself when nothing is different.
pub(super) fn patched(
    old: &Endpoint,
    patch: EndpointPatch,
    url: Option<TargetUrl>,
    events: Option<EventFilter>,
    now: Timestamp,
) -> Endpoint {
    let new = merged(old.clone(), patch, url, events, now);
    if new == *old {
        return new;
    }
    Endpoint {
        version: old.version + 1,
        updated_at: now,
        ..new
    }
}

fn merged(
    old: Endpoint,
    patch: EndpointPatch,
    url: Option<TargetUrl>,
    events: Option<EventFilter>,
    now: Timestamp,
) -> Endpoint {
    let timeout_millis = patch.timeout_millis.unwrap_or(old.timeout_millis);
    let retargeted = url.is_some() && url != old.url;
    let enabled = patch.state == Some(Switch::Enabled) && old.state != EndpointState::Enabled;
    Endpoint {
        url: url.or(old.url),
        retargeted_at: if retargeted {
            Some(now)
        } else {
            old.retargeted_at
        },
        resumed_at: if enabled { Some(now) } else { old.resumed_at },
        description: patch.description.unwrap_or(old.description),
        method: patch.method.unwrap_or(old.method),
        body_form: patch.body_form.unwrap_or(old.body_form),
        events: events.unwrap_or(old.events),
        headers: patch.headers.unwrap_or(old.headers),
        state: match patch.state {
            // Saying again what is so keeps since when and why it is so.
            Some(switch) if !switch.is(&old.state) => switch.at(now),
            Some(_) | None => old.state,
        },
        retry: patch.retry.unwrap_or(old.retry),
        timeout_millis,
        // A shorter timeout takes the time to connect with it, unless both are named.
        connect_timeout_millis: patch
            .connect_timeout_millis
            .unwrap_or(old.connect_timeout_millis.min(timeout_millis)),
        max_in_flight: patch.max_in_flight.unwrap_or(old.max_in_flight),
        rate_limit_per_second: patch
            .rate_limit_per_second
            .unwrap_or(old.rate_limit_per_second),
        ordered: patch.ordered.unwrap_or(old.ordered),
        probe: patch.probe.unwrap_or(old.probe),
        ..old
    }
}

/// What changed of an endpoint. The state is told in any case.
fn updated(old: &Endpoint, new: &Endpoint) -> AuditEntry {
    let entry = entry(action(&old.state, &new.state), new).with("state", new.state.as_str());
    let number = |value: &u64| value.to_string();
    let events = |filter: &EventFilter| match filter.entries() {
        [] => "all".to_owned(),
        entries => entries.join(", "),
    };
    Changes::new()
        .url("url", old.url.as_ref(), new.url.as_ref())
        .field(
            "description",
            &old.description,
            &new.description,
            String::clone,
        )
        .field("method", &old.method, &new.method, |method| {
            method.as_str().to_owned()
        })
        .field("bodyForm", &old.body_form, &new.body_form, |form| {
            form.as_str().to_owned()
        })
        .field("events", &old.events, &new.events, events)
        .headers("headers", &old.headers, &new.headers)
        .field("state", &old.state, &new.state, state_words)
        .field("retry", &old.retry, &new.retry, retry_words)
        .field(
            "timeoutMillis",
            &old.timeout_millis,
            &new.timeout_millis,
            number,
        )
        .field(
            "connectTimeoutMillis",
            &old.connect_timeout_millis,
            &new.connect_timeout_millis,
            number,
        )
        .field(
            "maxInFlight",
            &old.max_in_flight,
            &new.max_in_flight,
            u32::to_string,
        )
        .optional(
            "rateLimitPerSecond",
            old.rate_limit_per_second.as_ref(),
            new.rate_limit_per_second.as_ref(),
        )
        .field("ordered", &old.ordered, &new.ordered, bool::to_string)
        .optional(
            "resumedAt",
            old.resumed_at.as_ref(),
            new.resumed_at.as_ref(),
        )
        .write(entry)
}

fn state_words(state: &EndpointState) -> String {
    state.as_str().to_owned()
}

/// `1000, 5000 ms, jitter 20 %, on any failure`
fn retry_words(retry: &RetryPolicy) -> String {
    let delays: Vec<_> = retry.delays_millis.iter().map(Millis::to_string).collect();
    let on = match retry.retry_on {
        RetryOn::AnyFailure => "any failure",
        RetryOn::TransientOnly => "transient failures",
    };
    let delays = match &*delays {
        [] => "none".to_owned(),
        delays => format!("{} ms", delays.join(", ")),
    };
    format!("{delays}, jitter {} %, on {on}", retry.jitter_percent)
}

fn action(old: &EndpointState, new: &EndpointState) -> AuditAction {
    let was_disabled = matches!(old, EndpointState::Disabled { .. });
    match new {
        EndpointState::Enabled if old != new => AuditAction::EndpointEnabled,
        EndpointState::Disabled { .. } if !was_disabled => AuditAction::EndpointDisabled,
        EndpointState::Enabled
        | EndpointState::Paused { .. }
        | EndpointState::Disabled { .. }
        | EndpointState::Deleted { .. } => AuditAction::EndpointUpdated,
    }
}
