//! Keeps the newest checkpoint in a file.
//!
//! The file tells the next start how much was acknowledged; it is replaced atomically, but neither
//! synced nor waited for, so it may lag behind by a moment. What counts is the log.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use tracing::warn;

use crate::{
    error::LedgerError,
    os::{self, Disk},
};

/// The file `checkpoint`, and the thread that replaces it.
pub(crate) struct CheckpointFile {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<Bytes>,
    is_closed: bool,
}

impl CheckpointFile {
    /// Starts the thread that keeps `path` up to date.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Thread`] when the system gives no thread.
    pub(crate) fn start(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, LedgerError> {
        let slot = Arc::new(Slot { state: Mutex::default(), changed: Condvar::new() });
        let shared = slot.clone();
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || shared.keep(&*disk, &path))
            .map_err(|source| LedgerError::Thread { source })?;
        Ok(Self { slot, thread: Some(thread) })
    }

    /// Makes `note` the one to write; one that was not written yet is skipped.
    pub(crate) fn put(&self, note: Bytes) {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.newest = Some(note);
        drop(state);
        self.slot.changed.notify_one();
    }
}

impl Drop for CheckpointFile {
    /// Writes the newest note and ends the thread.
    fn drop(&mut self) {
        self.slot.state.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.slot.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("checkpoint thread panicked");
        }
    }
}

impl Slot {
    fn keep(&self, disk: &dyn Disk, path: &std::path::Path) {
        while let Some((note, is_last)) = self.next() {
            let replaced = if is_last {
                os::replace(disk, path, &note)
            } else {
                os::replace_unsynced(disk, path, &note)
            };
            if let Err(failure) = replaced {
                // The next note brings the file up to date; until then it is older, not wrong.
                warn!(%failure, "could not replace the checkpoint file");
            }
            if is_last {
                return;
            }
            thread::sleep(REPLACE_INTERVAL);
        }
    }

    /// Waits for a note to write; `None` once closed without one. The second part tells whether the
    /// ledger is closing.
    fn next(&self) -> Option<(Bytes, bool)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(note) = state.newest.take() {
                return Some((note, state.is_closed));
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Replacing a file makes the file system flush it; twenty times a second stays out of the way of
/// the log's own syncs.
const REPLACE_INTERVAL: Duration = Duration::from_millis(50);
