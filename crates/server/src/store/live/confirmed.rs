//! Until when the view may be believed.
//!
//! The embedded engine is the only one that changes its database, so its view is always as of the last
//! commit. An engine whose database others can take over has to *confirm* its view: each confirmation says
//! that nobody else could have changed anything up to a moment. What is signed from the view is signed
//! only until then ([`Live::is_confirmed`](super::Live::is_confirmed)), so that whoever takes over and waits
//! for as long may retire a key and know that nobody signs with it any more (G4).
//!
//! The time is that of a clock which nobody sets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Whoever keeps the view never has to confirm it.
const ALWAYS: u64 = u64::MAX;

/// A moment, in milliseconds since the first one that was asked about.
#[derive(Debug)]
pub(super) struct Confirmed {
    begun: OnceLock<Instant>,
    until: AtomicU64,
    told: Notify,
}

impl Default for Confirmed {
    fn default() -> Self {
        Self {
            begun: OnceLock::new(),
            until: AtomicU64::new(ALWAYS),
            told: Notify::new(),
        }
    }
}

impl Confirmed {
    fn begun(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    pub(super) fn now(&self) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        until == ALWAYS || self.begun().elapsed().as_millis() < u128::from(until)
    }

    pub(super) fn until(&self, moment: Instant) {
        let since = moment.saturating_duration_since(self.begun());
        let millis = u64::try_from(since.as_millis()).unwrap_or(ALWAYS - 1);
        self.until.store(millis, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    /// Waits until a confirmation holds.
    pub(super) async fn until_now(&self) {
        loop {
            // Asked for first: what is told from here on is heard.
            let told = self.told.notified();
            if self.now() {
                return;
            }
            told.await;
        }
    }

    pub(super) fn no_longer(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_view_is_believed_until_its_confirmation_ends_or_is_taken_back() {
        let confirmed = Confirmed::default();
        assert!(confirmed.now(), "nobody has to confirm it");
        confirmed.no_longer();
        assert!(!confirmed.now());
        let (span, last) = (Duration::from_secs(2), Duration::from_millis(1));
        confirmed.until(Instant::now() + span + last);
        tokio::time::advance(span).await;
        assert!(confirmed.now());
        tokio::time::advance(last).await;
        assert!(!confirmed.now());
        confirmed.until(Instant::now() + span);
        assert!(confirmed.now());
        confirmed.no_longer();
        assert!(!confirmed.now());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_with_the_next_confirmation_that_holds() {
        let confirmed = Confirmed::default();
        confirmed.until_now().await;
        confirmed.no_longer();
        let mut waits = Box::pin(confirmed.until_now());
        assert!(futures_util::poll!(&mut waits).is_pending());
        // One that is over already says nothing.
        confirmed.until(Instant::now());
        assert!(futures_util::poll!(&mut waits).is_pending());
        confirmed.until(Instant::now() + Duration::from_secs(2));
        waits.await;
    }
}
