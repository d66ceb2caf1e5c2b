//! The writer while its database is away: it is sought, and whoever asks is answered at once.

use std::sync::Arc;
use std::time::Duration;

use hookturn_core::store::StoreError;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Answer, Asked, Order, Unsettled, Writer, lost};
use crate::base::Session;
use crate::link::Lost;

/// How long to wait before connecting again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How long coming back may take, before it is given up and tried anew.
const COMING_BACK: Duration = Duration::from_secs(10);
/// How long a session of ours that we lost is given to end by itself.
const ENDS_ITSELF: Duration = Duration::from_millis(300);

/// What came of it.
enum Back {
    Seat(Session, i64),
    Gone,
}

impl Writer {
    /// Seeks the connection and answers whoever asks meanwhile. Returns whether it is back; otherwise it is time to end.
    pub(super) async fn wait_for_the_database(&mut self) -> bool {
        loop {
            let node = Arc::clone(&self.node);
            let at = Instant::now() + self.pause;
            let coming_back = async move {
                sleep_until(at).await;
                timeout(COMING_BACK, come_back(&node)).await
            };
            tokio::pin!(coming_back);
            let back = loop {
                tokio::select! {
                    biased;
                    back = &mut coming_back => break back,
                    order = self.inbox.recv() => match order {
                        Some(order) if !matches!(order.asked, Asked::Leave) => self.put_off(order),
                        last => {
                            self.leaving = last;
                            return false;
                        }
                    },
                }
            };
            match back {
                Ok(Ok(Back::Seat(session, written))) => {
                    self.session = Some(session);
                    if let Some(unsettled) = self.unsettled.take() {
                        let committed = unsettled.number <= written;
                        self.settle(unsettled, committed);
                    }
                    self.pause = Duration::ZERO;
                    self.reviewed = Instant::now() - super::HEARTBEAT;
                    return true;
                }
                Ok(Ok(Back::Gone)) => {
                    self.is_gone();
                    return false;
                }
                Ok(Err(Lost)) | Err(_) => {
                    self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_LAST);
                }
            }
        }
    }

    /// The fate of the transaction that was under way is known.
    fn settle(&mut self, unsettled: Unsettled, committed: bool) {
        if committed {
            let effects = unsettled.effects.lock().unwrap().take();
            self.happen(effects.unwrap_or_default());
            for order in unsettled.finishes {
                order.answer(Ok(Answer::Done));
            }
        } else {
            self.held.splice(0..0, unsettled.finishes);
        }
    }

    fn put_off(&mut self, order: Order) {
        let nothing_waits = self.held.is_empty() && self.unsettled.is_none();
        match &order.asked {
            _ if order.is_finish() => self.held.push(order),
            Asked::Barrier if nothing_waits => order.answer(Ok(Answer::Done)),
            _ => order.answer(Err(lost())),
        }
    }
}

async fn come_back(node: &super::Node) -> Result<Back, Lost> {
    let me = node.id;
    let session = node.link.connect().await?;
    // A commit that was sent last may not have been read yet.
    tokio::time::sleep(ENDS_ITSELF / 4).await;
    let written = node.link.trip(session, move |base| base.go_on(session, me));
    Ok(match written.await? {
        Some(written) => Back::Seat(session, written),
        None => Back::Gone,
    })
}

impl From<Lost> for StoreError {
    fn from(_: Lost) -> Self {
        lost()
    }
}
