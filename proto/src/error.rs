//! What can be wrong with what this crate reads, one enum a stage.

use thiserror::Error;

use crate::{
    hash::Digest,
    position::{Index, Size},
};

/// A source's name is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty or too long.
    #[error("name of {len} bytes, allowed are 1 to 128")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A byte outside the alphabet.
    #[error("character at byte {position} of the name, allowed are a-z 0-9 . _ / : @ -")]
    Character {
        /// Offset of the first such byte.
        position: usize,
    },
}

/// The bytes of an entry are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Another version than 1.
    #[error("entry version {found}, known is 1")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The bytes end inside a field.
    #[error("entry ends {left} bytes into a field of {wanted}")]
    Truncated {
        /// Length of the field.
        wanted: usize,
        /// Bytes left for it.
        left: usize,
    },
    /// Bytes after the last field.
    #[error("{extra} bytes after the end of the entry")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Source number 0.
    #[error("source number 0, numbers start at 1")]
    SourceSeq,
    /// The seal covers too many entries.
    #[error("seal over {found} entries, allowed are 4096")]
    SealCount {
        /// The count found.
        found: u16,
    },
    /// The source's name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
}

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
    #[error("old size {old}, allowed are 1 to {new}")]
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
    #[error("old size {old}, allowed are 1 to {new}")]
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
