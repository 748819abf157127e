//! What a log can be caught at, and what is wrong with a saved state.

use std::fmt;

use access_ledger_proto::{
    error::{EntryError, SealError, SequenceGap, SourceError},
    hash::Digest,
    position::{Index, Size},
    source::SourceName,
};
use thiserror::Error;

/// A log breaks a rule that every honest ledger keeps.
///
/// Its text is one sentence that names the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The first entry that breaks the rule. All entries before it were found in order.
    pub index: Index,
    /// Which rule, and how.
    pub what: Fault,
    /// An encoded `access_ledger.v1.EntryRun`: the entry as it was served, the one before it where
    /// that was at hand, and their events. Empty when no entry says it, as for a wrong root.
    pub evidence: Vec<u8>,
}

impl Violation {
    pub(crate) const fn new(index: Index, what: Fault) -> Self {
        Self { index, what, evidence: Vec::new() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at index {}, {}", self.index, self.what)
    }
}

impl std::error::Error for Violation {}

/// How a log breaks a rule, in the order in which the rules are checked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes of the entry are malformed.
    #[error("the entry is malformed: {0}")]
    Entry(EntryError),
    /// The entry belongs elsewhere.
    #[error("the entry names index {found} as its own")]
    Index {
        /// What the entry says.
        found: Index,
    },
    /// The entry does not continue the one before.
    #[error("the link is {found}, computed {computed}")]
    Link {
        /// The entry's `prev`.
        found: Digest,
        /// The leaf hash of the entry before.
        computed: Digest,
    },
    /// Time runs backwards.
    #[error("the time is {found} ns, the entry before has {before} ns")]
    Time {
        /// Nanoseconds since the Unix epoch.
        found: u64,
        /// The same of the entry before.
        before: u64,
    },
    /// The event is not the one that the entry records.
    #[error("the event's digest is {computed}, the entry recorded {recorded}")]
    EventDigest {
        /// Of the event as it was served.
        computed: Digest,
        /// What the entry says.
        recorded: Digest,
    },
    /// Entry 0 is no genesis.
    #[error("no usable genesis: {0}")]
    Genesis(SourceError),
    /// Entry 0 is the genesis of another ledger.
    #[error("the genesis is that of {found}, pinned is {pinned}")]
    ForeignGenesis {
        /// Origin and key of the genesis: the ledger's verifier key.
        found: String,
        /// The verifier key that the auditor pinned.
        pinned: String,
    },
    /// A batch was broken off.
    #[error("an entry of source {found} interrupts an unsealed batch of source {open}")]
    Interrupted {
        /// Whose entry it is.
        found: SourceName,
        /// Whose batch is open.
        open: SourceName,
    },
    /// A number is missing or used twice.
    #[error("{0}")]
    Sequence(SequenceGap),
    /// The seal does not hold for its batch.
    #[error("{0}")]
    Seal(SealError),
    /// The source may not do what it did, or is not registered with this key.
    #[error("{0}")]
    Source(SourceError),
    /// The signed log ends with events that no seal covers.
    #[error("a batch begins that is not sealed at size {size}")]
    Unsealed {
        /// The checkpoint's size.
        size: Size,
    },
    /// The checkpoint covers a change of the ledger's key and lacks the new key's signature: who
    /// made it has the old one alone.
    #[error(
        "the last entry under the checkpoint, which is not signed by the ledger's key since index \
         {since}, {key}"
    )]
    LedgerKey {
        /// The entry that brought the key into force.
        since: Index,
        /// Verifier key that should have signed.
        key: String,
    },
    /// The event is gone and no redaction accounts for it.
    #[error("the event was erased without a record")]
    ErasedWithoutRecord,
    /// The ledger signed another tree than the one that its entries make.
    #[error("the last entry under the checkpoint, the root is {signed}, computed {computed}")]
    Root {
        /// The checkpoint's root.
        signed: Digest,
        /// Root of the entries as they were served.
        computed: Digest,
    },
}

/// A saved state does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A field does not hold what it should.
    #[error("saved state: {field} is malformed")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// The tree of the state is not the one of the checkpoint that was pinned with it.
    #[error(
        "saved state: root of size {size} is {found}, the pinned checkpoint has {wanted} of size {wanted_size}"
    )]
    Root {
        /// The state's.
        size: Size,
        /// The state's.
        found: Digest,
        /// The checkpoint's.
        wanted: Digest,
        /// The checkpoint's.
        wanted_size: Size,
    },
}
