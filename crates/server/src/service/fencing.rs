//! The fence of a change: when it is answered, every node that shares the store follows it.
//!
//! A change that retires a key, or withdraws an API key, is answered when no node can sign, or let somebody in, by what
//! was before: each said that it follows, or its last confirmation ran out. Any other change waits for the nodes that
//! answer, so that whoever asks another one next finds what was made; one that has been silent holds nobody up for it.
//!
//! A node does its own part before it looks at anything for a request ([`Service::confirmed`]): one whose view is not
//! confirmed, because it was stopped or its database is away, waits for a moment until it is, and otherwise lets nobody in:
//! "try again" ([`ServiceError::Behind`]). What runs while that ends is not refused by what was before either.
//!
//! Who asked is told how long that took ([`Fenced`]). A store that nobody shares has
//! nothing to wait for.

use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::rotation::Keyring;
use hookturn_core::store::{Fence, FenceFor, Write};
use hookturn_core::workspace::ApiKey;
use http::StatusCode;

use super::{Service, ServiceError};

/// The fence of a request, once it was closed: shared by whoever answers it.
#[derive(Debug, Clone, Default)]
pub struct Fenced(Option<Arc<Mutex<Option<Fence>>>>);

impl Fenced {
    /// One that somebody asks later. The default is one that nobody asks.
    pub fn asked() -> Self {
        Self(Some(Arc::default()))
    }

    /// What it came to; nothing before, or when no key was concerned.
    pub fn get(&self) -> Option<Fence> {
        let noted = self.0.as_ref()?;
        *noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, fence: Fence) {
        if let Some(noted) = &self.0 {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(fence);
        }
    }
}

/// The fence that a change needs before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Needed {
    /// For whom it waits.
    whom: FenceFor,
    /// Whether who asked is told of it: where a key is made or withdrawn.
    told: bool,
}

impl Needed {
    /// That of a key that is withdrawn.
    pub(super) const KEYS: Self = Self {
        whom: FenceFor::All,
        told: true,
    };
}

/// The fence of a change; none when it changes nothing that nodes hold in memory.
pub(super) fn needed(writes: &[Write]) -> Option<Needed> {
    let answering = |told| {
        let whom = FenceFor::Answering;
        Some(Needed { whom, told })
    };
    let of = |write: &Write| match write {
        // Of what is made nothing is withdrawn.
        Write::Keyring(Keyring { version: 1, .. }) | Write::ApiKey(ApiKey { version: 1, .. }) => {
            answering(true)
        }
        Write::Keyring(_) | Write::EraseSecret { .. } | Write::ApiKey(_) => Some(Needed::KEYS),
        Write::Workspace(_)
        | Write::App(_)
        | Write::RemoveApp { .. }
        | Write::Endpoint(_)
        | Write::Secret(_)
        | Write::MarkKey { .. }
        | Write::Bulk(_)
        | Write::Schedule(_)
        | Write::RemoveSchedule { .. } => answering(false),
        Write::Rotation(_)
        | Write::Mark(_)
        | Write::BulkItem(_)
        | Write::Findings { .. }
        | Write::Noted { .. }
        | Write::Reported { .. }
        | Write::ScheduleNote { .. }
        | Write::Requeue { .. } => None,
    };
    writes.iter().filter_map(of).max()
}

/// Whether an answer of this status may rest on a view that was old.
fn rests_on_view(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
    )
}

impl Service {
    /// Waits until what this node knows is confirmed, for a moment at most. Asked before anything is looked at for a
    /// request, the key that it comes with first of all.
    pub async fn confirmed(&self) -> Result<(), ServiceError> {
        if self.live.is_confirmed() || self.store.confirmed().await? {
            return Ok(());
        }
        Err(ServiceError::Behind)
    }

    /// What to say instead of a refusal with this status, when what it rests on became old while the request ran.
    pub fn unless_behind(&self, status: StatusCode) -> Result<(), ServiceError> {
        if rests_on_view(status) && !self.live.is_confirmed() {
            return Err(ServiceError::Behind);
        }
        Ok(())
    }

    /// Waits for the fence of a change that was stored.
    pub(super) async fn close_fence(
        &self,
        fenced: &Fenced,
        needed: Option<Needed>,
    ) -> Result<(), ServiceError> {
        let Some(Needed { whom, told }) = needed else {
            return Ok(());
        };
        let fence = self.store.fence(whom).await?;
        if told {
            fenced.note(fence);
        }
        Ok(())
    }
}
