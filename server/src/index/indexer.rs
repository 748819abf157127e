//! The indexing end: reads the log in order, and keeps postings and facts.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};

use access_ledger_proto::{
    authority::Authority,
    facts::sequences::Sequences,
    position::{Index, Size, count_of, memory_len},
    wire,
};
use tracing::{error, info, warn};

use super::{
    Index as Answers, Shared,
    error::IndexError,
    fold::{self, Fold},
    leaf_at,
    posting::Layout,
    state::State,
    state::Watermark,
    tail::{Tail, decode},
    workers::Pace,
};
use crate::{
    error::StorageError,
    storage::{LogReader, Record},
};

/// Adds to the index what the log has. There is one; [`super::Follower`] drives it.
pub struct Indexer {
    shared: Arc<Shared>,
    layout: Layout,
    reader: LogReader,
    /// Read and posted while the stretch before it was folded.
    ahead: Option<Chunk>,
    /// Where blocks start that are missing and cannot be filled: an entry there is damaged.
    lost: BTreeSet<Index>,
}

impl Indexer {
    pub(crate) fn new(shared: Arc<Shared>, layout: Layout, reader: LogReader) -> Self {
        Self { shared, layout, reader, ahead: None, lost: BTreeSet::new() }
    }

    /// The facts and the policy behind the entries below [`Indexer::size`]. Rows that are not in
    /// memory are loaded from the state, which follows behind: whoever goes on from here keeps
    /// those that it changes until [`Answers::saved_size`] covers them, and asks
    /// [`Answers::check_facts`] before it believes them.
    #[must_use]
    pub fn authority(&self) -> Authority {
        self.shared.read_fold(|fold| fold.findings.authority().clone())
    }

    /// The last number of each source in the entries below [`Indexer::size`].
    #[must_use]
    pub fn sequences(&self) -> Sequences {
        self.shared.read_fold(|fold| fold.sequences.clone())
    }

    /// Entries indexed.
    #[must_use]
    pub fn size(&self) -> Size {
        self.shared.read_fold(|fold| fold.size)
    }

    /// Follows the log to its end, and builds again what is missing. For whoever has no
    /// [`super::Follower`].
    ///
    /// # Errors
    ///
    /// As [`super::open`].
    pub fn settle(&mut self) -> Result<(), IndexError> {
        while self.follow(Pace::Quick)? || self.repair(Pace::Quick)? {}
        Ok(())
    }

    pub(crate) fn log_size(&self) -> Size {
        self.reader.size()
    }

    pub(crate) fn index(&self) -> Answers {
        Answers { shared: self.shared.clone() }
    }

    /// Indexes the next stretch of the log, or finishes a block; returns whether there was anything
    /// to do. May be repeated after an error that is passing.
    ///
    /// # Errors
    ///
    /// As [`super::open`]; [`IndexError::Damaged`] for a posting block that is not as written,
    /// which [`Indexer::repair`] then builds again.
    pub(crate) fn follow(&mut self, pace: Pace) -> Result<bool, IndexError> {
        let shared = Arc::clone(&self.shared);
        let _working = shared.work();
        shared.workers.run(pace, || self.step())
    }

    /// Builds one block again that was lost or dropped; returns whether one was missing. One that
    /// holds a damaged entry is left, and tried again at the next start: until then nobody is
    /// told what would be in it.
    ///
    /// # Errors
    ///
    /// As [`Indexer::follow`].
    pub(crate) fn repair(&mut self, pace: Pace) -> Result<bool, IndexError> {
        let shared = Arc::clone(&self.shared);
        let _working = shared.work();
        shared.workers.run(pace, || self.fill_gap())
    }

    fn step(&mut self) -> Result<bool, IndexError> {
        let (size, end) = (self.size(), self.block_end());
        if size.next_index() == end {
            self.finish_block()?;
            return Ok(true);
        }
        let chunk = match self.ahead.take() {
            Some(chunk) => self.refresh(chunk)?,
            None => self.prepare(size.next_index(), end)?,
        };
        if chunk.records.is_empty() {
            return Ok(false);
        }
        let next = chunk.end();
        let (taken, ahead) = rayon::join(|| self.take(&chunk), || self.prepare(next, end));
        taken?;
        self.shared.progress.advance(Size(next.0));
        // Nothing of one that could not be read was posted: it is read again, and told then.
        self.ahead = ahead.ok().filter(|chunk| !chunk.records.is_empty());
        Ok(true)
    }

    /// A chunk that was posted, read again if events were erased since.
    fn refresh(&self, chunk: Chunk) -> Result<Chunk, IndexError> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if chunk.generation == generation {
            return Ok(chunk);
        }
        let (first, end) = (chunk.first, chunk.end());
        let mut again = Chunk { generation, first, ..Chunk::default() };
        while again.end() < end {
            let more = self.read(again.end(), end)?;
            again.records.extend(more.records);
            again.events.extend(more.events);
            again.rotten.extend(more.rotten);
        }
        Ok(again)
    }

    /// Reads and decodes a stretch of the log and appends it to the postings: they reach at least
    /// as far as the fold at any time.
    fn prepare(&self, first: Index, end: Index) -> Result<Chunk, IndexError> {
        let chunk = self.read(first, end)?;
        self.shared.change_tail(|tail| chunk.post(tail))?;
        Ok(chunk)
    }

    /// Folds a chunk, in pieces: who reads the fold waits for one of them at most.
    fn take(&self, chunk: &Chunk) -> Result<(), IndexError> {
        let events = chunk.events.chunks(PIECE_ENTRIES);
        for (records, events) in chunk.records.chunks(PIECE_ENTRIES).zip(events) {
            self.shared.change_fold(|fold| fold.take(records, events, &chunk.rotten))?;
        }
        Ok(())
    }

    fn fill_gap(&mut self) -> Result<bool, IndexError> {
        let indexed = self.shared.read_tail(Tail::first);
        let gap = self.shared.blocks.first_gap(indexed, &self.lost);
        let Some(first) = gap else { return Ok(false) };
        match self.fill(first) {
            Err(IndexError::Storage(error @ StorageError::Damage { .. })) => {
                error!(%error, %first, "left a gap in the index, restore the log");
                self.lost.insert(first);
                Ok(true)
            }
            filled => filled,
        }
    }

    fn fill(&self, first: Index) -> Result<bool, IndexError> {
        let end = first.plus(self.layout.block_entries.into());
        let mut tail = Tail::new(first);
        while tail.end() < end {
            let chunk = self.read(tail.end(), end)?;
            if chunk.records.is_empty() {
                return Ok(false);
            }
            chunk.post(&mut tail)?;
        }
        self.shared.blocks.write(&tail)?;
        info!(%first, "built a posting block again");
        self.shared.blocks.merge_all()?;
        Ok(true)
    }

    /// Each step may be repeated when a later one fails: only the last one forgets the postings.
    fn finish_block(&self) -> Result<(), IndexError> {
        let (shared, size) = (&*self.shared, self.size());
        shared.read_tail(|tail| shared.blocks.write(tail))?;
        if shared.progress.saved() < size {
            self.save(size)?;
        }
        shared.state.flush()?;
        shared.change_tail(|tail| *tail = Tail::new(size.next_index()));
        shared.blocks.merge_all()
    }

    /// Moves what the fold has gathered to the disk.
    fn save(&self, size: Size) -> Result<(), IndexError> {
        save(&self.shared.fold, &self.shared.state, &self.reader, size)?;
        self.shared.progress.save(size);
        Ok(())
    }

    fn block_end(&self) -> Index {
        self.shared.read_tail(Tail::first).plus(self.layout.block_entries.into())
    }

    /// Reads a stretch of the log that starts at `first` and ends at `end` at the latest.
    fn read(&self, first: Index, end: Index) -> Result<Chunk, IndexError> {
        // Before the read: what is erased meanwhile is read again.
        let generation = self.shared.generation.load(Ordering::Acquire);
        Ok(Chunk { generation, ..Chunk::read(&self.reader, first, end)? })
    }
}

/// Moves what a fold has gathered, up to `size`, to the disk.
pub(super) fn save(
    fold: &RwLock<Fold>,
    state: &State,
    reader: &LogReader,
    size: Size,
) -> Result<(), IndexError> {
    let last_leaf = leaf_at(reader, size.last_index().unwrap_or_default())?;
    let (draft, watermark) = {
        let fold = fold.read().unwrap_or_else(PoisonError::into_inner);
        let findings_length = fold.log.write()?;
        let mut draft = state.draft()?;
        fold.save(state, &mut draft)?;
        let recorded_at = fold.recorded_at;
        (draft, Watermark { size, last_leaf, recorded_at, findings_length })
    };
    // Together, for whoever reads both.
    let mut fold = fold.write().unwrap_or_else(PoisonError::into_inner);
    draft.apply(&watermark)?;
    fold.settle();
    Ok(())
}

/// A stretch of the log.
#[derive(Default)]
pub(super) struct Chunk {
    /// How often events had been forgotten when it was read.
    generation: u64,
    first: Index,
    pub(super) records: Vec<Record>,
    /// Of the records, `None` for those that are gone.
    pub(super) events: Vec<Option<wire::Event>>,
    /// Of those that are gone, the ones that are not as they were written; ascending.
    pub(super) rotten: Vec<Index>,
}

impl Chunk {
    /// Reads a stretch that starts at `first` and ends at `end` at the latest.
    pub(super) fn read(reader: &LogReader, first: Index, end: Index) -> Result<Self, IndexError> {
        let entries_max = memory_len(end.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        let (records, rotten) = match entries_max {
            0 => Default::default(),
            _ => reader.read_past_rot(first, entries_max, READ_BYTES)?,
        };
        if let Some(index) = rotten.first() {
            warn!(%index, events = rotten.len(), "indexed entries without their rotten events");
        }
        let events = decode(&records);
        Ok(Self { generation: 0, first, records, events, rotten })
    }

    fn end(&self) -> Index {
        self.first.plus(count_of(self.records.len()))
    }

    /// Appends it to the postings.
    pub(super) fn post(&self, tail: &mut Tail) -> Result<(), IndexError> {
        let mut rest = &self.events[..];
        fold::runs(self.first, &self.records, |source, run, _, _| {
            let (events, after) = rest.split_at(run.len().min(rest.len()));
            tail.push(source, run, events);
            rest = after;
            Ok(())
        })
    }
}

/// Bytes of frames in one read of the log: what the allocator gives out again without asking the
/// system for fresh pages, which cost a third of following the log.
const READ_BYTES: usize = 256 << 10;

/// Entries that are folded while nobody can read the fold: some tenths of a millisecond.
const PIECE_ENTRIES: usize = 128;
