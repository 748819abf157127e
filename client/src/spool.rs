//! Events on disk until their receipt is verified, so that what a recorder accepted survives a
//! crash of its service and an outage of the ledger.
//!
//! A folder of append-only files `<first number, 20 digits>-<salt, 8 hex digits>.spool`, each the
//! magic and then frames:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | len | 4 | of what follows the CRC |
//! | crc | 4 | CRC-32C of what follows, begun with the salt |
//! | kind | 1 | 1 a file's first frame, 2 any other |
//! | acknowledged | 8 | receipts of all numbers up to here were verified |
//! | first | 8 | number of the first event |
//! | after | 8 | first frame only: last number of the file before, 0 without one |
//! | owner | | first frame only: key id (4); origin and source, each after its length (4) |
//! | events | | for each its length (4) and its bytes |
//!
//! Integers are big-endian. A frame is what one sync covers, so a crash leaves at most one bad
//! frame, at the end: nobody was told that its events are safe, and it is cut. A bad frame with a
//! good one behind it is damage, and an error; so is one whose CRC holds and that cannot be there.
//! The salt is random: no service can record bytes that look like a frame.
//!
//! Of a whole frame at the end nobody knows whether it was synced, so opening a spool writes it
//! again and syncs it, and the names: only then is it sent, or another one written behind it.
//!
//! Files whose events are all acknowledged are deleted, the last one excepted: the spool never
//! forgets its last number.

use std::{collections::VecDeque, io};

use access_ledger_proto::{
    hash::Digest,
    note::{KeyId, Signer, VerifierKey},
    position::count_of,
};
use bytes::Bytes;

use self::{files::Files, frame::Head};
use crate::error::SpoolError;

pub(crate) mod files;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;

/// An event with its number and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) seq: u64,
    pub(crate) event: Bytes,
    pub(crate) digest: Digest,
}

/// To whom a spool belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    origin: String,
    source: String,
    key_id: KeyId,
}

impl Owner {
    pub(crate) fn new(key: &Signer, ledger: &VerifierKey) -> Self {
        Self {
            origin: ledger.name().to_owned(),
            source: key.name().to_owned(),
            key_id: key.verifier().id(),
        }
    }

    /// Whether it may go on with a spool of `other`. Its key may be another one: events wait
    /// without a seal, and are sealed when they are sent.
    fn continues(&self, other: &Self) -> bool {
        (&self.origin, &self.source) == (&other.origin, &other.source)
    }

    fn describe(&self) -> String {
        format!("source {} with key {} at ledger {}", self.source, self.key_id, self.origin)
    }
}

/// The files of one recorder. Any error is final: the files are left as they are.
#[derive(Debug)]
pub(crate) struct Spool<F> {
    files: F,
    owner: Owner,
    /// A file that is as long as this is followed by a new one.
    file_bytes_max: u64,
    /// In the order of their numbers; the last one is written.
    parts: VecDeque<Part>,
    /// The last number given.
    last: u64,
    /// The next group needs a file of its own.
    part_due: bool,
    acknowledged: u64,
    /// What the files say about it.
    acknowledged_on_disk: u64,
    reader: Reader,
}

/// One file.
#[derive(Debug)]
struct Part {
    name: String,
    salt: u32,
    /// Number of its last event.
    last: u64,
    len: u64,
}

/// Where reading back goes on.
#[derive(Debug)]
struct Reader {
    /// The file, unless it has been deleted since.
    name: String,
    offset: u64,
    /// Events with lower numbers were read.
    next: u64,
}

/// Disk space that an event of `len` bytes takes.
pub(crate) fn event_cost(len: usize) -> usize {
    // As if each were alone in its group.
    len + GROUP_OVERHEAD
}

impl<F: Files> Spool<F> {
    /// Opens the files of `owner`, or an empty folder.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Foreign`] for the files of another; [`SpoolError::Damaged`] for bytes that no
    /// crash explains; [`SpoolError::Io`].
    pub(crate) fn open(
        files: F,
        owner: Owner,
        file_bytes_max: u64,
    ) -> Result<(Self, Vec<usize>), SpoolError> {
        let reader = Reader { name: String::new(), offset: 0, next: 0 };
        let mut spool = Self {
            files,
            owner,
            file_bytes_max,
            parts: VecDeque::new(),
            last: 0,
            part_due: true,
            acknowledged: 0,
            acknowledged_on_disk: 0,
            reader,
        };
        let mut costs = Vec::new();
        let names = spool.files.list()?;
        for (at, name) in (1..).zip(&names) {
            spool.walk(name, at == names.len(), &mut costs)?;
        }
        // Whoever made or removed a file may have been killed before that was durable.
        spool.files.sync_folder()?;
        spool.acknowledged_on_disk = spool.acknowledged;
        spool.reader.next = spool.acknowledged + 1;
        spool.delete_acknowledged()?;
        let acknowledged = spool.acknowledged;
        let waiting = costs.into_iter().filter(|&(seq, _)| seq > acknowledged);
        Ok((spool, waiting.map(|(_, cost)| cost).collect()))
    }

    /// The last number that the files know; 0 when there are none.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// The last number whose receipt was verified, as far as the files know.
    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Leaves the numbers up to `last` to what was lost: the next event gets the one after.
    pub(crate) fn skip_numbers(&mut self, last: u64) {
        assert!(last >= self.last, "numbers go up");
        self.last = last;
        self.part_due = true;
    }

    /// Writes a group and syncs it: when this returns, the group survives a crash.
    ///
    /// The numbers go on from [`Spool::last`]; the group is not empty.
    pub(crate) fn append(&mut self, group: &[Numbered]) -> Result<(), SpoolError> {
        assert!(!group.is_empty(), "a group has events");
        let full = self.parts.back().is_none_or(|part| part.len >= self.file_bytes_max);
        if full || self.part_due {
            self.begin_part(group)?;
        } else {
            self.append_frame(group)?;
        }
        self.last += count_of(group.len());
        if let Some(part) = self.parts.back_mut() {
            part.last = self.last;
        }
        Ok(())
    }

    /// Notes that receipts up to this number were verified, and deletes what is not needed for
    /// that.
    pub(crate) fn acknowledge(&mut self, seq: u64) -> Result<(), SpoolError> {
        self.acknowledged = self.acknowledged.max(seq.min(self.last));
        self.delete_acknowledged()
    }

    /// Whether the files know less about receipts than [`Spool::acknowledge`] was told.
    pub(crate) const fn owes_mark(&self) -> bool {
        self.acknowledged > self.acknowledged_on_disk && !self.part_due
    }

    /// Writes what was acknowledged without waiting for the next group, so that a restart need not
    /// ask the ledger.
    pub(crate) fn mark(&mut self) -> Result<(), SpoolError> {
        self.append_frame(&[])
    }

    /// Whether there are events that [`Spool::read`] has not given.
    pub(crate) fn has_unread(&self) -> bool {
        self.parts.back().is_some_and(|part| self.reader.next <= part.last)
    }

    /// Passes over all events, as the caller has them in memory.
    pub(crate) fn skip_unread(&mut self) {
        if let Some(part) = self.parts.back() {
            self.reader = Reader { name: part.name.clone(), offset: part.len, next: self.last + 1 };
        }
    }

    /// Reads the next events in order: what is left of one group. Empty at the end.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Damaged`] when the bytes have changed since they were written.
    pub(crate) fn read(&mut self) -> Result<Vec<Numbered>, SpoolError> {
        while self.has_unread() {
            let next = self.reader.next;
            let Some(part) = self.parts.iter().find(|part| part.last >= next) else { break };
            if self.reader.name != part.name {
                self.reader.name.clone_from(&part.name);
                self.reader.offset = MAGIC_LEN;
            }
            let offset = self.reader.offset;
            let damaged = |found| damaged(&part.name, offset, found);
            let prefix = self.files.read(&part.name, offset, frame::PREFIX_LEN)?;
            let len = frame::len(&prefix).ok_or_else(|| damaged("the end of the file"))?;
            let bytes = Bytes::from(self.files.read(&part.name, offset, len)?);
            let frame = frame::parse(&bytes, part.salt);
            let mut events = frame.ok_or_else(|| damaged("bytes that are no frame"))?.events;
            self.reader.offset += count_of(len);
            events.retain(|event| event.seq >= next);
            if let Some(last) = events.last() {
                self.reader.next = last.seq + 1;
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    /// Verifies one file and takes in what it says. In the last one, a torn end is cut.
    fn walk(
        &mut self,
        name: &str,
        is_last: bool,
        costs: &mut Vec<(u64, usize)>,
    ) -> Result<(), SpoolError> {
        let damaged = |offset, found| damaged(name, count_of(offset), found);
        let (first, salt) = parse_name(name).ok_or_else(|| damaged(0, "a name of another form"))?;
        let len = self.files.len(name)?;
        let len = usize::try_from(len).map_err(|_| damaged(0, "a file beyond memory"))?;
        let bytes = Bytes::from(self.files.read(name, 0, len)?);
        let mut good = if bytes.starts_with(&MAGIC) { MAGIC.len() } else { 0 };
        // The last whole frame; what stands before the first one belongs to it.
        let (mut next, mut last_frame) = (first, 0);
        while good > 0
            && let Some(frame) = frame::parse(&bytes.slice(good..), salt)
            && frame.first == next
            && frame.head.is_some() == (good == MAGIC.len())
        {
            if let Some(head) = &frame.head {
                self.admit(name, first, head)?;
            }
            let events = frame.events.iter();
            costs.extend(events.map(|event| (event.seq, event_cost(event.event.len()))));
            next += count_of(frame.events.len());
            self.acknowledged = self.acknowledged.max(frame.acknowledged);
            last_frame = if frame.head.is_some() { 0 } else { good };
            good += frame.len;
        }
        if good < bytes.len() && (!is_last || frame::any(&bytes, good, salt, next)) {
            return Err(damaged(good, "bytes that are no frame"));
        }
        if next == first {
            // It was being made when a crash came.
            self.files.remove(name)?;
            return Ok(self.files.sync_folder()?);
        }
        if good < bytes.len() {
            self.files.truncate(name, count_of(good))?;
        }
        if is_last {
            // If its sync failed before the stop, the system may believe the frame to be on the
            // disk although it is not, and would sync nothing.
            self.files.rewrite(name, count_of(last_frame), &bytes.slice(last_frame..good))?;
            self.files.sync(name)?;
        }
        self.last = next - 1;
        self.part_due = false;
        let part = Part { name: name.to_owned(), salt, last: self.last, len: count_of(good) };
        self.parts.push_back(part);
        Ok(())
    }

    /// Checks that a file is ours and follows the one before.
    fn admit(&mut self, name: &str, first: u64, head: &Head) -> Result<(), SpoolError> {
        if !self.owner.continues(&head.owner) {
            let (found, wanted) = (head.owner.describe(), self.owner.describe());
            return Err(SpoolError::Foreign { found, wanted });
        }
        if self.parts.is_empty() {
            // What came before was deleted, so it was acknowledged.
            self.acknowledged = first - 1;
        } else if head.after != self.last {
            return Err(damaged(name, MAGIC_LEN, "a frame that follows another file"));
        }
        Ok(())
    }

    /// Makes a new file with its first group: all of it is on disk before it counts.
    fn begin_part(&mut self, group: &[Numbered]) -> Result<(), SpoolError> {
        let first = self.last + 1;
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let salt = u32::from_be_bytes(salt);
        let after = self.parts.back().map_or(0, |part| part.last);
        let head = Head { after, owner: self.owner.clone() };
        let mut bytes = MAGIC.to_vec();
        frame::encode(self.acknowledged, first, Some(&head), group, salt, &mut bytes);
        let name = format!("{first:020}-{salt:08x}{}", files::SUFFIX);
        self.files.create(&name)?;
        self.files.append(&name, &bytes)?;
        self.files.sync(&name)?;
        self.files.sync_folder()?;
        self.part_due = false;
        self.acknowledged_on_disk = self.acknowledged;
        self.parts.push_back(Part { name, salt, last: first, len: count_of(bytes.len()) });
        Ok(())
    }

    fn append_frame(&mut self, group: &[Numbered]) -> Result<(), SpoolError> {
        let Some(part) = self.parts.back_mut() else { return Ok(()) };
        let mut bytes = Vec::new();
        frame::encode(self.acknowledged, self.last + 1, None, group, part.salt, &mut bytes);
        self.files.append(&part.name, &bytes)?;
        self.files.sync(&part.name)?;
        part.len += count_of(bytes.len());
        self.acknowledged_on_disk = self.acknowledged;
        Ok(())
    }

    fn delete_acknowledged(&mut self) -> Result<(), SpoolError> {
        while self.parts.len() > 1
            && let Some(part) = self.parts.pop_front_if(|part| part.last <= self.acknowledged)
        {
            self.files.remove(&part.name)?;
            // One by one: a later file that is gone while an earlier one is back would be a hole.
            self.files.sync_folder()?;
        }
        Ok(())
    }
}

/// First number and salt.
fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (first, salt) = name.strip_suffix(files::SUFFIX)?.split_once('-')?;
    let first = first.parse().ok().filter(|&first| first > 0)?;
    Some((first, u32::from_str_radix(salt, 16).ok()?))
}

fn damaged(name: &str, offset: u64, found: &'static str) -> SpoolError {
    SpoolError::Damaged { file: name.to_owned(), offset, found, wanted: "a frame that was synced" }
}

/// With the version of the format as its last byte.
const MAGIC: [u8; 8] = *b"alspool\x01";

const MAGIC_LEN: u64 = 8;

/// Bytes around an event that is alone in its group.
const GROUP_OVERHEAD: usize = frame::PREFIX_LEN + frame::FIXED_LEN + 4;

#[cfg(test)]
mod tests;
