//! What an operator can do to its own ledger.

use std::{fs, path::Path};

use access_ledger_proto::{
    entry::Entry,
    hash::{Digest, leaf_hash},
    note::Signer,
    position::{Index, count_of, memory_len},
};
use anyhow::Context as _;
use bytes::Bytes;

use super::liar::Liar;
use crate::{
    check::check,
    folder::{Folder, Keys, real_disk},
    os::Access,
    storage::{self, Options, Record},
};

/// A stopped ledger, read into memory, with its key.
#[derive(Clone)]
pub struct Seized {
    /// All entries with their events.
    pub records: Vec<Record>,
    /// The ledger's key, which signs checkpoints.
    pub key: Signer,
    /// The key of the ledger's own source, which seals registrations.
    pub own: Signer,
}

impl Seized {
    /// Reads the ledger in `data`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is damaged.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let disk = real_disk();
        let Keys { ledger: key, source: own, .. } = Folder::new(data).open_keys(&*disk)?;
        let opened = storage::open(disk, &Options::new(data, key.name()), None)?;
        let mut records = Vec::new();
        loop {
            let next = Index(count_of(records.len()));
            let run = opened.reader.read(next, READ_ENTRIES, READ_BYTES)?;
            if run.is_empty() {
                return Ok(Self { records, key, own });
            }
            records.extend(run);
        }
    }

    /// An entry that no seal stands on, about in the middle.
    pub(crate) fn middle(&self) -> u64 {
        let half = self.records.len() / 2;
        let is_inside =
            |record: &Record| Entry::parse(&record.entry).is_ok_and(|entry| entry.seal.is_none());
        let after = self.records.iter().skip(half).position(is_inside);
        count_of(half + after.unwrap_or_default())
    }

    /// Flips a byte of an event in a copy of the folder, and checks that copy.
    pub(crate) fn flip_on_disk(
        &self,
        data: &Path,
        copy: &Path,
        target: u64,
    ) -> anyhow::Result<Option<String>> {
        for part in ["", "keys", "log", "tree"] {
            copy_files(&data.join(part), &copy.join(part))?;
        }
        let event = self.event(target)?;
        let disk = real_disk();
        for name in disk.list(&copy.join("log"))? {
            let path = copy.join("log").join(name);
            let bytes = fs::read(&path)?;
            if let Some(at) = bytes.windows(event.len()).position(|window| window == &event[..]) {
                let middle = at + event.len() / 2;
                let flipped = bytes.get(middle).copied().unwrap_or_default() ^ 1;
                disk.open(&path, Access::Write)?.write_at(&[flipped], count_of(middle))?;
            }
        }
        let options = Options::new(copy, self.key.name());
        let report = check(&disk, &options, self.key.verifier(), None, &|_| ())?;
        Ok(report.problem.map(|problem| problem.to_string()))
    }

    /// One byte of an event is another.
    pub(crate) fn flipped(&self, target: u64) -> anyhow::Result<Liar> {
        let mut event = self.event(target)?.to_vec();
        let middle = event.len() / 2;
        if let Some(byte) = event.get_mut(middle) {
            *byte ^= 1;
        }
        let mut records = self.records.clone();
        let place = memory_len(target).and_then(|at| records.get_mut(at));
        place.context("no such entry")?.event = Some(Bytes::from(event));
        Liar::new(records, &self.key)
    }

    /// One entry is missing, and all behind it moved up, with links that hold.
    pub(crate) fn dropped(&self, target: u64) -> anyhow::Result<Liar> {
        let mut copy = self.clone();
        copy.records.remove(memory_len(target).context("no such entry")?);
        copy.rechain()?;
        copy.serve()
    }

    /// Signs the records as they are, and serves them.
    ///
    /// # Errors
    ///
    /// As [`Liar::new`].
    pub fn serve(&self) -> anyhow::Result<Liar> {
        Liar::new(self.records.clone(), &self.key)
    }

    /// The record at `index`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn record(&mut self, index: u64) -> anyhow::Result<&mut Record> {
        let record = memory_len(index).and_then(|at| self.records.get_mut(at));
        record.context("no such entry")
    }

    /// Rewrites the entry at `index`.
    ///
    /// # Errors
    ///
    /// When there is none, or it is malformed.
    pub fn alter(&mut self, index: u64, alter: impl FnOnce(&mut Entry<'_>)) -> anyhow::Result<()> {
        let record = self.record(index)?;
        let old = record.entry.clone();
        let mut entry = Entry::parse(&old)?;
        alter(&mut entry);
        record.entry = Bytes::from(entry.encode());
        Ok(())
    }

    /// What an operator does after it tampered: indexes and links are made good again.
    ///
    /// # Errors
    ///
    /// When an entry is malformed.
    pub fn rechain(&mut self) -> anyhow::Result<()> {
        let mut prev = Digest::ZERO;
        for index in 0..count_of(self.records.len()) {
            self.alter(index, |entry| (entry.index, entry.prev) = (Index(index), prev))?;
            prev = leaf_hash(&self.record(index)?.entry);
        }
        Ok(())
    }

    /// The first half, up to a seal, as it was.
    pub(crate) fn rolled_back(&self) -> anyhow::Result<Liar> {
        let mut records = self.records.clone();
        records.truncate(records.len() / 2);
        let is_sealed =
            |record: &Record| Entry::parse(&record.entry).is_ok_and(|entry| entry.seal.is_some());
        while records.last().is_some_and(|record| !is_sealed(record)) {
            records.pop();
        }
        Liar::new(records, &self.key)
    }

    fn event(&self, target: u64) -> anyhow::Result<Bytes> {
        let record = memory_len(target).and_then(|at| self.records.get(at));
        record.and_then(|record| record.event.clone()).context("no such event")
    }
}

/// Copies the files of a folder, not the folders in it.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

const READ_ENTRIES: usize = 4_096;
const READ_BYTES: usize = 4 << 20;
