//! The findings, in a file of their own: they may grow with the log, which the state must not.
//!
//! Append-only, in the order in which they were found. The file is written at the end of a block;
//! the watermark in the state says how long it is, and what lies behind that is cut at the next
//! start. Until then findings are in memory, as the bytes that will be written.
//!
//! | frame | bytes | |
//! |---|---|---|
//! | length | 4 | of what follows the CRC |
//! | CRC-32C | 4 | of what follows |
//! | time | 8 | of what it is about, nanoseconds |
//! | record length | 4 | |
//! | record | | a `FindingRecord` |
//! | rule | | the rest |
//!
//! Time and rule stand beside the record so that those that are not wanted need no decoding.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use access_ledger_proto::{position::memory_len, wire::FindingRecord};
use prost::Message as _;
use roaring::RoaringTreemap;

use super::{error::IndexError, posting::take};
use crate::{
    error::StorageError,
    os::Disk,
    storage::file::{StoredFile, io_error},
};

/// All findings, those of the open block in memory.
pub(crate) struct FindingLog {
    file: StoredFile,
    path: Box<Path>,
    /// Bytes of the file that count.
    saved: u64,
    /// What comes behind them.
    recent: Vec<u8>,
    count: u64,
    /// Offset of every [`MARK_FINDINGS`]th finding.
    marks: Vec<u64>,
    /// Which entries the findings of a rule are about.
    indexes: BTreeMap<String, RoaringTreemap>,
}

/// One finding, as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    /// Its place among all findings.
    pub(crate) number: u64,
    /// When what it is about happened.
    pub(crate) time: u64,
    /// The rule that objects.
    pub(crate) rule: &'a str,
    record: &'a [u8],
}

impl Stored<'_> {
    /// The finding; the state that humans gave it is not in it.
    pub(crate) fn decode(&self) -> Option<FindingRecord> {
        FindingRecord::decode(self.record).ok()
    }
}

impl FindingLog {
    /// Opens the file, which is created if need be, and cuts it to `length`; `None` when it does
    /// not hold so many sound bytes. Reads all of it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        length: u64,
    ) -> Result<Option<Self>, StorageError> {
        let file = StoredFile::open_or_create(disk, path)?;
        let found = file.length()?;
        if found < length {
            return Ok(None);
        }
        if found > length {
            file.set_length(length)?;
        }
        let mut log = Self::empty(file, path, length);
        let mut indexes = BTreeMap::new();
        let mut marks = Vec::new();
        let mut scan = Scan::new(&log, 0, 0);
        loop {
            let offset = scan.offset();
            match scan.next() {
                Ok(Some(stored)) => {
                    let Some(record) = stored.decode() else { return Ok(None) };
                    mark(&mut marks, stored.number, offset);
                    note_index(&mut indexes, &record);
                }
                Ok(None) => break,
                Err(IndexError::Storage(error)) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
        let count = scan.number;
        (log.count, log.marks, log.indexes) = (count, marks, indexes);
        Ok(Some(log))
    }

    /// Starts with none, whatever was there.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self, StorageError> {
        disk.create(path).map_err(io_error("create", path))?;
        let file = StoredFile::open_or_create(disk, path)?;
        Ok(Self::empty(file, path, 0))
    }

    fn empty(file: StoredFile, path: &Path, saved: u64) -> Self {
        let (recent, marks, indexes) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { file, path: path.into(), saved, recent, count: 0, marks, indexes }
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Appends a finding, in memory.
    pub(crate) fn push(&mut self, record: &FindingRecord) {
        let offset = self.end();
        mark(&mut self.marks, self.count, offset);
        note_index(&mut self.indexes, record);
        self.count += 1;
        let record_length = record.encoded_len();
        let length = FIXED_LEN + record_length + record.rule.len();
        let start = self.recent.len();
        self.recent.extend_from_slice(&small(length).to_be_bytes());
        self.recent.extend_from_slice(&[0; 4]);
        self.recent.extend_from_slice(&record.time.to_be_bytes());
        self.recent.extend_from_slice(&small(record_length).to_be_bytes());
        self.recent.extend_from_slice(&record.encode_to_vec());
        self.recent.extend_from_slice(record.rule.as_bytes());
        let frame = self.recent.get_mut(start..).unwrap_or_default();
        if let Some((header, content)) = frame.split_first_chunk_mut::<HEADER_LEN>() {
            header[4..].copy_from_slice(&crc32c::crc32c(content).to_be_bytes());
        }
    }

    /// Writes what is in memory behind the rest, durably, and returns the length to remember. May
    /// be repeated; [`FindingLog::settle`] forgets what was written.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`] when the disk refuses.
    pub(crate) fn write(&self) -> Result<u64, StorageError> {
        if !self.recent.is_empty() {
            self.file.write_at(&self.recent, self.saved)?;
            self.file.sync_data()?;
        }
        Ok(self.end())
    }

    /// Everything was written, and the state remembers the length.
    pub(crate) fn settle(&mut self) {
        self.saved = self.end();
        self.recent = Vec::new();
    }

    /// The entries that findings of these rules are about.
    pub(crate) fn indexes_of_rules<'a>(
        &self,
        rules: impl IntoIterator<Item = &'a str>,
    ) -> RoaringTreemap {
        let mut found = RoaringTreemap::new();
        for indexes in rules.into_iter().filter_map(|rule| self.indexes.get(rule)) {
            found |= indexes;
        }
        found
    }

    /// Findings from the one with this number on. Of rules that no finding has, there are none to
    /// be read.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`], [`IndexError::Storage`].
    pub(crate) fn scan_from(&self, number: u64) -> Result<Scan<'_>, IndexError> {
        let number = number.min(self.count);
        let at = memory_len(number / MARK_FINDINGS).unwrap_or(usize::MAX);
        let (marked, offset) = match self.marks.get(at) {
            Some(&offset) => (number - number % MARK_FINDINGS, offset),
            None => (self.count, self.end()),
        };
        let mut scan = Scan::new(self, marked, offset);
        while scan.number < number && scan.next()?.is_some() {}
        Ok(scan)
    }

    /// Whether any finding has one of these rules; of no rules: whether there is any.
    pub(crate) fn has_any(&self, rules: &BTreeSet<&str>) -> bool {
        match rules.is_empty() {
            true => self.count > 0,
            false => rules.iter().any(|rule| self.indexes.contains_key(*rule)),
        }
    }

    fn end(&self) -> u64 {
        self.saved + self.recent.len() as u64
    }

    /// What a finding that is not as written is.
    pub(crate) fn damaged(&self) -> IndexError {
        IndexError::Damaged { path: self.path.to_path_buf(), part: "finding" }
    }
}

/// Reads findings in their order.
pub(crate) struct Scan<'a> {
    log: &'a FindingLog,
    /// Of the next finding.
    number: u64,
    /// Bytes read and not yet handed out start at `at`.
    buffer: Vec<u8>,
    at: usize,
    /// Where the buffer's end lies among all findings.
    buffer_end: u64,
}

impl<'a> Scan<'a> {
    const fn new(log: &'a FindingLog, number: u64, offset: u64) -> Self {
        Self { log, number, buffer: Vec::new(), at: 0, buffer_end: offset }
    }

    /// The next finding; `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] for one that is not as written; [`IndexError::Storage`] when the
    /// disk refuses.
    pub(crate) fn next(&mut self) -> Result<Option<Stored<'_>>, IndexError> {
        if self.offset() == self.log.end() {
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        let header = self.buffer.get(self.at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>());
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *header.ok_or_else(|| self.log.damaged())?;
        let length = memory_len(u32::from_be_bytes([l0, l1, l2, l3]).into()).unwrap_or(usize::MAX);
        if length > CONTENT_LEN_MAX {
            return Err(self.log.damaged());
        }
        self.fill(HEADER_LEN + length)?;
        let (start, end) = (self.at + HEADER_LEN, self.at + HEADER_LEN + length);
        let content = self.buffer.get(start..end).ok_or_else(|| self.log.damaged())?;
        if crc32c::crc32c(content) != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(self.log.damaged());
        }
        let number = self.number;
        self.number += 1;
        self.at = end;
        parse(content, number).map(Some).ok_or_else(|| self.log.damaged())
    }

    /// Number of the finding that comes next.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Where the finding that comes next lies among all.
    pub(crate) fn offset(&self) -> u64 {
        self.buffer_end - (self.buffer.len() - self.at) as u64
    }

    /// Makes the buffer hold `wanted` bytes from `at` on, or what there is.
    fn fill(&mut self, wanted: usize) -> Result<(), IndexError> {
        if self.buffer.len() - self.at >= wanted {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        while self.buffer.len() < wanted {
            let more = wanted.max(READ_BYTES) - self.buffer.len();
            let (log, start) = (self.log, self.buffer_end);
            let before = self.buffer.len();
            if let Some(left) = log.saved.checked_sub(start).filter(|&left| left > 0) {
                let length = more.min(memory_len(left).unwrap_or(usize::MAX));
                self.buffer.extend_from_slice(&log.file.read(start, length)?);
            } else {
                let recent = memory_len(start - log.saved).and_then(|at| log.recent.get(at..));
                let recent = recent.unwrap_or_default();
                self.buffer.extend_from_slice(recent.get(..more).unwrap_or(recent));
            }
            if self.buffer.len() == before {
                break;
            }
            self.buffer_end += (self.buffer.len() - before) as u64;
        }
        Ok(())
    }
}

fn parse(mut content: &[u8], number: u64) -> Option<Stored<'_>> {
    let rest = &mut content;
    let time = u64::from_be_bytes(take(rest)?);
    let length = memory_len(u32::from_be_bytes(take(rest)?).into())?;
    let (record, rule) = rest.split_at_checked(length)?;
    Some(Stored { number, time, rule: str::from_utf8(rule).ok()?, record })
}

fn mark(marks: &mut Vec<u64>, number: u64, offset: u64) {
    if number.is_multiple_of(MARK_FINDINGS) {
        marks.push(offset);
    }
}

fn note_index(indexes: &mut BTreeMap<String, RoaringTreemap>, record: &FindingRecord) {
    match indexes.get_mut(&record.rule) {
        Some(indexes) => {
            indexes.insert(record.index);
        }
        None => {
            indexes.insert(record.rule.clone(), RoaringTreemap::from_iter([record.index]));
        }
    }
}

/// A length that is far below 4 GiB.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Length and CRC.
const HEADER_LEN: usize = 8;

/// Time and record length.
const FIXED_LEN: usize = 12;

/// No finding is longer: it tells at most a few fields of events, of 32 KiB each.
const CONTENT_LEN_MAX: usize = 16 << 20;

/// Findings between two offsets that are known: so many are read in vain at most.
const MARK_FINDINGS: u64 = 64;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::os::RealDisk;

    fn finding(number: u64) -> FindingRecord {
        let rule = if number.is_multiple_of(3) { "NO_GRANT" } else { "BULK_EXPORT" };
        FindingRecord {
            finding_id: format!("{rule}-{number}"),
            rule: rule.into(),
            index: number * 10,
            time: number + 1_000,
            ..Default::default()
        }
    }

    fn numbers(log: &FindingLog, from: u64) -> Result<Vec<FindingRecord>, IndexError> {
        let mut scan = log.scan_from(from)?;
        let mut found = Vec::new();
        while let Some(stored) = scan.next()? {
            assert_eq!(stored.number, from + count(&found));
            let record = stored.decode().unwrap();
            assert_eq!((stored.time, stored.rule), (record.time, &*record.rule));
            found.push(record);
        }
        assert_eq!(scan.number(), log.count().max(from.min(log.count())));
        Ok(found)
    }

    fn count(found: &[FindingRecord]) -> u64 {
        u64::try_from(found.len()).unwrap()
    }

    #[test]
    fn findings_come_back_from_file_and_memory_at_any_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("findings");
        let mut log = FindingLog::open(&RealDisk, &path, 0).unwrap().unwrap();
        assert!(!log.has_any(&BTreeSet::new()));
        let mut length = 0;
        for number in 0..400 {
            log.push(&finding(number));
            if number % 90 == 89 {
                length = log.write().unwrap();
                log.settle();
            }
        }
        let expected: Vec<_> = (0..400).map(finding).collect();
        for from in [0, 1, 63, 64, 65, 200, 399, 400, 1_000] {
            let rest = expected.get(usize::try_from(from).unwrap()..).unwrap_or_default();
            assert_eq!(numbers(&log, from).unwrap(), rest);
        }
        let indexes = log.indexes_of_rules(["NO_GRANT", "UNKNOWN"]);
        assert!(indexes.iter().eq((0..400).filter(|number| number % 3 == 0).map(|n| n * 10)));
        assert!(log.has_any(&["BULK_EXPORT"].into()) && !log.has_any(&["UNKNOWN"].into()));

        // Behind the watermark nothing counts, not even what was written.
        log.write().unwrap();
        let log = FindingLog::open(&RealDisk, &path, length).unwrap().unwrap();
        assert_eq!(numbers(&log, 0).unwrap(), expected[..360]);
        assert_eq!(log.count(), 360);
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("findings");
        let mut log = FindingLog::open(&RealDisk, &path, 0).unwrap().unwrap();
        (0..5).for_each(|number| log.push(&finding(number)));
        let length = log.write().unwrap();
        log.settle();
        let whole = fs::read(&path).unwrap();
        for (at, byte) in (0_u64..).zip(&whole) {
            let file = RealDisk.open(&path, crate::os::Access::Write).unwrap();
            file.write_at(&[byte ^ 1 << (at % 8)], at).unwrap();
            assert!(numbers(&log, 0).is_err(), "byte {at}");
            assert!(FindingLog::open(&RealDisk, &path, length).unwrap().is_none());
            file.write_at(&[*byte], at).unwrap();
        }
        assert!(FindingLog::open(&RealDisk, &path, length + 1).unwrap().is_none());
        assert!(FindingLog::open(&RealDisk, &path, length - 1).unwrap().is_none());
    }
}
