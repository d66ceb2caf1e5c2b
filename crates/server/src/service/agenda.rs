//! The agenda: which open rotations to look at, and when, so that looking costs what is due and not what
//! is there.
//!
//! A keyring is looked at when something about it is new (it was written, a receiver answered), when its
//! next probe is due, when the end of its old secret comes near enough to be moved, and every few seconds all the
//! same: whatever else time does to it is found then. The agenda is only an order. It is empty after a start, and the live view then says of every open rotation
//! that it is new.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use hookturn_core::id::KeyringId;
use hookturn_core::time::{Millis, SECOND, Timestamp};

/// The longest time between two looks at a keyring.
const LOOK_EVERY: Millis = 5 * SECOND;
/// Keyrings that one sweep looks at, so that it stays within milliseconds; the others come next.
const LOOKS: usize = 1_000;

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Agenda(Mutex<Looks>);

#[derive(Debug, Default)]
struct Looks {
    by_time: BTreeSet<(Timestamp, KeyringId)>,
    of: HashMap<KeyringId, Timestamp>,
}

impl Looks {
    fn put(&mut self, keyring: KeyringId, at: Timestamp) {
        if let Some(known) = self.of.insert(keyring, at) {
            self.by_time.remove(&(known, keyring));
        }
        self.by_time.insert((at, keyring));
    }

    fn drop(&mut self, keyring: KeyringId) {
        if let Some(known) = self.of.remove(&keyring) {
            self.by_time.remove(&(known, keyring));
        }
    }
}

impl Agenda {
    fn with<T>(&self, change: impl FnOnce(&mut Looks) -> T) -> T {
        // Nothing in here panics between two halves of a change.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keyrings to look at now: those that are stirred, and those whose time has come. Each is to be
    /// looked at again after [`LOOK_EVERY`] unless something else is said, whatever becomes of this look.
    pub(super) fn take(&self, stirred: BTreeSet<KeyringId>, now: Timestamp) -> Vec<KeyringId> {
        self.with(|looks| {
            let latest = now.after(LOOK_EVERY);
            // The clock was set back: nothing that was planned is right any more.
            if looks.by_time.last().is_some_and(|(at, _)| *at > latest) {
                let all: Vec<KeyringId> = looks.of.keys().copied().collect();
                for keyring in all {
                    looks.put(keyring, now);
                }
            }
            for keyring in stirred {
                looks.put(keyring, now);
            }
            let due: Vec<KeyringId> = looks
                .by_time
                .iter()
                .take_while(|(at, _)| *at <= now)
                .take(LOOKS)
                .map(|(_, keyring)| *keyring)
                .collect();
            for keyring in &due {
                looks.put(*keyring, latest);
            }
            due
        })
    }

    /// Looks at a keyring at `at`, if that is earlier than planned.
    pub(super) fn look_at(&self, keyring: KeyringId, at: Timestamp) {
        self.with(|looks| {
            if looks.of.get(&keyring).is_none_or(|planned| at < *planned) {
                looks.put(keyring, at);
            }
        });
    }

    /// Looks at a keyring no more until it is stirred: its rotation is over, or has no steps.
    pub(super) fn forget(&self, keyring: KeyringId) {
        self.with(|looks| looks.drop(keyring));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_784_505_600_000);

    fn keyring(number: u8) -> KeyringId {
        KeyringId::from_bytes([number; 16])
    }

    fn none() -> BTreeSet<KeyringId> {
        BTreeSet::new()
    }

    #[test]
    fn a_keyring_is_looked_at_when_stirred_when_due_and_every_few_seconds() {
        let agenda = Agenda::default();
        let both = BTreeSet::from([keyring(1), keyring(2)]);
        assert_eq!(agenda.take(both, START), [keyring(1), keyring(2)]);
        assert!(agenda.take(none(), START.after(1)).is_empty());
        agenda.look_at(keyring(2), START.after(10));
        agenda.look_at(keyring(2), START.after(LOOK_EVERY));
        assert_eq!(agenda.take(none(), START.after(10)), [keyring(2)]);
        assert_eq!(agenda.take(none(), START.after(LOOK_EVERY)), [keyring(1)]);
        agenda.forget(keyring(2));
        let later = START.after(3 * LOOK_EVERY);
        assert_eq!(agenda.take(none(), later), [keyring(1)]);
        assert_eq!(
            agenda.take(BTreeSet::from([keyring(2)]), later),
            [keyring(2)]
        );
    }

    #[test]
    fn one_sweep_looks_at_so_many_and_the_next_at_the_others() {
        let agenda = Agenda::default();
        let all: BTreeSet<_> = (0..u128::try_from(LOOKS + 10).unwrap())
            .map(|number| KeyringId::from_bytes(number.to_be_bytes()))
            .collect();
        let first = agenda.take(all.clone(), START);
        let second = agenda.take(none(), START);
        assert_eq!((first.len(), second.len()), (LOOKS, 10));
        let seen: BTreeSet<_> = first.into_iter().chain(second).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let agenda = Agenda::default();
        agenda.take(BTreeSet::from([keyring(1)]), START);
        let back = START.before(3_600_000);
        assert_eq!(agenda.take(none(), back), [keyring(1)]);
    }
}
