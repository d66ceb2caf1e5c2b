//! Proving: rehearsals, probes, and the sweep that moves rotations of mode `proven`.
//!
//! The sweep takes no input and is idempotent: it looks at the live view, sends the probes that are
//! due, and takes the step that `core::proof::next_step` names. It may stop at any point and start
//! again, here or after a restart. Every step is decided again inside the change that stores it, on
//! the evidence of that moment, so that a refusal that arrived meanwhile is not overlooked (G7).
//!
//! Probes are polite: only to endpoints that accepted a delivery or a test event before and whose
//! owner has not turned them off, never retried, never counted as a delivery or toward disabling,
//! within the budget of the policy and of the host ([`politeness`]), and to be looked at.

mod politeness;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::{Endpoint, EndpointState, ProbeMode};
use hookturn_core::id::{EndpointId, KeyringId, RotationId};
use hookturn_core::limits;
use hookturn_core::proof::{
    Ask, Evidence, Findings, Observed, ProbeAnswer, ProbeKey, ProbeKeys, Question, Rehearsal,
    Rehearsed, Standing, Step, next_step, policy_of,
};
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::rotation::{
    Command, Grounds, Keyring, KeyringOwner, Mode, Rejected, Rotation, apply,
};
use hookturn_core::store::{Change, Write};
use hookturn_core::time::Timestamp;
use hookturn_core::workspace::Scope;
use tokio::task::JoinSet;

use super::keyrings::writes_of;
use super::{Caller, Decision, Recording, Service, ServiceError};
use crate::courier::Probed;
pub(super) use politeness::Politeness;
pub use politeness::{ProbePurpose, SeenProbe};

/// Probes that may be under way at once, over all endpoints.
const PROBES_AT_ONCE: usize = 64;

/// A future that [`Prober`] returns.
pub type ProbeFuture<'a> = Pin<Box<dyn Future<Output = Result<Probed, ServiceError>> + Send + 'a>>;

/// Sends probes.
pub trait Prober: Send + Sync {
    /// Sends one inert request with the event type and body that the endpoint's owner chose, signed
    /// with these keys in this order. What comes back teaches whoever asked; nothing is stored. An
    /// error means that nothing was sent.
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, keys: &'a [ProbeKey]) -> ProbeFuture<'a>;
}

/// A rehearsal with every question and answer.
#[derive(Debug, Clone)]
pub struct RehearsalReport {
    /// What was found, and when.
    pub rehearsed: Rehearsed,
    /// What was asked and answered, in order.
    pub asked: Vec<(ProbeKeys, Probed)>,
}

/// Open rotations in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationFigures {
    /// Open rotations by mode.
    pub open: HashMap<&'static str, i64>,
    /// Endpoints of open rotations of mode `proven`, by where they stand.
    pub standing: HashMap<&'static str, i64>,
}

/// Where one endpoint of a rotation stands.
#[derive(Debug, Clone)]
pub struct EndpointStanding {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What is known about it and this rotation.
    pub evidence: Evidence,
    /// Where it stands.
    pub standing: Standing,
    /// What the last rehearsal found.
    pub rehearsed: Option<Rehearsed>,
}

impl Service {
    /// Rehearses an endpoint: finds out how its receiver verifies, with the current secret and a
    /// random key. Needs `secrets`. Takes as long as the receiver takes to answer a few requests.
    pub async fn rehearse(
        &self,
        caller: &Caller,
        id: EndpointId,
        prober: &dyn Prober,
        recording: Option<Recording<'_, RehearsalReport>>,
    ) -> Result<RehearsalReport, ServiceError> {
        self.require(caller, Scope::Secrets).await?;
        let endpoint = self.own_endpoint_of_any_app(caller, id)?;
        self.check_can_be_probed(&endpoint)?;
        let _turn = self
            .politeness
            .take(&endpoint, self.clock.now())
            .ok_or_else(|| ServiceError::Conflict {
                code: "probe_under_way",
                message: "a probe to this receiver is under way; try again in a moment".to_owned(),
            })?;
        let mut rehearsal = Rehearsal::new(endpoint.preset.scheme());
        let mut asked = Vec::new();
        let finding = loop {
            let keys = match rehearsal.next() {
                Ask::Found(finding) => break finding,
                Ask::Probe(keys) => keys,
            };
            let signing = self.rehearsal_keys(&endpoint, keys)?;
            let report = prober.probe(&endpoint, &signing).await?;
            let purpose = ProbePurpose::Rehearsal;
            self.politeness
                .remember(id, purpose, &signing, report.clone());
            rehearsal = rehearsal.after(keys, ProbeAnswer::of(report.status));
            asked.push((keys, report));
        };
        let rehearsed = Rehearsed {
            finding,
            at: self.clock.now(),
        };
        self.live
            .find(id, |findings| findings.after_rehearsal(rehearsed));
        let report = RehearsalReport { rehearsed, asked };
        self.change(caller, recording, |_| {
            let subject = Subject {
                app: Some(endpoint.app),
                endpoint: Some(id),
                keyring: Some(endpoint.keyring),
                ..Subject::default()
            };
            let class = rehearsed.finding.class;
            let entry = AuditEntry::new(AuditAction::EndpointRehearsed, subject)
                .with("class", class.as_str())
                .with("probes", report.asked.len());
            let mut audit = vec![entry];
            if class == ReceiverClass::DoesNotVerify {
                let action = AuditAction::EndpointDoesNotVerify;
                audit.push(AuditEntry::new(action, subject));
            }
            Ok(Decision {
                shows: None,
                writes: Vec::new(),
                audit,
                out: report.clone(),
            })
        })
        .await
    }

    fn rehearsal_keys(
        &self,
        endpoint: &Endpoint,
        keys: ProbeKeys,
    ) -> Result<Vec<ProbeKey>, ServiceError> {
        let keyring = self
            .live
            .keyring(endpoint.keyring)
            .ok_or(ServiceError::not_found("keyring"))?;
        let current = keyring.active().ok_or(Rejected::NoActiveSecret)?.id;
        let current = ProbeKey::Secret(current);
        Ok(match keys {
            ProbeKeys::Current => vec![current],
            ProbeKeys::CurrentRandom => vec![current, ProbeKey::Random],
            ProbeKeys::RandomCurrent => vec![ProbeKey::Random, current],
            ProbeKeys::Random => vec![ProbeKey::Random],
        })
    }

    fn own_endpoint_of_any_app(
        &self,
        caller: &Caller,
        id: EndpointId,
    ) -> Result<Arc<Endpoint>, ServiceError> {
        let found = self.live.endpoint(id);
        let app = found.map(|endpoint| endpoint.app);
        self.own_endpoint(caller, app.ok_or(ServiceError::not_found("endpoint"))?, id)
    }

    /// The last probes of an endpoint since the server started, newest first. Needs `read`.
    pub async fn probes(
        &self,
        caller: &Caller,
        id: EndpointId,
    ) -> Result<Vec<SeenProbe>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let endpoint = self.own_endpoint_of_any_app(caller, id)?;
        Ok(self.politeness.seen(endpoint.id))
    }

    /// Whether probes may go to an endpoint: it is enabled, its owner allows them, and it accepted
    /// something before.
    fn check_can_be_probed(&self, endpoint: &Endpoint) -> Result<(), ServiceError> {
        let refused = |code, message: &str| {
            Err(ServiceError::Conflict {
                code,
                message: message.to_owned(),
            })
        };
        if endpoint.state != EndpointState::Enabled || endpoint.url.is_none() {
            return refused(
                "endpoint_not_enabled",
                "the endpoint is not enabled, so nothing can be proved about its receiver: enable it, or rotate with mode overlap",
            );
        }
        if endpoint.probe.mode == ProbeMode::Off {
            return refused(
                "probes_off",
                "probes are turned off for the endpoint, so nothing can be proved about its receiver: turn them on, or rotate with mode overlap",
            );
        }
        if self.accepted_at(endpoint).is_none() {
            return refused(
                "never_contacted",
                "the endpoint never accepted anything, so it gets no probes and nothing can be proved: send a test event, or rotate with mode overlap",
            );
        }
        Ok(())
    }

    /// When an endpoint last accepted a delivery or a test event.
    fn accepted_at(&self, endpoint: &Endpoint) -> Option<Timestamp> {
        let tested_at = self.live.findings(endpoint.id).tested_at;
        self.live.receiver(endpoint.id).accepted_at.max(tested_at)
    }

    /// Refuses to open a proven rotation of a keyring about which nothing can be proved.
    pub(super) fn check_provable(
        &self,
        keyring: &Keyring,
        mode: Mode,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        let (Mode::Proven { .. }, KeyringOwner::Endpoint { endpoint }) = (mode, keyring.owner)
        else {
            return if matches!(mode, Mode::Proven { .. })
                && self.endpoints_that_count(keyring, mode, now).is_empty()
            {
                Err(ServiceError::Conflict {
                    code: "nothing_to_prove",
                    message: "no endpoint of this keyring accepted a delivery lately, so nothing can be proved: use mode staged or overlap".to_owned(),
                })
            } else {
                Ok(())
            };
        };
        let endpoint = self
            .live
            .endpoint(endpoint)
            .ok_or(ServiceError::not_found("endpoint"))?;
        self.check_can_be_probed(&endpoint)
    }

    /// The endpoints that must be proved: the one that owns the keyring, or of a shared keyring's
    /// those that take messages and accepted one within the policy's look-back.
    pub(super) fn endpoints_that_count(
        &self,
        keyring: &Keyring,
        mode: Mode,
        now: Timestamp,
    ) -> Vec<Arc<Endpoint>> {
        let mut users = self.live.keyring_users(keyring);
        if let (KeyringOwner::Shared, Mode::Proven { policy }) = (keyring.owner, mode) {
            users.retain(|endpoint| {
                let accepted = self.accepted_at(endpoint);
                endpoint.state.takes_messages()
                    && accepted.is_some_and(|at| now < at.after(policy.look_back_millis))
            });
        }
        users
    }

    /// How a keyring's receivers verify, as far as rehearsals found out: at most as many as a page
    /// holds. Needs `read`.
    pub async fn receivers(
        &self,
        caller: &Caller,
        keyring: &Keyring,
    ) -> Result<Vec<(EndpointId, Option<Rehearsed>)>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let users = self.live.keyring_users(keyring);
        let found = users.iter().take(limits::PAGE_MAX);
        Ok(found
            .map(|endpoint| (endpoint.id, self.live.findings(endpoint.id).rehearsed))
            .collect())
    }

    /// What an endpoint's findings are. Needs `read`.
    pub async fn findings(
        &self,
        caller: &Caller,
        id: EndpointId,
    ) -> Result<Findings, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let endpoint = self.own_endpoint_of_any_app(caller, id)?;
        Ok(self.live.findings(endpoint.id))
    }

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
                    let evidence = evidence_of(self.live.findings(endpoint.id), rotation.id);
                    let standing = evidence.standing(&policy, now).as_str();
                    *figures.standing.entry(standing).or_default() += 1;
                }
            }
        }
        figures
    }

    /// Where each endpoint of a rotation stands. Needs `read`.
    pub async fn standings(
        &self,
        caller: &Caller,
        rotation: &Rotation,
    ) -> Result<Vec<EndpointStanding>, ServiceError> {
        self.require(caller, Scope::Read).await?;
        let keyring = self.own_keyring(caller, rotation.keyring)?;
        let now = self.clock.now();
        let policy = policy_of(rotation);
        let counted = self.endpoints_that_count(&keyring, rotation.mode, now);
        Ok(counted
            .into_iter()
            .map(|endpoint| {
                let findings = self.live.findings(endpoint.id);
                let evidence = evidence_of(findings, rotation.id);
                EndpointStanding {
                    standing: evidence.standing(&policy, now),
                    evidence,
                    rehearsed: findings.rehearsed,
                    endpoint,
                }
            })
            .collect())
    }

    /// Stores findings that changed since the last time.
    pub async fn keep_findings(&self) -> Result<(), ServiceError> {
        let unsaved = self.live.unsaved_findings();
        let mut failed = Ok(());
        for of_workspace in unsaved.chunk_by(|(one, ..), (other, ..)| one == other) {
            let write = |&(workspace, endpoint, findings)| Write::Findings {
                workspace,
                endpoint,
                findings,
            };
            let change = Change {
                workspace: of_workspace[0].0,
                writes: of_workspace.iter().map(write).collect(),
                audit: Vec::new(),
                context: system(),
                at: self.clock.now(),
                idempotency: None,
            };
            if let Err(error) = self.store.change(change).await {
                let endpoints = of_workspace.iter().map(|&(_, endpoint, _)| endpoint);
                self.live.not_saved(endpoints);
                failed = Err(error.into());
            }
        }
        failed
    }

    /// Moves every open rotation of mode `proven` as far as its evidence goes, and starts the probes
    /// that are due in `probes`, at most [`PROBES_AT_ONCE`]. It does not wait for their answers: a
    /// slow receiver holds up nobody's rotation but its own.
    pub async fn prove_rotations(
        self: &Arc<Self>,
        prober: &Arc<dyn Prober>,
        probes: &mut JoinSet<()>,
    ) -> Result<(), ServiceError> {
        let now = self.clock.now();
        for workspace in self.live.workspaces() {
            for keyring in self.live.keyrings(workspace.id) {
                let Some(rotation) = keyring.open_rotation(now).cloned() else {
                    continue;
                };
                let step = self.step(&keyring, &rotation, now);
                match step {
                    Step::Promote(_) => {
                        // That it is proved stands in the log before it is promoted.
                        self.note_rotation(&keyring, &rotation, now).await?;
                        self.take_step(keyring.id, rotation.id).await?;
                    }
                    Step::Finish | Step::Extend(_) => {
                        self.take_step(keyring.id, rotation.id).await?;
                    }
                    Step::Wait(_) | Step::AskOwner(_) | Step::Watch => {
                        self.start_probes(&keyring, &rotation, prober, probes);
                    }
                    Step::Nothing => {}
                }
            }
        }
        Ok(())
    }

    fn start_probes(
        self: &Arc<Self>,
        keyring: &Keyring,
        rotation: &Rotation,
        prober: &Arc<dyn Prober>,
        probes: &mut JoinSet<()>,
    ) {
        let now = self.clock.now();
        for endpoint in self.endpoints_that_count(keyring, rotation.mode, now) {
            if probes.len() >= PROBES_AT_ONCE {
                return;
            }
            let Some(question) = self.question_due(&endpoint, rotation, now) else {
                continue;
            };
            let (service, prober) = (Arc::clone(self), Arc::clone(prober));
            let rotation = rotation.clone();
            probes.spawn(async move {
                service
                    .probe(&endpoint, &rotation, question, prober.as_ref())
                    .await;
            });
        }
    }

    /// What to ask an endpoint now, if anything is due.
    fn question_due(
        &self,
        endpoint: &Endpoint,
        rotation: &Rotation,
        now: Timestamp,
    ) -> Option<Question> {
        self.check_can_be_probed(endpoint).ok()?;
        let evidence = evidence_of(self.live.findings(endpoint.id), rotation.id);
        let (at, question) = evidence.next_probe(&policy_of(rotation), now)?;
        (at <= now).then_some(question)
    }

    fn step(&self, keyring: &Keyring, rotation: &Rotation, now: Timestamp) -> Step {
        let counted = self.endpoints_that_count(keyring, rotation.mode, now);
        let evidence: Vec<(EndpointId, Option<Evidence>)> = counted
            .iter()
            .map(|endpoint| (endpoint.id, self.live.findings(endpoint.id).evidence))
            .collect();
        next_step(rotation, &evidence, now)
    }

    /// The grounds on which an owner may promote now: the proof as it stands, if there is one.
    pub(super) fn grounds_now(&self, keyring: &Keyring, now: Timestamp) -> Grounds {
        let open = keyring.open_rotation(now);
        match open.map(|rotation| self.step(keyring, rotation, now)) {
            Some(Step::Promote(proof) | Step::AskOwner(proof)) => Grounds::Proof(proof),
            Some(Step::Wait(_) | Step::Finish | Step::Extend(_) | Step::Watch | Step::Nothing)
            | None => Grounds::Asked,
        }
    }

    /// Takes the step that a rotation needs now, decided on what is known now. What it rests on is
    /// stored first, so that a recorded promotion never lacks its recorded proof.
    async fn take_step(
        &self,
        keyring: KeyringId,
        rotation: RotationId,
    ) -> Result<(), ServiceError> {
        self.keep_findings().await?;
        let Some(workspace) = self.live.keyring(keyring).map(|keyring| keyring.workspace) else {
            return Ok(());
        };
        let taken = self
            .commit(workspace, &system(), None, |now| {
                let keyring = self
                    .live
                    .keyring(keyring)
                    .ok_or(ServiceError::not_found("keyring"))?;
                let open = keyring
                    .open_rotation(now)
                    .filter(|open| open.id == rotation)
                    .ok_or(Rejected::NothingToSettle)?;
                let command = match self.step(&keyring, open, now) {
                    Step::Promote(proof) => Command::Promote {
                        rotation,
                        grounds: Grounds::Proof(proof),
                    },
                    Step::Finish => Command::Finish { rotation },
                    Step::Extend(retire_at) => Command::Extend {
                        rotation,
                        retire_at,
                    },
                    Step::Wait(_) | Step::AskOwner(_) | Step::Watch | Step::Nothing => {
                        return Err(Rejected::NothingToSettle.into());
                    }
                };
                let applied = apply(&keyring, command, now)?;
                Ok(Decision {
                    shows: None,
                    writes: writes_of(&applied),
                    audit: applied.audit,
                    out: (),
                })
            })
            .await;
        match taken {
            // Evidence or the owner was faster; the next sweep looks again.
            Err(ServiceError::Rejected(_)) => Ok(()),
            other => other,
        }
    }

    /// Sends a probe, unless one is under way there, and takes its answer in.
    async fn probe(
        &self,
        endpoint: &Endpoint,
        rotation: &Rotation,
        question: Question,
        prober: &dyn Prober,
    ) {
        let policy = policy_of(rotation);
        let Some(_turn) = self.politeness.take(endpoint, self.clock.now()) else {
            return;
        };
        let (observed, key) = match question {
            Question::NewSecret => (Observed::Probe, ProbeKey::Secret(rotation.to)),
            Question::Control => (Observed::Control, ProbeKey::Random),
        };
        match prober.probe(endpoint, &[key]).await {
            Ok(report) => {
                let purpose = ProbePurpose::Rotation(rotation.id);
                self.politeness
                    .remember(endpoint.id, purpose, &[key], report.clone());
                let answer = ProbeAnswer::of(report.status);
                tracing::info!(endpoint = %endpoint.id, rotation = %rotation.id, ?question, ?answer, status = report.status, "probed");
                self.live.find(endpoint.id, |known| Findings {
                    evidence: Some(evidence_of(known, rotation.id).after(
                        &policy,
                        observed,
                        answer,
                        report.sent_at,
                    )),
                    ..known
                });
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.id, rotation = %rotation.id, %error, "the probe was not sent");
            }
        }
    }
}

/// What is known about a rotation; nothing of another one.
fn evidence_of(findings: Findings, rotation: RotationId) -> Evidence {
    findings
        .evidence
        .filter(|evidence| evidence.rotation == rotation)
        .unwrap_or(Evidence::new(rotation))
}

pub(super) const fn system() -> Context {
    Context {
        actor: Actor::System,
        request_id: None,
        reason: None,
    }
}
