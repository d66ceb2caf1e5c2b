//! Turns: requests that change the same thing wait for each other here instead of losing to each
//! other in the store.
//!
//! Only an order, never a lock that correctness needs: the store compares versions whatever happens
//! here, and another node has turns of its own. Things that share a stripe wait for each other
//! without need, which costs time and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use tokio::sync::{Mutex, MutexGuard};

/// Things that can have their turn at once.
const STRIPES: usize = 256;

/// Who may change which thing next, first come, first served.
#[derive(Debug)]
pub(super) struct Turns {
    stripes: Box<[Mutex<()>]>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Turns {
    /// Waits for the turn to change `thing`, which lasts until the guard is dropped.
    pub(super) async fn of(&self, thing: &impl Hash) -> MutexGuard<'_, ()> {
        // The same in every process, so that a simulated run repeats itself to the byte. Nobody chooses
        // the ids that are hashed here.
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        let hash = hasher.finish();
        let stripes = self.stripes.len() as u64;
        // Below the number of stripes, so it fits; 0 would be a stripe as well.
        let stripe = usize::try_from(hash % stripes).unwrap_or_default();
        self.stripes[stripe].lock().await
    }
}
