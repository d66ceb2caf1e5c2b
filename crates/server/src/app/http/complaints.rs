//! A warning that repeats itself, said now and then with how often.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two warnings.
const EVERY: Duration = Duration::from_secs(10);

/// What was said last, and what was kept back since.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: Option<Instant>,
    since: u64,
}

impl Complaints {
    /// Counts one more; how many there were since the last warning, this one included, if it is time
    /// for another.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self
            .said
            .is_some_and(|said| now.duration_since(said) < EVERY)
        {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_rest_with_their_number() {
        let start = Instant::now();
        let mut complaints = Complaints::default();
        let step = Duration::from_millis(50);
        let said: Vec<_> = (0..=600)
            .filter_map(|n| complaints.add(start + step * n))
            .collect();
        assert_eq!(said, [1, 200, 200, 200]);
        assert_eq!(complaints.add(start + step * 601), None);
    }
}
