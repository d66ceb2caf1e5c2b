//! Deliberate defects of the harness, each of which the simulation must find: proof that it can fail.
//!
//! They stand where the product meets the world (store, clock, receivers, probes, log), so that no
//! product code has a hook for them.

/// What is wrong in a run; nothing, as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// The signer's clock is twenty seconds behind.
    StaleSigner,
    /// A crash takes one due row with it.
    ForgetsDueRow,
    /// Due rows are read without the last one, for ever.
    HidesDueRow,
    /// An accept that was lost is answered as if it had happened.
    AnswersTooEarly,
    /// Every probe is reported as accepted, but for controls.
    BelievesProbes,
    /// Idempotent answers are not kept.
    ForgetsAnswers,
    /// The last audit entry of a change is left out.
    DropsAuditEntry,
    /// A secret's value is logged.
    LeaksSecret,
    /// A bad signature is answered as if something was not there.
    HidesRefusals,
    /// Due rows are read newest first.
    BreaksOrder,
    /// A node believes its view for a minute longer than it may.
    SignsPastGrace,
    /// A change is answered without a look at what the other nodes follow.
    FenceDoesNotWait,
    /// A node that was silent for a second is taken over, whatever its lease.
    TakesOverTooEarly,
    /// A node is taken over as soon as its lease is out by the database's clock, however long anyone watched it.
    TakesOverAfterAnOutage,
    /// A node that was taken over can write still.
    StaleNodeWrites,
    /// Of what other nodes changed, something is not taken into memory.
    SkipsAChange,
    /// A shard is given to others while something is under way for it.
    GivesUpTooEarly,
    /// A node corrects its clock the wrong way, and by too much.
    CorrectsTheWrongWay,
    /// The time that a node is stopped does not count: it goes on with what was confirmed before.
    PauseTakesNoTime,
    /// A node says that it follows a change as soon as it hears that there is one.
    ConfirmsBeforeItFollows,
    /// A fence takes it for granted that all follow who have not said so within half a second.
    GuessesConfirmations,
    /// A node whose clock is off by more than the bound does not say so.
    IgnoresItsClock,
    /// A row that another node tells of is taken into memory although a block may have brought it before.
    ForgetsWhatABlockBrought,
    /// The same although another node may have sent it, which had the shard before.
    BelievesForANewShard,
    /// A message is accepted for the endpoints that it was chosen for, whatever another node changed since.
    AcceptsForWhoWasThere,
    /// A node answers by what it knows, however long it has not heard from the database.
    AnswersByAnOldView,
}

impl Mutant {
    /// Every defect of nodes that share a database and are stopped for a while, with the guarantees that may show it.
    pub(crate) const OF_PAUSES: [(Self, &'static [&'static str]); 3] = [
        (Self::SignsPastGrace, &["G2", "G4"]),
        (Self::PauseTakesNoTime, &["G2", "G4"]),
        (Self::StaleNodeWrites, &["G2"]),
    ];
    /// The same where it is lost who follows what.
    pub(crate) const OF_CONFIRMATIONS: [(Self, &'static [&'static str]); 4] = [
        (Self::FenceDoesNotWait, &["G4"]),
        (Self::GuessesConfirmations, &["G4"]),
        (Self::ConfirmsBeforeItFollows, &["G4"]),
        (Self::SkipsAChange, &["G4", "G5"]),
    ];
    /// The same where clocks are wrong.
    pub(crate) const OF_CLOCKS: [(Self, &'static [&'static str]); 3] = [
        (Self::CorrectsTheWrongWay, &["G4", "G6"]),
        (Self::IgnoresItsClock, &["G4"]),
        (Self::TakesOverAfterAnOutage, &["G2"]),
    ];
    /// The same for who sends what.
    pub(crate) const OF_OWNERS: [(Self, &'static [&'static str]); 2] = [
        (Self::TakesOverTooEarly, &["G2"]),
        (Self::GivesUpTooEarly, &["G2"]),
    ];
    /// The same for what nodes tell each other of due rows.
    pub(crate) const OF_TELLING: [(Self, &'static [&'static str]); 2] = [
        (Self::ForgetsWhatABlockBrought, &["G2"]),
        (Self::BelievesForANewShard, &["G2"]),
    ];
    /// The same for who gets a message that is accepted while endpoints change.
    pub(crate) const OF_REACH: [(Self, &'static [&'static str]); 2] = [
        (Self::AcceptsForWhoWasThere, &["G1"]),
        (Self::AnswersByAnOldView, &["G1"]),
    ];
    /// Every other defect with the guarantees that may show it.
    pub(crate) const ALL: [(Self, &'static [&'static str]); 10] = [
        (Self::StaleSigner, &["G4"]),
        (Self::ForgetsDueRow, &["G1"]),
        (Self::HidesDueRow, &["G1"]),
        (Self::AnswersTooEarly, &["G1"]),
        (Self::BelievesProbes, &["G7"]),
        (Self::ForgetsAnswers, &["G5"]),
        (Self::DropsAuditEntry, &["G9", "G5"]),
        (Self::LeaksSecret, &["G8"]),
        (Self::HidesRefusals, &["G6"]),
        (Self::BreaksOrder, &["G2"]),
    ];
}
