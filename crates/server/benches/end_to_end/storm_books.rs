//! The books of a storm: what became of each message, who signed it, and how long it took before, during
//! and after the bulk rotation.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::histogram::Histogram;
use crate::number::Nanos;
use crate::signatures::{Keys, Request, SignedBy};
use crate::tally::{Arrival, Published};

/// Times in which messages were due, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    pub(crate) before: Range<Nanos>,
    pub(crate) during: Range<Nanos>,
    pub(crate) after: Range<Nanos>,
}

/// How long messages of a window took, from when they were due to their first arrival.
#[derive(Debug, Default)]
pub(crate) struct Times {
    seconds: BTreeMap<u64, Histogram>,
}

impl Times {
    pub(crate) fn record(&mut self, due: Nanos, took: Nanos) {
        let second = self.seconds.entry(due / 1_000_000_000);
        second.or_insert_with(Histogram::new).record(took);
    }

    /// Of all of them.
    pub(crate) fn all(&self) -> Histogram {
        let mut all = Histogram::new();
        for second in self.seconds.values() {
            all.merge(second);
        }
        all
    }

    /// What `share` of 1,000 messages of a second do not exceed, of the median second: a stall of the disk, which
    /// may decide what all of them do, decides only its own.
    pub(crate) fn median_second(&self, share: u64) -> Option<Duration> {
        let of = self.seconds.values();
        let mut of: Vec<_> = of.filter_map(|times| times.per_mille(share)).collect();
        of.sort_unstable();
        of.get(of.len() / 2).copied()
    }
}

/// What the comparison says.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Arrivals of messages without a 202, or at another endpoint than theirs.
    pub(crate) unacknowledged: u64,
    /// Requests without a valid signature by a secret that may sign.
    pub(crate) unsigned: u64,
    pub(crate) by_old: u64,
    pub(crate) by_new: u64,
    /// From when a message was due to its first arrival.
    pub(crate) before: Times,
    pub(crate) during: Times,
    pub(crate) after: Times,
    /// Before and after: the same load without a bulk rotation.
    pub(crate) beside: Times,
}

impl Books {
    const fn judge(&mut self, signed: Option<SignedBy>) {
        let count = match signed {
            None => &mut self.unsigned,
            Some(SignedBy::Old) => &mut self.by_old,
            Some(SignedBy::New) => &mut self.by_new,
        };
        *count += 1;
    }

    fn time(&mut self, windows: &Windows, sent: Nanos, took: Nanos) {
        let Windows {
            before,
            during,
            after,
        } = windows;
        if before.contains(&sent) {
            self.before.record(sent, took);
            self.beside.record(sent, took);
        } else if during.contains(&sent) {
            self.during.record(sent, took);
        } else if after.contains(&sent) {
            self.after.record(sent, took);
            self.beside.record(sent, took);
        }
    }
}

/// Compares the books. Request number `n` of the load is for endpoint `n`, and `keys[n]` are its secrets;
/// `requests` are what was kept of `arrivals`. Messages due at or after `old_retired` may not be signed by
/// an old secret.
pub(crate) fn compare(
    published: &mut [Published],
    arrivals: &[Arrival],
    requests: &[Request],
    keys: &[Keys],
    windows: &Windows,
    old_retired: Option<Nanos>,
) -> Books {
    published.sort_unstable_by_key(|message| message.id);
    let mut seen = vec![false; published.len()];
    let mut books = Books {
        lost: 0,
        duplicates: 0,
        unacknowledged: 0,
        unsigned: 0,
        by_old: 0,
        by_new: 0,
        before: Times::default(),
        during: Times::default(),
        after: Times::default(),
        beside: Times::default(),
    };
    for (arrival, request) in arrivals.iter().zip(requests) {
        let place = published.binary_search_by_key(&arrival.id, |message| message.id);
        let message = place.ok().map(|place| (place, published[place]));
        let sent = message.map(|(_, message)| message.sent);
        let retired = old_retired
            .zip(sent)
            .is_some_and(|(retired, sent)| sent >= retired);
        let keys = keys.get(arrival.endpoint as usize);
        books.judge(keys.and_then(|keys| keys.signed(request, retired)));
        match message {
            Some((place, message)) if message.request == arrival.endpoint as usize => {
                if std::mem::replace(&mut seen[place], true) {
                    books.duplicates += 1;
                } else {
                    let took = arrival.at.saturating_sub(message.sent);
                    books.time(windows, message.sent, took);
                }
            }
            _ => books.unacknowledged += 1,
        }
    }
    books.lost = seen.iter().filter(|seen| !**seen).count() as u64;
    books
}

/// Messages of which nothing arrived yet at the endpoint they are for.
pub(crate) fn missing(published: &mut [Published], arrivals: &[Arrival]) -> usize {
    published.sort_unstable_by_key(|message| message.id);
    let mut seen = vec![false; published.len()];
    for arrival in arrivals {
        if let Ok(place) = published.binary_search_by_key(&arrival.id, |message| message.id) {
            seen[place] |= published[place].request == arrival.endpoint as usize;
        }
    }
    seen.iter().filter(|seen| !**seen).count()
}
