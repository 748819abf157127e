//! What can be wrong with a proof.

use thiserror::Error;

use crate::{
    hash::Digest,
    position::{Index, Size},
};

/// A proof could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError<E> {
    /// No such leaf in the tree.
    #[error("index {index} asked of a tree of {size} leaves")]
    BeyondTree {
        /// The leaf asked for.
        index: Index,
        /// Size of the tree.
        size: Size,
    },
    /// Sizes between which no consistency can be proven.
    #[error("old size {old}, expected 1 to {new}")]
    Sizes {
        /// Size of the old tree.
        old: Size,
        /// Size of the new tree.
        new: Size,
    },
    /// A node could not be had.
    #[error(transparent)]
    Source(E),
}

/// A proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No such leaf in the tree.
    #[error("proof for index {index} in a tree of {size} leaves")]
    BeyondTree {
        /// The leaf that the proof is for.
        index: Index,
        /// Size of the tree.
        size: Size,
    },
    /// Sizes between which no consistency can be proven.
    #[error("old size {old}, expected 1 to {new}")]
    Sizes {
        /// Size of the old tree.
        old: Size,
        /// Size of the new tree.
        new: Size,
    },
    /// Too few or too many hashes.
    #[error("path of {found} hashes, wanted {wanted}")]
    Length {
        /// Hashes in the path.
        found: usize,
        /// Hashes that a path between these places has.
        wanted: usize,
    },
    /// The path leads to another root.
    #[error("root of size {size} computed {found}, wanted {wanted}")]
    Root {
        /// Size of the tree that the root is of.
        size: Size,
        /// The root that follows from the path.
        found: Digest,
        /// The root that it was checked against.
        wanted: Digest,
    },
}
