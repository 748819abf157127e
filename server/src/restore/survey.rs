//! Reads all that is stored of a log, and tells which segments do not hold, and whether the files
//! of the tree do. Changes nothing.
//!
//! A segment holds when its header, footer and checksums do, nothing is left of what was erased,
//! and its entries are chained to those before. Where two segments do not fit together, neither is
//! believed. Who sealed what, and whether all this is what the ledger signed, is for the verifier
//! that reads the log afterwards.

use std::{io, ops::RangeInclusive};

use access_ledger_proto::{
    chain::Link,
    entry::Entry,
    hash::{Digest, sha256},
    position::{Index, Size},
    segment::Salt,
    tree::Frontier,
};
use tracing::warn;

use crate::{
    check::tree::StoredTree,
    erase::Progress,
    error::{Fault, StorageError},
    os::{Access, Disk},
    storage::{
        Options,
        recover::{list_firsts, walk_last},
        segment::{self, FullSegment, Segment},
        walk::{Placed, Walk},
    },
};

/// What there is of a log.
pub(super) struct Survey {
    /// Side by side, from entry 0 on; the last has no end.
    pub(super) stretches: Vec<Stretch>,
    /// Whether the files of the tree are those of the entries.
    pub(super) tree_holds: bool,
    /// What the checksums of all frames start from, if any header tells.
    pub(super) salt: Option<Salt>,
}

/// The entries from the first of a segment up to the next segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) first: Index,
    /// Where the next one starts; `None` for the last.
    pub(super) next: Option<Index>,
    /// What its segment holds; `None` when that does not hold, or there is none.
    pub(super) sound: Option<Sound>,
}

/// A segment as far as it is to be kept: of the last one, whole batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sound {
    /// Where the frames end in the file.
    pub(super) frames_end: u64,
    /// Entries from 0 on up to there.
    pub(super) size: Size,
}

impl Survey {
    /// Reads the log in `options.folder`; what is not there at all is empty.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when not even the folder can be listed.
    pub(super) fn read(disk: &dyn Disk, options: &Options) -> Result<Self, StorageError> {
        let firsts = match list_firsts(disk, &segment::folder(&options.folder)) {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            listed => listed?,
        };
        let erased = Progress::load(disk, &options.folder)?.unwrap_or_default();
        let mut reading = Reading {
            disk,
            options,
            origin: sha256(options.origin.as_bytes()),
            tree: StoredTree::open(disk, options).ok(),
            frontier: Frontier::new(),
            under_way: erased.under_way(),
            link: Some(Link::GENESIS),
            salt: None,
        };
        let stretches = reading.stretches(&firsts);
        let synced = Size(firsts.last().map_or(0, |first| first.0));
        let tree_holds = match &reading.tree {
            Some(tree) => tree.check_lengths(synced).is_ok(),
            None => firsts.is_empty(),
        };
        Ok(Self { stretches, tree_holds, salt: reading.salt })
    }

    /// Whether every segment holds.
    pub(super) fn is_whole(&self) -> bool {
        self.stretches.iter().all(|stretch| stretch.sound.is_some())
    }

    /// Entries up to the end of the last whole batch; `None` when the last segment does not hold.
    pub(super) fn size(&self) -> Option<Size> {
        self.stretches.last().map_or(Some(Size::ZERO), |last| last.sound.map(|sound| sound.size))
    }
}

/// A survey under way.
struct Reading<'a> {
    disk: &'a dyn Disk,
    options: &'a Options,
    origin: Digest,
    /// `None` when a file of it cannot be opened, or is not that of the entries.
    tree: Option<StoredTree>,
    /// Over all entries, as long as there was no damage.
    frontier: Frontier,
    /// Where erased events may not be overwritten yet.
    under_way: Vec<RangeInclusive<u64>>,
    /// What the next entry must continue; `None` behind damage.
    link: Option<Link>,
    salt: Option<Salt>,
}

impl Reading<'_> {
    fn stretches(&mut self, firsts: &[Index]) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::with_capacity(firsts.len());
        if let Some(&next) = firsts.first().filter(|first| **first > Index::GENESIS) {
            warn!(segment = 0, "found no segment");
            stretches.push(Stretch { first: Index::GENESIS, next: Some(next), sound: None });
            self.link = None;
        }
        let nexts = firsts.iter().skip(1).copied().map(Some).chain([None]);
        for (&first, next) in firsts.iter().zip(nexts) {
            let sound = match self.segment(first, next) {
                Ok(sound) => Some(sound),
                Err(problem) => {
                    warn!(segment = first.0, %problem, "found a damaged segment");
                    self.link = None;
                    // The entry before may be the wrong one.
                    if let Some(before) = stretches.last_mut().filter(|_| is_seam(&problem, first))
                    {
                        before.sound = None;
                    }
                    None
                }
            };
            stretches.push(Stretch { first, next, sound });
        }
        stretches
    }

    fn segment(&mut self, first: Index, next: Option<Index>) -> Result<Sound, StorageError> {
        let folder = segment::folder(&self.options.folder);
        let segment = Segment::open(self.disk, &folder, (first, self.origin), Access::Read)?;
        segment.file.forget();
        self.salt = Some(segment.header.salt);
        let before = match self.link {
            Some(link) => link,
            None => claimed(&segment)?,
        };
        let frames_end = match next {
            Some(next) => {
                let full = FullSegment::open(segment.clone())?;
                full.check_reaches(next)?;
                let offsets = full.all_offsets()?;
                self.frames(&segment, before, (full.frames_end, &offsets))?;
                full.frames_end
            }
            None => {
                let walked = walk_last(&segment, before, Size::ZERO)?;
                if let Some(problem) = walked.problem {
                    return Err(problem);
                }
                self.frames(&segment, before, (walked.kept.end, &walked.offsets))?;
                walked.kept.end
            }
        };
        let size = self.link.map_or(Size::ZERO, |link| link.size);
        Ok(Sound { frames_end, size })
    }

    /// Reads the frames of a segment, which start at these offsets.
    fn frames(
        &mut self,
        segment: &Segment,
        mut link: Link,
        (end, offsets): (u64, &[u32]),
    ) -> Result<(), StorageError> {
        let (mut walk, mut offsets) = (Walk::new(segment, end), offsets.iter());
        let is_continued = self.link.is_some();
        loop {
            let (at, index) = (walk.offset(), walk.index());
            let Some(placed) = walk.next()? else {
                break match (at == end, offsets.next()) {
                    (true, None) => {}
                    _ => return Err(segment.damage(at, index, Fault::Footer)),
                };
            };
            if offsets.next().is_none_or(|&offset| u64::from(offset) != placed.offset) {
                return Err(segment.damage(at, index, Fault::Footer));
            }
            if self.is_remainder(&placed, segment.header.salt) {
                return Err(segment.damage(placed.offset, index, Fault::NotErased));
            }
            let (_, leaf) = placed.continues(segment, &mut link)?;
            if is_continued {
                self.frontier.append(leaf);
            }
            if link.size.0.is_multiple_of(LEAVES) {
                self.compare();
            }
        }
        self.compare();
        self.link = Some(link);
        Ok(())
    }

    /// Whether something is left of an event that was erased.
    fn is_remainder(&self, placed: &Placed<'_>, salt: Salt) -> bool {
        let is_left = placed.frame.event().is_none() && !placed.frame.is_wiped(salt);
        is_left && !self.under_way.iter().any(|range| range.contains(&placed.index.0))
    }

    /// Compares what the entries gave since the last time with the files of the tree. Behind damage
    /// there is nothing to compare: then the tree is computed again anyway.
    fn compare(&mut self) {
        let compared = self.tree.as_ref().map(|tree| tree.compare(&self.frontier));
        if let Some(Err(problem)) = compared {
            warn!(%problem, "found a damaged tree");
            self.tree = None;
        }
        self.frontier.forget();
    }
}

/// What the first entry of a segment says it continues.
fn claimed(segment: &Segment) -> Result<Link, StorageError> {
    let mut walk = Walk::new(segment, segment.file.length()?);
    let Some(placed) = walk.next()? else {
        return Ok(Link { size: Size(segment.first().0), ..Link::GENESIS });
    };
    let damage = |error| segment.damage(placed.offset, placed.index, Fault::Entry(error));
    let entry = Entry::parse(placed.frame.entry).map_err(damage)?;
    Ok(Link { size: Size(segment.first().0), last_leaf: entry.prev, recorded_at: 0 })
}

/// Whether the first entry of a segment does not continue the one before.
fn is_seam(problem: &StorageError, first: Index) -> bool {
    matches!(problem, StorageError::Damage { index, fault: Fault::Chain(_), .. } if *index == first)
}

/// Leaves whose nodes are held in memory before they are compared.
const LEAVES: u64 = 4_096;
