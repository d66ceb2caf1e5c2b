//! What is known of receivers where it cannot be asked, and when a rotation ends.

use hookturn_core::audit::{AuditAction, AuditEntry};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::{Evidence, ProofPolicy, RELEASED_ASKED, Release, Released};
use hookturn_core::rotation::{Applied, Mode, Rotation};
use hookturn_core::time::Timestamp;

use super::super::Service;
use super::EndpointStanding;

/// The evidence of an endpoint that gets no probes, as if it had been asked and not answered: what cannot
/// be asked whether it dropped the old secret holds nothing up.
///
/// That it refused the new secret stays as it is while deliveries go to it. Where none do, nothing can be
/// lost: the quiet time counts from that refusal, and the rotation ends.
pub(super) fn unaskable(known: &Evidence, sends: bool, now: Timestamp) -> Evidence {
    let released = Released {
        silent: RELEASED_ASKED,
        asked_at: Some(now),
        ..known.released
    };
    let asked = Evidence { released, ..*known };
    if sends {
        return asked;
    }
    Evidence {
        old_needed_at: known.old_needed_at.max(known.probe_refused_at),
        probe_refused_at: None,
        ..asked
    }
}

impl Service {
    /// Why an endpoint cannot be asked about an open rotation of mode `proven`, if it cannot.
    pub(in super::super) fn unasked(
        &self,
        rotation: &Rotation,
        endpoint: &Endpoint,
        now: Timestamp,
    ) -> Option<&'static str> {
        let asks = matches!(rotation.mode, Mode::Proven { .. }) && rotation.stage.at(now).is_open();
        let refused = self.check_can_be_probed(endpoint).err().filter(|_| asks)?;
        Some(refused.code())
    }

    /// The audit entries of a change, those of completed rotations with what was known of their receivers.
    pub(in super::super) fn with_knowledge(
        &self,
        applied: &Applied,
        now: Timestamp,
    ) -> Vec<AuditEntry> {
        let known = |entry: &AuditEntry| {
            let rotation = applied
                .rotations
                .iter()
                .find(|rotation| Some(rotation.id) == entry.subject.rotation)?;
            let waits = !matches!(rotation.mode, Mode::Immediate);
            (entry.action == AuditAction::RotationCompleted && waits).then_some(rotation)
        };
        let tell = |entry: &AuditEntry| match known(entry) {
            Some(rotation) => self.telling(entry.clone(), applied, rotation, now),
            None => entry.clone(),
        };
        applied.audit.iter().map(tell).collect()
    }

    fn telling(
        &self,
        entry: AuditEntry,
        applied: &Applied,
        rotation: &Rotation,
        now: Timestamp,
    ) -> AuditEntry {
        let counted = self.endpoints_that_count(&applied.keyring, rotation.mode, now);
        let known: Vec<Evidence> = counted
            .iter()
            .map(|endpoint| Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id))
            .collect();
        let count = |which: fn(&Evidence) -> bool| known.iter().filter(|one| which(one)).count();
        entry
            .with("endpoints", known.len())
            .with("acceptNew", count(Evidence::holds_new))
            .with("refuseNew", count(|one| one.lacks_new_since().is_some()))
            .with(
                "acceptOld",
                count(|one| matches!(one.released.verdict(), Release::StillAccepts { .. })),
            )
    }
}

impl EndpointStanding {
    /// Where it stands, in a sentence.
    pub fn words(&self, policy: &ProofPolicy) -> String {
        self.after_obstacle(self.standing.words(policy))
    }

    /// The same without the time that ends it.
    pub fn phrase(&self, policy: &ProofPolicy) -> String {
        self.after_obstacle(self.standing.phrase(policy))
    }

    fn after_obstacle(&self, words: String) -> String {
        let obstacle = match self.unasked {
            None => return words,
            Some("endpoint_not_enabled") if self.is_shared => {
                "the endpoint is not enabled: enable it, delete it, wait until it accepted nothing for the \
                 look-back time, or promote with force"
            }
            Some("endpoint_not_enabled") => {
                "the endpoint is not enabled: enable it, or cancel or finish the rotation"
            }
            Some("probes_off") => {
                "probes are turned off for it: turn them on, or cancel or finish the rotation"
            }
            Some(_) => {
                "it accepted nothing yet: send a test event, or cancel or finish the rotation"
            }
        };
        format!("it cannot be asked, because {obstacle}; known so far: {words}")
    }
}
