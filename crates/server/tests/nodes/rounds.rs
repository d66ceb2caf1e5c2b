//! Rounds of faults: three nodes under load, with a rotation in every round, and something that breaks.
//!
//! What counts as a failure:
//!
//! - a message that was acknowledged and does not come to every endpoint (G1);
//! - on the ordered endpoint, one that comes for the first time after a later one (G2);
//! - a request whose signature was made with a secret after the rotation that retired it was answered (G4): by the
//!   time in the signature, or because its message was published after that;
//! - a node that cannot work again when the fault is over.
//!
//! A node that was taken over ends by itself and is started again, as a supervisor would. `HOOKTURN_TEST_ROUNDS` says
//! how many rounds; `HOOKTURN_TEST_SEED` which.

use std::sync::Arc;

use crate::cutter::Cutter;
use crate::desk::Desk;
use crate::fleet::{LEASE, SHARDS, shards, until_settled, until_shared};
use crate::support::postmaster::Postmaster;
use crate::support::{Api, Server, within_deadline};

mod judge;
mod load;

use judge::Judge;
use load::Load;

/// Rounds without a word from outside.
const ROUNDS: usize = 6;
const NODES: usize = 3;
/// Messages that must be acknowledged in between.
const SOME: usize = 12;

/// What breaks.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// `kill -9` of a node.
    Kill,
    /// A node hangs for longer than its lease.
    Hang,
    /// The database is killed and started again.
    Database,
    /// The connections between a node and the database are cut, again and again.
    Cut,
    /// A node does not reach the database for longer than its lease.
    Dark,
}

const FAULTS: [Fault; 5] = [
    Fault::Kill,
    Fault::Hang,
    Fault::Database,
    Fault::Cut,
    Fault::Dark,
];

/// A place where a node runs, and is started again.
struct Seat {
    desk: Desk,
    cutter: Cutter,
    server: Option<Server>,
}

impl Seat {
    async fn new(port: u16) -> Self {
        let cutter = Cutter::start(port).await;
        Self {
            desk: Desk::on(&cutter.url("postgres")),
            cutter,
            server: None,
        }
    }

    async fn start(&mut self) {
        self.server = Some(self.desk.serve_with(&self.desk.url, &[LEASE]).await);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}

struct World {
    postgres: Postmaster,
    seats: Vec<Seat>,
    /// Nodes that ended by themselves without having been away for their lease.
    fell: usize,
}

impl World {
    async fn new() -> Self {
        let postgres = Postmaster::start().await;
        let mut seats = Vec::new();
        for _ in 0..NODES {
            let mut seat = Seat::new(postgres.port()).await;
            seat.start().await;
            seats.push(seat);
        }
        Self {
            postgres,
            seats,
            fell: 0,
        }
    }

    fn apis(&self) -> Vec<Api> {
        self.seats.iter().map(|seat| seat.server().api()).collect()
    }

    /// Waits until the other nodes own everything.
    async fn until_taken_over(&self, from: usize) {
        let others = || (0..NODES).filter(|place| *place != from);
        let taken = async {
            loop {
                let mut owned = 0;
                for place in others() {
                    owned += shards(&self.seats[place].server().api()).await;
                }
                if owned == SHARDS {
                    return;
                }
            }
        };
        within_deadline("the others take over", taken).await;
    }

    /// Breaks something, and mends it.
    async fn breaks(&mut self, fault: Fault, place: usize, load: &mut Load) {
        match fault {
            Fault::Kill => {
                self.seats[place].server.take().unwrap().kill().await;
                load.more(SOME).await;
            }
            Fault::Hang => {
                self.seats[place].server().pause();
                self.until_taken_over(place).await;
                let server = self.seats[place].server.take().unwrap();
                server.go_on();
                server.ended().await;
            }
            Fault::Database => {
                self.postgres.kill();
                self.postgres.run().await;
            }
            Fault::Cut => {
                for _ in 0..4 {
                    self.seats[place].cutter.cut();
                    load.more(SOME / 4).await;
                }
            }
            Fault::Dark => {
                self.seats[place].cutter.open(false);
                self.until_taken_over(place).await;
                self.seats[place].cutter.open(true);
                self.seats[place].server.take().unwrap().ended().await;
            }
        }
    }

    /// Starts what ended, and waits until all nodes work.
    async fn mend(&mut self, load: &Load) {
        for seat in &mut self.seats {
            let fell = seat.server.as_mut().is_some_and(Server::has_ended);
            if fell {
                let (_, log) = seat.server.take().unwrap().ended().await;
                assert!(log.contains("this node was taken over"), "{log}");
                self.fell += 1;
            }
            if seat.server.is_none() {
                seat.start().await;
            }
        }
        load.lead_to(self.apis());
        let servers: Vec<&Server> = self.seats.iter().map(Seat::server).collect();
        until_shared(&servers).await;
    }
}

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test's own switch")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_g2_g4_rounds_of_faults_lose_nothing_keep_order_and_sign_with_nothing_retired() {
    let rounds = number("HOOKTURN_TEST_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    let mut random = number("HOOKTURN_TEST_SEED").unwrap_or(7);
    let mut draw = |below: usize| {
        // SplitMix64's increment and a mix: the same seed breaks the same things.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((mixed ^ (mixed >> 27)) % below as u64).unwrap()
    };
    let mut world = World::new().await;
    let servers: Vec<&Server> = world.seats.iter().map(Seat::server).collect();
    until_shared(&servers).await;
    let judge = Arc::new(Judge::make(&world.apis()[0]).await);
    let mut load = Load::start(Arc::clone(&judge), world.apis());
    for round in 0..rounds {
        load.more(SOME).await;
        // Every kind comes in every few rounds, each time elsewhere.
        let (fault, place) = (FAULTS[round % FAULTS.len()], draw(NODES));
        let rotating = load.rotate(round, draw(NODES));
        world.breaks(fault, place, &mut load).await;
        world.mend(&load).await;
        rotating.await.unwrap();
        println!(
            "round {round}: {fault:?} of node {place}, {} nodes fell so far",
            world.fell
        );
    }
    load.more(SOME).await;
    load.end().await;
    let api = world.seats[0].server().api();
    for app in judge.apps() {
        until_settled(&api, app).await;
    }
    println!("{}", judge.verdict());
    for mut seat in world.seats {
        seat.server.take().unwrap().stop().await;
    }
}
