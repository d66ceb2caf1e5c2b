//! What somebody should look at, and how long the oldest delivery waits.
//!
//! All of it is asked of the live view and of the heads of the queues, so that it costs what is
//! configured and never what is stored. Lists are cut to [`SHOWN`] and say how many there are.

use std::sync::Arc;

use hookturn_core::endpoint::{Endpoint, EndpointState};
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::rotation::{Keyring, Rotation, SecretState, SecretVersion};
use hookturn_core::store::ReceiverState;
use hookturn_core::time::{DAY, Millis, Timestamp};
use hookturn_core::workspace::Scope;

use super::{Caller, Service, ServiceError};

/// From this age on an active secret is said to be old, in milliseconds.
pub const OLD_SECRET: Millis = 90 * DAY;
/// Of each kind so many are told; the others are counted.
const SHOWN: usize = 20;

/// Some of many.
#[derive(Debug, Clone)]
pub struct Cut<T> {
    /// The first few.
    pub shown: Vec<T>,
    /// How many there are.
    pub all: usize,
}

/// What needs somebody.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Endpoints that accepted nothing of late or take nothing, longest first.
    pub endpoints: Cut<(Arc<Endpoint>, Arc<ReceiverState>)>,
    /// Endpoints whose receiver accepts any signature, as rehearsals found.
    pub unverifying: Cut<Arc<Endpoint>>,
    /// Open rotations, longest first.
    pub rotations: Cut<(Arc<Keyring>, Rotation)>,
    /// Active secrets of [`OLD_SECRET`] or older that sign for an endpoint, oldest first.
    pub secrets: Cut<(Arc<Keyring>, SecretVersion, Timestamp)>,
    /// How many endpoints there are.
    pub endpoints_in_all: usize,
}

/// What waits to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Since when the oldest delivery that is due waits, if any does.
    pub oldest: Option<Timestamp>,
    /// Endpoints with a delivery that is due.
    pub endpoints: usize,
}

impl<T> Cut<T> {
    fn of(mut all: Vec<T>, age: impl Fn(&T) -> Timestamp) -> Self {
        all.sort_by_key(age);
        let count = all.len();
        all.truncate(SHOWN);
        Self {
            shown: all,
            all: count,
        }
    }
}

impl Service {
    /// What needs somebody in the caller's workspace. Needs `read`.
    pub async fn attention(&self, caller: &Caller) -> Result<Attention, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let now = self.clock.now();
        let (mut ailing, mut unverifying) = (Vec::new(), Vec::new());
        let mut endpoints_in_all = 0;
        for app in self.live.apps(caller.workspace) {
            for endpoint in self.live.endpoints(caller.workspace, app.id) {
                endpoints_in_all += 1;
                let receiver = self.live.receiver(endpoint.id);
                if self.live.findings(endpoint.id).class() == ReceiverClass::DoesNotVerify {
                    unverifying.push(Arc::clone(&endpoint));
                }
                if ails_since(&endpoint, &receiver).is_some() {
                    ailing.push((endpoint, receiver));
                }
            }
        }
        let (mut rotations, mut old) = (Vec::new(), Vec::new());
        for keyring in self.live.keyrings(caller.workspace) {
            if let Some(rotation) = keyring.open_rotation(now) {
                rotations.push((Arc::clone(&keyring), rotation.clone()));
            }
            let Some(secret) = keyring.active() else {
                continue;
            };
            if let SecretState::Active { since } = secret.state
                && now.since(since) >= OLD_SECRET
                && !self.live.keyring_users(&keyring).is_empty()
            {
                let secret = secret.clone();
                old.push((keyring, secret, since));
            }
        }
        Ok(Attention {
            endpoints: Cut::of(ailing, |(endpoint, receiver)| {
                ails_since(endpoint, receiver).unwrap_or(now)
            }),
            unverifying: Cut::of(unverifying, |endpoint| endpoint.created_at),
            rotations: Cut::of(rotations, |(_, rotation)| rotation.opened_at),
            secrets: Cut::of(old, |(_, _, since)| *since),
            endpoints_in_all,
        })
    }

    /// What is due in the caller's workspace and waits. Deliveries of endpoints that are paused wait
    /// because their owner wants it, and do not count. Needs `read`.
    pub async fn backlog(&self, caller: &Caller) -> Result<Backlog, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let now = self.clock.now();
        let heads = self.store.due_endpoints().await?;
        let mut backlog = Backlog::default();
        for (workspace, id, due_at) in heads {
            let sends = || {
                let endpoint = self.live.endpoint(id);
                endpoint.is_some_and(|endpoint| endpoint.state == EndpointState::Enabled)
            };
            if workspace == caller.workspace && due_at <= now && sends() {
                backlog.endpoints += 1;
                backlog.oldest = Some(backlog.oldest.map_or(due_at, |oldest| oldest.min(due_at)));
            }
        }
        Ok(backlog)
    }
}

/// Since when an endpoint takes nothing or its receiver accepts nothing.
fn ails_since(endpoint: &Endpoint, receiver: &ReceiverState) -> Option<Timestamp> {
    match &endpoint.state {
        EndpointState::Disabled { since, .. } => Some(*since),
        EndpointState::Enabled => receiver.failing_since,
        EndpointState::Paused { .. } | EndpointState::Deleted { .. } => None,
    }
}
