//! The state machine: one command on one keyring, decided whole.
//!
//! This file says what each command does; `change` holds the moves that commands are made of.

use super::change::Change;
use super::{
    Command, Grounds, Keyring, Mode, NewSecret, Promotion, PromotionGrounds, ProvedEndpoint,
    Rejected, Rotation, SecretState, SecretStatus, Stage,
};
use crate::audit::{AuditAction, AuditEntry};
use crate::id::{RotationId, SecretId};
use crate::limits;
use crate::time::{Millis, Timestamp};

/// What a command changed: everything that is to be stored in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The keyring as it is now; its version is one more than before.
    pub keyring: Keyring,
    /// The rotations that are new or changed, oldest first: at most two (one ends, one opens).
    pub rotations: Vec<Rotation>,
    /// The secrets whose sealed values are to be erased.
    pub destroyed: Vec<SecretId>,
    /// Those among them that were retired and are destroyed by nobody's wish: the keyring forgets them to
    /// make room.
    pub forgotten: Vec<SecretId>,
    /// What was done, in order.
    pub audit: Vec<AuditEntry>,
}

/// Decides what `command` does to `keyring` at `now`.
///
/// 1. First what time has done is written down: a secret past its `retireAt` is retired (as of
///    that moment) and its rotation completed. A refused command writes down nothing, this
///    included; `Settle` alone is refused when there is nothing to write down.
/// 2. *Create*: the first secret of a keyring becomes active at once, without a rotation. Every
///    later one becomes pending and opens a staged rotation. While another is pending it is
///    refused, unless asked to replace: then the pending one is destroyed and its rotation
///    cancelled. While an overlap is open, or an undone secret is retiring, it is refused.
/// 3. *Rotate* is refused without an active secret and, in every mode but `immediate`, while a
///    rotation is open or the secret that an undo left retiring is live: a live secret is never
///    thrown away by accident. `overlap` makes the new
///    secret active and the old one retiring; `staged` and `proven` make the new one pending.
/// 4. *Rotate immediate* is never refused for what is open, for it is the answer to a leak:
///    afterwards the new secret is the only one that signs. The active and a retiring secret are
///    retired at once, an open overlap thereby completed; a pending one is destroyed, its rotation
///    cancelled.
/// 5. *Activate* and *promote* make the pending secret active and the old one retiring for the
///    rotation's overlap (activate may name another); with an overlap of 0 the old one is
///    retired at once and the rotation is completed. A rotation in mode `proven` is promoted by
///    recorded proof of this very rotation or by force, and by nothing else (G7); its old secret
///    stays until the policy's deadline, and at least for its quiet time.
/// 6. *Extend* moves the end of the retiring secret to a later time, at most the longest overlap
///    from now. *Finish* retires it now. Both also work on the secret that an undo left retiring.
/// 7. *Undo* is the same move backwards: the old secret is active again, and the new one stays live
///    for the rotation's overlap, in mode `proven` for its quiet time, or for the time that the old
///    one had left if that is longer (at once retired for 0). Until then
///    it only serves receivers that had switched, in an overlap's plan. It is refused unless
///    this is the latest rotation, is in overlap or completed, and the old secret is neither
///    destroyed nor compromised. The rotation is over; the next one may start when the undone
///    secret is retired, by time or by *finish*, or at once in mode `immediate`, which retires it.
/// 8. *Cancel* destroys the pending secret; it never becomes active.
/// 9. *Compromise* marks a secret. An active one goes on signing until it is rotated away:
///    silence would lose messages. A retiring one is retired at once and a pending one destroyed,
///    with the end of their rotation, because a compromised secret neither co-signs nor is a
///    fallback. Rotating away from or undoing a compromised secret retires it at once.
/// 10. *Destroy* erases a retired secret. *Rename* changes a name.
/// 11. A secret whose id or fingerprint the keyring remembers cannot be added again, so that a
///     secret that must not sign does not come back as a new one.
/// 12. A keyring that remembers as many secrets as it may forgets its oldest destroyed one, and
///     destroys its oldest retired one for that if need be; adding a secret is never refused.
pub fn apply(keyring: &Keyring, command: Command, now: Timestamp) -> Result<Applied, Rejected> {
    apply_all(keyring, [command], now)
}

/// Decides what several commands do, one after the other, as one change: all of them or none, and
/// the keyring's version grows once. See [`apply()`].
pub fn apply_all(
    keyring: &Keyring,
    commands: impl IntoIterator<Item = Command>,
    now: Timestamp,
) -> Result<Applied, Rejected> {
    let mut change = Change::new(keyring, now);
    let settled = change.settle();
    for command in commands {
        change.run(command, settled)?;
    }
    Ok(change.into_applied())
}

/// The commands, in the order of the list above.
impl Change {
    fn run(&mut self, command: Command, settled: bool) -> Result<(), Rejected> {
        match command {
            Command::CreateSecret {
                secret,
                rotation,
                overlap,
                replace_pending,
                reason,
            } => self.create(secret, rotation, overlap, replace_pending, reason),
            Command::Rotate {
                rotation,
                mode,
                secret,
                reason,
            } => self.rotate(rotation, mode, secret, reason),
            Command::Activate { secret, overlap } => self.activate(secret, overlap),
            Command::Promote { rotation, grounds } => self.promote(rotation, grounds),
            Command::Extend {
                rotation,
                retire_at,
                is_asked,
            } => self.extend(rotation, retire_at, is_asked),
            Command::Finish { rotation } => self.finish(rotation),
            Command::Undo { rotation } => self.undo(rotation),
            Command::Cancel { rotation } => {
                let rotation = self.latest_staged(rotation)?;
                self.cancel(rotation, "cancelled");
                Ok(())
            }
            Command::Compromise { secret } => self.compromise(secret),
            Command::Destroy { secret } => self.destroy(secret),
            Command::Rename { secret, name } => self.rename(secret, name),
            Command::Settle if settled => Ok(()),
            Command::Settle => Err(Rejected::NothingToSettle),
        }
    }

    fn settle(&mut self) -> bool {
        let due: Vec<(SecretId, Timestamp)> = self
            .keyring
            .secrets
            .iter()
            .filter_map(|secret| match secret.state {
                SecretState::Retiring { retire_at, .. } if self.now >= retire_at => {
                    Some((secret.id, retire_at))
                }
                SecretState::Retiring { .. }
                | SecretState::Pending
                | SecretState::Active { .. }
                | SecretState::Retired { .. }
                | SecretState::Destroyed { .. } => None,
            })
            .collect();
        for &(secret, retire_at) in &due {
            self.retire(secret, retire_at, "expired");
        }
        !due.is_empty()
    }

    fn create(
        &mut self,
        secret: NewSecret,
        rotation: RotationId,
        overlap: Millis,
        replace_pending: bool,
        reason: Option<String>,
    ) -> Result<(), Rejected> {
        check_text("reason", reason.as_deref())?;
        check_overlap(overlap)?;
        self.check_new(&secret)?;
        let Some(active) = self.keyring.active().map(|active| active.id) else {
            let first = secret.id;
            self.add(secret);
            self.make_active(first);
            return Ok(());
        };
        if let Some(open) = self.keyring.rotation_in_the_way(self.now).cloned() {
            match open.stage {
                Stage::Staged if replace_pending => {
                    self.audit_secret(open.to, AuditAction::SecretReplaced, &[("by", &secret.id)]);
                    self.cancel(open, "replaced");
                }
                Stage::Staged => {
                    return Err(Rejected::PendingExists {
                        secret: open.to,
                        rotation: open.id,
                    });
                }
                Stage::Overlap { .. }
                | Stage::Completed { .. }
                | Stage::Cancelled { .. }
                | Stage::Undone { .. } => return Err(rotation_open(&open)),
            }
        }
        self.open(rotation, Mode::Staged { overlap }, active, secret, reason);
        Ok(())
    }

    fn rotate(
        &mut self,
        rotation: RotationId,
        mode: Mode,
        secret: NewSecret,
        reason: Option<String>,
    ) -> Result<(), Rejected> {
        check_text("reason", reason.as_deref())?;
        check_mode(mode)?;
        self.check_new(&secret)?;
        let Some(active) = self.keyring.active().map(|active| active.id) else {
            return Err(Rejected::NoActiveSecret);
        };
        let open = self.keyring.rotation_in_the_way(self.now).cloned();
        match (mode, open) {
            (Mode::Overlap { .. } | Mode::Staged { .. } | Mode::Proven { .. }, Some(open)) => {
                return Err(rotation_open(&open));
            }
            (Mode::Immediate, Some(open)) if open.stage == Stage::Staged => {
                self.cancel(open, "superseded");
            }
            // `open` retires whatever is retiring: it completes an overlap, and ends what an undo kept.
            (Mode::Immediate, Some(_))
            | (
                Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } | Mode::Proven { .. },
                None,
            ) => {}
        }
        self.open(rotation, mode, active, secret, reason);
        Ok(())
    }

    fn activate(&mut self, id: SecretId, overlap: Option<Millis>) -> Result<(), Rejected> {
        check_overlap(overlap.unwrap_or(0))?;
        let secret = self.known(id)?;
        let status = secret.status(self.now);
        let open = self.keyring.open_rotation(self.now).cloned();
        match open {
            Some(mut rotation) if status == SecretStatus::Pending && rotation.to == id => {
                if let Mode::Proven { .. } = rotation.mode {
                    return Err(Rejected::NotProven {
                        rotation: rotation.id,
                    });
                }
                if let Some(overlap) = overlap {
                    rotation.mode = Mode::Staged { overlap };
                }
                self.hand_over_staged(rotation, PromotionGrounds::Asked);
                Ok(())
            }
            Some(_) | None => Err(Rejected::NotPending { secret: id, status }),
        }
    }

    fn promote(&mut self, id: RotationId, grounds: Grounds) -> Result<(), Rejected> {
        let rotation = self.latest_staged(id)?;
        let grounds = match (rotation.mode, grounds) {
            (Mode::Proven { .. }, Grounds::Proof(proof)) if proof.rotation() == id => {
                let endpoints = proof.endpoints().iter();
                PromotionGrounds::Proof {
                    endpoints: endpoints
                        .map(|&(endpoint, passes)| ProvedEndpoint { endpoint, passes })
                        .collect(),
                }
            }
            (Mode::Proven { .. }, Grounds::Force) => PromotionGrounds::Force,
            (Mode::Proven { .. }, Grounds::Asked | Grounds::Proof(_)) => {
                return Err(Rejected::NotProven { rotation: id });
            }
            (Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. }, _) => {
                PromotionGrounds::Asked
            }
        };
        self.hand_over_staged(rotation, grounds);
        Ok(())
    }

    fn hand_over_staged(&mut self, rotation: Rotation, grounds: PromotionGrounds) {
        let overlap = rotation.overlap_from(self.now);
        let rotation = Rotation {
            promotion: Some(Promotion {
                at: self.now,
                grounds,
            }),
            ..rotation
        };
        self.audit_rotation(&rotation, AuditAction::RotationPromoted);
        self.hand_over(rotation, overlap);
    }

    fn extend(
        &mut self,
        id: RotationId,
        retire_at: Timestamp,
        is_asked: bool,
    ) -> Result<(), Rejected> {
        let (rotation, secret, present) = self.latest_retiring(id)?;
        if retire_at <= present {
            return Err(Rejected::NotLater { retire_at: present });
        }
        if retire_at > self.now.after(limits::OVERLAP_MAX) {
            return Err(Rejected::RetiresTooLate);
        }
        let stage = match rotation.stage {
            Stage::Undone { at, .. } => Stage::Undone { at, retire_at },
            Stage::Staged
            | Stage::Overlap { .. }
            | Stage::Completed { .. }
            | Stage::Cancelled { .. } => Stage::Overlap { retire_at },
        };
        let kept_until = if is_asked {
            Some(retire_at)
        } else {
            rotation.kept_until
        };
        let rotation = Rotation {
            stage,
            kept_until,
            ..rotation
        };
        self.audit_rotation(&rotation, AuditAction::RotationExtended);
        self.put_rotation(rotation);
        self.retire_later(secret, retire_at);
        Ok(())
    }

    fn finish(&mut self, id: RotationId) -> Result<(), Rejected> {
        let (rotation, secret, _) = self.latest_retiring(id)?;
        self.audit_rotation(&rotation, AuditAction::RotationFinished);
        self.retire(secret, self.now, "finished");
        Ok(())
    }

    fn undo(&mut self, id: RotationId) -> Result<(), Rejected> {
        let rotation = self.latest(id)?;
        let stage = rotation.stage;
        match stage {
            Stage::Overlap { .. } | Stage::Completed { .. } => {}
            Stage::Staged | Stage::Cancelled { .. } | Stage::Undone { .. } => {
                return Err(Rejected::NothingToUndo {
                    rotation: id,
                    stage,
                });
            }
        }
        // A secret that was forgotten had been destroyed.
        let old = match self.keyring.secret(rotation.from) {
            Some(old) if old.status(self.now) != SecretStatus::Destroyed => old,
            Some(_) | None => {
                return Err(Rejected::UndoDestroyed {
                    secret: rotation.from,
                });
            }
        };
        if old.compromised.is_some() {
            return Err(Rejected::UndoCompromised { secret: old.id });
        }
        let (old, new) = (rotation.from, rotation.to);
        // Who holds the new one is promised no less time to go back than there was to come.
        let left = match stage {
            Stage::Overlap { retire_at } => retire_at.since(self.now),
            Stage::Staged
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. } => 0,
        };
        let span = if self.is_compromised(new) {
            0
        } else {
            rotation.mode.overlap().max(left).min(limits::OVERLAP_MAX)
        };
        let undone = Rotation {
            stage: Stage::Undone {
                at: self.now,
                retire_at: self.now.after(span),
            },
            ..rotation
        };
        self.audit_rotation(&undone, AuditAction::RotationUndone);
        self.put_rotation(undone);
        self.make_active(old);
        self.stop_being_active(new, span, "undone");
        Ok(())
    }

    fn cancel(&mut self, rotation: Rotation, cause: &str) {
        let pending = rotation.to;
        let cancelled = Rotation {
            stage: Stage::Cancelled { at: self.now },
            ..rotation
        };
        self.audit_rotation(&cancelled, AuditAction::RotationCancelled);
        self.put_rotation(cancelled);
        self.erase(pending, cause);
    }

    fn compromise(&mut self, id: SecretId) -> Result<(), Rejected> {
        let secret = self.known(id)?;
        if let Some(since) = secret.compromised {
            return Err(Rejected::AlreadyCompromised {
                secret: id,
                since,
                status: secret.status(self.now),
            });
        }
        let status = secret.status(self.now);
        let now = self.now;
        self.update(id, |secret| secret.compromised = Some(now));
        self.audit_secret(id, AuditAction::SecretCompromised, &[("status", &status)]);
        match status {
            SecretStatus::Active | SecretStatus::Retired | SecretStatus::Destroyed => {}
            SecretStatus::Retiring => self.retire(id, self.now, "compromised"),
            SecretStatus::Pending => {
                if let Some(rotation) = self.keyring.open_rotation(self.now).cloned() {
                    self.cancel(rotation, "compromised");
                }
            }
        }
        Ok(())
    }

    fn destroy(&mut self, id: SecretId) -> Result<(), Rejected> {
        let status = self.known(id)?.status(self.now);
        match status {
            SecretStatus::Retired => {
                self.erase(id, "asked");
                Ok(())
            }
            SecretStatus::Pending
            | SecretStatus::Active
            | SecretStatus::Retiring
            | SecretStatus::Destroyed => Err(Rejected::NotRetired { secret: id, status }),
        }
    }

    fn rename(&mut self, id: SecretId, name: Option<String>) -> Result<(), Rejected> {
        check_text("name", name.as_deref())?;
        self.known(id)?;
        let now = self.now;
        self.update(id, |secret| {
            secret.name = name;
            secret.renamed_at = Some(now);
        });
        self.audit_secret(id, AuditAction::SecretRenamed, &[]);
        Ok(())
    }
}

fn rotation_open(open: &Rotation) -> Rejected {
    Rejected::RotationOpen {
        open: open.id,
        stage: open.stage,
    }
}

fn check_mode(mode: Mode) -> Result<(), Rejected> {
    match mode {
        Mode::Immediate => Ok(()),
        Mode::Overlap { overlap } | Mode::Staged { overlap } => check_overlap(overlap),
        Mode::Proven { policy } => policy.check().map_err(Rejected::InvalidPolicy),
    }
}

const fn check_overlap(overlap: Millis) -> Result<(), Rejected> {
    if overlap > limits::OVERLAP_MAX {
        Err(Rejected::OverlapTooLong)
    } else {
        Ok(())
    }
}

pub(super) fn check_text(field: &'static str, text: Option<&str>) -> Result<(), Rejected> {
    match text {
        Some(text) if text.chars().count() > limits::TEXT_CHARS => {
            Err(Rejected::TextTooLong { field })
        }
        Some(_) | None => Ok(()),
    }
}
