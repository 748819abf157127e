//! The index: finds entries by what they say. It follows the log, behind it, and is derived from
//! it: deleting it costs time, never data.
//!
//! ```text
//! index/blocks/<first index, 20 digits>-<level>   postings, immutable     posting.rs, blocks.rs
//! index/state/                                    sources, watermark      state.rs (sled)
//! ```
//!
//! [`open`] brings the index up to the log and hands out two ends: [`Index`] answers, from any
//! thread; [`Indexer`] reads the log, and is driven by the thread of [`Follower`]. Entries that do
//! not yet fill a block are in memory (tail.rs) and are read from the log again at the next start.
//!
//! An entry is found by (source, number) by rank: a source's numbers have no gaps, so the entry
//! with number n is the (n - first)th of the source's postings in the block whose first number of
//! the source is `first`.
//!
//! Order of a block's end, which the next start relies on: the posting file is durable, then the
//! state is saved with the new watermark, then files are merged. So files cover all entries below
//! the watermark, or what they do not cover was lost and is filled from the log.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use access_ledger_proto::{
    hash::{Digest, leaf_hash, sha256},
    position::{Index as Place, Size},
    source::Name,
};
use tracing::{info, warn};

use self::{
    blocks::Blocks,
    fold::Fold,
    follower::Progress,
    posting::{Layout, Lookup},
    state::{Loaded, Saved, State},
    tail::Tail,
};
pub use self::{
    error::IndexError,
    follower::Follower,
    indexer::Indexer,
    query::{Hits, Search},
};
use crate::{
    os::Disk,
    storage::{LogReader, file::io_error},
};

mod blocks;
mod error;
mod fold;
mod follower;
mod indexer;
mod posting;
mod query;
mod state;
mod tail;

/// Where and how the index is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; `index/` lies in it.
    pub folder: PathBuf,
    /// The ledger's origin; the index of another one is built again.
    pub origin: String,
    /// Entries of a block: [`Options::BLOCK_ENTRIES`], which is the most, or fewer in tests.
    pub block_entries: u32,
}

impl Options {
    /// Default entries of a block: a roaring container, and a tenth of a second to read again.
    pub const BLOCK_ENTRIES: u32 = 65_536;

    /// The index of the ledger of this origin, in its data folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, origin: impl Into<String>) -> Self {
        let (folder, origin) = (folder.into(), origin.into());
        Self { folder, origin, block_entries: Self::BLOCK_ENTRIES }
    }
}

/// Answers from the index. Cloning is cheap; all clones see what the [`Indexer`] adds.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
}

/// What the answering and the indexing end share.
pub(crate) struct Shared {
    blocks: Blocks,
    /// Entries behind the last block. Cleared only after its block is in `blocks`.
    tail: RwLock<Tail>,
    progress: Progress,
}

impl Index {
    /// How many entries, from 0 on, the index covers.
    #[must_use]
    pub fn indexed_size(&self) -> Size {
        self.shared.progress.indexed()
    }

    /// Tells the follower that `size` entries are durable. Cheap, for the writer's hot path: the
    /// follower is woken at once only when it is far behind.
    pub fn notify(&self, size: Size) {
        self.shared.progress.notify(size);
    }

    /// Waits, and makes the follower hurry, until the index covers `size` entries, which the log
    /// must have. Blocks.
    ///
    /// # Errors
    ///
    /// [`IndexError::Behind`] when it does not within `timeout`; [`IndexError::Stopped`] when the
    /// follower has ended.
    pub fn wait_for(&self, size: Size, timeout: Duration) -> Result<(), IndexError> {
        self.shared.progress.wait_for(size, timeout)
    }

    /// The place of the entry to which `source` gave the number `source_seq`; `None` when the index
    /// covers no such entry (see [`Index::wait_for`]).
    ///
    /// Reads O(log n) files, newest first, a few reads each; blocks.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`], and from then on [`IndexError::Rebuilding`] until the follower has
    /// read the log again; [`IndexError::Storage`] when the disk refuses.
    pub fn position(&self, source: Name<'_>, source_seq: u64) -> Result<Option<Place>, IndexError> {
        // The tail before the blocks: what leaves the tail is in a block by then.
        let (found, mut covered) =
            self.shared.read_tail(|tail| (tail.find(source, source_seq), tail.first()));
        match found {
            Lookup::At(index) => return Ok(Some(index)),
            Lookup::Beyond => return Ok(None),
            Lookup::Before => {}
        }
        for block in self.shared.blocks.list().iter().rev() {
            if block.end() < covered {
                return Err(rebuilding(block.end(), covered));
            }
            let found =
                block.find(source.as_str().as_bytes(), source_seq).inspect_err(|error| {
                    self.shared.blocks.drop_damaged(error);
                    self.shared.progress.ask_for_repair();
                })?;
            match found {
                Lookup::At(index) => return Ok(Some(index)),
                Lookup::Beyond => return Ok(None),
                Lookup::Before => covered = block.id.first,
            }
        }
        if covered > Place::GENESIS {
            return Err(rebuilding(Place::GENESIS, covered));
        }
        Ok(None)
    }
}

fn rebuilding(first: Place, end: Place) -> IndexError {
    IndexError::Rebuilding { first, last: Place(end.0.saturating_sub(1)) }
}

impl Shared {
    fn read_tail<T>(&self, read: impl FnOnce(&Tail) -> T) -> T {
        read(&self.tail.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_tail<T>(&self, change: impl FnOnce(&mut Tail) -> T) -> T {
        change(&mut self.tail.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens the index and brings it up to the log, which must hold its genesis. Blocks.
///
/// Usually that means to read the last, unfinished block of the log. When the state is lost, of
/// another version or ledger, or does not follow from this log, the index is removed and built
/// again, about a million entries a second. Lost posting blocks are left to the [`Follower`].
///
/// # Errors
///
/// [`IndexError::Genesis`] for a log without genesis; [`IndexError::Entry`],
/// [`IndexError::Sequence`] and [`IndexError::Unlawful`] for a log that no writer of ours has
/// written; [`IndexError::Storage`], [`IndexError::State`] and [`IndexError::Remove`] when the disk
/// refuses.
pub fn open(
    disk: Arc<dyn Disk>,
    options: &Options,
    reader: LogReader,
) -> Result<(Index, Indexer), IndexError> {
    let layout = Layout {
        origin: sha256(options.origin.as_bytes()),
        block_entries: options.block_entries.clamp(1, Options::BLOCK_ENTRIES),
    };
    let folder = options.folder.join("index");
    let genesis = reader.read(Place::GENESIS, 1, usize::MAX)?.pop();
    let genesis = genesis.and_then(|record| record.event).unwrap_or_default();
    let mut fold = Fold::new(&genesis)?;

    let state = open_state(&*disk, &folder, &layout, &reader, &mut fold)?;
    let indexed = fold.size;
    let blocks = Blocks::open(disk, folder.join("blocks"), layout, indexed)?;
    let shared = Arc::new(Shared {
        blocks,
        tail: RwLock::new(Tail::new(indexed.next_index())),
        progress: Progress::new(indexed),
    });
    let index = Index { shared: shared.clone() };
    let mut indexer = Indexer::new(shared, layout, reader, state, fold);
    let target = indexer.log_size();
    while indexer.size() < target {
        indexer.follow()?;
    }
    info!(restored = indexed.0, size = indexer.size().0, "opened the index");
    Ok((index, indexer))
}

/// Puts the saved facts back into `fold`, or starts with an empty state.
fn open_state(
    disk: &dyn Disk,
    folder: &Path,
    layout: &Layout,
    reader: &LogReader,
    fold: &mut Fold,
) -> Result<State, IndexError> {
    disk.create_dir(folder).map_err(io_error("create", folder))?;
    let state_folder = folder.join("state");
    let reason = match State::load(&state_folder, layout) {
        Loaded::Empty(state) => return Ok(state),
        Loaded::Unusable(reason) => reason,
        Loaded::Saved(state, saved) => match unfit(&saved, layout, reader)? {
            None => {
                fold.restore(saved.size, saved.sources);
                return Ok(state);
            }
            Some(reason) => reason.to_owned(),
        },
    };
    warn!(reason, "builds the index again");
    State::reset(&state_folder)
}

/// Why a state does not follow from the log.
fn unfit(
    saved: &Saved,
    layout: &Layout,
    reader: &LogReader,
) -> Result<Option<&'static str>, IndexError> {
    let Some(last) = saved.size.last_index() else { return Ok(Some("state of an empty log")) };
    if saved.size > reader.size() {
        return Ok(Some("state is ahead of the log"));
    }
    if !saved.size.0.is_multiple_of(layout.block_entries.into()) {
        return Ok(Some("state is not that of a block's end"));
    }
    let numbers: u64 = saved.sources.iter().map(|(_, last)| *last).fold(0, u64::saturating_add);
    if numbers != saved.size.0 {
        return Ok(Some("sources' numbers do not add up to the watermark"));
    }
    if leaf_at(reader, last)? != saved.last_leaf {
        return Ok(Some("state is that of another log"));
    }
    Ok(None)
}

/// The leaf hash of an entry that the log has.
fn leaf_at(reader: &LogReader, index: Place) -> Result<Digest, IndexError> {
    let entry = reader.read_entries(index, 1, usize::MAX)?.pop().unwrap_or_default();
    Ok(leaf_hash(&entry))
}

#[cfg(test)]
mod tests;
