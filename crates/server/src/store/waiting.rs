//! The bound on what waits to be accepted, so that a burst is refused instead of filling memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hookturn_core::store::{Accept, StoreError};

/// Bytes of messages that may wait for the writer: what it commits in a few seconds.
const WAITING_BYTES: usize = 128 * 1024 * 1024;
/// What a row costs beside its payload.
const ROW_BYTES: usize = 96;

/// How many bytes wait.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Waiting(Arc<AtomicUsize>);

/// A share of the bound, given back when it is dropped.
#[derive(Debug)]
pub(in crate::store) struct Share {
    of: Waiting,
    bytes: usize,
}

impl Waiting {
    /// Takes the share of these messages, or refuses.
    pub(in crate::store) fn admit(&self, accept: &Accept) -> Result<Share, StoreError> {
        let size = |payload: usize, deliveries: usize| payload + ROW_BYTES * (1 + deliveries);
        let bytes = accept
            .messages
            .iter()
            .map(|new| size(new.message.payload.len(), new.deliveries.len()))
            .sum();
        let share = Share {
            of: self.clone(),
            bytes,
        };
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        // What is alone is never refused, whatever its size: its own limits bound it.
        if before > 0 && before + bytes > WAITING_BYTES {
            Err(StoreError::Busy)
        } else {
            Ok(share)
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookturn_core::id::{ClientId, MessageId, WorkspaceId};
    use hookturn_core::message::{EventType, Message};
    use hookturn_core::store::NewMessage;
    use hookturn_core::time::Timestamp;

    fn of_bytes(bytes: usize) -> Accept {
        let message = Message {
            id: MessageId::from_bytes([1; 16]),
            workspace: WorkspaceId::from_bytes([1; 16]),
            app: ClientId::FIRST,
            event_type: EventType::new("a").unwrap(),
            event_id: None,
            payload: vec![b' '; bytes].into(),
            accepted_at: Timestamp::EPOCH,
        };
        let new = NewMessage {
            message: Arc::new(message),
            deliveries: Vec::new(),
        };
        Accept {
            messages: vec![new],
            idempotency: None,
        }
    }

    #[test]
    fn what_is_beyond_the_bound_is_refused_until_there_is_room() {
        let waiting = Waiting::default();
        let first = waiting.admit(&of_bytes(WAITING_BYTES / 2)).unwrap();
        let second = waiting.admit(&of_bytes(WAITING_BYTES / 4)).unwrap();
        assert!(matches!(
            waiting.admit(&of_bytes(WAITING_BYTES / 2)),
            Err(StoreError::Busy)
        ));
        drop(first);
        let third = waiting.admit(&of_bytes(WAITING_BYTES / 2)).unwrap();
        drop((second, third));
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
        assert!(waiting.admit(&of_bytes(2 * WAITING_BYTES)).is_ok());
    }
}
