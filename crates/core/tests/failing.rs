//! When an endpoint has failed for too long: enough time and enough failures, both.

use hookturn_core::limits;
use hookturn_core::store::ReceiverState;
use hookturn_core::time::{DAY, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);
const ENOUGH: u32 = limits::DISABLE_AFTER_FAILURES;

/// Failures at these days after [`NOW`].
fn failed_at(days: impl IntoIterator<Item = u64>) -> ReceiverState {
    let mut state = ReceiverState::default();
    for day in days {
        state.note_failure(NOW.after(day * DAY));
    }
    state
}

#[test]
fn an_endpoint_has_failed_too_long_after_enough_failures_and_enough_time() {
    let few = u64::from(ENOUGH) - 1;
    for (days, at, wanted) in [
        // Two lone failures, whatever lies between them.
        (vec![0, 5], 5, false),
        (vec![0, 400], 400, false),
        // Many failures at once.
        (vec![0; ENOUGH as usize + 5], 4, false),
        (vec![0; ENOUGH as usize + 5], 5, true),
        // One failure too few, and enough.
        ((0..few).collect(), few - 1, false),
        ((0..=few).collect(), few, true),
        (Vec::new(), 400, false),
    ] {
        let state = failed_at(days.clone());
        let found = state.failed_too_long(NOW.after(at * DAY), 5 * DAY);
        assert_eq!(found, wanted, "{days:?} at {at}");
    }
}

#[test]
fn a_success_starts_time_and_count_anew() {
    let mut state = failed_at(vec![0; ENOUGH as usize]);
    assert!(state.note_success());
    assert_eq!(state, ReceiverState::default());
    assert!(!state.note_success(), "nothing to store");
    for _ in 1..ENOUGH {
        state.note_failure(NOW);
    }
    assert!(!state.failed_too_long(NOW.after(6 * DAY), 5 * DAY));
}

#[test]
fn failures_are_stored_only_as_long_as_they_count() {
    let mut state = ReceiverState::default();
    let stored = (0..1_000).filter(|_| state.note_failure(NOW)).count();
    assert_eq!(stored, ENOUGH as usize);
    assert_eq!(state.failing_since, Some(NOW));
}
