//! The master key that seals for all nodes: which one that is, and that every node has it.
//!
//! The box that says so ([`CHECK`]) is a thing that all nodes follow ([`view`](super::view)),
//! and each says in its row which keys it was given. Whoever makes another key current looks at the rows in the
//! transaction that writes the box. A node that joins at that moment unseen reads the box after it joined, or
//! follows it: it finds that it lacks the key before it seals anything.

use std::sync::Arc;

use super::configuration::put_meta;
use super::rows::{Outcome, collect, column};
use super::transaction::Tx;
use super::writer::Answer;
use crate::store::seal::CHECK;
use crate::store::sharing::keys::master_key;

const STEP: &str = "make another master key current";

/// Makes the key of this id current, if every node has it.
pub(super) async fn make_current(tx: &mut Tx<'_>, id: &str, check: &Arc<[u8]>) -> Outcome<Answer> {
    let sql = "SELECT name FROM node WHERE left_at IS NULL AND taken_over_at IS NULL
                 AND NOT coalesce($1 = ANY(master_keys), false) ORDER BY joined_at, id";
    let lacking: Vec<String> = collect(tx.session, STEP, sql, &[&id], |row| column(row, 0)).await?;
    if lacking.is_empty() {
        put_meta(tx.session, CHECK, check).await?;
        tx.effects.keys.push(master_key());
        tx.effects.master_key = Some(Arc::clone(check));
    }
    Ok(Answer::Lacking(lacking))
}
