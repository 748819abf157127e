//! The groups written last, in memory, for those who follow the log.
//!
//! Who follows is given each record once, and soon after it was written. From the disk that costs a
//! thread's turn, a copy and two checksums a record. What is kept here is the very memory that was
//! written from, so it costs none of these.
//!
//! It is kept only while somebody follows, and forgotten as soon as any event is erased: nobody is
//! given from here what is gone from the disk. It is not for who looks for damage on the disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use access_ledger_proto::{
    position::{Index, count_of, memory_len},
    segment::{Frame, Salt, Verify},
};
use bytes::Bytes;

use super::{
    frame::GroupFrames,
    reader::{Record, Shared},
};

/// Somebody who follows the log. While there is one, the groups written last stay in memory.
pub struct Follower {
    shared: Arc<Shared>,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.newest.lock().followers += 1;
        Self { shared }
    }

    /// The records from `first` on, if the first of them is in memory; in order and without gaps.
    ///
    /// At most `entries_max`, and at most `bytes_max` bytes of frames, but at least one. Fewer than
    /// asked for does not mean the end of the log; `None` does not mean that there is none. Does
    /// not block, and does not look at the disk.
    #[must_use]
    pub fn read(&self, first: Index, limits: (usize, usize)) -> Option<Vec<Record>> {
        let pieces = self.shared.newest.lock().pieces(first, limits.1);
        Some(records(&pieces, limits)).filter(|records| !records.is_empty())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut newest = self.shared.newest.lock();
        newest.followers -= 1;
        if newest.followers == 0 {
            newest.forget();
        }
    }
}

/// What is in memory of the log's end.
#[derive(Default)]
pub(super) struct Newest(Mutex<Groups>);

#[derive(Default)]
pub(super) struct Groups {
    followers: usize,
    /// In order and without gaps.
    groups: VecDeque<Group>,
    /// Memory that all of them hold.
    bytes_held: usize,
}

struct Group {
    first: Index,
    frames: Bytes,
    /// Where each frame starts.
    starts: Vec<u32>,
    bytes_held: usize,
}

impl Newest {
    pub(super) fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    /// Keeps a group that is durable, if anybody follows; gives back buffers that are of no more
    /// use.
    pub(super) fn keep(&mut self, group: GroupFrames) -> Option<GroupFrames> {
        if self.followers == 0 {
            return Some(group);
        }
        // Little in a large buffer would hold all of the buffer.
        if group.bytes() < group.bytes.capacity() / 4 {
            let frames = Bytes::copy_from_slice(&group.bytes);
            self.push(group.first, frames, (group.starts.clone(), group.bytes()));
            self.shrink();
            return Some(group);
        }
        let (first, salt, bytes_held) = (group.first, group.salt, group.bytes.capacity());
        self.push(first, group.bytes.into(), (group.starts, bytes_held));
        let oldest = self.shrink()?;
        // Records of it may still be on their way to somebody.
        let mut bytes = oldest.frames.try_into_mut().ok()?;
        bytes.clear();
        Some(GroupFrames { first, salt, bytes: bytes.into(), starts: oldest.starts })
    }

    fn push(&mut self, first: Index, frames: Bytes, (starts, bytes_held): (Vec<u32>, usize)) {
        if self.end() != Some(first) {
            self.forget();
        }
        self.bytes_held += bytes_held;
        self.groups.push_back(Group { first, frames, starts, bytes_held });
    }

    /// Makes them fit; returns the last that went.
    fn shrink(&mut self) -> Option<Group> {
        let mut gone = None;
        while self.bytes_held > BYTES_HELD_MAX {
            gone = self.groups.pop_front();
            self.bytes_held -= gone.as_ref().map_or(0, |group| group.bytes_held);
        }
        gone
    }

    pub(super) fn forget(&mut self) {
        self.groups.clear();
        self.bytes_held = 0;
    }

    /// The index behind the last.
    fn end(&self) -> Option<Index> {
        self.groups.back().map(|group| group.first.plus(count_of(group.starts.len())))
    }

    /// Frames from `first` on: of as many groups as there are, or as have so many bytes.
    fn pieces(&self, first: Index, bytes_max: usize) -> Vec<Bytes> {
        let at = self.groups.partition_point(|group| group.first <= first).checked_sub(1);
        let mut start = at.and_then(|at| self.groups.get(at)).and_then(|group| {
            let position = memory_len(first.0 - group.first.0)?;
            group.starts.get(position).map(|&start| start as usize)
        });
        let mut pieces = Vec::new();
        let mut bytes = 0;
        for group in self.groups.iter().skip(at.unwrap_or(self.groups.len())) {
            let Some(start) = start.replace(0).filter(|_| bytes <= bytes_max) else { break };
            let piece = group.frames.slice(start..);
            bytes += piece.len();
            pieces.push(piece);
        }
        pieces
    }
}

/// As many records as the limits allow, but one at least.
fn records(pieces: &[Bytes], (entries_max, bytes_max): (usize, usize)) -> Vec<Record> {
    let (mut records, mut bytes_left) = (Vec::new(), bytes_max);
    for piece in pieces {
        let mut rest = &piece[..];
        while records.len() < entries_max
            && let Ok((frame, length)) = Frame::parse(rest, ANY_SALT, Verify::Nothing)
            && (length <= bytes_left || records.is_empty())
        {
            records.push(Record::of(piece, &frame));
            bytes_left = bytes_left.saturating_sub(length);
            rest = rest.get(length..).unwrap_or_default();
        }
        if !rest.is_empty() {
            break;
        }
    }
    records
}

/// Nothing is verified of what never was anywhere else.
const ANY_SALT: Salt = Salt(0);

/// Most memory: some groups of the largest kind that streams make. Who is further behind reads from
/// the disk, which then costs less than to write each group to memory that was not used for long.
const BYTES_HELD_MAX: usize = 8 << 20;
