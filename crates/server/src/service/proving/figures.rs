//! Open rotations in numbers: for metrics.
//!
//! Nothing here reads the store. Evidence is told one endpoint at a time for a bounded number of them, by the node
//! that sends to it, so that of several nodes one tells each.

use std::collections::HashMap;

use hookturn_core::proof::{Evidence, policy_of};
use hookturn_core::rotation::{Mode, Rotation, Stage};
use hookturn_core::time::Timestamp;

use super::Service;
use crate::telemetry::metrics::{EvidenceFigures, KnownEvidence};

/// Open rotations in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationFigures {
    /// Open rotations by mode.
    pub open: HashMap<&'static str, i64>,
    /// Endpoints of open rotations of mode `proven`, by where they stand.
    pub standing: HashMap<&'static str, i64>,
}

impl Service {
    /// How many rotations are open by mode, and how many of their endpoints stand where: for metrics.
    pub fn rotation_figures(&self) -> RotationFigures {
        let now = self.clock.now();
        let mut figures = RotationFigures::default();
        for workspace in self.live.workspaces() {
            for keyring in self.live.keyrings(workspace.id) {
                let Some(rotation) = keyring.open_rotation(now) else {
                    continue;
                };
                *figures.open.entry(rotation.mode.as_str()).or_default() += 1;
                if !matches!(rotation.mode, Mode::Proven { .. }) {
                    continue;
                }
                let policy = policy_of(rotation);
                for endpoint in self.endpoints_that_count(&keyring, rotation.mode, now) {
                    let evidence =
                        Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id);
                    let standing = evidence.standing_in(rotation, &policy, now).as_str();
                    *figures.standing.entry(standing).or_default() += 1;
                }
            }
        }
        figures
    }

    /// What is known of the receivers of open rotations, at most of `most`: of those whose rotation has the nearest
    /// deadline. The others are counted.
    pub fn rotation_evidence(&self, most: usize) -> EvidenceFigures {
        let now = self.clock.now();
        let mut open: Vec<_> = self
            .live
            .open_keyrings()
            .into_iter()
            .filter_map(|keyring| {
                let rotation = keyring.open_rotation(now)?;
                Some((deadline(rotation, now), rotation.id, keyring))
            })
            .collect();
        open.sort_unstable_by_key(|(deadline, id, _)| (deadline.is_none(), *deadline, *id));
        let mut figures = EvidenceFigures::default();
        for (_, _, keyring) in &open {
            let Some(rotation) = keyring.open_rotation(now) else {
                continue;
            };
            let policy = policy_of(rotation);
            let counted = self.endpoints_that_count(keyring, rotation.mode, now);
            for endpoint in counted.iter().filter(|one| self.store.owns(one.id)) {
                if figures.known.len() >= most {
                    figures.left_out += 1;
                    continue;
                }
                let evidence =
                    Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id);
                figures.known.push(KnownEvidence {
                    endpoint: endpoint.id,
                    evidence,
                    policy,
                    standing: evidence.standing_in(rotation, &policy, now),
                });
            }
        }
        figures
    }
}

/// When something happens to a rotation whatever is known: the end of its old secret, and before the promotion of a
/// proven one the deadline of its policy.
fn deadline(rotation: &Rotation, now: Timestamp) -> Option<Timestamp> {
    match (rotation.stage.at(now), rotation.mode) {
        (Stage::Overlap { retire_at }, _) => Some(retire_at),
        (Stage::Staged, Mode::Proven { policy }) => {
            Some(rotation.opened_at.after(policy.deadline_millis))
        }
        (
            Stage::Staged
            | Stage::Completed { .. }
            | Stage::Cancelled { .. }
            | Stage::Undone { .. },
            Mode::Immediate | Mode::Overlap { .. } | Mode::Staged { .. } | Mode::Proven { .. },
        ) => None,
    }
}
