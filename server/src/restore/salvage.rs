//! What is left of a damaged segment: frames that hold, wherever they lie between damage.
//!
//! Most entries come back from elsewhere. What is taken from here is what only the owner of the
//! files knows: which events were erased, and entries that nobody else holds yet. None of it is
//! believed before the log that it becomes part of was verified.

use std::{collections::BTreeMap, ops::Range, path::Path};

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    entry::Entry,
    hash::sha256,
    position::{Index, count_of},
    segment::{FRAME_LEN_MAX, Frame, HEADER_LEN, Salt, Verify},
};
use bytes::Bytes;

use crate::{
    error::StorageError,
    os::{Access, Disk},
    storage::{file::StoredFile, segment},
};

/// The frames of one file that hold.
pub(super) struct Salvage {
    file: Option<StoredFile>,
    salt: Salt,
    frames: BTreeMap<Index, Left>,
}

/// A frame whose entry holds.
#[derive(Clone, Copy, Debug)]
struct Left {
    offset: u64,
    event: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Present,
    Erased,
    Damaged,
}

impl Salvage {
    /// Searches the segment that starts at `range.start` for entries of this range; a file that is
    /// not there holds none. Without a salt nothing can be told from garbage.
    ///
    /// # Errors
    ///
    /// None: what cannot be read is not left.
    pub(super) fn search(
        disk: &dyn Disk,
        folder: &Path,
        range: &Range<Index>,
        salt: Option<Salt>,
    ) -> Self {
        let path = segment::path(folder, range.start);
        let file = StoredFile::open(disk, &path, Access::Read).ok();
        let mut frames = BTreeMap::new();
        if let (Some(file), Some(salt)) = (&file, salt) {
            let (mut at, end) = (HEADER_LEN as u64, file.length().unwrap_or_default());
            while at < end {
                at += search_window(file, at, salt, |offset, frame| {
                    if range.contains(&frame.index()) {
                        let event = state_of(&frame, salt);
                        frames.insert(frame.index(), Left { offset, event });
                    }
                });
            }
        }
        Self { file, salt: salt.unwrap_or(Salt(0)), frames }
    }

    /// Whether the event of this entry was erased here.
    pub(super) fn is_erased(&self, index: Index) -> bool {
        self.frames.get(&index).is_some_and(|left| left.event == Event::Erased)
    }

    /// The record at this index, if it is left as a whole; erased events count as that.
    pub(super) fn record(&self, index: Index) -> Option<Record> {
        let left = self.frames.get(&index).filter(|left| left.event != Event::Damaged)?;
        let bytes = read_left(self.file.as_ref()?, left.offset, FRAME_LEN_MAX);
        let (frame, _) = Frame::parse(&bytes, self.salt, Verify::Entry).ok()?;
        let event = (left.event == Event::Present).then_some(frame.event_area);
        let digest = Entry::parse(frame.entry).ok()?.event_digest;
        let is_whole = event.is_none_or(|event| sha256(event) == digest);
        is_whole.then(|| Record {
            entry: Bytes::copy_from_slice(frame.entry),
            event: event.map(Bytes::copy_from_slice),
        })
    }
}

/// Finds the frames that start in the next [`WINDOW_LEN`] bytes; how far that went.
fn search_window(
    file: &StoredFile,
    at: u64,
    salt: Salt,
    mut found: impl FnMut(u64, Frame<'_>),
) -> u64 {
    let bytes = read_left(file, at, WINDOW_LEN + FRAME_LEN_MAX);
    let mut start = 0;
    while start < WINDOW_LEN {
        let rest = bytes.get(start..).unwrap_or_default();
        start += match Frame::parse(rest, salt, Verify::Entry) {
            Ok((frame, length)) => {
                found(at + count_of(start), frame);
                length
            }
            Err(_) => 1,
        };
    }
    count_of(start)
}

/// An event was erased where the state or the checksum says so: either may have rotted. Zeros alone
/// say nothing, for they also stand for what the medium does not give back.
fn state_of(frame: &Frame<'_>, salt: Salt) -> Event {
    match frame.event() {
        None => Event::Erased,
        Some(_) if frame.has_wiped_checksum(salt) => Event::Erased,
        Some(event) if frame.event_holds(salt) && !event.is_empty() => Event::Present,
        Some(_) => Event::Damaged,
    }
}

/// Reads up to `length` bytes; zeros stand for what the medium does not give back.
pub(super) fn read_left(file: &StoredFile, at: u64, length: usize) -> Vec<u8> {
    if let Ok(bytes) = file.read(at, length) {
        return bytes;
    }
    let in_file = file.length().unwrap_or_default().saturating_sub(at);
    let mut bytes = vec![0; usize::try_from(in_file).unwrap_or(usize::MAX).min(length)];
    for (offset, block) in (at..).step_by(BLOCK_LEN).zip(bytes.chunks_mut(BLOCK_LEN)) {
        if file.read_at(block, offset).is_err() {
            block.fill(0);
        }
    }
    bytes
}

/// Copies what the medium gives back of a file, durably; zeros stand for the rest.
pub(super) fn copy_left(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    let source = StoredFile::open(disk, from, Access::Read)?;
    let target = StoredFile::create(disk, to)?;
    let (mut at, end) = (0, source.length()?);
    while at < end {
        let bytes = read_left(&source, at, WINDOW_LEN);
        target.write_at(&bytes, at)?;
        at += count_of(bytes.len().max(1));
    }
    target.sync_data()
}

/// Bytes that are searched at once.
const WINDOW_LEN: usize = 256 << 10;

/// What a medium loses together.
const BLOCK_LEN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use access_ledger_proto::{
        entry::Seal,
        segment::{SegmentHeader, State, encode_frame},
    };
    use access_ledger_proto::{hash::Digest, note::KeyId, source::Name};

    use super::*;
    use crate::{folder::real_disk, os};

    const SALT: Salt = Salt(9);

    fn entry(index: u64, event: &[u8]) -> Vec<u8> {
        let seal = Some(Seal { count: 1, key_id: KeyId([0; 4]), signature: [0; 64] });
        let source = Name::parse(b"s").unwrap();
        let (prev, event_digest) = (Digest::ZERO, sha256(event));
        let (index, source_seq) = (Index(index), index + 1);
        Entry { index, recorded_at: 1, prev, event_digest, source_seq, source, seal }.encode()
    }

    /// Frames of entries 5 to 8; the event of 7 was erased. Where each starts.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader { origin: Digest::ZERO, first: Index(5), salt: SALT };
        let (mut bytes, mut starts) = (header.encode(), Vec::new());
        for index in 5..9 {
            starts.push(bytes.len());
            let event = [u8::try_from(index).unwrap(); 30];
            let erased = (State::Erased, &[0; 30][..]);
            let state = if index == 7 { erased } else { (State::Present, &event[..]) };
            encode_frame(&mut bytes, SALT, 0, &entry(index, &event), state);
        }
        (bytes, starts)
    }

    fn search(bytes: &[u8]) -> Salvage {
        let folder = tempfile::tempdir().unwrap();
        let disk = real_disk();
        os::replace(&*disk, &segment::path(folder.path(), Index(5)), bytes).unwrap();
        Salvage::search(&*disk, folder.path(), &(Index(5)..Index(9)), Some(SALT))
    }

    fn found(salvage: &Salvage) -> Vec<u64> {
        (0..12).filter(|&index| salvage.record(Index(index)).is_some()).collect()
    }

    #[test]
    fn every_frame_but_the_damaged_one_is_left() {
        let (bytes, starts) = segment();
        assert_eq!(found(&search(&bytes)), [5, 6, 7, 8]);
        for (at, &start) in starts.iter().enumerate() {
            let mut rotten = bytes.clone();
            rotten[start + 20] ^= 1;
            let wanted: Vec<u64> = (5..9).filter(|&index| index != 5 + at as u64).collect();
            assert_eq!(found(&search(&rotten)), wanted);
        }
        let mut headless = bytes;
        headless[..HEADER_LEN].fill(7);
        assert_eq!(found(&search(&headless)), [5, 6, 7, 8]);
    }

    #[test]
    fn an_erased_event_stays_erased_whatever_its_state_has_rotted_to() {
        let (bytes, starts) = segment();
        assert!(search(&bytes).is_erased(Index(7)) && !search(&bytes).is_erased(Index(6)));
        let mut rotten = bytes.clone();
        rotten[starts[2] + 12] = State::Present as u8;
        assert!(search(&rotten).is_erased(Index(7)));
        // An event that is damaged is neither there nor erased.
        let mut rotten = bytes;
        rotten[starts[3] - 40] ^= 1;
        rotten[starts[1] + 130] ^= 1;
        let salvage = search(&rotten);
        assert!(!salvage.is_erased(Index(6)) && salvage.record(Index(6)).is_none());
    }

    #[test]
    fn zeros_in_the_place_of_a_block_that_was_lost_are_no_erasure() {
        let (bytes, starts) = segment();
        for (index, end) in [(5, starts[1]), (6, starts[2]), (8, bytes.len())] {
            let mut lost = bytes.clone();
            lost[end - 30..end].fill(0);
            let salvage = search(&lost);
            assert!(!salvage.is_erased(Index(index)), "{index}");
            assert!(salvage.record(Index(index)).is_none(), "{index}");
        }
    }
}
