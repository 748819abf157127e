//! Runs of the retention that are dated ahead of the own clock wait until that time.

use access_ledger_proto::{
    entry::Entry,
    event,
    facts::redactions::{Erasing, judge},
    position::Index,
    wire,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{EraseError, Work, stored_retention};
use crate::error::StorageError;

/// A run that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    /// Its index.
    pub(super) run: u64,
    /// Its date: seconds since the Unix epoch.
    pub(super) due: u64,
    /// Index of the change that brought the retention which was in force there.
    pub(super) retention: u64,
}

impl Work {
    /// Puts off a lawful run that is dated ahead; whether it is.
    pub(super) fn puts_off(&mut self, index: Index, recorded_at: u64) -> bool {
        let due = recorded_at / NANOS;
        let is_ahead = due > self.latest();
        if is_ahead {
            warn!(%index, due, "a run of the retention waits: it is dated ahead of this clock");
            let retention = self.progress.retention;
            self.progress.waiting.push(Waiting { run: index.0, due, retention });
        }
        is_ahead
    }

    /// Takes up the runs whose time has come. What has rotted of one keeps it waiting, and no
    /// other.
    pub(super) fn take_due(&mut self) -> Result<(), EraseError> {
        let latest = self.latest();
        let mut kept = Vec::new();
        for run in self.progress.waiting.clone() {
            if run.due > latest {
                kept.push(run);
                continue;
            }
            match self.judge_run(&run) {
                Ok(Some(erasing)) => self.pending.push(erasing),
                Ok(None) | Err(StorageError::Damage { .. }) => kept.push(run),
                Err(error) => return Err(error.into()),
            }
        }
        self.progress.waiting = kept;
        Ok(())
    }

    /// What a run that was found lawful erases; `None` where that cannot be read now.
    fn judge_run(&self, run: &Waiting) -> Result<Option<Erasing>, StorageError> {
        let retention = stored_retention(&self.book, Index(run.retention))?;
        let found = self.book.reader.read(Index(run.run), 1, usize::MAX)?.pop();
        Ok(found.and_then(|record| {
            let entry = Entry::parse(&record.entry).ok()?;
            let body = event::body(record.event.as_ref()?)?;
            let redaction = wire::Redaction::decode(body.bytes).ok()?;
            let sources = self.book.sources().before(entry.index);
            let at = (entry.index, entry.recorded_at);
            judge(&sources, retention.as_ref(), at, entry.source, &redaction).ok()
        }))
    }

    /// A run with a later date waits: in seconds since the Unix epoch.
    fn latest(&self) -> u64 {
        (self.book.clock.now_nanos() / NANOS).saturating_add(AHEAD_SECS_MAX)
    }
}

/// How far a run may be dated ahead of the own clock: clocks differ, and events expire by the hour.
const AHEAD_SECS_MAX: u64 = 3_600;

const NANOS: u64 = 1_000_000_000;
