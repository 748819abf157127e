//! The vigil: what the custodian notices while it follows, told to [`Alarms`].
//!
//! Whoever follows tells it what it sees: the ledger's newest checkpoint, asked for again and again
//! whatever else comes; records that were verified and taken; the sources; that time has passed.
//! What follows from that is decided in [`timing`](super::timing) and
//! [`silence`](super::silence).
//!
//! `sightings.json` keeps across restarts when which size was the ledger's newest. It is replaced
//! every [`SAVE_INTERVAL`] at most, so a crash makes a bound weaker by that, never wrong.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    entry::Entry,
    event::{self, Body},
    facts::sources::Sources,
    position::{Index, Size},
    source::Name,
    wire::{SourcePhase, SourceStatus},
};
use prost::Message as _;
use tracing::warn;

use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place, time},
    silence::{Silence, Silent},
    timing::{Sighting, TimeLimits, Timing, WrongTime, nanos},
};
use crate::os::{self, Clock, Disk};

/// Watches over one ledger.
pub struct Vigil {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    alarms: Arc<Alarms>,
    clock: Arc<dyn Clock>,
    origin: String,
    timing: Timing,
    silence: Silence,
    saved: Vec<Sighting>,
    saved_at: u64,
}

impl Vigil {
    /// Begins in a data folder with a copy of so many entries of the ledger `origin`.
    #[must_use]
    pub fn open(
        disk: &Arc<dyn Disk>,
        data: &Path,
        alarms: &Arc<Alarms>,
        clock: &Arc<dyn Clock>,
        (origin, held): (&str, Size),
        limits: TimeLimits,
    ) -> Self {
        let (path, now) = (data.join("sightings.json"), clock.now_nanos());
        let saved = read(&**disk, &path);
        Self {
            disk: Arc::clone(disk),
            path,
            alarms: Arc::clone(alarms),
            clock: Arc::clone(clock),
            origin: origin.to_owned(),
            timing: Timing::new(limits, saved.clone(), held, now),
            silence: Silence::default(),
            saved,
            saved_at: now,
        }
    }

    /// The own clock: to be read before the ledger is asked for a checkpoint.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now_nanos()
    }

    /// The ledger's newest checkpoint, asked for at the time `asked_at`, was verified and covers so
    /// many entries.
    pub fn sighted(&mut self, size: Size, asked_at: u64) {
        self.timing.sight(size, asked_at);
    }

    /// A checkpoint of so many entries, which nobody had asked for, was verified.
    pub fn heard_of(&mut self, size: Size) {
        let now = self.now();
        self.timing.hear(size, now);
    }

    /// The registered sources are these: at the start, and whenever they change.
    pub fn expect(&mut self, sources: &Sources) {
        let now = self.now();
        for gone in self.silence.expect(sources, now) {
            self.heard(gone.as_str(), "the source left service");
        }
        for place in self.alarms.places(AlarmKind::SourceSilent, &self.origin) {
            if let Place::Party(source) = place {
                self.silence.is_silent(&source);
            }
        }
    }

    /// Records that were verified are new to the copy; `is_notable`: an event in it may be the
    /// status of a source.
    pub fn took(&mut self, first: Index, records: &[Record], is_notable: bool) {
        let now = self.now();
        for wrong in self.timing.take(first, records, now) {
            let kind = match wrong {
                WrongTime::Backdated { .. } => AlarmKind::Backdated,
                WrongTime::FutureDated { .. } => AlarmKind::FutureDated,
            };
            self.raise(self.alarm(kind, wrong).at(wrong.index()));
        }
        if !is_notable && !self.silence.is_needed() {
            return;
        }
        for (index, record) in (first.0..).map(Index).zip(records) {
            // Verified entries parse.
            let Ok(entry) = Entry::parse(&record.entry) else { continue };
            if self.silence.is_needed() && self.silence.hear(entry.source, now) {
                self.heard(entry.source.as_str(), "the source was heard again");
            }
            let body = record.event.as_deref().and_then(event::body);
            if let Some(body) = body.filter(|body| body.number == Body::SOURCE_STATUS) {
                self.status(index, entry.source, body);
            }
        }
    }

    /// The time by the own clock up to which the copy has all that the ledger had signed, and how
    /// much that is; `None` while it has not come to any answer.
    #[must_use]
    pub fn heard_until(&self) -> Option<(u64, Size)> {
        self.timing.heard_until()
    }

    /// Looks at the clock. To be called about once a second.
    pub fn tick(&mut self) {
        let now = self.now();
        self.save(now);
        match self.timing.stale_since(now) {
            Some(since) => {
                let (since, known) = (time(since), self.timing.sizes().1);
                let message = format!("nothing new from the ledger since {since}, at size {known}");
                self.raise(self.alarm(AlarmKind::Stale, message));
            }
            None => self.end(AlarmKind::Stale, Place::Ledger, "the ledger has news"),
        }
        let Some((until, _)) = self.timing.heard_until() else { return };
        for Silent { source, since, interval } in self.silence.due(until) {
            let (since, interval) = (time(since), interval / 1_000_000_000);
            let message =
                format!("source {source} is silent since {since}, promised every {interval} s");
            self.raise(self.alarm(AlarmKind::SourceSilent, message).about(source.as_str()));
        }
    }

    /// Keeps the sightings, now and then.
    fn save(&mut self, now: u64) {
        let sightings = self.timing.save();
        let is_early = now.saturating_sub(self.saved_at) < nanos(SAVE_INTERVAL);
        if is_early || sightings == self.saved {
            return;
        }
        let bytes = serde_json::to_vec(&sightings).unwrap_or_default();
        if let Err(problem) = os::replace(&*self.disk, &self.path, &bytes) {
            warn!(path = %self.path.display(), %problem, "could not keep sightings");
        }
        (self.saved, self.saved_at) = (sightings, now);
    }

    /// What a source says of itself.
    fn status(&mut self, index: Index, source: Name<'_>, body: Body<'_>) {
        // Verified events decode.
        let Ok(status) = SourceStatus::decode(body.bytes) else { return };
        match status.phase() {
            SourcePhase::Stopped => self.silence.stop(source),
            SourcePhase::GapDeclared => {
                let message =
                    format!("source {source} declares that it lost {} events", status.dropped);
                let alarm = self.alarm(AlarmKind::SourceGap, message);
                self.raise(alarm.at(index).about(source.as_str()));
            }
            _ => {}
        }
    }

    fn alarm(&self, kind: AlarmKind, message: impl std::fmt::Display) -> Alarm {
        Alarm::new(kind, &self.origin, self.timing.sizes().1, message)
    }

    fn raise(&self, alarm: Alarm) {
        let _new_or_known = self.alarms.raise(alarm);
    }

    fn end(&self, kind: AlarmKind, place: Place, by: &str) {
        let _lasted = self.alarms.end(kind, &self.origin, place, by);
    }

    fn heard(&self, source: &str, by: &str) {
        self.end(AlarmKind::SourceSilent, Place::Party(source.to_owned()), by);
    }
}

/// What was kept. A file that cannot be read binds the ledger to nothing, like none.
fn read(disk: &dyn Disk, path: &Path) -> Vec<Sighting> {
    let bytes = match os::read(disk, path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        read => read,
    };
    let sightings = bytes.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    sightings.unwrap_or_else(|problem| {
        warn!(path = %path.display(), %problem, "ignored sightings");
        Vec::new()
    })
}

/// Between two replacements of the file.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(10);

const BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;
