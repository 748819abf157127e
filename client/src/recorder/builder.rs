//! Options of a recorder, and how it starts: from what its spool and the ledger know.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use access_ledger_proto::{
    entry::Seal,
    error::SealError,
    hash::Digest,
    note::{KeyType, Signer, VerifierKey},
    quorum::Quorum,
    receipt::ReceiptVerifier,
    source::SourceName,
    wire,
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Recorder,
    batch::Notary,
    driver::{Driver, Interrupt, Ledger, Pace, Persistence},
    keeper,
    pulse::{self, Rhythm},
    shared::{BatchLimits, Shared, Start},
};
use crate::{
    connect::{self, Link},
    error::{RecorderError, SpoolError},
    spool::{Owner, Spool, files::Folder},
};

/// Options of a recorder; [`Builder::start`] makes it.
#[derive(Debug)]
#[must_use = "a recorder runs once it is started"]
pub struct Builder {
    link: Link,
    key: Signer,
    ledger: VerifierKey,
    limits: BatchLimits,
    pace: Pace,
    memory_bytes_max: usize,
    spool: Option<(PathBuf, u64)>,
    persistence: Option<Persistence>,
    quorum: Quorum,
    heartbeat: Option<Duration>,
    build: Option<Digest>,
}

impl Builder {
    pub(super) fn new(link: Link, key: Signer, ledger: VerifierKey) -> Self {
        let limits = BatchLimits { events_max: 256, bytes_max: 1 << 20 };
        let pace = Pace {
            batch_delay: Duration::from_millis(5),
            in_flight_max: 16,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
        };
        Self {
            link,
            key,
            ledger,
            limits,
            pace,
            memory_bytes_max: 32 << 20,
            spool: None,
            persistence: None,
            quorum: Quorum::default(),
            heartbeat: None,
            build: None,
        }
    }

    /// Most events of a batch: 1 to 4,096, default 256.
    pub fn batch_events_max(mut self, events: usize) -> Self {
        self.limits.events_max = events.clamp(1, usize::from(Seal::COUNT_MAX));
        self
    }

    /// Most bytes of the events of a batch: at most 4 MiB, default 1 MiB. A longer event is a batch
    /// of its own.
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

    /// How long the ledger may leave a call or the oldest batch in flight without an answer before
    /// the connection counts as broken, and how long starting and closing may take; default 30 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.pace.deadline = deadline;
        self
    }

    /// Keeps events in this folder, made if need be, until their receipt is verified; at most
    /// `bytes_max` bytes of files, at least 1 MiB. One recorder uses it at a time.
    pub fn spool(mut self, folder: impl AsRef<Path>, bytes_max: u64) -> Self {
        let bytes_max = bytes_max.max(SPOOL_BYTES_MIN);
        self.spool = Some((folder.as_ref().to_owned(), bytes_max));
        self
    }

    /// With a spool: goes on whatever the ledger answers, for the spool takes events all the same.
    /// A refusal or a proof that does not hold is told to `told` instead of ending the recorder,
    /// and after `delay` the ledger is asked anew where the source stands. `told` gets `Ok` when
    /// the ledger has taken events for the first time, and after each trouble; it must not block.
    /// Default: such an answer ends the recorder, so that whoever records hears of it.
    pub fn persist(
        mut self,
        delay: Duration,
        told: impl Fn(Result<(), &RecorderError>) + Send + Sync + 'static,
    ) -> Self {
        self.persistence = Some(Persistence { delay, told: Arc::new(told) });
        self
    }

    /// Takes no receipt for a proof unless its checkpoint is cosigned as this policy wants; what is
    /// below is asked for again. The ledger should let its receipts wait for the same witnesses
    /// (`--receipts-policy`): one that does not gives the wanted receipts when it is quiet.
    /// Default: none.
    pub fn quorum(mut self, quorum: Quorum) -> Self {
        self.quorum = quorum;
        self
    }

    /// Silence that the source allows itself: when nothing was recorded for half of it, a heartbeat
    /// is. Default: what the source was registered with; zero: no heartbeats.
    ///
    /// With heartbeats the recorder also records STARTED when it starts, and STOPPED when it is
    /// closed, so that only a source that ended without a word is found silent.
    pub const fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// SHA-256 of the build that runs: recorded with STARTED, which is recorded then even without
    /// heartbeats, as is STOPPED.
    pub const fn build_digest(mut self, build: Digest) -> Self {
        self.build = Some(build);
        self
    }

    /// Starts the recorder, inside a tokio runtime with time enabled.
    ///
    /// Asks the ledger where the source stands: numbers go on from there. With a spool that has
    /// been used before, it starts without an answer, and sends what the spool holds once the
    /// ledger is back. When the ledger knows more than the spool, the spool was lost, and a
    /// `SourceStatus` of the phase `GAP_DECLARED` is recorded first; with heartbeats, one of the
    /// phase `STARTED` follows.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Name`], [`RecorderError::Seal`] for a key that no source can have;
    /// [`RecorderError::Spool`]; [`RecorderError::Deadline`] without an answer in time;
    /// [`RecorderError::Refused`] for an unknown source; [`RecorderError::Origin`],
    /// [`RecorderError::Key`] for another ledger or key; [`RecorderError::Lost`] when the ledger
    /// lost what the spool knows to be recorded; [`RecorderError::OtherLog`] for a quorum that is
    /// for other ledgers.
    pub async fn start(self) -> Result<Recorder, RecorderError> {
        let source = SourceName::parse(self.key.name())?;
        if self.key.verifier().key_type() != KeyType::Ed25519 {
            return Err(SealError::Key.into());
        }
        if !self.quorum.accepts_log(&self.ledger) {
            return Err(RecorderError::OtherLog { origin: self.ledger.name().to_owned() });
        }
        let ledger = Ledger {
            recorder: connect::recorder_client(self.link.clone()),
            audit: connect::audit_client(self.link.clone()),
            deadline: self.pace.deadline,
        };
        let owner = Owner::new(&self.key, &self.ledger);
        let vkey = self.ledger.clone();
        let notary = Notary {
            source: source.clone(),
            key: self.key,
            receipts: ReceiptVerifier::new(self.ledger, self.quorum.keys()),
            quorum: self.quorum.clone(),
            newest: None,
        };
        let mut spool = match self.spool {
            Some((folder, bytes_max)) => Some(open_spool(folder, bytes_max, owner).await?),
            None => None,
        };
        let known = spool.as_ref().map_or(0, |(spool, _)| spool.last());
        let persistence = self.persistence.filter(|_| spool.is_some());
        let state = ask(&ledger, &notary, &self.pace, known > 0).await.and_then(|state| {
            // Before anything rests on it.
            state.map(|state| check_lost(spool.as_ref(), state)).transpose()
        });
        let state = match (state, &persistence) {
            (Err(error), Some(persistence)) if known > 0 && persistence.outlasts(&error) => None,
            (state, _) => state?,
        };
        let rhythm = Rhythm::new(self.heartbeat, self.build);
        state.iter().for_each(|state| rhythm.learn(state));
        let last = state.map(|state| state.last_seq);
        let begin = begin(spool.as_mut(), last);
        let shared = Arc::new(Shared::new(begin, self.limits, self.memory_bytes_max, rhythm));
        let keeper = spool.map(|(spool, _)| keeper::spawn(spool, Arc::clone(&shared)));
        let driver = Driver {
            shared: Arc::clone(&shared),
            ledger: ledger.clone(),
            notary,
            pace: self.pace,
            resync: last.is_none() || begin.unsettled > 0,
            backoff: self.pace.backoff(),
            in_flight: VecDeque::new(),
            persistence,
            is_untold: true,
        };
        let tells = shared.rhythm.tells();
        let pulse = pulse::beat(Arc::clone(&shared), source.clone(), tells);
        let recorder = Recorder {
            shared,
            source,
            driver: tokio::spawn(driver.run()).abort_handle(),
            pulse: tokio::spawn(pulse).abort_handle(),
            left: begin.unsettled,
            keeper: Mutex::new(keeper),
            deadline: self.pace.deadline,
            backoff: self.pace.backoff(),
            ledger,
            vkey,
            quorum: self.quorum,
        };
        recorder.introduce(known, last, tells).await?;
        Ok(recorder)
    }
}

impl Recorder {
    /// Records what the ledger must know before anything else: what was lost, that the source runs.
    async fn introduce(
        &self,
        known: u64,
        last: Option<u64>,
        tells: bool,
    ) -> Result<(), RecorderError> {
        if let Some(last) = last
            && self.shared.has_spool()
            && last > known
        {
            tracing::warn!(known, last, "spool was lost, its gap is declared");
            let _ticket = self.record(gap(&self.source, known, last)).await?;
        }
        if tells {
            let started = wire::SourcePhase::Started;
            let started = pulse::status(&self.shared.rhythm, &self.source, started);
            let _ticket = self.record(started).await?;
        }
        Ok(())
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

/// Where the source stands at the ledger. `None` when it cannot be reached, and need not be.
async fn ask(
    ledger: &Ledger,
    notary: &Notary,
    pace: &Pace,
    can_wait: bool,
) -> Result<Option<wire::GetSourceStateResponse>, RecorderError> {
    let mut backoff = pace.backoff();
    let attempts = async {
        loop {
            match ledger.source_state(notary).await {
                Ok(state) => return Ok(Some(state)),
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

/// That the ledger knows all that the spool has verified receipts of.
fn check_lost(
    spool: Option<&Opened>,
    state: wire::GetSourceStateResponse,
) -> Result<wire::GetSourceStateResponse, RecorderError> {
    let (found, wanted) = (state.last_seq, spool.map_or(0, |(spool, _)| spool.acknowledged()));
    if found < wanted {
        return Err(RecorderError::Lost { found, wanted });
    }
    Ok(state)
}

/// Where the recorder begins, from what the spool and the ledger know.
fn begin(spool: Option<&mut Opened>, last: Option<u64>) -> Start {
    let Some((spool, room)) = spool else {
        let last = last.unwrap_or_default();
        return Start { last, settled: last, unsettled: 0, spool_room: None };
    };
    let last = last.unwrap_or_default().max(spool.last());
    if last > spool.last() {
        spool.skip_numbers(last);
    }
    let unsettled = room.waiting;
    let settled = if unsettled == 0 { last } else { spool.acknowledged() };
    Start { last, settled, unsettled, spool_room: Some(room.free) }
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
