//! What the log says of work that is done again and again, and fails for a while.
//!
//! Work on a period fails as often as it is tried, for one reason: the store is away. The log says so when it begins, once a
//! minute while it lasts, and once when it is over, with how long that took and how often it was tried. A trouble that comes
//! and goes is said no more often. Each step is counted for itself, because what works says something too.
//!
//! All periodic work tells its outcome here and nowhere else.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::explain;

/// How often it is said that something fails still.
pub const SAID_EVERY: Duration = Duration::from_mins(1);
/// Reasons that are said at once when they come up while something fails already.
const REASONS: usize = 3;

/// Steps that have failed, by what they do.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<&'static str, Trouble>>);

#[derive(Debug, Default)]
struct Trouble {
    /// Since when it fails; nothing while it works.
    since: Option<Instant>,
    tries: u64,
    /// What was said of it, as the reasons were told.
    reasons: Vec<String>,
    /// When that it fails was said last, in this trouble or one before.
    said_at: Option<Instant>,
}

/// What is to be said of a failure.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Begins,
    Lasts { tries: u64, took: Duration },
    Nothing,
}

impl Troubles {
    /// Takes down how a step ended. `step` is what it does, as in "failed to …".
    pub fn note<T, E: Error>(&self, step: &'static str, ended: &Result<T, E>) {
        match ended {
            Ok(_) => self.worked(step),
            Err(error) => self.failed(step, error),
        }
    }

    /// A step failed, and is tried again.
    pub fn failed(&self, step: &'static str, error: &dyn Error) {
        let error = explain(error);
        let say = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let trouble = known.entry(step).or_default();
            trouble.fails(&error, Instant::now())
        };
        match say {
            Say::Begins => {
                tracing::error!(step, error, "a background step failed; it is tried again");
            }
            Say::Lasts { tries, took } => {
                let seconds = took.as_secs();
                tracing::error!(
                    step,
                    error,
                    tries,
                    seconds,
                    "a background step fails still; it is tried again"
                );
            }
            Say::Nothing => {}
        }
    }

    /// A step did what it is for.
    pub fn worked(&self, step: &'static str) {
        let over = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let trouble = known.get_mut(step);
            trouble.and_then(|trouble| trouble.ends(Instant::now()))
        };
        if let Some((tries, took)) = over {
            let seconds = took.as_secs_f64();
            tracing::info!(step, tries, seconds, "a background step works again");
        }
    }
}

impl Trouble {
    fn fails(&mut self, reason: &str, now: Instant) -> Say {
        let since = *self.since.get_or_insert(now);
        self.tries += 1;
        let quiet = self
            .said_at
            .is_some_and(|at| now.duration_since(at) < SAID_EVERY);
        let told = !self.reasons.is_empty();
        let known = self.reasons.iter().any(|known| known == reason);
        if quiet && (!told || known || self.reasons.len() >= REASONS) {
            return Say::Nothing;
        }
        self.said_at = Some(now);
        if !known && self.reasons.len() < REASONS {
            self.reasons.push(reason.to_owned());
        }
        if told {
            let (tries, took) = (self.tries, now.duration_since(since));
            Say::Lasts { tries, took }
        } else {
            Say::Begins
        }
    }

    /// How often it was tried in vain and for how long, if it was said that it fails.
    fn ends(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let since = self.since.take()?;
        let tries = std::mem::take(&mut self.tries);
        let told = !std::mem::take(&mut self.reasons).is_empty();
        told.then(|| (tries, now.duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use tokio::time::advance;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    const STEP: &str = "report operational events";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        fn collect(&self) -> tracing::subscriber::DefaultGuard {
            let collected = tracing_subscriber::fmt()
                .with_writer(self.clone())
                .with_ansi(false)
                .without_time()
                .finish();
            tracing::subscriber::set_default(collected)
        }

        fn take(&self) -> Vec<String> {
            let text = std::mem::take(&mut *self.0.lock().unwrap());
            let text = String::from_utf8(text).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    fn away() -> io::Error {
        io::Error::other("the database is away")
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_fails_four_times_a_second_is_said_once_a_minute_and_once_when_it_is_over()
    {
        let (lines, troubles) = (Lines::default(), Troubles::default());
        let _collected = lines.collect();
        for _ in 0..10 * 60 * 4 {
            troubles.failed(STEP, &away());
            advance(Duration::from_millis(250)).await;
        }
        let said = lines.take();
        assert_eq!(said.len(), 10, "{said:#?}");
        assert!(said[0].contains("a background step failed"), "{}", said[0]);
        let last = &said[9];
        assert!(last.contains("fails still"), "{last}");
        assert!(last.contains("tries=2161 seconds=540"), "{last}");
        troubles.note(STEP, &Ok::<_, io::Error>(()));
        troubles.note(STEP, &Ok::<_, io::Error>(()));
        let said = lines.take();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains("works again"), "{}", said[0]);
        assert!(said[0].contains("tries=2400 seconds=600"), "{}", said[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_said_no_more_often() {
        let (lines, troubles) = (Lines::default(), Troubles::default());
        let _collected = lines.collect();
        for _ in 0..10 * 60 * 2 {
            troubles.failed(STEP, &away());
            advance(Duration::from_millis(250)).await;
            troubles.worked(STEP);
            advance(Duration::from_millis(250)).await;
        }
        let said = lines.take();
        assert_eq!(said.len(), 20, "begun and over: {said:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn another_reason_is_said_at_once_a_few_times() {
        let (lines, troubles) = (Lines::default(), Troubles::default());
        let _collected = lines.collect();
        troubles.failed(STEP, &away());
        for number in 0..100 {
            troubles.failed(STEP, &io::Error::other(format!("reason {number}")));
        }
        let said = lines.take();
        assert_eq!(said.len(), REASONS, "{said:#?}");
        assert!(said[1].contains("reason 0"), "{}", said[1]);
        troubles.failed("settle keyrings", &away());
        assert_eq!(lines.take().len(), 1, "another step");
    }

    #[tokio::test]
    async fn what_works_says_nothing() {
        let (lines, troubles) = (Lines::default(), Troubles::default());
        let _collected = lines.collect();
        troubles.worked(STEP);
        assert_eq!(lines.take(), Vec::<String>::new());
    }
}
