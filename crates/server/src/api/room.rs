//! Room for large request bodies: how much memory those that are under way may take together.
//!
//! A body is read before its request can be looked at, so a client that begins many large ones and ends
//! none makes the server hold what it sent of them. What is small over HTTP/1.1 ([`SMALL`]) is bounded by the number
//! of connections; over HTTP/2 each of them carries hundreds of requests. All else needs room, until its request is
//! answered:
//!
//! 1. All bodies together have [`limits::BODIES_BYTES`], those for one workspace half of that: none can take the room of
//!    the others, however many keys it has.
//! 2. A body takes its room whole and once, before it is read further: by its `Content-Length`, or, where
//!    that is not said, as much as its route allows. So no two can wait for what the other one has.
//! 3. Whoever finds none waits while its connection does, for [`WAIT`] at most, and is told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::Request;
use hookturn_core::id::WorkspaceId;
use hookturn_core::limits;
use http::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};

/// What a body may have over HTTP/1.1 without asking, in bytes: nearly all never ask.
const SMALL: usize = 16 * 1024;
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
    /// Of the workspaces that have such bodies under way.
    shares: Mutex<HashMap<WorkspaceId, Weak<Semaphore>>>,
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
    fn share(&self, workspace: WorkspaceId) -> Arc<Semaphore> {
        let mut shares = self.0.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&workspace).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(SHARE));
        shares.insert(workspace, Arc::downgrade(&share));
        share
    }
}

/// The room that one request has: what it took is free again when the last clone is gone.
#[derive(Clone)]
pub(super) struct Place(Arc<Taken>);

struct Taken {
    room: Room,
    small: usize,
    workspace: OnceLock<WorkspaceId>,
    held: OnceLock<Held>,
}

/// Of the share of the workspace, and of all.
struct Held {
    _share: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

/// Gives a request whose body may need room a place, which whoever answers it holds until then.
pub(super) fn place(room: &Room, request: &mut Request) -> Option<Place> {
    let small = match request.version() {
        Version::HTTP_2 => 0,
        _ => SMALL,
    };
    let most = request.body().size_hint().upper();
    if most.is_some_and(|most| most <= small as u64) {
        return None;
    }
    let place = Place(Arc::new(Taken {
        room: room.clone(),
        small,
        workspace: OnceLock::new(),
        held: OnceLock::new(),
    }));
    request.extensions_mut().insert(place.clone());
    Some(place)
}

impl Place {
    /// For which workspace the request is.
    pub(super) fn belongs_to(&self, workspace: WorkspaceId) {
        // Said once, by whoever reads the key.
        let _ = self.0.workspace.set(workspace);
    }

    /// Whether a body of so many bytes needs room.
    pub(super) fn is_needed_for(&self, bytes: usize) -> bool {
        bytes > self.0.small
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
        let share = match self.0.workspace.get() {
            Some(workspace) => {
                let share = self.0.room.share(*workspace);
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
             {} MiB for one workspace; send it again, or smaller ones",
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

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId::from_bytes(number.to_be_bytes())
    }

    fn of(room: &Room, workspace: WorkspaceId) -> Place {
        let mut request = Request::new(Body::from(vec![0; SMALL + 1]));
        let place = place(room, &mut request).unwrap();
        place.belongs_to(workspace);
        place
    }

    #[test]
    fn small_bodies_have_no_place() {
        let room = Room::default();
        for (version, bytes, wanted) in [
            (Version::HTTP_11, 0, false),
            (Version::HTTP_11, SMALL, false),
            (Version::HTTP_11, SMALL + 1, true),
            (Version::HTTP_2, 0, false),
            (Version::HTTP_2, 1, true),
        ] {
            let mut request = Request::new(Body::from(vec![0; bytes]));
            *request.version_mut() = version;
            assert_eq!(place(&room, &mut request).is_some(), wanted, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g10_one_workspace_leaves_room_for_the_others() {
        let room = Room::default();
        let mut held = Vec::new();
        for _ in 0..SHARE * UNIT / BATCH {
            let place = of(&room, workspace(1));
            place.take(BATCH).await.unwrap();
            held.push(place);
        }
        let refused = of(&room, workspace(1)).take(BATCH).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        of(&room, workspace(2)).take(BATCH).await.unwrap();
        // Room is free when a request is answered, and whoever waits gets it.
        let waiting = of(&room, workspace(1));
        let waits = tokio::spawn(async move { waiting.take(BATCH).await.is_ok() });
        tokio::task::yield_now().await;
        held.pop();
        assert!(waits.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn g10_all_workspaces_together_are_bounded() {
        let room = Room::default();
        let mut held = Vec::new();
        for number in 0..ALL * UNIT / BATCH {
            let place = of(&room, workspace(number as u128));
            place.take(BATCH).await.unwrap();
            held.push(place);
        }
        assert!(of(&room, workspace(99)).take(BATCH).await.is_err());
        drop(held);
        of(&room, workspace(99)).take(BATCH).await.unwrap();
        let shares = room.0.shares.lock().unwrap();
        assert!(shares.len() <= ALL * UNIT / BATCH + 1);
    }
}
