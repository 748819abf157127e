//! A real disk whose log can be held up or made to fail, at a moment that the test chooses.
//!
//! Only segments of the log pass the gate: what is derived goes to the disk as always. So a test
//! can fill the queue behind one sync, or fail exactly one write, without waiting for a clock.

use std::{
    ffi::OsString,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use access_ledger_server::os::{Access, Disk, File, RealDisk};
use rustix::io::Errno;

/// A disk with a gate before the log. Clones are the same disk.
#[derive(Clone, Default)]
pub struct GatedDisk {
    gate: Arc<Gate>,
}

/// Opens the gate when dropped, so that a test that fails while it holds a sync ends all the same.
pub struct Opener(GatedDisk);

/// What the log does at the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    #[default]
    Open,
    /// Syncs wait until the mode changes.
    HeldSyncs,
    /// Syncs fail.
    FailedSyncs,
    /// Writes fail: no space is left.
    Full,
    /// Writes fail: the medium does not take them.
    FailedWrites,
    /// Writes fail: somebody has made the file read-only.
    ReadOnly,
    /// Reads fail: the medium does not give it back.
    FailedReads,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    /// What the disk says is free.
    free_bytes: u64,
    /// Syncs that wait now.
    held: usize,
    /// Syncs that passed.
    passed: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { mode: Mode::Open, free_bytes: u64::MAX, held: 0, passed: 0 }
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    /// Changes what the gate does, also to those who wait there.
    pub fn set(&self, mode: Mode) {
        self.gate.lock().mode = mode;
        self.gate.changed.notify_all();
    }

    /// Changes what the disk says is free.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.gate.lock().free_bytes = free_bytes;
    }

    /// Opens the gate when the test is over.
    #[must_use]
    pub fn opener(&self) -> Opener {
        Opener(self.clone())
    }

    /// Blocks until a sync waits at the gate.
    pub fn wait_until_held(&self) {
        let state = self.gate.lock();
        let waited = self.gate.changed.wait_while(state, |state| state.held == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Syncs of the log that passed so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.gate.lock().passed
    }

    fn gated(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        if path.extension().is_some_and(|extension| extension == "seg") {
            Arc::new(GatedFile { file, gate: self.gate.clone() })
        } else {
            file
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.set(Mode::Open);
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        while state.mode == Mode::HeldSyncs {
            state.held += 1;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        if state.mode == Mode::FailedSyncs {
            return Err(io::Error::other("the gate failed this sync"));
        }
        state.passed += 1;
        Ok(())
    }

    fn pass_write(&self) -> io::Result<()> {
        match self.lock().mode {
            Mode::Full => Err(io::ErrorKind::StorageFull.into()),
            Mode::FailedWrites => Err(Errno::IO.into()),
            Mode::ReadOnly => Err(Errno::ROFS.into()),
            Mode::Open | Mode::HeldSyncs | Mode::FailedSyncs | Mode::FailedReads => Ok(()),
        }
    }

    fn pass_read(&self) -> io::Result<()> {
        if self.lock().mode == Mode::FailedReads { Err(Errno::IO.into()) } else { Ok(()) }
    }
}

impl Disk for GatedDisk {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_dir(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(folder)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(path, RealDisk.open(path, access)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(path, RealDisk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_dir(folder)
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.gate.lock().free_bytes)
    }

    fn random(&self) -> io::Result<u32> {
        RealDisk.random()
    }
}

impl File for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate.pass_read()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass_write()?;
        self.file.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.gate.pass_write()?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass_sync()?;
        self.file.sync_data()
    }
}
