//! Writes the segments that are to take the place of a damaged one, beside the log.
//!
//! Entries come from elsewhere as long as they are there, and behind those from what is left of the
//! damaged segment. A group is a run of whole batches, as when a copy is stored.

use std::{ops::Range, path::PathBuf, sync::Arc};

use access_ledger_client::{pull::Run, verify::Record};
use access_ledger_proto::{
    position::Index,
    segment::{HEADER_LEN, SegmentHeader},
};

use super::salvage::Salvage;
use crate::{
    custodian::{copy::Cutter, error::CopyError},
    error::StorageError,
    os::Disk,
    storage::{
        GroupFrames,
        segment::{self, Segment},
    },
};

/// The segments of one stretch.
pub(super) struct Draft {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Length at which a segment is full.
    segment_bytes: u64,
    left: Salvage,
    cutter: Cutter,
    /// Of the next segment.
    header: SegmentHeader,
    open: Option<Open>,
    written: Vec<Written>,
}

/// A segment that was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) first: Index,
    /// Where its frames end.
    pub(super) frames_end: u64,
}

/// The segment that is being written.
struct Open {
    segment: Segment,
    offsets: Vec<u32>,
    end: u64,
}

impl Draft {
    /// Begins at the first index of `header`, in `folder`.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        (header, segment_bytes): (SegmentHeader, u64),
        left: Salvage,
    ) -> Self {
        let cutter = Cutter::new(header.first);
        Self { disk, folder, segment_bytes, left, cutter, header, open: None, written: Vec::new() }
    }

    /// The index of the next record.
    pub(super) fn next(&self) -> Index {
        self.cutter.next()
    }

    /// Takes records that follow. An event that was erased here stays erased; one that is gone
    /// there and whole here stays.
    ///
    /// # Errors
    ///
    /// [`CopyError::BatchTooLarge`], [`CopyError::EventTooLarge`], [`CopyError::OutOfPlace`];
    /// [`CopyError::Storage`] when the disk refuses.
    pub(super) fn take(&mut self, (first, mut records): Run) -> Result<(), CopyError> {
        for (index, record) in (first.0..).map(Index).zip(&mut records) {
            if self.left.is_erased(index) {
                record.event = None;
            } else if record.event.is_none() {
                record.event = self.left.record(index).and_then(|record| record.event);
            }
        }
        self.push((first, records))
    }

    /// Takes what is left here of the entries in `range`, up to the first that is not.
    ///
    /// # Errors
    ///
    /// As [`Draft::take`].
    pub(super) fn take_left(&mut self, range: Range<Index>) -> Result<(), CopyError> {
        for index in (range.start.0..range.end.0).map(Index) {
            let Some(record) = self.left.record(index) else { break };
            self.push((index, vec![record]))?;
        }
        Ok(())
    }

    fn push(&mut self, run: Run) -> Result<(), CopyError> {
        match self.cutter.push(run)? {
            Some((first, records)) => Ok(self.write(first, &records)?),
            None => Ok(()),
        }
    }

    /// Ends behind the last whole batch; with a footer where another segment follows. Durable, but
    /// for the names. Gives what was written, and where the next batch would start.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(super) fn finish(mut self, is_last: bool) -> Result<(Vec<Written>, Index), StorageError> {
        let end = self.header.first;
        self.close(!is_last)?;
        Ok((self.written, end))
    }

    fn write(&mut self, first: Index, records: &[Record]) -> Result<(), StorageError> {
        let salt = self.header.salt;
        let mut group = GroupFrames { first, salt, bytes: Vec::new(), starts: Vec::new() };
        for record in records {
            match &record.event {
                Some(event) => group.push(&record.entry, event),
                None => group.push_erased(&record.entry),
            }
        }
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.end > HEADER_LEN as u64 && open.end + group.bytes() as u64 > self.segment_bytes
        });
        if is_full {
            self.close(true)?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let segment = Segment::create(&*self.disk, &self.folder, self.header)?;
                Open { segment, offsets: Vec::new(), end: HEADER_LEN as u64 }
            }
        };
        open.segment.file.write_at(&group.bytes, open.end)?;
        // Segments are far shorter than 32 bits allow.
        let base = u32::try_from(open.end).unwrap_or(u32::MAX);
        open.offsets.extend(group.starts.iter().map(|start| base.saturating_add(*start)));
        open.end += group.bytes() as u64;
        self.open = Some(open);
        self.header.first = first.plus(records.len() as u64);
        Ok(())
    }

    fn close(&mut self, is_full: bool) -> Result<(), StorageError> {
        let Some(Open { segment, offsets, end }) = self.open.take() else { return Ok(()) };
        if is_full {
            segment.file.write_at(&segment::encode_footer(&offsets), end)?;
        }
        segment.file.sync_data()?;
        self.written.push(Written { first: segment.first(), frames_end: end });
        Ok(())
    }
}
