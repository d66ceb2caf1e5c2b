//! Rows that are told of with what they carry, so that their owner need not read them from the database.
//!
//! Such a notification is made of units of 65 characters, as every one that names endpoints:
//!
//! ```text
//! d, workspace, endpoint    for each endpoint of the rows: all that a version before reads, and what is believed
//!                           where the box does not open
//! m, 64 characters          pieces of a box in base64: postcard of a list of `Parcel`, filled up with zeros,
//!                           sealed for `Place::Told`
//! ```
//!
//! Whoever may connect to the database may listen, so what rows carry is sealed; whoever may connect may also say
//! something, and say again what was said, so a box counts once. What is older than [`REMEMBERED`] does not count either:
//! dispatch looks at its age.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId, WorkspaceId};
use hookturn_core::message::{EventType, Message};
use hookturn_core::store::Due;
use hookturn_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{UNIT, due_unit};
use crate::store::seal::{BOX_BYTES, Nonce, Place, Sealer, nonce_of};

/// Units of one notification: the database takes less than 8,000 bytes.
const UNITS: usize = 7_999 / UNIT;
/// Characters of a box in one unit.
const PIECE: usize = UNIT - 1;
/// Bytes of a box in one unit.
const PIECE_BYTES: usize = PIECE / 4 * 3;
/// What a message takes beside its texts at most: two ids, a time, and five lengths or marks.
const MESSAGE_BYTES: usize = 2 * 16 + 10 + 5 * 3;
/// What a delivery takes.
const DELIVERY_BYTES: usize = 2 * 16;
/// How many parcels there are.
const COUNT_BYTES: usize = 3;
/// Bytes that the rows of a notification may take if they are for one endpoint.
const ROOM: usize = (UNITS - 1) * PIECE_BYTES - BOX_BYTES;
/// For how long a box that was opened is remembered: longer than its rows are believed.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Boxes that are remembered at most. Beyond that none is opened: their rows are read.
const BOXES: usize = 65_536;

/// A message with deliveries of it.
#[derive(Debug, Serialize, Deserialize)]
struct Parcel<'a> {
    workspace: [u8; 16],
    message: [u8; 16],
    app: ClientId,
    event_type: &'a str,
    #[serde(borrow)]
    event_id: Option<&'a str>,
    accepted_at: i64,
    payload: &'a [u8],
    /// Each with its endpoint.
    deliveries: Vec<([u8; 16], [u8; 16])>,
}

/// Bytes that a message takes at most, without its deliveries.
fn weight(message: &Message) -> usize {
    let event_id = message.event_id.as_ref().map_or(0, String::len);
    let texts = message.event_type.as_str().len() + event_id + message.payload.len();
    // The text of an app's id is as long for all.
    MESSAGE_BYTES + message.app.as_str().len() + texts
}

/// Whether a row can be told of so: it is as it was accepted, and no longer than one notification.
pub(super) fn fits(row: &Due) -> bool {
    let accepted = (row.message.accepted_at, row.message.accepted_at, 0, 0);
    let is = (
        row.due_at,
        row.not_before,
        row.attempts,
        row.attempts_before_requeue,
    );
    is == accepted && COUNT_BYTES + weight(&row.message) + DELIVERY_BYTES <= ROOM
}

/// The rows of one notification, while it is put together.
#[derive(Default)]
struct Page<'a> {
    endpoints: Vec<(WorkspaceId, EndpointId)>,
    parcels: Vec<Parcel<'a>>,
    last: Option<&'a Arc<Message>>,
    bytes: usize,
}

impl<'a> Page<'a> {
    /// Takes a row if there is room for it, and else leaves everything as it was.
    fn take(&mut self, row: &'a Due) -> bool {
        let message = &row.message;
        let same = self.last.is_some_and(|last| Arc::ptr_eq(last, message));
        let named = (message.workspace, row.endpoint);
        let new_name = !self.endpoints.contains(&named);
        let weight = if same { 0 } else { weight(message) };
        let bytes = self.bytes + weight + DELIVERY_BYTES;
        let pieces = (COUNT_BYTES + bytes + BOX_BYTES).div_ceil(PIECE_BYTES);
        if self.endpoints.len() + usize::from(new_name) + pieces > UNITS {
            return false;
        }
        self.bytes = bytes;
        if new_name {
            self.endpoints.push(named);
        }
        if !same {
            self.last = Some(message);
            self.parcels.push(Parcel {
                workspace: message.workspace.to_bytes(),
                message: message.id.to_bytes(),
                app: message.app,
                event_type: message.event_type.as_str(),
                event_id: message.event_id.as_deref(),
                accepted_at: message.accepted_at.as_millis(),
                payload: &message.payload,
                deliveries: Vec::new(),
            });
        }
        if let Some(parcel) = self.parcels.last_mut() {
            let delivery = (row.delivery.to_bytes(), row.endpoint.to_bytes());
            parcel.deliveries.push(delivery);
        }
        true
    }

    /// The text of the notification; nothing if there is no row in it.
    fn text(self, sealer: &Sealer) -> Option<String> {
        if self.parcels.is_empty() {
            return None;
        }
        let mut plain = postcard::to_stdvec(&self.parcels).ok()?;
        let length = (plain.len() + BOX_BYTES).next_multiple_of(PIECE_BYTES) - BOX_BYTES;
        plain.resize(length, 0);
        let sealed = STANDARD_NO_PAD.encode(sealer.seal(Place::Told, &plain));
        let named = self.endpoints.into_iter();
        let mut text: String = named.map(|(of, endpoint)| due_unit(of, endpoint)).collect();
        for piece in sealed.as_bytes().chunks(PIECE) {
            text.push('m');
            text.extend(piece.iter().copied().map(char::from));
        }
        Some(text)
    }
}

/// The notifications that tell of these rows, each of which [`fits`].
pub(super) fn encode(rows: &[Due], sealer: &Sealer) -> Vec<String> {
    let mut texts = Vec::new();
    let mut page = Page::default();
    for row in rows {
        if !page.take(row) {
            texts.extend(std::mem::take(&mut page).text(sealer));
            page.take(row);
        }
    }
    texts.extend(page.text(sealer));
    texts
}

/// The rows in a box that was opened.
fn decode(plain: &[u8]) -> Option<Vec<Due>> {
    let (parcels, _zeros) = postcard::take_from_bytes::<Vec<Parcel<'_>>>(plain).ok()?;
    let mut rows = Vec::new();
    for parcel in parcels {
        let accepted_at = Timestamp::from_millis(parcel.accepted_at);
        let message = Arc::new(Message {
            id: MessageId::from_bytes(parcel.message),
            workspace: WorkspaceId::from_bytes(parcel.workspace),
            app: parcel.app,
            event_type: EventType::new(parcel.event_type).ok()?,
            event_id: parcel.event_id.map(str::to_owned),
            payload: Bytes::copy_from_slice(parcel.payload),
            accepted_at,
        });
        let deliveries = parcel.deliveries.into_iter();
        rows.extend(deliveries.map(|(delivery, endpoint)| Due {
            delivery: DeliveryId::from_bytes(delivery),
            endpoint: EndpointId::from_bytes(endpoint),
            due_at: accepted_at,
            not_before: accepted_at,
            attempts: 0,
            attempts_before_requeue: 0,
            message: Arc::clone(&message),
        }));
    }
    Some(rows)
}

/// The box in a notification, if there is one.
fn box_in(text: &str) -> Option<Vec<u8>> {
    let units = text.as_bytes().chunks(UNIT);
    let pieces: Vec<u8> = units
        .filter_map(|unit| unit.strip_prefix(b"m"))
        .flatten()
        .copied()
        .collect();
    let sealed = STANDARD_NO_PAD.decode(pieces).ok()?;
    (!sealed.is_empty()).then_some(sealed)
}

/// The boxes that were opened lately.
#[derive(Debug, Default)]
pub(super) struct Opened {
    known: HashSet<Nonce>,
    order: VecDeque<(Instant, Nonce)>,
}

impl Opened {
    /// The rows that a notification tells of; nothing if it has no box, or one that does not open or was opened before.
    pub(super) fn open(&mut self, text: &str, sealer: &Sealer, now: Instant) -> Option<Vec<Due>> {
        let sealed = box_in(text)?;
        let nonce = nonce_of(&sealed)?;
        self.forget_until(now);
        if self.known.contains(&nonce) || self.order.len() >= BOXES {
            return None;
        }
        let plain = sealer.open(Place::Told, &sealed).ok()?;
        let rows = decode(&plain)?;
        self.known.insert(nonce);
        self.order.push_back((now, nonce));
        Some(rows)
    }

    fn forget_until(&mut self, now: Instant) {
        while let Some((opened, nonce)) = self.order.front()
            && now.duration_since(*opened) > REMEMBERED
        {
            self.known.remove(nonce);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::heard;
    use super::*;
    use crate::store::seal::MasterKey;
    use crate::telemetry::SystemEntropy;
    use hookturn_core::store::Hint;
    use proptest::prelude::*;

    fn sealer() -> Sealer {
        let entropy = Arc::new(SystemEntropy);
        Sealer::new(vec![MasterKey::generate(entropy.as_ref())], entropy)
    }

    fn row(message: &Arc<Message>, delivery: u128, endpoint: u8) -> Due {
        Due {
            delivery: DeliveryId::from_bytes(delivery.to_be_bytes()),
            endpoint: EndpointId::from_bytes([endpoint; 16]),
            due_at: message.accepted_at,
            not_before: message.accepted_at,
            attempts: 0,
            attempts_before_requeue: 0,
            message: Arc::clone(message),
        }
    }

    fn message(number: u128, payload: Vec<u8>, event_id: Option<String>) -> Arc<Message> {
        Arc::new(Message {
            id: MessageId::from_bytes(number.to_be_bytes()),
            workspace: WorkspaceId::from_bytes([1; 16]),
            app: "HqTRDIYe".parse().unwrap(),
            event_type: EventType::new("invoice.paid").unwrap(),
            event_id,
            payload: payload.into(),
            accepted_at: Timestamp::from_millis(1_784_505_600_000),
        })
    }

    pub(in super::super) fn row_of(endpoint: u8, payload: Vec<u8>) -> Due {
        row(&message(1, payload, None), 1, endpoint)
    }

    prop_compose! {
        /// Messages with deliveries of each.
        fn any_rows()(
            made in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..3_000), any::<Option<u8>>(), prop::collection::vec(any::<u8>(), 1..6)),
                1..40,
            ),
        ) -> Vec<Due> {
            let mut rows = Vec::new();
            for (number, (payload, event_id, endpoints)) in made.into_iter().enumerate() {
                let event_id = event_id.map(|length| "é".repeat(length.into()));
                let message = message(number as u128, payload, event_id);
                for (place, endpoint) in endpoints.into_iter().enumerate() {
                    let delivery = number as u128 * 100 + place as u128;
                    rows.push(row(&message, delivery, endpoint));
                }
            }
            rows
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard_as_it_was(rows in any_rows()) {
            let (sealer, mut opened) = (sealer(), Opened::default());
            prop_assert!(rows.iter().all(fits));
            let texts = encode(&rows, &sealer);
            let mut told = Vec::new();
            for text in &texts {
                prop_assert!(text.len() < 8_000 && text.len().is_multiple_of(UNIT));
                let found = opened.open(text, &sealer, Instant::now()).unwrap();
                // What a version before reads of it.
                let named: HashSet<EndpointId> = heard(text).into_iter().map(|hint| match hint {
                    Hint::Due(_, endpoint, _) => endpoint,
                    other => panic!("{other:?}"),
                }).collect();
                let held: HashSet<EndpointId> = found.iter().map(|row| row.endpoint).collect();
                prop_assert_eq!(named, held);
                told.extend(found);
            }
            prop_assert_eq!(told.len(), rows.len());
            for (told, row) in std::iter::zip(&told, &rows) {
                prop_assert_eq!((told.delivery, told.endpoint, told.due_at), (row.delivery, row.endpoint, row.due_at));
                prop_assert_eq!((told.not_before, told.attempts), (row.not_before, 0));
                prop_assert_eq!(&*told.message, &*row.message);
            }
        }

        #[test]
        fn what_is_no_box_is_never_opened(text in "[dm0-9a-zA-Z+/]{0,700}") {
            let opened = Opened::default().open(&text, &sealer(), Instant::now());
            prop_assert!(opened.is_none());
        }
    }

    #[test]
    fn the_longest_row_that_fits_is_told_in_one_notification() {
        let sealer = sealer();
        let longest = (0..8_000)
            .rev()
            .map(|length| row(&message(1, vec![b'x'; length], None), 1, 1))
            .find(fits)
            .unwrap();
        assert!(longest.message.payload.len() > 5_000);
        let texts = encode(std::slice::from_ref(&longest), &sealer);
        assert_eq!(texts.len(), 1);
        assert!(texts[0].len() < 8_000);
        let told = Opened::default().open(&texts[0], &sealer, Instant::now());
        assert_eq!(told.unwrap()[0].message, longest.message);
        let moved = Due {
            attempts: 1,
            ..row(&message(1, vec![], None), 1, 1)
        };
        assert!(!fits(&moved), "only what is as it was accepted");
    }

    #[test]
    fn g8_nothing_of_what_is_carried_is_told_in_the_clear_and_nothing_tampered_is_believed() {
        let sealer = sealer();
        let message = message(1, b"{\"needle\":true}".to_vec(), Some("needle".to_owned()));
        let text = encode(&[row(&message, 1, 1)], &sealer).remove(0);
        let pieces = box_in(&text).unwrap();
        for needle in ["needle", "invoice.paid", "HqTRDIYe"] {
            let inside = |bytes: &[u8]| memchr::memmem::find(bytes, needle.as_bytes()).is_some();
            assert!(!inside(text.as_bytes()) && !inside(&pieces), "{needle}");
        }
        let now = Instant::now();
        for place in UNIT..text.len() {
            let mut tampered = text.clone().into_bytes();
            tampered[place] = if tampered[place] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(tampered).unwrap();
            let opened = Opened::default().open(&tampered, &sealer, now);
            assert!(opened.is_none(), "character {place}");
            assert!(matches!(heard(&tampered)[..], [Hint::Due(..)]), "{place}");
        }
        let stranger = self::sealer();
        assert!(Opened::default().open(&text, &stranger, now).is_none());
        let other = STANDARD_NO_PAD.encode(sealer.seal(Place::Check, &[0; 47]));
        let moved: String = std::iter::once('m').chain(other.chars()).collect();
        assert!(Opened::default().open(&moved, &sealer, now).is_none());
    }

    #[test]
    fn what_is_said_again_counts_once() {
        let (sealer, mut opened) = (sealer(), Opened::default());
        let text = encode(&[row(&message(1, vec![], None), 1, 1)], &sealer).remove(0);
        let now = Instant::now();
        assert!(opened.open(&text, &sealer, now).is_some());
        assert!(opened.open(&text, &sealer, now + REMEMBERED).is_none());
        opened.forget_until(now + 2 * REMEMBERED);
        assert!(opened.known.is_empty() && opened.order.is_empty());
    }
}
