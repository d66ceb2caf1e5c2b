//! Keyrings and rotations: which secret may sign, and how a keyring moves to the next one.
//!
//! The cast. A [`Keyring`] owns the versions of one signing key; it signs for one endpoint or,
//! when shared, for many. A [`Rotation`] is one move from the active secret to the next. Neither
//! ever holds a secret's value: values are sealed in the store, here a secret is an id, a
//! fingerprint and a state.
//!
//! The guarantee (DESIGN G4, G5, and the part of G3 that is a decision):
//!
//! - A keyring has at most one active secret, one pending, one retiring and one open rotation; once
//!   it has an active secret it always has one.
//! - A secret that is retired (and *retired* begins at `retireAt`, whether or not anything noted
//!   it), destroyed or cancelled is in no signing plan. One thing brings a retired secret back: the
//!   explicit, audited [`Command::Undo`] of the very rotation that retired it, while nothing came
//!   after that rotation and the secret is neither destroyed nor compromised. Nothing brings a
//!   destroyed one back, not even importing the same value again.
//! - A compromised secret never co-signs and is never a fallback.
//!
//! Who may change what: only [`apply()`] and [`apply_all()`] make a changed keyring, a whole one or none.
//! The store writes what it returns (keyring, rotations, erased secrets, audit entries) in one
//! transaction that compares [`Keyring::version`].
//!
//! Not promised here: that other nodes have seen the change (that is the fence), and that the
//! receiver holds the new secret (that is proof, and mode `proven`).

mod apply;
mod change;
mod command;
mod keyring;
mod meaning;
mod plan;

pub use apply::{Applied, apply, apply_all};
pub use command::{Command, Grounds, NewSecret, Rejected};
pub use keyring::{
    ImpossibleKeyring, KeyKind, Keyring, KeyringOwner, Mode, Promotion, PromotionGrounds,
    ProvedEndpoint, Rotation, SecretState, SecretStatus, SecretVersion, Stage,
};
pub use plan::{NoLiveSecret, Plan, default_overlap, delivery_plan, signing_plan};
