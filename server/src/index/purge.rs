//! Forgets what erased events had said, in memory and on disk.
//!
//! Of the log only the bytes of the events are gone; what the index made of them lies in posting
//! blocks, in findings and in the rows of the state, and sled keeps old versions of its rows. So
//! nothing is taken out here, all is made anew: the blocks that hold postings of erased entries are
//! removed and filled again from the log, as lost ones are; facts, findings and counts are folded
//! again from entry 0, a million entries a second or so, into files of their own, while the old
//! ones still answer. Then those are exchanged and removed.
//!
//! ```text
//! index/current        number of the generation; missing: 0
//! index/state-<n>      of generation n; of generation 0: index/state
//! index/findings-<n>   likewise
//! ```
//!
//! `current` is replaced in one step; files of other generations are removed at the next start.
//! Whoever puts events back into a log ([`start_over`]) leaves it with a generation of which there
//! are no files yet, so that all is built again.

use std::{
    ffi::OsStr,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use access_ledger_proto::position::{Index as Place, Size};
use tracing::info;

use super::{
    Index,
    archive::StateArchive,
    error::IndexError,
    findings::FindingLog,
    fold::Fold,
    indexer::{Chunk, save},
    posting::Layout,
    state::State,
    tail::Tail,
    workers::Pace,
};
use crate::{
    error::StorageError,
    os::{self, Disk},
    storage::{LogReader, file::io_error},
};

/// Where the parts of the index lie.
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    /// `index/`.
    folder: PathBuf,
    generation: AtomicU64,
}

impl Files {
    /// Reads which generation counts, and removes what is left of others.
    pub(super) fn open(disk: Arc<dyn Disk>, folder: PathBuf) -> Result<Self, IndexError> {
        let path = folder.join(CURRENT);
        let generation = match os::read(&*disk, &path, CURRENT_BYTES_MAX) {
            Ok(text) => generation_in(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error("read", &path)(error).into()),
        };
        let generation = AtomicU64::new(generation);
        let files = Self { disk, folder, generation };
        files.remove_others()?;
        Ok(files)
    }

    pub(super) fn blocks(&self) -> PathBuf {
        self.folder.join("blocks")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.join(name(STATE, self.current()))
    }

    pub(super) fn findings(&self) -> PathBuf {
        self.folder.join(name(FINDINGS, self.current()))
    }

    fn current(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes another generation the one that counts, durably.
    fn advance(&self, generation: u64) -> Result<(), StorageError> {
        let path = self.folder.join(CURRENT);
        os::replace(&*self.disk, &path, format!("{generation}\n").as_bytes())
            .map_err(io_error("replace", &path))?;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Removes the state and the findings of all generations but the current one, durably.
    fn remove_others(&self) -> Result<(), IndexError> {
        let names = self.disk.list(&self.folder).map_err(io_error("list", &self.folder))?;
        let keep = [STATE, FINDINGS].map(|part| name(part, self.current()));
        let is_part = |name: &OsStr, part: &str| {
            let rest = name.to_str().and_then(|name| name.strip_prefix(part));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        for name in names.iter().filter(|name| keep.iter().all(|kept| **name != **kept)) {
            let path = self.folder.join(name);
            if is_part(name, STATE) {
                State::remove(&path)?;
            } else if is_part(name, FINDINGS) {
                self.disk.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(self.disk.sync_dir(&self.folder).map_err(io_error("sync", &self.folder))?)
    }
}

/// Has the index of a data folder that nobody has open built again at the next start, durably: what
/// was damaged when it was built may be there again. Nothing where there is no index.
///
/// # Errors
///
/// [`StorageError::Io`] when the disk refuses.
pub(crate) fn start_over(disk: &dyn Disk, data: &Path) -> Result<(), StorageError> {
    let folder = super::folder(data);
    let names = match disk.list(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(io_error("list", &folder))?,
    };
    let path = folder.join(CURRENT);
    let current = match os::read(disk, &path, CURRENT_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        read => generation_in(&read.map_err(io_error("read", &path))?),
    };
    let numbers = names.iter().filter_map(|name| name.to_str()?.rsplit_once('-')?.1.parse().ok());
    let free = numbers.fold(current, u64::max).saturating_add(1);
    os::replace(disk, &path, format!("{free}\n").as_bytes()).map_err(io_error("replace", &path))
}

/// A fold from entry 0 on, over files of its own.
struct Anew {
    generation: u64,
    state: Arc<State>,
    fold: RwLock<Fold>,
}

impl Index {
    /// Forgets what the events of these ranges had said that were erased from the log: when it
    /// returns, nothing of it is in the index, in memory or on disk. Blocks for about as long as
    /// the index takes to be built; appends and answers go on meanwhile, but for what lies in
    /// blocks that are being filled again. `is_stopping` is asked now and then: `false` comes back
    /// when it was answered with yes, and all is to be done again.
    ///
    /// # Errors
    ///
    /// As [`super::open`].
    pub fn forget(
        &self,
        reader: &LogReader,
        ranges: &[RangeInclusive<u64>],
        is_stopping: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, IndexError> {
        self.forget_postings(reader, ranges)?;
        let anew = self.begin(reader)?;
        // Most of it without holding anybody up.
        let saved = self.shared.progress.saved();
        if !self.catch_up(&anew, reader, (saved, saved), is_stopping)? {
            return Ok(false);
        }
        let working = self.shared.work();
        let (size, saved) = (self.shared.read_fold(|fold| fold.size), self.shared.progress.saved());
        if !self.catch_up(&anew, reader, (size, saved), is_stopping)? {
            return Ok(false);
        }
        self.exchange(anew)?;
        drop(working);
        self.shared.files.remove_others()?;
        info!(%size, "forgot what erased events had said");
        Ok(true)
    }

    /// Removes the posting blocks that know of erased entries, and posts the open one again.
    fn forget_postings(
        &self,
        reader: &LogReader,
        ranges: &[RangeInclusive<u64>],
    ) -> Result<(), IndexError> {
        let shared = &*self.shared;
        let _working = shared.work();
        // What was read ahead before is read again.
        shared.generation.fetch_add(1, Ordering::AcqRel);
        shared.blocks.forget(ranges)?;
        let (first, end) = shared.read_tail(|tail| (tail.first(), tail.end()));
        let mut tail = Tail::new(first);
        while tail.end() < end {
            Chunk::read(reader, tail.end(), end)?.post(&mut tail)?;
        }
        shared.change_tail(|old| *old = tail);
        shared.progress.ask_for_repair();
        Ok(())
    }

    fn begin(&self, reader: &LogReader) -> Result<Anew, IndexError> {
        let files = &self.shared.files;
        files.remove_others()?;
        let generation = files.current() + 1;
        let folder = files.folder.join(name(STATE, generation));
        let state = Arc::new(State::reset(&folder, &self.layout())?);
        let archive = Arc::new(StateArchive::new(Arc::clone(&state)));
        let findings = files.folder.join(name(FINDINGS, generation));
        let genesis = reader.read(Place::GENESIS, 1, usize::MAX)?.pop();
        let genesis = genesis.and_then(|record| record.event).unwrap_or_default();
        let log = FindingLog::create(&*files.disk, &findings)?;
        let fold = RwLock::new(Fold::new(&genesis, archive, log)?);
        Ok(Anew { generation, state, fold })
    }

    /// Folds the log up to `size`, and saves where blocks end, up to `saved`.
    fn catch_up(
        &self,
        anew: &Anew,
        reader: &LogReader,
        (size, saved): (Size, Size),
        is_stopping: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, IndexError> {
        let block = u64::from(self.layout().block_entries);
        let at = || anew.fold.read().unwrap_or_else(PoisonError::into_inner).size;
        while at() < size {
            if is_stopping() {
                return Ok(false);
            }
            let next = at();
            let end = (next.0 / block + 1).saturating_mul(block).min(size.0);
            self.shared.workers.run(Pace::Calm, || {
                let chunk = Chunk::read(reader, next.next_index(), Place(end))?;
                let mut fold = anew.fold.write().unwrap_or_else(PoisonError::into_inner);
                fold.take(&chunk.records, &chunk.events, &chunk.rotten)
            })?;
            let reached = at();
            if reached.0.is_multiple_of(block) && reached <= saved {
                save(&anew.fold, &anew.state, reader, reached)?;
            }
        }
        anew.state.flush()?;
        Ok(true)
    }

    /// Puts the new fold in the place of the old one; both have come equally far.
    fn exchange(&self, anew: Anew) -> Result<(), IndexError> {
        let shared = &*self.shared;
        let Anew { generation, state, fold } = anew;
        let mut fold = fold.into_inner().unwrap_or_else(PoisonError::into_inner);
        shared.files.advance(generation)?;
        shared.change_fold(|old| {
            // Whoever holds the archive, facts of the writer among them, reads the new rows.
            shared.state.adopt(&state);
            fold.rest_on(&shared.archive);
            *old = fold;
        });
        // Facts that were taken from the old fold are out of date.
        shared.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn layout(&self) -> Layout {
        self.shared.blocks.layout()
    }
}

/// A number that cannot be read leaves nothing to go on from, and all is built again.
fn generation_in(text: &[u8]) -> u64 {
    str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The name of a part in a generation.
fn name(part: &str, generation: u64) -> String {
    match generation {
        0 => part.to_owned(),
        _ => format!("{part}-{generation}"),
    }
}

const CURRENT: &str = "current";

const STATE: &str = "state";

const FINDINGS: &str = "findings";

/// Digits of a number and a line feed.
const CURRENT_BYTES_MAX: usize = 32;
