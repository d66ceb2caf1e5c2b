//! The writer while its database is away: it is sought in the background, and whoever asks is answered at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookturn_core::store::StoreError;
use tokio::time::{Instant, timeout};

use super::{Thread, Unsettled, away};
use crate::store::postgres::session::{self, Away, Back};
use crate::store::postgres::writer::{Answer, Order, Work};

/// How long to wait before connecting again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How long a store that is closed while its database is away tries to record what it holds.
const LAST_CHANCE: Duration = Duration::from_secs(2);
/// What it does, as the log says it when it fails.
const CONNECTION: &str = "connect to the database";

/// What came up while the database was away.
enum Aside {
    Back(Result<Back, Away>),
    Asked(Option<Order>),
}

impl Thread {
    /// Seeks the connection and answers whoever asks meanwhile. Returns whether it is back; otherwise it is
    /// time to end.
    pub(super) async fn wait_for_the_database(&mut self) -> bool {
        loop {
            let coming_back = self.coming_back.get_or_insert_with(|| {
                tokio::spawn(session::come_back(
                    Instant::now() + self.pause,
                    self.target.clone(),
                    self.node.clone(),
                    Arc::clone(&self.live),
                ))
            });
            let aside = tokio::select! {
                biased;
                back = coming_back => Aside::Back(back.unwrap_or(Err(Away::Unreachable(StoreError::Stopped)))),
                order = self.inbox.recv() => Aside::Asked(order),
            };
            match aside {
                Aside::Back(back) => {
                    if let Some(back) = self.came_back(back) {
                        return back;
                    }
                }
                Aside::Asked(Some(order)) if !matches!(order.work, Work::Leave) => {
                    self.put_off(order);
                }
                Aside::Asked(last) => {
                    self.leaving = last;
                    return self.last_chance().await;
                }
            }
        }
    }

    /// What an attempt to come back means: to go on, to end, or to try again.
    fn came_back(&mut self, back: Result<Back, Away>) -> Option<bool> {
        self.coming_back = None;
        match back {
            Ok((seat, written)) => {
                if let Some(unsettled) = self.unsettled.take() {
                    let committed = unsettled.number <= written;
                    self.settle(unsettled, committed);
                }
                self.have(seat);
                self.troubles.worked(CONNECTION);
                tracing::info!(held = self.held.len(), "the store has its database again");
                Some(true)
            }
            Err(Away::Unreachable(error)) => {
                self.troubles.failed(CONNECTION, &error);
                self.cannot_write.store(true, Ordering::Relaxed);
                self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_LAST);
                None
            }
            Err(Away::Gone(gone)) => {
                self.is_gone(gone);
                Some(false)
            }
        }
    }

    /// The fate of the transaction that was under way is known.
    fn settle(&mut self, unsettled: Unsettled, committed: bool) {
        if committed {
            self.happen(unsettled.effects);
            for order in unsettled.finishes {
                order.answer(Ok(Answer::Done));
            }
        } else {
            self.held.splice(0..0, unsettled.finishes);
        }
    }

    fn put_off(&mut self, order: Order) {
        let nothing_waits = self.held.is_empty() && self.unsettled.is_none();
        match &order.work {
            Work::Finish { .. } => self.held.push(order),
            Work::Barrier if nothing_waits => order.answer(Ok(Answer::Done)),
            _ => order.answer(Err(away())),
        }
    }

    /// The store is closed: one more look whether the database is there, if there is something to record.
    async fn last_chance(&mut self) -> bool {
        let waits = !self.held.is_empty() || self.unsettled.is_some();
        if waits
            && let Some(coming_back) = self.coming_back.take()
            && let Ok(Ok(back)) = timeout(LAST_CHANCE, coming_back).await
            && self.came_back(back) == Some(true)
        {
            return true;
        }
        false
    }
}
