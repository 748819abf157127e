//! The thread that stores what was verified, while the next runs are being verified.
//!
//! It alone writes the log. Runs that wait together go into groups as large as groups may be, so a
//! catch-up costs a sync every few megabytes. A ledger that is followed closely costs one a group
//! of its own; where the disk is slower than that, whatever came meanwhile shares the next one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError},
    },
    thread::{self, JoinHandle},
};

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    position::{Index, Size},
    segment::FRAME_HEADER_LEN,
    tree::Frontier,
};
use tracing::{error, warn};

use super::Taken;
use crate::{
    custodian::error::CopyError,
    error::StorageError,
    storage::{GroupFrames, Log, TreeFiles},
    witness::Holding,
};

/// Whole batches that were verified, seals included.
pub(super) struct Verified {
    pub(super) taken: Taken,
    /// The tree behind them, with the nodes that they made.
    pub(super) tree: Frontier,
    /// The first event that is gone without a record of its erasure, as far as they go.
    pub(super) unaccounted: Option<Index>,
    /// What its frames take in the log: asked for whenever runs are put together.
    bytes: usize,
}

impl Verified {
    pub(super) fn new(taken: Taken, tree: Frontier, unaccounted: Option<Index>) -> Self {
        let length = |record: &Record| {
            FRAME_HEADER_LEN
                + record.entry.len()
                + record.event.as_ref().map_or(0, |event| event.len())
        };
        let bytes = taken.run.1.iter().map(length).sum();
        Self { taken, tree, unaccounted, bytes }
    }
}

/// What the thread is given to do, in order.
enum Work {
    Store(Vec<Verified>),
    /// To be answered when all that came before is durable.
    Answer(SyncSender<()>),
}

/// The thread. Dropping it stores what waits and joins it.
pub(super) struct Store {
    work: Option<SyncSender<Work>>,
    /// What comes while the thread has enough to do, to be handed over together.
    gathered: Vec<Verified>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<StorageError>>>,
}

impl Store {
    /// Starts it behind what `log` holds; `holding` says from then on how far it is.
    pub(super) fn start(
        log: Log,
        tree: TreeFiles,
        holding: Arc<Holding>,
    ) -> Result<Self, CopyError> {
        let (work, waiting) = mpsc::sync_channel(WINDOWS_AHEAD);
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let storing = Storing { log, tree, holding };
        let run = move || {
            if let Err(error) = storing.run(&waiting) {
                error!(%error, "stopped storing");
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            // Only now whoever waits is told.
            drop(waiting);
        };
        let thread = thread::Builder::new().name("store".into()).spawn(run);
        let thread = Some(thread.map_err(CopyError::Thread)?);
        Ok(Self { work: Some(work), gathered: Vec::new(), thread, failure })
    }

    /// Takes runs in the order of the log; waits while too much is under way.
    ///
    /// # Errors
    ///
    /// What the storage said, once; from then on [`StorageError::Poisoned`].
    pub(super) fn put(&mut self, runs: Vec<Verified>) -> Result<(), StorageError> {
        self.gathered.extend(runs);
        if self.gathered.is_empty() {
            return Ok(());
        }
        if self.gathered.iter().map(|run| run.bytes).sum::<usize>() >= GATHERED_LEN {
            return self.hand_over();
        }
        let Some(sender) = &self.work else { return Err(self.failure()) };
        match sender.try_send(Work::Store(std::mem::take(&mut self.gathered))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Work::Store(runs))) => {
                self.gathered = runs;
                Ok(())
            }
            Err(_) => Err(self.failure()),
        }
    }

    /// Waits until everything that was handed over is durable and in the tree.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.hand_over()?;
        let (answer, answered) = mpsc::sync_channel(1);
        self.send(Work::Answer(answer))?;
        answered.recv().map_err(|_| self.failure())
    }

    /// Gives the thread what was gathered; waits until there is room for it.
    fn hand_over(&mut self) -> Result<(), StorageError> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.is_empty() { Ok(()) } else { self.send(Work::Store(gathered)) }
    }

    fn send(&self, work: Work) -> Result<(), StorageError> {
        let sent = self.work.as_ref().is_some_and(|sender| sender.send(work).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
    }

    fn failure(&self) -> StorageError {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().unwrap_or(StorageError::Poisoned)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The thread has said what was wrong, if anything was.
        let _stored_or_failed = self.hand_over();
        drop(self.work.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the storing thread panicked");
        }
    }
}

struct Storing {
    log: Log,
    tree: TreeFiles,
    holding: Arc<Holding>,
}

impl Storing {
    fn run(mut self, waiting: &Receiver<Work>) -> Result<(), StorageError> {
        while let Some(work) = self.next(waiting)? {
            match work {
                Work::Store(runs) => self.store(&runs)?,
                // Whoever asked may be gone.
                Work::Answer(answer) => drop(answer.send(())),
            }
        }
        Ok(())
    }

    /// The next work; `None` when there will be none. Uses idle time to prepare space.
    fn next(&mut self, waiting: &Receiver<Work>) -> Result<Option<Work>, StorageError> {
        loop {
            match waiting.try_recv() {
                Ok(work) => return Ok(Some(work)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {
                    if !self.log.prepare()? {
                        return Ok(waiting.recv().ok());
                    }
                }
            }
        }
    }

    fn store(&mut self, runs: &[Verified]) -> Result<(), StorageError> {
        let mut rest = runs;
        while !rest.is_empty() {
            let mut group = self.log.group();
            let fitting = fitting(rest);
            let (now, later) = rest.split_at(fitting);
            for record in now.iter().flat_map(|verified| &verified.taken.run.1) {
                match &record.event {
                    Some(event) => group.push(&record.entry, event),
                    None => group.push_erased(&record.entry),
                }
            }
            let is_large = group.bytes() >= FORGOTTEN_LEN;
            let durable = self.log.commit(group)?.into_inner();
            if is_large {
                self.log.forget();
            }
            for run in now {
                self.tree.append(&run.tree)?;
            }
            rest = later;
            let unaccounted = now.last().and_then(|run| run.unaccounted);
            self.holding.grown(Size(durable.end.0), unaccounted);
        }
        Ok(())
    }
}

/// How many of the runs fit into one group: one at least, which the cutter has made to fit.
fn fitting(runs: &[Verified]) -> usize {
    let mut total = 0;
    let fits = runs.iter().take_while(|verified| {
        total += verified.bytes;
        total <= GroupFrames::LEN_MAX
    });
    fits.count().max(1)
}

/// Groups of this length come while much is copied. Nobody reads that soon, and writing into pages
/// that were given back is four times as fast as into ever new ones (on a virtual machine, where
/// these are the host's to find); nor is what others read driven out of memory.
const FORGOTTEN_LEN: usize = 2 << 20;

/// So much is gathered before whoever verifies waits for the disk: less than a window of a
/// catch-up, which is large enough for groups of its own.
const GATHERED_LEN: usize = 2 << 20;

/// Windows that wait to be stored: one is on its way to the disk, the next is ready behind it.
const WINDOWS_AHEAD: usize = 1;
