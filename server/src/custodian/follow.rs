//! Following the ledger: pull, verify, store, lay out; again and again, on a thread of its own.
//!
//! ```text
//! connect -> newest checkpoint (compare with what was seen)
//!         -> catch up: big runs, pulled ahead while they are verified and stored
//!         -> watch: groups as they come, each with its checkpoint
//! ```
//!
//! Nothing is taken that no verified checkpoint covers. Every checkpoint is concluded at: then the
//! entries taken are what the ledger signed, and consistent with every earlier one, for they lie in
//! one tree. A ledger that is caught is asked for what convicts it before the alarm is raised.
//! Where that halts the custodian, following is over until a human has cleared it; else it goes on
//! from what is stored, after a while.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use access_ledger_client::{
    backoff::Backoff,
    evidence::{Caught, compare_held},
    pull::{PullError, Puller, RUNS_AHEAD, Run},
    verify::Scope,
    view::{check_consistency, compare},
};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::BuildError,
    note::{Note, VerifierKey},
    position::{Index, Size},
};
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug_span, error, info, warn};

use self::{broken::Break, incoming::Incoming};
use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place},
    copy::{Copy, Taken},
    desk::Desk,
    error::{CopyError, CustodianError},
    halt::Halt,
    memory::Memory,
    vigil::Vigil,
};
use crate::{error::StorageError, folder::Folder, os::Disk, witness::Witness};

mod broken;
mod convict;
mod incoming;

/// What following takes. Blocks; not for a thread of the runtime.
pub(crate) struct Follow {
    /// Where the network is asked.
    pub(crate) runtime: Handle,
    pub(crate) puller: Puller,
    pub(crate) ledger: VerifierKey,
    pub(crate) disk: Arc<dyn Disk>,
    /// The data folder.
    pub(crate) data: PathBuf,
    pub(crate) desk: Arc<Desk>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) vigil: Arc<Mutex<Vigil>>,
    /// Turns true when the custodian is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) state: State,
}

/// What changes on the way.
pub(crate) struct State {
    pub(crate) copy: Copy,
    pub(crate) memory: Memory,
    /// Records that were verified and that the vigil has not looked at.
    pub(crate) unwatched: Vec<Taken>,
    /// The answer to the last question, where the copy has not come to it yet.
    pub(crate) asked: Option<VerifiedCheckpoint>,
    /// When the memory was last written.
    pub(crate) saved_at: Instant,
    /// Alarms about what did not halt, to be ended when all goes well again.
    pub(crate) troubles: BTreeSet<(AlarmKind, Place)>,
}

/// Records up to a checkpoint.
type Group = (Vec<Run>, VerifiedCheckpoint);

impl Follow {
    /// Follows until told to stop, or until the ledger is caught at something that halts; then
    /// waits until told to stop.
    ///
    /// # Errors
    ///
    /// When the custodian itself cannot go on: its disk, mostly. What is held is served on.
    pub(crate) fn run(self, is_halted: bool) -> Result<(), CustodianError> {
        let _watch = PanicWatch(self.desk.clone());
        let (runtime, mut stopping) = (self.runtime.clone(), self.stopping.clone());
        if !is_halted {
            self.follow_until_halted()?;
        }
        // A sender that is gone says the same.
        let _told_or_gone = runtime.block_on(stopping.wait_for(|&stopping| stopping));
        Ok(())
    }

    fn follow_until_halted(mut self) -> Result<(), CustodianError> {
        let mut backoff = Backoff::new(DELAY_MIN, DELAY_MAX);
        // What lasted when the last run ended is over when this one follows.
        let kind = AlarmKind::CheckpointInvalid;
        let lasting = self.alarms.places(kind, self.ledger.name());
        self.state.troubles.extend(lasting.into_iter().map(|place| (kind, place)));
        loop {
            let before = self.state.copy.next_index();
            let Err(broken) = self.follow();
            match broken {
                Break::Stopping => return self.close(),
                Break::Again => continue,
                Break::Failed(error) => return Err(self.fail(error)),
                Break::Pull(error) => warn!(%error, "lost the ledger"),
                Break::Caught(caught) => match self.judge(*caught) {
                    Ok(false) => {}
                    Ok(true) => return Ok(()),
                    Err(error) => return Err(self.fail(error)),
                },
            }
            if let Err(error) = self.state.copy.mend(self.state.memory.pinned.as_ref()) {
                return Err(self.fail(error.into()));
            }
            if self.state.copy.next_index() > before {
                backoff.reset();
            }
            let delay = backoff.next(None);
            if matches!(self.ask(async { sleep(delay).await }), Err(Break::Stopping)) {
                return self.close();
            }
        }
    }

    /// Catches up and watches, until that breaks.
    fn follow(&mut self) -> Result<std::convert::Infallible, Break> {
        let (mut served, mut gone) = (self.checkpoint()?, None);
        while !self.catch_up(&served)? {
            // An event is gone. The record of that may lie behind this checkpoint, but not behind
            // one that was asked for since: a ledger erases what its checkpoint covers the record
            // of. So one that grows all the time gains no time by that.
            let unaccounted = self.state.copy.unaccounted();
            if gone == unaccounted {
                self.conclude(&served)?;
            }
            (served, gone) = (self.checkpoint()?, unaccounted);
        }
        self.recover();
        self.watch()
    }

    /// The newest checkpoint: signed by the ledger, and consistent with all that was seen.
    fn checkpoint(&mut self) -> Result<VerifiedCheckpoint, Break> {
        let asked_at = self.vigil().now();
        let note = self.ask(self.puller.checkpoint())?.map_err(Break::Pull)?;
        let served = self.open(&note)?;
        if let Some(held) = self.desk.newest()
            && let Some(caught) = self.compare_held(&held, &served)?
        {
            return Err(caught.into());
        }
        if let Some(seen) = self.state.memory.seen.clone()
            && let Some((old, new)) = compare(&seen, &served)?
        {
            // Soon its entries will tell as much; but a path may convict, and at once. None, or one
            // that leads nowhere, does not.
            let path = self.ask(self.puller.consistency_path(old, new))?;
            match path.map(|path| check_consistency(&seen, &served, path)) {
                Ok(Err(caught)) if caught.leads_elsewhere() => return Err(caught.into()),
                Ok(Ok(())) => {}
                Ok(Err(problem)) => warn!(%problem, "left a path aside that leads nowhere"),
                Err(problem) => warn!(%problem, "was shown no consistency path"),
            }
        }
        self.see(&served);
        // It was the newest when it was asked for: nothing behind it is older.
        self.vigil().sighted(served.size(), asked_at);
        self.state.asked = Some(served.clone());
        Ok(served)
    }

    /// Takes everything up to a checkpoint, stores it and lays it out; whether that was possible:
    /// not, when an event is gone without a record.
    fn catch_up(&mut self, served: &VerifiedCheckpoint) -> Result<bool, Break> {
        let (next, end) = (self.state.copy.next_index(), served.size());
        let _span = debug_span!("catch_up", first = next.0, end = end.0).entered();
        if end.next_index() < next {
            // More was there, but no note was kept that says so: nobody is convicted by that.
            let (index, problem) = (end.next_index(), format!("the copy goes on to {next}"));
            return Err(Caught::Withheld { index, problem, served: served.clone().into() }.into());
        }
        if next < end.next_index() {
            // Before the first entry of it is stored: the ledger must not take it back.
            self.save()?;
        }
        let mut records = {
            let _inside = self.runtime.enter();
            self.puller.records(next, end, Scope::Events)
        };
        while self.state.copy.next_index() < end.next_index() {
            let (mut runs, mut broken) = (Vec::new(), None);
            for run in self.ask(records.next_some(RUNS_AHEAD))? {
                match run {
                    Ok(run) => runs.push(run),
                    Err(error) => broken = Some(error),
                }
            }
            if runs.is_empty() && broken.is_none() {
                return Err(Break::Again);
            }
            self.take(runs, served)?;
            match broken {
                Some(PullError::Withheld { index, problem, .. }) => {
                    let served = Box::new(served.clone());
                    return Err(Caught::Withheld { index, problem, served }.into());
                }
                Some(error) => return Err(Break::Pull(error)),
                None => {}
            }
        }
        if self.state.copy.unaccounted().is_some() {
            return Ok(false);
        }
        self.conclude(served)?;
        self.lay_out(served.clone())?;
        Ok(true)
    }

    /// Takes groups as they come, until the stream breaks.
    fn watch(&mut self) -> Result<std::convert::Infallible, Break> {
        let first = self.state.copy.next_index();
        let mut incoming = Incoming::start(&self.runtime, &self.puller, first);
        let mut polled_at = Instant::now();
        loop {
            if polled_at.elapsed() >= POLL_INTERVAL {
                self.poll(&mut incoming)?;
                polled_at = Instant::now();
            }
            let received = async { timeout(POLL_INTERVAL, incoming.receive()).await };
            let Ok((notes, end)) = self.ask(received)? else {
                continue;
            };
            let mut groups = Vec::with_capacity(notes.len());
            for (runs, note) in notes {
                groups.push((runs, self.open(&note)?));
            }
            self.take_groups(groups)?;
            match end {
                Some(error) => return Err(Break::Pull(error)),
                None if incoming.is_outrun() => return Err(Break::Again),
                None => {}
            }
        }
    }

    /// Asks for the checkpoint, whatever comes: the ledger may be idle, or say one thing in the
    /// stream and another when it is asked. And only an answer tells that entries behind it are
    /// not older than the question.
    fn poll(&mut self, incoming: &mut Incoming) -> Result<(), Break> {
        let _span = debug_span!("poll").entered();
        let served = self.checkpoint()?;
        let is_silent = served.size().next_index() > self.state.copy.next_index();
        if incoming.counts_silence(is_silent) { Err(Break::Again) } else { Ok(()) }
    }

    /// Takes groups, each up to its checkpoint, and lays out the last one.
    fn take_groups(&mut self, groups: Vec<Group>) -> Result<(), Break> {
        let mut newest = None;
        let first = self.state.copy.next_index().0;
        let _span = debug_span!("take_groups", first, groups = groups.len()).entered();
        for (runs, checkpoint) in groups {
            // One that was signed before the newest that was asked for may be on its way still.
            let seen = self.state.memory.seen.as_ref();
            if let Some(seen) = seen.filter(|seen| seen.size() <= checkpoint.size()) {
                compare(seen, &checkpoint)?;
            }
            self.see(&checkpoint);
            self.vigil().heard_of(checkpoint.size());
            self.take(runs, &checkpoint)?;
            if self.state.copy.next_index() != checkpoint.size().next_index() {
                let (found, next) = (checkpoint.size(), self.state.copy.next_index());
                let problem = format!("checkpoint of size {found} behind the entries up to {next}");
                return Err(Break::Pull(PullError::Answer { problem }));
            }
            if self.state.copy.unaccounted().is_some() {
                newest.map_or(Ok(()), |newest| self.lay_out(newest))?;
                return Err(Break::Again);
            }
            self.conclude(&checkpoint)?;
            newest = Some(checkpoint);
        }
        let Some(newest) = newest else { return Ok(()) };
        self.lay_out(newest.clone())?;
        // What the ledger says when it is asked is what it streams.
        match self.state.asked.take_if(|asked| asked.size() <= newest.size()) {
            Some(asked) => {
                self.compare_held(&newest, &asked)?.map_or(Ok(()), |caught| Err(caught.into()))
            }
            None => Ok(()),
        }
    }

    /// Verifies runs and has them stored, while the vigil looks at those before. No runs: it has
    /// seen all.
    fn take(&mut self, runs: Vec<Run>, served: &VerifiedCheckpoint) -> Result<(), Break> {
        let before = std::mem::take(&mut self.state.unwatched);
        let (copy, vigil) = (&mut self.state.copy, &self.vigil);
        let watch = || {
            let mut vigil = vigil.lock().unwrap_or_else(PoisonError::into_inner);
            before.iter().for_each(|taken| vigil.took(taken.run.0, &taken.run.1, taken.is_notable));
        };
        let (taken, ()) = rayon::join(|| copy.take(runs), watch);
        self.state.unwatched = taken.map_err(|error| Break::copy(error, served))?;
        self.desk.lag.takes(Size(self.state.copy.next_index().0));
        Ok(())
    }

    fn conclude(&mut self, served: &VerifiedCheckpoint) -> Result<(), Break> {
        self.state.copy.conclude(served).map_err(|error| Break::copy(error, served))
    }

    /// Lays out the checkpoint at which the copy has concluded last, once all of it is durable.
    fn lay_out(&mut self, newest: VerifiedCheckpoint) -> Result<(), Break> {
        self.take(Vec::new(), &newest)?;
        let State { copy, memory, saved_at, .. } = &mut self.state;
        copy.sync()?;
        let is_new = memory.former.is_some() || memory.pinned.is_none();
        let is_due = is_new || saved_at.elapsed() >= SAVE_INTERVAL;
        let pinned = if is_due { copy.pin(&newest) } else { None };
        // The log was verified to name the key that is followed.
        let is_proven = pinned.is_some() && memory.former.take().is_some();
        memory.pinned = pinned.or_else(|| memory.pinned.take());
        if let Some(sources) = self.desk.lay_out(newest, copy)? {
            self.witness.learn_key(&sources);
            self.vigil().expect(&sources);
        }
        if is_due {
            self.save()?;
        }
        if is_proven {
            let data = Folder::new(&self.data);
            data.name_key(&*self.disk, Some(&self.ledger)).map_err(CustodianError::from)?;
        }
        Ok(())
    }

    /// Remembers that the ledger signed this.
    fn see(&mut self, checkpoint: &VerifiedCheckpoint) {
        self.state.memory.see(checkpoint);
        self.desk.lag.sees(checkpoint.size());
    }

    fn vigil(&self) -> MutexGuard<'_, Vigil> {
        self.vigil.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&mut self) -> Result<(), CustodianError> {
        self.state.saved_at = Instant::now();
        self.state.memory.write(&*self.disk, &self.data, &self.ledger)
    }

    fn open(&self, note: &Bytes) -> Result<VerifiedCheckpoint, Break> {
        self.desk.open_checkpoint(note).map_err(|error| {
            // What is longer is no note, whatever follows; nobody fills the alarms with it.
            let note = note.slice(..note.len().min(Note::LEN_MAX + 1));
            Caught::Checkpoint { error, note }.into()
        })
    }

    /// Compares a checkpoint with the tree that is held.
    fn compare_held(
        &self,
        held: &VerifiedCheckpoint,
        served: &VerifiedCheckpoint,
    ) -> Result<Option<Caught>, Break> {
        let tree = self.state.copy.tree();
        compare_held(held, served, tree).map_err(|error| match error {
            BuildError::Source(error) => CopyError::from(error).into(),
            _ => {
                let (found, wanted) = (held.size(), served.size());
                CopyError::from(StorageError::TreeBehind { found, wanted }).into()
            }
        })
    }

    /// Ends the alarms about what went wrong before.
    fn recover(&mut self) {
        for (kind, place) in std::mem::take(&mut self.state.troubles) {
            self.alarms.end(kind, self.ledger.name(), place, "the custodian follows again");
        }
    }

    /// Raises the alarm about what the ledger was caught at. Halts if it has to, goes back to what
    /// is stored if not. Whether it halted.
    fn judge(&mut self, caught: Caught) -> Result<bool, CustodianError> {
        let kind = Alarm::of_caught(&caught, &self.ledger).kind;
        let mut saved = Ok(());
        if kind.halts() {
            // First of all; and what it signed stays known, whatever ends this process before the
            // alarm is kept.
            self.witness.halt(self.ledger.name());
            saved = self.save();
        }
        let caught = self.convict(caught);
        // Whatever the disk refuses, somebody hears of it.
        let raised = self.alarms.raise(Alarm::of_caught(&caught, &self.ledger));
        saved?;
        if kind.halts() {
            if let Some(record) = raised.record() {
                Halt::of(record).write(&*self.disk, &self.data)?;
            }
            error!(%kind, "halted: signs nothing more of this ledger until a human clears it");
            return Ok(true);
        }
        if let Some(record) = raised.record() {
            let place = record.index.map_or(Place::Ledger, |index| Place::Index(Index(index)));
            self.state.troubles.insert((record.kind, place));
        }
        self.state.copy.rewind(self.state.memory.pinned.as_ref())?;
        Ok(false)
    }

    /// Waits for the network, unless the custodian is to stop.
    fn ask<T>(&self, call: impl Future<Output = T>) -> Result<T, Break> {
        let mut stopping = self.stopping.clone();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|&stopping| stopping) => Err(Break::Stopping),
                answer = call => Ok(answer),
            }
        })
    }

    /// Keeps what was verified, so that the next start need not do it again.
    fn close(mut self) -> Result<(), CustodianError> {
        let State { copy, memory, .. } = &mut self.state;
        if let Some(pinned) = self.desk.newest().and_then(|newest| copy.pin(&newest)) {
            memory.pinned = Some(pinned);
        }
        info!(size = copy.next_index().0, "stopped following");
        self.save()
    }

    fn fail(&self, error: CustodianError) -> CustodianError {
        error!(%error, "cannot follow any more");
        self.desk.fail();
        error
    }
}

/// Says that nothing more is followed when that panics: what is served would grow old unnoticed.
struct PanicWatch(Arc<Desk>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

impl State {
    /// At the start.
    pub(crate) fn new(copy: Copy, memory: Memory) -> Self {
        let (unwatched, asked, troubles) = (Vec::new(), None, BTreeSet::new());
        Self { copy, memory, unwatched, asked, saved_at: Instant::now(), troubles }
    }
}

/// How often the memory is written: what is newer is verified again at the next start.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Without news from the stream, until the ledger is asked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Between attempts to reach the ledger.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);
