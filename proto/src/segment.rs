//! How the log lies on disk, as pure code: the server writes it, and whoever holds a copy of a data
//! folder reads it without the server.
//!
//! A segment is one append-only file, `log/<index of its first entry, 20 digits>.seg`: a header,
//! then frames without gaps. The newest segment ends in zeros that were written ahead, or where the
//! file ends; a full one ends with a footer, by which the server finds frames and which a reader
//! from the front does not need.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 8 | magic `ALEDGSEG` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 32 | SHA-256 of the ledger's origin |
//! | 44 | 8 | index of the first entry |
//! | 52 | 4 | salt of the frames' checksums |
//! | 56 | 4 | zeros |
//! | 60 | 4 | CRC-32C of the 60 bytes before |
//!
//! | offset | bytes | frame: one entry and its event |
//! |---|---|---|
//! | 0 | 2 | length of the entry |
//! | 2 | 2 | length of the event |
//! | 4 | 4 | how many entries of the same group lie before this one |
//! | 8 | 4 | CRC-32C of bytes 0 to 7 and the entry |
//! | 12 | 1 | state: 1 event present, 2 event erased (its bytes are zeros) |
//! | 13 | 4 | CRC-32C of the state and the event |
//! | 17 | | entry, event |
//!
//! An event is erased in two steps, so that the frame is valid whenever a machine stops. The state
//! goes first, one byte, durably; from then on nobody is given what stands at the event's place,
//! and the checksum is not looked at. Zeros and their checksum follow ([`Frame::is_wiped`]).
//!
//! A frame's checksums start from the ledger's salt instead of zero. The salt is a secret of the
//! data folder, so no source can submit an event whose bytes pass for a frame when recovery
//! searches behind a torn one. The event has its own checksum, so that erasing it leaves the entry
//! untouched. Checksums find accidents; what convicts is the chain.

use crc32c::{crc32c, crc32c_append};

use crate::{entry::Entry, error::SegmentError, hash::Digest, position::Index};

/// What the checksums start from, so that only this ledger's own writes look like frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub u32);

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// SHA-256 of the ledger's origin.
    pub origin: Digest,
    /// Index of the first entry.
    pub first: Index,
    /// What the checksums of its frames start from.
    pub salt: Salt,
}

impl SegmentHeader {
    /// The header's [`HEADER_LEN`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(self.origin.as_ref());
        bytes.extend_from_slice(&self.first.0.to_be_bytes());
        bytes.extend_from_slice(&self.salt.0.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c(&bytes).to_be_bytes());
        bytes
    }

    /// Reads a header, and checks that it is one of the ledger with this origin digest.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Header`], [`SegmentError::Version`], [`SegmentError::Origin`].
    pub fn parse(bytes: &[u8], origin: Digest) -> Result<Self, SegmentError> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(SegmentError::Header)?;
        if bytes.len() != HEADER_LEN || crc32c(content) != u32::from_be_bytes(*crc) {
            return Err(SegmentError::Header);
        }
        let (magic, rest) = content.split_first_chunk::<8>().ok_or(SegmentError::Header)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(SegmentError::Header)?;
        let (found, rest) = rest.split_first_chunk::<32>().ok_or(SegmentError::Header)?;
        let (first, rest) = rest.split_first_chunk::<8>().ok_or(SegmentError::Header)?;
        let (salt, _) = rest.split_first_chunk::<4>().ok_or(SegmentError::Header)?;
        if *magic != MAGIC {
            return Err(SegmentError::Header);
        }
        let version = u32::from_be_bytes(*version);
        if version != VERSION {
            return Err(SegmentError::Version { found: version, known: VERSION });
        }
        let found = Digest::from_bytes(*found);
        if found != origin {
            return Err(SegmentError::Origin { found, wanted: origin });
        }
        let first = Index(u64::from_be_bytes(*first));
        Ok(Self { origin, first, salt: Salt(u32::from_be_bytes(*salt)) })
    }
}

/// Whether an event's bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// They are.
    Present = 1,
    /// They were erased: zeros, or nothing, is left.
    Erased = 2,
}

/// Which checksums a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The entry's and the event's.
    All,
    /// Only the entry's: for those who do not look at the event.
    Entry,
}

/// The part of a frame before the entry; lengths and state are in range.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    entry_len: u16,
    event_len: u16,
    group: u32,
    entry_crc: u32,
    state: State,
    event_crc: u32,
}

/// A frame whose checksums hold, borrowed from what was read.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Entries of the same group before this one.
    pub group: u32,
    /// The entry's bytes.
    pub entry: &'a [u8],
    /// The bytes at the event's place; zeros when erased.
    pub event_area: &'a [u8],
    erased: bool,
    event_crc: u32,
}

impl FrameHeader {
    /// Reads a header; whether it is one that was written shows only with the entry.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Lengths`], [`SegmentError::State`].
    #[inline]
    pub fn parse(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self, SegmentError> {
        let [e0, e1, v0, v1, g0, g1, g2, g3, c0, c1, c2, c3, state, d0, d1, d2, d3] = *bytes;
        let (entry_len, event_len) = (u16::from_be_bytes([e0, e1]), u16::from_be_bytes([v0, v1]));
        let entry_fits = (Entry::LEN_MIN..=Entry::LEN_MAX).contains(&usize::from(entry_len));
        if !entry_fits || usize::from(event_len) > Entry::EVENT_LEN_MAX {
            return Err(SegmentError::Lengths { entry_bytes: entry_len, event_bytes: event_len });
        }
        let state = match state {
            1 => State::Present,
            2 => State::Erased,
            found => return Err(SegmentError::State { found }),
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
    #[must_use]
    pub fn frame_len(&self) -> usize {
        FRAME_HEADER_LEN + usize::from(self.entry_len) + usize::from(self.event_len)
    }
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes`, and returns its length too.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Truncated`], [`SegmentError::Lengths`], [`SegmentError::State`],
    /// [`SegmentError::EntryChecksum`], [`SegmentError::EventChecksum`].
    #[inline]
    pub fn parse(
        bytes: &'a [u8],
        salt: Salt,
        verify: Verify,
    ) -> Result<(Self, usize), SegmentError> {
        let (head, rest) =
            bytes.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(SegmentError::Truncated)?;
        let header = FrameHeader::parse(head)?;
        let (entry, rest) =
            rest.split_at_checked(usize::from(header.entry_len)).ok_or(SegmentError::Truncated)?;
        let event_area =
            rest.get(..usize::from(header.event_len)).ok_or(SegmentError::Truncated)?;

        let (covered, _) = head.split_first_chunk::<8>().ok_or(SegmentError::Truncated)?;
        let computed = entry_checksum(salt, covered, entry);
        if computed != header.entry_crc {
            return Err(SegmentError::EntryChecksum { computed, stored: header.entry_crc });
        }
        if verify == Verify::All && header.state == State::Present {
            let computed = event_checksum(salt, header.state as u8, event_area);
            if computed != header.event_crc {
                return Err(SegmentError::EventChecksum { computed, stored: header.event_crc });
            }
        }
        let erased = header.state == State::Erased;
        let (group, event_crc) = (header.group, header.event_crc);
        Ok((Self { group, entry, event_area, erased, event_crc }, header.frame_len()))
    }

    /// The event; `None` when it was erased.
    #[must_use]
    pub fn event(&self) -> Option<&'a [u8]> {
        (!self.erased).then_some(self.event_area)
    }

    /// Whether the bytes at the event's place are those that were written there: for who reads
    /// with [`Verify::Entry`] and looks at the event all the same.
    #[must_use]
    pub fn event_holds(&self, salt: Salt) -> bool {
        let state = if self.erased { State::Erased } else { State::Present };
        event_checksum(salt, state as u8, self.event_area) == self.event_crc
    }

    /// Whether nothing is left of an erased event but zeros under their checksum.
    #[must_use]
    pub fn is_wiped(&self, salt: Salt) -> bool {
        let is_zero = self.event_area.iter().all(|&byte| byte == 0);
        self.erased && is_zero && self.event_crc == wiped_checksum(salt, self.event_area)
    }

    /// Whether the event's checksum is that of the zeros that take an erased event's place: for who
    /// looks at a frame of which the state or the event may have rotted.
    #[must_use]
    pub fn has_wiped_checksum(&self, salt: Salt) -> bool {
        self.event_crc == wiped_checksum(salt, &vec![0; self.event_area.len()])
    }

    /// What erases the event: bytes, and where in the frame they go. The first write must be
    /// durable before the others begin.
    #[must_use]
    pub fn wipe(&self, salt: Salt) -> (Write, [Write; 2]) {
        let zeros = vec![0; self.event_area.len()];
        let checksum = wiped_checksum(salt, &zeros).to_be_bytes().to_vec();
        let mark = Write { at: STATE_AT, bytes: vec![State::Erased as u8] };
        let zeros = Write { at: FRAME_HEADER_LEN + self.entry.len(), bytes: zeros };
        (mark, [zeros, Write { at: STATE_AT + 1, bytes: checksum }])
    }

    /// The entry's own index.
    #[must_use]
    pub fn index(&self) -> Index {
        // Byte 0 is the version; an entry has at least LEN_MIN bytes.
        let index = self.entry.get(1..9).and_then(|bytes| bytes.try_into().ok());
        Index(index.map_or(u64::MAX, u64::from_be_bytes))
    }

    /// The index at which the frame's group starts.
    #[must_use]
    pub fn group_first(&self) -> Index {
        Index(self.index().0.saturating_sub(u64::from(self.group)))
    }
}

/// Bytes that go somewhere in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Offset in the frame.
    pub at: usize,
    /// What goes there.
    pub bytes: Vec<u8>,
}

/// Appends the frame of an entry and its event to `out`; `group` is how many entries of the same
/// group lie before this one.
///
/// # Panics
///
/// When a length is outside the format (`Entry::LEN_MIN..=LEN_MAX`, at most `EVENT_LEN_MAX`), which
/// is checked where batches are admitted.
#[expect(clippy::expect_used, reason = "lengths are asserted first")]
pub fn encode_frame(
    out: &mut Vec<u8>,
    salt: Salt,
    group: u32,
    entry: &[u8],
    (state, event): (State, &[u8]),
) {
    assert!((Entry::LEN_MIN..=Entry::LEN_MAX).contains(&entry.len()), "length of the entry");
    assert!(event.len() <= Entry::EVENT_LEN_MAX, "length of the event");
    let fits = "bounded by the assertions above";
    let entry_len = u16::try_from(entry.len()).expect(fits);
    let event_len = u16::try_from(event.len()).expect(fits);
    let head = u64::from(entry_len) << 48 | u64::from(event_len) << 32 | u64::from(group);
    let head = head.to_be_bytes();

    out.reserve(FRAME_HEADER_LEN + entry.len() + event.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(&entry_checksum(salt, &head, entry).to_be_bytes());
    out.push(state as u8);
    out.extend_from_slice(&event_checksum(salt, state as u8, event).to_be_bytes());
    out.extend_from_slice(entry);
    out.extend_from_slice(event);
}

fn entry_checksum(salt: Salt, head: &[u8; 8], entry: &[u8]) -> u32 {
    crc32c_append(crc32c_append(salt.0, head), entry)
}

fn event_checksum(salt: Salt, state: u8, event: &[u8]) -> u32 {
    crc32c_append(crc32c_append(salt.0, &[state]), event)
}

fn wiped_checksum(salt: Salt, zeros: &[u8]) -> u32 {
    event_checksum(salt, State::Erased as u8, zeros)
}

/// The name of the file of the segment that starts at `first`, in the folder `log`.
#[must_use]
pub fn file_name(first: Index) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The first index in a segment's file name; `None` for any other file.
#[must_use]
pub fn first_of_name(name: &str) -> Option<Index> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok().map(Index) } else { None }
}

/// Length of a segment's header, and offset of its first frame.
pub const HEADER_LEN: usize = 64;

/// Bytes of a frame before the entry.
pub const FRAME_HEADER_LEN: usize = 17;

/// Where in a frame its state stands; the event's checksum follows.
const STATE_AT: usize = 12;

/// Shortest frame: an erased event of which not even zeros are kept.
pub const FRAME_LEN_MIN: usize = FRAME_HEADER_LEN + Entry::LEN_MIN;

/// Longest frame.
pub const FRAME_LEN_MAX: usize = FRAME_HEADER_LEN + Entry::LEN_MAX + Entry::EVENT_LEN_MAX;

/// Format version in the header.
const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"ALEDGSEG";

const SUFFIX: &str = ".seg";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    const SALT: Salt = Salt(7);

    fn entry(index: u64) -> Vec<u8> {
        let mut bytes = vec![1; Entry::LEN_MIN + 4];
        bytes[1..9].copy_from_slice(&index.to_be_bytes());
        bytes
    }

    fn frame(index: u64, group: u32, event: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, SALT, group, &entry(index), (State::Present, event));
        bytes
    }

    #[test]
    fn frame_reads_back_as_written() {
        let bytes = [frame(41, 1, b"two!"), frame(42, 2, b"three")].concat();
        let (frame, length) = Frame::parse(&bytes, SALT, Verify::All).unwrap();
        assert_eq!(length, FRAME_HEADER_LEN + entry(41).len() + 4);
        assert_eq!((frame.entry, frame.event()), (&entry(41)[..], Some(&b"two!"[..])));
        assert_eq!((frame.group, frame.index(), frame.group_first()), (1, Index(41), Index(40)));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let frame = frame(40, 0, b"event");
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut bytes = frame.clone();
                bytes[at] ^= 1 << bit;
                assert!(Frame::parse(&bytes, SALT, Verify::All).is_err(), "byte {at} bit {bit}");
            }
            assert!(Frame::parse(&frame[..at], SALT, Verify::All).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn frame_of_another_salt_is_refused() {
        let frame = frame(40, 0, b"event");
        let refused = Frame::parse(&frame, Salt(8), Verify::Entry);
        assert!(matches!(refused, Err(SegmentError::EntryChecksum { .. })));
    }

    #[test]
    fn erased_event_leaves_the_frame_valid_and_is_not_served() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, SALT, 0, &entry(40), (State::Erased, &[0; 5]));
        let (frame, _) = Frame::parse(&bytes, SALT, Verify::All).unwrap();
        assert_eq!((frame.event(), frame.is_wiped(SALT)), (None, true));
    }

    #[test]
    fn an_erasure_that_stops_anywhere_leaves_a_valid_frame() {
        let mut bytes = frame(40, 0, b"personal");
        let apply = |bytes: &mut Vec<u8>, write: &Write, length: usize| {
            bytes[write.at..][..length].copy_from_slice(&write.bytes[..length]);
        };
        let parse = |bytes: &[u8]| {
            let (frame, _) = Frame::parse(bytes, SALT, Verify::All).unwrap();
            (frame.event().is_some(), frame.is_wiped(SALT))
        };
        let (mark, rest) = Frame::parse(&bytes, SALT, Verify::All).unwrap().0.wipe(SALT);
        assert_eq!((mark.bytes.len(), parse(&bytes)), (1, (true, false)));
        apply(&mut bytes, &mark, 1);
        assert_eq!(parse(&bytes), (false, false));
        let marked = bytes.clone();
        for order in [[0, 1], [1, 0]] {
            bytes.clone_from(&marked);
            for write in order.map(|at| &rest[at]) {
                for length in 0..write.bytes.len() {
                    apply(&mut bytes, write, length);
                    assert!(!parse(&bytes).0);
                }
                apply(&mut bytes, write, write.bytes.len());
            }
            assert_eq!(parse(&bytes), (false, true));
            assert!(!bytes.windows(4).any(|some| some == b"pers"));
        }
    }

    #[test]
    fn zeros_are_not_a_frame() {
        let refused = Frame::parse(&[0; 64], Salt(0), Verify::All);
        assert!(matches!(refused, Err(SegmentError::Lengths { entry_bytes: 0, event_bytes: 0 })));
    }

    #[test]
    fn file_names_read_back_and_others_are_none() {
        assert_eq!(first_of_name(&file_name(Index(258))), Some(Index(258)));
        for other in ["258.seg", "00000000000000000258", "0000000000000000025x.seg", ".seg"] {
            assert_eq!(first_of_name(other), None, "{other}");
        }
    }

    fn header() -> SegmentHeader {
        SegmentHeader { origin: sha256(b"origin"), first: Index(258), salt: Salt(0x0102_0304) }
    }

    #[test]
    fn header_reads_back_as_written() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(SegmentHeader::parse(&bytes, header().origin), Ok(header()));
        let refused = SegmentHeader::parse(&bytes, Digest::ZERO);
        assert!(matches!(refused, Err(SegmentError::Origin { .. })));
    }

    #[test]
    fn header_with_any_flipped_bit_or_cut_is_refused() {
        let bytes = header().encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(SegmentHeader::parse(&flipped, header().origin).is_err(), "byte {at}");
            assert!(SegmentHeader::parse(&bytes[..at], header().origin).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn header_of_another_version_is_named() {
        let mut bytes = header().encode();
        bytes[11] = 2;
        let crc = crc32c(&bytes[..60]).to_be_bytes();
        bytes[60..].copy_from_slice(&crc);
        let refused = SegmentHeader::parse(&bytes, header().origin);
        assert_eq!(refused, Err(SegmentError::Version { found: 2, known: 1 }));
    }
}
