//! The scrub: reads again, slowly and over and over, what was written long ago, so that bit rot is
//! found while the custodian and the backups still have the bytes.
//!
//! A pass reads every segment from the disk, past what the system holds in memory: header, footer,
//! the checksums of every frame, the chain of entries, and the files of the tree, which it computes
//! again. What does not hold at a second reading either is damage: it goes to the log, to the
//! metrics and to the server's health. Nothing is changed, serving and appending go on; the
//! operator gets the bytes back by `restore`, from the custodian. Seals and signatures are left to
//! `check` and to the auditors: rot does not forge.
//!
//! It stays out of the way: one thread of the lowest priority, a bounded number of bytes a second,
//! and a pause before each piece while others have work.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use access_ledger_proto::{
    chain::Link,
    hash::{Digest, sha256},
    position::{Index, Size},
    tree::Frontier,
};
use tracing::{error, info, warn};

use crate::{
    book::Book,
    error::{Fault, LedgerError, StorageError},
    index::step_back,
    os::{Access, Disk},
    storage::{
        Options, TreeFiles,
        recover::list_segments,
        segment::{self, FullSegment, Segment},
        walk::Walk,
    },
};

/// Reads what is stored of a log.
pub struct Scrubber {
    disk: Arc<dyn Disk>,
    options: Options,
    origin: Digest,
    tree: TreeFiles,
}

/// What a pass found.
#[derive(Debug, Default)]
#[must_use]
pub struct Pass {
    /// Segments that were read to their end, or to their first damage.
    pub segments: u64,
    /// Bytes of frames that hold.
    pub bytes: u64,
    /// The first damage of each segment that has any, in the order of reading.
    pub damage: Vec<StorageError>,
    /// Whether the pass was ended early by whoever paces it.
    pub is_partial: bool,
}

/// Why a segment was not read to its end.
enum Stop {
    /// Whoever paces the pass ended it.
    Asked,
    Damage(StorageError),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Damage(error)
    }
}

impl Scrubber {
    /// Reads the log in `options.folder`, whose tree is `tree`. It may grow meanwhile.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, options: Options, tree: TreeFiles) -> Self {
        let origin = sha256(options.origin.as_bytes());
        Self { disk, options, origin, tree }
    }

    /// Reads every segment once. It begins at any of them, so that a server that is often restarted
    /// reads the last ones too. `pace` is told of every quarter of a megabyte, takes its time, and
    /// says whether to go on.
    pub fn pass(&self, pace: &mut dyn FnMut(u64) -> bool) -> Pass {
        let mut pass = Pass::default();
        let firsts = match self.firsts() {
            Ok(firsts) => firsts,
            Err(problem) => return Pass { damage: vec![problem], ..pass },
        };
        let start = self.disk.random().unwrap_or_default() as usize % firsts.len().max(1);
        let (before, from) = firsts.split_at_checked(start).unwrap_or_default();
        for &first in from.iter().chain(before) {
            // What is being erased looks damaged for a moment; what is rotten stays so.
            let mut read = self.segment(first, pace, &mut pass.bytes);
            if let Err(Stop::Damage(problem)) = read {
                warn!(segment = first.0, %problem, "reads a segment again");
                read = self.segment(first, pace, &mut pass.bytes);
            }
            match read {
                Ok(()) => {}
                Err(Stop::Damage(problem)) => pass.damage.push(problem),
                Err(Stop::Asked) => return Pass { is_partial: true, ..pass },
            }
            pass.segments += 1;
        }
        pass
    }

    fn firsts(&self) -> Result<Vec<Index>, StorageError> {
        list_segments(&*self.disk, &segment::folder(&self.options.folder))
    }

    /// Reads the segment that starts at `first`: all of it, or of the newest one what is durable
    /// and in the tree.
    fn segment(
        &self,
        first: Index,
        pace: &mut dyn FnMut(u64) -> bool,
        done_bytes: &mut u64,
    ) -> Result<(), Stop> {
        // In this order: what is in the tree now lies in the segments that are listed then.
        let size = self.tree.size();
        let firsts = self.firsts()?;
        let next = firsts.get(firsts.partition_point(|other| *other <= first)).copied();
        let folder = segment::folder(&self.options.folder);
        let segment = Segment::open(&*self.disk, &folder, (first, self.origin), Access::Read)?;
        segment.file.forget();
        let (end, limit, offsets) = match next {
            None => (segment.file.length()?, size.next_index(), Vec::new()),
            Some(next) => {
                let full = FullSegment::open(segment.clone())?;
                full.check_reaches(next)?;
                (full.frames_end, next, full.all_offsets()?)
            }
        };
        let mut tree = Shadow::new(&self.tree, first)?;
        let mut link = self.link_at(first)?;
        let mut walk = Walk::new(&segment, end);
        let (mut offsets, mut piece_bytes) = (offsets.into_iter(), 0);
        while walk.index() < limit {
            let (at, index) = (walk.offset(), walk.index());
            let Some(placed) = walk.next()? else {
                let fault = Fault::Lost { checkpoint: Size(limit.0) };
                return Err(segment.damage(at, index, fault).into());
            };
            if offsets.next().is_some_and(|offset| u64::from(offset) != placed.offset) {
                return Err(segment.damage(placed.offset, index, Fault::Footer).into());
            }
            let (_, leaf) = placed.continues(&segment, &mut link)?;
            let bytes = placed.end - placed.offset;
            *done_bytes += bytes;
            piece_bytes += bytes;
            tree.append(leaf)?;
            if piece_bytes >= PIECE_BYTES {
                if !pace(piece_bytes) {
                    return Err(Stop::Asked);
                }
                piece_bytes = 0;
            }
        }
        tree.compare()?;
        // What this brought into memory is of no use to readers.
        segment.file.forget();
        if pace(piece_bytes) { Ok(()) } else { Err(Stop::Asked) }
    }

    /// What the entry at `first` must continue, by the tree; the time before it is not known there.
    fn link_at(&self, first: Index) -> Result<Link, StorageError> {
        let Some(before) = first.0.checked_sub(1) else { return Ok(Link::GENESIS) };
        let last_leaf = self.tree.hashes(0, before, 1)?.first().copied().unwrap_or(Digest::ZERO);
        Ok(Link { size: Size(first.0), last_leaf, recorded_at: 0 })
    }
}

/// The tree over the entries that were read, beside the stored one.
struct Shadow<'a> {
    stored: &'a TreeFiles,
    computed: Frontier,
    pending: usize,
}

impl<'a> Shadow<'a> {
    fn new(stored: &'a TreeFiles, first: Index) -> Result<Self, StorageError> {
        let computed = stored.frontier(Size(first.0))?;
        Ok(Self { stored, computed, pending: 0 })
    }

    fn append(&mut self, leaf: Digest) -> Result<(), StorageError> {
        self.computed.append(leaf);
        self.pending += 1;
        if self.pending < LEAVES { Ok(()) } else { self.compare() }
    }

    /// Compares what was computed since the last time.
    fn compare(&mut self) -> Result<(), StorageError> {
        self.stored.compare(&self.computed)?;
        self.computed.forget();
        self.pending = 0;
        Ok(())
    }
}

/// How a scrub behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Most bytes that are read in a second.
    pub bytes_per_second: u64,
    /// How long it rests between two passes.
    pub rest: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: BYTES_PER_SECOND, rest: REST }
    }
}

/// The running scrub. Dropping it ends it.
pub(crate) struct Scrub {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// Wakes the scrub when it is to end.
#[derive(Default)]
struct Bell {
    is_stopping: Mutex<bool>,
    rung: Condvar,
}

impl Scrub {
    /// Starts to scrub. While `is_busy`, a piece waits for up to a second.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Thread`] when the system gives no thread.
    pub(crate) fn start(
        scrubber: Scrubber,
        options: ScrubOptions,
        book: Arc<Book>,
        is_busy: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self, LedgerError> {
        let bell = Arc::new(Bell::default());
        let ring = bell.clone();
        let thread = thread::Builder::new()
            .name("scrub".into())
            .spawn(move || {
                step_back();
                loop {
                    let pass = scrubber.pass(&mut |bytes| ring.pace(bytes, options, &is_busy));
                    report(&pass, &book);
                    if !ring.wait(options.rest) {
                        return;
                    }
                }
            })
            .map_err(|source| LedgerError::Thread { source })?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        *self.bell.is_stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.rung.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("scrub thread panicked");
        }
    }
}

impl Bell {
    /// Waits; tells whether to go on.
    fn wait(&self, time: Duration) -> bool {
        let is_stopping = self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rung.wait_timeout_while(is_stopping, time, |is_stopping| !*is_stopping);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets as much time pass as `bytes` may take, and lets others go first.
    fn pace(&self, bytes: u64, options: ScrubOptions, is_busy: &dyn Fn() -> bool) -> bool {
        metrics::counter!("access_ledger_scrubbed_bytes_total").increment(bytes);
        let nanos = bytes.saturating_mul(1_000_000_000) / options.bytes_per_second.max(1);
        let mut goes_on = self.wait(Duration::from_nanos(nanos));
        let mut waits = 0;
        while goes_on && waits < BUSY_WAITS_MAX && is_busy() {
            goes_on = self.wait(BUSY_WAIT);
            waits += 1;
        }
        goes_on
    }
}

fn report(pass: &Pass, book: &Book) {
    for problem in &pass.damage {
        error!(%problem, "found stored bytes damaged, restore them from the custodian");
    }
    let damaged = u32::try_from(pass.damage.len()).unwrap_or(u32::MAX);
    if !pass.is_partial {
        let Pass { segments, bytes, .. } = *pass;
        info!(segments, bytes, damaged, "scrubbed the log");
        metrics::counter!("access_ledger_scrub_passes_total").increment(1);
    }
    // A pass that ended early says nothing of what it did not read.
    if damaged > 0 || !pass.is_partial {
        metrics::gauge!("access_ledger_scrub_damaged_segments").set(f64::from(damaged));
        book.note_damage(damaged > 0);
    }
}

/// Between two looks at the pace.
const PIECE_BYTES: u64 = 256 << 10;

/// Leaves whose nodes are held in memory before they are compared.
const LEAVES: usize = 4_096;

/// A terabyte in three days, and a twentieth of what the slowest disk gives.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// A small ledger is not read all the time.
const REST: Duration = Duration::from_secs(600);

/// How long a piece waits before it looks again whether others have work.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// A piece waits no longer than a second, so that a ledger that is always busy is read, too.
const BUSY_WAITS_MAX: u32 = 20;
