//! The audit log: entries as values, and the hash chain that makes the log append-only (G9).
//!
//! Whoever changes something returns [`AuditEntry`] values; the store numbers them, adds who and
//! when, chains each to the one before ([`chain`]) and writes them in the transaction of the
//! change. [`verify_chain`] proves that nothing was altered, removed in the middle or put in
//! between; that nothing was cut off at the end only shows against a [`Head`] kept elsewhere.
//!
//! No entry ever holds a secret's value: a secret is its id and its fingerprint. What a change of
//! settings did is in [`Changes`], which knows what may be written down.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use hookturn_verify::Fingerprint;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::id::{
    ApiKeyId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, RotationId, SecretId,
    WorkspaceId,
};
use crate::time::Timestamp;

mod changes;

pub use changes::Changes;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What was done. The text is stable: it is stored, hashed, filtered by and exported.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum AuditAction {
            $($(#[$doc])* $name,)*
            /// An action of another version of Hookturn, kept as it is written.
            Other(String),
        }

        impl AuditAction {
            /// Every action this version writes.
            pub const KNOWN: &'static [Self] = &[$(Self::$name),*];

            /// The stable text.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for AuditAction {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

actions! {
    /// A secret was made or imported.
    SecretCreated = "secret.created",
    /// A secret became the active one.
    SecretActivated = "secret.activated",
    /// A secret stopped being the active one and signs beside it until a fixed moment.
    SecretRetiring = "secret.retiring",
    /// A secret stopped signing.
    SecretRetired = "secret.retired",
    /// A secret's value was erased.
    SecretDestroyed = "secret.destroyed",
    /// A pending secret made room for another.
    SecretReplaced = "secret.replaced",
    /// A secret was marked as leaked.
    SecretCompromised = "secret.compromised",
    /// A secret's value was shown.
    SecretRevealed = "secret.revealed",
    /// A secret got another name.
    SecretRenamed = "secret.renamed",
    /// A rotation was opened.
    RotationOpened = "rotation.opened",
    /// A staged rotation's new secret was activated.
    RotationPromoted = "rotation.promoted",
    /// A rotation's overlap was made longer.
    RotationExtended = "rotation.extended",
    /// A rotation's overlap was ended by command.
    RotationFinished = "rotation.finished",
    /// A rotation's old secret is retired.
    RotationCompleted = "rotation.completed",
    /// A rotation's new secret was dropped before it was active.
    RotationCancelled = "rotation.cancelled",
    /// A rotation's old secret was made active again.
    RotationUndone = "rotation.undone",
    /// Receivers were asked, by command, whether they still accept a rotation's old secret.
    RotationReleaseAsked = "rotation.release_asked",
    /// A bulk rotation was started.
    BulkStarted = "bulk.started",
    /// A bulk rotation was paused by command.
    BulkPaused = "bulk.paused",
    /// A bulk rotation stopped because too many of its rotations failed.
    BulkStopped = "bulk.stopped",
    /// A bulk rotation that was paused or stopped went on by command.
    BulkResumed = "bulk.resumed",
    /// A bulk rotation was cancelled: it opens nothing more.
    BulkCancelled = "bulk.cancelled",
    /// A bulk rotation has opened all it was to open, and waits for none.
    BulkCompleted = "bulk.completed",
    /// Someone searched for leaked strings among the secrets. Never the strings.
    LeakSearched = "leak.searched",
    /// A search for leaked strings found this secret.
    LeakFound = "leak.found",
    /// Every endpoint that counts was proved to hold a rotation's new secret.
    RotationProved = "rotation.proved",
    /// A rotation makes no progress towards its proof.
    RotationStalled = "rotation.stalled",
    /// The deadline of a rotation is near, and it is not over.
    RotationDeadlineNear = "rotation.deadline_near",
    /// A schedule was made.
    ScheduleCreated = "schedule.created",
    /// A schedule was changed.
    ScheduleUpdated = "schedule.updated",
    /// A schedule was deleted.
    ScheduleDeleted = "schedule.deleted",
    /// A rotation that a schedule was to open could not be opened yet.
    ScheduleSkipped = "schedule.skipped",
    /// A keyring was made.
    KeyringCreated = "keyring.created",
    /// A workspace was made.
    WorkspaceCreated = "workspace.created",
    /// A workspace's settings were changed.
    WorkspaceUpdated = "workspace.updated",
    /// An app was made.
    AppCreated = "app.created",
    /// An app's settings were changed.
    AppUpdated = "app.updated",
    /// An app was deleted.
    AppDeleted = "app.deleted",
    /// An endpoint was made.
    EndpointCreated = "endpoint.created",
    /// An endpoint's settings were changed.
    EndpointUpdated = "endpoint.updated",
    /// An endpoint was enabled.
    EndpointEnabled = "endpoint.enabled",
    /// An endpoint was disabled, by command, by 410 or after failing for too long.
    EndpointDisabled = "endpoint.disabled",
    /// An endpoint's receiver was rehearsed.
    EndpointRehearsed = "endpoint.rehearsed",
    /// An endpoint's receiver accepted a request that was signed with a random key.
    EndpointDoesNotVerify = "endpoint.does_not_verify",
    /// An endpoint was deleted.
    EndpointDeleted = "endpoint.deleted",
    /// A delivery was queued again by command.
    DeliveryRetried = "delivery.retried",
    /// Many deliveries of an endpoint were queued again by command.
    DeliveriesRecovered = "deliveries.recovered",
    /// An event of the outbox that was refused was published again by command.
    RefusedEventRetried = "outbox.retried",
    /// An event of the outbox that was refused was removed by command.
    RefusedEventDropped = "outbox.dropped",
    /// An API key was made.
    ApiKeyCreated = "api_key.created",
    /// An API key's text was shown again, by the replay of the request that made it.
    ApiKeyRevealed = "api_key.revealed",
    /// An API key was given another end.
    ApiKeyExpiryChanged = "api_key.expiry_changed",
    /// An API key was revoked.
    ApiKeyRevoked = "api_key.revoked",
    /// Sealed secrets were sealed again with another master key.
    MasterKeyRotated = "master_key.rotated",
    /// Someone asked for what they may not do, see or reach.
    AccessDenied = "access.denied",
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditAction {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl Serialize for AuditAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AuditAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(text.as_ref().into())
    }
}

/// What it was done to: whichever of these apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// An app.
    #[serde(rename = "clientId", skip_serializing_if = "Option::is_none")]
    pub app: Option<ClientId>,
    /// An endpoint.
    #[serde(rename = "endpointId", skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// A keyring.
    #[serde(rename = "keyringId", skip_serializing_if = "Option::is_none")]
    pub keyring: Option<KeyringId>,
    /// A secret.
    #[serde(rename = "secretId", skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretId>,
    /// A rotation.
    #[serde(rename = "rotationId", skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// An API key.
    #[serde(rename = "apiKeyId", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyId>,
    /// A message.
    #[serde(rename = "messageId", skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    /// A delivery.
    #[serde(rename = "deliveryId", skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
}

impl Subject {
    /// The ids that apply, each with the name of its kind as the API spells it.
    pub fn ids(&self) -> impl Iterator<Item = (&'static str, String)> {
        let ids = [
            ("clientId", self.app.map(|id| id.to_string())),
            ("endpointId", self.endpoint.map(|id| id.to_string())),
            ("keyringId", self.keyring.map(|id| id.to_string())),
            ("secretId", self.secret.map(|id| id.to_string())),
            ("rotationId", self.rotation.map(|id| id.to_string())),
            ("apiKeyId", self.api_key.map(|id| id.to_string())),
            ("messageId", self.message.map(|id| id.to_string())),
            ("deliveryId", self.delivery.map(|id| id.to_string())),
        ];
        ids.into_iter().filter_map(|(name, id)| Some((name, id?)))
    }
}

/// One thing that was done, before it is known who did it and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// What was done.
    pub action: AuditAction,
    /// What it was done to.
    #[serde(flatten)]
    pub subject: Subject,
    /// The fingerprint of the secret it was done to.
    #[serde(
        with = "crate::fingerprint::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub fingerprint: Option<Fingerprint>,
    /// More, by name. Never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

impl AuditEntry {
    /// An entry without fingerprint and detail.
    pub const fn new(action: AuditAction, subject: Subject) -> Self {
        Self {
            action,
            subject,
            fingerprint: None,
            detail: BTreeMap::new(),
        }
    }

    /// The same with one more detail.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.detail.insert(name.to_owned(), value.to_string());
        self
    }
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The holder of an API key, by API, dashboard or command line.
    ApiKey(ApiKeyId),
    /// Someone with access to the data directory, by a command that needs no key.
    Local,
    /// The first start with an empty store.
    Bootstrap,
    /// Hookturn itself: time ran out, a receiver answered 410.
    System,
    /// Someone without an API key that is known here.
    Unknown,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(id) => id.fmt(f),
            Self::Local => f.write_str("local"),
            Self::Bootstrap => f.write_str("bootstrap"),
            Self::System => f.write_str("system"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The text names no actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an actor: expected an API key id, local, bootstrap, system or unknown")]
pub struct ParseActorError;

impl FromStr for Actor {
    type Err = ParseActorError;

    fn from_str(text: &str) -> Result<Self, ParseActorError> {
        match text {
            "local" => Ok(Self::Local),
            "bootstrap" => Ok(Self::Bootstrap),
            "system" => Ok(Self::System),
            "unknown" => Ok(Self::Unknown),
            id => id.parse().map(Self::ApiKey).map_err(|_| ParseActorError),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Who asked for a change, in which request, and why: given once, written into every entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// Who.
    pub actor: Actor,
    /// The request's id, when it came by a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why, in their own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An entry in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Its place in the chain: 1, 2, 3, … without a gap.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// Who, in which request, and why.
    #[serde(flatten)]
    pub context: Context,
    /// What.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// The hash of the entry before; zeros for the first.
    #[serde(with = "hex::serde")]
    pub previous_hash: [u8; 32],
    /// The hash of this entry, everything above included.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
}

/// The end of a chain: what the next entry is chained to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The number of the last entry; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
}

impl Head {
    /// The end of an empty chain.
    pub const START: Self = Self {
        seq: 0,
        hash: [0; 32],
    };
}

/// Makes `entry` the one after `head`.
pub fn chain(
    head: Head,
    at: Timestamp,
    workspace: WorkspaceId,
    context: Context,
    entry: AuditEntry,
) -> Recorded {
    let mut recorded = Recorded {
        seq: head.seq + 1,
        at,
        workspace,
        context,
        entry,
        previous_hash: head.hash,
        hash: [0; 32],
    };
    recorded.hash = recorded.compute_hash();
    recorded
}

impl Recorded {
    /// The end of the chain after this entry.
    pub const fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash,
        }
    }

    /// SHA-256 over every field but `hash`, in the order of the struct.
    ///
    /// Layout, version 1: the text `hookturn audit 1`, then for each field its length in bytes as
    /// a big-endian u64 and its bytes. Numbers are 8 big-endian bytes, ids their 16 bytes (an app
    /// its text), times their milliseconds, texts UTF-8. A field that may be absent is preceded by
    /// a one-byte field 0 or 1. The details are preceded by their count and sorted by name.
    pub fn compute_hash(&self) -> [u8; 32] {
        let mut hash = Canonical(Sha256::new());
        hash.field(b"hookturn audit 1");
        hash.field(&self.seq.to_be_bytes());
        hash.field(&self.at.as_millis().to_be_bytes());
        hash.field(&self.workspace.to_bytes());
        let Context {
            actor,
            request_id,
            reason,
        } = &self.context;
        hash.field(actor.to_string().as_bytes());
        hash.optional(request_id.as_ref().map(String::as_bytes));
        hash.optional(reason.as_ref().map(String::as_bytes));
        let AuditEntry {
            action,
            subject,
            fingerprint,
            detail,
        } = &self.entry;
        hash.field(action.as_str().as_bytes());
        // Destructured, so that a new field cannot be left out of the hash unnoticed.
        let Subject {
            app,
            endpoint,
            keyring,
            secret,
            rotation,
            api_key,
            message,
            delivery,
        } = subject;
        hash.optional(app.as_ref().map(|app| app.as_str().as_bytes()));
        hash.optional(endpoint.map(EndpointId::to_bytes));
        hash.optional(keyring.map(KeyringId::to_bytes));
        hash.optional(secret.map(SecretId::to_bytes));
        hash.optional(rotation.map(RotationId::to_bytes));
        hash.optional(api_key.map(ApiKeyId::to_bytes));
        hash.optional(message.map(MessageId::to_bytes));
        hash.optional(delivery.map(DeliveryId::to_bytes));
        hash.optional(fingerprint.map(|fingerprint| fingerprint.to_string()));
        hash.field(&(detail.len() as u64).to_be_bytes());
        for (name, value) in detail {
            hash.field(name.as_bytes());
            hash.field(value.as_bytes());
        }
        hash.field(&self.previous_hash);
        hash.0.finalize().into()
    }
}

struct Canonical(Sha256);

impl Canonical {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<impl AsRef<[u8]>>) {
        match bytes {
            None => self.field(&[0]),
            Some(bytes) => {
                self.field(&[1]);
                self.field(bytes.as_ref());
            }
        }
    }
}

/// The first entry at which the log is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("audit entry {seq}: {why}")]
pub struct Broken {
    /// The number the entry should have.
    pub seq: u64,
    /// What is wrong with it.
    pub why: Damage,
}

/// What is wrong with an audit entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The number is not the next one.
    #[error("it is missing, entry {found} stands in its place")]
    Gap {
        /// The number found instead.
        found: u64,
    },
    /// It does not follow from the entry before.
    #[error("it is not chained to the entry before it")]
    Unchained,
    /// It is there and cannot be read.
    #[error("it cannot be read: it was damaged or changed after it was written")]
    Unreadable,
    /// A field was changed after it was written.
    #[error("its content does not have its hash: it was changed after it was written")]
    Altered,
}

/// Proves that `entries` continue the chain from `head` without a change, and returns its end.
///
/// `head` is [`Head::START`] for a whole log, or the last entry of a part that was proved before.
pub fn verify_chain<'a>(
    head: Head,
    entries: impl IntoIterator<Item = &'a Recorded>,
) -> Result<Head, Broken> {
    entries.into_iter().try_fold(head, |head, recorded| {
        let seq = head.seq + 1;
        let broken = |why| Err(Broken { seq, why });
        if recorded.seq != seq {
            return broken(Damage::Gap {
                found: recorded.seq,
            });
        }
        if recorded.previous_hash != head.hash {
            return broken(Damage::Unchained);
        }
        if recorded.compute_hash() != recorded.hash {
            return broken(Damage::Altered);
        }
        Ok(recorded.head())
    })
}
