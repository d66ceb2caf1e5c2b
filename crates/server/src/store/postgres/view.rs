//! What every node holds in memory, and how one follows the changes of another.
//!
//! Everything configured is in the live view of every node. Whoever changes it counts up the one row of `view_head`
//! and holds that row until its commit ([`lock`]), and tells in `view_change`, in the same transaction, which things
//! are to be read anew ([`record`]). So versions are in the order of the commits and without gaps.
//!
//! Every transaction of a node reads the head as it begins, and follows before it writes anything if it is behind
//! ([`catch_up`]): one statement, which sees one commit, so that no half of a change is ever in memory. That is also
//! what confirms the view: a node signs for a while after it saw that it was current.
//!
//! Whether what this node decided from an older view still stands is said by
//! [`Recent::refuse`](crate::store::sharing::view::Recent::refuse).

use std::collections::HashSet;
use std::sync::Arc;

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::proof::Findings;
use hookturn_core::rotation::Keyring;
use hookturn_core::store::{SealedSecret, Write};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Session;
use super::rows::{Outcome, collect, column, execute, first, is_lock_timeout, run, uuid};
use crate::store::encoding::{from_document, impossible};
use crate::store::sharing::keys::{Key, kind};
use crate::store::sharing::view::{Told, is_whole};

const STEP: &str = "follow the other nodes";

// ----- telling -----

/// Counts the head up and holds it until the transaction ends. Returns the new version; nothing if another node
/// holds it for too long: it has stopped in the middle of a transaction.
pub(super) async fn lock(session: &Session) -> Outcome<Option<i64>> {
    const STEP: &str = "change what all nodes hold";
    run(session, STEP, "SAVEPOINT head").await?;
    let sql = "UPDATE view_head SET version = version + 1 WHERE id = 0 RETURNING version";
    match first(session, STEP, sql, &[]).await {
        Ok(Some(row)) => {
            run(session, STEP, "RELEASE SAVEPOINT head").await?;
            column(&row, 0).map(Some)
        }
        Ok(None) => Err(impossible("view_head", "id", &0, "it is gone")),
        Err(error) if is_lock_timeout(&error) => {
            run(session, STEP, "ROLLBACK TO SAVEPOINT head").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Tells which things are to be read anew, under the version that was counted up; and wakes the other nodes when
/// it is committed.
pub(super) async fn record(
    session: &Session,
    version: i64,
    node: Uuid,
    keys: &HashSet<Key>,
) -> Outcome<()> {
    const STEP: &str = "tell the other nodes";
    let kinds: Vec<&str> = keys.iter().map(|key| key.kind).collect();
    let workspaces: Vec<Uuid> = keys
        .iter()
        .map(|key| uuid(key.workspace.to_bytes()))
        .collect();
    let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
    let sql = "INSERT INTO view_change (version, node, kinds, workspaces, names) VALUES ($1, $2, $3, $4, $5)";
    execute(
        session,
        STEP,
        sql,
        &[&version, &node, &kinds, &workspaces, &names],
    )
    .await?;
    let wake = "SELECT pg_notify($1, 'view')";
    first(session, STEP, wake, &[&super::ear::CHANNEL])
        .await
        .map(drop)
}

/// Forgets what every node has followed. Nobody is so far behind for as long as it lives.
pub(super) async fn prune(session: &Session) -> Outcome<u64> {
    let sql = "DELETE FROM view_change WHERE at < clock_timestamp() - interval '10 minutes'
               AND version <= (SELECT min(view) FROM node
                               WHERE left_at IS NULL AND taken_over_at IS NULL AND view IS NOT NULL)";
    execute(session, "forget old changes", sql, &[]).await
}

// ----- following -----

/// What changed since this node last followed, as of one commit.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The version it is as of.
    pub(super) version: i64,
    /// How many versions it tells of.
    versions: i64,
    /// As the live view takes them.
    pub(super) writes: Vec<Write>,
    pub(super) findings: Vec<(EndpointId, Findings)>,
    pub(super) forgotten: Vec<EndpointId>,
    /// The box of the master key that is current, if another one became so.
    pub(super) master_key: Option<Arc<[u8]>>,
    pub(super) told: Vec<Told>,
}

impl News {
    /// Whether it tells of everything after a version, up to one that is known to be there.
    pub(super) fn is_whole(&self, applied: i64, known: i64) -> bool {
        is_whole(self.versions, (applied, self.version), known)
    }
}

/// Reads what changed after version `applied`, as of one commit.
pub(super) async fn catch_up(session: &Session, applied: i64) -> Outcome<News> {
    let read = |row: &Row| Found::read(row);
    let found = collect(session, STEP, CATCH_UP, &[&applied], read).await?;
    let mut news = News::default();
    let mut present = HashSet::new();
    for found in &found {
        match found.rank {
            HEAD if found.kind == "head" => news.version = found.number,
            HEAD => news.versions = found.number,
            TOLD => news.told.push(Told {
                version: found.number,
                key: found.key()?,
            }),
            _ => {
                let key = found.key()?;
                news.take(&key, found)?;
                present.insert(key);
            }
        }
    }
    news.told.sort_by_key(|told| told.version);
    let gone: HashSet<Key> = news.told.iter().map(|told| told.key.clone()).collect();
    for key in gone.difference(&present) {
        news.take_gone(key)?;
    }
    Ok(news)
}

const HEAD: i32 = 0;
const TOLD: i32 = 1;

/// The last version that is told and how many are, what is told, and each thing that is told of as it is now; in an order in which the live view can take
/// them.
const CATCH_UP: &str = "
    WITH told AS (
        SELECT version, k.kind, k.workspace, k.name FROM view_change
        CROSS JOIN LATERAL unnest(kinds, workspaces, names) AS k (kind, workspace, name)
        WHERE version > $1),
    k AS MATERIALIZED (SELECT DISTINCT kind, workspace, name FROM told)
    SELECT 0 AS rank, 'head' AS kind, '00000000-0000-0000-0000-000000000000'::uuid AS workspace, '' AS name,
           NULL::text AS document, NULL::bytea AS sealed, coalesce(max(version), $1) AS number
           FROM view_change WHERE version > $1
    UNION ALL SELECT 0, 'count', '00000000-0000-0000-0000-000000000000'::uuid, '', NULL, NULL, count(*)
           FROM view_change WHERE version > $1
    UNION ALL SELECT 1, kind, workspace, name, NULL, NULL, version FROM told
    UNION ALL SELECT 2, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN workspace t
        ON t.workspace = k.workspace WHERE k.kind = 'workspace'
    UNION ALL SELECT 3, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN api_key t
        ON t.id = k.name::uuid WHERE k.kind = 'api_key'
    UNION ALL SELECT 4, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN app t
        ON t.workspace = k.workspace AND t.id = k.name WHERE k.kind = 'app'
    UNION ALL SELECT 5, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN endpoint t
        ON t.workspace = k.workspace AND t.id = k.name::uuid WHERE k.kind = 'endpoint'
    UNION ALL SELECT 6, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN keyring t
        ON t.workspace = k.workspace AND t.id = k.name::uuid WHERE k.kind = 'keyring'
    UNION ALL SELECT 7, k.kind, k.workspace, k.name, NULL, t.sealed, t.version FROM k JOIN secret t
        ON t.workspace = k.workspace AND t.keyring = split_part(k.name, ':', 1)::uuid
        AND t.id = split_part(k.name, ':', 2)::uuid WHERE k.kind = 'secret'
    UNION ALL SELECT 8, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN bulk t
        ON t.workspace = k.workspace AND t.id = k.name::uuid WHERE k.kind = 'bulk'
    UNION ALL SELECT 9, k.kind, k.workspace, k.name, NULL, t.value, 0 FROM k JOIN meta t
        ON t.key = 'mark_key' WHERE k.kind = 'mark_key'
    UNION ALL SELECT 10, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN findings t
        ON t.workspace = k.workspace AND t.endpoint = k.name::uuid WHERE k.kind = 'findings'
    UNION ALL SELECT 11, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN noted t
        ON t.workspace = k.workspace AND t.keyring = k.name::uuid WHERE k.kind = 'noted'
    UNION ALL SELECT 12, k.kind, k.workspace, k.name, NULL, NULL, t.seq FROM k JOIN reported t
        ON t.workspace = k.workspace WHERE k.kind = 'reported'
    UNION ALL SELECT 13, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN schedule t
        ON t.workspace = k.workspace AND t.id = k.name::uuid WHERE k.kind = 'schedule'
    UNION ALL SELECT 14, k.kind, k.workspace, k.name, t.document, NULL, 0 FROM k JOIN schedule_note t
        ON t.workspace = k.workspace AND t.schedule = split_part(k.name, ':', 1)::uuid
        AND t.keyring = split_part(k.name, ':', 2)::uuid WHERE k.kind = 'schedule_note'
    UNION ALL SELECT 15, k.kind, k.workspace, k.name, NULL, t.value, 0 FROM k JOIN meta t
        ON t.key = 'master_key_check' WHERE k.kind = 'master_key'
    ORDER BY 1";

/// A row of the look.
struct Found {
    rank: i32,
    kind: String,
    workspace: WorkspaceId,
    name: String,
    document: Option<String>,
    sealed: Option<Vec<u8>>,
    number: i64,
}

impl Found {
    fn read(row: &Row) -> Outcome<Self> {
        Ok(Self {
            rank: column(row, 0)?,
            kind: column(row, 1)?,
            workspace: super::rows::id(row, 2)?,
            name: column(row, 3)?,
            document: column(row, 4)?,
            sealed: column(row, 5)?,
            number: column(row, 6)?,
        })
    }

    fn key(&self) -> Outcome<Key> {
        let known = kind::ALL.into_iter().find(|kind| **kind == *self.kind);
        let unknown = || impossible("view_change", "kinds", &self.number, "no such kind");
        Ok(Key {
            kind: known.ok_or_else(unknown)?,
            workspace: self.workspace,
            name: self.name.clone(),
        })
    }

    fn document<T: serde::de::DeserializeOwned>(&self, table: &'static str) -> Outcome<T> {
        from_document(
            table,
            &self.name,
            self.document.as_deref().unwrap_or_default(),
        )
    }

    fn sealed(&self) -> Arc<[u8]> {
        Arc::from(self.sealed.as_deref().unwrap_or_default())
    }
}

impl News {
    /// A thing as it is now.
    fn take(&mut self, key: &Key, found: &Found) -> Outcome<()> {
        let write = match key.kind {
            kind::WORKSPACE => Write::Workspace(found.document("workspace")?),
            kind::API_KEY => Write::ApiKey(found.document("api_key")?),
            kind::APP => Write::App(found.document("app")?),
            kind::ENDPOINT => Write::Endpoint(found.document("endpoint")?),
            kind::KEYRING => {
                let keyring: Keyring = found.document("keyring")?;
                let checked = keyring.check();
                checked.map_err(|error| impossible("keyring", "document", &key.name, error))?;
                Write::Keyring(keyring)
            }
            kind::SECRET => Write::Secret(SealedSecret {
                workspace: key.workspace,
                keyring: key.id(0)?,
                secret: key.id(1)?,
                version: u32::try_from(found.number)
                    .map_err(|error| impossible("secret", "version", &key.name, error))?,
                sealed: found.sealed(),
            }),
            kind::BULK => Write::Bulk(found.document("bulk")?),
            kind::MARK_KEY => Write::MarkKey {
                sealed: found.sealed(),
                old: None,
            },
            kind::MASTER_KEY => {
                self.master_key = Some(found.sealed());
                return Ok(());
            }
            kind::FINDINGS => {
                self.findings
                    .push((key.id(0)?, found.document("findings")?));
                return Ok(());
            }
            kind::NOTED => Write::Noted {
                workspace: key.workspace,
                keyring: key.id(0)?,
                noted: found.document("noted")?,
            },
            kind::REPORTED => Write::Reported {
                workspace: key.workspace,
                after: 0,
                through: found.number.cast_unsigned(),
                messages: Vec::new(),
            },
            kind::SCHEDULE => Write::Schedule(found.document("schedule")?),
            kind::SCHEDULE_NOTE => Write::ScheduleNote {
                workspace: key.workspace,
                schedule: key.id(0)?,
                keyring: key.id(1)?,
                note: found.document("schedule_note")?,
            },
            other => return Err(impossible("view_change", "kinds", &other, "no such kind")),
        };
        self.writes.push(write);
        Ok(())
    }

    /// A thing that is not there any more.
    fn take_gone(&mut self, key: &Key) -> Outcome<()> {
        let workspace = key.workspace;
        let write = match key.kind {
            kind::APP => Write::RemoveApp {
                workspace,
                app: key
                    .name
                    .parse()
                    .map_err(|error| impossible("view_change", "names", &key.name, error))?,
                version: 0,
            },
            kind::SECRET => Write::EraseSecret {
                workspace,
                keyring: key.id(0)?,
                secret: key.id(1)?,
                answers: false,
            },
            kind::SCHEDULE => Write::RemoveSchedule {
                workspace,
                schedule: key.id(0)?,
                version: 0,
            },
            kind::ENDPOINT => {
                self.forgotten.push(key.id(0)?);
                return Ok(());
            }
            // What is gone with something else, or was pruned since.
            _ => return Ok(()),
        };
        self.writes.push(write);
        Ok(())
    }
}
