//! Since when the database is away, as the writer knows: so that nobody else waits for it as if it was there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Shared by the writer, which tells, and those who wait for the database. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Absence(Arc<watch::Sender<Option<Instant>>>);

impl Default for Absence {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Absence {
    /// The connection of the writer is lost.
    pub(super) fn begins(&self) {
        self.0.send_if_modified(|since| {
            let begins = since.is_none();
            since.get_or_insert_with(Instant::now);
            begins
        });
    }

    /// It has one again.
    pub(super) fn ends(&self) {
        self.0.send_if_modified(|since| since.take().is_some());
    }

    /// Waits until the database has been away for longer than `patience`: at once when it has been already.
    pub(super) async fn outlasts(&self, patience: Duration) {
        let mut told = self.0.subscribe();
        loop {
            // The sender is held here: there is always one.
            let since = told
                .wait_for(Option::is_some)
                .await
                .map_or(None, |since| *since);
            let Some(since) = since else { continue };
            let back = told.wait_for(Option::is_none);
            if timeout_at(since + patience, back).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_later_waits_for_what_is_left() {
        let absence = Absence::default();
        absence.begins();
        let begun = Instant::now();
        tokio::time::advance(PATIENCE / 2).await;
        absence.begins();
        absence.outlasts(PATIENCE).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        absence.outlasts(PATIENCE).await;
        assert_eq!(begun.elapsed(), PATIENCE, "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_one_is_waited_out() {
        let absence = Absence::default();
        absence.begins();
        let waits = tokio::spawn({
            let absence = absence.clone();
            async move { absence.outlasts(PATIENCE).await }
        });
        tokio::time::advance(PATIENCE / 2).await;
        absence.ends();
        tokio::time::advance(PATIENCE * 2).await;
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        absence.begins();
        let begun = Instant::now();
        waits.await.unwrap();
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
