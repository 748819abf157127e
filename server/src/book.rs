//! The book: what a ledger and a custodian both hold of a log, and serve from.
//!
//! Whoever grows the log (the ledger's writer, the custodian's copy) puts what is durable into the
//! book; whoever reads (auditors, HTTP, the cosigners) takes a checkpoint from it first and then
//! reads no further than that.

mod checkpoint_file;
mod receipt;

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_proto::{
    facts::{
        sequences::Sequences,
        sources::{SourceChange, Sources},
    },
    hash::Digest,
    note::VerifierKey,
    position::{Index as LogIndex, Size},
    source::{Name, SourceName},
};
use bytes::Bytes;
use tokio::sync::watch;

use self::checkpoint_file::CheckpointFile;
pub(crate) use self::receipt::{
    StoredBatch, bytes_of, consistency_path, inclusion_path, unreadable,
};
use crate::{
    error::LedgerError,
    index::{Index, IndexError},
    os::{Clock, Disk},
    refusal::Refusal,
    storage::{LogReader, TreeFiles},
};

/// A checkpoint that the ledger signed over entries that are durable here.
#[derive(Clone, Debug)]
pub struct Published {
    /// How many entries it covers.
    pub size: Size,
    /// Root of the tree over them.
    pub root: Digest,
    /// The signed note, with the cosignatures that have arrived.
    pub note: Bytes,
}

/// A log as it is held here: entries, tree, index, and the newest checkpoint over them.
pub(crate) struct Book {
    /// The ledger's key; its name is the origin.
    pub(crate) vkey: VerifierKey,
    sources: RwLock<Sources>,
    /// Where each source stands in what is durable.
    durable: RwLock<Sequences>,
    published: watch::Sender<Arc<Published>>,
    /// The newest checkpoint whose cosignatures are enough.
    cosigned: watch::Sender<Option<Arc<Published>>>,
    /// Receipts are given under `cosigned` alone.
    receipts_wait: bool,
    failed: watch::Sender<bool>,
    damaged: watch::Sender<Option<bool>>,
    /// Entries whose redactions are carried out.
    erased: AtomicU64,
    checkpoint_file: CheckpointFile,
    pub(crate) reader: LogReader,
    pub(crate) tree: TreeFiles,
    pub(crate) index: Index,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a book is opened with.
pub(crate) struct Opening {
    pub(crate) vkey: VerifierKey,
    pub(crate) sources: Sources,
    pub(crate) sequences: Sequences,
    pub(crate) published: Arc<Published>,
    /// Path of the file that keeps the newest checkpoint.
    pub(crate) checkpoint: PathBuf,
    pub(crate) reader: LogReader,
    pub(crate) tree: TreeFiles,
    pub(crate) index: Index,
    /// Whether receipts are given under cosigned checkpoints alone.
    pub(crate) receipts_wait: bool,
}

impl Book {
    /// Opens the book at its newest checkpoint.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Thread`] when the system gives no thread.
    pub(crate) fn open(
        opening: Opening,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LedgerError> {
        let Opening { vkey, sources, sequences, published, checkpoint, .. } = opening;
        let Opening { reader, tree, index, receipts_wait, .. } = opening;
        let book = Self {
            vkey,
            sources: RwLock::new(sources),
            durable: RwLock::new(sequences),
            published: watch::Sender::new(published),
            cosigned: watch::Sender::new(None),
            receipts_wait,
            failed: watch::Sender::new(false),
            damaged: watch::Sender::new(None),
            erased: AtomicU64::new(0),
            checkpoint_file: CheckpointFile::start(disk, checkpoint)?,
            reader,
            tree,
            index,
            clock,
        };
        book.publish(book.published());
        Ok(book)
    }

    /// The registered sources.
    pub(crate) fn sources(&self) -> RwLockReadGuard<'_, Sources> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last number of a source in what is durable.
    pub(crate) fn durable_last(&self, source: Name<'_>) -> u64 {
        self.durable.read().unwrap_or_else(PoisonError::into_inner).last(source)
    }

    /// The newest checkpoint.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// The newest checkpoint, and every later one.
    pub(crate) fn checkpoints(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Waits until a checkpoint covers an entry that the writer has placed.
    ///
    /// # Errors
    ///
    /// [`Refusal::StorageFailed`] when it never will.
    pub(crate) async fn covers(&self, index: LogIndex) -> Result<Arc<Published>, Refusal> {
        let (mut published, mut failed) = (self.checkpoints(), self.failed());
        tokio::select! {
            biased;
            covers = published.wait_for(|published| published.size.contains(index)) => {
                covers.map(|published| published.clone()).map_err(|_| Refusal::StorageFailed)
            }
            _ = failed.wait_for(|&failed| failed) => Err(Refusal::StorageFailed),
        }
    }

    /// Carries out a change of the sources that was judged lawful. For whoever grows the log.
    pub(crate) fn apply(&self, change: SourceChange) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).apply(change);
    }

    /// Takes over the sources as they follow from a log that was verified. For whoever grows it.
    pub(crate) fn renew(&self, sources: Sources) {
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// Notes where sources stand after a group became durable. For whoever grows the log.
    pub(crate) fn note_durable<'a>(&self, sources: impl Iterator<Item = (&'a SourceName, u64)>) {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        sources.for_each(|(source, last_seq)| durable.restore(source.as_name(), last_seq));
    }

    /// The log grows no more until it is opened again: the storage failed.
    pub(crate) fn fail(&self) {
        self.failed.send_replace(true);
    }

    /// Turns true when the log grows no more because the storage failed.
    pub(crate) fn failed(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }

    /// Says whether stored bytes are damaged. For the scrub.
    pub(crate) fn note_damage(&self, is_damaged: bool) {
        self.damaged.send_replace(Some(is_damaged));
    }

    /// Whether stored bytes are known to be damaged, and to be restored; `None` before all of them
    /// were read.
    pub(crate) fn damaged(&self) -> watch::Receiver<Option<bool>> {
        self.damaged.subscribe()
    }

    /// Says that what the first so many entries ask to be erased by now is erased. For the eraser.
    pub(crate) fn note_erased(&self, size: Size) {
        self.erased.fetch_max(size.0, Ordering::Release);
    }

    /// As told by [`Book::note_erased`] since the log was opened.
    pub(crate) fn erased(&self) -> Size {
        Size(self.erased.load(Ordering::Acquire))
    }

    /// Makes a checkpoint the newest. For whoever grows the log.
    pub(crate) fn publish(&self, published: Arc<Published>) {
        metrics::gauge!("access_ledger_size_entries").set(published.size.0 as f64);
        metrics::gauge!("access_ledger_indexed_entries").set(self.index.indexed_size().0 as f64);
        self.index.notify(published.size);
        self.published.send_modify(|newest| {
            // With the newest still held, so that the file is never put back behind it.
            self.checkpoint_file.put(published.note.clone());
            *newest = published;
        });
    }

    /// Takes up a checkpoint of this log with the cosignatures that have arrived on it; `is_met`
    /// says whether they are enough. For whoever gathers them.
    pub(crate) fn cosign(&self, cosigned: &Arc<Published>, is_met: bool) {
        self.published.send_if_modified(|newest| {
            let is_newest = newest.size == cosigned.size && newest.root == cosigned.root;
            if is_newest {
                self.checkpoint_file.put(cosigned.note.clone());
                *newest = cosigned.clone();
            }
            is_newest
        });
        if is_met {
            self.cosigned.send_if_modified(|known| {
                let is_newer = known.as_ref().is_none_or(|known| known.size <= cosigned.size);
                if is_newer {
                    metrics::gauge!("access_ledger_cosigned_entries").set(cosigned.size.0 as f64);
                    *known = Some(cosigned.clone());
                }
                is_newer
            });
        }
    }

    /// How long at least those who follow the log and those who cosign it are left with what they
    /// have, before they are given or asked for more: zero while receipts wait for them. A group
    /// may be one event, and handing each on by itself costs more than recording it.
    pub(crate) const fn unawaited_interval(&self) -> Duration {
        if self.receipts_wait { Duration::ZERO } else { UNAWAITED_INTERVAL }
    }

    /// The newest checkpoint whose cosignatures are enough, if any is known.
    pub(crate) fn cosigned(&self) -> Option<Arc<Published>> {
        self.cosigned.borrow().clone()
    }

    /// The checkpoint under which the receipt for an entry is given.
    ///
    /// # Errors
    ///
    /// [`Refusal::BeyondTree`] for an entry that is not there; [`Refusal::QuorumPending`] while
    /// receipts wait for cosignatures that have not arrived.
    pub(crate) fn proves(&self, index: LogIndex) -> Result<Arc<Published>, Refusal> {
        let published = self.published();
        if !published.size.contains(index) {
            let (what, found) = ("index", index.0);
            return Err(Refusal::BeyondTree { what, found, size: published.size });
        }
        if !self.receipts_wait {
            return Ok(published);
        }
        let cosigned = self.cosigned().filter(|cosigned| cosigned.size.contains(index));
        cosigned.ok_or(Refusal::QuorumPending { index })
    }

    /// Where the event of this number is. Waits until the index has seen all that is durable.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoEvent`]; [`Refusal::Indexing`] while the index is being built.
    pub(crate) fn position(&self, source: Name<'_>, seq: u64) -> Result<LogIndex, Refusal> {
        let behind = |error: IndexError| Refusal::Indexing { problem: error.to_string() };
        self.index.wait_for(self.published().size, INDEX_WAIT).map_err(behind)?;
        self.index
            .position(source, seq)
            .map_err(behind)?
            .ok_or_else(|| Refusal::NoEvent { name: source.to_owned(), seq })
    }
}

/// Ten times a second is as good as a hundred times while nothing waits, and the ledger's time goes
/// into appending.
const UNAWAITED_INTERVAL: Duration = Duration::from_millis(100);

/// The index is a moment behind the log; while it is built again, a caller had better come back.
pub(crate) const INDEX_WAIT: Duration = Duration::from_secs(10);
