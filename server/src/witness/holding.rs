//! What a custodian holds of the log that it follows: the ground on which its mirror key signs.

use std::{
    fmt,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    error::BuildError,
    hash::Digest,
    position::{Index, Size},
    proof::root_at,
};
use thiserror::Error;

use crate::{
    error::StorageError,
    storage::{LogReader, TreeFiles},
};

/// The copy of a log, as far as it is durable and its tree is stored.
pub struct Holding {
    reader: LogReader,
    tree: TreeFiles,
    extent: Mutex<Extent>,
    grown: Condvar,
}

/// How far a copy is durable, and in its tree.
#[derive(Clone, Copy, Debug)]
struct Extent {
    size: Size,
    /// The first event that is gone without a record of its erasure.
    unaccounted: Option<Index>,
    /// Bytes that were held cannot be read as they were written.
    is_damaged: bool,
}

/// Proof that every entry that a checkpoint covers is here, durably, and that the tree over them
/// has the checkpoint's root. Only [`Holding::hold`] makes one.
///
/// That each entry was checked is for who fills the copy: nothing else may get into it.
pub struct Held {
    tree: TreeFiles,
    origin: String,
    size: Size,
    root: Digest,
}

/// Why a checkpoint is not held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HoldError {
    /// Not all entries are here yet.
    #[error("{held} entries are held, the checkpoint covers {wanted}")]
    Behind {
        /// Entries held.
        held: Size,
        /// The checkpoint's size.
        wanted: Size,
    },
    /// The entries that are here are others: the log was forked.
    #[error("root at size {size} is {found}, what is held has {held}")]
    Differs {
        /// The checkpoint's size.
        size: Size,
        /// The checkpoint's root.
        found: Digest,
        /// The root over the entries that are held.
        held: Digest,
    },
    /// It ends inside a batch: no source has sealed the last entries.
    #[error("no seal covers the last entries of size {size}")]
    Unsealed {
        /// The checkpoint's size.
        size: Size,
    },
    /// An event is gone, and no record of its erasure has come yet.
    #[error("event {index} is gone, and no record of its erasure is held")]
    Unaccounted {
        /// The first such event.
        index: Index,
    },
    /// The scrub found bytes damaged: they are to be restored first.
    #[error("what is held is damaged on the disk")]
    Damaged,
    /// What is held could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Holding {
    /// What the two ends of one open log hold.
    #[must_use]
    pub fn new(reader: LogReader, tree: TreeFiles) -> Self {
        let size = reader.size().min(tree.size());
        let extent = Extent { size, unaccounted: None, is_damaged: false };
        let extent = Mutex::new(extent);
        Self { reader, tree, extent, grown: Condvar::new() }
    }

    /// How many entries are durable and in the tree.
    #[must_use]
    pub fn size(&self) -> Size {
        self.extent().size
    }

    /// Says how much is durable and in the tree, and wakes who waits for it. `unaccounted` is the
    /// first event in it that is gone without a record of its erasure.
    pub fn grown(&self, size: Size, unaccounted: Option<Index>) {
        let mut extent = self.extent();
        (extent.size, extent.unaccounted) = (size, unaccounted);
        drop(extent);
        self.grown.notify_all();
    }

    /// Says whether what is held is damaged on the disk, as far as anybody knows. While it is, this
    /// holds nothing: the mirror key says that every entry is here.
    pub fn damaged(&self, is_damaged: bool) {
        self.extent().is_damaged = is_damaged;
    }

    /// Compares a checkpoint of this log with what is held; waits for so long until there is
    /// enough of it. Blocks, and reads a node for each bit of the size.
    ///
    /// # Errors
    ///
    /// [`HoldError::Behind`] when that takes longer; [`HoldError::Differs`] when the log signed
    /// other entries than it sent; [`HoldError::Unsealed`], [`HoldError::Unaccounted`],
    /// [`HoldError::Damaged`]; [`HoldError::Storage`].
    pub fn hold(&self, checkpoint: &VerifiedCheckpoint, wait: Duration) -> Result<Held, HoldError> {
        let (size, found) = (checkpoint.size(), checkpoint.root());
        let is_behind = |extent: &mut Extent| extent.size < size;
        let waited = self.grown.wait_timeout_while(self.extent(), wait, is_behind);
        let (extent, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Extent { size: held, unaccounted, is_damaged } = *extent;
        drop(extent);
        if held < size {
            return Err(HoldError::Behind { held, wanted: size });
        }
        let root = root(&self.tree, size)?;
        if root != found {
            return Err(HoldError::Differs { size, found, held: root });
        }
        if let Some(index) = unaccounted.filter(|&index| size.contains(index)) {
            return Err(HoldError::Unaccounted { index });
        }
        if is_damaged {
            return Err(HoldError::Damaged);
        }
        self.check_sealed(size)?;
        let (tree, origin) = (self.tree.clone(), checkpoint.origin().to_owned());
        Ok(Held { tree, origin, size, root })
    }

    /// That the first `size` entries are whole batches.
    fn check_sealed(&self, size: Size) -> Result<(), HoldError> {
        let Some(last) = size.last_index() else { return Ok(()) };
        let entry = self.reader.read_entries(last, 1, usize::MAX)?.pop().unwrap_or_default();
        match Entry::parse(&entry).is_ok_and(|entry| entry.seal.is_some()) {
            true => Ok(()),
            false => Err(HoldError::Unsealed { size }),
        }
    }

    fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Holding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Holding({})", self.size())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Held({}, {}, {})", self.origin, self.size, self.root)
    }
}

impl Held {
    /// Whether this is what was found of this very checkpoint.
    pub(super) fn is_of(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        (self.size, self.root) == (checkpoint.size(), checkpoint.root())
            && self.origin == checkpoint.origin()
    }

    /// The root over the first entries that are held; `size` is at most the checkpoint's.
    pub(super) fn root_at(&self, size: Size) -> Result<Digest, StorageError> {
        root(&self.tree, size)
    }
}

fn root(tree: &TreeFiles, size: Size) -> Result<Digest, StorageError> {
    root_at(tree, size).map_err(|error| match error {
        BuildError::Source(error) => error,
        // A root exists at every size.
        _ => StorageError::TreeBehind { found: tree.size(), wanted: size },
    })
}
