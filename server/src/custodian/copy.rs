//! A verified, durable copy of a ledger's log: what a custodian grows by following, and what
//! `restore` completes.
//!
//! ```text
//! runs -> cut (behind seals) -> digest, fold, seals (all cores)
//!      -> store (its own thread, 1 sync a group)
//! ```
//!
//! Nothing is stored that was not verified, seals included; so whatever is in the folder of a copy
//! was in order when it was written. Nothing counts as held before it is durable. While one window
//! of runs is stored the next one is verified.

use std::{collections::BTreeMap, sync::Arc};

use access_ledger_client::{
    pull::Run,
    verify::{DigestedRun, LogVerifier, Record, Scope, digest},
    view::Pinned,
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    facts::sources::Sources,
    note::VerifierKey,
    position::{Index, Size, count_of},
    source::SourceName,
};
use rayon::prelude::*;
use tracing::info;

mod cut;
mod store;

pub(crate) use self::cut::Cutter;
use self::store::{Store, Verified};
use super::error::CopyError;
use crate::{
    error::StorageError,
    os::Disk,
    storage::{self, LogReader, Opened, Options, TreeFiles},
    witness::Holding,
};

/// A copy that grows. Dropping it stores what was verified.
pub struct Copy {
    ledger: VerifierKey,
    verifier: LogVerifier,
    cutter: Cutter,
    news: News,
    /// Records broke a rule: the verifier is of no further use.
    is_spoiled: bool,
    store: Store,
    holding: Arc<Holding>,
    reader: LogReader,
    tree: TreeFiles,
}

/// Whole batches that were verified.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The records.
    pub run: Arc<Run>,
    /// Whether an event in it may change the rules, or tell of a source.
    pub is_notable: bool,
}

/// What changed since it was last asked for.
#[derive(Debug, Default)]
struct News {
    /// Whether the sources may be other ones than before.
    sources_changed: bool,
    /// The last number of each source that recorded something.
    numbers: BTreeMap<SourceName, u64>,
}

impl Copy {
    /// Opens the copy in `options.folder`, or begins one there. The caller holds the lock.
    ///
    /// What lies behind the pinned state in the own log, all of it without one, is verified again.
    /// `acknowledged` is the newest checkpoint that this copy is known to have held: it must still
    /// hold that. Blocks, and works on all cores.
    ///
    /// # Errors
    ///
    /// [`CopyError::Storage`] when what is stored is damaged or less than it was;
    /// [`CopyError::State`] when the pinned state does not fit it; [`CopyError::Own`] for entries
    /// that break a rule.
    pub fn open(
        disk: &Arc<dyn Disk>,
        options: &Options,
        ledger: &VerifierKey,
        pinned: Option<&Pinned>,
        acknowledged: Option<&VerifiedCheckpoint>,
    ) -> Result<Self, CopyError> {
        let known = acknowledged.map(|checkpoint| (checkpoint.size(), checkpoint.root()));
        let Opened { log, reader, tree, frontier, recovery, .. } =
            storage::open(Arc::clone(disk), options, known)?;
        let verifier = verify_own(&reader, ledger, pinned)?;
        let (size, found, wanted) = (verifier.size(), frontier.root(), verifier.root());
        info!(size = size.0, ?recovery, "opened copy");
        if found != wanted {
            return Err(StorageError::Root { size, found, wanted }.into());
        }
        let holding = Arc::new(Holding::new(reader.clone(), tree.clone()));
        holding.grown(size, verifier.unaccounted());
        Ok(Self {
            ledger: ledger.clone(),
            cutter: Cutter::new(size.next_index()),
            verifier,
            news: News::default(),
            is_spoiled: false,
            store: Store::start(log, tree.clone(), Arc::clone(&holding))?,
            holding,
            reader,
            tree,
        })
    }

    /// What the copy holds, verified and durable, for the one who signs for it.
    #[must_use]
    pub const fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }

    /// Reads what is durable.
    #[must_use]
    pub const fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The stored tree.
    #[must_use]
    pub const fn tree(&self) -> &TreeFiles {
        &self.tree
    }

    /// The index of the next record to take.
    #[must_use]
    pub fn next_index(&self) -> Index {
        self.cutter.next()
    }

    /// The first event that is gone and not accounted for by what was taken.
    #[must_use]
    pub fn unaccounted(&self) -> Option<Index> {
        self.verifier.unaccounted()
    }

    /// What follows from the entries taken: sources, numbers, totals.
    #[must_use]
    pub const fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// The registered sources, if they are other ones than when this was last asked, and the last
    /// numbers that changed.
    pub fn news(&mut self) -> (Option<Sources>, BTreeMap<SourceName, u64>) {
        let News { sources_changed, numbers } = std::mem::take(&mut self.news);
        let sources = self.verifier.sources().filter(|_| sources_changed);
        (sources.cloned(), numbers)
    }

    /// Verifies the next runs, which follow those before, and has them stored. Gives what is being
    /// stored. Blocks, and works on all cores.
    ///
    /// Records behind the last seal wait for the rest of their batch.
    ///
    /// # Errors
    ///
    /// [`CopyError::Log`] for the first violation, [`CopyError::BatchTooLarge`],
    /// [`CopyError::EventTooLarge`]: nothing of this call is stored then, and nothing more is taken
    /// before [`Copy::rewind`]. [`CopyError::Storage`] for good.
    ///
    /// # Panics
    ///
    /// Behind a violation, before [`Copy::rewind`].
    pub fn take(&mut self, runs: Vec<Run>) -> Result<Vec<Taken>, CopyError> {
        assert!(!self.is_spoiled, "takes nothing behind a violation");
        self.is_spoiled = true;
        let mut whole = Vec::with_capacity(runs.len());
        for run in runs {
            whole.extend(self.cutter.push(run)?);
        }
        let verified = self.verify(whole)?;
        self.is_spoiled = false;
        let taken = verified.iter().map(|verified| verified.taken.clone()).collect();
        self.store.put(verified)?;
        Ok(taken)
    }

    fn verify(&mut self, runs: Vec<Run>) -> Result<Vec<Verified>, CopyError> {
        let digested: Vec<DigestedRun> = runs
            .into_par_iter()
            .map(|(first, records)| digest(first, records, Scope::Events))
            .collect();
        let mut verified = Vec::with_capacity(digested.len());
        let taken = digested.into_iter().try_for_each(|run| {
            self.news.note(&run);
            let (first, is_notable) = (self.verifier.size().next_index(), run.changes_rules());
            let run = Arc::new((first, self.verifier.take(run)?));
            let taken = Taken { run, is_notable };
            let (tree, unaccounted) = (self.verifier.tree().clone(), self.verifier.unaccounted());
            verified.push(Verified::new(taken, tree, unaccounted));
            Ok(())
        });
        // A seal before that place is the earlier violation.
        self.verifier.settle()?;
        taken.map(|()| verified)
    }

    /// Concludes at a checkpoint up to which everything was taken: what was taken is what the
    /// ledger signed.
    ///
    /// # Errors
    ///
    /// [`CopyError::Log`] as of [`LogVerifier::finish`]; nothing more is taken before
    /// [`Copy::rewind`].
    ///
    /// # Panics
    ///
    /// Behind a violation, before [`Copy::rewind`].
    pub fn conclude(&mut self, checkpoint: &VerifiedCheckpoint) -> Result<(), CopyError> {
        assert!(!self.is_spoiled, "takes nothing behind a violation");
        self.is_spoiled = true;
        if let Some((first, records)) = self.cutter.flush() {
            self.verifier.take(digest(first, records, Scope::Events))?;
        }
        self.verifier.finish(checkpoint)?;
        self.is_spoiled = false;
        Ok(())
    }

    /// The checkpoint and the state to go on from: `None` unless the copy has concluded at this one
    /// and taken nothing since, for another state does not fit it.
    #[must_use]
    pub fn pin(&self, checkpoint: &VerifiedCheckpoint) -> Option<Pinned> {
        let is_there = checkpoint.size().next_index() == self.next_index() && !self.is_spoiled;
        is_there.then(|| Pinned { checkpoint: checkpoint.clone(), state: self.verifier.save() })
    }

    /// Waits until all that was taken, but for an open batch, is durable; how much that is. Blocks.
    ///
    /// # Errors
    ///
    /// [`CopyError::Storage`], for good.
    pub fn sync(&mut self) -> Result<Size, CopyError> {
        self.store.sync()?;
        Ok(self.holding.size())
    }

    /// As [`Copy::rewind`] where something was refused since, else as [`Copy::sync`].
    ///
    /// # Errors
    ///
    /// As [`Copy::open`].
    pub fn mend(&mut self, pinned: Option<&Pinned>) -> Result<(), CopyError> {
        if self.is_spoiled { self.rewind(pinned) } else { Ok(self.store.sync()?) }
    }

    /// Goes back to what is stored, behind a violation. Blocks, and works on all cores.
    ///
    /// # Errors
    ///
    /// As [`Copy::open`].
    pub fn rewind(&mut self, pinned: Option<&Pinned>) -> Result<(), CopyError> {
        self.store.sync()?;
        self.verifier = verify_own(&self.reader, &self.ledger, pinned)?;
        self.cutter = Cutter::new(self.verifier.size().next_index());
        self.is_spoiled = false;
        Ok(())
    }
}

impl News {
    fn note(&mut self, run: &DigestedRun) {
        self.sources_changed |= run.changes_rules();
        for (source, last) in run.last_numbers() {
            match self.numbers.get_mut(source) {
                Some(known) => *known = last,
                None => drop(self.numbers.insert(source.clone(), last)),
            }
        }
    }
}

/// Verifies the own log behind the pinned state.
fn verify_own(
    reader: &LogReader,
    ledger: &VerifierKey,
    pinned: Option<&Pinned>,
) -> Result<LogVerifier, CopyError> {
    let mut verifier = match pinned {
        Some(pinned) => LogVerifier::restore(ledger, &pinned.checkpoint, &pinned.state)?,
        None => LogVerifier::new(ledger, Scope::Events),
    };
    let own = |violation| CopyError::Own(Box::new(violation));
    let mut window = read_window(reader, verifier.size().next_index())?;
    while let Some((last, records)) = window.last() {
        let next = last.plus(count_of(records.len()));
        let (advanced, read) =
            rayon::join(|| verifier.advance(window), || read_window(reader, next));
        advanced.map_err(own)?;
        window = read?;
    }
    verifier.settle().map_err(own)?;
    Ok(verifier)
}

/// The next records of the own log, some megabytes; none at its end.
fn read_window(reader: &LogReader, first: Index) -> Result<Vec<Run>, CopyError> {
    let (mut runs, mut next) = (Vec::new(), first);
    while runs.len() < WINDOW_RUNS {
        let records = reader.read(next, usize::MAX, RUN_BYTES)?;
        if records.is_empty() {
            break;
        }
        let count = count_of(records.len());
        let records =
            records.into_iter().map(|stored| Record { entry: stored.entry, event: stored.event });
        runs.push((next, records.collect()));
        next = next.plus(count);
    }
    Ok(runs)
}

/// Runs of a window of the own log.
const WINDOW_RUNS: usize = 16;

/// Bytes of frames of one of them.
const RUN_BYTES: usize = 512 << 10;
