//! The segment: one append-only file of frames, `log/<index of its first entry, 20 digits>.seg`.
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
//! Frames follow without gaps. The newest segment ends in zeros that were written ahead, or where
//! the file ends. A full one ends with a footer, by which any entry is found in two reads:
//!
//! | bytes | footer |
//! |---|---|
//! | 4 each | offset of each frame in the file |
//! | 8 | magic `ALEDGEND` |
//! | 4 | how many frames |
//! | 4 | CRC-32C of the offsets |
//! | 4 | CRC-32C of the 16 bytes before |
//!
//! A file gets its name only when its header is on disk, so a name without a valid header is
//! damage.

use std::path::{Path, PathBuf};

use access_ledger_proto::{hash::Digest, position::Index};
use crc32c::crc32c;

use super::{
    file::{StoredFile, io_error},
    frame::Salt,
};
use crate::{
    error::{Fault, StorageError},
    os::{self, Access, Disk},
};

/// Length of the header, and offset of the first frame.
pub(crate) const HEADER_LEN: usize = 64;

/// Format version in the header.
const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"ALEDGSEG";
const MAGIC_END: [u8; 8] = *b"ALEDGEND";

/// The footer's part after the offsets.
const TRAILER_LEN: usize = 8 + 4 + 4 + 4;

/// One offset in the footer.
const SLOT_LEN: usize = 4;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) origin: Digest,
    pub(crate) first: Index,
    pub(crate) salt: Salt,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
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

    /// Reads a header, and checks that it is one of this ledger.
    fn parse(bytes: &[u8], origin: Digest) -> Result<Self, Fault> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Fault::Header)?;
        if bytes.len() != HEADER_LEN || crc32c(content) != u32::from_be_bytes(*crc) {
            return Err(Fault::Header);
        }
        let (magic, rest) = content.split_first_chunk::<8>().ok_or(Fault::Header)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(Fault::Header)?;
        let (found, rest) = rest.split_first_chunk::<32>().ok_or(Fault::Header)?;
        let (first, rest) = rest.split_first_chunk::<8>().ok_or(Fault::Header)?;
        let (salt, _) = rest.split_first_chunk::<4>().ok_or(Fault::Header)?;
        if *magic != MAGIC {
            return Err(Fault::Header);
        }
        let version = u32::from_be_bytes(*version);
        if version != VERSION {
            return Err(Fault::Version { found: version, known: VERSION });
        }
        let found = Digest::from_bytes(*found);
        if found != origin {
            return Err(Fault::Origin { found, wanted: origin });
        }
        let first = Index(u64::from_be_bytes(*first));
        Ok(Self { origin, first, salt: Salt(u32::from_be_bytes(*salt)) })
    }
}

/// An open segment whose header holds.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) file: StoredFile,
    pub(crate) header: SegmentHeader,
}

impl Segment {
    /// Creates an empty segment, durably; opened for writing.
    pub(crate) fn create(
        disk: &dyn Disk,
        folder: &Path,
        header: SegmentHeader,
    ) -> Result<Self, StorageError> {
        let path = path(folder, header.first);
        os::replace(disk, &path, &header.encode()).map_err(io_error("create", &path))?;
        Ok(Self { file: StoredFile::open(disk, &path, Access::Write)?, header })
    }

    /// Opens a segment and checks its header.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Path,
        (first, origin): (Index, Digest),
        access: Access,
    ) -> Result<Self, StorageError> {
        let file = StoredFile::open(disk, &path(folder, first), access)?;
        let bytes = file.read(0, HEADER_LEN)?;
        let header = SegmentHeader::parse(&bytes, origin).and_then(|header| {
            let matches = header.first == first;
            if matches { Ok(header) } else { Err(Fault::FirstIndex { found: header.first }) }
        });
        match header {
            Ok(header) => Ok(Self { file, header }),
            Err(fault) => {
                Err(StorageError::Damage { segment: first, offset: 0, index: first, fault })
            }
        }
    }

    /// Index of the first entry.
    pub(crate) fn first(&self) -> Index {
        self.header.first
    }

    /// The error for damage in this segment.
    pub(crate) fn damage(&self, offset: u64, index: Index, fault: Fault) -> StorageError {
        StorageError::Damage { segment: self.first(), offset, index, fault }
    }
}

/// A full segment: its footer says where each frame is.
#[derive(Clone)]
pub(crate) struct FullSegment {
    pub(crate) segment: Segment,
    /// How many frames.
    pub(crate) count: u32,
    /// Where the frames end and the offsets start.
    pub(crate) frames_end: u64,
    offsets_crc: u32,
}

impl FullSegment {
    /// Reads the footer of a segment, but not its offsets.
    pub(crate) fn open(segment: Segment) -> Result<Self, StorageError> {
        let length = segment.file.length()?;
        let trailer_at = length.saturating_sub(TRAILER_LEN as u64);
        let trailer = segment.file.read(trailer_at, TRAILER_LEN)?;
        let footer = parse_trailer(&trailer).and_then(|(count, offsets_crc)| {
            let offsets_len = u64::from(count) * SLOT_LEN as u64;
            let frames_end = trailer_at.checked_sub(offsets_len).ok_or(Fault::Footer)?;
            Ok((count, frames_end, offsets_crc))
        });
        match footer {
            Ok((count, frames_end, offsets_crc)) => {
                Ok(Self { segment, count, frames_end, offsets_crc })
            }
            Err(fault) => Err(segment.damage(trailer_at, segment.first(), fault)),
        }
    }

    /// Checks that this segment holds all entries up to `next`, where the next one starts.
    pub(crate) fn check_reaches(&self, next: Index) -> Result<(), StorageError> {
        let first = self.segment.first();
        let (found, wanted) = (u64::from(self.count), next.0.saturating_sub(first.0));
        if found == wanted {
            return Ok(());
        }
        let index = first.plus(found.min(wanted));
        Err(self.segment.damage(self.frames_end, index, Fault::Count { found, wanted }))
    }

    /// Offsets of `count` frames from the `position`th of this segment on; fewer where it ends.
    pub(crate) fn offsets(&self, position: u32, count: u32) -> Result<Vec<u32>, StorageError> {
        let count = count.min(self.count.saturating_sub(position)) as usize;
        let at = self.frames_end + u64::from(position) * SLOT_LEN as u64;
        let bytes = self.segment.file.read(at, count * SLOT_LEN)?;
        let (slots, _) = bytes.as_chunks::<SLOT_LEN>();
        Ok(slots.iter().copied().map(u32::from_be_bytes).collect())
    }

    /// All offsets, checked against their checksum.
    pub(crate) fn all_offsets(&self) -> Result<Vec<u32>, StorageError> {
        let offsets = self.offsets(0, self.count)?;
        if offsets_checksum(&offsets) == self.offsets_crc {
            return Ok(offsets);
        }
        Err(self.segment.damage(self.frames_end, self.segment.first(), Fault::Footer))
    }
}

/// The footer for frames at these offsets.
pub(crate) fn encode_footer(offsets: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(offsets.len() * SLOT_LEN + TRAILER_LEN);
    for offset in offsets {
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
    let mut trailer = Vec::with_capacity(TRAILER_LEN);
    trailer.extend_from_slice(&MAGIC_END);
    // Offsets are 32 bits and frames are longer than one byte.
    trailer.extend_from_slice(&u32::try_from(offsets.len()).unwrap_or(u32::MAX).to_be_bytes());
    trailer.extend_from_slice(&crc32c(&bytes).to_be_bytes());
    trailer.extend_from_slice(&crc32c(&trailer).to_be_bytes());
    bytes.extend_from_slice(&trailer);
    bytes
}

/// The count of frames and the checksum of the offsets.
fn parse_trailer(bytes: &[u8]) -> Result<(u32, u32), Fault> {
    let bytes: &[u8; TRAILER_LEN] = bytes.try_into().map_err(|_| Fault::Footer)?;
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Fault::Footer)?;
    let (magic, rest) = content.split_first_chunk::<8>().ok_or(Fault::Footer)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(Fault::Footer)?;
    let (offsets_crc, _) = rest.split_first_chunk::<4>().ok_or(Fault::Footer)?;
    if *magic != MAGIC_END || crc32c(content) != u32::from_be_bytes(*crc) {
        return Err(Fault::Footer);
    }
    Ok((u32::from_be_bytes(*count), u32::from_be_bytes(*offsets_crc)))
}

fn offsets_checksum(offsets: &[u32]) -> u32 {
    offsets.iter().fold(0, |crc, offset| crc32c::crc32c_append(crc, &offset.to_be_bytes()))
}

/// The folder of the segments, in the data folder.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("log")
}

/// The file of the segment that starts at `first`.
pub(crate) fn path(folder: &Path, first: Index) -> PathBuf {
    folder.join(format!("{:020}{SUFFIX}", first.0))
}

/// The length of the segment that starts at `first`, in bytes.
pub(crate) fn length(disk: &dyn Disk, folder: &Path, first: Index) -> Result<u64, StorageError> {
    StoredFile::open(disk, &path(folder, first), Access::Read)?.length()
}

/// The first index in a segment's file name; `None` for any other file.
pub(crate) fn first_of_name(name: &str) -> Option<Index> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok().map(Index) } else { None }
}

const SUFFIX: &str = ".seg";

#[cfg(test)]
mod tests {
    use access_ledger_proto::hash::sha256;

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader { origin: sha256(b"origin"), first: Index(258), salt: Salt(0x0102_0304) }
    }

    #[test]
    fn header_reads_back_as_written() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(SegmentHeader::parse(&bytes, header().origin), Ok(header()));
        let refused = SegmentHeader::parse(&bytes, Digest::ZERO);
        assert!(matches!(refused, Err(Fault::Origin { .. })));
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
        assert_eq!(refused, Err(Fault::Version { found: 2, known: 1 }));
    }

    #[test]
    fn trailer_with_any_flipped_bit_is_refused() {
        let footer = encode_footer(&[64, 300]);
        let trailer = &footer[2 * SLOT_LEN..];
        assert_eq!(parse_trailer(trailer), Ok((2, offsets_checksum(&[64, 300]))));
        for at in 0..TRAILER_LEN {
            let mut flipped = trailer.to_vec();
            flipped[at] ^= 1;
            assert_eq!(parse_trailer(&flipped), Err(Fault::Footer), "byte {at}");
        }
    }

    #[test]
    fn only_twenty_digits_name_a_segment() {
        assert_eq!(first_of_name("00000000000000000258.seg"), Some(Index(258)));
        for name in ["258.seg", "00000000000000000258.seg.draft", "+0000000000000000258.seg"] {
            assert_eq!(first_of_name(name), None, "{name}");
        }
    }
}
