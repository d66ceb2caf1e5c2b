//! What is asked of the store, and what it answers.

use std::sync::Arc;

use super::{ReceiverState, SealedSecret};
use crate::bulk::{Bulk, ItemKind};
use crate::delivery::{Attempt, CodeClass, Delivery, DeliveryStatus};
use crate::endpoint::Endpoint;
use crate::id::{
    ApiKeyId, BulkId, ClientId, DeliveryId, EndpointId, KeyringId, MessageId, ScheduleId,
    WorkspaceId,
};
use crate::message::EventType;
use crate::proof::{Findings, Noted};
use crate::rotation::Keyring;
use crate::schedule::{Schedule, ScheduleNote};
use crate::time::Timestamp;
use crate::workspace::{ApiKey, App, Workspace};

/// What was counted of a workspace lately, so that it outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFigures {
    /// Whose.
    pub workspace: WorkspaceId,
    /// When something was last counted.
    pub at: Timestamp,
    /// The counts; what the bytes mean is known to whoever counts.
    pub counted: Vec<u8>,
}

/// Which items of a bulk rotation to read.
#[derive(Debug, Clone, Copy)]
pub struct BulkItemQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which bulk rotation.
    pub bulk: BulkId,
    /// From this position on.
    pub from: u32,
    /// Up to but not including this one.
    pub until: u32,
    /// Only of this kind.
    pub kind: Option<ItemKind>,
    /// At most this many.
    pub limit: usize,
}

/// Everything that is configured, as loaded at the start.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// All workspaces.
    pub workspaces: Vec<Workspace>,
    /// All keys, revoked and expired ones too.
    pub api_keys: Vec<ApiKey>,
    /// All apps.
    pub apps: Vec<App>,
    /// All endpoints; deleted ones only while something refers to them.
    pub endpoints: Vec<Endpoint>,
    /// All keyrings.
    pub keyrings: Vec<Keyring>,
    /// All sealed secrets.
    pub secrets: Vec<SealedSecret>,
    /// What is remembered of receivers.
    pub receivers: Vec<(WorkspaceId, EndpointId, ReceiverState)>,
    /// What probes and deliveries have shown of receivers.
    pub findings: Vec<(EndpointId, Findings)>,
    /// What owners were told about the latest rotations of their keyrings.
    pub noted: Vec<(KeyringId, Noted)>,
    /// Up to which entry the audit logs were reported, where any was, and whether entries follow it.
    pub reported: Vec<ReportedLog>,
    /// All schedules.
    pub schedules: Vec<Schedule>,
    /// What they did for keyrings.
    pub schedule_notes: Vec<(ScheduleId, KeyringId, ScheduleNote)>,
    /// Last use of keys, where known.
    pub api_key_uses: Vec<(ApiKeyId, Timestamp)>,
    /// Bulk rotations that are not over, without their items.
    pub bulks: Vec<Bulk>,
    /// The sealed key of the marks, once there is one.
    pub mark_key: Option<Arc<[u8]>>,
}

/// How far the audit log of a workspace was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedLog {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The number of the last entry that was reported; 0 for none.
    pub through: u64,
    /// Whether later entries are there.
    pub more: bool,
}

/// A page request over ids that sort by time, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page<Id> {
    /// Only ids strictly before this one.
    pub before: Option<Id>,
    /// At most this many.
    pub limit: usize,
}

/// Which deliveries to list.
#[derive(Debug, Clone)]
pub struct DeliveryQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app.
    pub app: ClientId,
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
    /// Only for this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only of this event type.
    pub event_type: Option<EventType>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only created at or after this time.
    pub since: Option<Timestamp>,
    /// Only created before this time.
    pub until: Option<Timestamp>,
    /// Which page.
    pub page: Page<DeliveryId>,
}

/// Which deliveries to look for, in one app or in all of a workspace, with how much effort.
///
/// A search looks at deliveries one after the other in the order of their ids and stops at its limit or
/// when its effort is spent, whichever filters it has: so its time does not grow with what is stored.
#[derive(Debug, Clone)]
pub struct DeliverySearch {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app; of all of them without.
    pub app: Option<ClientId>,
    /// Only in this state.
    pub status: Option<DeliveryStatus>,
    /// Only those whose last attempt ended so.
    pub class: Option<CodeClass>,
    /// Only for this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only of this event type.
    pub event_type: Option<EventType>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only this one.
    pub delivery: Option<DeliveryId>,
    /// Only created at or after this time.
    pub since: Option<Timestamp>,
    /// Only created before this time.
    pub until: Option<Timestamp>,
    /// Only with these bytes somewhere in the message's payload.
    pub text: Option<String>,
    /// Where to begin, and which way to go.
    pub from: SearchFrom,
    /// Stop when so many are found.
    pub limit: usize,
    /// Stop when about so many rows were looked at; what a row costs beyond itself (an attempt, a
    /// payload) is counted as several.
    pub effort: u32,
    /// Whether the last attempt of each is wanted.
    pub with_attempts: bool,
}

/// Where a search begins, and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchFrom {
    /// At the newest, to the older ones.
    Newest,
    /// Strictly before this one, to the older ones.
    OlderThan(DeliveryId),
    /// Strictly after this one, to the newer ones.
    NewerThan(DeliveryId),
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct DeliveriesFound {
    /// Newest first, whichever way it went.
    pub items: Vec<FoundDelivery>,
    /// The last delivery that was looked at, found or not, if there may be more beyond it.
    pub resume: Option<DeliveryId>,
}

/// A delivery and how it last went.
#[derive(Debug, Clone)]
pub struct FoundDelivery {
    /// It.
    pub delivery: Delivery,
    /// Its last attempt, if there was one and it was wanted.
    pub last_attempt: Option<Attempt>,
}

/// Which settled deliveries to queue again.
#[derive(Debug, Clone, Copy)]
pub struct RecoverQuery {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Of which app.
    pub app: ClientId,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// Created at or after this time.
    pub since: Timestamp,
    /// Created before this time.
    pub until: Timestamp,
    /// Which of them: exhausted or delivered; `Pending` selects nothing.
    pub status: DeliveryStatus,
}

/// How far a block-wise step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<Id> {
    /// Rows changed (or counted, in a dry run) by this block.
    pub rows: usize,
    /// Where to go on, or `None` when nothing is left.
    pub resume: Option<Id>,
}

/// What the store knows about itself, for pages, metrics and the doctor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Due rows.
    pub due: u64,
    /// Due time of the earliest, if there is one.
    pub oldest_due_at: Option<Timestamp>,
    /// Bytes on disk.
    pub bytes: u64,
}
