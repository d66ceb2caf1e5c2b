//! The end of a keyring whose endpoint is deleted.
//!
//! No command of the rotation machine takes the last active secret away, because an endpoint that
//! lives must never be without one (G3). An endpoint that is deleted sends nothing any more, so here
//! every secret is destroyed at once and an open rotation ends.

use hookturn_core::audit::{AuditAction, AuditEntry, Subject};
use hookturn_core::rotation::{Keyring, SecretState, Stage};
use hookturn_core::store::Write;
use hookturn_core::time::Timestamp;

/// Destroys every secret of `keyring`: the writes, and what to record.
pub(in crate::service) fn dissolve(
    keyring: &Keyring,
    now: Timestamp,
) -> (Vec<Write>, Vec<AuditEntry>) {
    let mut ended = keyring.clone();
    ended.version += 1;
    let mut writes = Vec::new();
    let mut audit = Vec::new();
    for secret in &mut ended.secrets {
        if matches!(secret.state, SecretState::Destroyed { .. }) {
            continue;
        }
        secret.state = SecretState::Destroyed { at: now };
        writes.push(Write::EraseSecret {
            workspace: keyring.workspace,
            keyring: keyring.id,
            secret: secret.id,
            answers: true,
        });
        let subject = Subject {
            keyring: Some(keyring.id),
            secret: Some(secret.id),
            ..Subject::default()
        };
        let mut entry = AuditEntry::new(AuditAction::SecretDestroyed, subject)
            .with("cause", "endpoint deleted");
        entry.fingerprint = Some(secret.fingerprint);
        audit.push(entry);
    }
    if let Some(mut rotation) = ended.rotation.take() {
        let stage = match rotation.stage.at(now) {
            Stage::Staged => Stage::Cancelled { at: now },
            Stage::Overlap { .. } => Stage::Completed { at: now },
            over @ (Stage::Completed { .. } | Stage::Cancelled { .. } | Stage::Undone { .. }) => {
                over
            }
        };
        if stage != rotation.stage {
            rotation.stage = stage;
            rotation.version += 1;
            writes.push(Write::Rotation(rotation));
        }
    }
    writes.push(Write::Keyring(ended));
    (writes, audit)
}
