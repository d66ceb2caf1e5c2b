//! What nodes and their database say to each other.

use std::sync::{Arc, Mutex};

use hookturn::store::sharing::view::Told;
use hookturn_core::audit::{AuditEntry, Context};
use hookturn_core::id::{ApiKeyId, EndpointId, WorkspaceId};
use hookturn_core::store::{
    Accept, Change, Due, Finish, Hint, KeptFigures, Progress, ReceiverState, SealedSecret, Write,
};
use hookturn_core::time::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

/// A connection, as the database sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Session(pub(super) u64);

/// What a node says of itself at the beginning of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    pub(crate) number: i64,
    pub(crate) view: i64,
    pub(crate) able: bool,
}

/// What the beginning of a transaction showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) head: i64,
    pub(crate) clock: Timestamp,
}

/// What is new since a node last followed.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) version: i64,
    pub(crate) versions: i64,
    pub(crate) told: Vec<Told>,
    pub(crate) writes: Vec<Write>,
    pub(crate) reseals: Vec<(SealedSecret, Arc<[u8]>)>,
}

/// What can be written.
#[derive(Clone)]
pub(crate) enum Work {
    Change(Box<Change>),
    /// Refused by the node itself: it was decided from a view that is too old.
    Refused(String),
    /// Refused because another node has the head of the view and does not answer.
    Busy,
    Audit(WorkspaceId, Context, Vec<AuditEntry>, Timestamp),
    Accept(Accept),
    Finish(Vec<Finish>, Vec<(WorkspaceId, EndpointId, ReceiverState)>),
    Reseal(Vec<(SealedSecret, Arc<[u8]>)>),
    Touch(Vec<(ApiKeyId, Timestamp)>),
    Figures(Vec<KeptFigures>, Timestamp),
    Prune(Timestamp, Timestamp, usize),
}

/// What it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Done,
    Replaced(usize),
    Pruned(Progress<()>),
}

/// What a committed transaction did, for the memory of its node.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) writes: Vec<Write>,
    pub(crate) reseals: Vec<(SealedSecret, Arc<[u8]>)>,
    pub(crate) receivers: Vec<(EndpointId, ReceiverState)>,
    pub(crate) accepted: Vec<Due>,
    pub(crate) hints: Vec<Hint>,
    pub(crate) audited: Vec<WorkspaceId>,
    pub(crate) view: Option<i64>,
}

/// An endpoint with something to look at: whether rows were queued by hand, and where.
pub(crate) type Named = (bool, WorkspaceId, EndpointId);

/// What nodes say to each other.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    View,
    Shards,
    Due(Vec<Named>),
    /// Rows with what they carry, and who accepted them.
    Told(Uuid, Vec<Due>),
}

/// Where a node that listens finds what was said.
#[derive(Default)]
pub(crate) struct Mailbox {
    pub(crate) notices: Mutex<Vec<Notice>>,
    pub(crate) arrived: Notify,
}
