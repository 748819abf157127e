//! The file operations of a spool: the real ones, and what a simulated disk must offer.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
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
    /// Writes over what is there: `bytes` end no later than the file.
    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
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
        make_folder(path, &mut |folder| File::open(folder)?.sync_all())?;
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
            _ => (name.to_owned(), options().open(self.path.join(name))?),
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
        let file = options().create_new(true).open(self.path.join(name))?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(bytes)
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
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

/// Makes a folder, and those above it, where they are not there yet, and has each name synced. So
/// is the name of what is there: whoever made it may have been killed before that.
fn make_folder(path: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let is_new = !path.is_dir();
    if is_new {
        above.map_or(Ok(()), |above| make_folder(above, sync))?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
    }
    match sync(above.unwrap_or_else(|| Path::new("."))) {
        // Others have made it, where we may not or where nothing can be written.
        Err(error) if !is_new && !may_make(error.kind()) => Ok(()),
        synced => synced,
    }
}

/// Whether a sync that fails like this could have been of a folder that we made others in.
const fn may_make(failure: ErrorKind) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    !matches!(failure, PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_each_folder_is_synced_before_another_is_made_in_it() {
        let above = tempfile::tempdir().unwrap();
        let top = above.path();
        let path = top.join("one/two/three");
        let make = || {
            let mut synced = Vec::new();
            let result = make_folder(&path, &mut |folder| {
                let inside = fs::read_dir(folder)?.next().is_some_and(|entry| entry.is_ok());
                synced.push((folder.to_owned(), inside));
                Ok(())
            });
            result.map(|()| synced)
        };
        let one = top.join("one");
        let folders = [&one, &one.join("two")].map(|folder| (folder.to_owned(), true));
        let made = make().unwrap();
        assert!(made.ends_with(&[&[(top.to_owned(), true)], &folders[..]].concat()), "{made:?}");
        // The process may have been killed before the last of them was.
        assert_eq!(make().unwrap(), [folders[1].clone()]);
    }

    #[test]
    fn a_folder_below_one_that_cannot_be_opened_is_opened_and_none_is_made_there() {
        let above = tempfile::tempdir().unwrap();
        let denied = &mut |_: &Path| Err(ErrorKind::PermissionDenied.into());
        make_folder(above.path(), denied).unwrap();
        let refused = make_folder(&above.path().join("spool"), denied);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
