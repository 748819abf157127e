//! What can be wrong with a trust policy file.

use thiserror::Error;

use super::KeyError;
use crate::note::KeyType;

/// A file is no trust policy (C2SP tlog-policy).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct QuorumError {
    /// Number of the offending line, from 1; of the last one where a line is missing.
    pub line: usize,
    /// What is wrong with it.
    pub fault: QuorumFault,
}

/// What is wrong with a line of a trust policy. Names that are not UTF-8 are told with U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QuorumFault {
    /// A control character other than tab and line feed.
    #[error("byte {found:#04x}, of control characters only tab and line feed are allowed")]
    Control {
        /// The first such byte.
        found: u8,
    },
    /// The file ends inside its last line: some of it may be lost.
    #[error("last line without a line feed")]
    Unterminated,
    /// A line of no known kind.
    #[error("{found:?}, expected log, witness, group, quorum or #")]
    Keyword {
        /// The first word.
        found: String,
    },
    /// Too few or too many words.
    #[error("line of another form than \"{wanted}\"")]
    Form {
        /// The form of such a line.
        wanted: &'static str,
    },
    /// The verifier key is malformed.
    #[error("verifier key: {0}")]
    Key(#[from] KeyError),
    /// A key that signs other things.
    #[error("key of type {found}, expected {wanted}")]
    KeyType {
        /// Its type.
        found: KeyType,
        /// What a log's or a witness's key is.
        wanted: KeyType,
    },
    /// The same public key, whatever its name.
    #[error("key that line {first} has already")]
    KeyTwice {
        /// The line that had it first.
        first: usize,
    },
    /// A name that is taken, or `none`, which means no quorum.
    #[error("name {name:?} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A name that no line before this one defines.
    #[error("name {name:?} is not defined before this line")]
    Undefined {
        /// The name.
        name: String,
    },
    /// A member that counts in two ways.
    #[error("{name:?} is a member of a group already")]
    MemberTwice {
        /// The name.
        name: String,
    },
    /// A threshold that no decimal number is, or that never or always holds.
    #[error("threshold {found:?}, expected any, all or a number from 1 to {members}")]
    Threshold {
        /// The word found.
        found: String,
        /// Members of the group.
        members: usize,
    },
    /// A second quorum.
    #[error("quorum that line {first} has already")]
    QuorumTwice {
        /// The line that had it first.
        first: usize,
    },
    /// No quorum.
    #[error("file ends without a quorum line")]
    NoQuorum,
}
