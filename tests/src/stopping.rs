//! A real disk that stops after a number of operations: nothing works from there on, as for a
//! process that is killed.

use std::{
    ffi::OsString,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use access_ledger_server::os::{Access, Disk, File, RealDisk};

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct StoppingDisk {
    left: Arc<AtomicU64>,
    /// Counts from when a file whose name begins so is made.
    begin: Option<&'static str>,
    has_begun: Arc<AtomicBool>,
}

struct StoppingFile {
    file: Arc<dyn File>,
    disk: StoppingDisk,
}

impl StoppingDisk {
    /// Stops behind so many operations that change it; a write is torn if it is the last of them.
    #[must_use]
    pub fn after(operations: u64) -> Self {
        let left = Arc::new(AtomicU64::new(operations));
        Self { left, begin: None, has_begun: Arc::new(AtomicBool::new(true)) }
    }

    /// The same, counted from when a file whose name begins with `name` is made.
    #[must_use]
    pub fn since(name: &'static str, operations: u64) -> Self {
        let has_begun = Arc::new(AtomicBool::new(false));
        Self { begin: Some(name), has_begun, ..Self::after(operations) }
    }

    /// Whether nothing works any more.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst) && self.left.load(Ordering::SeqCst) == 0
    }

    fn spend(&self) -> io::Result<()> {
        if !self.has_begun.load(Ordering::SeqCst) {
            return Ok(());
        }
        let spent = |left: u64| left.checked_sub(1);
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent);
        before.map(drop).map_err(|_| io::Error::other("simulated stop"))
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(StoppingFile { file, disk: self.clone() })
    }
}

impl Disk for StoppingDisk {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_dir(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(folder)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(RealDisk.open(path, access)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if self.begin.is_some_and(|begin| name.starts_with(begin)) {
            self.has_begun.store(true, Ordering::SeqCst);
        }
        self.spend()?;
        Ok(self.wrap(RealDisk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.spend()?;
        RealDisk.sync_dir(folder)
    }

    fn random(&self) -> io::Result<u32> {
        RealDisk.random()
    }
}

impl File for StoppingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.spend()?;
        // The last one before it stops is torn.
        let is_torn = self.disk.has_stopped();
        let length = if is_torn { bytes.len() / 2 } else { bytes.len() };
        self.file.write_at(bytes.get(..length).unwrap_or_default(), offset)?;
        if is_torn { Err(io::Error::other("simulated stop")) } else { Ok(()) }
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spend()?;
        self.file.sync_data()
    }
}
