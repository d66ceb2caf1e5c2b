//! A group: messages that are accepted and deliveries that are finished, written together.
//!
//! Whether a message may be accepted is asked before anything of it is written: its workspace and
//! endpoints by what is in memory, its idempotency key by the database. So one that is refused takes nothing
//! with it. A message whose id is there already is the exception, and cannot happen but by a repetition
//! of ours: then the whole group fails, and is written one by one.

use std::collections::HashSet;

use hookturn_core::store::{Accept, Finish, IdempotencyKey, NewMessage, StoreError};

use super::accepting;
use super::finishing;
use super::ledger::put_idempotent_answer;
use super::rows::{Outcome, is_duplicate};
use super::transaction::Tx;
use super::writer::{Answer, Answers, Work};

/// Work that is written together, with its places in the batch.
#[derive(Default)]
pub(super) struct Group<'w> {
    accepts: Vec<(usize, &'w Accept, u64)>,
    finishes: Vec<&'w Finish>,
    receivers: Vec<&'w Work>,
    keys: HashSet<IdempotencyKey>,
}

impl<'w> Group<'w> {
    /// Whether one more piece of work fits: a key must not be used by two.
    pub(super) fn takes(&self, work: &Work) -> bool {
        match work {
            Work::Accept(accept, ..) => {
                let key = accept.idempotency.as_ref().map(|record| record.key);
                key.is_none_or(|key| !self.keys.contains(&key))
            }
            _ => true,
        }
    }

    pub(super) fn add(&mut self, index: usize, work: &'w Work) {
        match work {
            Work::Accept(accept, seen, _) => {
                self.accepts.push((index, accept, *seen));
                self.keys
                    .extend(accept.idempotency.as_ref().map(|record| record.key));
            }
            Work::Finish { finishes, .. } => {
                self.finishes.extend(finishes);
                self.receivers.push(work);
            }
            _ => {}
        }
    }

    /// Writes one piece of work by itself.
    pub(super) async fn alone(tx: &mut Tx<'_>, work: &Work) -> Outcome<Answer> {
        let mut group = Group::default();
        group.add(0, work);
        let mut answers = vec![Ok(Answer::Done)];
        let written = group.write(tx, &mut answers).await;
        match (written, work) {
            (Ok(()), _) => answers.pop().unwrap_or(Err(StoreError::Stopped)),
            (Err(error), Work::Accept(accept, ..)) if is_duplicate(&error) => {
                Err(accepting::duplicate(&accept.messages))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Writes the group. Who is refused is told so in `answers`; an error is the whole group's.
    pub(super) async fn write(self, tx: &mut Tx<'_>, answers: &mut Answers) -> Outcome<()> {
        let mut accepted: Vec<&NewMessage> = Vec::new();
        for (index, accept, seen) in self.accepts {
            match admit(tx, accept, seen).await {
                Ok(()) => accepted.extend(&accept.messages),
                Err(refused @ (StoreError::Conflict { .. } | StoreError::IdempotencyKeyUsed)) => {
                    answers[index] = Err(refused);
                }
                Err(error) => return Err(error),
            }
        }
        if !accepted.is_empty() {
            accepting::prepare(tx, &accepted).await?;
        }
        let known = self.finishes.into_iter();
        let known = known.filter(|finish| tx.known_endpoint(finish.due.endpoint).is_ok());
        let mut waves = finishing::waves(known).into_iter();
        let first = waves.next().unwrap_or_default();
        let recorded = first.iter().filter(|finish| finish.attempt.is_some());
        let made: Vec<_> = recorded.map(|f| f.due.delivery.created_at()).collect();
        accepting::make_days(tx, made.into_iter()).await?;
        futures_util::try_join!(
            accepting::messages(tx, &accepted),
            accepting::due_rows(tx, &accepted),
            finishing::finish(tx, &first),
        )?;
        for wave in waves {
            finishing::finish(tx, &wave).await?;
        }
        let mut receivers = Vec::new();
        for work in self.receivers {
            if let Work::Finish { receivers: of, .. } = work {
                receivers.extend(of.iter().cloned());
            }
        }
        finishing::remember(tx, receivers).await?;
        for new in accepted {
            accepting::announce(tx, new);
        }
        Ok(())
    }
}

/// Refuses messages that cannot be accepted, and uses up their key.
async fn admit(tx: &Tx<'_>, accept: &Accept, seen: u64) -> Outcome<()> {
    tx.recent.refuse_accept(accept, seen)?;
    accepting::check(tx, &accept.messages)?;
    if let Some(record) = &accept.idempotency {
        let now = accepting::accepted_at(accept);
        put_idempotent_answer(tx.session, record, now).await?;
    }
    Ok(())
}
