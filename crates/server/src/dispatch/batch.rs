//! Batches: the due rows that share one request. Pure.
//!
//! Every preset but that of event streams sends each delivery in a request of its own: a batch of
//! one. A stream's request carries an array of events of one type.

use std::collections::VecDeque;

use hookturn_core::limits::{STREAM_BODY_BYTES, STREAM_ENVELOPE_BYTES};
use hookturn_core::message::Message;
use hookturn_core::store::Due;
use hookturn_core::time::Timestamp;

use crate::store::owned::Flight;

/// One or more rows that go out together, in the order of the request's body.
#[derive(Debug)]
pub(super) struct Batch {
    first: Due,
    rest: Vec<Due>,
    /// Holds the endpoint's shard until what came of it is recorded.
    pub(super) flight: Option<Flight>,
}

/// How the rows that may share a request are chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Messages that one request may carry.
    pub(super) places: usize,
    /// Whether the endpoint keeps the order of acceptance.
    pub(super) ordered: bool,
}

impl Batch {
    pub(super) fn first(&self) -> &Due {
        &self.first
    }

    pub(super) fn len(&self) -> usize {
        1 + self.rest.len()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Due> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    pub(super) fn into_rows(self) -> impl DoubleEndedIterator<Item = Due> {
        std::iter::once(self.first).chain(self.rest)
    }

    pub(super) fn messages(&self) -> Vec<&Message> {
        self.rows().map(|row| &*row.message).collect()
    }

    /// Takes the row at `index` out of `ready`, with those that share its request. What is left keeps
    /// its order.
    pub(super) fn take(
        ready: &mut VecDeque<Due>,
        index: usize,
        rules: Rules,
        now: Timestamp,
    ) -> Option<Self> {
        let first = ready.remove(index)?;
        let mut rest = Vec::new();
        // What was at `index` is gone: the rows behind it begin there.
        let chosen = companions(&first, ready.iter().enumerate().skip(index), rules, now);
        if !chosen.is_empty() {
            let mut chosen = chosen.into_iter().peekable();
            for (index, row) in std::mem::take(ready).into_iter().enumerate() {
                if chosen.next_if_eq(&index).is_some() {
                    rest.push(row);
                } else {
                    ready.push_back(row);
                }
            }
        }
        Some(Self {
            first,
            rest,
            flight: None,
        })
    }
}

/// The rows among `behind` that share the request of `first`, by their indices.
///
/// 1. At most as many messages as the rules have places, `first` included.
/// 2. All of one event type.
/// 3. Only rows that may be sent now: nothing waits for a batch to fill, and no batch for a row.
/// 4. All with the same count of attempts, so that what follows the attempt is one decision, and so
///    that messages which a receiver refuses take no fresh ones with them.
/// 5. A retry rides with those that it failed with: they wait for the same moment. This is what
///    keeps the idempotency token of a batch the same on redelivery.
/// 6. Together at most [`STREAM_BODY_BYTES`], but always `first`. The first row of the type that
///    does not fit ends the batch, so that none of its type overtakes it.
/// 7. On an ordered endpoint the first row that does not belong ends the batch.
fn companions<'a>(
    first: &Due,
    behind: impl Iterator<Item = (usize, &'a Due)>,
    rules: Rules,
    now: Timestamp,
) -> Vec<usize> {
    let mut chosen = Vec::new();
    let mut bytes = size(first);
    for (index, row) in behind {
        if chosen.len() + 1 >= rules.places {
            break;
        }
        if row.not_before > now || !is_alike(first, row) {
            if rules.ordered {
                break;
            }
            continue;
        }
        bytes += size(row);
        if bytes > STREAM_BODY_BYTES {
            break;
        }
        chosen.push(index);
    }
    chosen
}

fn is_alike(first: &Due, row: &Due) -> bool {
    row.attempts == first.attempts
        && row.attempts_before_requeue == first.attempts_before_requeue
        && (row.attempts == 0 || row.not_before == first.not_before)
        && row.message.event_type == first.message.event_type
}

/// What a row adds to the body of a stream's request, at most.
fn size(row: &Due) -> usize {
    row.message.payload.len() + STREAM_ENVELOPE_BYTES
}

#[cfg(test)]
mod tests;
