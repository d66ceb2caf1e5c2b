//! Looking for deliveries with a bounded effort, in one app or over a workspace.
//!
//! No index serves every filter together, and one for each would cost every delivery a write. So a
//! search walks the deliveries in the order of their ids, keeps those that match, and stops when it has
//! enough or has looked at as many as it may; whoever asked goes on from there. What it walks:
//!
//! - settled deliveries of each app, in the order of their primary key;
//! - for exhausted ones alone, the index of exhausted deliveries of each endpoint, so that failures are
//!   found at once among millions that went well;
//! - where these would be many, the settled or exhausted ones of the whole workspace, by an index: each of
//!   its rows costs a look at the delivery's own, and thousands of places need not be found first;
//! - due rows, by their id.
//!
//! Each of these *sources* is read in blocks, and a heap merges them. Nothing is read twice: a delivery
//! is in one place at a time, and the whole search sees one commit.

use std::collections::{BinaryHeap, VecDeque};

use hookturn_core::delivery::{
    Attempt, CodeClass, Delivery, DeliveryState, DeliveryStatus, ExhaustedReason,
};
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, MessageId};
use hookturn_core::message::EventType;
use hookturn_core::store::{
    DeliveriesFound, DeliverySearch, FoundDelivery, SearchFrom, StoreError,
};
use hookturn_core::time::Timestamp;
use rusqlite::{Row, params};

use super::configuration::collect;
use super::reader::At;
use super::rows::{self, as_i64, impossible};
use crate::store::encoding::{exhausted_from_word, range_of_search};

type Outcome<T> = Result<T, StoreError>;

const STEP: &str = "search deliveries";

/// Rows that a block of a source has at most, and at least.
const BLOCK: usize = 256;
const SMALLEST_BLOCK: usize = 4;
/// Sources of apps or endpoints that are merged at most: beyond, the index of the workspace is walked.
const MERGED: usize = 32;
/// What each costs, in rows: finding the place of a source, the message of a due row, the last attempt
/// of a delivery, and a payload beside its bytes.
const SEEK: u32 = 8;
const MESSAGE: u32 = 8;
const ATTEMPT: u32 = 24;
const PAYLOAD: u32 = 16;
/// Bytes of payload that cost as much as a row.
const PAYLOAD_BYTES_A_ROW: u32 = 1_024;

/// The columns of a settled row that a candidate needs.
const SETTLED: &str = "SELECT delivery, endpoint, attempts, message, event_type, app, settled_at, exhausted FROM settled";
/// How long a payload is, and whether it has a text.
const LOOK: &str = "SELECT length(payload), instr(payload, ?1) > 0 FROM message";

/// Where deliveries are read from.
#[derive(Debug, Clone)]
enum Kind {
    /// The settled ones of an app.
    Settled(String),
    /// The exhausted ones of an endpoint, by its number.
    Exhausted(i64),
    /// The settled ones of the workspace.
    AllSettled,
    /// The exhausted ones of the workspace.
    AllExhausted,
    /// The pending ones of every workspace.
    Due,
}

#[derive(Debug)]
struct Source {
    kind: Kind,
    block: VecDeque<Candidate>,
    /// Whether nothing follows the block.
    ends: bool,
}

/// A row as it was read, before anything about it is looked up.
#[derive(Debug)]
struct Candidate {
    id: DeliveryId,
    endpoint: i64,
    attempts: u32,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Settled {
        message: MessageId,
        event_type: i64,
        app: ClientId,
        at: Timestamp,
        exhausted: Option<ExhaustedReason>,
    },
    Due {
        message: i64,
        due_at: Timestamp,
    },
}

/// A candidate that passed every filter of its rows, with its message.
struct Known {
    delivery: Delivery,
    message: i64,
}

/// Looks for deliveries.
pub(super) fn search(at: &At<'_>, search: &DeliverySearch) -> Outcome<DeliveriesFound> {
    let Some(mut walk) = Walk::new(at, search)? else {
        return Ok(DeliveriesFound::default());
    };
    let mut found = DeliveriesFound::default();
    while let Some(candidate) = walk.next()? {
        let id = candidate.id;
        if let Some(item) = walk.look_at(&candidate)? {
            found.items.push(item);
        }
        if found.items.len() >= search.limit || walk.spent >= search.effort {
            found.resume = (!walk.heap.is_empty()).then_some(id);
            break;
        }
    }
    if !walk.backwards {
        found.items.reverse();
    }
    Ok(found)
}

struct Walk<'a, 'b> {
    at: &'a At<'b>,
    search: &'a DeliverySearch,
    workspace: i64,
    endpoint: Option<i64>,
    event_type: Option<i64>,
    /// From newer to older.
    backwards: bool,
    /// The ids that may match: from, before.
    range: (u128, u128),
    sources: Vec<Source>,
    /// The next id of each source that is not at its end, as what sorts last among those to come.
    heap: BinaryHeap<(u128, usize)>,
    block: usize,
    spent: u32,
}

impl<'a, 'b> Walk<'a, 'b> {
    /// `None` when nothing can match: a name in the search is of nothing.
    fn new(at: &'a At<'b>, search: &'a DeliverySearch) -> Outcome<Option<Self>> {
        let Some(workspace) = at.numbers.workspace(search.workspace) else {
            return Ok(None);
        };
        let endpoint = search
            .endpoint
            .map(|id| at.endpoint_of(search.workspace, id));
        let event_type = search
            .event_type
            .as_ref()
            .map(|name| at.numbers.event_type(workspace, name));
        if endpoint == Some(None) || event_type == Some(None) {
            return Ok(None);
        }
        let (endpoint, event_type) = (endpoint.flatten(), event_type.flatten());
        let sources = sources(at, search, workspace, endpoint)?;
        let block = (2 * BLOCK / sources.len().max(1)).clamp(SMALLEST_BLOCK, BLOCK);
        let mut walk = Self {
            at,
            search,
            workspace,
            endpoint,
            event_type,
            backwards: !matches!(search.from, SearchFrom::NewerThan(_)),
            range: range_of_search(search),
            sources,
            heap: BinaryHeap::new(),
            block: block.min(search.limit.max(SMALLEST_BLOCK)),
            spent: 0,
        };
        for index in 0..walk.sources.len() {
            walk.refill(index)?;
        }
        Ok(Some(walk))
    }

    fn place(&self, id: DeliveryId) -> u128 {
        let bits = u128::from_be_bytes(id.to_bytes());
        if self.backwards { bits } else { !bits }
    }

    /// The next row of all sources.
    fn next(&mut self) -> Outcome<Option<Candidate>> {
        let Some((_, index)) = self.heap.pop() else {
            return Ok(None);
        };
        let Some(candidate) = self.sources[index].block.pop_front() else {
            return Ok(None);
        };
        if self.sources[index].block.is_empty() && !self.sources[index].ends {
            // The range of this source goes on after what it gave.
            let bits = u128::from_be_bytes(candidate.id.to_bytes());
            let range = if self.backwards {
                (self.range.0, bits)
            } else {
                (bits + 1, self.range.1)
            };
            self.read_block(index, range)?;
        }
        if let Some(next) = self.sources[index].block.front() {
            let place = self.place(next.id);
            self.heap.push((place, index));
        }
        Ok(Some(candidate))
    }

    fn refill(&mut self, index: usize) -> Outcome<()> {
        self.read_block(index, self.range)?;
        if let Some(next) = self.sources[index].block.front() {
            let place = self.place(next.id);
            self.heap.push((place, index));
        }
        Ok(())
    }

    fn read_block(&mut self, index: usize, (from, before): (u128, u128)) -> Outcome<()> {
        let order = if self.backwards { "DESC" } else { "ASC" };
        let limit = as_i64(self.block as u64);
        let (from, before) = (from.to_be_bytes(), before.to_be_bytes());
        let connection = self.at.connection;
        let of_workspace = |index: &str, condition: &str| {
            let sql = format!(
                "{SETTLED} INDEXED BY {index} WHERE workspace = ?1 AND delivery >= ?2 AND delivery < ?3
                 {condition} ORDER BY delivery {order} LIMIT ?4"
            );
            let values = params![self.workspace, from, before, limit];
            collect(connection, STEP, &sql, values, settled)
        };
        let block = match &self.sources[index].kind {
            Kind::Settled(app) => {
                let sql = format!(
                    "{SETTLED} WHERE workspace = ?1 AND app = ?2 AND delivery >= ?3 AND delivery < ?4
                     ORDER BY delivery {order} LIMIT ?5"
                );
                let values = params![self.workspace, app, from, before, limit];
                collect(connection, STEP, &sql, values, settled)?
            }
            Kind::Exhausted(endpoint) => {
                let sql = format!(
                    "{SETTLED} INDEXED BY settled_exhausted WHERE endpoint = ?1 AND exhausted IS NOT NULL
                     AND delivery >= ?2 AND delivery < ?3 ORDER BY delivery {order} LIMIT ?4"
                );
                let values = params![endpoint, from, before, limit];
                collect(connection, STEP, &sql, values, settled)?
            }
            Kind::AllSettled => of_workspace("settled_of_workspace", "")?,
            Kind::AllExhausted => of_workspace(
                "settled_exhausted_of_workspace",
                "AND exhausted IS NOT NULL",
            )?,
            Kind::Due => {
                let sql = format!(
                    "SELECT delivery, endpoint, attempts, message, max(due_at, not_before) FROM due
                     WHERE delivery >= ?1 AND delivery < ?2 ORDER BY delivery {order} LIMIT ?3"
                );
                collect(connection, STEP, &sql, params![from, before, limit], due)?
            }
        };
        let looked_up = match &self.sources[index].kind {
            Kind::AllSettled | Kind::AllExhausted => block.len(),
            Kind::Settled(_) | Kind::Exhausted(_) | Kind::Due => 0,
        };
        let cost = SEEK.saturating_add(u32::try_from(looked_up).unwrap_or(u32::MAX));
        self.spent = self.spent.saturating_add(cost);
        let source = &mut self.sources[index];
        source.ends = block.len() < self.block;
        source.block = block.into();
        Ok(())
    }

    /// Whether a row is wanted, cheap questions first.
    fn look_at(&mut self, candidate: &Candidate) -> Outcome<Option<FoundDelivery>> {
        self.spent = self.spent.saturating_add(1);
        let other = self.endpoint.is_some_and(|only| only != candidate.endpoint);
        let delivered = matches!(
            &candidate.of,
            Of::Settled {
                exhausted: None,
                ..
            }
        );
        if other || (delivered && self.search.status == Some(DeliveryStatus::Exhausted)) {
            return Ok(None);
        }
        let Some((workspace, endpoint)) = self.at.numbers.endpoint_of(candidate.endpoint) else {
            let table = match candidate.of {
                Of::Settled { .. } => "settled",
                Of::Due { .. } => "due",
            };
            return Err(impossible(
                table,
                "endpoint",
                &candidate.id,
                "no such endpoint",
            ));
        };
        if workspace != self.search.workspace {
            return Ok(None);
        }
        let Some(known) = self.with_message(candidate, endpoint)? else {
            return Ok(None);
        };
        if !self.has_text(&known)? {
            return Ok(None);
        }
        let class = self.search.class;
        let needs_attempt = class.is_some() || self.search.with_attempts;
        let last_attempt = if needs_attempt {
            self.last_attempt(&known.delivery)?
        } else {
            None
        };
        let wanted =
            class.is_none_or(|only| last_attempt.as_ref().map(CodeClass::of) == Some(only));
        Ok(wanted.then_some(FoundDelivery {
            delivery: known.delivery,
            last_attempt: last_attempt.filter(|_| self.search.with_attempts),
        }))
    }

    /// The delivery of a row, if its message and event type are wanted.
    fn with_message(
        &mut self,
        candidate: &Candidate,
        endpoint: EndpointId,
    ) -> Outcome<Option<Known>> {
        let (number, message, event_type, app, state) = match candidate.of {
            Of::Settled {
                message,
                event_type,
                app,
                at,
                exhausted,
            } => {
                let delivered = self.search.status == Some(DeliveryStatus::Delivered);
                if delivered && exhausted.is_some() {
                    return Ok(None);
                }
                let state = match exhausted {
                    None => DeliveryState::Delivered { at },
                    Some(reason) => DeliveryState::Exhausted { at, reason },
                };
                (0, message, event_type, app, state)
            }
            Of::Due { message, due_at } => {
                self.spent = self.spent.saturating_add(MESSAGE);
                let sql = "SELECT id, event_type, app FROM message WHERE number = ?";
                let read = collect(self.at.connection, STEP, sql, [message], |row| {
                    Ok(Ok((
                        rows::id(row, 0)?,
                        row.get(1)?,
                        rows::client_id(row, 2)?,
                    )))
                })?;
                let Some((id, event_type, app)) = read.into_iter().next() else {
                    return Err(impossible(
                        "due",
                        "message",
                        &candidate.id,
                        "no such message",
                    ));
                };
                if self.search.app.is_some_and(|only| only != app) {
                    return Ok(None);
                }
                (
                    message,
                    id,
                    event_type,
                    app,
                    DeliveryState::Pending { due_at },
                )
            }
        };
        let unwanted = self.event_type.is_some_and(|only| only != event_type)
            || self.search.message.is_some_and(|only| only != message);
        if unwanted {
            return Ok(None);
        }
        let event_type = self.event_type_of(candidate.id, event_type)?;
        Ok(Some(Known {
            message: number,
            delivery: Delivery {
                id: candidate.id,
                workspace: self.search.workspace,
                app,
                endpoint,
                message,
                event_type,
                attempts: candidate.attempts,
                state,
            },
        }))
    }

    fn event_type_of(&self, id: DeliveryId, number: i64) -> Outcome<EventType> {
        let known = self.at.numbers.event_type_of(number);
        known.ok_or_else(|| impossible("settled", "event_type", &id, "no such event type"))
    }

    fn has_text(&mut self, known: &Known) -> Outcome<bool> {
        let Some(text) = &self.search.text else {
            return Ok(true);
        };
        let connection = self.at.connection;
        let text = text.as_bytes();
        let read = |row: &Row<'_>| Ok(Ok((row.get::<_, u32>(0)?, row.get::<_, bool>(1)?)));
        let delivery = &known.delivery;
        let looked = if matches!(delivery.state, DeliveryState::Pending { .. }) {
            let sql = format!("{LOOK} WHERE number = ?2");
            collect(connection, STEP, &sql, params![text, known.message], read)?
        } else {
            let sql = format!("{LOOK} WHERE workspace = ?2 AND app = ?3 AND id = ?4");
            let id = delivery.message.to_bytes();
            let values = params![text, self.workspace, delivery.app.as_str(), id];
            collect(connection, STEP, &sql, values, read)?
        };
        let (bytes, has) = looked.into_iter().next().unwrap_or_default();
        let cost = PAYLOAD + bytes / PAYLOAD_BYTES_A_ROW;
        self.spent = self.spent.saturating_add(cost);
        Ok(has)
    }

    fn last_attempt(&mut self, delivery: &Delivery) -> Outcome<Option<Attempt>> {
        if delivery.attempts == 0 {
            return Ok(None);
        }
        self.spent = self.spent.saturating_add(ATTEMPT);
        let id = delivery.id;
        let sql = "SELECT record FROM attempt WHERE delivery = ? ORDER BY number DESC LIMIT 1";
        let read = collect(self.at.connection, STEP, sql, [id.to_bytes()], |row| {
            Ok(rows::attempt_from_record(&id, row.get_ref(0)?.as_blob()?))
        })?;
        Ok(read.into_iter().next())
    }
}

/// What has to be walked for a search.
fn sources(
    at: &At<'_>,
    search: &DeliverySearch,
    workspace: i64,
    endpoint: Option<i64>,
) -> Outcome<Vec<Source>> {
    let source = |kind| Source {
        kind,
        block: VecDeque::new(),
        ends: false,
    };
    let app = search.app.as_ref().map(ClientId::as_str);
    // Endpoints of removed apps stay as long as something refers to them.
    let of = "FROM endpoint WHERE workspace = ?1 AND (?2 IS NULL OR app = ?2) AND (?3 IS NULL OR number = ?3)";
    let values = params![workspace, app, endpoint];
    let mut sources = Vec::new();
    if search
        .status
        .is_none_or(|only| only == DeliveryStatus::Pending)
    {
        sources.push(source(Kind::Due));
    }
    match search.status {
        Some(DeliveryStatus::Pending) => {}
        Some(DeliveryStatus::Exhausted) => {
            let sql = format!("SELECT number {of}");
            let numbers = collect(at.connection, STEP, &sql, values, |row| Ok(Ok(row.get(0)?)))?;
            // An app has few endpoints, and the index of the workspace knows no app.
            if search.app.is_none() && numbers.len() > MERGED {
                sources.push(source(Kind::AllExhausted));
            } else {
                let each = numbers.into_iter().map(Kind::Exhausted);
                sources.extend(each.map(source));
            }
        }
        Some(DeliveryStatus::Delivered) | None => {
            let sql = format!("SELECT DISTINCT app {of}");
            let apps = collect(at.connection, STEP, &sql, values, |row| Ok(Ok(row.get(0)?)))?;
            if apps.len() > MERGED {
                sources.push(source(Kind::AllSettled));
            } else {
                sources.extend(apps.into_iter().map(Kind::Settled).map(source));
            }
        }
    }
    Ok(sources)
}

fn settled(row: &Row<'_>) -> rusqlite::Result<Outcome<Candidate>> {
    let id: DeliveryId = rows::id(row, 0)?;
    let exhausted = match exhausted_from_word(&id, row.get_ref(7)?.as_str_or_null()?) {
        Ok(exhausted) => exhausted,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(Candidate {
        id,
        endpoint: row.get(1)?,
        attempts: rows::count(row, 2)?,
        of: Of::Settled {
            message: rows::id(row, 3)?,
            event_type: row.get(4)?,
            app: rows::client_id(row, 5)?,
            at: rows::time(row, 6)?,
            exhausted,
        },
    }))
}

fn due(row: &Row<'_>) -> rusqlite::Result<Outcome<Candidate>> {
    Ok(Ok(Candidate {
        id: rows::id(row, 0)?,
        endpoint: row.get(1)?,
        attempts: rows::count(row, 2)?,
        of: Of::Due {
            message: row.get(3)?,
            due_at: rows::time(row, 4)?,
        },
    }))
}
