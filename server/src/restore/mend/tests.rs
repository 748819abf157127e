//! However the exchange of a segment for several is cut off, nothing of it is in the drafts alone.

use std::{
    ffi::OsString,
    fs, io,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    folder::real_disk,
    os::{self, File},
};

/// A disk that takes so many renames.
struct Renames {
    disk: Arc<dyn Disk>,
    left: AtomicUsize,
}

impl Disk for Renames {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        self.disk.create_dir(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(folder)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.disk.open(path, access)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| io::Error::other("stopped"))?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_dir(folder)
    }

    fn random(&self) -> io::Result<u32> {
        self.disk.random()
    }
}

#[test]
fn a_damaged_segment_goes_when_all_that_take_its_place_are_there() {
    const FIRSTS: [Index; 3] = [Index(0), Index(5), Index(9)];
    for stop_at in 0..=FIRSTS.len() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, data) = (real_disk(), Folder::new(dir.path()));
        let (log, drafts) = (segment::folder(data.root()), data.mending());
        [&log, &drafts].into_iter().for_each(|folder| disk.create_dir(folder).unwrap());
        os::replace(&*disk, &segment::path(&log, Index(0)), b"damaged").unwrap();
        for first in FIRSTS {
            os::replace(&*disk, &segment::path(&drafts, first), b"new").unwrap();
        }
        let stretch = Stretch { first: Index(0), next: None, sound: None };
        let written = FIRSTS.map(|first| Written { first, frames_end: 0 }).to_vec();
        let stopping: Arc<dyn Disk> =
            Arc::new(Renames { disk: disk.clone(), left: AtomicUsize::new(stop_at) });
        let done = exchange(&stopping, &data, &Mended::default(), &[(stretch, written)]);
        assert_eq!(done.is_ok(), stop_at == FIRSTS.len());
        data.clear_mending(&*disk).unwrap();
        let is_new = |first| fs::read(segment::path(&log, first)).is_ok_and(|file| file == b"new");
        let is_damaged = fs::read(segment::path(&log, Index(0))).unwrap() == b"damaged";
        assert!(is_damaged || FIRSTS.into_iter().all(is_new), "stopped at {stop_at}");
        assert_eq!(fs::read_dir(&drafts).unwrap().count(), 0);
    }
}
