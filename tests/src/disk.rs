//! A simulated disk that does to the storage what real ones are allowed to do.
//!
//! It keeps what a process sees (written) apart from what the disk holds (synced). A loss of power
//! keeps any subset of the rest: writes in sectors of 512 bytes, lengths, names. Any operation can
//! be made to fail: the process stops there, the disk is full from there on, or that one operation
//! fails. A sync that fails leaves pages that look written and are never written, which is what
//! Linux does.
//!
//! Everything random follows from the seed.

mod content;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use access_ledger_server::os::{Access, Disk, File};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;

use self::content::{Change, Content};

/// Which operations fail, counted from 0 over everything that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// None.
    Never,
    /// The process stops in the middle of this operation: nothing works from there on.
    StopAt(u64),
    /// This operation fails, once.
    ErrorAt(u64),
    /// From this operation on nothing can be written that makes a file longer.
    FullAt(u64),
    /// This read fails, once; counted from 0 over all reads.
    ReadErrorAt(u64),
}

/// What a restart leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The process was killed: all that it wrote is there, synced or not.
    Killed,
    /// Power was lost: all that was synced is there, and any subset of the rest.
    PowerLost,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: ChaCha8Rng,
    failure: Failure,
    operations: u64,
    reads: u64,
    stopped: bool,
    /// Files that cannot be read, and files that cannot be opened for writing or written.
    unreadable: BTreeSet<usize>,
    read_only: BTreeSet<usize>,
    files: Vec<Content>,
    /// What a process sees: the number of the file behind each name.
    names: BTreeMap<PathBuf, usize>,
    /// What the disk holds.
    synced_names: BTreeMap<PathBuf, usize>,
    /// Changes of names not synced yet, in order.
    pending_names: Vec<NameChange>,
}

/// A name that is to lead to a file, and one that is to vanish in the same step.
struct NameChange {
    link: Option<(PathBuf, usize)>,
    unlink: Option<PathBuf>,
}

impl SimulatedDisk {
    /// An empty disk without failures.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: ChaCha8Rng::seed_from_u64(seed),
            failure: Failure::Never,
            operations: 0,
            reads: 0,
            stopped: false,
            unreadable: BTreeSet::new(),
            read_only: BTreeSet::new(),
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            pending_names: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Counts operations from 0 again and fails as told.
    pub fn set_failure(&self, failure: Failure) {
        let mut state = self.lock();
        state.operations = 0;
        state.reads = 0;
        state.failure = failure;
    }

    /// Reads since the last [`SimulatedDisk::set_failure`].
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Whether a file's medium gives nothing back.
    pub fn set_unreadable(&self, path: &Path, is_unreadable: bool) {
        let mut state = self.lock();
        if let Some(&number) = state.names.get(path) {
            set(&mut state.unreadable, number, is_unreadable);
        }
    }

    /// Whether somebody has made a file read-only.
    pub fn set_read_only(&self, path: &Path, is_read_only: bool) {
        let mut state = self.lock();
        if let Some(&number) = state.names.get(path) {
            set(&mut state.read_only, number, is_read_only);
        }
    }

    /// Operations that changed the disk since the last [`SimulatedDisk::set_failure`].
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the process was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Starts again, without failures.
    pub fn restart(&self, restart: Restart) {
        let mut state = self.lock();
        if restart == Restart::PowerLost {
            state.lose_power();
        }
        state.stopped = false;
        state.failure = Failure::Never;
        state.operations = 0;
    }

    /// The bytes of a file; `None` if it does not exist.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state
            .names
            .get(path)
            .and_then(|number| state.files.get(*number))
            .map(|file| file.bytes.clone())
    }

    /// Replaces the bytes of a file, durably, as somebody else would.
    pub fn tamper(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        if let Some(&number) = state.names.get(path)
            && let Some(file) = state.files.get_mut(number)
        {
            *file = Content { synced: bytes.clone(), bytes, pending: Vec::new() };
        }
    }

    /// A copy of the disk as a process sees it, all of it synced.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let state = self.lock();
        let mut other = copy.lock();
        other.files.extend(state.files.iter().map(|file| Content {
            bytes: file.bytes.clone(),
            synced: file.bytes.clone(),
            pending: Vec::new(),
        }));
        other.names = state.names.clone();
        other.synced_names = state.names.clone();
        drop(other);
        copy
    }

    /// All files, by name.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(numbers: &mut BTreeSet<usize>, number: usize, is_in: bool) {
    if is_in {
        numbers.insert(number);
    } else {
        numbers.remove(&number);
    }
}

impl State {
    /// Counts a read, which may fail.
    fn begin_read(&mut self, number: usize) -> io::Result<()> {
        self.alive()?;
        let read = self.reads;
        self.reads += 1;
        if self.failure == Failure::ReadErrorAt(read) || self.unreadable.contains(&number) {
            return Err(Errno::IO.into());
        }
        Ok(())
    }

    /// Counts an operation, and says what becomes of it.
    fn begin(&mut self) -> io::Result<Fate> {
        self.alive()?;
        let number = self.operations;
        self.operations += 1;
        Ok(match self.failure {
            Failure::StopAt(at) if at == number => {
                self.stopped = true;
                Fate::Stop
            }
            Failure::ErrorAt(at) if at == number => Fate::Error,
            Failure::FullAt(at) if number >= at => Fate::Full,
            _ => Fate::Done,
        })
    }

    fn alive(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("simulated stop")) } else { Ok(()) }
    }

    fn file(&mut self, number: usize) -> io::Result<&mut Content> {
        self.files.get_mut(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn lose_power(&mut self) {
        for change in std::mem::take(&mut self.pending_names) {
            if self.random.random_bool(0.5) {
                change.apply(&mut self.synced_names);
            }
        }
        self.names = self.synced_names.clone();
        for file in &mut self.files {
            // A change that came to nothing leaves the disk as it was; the same for single sectors.
            for change in std::mem::take(&mut file.pending) {
                change.apply_some(&mut file.synced, &mut self.random);
            }
            file.bytes.clone_from(&file.synced);
        }
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Stop,
    Error,
    Full,
}

impl Fate {
    /// The error for operations that take no space.
    fn answer(self) -> io::Result<()> {
        match self {
            Self::Done | Self::Full => Ok(()),
            Self::Stop => Err(io::Error::other("simulated stop")),
            Self::Error => Err(io::Error::other("simulated failure")),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(path) = &self.unlink {
            names.remove(path);
        }
        if let Some((path, number)) = &self.link {
            names.insert(path.clone(), *number);
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let path = self.link.as_ref().map(|(path, _)| path).or(self.unlink.as_ref());
        path.and_then(|path| path.parent()) == Some(folder)
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, _folder: &Path) -> io::Result<()> {
        self.lock().alive()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let state = self.lock();
        state.alive()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let state = self.lock();
        state.alive()?;
        let number = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if access == Access::Write && state.read_only.contains(&number) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Arc::new(SimulatedFile { disk: self.clone(), number }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        let fate = state.begin()?;
        if fate == Fate::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fate != Fate::Error {
            // A new file even where there is one: what the old one held is not lost by this alone.
            let number = state.files.len();
            state.files.push(Content::default());
            state.change_names(NameChange { link: Some((path.into(), number)), unlink: None });
        }
        fate.answer()?;
        let number = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let fate = state.begin()?;
        if fate != Fate::Error {
            let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            let (link, unlink) = (Some((to.into(), number)), Some(from.into()));
            state.change_names(NameChange { link, unlink });
        }
        fate.answer()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let fate = state.begin()?;
        if fate != Fate::Error {
            state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            state.change_names(NameChange { link: None, unlink: Some(path.into()) });
        }
        fate.answer()
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let fate = state.begin()?;
        fate.answer()?;
        let pending = std::mem::take(&mut state.pending_names);
        let (synced, pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|change| change.is_in(folder));
        synced.iter().for_each(|change| change.apply(&mut state.synced_names));
        state.pending_names = pending;
        Ok(())
    }

    fn random(&self) -> io::Result<u32> {
        Ok(self.lock().random.random())
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl SimulatedFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.begin()?;
        if state.read_only.contains(&self.number) {
            return Err(Errno::ROFS.into());
        }
        let length = state.file(self.number)?.bytes.len();
        let change = match (fate, change) {
            (Fate::Done, change) => change,
            (Fate::Full, change) if change.end() <= length => change,
            (Fate::Full | Fate::Error, change) => {
                // Part of it may be written all the same.
                let some = state.random.random_range(0..=1);
                if let (1, Some(part)) = (some, change.half()) {
                    state.file(self.number)?.change(part);
                }
                let full = fate == Fate::Full;
                let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                return Err(kind.into());
            }
            (Fate::Stop, change) => {
                state.file(self.number)?.change(change);
                return Fate::Stop.answer();
            }
        };
        state.file(self.number)?.change(change);
        Ok(())
    }
}

impl File for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.begin_read(self.number)?;
        let bytes = &state.file(self.number)?.bytes;
        let rest = bytes.get(position(offset)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(source);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset: position(offset), bytes: bytes.to_vec() })
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.alive()?;
        Ok(state.file(self.number)?.bytes.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(position(length)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fate = state.begin()?;
        let State { random, files, .. } = &mut *state;
        let file = files.get_mut(self.number).ok_or(io::ErrorKind::NotFound)?;
        match fate {
            Fate::Stop => {}
            Fate::Done | Fate::Full => {
                let pending = std::mem::take(&mut file.pending);
                pending.iter().for_each(|change| change.apply(&mut file.synced));
            }
            Fate::Error => {
                // Some got to the disk; the rest looks written, and no later sync will write it.
                let pending = std::mem::take(&mut file.pending);
                pending.iter().for_each(|change| change.apply_some(&mut file.synced, random));
            }
        }
        fate.answer()
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
