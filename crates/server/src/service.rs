//! The service: every use case of Hookturn, as one method each, above the store and below the API.
//!
//! The cast. A [`Caller`] is an authenticated key in one workspace. A method checks the caller's
//! scope, looks at the live view, decides with `core`, and hands the store **one**
//! [`Change`]: the writes, their audit entries and, when the request carries an idempotency key,
//! the sealed answer. Nothing is written in two steps that a crash could separate.
//!
//! The guarantees:
//!
//! - What belongs to another workspace does not exist: it is [`ServiceError::NotFound`], always.
//! - Concurrent changes of one thing have one winner. The others decide again on what the winner
//!   left, a bounded number of times; whoever named a version in `if_match` learns that it is gone.
//! - The same idempotency key gets the same answer: a request that lost to its own twin ends in
//!   [`ServiceError::IdempotencyKeyUsed`], never in a refusal that its twin caused.
//! - A secret's value leaves in the answer that made it, or by an audited reveal or replay; it is in no
//!   error and reaches the store only sealed (G8).
//!
//! Not promised here: that due work is sent (that is dispatch), and that a receiver holds a secret.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hookturn_core::audit::{Actor, AuditEntry, Context};
use hookturn_core::endpoint::TargetUrl;
use hookturn_core::id::{Entropy, Sequence, WorkspaceId};
use hookturn_core::limits;
use hookturn_core::store::{
    Change, IdempotencyKey, IdempotencyRecord, Shown, Shows, Store, StoreError, Write,
};
use hookturn_core::time::{Clock, Millis, Timestamp};
use hookturn_core::workspace::{ApiKey, Scope};
use zeroize::Zeroizing;

use crate::store::live::Live;
use crate::store::outbox::Outbox;
use crate::store::seal::{Place, Sealer};

pub mod access;
mod agenda;
pub mod api_keys;
pub mod apps;
pub mod attention;
pub mod audit;
pub mod bulk;
pub mod deliveries;
pub mod denials;
pub mod endpoints;
pub mod error;
pub mod fencing;
pub mod finishing;
pub mod idempotency;
pub mod inbox;
pub mod inspecting;
pub mod keyrings;
pub mod leaks;
pub mod master_key;
pub mod messages;
pub mod notices;
pub mod operational;
pub mod outbox;
pub mod pace;
pub mod page;
pub mod proving;
pub mod released;
pub mod rotation;
pub mod schedules;
pub mod searching;
pub mod sessions;
pub mod test_events;
mod turns;
pub mod workspaces;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::ServiceError;

/// How often a change decides again after losing to another one. More concurrent changes of one
/// thing than this are refused as `concurrent_change`.
const TRIES: usize = 32;

/// The use cases. Shared as `Arc<Service>`.
pub struct Service {
    store: Arc<dyn Store>,
    live: Arc<Live>,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    targets: Arc<dyn TargetPolicy>,
    master_keys: Arc<dyn master_key::MasterKeys>,
    master_key_turn: tokio::sync::Mutex<()>,
    /// Held to read by whoever decides and stores what may be sealed, and to write while another key becomes current.
    sealing: tokio::sync::RwLock<()>,
    /// Where applications publish in transactions of their own, if the engine has one.
    outbox: OnceLock<Arc<dyn Outbox>>,
    settings: Settings,
    sequence: Sequence,
    in_flight: idempotency::InFlight,
    pacer: pace::Pacer,
    turns: turns::Turns,
    /// Apart from those of apps: whoever has the turn of an app may wait for that of a keyring.
    keyring_turns: turns::Turns,
    /// Who says something about a keyring's rotation next: the store takes what two of them decide at once.
    notice_turns: turns::Turns,
    budgets: denials::Budgets,
    politeness: proving::Politeness,
    agenda: agenda::Agenda,
    leak_pacer: pace::Pacer,
    /// One step of one bulk rotation at a time: who pauses one waits for the step that is being taken.
    bulk_turn: tokio::sync::Mutex<()>,
    bulks_followed: tokio::sync::Mutex<bulk::Following>,
    scheduling: schedules::Scheduling,
    signed_out: sessions::SignedOut,
    sign_in_pace: sessions::SignInPace,
    audit_proofs: audit::Proofs,
}

/// What a [`Service`] stands on.
pub struct Parts {
    /// The store of record.
    pub store: Arc<dyn Store>,
    /// The live view that the store's engine keeps.
    pub live: Arc<Live>,
    /// Seals secrets and idempotent answers.
    pub sealer: Arc<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where ids and secrets come from.
    pub entropy: Arc<dyn Entropy>,
    /// Which URLs an endpoint may have.
    pub targets: Arc<dyn TargetPolicy>,
    /// Where master keys are kept.
    pub master_keys: Arc<dyn master_key::MasterKeys>,
    /// What the operator configured.
    pub settings: Settings,
}

/// What the operator may set for the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long an idempotent answer is kept, in milliseconds.
    pub idempotency_millis: Millis,
    /// Exchanges that may be open to an endpoint at once unless it says otherwise.
    pub max_in_flight: u32,
    /// How long a session of the dashboard lasts after its sign-in.
    pub session: Millis,
    /// How often one API key may ask.
    pub pace: pace::Pace,
    /// The app that gets the operational events of all workspaces, if any.
    pub operational_events: Option<operational::OperationalApp>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idempotency_millis: limits::IDEMPOTENCY_MILLIS,
            max_in_flight: limits::IN_FLIGHT_DEFAULT,
            session: limits::SESSION,
            pace: pace::Pace::default(),
            operational_events: None,
        }
    }
}

/// The outbound address policy, asked when a URL is configured. It is asked again at send and at
/// connect by others; here it spares people an endpoint that can never work.
pub trait TargetPolicy: Send + Sync {
    /// Whether deliveries may go to `url`; otherwise a sentence that says why not.
    fn check(&self, url: &url::Url) -> Result<(), String>;
}

/// An authenticated caller, acting in one workspace.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key.
    pub key: Arc<ApiKey>,
    /// Where it acts.
    pub workspace: WorkspaceId,
    /// The id of the request, for the audit log.
    pub request_id: String,
    /// Why, in the caller's words, for the audit log.
    pub reason: Option<String>,
    /// What was asked for, for the log of denied attempts.
    pub asked: denials::Asked,
    /// How far the other nodes followed what was changed.
    pub fenced: fencing::Fenced,
}

impl Caller {
    /// Whether the key has the scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.key.scopes.contains(scope)
    }

    /// The same caller with the reason that this one call gives, if it gives one.
    pub fn because(&self, reason: Option<&str>) -> Result<Self, ServiceError> {
        let mut caller = self.clone();
        if let Some(reason) = reason {
            check_text("/reason", reason)?;
            caller.reason = Some(reason.to_owned());
        }
        Ok(caller)
    }

    fn context(&self) -> Context {
        Context {
            actor: Actor::ApiKey(self.key.id),
            request_id: Some(self.request_id.clone()),
            reason: self.reason.clone(),
        }
    }
}

/// How an answer is recorded for its idempotency key: stored with the change, sealed.
pub struct Recording<'a, T> {
    /// The key, see [`idempotency::key`].
    pub key: IdempotencyKey,
    /// SHA-256 of what the same key must repeat.
    pub fingerprint: [u8; 32],
    /// Writes the answer down as it is to be replayed.
    pub render: &'a (dyn Fn(&T) -> Vec<u8> + Send + Sync),
}

impl<T> Clone for Recording<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Recording<'_, T> {}

/// What a method decided: to be stored whole, and answered.
struct Decision<T> {
    writes: Vec<Write>,
    audit: Vec<AuditEntry>,
    /// Whose value the answer shows: it is said where the value is made, so that no caller forgets.
    shows: Option<Shown>,
    out: T,
}

impl<T> Decision<T> {
    /// Nothing to write, this to answer.
    const fn nothing(out: T) -> Self {
        Self {
            writes: Vec::new(),
            audit: Vec::new(),
            shows: None,
            out,
        }
    }

    /// The same decision with an answer that shows no value.
    fn hiding(self) -> Self {
        Self {
            shows: None,
            ..self
        }
    }

    /// The same decision with another answer.
    fn answering<U>(self, answer: impl FnOnce(T) -> U) -> Decision<U> {
        Decision {
            writes: self.writes,
            audit: self.audit,
            shows: self.shows,
            out: answer(self.out),
        }
    }
}

impl Service {
    /// A service over its parts. Nothing is read or written yet.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            live,
            sealer,
            clock,
            entropy,
            targets,
            master_keys,
            settings,
        } = parts;
        Self {
            store,
            live,
            sealer,
            clock,
            entropy,
            targets,
            master_keys,
            master_key_turn: tokio::sync::Mutex::default(),
            sealing: tokio::sync::RwLock::default(),
            outbox: OnceLock::new(),
            pacer: pace::Pacer::new(settings.pace),
            turns: turns::Turns::default(),
            keyring_turns: turns::Turns::default(),
            notice_turns: turns::Turns::default(),
            settings,
            sequence: Sequence::default(),
            in_flight: idempotency::InFlight::default(),
            budgets: denials::Budgets::default(),
            politeness: proving::Politeness::default(),
            agenda: agenda::Agenda::default(),
            leak_pacer: pace::Pacer::new(leaks::PACE),
            bulk_turn: tokio::sync::Mutex::default(),
            bulks_followed: tokio::sync::Mutex::default(),
            scheduling: schedules::Scheduling::default(),
            signed_out: sessions::SignedOut::default(),
            sign_in_pace: sessions::SignInPace::default(),
            audit_proofs: audit::Proofs::default(),
        }
    }

    /// The time as the service sees it: what states of secrets and rotations are asked with.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Decides and stores in the caller's workspace ([`Service::store_decision`]), and waits until the other nodes
    /// follow ([`fencing`]).
    async fn change<T: Send>(
        &self,
        caller: &Caller,
        recording: Option<Recording<'_, T>>,
        decide: impl Fn(Timestamp) -> Result<Decision<T>, ServiceError> + Send + Sync,
    ) -> Result<T, ServiceError> {
        self.change_in_turn((), caller, recording, decide).await
    }

    /// [`Service::change`] in a turn ([`turns`]), which ends when it is stored: whoever is next waits for the
    /// decision, and not for the other nodes as well.
    async fn change_in_turn<T: Send>(
        &self,
        turn: impl Send,
        caller: &Caller,
        recording: Option<Recording<'_, T>>,
        decide: impl Fn(Timestamp) -> Result<Decision<T>, ServiceError> + Send + Sync,
    ) -> Result<T, ServiceError> {
        self.change_of(caller.workspace, turn, caller, recording, decide)
            .await
    }

    /// The same in a workspace that need not be the one in which the caller acts.
    async fn change_of<T: Send>(
        &self,
        workspace: WorkspaceId,
        turn: impl Send,
        caller: &Caller,
        recording: Option<Recording<'_, T>>,
        decide: impl Fn(Timestamp) -> Result<Decision<T>, ServiceError> + Send + Sync,
    ) -> Result<T, ServiceError> {
        let context = caller.context();
        let (out, needed) = self
            .store_decision(workspace, &context, recording, decide)
            .await?;
        drop(turn);
        self.close_fence(&caller.fenced, needed).await?;
        Ok(out)
    }

    /// Decides and stores, where nobody waits for the answer who could ask another node next.
    async fn commit<T: Send>(
        &self,
        workspace: WorkspaceId,
        context: &Context,
        recording: Option<Recording<'_, T>>,
        decide: impl Fn(Timestamp) -> Result<Decision<T>, ServiceError> + Send + Sync,
    ) -> Result<T, ServiceError> {
        let stored = self.store_decision(workspace, context, recording, decide);
        stored.await.map(|(out, _)| out)
    }

    /// Decides and stores, until it is stored or refused.
    ///
    /// 1. `decide` looks at the live view and says what to write.
    /// 2. The store takes all of it or nothing. On a conflict someone else was first: decide
    ///    again on what they left, at most [`TRIES`] times.
    /// 3. A refusal under an idempotency key that has an answer by now was caused by the same
    ///    request on another way: it becomes [`ServiceError::IdempotencyKeyUsed`].
    ///
    /// Returns with it the fence that it needs, if any.
    async fn store_decision<T: Send>(
        &self,
        workspace: WorkspaceId,
        context: &Context,
        recording: Option<Recording<'_, T>>,
        decide: impl Fn(Timestamp) -> Result<Decision<T>, ServiceError> + Send + Sync,
    ) -> Result<(T, Option<fencing::Needed>), ServiceError> {
        for _ in 0..TRIES {
            let _one_key = self.sealing.read().await;
            // Read before the decision: what it rests on is at least as new.
            let view = self.store.view();
            let at = self.clock.now();
            let Decision {
                writes,
                audit,
                shows,
                out,
            } = match decide(at) {
                Ok(decision) => decision,
                Err(refused) => {
                    self.unless_answered(recording, at).await?;
                    return Err(refused);
                }
            };
            let needed = fencing::needed(&writes);
            let change = Change {
                workspace,
                writes,
                audit,
                context: context.clone(),
                at,
                idempotency: recording.map(|recording| IdempotencyRecord {
                    shows: shown_to(shows, context.actor),
                    ..self.record(recording, &out, at)
                }),
            };
            match self.store.change_as_of(change, view).await {
                Ok(()) => return Ok((out, needed)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ServiceError::concurrent_change())
    }

    /// The sealed answer of a request, to be stored with its change.
    fn record<T>(&self, recording: Recording<'_, T>, out: &T, now: Timestamp) -> IdempotencyRecord {
        let answer = Zeroizing::new((recording.render)(out));
        IdempotencyRecord {
            key: recording.key,
            fingerprint: recording.fingerprint,
            sealed_response: Some(
                self.sealer
                    .seal(Place::Answer(recording.key), &answer)
                    .into(),
            ),
            shows: None,
            expires_at: now.after(self.settings.idempotency_millis),
        }
    }

    async fn unless_answered<T>(
        &self,
        recording: Option<Recording<'_, T>>,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        let Some(key) = recording.map(|recording| recording.key) else {
            return Ok(());
        };
        match self.store.idempotent_answer(key, now).await? {
            Some(_) => Err(ServiceError::IdempotencyKeyUsed),
            None => Ok(()),
        }
    }

    /// Parses a URL and asks the address policy.
    fn target(&self, text: &str) -> Result<TargetUrl, ServiceError> {
        let target = TargetUrl::new(text).map_err(|error| ServiceError::invalid("/url", error))?;
        self.targets
            .check(target.url())
            .map_err(|reason| ServiceError::invalid("/url", reason))?;
        Ok(target)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What an answer shows, to the key that asked for it. Nobody else has an idempotency key.
const fn shown_to(what: Option<Shown>, actor: Actor) -> Option<Shows> {
    match (what, actor) {
        (Some(what), Actor::ApiKey(to)) => Some(Shows { what, to }),
        (
            Some(_) | None,
            Actor::ApiKey(_) | Actor::Local | Actor::Bootstrap | Actor::System | Actor::Unknown,
        ) => None,
    }
}

/// Compares what the caller believes to be the version with what it is.
fn check_version(if_match: Option<u64>, current: u64) -> Result<(), ServiceError> {
    match if_match {
        Some(expected) if expected != current => Err(ServiceError::PreconditionFailed { current }),
        Some(_) | None => Ok(()),
    }
}

/// Checks a text for people: its length, and no control characters.
fn check_text(pointer: &str, text: &str) -> Result<(), ServiceError> {
    if text.chars().count() > limits::TEXT_CHARS {
        let message = format!("longer than {} characters", limits::TEXT_CHARS);
        return Err(ServiceError::invalid(pointer, message));
    }
    if text.chars().any(char::is_control) {
        return Err(ServiceError::invalid(pointer, "holds a control character"));
    }
    Ok(())
}

/// The same for a name, which must not be blank.
fn check_name(pointer: &str, text: &str) -> Result<(), ServiceError> {
    if text.trim().is_empty() {
        return Err(ServiceError::invalid(pointer, "must not be blank"));
    }
    check_text(pointer, text)
}
