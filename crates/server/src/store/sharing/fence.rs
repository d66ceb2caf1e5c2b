//! The fence: until when another node may sign by what was before a change.
//!
//! A node that says in its row that it follows a version never signs by an older view again: it applied the change
//! before it said so. A node that says nothing signs at most [`GRACE`] after the beginning of a round trip that
//! showed its view as current, and such a round trip began before the change was committed. So the fence is closed
//! when every node that has a view said so, or [`GRACE`] after the commit, whichever is first. A node that has
//! not looked yet (its `view` is empty) follows before it signs.

use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::Fence;
use hookturn_core::time::Millis;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::lease::GRACE;

/// Time for the clocks of two machines to run apart within the grace, and for a commit to be answered.
const ALLOWANCE: Duration = Duration::from_millis(50);
/// How long to wait before the rows are read again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_LAST: Duration = Duration::from_millis(25);

/// Waits until the fence is closed, or for as long as the caller has patience. The change was committed before
/// this is called. `said` asks what the other nodes follow, as they said at this moment or later; it has nothing if
/// they cannot be asked.
pub async fn close<F: Future<Output = Option<Arc<[i64]>>> + Send>(
    said: impl Fn(Instant) -> F + Send + Sync,
    version: i64,
    patience: Millis,
) -> Fence {
    let begun = Instant::now();
    let safe = begun + GRACE + ALLOWANCE;
    let until = safe.min(begun + Duration::from_millis(patience));
    let (mut pause, mut moment) = (PAUSE_FIRST, begun);
    let mut fence = Fence::ALONE;
    fence.closed = loop {
        let asked = timeout_at(until, said(moment)).await;
        if let Ok(Some(views)) = asked {
            let count = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
            fence.nodes = count(views.len());
            fence.confirmed = count(views.iter().filter(|view| **view >= version).count());
            if fence.nodes == fence.confirmed {
                break true;
            }
        }
        if Instant::now() + pause >= until {
            sleep_until(until).await;
            break until == safe;
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_LAST);
        moment = Instant::now();
    };
    fence.millis = Millis::try_from(begun.elapsed().as_millis()).unwrap_or(Millis::MAX);
    fence
}
