//! How far this machine's clock is from the database's. Pure.
//!
//! Nodes agree on time by the clock of the database: messages are put in order by it, and keys expire by it. Each node
//! measures the difference as its transactions begin, and corrects its own clock by it
//! ([`NodeClock`](crate::telemetry::NodeClock)). A clock that is off by more than [`BOUND`] is not corrected in
//! silence: the node says that it is not ready, and owns no shards, until somebody sets it right. A signature is
//! judged by the receiver's clock too, and by a machine that far off nothing can be trusted.

use hookturn_core::time::SECOND;

/// How far off the clock of a node may be, in milliseconds.
pub const BOUND: i64 = SECOND.cast_signed();
/// A round trip that took longer tells too little to correct a clock by.
const SLOW: i64 = 250;
/// A correction stays as it is while what is measured differs by no more.
const TOLERANCE: i64 = 10;

/// The difference, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skew {
    /// What is added to the node's clock, in milliseconds.
    pub correction: i64,
    /// Whether it is off by more than the bound.
    pub is_off: bool,
}

/// What a round trip to the database showed, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Trip {
    /// What the node's own clock said when it began.
    pub began: i64,
    /// What it said when it ended, at the latest.
    pub ended: i64,
    /// How long it took, by a clock that nobody sets.
    pub took: i64,
    /// What the database's clock said within it.
    pub database: i64,
}

/// What to make of a round trip.
///
/// 1. A clock that was set while it lasted measures nothing: the database's may have been set with it, before it was
///    asked or after. The next round trip tells.
/// 2. The database was asked somewhere within the round trip, so the difference is known to half of it.
/// 3. A slow round trip corrects nothing.
/// 4. What is known stays unless the new value contradicts it: time does not jitter.
/// 5. It is off when the whole uncertainty is beyond the bound, and right again when all of it is within; however
///    slow the round trip was.
pub const fn judge(known: Skew, trip: Trip) -> Skew {
    let Trip {
        began,
        ended,
        took,
        database,
    } = trip;
    if took < 0 || (ended - began - took).abs() > TOLERANCE {
        return known;
    }
    let uncertain = took / 2 + 1;
    let measured = database - (ended - took / 2);
    let apart = (measured - known.correction).abs();
    let correction = if took > SLOW || apart <= uncertain + TOLERANCE {
        known.correction
    } else {
        measured
    };
    let is_off = if measured.abs() - uncertain > BOUND {
        true
    } else if measured.abs().saturating_add(uncertain) < BOUND {
        false
    } else {
        known.is_off
    };
    Skew { correction, is_off }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_784_505_600_000;

    /// A round trip that ends now.
    const fn trip(took: i64, database: i64) -> Trip {
        Trip {
            began: NOW - took,
            ended: NOW,
            took,
            database,
        }
    }

    #[test]
    fn a_clock_that_is_right_is_left_alone_whatever_round_trips_take() {
        for took in [0, 1, 7, 40, 249] {
            for asked in [0, took / 3, took] {
                let skew = judge(Skew::default(), trip(took, NOW - took + asked));
                assert_eq!(skew, Skew::default(), "{took} {asked}");
            }
        }
    }

    #[test]
    fn a_clock_within_the_bound_is_corrected_and_stays_so() {
        let skew = judge(Skew::default(), trip(2, NOW + 400));
        assert!(
            (398..=402).contains(&skew.correction) && !skew.is_off,
            "{skew:?}"
        );
        assert_eq!(judge(skew, trip(4, NOW + 401)), skew);
    }

    #[test]
    fn two_seconds_are_off_and_it_is_right_again_when_it_was_set() {
        for by in [-2_000, 2_000] {
            let skew = judge(Skew::default(), trip(2, NOW + by));
            assert!(skew.is_off, "{by}");
            let set = judge(skew, trip(2, NOW));
            assert_eq!(
                set,
                Skew {
                    correction: 1,
                    is_off: false
                }
            );
        }
    }

    #[test]
    fn a_slow_round_trip_corrects_nothing_and_shows_what_is_beyond_doubt() {
        let known = Skew {
            correction: 3,
            is_off: false,
        };
        // The database was asked somewhere within these five seconds.
        assert_eq!(judge(known, trip(5_000, NOW + 300)), known);
        assert_eq!(judge(known, trip(5_000, NOW - 5_500)), known);
        let off = Skew {
            is_off: true,
            ..known
        };
        assert_eq!(judge(known, trip(5_000, NOW + 60_000)), off);
        assert_eq!(judge(off, trip(5_000, NOW + 300)), off, "who knows");
        assert_eq!(judge(off, trip(800, NOW - 400)), known);
    }

    #[test]
    fn g4_a_step_of_all_clocks_within_a_round_trip_is_not_taken_for_a_wrong_one() {
        for step in [-20_000, 20_000] {
            for database in [NOW + 3, NOW + 3 + step] {
                let stepped = Trip {
                    began: NOW,
                    ended: NOW + 6 + step,
                    took: 6,
                    database,
                };
                assert_eq!(
                    judge(Skew::default(), stepped),
                    Skew::default(),
                    "{stepped:?}"
                );
            }
        }
        // A machine that was set by itself is found out by the next one.
        assert!(judge(Skew::default(), trip(6, NOW - 20_000)).is_off);
    }
}
