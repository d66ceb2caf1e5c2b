//! Callers: what they ask of the service, each request with an idempotency key of its own, and how they
//! repeat one.

use hookturn::service::deliveries::Recover;
use hookturn::service::endpoints::Switch;
use hookturn::service::idempotency::{self, Lookup};
use hookturn::service::keyrings::NewSecretInput;
use hookturn::service::rotation::{ChangedRotation, ModeName, NewRotation, OpenedRotation};
use hookturn::service::{Caller, Recording, Service, ServiceError};
use hookturn_core::delivery::DeliveryStatus;
use hookturn_core::id::{ClientId, DeliveryId, EndpointId, KeyringId, RotationId, SecretId};
use hookturn_core::proof::{OnDeadline, ProofPolicy};
use hookturn_core::time::{HOUR, SECOND, Timestamp};
use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::mutant::Mutant;
use crate::operation::{Command, ModeWord, SwitchWord};
use crate::process::Process;

/// A request with everything resolved that its caller would have written into it, so that it can be
/// repeated as it was.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) key: String,
    pub(crate) command: Command,
    pub(crate) app: ClientId,
    pub(crate) endpoint: EndpointId,
    pub(crate) keyring: KeyringId,
    pub(crate) rotation: Option<RotationId>,
    pub(crate) secret: Option<SecretId>,
    pub(crate) delivery: Option<DeliveryId>,
    pub(crate) retire_at: Timestamp,
}

/// A policy that proves within seconds: 7 passes rule out 30 % at 90 %.
pub(crate) const QUICK: ProofPolicy = ProofPolicy {
    confidence_percent: 90,
    stale_percent: 30,
    window_millis: 60 * SECOND,
    hold_down_millis: SECOND,
    probe_every_millis: 400,
    probe_back_off_max_millis: 2 * SECOND,
    probes_per_hour: 3_000,
    control_every_millis: 10 * SECOND,
    canary_percent: [10, 50, 100],
    canary_passes: 2,
    promote_by_itself: true,
    quiet_millis: 5 * SECOND,
    deadline_millis: 60 * SECOND,
    on_deadline: OnDeadline::Extend,
    extend_millis: 10 * SECOND,
    look_back_millis: HOUR,
    stalled_after_millis: 20 * SECOND,
    deadline_near_millis: 10 * SECOND,
};

/// An answer as it would be replayed, and whether it was.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) text: String,
    pub(crate) replayed: bool,
    /// Whether the answer is kept for the key; that of a reveal is not.
    pub(crate) kept: bool,
}

/// Comes in by the door, as every request does: the node confirms what it knows first, and does not say that something is
/// not there while it cannot.
pub(crate) async fn enter(
    process: &Process,
    request: &Request,
    mutant: Mutant,
) -> Result<Answered, ServiceError> {
    if mutant == Mutant::AnswersByAnOldView {
        return ask(process, request).await;
    }
    process.service.confirmed().await?;
    let answer = ask(process, request).await;
    if let Err(ServiceError::NotFound { .. }) = &answer {
        process.service.unless_behind(StatusCode::NOT_FOUND)?;
    }
    answer
}

/// Asks, as the API does: the key is looked up, the change records the answer with it, and whoever lost
/// to a twin replays.
pub(crate) async fn ask(process: &Process, request: &Request) -> Result<Answered, ServiceError> {
    let (service, caller) = (&process.service, &process.caller);
    let once = Once {
        service,
        caller,
        request,
    };
    let Request {
        app,
        endpoint,
        keyring,
        ..
    } = *request;
    match request.command {
        Command::Open {
            mode,
            overlap_millis,
        } => {
            let input = new_rotation(mode, overlap_millis);
            once.run(opened, async |recording| {
                service
                    .open_rotation(caller, keyring, input, None, recording)
                    .await
            })
            .await
        }
        Command::Promote { .. }
        | Command::Extend { .. }
        | Command::Undo
        | Command::Finish
        | Command::Cancel => on_rotation(&once).await,
        Command::CreateSecret { replace } => {
            let input = NewSecretInput {
                overlap: Some(2_000),
                replace_pending: replace,
                ..NewSecretInput::default()
            };
            let render = |made: &hookturn::service::keyrings::CreatedSecret| {
                format!("{} {}", made.once.secret.id, made.once.value.expose()).into_bytes()
            };
            once.run(render, async |recording| {
                service
                    .create_secret(caller, keyring, input, None, recording)
                    .await
            })
            .await
        }
        Command::Activate | Command::Compromise { .. } | Command::Destroy | Command::Reveal => {
            on_secret(&once).await
        }
        Command::Rehearse => {
            let render = |report: &hookturn::service::proving::RehearsalReport| {
                format!("{:?}", report.rehearsed).into_bytes()
            };
            once.run(render, async |recording| {
                let prober = process.prober.as_ref();
                service.rehearse(caller, endpoint, prober, recording).await
            })
            .await
        }
        Command::Switch { to } => {
            let to = match to {
                SwitchWord::Enabled => Switch::Enabled,
                SwitchWord::Paused => Switch::Paused,
                SwitchWord::Disabled => Switch::Disabled,
            };
            let render = |endpoint: &hookturn_core::endpoint::Endpoint| {
                format!("{} {:?}", endpoint.version, endpoint.state).into_bytes()
            };
            once.run(render, async |recording| {
                service
                    .switch_endpoint(caller, app, endpoint, to, None, recording)
                    .await
            })
            .await
        }
        Command::Retry | Command::Recover => on_deliveries(&once).await,
    }
}

async fn on_rotation(once: &Once<'_>) -> Result<Answered, ServiceError> {
    let Once {
        service,
        caller,
        request,
    } = *once;
    let id = request.rotation.ok_or_else(|| nothing("rotation"))?;
    let command = request.command;
    let retire_at = request.retire_at;
    once.run(changed, async |recording| match command {
        Command::Promote { force } => {
            service
                .promote_rotation(caller, id, force, None, recording)
                .await
        }
        Command::Extend { .. } => {
            service
                .extend_rotation(caller, id, retire_at, None, recording)
                .await
        }
        Command::Undo => service.undo_rotation(caller, id, None, recording).await,
        Command::Finish => service.finish_rotation(caller, id, None, recording).await,
        _ => service.cancel_rotation(caller, id, None, recording).await,
    })
    .await
}

async fn on_secret(once: &Once<'_>) -> Result<Answered, ServiceError> {
    let Once {
        service,
        caller,
        request,
    } = *once;
    let secret = request.secret.ok_or_else(|| nothing("secret"))?;
    let keyring = request.keyring;
    let command = request.command;
    if command == Command::Reveal {
        let shown = service.reveal_secret(caller, keyring, secret).await?;
        return Ok(Answered {
            text: format!("{} {}", shown.secret.id, shown.value.fingerprint()),
            replayed: false,
            kept: false,
        });
    }
    let render = |changed: &hookturn::service::keyrings::ChangedSecret| {
        let (secret, version) = (&changed.secret, changed.keyring.version);
        format!("{} {:?} {version}", secret.id, secret.state).into_bytes()
    };
    once.run(render, async |recording| match command {
        Command::Activate => {
            service
                .activate_secret(caller, keyring, secret, None, None, recording)
                .await
        }
        Command::Destroy => {
            service
                .destroy_secret(caller, keyring, secret, None, recording)
                .await
        }
        _ => {
            service
                .compromise_secret(caller, keyring, secret, None, recording)
                .await
        }
    })
    .await
}

async fn on_deliveries(once: &Once<'_>) -> Result<Answered, ServiceError> {
    let Once {
        service,
        caller,
        request,
    } = *once;
    if request.command == Command::Retry {
        let id = request.delivery.ok_or_else(|| nothing("delivery"))?;
        let render = |delivery: &hookturn_core::delivery::Delivery| {
            format!("{} {:?}", delivery.id, delivery.state).into_bytes()
        };
        return once
            .run(render, async |recording| {
                service.retry_delivery(caller, id, recording).await
            })
            .await;
    }
    let input = Recover {
        since: Timestamp::EPOCH,
        until: None,
        status: DeliveryStatus::Exhausted,
        dry_run: false,
    };
    let (app, endpoint) = (request.app, request.endpoint);
    let render = |recovered: &hookturn::service::deliveries::Recovered| {
        format!("{recovered:?}").into_bytes()
    };
    once.run(render, async |recording| {
        service
            .recover(caller, app, endpoint, input, recording)
            .await
    })
    .await
}

/// One request under its key.
#[derive(Clone, Copy)]
struct Once<'a> {
    service: &'a Service,
    caller: &'a Caller,
    request: &'a Request,
}

impl Once<'_> {
    async fn run<T: Send>(
        &self,
        render: impl Fn(&T) -> Vec<u8> + Send + Sync,
        call: impl for<'r> AsyncFnOnce(Option<Recording<'r, T>>) -> Result<T, ServiceError>,
    ) -> Result<Answered, ServiceError> {
        let request = self.request;
        let path = format!("/{}/{}", request.endpoint, request.keyring);
        let key = idempotency::key(self.caller.workspace, "POST", &path, &request.key);
        let fingerprint = Sha256::digest(format!("{request:?}")).into();
        let _guard = match self.service.lookup(self.caller, key, fingerprint).await? {
            Lookup::Fresh(guard) => guard,
            Lookup::Replay(bytes) => return Ok(replayed(&bytes)),
            Lookup::InProgress | Lookup::Mismatch => return Err(nothing("free key")),
        };
        let recording = Recording {
            key,
            fingerprint,
            render: &render,
        };
        match call(Some(recording)).await {
            Ok(out) => Ok(Answered {
                text: String::from_utf8_lossy(&render(&out)).into_owned(),
                replayed: false,
                kept: true,
            }),
            Err(ServiceError::IdempotencyKeyUsed) => {
                match self.service.replay(self.caller, key, fingerprint).await? {
                    Some(Lookup::Replay(bytes)) => Ok(replayed(&bytes)),
                    _ => Err(nothing("answer")),
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn replayed(bytes: &[u8]) -> Answered {
    Answered {
        text: String::from_utf8_lossy(bytes).into_owned(),
        replayed: true,
        kept: true,
    }
}

const fn nothing(what: &'static str) -> ServiceError {
    ServiceError::NotFound { what }
}

fn opened(opened: &OpenedRotation) -> Vec<u8> {
    let (rotation, once) = (&opened.rotation, &opened.once);
    format!("{} {} {}", rotation.id, once.secret.id, once.value.expose()).into_bytes()
}

fn changed(changed: &ChangedRotation) -> Vec<u8> {
    let (rotation, version) = (&changed.rotation, changed.keyring.version);
    format!("{} {:?} {version}", rotation.id, rotation.stage).into_bytes()
}

fn new_rotation(mode: ModeWord, overlap_millis: u64) -> NewRotation {
    let (mode, overlap, policy) = match mode {
        ModeWord::Immediate => (ModeName::Immediate, None, None),
        ModeWord::Overlap => (ModeName::Overlap, Some(overlap_millis), None),
        ModeWord::Staged => (ModeName::Staged, Some(overlap_millis), None),
        ModeWord::Proven => (ModeName::Proven, None, Some(QUICK)),
    };
    NewRotation {
        mode,
        overlap,
        deadline_at: None,
        policy,
        name: None,
        value: None,
        reason: None,
    }
}
