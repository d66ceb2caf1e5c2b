//! The review: which shards this node owns, as the database has it, and what it gives up and takes.
//!
//! What is to be done is decided by [`Seen::steps`], from the list of nodes and of owners. A shard is
//! given up in two steps: from the first on nothing begins for it here, and the second, when nothing is under way
//! any more and everything is recorded, frees it in the database. Taking one is a write that only finds it free;
//! what other nodes learned about the receivers of its endpoints is read in the same transaction, before anything
//! is sent to them.

use hookturn_core::id::{ApiKeyId, EndpointId, WorkspaceId};
use hookturn_core::shard::{SHARDS, Shard};
use hookturn_core::store::ReceiverState;
use hookturn_core::time::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::node::{Node, SILENT};
use super::rows::{Outcome, collect, column, id, time};
use crate::store::encoding::from_document;
use crate::store::sharing::review::{Member, Seen, Steps};

const STEP: &str = "share the shards";

/// Looks who there is and who owns what.
pub(super) async fn look(session: &Session) -> Outcome<Seen> {
    let sql = format!(
        "SELECT id, {SILENT} FROM node WHERE left_at IS NULL AND taken_over_at IS NULL AND able
         ORDER BY joined_at, id"
    );
    let read = |row: &Row| {
        Ok(Member {
            id: column(row, 0)?,
            silent: column::<i64>(row, 1)?.max(0).cast_unsigned(),
        })
    };
    let members = collect(session, STEP, &sql, &[], read).await?;
    let sql = "SELECT shard, node FROM shard_owner";
    let read = |row: &Row| Ok((column::<i32>(row, 0)?, column::<Option<Uuid>>(row, 1)?));
    let mut owners = vec![None; usize::from(SHARDS)];
    for (shard, owner) in collect(session, STEP, sql, &[], read).await? {
        if let Some(place) = usize::try_from(shard).ok().and_then(|n| owners.get_mut(n)) {
            *place = owner;
        }
    }
    Ok(Seen::new(members, owners))
}

/// Frees and takes shards within the open transaction. Returns those that are ours now and were not before.
pub(super) async fn share(session: &Session, me: &Node, steps: &Steps) -> Outcome<Vec<Shard>> {
    let numbers = |shards: &[Shard]| -> Vec<i32> {
        shards
            .iter()
            .map(|shard| i32::from(shard.number()))
            .collect()
    };
    let read = |row: &Row| column::<i32>(row, 0);
    if !steps.free.is_empty() {
        let sql = "UPDATE shard_owner SET node = NULL, holder = '', epoch = epoch + 1
                   WHERE shard = ANY($1) AND node = $2 RETURNING shard";
        collect(session, STEP, sql, &[&numbers(&steps.free), &me.id], read).await?;
    }
    let mut taken = steps.adopt.clone();
    if !steps.claim.is_empty() {
        let sql = "UPDATE shard_owner SET node = $2, holder = $3, epoch = epoch + 1, taken_at = clock_timestamp()
                   WHERE shard = ANY(ARRAY(SELECT shard FROM shard_owner WHERE shard = ANY($1) AND node IS NULL
                                           ORDER BY shard FOR UPDATE SKIP LOCKED))
                   RETURNING shard";
        let claim = numbers(&steps.claim);
        let name = me.name();
        let found = collect(session, STEP, sql, &[&claim, &me.id, &name], read).await?;
        let shard = |number: i32| u16::try_from(number).ok().and_then(Shard::new);
        taken.extend(found.into_iter().filter_map(shard));
    }
    Ok(taken)
}

/// What is remembered of a receiver.
pub(super) type Remembered = (EndpointId, ReceiverState);

/// What is remembered of the receivers of shards.
pub(super) async fn receivers(session: &Session, shards: &[Shard]) -> Outcome<Vec<Remembered>> {
    let sql = "SELECT workspace, id, receiver FROM endpoint WHERE receiver IS NOT NULL";
    let all = collect(session, STEP, sql, &[], remembered).await?;
    let ours = |(endpoint, _): &Remembered| shards.contains(&Shard::of(*endpoint));
    Ok(all.into_iter().filter(ours).collect())
}

/// What was written about receivers in the last minute: written by their owners, and read by everyone once in a
/// while.
pub(super) async fn recent_receivers(session: &Session) -> Outcome<Vec<Remembered>> {
    let sql = "SELECT workspace, id, receiver FROM endpoint
               WHERE receiver_at > clock_timestamp() - interval '1 minute' AND receiver IS NOT NULL";
    collect(session, "follow receivers", sql, &[], remembered).await
}

/// Which API keys were used in the last minutes.
pub(super) async fn recent_uses(session: &Session) -> Outcome<Vec<(ApiKeyId, Timestamp)>> {
    let sql = "SELECT id, last_used_at FROM api_key
               WHERE last_used_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 300000";
    let read = |row: &Row| Ok((id(row, 0)?, time(row, 1)?));
    collect(session, "follow the use of keys", sql, &[], read).await
}

fn remembered(row: &Row) -> Outcome<Remembered> {
    let _workspace: WorkspaceId = id(row, 0)?;
    let endpoint: EndpointId = id(row, 1)?;
    let receiver = from_document("endpoint", &endpoint, column(row, 2)?)?;
    Ok((endpoint, receiver))
}
