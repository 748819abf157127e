//! Files and time, behind traits: the only place that touches the file system or reads the clock.
//!
//! The tests run the storage on a simulated disk that loses, tears and refuses; so everything that
//! the storage asks of a disk is in [`Disk`] and [`File`], and nothing else may be used there.
//! A write is durable after [`File::sync_data`]; a name (created, renamed, removed) only after
//! [`Disk::sync_dir`] of its folder. Everything is created for the owner alone: a ledger holds
//! personal data and keys.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustix::{
    fs::{Advice, FlockOperation},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use zeroize::Zeroizing;

/// A clock.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the Unix epoch. May step back.
    fn now_nanos(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is os::Clock")]
    fn now_nanos(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Before 1970: the epoch. After 2554: the end of the number range.
        since_epoch.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// An open file. Reads and writes carry their offset, so that any number of threads share it.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset` on. Returns less than its length only where the file ends.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file where needed. Durable after a sync.
    ///
    /// # Errors
    ///
    /// What the file system says; then any part of `bytes` may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or grows it with zeros. Durable after a sync.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes content and length durable (`fdatasync`).
    ///
    /// # Errors
    ///
    /// What the file system says; then what was not durable before may be lost, whatever a later
    /// sync answers.
    fn sync_data(&self) -> io::Result<()>;

    /// Lets go of what the system holds of the file in memory, so that what is read next comes from
    /// the disk. Where that cannot be asked for, nothing happens.
    fn forget(&self) {}
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Creates a folder and those above it, durably; one that exists is left as it is.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn create_dir(&self, folder: &Path) -> io::Result<()>;

    /// Names of the files in a folder, sorted.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// What the file system says, `NotFound` among it.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Creates an empty file, or empties the one that is there; opened for writing.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in one step, replacing what has that name.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Who may do what with a file, as the lower nine bits of Unix. The owner alone may read and
    /// write, on disks that know of no others.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn mode(&self, _path: &Path) -> io::Result<u32> {
        Ok(0o600)
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that can be written into a folder until its file system is full. A disk that cannot
    /// tell says that there is enough.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// A number that nobody outside can guess.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    fn random(&self) -> io::Result<u32>;
}

/// Reads a whole file of at most `length_max` bytes.
///
/// # Errors
///
/// What the file system says; `FileTooLarge` for a longer file.
pub fn read(disk: &dyn Disk, path: &Path, length_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    if length > length_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; length];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads a whole file of at most `length_max` bytes that is its owner's secret. The bytes are wiped
/// when they are dropped.
///
/// # Errors
///
/// As [`read`]; `PermissionDenied` when others than the owner may do anything with the file, for
/// then it may be no secret any more.
pub fn read_secret(
    disk: &dyn Disk,
    path: &Path,
    length_max: usize,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(read(disk, path, length_max)?);
    match disk.mode(path)? {
        mode if mode & 0o077 == 0 => Ok(bytes),
        mode => {
            let problem = format!("mode is {mode:03o}, a secret's is 600: others may have read it");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
        }
    }
}

/// Puts a file with this content in place, durably and in one step: whenever the machine stops, the
/// file is the old or the new one, whole.
///
/// # Errors
///
/// What the file system says; then the old file is still in place.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let file = disk.create(&draft)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&draft, path)?;
    disk.sync_dir(folder_of(path))
}

/// Puts a file with this content in place in one step, without waiting for the disk: readers and a
/// process that is killed see the old or the new one, whole. After a loss of power it may be torn,
/// so its content must prove itself.
///
/// # Errors
///
/// What the file system says; then the old file is still in place.
pub fn replace_unsynced(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    disk.create(&draft)?.write_at(bytes, 0)?;
    disk.rename(&draft, path)
}

/// The name under which a file is written before it takes the place of `path`.
#[must_use]
pub fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(DRAFT_SUFFIX);
    draft.into()
}

/// How the name of a draft ends: a file left by a stop in the middle of [`replace`], to be ignored.
pub const DRAFT_SUFFIX: &str = ".draft";

/// Lets this process have as many files and connections open as it needs and the system allows.
/// How many that is.
///
/// # Errors
///
/// What the system says.
pub fn raise_open_files() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(open_files_max())
}

/// How many files and connections this process may have open.
#[must_use]
pub fn open_files_max() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// All connections of two listeners, and as many segments as anybody has.
const OPEN_FILES: u64 = 65_536;

/// Holds a folder for one process, until dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Takes the advisory lock on the file `path`, which is created if need be. Does not wait.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another process holds it; else what the file system says.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let file = owner_only().write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _file: file })
    }
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder_of(folder);
        self.create_dir(parent)?;
        fs::DirBuilder::new().mode(0o700).create(folder)?;
        self.sync_dir(parent)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = owner_only().write(access == Access::Write).open(path)?;
        Ok(Arc::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = owner_only().write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(file))
    }

    #[expect(clippy::disallowed_methods, reason = "os::replace is made of this")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn random(&self) -> io::Result<u32> {
        Ok(getrandom::u32()?)
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn forget(&self) {
        // Advice: pages that are not on the disk yet stay, and a refusal costs only freshness.
        let _is_taken = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// Opens for reading; files made are the owner's alone.
fn owner_only() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_file_is_whole_private_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&RealDisk, &path, b"old and longer").unwrap();
        replace_unsynced(&RealDisk, &path, b"new").unwrap();
        assert_eq!(read(&RealDisk, &path, 3).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(RealDisk.list(folder.path()).unwrap(), ["key"]);
        let error = read(&RealDisk, &path, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&RealDisk, &path, b"secret").unwrap();
        assert_eq!(**read_secret(&RealDisk, &path, 6).unwrap(), *b"secret");
        for mode in [0o640, 0o604, 0o610, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&RealDisk, &path, 6).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{mode:o}");
            assert!(error.to_string().starts_with(&format!("mode is {mode:o}")), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        read_secret(&RealDisk, &path, 6).unwrap();
    }

    #[test]
    fn second_lock_is_refused_until_the_first_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::acquire(&path).unwrap();
        assert_eq!(Lock::acquire(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn read_past_the_end_returns_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&folder.path().join("f")).unwrap();
        file.write_at(b"abc", 2).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 4);
        assert_eq!(buffer, [0, b'a', b'b', b'c', 9, 9, 9, 9]);
    }
}
