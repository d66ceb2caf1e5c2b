//! What a shard was told of that it may have sent already.
//!
//! A node tells the owner of an endpoint which rows it accepted for it. Nothing says when that is heard: the owner may
//! have read such a row from the database meanwhile, because it read for another reason, sent it and forgotten it. Or
//! the one that was the owner before may have. So a row that is told of goes into memory only if it was accepted
//! [lately](is_sure), and after the shard was taken, and if no block brought it: those that were young are remembered
//! here for as long as it takes. Any other is read from the database, if it is still there.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hookturn_core::id::DeliveryId;
use hookturn_core::store::Due;
use hookturn_core::time::{Millis, SECOND, Timestamp};
use tokio::time::Instant;

/// How long ago a row was accepted at most that is believed.
const YOUNG: Millis = 5 * SECOND;
/// By how much the clocks of two nodes may be apart: one that is off by more owns nothing.
const APART: Millis = SECOND;
/// For how long what a block brought is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long after its acceptance a row that a block brings is worth remembering.
const WORTH: Millis = 10 * SECOND;
/// Rows that are remembered at most. Beyond that nothing that is told is believed, for as long as one of them would have
/// been remembered.
const MOST: usize = if cfg!(test) { 8 } else { 65_536 };

const _: () = assert!(
    (YOUNG + 2 * APART) as u128 * 1_000_000 < REMEMBERED.as_nanos() && YOUNG + 2 * APART < WORTH
);

/// Whether a row of which a node is told now, and whose shard it has held for so long, was accepted lately, and under its
/// own eyes: nobody else can have sent it.
pub(super) fn is_sure(row: &Due, held: Duration, now: Timestamp) -> bool {
    let accepted_at = row.message.accepted_at;
    let age = now.since(accepted_at);
    let is_young = age <= YOUNG && accepted_at <= now.after(APART);
    is_young && held > Duration::from_millis(age + APART)
}

/// The young rows that blocks brought lately.
#[derive(Debug, Default)]
pub(super) struct Brought {
    when: HashMap<DeliveryId, Instant>,
    order: VecDeque<(Instant, DeliveryId)>,
    /// Until then there are some that it does not know.
    blind_until: Option<Instant>,
}

impl Brought {
    /// Blocks brought these rows.
    pub(super) fn note(&mut self, rows: &[Due], now: Timestamp, at: Instant) {
        self.forget(at);
        for row in rows {
            if now.since(row.message.accepted_at) > WORTH {
                continue;
            }
            if self.order.len() >= MOST {
                self.blind_until = Some(at + REMEMBERED);
                return;
            }
            self.when.insert(row.delivery, at);
            self.order.push_back((at, row.delivery));
        }
    }

    /// Whether one of them did bring it.
    pub(super) fn has(&self, delivery: DeliveryId) -> bool {
        self.when.contains_key(&delivery)
    }

    /// Whether all that they brought lately is known.
    pub(super) fn knows_all(&mut self, at: Instant) -> bool {
        self.forget(at);
        self.blind_until.is_none()
    }

    fn forget(&mut self, at: Instant) {
        while let Some((brought, delivery)) = self.order.front()
            && at.duration_since(*brought) > REMEMBERED
        {
            // One that was brought again since stays.
            if self.when.get(delivery) == Some(brought) {
                self.when.remove(delivery);
            }
            self.order.pop_front();
        }
        self.blind_until = self.blind_until.filter(|until| at <= *until);
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::tests::row_accepted_at;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    fn row(number: u32, at: Timestamp) -> Due {
        row_accepted_at(number, at)
    }

    #[test]
    fn only_what_was_accepted_lately_and_since_the_shard_was_taken_is_believed() {
        let held = Duration::from_mins(1);
        for (accepted_at, sure) in [
            (NOW, true),
            (NOW.before(YOUNG), true),
            (NOW.before(YOUNG + 1), false),
            (NOW.after(APART), true),
            (NOW.after(APART + 1), false),
        ] {
            assert_eq!(is_sure(&row(1, accepted_at), held, NOW), sure);
        }
        let row = row(1, NOW.before(300));
        assert!(!is_sure(&row, Duration::from_millis(300 + APART), NOW));
        assert!(is_sure(&row, Duration::from_millis(301 + APART), NOW));
        assert!(is_sure(&row, Duration::MAX, NOW));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_block_brought_is_remembered_while_it_may_be_told() {
        let (mut brought, start) = (Brought::default(), Instant::now());
        let (one, two) = (row(1, NOW), row(2, NOW));
        let old = row(3, NOW.before(WORTH + 1));
        brought.note(&[one.clone(), two.clone(), old.clone()], NOW, start);
        assert!(brought.has(one.delivery) && !brought.has(old.delivery));
        brought.note(std::slice::from_ref(&one), NOW, start + REMEMBERED / 2);
        assert!(brought.knows_all(start + REMEMBERED));
        assert!(brought.has(two.delivery));
        assert!(brought.knows_all(start + REMEMBERED + REMEMBERED / 4));
        assert!(brought.has(one.delivery) && !brought.has(two.delivery));
        assert!(brought.knows_all(start + 2 * REMEMBERED));
        assert!(brought.when.is_empty() && brought.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_there_is_too_much_to_remember_nothing_is_believed_for_a_while() {
        let (mut brought, start) = (Brought::default(), Instant::now());
        let many: Vec<Due> = (0..20).map(|number| row(number, NOW)).collect();
        brought.note(&many, NOW, start);
        assert_eq!(brought.order.len(), MOST);
        assert!(!brought.knows_all(start + REMEMBERED));
        assert!(brought.knows_all(start + REMEMBERED + Duration::from_millis(1)));
    }
}
