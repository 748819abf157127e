//! Opening: finds the end of what was acknowledged, cuts what was not, and catches the tree up.
//!
//! Reads the last segment, not the ledger, so it takes the same time however large the ledger is.
//! It may be stopped at any point and started again: every step leaves a folder that opens the same
//! way.
//!
//! Entries that were written but never acknowledged may survive, in whole batches. That is
//! harmless: their sources send them again and get the receipt of what is already there.

use std::{ffi::OsString, path::Path, sync::Arc};

use access_ledger_proto::{
    chain::Link,
    entry::Entry,
    error::BuildError,
    hash::{Digest, leaf_hash, sha256},
    position::{Index, Size, count_of, memory_len},
    proof::root_at,
    segment::{FRAME_LEN_MAX, Frame, HEADER_LEN, Salt, SegmentHeader, Verify, first_of_name},
    tree::Frontier,
};

use super::{
    Options,
    file::io_error,
    log::Log,
    reader::{LogReader, Shared},
    segment::{self, FullSegment, Segment},
    tail::{self, Tail},
    tree::TreeFiles,
    walk::Walk,
};
use crate::{
    error::{Fault, StorageError},
    os::{Access, DRAFT_SUFFIX, Disk},
};

/// An open ledger, in parts.
pub struct Opened {
    /// Appends; for the writer thread.
    pub log: Log,
    /// Reads what is durable; for anyone.
    pub reader: LogReader,
    /// The stored tree, complete up to the log's size.
    pub tree: TreeFiles,
    /// The tree's growing edge, with nothing recent.
    pub frontier: Frontier,
    /// What the next entry must continue.
    pub link: Link,
    /// What was found and done.
    pub recovery: Recovery,
}

/// What opening found and did, for the log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries of the last segment, which were walked.
    pub walked_entries: u64,
    /// Entries that were whole but whose batch was not, and were cut.
    pub cut_entries: u64,
    /// Bytes cut behind the last whole batch; not counting zeros.
    pub cut_bytes: u64,
    /// The tree files were too short and were computed again from the whole log.
    pub rebuilt_tree: bool,
}

/// Opens the ledger in `options.folder`, or creates an empty one there. The caller holds the lock.
///
/// `checkpoint` is the newest one that this ledger signed, as far as its file can be read: entries
/// that it covers were acknowledged, so they must be there, and the tree's root must be the signed
/// one.
///
/// # Errors
///
/// [`StorageError::Damage`] when acknowledged entries are missing or not as written: nothing is cut
/// then. [`StorageError::Root`] when the tree is not the one that was signed.
/// [`StorageError::Io`] when the disk refuses.
pub fn open(
    disk: Arc<dyn Disk>,
    options: &Options,
    checkpoint: Option<(Size, Digest)>,
) -> Result<Opened, StorageError> {
    let origin = sha256(options.origin.as_bytes());
    let folder = segment::folder(&options.folder);
    disk.create_dir(&folder).map_err(io_error("create", &folder))?;
    remove_drafts(&*disk, &folder)?;
    let mut full = list_segments(&*disk, &folder)?;
    let last = match full.pop() {
        Some(first) => Segment::open(&*disk, &folder, (first, origin), Access::Write)?,
        None => {
            let salt = Salt(disk.random().map_err(io_error("draw a salt for", &folder))?);
            Segment::create(&*disk, &folder, SegmentHeader { origin, first: Index::GENESIS, salt })?
        }
    };
    let before = link_before(&*disk, &folder, &full, &last)?;

    let acknowledged = checkpoint.map_or(Size::ZERO, |(size, _)| size);
    let mut walked = walk_last(&last, before, acknowledged)?;
    if let Some(problem) = walked.problem.take() {
        return Err(problem);
    }
    let cut_bytes = settle(&last, &walked)?;
    disk.sync_dir(&folder).map_err(io_error("sync", &folder))?;
    let prepared_end = last.file.length()?;
    let Walked { offsets, leaves, kept, .. } = walked;

    let shared = Shared::new(disk.clone(), folder, full, last.clone(), (offsets, kept.end));
    let shared = Arc::new(shared);
    let reader = LogReader::new(shared.clone());
    let tree = TreeFiles::open(&*disk, &options.folder, Access::Write)?;
    let stored = tree.reset(Size(last.first().0))?;
    let rebuilt_tree = stored.is_none();
    let mut frontier = match stored {
        Some(frontier) => frontier,
        None => rebuild_tree(&*disk, &tree, &reader, last.first())?,
    };
    grow(&tree, &mut frontier, &leaves)?;
    if let Some((size, wanted)) = checkpoint {
        check_root(&tree, size, wanted)?;
    }

    let walked_entries = count_of(leaves.len());
    let recovery =
        Recovery { walked_entries, cut_entries: walked.cut_entries, cut_bytes, rebuilt_tree };
    let segment_bytes = options.segment_bytes.min(Options::SEGMENT_BYTES_MAX);
    let ends = (kept.link.size.next_index(), kept.end, prepared_end);
    let log = Log::new(shared, tree.clone(), segment_bytes, last, ends);
    Ok(Opened { log, reader, tree, frontier, link: kept.link, recovery })
}

/// Removes files that were being written under another name when the machine stopped.
fn remove_drafts(disk: &dyn Disk, folder: &Path) -> Result<(), StorageError> {
    for name in disk.list(folder).map_err(io_error("list", folder))? {
        if name.to_str().is_some_and(|name| name.ends_with(DRAFT_SUFFIX)) {
            let path = folder.join(name);
            disk.remove(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// First indexes of all segments, ascending. Other files are left alone.
///
/// # Errors
///
/// [`StorageError::Damage`] when the first one is missing.
pub(crate) fn list_segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<Index>, StorageError> {
    let firsts = list_firsts(disk, folder)?;
    match firsts.first() {
        None | Some(&Index::GENESIS) => Ok(firsts),
        Some(_) => {
            let (segment, index) = (Index::GENESIS, Index::GENESIS);
            Err(StorageError::Damage { segment, offset: 0, index, fault: Fault::Missing })
        }
    }
}

/// The same, whichever are there.
pub(crate) fn list_firsts(disk: &dyn Disk, folder: &Path) -> Result<Vec<Index>, StorageError> {
    let names = disk.list(folder).map_err(io_error("list", folder))?;
    let first_of = |name: &OsString| name.to_str().and_then(first_of_name);
    Ok(names.iter().filter_map(first_of).collect())
}

/// What the first entry of the last segment must continue: the last entry of the one before.
pub(crate) fn link_before(
    disk: &dyn Disk,
    folder: &Path,
    full: &[Index],
    last: &Segment,
) -> Result<Link, StorageError> {
    let Some(&first) = full.last() else {
        return Ok(Link::GENESIS);
    };
    let place = (first, last.header.origin);
    let before = FullSegment::open(Segment::open(disk, folder, place, Access::Read)?)?;
    before.check_reaches(last.first())?;
    let index = last.first().0.checked_sub(1).map_or(first, Index);
    let offset = before.offsets(before.count.saturating_sub(1), 1)?.first().copied().map(u64::from);
    let offset = offset.unwrap_or(before.frames_end);
    let segment = &before.segment;
    let length = before.frames_end.saturating_sub(offset).min(FRAME_LEN_MAX as u64);
    let bytes = segment.file.read(offset, memory_len(length).unwrap_or_default())?;
    let damage = |fault: Fault| segment.damage(offset, index, fault);
    let (frame, _) = Frame::parse(&bytes, segment.header.salt, Verify::Entry)
        .map_err(|error| damage(error.into()))?;
    let entry = Entry::parse(frame.entry).map_err(|error| damage(Fault::Entry(error)))?;
    if entry.index != index {
        return Err(damage(Fault::Index { found: entry.index }));
    }
    let (size, last_leaf) = (index.size_through(), leaf_hash(frame.entry));
    Ok(Link { size, last_leaf, recorded_at: entry.recorded_at })
}

/// The last segment up to its last whole batch; with a problem, up to that.
pub(crate) struct Walked {
    /// Where each frame starts.
    pub(crate) offsets: Vec<u32>,
    /// Where the last of them ends.
    pub(crate) end: u64,
    /// The leaf hash of each.
    pub(crate) leaves: Vec<Digest>,
    pub(crate) kept: Kept,
    /// Valid entries behind the last whole batch.
    pub(crate) cut_entries: u64,
    /// Whether there is anything but zeros behind the last whole batch.
    pub(crate) must_cut: bool,
    /// Damage: the segment cannot be opened.
    pub(crate) problem: Option<StorageError>,
}

/// The log up to a seal.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) link: Link,
    /// Where the sealed frame ends.
    pub(crate) end: u64,
    /// Where the first frame of its group starts.
    pub(crate) group_start: u64,
}

/// Walks the last segment to the end of what can be kept; less than `acknowledged` is a problem.
pub(crate) fn walk_last(
    segment: &Segment,
    before: Link,
    acknowledged: Size,
) -> Result<Walked, StorageError> {
    let length = segment.file.length()?;
    let start = HEADER_LEN as u64;
    let kept = Kept { link: before, end: start, group_start: start };
    let (mut link, mut group_start) = (before, start);
    let mut walked = Walked {
        offsets: Vec::new(),
        end: start,
        leaves: Vec::new(),
        kept,
        cut_entries: 0,
        must_cut: false,
        problem: None,
    };
    let mut walk = Walk::new(segment, length);
    let bad = loop {
        let continued = match walk.next() {
            Ok(Some(placed)) => placed.continues(segment, &mut link).map(|entry| (placed, entry)),
            Ok(None) => break None,
            // A whole frame in the wrong place was never written by us, torn or not.
            Err(error @ StorageError::Damage { fault: Fault::Index { .. }, .. }) => Err(error),
            Err(error @ StorageError::Damage { .. }) => break Some(error),
            Err(error) => return Err(error),
        };
        let (placed, (entry, leaf)) = match continued {
            Ok(continued) => continued,
            Err(problem) => {
                walked.problem = Some(problem);
                return Ok(walked);
            }
        };
        if placed.frame.group == 0 {
            group_start = placed.offset;
        }
        walked.offsets.push(u32::try_from(placed.offset).unwrap_or(u32::MAX));
        walked.leaves.push(leaf);
        walked.end = placed.end;
        if entry.seal.is_some() {
            walked.kept = Kept { link, end: placed.end, group_start };
        }
    };
    let tail = tail::judge(segment, (walk.offset(), length), walk.index())?;
    walked.keep_batches(segment, acknowledged, (tail, bad));
    Ok(walked)
}

impl Walked {
    /// Drops what is behind the last whole batch, if that may be cut. `bad` is the frame at which
    /// the walk ended, `tail` what lies from there on.
    fn keep_batches(
        &mut self,
        segment: &Segment,
        acknowledged: Size,
        (tail, bad): (Tail, Option<StorageError>),
    ) {
        let Kept { link, end, .. } = self.kept;
        let is_lost = link.size < acknowledged;
        self.problem = match bad {
            Some(damage) if tail == Tail::Damaged || is_lost && tail == Tail::Torn => Some(damage),
            _ if is_lost => {
                let fault = Fault::Lost { checkpoint: acknowledged };
                Some(segment.damage(end, link.size.next_index(), fault))
            }
            _ => None,
        };
        if self.problem.is_some() {
            return;
        }
        let count = link.size.0 - segment.first().0;
        self.cut_entries = count_of(self.leaves.len()) - count;
        self.must_cut = self.cut_entries > 0 || tail != Tail::Clean;
        let count = memory_len(count).unwrap_or_default();
        self.offsets.truncate(count);
        self.leaves.truncate(count);
        self.end = end;
    }
}

/// Cuts what is behind the last whole batch and makes the rest durable. Returns how many bytes were
/// cut.
///
/// The last group is written again first: if its sync failed before the stop, the system may
/// believe its pages to be on the disk although they are not, and would sync nothing.
fn settle(segment: &Segment, walked: &Walked) -> Result<u64, StorageError> {
    let Kept { end, group_start, .. } = walked.kept;
    let mut cut_bytes = 0;
    if walked.must_cut {
        cut_bytes = segment.file.length()?.saturating_sub(end);
        segment.file.set_length(end)?;
    }
    let group =
        segment.file.read(group_start, memory_len(end - group_start).unwrap_or_default())?;
    if !group.is_empty() {
        segment.file.write_at(&group, group_start)?;
    }
    segment.file.sync_data()?;
    Ok(cut_bytes)
}

/// Computes the tree of all entries before `end` from the log.
fn rebuild_tree(
    disk: &dyn Disk,
    tree: &TreeFiles,
    reader: &LogReader,
    end: Index,
) -> Result<Frontier, StorageError> {
    tree.start_rebuilding(disk)?;
    let mut frontier = Frontier::new();
    while frontier.size().next_index() < end {
        let next = frontier.size().next_index();
        let entries_max = memory_len(end.0 - next.0).unwrap_or(usize::MAX);
        let entries = reader.read_entries(next, entries_max, REBUILD_READ_BYTES)?;
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        grow(tree, &mut frontier, &leaves)?;
    }
    tree.finish_rebuilding(disk)?;
    Ok(frontier)
}

/// Adds leaves to the tree, on disk and in memory.
fn grow(tree: &TreeFiles, frontier: &mut Frontier, leaves: &[Digest]) -> Result<(), StorageError> {
    for some in leaves.chunks(GROW_LEAVES) {
        some.iter().for_each(|leaf| frontier.append(*leaf));
        tree.append(frontier)?;
        frontier.forget();
    }
    Ok(())
}

/// Checks that the stored tree has this root at this size.
pub(crate) fn check_root(tree: &TreeFiles, size: Size, wanted: Digest) -> Result<(), StorageError> {
    match root_at(tree, size) {
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => Err(StorageError::Root { size, found, wanted }),
        Err(BuildError::Source(error)) => Err(error),
        Err(_) => Err(StorageError::TreeBehind { found: tree.size(), wanted: size }),
    }
}

/// Bytes of the log read at once when the tree is computed again.
const REBUILD_READ_BYTES: usize = 1 << 20;

/// Leaves whose nodes are held in memory before they are stored: 64 bytes each.
const GROW_LEAVES: usize = 16_384;
