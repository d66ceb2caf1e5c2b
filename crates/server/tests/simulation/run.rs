//! A run: the operations one after the other, a look at every guarantee after each, and in the end the
//! time and the health that everything needs to settle. Of one process that has its store to itself, or of several
//! nodes that share a database.

mod several;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hookturn::service::ServiceError;
use hookturn::service::apps::NewApp;
use hookturn::service::endpoints::{KeyringChoice, NewEndpoint, Switch};
use hookturn::service::keyrings::NewSecretInput;
use hookturn::service::messages::NewMessageInput;
use hookturn_core::endpoint::{EndpointState, Preset};
use hookturn_core::id::{ClientId, MessageId};
use hookturn_core::message::EventType;
use hookturn_core::retry::{RetryOn, RetryPolicy};
use hookturn_core::rotation::Keyring;
use hookturn_core::store::Store as _;
use hookturn_core::time::{DAY, Millis, SECOND};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::ask::{Request, enter};
use crate::engine::Faults;
use crate::host::Host;
use crate::judge::Judge;
use crate::ledger::Broken;
use crate::logs::Logs;
use crate::mutant::Mutant;
use crate::network::FIRST_PORT;
use crate::operation::{
    Ask, Command, Deployment, EVERY_TYPE, Health, Operation, Scenario, SchemeName, Setup,
    event_type_of,
};
use crate::process::{Ashore, Process};
use crate::random::Random;
use crate::receiver::Receiver;
use crate::report::Counts;

/// The longest that a caller waits: longer than any step of the store and any rehearsal takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same where there are several nodes, each of which may have stopped: longer than any fence takes.
const PATIENCE_WITH_NODES: Duration = Duration::from_secs(4);
/// How often the end lets time pass until everything has settled.
const ROUNDS: usize = 60;
const RETENTION: Millis = DAY;
/// Longer than the longest request takes: a rehearsal of a receiver that does not answer.
const LAST_WORDS: Millis = 6 * SECOND;
/// How long a process takes to be replaced.
const RESTART_MILLIS: i64 = 20;

/// Whether anything waits still.
enum Settled {
    All,
    NotYet,
    /// It did for long, and the clock was stepped.
    Stepped,
}

/// Requests that a paced endpoint gets in a second.
const PACE: u32 = 4;

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: String,
    pub(crate) counts: Counts,
}

/// What a run keeps from one process to the next.
struct Run<'s> {
    scenario: &'s Scenario,
    ashore: Rc<Ashore>,
    logs: Logs,
    app: RefCell<ClientId>,
    asked: RefCell<Vec<Request>>,
    published: RefCell<u32>,
    /// The port of the next endpoint.
    port: Cell<u16>,
}

/// Runs a scenario from its beginning to its end, or to the first broken guarantee.
pub(crate) fn run(scenario: &Scenario, mutant: Mutant) -> Outcome {
    let logs = Logs::default();
    let _collected = logs.collect();
    let run = Run {
        scenario,
        ashore: Rc::new(Ashore::new(scenario.seed, mutant)),
        logs,
        app: RefCell::new(ClientId::FIRST),
        asked: RefCell::default(),
        published: RefCell::default(),
        port: Cell::new(FIRST_PORT),
    };
    if let Some(sharing) = &scenario.nodes {
        run.live_together(sharing);
    } else {
        let mut next = Some(0);
        while let Some(from) = next {
            next = run.live(from);
        }
    }
    let clock = Arc::clone(&run.ashore.ground.clock);
    let mut judge = run.judge();
    judge.counts.millis = clock.elapsed().unsigned_abs();
    Outcome {
        broken: judge.broken.take(),
        trace: std::mem::take(&mut judge.trace),
        counts: judge.counts,
    }
}

impl Run<'_> {
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.ashore.ground.judge.lock().unwrap()
    }

    /// One process's life, from operation `from` on. Returns where the next one goes on, after a crash.
    fn live(&self, from: usize) -> Option<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let clock = &self.ashore.ground.clock;
            clock.begin();
            let process = Rc::new(Process::start(&self.ashore).await);
            if from == 0 {
                self.set_up(&process).await;
                self.look(std::slice::from_ref(&process));
            }
            let next = self.operate(&process, from).await;
            if next.is_none() && self.judge().broken.is_none() {
                self.calm_down(&process).await;
            }
            clock.end();
            next
        })
        // The runtime and everything that was under way in it end here.
    }

    async fn operate(&self, process: &Rc<Process>, from: usize) -> Option<usize> {
        for (index, operation) in self.scenario.operations.iter().enumerate().skip(from) {
            let now = self.ashore.now();
            {
                let mut judge = self.judge();
                judge.counts.operations += 1;
                judge.note(format_args!("{now} {index} {operation:?}"));
            }
            if *operation == Operation::Crash {
                self.crash();
                return Some(index + 1);
            }
            self.perform(process, operation).await;
            self.look(std::slice::from_ref(process));
            if self.judge().broken.is_some() {
                return None;
            }
        }
        None
    }

    /// After every step: what is stored, the audit log, the logs, and whether everything still runs.
    fn look(&self, processes: &[Rc<Process>]) {
        let logged = self.logs.take();
        let mut judge = self.judge();
        judge.inspect(&self.ashore.disk);
        judge.search("the log", &logged);
        if processes.iter().any(|process| process.is_damaged()) {
            judge.find(Err(("G1", "a part of the server panicked".to_owned())));
        }
    }

    fn crash(&self) {
        let clock = &self.ashore.ground.clock;
        clock.step(RESTART_MILLIS);
        self.judge().counts.crashes += 1;
        if self.ashore.ground.mutant == Mutant::ForgetsDueRow {
            self.ashore.forget_a_row();
        }
    }

    async fn perform(&self, process: &Rc<Process>, operation: &Operation) {
        match operation {
            Operation::Publish { count, batch, .. } => self.publish(process, *count, *batch).await,
            Operation::Run { millis } => sleep(Duration::from_millis(*millis)).await,
            Operation::Jump { millis } => {
                self.judge().counts.clock_steps += 1;
                self.ashore.ground.clock.step(*millis);
                process.inboxes.wake();
            }
            Operation::Ask(asked) => {
                if let Some(request) = self.resolve(process, *asked) {
                    self.asked.borrow_mut().push(request.clone());
                    self.ask((process, None), request, asked.patience_millis, asked.wait)
                        .await;
                }
            }
            Operation::Create { setup, .. } => drop(self.make(process, *setup).await),
            Operation::Repeat { back, .. } => {
                if let Some(request) = self.earlier(*back) {
                    self.ask((process, None), request, None, true).await;
                }
            }
            Operation::Deploy { .. } | Operation::Health { .. } | Operation::Network { .. } => {
                self.change_receiver(operation);
            }
            Operation::Store { .. } => {
                *self.ashore.ground.faults.lock().unwrap() = faults_of(operation);
            }
            Operation::Prune => self.prune(process).await,
            Operation::Crash | Operation::Node { .. } | Operation::Outage { .. } => {}
        }
    }

    /// The request that was made so many before the last one.
    fn earlier(&self, back: u8) -> Option<Request> {
        let asked = self.asked.borrow();
        let index = asked.len().checked_sub(1 + usize::from(back))?;
        Some(asked[index].clone())
    }

    /// What happens at a receiver, or on the way to it.
    fn change_receiver(&self, operation: &Operation) {
        match *operation {
            Operation::Deploy { endpoint, to } => self.deploy(usize::from(endpoint), to),
            Operation::Health { endpoint, health } => {
                self.receiver(endpoint, |receiver| receiver.feel(health));
            }
            Operation::Network {
                endpoint,
                requests_lost,
                answers_lost,
            } => self.receiver(endpoint, |receiver| {
                receiver.requests_lost = requests_lost;
                receiver.answers_lost = answers_lost;
                receiver.epoch += 1;
            }),
            _ => {}
        }
    }

    fn receiver(&self, endpoint: u8, change: impl FnOnce(&mut Receiver)) {
        let mut judge = self.judge();
        if let Some(target) = judge.targets.get_mut(usize::from(endpoint)) {
            change(&mut target.receiver);
        }
    }

    async fn prune(&self, process: &Process) {
        let now = self.ashore.now();
        let before = now.before(RETENTION);
        {
            let mut judge = self.judge();
            judge.prune_before = judge.prune_before.max(before);
        }
        while let Ok(progress) = process.store.prune(before, now, 20).await {
            if progress.resume.is_none() {
                return;
            }
        }
    }

    /// The owner deploys the secret that is to come, or else the one that is active.
    fn deploy(&self, index: usize, to: Deployment) {
        let mut judge = self.judge();
        let Some(target) = judge.targets.get(index) else {
            return;
        };
        let keyring = target.keyring;
        let coming = judge.ledger.open.get(&keyring).map(|open| open.to);
        let Some(secret) = coming.or_else(|| judge.ledger.active(keyring)) else {
            return;
        };
        judge.deploy(index, secret, to);
    }
}

// ----- callers -----

impl Run<'_> {
    async fn publish(&self, process: &Process, count: u8, batch: bool) {
        let numbers: Vec<u32> = (0..u32::from(count))
            .map(|offset| *self.published.borrow() + offset)
            .collect();
        *self.published.borrow_mut() += u32::from(count);
        let inputs: Vec<NewMessageInput> = numbers.iter().map(|number| input(*number)).collect();
        let app = *self.app.borrow();
        let (service, caller) = (&process.service, &process.caller);
        if batch {
            self.judge().sending(&numbers);
            let ids = service.publish_batch(caller, app, inputs, None).await;
            self.acknowledged(&numbers, ids.as_deref().ok());
            return;
        }
        for (number, input) in std::iter::zip(numbers, inputs) {
            self.judge().sending(&[number]);
            let id = service.publish(caller, app, input, None).await;
            let ids = id.ok().map(|id| [id]);
            self.acknowledged(&[number], ids.as_ref().map(<[MessageId; 1]>::as_slice));
        }
    }

    fn acknowledged(&self, numbers: &[u32], ids: Option<&[MessageId]>) {
        let mut judge = self.judge();
        judge.note(format_args!("published {numbers:?} {ids:?}"));
        if let Some(ids) = ids {
            judge.acknowledged(numbers, ids);
        }
    }

    /// What a caller who looks at the keyring now would write into the request.
    fn resolve(&self, process: &Process, asked: Ask) -> Option<Request> {
        let (endpoint, keyring) = {
            let judge = self.judge();
            let target = judge.targets.get(usize::from(asked.endpoint))?;
            (target.id, target.keyring)
        };
        let now = self.ashore.now();
        let shown = process.live.keyring(keyring)?;
        let active = shown.active().map(|secret| secret.id);
        let other = shown.pending().or(shown.retiring(now));
        let secret = match asked.command {
            Command::Compromise { active: true } => active,
            Command::Activate | Command::Compromise { active: false } => other.map(|one| one.id),
            Command::Destroy => shown.secrets.first().map(|secret| secret.id),
            _ => other.map(|one| one.id).or(active),
        };
        let by_millis = match asked.command {
            Command::Extend { by_millis } => by_millis,
            _ => 0,
        };
        let delivery = self.ashore.disk.deliveries();
        let delivery = delivery
            .iter()
            .find(|delivery| delivery.endpoint == endpoint);
        Some(Request {
            key: format!("key-{}", self.asked.borrow().len()),
            command: asked.command,
            app: *self.app.borrow(),
            endpoint,
            keyring,
            rotation: shown.rotation.as_ref().map(|rotation| rotation.id),
            secret,
            delivery: delivery.map(|delivery| delivery.id),
            retire_at: retire_at(&shown).unwrap_or(now).after(by_millis),
        })
    }

    /// Someone asks a process, on its machine if it has one of its own.
    async fn ask(
        &self,
        (process, host): (&Rc<Process>, Option<Rc<Host>>),
        request: Request,
        patience_millis: Option<u64>,
        wait: bool,
    ) {
        let judge = Arc::clone(&self.ashore.ground.judge);
        let known = {
            let mut judge = judge.lock().unwrap();
            judge.counts.asked += 1;
            judge.is_known(request.endpoint)
        };
        let mutant = self.ashore.ground.mutant;
        let clock = Arc::clone(&self.ashore.ground.clock);
        let process = Rc::clone(process);
        let longest = if host.is_some() {
            PATIENCE_WITH_NODES
        } else {
            PATIENCE
        };
        let patience = patience_millis.map_or(longest, Duration::from_millis);
        let asking = async move {
            let answer = match host {
                None => timeout(patience, enter(&process, &request, mutant))
                    .await
                    .ok(),
                // Who asked a node that crashed hears nothing either.
                Some(host) => timeout(patience, host.serve(enter(&process, &request, mutant)))
                    .await
                    .ok()
                    .flatten(),
            };
            let now = hookturn_core::time::Clock::now(clock.as_ref());
            if let Some(Err(ServiceError::NotFound { what })) = &answer
                && known
                && ["app", "endpoint", "keyring"].contains(what)
            {
                judge.lock().unwrap().denied(&request.key, what);
            }
            hear(&judge, &request, answer, now);
        };
        if wait {
            asking.await;
        } else {
            spawn_local(asking);
        }
    }
}

/// What a caller heard.
fn hear(
    judge: &Mutex<Judge>,
    request: &Request,
    answer: Option<Result<crate::ask::Answered, hookturn::service::ServiceError>>,
    now: hookturn_core::time::Timestamp,
) {
    let mut judge = judge.lock().unwrap();
    match answer {
        None => judge.note(format_args!("{now} {} hung up", request.key)),
        Some(Err(error)) => {
            let text = format!("{error} {error:?}");
            judge.search("an error", &text);
            judge.note(format_args!("{now} {} refused: {error}", request.key));
        }
        Some(Ok(answer)) => {
            judge.counts.replayed += u64::from(answer.replayed);
            judge.note(format_args!(
                "{now} {} answered {}",
                request.key, answer.text
            ));
            if let Command::Switch { .. } = request.command {
                let version = answer.text.split(' ').next();
                let version = version.and_then(|version| version.parse().ok());
                judge.told_of(request.endpoint, version.unwrap());
            }
            if answer.kept {
                judge.answered(&request.key, &answer.text, now);
            }
        }
    }
}

fn faults_of(operation: &Operation) -> Faults {
    match *operation {
        Operation::Store {
            requests_lost,
            answers_lost,
            slow_millis,
        } => Faults {
            requests_lost,
            answers_lost,
            slow_millis,
        },
        _ => Faults::default(),
    }
}

fn retire_at(keyring: &Keyring) -> Option<hookturn_core::time::Timestamp> {
    keyring.settle_due_at()
}

fn input(number: u32) -> NewMessageInput {
    NewMessageInput {
        event_type: EventType::new(event_type_of(number)).unwrap(),
        payload: format!("{{\"n\":{number},\"x\":true}}").into(),
        event_id: None,
    }
}

// ----- the beginning and the end -----

impl Run<'_> {
    async fn set_up(&self, process: &Process) {
        let (service, caller) = (&process.service, &process.caller);
        let new = NewApp {
            name: "shop".to_owned(),
            ..NewApp::default()
        };
        let app = service.create_app(caller, new, None).await.unwrap().id;
        *self.app.borrow_mut() = app;
        if self.scenario.endpoints.iter().any(|setup| setup.shared) {
            let shared = service.shared_keyring(caller).await.unwrap().id;
            let input = NewSecretInput::default();
            let made = service.create_secret(caller, shared, input, None, None);
            made.await.unwrap();
        }
        for setup in &self.scenario.endpoints {
            self.make(process, *setup).await.unwrap();
        }
    }

    /// Asks for an endpoint. Its receiver is there from when it is committed on.
    async fn make(&self, process: &Process, setup: Setup) -> Result<(), ServiceError> {
        let port = self.port.get();
        self.port.set(port + 1);
        let random = Random::new(
            self.scenario.seed,
            &format!("receiver {}", port - FIRST_PORT),
        );
        self.judge().expect(port, setup, random);
        let app = *self.app.borrow();
        let new = new_endpoint(port, setup);
        let made = process
            .service
            .create_endpoint(&process.caller, app, new, None);
        let made = made.await.map(|made| made.endpoint);
        let mut judge = self.judge();
        judge.note(format_args!("made on {port}: {:?}", made.as_ref().ok()));
        let made = made?;
        judge.told_of(made.id, made.version);
        Ok(())
    }

    /// Everything works again, every receiver holds what signs, and time passes until nothing is due.
    async fn calm_down(&self, process: &Rc<Process>) {
        *self.ashore.ground.faults.lock().unwrap() = Faults::default();
        // What was accepted before a step back is due when the clock has caught up.
        self.ashore.ground.clock.set_right();
        process.inboxes.wake();
        // What callers asked for and did not wait for comes to its end.
        sleep(Duration::from_millis(LAST_WORDS)).await;
        for index in self.targets() {
            self.heal(process, index).await;
        }
        for _ in 0..ROUNDS {
            sleep(Duration::from_millis(2 * SECOND)).await;
            for index in self.targets() {
                self.catch_up(index);
            }
            self.look(std::slice::from_ref(process));
            if self.judge().broken.is_some() {
                return;
            }
            match self.settled() {
                Settled::All => break,
                Settled::NotYet => {}
                Settled::Stepped => process.inboxes.wake(),
            }
        }
        self.judge().conclude(&self.ashore.disk);
    }

    /// Whether nothing waits any more. Retries may be far away by the wall clock, after it was stepped.
    fn settled(&self) -> Settled {
        let Some(earliest) = self.ashore.disk.earliest() else {
            return match self.judge().waiting() {
                None => Settled::All,
                Some(_) => Settled::NotYet,
            };
        };
        let wait = earliest.since(self.ashore.now());
        if wait <= 5 * SECOND {
            return Settled::NotYet;
        }
        self.ashore.ground.clock.step(wait.cast_signed());
        Settled::Stepped
    }

    fn targets(&self) -> std::ops::Range<usize> {
        0..self.judge().targets.len()
    }

    async fn heal(&self, process: &Process, index: usize) {
        let endpoint = {
            let mut judge = self.judge();
            let receiver = &mut judge.targets[index].receiver;
            receiver.feel(Health::Well);
            (receiver.requests_lost, receiver.answers_lost) = (0, 0);
            judge.targets[index].id
        };
        self.catch_up(index);
        let state = process
            .live
            .endpoint(endpoint)
            .map(|endpoint| endpoint.state.clone());
        if !matches!(state, Some(EndpointState::Enabled)) {
            let app = *self.app.borrow();
            let (service, caller) = (&process.service, &process.caller);
            let enabled =
                service.switch_endpoint(caller, app, endpoint, Switch::Enabled, None, None);
            enabled.await.unwrap();
        }
    }

    /// The receiver holds the active secret, and the one that is to come beside it.
    fn catch_up(&self, index: usize) {
        let mut judge = self.judge();
        let keyring = judge.targets[index].keyring;
        let active = judge.ledger.active(keyring);
        let coming = judge.ledger.open.get(&keyring).map(|open| open.to);
        for secret in [active, coming].into_iter().flatten() {
            judge.deploy(index, secret, Deployment::Beside);
        }
    }
}

fn new_endpoint(port: u16, setup: Setup) -> NewEndpoint {
    NewEndpoint {
        url: Some(format!("http://127.0.0.1:{port}/hook")),
        preset: match setup.scheme {
            SchemeName::Standard => Preset::Standard,
            SchemeName::Hopae => Preset::Hopae,
            SchemeName::Github => Preset::Github,
        },
        keyring: if setup.shared {
            KeyringChoice::Shared
        } else {
            KeyringChoice::default()
        },
        retry: Some(RetryPolicy {
            delays_millis: vec![500, SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND, 15 * SECOND],
            jitter_percent: 20,
            retry_on: RetryOn::AnyFailure,
        }),
        timeout_millis: Some(SECOND),
        connect_timeout_millis: Some(SECOND),
        ordered: setup.ordered,
        events: Vec::from_iter(setup.picky.then(|| EVERY_TYPE.to_owned())),
        rate_limit_per_second: setup.paced.then_some(PACE),
        ..NewEndpoint::default()
    }
}
