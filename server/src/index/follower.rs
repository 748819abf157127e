//! The thread that keeps the index behind the log.
//!
//! It must not take the writer's time: it is woken when it is far behind or somebody waits, and
//! else looks a few times a second; and it works at low priority while nobody waits (workers.rs).
//! An error that may pass is tried again; the log goes on meanwhile.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use access_ledger_proto::position::Size;
use tracing::{error, warn};

use super::{
    Index,
    error::IndexError,
    indexer::Indexer,
    workers::{Pace, step_back},
};

/// The running thread. Dropping it stops the thread and waits for it.
pub struct Follower {
    index: Index,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts to follow the log.
    ///
    /// # Errors
    ///
    /// [`IndexError::Thread`] when the system gives no thread.
    pub fn spawn(indexer: Indexer) -> Result<Self, IndexError> {
        let index = indexer.index();
        let run = move || run(indexer);
        let thread =
            thread::Builder::new().name("index".into()).spawn(run).map_err(IndexError::Thread)?;
        Ok(Self { index, thread: Some(thread) })
    }

    /// Stops the thread and waits for it: at most for the block or merge that it is at. What is
    /// indexed of an unfinished block is forgotten; the next start reads it again.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.index.shared.progress.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("index thread panicked");
        }
    }
}

fn run(mut indexer: Indexer) {
    step_back();
    let index = indexer.index();
    let progress = &index.shared.progress;
    let _ended = Ended(progress);
    while progress.wait_for_work() {
        match work(&mut indexer, progress) {
            Ok(()) => {}
            Err(error) if error.is_passing() => {
                warn!(%error, "index fell behind, tries again");
                progress.pause();
            }
            Err(error) => {
                error!(%error, "index stopped");
                return;
            }
        }
    }
}

fn work(indexer: &mut Indexer, progress: &Progress) -> Result<(), IndexError> {
    while !progress.is_stopping() {
        let pace = progress.pace();
        if !indexer.follow(pace)? && !indexer.repair(pace)? {
            break;
        }
    }
    Ok(())
}

/// Tells those who wait that nothing more comes, also after a panic.
struct Ended<'a>(&'a Progress);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.advanced.notify_all();
    }
}

/// How far log and index are, and who waits.
pub(crate) struct Progress {
    state: Mutex<State>,
    /// There may be work.
    work: Condvar,
    /// The index covers more, or never will.
    advanced: Condvar,
}

struct State {
    durable: Size,
    indexed: Size,
    /// As far as the state on disk goes.
    saved: Size,
    /// How many wait for entries.
    waiting: usize,
    /// Somebody waits for entries, or has met a damaged block.
    hurry: bool,
    stopping: bool,
    ended: bool,
}

impl Progress {
    pub(crate) const fn new(indexed: Size) -> Self {
        let state = State {
            durable: indexed,
            indexed,
            saved: indexed,
            waiting: 0,
            // Whatever was lost of the posting files is looked for at the start.
            hurry: true,
            stopping: false,
            ended: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), advanced: Condvar::new() }
    }

    pub(crate) fn indexed(&self) -> Size {
        self.lock().indexed
    }

    pub(crate) fn notify(&self, durable: Size) {
        let mut state = self.lock();
        let was_idle = state.lag() == 0;
        state.durable = state.durable.max(durable);
        let wake = was_idle || state.lag() >= FOLLOW_ENTRIES;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    pub(crate) fn wait_for(&self, wanted: Size, timeout: Duration) -> Result<(), IndexError> {
        let mut state = self.lock();
        if state.indexed < wanted {
            state.hurry = true;
            self.work.notify_one();
        }
        state.waiting += 1;
        let waiting = |state: &mut State| state.indexed < wanted && !state.ended;
        let (mut state, _) = self
            .advanced
            .wait_timeout_while(state, timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        match state.indexed {
            found if found >= wanted => Ok(()),
            size if state.ended => Err(IndexError::Stopped { size }),
            found => Err(IndexError::Behind { found, wanted }),
        }
    }

    pub(crate) fn ask_for_repair(&self) {
        self.lock().hurry = true;
        self.work.notify_one();
    }

    pub(crate) fn advance(&self, indexed: Size) {
        self.lock().indexed = indexed;
        metrics::gauge!("access_ledger_indexed_entries").set(indexed.0 as f64);
        self.advanced.notify_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    pub(crate) fn saved(&self) -> Size {
        self.lock().saved
    }

    pub(crate) fn save(&self, saved: Size) {
        self.lock().saved = saved;
    }

    /// How hard to press.
    fn pace(&self) -> Pace {
        if self.lock().waiting > 0 { Pace::Quick } else { Pace::Calm }
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_one();
    }

    fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits until there is something to do; `false` when it is to stop.
    fn wait_for_work(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return false;
            }
            if state.hurry || state.lag() >= FOLLOW_ENTRIES {
                state.hurry = false;
                return true;
            }
            if state.lag() == 0 {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.work.wait_timeout(state, FOLLOW_DELAY);
            let (woken, result) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if result.timed_out() {
                return !state.stopping;
            }
        }
    }

    /// Waits a while after an error, or until it is to stop. Then there is work.
    fn pause(&self) {
        let paused =
            self.work.wait_timeout_while(self.lock(), RETRY_DELAY, |state| !state.stopping);
        let (mut state, _) = paused.unwrap_or_else(PoisonError::into_inner);
        state.hurry = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn lag(&self) -> u64 {
        self.durable.0.saturating_sub(self.indexed.0)
    }
}

/// The follower is woken at once when so many entries wait: a read's worth.
const FOLLOW_ENTRIES: u64 = 4_096;

/// Else entries wait so long at most.
const FOLLOW_DELAY: Duration = Duration::from_millis(100);

/// After an error.
const RETRY_DELAY: Duration = Duration::from_secs(5);
