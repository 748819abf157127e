//! Erases events: overwrites their bytes where they lie, in segments that are full and in what is
//! durable of the newest one. Entries, checksums of entries and the places of frames stay.
//!
//! A step marks all its frames as erased and syncs, then overwrites the events with zeros and syncs
//! again. So a stop at any point leaves frames that hold their event or are marked as erased.
//! Whoever erases the same range again finishes what a stop has interrupted; it writes all of it
//! again, for what a file seems to hold then need not be on the disk, and no sync would tell.
//!
//! Readers see an event whole or not at all: no read is under way while frames are marked, and of
//! a marked frame nobody is given the event's place.

use std::ops::Range;

use access_ledger_proto::{
    entry::Entry,
    error::SegmentError,
    position::{Index, count_of, memory_len},
    segment::{Frame, Salt, Verify, Write},
};

use super::reader::{LogReader, ReadMemory, Run};
use crate::error::{Fault, StorageError};

/// What one step of an erasure did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Where the next step goes on; the end of the range when nothing is left.
    pub next: Index,
    /// Events whose bytes were overwritten.
    pub events: u64,
}

/// What is known of a range that is to be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Whoever began before has come to its end, or nobody has.
    First,
    /// An earlier one may have been cut off.
    Again,
}

/// The frames of a step, each with its offset in the file.
#[derive(Default)]
struct Step {
    marks: Vec<(u64, Write)>,
    wipes: Vec<(u64, [Write; 2])>,
    /// Those that were not known to be overwritten.
    events: u64,
}

impl LogReader {
    /// Erases the first events of a range of durable entries: those that `is_erased` picks, given
    /// the entry and its event (`None` for one that is not as it was written), and those that were
    /// marked before and are not overwritten; of the latter all, whatever they hold, if this is
    /// done [`Attempt::Again`]. Blocks; at most 4,096 entries or 4 MiB at a time, of one segment.
    ///
    /// There is one that erases; it may run beside the one that appends.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damage`] names the first frame that is not as written but for its event, and
    /// nothing of the step is changed; [`StorageError::Io`] when the disk refuses: then some events
    /// of the step may be erased, and after a failed sync nobody knows which are. The caller erases
    /// nothing more until the log was opened again.
    pub fn erase(
        &self,
        range: &Range<Index>,
        attempt: Attempt,
        mut is_erased: impl FnMut(&Entry<'_>, Option<&[u8]>) -> bool,
    ) -> Result<Erased, StorageError> {
        let left = memory_len(range.end.0.saturating_sub(range.start.0)).unwrap_or(usize::MAX);
        let limits = (left.min(STEP_ENTRIES), STEP_BYTES);
        let Some(run) = self.shared.locate(range.start, limits)?.filter(|_| left > 0) else {
            return Ok(Erased { next: range.end, events: 0 });
        };
        let step = self.plan(&run, (range.start, attempt), &mut is_erased)?;
        let next = range.start.plus(count_of(run.count));
        let events = step.events;
        if !step.wipes.is_empty() {
            self.carry_out(&run, &step)?;
        }
        Ok(Erased { next, events })
    }

    /// Which frames of a run are to be erased.
    fn plan(
        &self,
        run: &Run,
        (first, attempt): (Index, Attempt),
        is_erased: &mut dyn FnMut(&Entry<'_>, Option<&[u8]>) -> bool,
    ) -> Result<Step, StorageError> {
        let bytes = self.shared.read_frames(run, &mut ReadMemory::default())?;
        let salt = run.segment.header.salt;
        let (mut rest, mut step) = (&bytes[..], Step::default());
        for index in (first.0..).take(run.count).map(Index) {
            let offset = run.start + count_of(bytes.len() - rest.len());
            let damage = |fault: Fault| run.segment.damage(offset, index, fault);
            let (parsed, holds) = match Frame::parse(rest, salt, Verify::All) {
                // Whoever erases it need not know what it said.
                Err(SegmentError::EventChecksum { .. }) => {
                    (Frame::parse(rest, salt, Verify::Entry), false)
                }
                parsed => (parsed, true),
            };
            let (frame, length) = parsed.map_err(|error| damage(error.into()))?;
            let entry = Entry::parse(frame.entry).map_err(|error| damage(Fault::Entry(error)))?;
            if entry.index != index {
                return Err(damage(Fault::Index { found: entry.index }));
            }
            step.add(offset, (&frame, salt), attempt, |event| {
                is_erased(&entry, holds.then_some(event))
            });
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(step)
    }

    /// Marks, then wipes; each durable before what follows.
    fn carry_out(&self, run: &Run, step: &Step) -> Result<(), StorageError> {
        // A handle of its own: readers may hold theirs for reading only.
        let file = self.shared.open_for_erasing(run.segment.first())?.file;
        let write =
            |offset: u64, write: &Write| file.write_at(&write.bytes, offset + count_of(write.at));
        self.shared
            .mark(|| step.marks.iter().try_for_each(|(offset, mark)| write(*offset, mark)))?;
        file.sync_data()?;
        for (offset, wipes) in &step.wipes {
            wipes.iter().try_for_each(|wipe| write(*offset, wipe))?;
        }
        file.sync_data()
    }
}

impl Step {
    fn add(
        &mut self,
        offset: u64,
        (frame, salt): (&Frame<'_>, Salt),
        attempt: Attempt,
        is_erased: impl FnOnce(&[u8]) -> bool,
    ) {
        let is_new = match frame.event() {
            Some(event) if is_erased(event) => true,
            Some(_) => return,
            None => !frame.is_wiped(salt),
        };
        // One that came here without its event has no place for it.
        let is_repeated = attempt == Attempt::Again && !frame.event_area.is_empty();
        if is_new || is_repeated {
            let (mark, wipe) = frame.wipe(salt);
            self.marks.push((offset, mark));
            self.wipes.push((offset, wipe));
            self.events += u64::from(is_new);
        }
    }
}

/// Most entries of a step: so that a reader waits for a millisecond at most.
const STEP_ENTRIES: usize = 4_096;

/// Most bytes of frames that a step reads.
const STEP_BYTES: usize = 4 << 20;
