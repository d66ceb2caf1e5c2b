//! The fence: until when another node may sign by what was before a change.
//!
//! A node that says in its row that it follows a version never signs by an older view again: it applied the change
//! before it said so. A node that says nothing signs at most [`GRACE`] after the beginning of a round trip that
//! showed its view as current, and such a round trip began before the change was committed. So the fence is closed
//! when every node that has a view said so, or [`GRACE`] after the commit, whichever is first. A node that has
//! not looked yet (its `view` is empty) follows before it signs.
//!
//! A change that need not wait for the silent ([`FenceFor::Answering`]) takes the database's word for who is: a node whose
//! lease was renewed so long ago that no confirmation of that time holds any more.

use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::{Fence, FenceFor};
use hookturn_core::time::Millis;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::lease::GRACE;

/// Time for the clocks of two machines to run apart within the grace, and for a commit to be answered.
const ALLOWANCE: Duration = Duration::from_millis(50);
/// How long to wait before the rows are read again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_LAST: Duration = Duration::from_millis(25);

/// What another node said that it follows, and how long ago it renewed its lease, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The version of its view.
    pub view: i64,
    /// In milliseconds.
    pub silent: Millis,
}

impl Said {
    /// Whether whoever waits for those that answer waits for it.
    fn is_there(&self) -> bool {
        Duration::from_millis(self.silent) < GRACE + ALLOWANCE
    }
}

/// Waits until the fence is closed, or as far as those are concerned for whom it waits. The change was committed before
/// this is called. `said` asks what the other nodes follow, as they said at this moment or later; it has nothing if
/// they cannot be asked.
pub async fn close<F: Future<Output = Option<Arc<[Said]>>> + Send>(
    said: impl Fn(Instant) -> F + Send + Sync,
    version: i64,
    whom: FenceFor,
) -> Fence {
    let begun = Instant::now();
    let safe = begun + GRACE + ALLOWANCE;
    let (mut pause, mut moment) = (PAUSE_FIRST, begun);
    let mut fence = Fence::ALONE;
    fence.closed = loop {
        let asked = timeout_at(safe, said(moment)).await;
        if let Ok(Some(others)) = asked {
            let count = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
            let behind = || others.iter().filter(|said| said.view < version);
            fence.nodes = count(others.len());
            fence.confirmed = count(others.len() - behind().count());
            if fence.nodes == fence.confirmed {
                break true;
            }
            if whom == FenceFor::Answering && !behind().any(Said::is_there) {
                break false;
            }
        }
        if Instant::now() + pause >= safe {
            sleep_until(safe).await;
            break true;
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_LAST);
        moment = Instant::now();
    };
    fence.millis = Millis::try_from(begun.elapsed().as_millis()).unwrap_or(Millis::MAX);
    fence
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: i64 = 6;
    const FOLLOWS: i64 = 7;

    async fn closed(others: &[(i64, Millis)], whom: FenceFor) -> Fence {
        let said = others
            .iter()
            .map(|(view, silent)| Said {
                view: *view,
                silent: *silent,
            })
            .collect::<Arc<[Said]>>();
        close(|_| std::future::ready(Some(Arc::clone(&said))), 7, whom).await
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_those_who_said_that_they_follow() {
        for whom in [FenceFor::Answering, FenceFor::All] {
            let fence = closed(&[(FOLLOWS, 0), (8, 9_000)], whom).await;
            assert_eq!((fence.nodes, fence.confirmed), (3, 3));
            assert!(fence.closed && fence.millis == 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g4_a_change_of_keys_waits_for_the_silent_until_they_cannot_sign() {
        let fence = closed(&[(FOLLOWS, 0), (BEHIND, 9_000)], FenceFor::All).await;
        assert_eq!((fence.nodes, fence.confirmed), (3, 2));
        assert!(fence.closed && fence.millis >= 2_050, "{fence:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_change_waits_for_those_who_may_answer_by_what_was_before() {
        let fence = closed(&[(BEHIND, 2_050)], FenceFor::Answering).await;
        assert_eq!(fence.millis, 0);
        assert!(
            !fence.closed,
            "it says nothing about those it did not wait for"
        );
        let fence = closed(&[(BEHIND, 2_049)], FenceFor::Answering).await;
        assert!(fence.closed && fence.millis >= 2_050, "{fence:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_of_the_database_it_is_the_grace() {
        let fence = close(|_| std::future::ready(None), 7, FenceFor::Answering).await;
        assert!(fence.closed && fence.millis >= 2_050);
    }
}
