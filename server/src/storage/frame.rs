//! The frame: one entry and its event as stored.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | length of the entry |
//! | 2 | 2 | length of the event |
//! | 4 | 4 | how many entries of the same group lie before this one |
//! | 8 | 4 | CRC-32C of bytes 0 to 7 and the entry |
//! | 12 | 1 | state: 1 event present, 2 event erased (its bytes are zeros) |
//! | 13 | 4 | CRC-32C of the state and the event |
//! | 17 | | entry, event |
//!
//! Both checksums start from the ledger's salt instead of zero. The salt is a secret of the data
//! folder, so no source can submit an event whose bytes pass for a frame when recovery searches
//! behind a torn one. The event has its own checksum, so that erasing it leaves the entry
//! untouched.

use access_ledger_proto::{entry::Entry, position::Index};
use crc32c::crc32c_append;

use crate::error::Fault;

/// Bytes before the entry.
pub(crate) const HEADER_LEN: usize = 17;

/// Shortest frame: an erased event of which not even zeros are kept.
pub(crate) const FRAME_LEN_MIN: usize = HEADER_LEN + Entry::LEN_MIN;

/// Longest frame.
pub(crate) const FRAME_LEN_MAX: usize = HEADER_LEN + Entry::LEN_MAX + Entry::EVENT_LEN_MAX;

/// What the checksums start from, so that only this ledger's own writes look like frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u32);

/// The frames of one group, encoded and ready to write.
///
/// Made by [`Log::group`](super::Log::group), filled entry by entry, consumed by
/// [`Log::commit`](super::Log::commit).
#[derive(Debug)]
pub struct GroupFrames {
    pub(crate) first: Index,
    pub(crate) salt: Salt,
    pub(crate) bytes: Vec<u8>,
    /// Start of each frame in `bytes`.
    pub(crate) starts: Vec<u32>,
}

impl GroupFrames {
    /// Most bytes of a group: what one sync may have to write, and what a segment may exceed its
    /// limit by. Offsets within segments stay far below 32 bits.
    pub const LEN_MAX: usize = 8 << 20;

    /// Adds the next entry and its event.
    ///
    /// # Panics
    ///
    /// When a length is outside the format (`Entry::LEN_MIN..=LEN_MAX`, `1..=EVENT_LEN_MAX`), or
    /// the group grows beyond [`GroupFrames::LEN_MAX`]: both are checked where batches are
    /// admitted.
    pub fn push(&mut self, entry: &[u8], event: &[u8]) {
        assert!(!event.is_empty(), "an event has at least one byte");
        self.push_frame(entry, State::Present, event);
    }

    /// Adds the next entry, whose event was erased where it comes from.
    ///
    /// # Panics
    ///
    /// As [`GroupFrames::push`].
    pub fn push_erased(&mut self, entry: &[u8]) {
        self.push_frame(entry, State::Erased, &[]);
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes on disk, at most [`GroupFrames::LEN_MAX`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The index of the first entry.
    #[must_use]
    pub fn first(&self) -> Index {
        self.first
    }

    #[expect(clippy::expect_used, reason = "lengths are asserted first")]
    fn push_frame(&mut self, entry: &[u8], state: State, event: &[u8]) {
        assert!((Entry::LEN_MIN..=Entry::LEN_MAX).contains(&entry.len()), "length of the entry");
        assert!(event.len() <= Entry::EVENT_LEN_MAX, "length of the event");
        let start = self.bytes.len();
        let frame_len = HEADER_LEN + entry.len() + event.len();
        assert!(start + frame_len <= Self::LEN_MAX, "group over its limit");
        let fits = "bounded by the assertions above";
        let entry_len = u16::try_from(entry.len()).expect(fits);
        let event_len = u16::try_from(event.len()).expect(fits);
        let group = u32::try_from(self.starts.len()).expect(fits);
        let head = u64::from(entry_len) << 48 | u64::from(event_len) << 32 | u64::from(group);
        let head = head.to_be_bytes();

        self.starts.push(u32::try_from(start).expect(fits));
        self.bytes.reserve(frame_len);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(&entry_checksum(self.salt, &head, entry).to_be_bytes());
        self.bytes.push(state as u8);
        self.bytes.extend_from_slice(&event_checksum(self.salt, state as u8, event).to_be_bytes());
        self.bytes.extend_from_slice(entry);
        self.bytes.extend_from_slice(event);
    }
}

/// Whether an event's bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Present = 1,
    Erased = 2,
}

/// Which checksums a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    All,
    /// Only the entry's: for those who do not look at the event.
    Entry,
}

/// The part of a frame before the entry; lengths and state are in range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    entry_len: u16,
    event_len: u16,
    group: u32,
    entry_crc: u32,
    state: State,
    event_crc: u32,
}

/// A frame whose checksums hold, borrowed from what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Entries of the same group before this one.
    pub(crate) group: u32,
    pub(crate) entry: &'a [u8],
    /// The bytes at the event's place; zeros when erased.
    pub(crate) event_area: &'a [u8],
    erased: bool,
}

impl FrameHeader {
    /// Reads a header; whether it is one that was written shows only with the entry.
    #[inline]
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Fault> {
        let [e0, e1, v0, v1, g0, g1, g2, g3, c0, c1, c2, c3, state, d0, d1, d2, d3] = *bytes;
        let (entry_len, event_len) = (u16::from_be_bytes([e0, e1]), u16::from_be_bytes([v0, v1]));
        let entry_fits = (Entry::LEN_MIN..=Entry::LEN_MAX).contains(&usize::from(entry_len));
        if !entry_fits || usize::from(event_len) > Entry::EVENT_LEN_MAX {
            return Err(Fault::Lengths { entry_bytes: entry_len, event_bytes: event_len });
        }
        let state = match state {
            1 => State::Present,
            2 => State::Erased,
            found => return Err(Fault::State { found }),
        };
        Ok(Self {
            entry_len,
            event_len,
            group: u32::from_be_bytes([g0, g1, g2, g3]),
            entry_crc: u32::from_be_bytes([c0, c1, c2, c3]),
            state,
            event_crc: u32::from_be_bytes([d0, d1, d2, d3]),
        })
    }

    /// Length of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        HEADER_LEN + usize::from(self.entry_len) + usize::from(self.event_len)
    }
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes`, and returns its length too.
    #[inline]
    pub(crate) fn parse(
        bytes: &'a [u8],
        salt: Salt,
        verify: Verify,
    ) -> Result<(Self, usize), Fault> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Fault::Truncated)?;
        let header = FrameHeader::parse(head)?;
        let (entry, rest) =
            rest.split_at_checked(usize::from(header.entry_len)).ok_or(Fault::Truncated)?;
        let event_area = rest.get(..usize::from(header.event_len)).ok_or(Fault::Truncated)?;

        let (covered, _) = head.split_first_chunk::<8>().ok_or(Fault::Truncated)?;
        let computed = entry_checksum(salt, covered, entry);
        if computed != header.entry_crc {
            return Err(Fault::EntryChecksum { computed, stored: header.entry_crc });
        }
        if verify == Verify::All {
            let computed = event_checksum(salt, header.state as u8, event_area);
            if computed != header.event_crc {
                return Err(Fault::EventChecksum { computed, stored: header.event_crc });
            }
        }
        let erased = header.state == State::Erased;
        Ok((Self { group: header.group, entry, event_area, erased }, header.frame_len()))
    }

    /// The event; `None` when it was erased.
    pub(crate) fn event(&self) -> Option<&'a [u8]> {
        (!self.erased).then_some(self.event_area)
    }

    /// The entry's own index.
    pub(crate) fn index(&self) -> Index {
        // Byte 0 is the version; an entry has at least LEN_MIN bytes.
        let index = self.entry.get(1..9).and_then(|bytes| bytes.try_into().ok());
        Index(index.map_or(u64::MAX, u64::from_be_bytes))
    }

    /// The index at which the frame's group starts.
    pub(crate) fn group_first(&self) -> Index {
        Index(self.index().0.saturating_sub(u64::from(self.group)))
    }
}

fn entry_checksum(salt: Salt, head: &[u8; 8], entry: &[u8]) -> u32 {
    crc32c_append(crc32c_append(salt.0, head), entry)
}

fn event_checksum(salt: Salt, state: u8, event: &[u8]) -> u32 {
    crc32c_append(crc32c_append(salt.0, &[state]), event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(7);

    fn entry(index: u64) -> Vec<u8> {
        let mut bytes = vec![1; Entry::LEN_MIN + 4];
        bytes[1..9].copy_from_slice(&index.to_be_bytes());
        bytes
    }

    fn group() -> GroupFrames {
        GroupFrames { first: Index(40), salt: SALT, bytes: Vec::new(), starts: Vec::new() }
    }

    #[test]
    fn frame_reads_back_as_written() {
        let mut group = group();
        group.push(&entry(40), b"one");
        group.push(&entry(41), b"two!");
        assert_eq!(group.len(), 2);
        let second = group.starts[1] as usize;
        let (frame, length) = Frame::parse(&group.bytes[second..], SALT, Verify::All).unwrap();
        assert_eq!(length, group.bytes() - second);
        assert_eq!((frame.entry, frame.event()), (&entry(41)[..], Some(&b"two!"[..])));
        assert_eq!((frame.group, frame.index(), frame.group_first()), (1, Index(41), Index(40)));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let mut group = group();
        group.push(&entry(40), b"event");
        for at in 0..group.bytes.len() {
            for bit in 0..8 {
                let mut bytes = group.bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(Frame::parse(&bytes, SALT, Verify::All).is_err(), "byte {at} bit {bit}");
            }
            assert!(Frame::parse(&group.bytes[..at], SALT, Verify::All).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn frame_of_another_salt_is_refused() {
        let mut group = group();
        group.push(&entry(40), b"event");
        let refused = Frame::parse(&group.bytes, Salt(8), Verify::Entry);
        assert!(matches!(refused, Err(Fault::EntryChecksum { .. })));
    }

    #[test]
    fn erased_event_leaves_the_frame_valid_and_is_not_served() {
        let mut group = group();
        group.push_frame(&entry(40), State::Erased, &[0; 5]);
        let (frame, _) = Frame::parse(&group.bytes, SALT, Verify::All).unwrap();
        assert_eq!(frame.event(), None);
    }

    #[test]
    fn zeros_are_not_a_frame() {
        let refused = Frame::parse(&[0; 64], Salt(0), Verify::All);
        assert!(matches!(refused, Err(Fault::Lengths { entry_bytes: 0, event_bytes: 0 })));
    }
}
