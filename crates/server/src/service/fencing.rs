//! The fence of a change: when it is answered, every node that shares the store follows it.
//!
//! A change that retires a key, or withdraws an API key, is answered when no node can sign, or let somebody in, by what
//! was before: each said that it follows, or its last confirmation ran out. Any other change waits for a
//! moment only, so that whoever asks another node next finds what was made; a node that does not answer holds nobody
//! up for it.
//!
//! Who asked is told how long that took ([`Fenced`]). A store that nobody shares has
//! nothing to wait for.

use std::sync::{Arc, Mutex, PoisonError};

use hookturn_core::store::{Fence, Write};
use hookturn_core::time::{Millis, SECOND};

use super::{Service, ServiceError};

/// How long a change of keys waits at most: a node that does not answer is safe before.
pub(super) const KEYS: Millis = 10 * SECOND;
/// How long any other change waits at most.
const OTHERS: Millis = SECOND / 4;

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

/// How long a change waits at most; nothing when it changes nothing that nodes hold in memory.
pub(super) fn patience(writes: &[Write]) -> Option<Millis> {
    let of = |write: &Write| match write {
        Write::Keyring(_) | Write::EraseSecret { .. } | Write::ApiKey(_) => Some(KEYS),
        Write::Workspace(_)
        | Write::App(_)
        | Write::RemoveApp { .. }
        | Write::Endpoint(_)
        | Write::Secret(_)
        | Write::MarkKey { .. }
        | Write::Bulk(_)
        | Write::Schedule(_)
        | Write::RemoveSchedule { .. } => Some(OTHERS),
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

impl Service {
    /// Waits for the fence of a change that was stored.
    pub(super) async fn close_fence(
        &self,
        fenced: &Fenced,
        patience: Option<Millis>,
    ) -> Result<(), ServiceError> {
        let Some(patience) = patience else {
            return Ok(());
        };
        let fence = self.store.fence(patience).await?;
        if patience == KEYS {
            fenced.note(fence);
        }
        Ok(())
    }
}
