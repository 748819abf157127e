//! The segments of a stopped ledger, cut into pieces that are read in any order and on all cores.

use std::{
    ops::{Range, RangeInclusive},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    hash::{Digest, sha256},
    position::{Index, Size, count_of, memory_len},
    segment::{FRAME_LEN_MAX, Frame, HEADER_LEN, Verify},
};
use bytes::{Bytes, BytesMut};

use crate::{
    erase::Progress,
    error::{Fault, StorageError},
    os::{Access, Disk},
    storage::{
        Options,
        recover::{link_before, list_segments, walk_last},
        segment::{self, FullSegment, Segment},
    },
};

/// The segments, ascending.
pub(super) struct LogFiles<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) folder: PathBuf,
    pub(super) origin: Digest,
    pub(super) firsts: Vec<Index>,
    /// What the checkpoint covers. A piece ends there.
    acknowledged: Size,
    /// Where erased events may not be overwritten yet: a stop cut that off.
    under_way: Arc<[RangeInclusive<u64>]>,
}

/// Frames that lie together in one segment: about [`PIECE_BYTES`] of them.
pub(super) struct Piece {
    segment: Arc<Segment>,
    pub(super) first: Index,
    bytes: Range<u64>,
    /// Where each frame must start.
    offsets: Vec<u32>,
    under_way: Arc<[RangeInclusive<u64>]>,
}

/// The records of a piece, up to the first frame that does not hold.
pub(super) struct ReadPiece {
    /// Slices of `buffer`.
    pub(super) records: Vec<Record>,
    pub(super) buffer: Bytes,
    /// Bytes of the frames that hold.
    pub(super) bytes: u64,
    pub(super) problem: Option<StorageError>,
}

/// Memory for pieces, used again and again: with fresh memory for each, a seventh of the samples in
/// a profile of the check were pages being cleared.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    fn take(&self) -> BytesMut {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| BytesMut::zeroed(BUFFER_LEN))
    }

    /// Takes a buffer back, unless a record of it is still in use.
    pub(super) fn give_back(&self, buffer: Bytes) {
        if let Ok(buffer) = buffer.try_into_mut() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// The last segment: what is whole in it, or all that lies before the problem.
#[derive(Default)]
pub(super) struct LastPieces {
    pub(super) pieces: Vec<Piece>,
    pub(super) has_torn_tail: bool,
    pub(super) problem: Option<StorageError>,
}

impl<'a> LogFiles<'a> {
    pub(super) fn list(
        disk: &'a dyn Disk,
        options: &Options,
        acknowledged: Size,
    ) -> Result<Self, StorageError> {
        let folder = segment::folder(&options.folder);
        let firsts = list_segments(disk, &folder)?;
        let origin = sha256(options.origin.as_bytes());
        let erased = Progress::load(disk, &options.folder)?.unwrap_or_default();
        let under_way = erased.under_way().into();
        Ok(Self { disk, folder, origin, firsts, acknowledged, under_way })
    }

    /// Bytes of all segments.
    pub(super) fn total_bytes(&self) -> Result<u64, StorageError> {
        let length = |first| segment::length(self.disk, &self.folder, first);
        self.firsts.iter().map(|&first| length(first)).sum()
    }

    /// How many entries were durable in the tree when the last segment was started.
    pub(super) fn synced(&self) -> Size {
        Size(self.firsts.last().map_or(0, |first| first.0))
    }

    /// How many segments are full: all but the last.
    pub(super) fn full_segments(&self) -> usize {
        self.firsts.len().saturating_sub(1)
    }

    pub(super) fn open_segment(&self, first: Index) -> Result<Segment, StorageError> {
        Segment::open(self.disk, &self.folder, (first, self.origin), Access::Read)
    }

    /// Cuts the full segment at this position.
    pub(super) fn full_pieces(&self, position: usize) -> Result<Vec<Piece>, StorageError> {
        let Some(&[first, next]) = self.firsts.get(position..).and_then(<[_]>::first_chunk) else {
            return Ok(Vec::new());
        };
        let full = FullSegment::open(self.open_segment(first)?)?;
        full.check_reaches(next)?;
        let offsets = full.all_offsets()?;
        Ok(self.cut(full.segment, &offsets, full.frames_end))
    }

    /// Walks the last segment to the end of what is whole, and cuts it.
    pub(super) fn last_pieces(&self) -> Result<LastPieces, StorageError> {
        let Some((&first, full)) = self.firsts.split_last() else {
            return Ok(LastPieces::default());
        };
        let segment = self.open_segment(first)?;
        let before = link_before(self.disk, &self.folder, full, &segment)?;
        let walked = walk_last(&segment, before, self.acknowledged)?;
        let pieces = self.cut(segment, &walked.offsets, walked.end);
        Ok(LastPieces { pieces, has_torn_tail: walked.must_cut, problem: walked.problem })
    }

    fn cut(&self, segment: Segment, offsets: &[u32], end: u64) -> Vec<Piece> {
        let (mut first, mut start, mut rest) = (segment.first(), HEADER_LEN as u64, offsets);
        let segment = Arc::new(segment);
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let fitting = rest.partition_point(|&at| u64::from(at) < start + PIECE_BYTES);
            let acknowledged = self.acknowledged.0.checked_sub(first.0).and_then(memory_len);
            let most = acknowledged.filter(|&most| most > 0).unwrap_or(usize::MAX);
            let (own, after) = rest.split_at(fitting.max(1).min(most));
            let own_end = after.first().map_or(end, |&next| next.into());
            let (bytes, offsets) = (start..own_end, own.to_vec());
            let (segment, under_way) = (segment.clone(), self.under_way.clone());
            pieces.push(Piece { segment, first, bytes, offsets, under_way });
            first = first.plus(count_of(own.len()));
            (start, rest) = (own_end, after);
        }
        pieces
    }
}

impl Piece {
    /// Reads the frames, with one read, and verifies that they hold and lie where they should.
    pub(super) fn read(&self, buffers: &Buffers) -> ReadPiece {
        let mut buffer = buffers.take();
        let filled = self.fill(&mut buffer);
        let records = Vec::with_capacity(self.offsets.len());
        let mut read = ReadPiece { records, buffer: buffer.freeze(), bytes: 0, problem: None };
        read.problem = filled.and_then(|filled| self.parse(filled, &mut read)).err();
        read
    }

    /// Returns how many bytes there are; as many as there should be, or the file ends.
    fn fill(&self, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let length = memory_len(self.bytes.end.saturating_sub(self.bytes.start));
        let length = length.unwrap_or(usize::MAX).min(buffer.len());
        let space = buffer.get_mut(..length).unwrap_or_default();
        self.segment.file.read_at(space, self.bytes.start)
    }

    fn parse(&self, filled: usize, read: &mut ReadPiece) -> Result<(), StorageError> {
        let bytes = read.buffer.slice(..filled);
        let mut rest = &bytes[..];
        for (index, &offset) in (self.first.0..).map(Index).zip(&self.offsets) {
            let start = self.bytes.start + read.bytes;
            let damage = |fault| self.segment.damage(start, index, fault);
            if start != u64::from(offset) {
                return Err(damage(Fault::Footer));
            }
            let (frame, length) = Frame::parse(rest, self.segment.header.salt, Verify::All)
                .map_err(|error| damage(error.into()))?;
            if frame.index() != index {
                return Err(damage(Fault::Index { found: frame.index() }));
            }
            let event = frame.event();
            let is_left = event.is_none() && !frame.is_wiped(self.segment.header.salt);
            if is_left && !self.under_way.iter().any(|range| range.contains(&index.0)) {
                return Err(damage(Fault::NotErased));
            }
            read.records.push(Record {
                entry: bytes.slice_ref(frame.entry),
                event: event.map(|event| bytes.slice_ref(event)),
            });
            read.bytes += count_of(length);
            rest = rest.get(length..).unwrap_or_default();
        }
        let end = self.bytes.start + read.bytes;
        if end != self.bytes.end {
            let index = self.first.plus(count_of(self.offsets.len()));
            return Err(self.segment.damage(end, index, Fault::Footer));
        }
        Ok(())
    }
}

/// Bytes of a piece: long enough that starting one costs nothing, short enough that what was read
/// is still in a core's cache when it is hashed, and that a small ledger keeps all cores busy.
const PIECE_BYTES: u64 = 512 << 10;

/// Longest piece: the last frame starts before [`PIECE_BYTES`]. A footer that says otherwise is
/// forged.
const BUFFER_LEN: usize = (512 << 10) + FRAME_LEN_MAX;
