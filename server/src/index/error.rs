//! What can go wrong in the index.

use std::{io, path::PathBuf};

use access_ledger_proto::{
    error::{EntryError, SequenceGap, SourceError},
    position::{Index, Size},
};
use thiserror::Error;

use crate::error::StorageError;

/// The index cannot answer, or cannot follow the log. The log itself is not concerned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The log cannot be read, or a posting block not be read or written. For the operator.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store of the state refused. For the operator.
    #[error("cannot use the state of the index: {0}")]
    State(#[from] sled::Error),
    /// What the state holds of facts and reports cannot be read back. For the operator: at the next
    /// start the index is built again.
    #[error("cannot read facts back: {problem}")]
    Facts {
        /// What the first read that failed met.
        problem: String,
    },
    /// The folder of the state cannot be removed, to be built again. For the operator.
    #[error("cannot remove {path}: {source}")]
    Remove {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A posting block is not as written. It is built again from the log; the caller tries later.
    #[error("posting block {path} is damaged: {part}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part of it that does not match its checksum.
        part: &'static str,
    },
    /// The answer may lie in a stretch that is being built again. The caller tries later.
    #[error("entries {first} to {last} are being indexed again")]
    Rebuilding {
        /// First index that has no postings.
        first: Index,
        /// Last one.
        last: Index,
    },
    /// The index did not get there in time. The caller tries later.
    #[error("index covers {found} entries, {wanted} are needed")]
    Behind {
        /// Entries indexed.
        found: Size,
        /// Entries waited for.
        wanted: Size,
    },
    /// The thread that follows the log has ended. For the operator: its log line says why.
    #[error("index has stopped at {size} entries")]
    Stopped {
        /// Entries indexed.
        size: Size,
    },
    /// The thread that follows the log cannot be started. For the operator.
    #[error("cannot start the index's thread: {0}")]
    Thread(io::Error),
    /// The log does not begin with a genesis. For the operator: it is damaged, or not initialised.
    #[error("log has no genesis entry: {0}")]
    Genesis(SourceError),
    /// An entry is malformed. For the operator: `check` says more.
    #[error("entry {index}: {fault}")]
    Entry {
        /// Its place.
        index: Index,
        /// What is wrong with it.
        fault: EntryError,
    },
    /// A source's numbers have a gap. For the operator: `check` says more.
    #[error("entry {index}: {gap}")]
    Sequence {
        /// The entry behind the gap.
        index: Index,
        /// The number found and the one wanted.
        gap: SequenceGap,
    },
    /// An event that the rules rest on has rotted. For the operator: restore from the custodian.
    #[error("event {index} is not as it was written, and what follows it rests on it")]
    Rotten {
        /// Its place.
        index: Index,
    },
    /// An event in the log breaks the rules of the sources. For the operator: `check` says more.
    #[error("entry {index}: {fault}")]
    Unlawful {
        /// Its place.
        index: Index,
        /// The rule that it breaks.
        fault: SourceError,
    },
}

impl IndexError {
    /// Whether trying again may help, or the rest go on meanwhile: where the log is damaged, what
    /// lies elsewhere is sound.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Storage(StorageError::Io { .. } | StorageError::Damage { .. })
                | Self::State(_)
                | Self::Damaged { .. }
        )
    }
}
