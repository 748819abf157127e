//! The end of the last segment: tells a torn tail, which is cut, from damage, which never is.
//!
//! Frames are valid up to some point. Behind it there are:
//!
//! - only zeros, written ahead: the log ends here;
//! - anything else, but no frame of a later group: the last group was being written when the
//!   machine stopped, nobody was told that it is durable (rule 1 in `storage.rs`);
//! - a frame of a later group: the bad frame's own group was whole once. This is damage.

use access_ledger_proto::{
    position::Index,
    segment::{FRAME_LEN_MAX, Frame, Salt, Verify},
};

use super::{file::StoredFile, segment::Segment};
use crate::error::StorageError;

/// What lies behind the last valid frame of the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros, or nothing.
    Clean,
    /// Leftovers of a group that was never acknowledged.
    Torn,
    /// A frame of a later group: what is missing before it was acknowledged.
    Damaged,
}

/// Judges the bytes from `offset` to `end`; a frame with index `bad` should start there and does
/// not.
pub(crate) fn judge(
    segment: &Segment,
    (offset, end): (u64, u64),
    bad: Index,
) -> Result<Tail, StorageError> {
    let mut tail = Tail::Clean;
    let mut at = offset;
    while at < end {
        let window = Window::read(&segment.file, at, end)?;
        if tail == Tail::Clean && window.bytes.iter().all(|&byte| byte == 0) {
            at += CHUNK_LEN as u64;
            continue;
        }
        tail = Tail::Torn;
        if window.holds_later_group(segment.header.salt, bad) {
            return Ok(Tail::Damaged);
        }
        at += CHUNK_LEN as u64;
    }
    Ok(tail)
}

/// A stretch of the file in which frames may start in the first [`CHUNK_LEN`] bytes; what follows
/// lets the last of them be read to its end.
struct Window {
    bytes: Vec<u8>,
}

impl Window {
    fn read(file: &StoredFile, at: u64, end: u64) -> Result<Self, StorageError> {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        Ok(Self { bytes: file.read(at, left.min(CHUNK_LEN + FRAME_LEN_MAX))? })
    }

    fn holds_later_group(&self, salt: Salt, bad: Index) -> bool {
        let starts = 0..self.bytes.len().min(CHUNK_LEN);
        starts.filter_map(|start| self.bytes.get(start..)).any(|bytes| {
            let frame = Frame::parse(bytes, salt, Verify::Entry);
            frame.is_ok_and(|(frame, _)| frame.group_first() > bad)
        })
    }
}

/// Bytes searched at once.
const CHUNK_LEN: usize = 1 << 20;
