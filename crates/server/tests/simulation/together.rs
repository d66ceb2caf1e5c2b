//! A run with several nodes: which machine runs which process, what is done to it, and how it comes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hookturn::dispatch::Inboxes;
use hookturn::store::live::Live;
use hookturn::store::owned::Owned;
use hookturn::store::sharing::lease::GRACE;
use hookturn_core::id::draw;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::base::Base;
use crate::clock::NodeClock;
use crate::engine::Faults;
use crate::host::Host;
use crate::link::{Link, Way};
use crate::member::Node;
use crate::mutant::Mutant;
use crate::operation::{Sharing, Trouble};
use crate::process::{Ashore, Process};

/// How long a supervisor waits before it starts a process again that ended.
const RESTART: Duration = Duration::from_millis(400);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node has to stop in order before it is killed.
const STOPPING: Duration = Duration::from_secs(8);
/// How long the beginning and the end wait for nodes to start.
const STARTING: Duration = Duration::from_mins(2);

/// What runs on a machine.
#[derive(Clone)]
struct Running {
    host: Rc<Host>,
    node: Arc<Node>,
    process: Rc<RefCell<Option<Rc<Process>>>>,
    /// It could not start.
    failed: Rc<Cell<bool>>,
}

/// One machine.
struct Machine {
    clock: Arc<NodeClock>,
    running: RefCell<Option<Running>>,
    /// Whether a process is to run here.
    wanted: Cell<bool>,
    /// Counts what is done to it, so that a later trouble outlives the end of an earlier one.
    turn: Cell<u64>,
}

/// All of them, with their database.
pub(crate) struct Machines {
    ashore: Rc<Ashore>,
    base: Arc<Base>,
    sharing: Sharing,
    all: Vec<Machine>,
    started: Notify,
}

impl Machines {
    pub(crate) fn new(ashore: &Rc<Ashore>, sharing: &Sharing) -> Rc<Self> {
        let base = Base::new(ashore.disk.clone(), ashore.ground.clone());
        let machine = |wrong: Option<i64>| Machine {
            clock: Arc::new(NodeClock::wrong_by(
                &ashore.ground.clock,
                wrong.unwrap_or(0),
            )),
            running: RefCell::new(None),
            wanted: Cell::new(wrong.is_some()),
            turn: Cell::new(0),
        };
        let wrong = sharing.clocks.iter().filter(|wrong| **wrong != 0);
        ashore.ground.judge.lock().unwrap().counts.clocks_wrong += wrong.count() as u64;
        let known = sharing.clocks.iter().map(|wrong| machine(Some(*wrong)));
        Rc::new(Self {
            ashore: Rc::clone(ashore),
            base: Arc::new(base),
            sharing: sharing.clone(),
            // One more, for whoever joins.
            all: known.chain([machine(None)]).collect(),
            started: Notify::new(),
        })
    }

    /// How many machines there are.
    pub(crate) const fn count(&self) -> usize {
        self.all.len()
    }

    /// The process on this machine, or else on the next one that has one: what a load balancer does.
    pub(crate) fn ask(&self, number: u8) -> Option<(Rc<Host>, Rc<Process>)> {
        let count = self.all.len();
        (0..count).find_map(|offset| {
            let machine = &self.all[(usize::from(number) + offset) % count];
            let running = machine.running.borrow();
            let running = running.as_ref()?;
            let process = running.process.borrow().clone()?;
            Some((Rc::clone(&running.host), process))
        })
    }

    /// Every process that runs and is not on its way out.
    pub(crate) fn processes(&self) -> Vec<Rc<Process>> {
        let running = self.all.iter().filter_map(|machine| {
            let running = machine.running.borrow();
            let running = running.as_ref().filter(|running| !running.node.is_gone())?;
            running.process.borrow().clone()
        });
        running.collect()
    }

    /// Makes every node look at the clock.
    pub(crate) fn wake(&self) {
        for process in self.processes() {
            process.inboxes.wake();
        }
    }

    // ----- starting and ending -----

    /// Starts processes where they are wanted, and again where they ended; for as long as the run lasts.
    pub(crate) async fn supervise(self: Rc<Self>) {
        loop {
            for number in 0..self.all.len() {
                self.look_after(number);
            }
            self.refresh();
            self.watch();
            sleep(LOOK).await;
        }
    }

    fn look_after(self: &Rc<Self>, number: usize) {
        let machine = &self.all[number];
        let running = machine.running.borrow().clone();
        match running {
            None if machine.wanted.get() => self.start(number),
            Some(running) if running.node.is_gone() || running.failed.get() => {
                self.end(number);
                self.again_after(number, RESTART);
            }
            _ => {}
        }
    }

    fn start(self: &Rc<Self>, number: usize) {
        let machine = &self.all[number];
        let inboxes = Inboxes::new(1);
        let lease = self.sharing.lease_millis;
        let node = Arc::new(Node {
            id: Uuid::from_bytes(draw::<16>(self.ashore.entropy.as_ref())),
            lease: Duration::from_millis(lease),
            link: Link::new(Arc::clone(&self.base)),
            live: Arc::new(Live::default()),
            owned: Arc::new(Owned::none()),
            inboxes,
            clock: Arc::clone(&machine.clock),
            voice: crate::ear::Voice::default(),
            gone: std::sync::Mutex::new(false),
            nodes: std::sync::atomic::AtomicUsize::new(0),
        });
        node.live.confirm_no_longer();
        let running = Running {
            host: Host::new(),
            node: Arc::clone(&node),
            process: Rc::default(),
            failed: Rc::default(),
        };
        {
            let mut judge = self.ashore.ground.judge.lock().unwrap();
            let name = judge.nodes.started(node.id, lease);
            let now = self.ashore.now();
            judge.note(format_args!("{now} node {name} starts on machine {number}"));
            judge.counts.nodes += 1;
        }
        let place = if self.sharing.one_machine { 0 } else { number };
        let (ashore, gate) = (Rc::clone(&self.ashore), Arc::clone(&running.host.gate));
        let (process, failed) = (Rc::clone(&running.process), Rc::clone(&running.failed));
        let machines = Rc::clone(self);
        running.host.spawn(async move {
            match Process::join(&ashore, node, gate, place).await {
                Ok(joined) => {
                    *process.borrow_mut() = Some(Rc::new(joined));
                    machines.started.notify_one();
                }
                Err(_) => failed.set(true),
            }
        });
        spawn_local(Rc::clone(&running.host).run());
        *machine.running.borrow_mut() = Some(running);
    }

    /// The process on a machine ends here and now.
    fn end(&self, number: usize) {
        let running = self.all[number].running.borrow_mut().take();
        if let Some(running) = running {
            running.host.kill();
            self.base.has_ended(running.node.id);
            let mut judge = self.ashore.ground.judge.lock().unwrap();
            judge.nodes.is_over(running.node.id);
        }
    }

    /// Wants a process there again, after a while.
    fn again_after(self: &Rc<Self>, number: usize, after: Duration) {
        let machine = &self.all[number];
        machine.wanted.set(false);
        let turn = machine.turn.get() + 1;
        machine.turn.set(turn);
        let machines = Rc::clone(self);
        spawn_local(async move {
            sleep(after).await;
            let machine = &machines.all[number];
            if machine.turn.get() == turn {
                machine.wanted.set(true);
                machines.look_after(number);
            }
        });
    }

    // ----- troubles -----

    pub(crate) async fn trouble(self: &Rc<Self>, number: u8, what: Trouble) {
        let number = usize::from(number) % self.all.len();
        let machine = &self.all[number];
        let running = machine.running.borrow().clone();
        self.ashore.ground.judge.lock().unwrap().counts.troubles += 1;
        if let Some(running) = &running {
            self.note_trouble(running);
        }
        match (what, running) {
            (Trouble::Paused { millis }, Some(running)) => {
                self.pause(millis, running);
            }
            (Trouble::Cut { millis }, Some(running)) => {
                self.cut(millis, running, &[Way::There, Way::Back]);
            }
            (Trouble::Unheard { millis }, Some(running)) => {
                self.cut(millis, running, &[Way::There]);
            }
            (Trouble::Unanswered { millis }, Some(running)) => {
                self.cut(millis, running, &[Way::Back]);
            }
            (Trouble::Crashed { millis }, Some(_)) => {
                self.ashore.ground.judge.lock().unwrap().counts.crashes += 1;
                self.end(number);
                self.again_after(number, Duration::from_millis(millis));
            }
            (Trouble::Restarted { millis }, Some(running)) => {
                self.stop(&running).await;
                self.end(number);
                self.again_after(number, Duration::from_millis(millis));
            }
            (Trouble::Joined, _) => {
                let free = |machine: &&Machine| machine.running.borrow().is_none();
                if let Some(machine) = self.all.iter().find(free) {
                    machine.turn.set(machine.turn.get() + 1);
                    machine.wanted.set(true);
                }
            }
            (Trouble::Clock { wrong_millis }, running) => {
                self.count_clock(wrong_millis);
                machine.clock.set_wrong(wrong_millis);
                if let Some(process) = running.and_then(|running| running.process.borrow().clone())
                {
                    process.inboxes.wake();
                }
            }
            (_, None) => {}
        }
        self.refresh();
    }

    fn note_trouble(&self, running: &Running) {
        let mut judge = self.ashore.ground.judge.lock().unwrap();
        judge.nodes.trouble(running.node.id);
    }

    fn count_clock(&self, wrong_millis: i64) {
        let mut judge = self.ashore.ground.judge.lock().unwrap();
        judge.counts.clock_steps += 1;
        judge.counts.clocks_wrong += u64::from(wrong_millis != 0);
    }

    /// Stops a process where it stands, and lets it go on.
    fn pause(self: &Rc<Self>, millis: u64, running: Running) {
        let ground = &self.ashore.ground;
        ground.judge.lock().unwrap().counts.pauses += 1;
        running.host.gate.shut();
        let forgets = ground.mutant == Mutant::PauseTakesNoTime && running.node.live.is_confirmed();
        self.later(millis, running, move |running| {
            if forgets {
                running.node.live.confirm_until(Instant::now() + GRACE);
            }
            running.host.gate.open();
        });
    }

    /// Lets nothing through between a node and the database, and then everything again.
    fn cut(self: &Rc<Self>, millis: u64, running: Running, ways: &[Way]) {
        running.node.link.cut(ways);
        self.later(millis, running, |running| running.node.link.mend());
    }

    /// Ends a trouble after its time.
    fn later(self: &Rc<Self>, millis: u64, running: Running, end: impl FnOnce(&Running) + 'static) {
        let machines = Rc::clone(self);
        spawn_local(async move {
            sleep(Duration::from_millis(millis)).await;
            end(&running);
            machines.note_trouble(&running);
            machines.refresh();
        });
    }

    /// Stops a process in order, as far as it gets within its time.
    async fn stop(&self, running: &Running) {
        let process = running.process.borrow().clone();
        if let Some(process) = process {
            // It is asked for nothing any more.
            running.process.borrow_mut().take();
            let leaving = running.host.serve(process.leave());
            let _ = timeout(STOPPING, leaving).await;
        }
    }

    /// The database answers nobody for a while.
    pub(crate) fn outage(self: &Rc<Self>, millis: u64) {
        self.base.set_away(true);
        self.ashore.ground.judge.lock().unwrap().counts.store_faults += 1;
        self.refresh();
        let machines = Rc::clone(self);
        spawn_local(async move {
            sleep(Duration::from_millis(millis)).await;
            machines.base.set_away(false);
            machines.refresh();
        });
    }

    /// Every connection is lost once in a while, from now on, or slow.
    pub(crate) fn faults(&self, faults: Faults) {
        *self.ashore.ground.faults.lock().unwrap() = faults;
        self.disturb();
    }

    /// Something happened to all nodes.
    pub(crate) fn disturb(&self) {
        for machine in &self.all {
            if let Some(running) = &*machine.running.borrow() {
                self.note_trouble(running);
            }
        }
        self.refresh();
    }

    /// Tells the judge which nodes nothing is wrong with.
    fn refresh(&self) {
        let faults = *self.ashore.ground.faults.lock().unwrap();
        let calm = faults.requests_lost == 0
            && faults.answers_lost == 0
            && faults.slow_millis < 100
            && !self.base.is_away();
        let mut judge = self.ashore.ground.judge.lock().unwrap();
        for machine in &self.all {
            if let Some(running) = &*machine.running.borrow() {
                let alone = !running.host.gate.is_shut()
                    && running.node.link.is_whole()
                    && running.process.borrow().is_some();
                judge.nodes.set_well(running.node.id, calm && alone);
                if !alone || faults != Faults::default() {
                    judge.nodes.trouble(running.node.id);
                }
            }
        }
    }

    /// Lets the judge look at what shows with time only.
    fn watch(&self) {
        let now = self.ashore.now();
        let leases = self.base.leases();
        let mut judge = self.ashore.ground.judge.lock().unwrap();
        for (node, until) in leases {
            judge.watch_lease(node, until, now);
        }
        for machine in &self.all {
            if let Some(running) = &*machine.running.borrow() {
                let node = running.node.id;
                judge.watch_clock(node, machine.clock.wrong(), self.base.is_able(node));
            }
        }
    }

    // ----- the beginning and the end -----

    /// Waits until as many processes run as are wanted.
    pub(crate) async fn all_start(self: &Rc<Self>) {
        let all = async {
            while self.processes().len() < self.all.iter().filter(|one| one.wanted.get()).count() {
                let _ = timeout(LOOK, self.started.notified()).await;
            }
        };
        let _ = timeout(STARTING, all).await;
    }

    /// Nothing is wrong any more: every machine of the beginning runs a process whose clock is right.
    pub(crate) async fn calm_down(self: &Rc<Self>) {
        self.base.set_away(false);
        for (number, machine) in self.all.iter().enumerate() {
            machine.clock.set_wrong(0);
            if let Some(running) = &*machine.running.borrow() {
                running.host.gate.open();
                running.node.link.mend();
                self.note_trouble(running);
            }
            if number < self.sharing.clocks.len() && machine.running.borrow().is_none() {
                machine.turn.set(machine.turn.get() + 1);
                machine.wanted.set(true);
            }
        }
        self.refresh();
        self.all_start().await;
    }

    /// The clock of the database was stepped, and all others with it: no lease says what it said before.
    pub(crate) fn jumped(&self) {
        {
            let mut judge = self.ashore.ground.judge.lock().unwrap();
            for machine in &self.all {
                if let Some(running) = &*machine.running.borrow() {
                    judge.nodes.set_well(running.node.id, false);
                }
            }
        }
        self.wake();
        self.refresh();
    }

    /// The run is over.
    pub(crate) fn end_all(&self) {
        for number in 0..self.all.len() {
            self.end(number);
        }
    }
}
