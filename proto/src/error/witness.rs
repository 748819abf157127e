//! What can be wrong with what a log sends to a witness.

use thiserror::Error;

/// The body of an `add-checkpoint` call is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddCheckpointError {
    /// The first line is no old size.
    #[error("line 1 is malformed, expected \"old <size in decimal>\"")]
    Old,
    /// A line of the proof is no hash.
    #[error("line {line} is malformed, expected a hash in base64 or an empty line")]
    Hash {
        /// Its number, from 1.
        line: usize,
    },
    /// More hashes than any proof has.
    #[error("proof of more than 63 hashes")]
    ProofLength,
    /// The body ends, or is no text, before the checkpoint.
    #[error("body ends too early, expected an old size, hashes, an empty line and a checkpoint")]
    Truncated,
}
