//! Which of two entries changed, when they no longer fit together.
//!
//! A broken link shows at the entry that carries it, but the one before may be what changed; a leaf
//! that differs from the tree may be the tree's fault. Three know an entry's leaf hash: its own bytes,
//! the tree, and the next entry. When the last two agree, the entry itself changed.

use std::path::Path;

use access_ledger_proto::{entry::Entry, error::ChainError, hash::Digest, position::Index};

use super::{recover::list_segments, segment::Segment, tree::TreeFiles, walk::Walk};
use crate::{
    error::{Fault, StorageError},
    os::{Access, Disk},
};

/// Reads what stands around a problem.
pub(crate) struct Blame<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) folder: &'a Path,
    pub(crate) origin: Digest,
    pub(crate) tree: &'a TreeFiles,
}

impl Blame<'_> {
    /// The problem as it is, or the entry that caused it.
    pub(crate) fn judge(&self, problem: StorageError) -> StorageError {
        let (index, leaf, wanted) = match &problem {
            StorageError::Damage {
                fault: Fault::Chain(ChainError::Link { index: Index(next @ 1..), found, wanted }),
                ..
            } => (Index(next - 1), *wanted, *found),
            StorageError::TreeDamage { level: 0, position, found, computed } => {
                (Index(*position), *computed, *found)
            }
            _ => return problem,
        };
        let in_tree = self.tree.hashes(0, index.0, 1).unwrap_or_default();
        let in_chain = self.find(index.next()).ok().flatten().map(|next| next.prev);
        if in_tree.first() != Some(&wanted) || in_chain != Some(wanted) {
            return problem;
        }
        match self.find(index) {
            Ok(Some(found)) => {
                let fault = Fault::Leaf { found: leaf, wanted };
                found.segment.damage(found.offset, index, fault)
            }
            _ => problem,
        }
    }

    /// Walks to an entry; `None` beyond the end.
    fn find(&self, index: Index) -> Result<Option<Found>, StorageError> {
        let firsts = list_segments(self.disk, self.folder)?;
        let after = firsts.partition_point(|first| *first <= index);
        let Some(&first) = after.checked_sub(1).and_then(|at| firsts.get(at)) else {
            return Ok(None);
        };
        let segment = Segment::open(self.disk, self.folder, (first, self.origin), Access::Read)?;
        let mut walk = Walk::new(&segment, segment.file.length()?);
        while let Some(placed) = walk.next()? {
            if placed.index == index {
                let (offset, entry) = (placed.offset, Entry::parse(placed.frame.entry));
                let prev =
                    entry.map_err(|error| segment.damage(offset, index, Fault::Entry(error)))?.prev;
                return Ok(Some(Found { segment: segment.clone(), offset, prev }));
            }
        }
        Ok(None)
    }
}

/// An entry's place, and what it continues.
struct Found {
    segment: Segment,
    offset: u64,
    prev: Digest,
}
