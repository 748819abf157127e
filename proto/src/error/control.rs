//! Why a change of the rules has no effect.

use thiserror::Error;

use super::SourceError;
use crate::facts::control::PARTIES_MIN;

/// A change of the rules that has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Its kind is none that this version carries out.
    #[error("changes of this kind are not supported")]
    Kind,
    /// Too few parties of the governance have signed it.
    #[error("signed by {found} parties of the governance, at least {PARTIES_MIN} must")]
    Alone {
        /// How many have.
        found: usize,
    },
    /// Its revision does not follow the one in force.
    #[error("revision is {found}, expected {expected}")]
    Revision {
        /// The revision found.
        found: u64,
        /// The one that follows.
        expected: u64,
    },
    /// Its content breaks the rules of its kind, or its target is missing or out of place.
    #[error("content or target does not fit the kind of change")]
    Content,
    /// The signature of a new key is missing or fails: nobody has shown to hold it.
    #[error("signature of the new key does not verify")]
    Possession,
    /// What it changes of a source cannot be so.
    #[error(transparent)]
    Source(#[from] SourceError),
}
