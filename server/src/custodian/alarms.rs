//! The alarms of a custodian: raised once, on disk before anybody is told, told until somebody has
//! heard.
//!
//! ```text
//! alarms/<time>-<kind>-<place>.json    the alarm (alarms/record.rs has the table)
//! alarms/<same>.txt                    what proves it, for `access-ledger check-evidence`
//! alarms/<same>.sent                   the webhook has taken it: "raised" or "ended"
//! ```
//!
//! The same alarm (kind, ledger, place) is not raised again while it lasts, across restarts too.
//! One cause cannot fill the disk, nor keep it busy: of one kind and ledger at most [`LASTING_MAX`]
//! alarms last at a time. Of what happens once (backdating, a declared gap) the oldest makes room
//! for the newest, but not within [`EVENT_SPAN`] of its own time: a ledger that makes up a million
//! of them gets [`LASTING_MAX`] files. What finds no room is only counted. Of those that ended,
//! [`ENDED_MAX`] of each kind and ledger are kept: half of them the first ones, which nobody can
//! crowd out by alarms that come and go, half of them the newest.
//!
//! What the disk refuses is kept in memory and told all the same.

mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_client::evidence::printable;
use access_ledger_proto::{hash::sha256, position::Index};
use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use self::record::Key;
pub use self::record::{Alarm, AlarmKind, AlarmRecord, Place};
use crate::{
    error::LedgerError,
    os::{self, Clock, Disk},
};

/// All alarms of a custodian. Shared by whoever watches over something.
pub struct Alarms {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: PathBuf,
    state: Mutex<State>,
    /// Something is to be told.
    untold: Notify,
}

#[derive(Default)]
struct State {
    /// By id, so about in the order of time.
    kept: BTreeMap<String, AlarmRecord>,
    lasting: BTreeMap<Key, String>,
    /// What the webhook has not taken yet.
    unsent: BTreeSet<String>,
    /// Kinds and ledgers of which more than the most last: said once.
    crowded: BTreeSet<(AlarmKind, String)>,
}

/// What became of an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It is new.
    New(AlarmRecord),
    /// It was raised before and lasts.
    Lasting(AlarmRecord),
    /// It was only counted: too many of its kind last.
    Counted,
}

/// How far the webhook has got with an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Raised,
    Ended,
}

impl Alarms {
    /// Opens the alarms in `folder`, which is made if need be. Alarms that lasted when the process
    /// stopped still last.
    ///
    /// A file that is no alarm is left aside with a warning: no damage there may keep a custodian
    /// from watching.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`] when the folder cannot be made or listed.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        folder: &Path,
    ) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::io(folder, source);
        disk.create_dir(folder).map_err(io)?;
        let mut state = State::default();
        for name in disk.list(folder).map_err(io)? {
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(RECORD_SUFFIX)) else {
                continue;
            };
            let path = folder.join(&name);
            let read = os::read(&*disk, &path, RECORD_BYTES_MAX);
            let problem = match read.map(|bytes| serde_json::from_slice::<AlarmRecord>(&bytes)) {
                Ok(Ok(record)) if record.version == VERSION && record.id == id => {
                    let sent = told(&*disk, folder, id);
                    state.remember(record, sent);
                    continue;
                }
                Ok(Ok(record)) => format!("alarm {} of version {}", record.id, record.version),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            warn!(path = %path.display(), problem, "ignored file among the alarms");
        }
        let (folder, state) = (folder.to_owned(), Mutex::new(state));
        Ok(Self { disk, clock, folder, state, untold: Notify::new() })
    }

    /// Raises an alarm, unless it lasts: log line, metric, file; the webhook follows by itself.
    ///
    /// Cheap when it lasts already. Else it blocks for some syncs of the disk, so that an alarm is
    /// durable when this returns.
    pub fn raise(&self, alarm: Alarm) -> Raised {
        let key = alarm.key();
        let mut state = self.lock();
        if let Some(lasting) = state.lasting.get(&key).and_then(|id| state.kept.get(id)) {
            return Raised::Lasting(lasting.clone());
        }
        let kind = alarm.kind;
        metrics::counter!("access_ledger_alarms_total", "kind" => kind.name()).increment(1);
        let alike = |(other, _): &(&Key, &String)| other.kind == kind && other.origin == key.origin;
        let is_crowded = state.lasting.iter().filter(alike).count() >= LASTING_MAX;
        if is_crowded {
            let oldest = state.lasting.iter().filter(alike).min_by_key(|(_, id)| *id);
            let goes = oldest.filter(|(_, id)| kind.is_event() && self.is_past(&state, id));
            match goes.map(|(oldest, _)| oldest.clone()) {
                Some(oldest) => drop(self.close(&mut state, &oldest, "made room for a newer one")),
                None => {
                    if state.crowded.insert((kind, key.origin)) {
                        error!(%kind, most = LASTING_MAX, "only counts more alarms of this kind");
                    }
                    return Raised::Counted;
                }
            }
        }
        let record = self.record(&state, &alarm, &key.place);
        error!(
            %kind, origin = record.origin, index = record.index, size = record.size,
            party = record.party, id = record.id, message = record.message, "raised alarm"
        );
        self.write(&record, alarm.evidence.as_deref());
        state.remember(record.clone(), None);
        drop(state);
        self.untold.notify_one();
        Raised::New(record)
    }

    /// Ends an alarm, if it lasts; whether it did. `by` says why: one sentence.
    pub fn end(&self, kind: AlarmKind, origin: &str, place: Place, by: &str) -> bool {
        let key = Key { kind, origin: origin.to_owned(), place };
        let mut state = self.lock();
        let ended = self.close(&mut state, &key, by);
        drop(state);
        if ended {
            self.untold.notify_one();
        }
        ended
    }

    /// Ends an alarm that is kept, as [`Alarms::end`].
    pub fn end_record(&self, record: &AlarmRecord, by: &str) -> bool {
        let Key { kind, origin, place } = record.key();
        self.end(kind, &origin, place, by)
    }

    /// Forgets the evidence about entries whose events were erased lawfully: it may hold their
    /// bytes. The alarms stay.
    pub fn forget_evidence(&self, first: Index, last: Index) {
        let mut state = self.lock();
        let concerns = |record: &&mut AlarmRecord| {
            let index = record.index.map(Index);
            index.is_some_and(|index| (first..=last).contains(&index)) && record.evidence.is_some()
        };
        for record in state.kept.values_mut().filter(concerns) {
            (record.evidence, record.evidence_sha256) = (None, None);
            self.replace(&record.id, RECORD_SUFFIX, &encode(record));
            self.remove(&record.id, EVIDENCE_SUFFIX);
        }
    }

    /// The alarms that last, the oldest first.
    #[must_use]
    pub fn lasting(&self) -> Vec<AlarmRecord> {
        let mut lasting = self.all();
        lasting.retain(AlarmRecord::is_lasting);
        lasting
    }

    /// All alarms that are kept, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<AlarmRecord> {
        self.lock().kept.values().cloned().collect()
    }

    /// Places of the lasting alarms of one kind and ledger.
    #[must_use]
    pub fn places(&self, kind: AlarmKind, origin: &str) -> Vec<Place> {
        let state = self.lock();
        let alike = |key: &&Key| key.kind == kind && key.origin == origin;
        state.lasting.keys().filter(alike).map(|key| key.place.clone()).collect()
    }

    /// Where the evidence of an alarm lies, if it has any.
    #[must_use]
    pub fn evidence(&self, record: &AlarmRecord) -> Option<PathBuf> {
        record.evidence.as_ref().map(|name| self.folder.join(name))
    }

    /// What the webhook has not taken yet, the oldest first: id and body.
    pub(super) fn unsent(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        let records = state.unsent.iter().filter_map(|id| state.kept.get(id));
        records.map(|record| (record.id.clone(), encode(record))).collect()
    }

    /// The webhook has taken this body of an alarm.
    pub(super) fn sent(&self, id: &str, body: &[u8]) {
        let mut state = self.lock();
        let Some(record) = state.kept.get(id) else { return };
        let told = Told::of(record);
        // It may have ended while it was on its way.
        if encode(record) == body {
            state.unsent.remove(id);
            self.replace(id, SENT_SUFFIX, told.text().as_bytes());
        }
    }

    /// Waits until something is to be told.
    pub(super) async fn untold(&self) {
        self.untold.notified().await;
    }

    /// Whether an alarm was raised longer than [`EVENT_SPAN`] ago.
    fn is_past(&self, state: &State, id: &str) -> bool {
        let raised_at = state.kept.get(id).and_then(|record| record.raised_at.parse().ok());
        let span = time(self.clock.now_nanos()).duration_since(raised_at.unwrap_or(Timestamp::MIN));
        span.unsigned_abs() > EVENT_SPAN
    }

    /// The alarm as it is kept, under an id of its own.
    fn record(&self, state: &State, alarm: &Alarm, place: &Place) -> AlarmRecord {
        let now = time(self.clock.now_nanos());
        let stem = format!("{}-{}-{place}", now.strftime("%Y%m%dT%H%M%SZ"), alarm.kind);
        let mut id = stem.clone();
        for copy in 2_u32.. {
            if !state.kept.contains_key(&id) {
                break;
            }
            id = format!("{stem}-{copy}");
        }
        let evidence = alarm.evidence.as_ref();
        AlarmRecord {
            version: VERSION,
            kind: alarm.kind,
            origin: alarm.origin.clone(),
            index: alarm.index.map(|index| index.0),
            size: alarm.size.0,
            party: alarm.party.clone(),
            message: alarm.message.clone(),
            evidence: evidence.map(|_| format!("{id}{EVIDENCE_SUFFIX}")),
            evidence_sha256: evidence.map(|text| sha256(text.as_bytes()).to_string()),
            raised_at: now.to_string(),
            ended_at: None,
            ended_by: None,
            id,
        }
    }

    /// The evidence first: an alarm that names it is never without it.
    fn write(&self, record: &AlarmRecord, evidence: Option<&str>) {
        if let Some(text) = evidence {
            self.replace(&record.id, EVIDENCE_SUFFIX, text.as_bytes());
        }
        self.replace(&record.id, RECORD_SUFFIX, &encode(record));
    }

    fn replace(&self, id: &str, suffix: &str, bytes: &[u8]) {
        let path = self.path(id, suffix);
        if let Err(problem) = os::replace(&*self.disk, &path, bytes) {
            error!(path = %path.display(), %problem, "could not write alarm, keeping it in memory");
        }
    }

    fn close(&self, state: &mut State, key: &Key, by: &str) -> bool {
        let Some(id) = state.lasting.remove(key) else {
            return false;
        };
        state.crowded.remove(&(key.kind, key.origin.clone()));
        let Some(record) = state.kept.get_mut(&id) else {
            return false;
        };
        record.ended_at = Some(time(self.clock.now_nanos()).to_string());
        record.ended_by = Some(printable(by));
        info!(kind = %key.kind, origin = key.origin, id, by, "ended alarm");
        self.replace(&id, RECORD_SUFFIX, &encode(record));
        state.unsent.insert(id);
        self.prune(state, key);
        true
    }

    /// Forgets of those of this kind and ledger that ended what lies between the first ones and the
    /// newest, beyond [`ENDED_MAX`].
    fn prune(&self, state: &mut State, like: &Key) {
        let ended = |record: &&AlarmRecord| {
            !record.is_lasting() && record.kind == like.kind && record.origin == like.origin
        };
        let beyond = state.kept.values().filter(ended).count().saturating_sub(ENDED_MAX);
        let between = state.kept.values().filter(ended).skip(ENDED_MAX / 2).take(beyond);
        for id in between.map(|record| record.id.clone()).collect::<Vec<_>>() {
            // The record last: what is left after a crash is found by it.
            for suffix in [SENT_SUFFIX, EVIDENCE_SUFFIX, RECORD_SUFFIX] {
                self.remove(&id, suffix);
            }
            state.kept.remove(&id);
            state.unsent.remove(&id);
        }
    }

    fn remove(&self, id: &str, suffix: &str) {
        let removed = self.disk.remove(&self.path(id, suffix));
        let removed = removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        if let Err(problem) = removed {
            warn!(id, suffix, %problem, "could not remove file of an alarm");
        }
    }

    fn path(&self, id: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{id}{suffix}"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is changed in part where something could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, record: AlarmRecord, sent: Option<Told>) {
        let id = record.id.clone();
        if sent != Some(Told::of(&record)) {
            self.unsent.insert(id.clone());
        }
        if record.is_lasting() {
            self.lasting.insert(record.key(), id.clone());
        }
        self.kept.insert(id, record);
    }
}

impl Told {
    const fn of(record: &AlarmRecord) -> Self {
        if record.is_lasting() { Self::Raised } else { Self::Ended }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Raised => "raised\n",
            Self::Ended => "ended\n",
        }
    }
}

impl Raised {
    /// The alarm, unless it was only counted.
    #[must_use]
    pub const fn record(&self) -> Option<&AlarmRecord> {
        match self {
            Self::New(record) | Self::Lasting(record) => Some(record),
            Self::Counted => None,
        }
    }
}

/// How far the webhook had got with an alarm. What cannot be read is told once more.
fn told(disk: &dyn Disk, folder: &Path, id: &str) -> Option<Told> {
    let bytes = os::read(disk, &folder.join(format!("{id}{SENT_SUFFIX}")), 64).ok()?;
    [Told::Raised, Told::Ended].into_iter().find(|told| told.text().as_bytes() == bytes)
}

fn encode(record: &AlarmRecord) -> Vec<u8> {
    // Only a map whose keys are no text, or a type's own refusal, could fail.
    let mut bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Nanoseconds since the Unix epoch as a time.
pub(super) fn time(nanos: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

/// Alarms of one kind and ledger that last at a time: enough to see a pattern.
pub const LASTING_MAX: usize = 100;

/// Ended alarms of one kind and ledger that are kept: what there is to look at after a bad year.
pub const ENDED_MAX: usize = 60;

/// How long the newest [`LASTING_MAX`] alarms about what happens once stay at least.
pub const EVENT_SPAN: Duration = Duration::from_secs(3_600);

const VERSION: u32 = 1;

/// More than any message makes.
const RECORD_BYTES_MAX: usize = 1 << 20;

const RECORD_SUFFIX: &str = ".json";
const EVIDENCE_SUFFIX: &str = ".txt";
const SENT_SUFFIX: &str = ".sent";

#[cfg(test)]
pub(super) mod tests;
