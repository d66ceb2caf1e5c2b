//! What a change of the configuration writes, whole or not at all.

use std::sync::Arc;

use bytes::Bytes;
use hookturn_verify::Fingerprint;

use super::NewMessage;
use crate::audit::{AuditEntry, Context};
use crate::bulk::{Bulk, BulkItem};
use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::id::{ApiKeyId, ClientId, EndpointId, KeyringId, ScheduleId, SecretId, WorkspaceId};
use crate::proof::{Findings, Noted};
use crate::rotation::{Keyring, Rotation};
use crate::schedule::{Schedule, ScheduleNote};
use crate::time::Timestamp;
use crate::workspace::{ApiKey, App, Workspace};

/// One write of a [`Change`]. A value's `version` is the one it will have; the stored version must
/// be exactly one less (version 1 must not exist yet), or the whole change is a conflict.
#[derive(Debug, Clone)]
pub enum Write {
    /// Inserts or replaces a workspace. Its name is unique.
    Workspace(Workspace),
    /// Inserts or replaces an API key. Its hash is unique.
    ApiKey(ApiKey),
    /// Inserts or replaces an app.
    App(App),
    /// Removes an app. Its endpoints must be written as deleted in the same change.
    RemoveApp {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The app.
        app: ClientId,
        /// The version that is removed.
        version: u64,
    },
    /// Inserts or replaces an endpoint.
    Endpoint(Endpoint),
    /// Inserts or replaces a keyring.
    Keyring(Keyring),
    /// Inserts or replaces a rotation. Its version is the version of its keyring at the time, so
    /// it is not compared on its own.
    Rotation(Rotation),
    /// Keeps the sealed value of a secret. It is unmarked until [`Write::Mark`].
    Secret(SealedSecret),
    /// Keeps the mark by which a secret is found again, also when its value is erased. Of a secret
    /// that was erased before it was marked nothing is kept.
    Mark(MarkedSecret),
    /// Keeps the sealed key of the marks if the present one is still `old`; else it is a conflict.
    MarkKey {
        /// The new one.
        sealed: Arc<[u8]>,
        /// The one it replaces; none for the first.
        old: Option<Arc<[u8]>>,
    },
    /// Inserts or replaces a bulk rotation.
    Bulk(Bulk),
    /// Inserts or replaces an item of one.
    BulkItem(BulkItem),
    /// Replaces what probes and deliveries have shown of an endpoint's receiver. It has no version: the
    /// last one counts. Of a deleted endpoint nothing is kept.
    Findings {
        /// The endpoint's workspace.
        workspace: WorkspaceId,
        /// The endpoint.
        endpoint: EndpointId,
        /// What was found.
        findings: Findings,
    },
    /// Replaces what the owner of a keyring was told about its open rotation. It has no version: the last
    /// one counts, and one sweep writes it.
    Noted {
        /// The keyring's workspace.
        workspace: WorkspaceId,
        /// The keyring.
        keyring: KeyringId,
        /// What was said.
        noted: Noted,
    },
    /// Moves the place up to which a workspace's audit log was reported, and accepts the messages that
    /// report what stands in between: as [`Store::accept`](super::Store::accept) does, and both or neither. A conflict when the
    /// place is not `after` (0 at first), so that nothing is reported twice.
    Reported {
        /// The workspace whose log it is.
        workspace: WorkspaceId,
        /// The number of the last entry that was reported before.
        after: u64,
        /// That of the last one that is reported now.
        through: u64,
        /// The messages, of whichever workspaces.
        messages: Vec<NewMessage>,
    },
    /// Inserts or replaces a schedule.
    Schedule(Schedule),
    /// Removes a schedule, and with it what it did for its keyrings.
    RemoveSchedule {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The schedule.
        schedule: ScheduleId,
        /// The version that is removed.
        version: u64,
    },
    /// Replaces what a schedule did for a keyring. It has no version: what must not happen twice is in the
    /// same change as the keyring, which has one. Of a removed schedule nothing is kept.
    ScheduleNote {
        /// The workspace of both.
        workspace: WorkspaceId,
        /// The schedule.
        schedule: ScheduleId,
        /// The keyring.
        keyring: KeyringId,
        /// What it did.
        note: ScheduleNote,
    },
    /// Erases the sealed value of a destroyed secret. Its mark stays.
    EraseSecret {
        /// Its workspace.
        workspace: WorkspaceId,
        /// Its keyring.
        keyring: KeyringId,
        /// The secret.
        secret: SecretId,
        /// Whether every idempotent answer that shows it is erased too. Their keys stay used until they
        /// expire.
        answers: bool,
    },
    /// Queues a delivery again, due at `at`, whatever its state; its retry policy starts anew. It must
    /// still be as it is given here, and its message must still be there, or the whole change is a
    /// conflict.
    Requeue {
        /// As it was read.
        delivery: Delivery,
        /// From when on it is due.
        at: Timestamp,
    },
}

/// The sealed value of a secret: an AEAD box bound to workspace, keyring, id and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its keyring.
    pub keyring: KeyringId,
    /// The secret.
    pub secret: SecretId,
    /// Its version within the keyring, from 1.
    pub version: u32,
    /// Header (with the id of the master key), nonce, ciphertext and tag.
    pub sealed: Arc<[u8]>,
}

/// By which a secret is found without being known: HMAC-SHA-256 of the SHA-256 of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretMark(pub [u8; 32]);

/// A secret and its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkedSecret {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its keyring.
    pub keyring: KeyringId,
    /// The secret.
    pub secret: SecretId,
    /// Its mark.
    pub mark: SecretMark,
}

/// Several writes that happen together, with who asked for them and the answer they got.
#[derive(Debug, Clone)]
pub struct Change {
    /// The workspace whose audit chain records it.
    pub workspace: WorkspaceId,
    /// What to write, in order.
    pub writes: Vec<Write>,
    /// What to record in the audit log, in order.
    pub audit: Vec<AuditEntry>,
    /// Who did it, and in which request.
    pub context: Context,
    /// When.
    pub at: Timestamp,
    /// The answer to replay for the same idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
}

impl Change {
    /// Whether it moves items of a bulk rotation, for which nobody waits. An engine may let it wait a few
    /// milliseconds for something that somebody waits for.
    pub fn moves_items(&self) -> bool {
        let item = |write: &Write| matches!(write, Write::BulkItem(_));
        self.idempotency.is_none() && self.writes.iter().any(item)
    }
}

/// The stored answer of a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Which key, within what it is bound to.
    pub key: IdempotencyKey,
    /// SHA-256 of what the same key must repeat: the body.
    pub fingerprint: [u8; 32],
    /// The sealed answer: it may hold a secret. `None` once it was erased with the secret it shows.
    pub sealed_response: Option<Bytes>,
    /// What it shows that is shown once, if it does.
    pub shows: Option<Shows>,
    /// From when on the key is free again.
    pub expires_at: Timestamp,
}

/// A value that an idempotent answer shows, and whom it was shown to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shows {
    /// Whose value.
    pub what: Shown,
    /// The API key whose request made it.
    pub to: ApiKeyId,
}

/// Something whose value is shown in the answer that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// A secret.
    Secret {
        /// Its id.
        id: SecretId,
        /// Its fingerprint, which the audit log names also when its keyring has forgotten it.
        fingerprint: Fingerprint,
    },
    /// The text of an API key.
    ApiKey(ApiKeyId),
}

/// SHA-256 over workspace, method, path and the caller's key: what an answer is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 32]);
