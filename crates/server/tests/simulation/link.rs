//! What is between a node and its database: round trips that take their time, whose requests or answers are lost, and
//! that a cut lets hang, in both directions or in one.
//!
//! A request that was sent arrives whatever becomes of its node meanwhile: it may be stopped, or gone. So a round trip
//! is a task of the simulation, not of the node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::base::{Base, Session};
use crate::engine::Faults;

/// How long a direction takes at most when nothing is wrong, in milliseconds.
const NEAR_MILLIS: u64 = 2;

/// After how long a packet that was dropped is sent again, at first and at most.
const RESEND_FIRST: Duration = Duration::from_millis(250);
const RESEND_LAST: Duration = Duration::from_secs(2);
/// How long a round trip hangs whose loss nobody notices: longer than any that is waited for.
const HANGS: Duration = Duration::from_secs(3);

/// The connection is lost. What was asked may have happened.
#[derive(Debug)]
pub(crate) struct Lost;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the node to the database.
    There,
    /// From the database to the node.
    Back,
}

/// Whether nothing gets through, by direction.
#[derive(Default)]
struct Cuts {
    there: AtomicBool,
    back: AtomicBool,
}

impl Cuts {
    const fn of(&self, way: Way) -> &AtomicBool {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }
}

/// What the network does by itself: what was dropped is sent again, ever more rarely.
async fn get_through(cut: &AtomicBool, hangs: bool) {
    if hangs {
        sleep(HANGS).await;
    }
    let mut pause = RESEND_FIRST;
    while cut.load(Ordering::SeqCst) {
        sleep(pause).await;
        pause = (pause * 2).min(RESEND_LAST);
    }
}

/// One node's way to the database.
pub(crate) struct Link {
    pub(crate) base: Arc<Base>,
    cuts: Arc<Cuts>,
    faults: Arc<Mutex<Faults>>,
    /// What was asked last on each connection: the next question arrives after it.
    last: Mutex<BTreeMap<Session, oneshot::Receiver<()>>>,
}

/// What becomes of a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Happens,
    RequestLost,
    AnswerLost,
}

impl Link {
    pub(crate) fn new(base: Arc<Base>) -> Self {
        let faults = Arc::clone(&base.inside.ground.faults);
        Self {
            base,
            cuts: Arc::default(),
            faults,
            last: Mutex::default(),
        }
    }

    /// From now on nothing gets through in these directions, and nobody is told.
    pub(crate) fn cut(&self, ways: &[Way]) {
        for way in ways {
            self.cuts.of(*way).store(true, Ordering::SeqCst);
        }
    }

    /// Everything gets through again.
    pub(crate) fn mend(&self) {
        for way in [Way::There, Way::Back] {
            self.cuts.of(way).store(false, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_cut(&self, way: Way) -> bool {
        self.cuts.of(way).load(Ordering::SeqCst)
    }

    pub(crate) fn is_whole(&self) -> bool {
        !self.is_cut(Way::There) && !self.is_cut(Way::Back)
    }

    /// How long both directions take, what becomes of it, and whether a loss is noticed.
    fn draw(&self) -> (Duration, Duration, Fate, bool) {
        let faults = *self.faults.lock().unwrap();
        let mut random = self.base.inside.ground.random.lock().unwrap();
        let mut way = || {
            let slow = random.below(faults.slow_millis / 4 + 1);
            Duration::from_millis(1 + random.below(NEAR_MILLIS) + slow)
        };
        let (there, back) = (way(), way());
        let fate = if random.chance(faults.requests_lost) {
            Fate::RequestLost
        } else if random.chance(faults.answers_lost) {
            Fate::AnswerLost
        } else {
            Fate::Happens
        };
        let noticed = random.chance(600);
        drop(random);
        if fate != Fate::Happens {
            let mut judge = self.base.inside.ground.judge.lock().unwrap();
            judge.counts.store_faults += 1;
        }
        (there, back, fate, noticed)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Session, Lost> {
        self.ask(None, Base::connect).await
    }

    /// Asks without a connection of one's own: readers have theirs.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Base) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.ask(None, act).await
    }

    /// One round trip on a connection.
    pub(crate) async fn trip<T: Send + 'static>(
        &self,
        session: Session,
        act: impl FnOnce(&Base) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        self.ask(Some(session), act).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        session: Option<Session>,
        act: impl FnOnce(&Base) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (there, back, fate, noticed) = self.draw();
        let (answer, answered) = oneshot::channel();
        let (arrived, arrival) = oneshot::channel();
        let before = session.and_then(|session| self.last.lock().unwrap().insert(session, arrival));
        let (base, cuts) = (Arc::clone(&self.base), Arc::clone(&self.cuts));
        tokio::spawn(async move {
            sleep(there).await;
            get_through(&cuts.there, fate == Fate::RequestLost && !noticed).await;
            if let Some(before) = before {
                let _ = before.await;
            }
            let gone = base.is_away() || session.is_some_and(|session| !base.is_open(session));
            if gone || (fate == Fate::RequestLost && noticed) {
                if let Some(session) = session {
                    base.end(session);
                }
                return;
            }
            let found = act(&base);
            let _ = arrived.send(());
            sleep(back).await;
            get_through(&cuts.back, fate == Fate::AnswerLost && !noticed).await;
            if (fate == Fate::AnswerLost && noticed) || base.is_away() {
                if let Some(session) = session {
                    base.end(session);
                }
                return;
            }
            let _ = answer.send(found);
        });
        answered.await.map_err(|_| Lost)
    }
}
