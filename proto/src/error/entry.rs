//! What can be wrong with entries, seals and the chain.

use thiserror::Error;

use crate::{hash::Digest, position::Index};

/// A source's name is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty or too long.
    #[error("name of {len} bytes, expected 1 to 128")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A byte outside the alphabet.
    #[error("character at byte {position} of the name, allowed a-z 0-9 . _ / : @ -")]
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
    #[error("seal over {found} entries, at most 4096 allowed")]
    SealCount {
        /// The count found.
        found: u16,
    },
    /// The source's name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A batch cannot be sealed, or its seal does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Empty or too large.
    #[error("batch of {found} events, expected 1 to 4096")]
    Count {
        /// Events found.
        found: usize,
    },
    /// Numbers start at 1 and must not run out.
    #[error("batch starts at number {first_seq}, numbers start at 1 and must not overflow")]
    Sequence {
        /// The first number.
        first_seq: u64,
    },
    /// The seal covers another number of entries.
    #[error("seal covers {found} entries, the batch has {wanted}")]
    Covers {
        /// What the seal says.
        found: u16,
        /// Length of the batch.
        wanted: u16,
    },
    /// The seal names another key than the source's.
    #[error("seal names a key that is not the source's")]
    Key,
    /// The signature does not verify.
    #[error("seal's signature does not verify")]
    Signature,
}

/// An entry does not continue the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Another place was next.
    #[error("entry with index {found}, wanted {wanted}")]
    Index {
        /// The entry's own index.
        found: Index,
        /// The place it stands at.
        wanted: Index,
    },
    /// `prev` is not the leaf hash of the entry before.
    #[error("link at index {index} is {found}, computed {wanted}")]
    Link {
        /// Where.
        index: Index,
        /// What the entry says.
        found: Digest,
        /// The leaf hash before it.
        wanted: Digest,
    },
    /// Time runs backwards.
    #[error("time at index {index} is {found} ns, the entry before has {before} ns")]
    Time {
        /// Where.
        index: Index,
        /// Nanoseconds since the Unix epoch.
        found: u64,
        /// The same of the entry before.
        before: u64,
    },
}
