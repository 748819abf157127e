//! What can be wrong with what this crate reads: one enum a stage.

mod entry;
mod event;
mod filter;
mod note;
mod source;
mod tree;

pub use self::{
    entry::{ChainError, EntryError, NameError, SealError},
    event::{EventError, EventFault},
    filter::{FilterError, FilterFault},
    note::{CheckpointError, KeyError, NoteError, ReceiptError, TlogProofError},
    source::{SequenceGap, SourceError},
    tree::{BuildError, ProofError},
};
