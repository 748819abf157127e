//! What can be wrong with a filter.

use thiserror::Error;

/// A filter is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {fault}")]
pub struct FilterError {
    /// The field of the request, as in `filter.office_countries`.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: FilterFault,
}

/// What is wrong with a field of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterFault {
    /// Too many values.
    #[error("{count} values, at most {} allowed", crate::terms::Criteria::VALUES_MAX)]
    Count {
        /// How many there are.
        count: usize,
    },
    /// No event has a value of this length.
    #[error("value of {len} bytes, expected {min} to {max}")]
    Len {
        /// Bytes found.
        len: usize,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// Not a country.
    #[error("{found:?} is not a country, expected two capital letters (ISO 3166-1)")]
    Country {
        /// The value.
        found: String,
    },
    /// Not the name of a source.
    #[error("{found:?} is not a source's name")]
    Source {
        /// The value.
        found: String,
    },
    /// Not the name of a body.
    #[error("{found:?} is not a kind of event, expected a name like \"access_request\"")]
    Body {
        /// The value.
        found: String,
    },
    /// Not a time.
    #[error("not a time: {nanos} nanoseconds, expected 0 to 999999999")]
    Time {
        /// The nanoseconds found.
        nanos: i32,
    },
}
