//! What can be wrong with an event.

use thiserror::Error;

use super::NameError;

/// An event breaks a rule of `event.proto`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{fault}", self.prefix())]
pub struct EventError {
    /// The field's path, as in `access.data[2].dataset`; empty for the event as a whole.
    pub path: String,
    /// What is wrong there.
    pub fault: EventFault,
}

impl EventError {
    pub(crate) fn at(field: &str, fault: EventFault) -> Self {
        Self { path: field.to_owned(), fault }
    }

    pub(crate) fn within(self, field: &str) -> Self {
        self.below(field.to_owned())
    }

    pub(crate) fn within_item(self, field: &str, item: u32) -> Self {
        self.below(format!("{field}[{item}]"))
    }

    fn below(self, field: String) -> Self {
        let path = if self.path.is_empty() { field } else { format!("{field}.{}", self.path) };
        Self { path, fault: self.fault }
    }

    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) }
    }
}

impl From<EventFault> for EventError {
    fn from(fault: EventFault) -> Self {
        Self { path: String::new(), fault }
    }
}

/// What is wrong with a field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventFault {
    /// The event is empty or too long.
    #[error("event of {len} bytes, expected 1 to 32768")]
    EventLen {
        /// Bytes found.
        len: usize,
    },
    /// The bytes are no protobuf message, or not one that all parsers read alike.
    #[error("malformed protobuf")]
    Malformed,
    /// The field has another wire type than its declaration.
    #[error("wire type does not fit the field")]
    WireType,
    /// A required field is absent, empty or unspecified.
    #[error("missing, the field is required")]
    Missing,
    /// A singular field or a oneof is set more than once.
    #[error("set twice, allowed once")]
    Twice,
    /// Too many items.
    #[error("more items than the {max} allowed")]
    Items {
        /// Most items.
        max: u32,
    },
    /// A string or bytes field is too long.
    #[error("{len} bytes, at most {max} allowed")]
    Len {
        /// Bytes found.
        len: usize,
        /// Most bytes.
        max: usize,
    },
    /// A bytes field of fixed length has another length.
    #[error("{len} bytes, expected {wanted}")]
    Exactly {
        /// Bytes found.
        len: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {position}")]
    Utf8 {
        /// Offset of the first bad byte.
        position: usize,
    },
    /// A control character, or one that reorders text.
    #[error("forbidden character at byte {position}")]
    Character {
        /// Offset of the first one.
        position: usize,
    },
    /// Not a country code.
    #[error("not an ISO 3166-1 alpha-2 code in upper case")]
    Country,
    /// Not a source's name.
    #[error(transparent)]
    SourceName(NameError),
    /// A required enum has no value, or one that this version does not know.
    #[error("value {value} is unspecified or unknown, the field is required")]
    EnumValue {
        /// The value found.
        value: i32,
    },
    /// A time or duration outside its range.
    #[error("time out of range")]
    TimeRange,
    /// More than five minutes ahead of the ledger's clock.
    #[error("time lies more than five minutes in the future")]
    Future,
    /// A body of a later version.
    #[error("body with field number {number} is unknown to this version")]
    UnknownBody {
        /// Its field number in `Event`.
        number: u32,
    },
}
