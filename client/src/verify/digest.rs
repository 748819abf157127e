//! The part of verification that needs nothing from before: runs of entries can be digested in any
//! order and on all cores.
//!
//! Inside a run everything is checked that the run alone tells: each entry is well formed and in
//! its place, continues the one before it, and commits to its event; batches are cut by seals and
//! their numbers go up by one. What is left for the fold is the seam between runs, and who may do
//! what.

use std::ops::Range;

use access_ledger_proto::{
    chain::Link,
    entry::{Entry, Seal},
    error::{ChainError, SequenceGap},
    event::{self, Body},
    hash::{Digest, leaf_hash, sha256, sha256_of_digests},
    position::{Index, Size, count_of},
    source::SourceName,
    tree::Subtrees,
    wire,
};
use bytes::Bytes;
use prost::Message as _;

use super::{
    batch::Bodies,
    error::{Fault, Violation},
};

/// One entry as it was served, with its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The encoded entry.
    pub entry: Bytes,
    /// The event's bytes; `None` when they were erased, or not asked for ([`Scope::EntriesOnly`]).
    pub event: Option<Bytes>,
}

/// What is there to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Entries and events: everything is checked.
    Events,
    /// Entries alone: chain, time, numbers, batch cuts, tree. Who sealed cannot be checked, for the
    /// keys are in the events.
    EntriesOnly,
}

/// Consecutive records that were checked by themselves; [`super::LogVerifier::take`] takes them up.
#[derive(Debug)]
pub struct DigestedRun {
    pub(super) first: Index,
    pub(super) records: Vec<Record>,
    /// What the first entry claims of the chain before it, where it could be read.
    pub(super) before: Option<Link>,
    /// The chain after the last entry that was found in order.
    pub(super) after: Link,
    /// The nodes of the tree over the entries found in order.
    pub(super) subtrees: Subtrees,
    /// Of the same entries' events.
    pub(super) event_digests: Vec<Digest>,
    /// Offsets and times of the entries whose event was erased.
    pub(super) erased: Vec<(usize, u64)>,
    /// The entries found in order, cut behind each seal.
    pub(super) stretches: Vec<Stretch>,
    /// The first violation in this run, if nothing before it is wrong.
    pub(super) violation: Option<Violation>,
}

/// Entries of one source, next to each other and numbered one by one, up to a seal or the run's
/// end.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Offsets in the run.
    pub(super) range: Range<usize>,
    pub(super) source: SourceName,
    pub(super) first_seq: u64,
    /// On the last entry.
    pub(super) seal: Option<Seal>,
    /// Time of the last entry.
    pub(super) recorded_at: u64,
    /// SHA-256 of the joined event digests; zeros without a seal.
    pub(super) joined: Digest,
    /// Offsets of the events that the fold must read.
    pub(super) notable: Vec<usize>,
    /// Bodies of the events that are not notable.
    pub(super) ordinary: Bodies,
}

/// Digests the records from `first` on.
///
/// Hashes each entry, each event, and the tree over them; verifies no signature. Of several
/// violations the run keeps the first.
#[must_use]
pub fn digest(first: Index, records: Vec<Record>, scope: Scope) -> DigestedRun {
    let mut leaves = Vec::with_capacity(records.len());
    let mut run = DigestedRun {
        first,
        records: Vec::new(),
        before: None,
        after: Link { size: Size(first.0), ..Link::GENESIS },
        subtrees: Subtrees::over(first, Vec::new()),
        event_digests: Vec::with_capacity(records.len()),
        erased: Vec::new(),
        stretches: Vec::new(),
        violation: None,
    };
    let mut fault = None;
    for (offset, record) in records.iter().enumerate() {
        match run.push(offset, record, scope) {
            Ok(leaf) => leaves.push(leaf),
            Err(what) => {
                fault = Some((offset, what));
                break;
            }
        }
    }
    run.records = records;
    run.subtrees = Subtrees::over(first, leaves);
    for stretch in run.stretches.iter_mut().filter(|stretch| stretch.seal.is_some()) {
        let digests = run.event_digests.get(stretch.range.clone()).unwrap_or_default();
        stretch.joined = sha256_of_digests(digests);
    }
    run.violation = fault.map(|(offset, what)| run.violation_at(offset, what));
    run
}

impl DigestedRun {
    /// How many records the run was made of.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the run holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether an event in it may change the rules: who may record what, and what may be erased.
    #[must_use]
    pub fn changes_rules(&self) -> bool {
        self.stretches.iter().any(|stretch| !stretch.notable.is_empty())
    }

    /// The sources of the entries that were found in order, with the last number that each gave;
    /// a source may come more than once, in the order of the log.
    pub fn last_numbers(&self) -> impl Iterator<Item = (&SourceName, u64)> {
        self.stretches.iter().map(|stretch| {
            let count = count_of(stretch.range.len());
            (&stretch.source, stretch.first_seq.saturating_add(count).saturating_sub(1))
        })
    }

    /// The first violation inside the run, as far as the run alone tells.
    #[must_use]
    pub fn into_violation(self) -> Option<Violation> {
        self.violation
    }

    /// The place of the entry at `offset`.
    pub(super) fn index(&self, offset: usize) -> Index {
        self.first.plus(count_of(offset))
    }

    /// The event at `offset`, if it was served.
    pub(super) fn event(&self, offset: usize) -> Option<&Bytes> {
        self.records.get(offset)?.event.as_ref()
    }

    /// Offset and time of those entries of a stretch whose event was erased.
    pub(super) fn erased_in(&self, stretch: &Stretch) -> &[(usize, u64)] {
        let before = |end: usize| self.erased.partition_point(|&(offset, _)| offset < end);
        self.erased.get(before(stretch.range.start)..before(stretch.range.end)).unwrap_or_default()
    }

    /// A violation of the entry at `offset`, with what was served of it as evidence, and the entry
    /// before it. Not that one's event: it proves nothing here, and who has it erased later looks
    /// for it under its own index.
    pub(super) fn violation_at(&self, offset: usize, what: Fault) -> Violation {
        let from = offset.saturating_sub(1);
        let mut served = self.records.get(from..=offset).unwrap_or_default().to_vec();
        if let [before, _] = &mut served[..] {
            before.event = None;
        }
        let evidence = encode_evidence(self.index(from), &served);
        Violation { evidence, ..Violation::new(self.index(offset), what) }
    }

    /// Checks the next record, and returns its leaf hash.
    fn push(&mut self, offset: usize, record: &Record, scope: Scope) -> Result<Digest, Fault> {
        let entry = Entry::parse(&record.entry).map_err(Fault::Entry)?;
        let leaf = leaf_hash(&record.entry);
        let claimed =
            Link { size: self.after.size, last_leaf: entry.prev, recorded_at: entry.recorded_at };
        // What lies before the run is the fold's to check.
        let mut after = if offset == 0 { claimed } else { self.after };
        after.check(&entry, leaf).map_err(chain_fault)?;
        self.before = self.before.or(Some(claimed));
        let body = match (&record.event, scope) {
            (_, Scope::EntriesOnly) => None,
            (None, Scope::Events) => {
                self.erased.push((offset, entry.recorded_at));
                None
            }
            (Some(event), Scope::Events) => {
                let computed = sha256(event);
                if computed != entry.event_digest {
                    let recorded = entry.event_digest;
                    return Err(Fault::EventDigest { computed, recorded });
                }
                // An event without a body that this version knows changes no rule.
                Some(event::body(event).map_or(0, |body| body.number))
            }
        };
        let stretch = self.stretch_for(offset, &entry)?;
        stretch.range.end = offset + 1;
        stretch.seal = entry.seal;
        stretch.recorded_at = entry.recorded_at;
        match body {
            Some(Body::SOURCE_STATUS | Body::CONTROL_CHANGE | Body::REDACTION) => {
                stretch.notable.push(offset);
            }
            Some(number) => stretch.ordinary.insert(number),
            None => {}
        }
        self.after = after;
        self.event_digests.push(entry.event_digest);
        Ok(leaf)
    }

    /// The stretch that the next entry lies in: the open one, which it must fit, or a new one.
    fn stretch_for(&mut self, offset: usize, entry: &Entry<'_>) -> Result<&mut Stretch, Fault> {
        let last = self.stretches.last();
        if let Some(open) = last.filter(|last| last.seal.is_none()) {
            if open.source.as_name() != entry.source {
                let (found, open) = (entry.source.to_owned(), open.source.clone());
                return Err(Fault::Interrupted { found, open });
            }
            let expected = open.first_seq.saturating_add(count_of(open.range.len()));
            if entry.source_seq != expected {
                let (name, found) = (open.source.clone(), entry.source_seq);
                return Err(Fault::Sequence(SequenceGap { name, found, expected }));
            }
        } else {
            let known = last.filter(|last| last.source.as_name() == entry.source);
            let source = known.map_or_else(|| entry.source.to_owned(), |last| last.source.clone());
            self.stretches.push(Stretch {
                range: offset..offset,
                source,
                first_seq: entry.source_seq,
                seal: None,
                recorded_at: 0,
                joined: Digest::ZERO,
                notable: Vec::new(),
                ordinary: Bodies::default(),
            });
        }
        // One was open or was just pushed.
        self.stretches.last_mut().ok_or(Fault::Index { found: entry.index })
    }
}

pub(super) fn encode_evidence(first: Index, served: &[Record]) -> Vec<u8> {
    let entries = served.iter().map(|record| record.entry.clone()).collect();
    let events = served.iter().map(|record| record.event.clone().unwrap_or_default()).collect();
    wire::EntryRun { first_index: first.0, entries, events }.encode_to_vec()
}

pub(super) const fn chain_fault(error: ChainError) -> Fault {
    match error {
        ChainError::Link { found, wanted, .. } => Fault::Link { found, computed: wanted },
        ChainError::Time { found, before, .. } => Fault::Time { found, before },
        ChainError::Index { found, .. } => Fault::Index { found },
        // The enum may grow; a new variant gets its own fault.
        _ => Fault::Index { found: Index(u64::MAX) },
    }
}
