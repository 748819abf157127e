//! What can be wrong with what this crate reads: one enum a stage.

mod control;
mod entry;
mod event;
mod note;
mod source;
mod tree;

pub use self::{
    control::ControlError,
    entry::{ChainError, EntryError, NameError, SealError},
    event::{EventError, EventFault},
    note::{CheckpointError, KeyError, NoteError, ReceiptError, TlogProofError},
    source::{SequenceGap, SourceError},
    tree::{BuildError, ProofError},
};
