//! How far the log's redactions are carried out: the file `erased.toml` of the data folder.
//!
//! It is derived: without it all redactions are carried out once more, which changes nothing but
//! takes the time of reading the log and building the index.

use std::{
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::waiting::Waiting;
use crate::{
    error::StorageError,
    os::{self, Disk},
    storage::file::io_error,
};

/// What is kept from one start to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// The redactions among so many entries, from 0 on, are carried out.
    pub(super) size: u64,
    /// Index of the change that brought the retention that is in force behind them; 0: none.
    #[serde(default)]
    pub(super) retention: u64,
    /// Where the newest run of a retention ends, that one excluded.
    #[serde(default)]
    pub(super) expired: u64,
    /// Runs of a retention whose time has not come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) waiting: Vec<Waiting>,
    /// What is being erased: first and last indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) under_way: Vec<(u64, u64)>,
}

impl Progress {
    /// Reads the file; `None` when it is missing or cannot be understood.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn load(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>, StorageError> {
        let path = path(folder);
        let text = match os::read(disk, &path, BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let parsed = str::from_utf8(&text).ok().and_then(|text| toml::from_str(text).ok());
        if parsed.is_none() {
            warn!(path = %path.display(), "carries all redactions out once more");
        }
        Ok(parsed)
    }

    /// The same, as if no redaction had been looked at: each is carried out once more, for events
    /// may have come back.
    pub(crate) fn again(self) -> Self {
        Self { under_way: self.under_way, ..Self::default() }
    }

    /// The same, with these ranges under way, too; one that spans all, where they are too many.
    pub(super) fn begin(mut self, ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        self.under_way.extend(ranges);
        self.under_way.sort_unstable();
        self.under_way.dedup();
        let ends = self.under_way.iter().map(|&(_, last)| last).max();
        if let (Some(&(first, _)), Some(last)) = (self.under_way.first(), ends)
            && self.under_way.len() > UNDER_WAY_MAX
        {
            self.under_way = vec![(first, last)];
        }
        self
    }

    /// Puts the file in place, durably.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn save(&self, disk: &dyn Disk, folder: &Path) -> Result<(), StorageError> {
        let path = path(folder);
        let text = toml::to_string(self).unwrap_or_default();
        os::replace(disk, &path, text.as_bytes()).map_err(io_error("replace", &path))
    }

    /// Ranges in which erased events may not be overwritten yet.
    pub(crate) fn under_way(&self) -> Vec<RangeInclusive<u64>> {
        self.under_way.iter().map(|&(first, last)| first..=last).collect()
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("erased.toml")
}

/// Ranges: far more than are ever damaged.
const UNDER_WAY_MAX: usize = 8_192;

/// Some tens of bytes for each range that is under way, and for each run that waits.
const BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::RealDisk;

    #[test]
    fn ranges_are_there_once_and_not_without_bound() {
        let begin = |progress: Progress, from: u64, to: u64| {
            progress.begin((from..to).map(|first| (first, first + 5)))
        };
        let some = begin(begin(Progress::default(), 4, 6), 3, 5);
        assert_eq!(some.under_way, [(3, 8), (4, 9), (5, 10)]);
        let all = begin(some, 3, 3 + UNDER_WAY_MAX as u64);
        assert_eq!(all.under_way.len(), UNDER_WAY_MAX);
        let beyond = begin(all, 2, 3);
        assert_eq!(beyond.under_way, [(2, 2 + UNDER_WAY_MAX as u64 + 5)]);
    }

    #[test]
    fn it_reads_back_as_written_and_garbage_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Progress::load(&RealDisk, folder.path()).unwrap();
        assert_eq!(load(), None);
        let under_way = vec![(3, 9), (20, 20)];
        let waiting = vec![Waiting { run: 69, due: u64::MAX / 1_000_000_000, retention: 8 }];
        let progress = Progress { size: 70, retention: 8, expired: 60, waiting, under_way };
        progress.save(&RealDisk, folder.path()).unwrap();
        assert_eq!(load(), Some(progress.clone()));
        assert_eq!(progress.under_way(), [3..=9, 20..=20]);
        os::replace(&RealDisk, &path(folder.path()), b"size = -1").unwrap();
        assert_eq!(load(), None);
    }
}
