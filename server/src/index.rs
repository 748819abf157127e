//! The index: finds entries by what they say. It follows the log, behind it, and is derived from
//! it: deleting it costs time, never data.
//!
//! ```text
//! index/blocks/<first index, 20 digits>-<level>   postings, immutable     posting.rs, blocks.rs
//! index/findings                                  findings, append-only   findings.rs
//! index/state/                                    sources, watermark      state.rs (sled)
//! index/current                                   which of the two count  purge.rs
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
//! Order of a block's end, which the next start relies on: the posting file and the findings are
//! durable, then the state is saved with the new watermark, then files are merged. So files cover
//! all entries below the watermark; what posting files do not cover was lost and is filled from the
//! log, and when findings were lost everything is built again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_proto::{
    authority::Authority,
    hash::{Digest, leaf_hash, sha256},
    position::{Index as Place, Size},
    source::Name,
};
use roaring::RoaringTreemap;
use tracing::{info, warn};

use self::{
    archive::StateArchive,
    blocks::Blocks,
    findings::FindingLog,
    fold::Fold,
    follower::Progress,
    posting::{Layout, Lookup},
    purge::Files,
    state::{Loaded, State, Watermark},
    tail::Tail,
    workers::{Pace, Workers},
};
pub use self::{
    error::IndexError,
    follower::Follower,
    ground::{IndexedReportError, ROWS_MAX},
    indexer::Indexer,
    listing::{FindingFilter, FindingPage},
    query::{Hits, Search},
};
pub(crate) use self::{purge::start_over, workers::step_back};
use crate::{
    os::Disk,
    storage::{LogReader, file::io_error},
};

mod archive;
mod blocks;
mod error;
mod findings;
mod fold;
mod follower;
mod ground;
mod indexer;
mod listing;
mod posting;
mod purge;
mod query;
mod registry;
mod rollups;
mod state;
mod tail;
mod workers;

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
    /// What follows from the entries so far. Changed for a few hundred entries at a time.
    fold: RwLock<Fold>,
    state: Arc<State>,
    archive: Arc<StateArchive>,
    progress: Progress,
    workers: Workers,
    /// Held by whoever moves the index on, or exchanges a part of it.
    working: Mutex<()>,
    /// How often events were forgotten.
    generation: AtomicU64,
    files: Files,
}

impl Index {
    /// How many entries, from 0 on, the index covers.
    #[must_use]
    pub fn indexed_size(&self) -> Size {
        self.shared.progress.indexed()
    }

    /// How many entries the state on disk follows from: of facts that later entries changed, it
    /// holds an older value.
    #[must_use]
    pub fn saved_size(&self) -> Size {
        self.shared.progress.saved()
    }

    /// How often what erased events had said was forgotten. Facts that were taken from the index
    /// before that may still rest on them.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The facts and the policy behind the first `size` entries, as [`Indexer::authority`] gives
    /// them; `None` while the index covers more or fewer.
    #[must_use]
    pub fn authority_at(&self, size: Size) -> Option<Authority> {
        self.shared.read_fold(|fold| (fold.size == size).then(|| fold.findings.authority().clone()))
    }

    /// Whether all facts that were loaded from the state so far could be read.
    ///
    /// # Errors
    ///
    /// [`IndexError::Facts`], for ever, once some could not: what was computed from them is not to
    /// be believed.
    pub fn check_facts(&self) -> Result<(), IndexError> {
        self.shared.archive.check()
    }

    /// The entries that findings of these rules are about. What would only be found if the log
    /// ended here is not among them.
    #[must_use]
    pub fn indexes_of_rules<'a>(&self, rules: impl IntoIterator<Item = &'a str>) -> RoaringTreemap {
        self.shared.read_fold(|fold| fold.log.indexes_of_rules(rules))
    }

    /// Tells the follower that `size` entries are durable. Cheap, for the writer's hot path: the
    /// follower is woken at once only when it is far behind.
    pub fn notify(&self, size: Size) {
        self.shared.progress.notify(size);
    }

    /// Whether the follower has ended: the index covers no more than it does.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.progress.has_ended()
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
    fn work(&self) -> MutexGuard<'_, ()> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_tail<T>(&self, read: impl FnOnce(&Tail) -> T) -> T {
        read(&self.tail.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_tail<T>(&self, change: impl FnOnce(&mut Tail) -> T) -> T {
        change(&mut self.tail.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn read_fold<T>(&self, read: impl FnOnce(&Fold) -> T) -> T {
        read(&self.fold.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_fold<T>(&self, change: impl FnOnce(&mut Fold) -> T) -> T {
        change(&mut self.fold.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens the index and brings it up to the log, which must hold its genesis. Blocks.
///
/// Usually that means to read the last, unfinished block of the log. When the state is lost, of
/// another version or ledger, or does not follow from this log, the index is removed and built
/// again, about a million entries a second. Lost posting blocks are left to the [`Follower`]. An
/// event that has rotted counts as one that is gone, until the log was restored.
///
/// # Errors
///
/// [`IndexError::Genesis`] for a log without genesis; [`IndexError::Entry`],
/// [`IndexError::Sequence`] and [`IndexError::Unlawful`] for a log that no writer of ours has
/// written; [`IndexError::Rotten`] when the rules cannot be known; [`IndexError::Storage`],
/// [`IndexError::State`] and [`IndexError::Remove`] when the disk refuses.
pub fn open(
    disk: Arc<dyn Disk>,
    options: &Options,
    reader: LogReader,
) -> Result<(Index, Indexer), IndexError> {
    let layout = Layout {
        origin: sha256(options.origin.as_bytes()),
        block_entries: options.block_entries.clamp(1, Options::BLOCK_ENTRIES),
    };
    let folder = folder(&options.folder);
    disk.create_dir(&folder).map_err(io_error("create", &folder))?;
    let genesis = reader.read(Place::GENESIS, 1, usize::MAX)?.pop();
    let genesis = genesis.and_then(|record| record.event).unwrap_or_default();

    let files = Files::open(disk.clone(), folder)?;
    let Opened { state, archive, fold } = open_state(&files, &layout, &reader, &genesis)?;
    let indexed = fold.size;
    let blocks = Blocks::open(disk, files.blocks(), layout, indexed)?;
    let shared = Arc::new(Shared {
        blocks,
        tail: RwLock::new(Tail::new(indexed.next_index())),
        fold: RwLock::new(fold),
        state,
        archive,
        progress: Progress::new(indexed),
        workers: Workers::start()?,
        working: Mutex::default(),
        generation: AtomicU64::new(0),
        files,
    });
    let index = Index { shared: shared.clone() };
    let mut indexer = Indexer::new(shared, layout, reader);
    let target = indexer.log_size();
    while indexer.size() < target {
        indexer.follow(Pace::Quick)?;
    }
    info!(restored = indexed.0, size = indexer.size().0, "opened the index");
    Ok((index, indexer))
}

/// Where the index lies in a data folder.
fn folder(data: &Path) -> PathBuf {
    data.join("index")
}

/// What the fold rests on, and the fold.
struct Opened {
    state: Arc<State>,
    archive: Arc<StateArchive>,
    fold: Fold,
}

/// Opens the state and what it holds of the fold, or starts with nothing.
fn open_state(
    files: &Files,
    layout: &Layout,
    reader: &LogReader,
    genesis: &[u8],
) -> Result<Opened, IndexError> {
    let disk = &*files.disk;
    let (state_folder, findings) = (files.state(), files.findings());
    let reason = match State::load(&state_folder, layout) {
        Loaded::Empty => None,
        Loaded::Unusable(reason) => Some(reason),
        Loaded::Saved(state, watermark) => match unfit(&watermark, layout, reader)? {
            Some(reason) => Some(reason.to_owned()),
            None => match FindingLog::open(disk, &findings, watermark.findings_length)? {
                None => Some("findings were lost".into()),
                Some(log) => match restore(state, genesis, &watermark, log) {
                    Ok(Some(opened)) => return Ok(opened),
                    Ok(None) => Some("malformed row".into()),
                    Err(error @ (IndexError::State(_) | IndexError::Facts { .. })) => {
                        Some(error.to_string())
                    }
                    Err(error) => return Err(error),
                },
            },
        },
    };
    if let Some(reason) = reason {
        warn!(reason, "builds the index again");
    }
    let state = Arc::new(State::reset(&state_folder, layout)?);
    let archive = Arc::new(StateArchive::new(Arc::clone(&state)));
    let fold = Fold::new(genesis, Arc::clone(&archive), FindingLog::create(disk, &findings)?)?;
    Ok(Opened { state, archive, fold })
}

fn restore(
    state: State,
    genesis: &[u8],
    watermark: &Watermark,
    log: FindingLog,
) -> Result<Option<Opened>, IndexError> {
    let state = Arc::new(state);
    let archive = Arc::new(StateArchive::new(Arc::clone(&state)));
    let fold = Fold::restore(&state, genesis, watermark, Arc::clone(&archive), log)?;
    Ok(fold.map(|fold| Opened { state, archive, fold }))
}

/// Why a state does not follow from the log.
fn unfit(
    watermark: &Watermark,
    layout: &Layout,
    reader: &LogReader,
) -> Result<Option<&'static str>, IndexError> {
    let Some(last) = watermark.size.last_index() else { return Ok(Some("state of an empty log")) };
    if watermark.size > reader.size() {
        return Ok(Some("state is ahead of the log"));
    }
    if !watermark.size.0.is_multiple_of(layout.block_entries.into()) {
        return Ok(Some("state is not that of a block's end"));
    }
    if leaf_at(reader, last)? != watermark.last_leaf {
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
