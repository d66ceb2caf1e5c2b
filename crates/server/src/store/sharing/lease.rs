//! The lease of a node, what it may do until when, and whom it may take over.
//!
//! A node signs until [`GRACE`] after the beginning of the last round trip that showed that its view of the keys was
//! current, and not beyond its lease less a margin ([`confirmed_until`]). Only a lease whose renewal is *committed* is
//! counted on: who takes over sees it, or finds the row locked and the session of the other ended.

use std::collections::HashMap;
use std::time::Duration;

use hookturn_core::shard::{Watched, may_be_taken_over};
use hookturn_core::time::Millis;
use tokio::time::Instant;
use uuid::Uuid;

/// How long what was confirmed may be believed.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long before the end of its lease a node stops, at the latest.
pub const MARGIN: Duration = Duration::from_millis(500);
/// How often a node shows that it lives, and looks at the others, when nothing is written.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a transaction may take, however long the lease is.
const TRANSACTION: Duration = Duration::from_secs(15);

/// Until when a node may sign, after a round trip that began at `begun` and showed that its view was current, if
/// the last round trip whose renewal of the lease was committed began at `renewed`.
pub fn confirmed_until(begun: Instant, renewed: Instant, lease: Duration) -> Instant {
    let until = renewed + lease.saturating_sub(MARGIN);
    until.min(begun + GRACE)
}

/// How long a node waits for a lock of another one, which may have stopped in the middle of a transaction: far
/// less than its own lease, which it does not renew meanwhile.
pub fn patience(lease: Duration) -> Duration {
    (lease / 4).min(GRACE)
}

/// How long one transaction may take, after which its connection is given up: the lease must not run out.
pub fn longest_transaction(lease: Duration) -> Duration {
    (lease / 2).min(TRANSACTION)
}

/// Whether a node may judge others by their silence: it could write itself a moment ago. `renewed` is when the last
/// transaction of its own began that was committed.
pub fn may_judge(renewed: Option<Instant>, now: Instant) -> bool {
    renewed.is_some_and(|renewed| now.duration_since(renewed) < GRACE)
}

/// Another node that has not left and was not taken over, as its row tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// Which.
    pub id: Uuid,
    /// The number of its last transaction.
    pub written: i64,
    /// How long its lease is.
    pub lease: Millis,
    /// Whether the lease is out, by the database's clock.
    pub lease_is_out: bool,
    /// Whether its process is known to have ended.
    pub process_ended: bool,
}

/// Since when each node was seen to write nothing: its last number, and when that was seen first.
#[derive(Debug, Default)]
pub struct Silence(HashMap<Uuid, (i64, Instant)>);

impl Silence {
    /// Which of the others may be taken over, now that they are seen so. Whoever is not among them is forgotten.
    pub fn dead(&mut self, others: &[Other], now: Instant) -> Vec<Uuid> {
        self.0
            .retain(|id, _| others.iter().any(|other| other.id == *id));
        let mut dead = Vec::new();
        for other in others {
            let watched = Watched {
                lease_is_out: other.lease_is_out,
                silent: self.of(other.id, other.written, now),
                lease: other.lease,
                process_ended: other.process_ended,
            };
            if may_be_taken_over(&watched) {
                dead.push(other.id);
            }
        }
        dead
    }

    /// For how long a node has been silent, now that it is seen with this number.
    fn of(&mut self, node: Uuid, written: i64, now: Instant) -> Millis {
        let seen = self.0.entry(node).or_insert((written, now));
        if seen.0 != written {
            *seen = (written, now);
        }
        Millis::try_from(now.duration_since(seen.1).as_millis()).unwrap_or(Millis::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_confirmation_ends_with_the_grace_and_never_after_the_committed_lease() {
        let now = Instant::now();
        assert_eq!(confirmed_until(now, now, LEASE), now + GRACE);
        // It was stopped for longer than its lease: what it begins now is not committed yet.
        let later = now + Duration::from_secs(11);
        assert!(confirmed_until(later, now, LEASE) < later);
        let near = now + Duration::from_secs(9);
        assert_eq!(confirmed_until(near, now, LEASE), now + LEASE - MARGIN);
    }

    #[tokio::test]
    async fn whoever_writes_is_not_silent() {
        let (mut silence, node, now) = (
            Silence::default(),
            Uuid::from_bytes([1; 16]),
            Instant::now(),
        );
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(silence.of(node, 7, at(0)), 0);
        assert_eq!(silence.of(node, 7, at(4)), 4_000);
        assert_eq!(silence.of(node, 8, at(5)), 0);
        assert_eq!(silence.of(node, 8, at(15)), 10_000);
    }

    #[tokio::test]
    async fn who_was_not_seen_for_a_while_is_watched_anew() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let other = Other {
            id: Uuid::from_bytes([1; 16]),
            written: 7,
            lease: 10_000,
            lease_is_out: true,
            process_ended: false,
        };
        let mut dead = |others: &[Other], seconds| {
            silence
                .dead(others, now + Duration::from_secs(seconds))
                .len()
        };
        assert_eq!(dead(&[other], 0), 0);
        assert_eq!(dead(&[other], 10), 1);
        assert_eq!(dead(&[], 11), 0);
        assert_eq!(dead(&[other], 12), 0, "it is another look at it");
        assert_eq!(dead(&[other], 22), 1);
    }

    #[tokio::test]
    async fn who_cannot_write_judges_nobody() {
        let now = Instant::now();
        assert!(!may_judge(None, now));
        assert!(may_judge(Some(now), now));
        assert!(!may_judge(Some(now), now + GRACE));
    }
}
