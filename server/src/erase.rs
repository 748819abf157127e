//! Carries out the redactions of a log, wherever it is held: at the ledger and at the custodian.
//!
//! A thread follows what checkpoints cover. Each redaction that is lawful
//! (`access_ledger_proto::facts::redactions`) is carried out in steps that a stop at any point
//! leaves to be repeated:
//!
//! 1. what is to be erased is noted, durably (progress.rs);
//! 2. the events' bytes are overwritten in the log, durably (storage/erase.rs);
//! 3. the index forgets what they had said, on disk and in memory (index/purge.rs);
//! 4. that the redactions up to here are carried out is noted, durably.
//!
//! Events that are never erased stay, whatever a redaction covers; one that is not lawful erases
//! nothing. A run of the retention that is dated ahead of the own clock waits until that time: the
//! ledger dates its entries, and must not make a custodian lose what is not old. At the ledger the
//! same thread records the runs of the retention (expiry.rs).

mod admission;
mod expiry;
mod progress;
mod retry;
mod waiting;
mod wipe;

use std::{
    mem,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use access_ledger_proto::{
    entry::Entry,
    event::{self, Body},
    facts::{
        control::retention_after,
        redactions::{Erasable, Erasing, Retention, judge},
    },
    position::{Index, Size, count_of, memory_len},
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use tracing::{error, info, warn};

pub(crate) use self::{admission::check, expiry::RecordRun, progress::Progress};
use self::{expiry::Expiry, retry::Retry, wipe::wipe};
use crate::{
    book::Book,
    error::{LedgerError, StorageError},
    index::IndexError,
    os::Disk,
    refusal::Refusal,
    storage::Attempt,
};

/// Why redactions are not carried out.
#[derive(Debug, Error)]
enum EraseError {
    /// The log cannot be read or overwritten, or the progress not be kept. For the operator.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The index cannot forget. For the operator.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A run of the retention was not recorded.
    #[error("run of the retention: {0}")]
    Refused(#[from] Refusal),
}

impl EraseError {
    /// Whether it may go well later. Not after a failed write or sync: nobody knows what is on the
    /// disk then. Damage keeps what lies elsewhere from nothing.
    fn is_passing(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(error, StorageError::Damage { .. }),
            Self::Index(error) => error.is_passing() || matches!(error, IndexError::Rotten { .. }),
            Self::Refused(_) => true,
        }
    }
}

/// The running thread. Dropping it stops the thread and waits for it.
pub(crate) struct Eraser {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread to stop.
#[derive(Default)]
struct Signal {
    is_stopping: Mutex<bool>,
    changed: Condvar,
}

/// What the thread works on.
struct Work {
    book: Arc<Book>,
    disk: Arc<dyn Disk>,
    /// The data folder.
    folder: PathBuf,
    /// As far as the log was looked at.
    progress: Progress,
    /// In force there.
    retention: Option<Retention>,
    /// What was found and is not carried out yet.
    pending: Vec<Erasing>,
    /// What was carried out but for damaged frames: as many as redactions that cover such.
    damaged: Vec<Erasing>,
    /// An earlier attempt may have been cut off: the disk may not hold what the files seem to.
    is_repeated: bool,
    /// The index may know of events that are gone.
    index_is_stale: bool,
    /// Of the damaged, and of what the index did not forget.
    retry: Retry,
    /// The log's size when this began.
    opened: Size,
    /// As it was noted last.
    noted: Progress,
    expiry: Option<Expiry>,
    signal: Arc<Signal>,
}

impl Eraser {
    /// Starts to carry out the redactions of the log that `book` holds in `folder`. With `runs`,
    /// those of the retention are recorded, too: only the ledger itself can.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Storage`] when the disk refuses; [`LedgerError::Thread`] when the system
    /// gives no thread.
    pub(crate) fn spawn(
        book: Arc<Book>,
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        runs: Option<RecordRun>,
    ) -> Result<Self, LedgerError> {
        let signal = Arc::new(Signal::default());
        let mut work = Work::open(book, disk, folder, signal.clone())?;
        work.expiry = runs.map(Expiry::new);
        let thread = thread::Builder::new()
            .name("erase".into())
            .spawn(move || work.run())
            .map_err(|source| LedgerError::Thread { source })?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for Eraser {
    fn drop(&mut self) {
        self.signal.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("erasing thread panicked");
        }
    }
}

impl Signal {
    fn stop(&self) {
        *self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn is_stopping(&self) -> bool {
        *self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until it is to stop; then `true`.
    fn wait(&self, time: Duration) -> bool {
        let state = self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, time, |is_stopping| !*is_stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Work {
    fn open(
        book: Arc<Book>,
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        signal: Arc<Signal>,
    ) -> Result<Self, StorageError> {
        let loaded = Progress::load(&*disk, &folder)?;
        // Nobody knows what a lost note was about.
        let mut is_repeated = loaded.as_ref().is_none_or(|noted| !noted.under_way.is_empty());
        let mut progress = loaded.unwrap_or_default();
        let retention = match progress.retention {
            0 => None,
            index => stored_retention(&book, Index(index))?,
        };
        if book.published().size < Size(progress.size)
            || retention.is_none() && progress.retention > 0
        {
            // Of another log, or not to be read.
            (progress, is_repeated) = (Progress::default(), true);
        }
        Ok(Self {
            opened: book.published().size,
            book,
            disk,
            folder,
            noted: progress.clone(),
            progress: Progress { under_way: Vec::new(), ..progress },
            retention,
            pending: Vec::new(),
            damaged: Vec::new(),
            is_repeated,
            index_is_stale: is_repeated,
            retry: Retry::default(),
            expiry: None,
            signal,
        })
    }

    fn run(mut self) {
        crate::index::step_back();
        loop {
            match self.advance() {
                Ok(()) => {}
                Err(error) if error.is_passing() => {
                    warn!(%error, "redactions wait, tries again");
                    if self.signal.wait(RETRY_DELAY) {
                        return;
                    }
                }
                Err(error) => {
                    metrics::gauge!("access_ledger_eraser_poisoned").set(1.0);
                    error!(%error, "stopped carrying out redactions");
                    return;
                }
            }
            if self.signal.wait(LOOK_INTERVAL) {
                return;
            }
        }
    }

    /// Carries out what the log asks for by now, and records a run of the retention if one is due.
    fn advance(&mut self) -> Result<(), EraseError> {
        let end = self.book.published().size.next_index();
        while !self.signal.is_stopping() {
            let before = self.progress.size;
            self.take_due()?;
            // What cannot be read keeps nothing waiting that was found before it.
            let looked = self.look(end);
            self.carry_out()?;
            if self.pending.is_empty() && !self.signal.is_stopping() {
                self.book.note_erased(Size(self.progress.size));
            }
            looked?;
            if self.progress.size == end.0 || self.progress.size == before {
                break;
            }
        }
        if self.progress.size < self.book.published().size.0 || self.signal.is_stopping() {
            return Ok(());
        }
        let Some(mut expiry) = self.expiry.take() else { return Ok(()) };
        let expired = self.retention.as_ref().map_or(Ok(()), |retention| {
            expiry.run(&self.book, retention, Index(self.progress.expired))
        });
        self.expiry = Some(expiry);
        expired
    }

    /// Reads on in the log, up to `end`, and collects the lawful redactions.
    fn look(&mut self, end: Index) -> Result<(), EraseError> {
        let first = self.progress.size;
        while self.progress.size < end.0
            && self.pending.len() < REDACTIONS_MAX
            && self.progress.size - first < LOOK_ENTRIES_MAX
            && self.progress.waiting.len() < WAITING_MAX
            && !self.signal.is_stopping()
        {
            let next = Index(self.progress.size);
            let wanted = memory_len(end.0 - next.0).unwrap_or(usize::MAX);
            let read = |wanted| self.book.reader.read_past_rot(next, wanted, LOOK_BYTES);
            let (records, rotten) = match read(wanted) {
                Err(StorageError::Damage { index, .. }) if index > next => {
                    read(memory_len(index.0 - next.0).unwrap_or(usize::MAX))?
                }
                read => read?,
            };
            for (index, record) in (next.0..).map(Index).zip(&records) {
                if rotten.contains(&index) && self.may_rule(index, &record.entry) {
                    self.progress.size = index.0;
                    drop(self.book.reader.read(index, 1, LOOK_BYTES)?);
                    return Ok(());
                }
                if let Some(event) = &record.event {
                    let found = self.take(index, &record.entry, event);
                    self.pending.extend(found);
                }
            }
            self.progress.size += count_of(records.len());
        }
        Ok(())
    }

    /// Whether governance has recorded an entry: what is erased may depend on what it says.
    fn may_rule(&self, index: Index, entry: &Bytes) -> bool {
        let Ok(entry) = Entry::parse(entry) else { return true };
        Erasable::of(&self.book.sources(), entry.source, index) == Erasable::Never
    }

    /// Takes up an event; what it erases, if it is a lawful redaction.
    fn take(&mut self, index: Index, entry: &Bytes, event: &Bytes) -> Option<Erasing> {
        let body = event::body(event)?;
        if !matches!(body.number, Body::REDACTION | Body::CONTROL_CHANGE) {
            return None;
        }
        let entry = Entry::parse(entry).ok()?;
        let sources = self.book.sources().before(index);
        let retention = self.retention.as_ref();
        if body.number == Body::CONTROL_CHANGE {
            let change = wire::ControlChange::decode(body.bytes).ok()?;
            let after = retention_after(&sources, retention, (entry.source, index), &change);
            if let Some(after) = after {
                self.progress.retention = after.index.0;
                self.retention = Some(after);
            }
            return None;
        }
        let redaction = wire::Redaction::decode(body.bytes).ok()?;
        let place = (index, entry.recorded_at);
        match judge(&sources, retention, place, entry.source, &redaction) {
            Ok(erasing) => {
                if !erasing.is_run() {
                    return Some(erasing);
                }
                self.progress.expired = erasing.range().end() + 1;
                (!self.puts_off(index, entry.recorded_at)).then_some(erasing)
            }
            Err(error) => {
                warn!(%index, %error, "left a redaction alone that is not lawful");
                None
            }
        }
    }

    /// Erases what was found, in the log and in the index, and notes how far that is. What is cut
    /// off by a stop is done again at the next start; what is damaged, and what the index could not
    /// forget, here, by and by. Until all is done the note stands where it stood, so that the next
    /// start comes upon it again.
    fn carry_out(&mut self) -> Result<(), EraseError> {
        let is_due = !self.noted.under_way.is_empty() && self.retry.is_due();
        if self.pending.is_empty() && !is_due {
            if self.noted.under_way.is_empty()
                && self.progress.size - self.noted.size >= NOTE_ENTRIES
            {
                self.note(self.progress.clone())?;
            }
            return Ok(());
        }
        self.note(self.noted.clone().begin(ranges(&self.pending)))?;
        let damage = self.wipe(is_due)?;
        let under_way = self.noted.under_way();
        let is_stopping = || self.signal.is_stopping();
        let Book { index, reader, .. } = &*self.book;
        if is_stopping() {
            return Ok(());
        }
        if self.index_is_stale {
            match index.forget(reader, &under_way, &is_stopping) {
                Ok(true) => self.index_is_stale = false,
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.retry.put_off();
                    return Err(error.into());
                }
            }
        }
        if self.damaged.is_empty() {
            self.retry = Retry::default();
            return self.note(self.progress.clone());
        }
        let under_way = ranges(&self.damaged).collect();
        self.note(Progress { under_way, ..self.noted.clone() })?;
        damage.map_or(Ok(()), |damage| {
            self.retry.put_off();
            Err(damage.into())
        })
    }

    /// Erases what was found from the log, and what was damaged if that `is_due`; what is damaged.
    fn wipe(&mut self, is_due: bool) -> Result<Option<StorageError>, EraseError> {
        let attempt = if self.is_repeated { Attempt::Again } else { Attempt::First };
        let again = if is_due { mem::take(&mut self.damaged) } else { Vec::new() };
        let (mut events, mut damage) = (0, None);
        for erasing in again.iter().chain(&self.pending) {
            let wiped = wipe(&self.book, erasing, attempt, &|| self.signal.is_stopping())?;
            events += wiped.events;
            if let Some(error) = wiped.damage {
                damage.get_or_insert(error);
                self.damaged.push(*erasing);
            }
        }
        if self.signal.is_stopping() {
            return Ok(None);
        }
        // What was erased before it came here never was in the index.
        self.index_is_stale |= events > 0;
        self.is_repeated &= self.progress.size < self.opened.0;
        metrics::counter!("access_ledger_erased_events_total").increment(events);
        let redactions = self.pending.len();
        info!(redactions, events, damaged = self.damaged.len(), "erased events from the log");
        self.pending.clear();
        Ok(damage)
    }

    fn note(&mut self, progress: Progress) -> Result<(), EraseError> {
        progress.save(&*self.disk, &self.folder)?;
        self.noted = progress;
        Ok(())
    }
}

/// Their first and last indexes.
fn ranges(erasings: &[Erasing]) -> impl Iterator<Item = (u64, u64)> {
    erasings.iter().map(|erasing| erasing.range().into_inner())
}

/// The retention that a change in the log has brought; `None` also when that has rotted.
fn stored_retention(book: &Book, index: Index) -> Result<Option<Retention>, StorageError> {
    if !book.published().size.contains(index) {
        return Ok(None);
    }
    let (mut records, _) = book.reader.read_past_rot(index, 1, usize::MAX)?;
    let event = records.pop().and_then(|record| record.event);
    let change = event.and_then(|event| {
        let body = event::body(&event).filter(|body| body.number == Body::CONTROL_CHANGE)?;
        wire::ControlChange::decode(body.bytes).ok()
    });
    Ok(change.and_then(|change| Retention::read(index, &change)))
}

/// How long nobody looks for new redactions: erasing is not what anybody waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// After an error that may pass.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Bytes of one read of the log.
const LOOK_BYTES: usize = 256 << 10;

/// Entries that are read before what was found among them is carried out.
const LOOK_ENTRIES_MAX: u64 = 1 << 20;

/// Redactions that are carried out together: the index is built again once for all of them.
const REDACTIONS_MAX: usize = 1_024;

/// Runs that wait for their time. Nothing behind more of them is carried out before.
const WAITING_MAX: usize = 1_024;

/// Entries without redactions after which it is noted that there were none: so many are read again
/// at a start.
const NOTE_ENTRIES: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Fault, storage::file::io_error};

    #[test]
    fn damage_waits_and_a_failed_write_ends_the_thread() {
        let (segment, offset, index) = (Index(0), 64, Index(7));
        let damage = StorageError::Damage { segment, offset, index, fault: Fault::Footer };
        assert!(EraseError::from(damage).is_passing());
        let full = std::io::ErrorKind::StorageFull.into();
        let failed = io_error("write", std::path::Path::new("log"))(full);
        assert!(!EraseError::from(failed).is_passing());
        assert!(!EraseError::from(StorageError::Poisoned).is_passing());
    }
}
