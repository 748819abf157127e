//! `check`: verifies everything that is stored, and changes nothing.
//!
//! Whether the log keeps its rules is for the verifier that auditors use
//! ([`access_ledger_client::verify`]). Here is what only the owner of the files sees: segments,
//! frames, checksums, erased events, the torn tail, the files of the tree; and where in which file
//! the entry lies that breaks a rule.
//!
//! The log is cut into pieces of about half a megabyte. While a window of pieces is read and
//! digested on all cores, the window before is folded; so memory does not grow with the ledger.
//! Nothing is believed that was not computed here from event and entry bytes, except that the
//! checkpoint is genuine.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use access_ledger_client::verify::{DigestedRun, LogVerifier, Scope, Violation, digest};
use access_ledger_proto::{
    hash::Digest,
    note::VerifierKey,
    position::{Index, Size},
};
use bytes::Bytes;
use rayon::prelude::*;

mod blame;
mod command;
mod pieces;
pub(crate) mod tree;

pub use self::command::run;
use self::{
    pieces::{Buffers, LogFiles, Piece},
    tree::StoredTree,
};
use crate::{
    error::{Fault, StorageError},
    os::Disk,
    storage::Options,
};

/// What a check found.
#[derive(Debug, Default)]
#[must_use]
pub struct CheckReport {
    /// Entries that hold, from 0 on: all, or those before the first problem.
    pub size: Size,
    /// Batches whose seals hold.
    pub batches: u64,
    /// Events that were erased.
    pub erased_events: u64,
    /// Bytes of frames that hold.
    pub bytes: u64,
    /// Whether there is a torn tail, of a group that was never acknowledged; opening cuts it.
    pub has_torn_tail: bool,
    /// The first thing that does not hold.
    pub problem: Option<StorageError>,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// Bytes of the log verified.
    pub done_bytes: u64,
    /// Bytes of the log in all, what was prepared and footers included.
    pub total_bytes: u64,
}

/// Verifies the ledger in `options.folder`, which no server has open and whose checkpoints `ledger`
/// signs.
///
/// `checkpoint` as for [`open`](crate::storage::open). `progress` is called from any thread, about
/// twice a megabyte.
///
/// # Errors
///
/// [`StorageError::Io`] when the disk refuses. Whatever else is wrong is in the report.
pub fn check(
    disk: &Arc<dyn Disk>,
    options: &Options,
    ledger: &VerifierKey,
    checkpoint: Option<(Size, Digest)>,
    progress: &(dyn Fn(CheckProgress) + Sync),
) -> Result<CheckReport, StorageError> {
    let acknowledged = checkpoint.map_or(Size::ZERO, |(size, _)| size);
    let log = match LogFiles::list(&**disk, options, acknowledged) {
        Ok(log) => log,
        Err(problem @ StorageError::Damage { .. }) => {
            return Ok(CheckReport { problem: Some(problem), ..CheckReport::default() });
        }
        Err(error) => return Err(error),
    };
    let tree = StoredTree::open(&**disk, options)?;
    let total_bytes = log.total_bytes()?;
    let (buffers, done_bytes) = (Buffers::default(), AtomicU64::new(0));
    let reading = Reading { buffers: &buffers, total_bytes, done_bytes, progress };
    let verifier = LogVerifier::new(ledger, Scope::Events);
    let mut fold = Fold { verifier, tree, checkpoint, buffers: &buffers, bytes: 0 };
    let mut steps = Steps {
        reading: &reading,
        fold: &mut fold,
        waiting: VecDeque::new(),
        digested: Vec::new(),
    };
    let (has_torn_tail, outcome) = steps.verify(&log);
    let totals = *fold.verifier.totals();
    let mut report = CheckReport {
        size: fold.verifier.size(),
        batches: totals.seals_checked,
        erased_events: totals.events_erased,
        bytes: fold.bytes,
        has_torn_tail,
        problem: None,
    };
    let problem = outcome.err().map(|problem| match problem {
        Problem::Stored(error) => log.judge(error, &fold.tree),
        Problem::Log(violation) => log.judge(log.place(violation), &fold.tree),
    });
    match problem {
        Some(error @ StorageError::Io { .. }) => return Err(error),
        Some(StorageError::Damage { index, .. }) => report.size = report.size.min(Size(index.0)),
        _ => {}
    }
    report.problem = problem;
    Ok(report)
}

/// Why a check ends early.
enum Problem {
    /// Something that only the files tell.
    Stored(StorageError),
    /// The log breaks a rule; where its entry lies is to be found.
    Log(Violation),
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        Self::Stored(error)
    }
}

impl From<Violation> for Problem {
    fn from(violation: Violation) -> Self {
        Self::Log(violation)
    }
}

/// Drives a check: window after window of pieces is read and digested, the one before is folded.
struct Steps<'a, 'b> {
    reading: &'a Reading<'b>,
    fold: &'a mut Fold<'b>,
    /// Pieces of the next windows.
    waiting: VecDeque<Piece>,
    /// The window that comes next into the fold.
    digested: Vec<Digested>,
}

impl Steps<'_, '_> {
    /// Verifies everything. Tells whether the tail is torn, too.
    fn verify(&mut self, log: &LogFiles<'_>) -> (bool, Result<(), Problem>) {
        // The end of the last segment is found by walking all of it, on one core.
        let (last, full) = rayon::join(|| log.last_pieces(), || self.take_full(log));
        let last = match full.and_then(|()| Ok(last?)) {
            Ok(last) => last,
            Err(problem) => return (false, Err(problem)),
        };
        let taken = self
            .take(last.pieces)
            .and_then(|()| self.drain())
            .and_then(|()| last.problem.map_or(Ok(()), |problem| Err(problem.into())))
            .and_then(|()| self.fold.conclude(log));
        (last.has_torn_tail, taken)
    }

    fn take_full(&mut self, log: &LogFiles<'_>) -> Result<(), Problem> {
        for position in 0..log.full_segments() {
            match log.full_pieces(position) {
                Ok(pieces) => self.take(pieces)?,
                Err(error) => {
                    // What lies before may be wrong too, and comes first.
                    self.drain()?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Takes up pieces, a window at a time.
    fn take(&mut self, pieces: Vec<Piece>) -> Result<(), Problem> {
        let window = PIECES_PER_THREAD * rayon::current_num_threads();
        self.waiting.extend(pieces);
        while self.waiting.len() >= window {
            self.step(window)?;
        }
        Ok(())
    }

    /// Takes up what is left.
    fn drain(&mut self) -> Result<(), Problem> {
        self.step(self.waiting.len())?;
        self.step(0)
    }

    fn step(&mut self, window: usize) -> Result<(), Problem> {
        let pieces: Vec<_> = self.waiting.drain(..window).collect();
        let before = std::mem::take(&mut self.digested);
        let (reading, fold) = (self.reading, &mut *self.fold);
        let (digested, folded) = rayon::join(
            || pieces.par_iter().map(|piece| reading.digest(piece)).collect(),
            || fold.take(before),
        );
        self.digested = digested;
        folded
    }
}

/// What reading pieces needs, on any thread.
struct Reading<'a> {
    buffers: &'a Buffers,
    total_bytes: u64,
    done_bytes: AtomicU64,
    progress: &'a (dyn Fn(CheckProgress) + Sync),
}

/// A piece that was checked by itself.
struct Digested {
    run: DigestedRun,
    buffer: Bytes,
    /// Bytes of its frames that hold.
    bytes: u64,
    /// Why there are no more records.
    problem: Option<StorageError>,
}

impl Reading<'_> {
    fn digest(&self, piece: &Piece) -> Digested {
        let read = piece.read(self.buffers);
        let run = digest(piece.first, read.records, Scope::Events);
        let done_bytes = self.done_bytes.fetch_add(read.bytes, Ordering::Relaxed) + read.bytes;
        (self.progress)(CheckProgress { done_bytes, total_bytes: self.total_bytes });
        Digested { run, buffer: read.buffer, bytes: read.bytes, problem: read.problem }
    }
}

/// The part of a check that goes in order.
struct Fold<'a> {
    verifier: LogVerifier,
    tree: StoredTree,
    /// Pieces end where it stands.
    checkpoint: Option<(Size, Digest)>,
    buffers: &'a Buffers,
    /// Bytes of frames that hold.
    bytes: u64,
}

impl Fold<'_> {
    /// Takes up a window and verifies its seals; what is wrong first in the log comes out.
    fn take(&mut self, digested: Vec<Digested>) -> Result<(), Problem> {
        let buffers: Vec<_> = digested.iter().map(|piece| piece.buffer.clone()).collect();
        let taken = digested.into_iter().try_for_each(|piece| self.take_piece(piece));
        // A seal before that place is the earlier problem.
        self.verifier.settle()?;
        // Until here seals hold on to the entries that they stand on.
        buffers.into_iter().for_each(|buffer| self.buffers.give_back(buffer));
        taken
    }

    fn take_piece(&mut self, piece: Digested) -> Result<(), Problem> {
        self.verifier.take(piece.run)?;
        self.tree.compare(self.verifier.tree())?;
        self.check_root()?;
        self.bytes += piece.bytes;
        piece.problem.map_or(Ok(()), |problem| Err(problem.into()))
    }

    /// Compares the root with the checkpoint's, where the checkpoint stands.
    fn check_root(&self) -> Result<(), StorageError> {
        let found = self.verifier.root();
        match self.checkpoint {
            Some((size, wanted)) if size == self.verifier.size() && found != wanted => {
                Err(StorageError::Root { size, found, wanted })
            }
            _ => Ok(()),
        }
    }

    /// What shows only at the end.
    fn conclude(&mut self, log: &LogFiles<'_>) -> Result<(), Problem> {
        self.verifier.conclude()?;
        if let Some((checkpoint, _)) = self.checkpoint
            && self.verifier.size() < checkpoint
        {
            // Not even a segment is there; else its end was found to be too early.
            let (index, fault) = (Index::GENESIS, Fault::Lost { checkpoint });
            return Err(StorageError::Damage { segment: index, offset: 0, index, fault }.into());
        }
        Ok(self.tree.check_lengths(log.synced())?)
    }
}

/// Pieces of a window for each thread. Two windows are in memory: some megabytes a thread, which is
/// about what its core's cache holds.
const PIECES_PER_THREAD: usize = 4;
