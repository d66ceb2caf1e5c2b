//! The books of a run: which messages were accepted, which deliveries arrived, what is missing.
//!
//! Both sides only append while the load runs; the books are compared afterwards. Every delivery is
//! counted by message and endpoint, so *lost* and *duplicates* are exact, not sampled.

use crate::histogram::Histogram;
use crate::number::Nanos;

/// The message id's text: its prefix, an underscore and 26 characters of Crockford base 32.
const PREFIX: &[u8] = b"msg_";
const DIGITS: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const NONE: u8 = u8::MAX;

const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut digit = 0_u8;
    while digit < 32 {
        values[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// The 128 bits of a message id.
pub(crate) fn message_id(text: &[u8]) -> Option<u128> {
    let digits = text.strip_prefix(PREFIX)?;
    if digits.len() != DIGITS || digits[0] > b'7' {
        return None;
    }
    let mut bits = 0_u128;
    for &letter in digits {
        let value = VALUES[usize::from(letter)];
        if value == NONE {
            return None;
        }
        bits = bits << 5 | u128::from(value);
    }
    Some(bits)
}

/// All message ids in an answer's body, in order.
pub(crate) fn message_ids(body: &[u8]) -> impl Iterator<Item = u128> {
    body.split(|&byte| byte == b'"').filter_map(message_id)
}

/// A message whose 202 was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) id: u128,
    /// When its request was sent, or should have been sent when the load is paced.
    pub(crate) sent: Nanos,
    /// Which of the plan's requests it was in.
    pub(crate) request: usize,
}

/// A request that reached the receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) id: u128,
    pub(crate) at: Nanos,
    pub(crate) endpoint: u32,
}

/// What the comparison says.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Accepted deliveries that never arrived.
    pub(crate) lost: u64,
    /// Arrivals of a delivery after its first.
    pub(crate) duplicates: u64,
    /// Arrivals of messages whose 202 was not read, such as those of a connection that broke.
    pub(crate) unacknowledged: u64,
    /// From sending to the first arrival, of the messages sent at or after the given time.
    pub(crate) receipt: Histogram,
}

/// Compares the books; each message is for all endpoints below `fan_out`.
pub(crate) fn tally(
    published: &mut [Published],
    arrivals: &[Arrival],
    fan_out: u32,
    measured_from: Nanos,
) -> Tally {
    published.sort_unstable_by_key(|message| message.id);
    let fan_out = fan_out as usize;
    let mut seen = vec![false; published.len() * fan_out];
    let mut tally = Tally {
        lost: 0,
        duplicates: 0,
        unacknowledged: 0,
        receipt: Histogram::new(),
    };
    for arrival in arrivals {
        let place = published.binary_search_by_key(&arrival.id, |message| message.id);
        let endpoint = arrival.endpoint as usize;
        let Some(place) = place.ok().filter(|_| endpoint < fan_out) else {
            tally.unacknowledged += 1;
            continue;
        };
        let seen = &mut seen[place * fan_out + endpoint];
        if *seen {
            tally.duplicates += 1;
            continue;
        }
        *seen = true;
        let sent = published[place].sent;
        if sent >= measured_from {
            tally.receipt.record(arrival.at.saturating_sub(sent));
        }
    }
    tally.lost = seen.iter().filter(|seen| !**seen).count() as u64;
    tally
}
