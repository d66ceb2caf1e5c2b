//! What is copied: each table of the PostgreSQL store, and where its rows are in the embedded one.
//!
//! The embedded store writes a workspace, an endpoint, a message and an event type as a small number where they
//! stand in many rows; here the number is replaced by what it stands for. What does not lead anywhere is an
//! impossible row, and never left out.

use Kind::{Big, Bool, Bytes, Int, Text, Uuid};
use Order::{Blob, Number, Words};

/// What the values of a column are, in the types of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Uuid,
    Text,
    Bytes,
    Big,
    Int,
    Bool,
}

impl Kind {
    /// The type's name, as the catalog says it.
    pub(in crate::store) const fn name(self) -> &'static str {
        match self {
            Uuid => "uuid",
            Text => "text",
            Bytes => "bytea",
            Big => "bigint",
            Int => "integer",
            Bool => "boolean",
        }
    }
}

/// A column. One that may be null has a question mark behind its name.
pub(in crate::store) type Column = (&'static str, Kind);

/// What a part is in order of: how a value of its key looks, and so what comes before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Order {
    Number,
    Words,
    Blob,
}

/// Rows of a table, from one query.
#[derive(Debug)]
pub(in crate::store) struct Part {
    /// The columns of the table, then the key. Rows behind the key that is bound, in its order.
    pub(in crate::store) select: &'static str,
    pub(in crate::store) key: &'static [Order],
}

/// A table of the PostgreSQL store.
#[derive(Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) name: &'static str,
    pub(in crate::store) columns: &'static [Column],
    /// The column whose id says in which day's partition a row stands.
    pub(in crate::store) dated: Option<usize>,
    pub(in crate::store) parts: &'static [Part],
}

impl Table {
    /// The names of its columns, for a statement.
    pub(in crate::store) fn column_list(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| format!("\"{}\"", name.trim_end_matches('?')))
            .collect();
        names.join(", ")
    }
}

/// Changes whenever the tables or their parts do: a copy goes on only as it was begun.
pub(in crate::store) const VERSION: u32 = 1;

/// What belongs to the database and not to what is stored in it: the list of migrations, who works on it, and the
/// outbox, which an embedded store has not.
pub(in crate::store) const NOT_COPIED: &[&str] = &[
    "migration",
    "node",
    "outbox",
    "outbox_refused",
    "shard_owner",
    "view_change",
    "view_head",
];

macro_rules! table {
    ($name:literal, [$($column:expr),* $(,)?], $select:literal, $key:expr) => {
        table!($name, [$($column),*], None, [($select, $key)])
    };
    ($name:literal, [$($column:expr),* $(,)?], $dated:expr, [$(($select:literal, $key:expr)),* $(,)?]) => {
        Table {
            name: $name,
            columns: &[$($column),*],
            dated: $dated,
            parts: &[$(Part { select: $select, key: &$key }),*],
        }
    };
}

/// All of them, in the order in which they are copied: what is large comes last.
pub(in crate::store) const TABLES: &[Table] = &[
    table!(
        "meta",
        [("key", Text), ("value", Bytes)],
        "SELECT key, value, key FROM meta WHERE key > ?1 ORDER BY key",
        [Words]
    ),
    table!(
        "workspace",
        [("workspace", Uuid), ("version", Big), ("document", Text)],
        "SELECT id, version, document, number FROM workspace WHERE number > ?1 ORDER BY number",
        [Number]
    ),
    table!(
        "workspace_name",
        [("name", Text), ("workspace", Uuid)],
        "SELECT name, id, number FROM workspace WHERE number > ?1 ORDER BY number",
        [Number]
    ),
    table!(
        "api_key",
        [
            ("id", Uuid),
            ("hash", Bytes),
            ("version", Big),
            ("document", Text),
            ("last_used_at?", Big)
        ],
        "SELECT id, hash, version, document, last_used_at, id FROM api_key WHERE id > ?1 ORDER BY id",
        [Blob]
    ),
    table!(
        "api_key_hash",
        [("hash", Bytes), ("api_key", Uuid)],
        "SELECT hash, id, id FROM api_key WHERE id > ?1 ORDER BY id",
        [Blob]
    ),
    table!(
        "app",
        [
            ("workspace", Uuid),
            ("id", Text),
            ("version", Big),
            ("document", Text)
        ],
        "SELECT w.id, t.id, t.version, t.document, t.workspace, t.id
         FROM app t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.id) > (?1, ?2) ORDER BY t.workspace, t.id",
        [Number, Words]
    ),
    table!(
        "endpoint",
        [
            ("workspace", Uuid),
            ("id", Uuid),
            ("app", Text),
            ("version", Big),
            ("document", Text),
            ("deleted_at?", Big),
            ("receiver?", Text)
        ],
        "SELECT w.id, t.id, t.app, t.version, t.document, t.deleted_at, t.receiver, t.number
         FROM endpoint t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE t.number > ?1 ORDER BY t.number",
        [Number]
    ),
    table!(
        "findings",
        [("workspace", Uuid), ("endpoint", Uuid), ("document", Text)],
        "SELECT w.id, e.id, t.document, t.endpoint
         FROM findings t LEFT JOIN endpoint e ON e.number = t.endpoint
         LEFT JOIN workspace w ON w.number = e.workspace
         WHERE t.endpoint > ?1 ORDER BY t.endpoint",
        [Number]
    ),
    table!(
        "keyring",
        [
            ("workspace", Uuid),
            ("id", Uuid),
            ("version", Big),
            ("document", Text)
        ],
        "SELECT w.id, t.id, t.version, t.document, t.workspace, t.id
         FROM keyring t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.id) > (?1, ?2) ORDER BY t.workspace, t.id",
        [Number, Blob]
    ),
    table!(
        "secret",
        [
            ("workspace", Uuid),
            ("keyring", Uuid),
            ("id", Uuid),
            ("version", Big),
            ("sealed", Bytes)
        ],
        "SELECT w.id, t.keyring, t.id, t.version, t.sealed, t.workspace, t.keyring, t.id
         FROM secret t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.keyring, t.id) > (?1, ?2, ?3) ORDER BY t.workspace, t.keyring, t.id",
        [Number, Blob, Blob]
    ),
    table!(
        "secret_mark",
        [
            ("workspace", Uuid),
            ("keyring", Uuid),
            ("secret", Uuid),
            ("mark?", Bytes)
        ],
        "SELECT w.id, t.keyring, t.secret, t.mark, t.workspace, t.keyring, t.secret
         FROM secret_mark t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.keyring, t.secret) > (?1, ?2, ?3)
         ORDER BY t.workspace, t.keyring, t.secret",
        [Number, Blob, Blob]
    ),
    table!(
        "rotation",
        [
            ("workspace", Uuid),
            ("id", Uuid),
            ("keyring", Uuid),
            ("document", Text)
        ],
        "SELECT w.id, t.id, t.keyring, t.document, t.workspace, t.id
         FROM rotation t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.id) > (?1, ?2) ORDER BY t.workspace, t.id",
        [Number, Blob]
    ),
    table!(
        "bulk",
        [
            ("workspace", Uuid),
            ("id", Uuid),
            ("version", Big),
            ("is_open", Bool),
            ("document", Text)
        ],
        "SELECT w.id, t.id, t.version, t.is_open, t.document, t.workspace, t.id
         FROM bulk t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.id) > (?1, ?2) ORDER BY t.workspace, t.id",
        [Number, Blob]
    ),
    table!(
        "bulk_item",
        [
            ("workspace", Uuid),
            ("bulk", Uuid),
            ("position", Big),
            ("kind", Big),
            ("version", Big),
            ("document", Text)
        ],
        "SELECT w.id, t.bulk, t.position, t.kind, t.version, t.document, t.workspace, t.bulk, t.position
         FROM bulk_item t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.bulk, t.position) > (?1, ?2, ?3) ORDER BY t.workspace, t.bulk, t.position",
        [Number, Blob, Number]
    ),
    table!(
        "schedule",
        [
            ("workspace", Uuid),
            ("id", Uuid),
            ("version", Big),
            ("document", Text)
        ],
        "SELECT w.id, t.id, t.version, t.document, t.workspace, t.id
         FROM schedule t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.id) > (?1, ?2) ORDER BY t.workspace, t.id",
        [Number, Blob]
    ),
    table!(
        "schedule_note",
        [
            ("workspace", Uuid),
            ("schedule", Uuid),
            ("keyring", Uuid),
            ("document", Text)
        ],
        "SELECT w.id, t.schedule, t.keyring, t.document, t.workspace, t.schedule, t.keyring
         FROM schedule_note t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.schedule, t.keyring) > (?1, ?2, ?3)
         ORDER BY t.workspace, t.schedule, t.keyring",
        [Number, Blob, Blob]
    ),
    table!(
        "noted",
        [("workspace", Uuid), ("keyring", Uuid), ("document", Text)],
        "SELECT w.id, t.keyring, t.document, t.workspace, t.keyring
         FROM noted t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.keyring) > (?1, ?2) ORDER BY t.workspace, t.keyring",
        [Number, Blob]
    ),
    table!(
        "audit",
        [
            ("workspace", Uuid),
            ("seq", Big),
            ("document", Text),
            ("hash", Bytes)
        ],
        "SELECT w.id, t.seq, t.document, t.hash, t.workspace, t.seq
         FROM audit t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.seq) > (?1, ?2) ORDER BY t.workspace, t.seq",
        [Number, Number]
    ),
    // The embedded store reads the head from the log; a log without an entry has one too.
    table!(
        "audit_head",
        [("workspace", Uuid), ("seq", Big), ("hash", Bytes)],
        "SELECT w.id, coalesce(a.seq, 0), coalesce(a.hash, zeroblob(32)), w.number
         FROM workspace w LEFT JOIN audit a ON a.workspace = w.number
              AND a.seq = (SELECT max(seq) FROM audit WHERE workspace = w.number)
         WHERE w.number > ?1 ORDER BY w.number",
        [Number]
    ),
    table!(
        "reported",
        [("workspace", Uuid), ("seq", Big)],
        "SELECT w.id, t.seq, t.workspace
         FROM reported t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE t.workspace > ?1 ORDER BY t.workspace",
        [Number]
    ),
    table!(
        "figures",
        [("workspace", Uuid), ("at", Big), ("counted", Bytes)],
        "SELECT workspace, at, counted, workspace FROM figures WHERE workspace > ?1 ORDER BY workspace",
        [Blob]
    ),
    table!(
        "event_type",
        [("workspace", Uuid), ("name", Text)],
        "SELECT w.id, t.name, t.workspace, t.name
         FROM event_type t LEFT JOIN workspace w ON w.number = t.workspace
         WHERE (t.workspace, t.name) > (?1, ?2) ORDER BY t.workspace, t.name",
        [Number, Words]
    ),
    table!(
        "idempotency",
        [
            ("key", Bytes),
            ("fingerprint", Bytes),
            ("response", Bytes),
            ("expires_at", Big),
            ("shows?", Text),
            ("shown_fingerprint?", Text),
            ("shown_to?", Uuid)
        ],
        "SELECT key, fingerprint, response, expires_at, shows, shown_fingerprint, shown_to, key
         FROM idempotency WHERE key > ?1 ORDER BY key",
        [Blob]
    ),
    table!(
        "message",
        [
            ("workspace", Uuid),
            ("app", Text),
            ("id", Uuid),
            ("event_type", Text),
            ("event_id?", Text),
            ("accepted_at", Big),
            ("payload", Bytes)
        ],
        Some(2),
        [(
            "SELECT w.id, t.app, t.id, n.name, t.event_id, t.accepted_at, t.payload, t.number
             FROM message t LEFT JOIN workspace w ON w.number = t.workspace
             LEFT JOIN event_type n ON n.number = t.event_type
             WHERE t.number > ?1 ORDER BY t.number",
            [Number]
        )]
    ),
    table!(
        "settled",
        [
            ("workspace", Uuid),
            ("app", Text),
            ("delivery", Uuid),
            ("endpoint", Uuid),
            ("message", Uuid),
            ("event_type", Text),
            ("attempts", Int),
            ("settled_at", Big),
            ("exhausted?", Text)
        ],
        Some(2),
        [(
            "SELECT w.id, t.app, t.delivery, e.id, t.message, n.name, t.attempts, t.settled_at, t.exhausted,
                    t.workspace, t.app, t.delivery
             FROM settled t LEFT JOIN workspace w ON w.number = t.workspace
             LEFT JOIN endpoint e ON e.number = t.endpoint
             LEFT JOIN event_type n ON n.number = t.event_type
             WHERE (t.workspace, t.app, t.delivery) > (?1, ?2, ?3) ORDER BY t.workspace, t.app, t.delivery",
            [Number, Words, Blob]
        )]
    ),
    // An attempt is found by its delivery, which is either pending or settled and says whose it is.
    table!(
        "attempt",
        [
            ("workspace", Uuid),
            ("delivery", Uuid),
            ("number", Int),
            ("app", Text),
            ("record", Bytes)
        ],
        Some(1),
        [
            (
                "SELECT w.id, t.delivery, t.number, t.app, t.record, d.delivery, t.number
                 FROM due d CROSS JOIN attempt t ON t.delivery = d.delivery
                 LEFT JOIN message m ON m.number = d.message
                 LEFT JOIN workspace w ON w.number = m.workspace
                 WHERE d.delivery >= ?1 AND (d.delivery > ?1 OR t.number > ?2)
                 ORDER BY d.delivery, t.number",
                [Blob, Number]
            ),
            (
                "SELECT w.id, t.delivery, t.number, t.app, t.record, s.workspace, s.delivery, t.number
                 FROM settled s CROSS JOIN attempt t ON t.delivery = s.delivery
                 LEFT JOIN workspace w ON w.number = s.workspace
                 WHERE (s.workspace, s.delivery) >= (?1, ?2)
                   AND ((s.workspace, s.delivery) > (?1, ?2) OR t.number > ?3)
                 ORDER BY s.workspace, s.delivery, t.number",
                [Number, Blob, Number]
            )
        ]
    ),
    table!(
        "due",
        [
            ("workspace", Uuid),
            ("delivery", Uuid),
            ("endpoint", Uuid),
            ("due_at", Big),
            ("not_before", Big),
            ("app", Text),
            ("message", Uuid),
            ("event_type", Text),
            ("attempts", Int),
            ("attempts_before_requeue", Int)
        ],
        "SELECT w.id, t.delivery, e.id, t.due_at, t.not_before, m.app, m.id, n.name, t.attempts,
                t.attempts_before_requeue, t.endpoint, t.due_at, t.delivery
         FROM due t LEFT JOIN endpoint e ON e.number = t.endpoint
         LEFT JOIN message m ON m.number = t.message
         LEFT JOIN workspace w ON w.number = m.workspace
         LEFT JOIN event_type n ON n.number = m.event_type
         WHERE (t.endpoint, t.due_at, t.delivery) > (?1, ?2, ?3) ORDER BY t.endpoint, t.due_at, t.delivery",
        [Number, Number, Blob]
    ),
];

/// Every part with its table, in order: a place in a copy is a number of these and a key.
pub(in crate::store) fn parts() -> impl Iterator<Item = (&'static Table, &'static Part)> {
    TABLES
        .iter()
        .flat_map(|table| table.parts.iter().map(move |part| (table, part)))
}

/// Every table that is copied, with its columns: name, type, whether it may be null.
pub fn tables_of_the_copy()
-> impl Iterator<Item = (&'static str, Vec<(&'static str, &'static str, bool)>)> {
    TABLES.iter().map(|table| {
        let columns = table.columns.iter().map(|(name, kind)| {
            let plain = name.trim_end_matches('?');
            (plain, kind.name(), plain != *name)
        });
        (table.name, columns.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_binds_its_key_and_reads_it_behind_the_columns() {
        for (table, part) in parts() {
            for number in 1..=part.key.len() {
                assert!(
                    part.select.contains(&format!("?{number}")),
                    "{}",
                    table.name
                );
            }
            assert!(part.select.contains("ORDER BY"), "{}", table.name);
            let dated = table.dated.map(|index| table.columns[index].1);
            assert!(matches!(dated, None | Some(Uuid)), "{}", table.name);
        }
        let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
        assert!(names.iter().all(|name| !NOT_COPIED.contains(name)));
    }
}
