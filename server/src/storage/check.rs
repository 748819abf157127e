//! Verifies everything that is stored, and changes nothing.
//!
//! The log is cut into pieces of some thousand entries. A window of pieces is scanned in parallel
//! (`scan.rs`), joined in order (`fold.rs`), and its signatures are verified in parallel; so memory does
//! not grow with the ledger. Then the tree's levels are computed from each other, and the root is
//! compared with the checkpoint's. Nothing is believed that was not computed here from event and entry
//! bytes, except that the checkpoint is genuine.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use access_ledger_proto::{
    hash::{Digest, sha256},
    position::{Index, Size, count_of, memory_len},
    tree::{TILE_WIDTH, root_of},
};
use rayon::prelude::*;

use super::{
    Options,
    blame::Blame,
    fold::{Claim, Fold},
    recover::{check_root, link_before, list_segments, walk_last},
    scan::{Piece, compare},
    segment::{self, FullSegment, Segment},
    tree::{LEVELS, TreeFiles},
};
use crate::{
    error::{Fault, StorageError},
    os::{Access, Disk},
};

/// What a check found.
#[derive(Debug, Default)]
#[must_use]
pub struct CheckReport {
    /// Entries that hold, from 0 on; with a problem in the log, fewer than it has.
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

/// Verifies the ledger in `options.folder`, which no server has open.
///
/// `checkpoint` as for [`open`](super::open). `progress` is called from any thread, every few megabytes.
///
/// # Errors
///
/// [`StorageError::Io`] when the disk refuses. Whatever else is wrong is in the report.
pub fn check(
    disk: &Arc<dyn Disk>,
    options: &Options,
    checkpoint: Option<(Size, Digest)>,
    progress: &(dyn Fn(CheckProgress) + Sync),
) -> Result<CheckReport, StorageError> {
    let mut check = Check {
        disk: &**disk,
        options,
        origin: sha256(options.origin.as_bytes()),
        folder: segment::folder(&options.folder),
        tree: TreeFiles::open(&**disk, &options.folder, Access::Read)?,
        acknowledged: checkpoint.map_or(Size::ZERO, |(size, _)| size),
        synced: Size::ZERO,
        last_leaves: Vec::new(),
        leaves_stored: u64::MAX,
        progress,
        total_bytes: 0,
        done_bytes: AtomicU64::new(0),
        fold: Fold::new(),
        report: CheckReport::default(),
    };
    let outcome = check.verify_log().and_then(|()| check.verify_tree(checkpoint));
    let size = check.fold.link.size;
    let mut report = CheckReport { size, ..std::mem::take(&mut check.report) };
    match outcome {
        Ok(()) => {}
        Err(error @ StorageError::Io { .. }) => return Err(error),
        Err(problem) => report.problem = Some(check.blame().judge(problem)),
    }
    Ok(report)
}

struct Check<'a> {
    disk: &'a dyn Disk,
    options: &'a Options,
    origin: Digest,
    folder: PathBuf,
    tree: TreeFiles,
    acknowledged: Size,
    /// Where the last segment starts: up to there the tree files must be complete.
    synced: Size,
    /// The leaves of the last segment.
    last_leaves: Vec<Digest>,
    /// Leaves in the tree files.
    leaves_stored: u64,
    progress: &'a (dyn Fn(CheckProgress) + Sync),
    total_bytes: u64,
    done_bytes: AtomicU64,
    fold: Fold,
    report: CheckReport,
}

impl Check<'_> {
    fn blame(&self) -> Blame<'_> {
        Blame { disk: self.disk, folder: &self.folder, origin: self.origin, tree: &self.tree }
    }

    fn verify_log(&mut self) -> Result<(), StorageError> {
        let firsts = list_segments(self.disk, &self.folder)?;
        for first in &firsts {
            let path = segment::path(&self.folder, *first);
            let file = super::file::StoredFile::open(self.disk, &path, Access::Read)?;
            self.total_bytes += file.length()?;
        }
        self.synced = Size(firsts.last().map_or(0, |first| first.0));
        self.leaves_stored = self.tree.verifiable(0, (self.synced, Size(u64::MAX)))?;
        let nexts = firsts.iter().skip(1).copied().map(Some).chain([None]);
        let mut window = Vec::new();
        for (position, (&first, next)) in firsts.iter().zip(nexts).enumerate() {
            let full = firsts.get(..position).unwrap_or_default();
            let pieces = self.pieces_of(first, next, full);
            if pieces.is_err() {
                // What lies before may be wrong too, and comes first.
                self.verify_window(&std::mem::take(&mut window))?;
            }
            for piece in pieces? {
                window.push(piece);
                if window.len() >= PIECES_PER_THREAD * rayon::current_num_threads() {
                    self.verify_window(&std::mem::take(&mut window))?;
                }
            }
        }
        self.verify_window(&window)?;
        if self.fold.link.size < self.acknowledged {
            let (index, fault) = (Index::GENESIS, Fault::Lost { checkpoint: self.acknowledged });
            return Err(StorageError::Damage { segment: index, offset: 0, index, fault });
        }
        Ok(())
    }

    /// Cuts a segment into pieces; the last one of the log ends at its last whole batch.
    fn pieces_of(
        &mut self,
        first: Index,
        next: Option<Index>,
        full: &[Index],
    ) -> Result<Vec<Piece>, StorageError> {
        let place = (first, self.origin);
        let segment = Segment::open(self.disk, &self.folder, place, Access::Read)?;
        let (offsets, end) = match next {
            Some(next) => {
                let full = FullSegment::open(segment.clone())?;
                full.check_reaches(next)?;
                (full.all_offsets()?, full.frames_end)
            }
            None => {
                let before = link_before(self.disk, &self.folder, full, &segment)?;
                let walked = walk_last(&segment, before, self.acknowledged)?;
                self.report.has_torn_tail = walked.must_cut;
                self.last_leaves = walked.leaves;
                (walked.offsets, walked.kept.end)
            }
        };
        let segment = Arc::new(segment);
        let starts = offsets.iter().step_by(PIECE_ENTRIES).copied().map(u64::from);
        let ends = starts.clone().skip(1).chain([end]);
        let firsts = (first.0..).step_by(PIECE_ENTRIES).map(Index);
        let pieces = offsets.chunks(PIECE_ENTRIES).zip(starts.zip(ends)).zip(firsts);
        let piece = |((offsets, (start, end)), first): ((&[u32], (u64, u64)), Index)| Piece {
            segment: segment.clone(),
            bytes: start..end,
            first,
            offsets: offsets.to_vec(),
        };
        Ok(pieces.map(piece).collect())
    }

    /// Verifies some pieces; what is wrong first in the log comes out.
    fn verify_window(&mut self, pieces: &[Piece]) -> Result<(), StorageError> {
        let scanned: Vec<_> = pieces.par_iter().map(|piece| self.scan(piece)).collect();
        let mut claims = Vec::new();
        let folded = scanned.into_iter().zip(pieces).try_for_each(|(scanned, piece)| {
            let scanned = scanned?;
            let erased_events = scanned.erased_events;
            self.fold.take(scanned, &mut claims)?;
            self.report.erased_events += erased_events;
            self.report.bytes += piece.bytes.end - piece.bytes.start;
            Ok(())
        });
        let origin = &self.options.origin;
        let bad = |claim: &Claim| claim.verify(origin).err().map(|error| (claim.index(), error));
        let bad = claims.par_iter().find_map_first(bad);
        self.report.batches += count_of(claims.len());
        match bad {
            None => folded,
            Some((index, error)) => {
                let holding = claims.iter().filter(|claim| claim.index() < index).count();
                self.report.batches -= count_of(claims.len() - holding);
                Err(error)
            }
        }
    }

    fn scan(&self, piece: &Piece) -> Result<super::scan::Scanned, StorageError> {
        let scanned = piece.scan(&self.tree, self.leaves_stored)?;
        let bytes = piece.bytes.end - piece.bytes.start;
        let done_bytes = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.progress)(CheckProgress { done_bytes, total_bytes: self.total_bytes });
        Ok(scanned)
    }

    /// Computes each level of the tree from the one below, whose leaves the log has confirmed.
    fn verify_tree(&self, checkpoint: Option<(Size, Digest)>) -> Result<(), StorageError> {
        let sizes = (self.synced, self.fold.link.size);
        let mut below = self.tree.verifiable(0, sizes)?;
        for level in 1..LEVELS {
            let count = self.tree.verifiable(level, sizes)?.min(below / u64::from(TILE_WIDTH));
            let verify = |chunk: u64| {
                let first = chunk * TREE_CHUNK;
                self.verify_level(level, first, TREE_CHUNK.min(count - first))
            };
            let chunks = (0..count.div_ceil(TREE_CHUNK)).into_par_iter();
            let bad = chunks.find_map_first(|chunk| verify(chunk).err());
            bad.map_or(Ok(()), Err)?;
            below = count;
        }
        checkpoint.map_or(Ok(()), |(size, root)| self.verify_root(size, root))
    }

    /// Compares the root with the checkpoint's, without the part of the tree files that may be missing.
    fn verify_root(&self, size: Size, wanted: Digest) -> Result<(), StorageError> {
        let Some(newer) = size.0.checked_sub(self.synced.0) else {
            return check_root(&self.tree, size, wanted);
        };
        let mut frontier = self.tree.frontier(self.synced)?.unwrap_or_default();
        let newer = memory_len(newer).unwrap_or(usize::MAX);
        self.last_leaves.iter().take(newer).for_each(|leaf| frontier.append(*leaf));
        let found = frontier.root();
        if found == wanted { Ok(()) } else { Err(StorageError::Root { size, found, wanted }) }
    }

    fn verify_level(&self, level: u8, first: u64, count: u64) -> Result<(), StorageError> {
        let width = usize::from(TILE_WIDTH);
        let below_count = memory_len(count).unwrap_or_default() * width;
        let below = self.tree.hashes(level - 1, first * u64::from(TILE_WIDTH), below_count)?;
        let computed: Vec<_> = below.chunks(width).map(root_of).collect();
        compare(&self.tree, level, first, &computed)
    }
}

/// Entries of a piece: long enough that starting one costs nothing, short enough that a small ledger
/// keeps all cores busy.
const PIECE_ENTRIES: usize = 8_192;

/// Pieces in memory for each thread: what a seal on every entry needs, about 200 bytes an entry,
/// stays at a few megabytes.
const PIECES_PER_THREAD: usize = 8;

/// Hashes of a level that are computed at once, from 256 times as many below: 512 KiB.
const TREE_CHUNK: u64 = 64;
