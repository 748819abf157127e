//! Why the witness does not sign.

use std::{
    io,
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    error::{CheckpointError, ProofError},
    position::Size,
};
use thiserror::Error;

use super::Contradiction;
use crate::error::StorageError;

/// Why an `add-checkpoint` call was refused. Nothing was signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddRefusal {
    /// The body or its checkpoint is malformed. 400.
    #[error("{problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
    /// The old size is larger than the checkpoint's. 400.
    #[error("old size {old}, the checkpoint's is {size}")]
    OldBeyond {
        /// The old size of the call.
        old: Size,
        /// The checkpoint's.
        size: Size,
    },
    /// The log's key did not sign, or not this. 403.
    #[error("checkpoint is not signed by the log: {problem}")]
    Untrusted {
        /// What is wrong with the signature.
        problem: String,
    },
    /// A human has to clear the log first: it contradicted itself. 403.
    #[error("nothing of this log is signed, it contradicted itself")]
    Halted,
    /// The log is not known. 404.
    #[error("no log {origin:?} is known here")]
    UnknownOrigin {
        /// The origin of the checkpoint.
        origin: String,
    },
    /// The old size is not the one that was cosigned last. 409; the body is the size.
    #[error("newest cosigned size is {size}")]
    Conflict {
        /// The size that was cosigned last.
        size: Size,
    },
    /// The checkpoint was not shown to be consistent with the newest one. 422.
    #[error("consistency: {0}")]
    Proof(#[from] ProofError),
    /// A proof where there is nothing to prove. 422.
    #[error("proof of {found} hashes, expected none from size 0")]
    ProofFromNothing {
        /// Hashes in the proof.
        found: usize,
    },
    /// The checkpoint ends inside a batch: no source has sealed the last entries. 422.
    #[error("no seal covers the last entries of size {size}")]
    Unsealed {
        /// The checkpoint's size.
        size: Size,
    },
    /// The checkpoint contradicts what is held or was cosigned. 422.
    #[error("root at size {} is another here: {}", .0.size, .0.wanted)]
    Contradicts(Box<Contradiction>),
    /// Not now: the disk refused, or too little of the log is held yet. 503.
    #[error("{problem}")]
    Unavailable {
        /// What is in the way.
        problem: String,
    },
}

/// The witness cannot be opened, or cannot sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// A key that is of no use here.
    #[error("key {name}: {problem}")]
    Key {
        /// The key's name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two keys for one origin.
    #[error("log {origin} is named twice")]
    OriginTwice {
        /// The origin.
        origin: String,
    },
    /// A stored note is not one that this witness signed. For the operator: never delete it, for
    /// then the witness would sign what contradicts it.
    #[error("{}: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The log is not known.
    #[error("no log {origin:?} is known here")]
    UnknownOrigin {
        /// The origin.
        origin: String,
    },
    /// A human has to clear the log first.
    #[error("nothing of this log is signed, it contradicted itself")]
    Halted,
    /// What is held does not continue what was cosigned.
    #[error("root at size {} is {}, another was cosigned", .0.size, .0.wanted)]
    Contradicts(Box<Contradiction>),
    /// What is held could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The checkpoint cannot be cosigned.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl WitnessError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

impl From<WitnessError> for AddRefusal {
    fn from(error: WitnessError) -> Self {
        match error {
            WitnessError::Halted => Self::Halted,
            WitnessError::Contradicts(contradiction) => Self::Contradicts(contradiction),
            WitnessError::UnknownOrigin { origin } => Self::UnknownOrigin { origin },
            WitnessError::Key { .. }
            | WitnessError::OriginTwice { .. }
            | WitnessError::Damaged { .. }
            | WitnessError::Io { .. }
            | WitnessError::Storage(_)
            | WitnessError::Checkpoint(_) => Self::Unavailable { problem: error.to_string() },
        }
    }
}
