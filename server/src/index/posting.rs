//! A posting block: an immutable file that tells, for each term of a field, which entries of one
//! stretch of the log have it.
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
//! | postings | | for each field, for each term ascending: its chunks, its directory |
//! | dictionaries | | for each field, behind its postings: `fst` map, term to offset of its directory |
//! | table | 20 n + 4 | for each field: id u32, offset u64, length u32, CRC of its dictionary; CRC of the table |
//!
//! | header | bytes | |
//! |---|---|---|
//! | magic | 8 | `ALPOSTNG` |
//! | version | 4 | 1 |
//! | origin | 32 | SHA-256 of the origin |
//! | first index | 8 | |
//! | block entries | 4 | entries of a chunk |
//! | level | 1 | 0 to 4 |
//! | fields | 1 | n |
//! | zero | 2 | |
//! | CRC | 4 | of the 60 bytes before |
//!
//! A chunk is a roaring bitmap in the portable format, of places relative to the chunk's first
//! index. A directory is: count u32, entries of 32 bytes, CRC u32:
//!
//! | directory entry | bytes | |
//! |---|---|---|
//! | chunk | 4 | place of the chunk in the block |
//! | first number | 8 | `source`: the source's number of the first entry in the chunk |
//! | count | 4 | entries in the chunk that have the term |
//! | offset | 8 | of the bitmap in the file |
//! | length | 4 | of the bitmap |
//! | CRC | 4 | of the bitmap |

use access_ledger_proto::{hash::Digest, position::Index};

mod merge;
mod reader;
mod writer;

pub(crate) use self::{merge::merge, reader::Block, writer::BlockWriter};

/// A field that entries are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Field {
    /// The source's name; numbers its entries.
    Source = 1,
}

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

#[derive(Clone, Copy)]
struct ChunkEntry {
    chunk: u32,
    first_number: u64,
    count: u32,
    offset: u64,
    length: u32,
    crc: u32,
}

#[derive(Clone, Copy)]
struct FieldEntry {
    id: u32,
    offset: u64,
    length: u32,
    crc: u32,
}

impl ChunkEntry {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk.to_be_bytes());
        out.extend_from_slice(&self.first_number.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            chunk: u32::from_be_bytes(take(&mut bytes)?),
            first_number: u64::from_be_bytes(take(&mut bytes)?),
            count: u32::from_be_bytes(take(&mut bytes)?),
            offset: u64::from_be_bytes(take(&mut bytes)?),
            length: u32::from_be_bytes(take(&mut bytes)?),
            crc: u32::from_be_bytes(take(&mut bytes)?),
        })
    }
}

impl FieldEntry {
    fn parse(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            id: u32::from_be_bytes(take(bytes)?),
            offset: u64::from_be_bytes(take(bytes)?),
            length: u32::from_be_bytes(take(bytes)?),
            crc: u32::from_be_bytes(take(bytes)?),
        })
    }
}

fn encode_header(layout: &Layout, id: BlockId) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.extend_from_slice(layout.origin.as_ref());
    header.extend_from_slice(&id.first.0.to_be_bytes());
    header.extend_from_slice(&layout.block_entries.to_be_bytes());
    header.extend_from_slice(&[id.level, FIELD_COUNT, 0, 0]);
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

/// In the order in which they are written.
const FIELDS: [Field; FIELD_COUNT as usize] = [Field::Source];

const FIELD_COUNT: u8 = 1;

const MAGIC: &[u8; 8] = b"ALPOSTNG";

const VERSION: u32 = 1;

const HEADER_LEN: usize = 64;

const FIELD_ENTRY_LEN: usize = 20;

const CHUNK_ENTRY_LEN: usize = 32;
