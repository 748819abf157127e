//! The one fold that verifies a log: pure, and the same for auditors, custodians and the server's
//! own offline check.
//!
//! Verification has three parts, so that all cores work and memory stays bounded:
//!
//! 1. [`digest`] checks a run of records by itself: form, places, links, event digests, batch cuts.
//!    It hashes entries, events and the tree over them.
//! 2. [`LogVerifier::take`] folds digested runs in their order: the seams between runs, who may
//!    seal what, numbers without gaps. It costs some microseconds a batch.
//! 3. [`SealCheck`]s verify the sources' signatures, with the keys that the log itself had
//!    registered at that place.
//!
//! [`LogVerifier::advance`] runs the three side by side; [`LogVerifier::finish`] compares with what
//! the ledger signed. The first rule that is broken comes back as a [`Violation`]: whatever has a
//! lower index was found in order.

use std::sync::Arc;

use access_ledger_proto::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    entry::Seal,
    error::{SealError, SequenceGap},
    facts::{redactions::Erasable, sequences::Sequences, sources::Sources},
    hash::Digest,
    missing::Missing,
    note::VerifierKey,
    position::{Index, Size, count_of},
    tree::Frontier,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

mod batch;
mod digest;
mod error;
#[cfg(test)]
pub(crate) mod honest;
mod registry;
mod seals;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use self::{
    batch::{OpenBatch, SealedBatch},
    digest::Stretch,
    registry::Registry,
};
pub use self::{
    digest::{DigestedRun, Record, Scope, digest},
    error::{Fault, StateError, Violation},
    seals::{SealCheck, check_seals},
    state::SavedState,
};

/// A log that is being verified from entry 0 on, or from a saved state on.
///
/// Memory grows with the number of sources, not with the log, but for some bits an entry where
/// events are missing whose redaction is yet to come. After a violation the verifier has no further
/// use.
#[derive(Clone, Debug)]
pub struct LogVerifier {
    origin: Arc<str>,
    ledger: VerifierKey,
    scope: Scope,
    link: Link,
    frontier: Frontier,
    sequences: Sequences,
    /// From entry 0 on, unless entries alone are verified.
    registry: Option<Registry>,
    open: Option<OpenBatch>,
    missing: Missing,
    pending: Vec<SealCheck>,
    totals: Totals,
}

/// What was counted on the way, from entry 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Sealed batches.
    pub batches: u64,
    /// Seals whose signatures were verified: all, or none with [`Scope::EntriesOnly`].
    pub seals_checked: u64,
    /// Events that were erased before they were read.
    pub events_erased: u64,
    /// Time of entry 0, in nanoseconds since the Unix epoch.
    pub first_recorded_at: u64,
}

/// A fault of the entry at an offset in its run.
type FaultAt = (usize, Fault);

impl LogVerifier {
    /// Before entry 0 of the ledger with this key, whose name is the origin: the one of the
    /// genesis, or one that governance put in its place.
    #[must_use]
    pub fn new(ledger: &VerifierKey, scope: Scope) -> Self {
        Self {
            origin: ledger.name().into(),
            ledger: ledger.clone(),
            scope,
            link: Link::GENESIS,
            frontier: Frontier::new(),
            sequences: Sequences::default(),
            registry: None,
            open: None,
            missing: Missing::default(),
            pending: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// How many entries were taken.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.link.size
    }

    /// The root of the tree over them.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// The tree over them, with the nodes that the last run made: what a copy of the log stores, or
    /// compares with what it has stored.
    #[must_use]
    pub const fn tree(&self) -> &Frontier {
        &self.frontier
    }

    /// Time of the last entry, in nanoseconds since the Unix epoch; 0 before entry 0.
    #[must_use]
    pub const fn recorded_at(&self) -> u64 {
        self.link.recorded_at
    }

    /// What is verified.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The sources as registered so far; `None` before entry 0 and with [`Scope::EntriesOnly`].
    #[must_use]
    pub fn sources(&self) -> Option<&Sources> {
        self.registry.as_ref().map(|registry| &registry.sources)
    }

    /// The last number of every source.
    #[must_use]
    pub const fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// What was counted. Seals that are still pending do not count.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The first event that is gone and not accounted for by the entries taken so far. The record
    /// may lie beyond the checkpoint that was verified first: an auditor fetches a newer one before
    /// it calls [`LogVerifier::finish`].
    #[must_use]
    pub fn unaccounted(&self) -> Option<Index> {
        self.missing.first()
    }

    /// Verifies runs of consecutive records on all cores: digests them while the seals of the runs
    /// before are checked, then takes them up.
    ///
    /// Runs are given by the index of their first record, in order. A few thousand records a run,
    /// and a few runs a call for each core, keep all of them busy.
    ///
    /// # Errors
    ///
    /// The violation with the lowest index, as far as the log was taken.
    pub fn advance(&mut self, runs: Vec<(Index, Vec<Record>)>) -> Result<(), Violation> {
        let scope = self.scope;
        let (digested, seals) = rayon::join(
            || -> Vec<DigestedRun> {
                let runs = runs.into_par_iter();
                runs.map(|(first, records)| digest(first, records, scope)).collect()
            },
            || check_seals(&self.pending),
        );
        seals?;
        self.settled();
        for run in digested {
            if let Err(violation) = self.take(run) {
                // A seal before that place is the earlier violation.
                return Err(self.settle().err().unwrap_or(violation));
            }
        }
        Ok(())
    }

    /// Takes up the next run, and gives its records back. The seals of its batches become due at
    /// the next [`LogVerifier::settle`].
    ///
    /// # Errors
    ///
    /// The first violation that is not one of a seal's signature.
    pub fn take(&mut self, run: DigestedRun) -> Result<Vec<Record>, Violation> {
        self.frontier.forget();
        if run.before.is_none() {
            // Not one entry could be read.
            return run.violation.map_or(Ok(run.records), Err);
        }
        self.take_seam(&run)?;
        self.totals.events_erased += count_of(run.erased.len());
        for stretch in &run.stretches {
            self.take_stretch(&run, stretch)
                .map_err(|(offset, what)| run.violation_at(offset, what))?;
        }
        self.frontier.extend(&run.subtrees);
        self.link = run.after;
        run.violation.map_or(Ok(run.records), Err)
    }

    /// Verifies the signatures of all seals that are due, on all cores.
    ///
    /// # Errors
    ///
    /// The violation with the lowest index.
    pub fn settle(&mut self) -> Result<(), Violation> {
        check_seals(&self.pending)?;
        self.settled();
        Ok(())
    }

    /// Concludes at a checkpoint: all seals hold, no batch is cut off, every erased event is
    /// accounted for, and the entries make the tree that the ledger signed. The verifier may go on
    /// from there.
    ///
    /// The caller has taken exactly as many entries as the checkpoint says.
    ///
    /// # Errors
    ///
    /// [`Fault::Seal`], [`Fault::Unsealed`], [`Fault::ErasedWithoutRecord`],
    /// [`Fault::ForeignGenesis`], [`Fault::Root`], which also stands for another size, or
    /// [`Fault::LedgerKey`].
    pub fn finish(&mut self, checkpoint: &VerifiedCheckpoint) -> Result<(), Violation> {
        self.conclude()?;
        let (signed, computed) = (checkpoint.root(), self.root());
        if (checkpoint.size(), signed) != (self.link.size, computed) {
            let last = checkpoint.size().last_index().unwrap_or(Index::GENESIS);
            return Err(Violation::new(last, Fault::Root { signed, computed }));
        }
        let Some(registry) = &self.registry else { return Ok(()) };
        registry.check_signed(checkpoint).map_err(|fault| {
            let last = self.link.size.last_index().unwrap_or(Index::GENESIS);
            Violation::new(last, fault)
        })
    }

    /// Concludes where the log ends, whatever was signed: all seals hold, no batch is cut off,
    /// every erased event is accounted for. For whoever holds the whole log, checkpoint or not.
    ///
    /// # Errors
    ///
    /// [`Fault::Seal`], [`Fault::Unsealed`], [`Fault::ErasedWithoutRecord`], or
    /// [`Fault::ForeignGenesis`].
    pub fn conclude(&mut self) -> Result<(), Violation> {
        self.settle()?;
        if let Some(open) = &self.open {
            let size = self.link.size;
            return Err(Violation::new(open.first_index, Fault::Unsealed { size }));
        }
        if let Some(index) = self.missing.first() {
            return Err(Violation::new(index, Fault::ErasedWithoutRecord));
        }
        let Some(registry) = &self.registry else { return Ok(()) };
        let pinned = registry.check_pinned(&self.ledger);
        pinned.map_err(|fault| Violation::new(Index::GENESIS, fault))
    }

    /// Checks that the run continues where the one before ended.
    fn take_seam(&self, run: &DigestedRun) -> Result<(), Violation> {
        let Some(claimed) = run.before else {
            return Ok(());
        };
        let fault = if claimed.size != self.link.size {
            Fault::Index { found: claimed.size.next_index() }
        } else if claimed.last_leaf != self.link.last_leaf {
            Fault::Link { found: claimed.last_leaf, computed: self.link.last_leaf }
        } else if claimed.recorded_at < self.link.recorded_at {
            Fault::Time { found: claimed.recorded_at, before: self.link.recorded_at }
        } else {
            return Ok(());
        };
        Err(run.violation_at(0, fault))
    }

    fn settled(&mut self) {
        self.totals.seals_checked += count_of(self.pending.len());
        self.pending.clear();
    }

    fn take_stretch(&mut self, run: &DigestedRun, stretch: &Stretch) -> Result<(), FaultAt> {
        let start = stretch.range.start;
        self.miss(run, stretch);
        match &self.open {
            Some(open) => open.admits(stretch),
            None => self.begin(run, stretch),
        }
        .map_err(|fault| (start, fault))?;
        let before = self.open.as_ref().map_or(0, |open| open.digests.len());
        let room = usize::from(Seal::COUNT_MAX).saturating_sub(before);
        if stretch.range.len() > room {
            let found = before.saturating_add(stretch.range.len());
            return Err((start.saturating_add(room), Fault::Seal(SealError::Count { found })));
        }
        let batch = match (self.open.take(), stretch.seal) {
            (None, Some(seal)) => SealedBatch::whole(run, stretch, seal),
            (None, None) => {
                self.open = Some(OpenBatch::begin(run, stretch));
                return Ok(());
            }
            (Some(mut open), seal) => {
                open.extend(run, stretch);
                let Some(seal) = seal else {
                    self.open = Some(open);
                    return Ok(());
                };
                open.sealed(seal)
            }
        };
        let last = stretch.range.end.saturating_sub(1);
        self.take_batch(batch, run.records.get(last)).map_err(|fault| (last, fault))
    }

    /// Notes which events of the stretch are gone.
    fn miss(&mut self, run: &DigestedRun, stretch: &Stretch) {
        let erased = run.erased_in(stretch);
        let Some(registry) = self.registry.as_ref().filter(|_| !erased.is_empty()) else { return };
        for &(offset, recorded_at) in erased {
            let index = run.index(offset);
            let erasable = Erasable::of(&registry.sources, stretch.source.as_name(), index);
            self.missing.miss(index, recorded_at, erasable);
        }
    }

    /// The first stretch of a batch: entry 0 must be the genesis, any other goes on with its
    /// source's next number.
    fn begin(&mut self, run: &DigestedRun, stretch: &Stretch) -> Result<(), Fault> {
        if run.index(stretch.range.start) == Index::GENESIS {
            self.totals.first_recorded_at = stretch.recorded_at;
            if self.scope == Scope::Events {
                let genesis = Registry::from_genesis(run.event(0), &stretch.source, &self.ledger)?;
                self.registry = Some(genesis);
            }
        }
        let expected = self.sequences.last(stretch.source.as_name()).saturating_add(1);
        if stretch.first_seq != expected {
            let (name, found) = (stretch.source.clone(), stretch.first_seq);
            return Err(Fault::Sequence(SequenceGap { name, found, expected }));
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: SealedBatch, last: Option<&Record>) -> Result<(), Fault> {
        // No batch grew beyond the limit.
        let wanted = u16::try_from(batch.count).unwrap_or(u16::MAX);
        let found = batch.seal.count;
        if found != wanted {
            return Err(Fault::Seal(SealError::Covers { found, wanted }));
        }
        self.sequences
            .advance(batch.source.as_name(), batch.first_seq, found)
            .map_err(Fault::Sequence)?;
        self.totals.batches += 1;
        let Some(registry) = &mut self.registry else {
            return Ok(());
        };
        let key = registry.judge(&batch, &mut self.missing).map_err(Fault::Source)?;
        self.pending.push(SealCheck {
            origin: Arc::clone(&self.origin),
            index: batch.first_index.plus(batch.count.saturating_sub(1)),
            source: batch.source,
            first_seq: batch.first_seq,
            joined: batch.joined,
            seal: batch.seal,
            key,
            entry: last.map(|last| last.entry.clone()).unwrap_or_default(),
        });
        Ok(())
    }
}
