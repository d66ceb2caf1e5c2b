//! Proof: what a sender can know about the key that a receiver holds, and when it is enough.
//!
//! The cast. A *probe* is an inert signed request that asks a yes-or-no question. A *rehearsal*
//! ([`rehearsal`]) asks four with the current secret and a random key, and finds out how the receiver
//! verifies. *Evidence* ([`evidence`]) counts what an endpoint's receiver answered to the pending
//! secret alone, in probes and in real deliveries. The [`ProofPolicy`] says how much is enough.
//!
//! What is proved, and no more: *holds(P)*, that messages signed with P alone were accepted and some
//! signed with a random key were refused, near in time ([`required_controls`]). Many passes rule out, with the policy's
//! confidence, that more than its stale share of a fleet still lacks P ([`required_passes`]). Nobody
//! can prove from outside that *every* machine of a fleet holds it.
//!
//! *released(O)* ([`released`]): that messages signed with the old secret alone were refused, which is
//! all a sender can see of a secret that was dropped.
//!
//! The guarantee (G7): a [`Proof`] has no public constructor. [`prove`] alone makes one, from
//! evidence, and in mode `proven` nothing but a `Proof` or an audited force promotes.
//!
//! Who may change what: whoever sends requests turns each answer into one [`Evidence::after`]; the
//! sweep asks [`Evidence::next_probe`] and [`prove`]. Nothing here sends, stores or waits.

pub mod control;
pub mod evidence;
pub mod findings;
pub mod latest;
mod learning;
pub mod notice;
pub mod policy;
pub mod proved;
pub mod rehearsal;
pub mod released;
pub mod standing;
pub mod sweep;

pub use control::{Control, Verdict, required_controls};
pub use evidence::{Evidence, Observed, Question, is_canary};
pub use findings::{Findings, Rehearsed};
pub use latest::Latest;
pub use learning::{is_about_content, learn, learn_attempt, policy_of};
pub use notice::{Noted, Notice, Stall, notices, stall};
pub use policy::{InvalidPolicy, OnDeadline, ProofPolicy, required_passes, ruled_out_percent};
pub use proved::{NotProven, Proof, prove};
pub use rehearsal::{Ask, Finding, ProbeAnswer, ProbeKey, ProbeKeys, Rehearsal};
pub use released::{RELEASED_ASKED, Release, Released};
pub use standing::Standing;
pub use sweep::{Step, next_step, turns_at};
