//! The indexing end: reads the log in order, and keeps postings and facts.

use std::sync::Arc;

use access_ledger_proto::{
    facts::{sequences::Sequences, sources::Sources},
    position::{Index, Size, memory_len},
};
use tracing::info;

use super::{
    Index as Answers, Shared,
    error::IndexError,
    fold::{self, Fold},
    leaf_at,
    posting::Layout,
    state::State,
    tail::{Run, Tail, decode},
};
use crate::storage::{LogReader, Record};

/// Adds to the index what the log has. There is one; [`super::Follower`] drives it.
pub struct Indexer {
    shared: Arc<Shared>,
    layout: Layout,
    reader: LogReader,
    state: State,
    fold: Fold,
}

impl Indexer {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        layout: Layout,
        reader: LogReader,
        state: State,
        fold: Fold,
    ) -> Self {
        Self { shared, layout, reader, state, fold }
    }

    /// The sources that the entries below [`Indexer::size`] register.
    #[must_use]
    pub const fn sources(&self) -> &Sources {
        &self.fold.sources
    }

    /// The last number of each source in the entries below [`Indexer::size`].
    #[must_use]
    pub const fn sequences(&self) -> &Sequences {
        &self.fold.sequences
    }

    /// Entries indexed.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.fold.size
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
    pub fn follow(&mut self) -> Result<bool, IndexError> {
        let end = self.block_end();
        if self.size().next_index() == end {
            self.finish_block()?;
            return Ok(true);
        }
        let records = self.read(self.size().next_index(), end)?;
        if records.is_empty() {
            return Ok(false);
        }
        let events = decode(&records);
        let mut runs = Vec::new();
        self.fold.take_records(&records, |source, run| runs.push((source, run)))?;
        self.shared.change_tail(|tail| {
            let mut rest = &events[..];
            for (source, run) in runs {
                let (events, after) = rest.split_at(run.len().min(rest.len()));
                tail.push(source, run, events);
                rest = after;
            }
        });
        self.shared.progress.advance(self.size());
        Ok(true)
    }

    /// Builds one block again that was lost or dropped; returns whether one was missing.
    ///
    /// # Errors
    ///
    /// As [`Indexer::follow`].
    pub fn repair(&self) -> Result<bool, IndexError> {
        let indexed = self.shared.read_tail(Tail::first);
        let Some(first) = self.shared.blocks.first_gap(indexed) else { return Ok(false) };
        let end = first.plus(self.layout.block_entries.into());
        let mut tail = Tail::new(first);
        while tail.end() < end {
            let records = self.read(tail.end(), end)?;
            if records.is_empty() {
                return Ok(false);
            }
            let events = decode(&records);
            let mut rest = &events[..];
            fold::runs(tail.end(), &records, |source, run: Run, _, _| {
                let (events, after) = rest.split_at(run.len().min(rest.len()));
                tail.push(source, run, events);
                rest = after;
                Ok(())
            })?;
        }
        self.shared.blocks.write(&tail)?;
        info!(%first, "built a posting block again");
        self.shared.blocks.merge_all()?;
        Ok(true)
    }

    /// Each step may be repeated when a later one fails: only the last one forgets the postings.
    fn finish_block(&mut self) -> Result<(), IndexError> {
        let size = self.size();
        self.shared.read_tail(|tail| self.shared.blocks.write(tail))?;
        let last_leaf = leaf_at(&self.reader, size.last_index().unwrap_or_default())?;
        self.state.save(&self.layout, &self.fold, last_leaf)?;
        self.fold.changed.clear();
        self.shared.change_tail(|tail| *tail = Tail::new(size.next_index()));
        self.shared.blocks.merge_all()
    }

    fn block_end(&self) -> Index {
        self.shared.read_tail(Tail::first).plus(self.layout.block_entries.into())
    }

    /// Reads a stretch of the log that starts at `first` and ends at `end` at the latest.
    fn read(&self, first: Index, end: Index) -> Result<Vec<Record>, IndexError> {
        let entries_max = memory_len(end.0 - first.0).unwrap_or(usize::MAX);
        Ok(self.reader.read(first, entries_max, READ_BYTES)?)
    }
}

/// Bytes of frames in one read of the log: what the allocator gives out again without asking the
/// system for fresh pages, which cost a third of following the log.
const READ_BYTES: usize = 256 << 10;
