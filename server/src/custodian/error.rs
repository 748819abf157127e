//! What can go wrong at a custodian.

use std::{io, path::PathBuf};

use access_ledger_client::{
    error::ConnectError,
    verify::{StateError, Violation},
};
use access_ledger_proto::position::Index;
use thiserror::Error;

use crate::{
    error::{LedgerError, ServeError, StorageError},
    witness::WitnessError,
};

/// The copy cannot take what it is given, or cannot keep it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The records break a rule of the log. The ledger, or whoever served them, must answer for it.
    #[error(transparent)]
    Log(#[from] Box<Violation>),
    /// The entry starts a batch that is larger than any that a ledger admits.
    #[error("batch at index {index} has more than {limit} bytes")]
    BatchTooLarge {
        /// The batch's first entry.
        index: Index,
        /// What a group of the storage holds.
        limit: usize,
    },
    /// The event is longer than the format allows.
    #[error("event at index {index} has {bytes} bytes")]
    EventTooLarge {
        /// The entry.
        index: Index,
        /// Length of its event.
        bytes: usize,
    },
    /// Records that do not follow those before: a mistake of ours.
    #[error("records from index {found} on, wanted those from {wanted} on")]
    OutOfPlace {
        /// Index of the first.
        found: Index,
        /// The one that is due.
        wanted: Index,
    },
    /// The own log breaks a rule, although it was verified before it was stored. For the operator:
    /// the disk, or somebody at it.
    #[error("own log, {0}")]
    Own(Box<Violation>),
    /// The saved state does not fit the own log.
    #[error(transparent)]
    State(#[from] StateError),
    /// The storage refused; after a failed write, for good.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl From<Violation> for CopyError {
    fn from(violation: Violation) -> Self {
        Self::Log(Box::new(violation))
    }
}

/// The custodian cannot be started or kept running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CustodianError {
    /// The data folder, a key or the index.
    #[error(transparent)]
    Folder(#[from] LedgerError),
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Listening or serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The file that keeps what was seen is not one that this custodian wrote.
    #[error("{}: {problem}", .path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The witness cannot be opened.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The ledger's address is none, or the credentials cannot be used with it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A task ended before its time: the process is ending, or it panicked.
    #[error("{0} was cut off")]
    CutOff(&'static str),
}
