//! Records the runs of the retention: what has become old enough is erased by a redaction of the
//! ledger's own.
//!
//! The clock says when a run is due; a run looks at a bounded part of the log, and the next one
//! goes on behind it, at once while there is more. Nothing is recorded where nothing has expired.

use access_ledger_proto::{
    entry::Entry,
    event,
    facts::{
        redactions::{Erasable, Retention, expires},
        sources::Sources,
    },
    position::{Index, count_of, memory_len},
    wire,
};

use super::EraseError;
use crate::{book::Book, refusal::Refusal, storage::Record};

/// Records a redaction as the ledger's own, and waits until it is durable.
pub(crate) type RecordRun = Box<dyn Fn(wire::Redaction) -> Result<(), Refusal> + Send>;

/// The schedule.
pub(super) struct Expiry {
    record: RecordRun,
    /// The retention that it follows: another one is due at once.
    retention: Index,
    /// When a run is due: nanoseconds since the Unix epoch.
    due: u64,
    /// Where the next run goes on.
    next: Index,
}

/// What a run would erase: its first event and its last one.
#[derive(Default)]
struct Expired {
    range: Option<(Index, Index)>,
    /// The last entry that was looked at lies behind the first that has not expired, or the log
    /// has ended.
    is_all: bool,
}

impl Expiry {
    pub(super) const fn new(record: RecordRun) -> Self {
        Self { record, retention: Index::GENESIS, due: 0, next: Index::GENESIS }
    }

    /// Records a run, if one is due and finds anything; `expired` is where the newest run ended.
    pub(super) fn run(
        &mut self,
        book: &Book,
        retention: &Retention,
        expired: Index,
    ) -> Result<(), EraseError> {
        let now = book.clock.now_nanos();
        let before = retention.expired_before(now);
        if before == 0 || retention.index == self.retention && now < self.due {
            return Ok(());
        }
        self.next = self.next.max(expired);
        let (first, mut found) = (self.next, Expired::default());
        let sources = book.sources().clone();
        let end = book.published().size.next_index();
        let mut next = first;
        while !found.is_all && next.0 - first.0 < RUN_ENTRIES_MAX {
            let wanted = memory_len(end.0.saturating_sub(next.0)).unwrap_or(usize::MAX);
            // An event that has rotted does not expire: nobody knows whether it would.
            let (records, _) = book.reader.read_past_rot(next, wanted, RUN_READ_BYTES)?;
            let looked = found.take(&records, next, before, &sources);
            next = next.plus(looked);
            found.is_all |= records.is_empty();
        }
        if let Some((first, last)) = found.range {
            (self.record)(wire::Redaction {
                first_index: first.0,
                last_index: last.0,
                legal_basis: retention.legal_basis.clone(),
                approvals: Vec::new(),
                retention_index: retention.index.0,
            })?;
        }
        self.next = next;
        self.retention = retention.index;
        self.due = if found.is_all { now.saturating_add(RUN_INTERVAL_NANOS) } else { now };
        Ok(())
    }
}

impl Expired {
    /// Looks at records from `first` on; returns how many of them have expired.
    fn take(&mut self, records: &[Record], first: Index, before: u64, sources: &Sources) -> u64 {
        for (offset, record) in records.iter().enumerate() {
            let index = first.plus(count_of(offset));
            let entry = Entry::parse(&record.entry).ok();
            let Some(entry) = entry.filter(|entry| entry.recorded_at < before) else {
                self.is_all = true;
                return count_of(offset);
            };
            let body = record.event.as_ref().and_then(|event| event::body(event));
            let is_by_age = || Erasable::of(sources, entry.source, index) == Erasable::ByAge;
            if body.is_some_and(expires) && is_by_age() {
                let (first, _) = self.range.unwrap_or((index, index));
                self.range = Some((first, index));
            }
        }
        count_of(records.len())
    }
}

/// A run is due so long after the last one that found nothing more.
const RUN_INTERVAL_NANOS: u64 = 24 * 3_600_000_000_000;

/// Entries that one run looks at: about a second of reading, and a few of erasing.
const RUN_ENTRIES_MAX: u64 = 1 << 20;

/// Bytes of one read of the log.
const RUN_READ_BYTES: usize = 256 << 10;
