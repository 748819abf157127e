//! Streams the frames of one segment, in order and checked, through one bounded buffer.
//!
//! Opening walks the last segment this way; a check walks to the entry that it names.

use access_ledger_proto::{
    chain::Link,
    entry::Entry,
    hash::{Digest, leaf_hash},
    position::Index,
    segment::{Frame, FrameHeader, HEADER_LEN, Verify},
};

use super::segment::Segment;
use crate::error::{Fault, StorageError};

/// Bytes read at once: several of the longest frames, and few enough to stay in a core's cache.
const CHUNK_LEN: usize = 128 << 10;

/// Reads frame after frame from the first of a segment.
pub(crate) struct Walk<'a> {
    segment: &'a Segment,
    /// Where the frames may reach: the footer, or the end of the file.
    end: u64,
    /// The next frame: where it starts in the file, in the buffer, and its index.
    offset: u64,
    position: usize,
    index: Index,
    /// What was read; only the first `filled` bytes hold.
    buffer: Vec<u8>,
    filled: usize,
}

/// A frame and where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) offset: u64,
    /// Where the next one starts.
    pub(crate) end: u64,
    pub(crate) index: Index,
    pub(crate) frame: Frame<'a>,
}

impl<'a> Placed<'a> {
    /// Reads the entry, checks that it continues `link`, moves `link` past it, and returns the
    /// entry with its leaf hash.
    pub(crate) fn continues(
        &self,
        segment: &Segment,
        link: &mut Link,
    ) -> Result<(Entry<'a>, Digest), StorageError> {
        let damage = |fault| segment.damage(self.offset, self.index, fault);
        let entry = Entry::parse(self.frame.entry).map_err(|error| damage(Fault::Entry(error)))?;
        let leaf = leaf_hash(self.frame.entry);
        link.check(&entry, leaf).map_err(|error| damage(Fault::Chain(error)))?;
        Ok((entry, leaf))
    }
}

impl<'a> Walk<'a> {
    /// From the first frame of `segment` up to `end`.
    pub(crate) fn new(segment: &'a Segment, end: u64) -> Self {
        let (offset, index) = (HEADER_LEN as u64, segment.first());
        Self { segment, end, offset, position: 0, index, buffer: Vec::new(), filled: 0 }
    }

    /// Where the next frame starts, or the one that `next` has refused.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The index that the next frame must have.
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    /// The next frame; `None` at the end. After an error the walk stays where it was.
    pub(crate) fn next(&mut self) -> Result<Option<Placed<'_>>, StorageError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        if !self.holds_frame() {
            self.fill()?;
        }
        let rest = self.buffer.get(self.position..self.filled).unwrap_or_default();
        let (offset, index) = (self.offset, self.index);
        let parsed = Frame::parse(rest, self.segment.header.salt, Verify::All);
        let (frame, length) = match parsed {
            Ok((frame, length)) if frame.index() == index => (frame, length),
            Ok((frame, _)) => {
                let fault = Fault::Index { found: frame.index() };
                return Err(self.segment.damage(offset, index, fault));
            }
            Err(fault) => return Err(self.segment.damage(offset, index, fault)),
        };
        self.offset += length as u64;
        self.position += length;
        self.index = index.next();
        Ok(Some(Placed { offset, end: self.offset, index, frame }))
    }

    /// Whether the next frame lies in the buffer as a whole.
    fn holds_frame(&self) -> bool {
        let rest = self.buffer.get(self.position..self.filled).unwrap_or_default();
        let header = rest.first_chunk().map(FrameHeader::parse);
        header.is_some_and(|header| header.is_ok_and(|header| header.frame_len() <= rest.len()))
    }

    /// Moves what is left to the front of the buffer and reads on behind it.
    fn fill(&mut self) -> Result<(), StorageError> {
        let left = self.filled - self.position;
        let in_file = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let wanted = in_file.min(CHUNK_LEN);
        if left >= wanted {
            return Ok(());
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.buffer.copy_within(self.position..self.filled, 0);
        self.position = 0;
        let space = self.buffer.get_mut(left..wanted).unwrap_or_default();
        self.filled = left + self.segment.file.read_at(space, self.offset + left as u64)?;
        Ok(())
    }
}
