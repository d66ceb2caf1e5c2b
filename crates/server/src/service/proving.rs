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

mod figures;
mod knowledge;
mod politeness;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hookturn_core::audit::{Actor, AuditAction, AuditEntry, Context, Subject};
use hookturn_core::endpoint::{Endpoint, EndpointState, ProbeMode};
use hookturn_core::id::{EndpointId, KeyringId, RotationId};
use hookturn_core::limits;
use hookturn_core::proof::{
    Ask, Evidence, Findings, Observed, ProbeAnswer, ProbeKey, ProbeKeys, Question, Rehearsal,
    Rehearsed, Standing, Step, next_step, policy_of, turns_at,
};
use hookturn_core::receiver::ReceiverClass;
use hookturn_core::rotation::{
    Command, Grounds, Keyring, KeyringOwner, Mode, Rejected, Rotation, Stage, apply,
};
use hookturn_core::store::{Change, Write};
use hookturn_core::time::{Millis, SECOND, Timestamp};
use hookturn_core::workspace::Scope;
use tokio::task::JoinSet;

use super::keyrings::writes_of;
use super::{Caller, Decision, Recording, Service, ServiceError};
use crate::courier::Probed;
pub use figures::RotationFigures;
pub(super) use politeness::Politeness;
use politeness::{Allowance, NoRoom, Turn};
pub use politeness::{ProbePurpose, SeenProbe};

/// When to look again at a rotation of whose endpoints some are asked by other nodes.
const ELSEWHERE: Millis = SECOND / 2;
/// Findings that are stored in one commit, so that it stays within a millisecond or so.
const FINDINGS_IN_A_COMMIT: usize = 32;
/// Probes that may be under way at once, over all endpoints.
const PROBES_AT_ONCE: usize = 64;
/// How long a rehearsal waits for its turn: the command line, which waits a minute for the answer, is to hear why
/// there was none.
const REHEARSAL_WAITS: Millis = limits::COMMAND_WAITS / 2;
/// When to try again where its host has no room for a probe.
const BUSY_HOST: Millis = SECOND;

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
    /// Whether a new secret of its keyring was pending, which a rehearsal does not ask about.
    pub is_pending: bool,
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
    /// Why it cannot be asked, while its rotation asks: a stable word.
    pub unasked: Option<&'static str>,
    /// Whether its rotation waits to be promoted: then it may be cancelled, and after it finished.
    pub is_staged: bool,
    /// Whether its keyring signs for others too, whose proof it hinders while it counts.
    pub is_shared: bool,
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
        let mut rehearsal = Rehearsal::new(endpoint.preset.scheme());
        let (mut allowed, turn) = self.room_for(&endpoint, rehearsal.at_most()).await?;
        // It may have waited long enough for the endpoint to be changed.
        let endpoint = self.own_endpoint_of_any_app(caller, id)?;
        self.check_can_be_probed(&endpoint)?;
        let mut asked = Vec::new();
        let finding = loop {
            let keys = match rehearsal.next() {
                Ask::Found(finding) => break finding,
                Ask::Probe(keys) => keys,
            };
            let signing = self.rehearsal_keys(&endpoint, keys)?;
            if !asked.is_empty() {
                turn.another(self.clock.as_ref()).await;
            }
            allowed.spend();
            let report = prober.probe(&endpoint, &signing).await?;
            let purpose = ProbePurpose::Rehearsal;
            self.politeness
                .remember(id, purpose, &signing, report.clone());
            rehearsal = rehearsal.after(keys, report.status);
            asked.push((keys, report));
        };
        drop((allowed, turn));
        let rehearsed = Rehearsed {
            finding,
            at: self.clock.now(),
            doubted_at: None,
        };
        let target = self
            .live
            .endpoint(id)
            .map(|endpoint| endpoint.retargeted_at);
        // One that got another URL meanwhile was not asked there.
        if target == Some(endpoint.retargeted_at) {
            self.live
                .find(id, |findings| findings.after_rehearsal(rehearsed));
        }
        let keyring = self.live.keyring(endpoint.keyring);
        let report = RehearsalReport {
            rehearsed,
            asked,
            is_pending: keyring.is_some_and(|keyring| keyring.pending().is_some()),
        };
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

    /// Room for so many probes by command, and the turn at the host, which is waited for.
    async fn room_for(
        &self,
        endpoint: &Endpoint,
        probes: u32,
    ) -> Result<(Allowance<'_>, Turn), ServiceError> {
        let allowed = self
            .politeness
            .allow(endpoint.id, probes, self.clock.now())
            .map_err(used_up)?;
        let patience = Duration::from_millis(REHEARSAL_WAITS);
        let clock = self.clock.as_ref();
        let turn = self.politeness.wait_at_most(endpoint, patience, clock);
        let turn = turn.await.map_err(|no_room| match no_room {
            NoRoom::Busy {
                to_itself,
                to_others,
            } => ServiceError::Conflict {
                code: "probe_under_way",
                message: in_the_way(to_itself, to_others),
            },
            NoRoom::UsedUp { wait_millis } => ServiceError::ProbesUsedUp {
                message: format!(
                    "nothing was sent: the host of this receiver got {} probes within a second, which is as many as it may",
                    limits::PROBES_PER_HOST_SECOND
                ),
                wait_millis,
            },
        })?;
        Ok((allowed, turn))
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
    pub(super) fn check_can_be_probed(&self, endpoint: &Endpoint) -> Result<(), ServiceError> {
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
        // That another one is open comes before what could be proved: its id is what is needed.
        if let (Mode::Proven { .. }, Some(open)) = (mode, keyring.rotation_in_the_way(now)) {
            return Err(Rejected::RotationOpen {
                open: open.id,
                stage: open.stage,
            }
            .into());
        }
        let (Mode::Proven { .. }, KeyringOwner::Endpoint { endpoint }) = (mode, keyring.owner)
        else {
            return if matches!(mode, Mode::Proven { .. })
                && !self
                    .endpoints_that_count(keyring, mode, now)
                    .iter()
                    .any(|endpoint| endpoint.state.takes_messages())
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
    /// those that accepted a message within the policy's look-back. One that was disabled since counts
    /// too: its receiver verifies with the same secret, and nobody asked whether it holds the new one.
    /// The time of the last
    /// acceptance may be old while there are newer ones, so one that is older by that much counts too.
    pub(super) fn endpoints_that_count(
        &self,
        keyring: &Keyring,
        mode: Mode,
        now: Timestamp,
    ) -> Vec<Arc<Endpoint>> {
        let mut users = self.live.keyring_users(keyring);
        if let (KeyringOwner::Shared, Mode::Proven { policy }) = (keyring.owner, mode) {
            let look_back = policy
                .look_back_millis
                .saturating_add(limits::ACCEPTED_STALE);
            users.retain(|endpoint| {
                let accepted = self.accepted_at(endpoint);
                accepted.is_some_and(|at| now < at.after(look_back))
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
                let evidence = Evidence::about(findings.evidence, rotation.id);
                EndpointStanding {
                    standing: evidence.standing_in(rotation, &policy, now),
                    unasked: self.unasked(rotation, &endpoint, now),
                    is_staged: rotation.stage == Stage::Staged,
                    is_shared: matches!(keyring.owner, KeyringOwner::Shared),
                    evidence,
                    rehearsed: findings.rehearsed,
                    endpoint,
                }
            })
            .collect())
    }

    /// Stores findings that changed since the last time.
    pub async fn keep_findings(&self) -> Result<(), ServiceError> {
        let view = self.store.view();
        let unsaved = self.live.unsaved_findings();
        let mut failed = Ok(());
        let of_workspaces = unsaved.chunk_by(|(one, ..), (other, ..)| one == other);
        for of_workspace in of_workspaces.flat_map(|all| all.chunks(FINDINGS_IN_A_COMMIT)) {
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
            if let Err(error) = self.store.change_as_of(change, view).await {
                let endpoints = of_workspace.iter().map(|&(_, endpoint, _)| endpoint);
                self.live.not_saved(endpoints);
                failed = Err(error.into());
            }
        }
        failed
    }

    /// Moves open rotations of mode `proven` as far as their evidence goes, and starts the probes that
    /// are due in `probes`, at most [`PROBES_AT_ONCE`]. It does not wait for their answers: a slow
    /// receiver holds up nobody's rotation but its own. Only keyrings on the agenda are looked at. Where several
    /// nodes share the store, each endpoint is asked by the node that sends to it, so that what is found about it
    /// is found in one place, and the node that leads takes the steps.
    pub async fn prove_rotations(
        self: &Arc<Self>,
        prober: &Arc<dyn Prober>,
        probes: &mut JoinSet<()>,
    ) -> Result<(), ServiceError> {
        let now = self.clock.now();
        for id in self.agenda.take(self.live.take_stirred(), now) {
            let keyring = self.live.keyring(id);
            let open = keyring
                .as_deref()
                .and_then(|keyring| Some((keyring, keyring.open_rotation(now)?)));
            let Some((keyring, rotation)) = open else {
                self.agenda.forget(id);
                continue;
            };
            let asked = match self.step(keyring, rotation, now) {
                Step::Promote(_) | Step::Finish | Step::Extend(_) if !self.store.leads() => {
                    // Another node takes the step; unless this one leads by then.
                    self.agenda.look_at(id, now.after(SECOND));
                    continue;
                }
                Step::Promote(_) | Step::Extend(_) => {
                    // That it is proved stands in the log before it is promoted, and that its deadline is near
                    // before that moves.
                    self.note_rotation(keyring, rotation, now).await?;
                    self.take_step(id, rotation.id).await?;
                    continue;
                }
                Step::Finish => {
                    self.take_step(id, rotation.id).await?;
                    continue;
                }
                Step::Wait(_) | Step::AskOwner(_) | Step::Watch => {
                    self.questions(keyring, rotation, now)
                }
                Step::AskReleased(asked) => self.release_questions(asked, rotation),
                Step::Nothing => {
                    self.agenda.forget(id);
                    continue;
                }
            };
            // Silence must not let the moment pass at which the end of the old secret moves.
            if let Some(at) = turns_at(rotation, now) {
                self.agenda.look_at(id, at);
            }
            if self.is_asked_elsewhere(keyring, rotation, now) {
                self.agenda.look_at(id, now.after(ELSEWHERE));
            }
            for due in asked {
                let next = self.start_probe(due, rotation, prober, probes, now);
                self.agenda.look_at(id, next);
            }
        }
        Ok(())
    }

    /// Starts a probe if it is due and there is room for it. Returns when to look again.
    fn start_probe(
        self: &Arc<Self>,
        due: DueProbe,
        rotation: &Rotation,
        prober: &Arc<dyn Prober>,
        probes: &mut JoinSet<()>,
        now: Timestamp,
    ) -> Timestamp {
        if due.at > now {
            return due.at;
        }
        if probes.len() >= PROBES_AT_ONCE {
            return now;
        }
        let Some(place) = self.politeness.queue(&due.endpoint, self.clock.as_ref()) else {
            return now.after(BUSY_HOST);
        };
        let (service, prober) = (Arc::clone(self), Arc::clone(prober));
        let rotation = rotation.clone();
        probes.spawn(async move {
            if let Some(_turn) = place.wait(service.clock.as_ref()).await {
                service.probe(&due, &rotation, prober.as_ref()).await;
            }
        });
        // Its answer is news, which is looked at as soon as it is there.
        now.after(BUSY_HOST)
    }

    /// What to ask the endpoints of a rotation next, and when.
    fn questions(&self, keyring: &Keyring, rotation: &Rotation, now: Timestamp) -> Vec<DueProbe> {
        let policy = policy_of(rotation);
        let counted = self.endpoints_that_count(keyring, rotation.mode, now);
        let ours = counted
            .into_iter()
            .filter(|endpoint| self.store.owns(endpoint.id));
        let due = ours.filter_map(|endpoint| {
            self.check_can_be_probed(&endpoint).ok()?;
            let evidence = Evidence::about(self.live.findings(endpoint.id).evidence, rotation.id);
            let (at, question) = evidence.next_probe(&policy, now);
            let (observed, key) = match question {
                Question::NewSecret => (Observed::Probe, ProbeKey::Secret(rotation.to)),
                Question::Control => (Observed::Control, ProbeKey::Random),
            };
            Some(DueProbe {
                endpoint,
                observed,
                key,
                at,
            })
        });
        due.collect()
    }

    /// The same for the question whether the old secret is refused. It signs only while it is live.
    fn release_questions(
        &self,
        asked: Vec<(EndpointId, Timestamp)>,
        rotation: &Rotation,
    ) -> Vec<DueProbe> {
        let ours = asked
            .into_iter()
            .filter(|(endpoint, _)| self.store.owns(*endpoint));
        let due = ours.filter_map(|(endpoint, at)| {
            Some(DueProbe {
                endpoint: self.live.endpoint(endpoint)?,
                observed: Observed::Released,
                key: ProbeKey::Secret(rotation.from),
                at,
            })
        });
        due.collect()
    }

    fn step(&self, keyring: &Keyring, rotation: &Rotation, now: Timestamp) -> Step {
        if !matches!(rotation.mode, Mode::Proven { .. }) {
            return Step::Nothing;
        }
        let counted = self.endpoints_that_count(keyring, rotation.mode, now);
        let promoted = matches!(rotation.stage, Stage::Overlap { .. });
        let evidence: Vec<(EndpointId, Option<Evidence>)> = counted
            .iter()
            .map(|endpoint| {
                let known = self.live.findings(endpoint.id).evidence;
                if promoted && self.check_can_be_probed(endpoint).is_err() {
                    let known = Evidence::about(known, rotation.id);
                    let sends = endpoint.state.takes_messages();
                    (endpoint.id, Some(knowledge::unaskable(&known, sends, now)))
                } else {
                    (endpoint.id, known)
                }
            })
            .collect();
        next_step(rotation, &evidence, now)
    }

    /// The grounds on which an owner may promote now: the proof as it stands, if there is one.
    pub(super) fn grounds_now(&self, keyring: &Keyring, now: Timestamp) -> Grounds {
        let open = keyring.open_rotation(now);
        match open.map(|rotation| self.step(keyring, rotation, now)) {
            Some(Step::Promote(proof) | Step::AskOwner(proof)) => Grounds::Proof(proof),
            Some(
                Step::Wait(_)
                | Step::AskReleased(_)
                | Step::Finish
                | Step::Extend(_)
                | Step::Watch
                | Step::Nothing,
            )
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
                        is_asked: false,
                    },
                    Step::Wait(_)
                    | Step::AskOwner(_)
                    | Step::AskReleased(_)
                    | Step::Watch
                    | Step::Nothing => {
                        return Err(Rejected::NothingToSettle.into());
                    }
                };
                let applied = apply(&keyring, command, now)?;
                Ok(Decision {
                    shows: None,
                    writes: writes_of(&applied),
                    audit: self.with_knowledge(&applied, now),
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

    /// Whether another node sends to an endpoint that counts: what it finds arrives by itself, but the time at which
    /// a step is due, and that this node leads by then, do not.
    fn is_asked_elsewhere(&self, keyring: &Keyring, rotation: &Rotation, now: Timestamp) -> bool {
        // Nobody shares a store whose view has no versions.
        self.store.view() > 0
            && self
                .endpoints_that_count(keyring, rotation.mode, now)
                .iter()
                .any(|endpoint| !self.store.owns(endpoint.id))
    }

    /// Sends a probe whose turn it is and takes its answer in.
    async fn probe(&self, due: &DueProbe, rotation: &Rotation, prober: &dyn Prober) {
        let (endpoint, observed) = (&due.endpoint, due.observed);
        match prober.probe(endpoint, &[due.key]).await {
            Ok(report) => {
                let purpose = ProbePurpose::Rotation(rotation.id);
                self.politeness
                    .remember(endpoint.id, purpose, &[due.key], report.clone());
                let answer = ProbeAnswer::of(report.status);
                tracing::info!(endpoint = %endpoint.id, rotation = %rotation.id, ?observed, ?answer, status = report.status, "probed");
                self.take_in(
                    endpoint.id,
                    rotation,
                    observed,
                    report.status,
                    report.sent_at,
                );
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.id, rotation = %rotation.id, %error, "the probe was not sent");
            }
        }
    }
}

/// An endpoint got as many probes by command as it may.
pub(super) fn used_up(wait_millis: Millis) -> ServiceError {
    ServiceError::ProbesUsedUp {
        message: format!(
            "nothing was sent: rehearsals and commands may send a receiver {} probes an hour, and too few of them are left; what was found before stands",
            limits::COMMANDED_PROBES_PER_HOUR
        ),
        wait_millis,
    }
}

/// What a command waited for in vain.
fn in_the_way(to_itself: bool, to_others: usize) -> String {
    let seconds = REHEARSAL_WAITS / SECOND;
    let what = match (to_itself, to_others) {
        (true, _) => "a probe to this receiver is under way".to_owned(),
        (false, 0) => "other endpoints at the host of this receiver come first".to_owned(),
        (false, 1) => {
            "a probe to another endpoint at the host of this receiver is under way".to_owned()
        }
        (false, many) => {
            format!("{many} probes to other endpoints at the host of this receiver are under way")
        }
    };
    format!(
        "nothing was sent: there was no turn for it in {seconds} seconds, and {what}; try again in a moment"
    )
}

/// A probe that is to be sent at a time.
struct DueProbe {
    endpoint: Arc<Endpoint>,
    observed: Observed,
    key: ProbeKey,
    at: Timestamp,
}

pub(super) const fn system() -> Context {
    Context {
        actor: Actor::System,
        request_id: None,
        reason: None,
    }
}
