//! Bulk rotations and their items.

use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts, ItemKind};
use hookturn_core::id::{BulkId, WorkspaceId};
use hookturn_core::store::{BulkItemQuery, Page, StoreError};
use hookturn_core::time::Timestamp;
use rusqlite::{Connection, Row, params};

use super::configuration::{STEP, collect, execute, swapped};
use super::reader::At;
use super::rows::{self, as_i64, from_document, to_document};
use super::writer::Tx;
use crate::store::encoding::number_of_kind;

type Outcome<T> = Result<T, StoreError>;

/// Bulk rotations that are read at once when old ones are looked for.
const LOOKED_AT: usize = 100;

pub(super) fn put_bulk(tx: &Tx<'_>, bulk: &Bulk) -> Outcome<()> {
    let values = params![
        tx.workspace(bulk.workspace)?,
        bulk.id.to_bytes(),
        as_i64(bulk.version),
        bulk.state.is_open(),
        to_document("bulk", bulk)?
    ];
    let sql = if bulk.version == 1 {
        "INSERT INTO bulk (workspace, id, version, is_open, document) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE bulk SET version = ?3, is_open = ?4, document = ?5 WHERE workspace = ?1 AND id = ?2 AND version = ?3 - 1"
    };
    swapped(execute(tx, STEP, sql, values)?, "bulk rotation", &bulk.id)
}

pub(super) fn put_item(tx: &Tx<'_>, item: &BulkItem) -> Outcome<()> {
    let values = params![
        tx.workspace(item.workspace)?,
        item.bulk.to_bytes(),
        item.position,
        number_of_kind(item.state.kind()),
        as_i64(item.version),
        to_document("bulk_item", item)?
    ];
    let sql = if item.version == 1 {
        "INSERT INTO bulk_item (workspace, bulk, position, kind, version, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE bulk_item SET kind = ?4, version = ?5, document = ?6
         WHERE workspace = ?1 AND bulk = ?2 AND position = ?3 AND version = ?5 - 1"
    };
    let changed = execute(tx, STEP, sql, values)?;
    swapped(changed, "an item of bulk rotation", &item.bulk)
}

const PRUNE: &str = "remove bulk rotations past their retention";

/// Removes at most `limit` rows of bulk rotations that were over before that time, and of those laid out
/// before it that never began. Each goes after its items, so that what one step leaves of it is found by the
/// next.
pub(super) fn prune(tx: &Tx<'_>, before: Timestamp, limit: usize) -> Outcome<usize> {
    let removed = prune_over(tx, before, limit)?;
    Ok(removed + prune_laid_out(tx, before, limit - removed)?)
}

fn prune_over(tx: &Tx<'_>, before: Timestamp, limit: usize) -> Outcome<usize> {
    let made_before = BulkId::first_at(before).to_bytes();
    let mut removed = 0;
    let mut passed = (0_i64, [0_u8; 16]);
    loop {
        let sql = "SELECT id, document, workspace FROM bulk
            WHERE (workspace, id) > (?1, ?2) AND NOT is_open AND id < ?3
            ORDER BY workspace, id LIMIT ?4";
        let values = params![passed.0, passed.1, made_before, as_i64(LOOKED_AT as u64)];
        let block = collect(tx.connection, PRUNE, sql, values, |row| {
            let workspace: i64 = row.get(2)?;
            Ok(read_bulk(row)?.map(|bulk| (workspace, bulk)))
        })?;
        for (workspace, bulk) in &block {
            let room = limit - removed;
            if room == 0 {
                return Ok(removed);
            }
            let id = bulk.id.to_bytes();
            passed = (*workspace, id);
            if bulk.state.over_at().is_none_or(|at| at >= before) {
                continue;
            }
            let items = remove_items(tx, *workspace, id, room)?;
            removed += items;
            if items < room {
                let sql = "DELETE FROM bulk WHERE workspace = ?1 AND id = ?2";
                removed += execute(tx, PRUNE, sql, params![workspace, id])?;
            }
        }
        if block.len() < LOOKED_AT {
            return Ok(removed);
        }
    }
}

/// Items whose bulk rotation was never written: the process ended while it laid them out.
fn prune_laid_out(tx: &Tx<'_>, before: Timestamp, limit: usize) -> Outcome<usize> {
    let made_before = BulkId::first_at(before).to_bytes();
    let mut removed = 0;
    let mut passed = (0_i64, [0_u8; 16]);
    while removed < limit {
        let sql = "SELECT workspace, bulk, EXISTS (SELECT 1 FROM bulk WHERE bulk.workspace = bulk_item.workspace AND id = bulk)
            FROM bulk_item WHERE (workspace, bulk) > (?1, ?2) ORDER BY workspace, bulk LIMIT 1";
        let next = collect(
            tx.connection,
            PRUNE,
            sql,
            params![passed.0, passed.1],
            |row| Ok(Ok(((row.get(0)?, row.get(1)?), row.get::<_, bool>(2)?))),
        )?;
        let Some((place, began)) = next.into_iter().next() else {
            break;
        };
        passed = place;
        if !began && passed.1 < made_before {
            removed += remove_items(tx, passed.0, passed.1, limit - removed)?;
        }
    }
    Ok(removed)
}

/// Removes the first items of a bulk rotation, at most `limit`.
fn remove_items(tx: &Tx<'_>, workspace: i64, bulk: [u8; 16], limit: usize) -> Outcome<usize> {
    let sql = "DELETE FROM bulk_item WHERE workspace = ?1 AND bulk = ?2 AND position IN (
        SELECT position FROM bulk_item WHERE workspace = ?1 AND bulk = ?2
        ORDER BY position LIMIT ?3)";
    execute(
        tx,
        PRUNE,
        sql,
        params![workspace, bulk, as_i64(limit as u64)],
    )
}

pub(super) fn load_open(connection: &Connection) -> Outcome<Vec<Bulk>> {
    let sql = "SELECT id, document FROM bulk WHERE is_open";
    collect(connection, "load the configuration", sql, [], read_bulk)
}

fn read_bulk(row: &Row<'_>) -> rusqlite::Result<Outcome<Bulk>> {
    let id: BulkId = rows::id(row, 0)?;
    Ok(from_document("bulk", &id, row.get_ref(1)?.as_str()?))
}

pub(super) fn bulk(at: &At<'_>, workspace: WorkspaceId, id: BulkId) -> Outcome<Option<Bulk>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(None);
    };
    let sql = "SELECT id, document FROM bulk WHERE workspace = ? AND id = ?";
    let values = params![number, id.to_bytes()];
    let found = collect(
        at.connection,
        "read a bulk rotation",
        sql,
        values,
        read_bulk,
    )?;
    Ok(found.into_iter().next())
}

pub(super) fn bulks(at: &At<'_>, workspace: WorkspaceId, page: Page<BulkId>) -> Outcome<Vec<Bulk>> {
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(Vec::new());
    };
    let before = page.before.map_or([0xff; 16], BulkId::to_bytes);
    let sql =
        "SELECT id, document FROM bulk WHERE workspace = ? AND id < ? ORDER BY id DESC LIMIT ?";
    let values = params![number, before, as_i64(page.limit as u64)];
    collect(at.connection, "list bulk rotations", sql, values, read_bulk)
}

pub(super) fn items(at: &At<'_>, query: BulkItemQuery) -> Outcome<Vec<BulkItem>> {
    let Some(number) = at.numbers.workspace(query.workspace) else {
        return Ok(Vec::new());
    };
    let step = "read the items of a bulk rotation";
    let read = |row: &Row<'_>| {
        let position: i64 = row.get(0)?;
        let row_name = format!("{} {position}", query.bulk);
        let document = row.get_ref(1)?.as_str()?;
        Ok(from_document("bulk_item", &row_name, document))
    };
    let (bulk, limit) = (query.bulk.to_bytes(), as_i64(query.limit as u64));
    let (from, until) = (query.from, query.until);
    match query.kind {
        None => {
            let sql = "SELECT position, document FROM bulk_item
                WHERE workspace = ? AND bulk = ? AND position >= ? AND position < ?
                ORDER BY position LIMIT ?";
            let values = params![number, bulk, from, until, limit];
            collect(at.connection, step, sql, values, read)
        }
        Some(kind) => {
            let sql = "SELECT position, document FROM bulk_item
                WHERE workspace = ? AND bulk = ? AND kind = ? AND position >= ? AND position < ?
                ORDER BY position LIMIT ?";
            let values = params![number, bulk, number_of_kind(kind), from, until, limit];
            collect(at.connection, step, sql, values, read)
        }
    }
}

pub(super) fn counts(
    at: &At<'_>,
    workspace: WorkspaceId,
    bulk: BulkId,
    from: u32,
    until: u32,
) -> Outcome<ItemCounts> {
    let mut counts = ItemCounts::default();
    let Some(number) = at.numbers.workspace(workspace) else {
        return Ok(counts);
    };
    let sql = "SELECT count(*) FROM bulk_item
        WHERE workspace = ? AND bulk = ? AND kind = ? AND position >= ? AND position < ?";
    for kind in ItemKind::ALL {
        let values = params![number, bulk.to_bytes(), number_of_kind(kind), from, until];
        let step = "count the items of a bulk rotation";
        let found = collect(at.connection, step, sql, values, |row| {
            Ok(Ok(rows::count(row, 0)?))
        })?;
        *counts.of(kind) = found.into_iter().sum();
    }
    Ok(counts)
}
