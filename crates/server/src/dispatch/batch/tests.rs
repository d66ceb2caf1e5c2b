//! Each rule of `companions`, and what holds for every choice.

use std::sync::Arc;

use bytes::Bytes;
use hookturn_core::endpoint::Preset;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::limits::{PAYLOAD_BYTES, STREAM_EVENTS};
use hookturn_core::message::EventType;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_784_505_600_000);

/// What the choice looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    kind: &'static str,
    attempts: u32,
    requeued: u32,
    /// Milliseconds from `NOW`.
    not_before: i64,
    bytes: usize,
}

const FRESH: Row = Row {
    kind: "a",
    attempts: 0,
    requeued: 0,
    not_before: 0,
    bytes: 2,
};

const RETRY: Row = Row {
    attempts: 1,
    ..FRESH
};

const OTHER: Row = Row { kind: "b", ..FRESH };

fn due(number: usize, row: &Row) -> Due {
    let id = (number as u128).to_be_bytes();
    let at = Timestamp::from_millis(NOW.as_millis() + row.not_before);
    Due {
        delivery: DeliveryId::from_bytes(id),
        endpoint: EndpointId::from_bytes([1; 16]),
        due_at: at,
        not_before: at,
        attempts: row.attempts,
        attempts_before_requeue: row.requeued,
        message: Arc::new(Message {
            id: MessageId::from_bytes(id),
            workspace: WorkspaceId::from_bytes([2; 16]),
            app: ClientId::FIRST,
            event_type: EventType::new(row.kind).unwrap(),
            event_id: None,
            payload: Bytes::from(vec![b'1'; row.bytes]),
            accepted_at: NOW,
        }),
    }
}

fn number(row: &Due) -> usize {
    usize::try_from(u128::from_be_bytes(row.delivery.to_bytes())).unwrap()
}

const STREAM: Rules = Rules {
    places: STREAM_EVENTS,
    ordered: false,
};

const ORDERED: Rules = Rules {
    ordered: true,
    ..STREAM
};

/// Which rows go out together, and which are left.
fn taken(rows: &[Row], index: usize, rules: Rules) -> (Vec<usize>, Vec<usize>) {
    let mut ready = rows
        .iter()
        .enumerate()
        .map(|(n, row)| due(n, row))
        .collect();
    let batch = Batch::take(&mut ready, index, rules, NOW).unwrap();
    assert_eq!(batch.len(), batch.rows().count());
    assert_eq!(batch.messages().len(), batch.len());
    (
        batch.into_rows().map(|row| number(&row)).collect(),
        ready.iter().map(number).collect(),
    )
}

#[test]
fn only_event_streams_share_requests() {
    for preset in Preset::ALL {
        let rules = Rules {
            places: preset.messages_per_request(),
            ordered: false,
        };
        let wanted = if preset == Preset::KoreStream { 3 } else { 1 };
        assert_eq!(taken(&[FRESH; 3], 0, rules).0.len(), wanted, "{preset}");
    }
}

#[test]
fn rows_that_share_a_request_are_alike_and_due() {
    let later = Row {
        not_before: 1,
        ..FRESH
    };
    let retry_since = Row {
        not_before: -5,
        ..RETRY
    };
    let fresh_since = Row {
        not_before: -5,
        ..FRESH
    };
    let requeued = Row {
        requeued: 1,
        ..RETRY
    };
    for (name, rows, unordered, ordered) in [
        (
            "one type",
            &[FRESH, OTHER, FRESH][..],
            &[0, 2][..],
            &[0][..],
        ),
        ("due only", &[FRESH, later, FRESH], &[0, 2], &[0]),
        (
            "one count of attempts",
            &[FRESH, RETRY, FRESH],
            &[0, 2],
            &[0],
        ),
        (
            "queued by hand apart",
            &[RETRY, requeued, RETRY],
            &[0, 2],
            &[0],
        ),
        ("fresh of any age", &[fresh_since, FRESH], &[0, 1], &[0, 1]),
        (
            "retries of one moment",
            &[RETRY, retry_since, RETRY],
            &[0, 2],
            &[0],
        ),
        ("alone", &[FRESH, OTHER], &[0], &[0]),
        ("all", &[OTHER, OTHER, OTHER], &[0, 1, 2], &[0, 1, 2]),
    ] {
        assert_eq!(taken(rows, 0, STREAM).0, unordered, "{name}");
        assert_eq!(taken(rows, 0, ORDERED).0, ordered, "{name}, ordered");
    }
}

#[test]
fn a_request_has_at_most_fifty_events() {
    let (batch, left) = taken(&[FRESH; 120], 0, STREAM);
    assert!(batch.into_iter().eq(0..50));
    assert!(left.into_iter().eq(50..120));
}

#[test]
fn g10_a_request_is_bounded_in_bytes_but_never_empty() {
    let large = Row {
        bytes: PAYLOAD_BYTES,
        ..FRESH
    };
    let (batch, left) = taken(&[large, large, large, FRESH], 0, STREAM);
    assert_eq!(batch, [0, 1]);
    assert_eq!(left, [2, 3], "the small one does not overtake its type");
    let huge = Row {
        bytes: STREAM_BODY_BYTES,
        ..FRESH
    };
    assert_eq!(taken(&[huge, FRESH], 0, STREAM), (vec![0], vec![1]));
}

#[test]
fn a_batch_may_begin_behind_rows_that_wait() {
    let later = Row {
        not_before: 1,
        ..FRESH
    };
    let (batch, left) = taken(&[later, OTHER, FRESH, OTHER], 1, STREAM);
    assert_eq!((batch, left), (vec![1, 3], vec![0, 2]));
}

fn row() -> impl Strategy<Value = Row> {
    (
        prop::sample::select(vec!["a", "b"]),
        0_u32..3,
        0_u32..2,
        -2_i64..2,
        prop_oneof![8 => 2_usize..200, 1 => Just(PAYLOAD_BYTES)],
    )
        .prop_map(|(kind, attempts, requeued, not_before, bytes)| Row {
            kind,
            attempts,
            requeued,
            not_before,
            bytes,
        })
}

proptest! {
    #[test]
    fn g1_g2_a_batch_loses_nothing_and_keeps_order(
        rows in prop::collection::vec(row(), 1..140),
        at in any::<prop::sample::Index>(),
        ordered in any::<bool>(),
    ) {
        let index = if ordered { 0 } else { at.index(rows.len()) };
        let rules = Rules { ordered, ..STREAM };
        let (batch, left) = taken(&rows, index, rules);
        prop_assert_eq!(batch[0], index);
        prop_assert!(batch.is_sorted() && left.is_sorted());
        let mut all = [batch.clone(), left.clone()].concat();
        all.sort_unstable();
        prop_assert!(all.into_iter().eq(0..rows.len()));
        prop_assert!(batch.len() <= STREAM_EVENTS);
        let bytes: usize = batch.iter().map(|n| rows[*n].bytes).sum();
        prop_assert!(bytes <= STREAM_BODY_BYTES);
        let first = rows[index];
        let alike = |row: &Row| {
            (row.kind, row.attempts, row.requeued) == (first.kind, first.attempts, first.requeued)
                && (row.attempts == 0 || row.not_before == first.not_before)
        };
        let fits = |n: &usize| alike(&rows[*n]) && rows[*n].not_before <= 0;
        prop_assert!(batch[1..].iter().all(fits));
        if ordered {
            prop_assert!(batch.iter().copied().eq(0..batch.len()), "the head of the queue");
        }
        // What was left although it fits was left for a reason.
        let next = left.iter().find(|n| **n > index && fits(n));
        if let Some(next) = next
            && batch.len() < STREAM_EVENTS
            && !ordered
        {
            let wanted = bytes + rows[*next].bytes + (batch.len() + 1) * STREAM_ENVELOPE_BYTES;
            prop_assert!(wanted > STREAM_BODY_BYTES, "{} was left behind", next);
        }
    }
}
