//! For services: number, batch, seal, send, verify the receipt, repeat.
//!
//! A recorder takes the events of one source in order and sees to it that the ledger records each of
//! them exactly once. It believes the ledger nothing: a ticket is resolved only when a receipt proves
//! that the event is under a checkpoint that the ledger signed, and every checkpoint must go on from the
//! newest one seen. A proof that fails ends the recorder with the evidence; it is never asked for again.
//!
//! With a spool an accepted event survives a crash of the service and an outage of the ledger. Without
//! one, what has no receipt is lost with the process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Seal,
    error::SealError,
    event,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::Index,
    receipt::TlogProof,
    source::SourceName,
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use self::{
    batch::{Notary, Place},
    driver::{Backoff, Driver, Interrupt, Ledger, Pace},
    shared::{BatchLimits, Outcome, Shared, Start},
};
use crate::{
    connect,
    error::{RecorderError, SpoolError},
    spool::{Owner, Spool, files::Folder},
};

mod batch;
mod driver;
mod keeper;
mod shared;

/// Records the events of one source. Share it between tasks behind an `Arc`.
///
/// Call [`Recorder::close`] before the process ends: dropping a recorder stops it at once. What has no
/// receipt by then stays in the spool, or, without one, is lost; the log says how many.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    source: SourceName,
    driver: AbortHandle,
    /// Resolves when the spool's files are closed.
    keeper: Mutex<Option<oneshot::Receiver<()>>>,
    deadline: Duration,
}

/// An event that was accepted. Dropping it changes nothing.
#[derive(Clone, Debug)]
#[must_use = "without its receipt, nobody knows that the event was recorded"]
pub struct Ticket {
    seq: u64,
    outcome: watch::Receiver<Outcome>,
}

/// A recorded event, proven by a verified receipt.
#[derive(Clone, Debug)]
pub struct Recorded {
    seq: u64,
    place: Arc<Place>,
}

/// How a recorder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Events without a verified receipt: still in the spool, or lost without one.
    pub unsent: u64,
}

/// Options of a recorder; [`Builder::start`] makes it.
#[derive(Debug)]
#[must_use = "a recorder runs once it is started"]
pub struct Builder {
    channel: Channel,
    key: Signer,
    ledger: VerifierKey,
    limits: BatchLimits,
    pace: Pace,
    memory_bytes_max: usize,
    spool: Option<(PathBuf, u64)>,
}

impl Recorder {
    /// A recorder for the source that `key` is named like, at the ledger with the key `ledger`, whose
    /// name is the origin.
    pub const fn builder(channel: Channel, key: Signer, ledger: VerifierKey) -> Builder {
        let limits = BatchLimits { events_max: 256, bytes_max: 1 << 20 };
        let pace = Pace {
            batch_delay: Duration::from_millis(5),
            in_flight_max: 16,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
        };
        Builder { channel, key, ledger, limits, pace, memory_bytes_max: 32 << 20, spool: None }
    }

    /// Accepts an event, and waits for room while there is none.
    ///
    /// An absent `event_id` is filled in with random bytes, an absent `occurred_at` with the time. With
    /// a spool the event is on disk when this returns. Dropping the future does not take the event back
    /// once it has its number.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Event`] for one that breaks the rules of `event.proto`;
    /// [`RecorderError::Random`]; [`RecorderError::Closed`]; or what ended the recorder.
    pub async fn record(&self, event: wire::Event) -> Result<Ticket, RecorderError> {
        self.record_encoded(encode(event)?).await
    }

    /// As [`Recorder::record`], for the bytes of an event: they are recorded as they are.
    ///
    /// # Errors
    ///
    /// As [`Recorder::record`].
    pub async fn record_encoded(&self, event: Bytes) -> Result<Ticket, RecorderError> {
        let digest = check(&event)?;
        self.shared.reserve(&event).await?;
        let ticket = self.shared.push(event, digest)?;
        if self.shared.has_spool() {
            self.shared.wait(|progress| progress.durable >= ticket.seq).await?;
        }
        Ok(ticket)
    }

    /// Accepts an event if there is room for it. With a spool it is on its way to the disk when this
    /// returns, but need not be there.
    ///
    /// # Errors
    ///
    /// As [`Recorder::record`]; [`RecorderError::Full`] without room.
    pub fn try_record(&self, event: wire::Event) -> Result<Ticket, RecorderError> {
        let event = encode(event)?;
        let digest = check(&event)?;
        self.shared.try_reserve(&event)?;
        self.shared.push(event, digest)
    }

    /// Waits until all events that were accepted before this call are recorded.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Closed`], or what ended the recorder.
    pub async fn flush(&self) -> Result<(), RecorderError> {
        let (last, _) = self.shared.numbers();
        self.shared.wait(|progress| progress.settled >= last).await
    }

    /// Takes no more events, waits until all are recorded, and ends.
    ///
    /// Waits no longer than the deadline. Then, what the ledger did not answer stays in the spool, or,
    /// without one, is lost.
    ///
    /// # Errors
    ///
    /// What ended the recorder before.
    pub async fn close(&self) -> Result<Closed, RecorderError> {
        self.shared.close();
        let flushed = timeout(self.deadline, self.flush()).await;
        self.driver.abort();
        self.shared.stop();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // An error is how the keeper says that it has ended.
            drop(keeper.await);
        }
        match flushed {
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(())) | Err(_) => Ok(Closed { unsent: self.shared.unsettled() }),
        }
    }

    /// The source whose events it records.
    #[must_use]
    pub const fn source(&self) -> &SourceName {
        &self.source
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.driver.abort();
        self.shared.stop();
        let unsent = self.shared.unsettled();
        if unsent == 0 {
            return;
        }
        let source = self.source.as_str();
        if self.shared.has_spool() {
            tracing::warn!(source, unsent, "recorder ended, the spool keeps unsent events");
        } else {
            tracing::error!(
                source,
                unsent,
                "recorder ended without a spool, unsent events are lost"
            );
        }
    }
}

impl Ticket {
    /// The source's own number of the event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Waits for the verified receipt.
    ///
    /// # Errors
    ///
    /// What ended the recorder. With a spool the event is still in it, and the next recorder on that
    /// spool goes on with it, unless the ledger refused it for good.
    pub async fn receipt(mut self) -> Result<Recorded, RecorderError> {
        let seq = self.seq;
        let settled = |outcome: &Outcome| match outcome {
            Ok(places) => places.last().is_some_and(|place| place.last_seq >= seq),
            Err(_) => true,
        };
        let outcome = self.outcome.wait_for(settled).await.map_err(|_| RecorderError::Closed)?;
        let places = outcome.as_ref().map_err(Clone::clone)?;
        let place = places.iter().find(|place| (place.first_seq..=place.last_seq).contains(&seq));
        let place = Arc::clone(place.ok_or(RecorderError::Closed)?);
        Ok(Recorded { seq, place })
    }
}

impl Recorded {
    /// The source's own number of the event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Where the event lies in the log.
    #[must_use]
    pub fn index(&self) -> Index {
        self.place.first_index.plus(self.seq - self.place.first_seq)
    }

    /// When the ledger says that it recorded the event: nanoseconds since the Unix epoch.
    #[must_use]
    pub fn recorded_at(&self) -> u64 {
        self.place.recorded_at
    }

    /// The signed checkpoint that covers the event.
    #[must_use]
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.place.checkpoint
    }

    /// The proof that was verified, of the last entry of the batch: by the chain it covers this event.
    /// The file of an earlier entry comes from `AuditService.GetReceipt`.
    #[must_use]
    pub fn proof(&self) -> &TlogProof {
        &self.place.proof
    }
}

impl Builder {
    /// Most events of a batch: 1 to 4,096, default 256.
    pub fn batch_events_max(mut self, events: usize) -> Self {
        self.limits.events_max = events.clamp(1, usize::from(Seal::COUNT_MAX));
        self
    }

    /// Most bytes of the events of a batch: at most 4 MiB, default 1 MiB. A longer event is a batch of
    /// its own.
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes.clamp(1, BATCH_BYTES_MAX);
        self
    }

    /// How long events gather into a batch while others are in flight; default 5 ms. While none is,
    /// what waits is sent at once.
    pub const fn batch_delay(mut self, delay: Duration) -> Self {
        self.pace.batch_delay = delay;
        self
    }

    /// Most batches that are sent and not answered: 1 to 1,024, default 16.
    pub fn in_flight_max(mut self, batches: usize) -> Self {
        self.pace.in_flight_max = batches.clamp(1, IN_FLIGHT_MAX);
        self
    }

    /// Most bytes of events in memory that are neither synced nor recorded: at least 1 MiB, default
    /// 32 MiB. With a spool, about as much again is kept in memory to be sent.
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.memory_bytes_max = bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_LIMIT);
        self
    }

    /// Shortest and longest delay between attempts after failures; default 50 ms and 10 s. A ledger
    /// that asks for a longer one gets it.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.pace.backoff_min = min;
        self.pace.backoff_max = max.max(min);
        self
    }

    /// How long the ledger may leave a call or the oldest batch in flight without an answer before the
    /// connection counts as broken, and how long starting and closing may take; default 30 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.pace.deadline = deadline;
        self
    }

    /// Keeps events in this folder, made if need be, until their receipt is verified; at most `bytes_max`
    /// bytes of files, at least 1 MiB. One recorder uses it at a time.
    pub fn spool(mut self, folder: impl AsRef<Path>, bytes_max: u64) -> Self {
        let bytes_max = bytes_max.max(SPOOL_BYTES_MIN);
        self.spool = Some((folder.as_ref().to_owned(), bytes_max));
        self
    }

    /// Starts the recorder, inside a tokio runtime with time enabled.
    ///
    /// Asks the ledger where the source stands: numbers go on from there. With a spool that has been
    /// used before, it starts without an answer, and sends what the spool holds once the ledger is back.
    /// When the ledger knows more than the spool, the spool was lost, and a `SourceStatus` of the phase
    /// `GAP_DECLARED` is recorded first.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Name`], [`RecorderError::Seal`] for a key that no source can have;
    /// [`RecorderError::Spool`]; [`RecorderError::Deadline`] without an answer in time;
    /// [`RecorderError::Refused`] for an unknown source; [`RecorderError::Origin`],
    /// [`RecorderError::Key`] for another ledger or key; [`RecorderError::Lost`] when the ledger lost
    /// what the spool knows to be recorded.
    pub async fn start(self) -> Result<Recorder, RecorderError> {
        let source = SourceName::parse(self.key.name())?;
        if self.key.verifier().key_type() != KeyType::Ed25519 {
            return Err(SealError::Key.into());
        }
        let ledger = Ledger {
            recorder: connect::recorder_client(self.channel.clone()),
            audit: connect::audit_client(self.channel.clone()),
            deadline: self.pace.deadline,
        };
        let owner = Owner::new(&self.key, &self.ledger);
        let notary =
            Notary { source: source.clone(), key: self.key, ledger: self.ledger, newest: None };
        let mut spool = match self.spool {
            Some((folder, bytes_max)) => Some(open_spool(folder, bytes_max, owner).await?),
            None => None,
        };
        let known = spool.as_ref().map_or(0, |(spool, _)| spool.last());
        let last = ask(&ledger, &notary, &self.pace, known > 0).await?;
        let begin = begin(spool.as_mut(), last)?;
        let shared = Arc::new(Shared::new(begin, self.limits, self.memory_bytes_max));
        let keeper = spool.map(|(spool, _)| keeper::spawn(spool, Arc::clone(&shared)));
        let driver = Driver {
            shared: Arc::clone(&shared),
            ledger,
            notary,
            pace: self.pace,
            resync: last.is_none() || begin.unsettled > 0,
            backoff: Backoff::new(&self.pace),
            in_flight: std::collections::VecDeque::new(),
        };
        let recorder = Recorder {
            shared,
            source,
            driver: tokio::spawn(driver.run()).abort_handle(),
            keeper: Mutex::new(keeper),
            deadline: self.pace.deadline,
        };
        if let Some(last) = last
            && recorder.shared.has_spool()
            && last > known
        {
            tracing::warn!(known, last, "spool was lost, its gap is declared");
            let _ticket = recorder.record(gap(&recorder.source, known, last)).await?;
        }
        Ok(recorder)
    }
}

/// An opened spool, and the disk space of each event that waits in it.
type Opened = (Spool<Folder>, SpoolRoom);

#[derive(Clone, Copy, Debug)]
struct SpoolRoom {
    waiting: u64,
    free: usize,
}

/// Opens the spool on a thread of its own: it reads all files.
async fn open_spool(
    folder: PathBuf,
    bytes_max: u64,
    owner: Owner,
) -> Result<Opened, RecorderError> {
    let (opened, open) = oneshot::channel();
    std::thread::spawn(move || {
        // A file lives until all of it is acknowledged, so one more than what waits is on disk.
        let file_bytes_max = bytes_max / SPOOL_FILES;
        let free = usize::try_from(bytes_max - 2 * file_bytes_max).unwrap_or(usize::MAX);
        let spool =
            Folder::open(&folder).and_then(|files| Spool::open(files, owner, file_bytes_max));
        let spool = spool.map(|(spool, costs)| {
            let free = free.min(SPOOL_ROOM_MAX).saturating_sub(costs.iter().sum());
            (spool, SpoolRoom { waiting: costs.len() as u64, free })
        });
        // Whoever asked may be gone; then the spool is closed again.
        drop(opened.send(spool));
    });
    match open.await {
        Ok(spool) => Ok(spool?),
        Err(_) => Err(SpoolError::from(std::io::Error::other("spool thread ended")).into()),
    }
}

/// The last number that the ledger knows. `None` when it cannot be reached, and need not be.
async fn ask(
    ledger: &Ledger,
    notary: &Notary,
    pace: &Pace,
    can_wait: bool,
) -> Result<Option<u64>, RecorderError> {
    let mut backoff = Backoff::new(pace);
    let attempts = async {
        loop {
            match ledger.source_state(notary).await {
                Ok(state) => return Ok(Some(state.last_seq)),
                Err(Interrupt::Fatal(error)) => return Err(error),
                Err(_) if can_wait => {
                    tracing::warn!("ledger is out of reach, events wait in the spool");
                    return Ok(None);
                }
                Err(Interrupt::Retry(asked)) => sleep(backoff.next(asked)).await,
                Err(Interrupt::Resync) => sleep(backoff.next(None)).await,
            }
        }
    };
    let answer = timeout(pace.deadline, attempts).await;
    answer.unwrap_or(Err(RecorderError::Deadline { waited: pace.deadline }))
}

/// Where the recorder begins, from what the spool and the ledger know.
fn begin(spool: Option<&mut Opened>, last: Option<u64>) -> Result<Start, RecorderError> {
    let Some((spool, room)) = spool else {
        let last = last.unwrap_or_default();
        return Ok(Start { last, settled: last, unsettled: 0, spool_room: None });
    };
    let settled = spool.acknowledged();
    if let Some(found) = last.filter(|&last| last < settled) {
        return Err(RecorderError::Lost { found, wanted: settled });
    }
    let last = last.unwrap_or_default().max(spool.last());
    if last > spool.last() {
        spool.skip_numbers(last);
    }
    let unsettled = room.waiting;
    let settled = if unsettled == 0 { last } else { settled };
    Ok(Start { last, settled, unsettled, spool_room: Some(room.free) })
}

/// Tells the ledger that a spool was lost.
fn gap(source: &SourceName, known: u64, last: u64) -> wire::Event {
    let status = wire::SourceStatus {
        phase: wire::SourcePhase::GapDeclared.into(),
        source: source.as_str().to_owned(),
        reason: format!(
            "spool lost: it knows numbers up to {known}, the ledger holds {last}; how many events it \
             held beyond is unknown"
        ),
        ..wire::SourceStatus::default()
    };
    wire::Event { body: Some(wire::event::Body::SourceStatus(status)), ..wire::Event::default() }
}

/// Fills in what only the moment of recording knows.
fn encode(mut event: wire::Event) -> Result<Bytes, RecorderError> {
    if event.event_id.is_empty() {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| RecorderError::Random)?;
        event.event_id = Bytes::copy_from_slice(&id);
    }
    if event.occurred_at.is_none() {
        event.occurred_at = Some(now().into());
    }
    Ok(event.encode_to_vec().into())
}

fn check(event: &Bytes) -> Result<Digest, RecorderError> {
    let now = now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    event::validate(event, now)?;
    Ok(sha256(event))
}

#[expect(clippy::disallowed_methods, reason = "the one place where a recorder reads the clock")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// What the ledger takes in one batch.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Far more than any round trip needs.
const IN_FLIGHT_MAX: usize = 1_024;

/// Room for many of the longest events.
const MEMORY_BYTES_MIN: usize = 1 << 20;
const SPOOL_BYTES_MIN: u64 = 1 << 20;

/// Permits of a tokio semaphore are bounded by the address space; nobody means more.
const MEMORY_BYTES_LIMIT: usize = 1 << 34;
const SPOOL_ROOM_MAX: usize = 1 << 44;

/// Files that a full spool has.
const SPOOL_FILES: u64 = 16;

#[cfg(test)]
mod tests;
