//! Room for large request bodies: how much memory those that are under way may take together.
//!
//! A body is read before its request can be looked at, so a client that begins many large ones and ends
//! none makes the server hold what it sent of them. The first [`SMALL`] of each are bounded by the number of
//! connections. What is larger needs room, until its request is answered:
//!
//! 1. All bodies together have [`limits::BODIES_BYTES`], those of one key half of that: no key can take
//!    the room of the others.
//! 2. A body takes its room whole and once, before it is read further: by its `Content-Length`, or, where
//!    that is not said, as much as its route allows. So no two can wait for what the other one has.
//! 3. Whoever finds none waits while its connection does, for [`WAIT`] at most, and is told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::Request;
use hookturn_core::id::ApiKeyId;
use hookturn_core::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};

/// What a body may have without asking, in bytes: nearly all never ask.
pub(super) const SMALL: usize = 64 * 1024;
/// How long a body waits for room.
const WAIT: Duration = Duration::from_secs(10);
/// Room is counted in these, in bytes.
const UNIT: usize = 1024;

const ALL: usize = limits::BODIES_BYTES / UNIT;
const SHARE: usize = ALL / 2;

const _: () = assert!(limits::BATCH_BODY_BYTES.div_ceil(UNIT) <= SHARE);

/// The room of one process. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Room(Arc<Shared>);

struct Shared {
    all: Arc<Semaphore>,
    /// Of the keys that have large bodies under way.
    shares: Mutex<HashMap<ApiKeyId, Weak<Semaphore>>>,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Shared {
            all: Arc::new(Semaphore::new(ALL)),
            shares: Mutex::default(),
        }))
    }
}

impl Room {
    fn share(&self, key: ApiKeyId) -> Arc<Semaphore> {
        let mut shares = self.0.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(SHARE));
        shares.insert(key, Arc::downgrade(&share));
        share
    }
}

/// The room that one request has: what it took is free again when the last clone is gone.
#[derive(Clone)]
pub(super) struct Place(Arc<Taken>);

struct Taken {
    room: Room,
    key: OnceLock<ApiKeyId>,
    held: OnceLock<Held>,
}

/// Of the share of the key, and of all.
struct Held {
    _share: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

/// Gives a request whose body may be large a place, which whoever answers it holds until then.
pub(super) fn place(room: &Room, request: &mut Request) -> Option<Place> {
    let most = request.body().size_hint().upper();
    if most.is_some_and(|most| most <= SMALL as u64) {
        return None;
    }
    let place = Place(Arc::new(Taken {
        room: room.clone(),
        key: OnceLock::new(),
        held: OnceLock::new(),
    }));
    request.extensions_mut().insert(place.clone());
    Some(place)
}

impl Place {
    /// Whose request it is.
    pub(super) fn belongs_to(&self, key: ApiKeyId) {
        // Said once, by whoever reads the key.
        let _ = self.0.key.set(key);
    }

    /// Takes room for so many bytes, unless it has some.
    pub(super) async fn take(&self, bytes: usize) -> Result<(), Problem> {
        if self.0.held.get().is_some() {
            return Ok(());
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let held = tokio::time::timeout(WAIT, self.hold(units)).await;
        let held = held.ok().flatten().ok_or_else(full)?;
        let _ = self.0.held.set(held);
        Ok(())
    }

    async fn hold(&self, units: u32) -> Option<Held> {
        let share = match self.0.key.get() {
            Some(key) => {
                let share = self.0.room.share(*key);
                Some(share.acquire_many_owned(units).await.ok()?)
            }
            None => None,
        };
        let all = Arc::clone(&self.0.room.0.all);
        Some(Held {
            _share: share,
            _all: all.acquire_many_owned(units).await.ok()?,
        })
    }
}

fn full() -> Problem {
    let megabytes = |units: usize| units * UNIT / (1024 * 1024);
    Problem::new(
        Code::Unavailable,
        format!(
            "nothing was stored: other large requests are under way, which may hold {} MiB together, and \
             {} MiB of one API key; send it again, or smaller ones",
            megabytes(ALL),
            megabytes(SHARE),
        ),
    )
    .retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const BATCH: usize = limits::BATCH_BODY_BYTES;

    fn key(number: u128) -> ApiKeyId {
        ApiKeyId::from_bytes(number.to_be_bytes())
    }

    fn of(room: &Room, key: ApiKeyId) -> Place {
        let mut request = Request::new(Body::from(vec![0; SMALL + 1]));
        let place = place(room, &mut request).unwrap();
        place.belongs_to(key);
        place
    }

    #[test]
    fn small_bodies_have_no_place() {
        let room = Room::default();
        for (bytes, wanted) in [(0, false), (SMALL, false), (SMALL + 1, true)] {
            let mut request = Request::new(Body::from(vec![0; bytes]));
            assert_eq!(place(&room, &mut request).is_some(), wanted, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g10_one_key_leaves_room_for_the_others() {
        let room = Room::default();
        let mut held = Vec::new();
        for _ in 0..SHARE * UNIT / BATCH {
            let place = of(&room, key(1));
            place.take(BATCH).await.unwrap();
            held.push(place);
        }
        let refused = of(&room, key(1)).take(BATCH).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        of(&room, key(2)).take(BATCH).await.unwrap();
        // Room is free when a request is answered, and whoever waits gets it.
        let waiting = of(&room, key(1));
        let waits = tokio::spawn(async move { waiting.take(BATCH).await.is_ok() });
        tokio::task::yield_now().await;
        held.pop();
        assert!(waits.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn g10_all_keys_together_are_bounded() {
        let room = Room::default();
        let mut held = Vec::new();
        for number in 0..ALL * UNIT / BATCH {
            let place = of(&room, key(number as u128));
            place.take(BATCH).await.unwrap();
            held.push(place);
        }
        assert!(of(&room, key(99)).take(BATCH).await.is_err());
        drop(held);
        of(&room, key(99)).take(BATCH).await.unwrap();
        let shares = room.0.shares.lock().unwrap();
        assert!(shares.len() <= ALL * UNIT / BATCH + 1);
    }
}
