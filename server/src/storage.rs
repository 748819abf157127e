//! The ledger on disk: what was acknowledged is here, whole and in order, whenever the machine
//! stops.
//!
//! ```text
//! log/<first index, 20 digits>.seg    frames, append-only       segment.rs, frame.rs
//! tree/<level>                        hashes, derived           tree.rs
//! ```
//!
//! [`open`] recovers and hands out the parts: [`Log`] appends (one thread), [`LogReader`] reads
//! (any), [`TreeFiles`] is the tree. [`check`](crate::check::check) verifies everything without
//! changing anything.
//!
//! Rules that recovery relies on, and that nothing here may break:
//!
//! 1. A group is written behind the last one and synced once before anything follows it. So of all
//!    groups only the last may be incomplete on disk, and bytes of a later group prove that an
//!    earlier one was whole.
//! 2. A failed write or sync ends all writing until the ledger is opened again.
//! 3. A segment gets its name when the one before has its footer and the tree files are synced. So
//!    only the segment with the highest name may be incomplete.
//! 4. Groups consist of whole batches and lie in one segment. So the log may be cut behind any
//!    seal.
//! 5. What is written again is only the event of a durable entry, when it is erased (erase.rs).
//!
//! Everything blocks; callers bring their own threads.

use std::path::PathBuf;

mod erase;
pub(crate) mod file;
pub(crate) mod frame;
mod log;
mod reader;
pub(crate) mod recover;
pub(crate) mod segment;
mod tail;
pub(crate) mod tree;
pub(crate) mod walk;

pub use self::{
    erase::{Attempt, Erased},
    frame::GroupFrames,
    log::{Durable, Log},
    reader::{LogReader, ReadMemory, Record},
    recover::{Opened, Recovery, open},
    tree::TreeFiles,
};

/// Where and how a ledger is stored.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; `log/` and `tree/` lie in it.
    pub folder: PathBuf,
    /// The ledger's origin; segments of another one are refused.
    pub origin: String,
    /// Length at which a segment is full: [`Options::SEGMENT_BYTES`], or less in tests. A segment
    /// exceeds it only by the group that is alone in it.
    pub segment_bytes: u64,
}

impl Options {
    /// Default length of a segment: opening walks one segment, which takes a fraction of a second,
    /// and a thousand of them hold a ledger of a hundred million events.
    pub const SEGMENT_BYTES: u64 = 64 << 20;

    /// Longest segment: its offsets fit into 32 bits with room to spare.
    pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    /// Stores the ledger of this origin in `folder`, with segments of the default length.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, origin: impl Into<String>) -> Self {
        let (folder, origin) = (folder.into(), origin.into());
        Self { folder, origin, segment_bytes: Self::SEGMENT_BYTES }
    }
}
