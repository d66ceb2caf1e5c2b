//! What is known of receivers where it cannot be asked, and when a rotation ends.

use hookturn_core::audit::{AuditAction, AuditEntry};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::proof::{Evidence, ProofPolicy, RELEASED_ASKED, Release, Released};
use hookturn_core::rotation::{Applied, Mode, Rotation};
use hookturn_core::time::Timestamp;

use super::super::Service;
use super::EndpointStanding;

/// The evidence of an endpoint that gets no probes, as if it had been asked and not answered: what cannot
/// be asked whether it dropped the old secret holds nothing up, and moves no deadline by its silence.
///
/// That it refused the new secret, or never accepted it, stays as it is while deliveries go to it: then the deadline
/// decides. If it accepted it, nobody can ask once more, and the length of the quiet time is enough. Where no
/// deliveries go nothing can be lost: the quiet time counts from the latest refusal, and the rotation ends.
pub(super) fn unaskable(known: &Evidence, sends: bool, now: Timestamp) -> Evidence {
    let released = Released {
        silent: RELEASED_ASKED,
        asked_at: Some(now),
        ..known.released
    };
    let asked = Evidence {
        released,
        probed_at: None,
        ..*known
    };
    if !sends {
        return Evidence {
            old_needed_at: known.old_needed_at.max(known.probe_refused_at),
            probe_refused_at: None,
            first_passed_at: Some(Timestamp::EPOCH),
            passed_at: Some(now),
            ..asked
        };
    }
    if known.lacks_new_since().is_some() || known.passed_at.is_none() {
        return asked;
    }
    Evidence {
        passed_at: Some(now),
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
        let Some(code) = self.unasked else {
            return words;
        };
        let obstacle = match code {
            "endpoint_not_enabled" if self.is_shared => {
                "the endpoint is not enabled: enable it, delete it, wait until it accepted nothing for the \
                 look-back time"
            }
            "endpoint_not_enabled" => "the endpoint is not enabled: enable it",
            "probes_off" => "probes are turned off for it: turn them on",
            _ => "it accepted nothing yet: send a test event",
        };
        // Only a staged rotation can be promoted or cancelled, and only one in its overlap finished.
        let otherwise = if self.is_staged {
            "promote with force, or cancel the rotation"
        } else {
            "or finish the rotation"
        };
        format!("it cannot be asked, because {obstacle}, {otherwise}; known so far: {words}")
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::id::RotationId;
    use hookturn_core::proof::{Observed, ProbeAnswer};
    use hookturn_core::time::HOUR;

    use super::*;

    #[test]
    fn what_cannot_be_asked_needs_to_be_seen_with_the_new_secret_only_where_something_is_sent_to_it()
     {
        let policy = ProofPolicy::default();
        let promoted = Timestamp::EPOCH.after(HOUR);
        let quiet = promoted.after(policy.quiet_millis);
        let never = Evidence::new(RotationId::from_bytes([7; 16]));
        let heard = |answer| never.after(&policy, Observed::Probe, answer, promoted);
        let (accepted, silent) = (heard(ProbeAnswer::Accepted), heard(ProbeAnswer::Silent));
        let refused = heard(ProbeAnswer::Refused);
        for (known, sends, ends) in [
            (never, true, None),
            (never, false, Some(quiet)),
            (silent, true, None),
            (silent, false, Some(quiet)),
            (refused, true, None),
            (refused, false, Some(quiet)),
            (accepted, true, Some(quiet)),
            (accepted, false, Some(quiet)),
        ] {
            let unasked = unaskable(&known, sends, quiet);
            assert_eq!(
                unasked.quiet_at(&policy, promoted),
                ends,
                "{sends} {known:?}"
            );
            // Its silence moves no deadline; that it refused the new secret does.
            let needed = unasked.needed_old_since(promoted);
            assert_eq!(needed, sends && known == refused, "{sends} {known:?}");
        }
        assert_eq!(
            accepted.quiet_at(&policy, promoted),
            None,
            "it was not asked again"
        );
    }
}
