//! One transaction: what a batch of work writes.
//!
//! Messages that are accepted and deliveries that are finished do not depend on each other, so those of a
//! batch are written *together*, by a few statements over arrays (a finish follows the answer to its accept,
//! and two finishes of one delivery are kept apart). Everything else is written in its turn, between two
//! such groups, and may be refused by itself: it has a savepoint.
//!
//! What goes wrong together is undone, and the batch is written once more *one by one*: each piece of work
//! has a savepoint then, and only what cannot be written is refused.

use std::collections::{BTreeSet, HashSet};

use hookturn_core::id::{EndpointId, WorkspaceId};
use hookturn_core::message::EventType;
use hookturn_core::store::{StoreError, Write};

use super::connect::Session;
use super::days::Day;
use super::effects::Effects;
use super::group::Group;
use super::rows::{Outcome, is_deadlock, run};
use super::upkeep::{self, Sweep};
use super::writer::{Answer, Answers, Work};
use super::{configuration, figures, ledger, master_key, outbox};
use crate::store::live::Live;
use crate::store::sharing::view::Recent;

/// The open transaction, as a piece of work sees it.
pub(super) struct Tx<'a> {
    pub(super) session: &'a Session,
    pub(super) effects: Effects,
    live: &'a Live,
    memory: &'a Memory,
    /// What the other nodes changed lately, as of the beginning of the transaction.
    pub(super) recent: &'a Recent,
    head: Head,
}

/// What the transaction has of what every node holds in memory.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// It holds the head, which it counted up; the changes of the others up to that are known.
    Held,
    /// It does not hold the head: it changes nothing, or another node holds it for too long.
    Free,
    /// This node lacks the master key that is current: what it sealed could not be opened by the others.
    Keyless,
}

impl Head {
    /// Why nothing that every node holds may be changed, if so.
    const fn keeps_from_changing(self) -> Option<&'static str> {
        match self {
            Self::Held => None,
            Self::Free => Some(
                "another node is in the middle of a change and does not answer; nothing was written",
            ),
            Self::Keyless => {
                Some("this node was not given the master key that is current; nothing was written")
            }
        }
    }
}

/// What the writer knows of the database as of the last commit.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) days: BTreeSet<Day>,
    event_types: HashSet<(WorkspaceId, EventType)>,
    sweep: Sweep,
}

impl Memory {
    /// Takes over what a committed transaction did.
    pub(super) fn learn(&mut self, effects: &Effects) {
        self.days.retain(|day| !effects.dropped.contains(day));
        self.days.extend(&effects.days);
        self.event_types.extend(effects.event_types.iter().cloned());
        if let Some(sweep) = &effects.sweep {
            self.sweep = sweep.clone();
        }
    }
}

impl Tx<'_> {
    fn writes(&self) -> impl DoubleEndedIterator<Item = &Write> {
        self.effects.writes.iter()
    }

    /// Refuses a workspace that does not exist.
    pub(super) fn known_workspace(&self, id: WorkspaceId) -> Outcome<()> {
        let fresh = |write: &Write| matches!(write, Write::Workspace(known) if known.id == id);
        if self.live.workspace(id).is_some() || self.writes().any(fresh) {
            return Ok(());
        }
        Err(StoreError::Conflict {
            what: format!("workspace {id}"),
        })
    }

    /// Whether an endpoint keeps the order of acceptance.
    pub(super) fn is_ordered(&self, id: EndpointId) -> bool {
        let fresh = self.writes().rev().find_map(|write| match write {
            Write::Endpoint(known) if known.id == id => Some(known.ordered),
            _ => None,
        });
        fresh.unwrap_or_else(|| self.live.endpoint(id).is_some_and(|known| known.ordered))
    }

    /// Refuses an endpoint that does not exist.
    pub(super) fn known_endpoint(&self, id: EndpointId) -> Outcome<()> {
        let fresh = |write: &Write| matches!(write, Write::Endpoint(known) if known.id == id);
        let forgotten = self.effects.forgotten.contains(&id);
        if !forgotten && (self.live.endpoint(id).is_some() || self.writes().any(fresh)) {
            return Ok(());
        }
        Err(StoreError::Conflict {
            what: format!("endpoint {id}"),
        })
    }

    pub(super) fn knows_type(&self, workspace: WorkspaceId, name: &EventType) -> bool {
        let key = (workspace, name.clone());
        self.memory.event_types.contains(&key) || self.effects.event_types.contains(&key)
    }

    pub(super) fn days(&self) -> impl Iterator<Item = Day> {
        let known = self.memory.days.iter().chain(&self.effects.days);
        known
            .copied()
            .filter(|day| !self.effects.dropped.contains(day) || self.effects.days.contains(day))
    }

    pub(super) fn knows_day(&self, day: Day) -> bool {
        let known = self.memory.days.contains(&day) && !self.effects.dropped.contains(&day);
        known || self.effects.days.contains(&day)
    }

    /// How far pruning came.
    pub(super) fn sweep(&self) -> Sweep {
        let latest = self.effects.sweep.as_ref();
        latest.unwrap_or(&self.memory.sweep).clone()
    }
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Together,
    OneByOne,
}

/// Writes a batch into the transaction that was begun. Returns the answers, and what it does to memory once
/// it is committed.
pub(super) async fn write_all(
    session: &Session,
    works: &[&Work],
    manner: Manner,
    (live, memory, recent): (&Live, &Memory, &Recent),
    head: Head,
) -> Outcome<(Answers, Effects)> {
    let mut tx = Tx {
        session,
        effects: Effects::default(),
        live,
        memory,
        recent,
        head,
    };
    let mut answers: Answers = works.iter().map(|_| Ok(Answer::Done)).collect();
    let mut group = Group::default();
    for (index, work) in works.iter().copied().enumerate() {
        // Answered with the rest, after the commit: what is written around it stays together.
        if matches!(work, Work::Barrier | Work::Leave) {
            continue;
        }
        let grouped = matches!(work, Work::Accept(..) | Work::Finish { .. });
        if grouped && manner == Manner::Together {
            if !group.takes(work) {
                std::mem::take(&mut group)
                    .write(&mut tx, &mut answers)
                    .await?;
            }
            group.add(index, work);
            continue;
        }
        std::mem::take(&mut group)
            .write(&mut tx, &mut answers)
            .await?;
        answers[index] = guarded(&mut tx, work).await?;
    }
    group.write(&mut tx, &mut answers).await?;
    Ok((answers, tx.effects))
}

/// One piece of work that is undone alone when it is refused. The outer error is of the transaction.
async fn guarded(tx: &mut Tx<'_>, work: &Work) -> Outcome<Outcome<Answer>> {
    let mark = tx.effects.mark();
    run(tx.session, "write", "SAVEPOINT work").await?;
    let answer = alone(tx, work).await;
    if let Err(error) = &answer
        && is_deadlock(error)
    {
        // Not its fault: everything is written once more.
        return answer.map(Ok);
    }
    if answer.is_err() {
        run(tx.session, "write", "ROLLBACK TO SAVEPOINT work").await?;
        tx.effects.undo_to(&mark);
        if matches!(work, Work::Prune { .. }) {
            // What was passed may not have been: the next sweep begins anew.
            tx.effects.sweep = Some(Sweep::default());
        }
    }
    run(tx.session, "write", "RELEASE SAVEPOINT work").await?;
    Ok(answer)
}

async fn alone(tx: &mut Tx<'_>, work: &Work) -> Outcome<Answer> {
    if work.changes_view()
        && let Some(why) = tx.head.keeps_from_changing()
    {
        return Err(StoreError::Unwritable {
            step: "change what all nodes hold",
            source: why.into(),
        });
    }
    match work {
        Work::Change(change, seen) => {
            if matches!(tx.head, Head::Held) {
                tx.recent.refuse(change, *seen)?;
            }
            configuration::change(tx, change).await?;
        }
        Work::Audit {
            workspace,
            context,
            entries,
            at,
        } => ledger::append_audit(tx, *workspace, context, entries, *at).await?,
        Work::Reseal(swaps) => return configuration::reseal(tx, swaps).await.map(Answer::Replaced),
        Work::Touch(uses) => configuration::touch_api_keys(tx.session, uses).await?,
        Work::Figures {
            kept,
            forget_before,
        } => figures::keep(tx.session, kept, *forget_before).await?,
        Work::Accept(..) | Work::Finish { .. } => return Group::alone(tx, work).await,
        Work::Prune { before, now, limit } => {
            let progress = upkeep::prune(tx, *before, *now, *limit).await?;
            return Ok(Answer::Pruned(progress));
        }
        Work::Outbox(settling) => outbox::settle(tx, settling).await?,
        Work::Mend(mending) => {
            return outbox::refused::mend(tx, mending)
                .await
                .map(Answer::Replaced);
        }
        Work::PutMeta { key, value } => configuration::put_meta(tx.session, key, value).await?,
        Work::PutFirstMeta { key, value } => {
            configuration::put_first_meta(tx.session, key, value).await?;
        }
        Work::MasterKey { id, check } => return master_key::make_current(tx, id, check).await,
        Work::Barrier | Work::Leave => {}
    }
    Ok(Answer::Done)
}
