//! What is wrong with a segment's header or a frame.

use thiserror::Error;

use crate::hash::Digest;

/// A segment's header or a frame is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment's header does not match its own checksum.
    #[error("segment header is damaged")]
    Header,
    /// Written by another version of the software.
    #[error("segment format {found}, known is {known}")]
    Version {
        /// The version in the header.
        found: u32,
        /// The only one that this software reads.
        known: u32,
    },
    /// The segment belongs to another ledger.
    #[error("segment of another ledger, origin digest {found}, wanted {wanted}")]
    Origin {
        /// Digest of the origin, in the header.
        found: Digest,
        /// Digest of this ledger's origin.
        wanted: Digest,
    },
    /// Lengths that no frame has, or that reach beyond the file.
    #[error("frame of an entry of {entry_bytes} and an event of {event_bytes} bytes")]
    Lengths {
        /// Length of the entry in the frame header.
        entry_bytes: u16,
        /// Length of the event in the frame header.
        event_bytes: u16,
    },
    /// The file ends where a frame is due.
    #[error("file ends inside a frame")]
    Truncated,
    /// An event is neither present nor erased.
    #[error("event state {found}, known are 1 and 2")]
    State {
        /// The state in the frame header.
        found: u8,
    },
    /// The entry's bytes changed.
    #[error("checksum of the entry is {computed:08x}, stored {stored:08x}")]
    EntryChecksum {
        /// CRC-32C of the bytes found.
        computed: u32,
        /// CRC-32C in the frame header.
        stored: u32,
    },
    /// The event's bytes changed.
    #[error("checksum of the event is {computed:08x}, stored {stored:08x}")]
    EventChecksum {
        /// CRC-32C of the bytes found.
        computed: u32,
        /// CRC-32C in the frame header.
        stored: u32,
    },
}
