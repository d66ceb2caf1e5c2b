//! Bulk rotations: many keyrings moved to new secrets by one command, in waves.
//!
//! The cast. A [`Selector`] says which keyrings; [`arrange`] puts them into an order and cuts it into
//! waves. A [`Bulk`] is the resource; it has one [`BulkItem`] for each keyring, in that order. [`next`]
//! decides what a sweep does, from the bulk and the [`ItemCounts`] of its wave.
//!
//! The guarantee: no keyring is rotated twice by one bulk. An item leaves [`ItemState::Waiting`] in the
//! transaction that opens its rotation (or writes down why it could not), and only once, because its
//! version is compared. So a sweep may stop at any point and go on anywhere.
//!
//! Who may change what: [`Bulk::command`] the state of a bulk, [`Bulk::took`] what a sweep decided,
//! [`BulkItem::moved`] an item. Nothing here stores or waits.
//!
//! Not promised: that a rotation which was opened ends well. What it became is its own affair, and is
//! shown beside its item. Cancelling a bulk leaves the rotations that it opened as they are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::audit::Context;
use crate::id::{BulkId, KeyringId, RotationId, WorkspaceId};
use crate::limits;
use crate::proof::ProofPolicy;
use crate::rotation::{Mode, Rotation, Stage};
use crate::time::{DAY, Millis, Timestamp};

mod selector;

pub use selector::{Candidate, EmptySelector, Selector};

/// How the rotations of a bulk move: a mode whose overlap may be left to each keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "mode",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Manner {
    /// See [`Mode::Immediate`].
    Immediate,
    /// See [`Mode::Overlap`].
    Overlap {
        /// In milliseconds; each keyring's default without.
        overlap: Option<Millis>,
    },
    /// See [`Mode::Staged`].
    Staged {
        /// In milliseconds; each keyring's default without.
        overlap: Option<Millis>,
    },
    /// See [`Mode::Proven`].
    Proven {
        /// How much proof is enough.
        policy: ProofPolicy,
    },
}

impl Manner {
    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Overlap { .. } => "overlap",
            Self::Staged { .. } => "staged",
            Self::Proven { .. } => "proven",
        }
    }

    /// The mode for a keyring whose default overlap is `default`.
    pub const fn mode(self, default: Millis) -> Mode {
        match self {
            Self::Immediate => Mode::Immediate,
            Self::Overlap { overlap } => Mode::Overlap {
                overlap: or(overlap, default),
            },
            Self::Staged { overlap } => Mode::Staged {
                overlap: or(overlap, default),
            },
            Self::Proven { policy } => Mode::Proven { policy },
        }
    }
}

const fn or(given: Option<Millis>, default: Millis) -> Millis {
    match given {
        Some(given) => given,
        None => default,
    }
}

/// How fast a bulk goes, and when it stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pacing {
    /// Where each wave ends, in percent of all keyrings, growing; the last is 100.
    pub waves: Vec<u8>,
    /// How long to wait after a wave before the next one begins, in milliseconds.
    pub pause_millis: Millis,
    /// Rotations that may be under way at once; in modes that wait for no proof, rotations that are
    /// opened in one step.
    pub concurrency: u32,
    /// The bulk stops when more than this share of the present wave failed, in percent; 0 stops at the
    /// first failure, 100 never.
    pub stop_at_failed_percent: u8,
    /// Mode `proven`: how long a rotation that is not proved holds its place among those under way, in
    /// milliseconds. After that it goes on by itself and the bulk no longer waits for it.
    pub patience_millis: Millis,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            waves: vec![1, 10, 50, 100],
            pause_millis: 0,
            concurrency: 50,
            stop_at_failed_percent: 10,
            patience_millis: DAY,
        }
    }
}

/// A pacing that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidPacing {
    /// The field, as the API spells it.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub reason: &'static str,
}

impl Pacing {
    /// Whether the pacing can work: waves grow and end at 100, and every number is within its bounds.
    pub fn check(&self) -> Result<(), InvalidPacing> {
        let refused = |field, reason| Err(InvalidPacing { field, reason });
        let grow = self.waves.windows(2).all(|pair| pair[0] < pair[1]);
        let starts = self.waves.first().is_some_and(|first| *first > 0);
        if self.waves.len() > limits::BULK_WAVES || !grow || !starts {
            return refused(
                "waves",
                "must be 1 to 20 percentages, each larger than the last",
            );
        }
        if self.waves.last() != Some(&100) {
            return refused("waves", "must end at 100: every keyring belongs to a wave");
        }
        if !(1..=limits::BULK_CONCURRENCY).contains(&self.concurrency) {
            return refused("concurrency", "must be from 1 to 1000");
        }
        if self.stop_at_failed_percent > 100 {
            return refused("stopAtFailedPercent", "must be from 0 to 100");
        }
        if self.pause_millis > limits::BULK_WAIT_MAX {
            return refused("pauseSeconds", "must be at most 30 days");
        }
        if self.patience_millis > limits::BULK_WAIT_MAX {
            return refused("patienceSeconds", "must be at most 30 days");
        }
        Ok(())
    }
}

/// Puts the selected keyrings into the order in which they are rotated, and says where each wave ends.
///
/// 1. The order is a shuffle that depends on nothing but the ids, so that a wave is a cross-section of
///    old and new customers and a plan that was looked at is the plan that is carried out.
/// 2. A wave ends at its share of all, rounded up; waves without a keyring are left out.
pub fn arrange(selected: impl IntoIterator<Item = KeyringId>, waves: &[u8]) -> Arrangement {
    let distinct: BTreeSet<KeyringId> = selected.into_iter().collect();
    let mut keyrings: Vec<KeyringId> = distinct.into_iter().collect();
    keyrings.sort_by_key(|keyring| (spread(*keyring), *keyring));
    let total = u32::try_from(keyrings.len()).unwrap_or(u32::MAX);
    let mut wave_ends = Vec::new();
    for percent in waves {
        let end = (u64::from(total) * u64::from(*percent)).div_ceil(100);
        let end = u32::try_from(end).unwrap_or(total).min(total);
        if wave_ends.last().copied().unwrap_or(0) < end {
            wave_ends.push(end);
        }
    }
    Arrangement {
        keyrings,
        wave_ends,
    }
}

/// FNV-1a: spreads ids that were made one after the other.
fn spread(keyring: KeyringId) -> u64 {
    keyring
        .to_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// Keyrings in the order of a bulk, and its waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// Each keyring once.
    pub keyrings: Vec<KeyringId>,
    /// How many keyrings come before the end of each wave; the last is all of them.
    pub wave_ends: Vec<u32>,
}

/// Where a bulk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum BulkState {
    /// It opens rotations.
    Running,
    /// Its owner paused it.
    Paused {
        /// When.
        at: Timestamp,
    },
    /// Too many rotations failed.
    Stopped {
        /// When.
        at: Timestamp,
        /// Failures of the wave.
        failed: u32,
        /// Keyrings of the wave.
        of: u32,
    },
    /// Nothing is left to open, and no rotation to wait for.
    Completed {
        /// When.
        at: Timestamp,
    },
    /// Its owner ended it.
    Cancelled {
        /// When.
        at: Timestamp,
    },
}

impl BulkState {
    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
            Self::Completed { .. } => "completed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether it can still open rotations, now or after a command.
    pub const fn is_open(self) -> bool {
        self.over_at().is_none()
    }

    /// Since when it is over, if it is: one that stopped can be resumed, so it is not.
    pub const fn over_at(self) -> Option<Timestamp> {
        match self {
            Self::Running | Self::Paused { .. } | Self::Stopped { .. } => None,
            Self::Completed { at } | Self::Cancelled { at } => Some(at),
        }
    }
}

/// Many rotations that were asked for at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bulk {
    /// Its id.
    pub id: BulkId,
    /// The workspace whose keyrings it rotates.
    pub workspace: WorkspaceId,
    /// Which of them.
    pub selector: Selector,
    /// How.
    pub manner: Manner,
    /// How fast.
    pub pacing: Pacing,
    /// Who asked for it and why: every rotation it opens is opened in their name.
    pub context: Context,
    /// How many keyrings come before the end of each wave; the last is all of them.
    pub wave_ends: Vec<u32>,
    /// The present wave, from 0.
    pub wave: u32,
    /// When the present wave may begin to open rotations.
    pub wave_at: Timestamp,
    /// Failures of the present wave that its owner went on after.
    pub forgiven: u32,
    /// Where it is.
    #[serde(flatten)]
    pub state: BulkState,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
    /// When it was started.
    pub created_at: Timestamp,
}

/// One keyring of a bulk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkItem {
    /// The bulk.
    pub bulk: BulkId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its place in the bulk's order, from 0.
    pub position: u32,
    /// The keyring.
    pub keyring: KeyringId,
    /// What became of it.
    #[serde(flatten)]
    pub state: ItemState,
    /// Compare-and-swap counter, 1 for the first stored form.
    pub version: u64,
}

/// What became of one keyring of a bulk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum ItemState {
    /// Its rotation is not opened yet.
    Waiting,
    /// Its rotation is open, and the bulk waits for its proof.
    Running {
        /// The rotation.
        rotation: RotationId,
        /// When it was opened.
        at: Timestamp,
    },
    /// Its rotation is open and goes on by itself: the bulk's patience is over. When the rotation is
    /// promoted or comes to nothing, that is written down all the same.
    Stalled {
        /// The rotation.
        rotation: RotationId,
        /// Since when.
        at: Timestamp,
    },
    /// Its new secret signs, or waits for its owner where the mode is `staged`.
    Done {
        /// The rotation.
        rotation: RotationId,
        /// When.
        at: Timestamp,
    },
    /// Its rotation could not be opened, or came to nothing.
    Failed {
        /// The rotation, if it was opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rotation: Option<RotationId>,
        /// A stable word for the reason.
        code: String,
        /// The reason for people, and what to do.
        message: String,
        /// When.
        at: Timestamp,
    },
}

/// The kind of an [`ItemState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// See [`ItemState::Waiting`].
    Waiting,
    /// See [`ItemState::Running`].
    Running,
    /// See [`ItemState::Stalled`].
    Stalled,
    /// See [`ItemState::Done`].
    Done,
    /// See [`ItemState::Failed`].
    Failed,
}

impl ItemKind {
    /// Every kind, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Running,
        Self::Stalled,
        Self::Done,
        Self::Failed,
    ];

    /// The word that the API, the store and pages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stalled => "stalled",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for ItemKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

impl ItemState {
    /// Its kind.
    pub const fn kind(&self) -> ItemKind {
        match self {
            Self::Waiting => ItemKind::Waiting,
            Self::Running { .. } => ItemKind::Running,
            Self::Stalled { .. } => ItemKind::Stalled,
            Self::Done { .. } => ItemKind::Done,
            Self::Failed { .. } => ItemKind::Failed,
        }
    }

    /// The rotation, if one was opened.
    pub const fn rotation(&self) -> Option<RotationId> {
        match self {
            Self::Waiting => None,
            Self::Running { rotation, .. }
            | Self::Stalled { rotation, .. }
            | Self::Done { rotation, .. } => Some(*rotation),
            Self::Failed { rotation, .. } => *rotation,
        }
    }

    /// The state right after its rotation was opened: only mode `proven` has something to wait for.
    pub const fn opened(manner: Manner, rotation: RotationId, at: Timestamp) -> Self {
        match manner {
            Manner::Immediate | Manner::Overlap { .. } | Manner::Staged { .. } => {
                Self::Done { rotation, at }
            }
            Manner::Proven { .. } => Self::Running { rotation, at },
        }
    }
}

impl BulkItem {
    /// The item in its next state.
    #[must_use]
    pub fn moved(&self, state: ItemState) -> Self {
        Self {
            state,
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// The rotation by which this item moves or moved, while what became of it is not written down.
    pub const fn under_way(&self) -> Option<RotationId> {
        match self.state {
            ItemState::Running { rotation, .. } | ItemState::Stalled { rotation, .. } => {
                Some(rotation)
            }
            ItemState::Waiting | ItemState::Done { .. } | ItemState::Failed { .. } => None,
        }
    }

    /// What becomes of an item whose rotation is under way; `None` while there is nothing to write down.
    /// `known` is that rotation, whether or not its keyring went on to another one since.
    ///
    /// 1. The new secret became active: done, whatever came after.
    /// 2. The rotation was cancelled or undone: failed.
    /// 3. It is still staged after the bulk's patience: stalled, and waited for no longer.
    /// 4. There is no such rotation: failed.
    ///
    /// All of that holds for one that is stalled, too: the bulk waits for it no longer, and still says what
    /// became of it.
    pub fn settled(
        &self,
        known: Option<&Rotation>,
        pacing: &Pacing,
        now: Timestamp,
    ) -> Option<ItemState> {
        let rotation = self.under_way()?;
        let patient_until = match self.state {
            ItemState::Running { at, .. } => Some(at.after(pacing.patience_millis)),
            ItemState::Stalled { .. }
            | ItemState::Waiting
            | ItemState::Done { .. }
            | ItemState::Failed { .. } => None,
        };
        let failed = |code: &str, message: &str| ItemState::Failed {
            rotation: Some(rotation),
            code: code.to_owned(),
            message: message.to_owned(),
            at: now,
        };
        let Some(known) = known.filter(|known| known.id == rotation) else {
            return Some(failed(
                "gone",
                "there is no record of the rotation any more",
            ));
        };
        match known.stage.at(now) {
            Stage::Staged if patient_until.is_some_and(|until| now >= until) => {
                Some(ItemState::Stalled { rotation, at: now })
            }
            Stage::Staged => None,
            Stage::Overlap { .. } | Stage::Completed { .. } => {
                Some(ItemState::Done { rotation, at: now })
            }
            Stage::Undone { .. } => Some(failed("undone", "the rotation was undone")),
            Stage::Cancelled { .. } => Some(failed("cancelled", "the rotation was cancelled")),
        }
    }
}

/// Items of a wave, or of a bulk, by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemCounts {
    /// See [`ItemState::Waiting`].
    pub waiting: u32,
    /// See [`ItemState::Running`].
    pub running: u32,
    /// See [`ItemState::Stalled`].
    pub stalled: u32,
    /// See [`ItemState::Done`].
    pub done: u32,
    /// See [`ItemState::Failed`].
    pub failed: u32,
}

impl ItemCounts {
    /// The count of one kind, to be changed.
    pub const fn of(&mut self, kind: ItemKind) -> &mut u32 {
        match kind {
            ItemKind::Waiting => &mut self.waiting,
            ItemKind::Running => &mut self.running,
            ItemKind::Stalled => &mut self.stalled,
            ItemKind::Done => &mut self.done,
            ItemKind::Failed => &mut self.failed,
        }
    }

    /// All of them.
    pub const fn total(self) -> u32 {
        self.waiting + self.running + self.stalled + self.done + self.failed
    }
}

/// What a sweep does next for a bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkStep {
    /// Open this many rotations, in order.
    Open(u32),
    /// Nothing now: rotations are under way, or the wave has not begun.
    Wait,
    /// The wave is over: the next one begins at this time.
    Advance(Timestamp),
    /// Too many of the wave failed.
    Stop {
        /// Failures of the wave.
        failed: u32,
        /// Keyrings of the wave.
        of: u32,
    },
    /// Everything is opened, and nothing is waited for.
    Complete,
    /// It is not running.
    Nothing,
}

/// What to do next for `bulk`, given what became of the items of its present wave.
///
/// 1. One that is paused, stopped or over does nothing.
/// 2. Failures that nobody went on after are more than the share of the wave that the pacing allows:
///    stop, before anything else is opened.
/// 3. Nothing waits and nothing runs: the wave is over. After the last one the bulk is completed; else
///    the next wave begins when the pause has passed. Stalled rotations hold up nobody.
/// 4. Before the wave's time: wait.
/// 5. Open as many as wait and as there are free places.
pub fn next(bulk: &Bulk, wave: ItemCounts, now: Timestamp) -> BulkStep {
    match bulk.state {
        BulkState::Running => {}
        BulkState::Paused { .. }
        | BulkState::Stopped { .. }
        | BulkState::Completed { .. }
        | BulkState::Cancelled { .. } => return BulkStep::Nothing,
    }
    let failed = wave.failed.saturating_sub(bulk.forgiven);
    let allowed = u64::from(wave.total()) * u64::from(bulk.pacing.stop_at_failed_percent);
    if u64::from(failed) * 100 > allowed {
        return BulkStep::Stop {
            failed: wave.failed,
            of: wave.total(),
        };
    }
    if wave.waiting == 0 && wave.running == 0 {
        return if bulk.is_last_wave() {
            BulkStep::Complete
        } else {
            BulkStep::Advance(now.after(bulk.pacing.pause_millis))
        };
    }
    if now < bulk.wave_at {
        return BulkStep::Wait;
    }
    let free = bulk.pacing.concurrency.saturating_sub(wave.running);
    match free.min(wave.waiting) {
        0 => BulkStep::Wait,
        open => BulkStep::Open(open),
    }
}

/// What an owner may ask of a bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkCommand {
    /// Open nothing more until it is resumed.
    Pause,
    /// Go on; after a stop, in spite of the failures so far.
    Resume,
    /// Open nothing more, ever. What was opened stays open.
    Cancel,
}

/// Why a command on a bulk changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BulkRejected {
    /// It is over.
    #[error("the bulk rotation is {}: start a new one for what is left", state.as_str())]
    Over {
        /// Where it is.
        state: BulkState,
    },
    /// Only a running one can be paused.
    #[error("the bulk rotation is {} already", state.as_str())]
    NotRunning {
        /// Where it is.
        state: BulkState,
    },
    /// Only one that is paused or stopped can be resumed.
    #[error("the bulk rotation is running already")]
    Running,
}

impl BulkRejected {
    /// The stable word for this reason.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Over { .. } => "bulk_over",
            Self::NotRunning { .. } => "bulk_not_running",
            Self::Running => "bulk_running",
        }
    }
}

impl Bulk {
    /// The positions of the present wave: from, and up to but not including.
    pub fn wave_span(&self) -> (u32, u32) {
        let wave = usize::try_from(self.wave).unwrap_or(usize::MAX);
        let end = self.wave_ends.get(wave).copied().unwrap_or(self.keyrings());
        let start = wave
            .checked_sub(1)
            .and_then(|before| self.wave_ends.get(before).copied());
        (start.unwrap_or(0).min(end), end)
    }

    /// How many keyrings it has.
    pub fn keyrings(&self) -> u32 {
        self.wave_ends.last().copied().unwrap_or(0)
    }

    fn is_last_wave(&self) -> bool {
        let wave = usize::try_from(self.wave).unwrap_or(usize::MAX);
        wave.saturating_add(1) >= self.wave_ends.len()
    }

    /// The bulk after a command; `failed` counts the failures of its present wave.
    pub fn command(
        &self,
        command: BulkCommand,
        failed: u32,
        now: Timestamp,
    ) -> Result<Self, BulkRejected> {
        let state = self.state;
        let (state, forgiven) = match (command, state) {
            (_, BulkState::Completed { .. } | BulkState::Cancelled { .. }) => {
                return Err(BulkRejected::Over { state });
            }
            (BulkCommand::Pause, BulkState::Running) => {
                (BulkState::Paused { at: now }, self.forgiven)
            }
            (BulkCommand::Pause, BulkState::Paused { .. } | BulkState::Stopped { .. }) => {
                return Err(BulkRejected::NotRunning { state });
            }
            (BulkCommand::Resume, BulkState::Paused { .. }) => (BulkState::Running, self.forgiven),
            (BulkCommand::Resume, BulkState::Stopped { .. }) => (BulkState::Running, failed),
            (BulkCommand::Resume, BulkState::Running) => return Err(BulkRejected::Running),
            (
                BulkCommand::Cancel,
                BulkState::Running | BulkState::Paused { .. } | BulkState::Stopped { .. },
            ) => (BulkState::Cancelled { at: now }, self.forgiven),
        };
        Ok(Self {
            state,
            forgiven,
            version: self.version + 1,
            ..self.clone()
        })
    }

    /// The bulk after a step of the sweep; `None` for steps that change items only.
    pub fn took(&self, step: BulkStep, now: Timestamp) -> Option<Self> {
        let next = Self {
            version: self.version + 1,
            ..self.clone()
        };
        match step {
            BulkStep::Open(_) | BulkStep::Wait | BulkStep::Nothing => None,
            BulkStep::Advance(wave_at) => Some(Self {
                wave: self.wave + 1,
                wave_at,
                forgiven: 0,
                ..next
            }),
            BulkStep::Stop { failed, of } => Some(Self {
                state: BulkState::Stopped {
                    at: now,
                    failed,
                    of,
                },
                ..next
            }),
            BulkStep::Complete => Some(Self {
                state: BulkState::Completed { at: now },
                ..next
            }),
        }
    }
}
