//! Why a step of the store did not happen.

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Someone else changed the same thing first. Nothing was written; read again and decide anew.
    #[error("{what} was changed by another request at the same time")]
    Conflict {
        /// Which thing, with its id.
        what: String,
    },
    /// The idempotency key already has an answer. Nothing was written; read it and replay.
    #[error("the idempotency key has been used")]
    IdempotencyKeyUsed,
    /// A name that must be unique is taken. Nothing was written.
    #[error("{what} already exists")]
    Duplicate {
        /// Which thing.
        what: String,
    },
    /// A stored row cannot be: it was damaged or written by other software.
    #[error("the row {row} of table {table} cannot be read in column {column}")]
    ImpossibleRow {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The key of the row as text.
        row: String,
        /// What was wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More is waiting than the store takes. Nothing was written; try again soon.
    #[error("too much is waiting to be stored")]
    Busy,
    /// The store is stopping or its writer is gone. Whether the step happened is unknown.
    #[error("the store has stopped")]
    Stopped,
    /// The engine cannot write at the moment: its disk is full, read-only or failing, or its database
    /// cannot be reached. Nothing of the step was written, and the same step can succeed once that is
    /// mended.
    #[error(
        "the store cannot write to {step}: its disk is full, read-only or failing, or its database is away"
    )]
    Unwritable {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is damaged: a page of it is not what was written. Nothing of the step was written, and
    /// no repetition will help.
    #[error("the database is damaged: the store failed to {step}")]
    Damaged {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine lost its database between a commit and its answer: whether the step happened is not
    /// known yet. The engine finds it out before it writes anything else.
    #[error("the store lost its database while it stored this; whether it did is not known yet")]
    Uncertain,
    /// The engine failed. Nothing of the step was written unless the engine says otherwise.
    #[error("the store failed to {step}")]
    Engine {
        /// What it was doing.
        step: &'static str,
        /// The engine's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
