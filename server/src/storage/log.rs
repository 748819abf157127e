//! The writing end of the log: appends groups, each with one sync, and starts new segments.
//!
//! What [`Log::commit`] returns is [`Durable`], and nothing else makes one. After any failed write
//! or sync nobody knows what is on the disk, so the log refuses to go on: a sync that failed once
//! may answer yes the next time although the data is gone.
//!
//! A sync that need not change the length of the file costs half. [`Log::prepare`] therefore writes
//! zeros ahead in small steps, but only when asked to (the writer asks when it has nothing else to
//! do) and only after small groups: large ones would pay for every byte twice.

use std::{ops::Range, sync::Arc};

use access_ledger_proto::{
    position::Index,
    segment::{HEADER_LEN, SegmentHeader},
};

use super::{
    frame::GroupFrames,
    reader::Shared,
    segment::{self, Segment},
    tree::TreeFiles,
};
use crate::error::StorageError;

/// Proof that what it holds is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// What is durable.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What is durable, by value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The writing end of the log. There is one, and it belongs to the writer thread.
pub struct Log {
    shared: Arc<Shared>,
    tree: TreeFiles,
    segment_bytes: u64,
    segment: Segment,
    next: Index,
    /// Where the frames end and the next group goes.
    end: u64,
    /// Where the file ends: zeros from `end` to here.
    prepared_end: u64,
    last_group_bytes: usize,
    poisoned: bool,
    /// Buffers of an earlier group, to be used again.
    spare: Option<GroupFrames>,
}

impl Log {
    /// Goes on behind what recovery found: `segment`, open for writing, ends at `end`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tree: TreeFiles,
        segment_bytes: u64,
        segment: Segment,
        (next, end, prepared_end): (Index, u64, u64),
    ) -> Self {
        Self {
            shared,
            tree,
            segment_bytes,
            segment,
            next,
            end,
            prepared_end,
            last_group_bytes: 0,
            poisoned: false,
            spare: None,
        }
    }

    /// The index that the next entry gets.
    #[must_use]
    pub fn next_index(&self) -> Index {
        self.next
    }

    /// Whether a write or sync has failed, so that nothing more will be taken.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// An empty group that goes behind what is there. Its buffers are those of an earlier one.
    pub fn group(&mut self) -> GroupFrames {
        let salt = self.segment.header.salt;
        let (mut bytes, mut starts) =
            self.spare.take().map(|spare| (spare.bytes, spare.starts)).unwrap_or_default();
        bytes.clear();
        starts.clear();
        GroupFrames { first: self.next, salt, bytes, starts }
    }

    /// Writes a group and waits until it is on the disk: one write and one sync, and more only when
    /// a new segment is due. Readers see its entries from then on.
    ///
    /// The tree files must hold all earlier groups ([`TreeFiles::append`]).
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when a write or sync fails, full disk included; from then on
    /// [`StorageError::Poisoned`]. [`StorageError::GroupOutOfPlace`] and
    /// [`StorageError::TreeBehind`] for mistakes of the caller.
    pub fn commit(&mut self, group: GroupFrames) -> Result<Durable<Range<Index>>, StorageError> {
        self.commit_telling(group, || {})
    }

    /// The same; `written` is called between the write and the sync.
    ///
    /// # Errors
    ///
    /// As [`Log::commit`].
    pub fn commit_telling(
        &mut self,
        group: GroupFrames,
        written: impl FnOnce(),
    ) -> Result<Durable<Range<Index>>, StorageError> {
        self.check_open()?;
        if group.first != self.next {
            let (found, wanted) = (group.first, self.next);
            return Err(StorageError::GroupOutOfPlace { found, wanted });
        }
        let range = self.next..self.next.plus(group.len() as u64);
        if !group.is_empty() {
            self.poisoned = true;
            self.write(&group, written)?;
            self.poisoned = false;
            self.shared.publish(&group.starts, self.end, group.bytes());
            self.end += group.bytes() as u64;
            self.prepared_end = self.prepared_end.max(self.end);
            self.next = range.end;
            self.last_group_bytes = group.bytes();
        }
        if group.bytes.capacity() <= SPARE_LEN_MAX {
            self.spare = Some(group);
        }
        Ok(Durable(range))
    }

    /// Writes zeros ahead where that pays: the last group was small and little is left of the zeros
    /// written before. Returns whether it did. To be called when there is nothing to commit.
    ///
    /// # Errors
    ///
    /// As [`Log::commit`], with the same consequence.
    pub fn prepare(&mut self) -> Result<bool, StorageError> {
        self.check_open()?;
        let step = PREPARE_STEP.min(self.segment_bytes.saturating_sub(self.prepared_end));
        let is_small = (1..SMALL_GROUP_LEN).contains(&self.last_group_bytes);
        if !is_small || self.prepared_end - self.end >= PREPARE_HEADROOM || step == 0 {
            return Ok(false);
        }
        let zeros = vec![0; usize::try_from(step).unwrap_or_default()];
        self.poisoned = true;
        self.segment.file.write_at(&zeros, self.prepared_end)?;
        self.segment.file.sync_data()?;
        self.poisoned = false;
        self.prepared_end += step;
        Ok(true)
    }

    /// Lets what lies in the newest segment be read from the disk again: memory for more that is
    /// written once and not read soon.
    pub fn forget(&self) {
        self.segment.file.forget();
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.poisoned { Err(StorageError::Poisoned) } else { Ok(()) }
    }

    fn write(&mut self, group: &GroupFrames, written: impl FnOnce()) -> Result<(), StorageError> {
        let is_empty = self.end == HEADER_LEN as u64;
        if !is_empty && self.end + group.bytes() as u64 > self.segment_bytes {
            self.rotate()?;
        }
        self.segment.file.write_at(&group.bytes, self.end)?;
        written();
        self.segment.file.sync_data()
    }

    /// Closes the segment with its footer and starts the next one. The order matters: recovery
    /// takes the last segment by name as the only one that may be incomplete, and the tree files as
    /// complete up to where it starts.
    fn rotate(&mut self) -> Result<(), StorageError> {
        let stored = self.tree.size();
        if stored.next_index() != self.next {
            let wanted = self.shared.size();
            return Err(StorageError::TreeBehind { found: stored, wanted });
        }
        let footer = segment::encode_footer(&self.shared.active_offsets());
        self.segment.file.write_at(&footer, self.end)?;
        self.segment.file.set_length(self.end + footer.len() as u64)?;
        self.segment.file.sync_data()?;
        self.tree.sync()?;

        let header = SegmentHeader { first: self.next, ..self.segment.header };
        self.segment = Segment::create(&*self.shared.disk, &self.shared.folder, header)?;
        self.end = HEADER_LEN as u64;
        self.prepared_end = self.end;
        self.shared.start_segment(self.segment.clone());
        Ok(())
    }
}

/// Zeros are written ahead in steps of this length: two thousand unary appends' worth, and no
/// longer to write than one large group.
const PREPARE_STEP: u64 = 1 << 20;

/// Zeros are written ahead when fewer than these are left.
const PREPARE_HEADROOM: u64 = 256 << 10;

/// Groups below this length gain from prepared space (measured: 64 KiB and below).
const SMALL_GROUP_LEN: usize = 64 << 10;

/// A buffer up to this capacity is kept for the next group.
const SPARE_LEN_MAX: usize = GroupFrames::LEN_MAX;
