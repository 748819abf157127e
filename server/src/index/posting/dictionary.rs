//! A dictionary: ascending keys, each with a number, as a search tree in the file of a block.
//!
//! It is written front to back, holding one page a level in memory, and read a page at a time: so
//! neither the memory of a merge nor the time of a lookup grows with the number of terms. (A finite
//! state transducer is smaller, but must be in memory as a whole.)
//!
//! | page | bytes | |
//! |---|---|---|
//! | length | 4 | of the page |
//! | level | 1 | 0: a leaf |
//! | records | | ascending |
//! | CRC | 4 | of all before |
//!
//! | record | bytes | |
//! |---|---|---|
//! | shared | 1 to 10 | how many bytes the key has in common with the one before it in the page |
//! | rest length | 1 to 10 | |
//! | rest | | the key's other bytes |
//! | number | 1 to 10 | of a leaf: the key's; else: offset of the page whose first key this is |
//!
//! Numbers in records are base 128, lowest digit first; the upper bit is set in all bytes but the
//! last.

use access_ledger_proto::position::count_of;

use super::{append_crc, check_crc, small, take};
use crate::error::StorageError;

/// Appends a page to the file; returns its offset.
pub(super) type Append<'a> = &'a mut dyn FnMut(&[u8]) -> Result<u64, StorageError>;

/// Writes a dictionary.
#[derive(Default)]
pub(super) struct DictionaryWriter {
    /// The open page of each level.
    levels: Vec<Draft>,
}

/// A page that is not full yet.
#[derive(Default)]
struct Draft {
    bytes: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl DictionaryWriter {
    /// Adds a key, larger than all before it.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        number: u64,
        append: Append<'_>,
    ) -> Result<(), StorageError> {
        self.insert_at(0, key, number, append)
    }

    /// Writes what is left; returns the offset of the root, 0 when there are no keys. It is empty
    /// then.
    pub(super) fn finish(&mut self, append: Append<'_>) -> Result<u64, StorageError> {
        let (mut level, mut root) = (0, 0);
        // The level above may begin only here, with the second page of this one.
        while let Some(draft) = self.levels.get_mut(level) {
            let first = std::mem::take(&mut draft.first);
            root = draft.write(level, append)?;
            level += 1;
            if level < self.levels.len() {
                self.insert_at(level, &first, root, append)?;
            }
        }
        self.levels.clear();
        Ok(root)
    }

    fn insert_at(
        &mut self,
        level: usize,
        key: &[u8],
        number: u64,
        append: Append<'_>,
    ) -> Result<(), StorageError> {
        if self.levels.len() <= level {
            self.levels.push(Draft::default());
        }
        let Some(draft) = self.levels.get_mut(level) else { return Ok(()) };
        if draft.bytes.len() + key.len() > PAGE_LEN - OVERHEAD && !draft.bytes.is_empty() {
            let first = std::mem::take(&mut draft.first);
            let offset = draft.write(level, append)?;
            self.insert_at(level + 1, &first, offset, append)?;
        }
        if let Some(draft) = self.levels.get_mut(level) {
            draft.push(key, number);
        }
        Ok(())
    }
}

impl Draft {
    fn push(&mut self, key: &[u8], number: u64) {
        if self.bytes.is_empty() {
            // Length and level are known when the page is written.
            self.bytes.extend_from_slice(&[0; PAGE_HEAD_LEN]);
            self.first = key.to_vec();
            self.last.clear();
        }
        let shared = self.last.iter().zip(key).take_while(|(last, byte)| last == byte).count();
        let rest = key.get(shared..).unwrap_or_default();
        push_number(&mut self.bytes, count_of(shared));
        push_number(&mut self.bytes, count_of(rest.len()));
        self.bytes.extend_from_slice(rest);
        push_number(&mut self.bytes, number);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
    }

    fn write(&mut self, level: usize, append: Append<'_>) -> Result<u64, StorageError> {
        let length = small(count_of(self.bytes.len() + 4));
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        let head = length.to_be_bytes().into_iter().chain([level]);
        self.bytes.iter_mut().zip(head).for_each(|(byte, head)| *byte = head);
        append_crc(&mut self.bytes);
        let offset = append(&self.bytes)?;
        self.bytes.clear();
        Ok(offset)
    }
}

/// A page that is read record by record.
pub(super) struct Page {
    bytes: Vec<u8>,
    at: usize,
    level: u8,
    key: Vec<u8>,
    number: u64,
    /// The current record was looked at, but not handed out.
    is_pending: bool,
}

impl Page {
    /// Bytes to read for a page: one of usual keys fits.
    pub(super) const READ_LEN: usize = PAGE_LEN;

    /// The length of the page that begins with these bytes; `None` when there is none.
    pub(super) fn length(mut bytes: &[u8]) -> Option<usize> {
        let length = usize::try_from(u32::from_be_bytes(take(&mut bytes)?)).ok()?;
        (PAGE_HEAD_LEN + 4..=PAGE_LEN_MAX).contains(&length).then_some(length)
    }

    /// A page of just these bytes; `None` when they are not as written.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let content_len = check_crc(&bytes)?.len();
        let level = *bytes.get(PAGE_HEAD_LEN - 1)?;
        bytes.truncate(content_len);
        let (at, key) = (PAGE_HEAD_LEN, Vec::new());
        Some(Self { bytes, at, level, key, number: 0, is_pending: false })
    }

    /// 0 for a leaf.
    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// Key and number of the current record.
    pub(super) fn record(&self) -> (&[u8], u64) {
        (&self.key, self.number)
    }

    /// Goes to the next record; `Some(false)` behind the last one, `None` when the page makes no
    /// sense.
    pub(super) fn advance(&mut self) -> Option<bool> {
        if std::mem::take(&mut self.is_pending) {
            return Some(true);
        }
        let mut rest = self.bytes.get(self.at..)?;
        if rest.is_empty() {
            return Some(false);
        }
        let shared = usize::try_from(take_number(&mut rest)?).ok()?;
        let (suffix, after) = usize::try_from(take_number(&mut rest)?)
            .ok()
            .and_then(|len| rest.split_at_checked(len))?;
        rest = after;
        self.number = take_number(&mut rest)?;
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.at = self.bytes.len() - rest.len();
        Some(true)
    }

    /// Goes to where `key` is. Of a leaf, the next record is then the first that is not smaller; of
    /// another page, the number is handed out under which `key` is, if it is anywhere, and the next
    /// record is the one behind.
    pub(super) fn seek(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let mut child = None;
        while self.advance()? {
            let is_behind = if self.level == 0 { *self.key >= *key } else { *self.key > *key };
            if is_behind {
                self.is_pending = true;
                break;
            }
            child = Some(self.number);
        }
        if self.level == 0 {
            return Some(None);
        }
        // A key before all others is looked for where the first one is.
        if child.is_none() && std::mem::take(&mut self.is_pending) {
            child = Some(self.number);
        }
        Some(child)
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Pages are as long as what a disk reads at once.
const PAGE_LEN: usize = 4_096;

/// A page of one very long key: more than any event has.
const PAGE_LEN_MAX: usize = 64 << 10;

const PAGE_HEAD_LEN: usize = 5;

/// Numbers of a record at their longest, and the CRC.
const OVERHEAD: usize = 30 + 4;
