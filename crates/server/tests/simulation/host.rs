//! Machines: each runs one node at a time, whose tasks all stop while it is stopped, and are gone when it crashes.
//!
//! A node's tasks stand in a `LocalSet` of their own, which is polled behind a [`Gate`]. While the gate is shut nothing
//! of the node runs, its memory stays as it is, its timers fire in vain; when it opens again everything that is due is
//! found due at once. That is what `SIGSTOP` and `SIGCONT` do.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::task::LocalSet;

/// Lets a node run, or not.
#[derive(Default)]
pub(crate) struct Gate {
    shut: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    fn wait(&self, cx: &Context<'_>) {
        self.waiting.lock().unwrap().push(cx.waker().clone());
    }

    /// A future that rests while the gate is shut.
    pub(crate) async fn hold<T>(&self, held: impl Future<Output = T>) -> T {
        let mut held = pin!(held);
        std::future::poll_fn(|cx| {
            if self.is_shut() {
                self.wait(cx);
                return Poll::Pending;
            }
            held.as_mut().poll(cx)
        })
        .await
    }
}

/// The tasks of a node.
pub(crate) struct Host {
    pub(crate) gate: Arc<Gate>,
    set: RefCell<Option<LocalSet>>,
    /// What runs on its behalf outside of the set, and ends with it.
    callers: RefCell<Vec<Waker>>,
    alive: Cell<bool>,
}

impl Host {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            gate: Arc::default(),
            set: RefCell::new(Some(LocalSet::new())),
            callers: RefCell::default(),
            alive: Cell::new(true),
        })
    }

    /// Puts a task among those of the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(set) = &*self.set.borrow() {
            set.spawn_local(task);
        }
    }

    /// Runs the node's tasks while it may run, until it is gone.
    pub(crate) fn run(self: Rc<Self>) -> impl Future<Output = ()> {
        std::future::poll_fn(move |cx| {
            if self.gate.is_shut() {
                self.gate.wait(cx);
                return Poll::Pending;
            }
            match &mut *self.set.borrow_mut() {
                Some(set) => Pin::new(set).poll(cx),
                None => Poll::Ready(()),
            }
        })
    }

    /// A request that the node works on: nothing if it crashes before the answer.
    pub(crate) async fn serve<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let mut request = pin!(request);
        std::future::poll_fn(|cx| {
            if !self.alive.get() {
                return Poll::Ready(None);
            }
            if self.gate.is_shut() {
                self.gate.wait(cx);
                self.callers.borrow_mut().push(cx.waker().clone());
                return Poll::Pending;
            }
            let set = self.set.borrow();
            let _within = set.as_ref().map(LocalSet::enter);
            match request.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => {
                    self.callers.borrow_mut().push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The process ends here and now.
    pub(crate) fn kill(&self) {
        self.alive.set(false);
        let set = self.set.borrow_mut().take();
        drop(set);
        self.gate.open();
        let callers = std::mem::take(&mut *self.callers.borrow_mut());
        callers.into_iter().for_each(Waker::wake);
    }
}
