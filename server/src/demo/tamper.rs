//! What an operator can do to its own ledger.

use std::{fs, path::Path};

use access_ledger_proto::{
    entry::Entry,
    hash::leaf_hash,
    note::Signer,
    position::{Index, count_of, memory_len},
};
use anyhow::Context as _;
use bytes::Bytes;

use super::liar::Liar;
use crate::{
    check::check,
    folder::{Folder, real_disk},
    os::Access,
    storage::{self, Options, Record},
};

/// A stopped ledger, read into memory, with its key.
pub(crate) struct Copy {
    records: Vec<Record>,
    key: Signer,
}

impl Copy {
    /// Reads the ledger in `data`.
    pub(crate) fn read(data: &Path) -> anyhow::Result<Self> {
        let disk = real_disk();
        let key = Folder::new(data).open_keys(&*disk)?.ledger;
        let opened = storage::open(disk, &Options::new(data, key.name()), None)?;
        let mut records = Vec::new();
        loop {
            let next = Index(count_of(records.len()));
            let run = opened.reader.read(next, READ_ENTRIES, READ_BYTES)?;
            if run.is_empty() {
                return Ok(Self { records, key });
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
        let mut records = self.records.clone();
        let target = memory_len(target).context("no such entry")?;
        records.remove(target);
        for at in target..records.len() {
            let prev = at.checked_sub(1).and_then(|at| records.get(at)).context("genesis")?;
            let prev = leaf_hash(&prev.entry);
            let record = records.get_mut(at).context("no such entry")?;
            let entry = Entry { index: Index(count_of(at)), prev, ..Entry::parse(&record.entry)? };
            record.entry = Bytes::from(entry.encode());
        }
        Liar::new(records, &self.key)
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
