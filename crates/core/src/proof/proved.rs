//! Proof for a whole rotation, made of the evidence of its endpoints.

use super::evidence::Evidence;
use super::policy::ProofPolicy;
use super::standing::Standing;
use crate::id::{EndpointId, RotationId};
use crate::time::Timestamp;

/// Proof that every endpoint that counts holds the new secret. Only [`prove`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    rotation: RotationId,
    endpoints: Vec<(EndpointId, u32)>,
    at: Timestamp,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotProven {
    /// The endpoints that are not proved, and where they stand. Empty when there is no endpoint that
    /// anything could be proved about.
    pub missing: Vec<(EndpointId, Standing)>,
}

/// Proof for a rotation, from the evidence of every endpoint that counts: for a keyring of its own the
/// one endpoint, for a shared keyring each that was delivered to within the policy's look-back.
///
/// 1. Without an endpoint there is nothing to prove by.
/// 2. Evidence of another rotation is none.
/// 3. Every endpoint must stand at [`Standing::Proved`].
pub fn prove(
    policy: &ProofPolicy,
    rotation: RotationId,
    endpoints: &[(EndpointId, Option<Evidence>)],
    now: Timestamp,
) -> Result<Proof, NotProven> {
    let mut proved = Vec::with_capacity(endpoints.len());
    let mut missing = Vec::new();
    for (endpoint, evidence) in endpoints {
        let standing = evidence
            .filter(|evidence| evidence.rotation == rotation)
            .map_or(Standing::NotAsked, |evidence| {
                evidence.standing(policy, now)
            });
        match standing {
            Standing::Proved { passes, .. } => proved.push((*endpoint, passes)),
            Standing::NotAsked
            | Standing::DoesNotVerify { .. }
            | Standing::Unreachable
            | Standing::NotReady { .. }
            | Standing::Collecting { .. }
            | Standing::AwaitingControl { .. }
            | Standing::HoldingDown { .. } => missing.push((*endpoint, standing)),
        }
    }
    if proved.is_empty() || !missing.is_empty() {
        return Err(NotProven { missing });
    }
    Ok(Proof {
        rotation,
        endpoints: proved,
        at: now,
    })
}

impl Proof {
    /// The rotation it is for.
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// The endpoints, and the passes in a row that proved each.
    pub fn endpoints(&self) -> &[(EndpointId, u32)] {
        &self.endpoints
    }

    /// When it was found.
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}
