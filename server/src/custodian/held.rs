//! What a copy holds, for whoever is to sign for it.
//!
//! A mirror's cosignature says: every entry up to this size is here, durably, verified, and can be
//! read from me. [`Held`] is the proof of that, and the one that cosigns takes nothing else; only
//! [`Holdings::hold`] makes one, from what the storing thread has synced and from the tree over it.

use std::time::Duration;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    error::BuildError,
    hash::Digest,
    position::{Index, Size},
    proof::root_at,
};
use tokio::sync::watch;

use super::error::NotHeld;
use crate::{
    error::StorageError,
    storage::{LogReader, TreeFiles},
};

/// Proof that every entry below a size is durable here and was verified, and that the tree over
/// them has this root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Held {
    size: Size,
    root: Digest,
}

impl Held {
    /// How many entries.
    #[must_use]
    pub const fn size(self) -> Size {
        self.size
    }

    /// Root of the tree over them.
    #[must_use]
    pub const fn root(self) -> Digest {
        self.root
    }
}

/// How far a copy is. Cloning is cheap; all clones see it grow.
#[derive(Clone)]
pub struct Holdings {
    origin: String,
    reader: LogReader,
    tree: TreeFiles,
    extent: watch::Receiver<Extent>,
}

/// As far as everything is verified, durable and in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) size: Size,
    /// The first event that is gone without a record of its erasure below `size`.
    pub(super) unaccounted: Option<Index>,
}

impl Holdings {
    pub(super) const fn new(
        origin: String,
        reader: LogReader,
        tree: TreeFiles,
        extent: watch::Receiver<Extent>,
    ) -> Self {
        Self { origin, reader, tree, extent }
    }

    /// How many entries are held.
    #[must_use]
    pub fn size(&self) -> Size {
        self.extent.borrow().size
    }

    /// The tree over the entries held; ask for no size beyond [`Holdings::size`].
    #[must_use]
    pub const fn tree(&self) -> &TreeFiles {
        &self.tree
    }

    /// Waits until so many entries are held, for a while at most. How many are held then.
    pub async fn wait_for(&self, size: Size, timeout: Duration) -> Size {
        let mut extent = self.extent.clone();
        let reached = extent.wait_for(|extent| extent.size >= size);
        // Late, or the copy takes nothing more: the size tells.
        let _reached_or_not = tokio::time::timeout(timeout, reached).await;
        self.size()
    }

    /// Proves that the copy holds all that a checkpoint covers, and that it is what the ledger
    /// signed. Reads some nodes and an entry; blocks.
    ///
    /// # Errors
    ///
    /// [`NotHeld::Foreign`], [`NotHeld::Behind`], [`NotHeld::OtherRoot`], [`NotHeld::Unsealed`],
    /// [`NotHeld::Unaccounted`]; [`NotHeld::Storage`] when the disk refuses.
    pub fn hold(&self, checkpoint: &VerifiedCheckpoint) -> Result<Held, NotHeld> {
        if checkpoint.origin() != self.origin {
            let (found, wanted) = (checkpoint.origin().to_owned(), self.origin.clone());
            return Err(NotHeld::Foreign { found, wanted });
        }
        let (size, signed) = (checkpoint.size(), checkpoint.root());
        let extent = *self.extent.borrow();
        if size > extent.size {
            return Err(NotHeld::Behind { held: extent.size, wanted: size });
        }
        let own = root_at(&self.tree, size).map_err(|error| match error {
            BuildError::Source(error) => error,
            _ => StorageError::TreeBehind { found: self.tree.size(), wanted: size },
        })?;
        if own != signed {
            return Err(NotHeld::OtherRoot { size, own, signed });
        }
        if let Some(last) = size.last_index() {
            let entry = self.reader.read_entries(last, 1, usize::MAX)?.pop().unwrap_or_default();
            if !Entry::parse(&entry).is_ok_and(|entry| entry.seal.is_some()) {
                return Err(NotHeld::Unsealed { size });
            }
        }
        match extent.unaccounted.filter(|&index| size.contains(index)) {
            Some(index) => Err(NotHeld::Unaccounted { index }),
            None => Ok(Held { size, root: own }),
        }
    }
}
