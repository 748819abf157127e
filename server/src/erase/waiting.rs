//! Runs of the retention that are dated ahead of the own clock wait until that time.

use access_ledger_proto::{entry::Entry, event, facts::redactions::judge, position::Index, wire};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{EraseError, Work, stored_retention};

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

    /// Takes up the runs whose time has come.
    pub(super) fn take_due(&mut self) -> Result<(), EraseError> {
        let latest = self.latest();
        while let Some(place) = self.progress.waiting.iter().position(|run| run.due <= latest) {
            let Some(&Waiting { run, retention, .. }) = self.progress.waiting.get(place) else {
                break;
            };
            // Where it has rotted, the run waits on.
            let Some(retention) = stored_retention(&self.book, Index(retention))? else { break };
            let found = self.book.reader.read(Index(run), 1, usize::MAX)?.pop();
            let found = found.and_then(|record| {
                let entry = Entry::parse(&record.entry).ok()?;
                let body = event::body(record.event.as_ref()?)?;
                let redaction = wire::Redaction::decode(body.bytes).ok()?;
                let sources = self.book.sources().before(entry.index);
                let at = (entry.index, entry.recorded_at);
                judge(&sources, Some(&retention), at, entry.source, &redaction).ok()
            });
            self.pending.extend(found);
            self.progress.waiting.remove(place);
        }
        Ok(())
    }

    /// A run with a later date waits: in seconds since the Unix epoch.
    fn latest(&self) -> u64 {
        (self.book.clock.now_nanos() / NANOS).saturating_add(AHEAD_SECS_MAX)
    }
}

/// How far a run may be dated ahead of the own clock: clocks differ, and events expire by the hour.
const AHEAD_SECS_MAX: u64 = 3_600;

const NANOS: u64 = 1_000_000_000;
