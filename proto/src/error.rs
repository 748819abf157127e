//! What can be wrong with what this crate reads: one enum a stage.

mod control;
mod entry;
mod event;
mod filter;
mod note;
#[cfg(feature = "policy")]
mod policy;
mod quorum;
mod redaction;
mod segment;
mod source;
mod tree;
mod witness;

#[cfg(feature = "policy")]
pub use self::policy::{ControlRefusal, PolicyError};
pub use self::{
    control::ControlError,
    entry::{ChainError, EntryError, NameError, SealError},
    event::{EventError, EventFault},
    filter::{FilterError, FilterFault},
    note::{CheckpointError, KeyError, NoteError, ReceiptError, TlogProofError},
    quorum::{QuorumError, QuorumFault},
    redaction::{Kept, RedactionError},
    segment::SegmentError,
    source::{SequenceGap, SourceError},
    tree::{BuildError, ProofError},
    witness::AddCheckpointError,
};
