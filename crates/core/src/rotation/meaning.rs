//! What a rotation means for deliveries, in a sentence: those under way and those to come.

use super::{Mode, Rotation, Stage};
use crate::proof::OnDeadline;
use crate::time::Timestamp;

impl Rotation {
    /// What happens to deliveries at `now`: what signs them, and what becomes of a request that is
    /// on the wire and was signed before.
    ///
    /// Every stage has its sentence, so that whoever opens, promotes, extends, undoes, finishes or
    /// cancels is told what was done to traffic.
    pub fn deliveries(&self, now: Timestamp) -> String {
        match (self.stage.at(now), self.mode) {
            (Stage::Staged, Mode::Proven { .. }) => {
                "deliveries go on with the old secret; a small share is signed with the new one first, \
                 unless the old one is marked as compromised, and whatever is refused is sent again at once with the other: nothing is held back, and \
                 the receiver may deploy at any moment"
                    .to_owned()
            }
            (Stage::Staged, Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. }) => {
                "deliveries go on with the old secret, and one that is refused is sent again at once with \
                 the new one: nothing is held back, and the receiver may deploy before the promotion"
                    .to_owned()
            }
            (Stage::Overlap { retire_at }, mode) => format!(
                "until {retire_at}{} each delivery, retries included, is signed when it is sent with the \
                 secret its receiver is believed to hold, or with both, and sent again at once with the \
                 other when it is refused",
                moves(mode, retire_at, self.kept_at(now))
            ),
            (Stage::Completed { .. }, _) => {
                "every request that is signed from now on, retries of older messages included, carries \
                 the new secret alone; one that is on the wire already keeps its signature, and is \
                 retried with the new secret if it is refused"
                    .to_owned()
            }
            (Stage::Cancelled { .. }, _) => {
                "every request that is signed from now on carries the old secret alone; a receiver that \
                 deployed the dropped one refuses, and its deliveries are retried as their policy says"
                    .to_owned()
            }
            (Stage::Undone { retire_at, .. }, _) if now < retire_at => format!(
                "the old secret is the active one again, and the new one stays live until {retire_at}: a \
                 receiver that deployed it already loses nothing while it goes back"
            ),
            (Stage::Undone { .. }, _) => {
                "every request that is signed from now on, retries included, carries the old secret \
                 alone; a receiver that deployed the new one refuses, and its deliveries are retried as \
                 their policy says"
                    .to_owned()
            }
        }
    }
}

/// How the end of an overlap at `retire_at` may move by itself, given until when the old secret is kept.
fn moves(mode: Mode, retire_at: Timestamp, kept: Option<Timestamp>) -> String {
    let Mode::Proven { policy } = mode else {
        return String::new();
    };
    let sooner = match kept {
        None => "sooner when the old secret is needed no longer".to_owned(),
        Some(until) if until < retire_at => format!(
            "sooner, but not before {until}, to which somebody extended it, when the old secret is needed no longer"
        ),
        Some(_) => "not sooner, because somebody extended it".to_owned(),
    };
    match policy.on_deadline {
        OnDeadline::Extend => format!(" ({sooner}, later while it is needed)"),
        OnDeadline::Cut => format!(" ({sooner})"),
    }
}
