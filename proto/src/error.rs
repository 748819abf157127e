//! What can be wrong with what this crate reads, one enum a stage.

use thiserror::Error;

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
