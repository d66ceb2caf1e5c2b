//! G6: machines behind one address that get the new secret one after the other. Some of what is sent is
//! refused whichever secret signs; the plan must not make it worse than the plain order would be, and one
//! receiver that switched early must not pay for every delivery.

use hookturn_core::id::MessageId;
use hookturn_core::proof::{Evidence, ProofPolicy, learn_attempt};
use hookturn_core::receiver::{
    Exchange, ReceiverClass, ReceiverView, belief_after, fallback_is_due,
};
use hookturn_core::rotation::{Mode, Plan, delivery_plan, signing_plan};
use hookturn_core::time::Timestamp;
use hookturn_verify::Scheme;

use crate::support::{Bench, OVERLAP, at, rotate, secret_id};

const MACHINES: u64 = 4;

/// How the address chooses a machine for a request.
#[derive(Debug, Clone, Copy)]
enum Routing {
    InTurn,
    AtRandom,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

struct Fleet {
    bench: Bench,
    view: ReceiverView,
    evidence: Option<Evidence>,
    /// Machines that have the new secret and no longer the old one.
    moved: u64,
    routing: Routing,
    turn: u64,
    dice: Dice,
    refused: usize,
    plain: bool,
}

impl Fleet {
    fn new(mode: Mode, routing: Routing, plain: bool) -> Self {
        let mut bench = Bench::new();
        bench.run(at(0), rotate(2, mode));
        Self {
            bench,
            view: ReceiverView {
                class: ReceiverClass::Single,
                belief: None,
            },
            evidence: None,
            moved: 0,
            routing,
            turn: 0,
            dice: Dice(7),
            refused: 0,
            plain,
        }
    }

    fn answer(&mut self, number: u32) -> u16 {
        let machine = match self.routing {
            Routing::InTurn => self.turn % MACHINES,
            Routing::AtRandom => self.dice.roll() % MACHINES,
        };
        self.turn += 1;
        let holds = if machine < self.moved { 2 } else { 1 };
        if number == holds { 200 } else { 401 }
    }

    fn plan(&self, message: MessageId, now: Timestamp) -> Plan {
        let (keyring, view) = (&self.bench.keyring, &self.view);
        let plan = if self.plain {
            signing_plan(keyring, view, Scheme::Hopae, now)
        } else {
            let evidence = self.evidence.as_ref();
            delivery_plan(keyring, view, evidence, message, Scheme::Hopae, now)
        };
        plan.expect("the keyring has an active secret")
    }

    fn exchange(&mut self, number: u32, now: Timestamp) -> Exchange {
        let exchange = Exchange {
            signed_with: secret_id(number),
            sent_at: now,
            status: Some(self.answer(number)),
        };
        self.refused += usize::from(exchange.status != Some(200));
        exchange
    }

    fn attempt(&mut self, message: MessageId, now: Timestamp, first: bool) -> bool {
        let plan = self.plan(message, now);
        let number = if plan.sign_with == [secret_id(2)] {
            2
        } else {
            1
        };
        let mut exchanges = vec![self.exchange(number, now)];
        if fallback_is_due(self.view.belief, exchanges[0], first, false) {
            exchanges.push(self.exchange(3 - number, now));
        }
        for exchange in &exchanges {
            self.view.belief = belief_after(self.view.belief, *exchange);
        }
        let rotation = self.bench.keyring.rotation.as_ref().expect("one is open");
        self.evidence = learn_attempt(self.evidence, rotation, &exchanges);
        exchanges
            .iter()
            .any(|exchange| exchange.status == Some(200))
    }

    /// Sends `count` messages, each until it is accepted; requests that were refused.
    fn sends(&mut self, count: u64) -> usize {
        let before = self.refused;
        for nth in 0..count {
            let bytes = u128::from(self.dice.roll()) << 64 | u128::from(self.dice.roll());
            let message = MessageId::from_bytes(bytes.to_be_bytes());
            let now = at(self.turn * 1_000 + nth);
            let mut first = true;
            while !self.attempt(message, now, first) {
                first = false;
            }
        }
        self.refused - before
    }
}

/// Requests that were refused while one machine after the other moved, and then none was left to.
fn refused_while_rolling(mode: Mode, routing: Routing, plain: bool) -> [usize; 4] {
    let mut fleet = Fleet::new(mode, routing, plain);
    [1, 2, 3, MACHINES].map(|moved| {
        fleet.moved = moved;
        fleet.sends(400)
    })
}

#[test]
fn g6_a_rolling_fleet_refuses_less_than_under_the_plain_order() {
    let policy = ProofPolicy::default();
    for mode in [Mode::Staged { overlap: OVERLAP }, Mode::Proven { policy }] {
        for routing in [Routing::InTurn, Routing::AtRandom] {
            let refused = refused_while_rolling(mode, routing, false);
            let plain = refused_while_rolling(mode, routing, true);
            let total = |of: [usize; 4]| of.iter().sum::<usize>();
            assert!(
                4 * total(refused) < 3 * total(plain),
                "{routing:?}: {refused:?}, in the plain order {plain:?}"
            );
            assert!(refused[3] <= 4, "all have moved: {refused:?}");
        }
    }
}
