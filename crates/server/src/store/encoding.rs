//! How values are written into columns, whatever the engine: encoder and decoder side by side.
//!
//! - An id is its 16 bytes. A time is its milliseconds. A configured thing is a JSON document.
//! - An attempt is one byte of format, then the postcard encoding of [`Attempt`], in format 1. In format 2 it is that of
//!   the pair of it and, for each exchange, whether its request was sent twice: only such attempts have it.
//! - The kind of a bulk rotation's item is its place in [`ItemKind::ALL`].
//! - What an idempotent answer shows is the text of an id, with the fingerprint if it is a secret's.

use std::fmt::Display;

use hookturn_core::audit::Recorded;
use hookturn_core::bulk::ItemKind;
use hookturn_core::delivery::{Attempt, ExhaustedReason};
use hookturn_core::id::{
    ApiKeyId, BulkId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, ScheduleId,
    SecretId, WorkspaceId,
};
use hookturn_core::store::{
    DeliveryQuery, DeliverySearch, IdempotencyKey, IdempotencyRecord, SearchFrom, Shown, Shows,
    StoreError,
};
use hookturn_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

type Outcome<T> = Result<T, StoreError>;

/// A column value that is an id.
pub(in crate::store) trait IdColumn: Sized {
    fn from_column(bytes: [u8; 16]) -> Self;
}

macro_rules! id_columns {
    ($($id:ty),*) => {$(
        impl IdColumn for $id {
            fn from_column(bytes: [u8; 16]) -> Self {
                Self::from_bytes(bytes)
            }
        }
    )*};
}
id_columns!(
    ApiKeyId,
    BulkId,
    DeliveryId,
    EndpointId,
    KeyringId,
    MessageId,
    RotationId,
    ScheduleId,
    SecretId,
    WorkspaceId
);

/// An impossible row, by table, column and key.
pub(in crate::store) fn impossible(
    table: &'static str,
    column: &'static str,
    row: &dyn Display,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::ImpossibleRow {
        table,
        column,
        row: row.to_string(),
        source: source.into(),
    }
}

/// A configured thing as its JSON document.
pub(in crate::store) fn to_document<T: Serialize>(
    table: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| impossible(table, "document", &"new", error))
}

/// The inverse of [`to_document`].
pub(in crate::store) fn from_document<T: DeserializeOwned>(
    table: &'static str,
    row: &dyn Display,
    document: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(document).map_err(|error| impossible(table, "document", row, error))
}

const ATTEMPT_FORMAT: u8 = 1;
const RESENT_FORMAT: u8 = 2;

/// An attempt as bytes.
pub(in crate::store) fn attempt_to_record(attempt: &Attempt) -> Result<Vec<u8>, StoreError> {
    let resent: Vec<bool> = attempt.exchanges.iter().map(|made| made.resent).collect();
    let record = if resent.contains(&true) {
        postcard::to_extend(&(attempt, resent), vec![RESENT_FORMAT])
    } else {
        postcard::to_extend(attempt, vec![ATTEMPT_FORMAT])
    };
    record.map_err(|error| impossible("attempt", "record", &attempt.number, error))
}

/// The inverse of [`attempt_to_record`].
pub(in crate::store) fn attempt_from_record(
    row: &dyn Display,
    record: &[u8],
) -> Result<Attempt, StoreError> {
    match record.split_first() {
        Some((&ATTEMPT_FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|error| impossible("attempt", "record", row, error))
        }
        Some((&RESENT_FORMAT, rest)) => postcard::from_bytes(rest)
            .map_err(|error| impossible("attempt", "record", row, error))
            .and_then(|(attempt, resent): (Attempt, Vec<bool>)| with_resent(row, attempt, &resent)),
        Some(_) | None => Err(impossible("attempt", "record", row, "an unknown format")),
    }
}

fn with_resent(row: &dyn Display, mut attempt: Attempt, resent: &[bool]) -> Outcome<Attempt> {
    if resent.len() != attempt.exchanges.len() {
        let error = "it does not say of each exchange whether it was sent twice";
        return Err(impossible("attempt", "record", row, error));
    }
    for (exchange, resent) in std::iter::zip(&mut attempt.exchanges, resent) {
        exchange.resent = *resent;
    }
    Ok(attempt)
}

/// Versions and sequence numbers are far below 2⁶³.
pub(in crate::store) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of an item's kind: its place in [`ItemKind::ALL`].
pub(in crate::store) const fn number_of_kind(kind: ItemKind) -> i64 {
    match kind {
        ItemKind::Waiting => 0,
        ItemKind::Running => 1,
        ItemKind::Stalled => 2,
        ItemKind::Done => 3,
        ItemKind::Failed => 4,
    }
}

/// What the columns of a settled delivery say of why it was exhausted, if it was.
pub(in crate::store) fn exhausted_from_word(
    row: &dyn Display,
    word: Option<&str>,
) -> Outcome<Option<ExhaustedReason>> {
    word.map(|word| {
        ExhaustedReason::from_word(word)
            .ok_or_else(|| impossible("settled", "exhausted", row, "an unknown word"))
    })
    .transpose()
}

/// An audit entry in its place. The columns are what the next entry was chained to: whoever changed one
/// of them changed the log. So did whoever put into a document what its hash says nothing of, a member more
/// or a space: a document is as it was written, to the byte, or it is damaged.
pub(in crate::store) fn recorded(seq: i64, document: &str, hash: [u8; 32]) -> Outcome<Recorded> {
    let recorded: Recorded = from_document("audit", &seq, document)?;
    if recorded.seq != seq.cast_unsigned() {
        let error = format!("it is the document of entry {}", recorded.seq);
        return Err(impossible("audit", "document", &seq, error));
    }
    if to_document("audit", &recorded)? != document {
        let error = "it is not as it was written: a member was added, repeated or rewritten";
        return Err(impossible("audit", "document", &seq, error));
    }
    if recorded.hash != hash {
        let error = "its document has another hash";
        return Err(impossible("audit", "hash", &seq, error));
    }
    Ok(recorded)
}

/// The columns that say what an idempotent answer shows: whose value, and a secret's fingerprint.
pub(in crate::store) fn shows_to_columns(
    record: &IdempotencyRecord,
) -> (Option<String>, Option<String>) {
    match record.shows.map(|shows| shows.what) {
        Some(Shown::Secret { id, fingerprint }) => {
            (Some(id.to_string()), Some(fingerprint.to_string()))
        }
        Some(Shown::ApiKey(id)) => (Some(id.to_string()), None),
        None => (None, None),
    }
}

/// The inverse of [`shows_to_columns`], with whom it was shown to.
pub(in crate::store) fn shows_from_columns(
    key: IdempotencyKey,
    (id, fingerprint): (Option<&str>, Option<&str>),
    to: Option<[u8; 16]>,
) -> Outcome<Option<Shows>> {
    let (Some(id), Some(to)) = (id, to) else {
        return Ok(None);
    };
    let what = shown(id, fingerprint)
        .map_err(|error| impossible("idempotency", "shows", &hex::encode(key.0), error))?;
    let to = ApiKeyId::from_bytes(to);
    Ok(Some(Shows { what, to }))
}

/// What an answer shows: only a secret has a fingerprint.
fn shown(
    id: &str,
    fingerprint: Option<&str>,
) -> Result<Shown, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match fingerprint {
        Some(fingerprint) => Shown::Secret {
            id: id.parse()?,
            fingerprint: fingerprint.parse()?,
        },
        None => Shown::ApiKey(id.parse()?),
    })
}

/// How long after its message a delivery may have been made, in milliseconds: they are made together.
pub(in crate::store) const MADE_WITHIN: u64 = 60_000;

/// The ids that can match a search: from, before.
pub(in crate::store) fn range_of_search(search: &DeliverySearch) -> (u128, u128) {
    let bits = |id: DeliveryId| u128::from_be_bytes(id.to_bytes());
    let first_at = |time: Timestamp| bits(DeliveryId::first_at(time));
    let mut from = search.since.map_or(0, first_at);
    let mut before = search.until.map_or(u128::MAX, first_at);
    let mut narrow = |low: u128, high: u128| {
        from = from.max(low);
        before = before.min(high);
    };
    if let Some(message) = search.message {
        let at = message.created_at();
        narrow(first_at(at), first_at(at.after(MADE_WITHIN)));
    }
    if let Some(only) = search.delivery {
        narrow(bits(only), bits(only).saturating_add(1));
    }
    match search.from {
        SearchFrom::Newest => {}
        SearchFrom::OlderThan(id) => narrow(0, bits(id)),
        SearchFrom::NewerThan(id) => narrow(bits(id).saturating_add(1), u128::MAX),
    }
    (from, before)
}

/// The ids that can match a list: from, before.
pub(in crate::store) fn range_of_query(query: &DeliveryQuery) -> (DeliveryId, DeliveryId) {
    let last = DeliveryId::from_bytes([0xff; 16]);
    let since = query
        .since
        .map_or(DeliveryId::from_bytes([0; 16]), DeliveryId::first_at);
    let until = query.until.map_or(last, DeliveryId::first_at);
    let (made, made_before) = query.message.map_or((since, last), |message| {
        let at = message.created_at();
        (
            DeliveryId::first_at(at),
            DeliveryId::first_at(at.after(MADE_WITHIN)),
        )
    });
    (
        since.max(made),
        until
            .min(made_before)
            .min(query.page.before.unwrap_or(last)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::delivery::{
        Answer, Exchange, ExchangeFailure, ExchangeReason, ExchangeResult, SignedWith, Timings,
    };
    use proptest::prelude::*;

    prop_compose! {
        fn any_exchange()(
            answered in any::<bool>(), status in any::<u16>(), body in any::<Vec<u8>>(),
            truncated in any::<bool>(), retry_after_millis in any::<Option<u64>>(),
            reason in prop::sample::select(&ExchangeReason::ALL[..]), keys in prop::collection::vec(any::<([u8; 16], [u8; 4])>(), 0..3),
            timestamp in any::<i64>(), text in ".{0,80}", micros in any::<u32>(), resent in any::<bool>(),
        ) -> Exchange {
            Exchange {
                reason,
                signed_with: keys.into_iter().map(|(id, print)| SignedWith {
                    secret: SecretId::from_bytes(id), fingerprint: hex::encode(print).parse().unwrap(),
                }).collect(),
                timestamp,
                signature: text.clone(),
                result: if answered {
                    ExchangeResult::Answered(Answer {
                        status, headers: vec![(text.clone(), text)], body, truncated, retry_after_millis,
                    })
                } else {
                    ExchangeResult::Failed(ExchangeFailure { kind: text.clone(), detail: text })
                },
                timings: Timings { dns: micros, total: micros, ..Timings::default() },
                resent,
            }
        }
    }

    proptest! {
        #[test]
        fn attempts_round_trip(
            number in any::<u32>(), millis in 0_i64..4_000_000_000_000, duration in any::<u32>(),
            exchanges in prop::collection::vec(any_exchange(), 1..3),
        ) {
            let attempt = Attempt {
                number, started_at: Timestamp::from_millis(millis), duration_millis: duration, exchanges,
            };
            let record = attempt_to_record(&attempt).unwrap();
            prop_assert_eq!(attempt_from_record(&"x", &record).unwrap(), attempt);
        }

        #[test]
        fn an_attempt_in_its_first_format_was_sent_once(mut exchange in any_exchange()) {
            exchange.resent = false;
            let attempt = Attempt {
                number: 1, started_at: Timestamp::EPOCH, duration_millis: 1, exchanges: vec![exchange],
            };
            let first = postcard::to_extend(&attempt, vec![1]).unwrap();
            prop_assert_eq!(attempt_from_record(&"x", &first).unwrap(), attempt.clone());
            prop_assert_eq!(attempt_to_record(&attempt).unwrap(), first);
            // What it would be without an answer for each exchange.
            let short = postcard::to_extend(&(&attempt, [true; 0].as_slice()), vec![2]).unwrap();
            prop_assert!(attempt_from_record(&"x", &short).is_err());
        }

        #[test]
        fn a_damaged_attempt_is_an_error_and_never_a_panic(record in any::<Vec<u8>>()) {
            let _ = attempt_from_record(&"x", &record);
        }
    }

    /// A row that was stored before it was said which requests were sent twice.
    #[test]
    fn an_old_row_is_read() {
        let text = concat!(
            "01",
            "02",
            "a09c01",
            "0c",
            "01", // attempt 2, at 10 s, for 12 ms, one exchange
            "02",
            "01",
            "07070707070707070707070707070707",
            "08",
            "6131623263336434", // signed
            "14",
            "04",
            "76312c41", // at second 10, `v1,A`
            "01",
            "05",
            "7265736574",
            "04",
            "676f6e65", // failed: reset, gone
            "00",
            "05",
            "06",
            "07",
            "08", // timings
        );
        let attempt = attempt_from_record(&"x", &hex::decode(text).unwrap()).unwrap();
        let exchange = &attempt.exchanges[0];
        assert_eq!((attempt.number, attempt.duration_millis), (2, 12));
        assert_eq!(attempt.started_at, Timestamp::from_millis(10_000));
        assert_eq!(exchange.reason, ExchangeReason::Steady);
        assert_eq!(exchange.signed_with[0].fingerprint.to_string(), "a1b2c3d4");
        assert_eq!((exchange.timestamp, &*exchange.signature), (10, "v1,A"));
        assert_eq!(exchange.timings.total, 8);
        assert!(!exchange.resent);
        assert_eq!(
            attempt_to_record(&attempt).unwrap(),
            hex::decode(text).unwrap()
        );
    }
}
