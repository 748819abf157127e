//! A told log on disk, as a ledger stores it, and the index over it. No ledger runs: nothing is
//! signed, and time is the story's.

use std::{path::Path, sync::Arc};

use access_ledger_client::verify::Record;
use access_ledger_server::{
    index::{self, Index, IndexError, Indexer},
    os::RealDisk,
    storage::{self, Log, LogReader},
};
use tempfile::TempDir;

use crate::story::ORIGIN;

/// The log in a folder of its own.
pub struct Stored {
    folder: TempDir,
    log: Log,
    /// Reads what was appended.
    pub reader: LogReader,
}

impl Stored {
    /// Without entries.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = storage::Options::new(folder.path(), ORIGIN);
        // One segment: a second begins only behind a tree, and there is none here.
        let options = storage::Options { segment_bytes: 2 << 30, ..options };
        let opened = storage::open(Arc::new(RealDisk), &options, None)?;
        Ok(Self { folder, log: opened.log, reader: opened.reader })
    }

    /// Appends records that follow those before.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn append(&mut self, records: &[Record]) -> anyhow::Result<()> {
        for records in records.chunks(GROUP_ENTRIES) {
            let mut group = self.log.group();
            for record in records {
                match &record.event {
                    Some(event) => group.push(&record.entry, event),
                    None => group.push_erased(&record.entry),
                }
            }
            let _durable = self.log.commit(group)?;
        }
        Ok(())
    }

    /// Opens the index, brought up to the log.
    ///
    /// # Errors
    ///
    /// As [`index::open`].
    pub fn index(&self, block_entries: u32) -> Result<(Index, Indexer), IndexError> {
        let options = index::Options::new(self.folder.path(), ORIGIN);
        let options = index::Options { block_entries, ..options };
        index::open(Arc::new(RealDisk), &options, self.reader.clone())
    }

    /// Where log and index are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Entries that are written together.
const GROUP_ENTRIES: usize = 100;
