//! The run of several nodes that share a database.

use std::rc::Rc;
use std::time::Duration;

use hookturn_core::endpoint::EndpointState;
use hookturn_core::time::SECOND;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::{LAST_WORDS, PATIENCE_WITH_NODES, ROUNDS, Run, Settled, Switch, faults_of};
use crate::engine::Faults;
use crate::operation::{Health, Operation, Sharing, Trouble};
use crate::together::Machines;

/// How often the end asks for something that must not fail.
const TRIES: usize = 20;

impl Run<'_> {
    /// All nodes' lives, in one runtime: each of them begins and ends in it.
    pub(super) fn live_together(&self, sharing: &Sharing) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let clock = &self.ashore.ground.clock;
            clock.begin();
            let machines = Machines::new(&self.ashore, sharing);
            spawn_local(Rc::clone(&machines).supervise());
            machines.all_start().await;
            if let Some((_, process)) = machines.ask(0) {
                self.set_up(&process).await;
            }
            self.look(&machines.processes());
            self.operate_together(&machines).await;
            if self.judge().broken.is_none() {
                self.calm_down_together(&machines).await;
            }
            machines.end_all();
            clock.end();
        });
    }

    async fn operate_together(&self, machines: &Rc<Machines>) {
        for (index, operation) in self.scenario.operations.iter().enumerate() {
            let now = self.ashore.now();
            {
                let mut judge = self.judge();
                judge.counts.operations += 1;
                judge.note(format_args!("{now} {index} {operation:?}"));
            }
            self.perform_together(machines, operation).await;
            self.look(&machines.processes());
            if self.judge().broken.is_some() {
                return;
            }
        }
    }

    async fn perform_together(&self, machines: &Rc<Machines>, operation: &Operation) {
        match operation {
            Operation::Publish { count, batch, node } => {
                if let Some((host, process)) = machines.ask(*node) {
                    let publish = host.serve(self.publish(&process, *count, *batch));
                    let _ = timeout(PATIENCE_WITH_NODES, publish).await;
                }
            }
            Operation::Run { millis } => sleep(Duration::from_millis(*millis)).await,
            Operation::Jump { millis } => {
                self.judge().counts.clock_steps += 1;
                self.ashore.ground.clock.step(*millis);
                machines.jumped();
            }
            Operation::Ask(asked) => {
                if let Some((host, process)) = machines.ask(asked.node)
                    && let Some(request) = self.resolve(&process, *asked)
                {
                    self.asked.borrow_mut().push(request.clone());
                    let at = (&process, Some(host));
                    self.ask(at, request, asked.patience_millis, asked.wait)
                        .await;
                }
            }
            Operation::Create { setup, node } => {
                if let Some((host, process)) = machines.ask(*node) {
                    let make = host.serve(self.make(&process, *setup));
                    let _ = timeout(PATIENCE_WITH_NODES, make).await;
                }
            }
            Operation::Repeat { back, node } => {
                if let Some((host, process)) = machines.ask(*node)
                    && let Some(request) = self.earlier(*back)
                {
                    self.ask((&process, Some(host)), request, None, true).await;
                }
            }
            Operation::Deploy { .. } | Operation::Health { .. } | Operation::Network { .. } => {
                self.change_receiver(operation);
            }
            Operation::Store { .. } => machines.faults(faults_of(operation)),
            Operation::Crash => {
                // All at once.
                for node in 0..u8::try_from(machines.count()).unwrap_or(0) {
                    machines
                        .trouble(node, Trouble::Crashed { millis: 20 })
                        .await;
                }
            }
            Operation::Prune => {
                if let Some((host, process)) = machines.ask(0) {
                    let prune = host.serve(self.prune(&process));
                    let _ = timeout(PATIENCE_WITH_NODES, prune).await;
                }
            }
            Operation::Node { node, what } => machines.trouble(*node, *what).await,
            Operation::Outage { millis } => machines.outage(*millis),
        }
    }

    /// Everything works again, every receiver holds what signs, and time passes until nothing is due.
    async fn calm_down_together(&self, machines: &Rc<Machines>) {
        machines.faults(Faults::default());
        self.ashore.ground.clock.set_right();
        machines.jumped();
        machines.calm_down().await;
        // What callers asked for and did not wait for comes to its end.
        sleep(Duration::from_millis(LAST_WORDS)).await;
        for index in self.targets() {
            self.heal_together(machines, index).await;
        }
        for _ in 0..ROUNDS {
            sleep(Duration::from_millis(2 * SECOND)).await;
            for index in self.targets() {
                self.catch_up(index);
            }
            self.look(&machines.processes());
            if self.judge().broken.is_some() {
                return;
            }
            match self.settled() {
                Settled::All => break,
                Settled::NotYet => {}
                Settled::Stepped => machines.jumped(),
            }
        }
        self.judge().conclude(&self.ashore.disk);
    }

    async fn heal_together(&self, machines: &Machines, index: usize) {
        let endpoint = {
            let mut judge = self.judge();
            let receiver = &mut judge.targets[index].receiver;
            receiver.feel(Health::Well);
            (receiver.requests_lost, receiver.answers_lost) = (0, 0);
            judge.targets[index].id
        };
        self.catch_up(index);
        // A process that was taken over may only find out.
        for _ in 0..TRIES {
            let enabled = async {
                let (host, process) = machines.ask(0)?;
                let state = process.live.endpoint(endpoint)?.state.clone();
                if matches!(state, EndpointState::Enabled) {
                    return Some(());
                }
                let app = *self.app.borrow();
                let (service, caller) = (&process.service, &process.caller);
                let to = Switch::Enabled;
                let asked = service.switch_endpoint(caller, app, endpoint, to, None, None);
                let answer = timeout(PATIENCE_WITH_NODES, host.serve(asked)).await;
                answer.ok().flatten()?.ok().map(drop)
            };
            if enabled.await.is_some() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let what = "no node enables an endpoint although nothing is wrong".to_owned();
        self.judge().find(Err(("G1", what)));
    }
}
