//! Why a redaction erases nothing.

use thiserror::Error;

use crate::{facts::control::PARTIES_MIN, position::Index, source::SourceName};

/// A redaction that erases nothing: it is not lawful.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RedactionError {
    /// It ends before it begins.
    #[error("range from {first} to {last} is empty")]
    Empty {
        /// The first index that it names.
        first: Index,
        /// The last one.
        last: Index,
    },
    /// It reaches to itself, or beyond.
    #[error("range ends at {last}, which does not lie before the redaction at {index}")]
    Beyond {
        /// The last index that it names.
        last: Index,
        /// Its own.
        index: Index,
    },
    /// Too few parties of the governance have signed it.
    #[error("signed by {found} parties of the governance, at least {PARTIES_MIN} must")]
    Alone {
        /// How many have.
        found: usize,
    },
    /// A run of the retention that the ledger's own source has not sealed.
    #[error("sealed by {name}, a run of the retention is the ledger's own to record")]
    Sealer {
        /// Who sealed it.
        name: SourceName,
    },
    /// A run of a retention that is not in force, or under another legal basis.
    #[error("names the retention at {found}, in force is {}", in_force(.wanted))]
    Retention {
        /// What it names.
        found: Index,
        /// The one in force.
        wanted: Option<Index>,
    },
}

/// An event that no redaction erases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Kept {
    /// Its body is the record of a rule or of another erasure.
    #[error("holds a {body}, which is never erased")]
    Body {
        /// The body, by its name in `event.proto`.
        body: &'static str,
    },
    /// A source of governance sealed it.
    #[error("is sealed by governance, which erases nothing of its own")]
    Governance,
    /// It is the genesis.
    #[error("is the genesis, which is never erased")]
    Genesis,
}

fn in_force(wanted: &Option<Index>) -> String {
    wanted.map_or_else(|| "none".to_owned(), |index| format!("that at {index}"))
}
