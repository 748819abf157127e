//! The tree on disk: one file a tile level, `tree/<level>`, of 32-byte hashes without a header.
//!
//! Hash `i` of level `l` is the tree hash of leaves `i * 256^l` up to `(i + 1) * 256^l`; only
//! complete ones are stored. Nodes between two levels are computed from the level below, at most
//! 128 hashes that lie together. All of it follows from the log: it is synced only when a segment
//! is full, and after a stop whatever is newer than the last segment's first entry is computed
//! again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use access_ledger_proto::{
    hash::Digest,
    position::{Size, count_of},
    proof::NodeSource,
    tree::{Frontier, Node, Stored, TILE_HEIGHT, decompose, root_of},
};

use super::file::{StoredFile, io_error};
use crate::{
    error::StorageError,
    os::{Access, Disk},
};

/// Levels of tiles of a tree whose size is a `u64`.
pub(crate) const LEVELS: u8 = (Node::LEVEL_MAX + 1) / TILE_HEIGHT;

/// The stored tree. Cloning is cheap; the writer appends, anyone reads.
#[derive(Clone)]
pub struct TreeFiles {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    levels: Vec<Level>,
    /// The files are being computed again, so their length says nothing.
    is_rebuilding: bool,
    /// Leaves whose nodes are all stored.
    size: AtomicU64,
}

struct Level {
    file: StoredFile,
    /// Written since the last sync.
    is_dirty: AtomicBool,
}

impl TreeFiles {
    /// Opens the level files below the data folder. Holds nothing until [`TreeFiles::reset`].
    ///
    /// For writing, missing ones are created; for reading they are an error.
    pub(crate) fn open(disk: &dyn Disk, data: &Path, access: Access) -> Result<Self, StorageError> {
        let folder = data.join("tree");
        let paths = (0..LEVELS).map(|level| folder.join(level.to_string()));
        let files: Vec<_> = if access == Access::Write {
            disk.create_dir(&folder).map_err(io_error("create", &folder))?;
            let files = paths.map(|path| StoredFile::open_or_create(disk, &path)).collect();
            disk.sync_dir(&folder).map_err(io_error("sync", &folder))?;
            files
        } else {
            paths.map(|path| StoredFile::open(disk, &path, access)).collect()
        };
        let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_rebuilding = disk.open(&folder.join(REBUILDING), Access::Read).is_ok();
        let level = |file| Level { file, is_dirty: AtomicBool::new(true) };
        let levels = files.into_iter().map(level).collect();
        let size = AtomicU64::new(0);
        Ok(Self { inner: Arc::new(Inner { folder, levels, is_rebuilding, size }) })
    }

    /// How many leaves are stored, with all the nodes that they complete.
    #[must_use]
    pub fn size(&self) -> Size {
        Size(self.inner.size.load(Ordering::Acquire))
    }

    /// Stores the nodes that `frontier` made since its last `forget`: to be called after each
    /// commit, with the leaves of that commit. Does not wait for the disk.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when a write fails; [`StorageError::TreeBehind`] when leaves between
    /// what is stored and `frontier` are missing. Nothing is lost by either, the log has it all.
    pub fn append(&self, frontier: &Frontier) -> Result<(), StorageError> {
        let (first_leaf, _) = frontier.recent(0);
        if first_leaf > self.size().0 {
            return Err(StorageError::TreeBehind { found: self.size(), wanted: Size(first_leaf) });
        }
        let mut bytes = Vec::new();
        for (tile_level, level) in (0..LEVELS).zip(&self.inner.levels) {
            let (first, hashes) = frontier.recent(tile_level * TILE_HEIGHT);
            if hashes.is_empty() {
                break;
            }
            bytes.clear();
            hashes.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
            level.file.write_at(&bytes, first * HASH_LEN)?;
            level.is_dirty.store(true, Ordering::Relaxed);
        }
        self.inner.size.store(frontier.size().0, Ordering::Release);
        Ok(())
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        for level in &self.inner.levels {
            if level.is_dirty.load(Ordering::Relaxed) {
                level.file.sync_data()?;
                level.is_dirty.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Takes the tree of `size` leaves as stored and drops what lies beyond.
    ///
    /// Returns `None`, and keeps nothing, when a file is too short for that: then the tree is to be
    /// computed from the log again.
    pub(crate) fn reset(&self, size: Size) -> Result<Option<Frontier>, StorageError> {
        let mut kept = if self.inner.is_rebuilding { Size::ZERO } else { size };
        for (tile_level, level) in (0..LEVELS).zip(&self.inner.levels) {
            if level.file.length()? / HASH_LEN < Stored::count_in(tile_level, size) {
                kept = Size::ZERO;
            }
        }
        for (tile_level, level) in (0..LEVELS).zip(&self.inner.levels) {
            level.file.set_length(Stored::count_in(tile_level, kept) * HASH_LEN)?;
        }
        self.inner.size.store(kept.0, Ordering::Release);
        if kept != size {
            return Ok(None);
        }
        self.frontier(size).map(Some)
    }

    /// The growing edge of the stored tree over its first `size` leaves.
    pub(crate) fn frontier(&self, size: Size) -> Result<Frontier, StorageError> {
        let roots = decompose(size)
            .map(|node| self.node(node))
            .collect::<Result<Vec<_>, StorageError>>()?;
        let behind = StorageError::TreeBehind { found: self.size(), wanted: size };
        Frontier::from_roots(size, &roots).ok_or(behind)
    }

    /// Compares the nodes that `computed` made since its last `forget` with the stored ones.
    pub(crate) fn compare(&self, computed: &Frontier) -> Result<(), StorageError> {
        for level in 0..LEVELS {
            let (first, nodes) = computed.recent(level * TILE_HEIGHT);
            self.compare_level(level, first, nodes)?;
        }
        Ok(())
    }

    /// Compares the stored hashes from `first` on of a level with these.
    pub(crate) fn compare_level(
        &self,
        level: u8,
        first: u64,
        computed: &[Digest],
    ) -> Result<(), StorageError> {
        if computed.is_empty() {
            return Ok(());
        }
        let found = self.hashes(level, first, computed.len())?;
        let mut pairs = (first..).zip(found.iter().zip(computed));
        match pairs.find(|(_, (found, computed))| found != computed) {
            Some((position, (&found, &computed))) => {
                Err(StorageError::TreeDamage { level, position, found, computed })
            }
            None => Ok(()),
        }
    }

    /// Says on the disk that the files are being computed again, so that a stop on the way does not
    /// leave files of the right length with other content.
    pub(crate) fn start_rebuilding(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let path = self.inner.folder.join(REBUILDING);
        disk.create(&path).map_err(io_error("create", &path))?;
        disk.sync_dir(&self.inner.folder).map_err(io_error("sync", &self.inner.folder))
    }

    /// Makes the files durable and takes back what [`TreeFiles::start_rebuilding`] said.
    pub(crate) fn finish_rebuilding(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.sync()?;
        let path = self.inner.folder.join(REBUILDING);
        disk.remove(&path).map_err(io_error("remove", &path))?;
        disk.sync_dir(&self.inner.folder).map_err(io_error("sync", &self.inner.folder))
    }

    /// How many hashes of a level are stored.
    pub(crate) fn stored(&self, level: u8) -> Result<u64, StorageError> {
        let file = self.inner.levels.get(usize::from(level)).map(|level| &level.file);
        Ok(file.map_or(Ok(0), StoredFile::length)? / HASH_LEN)
    }

    /// The hashes `first..first + count` of a level; all of them or an error.
    pub(crate) fn hashes(
        &self,
        level: u8,
        first: u64,
        count: usize,
    ) -> Result<Vec<Digest>, StorageError> {
        let file = self.inner.levels.get(usize::from(level)).map(|level| &level.file);
        let bytes = match file {
            Some(file) => file.read(first.saturating_mul(HASH_LEN), count * Digest::LEN)?,
            None => Vec::new(),
        };
        let (hashes, _) = bytes.as_chunks::<{ Digest::LEN }>();
        if hashes.len() < count {
            let found = first.saturating_add(count_of(hashes.len()));
            let wanted = first.saturating_add(count_of(count));
            return Err(StorageError::TreeShort { level, found, wanted });
        }
        Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
    }
}

impl NodeSource for TreeFiles {
    type Error = StorageError;

    fn node(&self, node: Node) -> Result<Digest, StorageError> {
        let Some(stored) = node.stored() else {
            return Err(StorageError::TreeShort { level: LEVELS, found: 0, wanted: node.index });
        };
        let hashes = self.hashes(stored.tile_level, stored.first, stored.count.into())?;
        Ok(root_of(&hashes))
    }
}

/// An empty file beside the levels, as long as they are being computed again.
const REBUILDING: &str = "rebuilding";

/// Length of a hash in a file.
const HASH_LEN: u64 = Digest::LEN as u64;
