//! What callers hear.

use hookturn_core::id::MessageId;
use hookturn_core::time::Timestamp;

use super::Judge;

/// Answers for which the same key must repeat itself, by the wall clock.
const ANSWER_KEPT: u64 = 23 * 3_600_000;

impl Judge {
    /// A publish was acknowledged (G1).
    pub(crate) fn acknowledged(&mut self, numbers: &[u32], ids: &[MessageId]) {
        for (number, id) in std::iter::zip(numbers, ids) {
            if self.committed.get(number) != Some(id) {
                let what = format!("message {number} was acknowledged as {id} and is not stored");
                self.find(Err(("G1", what)));
            }
        }
    }

    /// A request under an idempotency key was answered (G5).
    pub(crate) fn answered(&mut self, key: &str, answer: &str, now: Timestamp) {
        let known = self.answers.entry(key.to_owned());
        let (first, at) = known.or_insert_with(|| (answer.to_owned(), now));
        let apart = now.since(*at).max(at.since(now));
        if apart > ANSWER_KEPT {
            (*first, *at) = (answer.to_owned(), now);
        } else if first != answer {
            let what = format!("key {key} was answered `{first}` and then `{answer}`");
            self.find(Err(("G5", what)));
        }
    }
}
