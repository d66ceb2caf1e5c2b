//! Looking for deliveries with a bounded effort, in one app or over a workspace.
//!
//! A search walks the deliveries in the order of their ids, block by block, keeps those that match, and
//! stops when it has enough or has looked at as many as it may. A block is one statement: the next due rows,
//! and the next settled rows of every app (or, for exhausted ones alone, of every endpoint, by the index of
//! failures), merged. A delivery that settles meanwhile is in one block once, because a block is a range
//! of ids and one commit.

use std::collections::HashMap;

use hookturn_core::delivery::{Attempt, CodeClass, Delivery, DeliveryState, DeliveryStatus};
use hookturn_core::id::{ClientId, DeliveryId};
use hookturn_core::store::{DeliveriesFound, DeliverySearch, FoundDelivery, SearchFrom};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connect::Session;
use super::rows::{Outcome, PENDING, SETTLED, collect, column, delivery_at, id, uuid};
use crate::store::encoding::{as_i64, attempt_from_record, range_of_search};

const STEP: &str = "search deliveries";

/// Rows of a block at most, and at least.
const BLOCK: usize = 256;
const SMALLEST_BLOCK: usize = 4;
/// What each costs, in rows: a block, the last attempt of a delivery, and a payload beside its bytes.
const SEEK: u32 = 8;
const ATTEMPT: u32 = 24;
const PAYLOAD: u32 = 16;
/// Bytes of payload that cost as much as a row.
const PAYLOAD_BYTES_A_ROW: u32 = 1_024;

/// Looks for deliveries.
pub(super) async fn search(session: &Session, search: &DeliverySearch) -> Outcome<DeliveriesFound> {
    let backwards = !matches!(search.from, SearchFrom::NewerThan(_));
    let (mut from, mut before) = range_of_search(search);
    let sql = block_sql(search.status, backwards);
    let size = block_size(search);
    let mut found = DeliveriesFound::default();
    let mut spent = 0_u32;
    'blocks: loop {
        let block = read_block(session, search, &sql, (from, before), size).await?;
        spent = spent.saturating_add(SEEK);
        let ends = block.len() < size;
        let Some(last) = block.last().map(|delivery| delivery.id) else {
            break;
        };
        let known = look_up(session, search, &block).await?;
        for delivery in block {
            let id = delivery.id;
            let (item, cost) = known.judge(search, delivery);
            spent = spent.saturating_add(cost);
            found.items.extend(item);
            if found.items.len() >= search.limit || spent >= search.effort {
                let more = !ends || id != last;
                found.resume = more.then_some(id);
                break 'blocks;
            }
        }
        if ends {
            break;
        }
        let bits = u128::from_be_bytes(last.to_bytes());
        if backwards {
            before = bits;
        } else {
            from = bits.saturating_add(1);
        }
    }
    if !backwards {
        found.items.reverse();
    }
    Ok(found)
}

/// As many rows as may be needed, and no more than the effort allows to look up.
fn block_size(search: &DeliverySearch) -> usize {
    let looked_up = search.text.is_some() || search.class.is_some() || search.with_attempts;
    let cost = if looked_up { ATTEMPT } else { 1 };
    let affordable = usize::try_from(search.effort / cost).unwrap_or(usize::MAX);
    BLOCK
        .min(search.limit.max(SMALLEST_BLOCK))
        .min(affordable.max(SMALLEST_BLOCK))
}

fn block_sql(status: Option<DeliveryStatus>, backwards: bool) -> String {
    let order = if backwards { "DESC" } else { "ASC" };
    let range = format!(
        "workspace = $1 AND delivery >= $2 AND delivery < $3 {{}} ORDER BY delivery {order} LIMIT $4"
    );
    let within = |filter: &str| range.replace("{}", filter);
    // Endpoints of removed apps stay as long as something refers to them.
    let of = "FROM endpoint WHERE workspace = $1 AND ($5::text IS NULL OR app = $5)
              AND ($6::uuid IS NULL OR id = $6)";
    let pending = format!("({PENDING} WHERE {})", within(""));
    let by_app = within("AND app = walked.app");
    let settled = format!(
        "(SELECT found.* FROM (SELECT DISTINCT app {of}) walked
          CROSS JOIN LATERAL ({SETTLED} WHERE {by_app}) found)"
    );
    let by_endpoint = within("AND endpoint = walked.id AND exhausted IS NOT NULL");
    let exhausted = format!(
        "(SELECT found.* FROM (SELECT id {of}) walked
          CROSS JOIN LATERAL ({SETTLED} WHERE {by_endpoint}) found)"
    );
    // Every statement takes the same values.
    let unused = "($5::text IS NULL OR true) AND ($6::uuid IS NULL OR true)";
    let sources = match status {
        None => format!("{pending} UNION ALL {settled}"),
        Some(DeliveryStatus::Pending) => pending,
        Some(DeliveryStatus::Delivered) => settled,
        Some(DeliveryStatus::Exhausted) => exhausted,
    };
    format!("SELECT * FROM ({sources}) block WHERE {unused} ORDER BY delivery {order} LIMIT $4")
}

async fn read_block(
    session: &Session,
    search: &DeliverySearch,
    sql: &str,
    (from, before): (u128, u128),
    size: usize,
) -> Outcome<Vec<Delivery>> {
    let values: [&(dyn ToSql + Sync); 6] = [
        &uuid(search.workspace.to_bytes()),
        &Uuid::from_u128(from),
        &Uuid::from_u128(before),
        &as_i64(size as u64),
        &search.app.as_ref().map(ClientId::as_str),
        &search.endpoint.map(|id| uuid(id.to_bytes())),
    ];
    collect(session, STEP, sql, &values, delivery_at).await
}

/// What is not in the rows of a block themselves, for those that pass every cheap filter.
#[derive(Default)]
struct LookedUp {
    /// How long the payload is, and whether it has the text.
    texts: HashMap<DeliveryId, (u32, bool)>,
    attempts: HashMap<DeliveryId, Attempt>,
}

async fn look_up(
    session: &Session,
    search: &DeliverySearch,
    block: &[Delivery],
) -> Outcome<LookedUp> {
    let mut known = LookedUp::default();
    let mut wanted: Vec<&Delivery> = block.iter().filter(|d| is_wanted(search, d)).collect();
    if let Some(text) = &search.text {
        known.texts = texts(session, search, text.as_bytes(), &wanted).await?;
        wanted.retain(|delivery| known.has_text(delivery.id));
    }
    if search.class.is_some() || search.with_attempts {
        wanted.retain(|delivery| delivery.attempts > 0);
        known.attempts = last_attempts(session, search, &wanted).await?;
    }
    Ok(known)
}

/// Whether a row passes every filter that needs nothing else.
fn is_wanted(search: &DeliverySearch, delivery: &Delivery) -> bool {
    let status = match delivery.state {
        DeliveryState::Pending { .. } => DeliveryStatus::Pending,
        DeliveryState::Delivered { .. } => DeliveryStatus::Delivered,
        DeliveryState::Exhausted { .. } => DeliveryStatus::Exhausted,
    };
    let event_type = search.event_type.as_ref();
    search.status.is_none_or(|only| only == status)
        && search.app.is_none_or(|only| only == delivery.app)
        && search.endpoint.is_none_or(|only| only == delivery.endpoint)
        && search.message.is_none_or(|only| only == delivery.message)
        && event_type.is_none_or(|only| *only == delivery.event_type)
}

async fn texts(
    session: &Session,
    search: &DeliverySearch,
    text: &[u8],
    wanted: &[&Delivery],
) -> Outcome<HashMap<DeliveryId, (u32, bool)>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let deliveries: Vec<Uuid> = wanted.iter().map(|d| uuid(d.id.to_bytes())).collect();
    let apps: Vec<&str> = wanted.iter().map(|d| d.app.as_str()).collect();
    let messages: Vec<Uuid> = wanted.iter().map(|d| uuid(d.message.to_bytes())).collect();
    let sql = "SELECT given.delivery, octet_length(payload), position($5::bytea IN payload) > 0
               FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS given (delivery, app, message)
               JOIN message ON message.workspace = $1 AND message.app = given.app AND message.id = given.message";
    let values: [&(dyn ToSql + Sync); 5] = [
        &uuid(search.workspace.to_bytes()),
        &deliveries,
        &apps,
        &messages,
        &text,
    ];
    let read = |row: &Row| {
        let bytes: i32 = column(row, 1)?;
        Ok((id(row, 0)?, (bytes.max(0).cast_unsigned(), column(row, 2)?)))
    };
    let found = collect(session, STEP, sql, &values, read).await?;
    Ok(found.into_iter().collect())
}

async fn last_attempts(
    session: &Session,
    search: &DeliverySearch,
    wanted: &[&Delivery],
) -> Outcome<HashMap<DeliveryId, Attempt>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let deliveries: Vec<Uuid> = wanted.iter().map(|d| uuid(d.id.to_bytes())).collect();
    let sql = "SELECT given.delivery, last.record FROM unnest($2::uuid[]) AS given (delivery)
               CROSS JOIN LATERAL (SELECT record FROM attempt
                   WHERE workspace = $1 AND attempt.delivery = given.delivery
                   ORDER BY number DESC LIMIT 1) last";
    let workspace = uuid(search.workspace.to_bytes());
    let read = |row: &Row| {
        let delivery: DeliveryId = id(row, 0)?;
        let attempt = attempt_from_record(&delivery, column(row, 1)?)?;
        Ok((delivery, attempt))
    };
    let found = collect(session, STEP, sql, &[&workspace, &deliveries], read).await?;
    Ok(found.into_iter().collect())
}

impl LookedUp {
    fn has_text(&self, id: DeliveryId) -> bool {
        self.texts.get(&id).is_some_and(|(_, has)| *has)
    }

    /// Whether a row is found, and what looking at it cost.
    fn judge(&self, search: &DeliverySearch, delivery: Delivery) -> (Option<FoundDelivery>, u32) {
        let mut cost = 1;
        if !is_wanted(search, &delivery) {
            return (None, cost);
        }
        if search.text.is_some() {
            let bytes = self.texts.get(&delivery.id).map_or(0, |(bytes, _)| *bytes);
            cost += PAYLOAD + bytes / PAYLOAD_BYTES_A_ROW;
            if !self.has_text(delivery.id) {
                return (None, cost);
            }
        }
        let attempt = self.attempts.get(&delivery.id);
        if attempt.is_some() {
            cost += ATTEMPT;
        }
        let class = attempt.map(CodeClass::of);
        if search.class.is_some_and(|only| class != Some(only)) {
            return (None, cost);
        }
        let last_attempt = attempt.filter(|_| search.with_attempts).cloned();
        let item = FoundDelivery {
            delivery,
            last_attempt,
        };
        (Some(item), cost)
    }
}
