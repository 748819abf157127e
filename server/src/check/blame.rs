//! Where the entry lies that breaks a rule, and which of two entries changed when they no longer
//! fit together.
//!
//! A broken link shows at the entry that carries it, but the one before may be what changed; a leaf
//! that differs from the tree may be the tree's fault. Three know an entry's leaf hash: its own
//! bytes, the tree, and the next entry. When the last two agree, the entry itself changed.

use access_ledger_client::verify::{self, Violation};
use access_ledger_proto::{entry::Entry, error::ChainError, hash::Digest, position::Index};

use super::{pieces::LogFiles, tree::StoredTree};
use crate::{
    error::{Fault, StorageError},
    storage::{segment::Segment, walk::Walk},
};

/// An entry's place, and what it continues.
struct Found {
    segment: Segment,
    offset: u64,
    prev: Digest,
}

impl LogFiles<'_> {
    /// Says in which segment, and where in it, the entry lies that breaks a rule.
    pub(super) fn place(&self, violation: Violation) -> StorageError {
        let Violation { index, what, .. } = violation;
        let fault = Fault::Log(what);
        match self.find(index) {
            Ok(Some(found)) => found.segment.damage(found.offset, index, fault),
            Ok(None) => {
                let segment = self.segment_of(index).unwrap_or_default();
                StorageError::Damage { segment, offset: 0, index, fault }
            }
            Err(error) => error,
        }
    }

    /// The problem as it is, or the entry that caused it.
    pub(super) fn judge(&self, problem: StorageError, tree: &StoredTree) -> StorageError {
        let (index, leaf, wanted) = match &problem {
            StorageError::Damage {
                index: Index(next @ 1..),
                fault:
                    Fault::Chain(ChainError::Link { found, wanted: computed, .. })
                    | Fault::Log(verify::Fault::Link { found, computed }),
                ..
            } => (Index(next - 1), *computed, *found),
            StorageError::TreeDamage { level: 0, position, found, computed } => {
                (Index(*position), *computed, *found)
            }
            _ => return problem,
        };
        let in_tree = tree.files.hashes(0, index.0, 1).unwrap_or_default();
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
        let Some(first) = self.segment_of(index) else {
            return Ok(None);
        };
        let segment = self.open_segment(first)?;
        let mut walk = Walk::new(&segment, segment.file.length()?);
        while let Some(placed) = walk.next()? {
            if placed.index == index {
                let offset = placed.offset;
                // A malformed entry continues nothing.
                let prev =
                    Entry::parse(placed.frame.entry).map_or(Digest::ZERO, |entry| entry.prev);
                return Ok(Some(Found { segment: segment.clone(), offset, prev }));
            }
        }
        Ok(None)
    }

    /// First index of the segment in which an entry lies, or would.
    fn segment_of(&self, index: Index) -> Option<Index> {
        let after = self.firsts.partition_point(|first| *first <= index);
        after.checked_sub(1).and_then(|at| self.firsts.get(at)).copied()
    }
}
