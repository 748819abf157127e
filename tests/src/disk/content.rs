//! What a file holds: what a process sees, what the disk has, and the changes between the two.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

#[derive(Default)]
pub(super) struct Content {
    /// What a process sees.
    pub(super) bytes: Vec<u8>,
    /// What the disk holds.
    pub(super) synced: Vec<u8>,
    /// Changes not synced yet, in order.
    pub(super) pending: Vec<Change>,
}

pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Content {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        self.pending.push(change);
    }
}

impl Change {
    /// The length that the file has at least afterwards.
    pub(super) fn end(&self) -> usize {
        match self {
            Self::Length(length) => *length,
            Self::Write { offset, bytes } => offset + bytes.len(),
        }
    }

    /// The first half of a write.
    pub(super) fn half(self) -> Option<Self> {
        match self {
            Self::Length(_) => None,
            Self::Write { offset, mut bytes } => {
                bytes.truncate(bytes.len() / 2);
                Some(Self::Write { offset, bytes })
            }
        }
    }
}

impl Change {
    pub(super) fn apply(&self, target: &mut Vec<u8>) {
        match self {
            Self::Length(length) => target.resize(*length, 0),
            Self::Write { offset, bytes } => write_into(target, *offset, bytes),
        }
    }

    /// Applies what a disk that loses power may have got to: nothing, all, or some sectors.
    pub(super) fn apply_some(&self, target: &mut Vec<u8>, random: &mut ChaCha8Rng) {
        match (self, random.random_range(0..4)) {
            (_, 0) => {}
            (_, 1) | (Self::Length(_), _) => self.apply(target),
            (Self::Write { offset, bytes }, some) => {
                if some == 2 {
                    // The length is there, whatever became of the content.
                    target.resize(target.len().max(offset + bytes.len()), 0);
                }
                let mut done = 0;
                while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                    let sector_left = SECTOR_LEN - (offset + done) % SECTOR_LEN;
                    let length = rest.len().min(sector_left);
                    if random.random_bool(0.5) {
                        write_into(target, offset + done, rest.get(..length).unwrap_or_default());
                    }
                    done += length;
                }
            }
        }
    }
}

fn write_into(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    if let Some(place) = target.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// What a disk writes at once.
const SECTOR_LEN: usize = 512;
