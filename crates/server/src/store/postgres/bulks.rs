//! Bulk rotations and their items.

use hookturn_core::bulk::{Bulk, BulkItem, ItemCounts, ItemKind};
use hookturn_core::id::{BulkId, WorkspaceId};
use hookturn_core::store::{BulkItemQuery, Page};
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::configuration::{STEP, swapped};
use super::connect::Session;
use super::rows::{Outcome, collect, column, execute, first, id, uuid};
use crate::store::encoding::{as_i64, from_document, impossible, number_of_kind, to_document};

/// Bulk rotations that are read at once when old ones are looked for.
const LOOKED_AT: usize = 100;

pub(super) async fn put_bulk(session: &Session, bulk: &Bulk) -> Outcome<()> {
    let (workspace, id) = (uuid(bulk.workspace.to_bytes()), uuid(bulk.id.to_bytes()));
    let (version, is_open) = (as_i64(bulk.version), bulk.state.is_open());
    let document = to_document("bulk", bulk)?;
    let sql = if bulk.version == 1 {
        "INSERT INTO bulk (workspace, id, version, is_open, document) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE bulk SET version = $3, is_open = $4, document = $5 WHERE workspace = $1 AND id = $2 AND version = $3::bigint - 1"
    };
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&workspace, &id, &version, &is_open, &document];
    let changed = execute(session, STEP, sql, &values).await?;
    swapped(changed, "bulk rotation", &bulk.id)
}

pub(super) async fn put_item(session: &Session, item: &BulkItem) -> Outcome<()> {
    let (workspace, bulk) = (uuid(item.workspace.to_bytes()), uuid(item.bulk.to_bytes()));
    let position = i64::from(item.position);
    let (kind, version) = (number_of_kind(item.state.kind()), as_i64(item.version));
    let document = to_document("bulk_item", item)?;
    let sql = if item.version == 1 {
        "INSERT INTO bulk_item (workspace, bulk, position, kind, version, document) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
    } else {
        "UPDATE bulk_item SET kind = $4, version = $5, document = $6
         WHERE workspace = $1 AND bulk = $2 AND position = $3 AND version = $5::bigint - 1"
    };
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&workspace, &bulk, &position, &kind, &version, &document];
    let changed = execute(session, STEP, sql, &values).await?;
    swapped(changed, "an item of bulk rotation", &item.bulk)
}

pub(super) async fn load_open(session: &Session) -> Outcome<Vec<Bulk>> {
    let sql = "SELECT id, document FROM bulk WHERE is_open";
    collect(session, "load the configuration", sql, &[], read_bulk).await
}

fn read_bulk(row: &Row) -> Outcome<Bulk> {
    let bulk: BulkId = id(row, 0)?;
    from_document("bulk", &bulk, column(row, 1)?)
}

const PRUNE: &str = "remove bulk rotations past their retention";

/// Removes at most `limit` rows of bulk rotations that were over before that time, and of those laid out
/// before it that never began. Each goes after its items, so that what one step leaves of it is found by the
/// next.
pub(super) async fn prune(session: &Session, before: Timestamp, limit: usize) -> Outcome<usize> {
    let removed = prune_over(session, before, limit).await?;
    Ok(removed + prune_laid_out(session, before, limit - removed).await?)
}

async fn prune_over(session: &Session, before: Timestamp, limit: usize) -> Outcome<usize> {
    let made_before = uuid(BulkId::first_at(before).to_bytes());
    let mut removed = 0;
    let mut passed = (Uuid::nil(), Uuid::nil());
    loop {
        let sql = "SELECT id, document, workspace FROM bulk
            WHERE (workspace, id) > ($1, $2) AND NOT is_open AND id < $3
            ORDER BY workspace, id LIMIT $4";
        let looked_at = as_i64(LOOKED_AT as u64);
        let values: [&(dyn ToSql + Sync); 4] = [&passed.0, &passed.1, &made_before, &looked_at];
        let read = |row: &Row| Ok((column::<Uuid>(row, 2)?, read_bulk(row)?));
        let block = collect(session, PRUNE, sql, &values, read).await?;
        for (workspace, bulk) in &block {
            let room = limit - removed;
            if room == 0 {
                return Ok(removed);
            }
            let id = uuid(bulk.id.to_bytes());
            passed = (*workspace, id);
            if bulk.state.over_at().is_none_or(|at| at >= before) {
                continue;
            }
            let items = remove_items(session, *workspace, id, room).await?;
            removed += items;
            if items < room {
                let sql = "DELETE FROM bulk WHERE workspace = $1 AND id = $2";
                execute(session, PRUNE, sql, &[workspace, &id]).await?;
                removed += 1;
            }
        }
        if block.len() < LOOKED_AT {
            return Ok(removed);
        }
    }
}

/// Items whose bulk rotation was never written: the process ended while it laid them out.
async fn prune_laid_out(session: &Session, before: Timestamp, limit: usize) -> Outcome<usize> {
    let made_before = uuid(BulkId::first_at(before).to_bytes());
    let mut removed = 0;
    let mut passed = (Uuid::nil(), Uuid::nil());
    while removed < limit {
        let sql = "SELECT workspace, bulk, EXISTS (SELECT 1 FROM bulk WHERE bulk.workspace = bulk_item.workspace AND id = bulk_item.bulk)
            FROM bulk_item WHERE (workspace, bulk) > ($1, $2) ORDER BY workspace, bulk LIMIT 1";
        let read = |row: &Row| {
            let place = (column::<Uuid>(row, 0)?, column::<Uuid>(row, 1)?);
            Ok((place, column::<bool>(row, 2)?))
        };
        let values: [&(dyn ToSql + Sync); 2] = [&passed.0, &passed.1];
        let next = collect(session, PRUNE, sql, &values, read).await?;
        let Some((place, began)) = next.into_iter().next() else {
            break;
        };
        passed = place;
        if !began && passed.1 < made_before {
            removed += remove_items(session, passed.0, passed.1, limit - removed).await?;
        }
    }
    Ok(removed)
}

/// Removes the first items of a bulk rotation, at most `limit`.
async fn remove_items(
    session: &Session,
    workspace: Uuid,
    bulk: Uuid,
    limit: usize,
) -> Outcome<usize> {
    let sql = "DELETE FROM bulk_item WHERE workspace = $1 AND bulk = $2 AND position = ANY(ARRAY(
        SELECT position FROM bulk_item WHERE workspace = $1 AND bulk = $2
        ORDER BY position LIMIT $3))";
    let most = as_i64(limit as u64);
    let values: [&(dyn ToSql + Sync); 3] = [&workspace, &bulk, &most];
    let removed = usize::try_from(execute(session, PRUNE, sql, &values).await?);
    Ok(removed.unwrap_or(limit))
}

pub(super) async fn bulk(
    session: &Session,
    workspace: WorkspaceId,
    id: BulkId,
) -> Outcome<Option<Bulk>> {
    let key = (uuid(workspace.to_bytes()), uuid(id.to_bytes()));
    let sql = "SELECT id, document FROM bulk WHERE workspace = $1 AND id = $2";
    let found = first(session, "read a bulk rotation", sql, &[&key.0, &key.1]).await?;
    found.as_ref().map(read_bulk).transpose()
}

pub(super) async fn bulks(
    session: &Session,
    workspace: WorkspaceId,
    page: Page<BulkId>,
) -> Outcome<Vec<Bulk>> {
    let workspace = uuid(workspace.to_bytes());
    let before = uuid(page.before.map_or([0xff; 16], BulkId::to_bytes));
    let limit = as_i64(page.limit as u64);
    let sql =
        "SELECT id, document FROM bulk WHERE workspace = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&workspace, &before, &limit];
    collect(session, "list bulk rotations", sql, &values, read_bulk).await
}

pub(super) async fn items(session: &Session, query: BulkItemQuery) -> Outcome<Vec<BulkItem>> {
    let (workspace, bulk) = (
        uuid(query.workspace.to_bytes()),
        uuid(query.bulk.to_bytes()),
    );
    let (from, until) = (i64::from(query.from), i64::from(query.until));
    let limit = as_i64(query.limit as u64);
    let read = |row: &Row| {
        let position: i64 = column(row, 0)?;
        let row_name = format!("{} {position}", query.bulk);
        from_document("bulk_item", &row_name, column(row, 1)?)
    };
    let step = "read the items of a bulk rotation";
    let Some(kind) = query.kind.map(number_of_kind) else {
        let sql = "SELECT position, document FROM bulk_item
            WHERE workspace = $1 AND bulk = $2 AND position >= $3 AND position < $4
            ORDER BY position LIMIT $5";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&workspace, &bulk, &from, &until, &limit];
        return collect(session, step, sql, &values, read).await;
    };
    let sql = "SELECT position, document FROM bulk_item
        WHERE workspace = $1 AND bulk = $2 AND kind = $6 AND position >= $3 AND position < $4
        ORDER BY position LIMIT $5";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&workspace, &bulk, &from, &until, &limit, &kind];
    collect(session, step, sql, &values, read).await
}

pub(super) async fn counts(
    session: &Session,
    workspace: WorkspaceId,
    bulk: BulkId,
    from: u32,
    until: u32,
) -> Outcome<ItemCounts> {
    let key = (uuid(workspace.to_bytes()), uuid(bulk.to_bytes()));
    let (from, until) = (i64::from(from), i64::from(until));
    let sql = "SELECT kind, count(*) FROM bulk_item
        WHERE workspace = $1 AND bulk = $2 AND position >= $3 AND position < $4 GROUP BY kind";
    let step = "count the items of a bulk rotation";
    let read = |row: &Row| Ok((column::<i64>(row, 0)?, column::<i64>(row, 1)?));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&key.0, &key.1, &from, &until];
    let mut counts = ItemCounts::default();
    for (number, rows) in collect(session, step, sql, &values, read).await? {
        let known = ItemKind::ALL
            .into_iter()
            .find(|kind| number_of_kind(*kind) == number);
        let kind = known.ok_or_else(|| impossible("bulk_item", "kind", &bulk, "no such kind"))?;
        let rows = u32::try_from(rows)
            .map_err(|error| impossible("bulk_item", "position", &bulk, error))?;
        *counts.of(kind) = rows;
    }
    Ok(counts)
}
