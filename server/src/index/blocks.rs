//! The set of posting blocks in a folder.
//!
//! Blocks do not overlap. A merged block takes its name before the blocks that it is made of are
//! removed, so a stop at any point leaves at worst an overlap, in which the larger block wins. A
//! block that is found damaged is dropped; what it covered becomes a gap, which is filled from the
//! log.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use access_ledger_proto::position::{Index, Size};
use tracing::{debug, warn};

use super::{
    error::IndexError,
    posting::{self, Block, BlockId, BlockWriter, LEVEL_MAX, Layout, MERGE_FACTOR},
    tail::Tail,
};
use crate::{
    error::StorageError,
    os::{DRAFT_SUFFIX, Disk},
    storage::file::io_error,
};

/// The blocks, shared by the thread that writes them and those that read.
pub(crate) struct Blocks {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    layout: Layout,
    /// In the order of the log, without overlaps.
    blocks: RwLock<Vec<Arc<Block>>>,
}

impl Blocks {
    /// Opens what is in the folder, which is created if need be. What cannot be used is removed:
    /// drafts, damaged blocks, and blocks that reach beyond `indexed`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        layout: Layout,
        indexed: Size,
    ) -> Result<Self, StorageError> {
        disk.create_dir(&folder).map_err(io_error("create", &folder))?;
        let mut found = Vec::new();
        for name in disk.list(&folder).map_err(io_error("list", &folder))? {
            match name.to_str().map(|name| (name, BlockId::of_file(name))) {
                Some((_, Some(id))) => found.push(id),
                Some((name, None)) if name.ends_with(DRAFT_SUFFIX) => {
                    let path = folder.join(name);
                    disk.remove(&path).map_err(io_error("remove", &path))?;
                }
                // Not ours to remove.
                _ => {}
            }
        }
        // The larger one first, so that it wins over what it was made of.
        found.sort_by_key(|id| (id.first, std::cmp::Reverse(id.level)));
        let blocks = Self { disk, folder, layout, blocks: RwLock::default() };
        let mut opened: Vec<Arc<Block>> = Vec::new();
        for id in found {
            let covered = opened.last().map_or(Index::GENESIS, |block| block.end());
            let is_aligned = id.first.0.is_multiple_of(layout.entries(id.level));
            if id.first < covered || !is_aligned {
                blocks.remove(id)?;
                continue;
            }
            match Block::open(&*blocks.disk, &blocks.folder, &layout, id) {
                Ok(block) if block.end() <= indexed.next_index() => opened.push(Arc::new(block)),
                Ok(_) => blocks.remove(id)?,
                Err(IndexError::Storage(error)) => return Err(error),
                Err(error) => {
                    warn!(%error, "dropped a posting block");
                    blocks.remove(id)?;
                }
            }
        }
        blocks.change(|blocks| *blocks = opened);
        Ok(blocks)
    }

    /// What the blocks have in common.
    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    /// The blocks at this moment, in the order of the log.
    pub(crate) fn list(&self) -> Vec<Arc<Block>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the postings of one block, durably.
    ///
    /// # Errors
    ///
    /// [`IndexError::Storage`] when the disk refuses; then nothing changed.
    pub(crate) fn write(&self, tail: &Tail) -> Result<(), IndexError> {
        let id = BlockId { first: tail.first(), level: 0 };
        tail.write(BlockWriter::create(&*self.disk, &self.folder, &self.layout, id)?)?;
        let block = Block::open(&*self.disk, &self.folder, &self.layout, id)?;
        self.change(|blocks| {
            blocks.retain(|block| block.id != id);
            let at = blocks.partition_point(|block| block.id < id);
            blocks.insert(at, Arc::new(block));
        });
        Ok(())
    }

    /// Merges blocks until none are left that make up a block of the next level.
    ///
    /// One that is not as written is dropped instead.
    ///
    /// # Errors
    ///
    /// [`IndexError::Storage`] when the disk refuses.
    pub(crate) fn merge_all(&self) -> Result<(), IndexError> {
        while let Some(parts) = self.mergeable() {
            match self.merge(&parts) {
                Err(error @ IndexError::Damaged { .. }) => self.drop_damaged(&error),
                merged => merged?,
            }
        }
        Ok(())
    }

    fn merge(&self, parts: &[Arc<Block>]) -> Result<(), IndexError> {
        let Some(first) = parts.first().map(|part| part.id) else { return Ok(()) };
        let id = BlockId { first: first.first, level: first.level + 1 };
        posting::merge(&*self.disk, &self.folder, id, parts)?;
        let merged = Arc::new(Block::open(&*self.disk, &self.folder, &self.layout, id)?);
        let end = merged.end();
        self.change(|blocks| {
            blocks.retain(|block| block.id.first < id.first || block.id.first >= end);
            let at = blocks.partition_point(|block| block.id < id);
            blocks.insert(at, merged);
        });
        for part in parts {
            self.remove(part.id)?;
        }
        debug!(first = %id.first, level = id.level, "merged posting blocks");
        Ok(())
    }

    /// The first block of level 0 that is missing below `indexed` and is not among `lost`.
    pub(crate) fn first_gap(&self, indexed: Index, lost: &BTreeSet<Index>) -> Option<Index> {
        let mut next = Index::GENESIS;
        let blocks = self.list();
        let stretches = blocks.iter().map(|block| (block.id.first, block.end()));
        for (first, end) in stretches.chain([(indexed, indexed)]) {
            while next < first {
                if !lost.contains(&next) {
                    return Some(next);
                }
                next = next.plus(self.layout.entries(0));
            }
            next = end;
        }
        None
    }

    /// Drops the block that a read found damaged, so that it is built again.
    pub(crate) fn drop_damaged(&self, error: &IndexError) {
        let IndexError::Damaged { path, .. } = error else { return };
        let mut dropped = None;
        self.change(|blocks| {
            dropped =
                blocks.iter().position(|block| block.path == *path).map(|at| blocks.remove(at));
        });
        let Some(block) = dropped else { return };
        warn!(%error, "dropped a posting block");
        // One that stays on the disk is met again at the next start.
        if let Err(error) = self.remove(block.id) {
            warn!(%error, "kept the file of a damaged posting block");
        }
    }

    /// Removes the blocks that hold postings of an entry in one of these ranges, durably; they are
    /// gaps then, which are filled from the log.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn forget(&self, ranges: &[RangeInclusive<u64>]) -> Result<(), StorageError> {
        let holds = |block: &Block| {
            let (first, end) = (block.id.first.0, block.end().0);
            ranges.iter().any(|range| first <= *range.end() && *range.start() < end)
        };
        let mut forgotten = Vec::new();
        self.change(|blocks| {
            forgotten = blocks.extract_if(.., |block| holds(block)).collect();
        });
        for block in forgotten {
            self.remove(block.id)?;
        }
        self.disk.sync_dir(&self.folder).map_err(io_error("sync", &self.folder))
    }

    fn mergeable(&self) -> Option<Vec<Arc<Block>>> {
        let blocks = self.list();
        let width = usize::try_from(MERGE_FACTOR).unwrap_or(usize::MAX);
        let parts = blocks.windows(width).rev().find(|parts| {
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
            let level = first.id.level;
            let end = first.id.first.plus(self.layout.entries(level) * MERGE_FACTOR);
            level < LEVEL_MAX
                && first.id.first.0.is_multiple_of(self.layout.entries(level + 1))
                && parts.iter().all(|part| part.id.level == level)
                && last.end() == end
        });
        parts.map(<[_]>::to_vec)
    }

    fn remove(&self, id: BlockId) -> Result<(), StorageError> {
        let path = self.folder.join(id.file_name());
        self.disk.remove(&path).map_err(io_error("remove", &path))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Block>>)) {
        change(&mut self.blocks.write().unwrap_or_else(PoisonError::into_inner));
    }
}
