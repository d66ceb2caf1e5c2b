//! Which shards this node owns, and what is under way for them.
//!
//! Whoever sends asks first ([`Owned::begin`]) and holds the answer until the outcome is recorded. An engine that
//! gives a shard up takes it from here, and waits until nothing is held for it any more: only then may somebody
//! else send to its endpoints, so that order holds and no outcome is left unrecorded.
//!
//! An engine that nobody shares a database with owns everything, for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookturn_core::id::EndpointId;
use hookturn_core::shard::{SHARDS, Shard};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Set while the shard is owned.
const OWNED: u64 = 1 << 63;
/// The lower half counts what is under way.
const UNDER_WAY: u64 = u32::MAX as u64;
/// Above it is the number of times that the shard was taken.
const TENURE: u32 = 32;

/// The shards of this node. Shared by the engine, which changes it, and everyone who asks.
#[derive(Debug)]
pub struct Owned {
    /// One word a shard: owned, how often it was taken, what is under way.
    shards: Option<Vec<AtomicU64>>,
    /// When each was last taken.
    taken: Mutex<Vec<Option<Instant>>>,
    look: Notify,
    lost: Notify,
    ended: Notify,
}

impl Default for Owned {
    /// Everything.
    fn default() -> Self {
        Self {
            shards: None,
            taken: Mutex::default(),
            look: Notify::new(),
            lost: Notify::new(),
            ended: Notify::new(),
        }
    }
}

/// Something under way for an endpoint of a shard that is owned. It ends when it is dropped.
#[derive(Debug)]
pub struct Flight(Option<(Arc<Owned>, Shard)>);

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some((owned, shard)) = &self.0 {
            owned.end(*shard);
        }
    }
}

impl Owned {
    /// Nothing yet: shards are taken and given up.
    pub fn none() -> Self {
        Self {
            shards: Some((0..SHARDS).map(|_| AtomicU64::new(0)).collect()),
            taken: Mutex::new(vec![None; usize::from(SHARDS)]),
            ..Self::default()
        }
    }

    fn word(&self, shard: Shard) -> Option<&AtomicU64> {
        self.shards.as_ref()?.get(usize::from(shard.number()))
    }

    /// Whether shards may be another node's.
    pub const fn is_shared(&self) -> bool {
        self.shards.is_some()
    }

    /// Whether this node sends to an endpoint.
    pub fn owns(&self, endpoint: EndpointId) -> bool {
        self.has(Shard::of(endpoint))
    }

    /// Whether it owns a shard.
    pub fn has(&self, shard: Shard) -> bool {
        self.word(shard)
            .is_none_or(|word| word.load(Ordering::SeqCst) & OWNED != 0)
    }

    /// Whether it does what one node does for all.
    pub fn leads(&self) -> bool {
        self.has(Shard::FIRST)
    }

    /// How many shards it owns.
    pub fn count(&self) -> usize {
        Shard::all().filter(|shard| self.has(*shard)).count()
    }

    /// Changes whenever the shard of an endpoint was given up and taken again: what is remembered from before
    /// may be old.
    pub fn tenure(&self, endpoint: EndpointId) -> u32 {
        let word = self.word(Shard::of(endpoint));
        word.map_or(0, |word| {
            let tenure = (word.load(Ordering::SeqCst) & !OWNED) >> TENURE;
            u32::try_from(tenure).unwrap_or(u32::MAX)
        })
    }

    /// For how long this node has sent to an endpoint, if it does: nobody else has meanwhile.
    pub fn held_for(&self, endpoint: EndpointId) -> Option<Duration> {
        let shard = Shard::of(endpoint);
        if !self.has(shard) {
            return None;
        }
        // One value is replaced at a time: a panic elsewhere leaves whole ones.
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.get(usize::from(shard.number())).copied().flatten();
        Some(taken.map_or(Duration::MAX, |taken| taken.elapsed()))
    }

    /// Begins something for an endpoint, if this node owns it.
    pub fn begin(self: &Arc<Self>, endpoint: EndpointId) -> Option<Flight> {
        let shard = Shard::of(endpoint);
        let Some(word) = self.word(shard) else {
            return Some(Flight(None));
        };
        // Counted first and asked second: who gives the shard up meanwhile sees it.
        let before = word.fetch_add(1, Ordering::SeqCst);
        let flight = Flight(Some((Arc::clone(self), shard)));
        (before & OWNED != 0).then_some(flight)
    }

    fn end(&self, shard: Shard) {
        if let Some(word) = self.word(shard) {
            let before = word.fetch_sub(1, Ordering::SeqCst);
            if before & OWNED == 0 && before & UNDER_WAY == 1 {
                self.ended.notify_one();
            }
        }
    }

    /// Takes a shard. Only engines call this.
    pub fn take(&self, shard: Shard) {
        if let Some(word) = self.word(shard) {
            // Before it is owned: nobody sees it owned since the time before.
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(taken) = taken.get_mut(usize::from(shard.number())) {
                *taken = Some(Instant::now());
            }
            drop(taken);
            let next = |word: u64| {
                let tenure = ((word & !OWNED) >> TENURE).wrapping_add(1) << TENURE;
                Some(OWNED | (tenure & !OWNED) | (word & UNDER_WAY))
            };
            let _always = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
            self.look();
        }
    }

    /// Gives a shard up: nothing more begins for it. Returns whether nothing is under way. Only engines call this.
    pub fn give_up(&self, shard: Shard) -> bool {
        let Some(word) = self.word(shard) else {
            return true;
        };
        let before = word.fetch_and(!OWNED, Ordering::SeqCst);
        if before & OWNED != 0 {
            self.lost.notify_one();
        }
        before & UNDER_WAY == 0
    }

    /// There may be due rows that nobody was told of. Only engines call this.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Waits until shards were taken, or there is another reason to look for due rows, since the last call.
    pub async fn to_look(&self) {
        self.look.notified().await;
    }

    /// Waits until shards were given up since the last call.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Waits until the last thing under way for a shard that was given up has ended, since the last call.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> EndpointId {
        EndpointId::from_bytes([7; 16])
    }

    #[test]
    fn who_shares_with_nobody_owns_everything() {
        let owned = Arc::new(Owned::default());
        assert!(owned.leads() && owned.owns(endpoint()));
        assert!(owned.begin(endpoint()).is_some());
        assert_eq!(owned.count(), usize::from(SHARDS));
        assert!(owned.give_up(Shard::of(endpoint())));
        assert!(owned.owns(endpoint()), "there is nobody to give it to");
    }

    #[test]
    fn nothing_begins_for_what_is_not_owned_and_what_is_under_way_is_waited_for() {
        let owned = Arc::new(Owned::none());
        let shard = Shard::of(endpoint());
        assert!(owned.begin(endpoint()).is_none());
        owned.take(shard);
        let tenure = owned.tenure(endpoint());
        let flight = owned.begin(endpoint()).unwrap();
        assert!(!owned.give_up(shard), "something is under way");
        assert!(owned.begin(endpoint()).is_none());
        drop(flight);
        assert!(owned.give_up(shard));
        owned.take(shard);
        assert_ne!(owned.tenure(endpoint()), tenure);
        assert_eq!(owned.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_for_how_long_a_shard_has_been_owned() {
        let owned = Owned::none();
        let shard = Shard::of(endpoint());
        assert_eq!(owned.held_for(endpoint()), None);
        for _ in 0..2 {
            owned.take(shard);
            assert_eq!(owned.held_for(endpoint()), Some(Duration::ZERO));
            tokio::time::advance(Duration::from_secs(7)).await;
            assert_eq!(owned.held_for(endpoint()), Some(Duration::from_secs(7)));
            owned.give_up(shard);
            assert_eq!(owned.held_for(endpoint()), None);
        }
        assert_eq!(Owned::default().held_for(endpoint()), Some(Duration::MAX));
    }

    #[tokio::test]
    async fn the_end_of_the_last_flight_of_a_shard_that_was_given_up_is_told() {
        let owned = Arc::new(Owned::none());
        let shard = Shard::of(endpoint());
        owned.take(shard);
        let flights = [owned.begin(endpoint()), owned.begin(endpoint())];
        owned.give_up(shard);
        drop(flights);
        owned.ended().await;
    }
}
