//! The reading end of the log: any range of records, at any time, from any thread.
//!
//! An entry is found in O(1) reads: by the offsets in memory for the newest segment, by the footer
//! for the others. A range costs one read of offsets and one of frames; the records are slices of
//! that one read. Every record's checksums and index are verified before it is handed out.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use access_ledger_proto::{
    hash::Digest,
    position::{Index, Size, count_of},
    segment::{FRAME_LEN_MIN, Frame, HEADER_LEN, Salt, Verify},
};
use bytes::{Bytes, BytesMut};

use super::segment::{FullSegment, Segment};
use crate::{
    error::{Fault, StorageError},
    os::{Access, Disk},
};

/// One record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry's bytes; they parse as the entry with the index asked for.
    pub entry: Bytes,
    /// The event's bytes; `None` when they were erased.
    pub event: Option<Bytes>,
}

/// Reads what is durable. Cloning is cheap; all clones see new groups as they are committed.
#[derive(Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How many entries are durable.
    #[must_use]
    pub fn size(&self) -> Size {
        self.shared.size()
    }

    /// Where the segment that holds this entry ends, or the log.
    pub(crate) fn segment_end(&self, index: Index) -> Index {
        self.shared.read_state(|state| {
            let after = state.full.partition_point(|first| *first <= index);
            let next = state.full.get(after).copied().unwrap_or_else(|| state.active.first());
            if next > index { next } else { state.size().next_index() }
        })
    }

    /// Reads records from `first` on, in order and without gaps.
    ///
    /// At most `entries_max`, and at most `bytes_max` bytes of frames, but at least one record
    /// where there is one (and `entries_max` is not 0). A read ends where a segment ends, so fewer
    /// than asked for does not mean the end of the log; none does. Costs at most two disk reads,
    /// and holds `bytes_max` bytes in memory as long as any record of it lives.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damage`] names the first record that is not as written;
    /// [`StorageError::Io`] when the disk refuses.
    pub fn read(
        &self,
        first: Index,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, StorageError> {
        self.read_on(&mut ReadMemory::default(), first, (entries_max, bytes_max))
    }

    /// As [`LogReader::read`], for who reads on and on: into the memory of the read before, where
    /// none of its records is left. `limits` are `entries_max` and `bytes_max`.
    ///
    /// # Errors
    ///
    /// As [`LogReader::read`].
    pub fn read_on(
        &self,
        memory: &mut ReadMemory,
        first: Index,
        limits: (usize, usize),
    ) -> Result<Vec<Record>, StorageError> {
        self.read_run(memory, first, limits, Verify::All, |bytes, frame, _| Record {
            entry: bytes.slice_ref(frame.entry),
            event: frame.event().map(|event| bytes.slice_ref(event)),
        })
    }

    /// As [`LogReader::read`], for who goes on where an event has rotted: it is given as one that
    /// is gone. Also the indexes of all such events that were read, ascending. What is not as
    /// written is first read again, past the page cache.
    ///
    /// # Errors
    ///
    /// As [`LogReader::read`], but for events.
    pub fn read_past_rot(
        &self,
        first: Index,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Record>, Vec<Index>), StorageError> {
        let limits = (entries_max, bytes_max);
        let read = || {
            let mut rotten = Vec::new();
            let records = self.read_run(
                &mut ReadMemory::default(),
                first,
                limits,
                Verify::Entry,
                |bytes, frame, salt| {
                    let event = frame.event().filter(|_| frame.event_holds(salt));
                    if event.is_none() && frame.event().is_some() {
                        rotten.push(frame.index());
                    }
                    let entry = bytes.slice_ref(frame.entry);
                    Record { entry, event: event.map(|event| bytes.slice_ref(event)) }
                },
            )?;
            Ok((records, rotten))
        };
        let (records, rotten) = read()?;
        if rotten.is_empty() {
            return Ok((records, rotten));
        }
        if let Some(run) = self.shared.locate(first, limits)? {
            run.segment.file.forget();
        }
        read()
    }

    /// Reads entries without their events; else as [`LogReader::read`]. Does not verify the events.
    ///
    /// # Errors
    ///
    /// As [`LogReader::read`].
    pub fn read_entries(
        &self,
        first: Index,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, StorageError> {
        let (memory, limits) = (&mut ReadMemory::default(), (entries_max, bytes_max));
        self.read_run(memory, first, limits, Verify::Entry, |bytes, frame, _| {
            bytes.slice_ref(frame.entry)
        })
    }

    fn read_run<T>(
        &self,
        memory: &mut ReadMemory,
        first: Index,
        limits: (usize, usize),
        verify: Verify,
        mut take: impl FnMut(&Bytes, Frame<'_>, Salt) -> T,
    ) -> Result<Vec<T>, StorageError> {
        let Some(run) = self.shared.locate(first, limits)? else {
            return Ok(Vec::new());
        };
        let bytes = self.shared.read_frames(&run, memory)?;
        let salt = run.segment.header.salt;
        let mut taken = Vec::with_capacity(run.count);
        let mut rest = &bytes[..];
        for index in (first.0..).take(run.count).map(Index) {
            let offset = run.start + count_of(bytes.len() - rest.len());
            let (frame, length) = Frame::parse(rest, salt, verify)
                .map_err(|fault| run.segment.damage(offset, index, fault))?;
            if frame.index() != index {
                let fault = Fault::Index { found: frame.index() };
                return Err(run.segment.damage(offset, index, fault));
            }
            taken.push(take(&bytes, frame, salt));
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(taken)
    }
}

/// Memory that reads after another use again: fresh memory has to be cleared first, page by page.
#[derive(Debug, Default)]
pub struct ReadMemory {
    /// Of the last read.
    bytes: Bytes,
}

impl ReadMemory {
    /// So many bytes of any content.
    fn take(&mut self, length: usize) -> BytesMut {
        let mut bytes = std::mem::take(&mut self.bytes).try_into_mut().unwrap_or_default();
        bytes.resize(length, 0);
        bytes
    }

    /// What was read into them; keeps them for the next read.
    fn keep(&mut self, bytes: BytesMut) -> Bytes {
        self.bytes = bytes.freeze();
        self.bytes.clone()
    }
}

/// What the writing and the reading end share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub(crate) folder: PathBuf,
    origin: Digest,
    state: RwLock<State>,
    /// Held for writing while states of frames change, so that no read sees a part of that.
    marking: RwLock<()>,
    /// Full segments read last, the latest at the end.
    open: Mutex<Vec<Arc<FullSegment>>>,
}

/// What changes with every commit.
struct State {
    /// First indexes of the full segments, ascending.
    full: Vec<Index>,
    active: Segment,
    /// Where each frame of the active segment starts.
    offsets: Vec<u32>,
    /// Where its frames end.
    end: u32,
}

/// Frames that lie together in one segment.
pub(super) struct Run {
    pub(super) segment: Segment,
    pub(super) start: u64,
    length: usize,
    pub(super) count: usize,
}

impl Shared {
    /// What recovery found: full segments, and the active one with its frames.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        full: Vec<Index>,
        active: Segment,
        (offsets, end): (Vec<u32>, u64),
    ) -> Self {
        let (origin, end) = (active.header.origin, small(end));
        let state = State { full, active, offsets, end };
        let (marking, open) = (RwLock::default(), Mutex::default());
        Self { disk, folder, origin, state: RwLock::new(state), marking, open }
    }

    pub(crate) fn size(&self) -> Size {
        self.read_state(State::size)
    }

    /// Makes a group that was written at `end` visible.
    pub(crate) fn publish(&self, starts: &[u32], end: u64, bytes: usize) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let base = small(end);
        state.offsets.extend(starts.iter().map(|start| base.saturating_add(*start)));
        state.end = base.saturating_add(small(count_of(bytes)));
    }

    /// Counts the active segment among the full ones and goes on with a new one.
    pub(crate) fn start_segment(&self, segment: Segment) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let first = state.active.first();
        state.full.push(first);
        state.active = segment;
        state.offsets = Vec::new();
        state.end = small(HEADER_LEN as u64);
    }

    /// Where the frames of the active segment start.
    pub(crate) fn active_offsets(&self) -> Vec<u32> {
        self.read_state(|state| state.offsets.clone())
    }

    fn read_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the frames of a run, as they are before or after any erasure.
    pub(super) fn read_frames(
        &self,
        run: &Run,
        memory: &mut ReadMemory,
    ) -> Result<Bytes, StorageError> {
        let mut bytes = memory.take(run.length);
        let _reading = self.marking.read().unwrap_or_else(PoisonError::into_inner);
        let filled = run.segment.file.read_at(&mut bytes, run.start)?;
        bytes.truncate(filled);
        Ok(memory.keep(bytes))
    }

    /// Changes states of frames while nobody reads any.
    pub(super) fn mark<T>(&self, mark: impl FnOnce() -> T) -> T {
        let _marking = self.marking.write().unwrap_or_else(PoisonError::into_inner);
        mark()
    }

    /// The segment that starts at `first`, opened for writing.
    pub(super) fn open_for_erasing(&self, first: Index) -> Result<Segment, StorageError> {
        Segment::open(&*self.disk, &self.folder, (first, self.origin), Access::Write)
    }

    /// Where the records from `first` on lie; `None` beyond the end.
    pub(super) fn locate(
        &self,
        first: Index,
        (entries_max, bytes_max): (usize, usize),
    ) -> Result<Option<Run>, StorageError> {
        // No more frames than this fit into `bytes_max`, so no more offsets are looked at.
        let count_max = entries_max.min(bytes_max / FRAME_LEN_MIN + 1);
        let found = self.read_state(|state| {
            if !state.size().contains(first) || count_max == 0 {
                return Found::Nothing;
            }
            let Some(position) = first.0.checked_sub(state.active.first().0) else {
                return Found::Full(state.full_segment_of(first));
            };
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            let starts = state.offsets.get(position..).unwrap_or_default();
            let starts = starts.get(..count_max).unwrap_or(starts);
            let next = state.offsets.get(position + starts.len()).copied();
            let end = u64::from(next.unwrap_or(state.end));
            Found::Run(cut_run(&state.active, starts, end, bytes_max))
        });
        match found {
            Found::Nothing => Ok(None),
            Found::Run(run) => Ok(Some(run)),
            Found::Full(segment_first) => {
                let full = self.full_segment(segment_first)?;
                let position = small(first.0 - segment_first.0);
                // One more than asked for: where that one starts is where the run ends.
                let starts =
                    full.offsets(position, small(count_of(count_max)).saturating_add(1))?;
                let (starts, end) = match starts.split_last() {
                    Some((&next, starts)) if starts.len() == count_max => (starts, next.into()),
                    _ => (&starts[..], full.frames_end),
                };
                if starts.is_empty() {
                    let (found, wanted) = (full.count.into(), u64::from(position) + 1);
                    let fault = Fault::Count { found, wanted };
                    return Err(full.segment.damage(full.frames_end, first, fault));
                }
                Ok(Some(cut_run(&full.segment, starts, end, bytes_max)))
            }
        }
    }

    /// The full segment that starts at `first`, opened if need be.
    fn full_segment(&self, first: Index) -> Result<Arc<FullSegment>, StorageError> {
        if let Some(full) = self.touch(first) {
            return Ok(full);
        }
        let place = (first, self.origin);
        let segment = Segment::open(&*self.disk, &self.folder, place, Access::Read)?;
        let full = Arc::new(FullSegment::open(segment)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push(full.clone());
        Ok(full)
    }

    /// The full segment if it is open; moves it to the end of those that may be closed.
    fn touch(&self, first: Index) -> Option<Arc<FullSegment>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|full| full.segment.first() == first)?;
        let full = open.remove(at);
        open.push(full.clone());
        Some(full)
    }
}

impl State {
    fn size(&self) -> Size {
        Size(self.active.first().plus(count_of(self.offsets.len())).0)
    }

    /// First index of the full segment that holds `index`, which lies before the active one.
    fn full_segment_of(&self, index: Index) -> Index {
        let after = self.full.partition_point(|first| *first <= index);
        after.checked_sub(1).and_then(|at| self.full.get(at)).copied().unwrap_or_default()
    }
}

enum Found {
    Nothing,
    /// In the full segment with this first index.
    Full(Index),
    Run(Run),
}

/// As many of the frames at `starts` as fit into `bytes_max`, but one at least. `end` is where the
/// last one ends.
fn cut_run(segment: &Segment, starts: &[u32], end: u64, bytes_max: usize) -> Run {
    let start = u64::from(starts.first().copied().unwrap_or_default());
    let limit = start.saturating_add(count_of(bytes_max));
    let ends = starts.iter().skip(1).map(|&next| u64::from(next)).chain([end]);
    let fitting = ends.clone().take_while(|&end| end <= limit).count();
    let count = fitting.max(1).min(starts.len());
    let end = ends.take(count).last().unwrap_or(start);
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
    Run { segment: segment.clone(), start, length, count }
}

/// An offset or position within a segment, which recovery and rotation keep below 32 bits.
fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Full segments kept open: enough for as many readers in different places, and few handles.
const OPEN_MAX: usize = 32;
