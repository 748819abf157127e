//! The segment: one append-only file of frames, `log/<index of its first entry, 20 digits>.seg`.
//!
//! Header and frames are those of [`access_ledger_proto::segment`].
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

use access_ledger_proto::{
    hash::Digest,
    position::Index,
    segment::{HEADER_LEN, SegmentHeader, file_name},
};
use crc32c::crc32c;

use super::file::{StoredFile, io_error};
use crate::{
    error::{Fault, StorageError},
    os::{self, Access, Disk},
};

const MAGIC_END: [u8; 8] = *b"ALEDGEND";

/// The footer's part after the offsets.
const TRAILER_LEN: usize = 8 + 4 + 4 + 4;

/// One offset in the footer.
const SLOT_LEN: usize = 4;

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
        let header = SegmentHeader::parse(&bytes, origin).map_err(Fault::from).and_then(|header| {
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
    pub(crate) fn damage(
        &self,
        offset: u64,
        index: Index,
        fault: impl Into<Fault>,
    ) -> StorageError {
        StorageError::Damage { segment: self.first(), offset, index, fault: fault.into() }
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
    folder.join(file_name(first))
}

/// The length of the segment that starts at `first`, in bytes.
pub(crate) fn length(disk: &dyn Disk, folder: &Path, first: Index) -> Result<u64, StorageError> {
    StoredFile::open(disk, &path(folder, first), Access::Read)?.length()
}

#[cfg(test)]
mod tests {

    use super::*;

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
}
