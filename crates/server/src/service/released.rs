//! *Released*: asking receivers whether they still accept a rotation's old secret.
//!
//! A proven rotation asks by itself, when the old secret is quiet and about to be retired. By command it can be
//! asked of any rotation while its old secret is retiring; a retired one never signs again (G4), so nothing
//! can be asked with it. Marking a secret as compromised retires it, so whoever wants to know after a leak asks
//! first. Each command is in the audit log before its first probe is signed.
//! docs/adr/0008-asking-whether-a-secret-is-released.md has the reasons.
//!
//! Each probe is taken from what people may ask an endpoint in an hour, and waits for its host as those of a sweep
//! do, though not for ever ([`limits::COMMAND_WAITS`]). An endpoint for which there is no room is named as not asked;
//! where that is so of all, the command is refused.
//!
//! The answers are kept with the evidence of the rotation while it is the latest of its keyring.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::endpoint::Endpoint;
use hookturn_core::id::{EndpointId, RotationId};
use hookturn_core::limits;
use hookturn_core::proof::{Evidence, Observed, ProbeAnswer, ProbeKey, Release, policy_of};
use hookturn_core::rotation::{Keyring, Rotation, SecretStatus, SecretVersion};
use hookturn_core::time::{Millis, Timestamp};
use hookturn_core::workspace::Scope;
use tokio::time::timeout;

use super::keyrings::as_of;
use super::proving::{Prober, used_up};
use super::{Caller, Decision, Recording, Service, ServiceError, check_version};
use crate::courier::Probed;

/// Endpoints that one command asks; those that were asked longest ago come first.
const ASKED: usize = 200;
/// Probes of one command that may be under way at once.
const AT_ONCE: usize = 16;

/// What receivers answered to the old secret.
#[derive(Debug, Clone)]
pub struct ReleaseReport {
    /// The rotation.
    pub rotation: RotationId,
    /// Each endpoint of its keyring, and what it answered.
    pub endpoints: Vec<ReleaseAnswer>,
}

/// What one receiver answered.
#[derive(Debug, Clone)]
pub struct ReleaseAnswer {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What is known now: the latest answer, of this command or an earlier one.
    pub release: Release,
    /// Status of the answer to this command's probe, if that is what `release` says.
    pub status: Option<u16>,
    /// Why it was not asked, or why there was no answer that says anything, while an earlier one does.
    pub failure: Option<String>,
}

impl ReleaseAnswer {
    /// What is known after a probe. Where an earlier answer is the latest one that tells, the status of this one does
    /// not stand beside it.
    fn after(endpoint: EndpointId, release: Release, probed: Probed) -> Self {
        let tells = release.at() == Some(probed.sent_at);
        let failure = if tells {
            probed.failure
        } else {
            let answered = match (probed.status, probed.failure) {
                (_, Some(failure)) => failure,
                (Some(status), None) => {
                    format!("the answer was {status}, which says nothing about the old secret")
                }
                (None, None) => "there was no answer".to_owned(),
            };
            Some(format!("asked again at {}: {answered}", probed.sent_at))
        };
        Self {
            endpoint,
            release,
            status: probed.status.filter(|_| tells),
            failure,
        }
    }
}

impl ReleaseReport {
    /// How many receivers refuse the old secret, and how many still accept it.
    pub fn tally(&self) -> (usize, usize) {
        let count = |wanted: fn(Release) -> bool| {
            self.endpoints
                .iter()
                .filter(|answer| wanted(answer.release))
                .count()
        };
        (
            count(|release| matches!(release, Release::Released { .. })),
            count(|release| matches!(release, Release::StillAccepts { .. })),
        )
    }
}

impl Service {
    /// Asks the receivers of a rotation whether they still accept its old secret. Needs `secrets`.
    pub async fn ask_released(
        &self,
        caller: &Caller,
        id: RotationId,
        if_match: Option<u64>,
        prober: &dyn Prober,
        recording: Option<Recording<'_, ReleaseReport>>,
    ) -> Result<ReleaseReport, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let rotation = as_of(self.stored_rotation(caller, id).await?, self.clock.now());
        let keyring = self.own_keyring(caller, rotation.keyring)?;
        check_version(if_match, keyring.version)?;
        let old = former(&keyring, &rotation, self.clock.now())?;
        let subject = Subject {
            keyring: Some(keyring.id),
            rotation: Some(id),
            secret: Some(old.id),
            ..Subject::default()
        };
        let endpoints = self.to_ask(&keyring, &rotation);
        self.check_budget(&endpoints)?;
        let mut entry = AuditEntry::new(AuditAction::RotationReleaseAsked, subject);
        entry.fingerprint = Some(old.fingerprint);
        self.store
            .audit(
                caller.workspace,
                caller.context(),
                vec![entry],
                self.clock.now(),
            )
            .await?;
        let until = self.clock.now().after(limits::COMMAND_WAITS);
        let asking: Vec<_> = endpoints
            .iter()
            .map(|endpoint| self.ask_one(endpoint, &rotation, prober, until))
            .collect();
        let answers = futures_util::stream::iter(asking)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let report = ReleaseReport {
            rotation: id,
            endpoints: answers,
        };
        self.keep_findings().await?;
        if recording.is_some() {
            self.change(caller, recording, |_| Ok(Decision::nothing(report.clone())))
                .await?;
        }
        Ok(report)
    }

    fn to_ask(&self, keyring: &Keyring, rotation: &Rotation) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.live.keyring_users(keyring);
        endpoints.sort_by_key(|endpoint| {
            let evidence = Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id);
            (evidence.released.asked_at, endpoint.id)
        });
        endpoints.truncate(ASKED);
        endpoints
    }

    /// Refuses the command when every endpoint that could be asked got as many probes by command as it may.
    fn check_budget(&self, endpoints: &[Arc<Endpoint>]) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let mut soonest: Option<Millis> = None;
        for endpoint in endpoints {
            if self.check_can_be_probed(endpoint).is_err() {
                continue;
            }
            match self.politeness.allow(endpoint.id, 1, now) {
                Ok(_) => return Ok(()),
                Err(wait) => soonest = Some(soonest.map_or(wait, |known| known.min(wait))),
            }
        }
        soonest.map_or(Ok(()), |wait| Err(used_up(wait)))
    }

    /// Asks one receiver, if there is room for it before `until`.
    async fn ask_one(
        &self,
        endpoint: &Endpoint,
        rotation: &Rotation,
        prober: &dyn Prober,
        until: Timestamp,
    ) -> ReleaseAnswer {
        let known =
            || Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id).released;
        let unasked = |failure: String| ReleaseAnswer {
            endpoint: endpoint.id,
            release: known().verdict(),
            status: None,
            failure: Some(failure),
        };
        if let Err(refused) = self.check_can_be_probed(endpoint) {
            return unasked(refused.to_string());
        }
        let mut allowed = match self.politeness.allow(endpoint.id, 1, self.clock.now()) {
            Ok(allowed) => allowed,
            Err(wait) => return unasked(used_up(wait).to_string()),
        };
        let patience = Duration::from_millis(until.since(self.clock.now()));
        let turn = self.politeness.wait(endpoint, self.clock.as_ref());
        let Some(_turn) = timeout(patience, turn).await.ok().flatten() else {
            return unasked(
                "nothing was sent: its host was busy with other probes all the time; ask again"
                    .to_owned(),
            );
        };
        allowed.spend();
        let probed = match prober
            .probe(endpoint, &[ProbeKey::Former(rotation.from)])
            .await
        {
            Ok(probed) => probed,
            Err(error) => return unasked(error.to_string()),
        };
        let answer = ProbeAnswer::of(probed.status);
        let throws =
            Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id).throws();
        let released = known().after(answer, throws, probed.sent_at);
        // Evidence about a later rotation is not given up for an answer about an earlier one.
        let latest = self
            .live
            .keyring(rotation.keyring)
            .and_then(|keyring| keyring.rotation.as_ref().map(|latest| latest.id));
        if latest == Some(rotation.id) {
            self.take_in(
                endpoint.id,
                rotation,
                Observed::Released,
                probed.status,
                probed.sent_at,
            );
        }
        ReleaseAnswer::after(endpoint.id, released.verdict(), probed)
    }

    /// Takes an answer to a probe into the evidence of a rotation.
    pub(super) fn take_in(
        &self,
        endpoint: EndpointId,
        rotation: &Rotation,
        observed: Observed,
        status: Option<u16>,
        sent_at: Timestamp,
    ) {
        let target = self.live.endpoint(endpoint);
        if Some(sent_at) < target.and_then(|endpoint| endpoint.retargeted_at) {
            // It went to a former URL: the answer is about another receiver.
            return;
        }
        let policy = policy_of(rotation);
        self.live.find(endpoint, |known| {
            let evidence = Evidence::about(known.evidence, rotation.id);
            hookturn_core::proof::Findings {
                evidence: Some(evidence.after_status(&policy, observed, status, sent_at)),
                ..known
            }
        });
    }
}

/// The old secret of a rotation, which must be retiring.
fn former<'a>(
    keyring: &'a Keyring,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<&'a SecretVersion, ServiceError> {
    let destroyed = || {
        ServiceError::conflict(
            "secret_destroyed",
            "the value of the rotation's old secret is erased, so nothing can be signed with it to ask",
        )
    };
    let secret = keyring.secret(rotation.from).ok_or_else(destroyed)?;
    match secret.status(now) {
        SecretStatus::Retiring => Ok(secret),
        SecretStatus::Retired => Err(ServiceError::conflict(
            "secret_retired",
            "the rotation's old secret is retired and never signs again, so nothing can be asked with it: it can be asked while the old secret of a rotation in mode overlap or proven is retiring",
        )),
        SecretStatus::Destroyed => Err(destroyed()),
        SecretStatus::Active | SecretStatus::Pending => Err(ServiceError::conflict(
            "nothing_released",
            "the rotation's old secret is the active one, which receivers are to accept: there is nothing to ask",
        )),
    }
}

#[cfg(test)]
mod tests {
    use hookturn_core::proof::Released;

    use super::*;

    #[test]
    fn a_status_stands_beside_the_answer_that_it_belongs_to() {
        let at = Timestamp::from_millis;
        let endpoint = EndpointId::from_bytes([3; 16]);
        let mut known = Released::default();
        let mut ask = |status: Option<u16>, sent_at| {
            let probed = Probed {
                sent_at: at(sent_at),
                status,
                failure: status.is_none().then(|| "timed out".to_owned()),
            };
            known = known.after(ProbeAnswer::of(status), false, at(sent_at));
            let answer = ReleaseAnswer::after(endpoint, known.verdict(), probed);
            (answer.release.as_str(), answer.status, answer.failure)
        };
        assert_eq!(ask(Some(503), 1), ("no_answer", Some(503), None));
        assert_eq!(ask(Some(401), 2), ("released", Some(401), None));
        let (release, status, failure) = ask(Some(503), 3);
        assert_eq!((release, status), ("released", None));
        let failure = failure.unwrap();
        assert!(
            failure.starts_with("asked again at 1970-") && failure.contains("was 503"),
            "{failure}"
        );
        let (_, status, failure) = ask(None, 4);
        assert!(status.is_none() && failure.unwrap().ends_with("timed out"));
        assert_eq!(ask(Some(200), 5), ("still_accepts", Some(200), None));
    }
}
