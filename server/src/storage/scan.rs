//! Verifies one piece of the log by itself, so that pieces are verified in parallel.
//!
//! All that hashing costs is here: checksums, leaf hashes, links, event digests, tree leaves. What needs
//! the pieces before (the first link, keys, numbers) comes out as a [`Scanned`] for `fold.rs`.

use std::{ops::Range, sync::Arc};

use access_ledger_proto::{
    chain::Link,
    entry::{Entry, Seal},
    event::{self, Body},
    hash::{Digest, sha256},
    position::{Index, memory_len},
    source::SourceName,
};

use super::{
    segment::Segment,
    tree::TreeFiles,
    walk::{Placed, Walk},
};
use crate::error::{Fault, StorageError};

/// Frames that lie together in one segment.
pub(crate) struct Piece {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: Range<u64>,
    pub(crate) first: Index,
    /// Where each frame must start.
    pub(crate) offsets: Vec<u32>,
}

/// A piece that holds by itself.
pub(crate) struct Scanned {
    pub(crate) segment: Arc<Segment>,
    pub(crate) first: Index,
    pub(crate) first_offset: u64,
    /// What the first entry continues.
    pub(crate) prev: Digest,
    pub(crate) first_recorded_at: u64,
    /// The chain behind the last entry.
    pub(crate) end: Link,
    pub(crate) runs: Vec<Run>,
    pub(crate) erased_events: u64,
}

/// Entries up to a seal, or up to the end of the piece; the first one of a piece may lack its start.
pub(crate) struct Run {
    pub(crate) source: SourceName,
    pub(crate) first_seq: u64,
    /// The first entry, and where its frame starts.
    pub(crate) first: (Index, u64),
    /// The last entry, and where its frame starts.
    pub(crate) last: (Index, u64),
    pub(crate) digests: Vec<Digest>,
    pub(crate) seal: Option<Seal>,
    /// Events that may change who may record.
    pub(crate) changes: Vec<(Index, Vec<u8>)>,
    /// Whether there are events that change nothing.
    pub(crate) has_plain: bool,
}

impl Piece {
    /// Verifies the piece, with the first `leaves_stored` leaves of the tree.
    pub(crate) fn scan(
        &self,
        tree: &TreeFiles,
        leaves_stored: u64,
    ) -> Result<Scanned, StorageError> {
        let segment = &*self.segment;
        let mut walk = Walk::from(segment, self.bytes.clone(), self.first);
        let mut scanned = Scanned {
            segment: self.segment.clone(),
            first: self.first,
            first_offset: self.bytes.start,
            prev: Digest::ZERO,
            first_recorded_at: 0,
            end: Link::GENESIS,
            runs: Vec::new(),
            erased_events: 0,
        };
        let mut leaves = Vec::with_capacity(self.offsets.len());
        for &offset in &self.offsets {
            let Some(placed) = walk.next()? else {
                return Err(segment.damage(walk.offset(), walk.index(), Fault::Footer));
            };
            if placed.offset != u64::from(offset) {
                return Err(segment.damage(placed.offset, placed.index, Fault::Footer));
            }
            leaves.push(scanned.take(&placed)?);
        }
        if walk.offset() != self.bytes.end {
            return Err(segment.damage(walk.offset(), walk.index(), Fault::Footer));
        }
        let stored = memory_len(leaves_stored.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        compare(tree, 0, self.first.0, leaves.get(..stored).unwrap_or(&leaves))?;
        Ok(scanned)
    }
}

impl Scanned {
    /// Verifies a record behind the ones before, and returns its leaf hash.
    fn take(&mut self, placed: &Placed<'_>) -> Result<Digest, StorageError> {
        if placed.index == self.first {
            let parsed = Entry::parse(placed.frame.entry);
            let entry = parsed.map_err(|error| {
                self.segment.damage(placed.offset, placed.index, Fault::Entry(error))
            })?;
            self.prev = entry.prev;
            self.first_recorded_at = entry.recorded_at;
            self.end = Link::before(self.first, entry.prev);
        }
        let (entry, leaf) = placed.continues(&self.segment, &mut self.end)?;
        let damage = |fault| self.segment.damage(placed.offset, placed.index, fault);
        match placed.frame.event() {
            Some(event) => {
                let found = sha256(event);
                if found != entry.event_digest {
                    return Err(damage(Fault::EventDigest { found, wanted: entry.event_digest }));
                }
            }
            None if placed.frame.event_area.iter().any(|&byte| byte != 0) => {
                return Err(damage(Fault::NotErased));
            }
            None => self.erased_events += 1,
        }
        extend_runs(&mut self.runs, &entry, placed).map_err(damage)?;
        Ok(leaf)
    }
}

/// Adds a record to the run that it continues, or starts the next run.
fn extend_runs(runs: &mut Vec<Run>, entry: &Entry<'_>, placed: &Placed<'_>) -> Result<(), Fault> {
    let place = (placed.index, placed.offset);
    if runs.last().is_none_or(|run| run.seal.is_some()) {
        runs.push(Run {
            source: entry.source.to_owned(),
            first_seq: entry.source_seq,
            first: place,
            last: place,
            digests: Vec::new(),
            seal: None,
            changes: Vec::new(),
            has_plain: false,
        });
    }
    let Some(run) = runs.last_mut() else {
        return Ok(());
    };
    let expected_seq = run.first_seq.saturating_add(run.digests.len() as u64);
    if run.source.as_name() != entry.source || entry.source_seq != expected_seq {
        let (source_name, source_seq) = (entry.source.to_owned(), entry.source_seq);
        return Err(Fault::Batch { source_name, source_seq });
    }
    run.last = place;
    run.digests.push(entry.event_digest);
    run.seal = entry.seal;
    let event = placed.frame.event();
    match event.and_then(event::body).map(|body| body.number) {
        Some(Body::SOURCE_STATUS | Body::CONTROL_CHANGE) => {
            run.changes.push((placed.index, event.unwrap_or_default().to_vec()));
        }
        _ => run.has_plain = true,
    }
    Ok(())
}

/// Compares the stored hashes of a level from `first` on with computed ones.
pub(crate) fn compare(
    tree: &TreeFiles,
    level: u8,
    first: u64,
    computed: &[Digest],
) -> Result<(), StorageError> {
    let stored = tree.hashes(level, first, computed.len())?;
    let mut pairs = (first..).zip(stored.iter().zip(computed));
    match pairs.find(|(_, (stored, computed))| stored != computed) {
        None => Ok(()),
        Some((position, (&found, &computed))) => {
            Err(StorageError::TreeDamage { level, position, found, computed })
        }
    }
}
