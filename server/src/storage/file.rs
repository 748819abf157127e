//! An open file that knows its name, so that each error says which file it was.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::StorageError,
    os::{Access, Disk, File},
};

/// An open file and its name. Cloning shares the handle.
#[derive(Clone)]
pub(crate) struct StoredFile {
    file: Arc<dyn File>,
    path: Arc<Path>,
}

impl StoredFile {
    /// Opens a file that exists.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, access: Access) -> Result<Self, StorageError> {
        let file = disk.open(path, access).map_err(io_error("open", path))?;
        Ok(Self { file, path: path.into() })
    }

    /// Opens a file for writing, and creates it if need be.
    pub(crate) fn open_or_create(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        let file = match disk.open(path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(path),
            opened => opened,
        };
        Ok(Self { file: file.map_err(io_error("open", path))?, path: path.into() })
    }

    /// Creates an empty file, or empties the one that is there.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        let file = disk.create(path).map_err(io_error("create", path))?;
        Ok(Self { file, path: path.into() })
    }

    /// Fills `buffer` from `offset` on; less than its length only where the file ends.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.file.read_at(buffer, offset).map_err(io_error("read", &self.path))
    }

    /// Reads `length` bytes at `offset`, fewer only where the file ends.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; length];
        let filled = self.read_at(&mut bytes, offset)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.file.write_at(bytes, offset).map_err(io_error("write", &self.path))
    }

    pub(crate) fn length(&self) -> Result<u64, StorageError> {
        self.file.length().map_err(io_error("measure", &self.path))
    }

    pub(crate) fn set_length(&self, length: u64) -> Result<(), StorageError> {
        self.file.set_length(length).map_err(io_error("resize", &self.path))
    }

    /// Lets what is read next come from the disk.
    pub(crate) fn forget(&self) {
        self.file.forget();
    }

    pub(crate) fn sync_data(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(io_error("sync", &self.path))
    }
}

/// Wraps what the file system said with what was being done to which file.
pub(crate) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StorageError {
    let path: PathBuf = path.into();
    move |source| StorageError::Io { operation, path, source }
}
