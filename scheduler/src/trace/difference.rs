//! Why a replay stopped.

use base::Instant;
use std::fmt;

/// Why a replay stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// The bytes are no trace of this format.
    Format(String),
    /// The core did something else than what was recorded.
    Differs {
        /// Number of the record, counted from 0.
        record: u64,
        /// Time of the poll.
        at: Instant,
        /// What was recorded.
        recorded: String,
        /// What this core did.
        replayed: String,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Format(what) => write!(f, "not a trace that can be replayed: {what}"),
            ReplayError::Differs { record, at, recorded, replayed } => write!(
                f,
                "record {record} at {} ns differs: recorded {recorded}, replayed {replayed}",
                at.0
            ),
        }
    }
}

impl std::error::Error for ReplayError {}
