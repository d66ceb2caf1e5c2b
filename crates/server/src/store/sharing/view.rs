//! Whether what was decided from an older view still stands.
//!
//! A change was decided from the view as it was a moment before. The things that it writes are compared by version; of
//! what else it may rest on (that an app is there, that a keyring is its own) a node knows only by the turns that its
//! requests take, and another node has turns of its own. So a change is refused if another node changed something of its
//! workspace since it was decided ([`Recent::refuse`]), and is decided again on what is there now (G5). So are the endpoints
//! that a message is for ([`Recent::refuse_accept`]), or one that was made and answered would get none of it (G1).

use std::collections::{HashSet, VecDeque};

use hookturn_core::id::WorkspaceId;
use hookturn_core::store::{Accept, Change, StoreError};

use super::keys::{Key, keys_of, kind};

/// Changes of other nodes that are remembered for those who decided before.
const REMEMBERED: usize = 4_096;

/// A thing that another node changed.
#[derive(Debug, Clone)]
pub struct Told {
    /// With which version of the view.
    pub version: i64,
    /// What.
    pub key: Key,
}

/// The latest changes of other nodes.
#[derive(Debug, Default)]
pub struct Recent {
    told: VecDeque<Told>,
    /// The latest version of which something is not remembered any more.
    forgotten: i64,
}

impl Recent {
    /// Remembers what was read, in order of the versions.
    pub fn remember(&mut self, told: impl IntoIterator<Item = Told>) {
        self.told.extend(told);
        while self.told.len() > REMEMBERED
            && let Some(oldest) = self.told.pop_front()
        {
            self.forgotten = oldest.version;
        }
    }

    /// Begins with what was loaded as of a version.
    pub const fn begin(version: i64) -> Self {
        Self {
            told: VecDeque::new(),
            forgotten: version,
        }
    }

    /// Refuses a change that was decided from a view of version `seen`, if what it may rest on was changed by
    /// another node since.
    pub fn refuse(&self, change: &Change, seen: u64) -> Result<(), StoreError> {
        let conflict = |what: String| Err(StoreError::Conflict { what });
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        if seen < self.forgotten {
            return conflict(format!("workspace {}", change.workspace));
        }
        let mut since = self
            .told
            .iter()
            .rev()
            .take_while(|told| told.version > seen);
        let ours: HashSet<Key> = keys_of(change).collect();
        let hit = since.find(|Told { key, .. }| {
            let rested_on =
                kind::RESTED_ON.contains(&key.kind) && key.workspace == change.workspace;
            rested_on || kind::RESTED_ON_BY_ALL.contains(&key.kind) || ours.contains(key)
        });
        match hit {
            None => Ok(()),
            Some(told) => conflict(format!("{} {}", told.key.kind, told.key.name)),
        }
    }

    /// Refuses messages whose endpoints were chosen from a view of version `seen`, if another node changed an app or an
    /// endpoint of their workspace since: an endpoint that it made, and answered, would get none of them.
    pub fn refuse_accept(&self, accept: &Accept, seen: u64) -> Result<(), StoreError> {
        let of = |workspace| {
            let mut messages = accept.messages.iter();
            messages.any(|new| new.message.workspace == workspace)
        };
        self.refuse_choice(of, seen)
    }

    /// The same for whatever was decided by the apps and endpoints of some workspaces.
    pub fn refuse_choice(
        &self,
        of: impl Fn(WorkspaceId) -> bool,
        seen: u64,
    ) -> Result<(), StoreError> {
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        let conflict = |what: String| Err(StoreError::Conflict { what });
        if seen < self.forgotten {
            return conflict("what the endpoints of a message were chosen from".to_owned());
        }
        let mut since = self
            .told
            .iter()
            .rev()
            .take_while(|told| told.version > seen);
        let hit = since.find(|Told { key, .. }| {
            kind::SENT_BY.contains(&key.kind) && (key.kind == kind::WORKSPACE || of(key.workspace))
        });
        match hit {
            None => Ok(()),
            Some(told) => conflict(format!("{} {}", told.key.kind, told.key.name)),
        }
    }
}

/// Whether so many versions are all those between the first and the last, and the last one is at least as late as one
/// that is known to be there.
pub const fn is_whole(versions: i64, (after, through): (i64, i64), known: i64) -> bool {
    versions == through - after && through >= known
}

#[cfg(test)]
mod tests {
    use hookturn_core::audit::{Actor, Context};
    use hookturn_core::id::EndpointId;
    use hookturn_core::proof::Findings;
    use hookturn_core::store::Write;
    use hookturn_core::time::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn workspace(number: u8) -> WorkspaceId {
        WorkspaceId::from_bytes([number; 16])
    }

    fn key(kind: &'static str, of: u8, name: &str) -> Key {
        Key {
            kind,
            workspace: workspace(of),
            name: name.to_owned(),
        }
    }

    fn change(of: u8, writes: Vec<Write>) -> Change {
        Change {
            workspace: workspace(of),
            writes,
            audit: Vec::new(),
            context: Context {
                actor: Actor::System,
                request_id: None,
                reason: None,
            },
            at: Timestamp::EPOCH,
            idempotency: None,
        }
    }

    fn recent(told: &[(i64, Key)]) -> Recent {
        let mut recent = Recent::begin(0);
        let told = told.iter().map(|(version, key)| Told {
            version: *version,
            key: key.clone(),
        });
        recent.remember(told);
        recent
    }

    #[test]
    fn g5_a_decision_is_made_again_when_another_node_changed_what_it_may_rest_on() {
        let recent = recent(&[
            (4, key(kind::APP, 1, "shop")),
            (5, key(kind::NOTED, 1, "k")),
        ]);
        assert!(
            recent.refuse(&change(1, Vec::new()), 4).is_ok(),
            "it saw that"
        );
        assert!(recent.refuse(&change(1, Vec::new()), 3).is_err());
        assert!(
            recent.refuse(&change(2, Vec::new()), 3).is_ok(),
            "another workspace"
        );
    }

    #[test]
    fn g5_the_same_thing_and_what_all_rest_on_are_never_written_over() {
        let findings = || Write::Findings {
            workspace: workspace(1),
            endpoint: EndpointId::from_bytes([9; 16]),
            findings: Findings::default(),
        };
        let name = Uuid::from_bytes([9; 16]).to_string();
        let same = recent(&[(7, key(kind::FINDINGS, 1, &name))]);
        assert!(same.refuse(&change(1, vec![findings()]), 6).is_err());
        assert!(same.refuse(&change(1, vec![findings()]), 7).is_ok());
        assert!(same.refuse(&change(1, Vec::new()), 6).is_ok());
        let fresh = recent(&[(8, key(kind::WORKSPACE, 3, ""))]);
        assert!(fresh.refuse(&change(1, Vec::new()), 7).is_err());
        let resealed = recent(&[(9, key(kind::MASTER_KEY, 0, ""))]);
        assert!(resealed.refuse(&change(1, Vec::new()), 8).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_whoever_decided_before_decides_again() {
        let many: Vec<_> = (1..=5_000)
            .map(|version| (version, key(kind::NOTED, 1, "k")))
            .collect();
        let recent = recent(&many);
        assert_eq!(recent.told.len(), REMEMBERED);
        assert!(recent.refuse(&change(2, Vec::new()), 5_000).is_ok());
        assert!(recent.refuse(&change(2, Vec::new()), 10).is_err());
    }

    #[test]
    fn a_gap_in_what_is_told_shows() {
        assert!(is_whole(0, (4, 4), 4));
        assert!(is_whole(3, (4, 7), 6));
        assert!(!is_whole(2, (4, 7), 6), "one is missing");
        assert!(!is_whole(2, (4, 6), 7), "the last one is");
    }
}
