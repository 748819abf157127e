//! A posting block: an immutable file that tells, for each term of a field, which entries of one
//! stretch of the log have it, and where the event with an id is.
//!
//! A block of level k covers `block_entries * 8^k` entries (65,536 at level 0), and its first index
//! is a multiple of that. Postings are kept in chunks, one for each stretch of `block_entries`
//! entries in which the term occurs, so a merge copies chunks as they are and a lookup reads one of
//! them, however large the block. Nothing but the handle and the table of fields is kept in memory.
//!
//! Integers are big-endian; every part has a CRC-32C that is verified whenever it is read.
//!
//! | part | bytes | content |
//! |---|---|---|
//! | header | 64 | below |
//! | dictionaries | | for each field: its terms (dictionary.rs), among the postings that they lead to |
//! | event ids | | a dictionary of keys of 8 bytes: first 4 of the event's id, place u32 |
//! | table | 12 n + 4 | for each dictionary: id u32, offset u64 of its root, 0 when it is empty; CRC |
//!
//! | header | bytes | |
//! |---|---|---|
//! | magic | 8 | `ALPOSTNG` |
//! | version | 4 | 2 |
//! | origin | 32 | SHA-256 of the origin |
//! | first index | 8 | |
//! | block entries | 4 | entries of a chunk, at most 65,536 |
//! | level | 1 | 0 to 4 |
//! | dictionaries | 1 | n |
//! | zero | 2 | |
//! | CRC | 4 | of the 60 bytes before |
//!
//! Dictionaries are numbered like [`Field`](access_ledger_proto::terms::Field); 0 is that of event
//! ids. Places are relative to the block's first index. A term's number in its dictionary is
//! 2 x place + 1 when one entry of the block has it, and 2 x offset of its directory otherwise;
//! that of an event id is 0.
//!
//! A directory is: count u32, entries of 24 bytes, CRC u32. The chunks themselves lie right before
//! it, in the same order, without gaps:
//!
//! | directory entry | bytes | |
//! |---|---|---|
//! | chunk | 4 | place of the chunk in the block |
//! | first number | 8 | `Source`: the source's number of the first entry in the chunk; else 0 |
//! | count | 4 | entries in the chunk that have the term |
//! | length | 4 | of the chunk |
//! | CRC | 4 | of the chunk |
//!
//! A chunk's content is places relative to its first index, ascending: up to 8 as u16 each, more as
//! a roaring bitmap in the portable format.

use access_ledger_proto::{hash::Digest, position::Index};

mod dictionary;
mod merge;
mod reader;
mod writer;

pub(crate) use self::{
    merge::merge,
    reader::{Block, Chunk},
    writer::BlockWriter,
};

/// What all blocks of an index have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// SHA-256 of the ledger's origin.
    pub(crate) origin: Digest,
    /// Entries of a level 0 block, and of a chunk.
    pub(crate) block_entries: u32,
}

/// Which block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    /// Its first entry.
    pub(crate) first: Index,
    /// How often it was merged.
    pub(crate) level: u8,
}

/// Where a lookup by number ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The number, if given out at all, lies before this stretch of the log.
    Before,
    /// Here.
    At(Index),
    /// No earlier stretch has it: it lies after this one.
    Beyond,
}

/// So many blocks of one level become one of the next.
pub(crate) const MERGE_FACTOR: u64 = 8;

/// Blocks of this level, 2^28 entries, are merged no further: a merge of them would hold the index
/// up for long, and even a ledger of ten billion entries has 38 of them.
pub(crate) const LEVEL_MAX: u8 = 4;

impl Layout {
    /// Entries of a block of this level.
    pub(crate) fn entries(&self, level: u8) -> u64 {
        u64::from(self.block_entries) << (3 * u32::from(level.min(LEVEL_MAX)))
    }
}

impl BlockId {
    /// The name of its file.
    pub(crate) fn file_name(self) -> String {
        format!("{:020}-{}", self.first.0, self.level)
    }

    /// The block of this file name; `None` for any other name.
    pub(crate) fn of_file(name: &str) -> Option<Self> {
        let (first, level) = name.split_once('-')?;
        let id = Self { first: Index(first.parse().ok()?), level: level.parse().ok()? };
        (id.file_name() == name && id.level <= LEVEL_MAX).then_some(id)
    }
}

/// Where the postings of a term are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// One entry of the block has the term: its place.
    Single(u32),
    /// In chunks: offset of their directory.
    Directory(u64),
}

impl Value {
    fn encode(self) -> u64 {
        match self {
            Self::Single(place) => u64::from(place) << 1 | 1,
            Self::Directory(offset) => offset << 1,
        }
    }

    /// `None` for what no writer of ours has written.
    fn parse(value: u64) -> Option<Self> {
        if value & 1 == 0 {
            return Some(Self::Directory(value >> 1));
        }
        u32::try_from(value >> 1).ok().map(Self::Single)
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
struct ChunkEntry {
    chunk: u32,
    first_number: u64,
    count: u32,
    length: u32,
    crc: u32,
}

impl ChunkEntry {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk.to_be_bytes());
        out.extend_from_slice(&self.first_number.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            chunk: u32::from_be_bytes(take(&mut bytes)?),
            first_number: u64::from_be_bytes(take(&mut bytes)?),
            count: u32::from_be_bytes(take(&mut bytes)?),
            length: u32::from_be_bytes(take(&mut bytes)?),
            crc: u32::from_be_bytes(take(&mut bytes)?),
        })
    }
}

/// The key of an event in the dictionary of the event ids.
fn event_key(prefix: u32, place: u32) -> [u8; 8] {
    (u64::from(prefix) << 32 | u64::from(place)).to_be_bytes()
}

/// The prefix and place that [`event_key`] was made of.
fn parse_event_key(key: &[u8]) -> Option<(u32, u32)> {
    let mut rest = key;
    let (prefix, place) = (take(&mut rest)?, take(&mut rest)?);
    rest.is_empty().then_some((u32::from_be_bytes(prefix), u32::from_be_bytes(place)))
}

fn encode_header(layout: &Layout, id: BlockId) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.extend_from_slice(layout.origin.as_ref());
    header.extend_from_slice(&id.first.0.to_be_bytes());
    header.extend_from_slice(&layout.block_entries.to_be_bytes());
    header.extend_from_slice(&[id.level, DICTIONARY_COUNT, 0, 0]);
    append_crc(&mut header);
    header
}

fn append_crc(bytes: &mut Vec<u8>) {
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
}

/// The bytes before a CRC that matches them.
fn check_crc(bytes: &[u8]) -> Option<&[u8]> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_be_bytes(*crc)).then_some(content)
}

/// Takes a fixed number of bytes from the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// A length or count that the limits of a block keep below 32 bits.
pub(crate) fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn length(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Dictionaries of a block: one a field, and that of the event ids.
const DICTIONARY_COUNT: u8 = 22;

/// In the table: the dictionary of the event ids.
const EVENT_IDS: u32 = 0;

const MAGIC: &[u8; 8] = b"ALPOSTNG";

const VERSION: u32 = 2;

const HEADER_LEN: usize = 64;

const TABLE_ENTRY_LEN: usize = 12;

const CHUNK_ENTRY_LEN: usize = 24;

/// Places that a chunk holds as they are: a bitmap of so few costs more for its own header.
const LIST_MAX: usize = 8;
