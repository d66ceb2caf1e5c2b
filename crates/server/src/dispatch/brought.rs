//! What a shard was told of that it may have sent already.
//!
//! A node tells the owner of an endpoint which rows it accepted for it. Nothing says when that is heard: the owner may
//! have read such a row from the database meanwhile, because it read for another reason, sent it and forgotten it. Or
//! the one that was the owner before may have. So a row that is told of goes into memory only if it was accepted
//! [lately](is_sure), and after the shard was taken, and if no block brought it: those that were young are remembered
//! here for as long as it takes. Any other is read from the database, if it is still there.
//!
//! "Lately" is by the wall clock. When that was set back, what is old looks young for as long as it takes the clock to
//! come back to where it was, and until then nothing that is told is believed. A process that began meanwhile cannot know
//! that; what it sees is that the clock is set ahead, when somebody sets it right. So after that it believes nothing for a
//! while either. (A clock that was set back before the process began, by no more than rows are late, and is left so, is not
//! noticed: such a row may be sent a second time, under its id.)

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
#[derive(Debug)]
pub(super) struct Brought {
    when: HashMap<DeliveryId, Instant>,
    order: VecDeque<(Instant, DeliveryId)>,
    /// Until then there are some that it does not know.
    blind_until: Option<Instant>,
    /// What the wall clock said, and when, at the last time it was not behind what was to be expected.
    clock: (Timestamp, Instant),
}

impl Brought {
    /// Nothing was brought yet, by the wall clock and the steady one.
    pub(super) fn begin(now: Timestamp, at: Instant) -> Self {
        Self {
            when: HashMap::new(),
            order: VecDeque::new(),
            blind_until: None,
            clock: (now, at),
        }
    }

    /// Blocks brought these rows.
    pub(super) fn note(&mut self, rows: &[Due], now: Timestamp, at: Instant) {
        self.forget(now, at);
        for row in rows {
            if now.since(row.message.accepted_at) > WORTH {
                continue;
            }
            if self.order.len() >= MOST {
                self.be_blind_until(at + REMEMBERED);
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
    pub(super) fn knows_all(&mut self, now: Timestamp, at: Instant) -> bool {
        self.forget(now, at);
        self.blind_until.is_none()
    }

    fn be_blind_until(&mut self, end: Instant) {
        self.blind_until = self.blind_until.max(Some(end));
    }

    /// Notices that the wall clock was set.
    fn watch_clock(&mut self, now: Timestamp, at: Instant) {
        let (then, since) = self.clock;
        let passed = at.duration_since(since).as_millis();
        let expected = then.after(Millis::try_from(passed).unwrap_or(Millis::MAX));
        let behind = expected.since(now);
        if behind > APART {
            self.be_blind_until(at + Duration::from_millis(behind) + REMEMBERED);
        }
        if now.since(expected) > APART {
            self.be_blind_until(at + REMEMBERED);
        }
        if behind == 0 || behind > APART {
            self.clock = (now, at);
        }
    }

    fn forget(&mut self, now: Timestamp, at: Instant) {
        self.watch_clock(now, at);
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

    fn begun() -> (Brought, Instant) {
        let start = Instant::now();
        (Brought::begin(NOW, start), start)
    }

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
        let (mut brought, start) = begun();
        let (one, two) = (row(1, NOW), row(2, NOW));
        let old = row(3, NOW.before(WORTH + 1));
        brought.note(&[one.clone(), two.clone(), old.clone()], NOW, start);
        assert!(brought.has(one.delivery) && !brought.has(old.delivery));
        let later = start + REMEMBERED / 2;
        brought.note(std::slice::from_ref(&one), NOW.after(5 * SECOND), later);
        let mut knows_all_after = |passed: Duration| {
            let millis = Millis::try_from(passed.as_millis()).unwrap();
            assert!(brought.knows_all(NOW.after(millis), start + passed));
            [&one, &two].map(|row| brought.has(row.delivery))
        };
        assert_eq!(knows_all_after(REMEMBERED), [true, true]);
        assert_eq!(knows_all_after(REMEMBERED * 5 / 4), [true, false]);
        assert_eq!(knows_all_after(REMEMBERED * 2), [false, false]);
        assert!(brought.when.is_empty() && brought.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_there_is_too_much_to_remember_nothing_is_believed_for_a_while() {
        let (mut brought, start) = begun();
        let many: Vec<Due> = (0..20).map(|number| row(number, NOW)).collect();
        brought.note(&many, NOW, start);
        assert_eq!(brought.order.len(), MOST);
        let end = NOW.after(10 * SECOND);
        assert!(!brought.knows_all(end, start + REMEMBERED));
        let later = start + REMEMBERED + Duration::from_millis(1);
        assert!(brought.knows_all(end.after(1), later));
    }

    /// What was old when a block brought it is young again by a clock that was set back.
    #[tokio::test(start_paused = true)]
    async fn g2_while_a_clock_that_was_set_back_catches_up_nothing_is_believed() {
        let (mut brought, start) = begun();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let old = row(1, NOW.before(WORTH + 1));
        brought.note(std::slice::from_ref(&old), NOW, start);
        assert!(!brought.has(old.delivery));
        // Two nodes may be as far apart as that.
        assert!(brought.knows_all(NOW.after(SECOND), after(2)));
        // A second later it was set back by 20.
        assert!(!brought.knows_all(NOW.before(18 * SECOND), after(3)));
        assert!(!brought.knows_all(NOW.after(13 * SECOND), after(34)));
        assert!(brought.knows_all(NOW.after(14 * SECOND), after(35)));
    }

    /// What was accepted before a clock was set back looks younger than it is when the clock is set ahead again, also to
    /// a process that began between the two.
    #[tokio::test(start_paused = true)]
    async fn g2_after_a_clock_was_set_ahead_nothing_is_believed_for_a_while() {
        let (mut brought, start) = begun();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(brought.knows_all(NOW.after(2 * SECOND), after(1)), "apart");
        assert!(!brought.knows_all(NOW.after(20 * SECOND), after(2)));
        assert!(!brought.knows_all(NOW.after(30 * SECOND), after(12)));
        assert!(brought.knows_all(NOW.after(31 * SECOND), after(13)));
    }
}
