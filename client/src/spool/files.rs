//! The file operations of a spool: the real ones, and what a simulated disk must offer.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::error::SpoolError;

/// How a spool's file names end.
pub(crate) const SUFFIX: &str = ".spool";

/// One folder of files. What was not synced may be gone, or half there, after a crash.
pub(crate) trait Files: Send + 'static {
    /// Names that end with [`SUFFIX`], sorted.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// Length in bytes.
    fn len(&mut self, name: &str) -> io::Result<u64>;
    /// Up to `len` bytes from `offset`: fewer only at the end.
    fn read(&mut self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Makes an empty file.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes at the end.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the end off.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// A folder on disk, locked for this process; files are readable for their owner only.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The file that is written, kept open.
    open: Option<(String, File)>,
    /// Held for its lock.
    _lock: File,
}

impl Folder {
    /// Opens the folder, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Locked`] when another recorder has it; [`SpoolError::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self, SpoolError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = options().create(true).truncate(false).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), open: None, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { folder: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let open = match self.open.take() {
            Some((open, file)) if open == name => (open, file),
            _ => (name.to_owned(), options().append(true).open(self.path.join(name))?),
        };
        Ok(&mut self.open.insert(open).1)
    }
}

impl Files for Folder {
    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(SUFFIX)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&mut self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&mut self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = options().append(true).create_new(true).open(self.path.join(name))?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
