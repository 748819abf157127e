//! The files of the tree, compared with the tree that the verifier computes.

use access_ledger_proto::{
    position::{Size, memory_len},
    tree::{Frontier, Stored, TILE_HEIGHT},
};

use crate::{
    error::StorageError,
    os::{Access, Disk},
    storage::{
        Options,
        tree::{LEVELS, TreeFiles},
    },
};

/// The tree as it is stored.
pub(crate) struct StoredTree {
    pub(crate) files: TreeFiles,
    /// How many hashes each level has.
    lengths: Vec<u64>,
}

impl StoredTree {
    pub(crate) fn open(disk: &dyn Disk, options: &Options) -> Result<Self, StorageError> {
        let files = TreeFiles::open(disk, &options.folder, Access::Read)?;
        let lengths = (0..LEVELS).map(|level| files.stored(level)).collect::<Result<_, _>>()?;
        Ok(Self { files, lengths })
    }

    /// Compares the nodes that `tree` made last with the stored ones, as far as there are any.
    pub(crate) fn compare(&self, tree: &Frontier) -> Result<(), StorageError> {
        for (level, &length) in (0..).zip(&self.lengths) {
            let (first, nodes) = tree.recent(level * TILE_HEIGHT);
            let stored = memory_len(length.saturating_sub(first)).unwrap_or(usize::MAX);
            let nodes = nodes.get(..stored).unwrap_or(nodes);
            self.files.compare_level(level, first, nodes)?;
        }
        Ok(())
    }

    /// Checks that the tree of the first `synced` leaves is there. What is newer may be missing,
    /// opening computes it again.
    pub(crate) fn check_lengths(&self, synced: Size) -> Result<(), StorageError> {
        for (level, &found) in (0..).zip(&self.lengths) {
            let wanted = Stored::count_in(level, synced);
            if found < wanted {
                return Err(StorageError::TreeShort { level, found, wanted });
            }
        }
        Ok(())
    }
}
