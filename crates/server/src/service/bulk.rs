//! Bulk rotations: many keyrings of a workspace moved by one command, in waves.
//!
//! The cast. [`Service::start_bulk`] selects, plans and, unless it is a dry run, stores the bulk rotation
//! with one item for each keyring. [`Service::advance_bulks`] is the sweep: it takes no input, is
//! idempotent, writes down what became of rotations that were waited for, and takes the one step that
//! `core::bulk::next` names. Every rotation is opened together with the move of its item, in one change
//! that compares both versions, so that a crash at any point rotates nothing twice.
//!
//! A rotation that cannot be opened is a counted failure with its reason. One that fails for reasons of the
//! store is none: it is tried again.
//!
//! The values of new secrets are not in any answer of a bulk: they are read one by one, by an audited
//! reveal, and a workspace that never reveals cannot rotate in bulk.
//!
//! Not promised: that a rotation opened by a bulk ends well; see `core::bulk`.

mod following;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::bulk::{
    Arrangement, Bulk, BulkCommand, BulkItem, BulkState, BulkStep, Candidate, ItemCounts, ItemKind,
    ItemState, Manner, Pacing, Selector, arrange, next,
};
use hookturn_core::id::{BulkId, EndpointId, KeyringId, RotationId};
use hookturn_core::limits;
use hookturn_core::proof::{Evidence, Release};
use hookturn_core::rotation::{Command, Keyring, KeyringOwner, Mode, Rejected, Rotation, apply};
use hookturn_core::store::{BulkItemQuery, Change, Page, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::{App, RevealPolicy, Scope};
use tokio::time::{Instant, sleep_until};

use super::leaks::LeakHash;
use super::page::{Listed, fetch};
use super::{Caller, Decision, Recording, Service, ServiceError};
pub(super) use following::Following;

/// Items that are written in one commit, so that it stays within a millisecond or so.
const ITEMS_IN_A_COMMIT: usize = 128;
/// Endpoints that are shown of one item; a shared keyring may have more.
const SHOWN: usize = 20;

/// What a new bulk rotation shall be.
#[derive(Debug, Clone)]
pub struct NewBulk {
    /// Which keyrings, without leaked strings.
    pub selector: Selector,
    /// Only those whose active secret has one of these texts.
    pub hashes: Vec<LeakHash>,
    /// How they move.
    pub manner: Manner,
    /// How fast.
    pub pacing: Pacing,
    /// Whether to plan only.
    pub dry_run: bool,
}

/// A plan, and the bulk rotation that was started with it.
#[derive(Debug, Clone)]
pub struct StartedBulk {
    /// The bulk rotation; in a dry run it is not stored.
    pub bulk: Bulk,
    /// Every keyring in the order of the bulk.
    pub keyrings: Vec<PlannedKeyring>,
    /// Whether it was a dry run.
    pub dry_run: bool,
}

/// A keyring of a plan.
#[derive(Debug, Clone)]
pub struct PlannedKeyring {
    /// It.
    pub keyring: Arc<Keyring>,
    /// Why its rotation would fail now, if it would: a stable word and a sentence.
    pub obstacle: Option<(String, String)>,
}

/// A bulk rotation and how far it is.
#[derive(Debug, Clone)]
pub struct BulkProgress {
    /// It.
    pub bulk: Bulk,
    /// What became of all its keyrings.
    pub counts: ItemCounts,
}

/// One keyring of a bulk rotation, with what its rotation is now.
#[derive(Debug, Clone)]
pub struct ShownItem {
    /// It.
    pub item: BulkItem,
    /// Its rotation, while that is the latest of the keyring.
    pub rotation: Option<Rotation>,
    /// Whether receivers still accept the old secret, for the first few endpoints.
    pub releases: Vec<(EndpointId, Release)>,
}

impl Service {
    /// Plans a bulk rotation and starts it, unless it is a dry run. Needs `secrets`.
    pub async fn start_bulk(
        &self,
        caller: &Caller,
        input: NewBulk,
        recording: Option<Recording<'_, StartedBulk>>,
    ) -> Result<StartedBulk, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let selector = self.resolved(caller, &input).await?;
        check(&selector, &input)?;
        match self.own_workspace(caller)?.settings.reveal_secrets {
            RevealPolicy::Allowed => {}
            RevealPolicy::Never => {
                return Err(ServiceError::conflict(
                    "reveal_disabled",
                    "this workspace never shows a secret again, so nobody could read the new secrets of a bulk rotation: rotate one keyring at a time, or allow revealing",
                ));
            }
        }
        let planned = self.plan(caller, &input, selector, self.clock.now())?;
        if !input.dry_run {
            self.admit_bulk(caller)?;
            self.lay_out(&planned).await?;
        }
        self.change(caller, recording, |_| {
            let (mut writes, mut audit) = (Vec::new(), Vec::new());
            if !input.dry_run {
                self.admit_bulk(caller)?;
                writes.push(Write::Bulk(planned.bulk.clone()));
                audit.push(entry(AuditAction::BulkStarted, &planned.bulk));
            }
            Ok(Decision {
                shows: None,
                writes,
                audit,
                out: planned.clone(),
            })
        })
        .await
    }

    /// Refuses one bulk rotation too many.
    fn admit_bulk(&self, caller: &Caller) -> Result<(), ServiceError> {
        let open = self.live.open_bulks();
        let own = open
            .iter()
            .filter(|bulk| bulk.workspace == caller.workspace);
        if own.count() < limits::BULKS_OPEN {
            return Ok(());
        }
        Err(ServiceError::conflict(
            "too_many_bulks",
            format!(
                "{} bulk rotations of this workspace are not over: cancel one, or wait",
                limits::BULKS_OPEN
            ),
        ))
    }

    /// Writes the items of a bulk rotation before itself, in pieces: nobody's message waits for all of
    /// them. Until the bulk rotation is written they belong to nothing, and if it never is, they are
    /// removed with what is old.
    async fn lay_out(&self, planned: &StartedBulk) -> Result<(), ServiceError> {
        let items: Vec<_> = items_of(planned).collect();
        for items in items.chunks(ITEMS_IN_A_COMMIT) {
            self.write_step(&planned.bulk, items.to_vec(), Vec::new())
                .await?;
        }
        Ok(())
    }

    /// The selector with leaked strings turned into the secrets they are: the strings, or hashes that
    /// could be compared with guesses, are not kept.
    async fn resolved(&self, caller: &Caller, input: &NewBulk) -> Result<Selector, ServiceError> {
        let mut selector = input.selector.clone();
        if !input.hashes.is_empty() {
            if input.hashes.len() > limits::LEAK_HASHES {
                let message = format!("more than {} hashes", limits::LEAK_HASHES);
                return Err(ServiceError::invalid("/selector/hashes", message));
            }
            self.leak_pacer
                .take(caller.key.id, self.clock.now())
                .map_err(|wait_millis| ServiceError::RateLimited { wait_millis })?;
            let found = self.secrets_with(caller, input.hashes.iter()).await?;
            let summary = AuditEntry::new(AuditAction::LeakSearched, Subject::default())
                .with("strings", input.hashes.len())
                .with("found", found.len());
            let at = self.clock.now();
            self.store
                .audit(caller.workspace, caller.context(), vec![summary], at)
                .await?;
            selector.secrets = Some(found.iter().map(|(_, marked)| marked.secret).collect());
        }
        Ok(selector)
    }

    fn plan(
        &self,
        caller: &Caller,
        input: &NewBulk,
        selector: Selector,
        now: Timestamp,
    ) -> Result<StartedBulk, ServiceError> {
        let apps = self.live.apps(caller.workspace);
        let apps: BTreeMap<_, &App> = apps.iter().map(|app| (app.id, app.as_ref())).collect();
        let mut chosen = BTreeMap::new();
        for keyring in self.live.keyrings(caller.workspace) {
            let users = self.live.keyring_users(&keyring);
            let mut of: Vec<&App> = Vec::new();
            for app in users.iter().filter_map(|user| apps.get(&user.app)) {
                if !of.iter().any(|known| known.id == app.id) {
                    of.push(*app);
                }
            }
            let candidate = Candidate {
                keyring: &keyring,
                apps: &of,
            };
            if selector.selects(candidate, now) {
                chosen.insert(keyring.id, keyring);
            }
        }
        if chosen.len() > limits::BULK_KEYRINGS {
            let message = format!(
                "selects more than {} keyrings: narrow it",
                limits::BULK_KEYRINGS
            );
            return Err(ServiceError::invalid("/selector", message));
        }
        let Arrangement {
            keyrings,
            wave_ends,
        } = arrange(chosen.keys().copied(), &input.pacing.waves);
        if keyrings.is_empty() && !input.dry_run {
            return Err(ServiceError::conflict(
                "nothing_selected",
                "no keyring has what the selector names and an active secret that signs for an endpoint: nothing was started",
            ));
        }
        let planned = keyrings
            .iter()
            .filter_map(|id| chosen.get(id))
            .map(|keyring| PlannedKeyring {
                obstacle: self.obstacle(keyring, input.manner, now),
                keyring: Arc::clone(keyring),
            });
        Ok(StartedBulk {
            keyrings: planned.collect(),
            dry_run: input.dry_run,
            bulk: Bulk {
                id: BulkId::new(now, self.entropy.as_ref()),
                workspace: caller.workspace,
                selector,
                manner: input.manner,
                pacing: input.pacing.clone(),
                context: caller.context(),
                wave_ends,
                wave: 0,
                wave_at: now,
                forgiven: 0,
                state: BulkState::Running,
                version: 1,
                created_at: now,
            },
        })
    }

    /// Why a rotation of the keyring would be refused now.
    fn obstacle(
        &self,
        keyring: &Keyring,
        manner: Manner,
        now: Timestamp,
    ) -> Option<(String, String)> {
        let mode = manner.mode(0);
        let refused = match (mode, keyring.rotation_in_the_way(now)) {
            (Mode::Overlap { .. } | Mode::Staged { .. } | Mode::Proven { .. }, Some(open)) => {
                ServiceError::from(Rejected::RotationOpen {
                    open: open.id,
                    stage: open.stage,
                })
            }
            (Mode::Immediate, Some(_)) | (_, None) => {
                self.check_provable(keyring, mode, now).err()?
            }
        };
        Some((refused.code().to_owned(), refused.to_string()))
    }

    /// One bulk rotation and how far it is. Needs `read`.
    pub async fn bulk(&self, caller: &Caller, id: BulkId) -> Result<BulkProgress, ServiceError> {
        self.require(caller, Scope::Read).await?;
        self.progress(caller, id).await
    }

    async fn progress(&self, caller: &Caller, id: BulkId) -> Result<BulkProgress, ServiceError> {
        let bulk = self.own_bulk(caller, id).await?;
        let counts = self.store.bulk_counts(bulk.workspace, id, 0, u32::MAX);
        let counts = counts.await?;
        Ok(BulkProgress { bulk, counts })
    }

    /// A page of bulk rotations, newest first. Needs `read`.
    pub async fn bulks(
        &self,
        caller: &Caller,
        page: Page<BulkId>,
    ) -> Result<Listed<Bulk>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let (wider, limit) = fetch(page);
        let found = self.store.bulks(caller.workspace, wider).await?;
        Ok(Listed::cut(found, limit))
    }

    /// A page of the keyrings of a bulk rotation, in its order, from a position on. Needs `read`.
    pub async fn bulk_items(
        &self,
        caller: &Caller,
        id: BulkId,
        kind: Option<ItemKind>,
        from: u32,
        limit: usize,
    ) -> Result<Listed<ShownItem>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let bulk = self.own_bulk(caller, id).await?;
        let limit = super::page::bounded(limit);
        let query = BulkItemQuery {
            workspace: bulk.workspace,
            bulk: id,
            from,
            until: u32::MAX,
            kind,
            limit: limit + 1,
        };
        let found = self.store.bulk_items(query).await?;
        Ok(Listed::cut(found, limit).map(|item| self.shown(item)))
    }

    fn shown(&self, item: BulkItem) -> ShownItem {
        let keyring = self.live.keyring(item.keyring);
        let rotation = keyring
            .as_deref()
            .and_then(|keyring| keyring.rotation.clone())
            .filter(|rotation| Some(rotation.id) == item.state.rotation());
        let mut releases = Vec::new();
        if let (Some(keyring), Some(rotation)) = (keyring, &rotation) {
            for endpoint in self.live.keyring_users(&keyring).into_iter().take(SHOWN) {
                let evidence =
                    Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id);
                releases.push((endpoint.id, evidence.released.verdict()));
            }
        }
        ShownItem {
            item,
            rotation,
            releases,
        }
    }

    async fn own_bulk(&self, caller: &Caller, id: BulkId) -> Result<Bulk, ServiceError> {
        let found = self.store.bulk(caller.workspace, id).await?;
        found.ok_or(ServiceError::not_found("bulk rotation"))
    }

    /// Pauses, resumes or cancels a bulk rotation. When it is answered, nothing is opened that the command
    /// forbids. Needs `secrets`.
    pub async fn command_bulk(
        &self,
        caller: &Caller,
        id: BulkId,
        command: BulkCommand,
        if_match: Option<u64>,
        recording: Option<Recording<'_, BulkProgress>>,
    ) -> Result<BulkProgress, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        // Waits for the step that is being taken.
        let _turn = self.bulk_turn.lock().await;
        let BulkProgress { bulk, counts } = self.progress(caller, id).await?;
        let (from, until) = bulk.wave_span();
        let wave = self.store.bulk_counts(bulk.workspace, id, from, until);
        let failed = wave.await?.failed;
        let action = match command {
            BulkCommand::Pause => AuditAction::BulkPaused,
            BulkCommand::Resume => AuditAction::BulkResumed,
            BulkCommand::Cancel => AuditAction::BulkCancelled,
        };
        self.change(caller, recording, |now| {
            super::check_version(if_match, bulk.version)?;
            let bulk = bulk
                .command(command, failed, now)
                .map_err(|refused| ServiceError::conflict(refused.code(), refused.to_string()))?;
            Ok(Decision {
                shows: None,
                writes: vec![Write::Bulk(bulk.clone())],
                audit: vec![entry(action.clone(), &bulk)],
                out: BulkProgress { bulk, counts },
            })
        })
        .await
    }

    // ----- the sweep -----

    /// Takes the next step of every bulk rotation that is running, and looks on at what nothing waits for
    /// any more. Without a bulk rotation it costs nothing. What the steps open is spread over about the
    /// given time.
    pub async fn advance_bulks(&self, spread: Duration) -> Result<(), ServiceError> {
        let mut running = self.live.open_bulks();
        running.retain(|bulk| bulk.state == BulkState::Running);
        let share = spread / u32::try_from(running.len().max(1)).unwrap_or(u32::MAX);
        for bulk in running {
            self.advance_bulk(bulk.id, share).await?;
        }
        self.follow_items().await
    }

    async fn advance_bulk(&self, id: BulkId, spread: Duration) -> Result<(), ServiceError> {
        let _turn = self.bulk_turn.lock().await;
        // It may have been paused while this waited.
        let Some(bulk) = self.live.open_bulk(id) else {
            return Ok(());
        };
        let (from, until) = bulk.wave_span();
        self.settle_items(&bulk).await?;
        let counts = self.store.bulk_counts(bulk.workspace, id, from, until);
        let counts = counts.await?;
        let now = self.clock.now();
        let step = next(&bulk, counts, now);
        if let BulkStep::Open(count) = step {
            return self.open_items(&bulk, count, spread).await;
        }
        let Some(moved) = bulk.took(step, now) else {
            return Ok(());
        };
        let audit = match step {
            BulkStep::Stop { failed, of } => vec![
                entry(AuditAction::BulkStopped, &moved)
                    .with("failed", failed)
                    .with("of", of),
            ],
            BulkStep::Complete => vec![entry(AuditAction::BulkCompleted, &moved)],
            BulkStep::Open(_) | BulkStep::Wait | BulkStep::Advance(_) | BulkStep::Nothing => {
                Vec::new()
            }
        };
        self.write_step(&moved, vec![Write::Bulk(moved.clone())], audit)
            .await
    }

    /// Writes down what became of rotations that the bulk waits for.
    async fn settle_items(&self, bulk: &Bulk) -> Result<(), ServiceError> {
        if !matches!(bulk.manner, Manner::Proven { .. }) {
            return Ok(());
        }
        let (from, until) = bulk.wave_span();
        let running = self.store.bulk_items(BulkItemQuery {
            workspace: bulk.workspace,
            bulk: bulk.id,
            from,
            until,
            kind: Some(ItemKind::Running),
            limit: usize::try_from(limits::BULK_CONCURRENCY).unwrap_or(usize::MAX),
        });
        let settled = self.settled(bulk, running.await?).await?;
        if settled.is_empty() {
            return Ok(());
        }
        self.write_step(bulk, settled, Vec::new()).await
    }

    /// The moves of those items whose rotations came to something.
    async fn settled(&self, bulk: &Bulk, items: Vec<BulkItem>) -> Result<Vec<Write>, ServiceError> {
        let mut settled = Vec::new();
        for item in items {
            let Some(rotation) = item.under_way() else {
                continue;
            };
            let keyring = self.live.keyring(item.keyring);
            let latest = keyring
                .as_ref()
                .and_then(|keyring| keyring.rotation.as_ref());
            let now = self.clock.now();
            let state = if let Some(latest) = latest.filter(|latest| latest.id == rotation) {
                item.settled(Some(latest), &bulk.pacing, now)
            } else {
                // Its keyring went on to another rotation, or was deleted: what became of it is on record.
                let known = self.store.rotation(bulk.workspace, rotation).await?;
                item.settled(known.as_ref(), &bulk.pacing, now)
            };
            settled.extend(state.map(|state| Write::BulkItem(item.moved(state))));
        }
        Ok(settled)
    }

    async fn write_step(
        &self,
        bulk: &Bulk,
        writes: Vec<Write>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), ServiceError> {
        let change = Change {
            workspace: bulk.workspace,
            writes,
            audit,
            context: Context {
                actor: Actor::System,
                request_id: None,
                reason: None,
            },
            at: self.clock.now(),
            idempotency: None,
        };
        Ok(self.store.change(change).await?)
    }

    async fn open_items(
        &self,
        bulk: &Bulk,
        count: u32,
        spread: Duration,
    ) -> Result<(), ServiceError> {
        let (from, until) = bulk.wave_span();
        let waiting = self.store.bulk_items(BulkItemQuery {
            workspace: bulk.workspace,
            bulk: bulk.id,
            from,
            until,
            kind: Some(ItemKind::Waiting),
            limit: usize::try_from(count).unwrap_or(usize::MAX),
        });
        let waiting = waiting.await?;
        let gap = spread / u32::try_from(waiting.len().max(1)).unwrap_or(u32::MAX);
        let start = Instant::now();
        let opening = (0..).zip(&waiting).map(async |(place, item)| {
            sleep_until(start + gap * place).await;
            self.open_item(bulk, item).await
        });
        join_all(opening).await.into_iter().collect()
    }

    /// Opens the rotation of one item, or writes down why not, in one change with the item.
    async fn open_item(&self, bulk: &Bulk, item: &BulkItem) -> Result<(), ServiceError> {
        let _turn = self.keyring_turns.of(&item.keyring).await;
        self.commit(bulk.workspace, &bulk.context, None, |now| {
            match self.open_one(bulk, item.keyring, now) {
                Ok((decision, rotation)) => {
                    let moved = item.moved(ItemState::opened(bulk.manner, rotation, now));
                    let mut writes = decision.writes;
                    writes.push(Write::BulkItem(moved));
                    let name = |entry: AuditEntry| {
                        if entry.action == AuditAction::RotationOpened {
                            entry.with("bulk", bulk.id)
                        } else {
                            entry
                        }
                    };
                    Ok(Decision {
                        shows: None,
                        writes,
                        audit: decision.audit.into_iter().map(name).collect(),
                        out: (),
                    })
                }
                Err(refused) if is_refusal(&refused) => {
                    let moved = item.moved(ItemState::Failed {
                        rotation: None,
                        code: refused.code().to_owned(),
                        message: refused.to_string(),
                        at: now,
                    });
                    Ok(Decision {
                        shows: None,
                        writes: vec![Write::BulkItem(moved)],
                        audit: Vec::new(),
                        out: (),
                    })
                }
                Err(broken) => Err(broken),
            }
        })
        .await
    }

    fn open_one(
        &self,
        bulk: &Bulk,
        keyring: KeyringId,
        now: Timestamp,
    ) -> Result<(Decision<()>, RotationId), ServiceError> {
        let keyring = self
            .live
            .keyring(keyring)
            .filter(|keyring| {
                keyring.owner == KeyringOwner::Shared
                    || !self.live.keyring_users(keyring).is_empty()
            })
            .ok_or(ServiceError::not_found("keyring"))?;
        let mode = bulk.manner.mode(self.default_overlap(&keyring));
        self.check_provable(&keyring, mode, now)?;
        let value = self.value_for(&keyring, None)?;
        let secret = self.named(&value, None, now);
        let secret_id = secret.id;
        let rotation = RotationId::new(now, self.entropy.as_ref());
        let command = Command::Rotate {
            rotation,
            mode,
            secret,
            reason: bulk.context.reason.clone(),
        };
        let applied = apply(&keyring, command, now)?;
        let decision = self.with_new_secret(applied, secret_id, value, |_, _| ())?;
        Ok((decision, rotation))
    }
}

fn entry(action: AuditAction, bulk: &Bulk) -> AuditEntry {
    AuditEntry::new(action, Subject::default())
        .with("bulk", bulk.id)
        .with("mode", bulk.manner.as_str())
        .with("keyrings", bulk.keyrings())
}

/// Whether the keyring's own state is in the way, and not the store.
const fn is_refusal(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::Rejected(_)
            | ServiceError::Conflict { .. }
            | ServiceError::NotFound { .. }
            | ServiceError::Invalid { .. }
    )
}

fn check(selector: &Selector, input: &NewBulk) -> Result<(), ServiceError> {
    selector
        .check()
        .map_err(|empty| ServiceError::invalid("/selector", empty))?;
    for (pointer, count) in [
        ("/selector/apps", selector.apps.len()),
        ("/selector/keyrings", selector.keyrings.len()),
        ("/selector/fingerprints", selector.fingerprints.len()),
    ] {
        if count > limits::SELECTOR_NAMES {
            let message = format!("names more than {}", limits::SELECTOR_NAMES);
            return Err(ServiceError::invalid(pointer, message));
        }
    }
    if selector.labels.len() > limits::LABELS {
        let message = format!("names more than {}", limits::LABELS);
        return Err(ServiceError::invalid("/selector/labels", message));
    }
    input
        .pacing
        .check()
        .map_err(|refused| ServiceError::invalid(format!("/{}", refused.field), refused.reason))?;
    match input.manner.mode(0) {
        Mode::Overlap { overlap } | Mode::Staged { overlap } if overlap > limits::OVERLAP_MAX => {
            Err(ServiceError::from(Rejected::OverlapTooLong))
        }
        Mode::Proven { policy } => policy
            .check()
            .map_err(|refused| ServiceError::from(Rejected::InvalidPolicy(refused))),
        Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } => Ok(()),
    }
}

fn items_of(planned: &StartedBulk) -> impl Iterator<Item = Write> + '_ {
    (0..).zip(&planned.keyrings).map(|(position, one)| {
        Write::BulkItem(BulkItem {
            bulk: planned.bulk.id,
            workspace: planned.bulk.workspace,
            position,
            keyring: one.keyring.id,
            state: ItemState::Waiting,
            version: 1,
        })
    })
}
