//! A posting block: an immutable file that tells, for each term of a field, which entries of one
//! stretch of the log have it.
//!
//! A block of level k covers `block_entries * 8^k` entries (65,536 at level 0), and its first index
//! is a multiple of that. Postings are kept in chunks, one for each stretch of `block_entries` entries
//! in which the term occurs, so a merge copies chunks as they are and a lookup reads one of them,
//! however large the block. Nothing but the handle and the table of fields is kept in memory.
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
//! A chunk is a roaring bitmap in the portable format, of places relative to the chunk's first index.
//! A directory is: count u32, entries of 32 bytes, CRC u32:
//!
//! | directory entry | bytes | |
//! |---|---|---|
//! | chunk | 4 | place of the chunk in the block |
//! | first number | 8 | `source`: the source's number of the first entry in the chunk |
//! | count | 4 | entries in the chunk that have the term |
//! | offset | 8 | of the bitmap in the file |
//! | length | 4 | of the bitmap |
//! | CRC | 4 | of the bitmap |

use std::path::{Path, PathBuf};

use access_ledger_proto::{
    hash::Digest,
    position::{Index, count_of},
};
use fst::{IntoStreamer as _, Map, MapBuilder, Streamer as _};
use roaring::RoaringBitmap;

use super::error::IndexError;
use crate::{
    error::StorageError,
    os::{self, Access, Disk},
    storage::file::{StoredFile, io_error},
};

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

/// Blocks of this level, 2^28 entries, are merged no further: a merge of them would hold the index up
/// for long, and even a ledger of ten billion entries has 38 of them.
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

/// A block that is being written. Its file takes its name, durably, in [`BlockWriter::finish`].
pub(crate) struct BlockWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: StoredFile,
    /// Bytes in the file; what follows them is in `buffer`.
    flushed: u64,
    buffer: Vec<u8>,
    /// Of the current term.
    chunks: Vec<ChunkEntry>,
    /// Of the current field.
    dictionary: MapBuilder<Vec<u8>>,
    table: Vec<FieldEntry>,
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

impl<'a> BlockWriter<'a> {
    /// Starts a block of [`FIELDS`] in `folder`, over any draft that a stop left there.
    pub(crate) fn create(
        disk: &'a dyn Disk,
        folder: &Path,
        layout: &Layout,
        id: BlockId,
    ) -> Result<Self, StorageError> {
        let path = folder.join(id.file_name());
        let draft = os::draft_of(&path);
        disk.create(&draft).map_err(io_error("create", &draft))?;
        Ok(Self {
            disk,
            file: StoredFile::open(disk, &draft, Access::Write)?,
            path,
            flushed: 0,
            buffer: encode_header(layout, id).to_vec(),
            chunks: Vec::new(),
            dictionary: MapBuilder::memory(),
            table: Vec::new(),
        })
    }

    /// Appends a chunk of the current term; chunks come in ascending order.
    pub(crate) fn chunk(
        &mut self,
        chunk: u32,
        first_number: u64,
        count: u32,
        bitmap: &[u8],
    ) -> Result<(), StorageError> {
        let (offset, length, crc) = self.section(bitmap)?;
        self.chunks.push(ChunkEntry { chunk, first_number, count, offset, length, crc });
        Ok(())
    }

    /// Closes the current term; terms come in ascending order.
    pub(crate) fn end_term(&mut self, term: &[u8]) -> Result<(), IndexError> {
        let mut directory = Vec::with_capacity(4 + self.chunks.len() * CHUNK_ENTRY_LEN + 4);
        directory.extend_from_slice(&small(count_of(self.chunks.len())).to_be_bytes());
        for chunk in self.chunks.drain(..) {
            chunk.encode_into(&mut directory);
        }
        append_crc(&mut directory);
        let (offset, _, _) = self.section(&directory)?;
        Ok(self.dictionary.insert(term, offset)?)
    }

    /// Closes the current field; fields come in the order of [`FIELDS`].
    pub(crate) fn end_field(&mut self, field: Field) -> Result<(), IndexError> {
        let dictionary = std::mem::replace(&mut self.dictionary, MapBuilder::memory());
        let (offset, length, crc) = self.section(&dictionary.into_inner()?)?;
        self.table.push(FieldEntry { id: field as u32, offset, length, crc });
        Ok(())
    }

    /// Writes what is left and gives the file its name: from then on it is there, whole, whenever the
    /// machine stops.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        let mut table = Vec::new();
        for field in &self.table {
            table.extend_from_slice(&field.id.to_be_bytes());
            table.extend_from_slice(&field.offset.to_be_bytes());
            table.extend_from_slice(&field.length.to_be_bytes());
            table.extend_from_slice(&field.crc.to_be_bytes());
        }
        append_crc(&mut table);
        self.section(&table)?;
        self.flush()?;
        self.file.sync_data()?;
        let draft = os::draft_of(&self.path);
        self.disk.rename(&draft, &self.path).map_err(io_error("rename", &draft))?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        self.disk.sync_dir(folder).map_err(io_error("sync", folder))
    }

    /// Appends bytes; returns their offset, length and CRC.
    fn section(&mut self, bytes: &[u8]) -> Result<(u64, u32, u32), StorageError> {
        let offset = self.flushed + count_of(self.buffer.len());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_LEN {
            self.flush()?;
        }
        Ok((offset, small(count_of(bytes.len())), crc32c::crc32c(bytes)))
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.write_at(&self.buffer, self.flushed)?;
        self.flushed += count_of(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }
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

/// A block that can be read, by any number of threads. It stays readable when its file is removed.
pub(crate) struct Block {
    pub(crate) id: BlockId,
    pub(crate) path: PathBuf,
    layout: Layout,
    file: StoredFile,
    table: Vec<FieldEntry>,
}

impl Block {
    /// Opens a block: verifies its header and table. The rest is verified when it is read.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] also for another version, ledger or place than the file name says.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Path,
        layout: &Layout,
        id: BlockId,
    ) -> Result<Self, IndexError> {
        let path = folder.join(id.file_name());
        let file = StoredFile::open(disk, &path, Access::Read)?;
        let mut block = Self { id, path, layout: *layout, file, table: Vec::new() };
        let header = block.file.read(0, HEADER_LEN)?;
        if header != encode_header(layout, id) {
            return Err(block.damaged("header"));
        }
        let table_len = FIELDS.len() * FIELD_ENTRY_LEN + 4;
        let start = block.file.length()?.checked_sub(count_of(table_len));
        let table = block.file.read(start.unwrap_or_default(), table_len)?;
        let fields = check_crc(&table).ok_or_else(|| block.damaged("table"))?;
        for mut entry in fields.chunks_exact(FIELD_ENTRY_LEN) {
            block.table.push(FieldEntry::parse(&mut entry).ok_or_else(|| block.damaged("table"))?);
        }
        Ok(block)
    }

    /// The index behind its last entry.
    pub(crate) fn end(&self) -> Index {
        self.id.first.plus(self.layout.entries(self.id.level))
    }

    /// Finds the entry that has this number among those with `term`.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`]; [`IndexError::Storage`] when the disk refuses.
    pub(crate) fn find(
        &self,
        field: Field,
        term: &[u8],
        number: u64,
    ) -> Result<Lookup, IndexError> {
        let Some(directory) = self.dictionary(field)?.get(term) else {
            return Ok(Lookup::Before);
        };
        let chunks = self.directory(directory)?;
        let after = chunks.partition_point(|chunk| chunk.first_number <= number);
        let Some(entry) = after.checked_sub(1).and_then(|at| chunks.get(at)) else {
            return Ok(Lookup::Before);
        };
        let rank = small(number - entry.first_number);
        if rank >= entry.count {
            return Ok(Lookup::Beyond);
        }
        let bitmap = self.file.read(entry.offset, length(entry.length))?;
        let place = self.verified(entry, &bitmap)?.select(rank);
        let place = place.ok_or_else(|| self.damaged("bitmap"))?;
        let chunk_first = u64::from(entry.chunk) * u64::from(self.layout.block_entries);
        Ok(Lookup::At(self.id.first.plus(chunk_first).plus(place.into())))
    }

    fn dictionary(&self, field: Field) -> Result<Map<Vec<u8>>, IndexError> {
        let damaged = || self.damaged("dictionary");
        let entry = self.table.iter().find(|entry| entry.id == field as u32).ok_or_else(damaged)?;
        let bytes = self.file.read(entry.offset, length(entry.length))?;
        if bytes.len() != length(entry.length) || crc32c::crc32c(&bytes) != entry.crc {
            return Err(damaged());
        }
        Map::new(bytes).map_err(|_| damaged())
    }

    fn directory(&self, offset: u64) -> Result<Vec<ChunkEntry>, IndexError> {
        let damaged = || self.damaged("directory");
        let mut head = [0; 4];
        self.file.read_at(&mut head, offset)?;
        let count = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if count > CHUNKS_MAX {
            return Err(damaged());
        }
        let bytes = self.file.read(offset, 4 + count * CHUNK_ENTRY_LEN + 4)?;
        let entries = check_crc(&bytes).and_then(|bytes| bytes.get(4..)).ok_or_else(damaged)?;
        let chunks: Option<Vec<_>> =
            entries.chunks_exact(CHUNK_ENTRY_LEN).map(ChunkEntry::parse).collect();
        chunks.filter(|chunks| chunks.len() == count).ok_or_else(damaged)
    }

    fn verified(&self, entry: &ChunkEntry, bitmap: &[u8]) -> Result<RoaringBitmap, IndexError> {
        self.check(entry, bitmap)?;
        RoaringBitmap::deserialize_from(bitmap).map_err(|_| self.damaged("bitmap"))
    }

    fn check(&self, entry: &ChunkEntry, bitmap: &[u8]) -> Result<(), IndexError> {
        if bitmap.len() == length(entry.length) && crc32c::crc32c(bitmap) == entry.crc {
            return Ok(());
        }
        Err(self.damaged("bitmap"))
    }

    /// Copies the chunks of the term whose directory is at `offset`, moved on by `chunks_before`.
    fn copy_term(
        &self,
        offset: u64,
        chunks_before: u32,
        writer: &mut BlockWriter<'_>,
    ) -> Result<(), IndexError> {
        let chunks = self.directory(offset)?;
        // The chunks of a term lie together, before its directory.
        let start = chunks.first().map_or(offset, |chunk| chunk.offset);
        let bytes = self.file.read(start, length(small(offset.saturating_sub(start))))?;
        let mut rest = &bytes[..];
        for entry in &chunks {
            let (bitmap, after) = rest
                .split_at_checked(length(entry.length))
                .ok_or_else(|| self.damaged("bitmap"))?;
            self.check(entry, bitmap)?;
            let chunk = chunks_before.saturating_add(entry.chunk);
            writer.chunk(chunk, entry.first_number, entry.count, bitmap)?;
            rest = after;
        }
        Ok(())
    }

    fn damaged(&self, part: &'static str) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), part }
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

/// Writes the block that `parts` make together: [`MERGE_FACTOR`] of them, one level lower, in order.
/// Holds their dictionaries and one term's postings of one part in memory.
///
/// # Errors
///
/// [`IndexError::Damaged`] names the part that is not as written; [`IndexError::Storage`] when the disk
/// refuses. Then the parts are as they were.
pub(crate) fn merge(
    disk: &dyn Disk,
    folder: &Path,
    id: BlockId,
    parts: &[impl AsRef<Block>],
) -> Result<(), IndexError> {
    let Some(layout) = parts.first().map(|part| part.as_ref().layout) else {
        return Ok(());
    };
    let mut writer = BlockWriter::create(disk, folder, &layout, id)?;
    for field in FIELDS {
        let dictionaries: Vec<_> =
            parts.iter().map(|part| part.as_ref().dictionary(field)).collect::<Result<_, _>>()?;
        let union = dictionaries.iter().map(Map::stream).collect::<fst::map::OpBuilder<'_>>();
        let mut terms = union.union().into_stream();
        while let Some((term, found)) = terms.next() {
            let mut found = found.to_vec();
            found.sort_unstable_by_key(|found| found.index);
            for found in found {
                let Some(part) = parts.get(found.index).map(AsRef::as_ref) else { continue };
                let entries_before = part.id.first.0 - id.first.0;
                let chunks_before = small(entries_before / u64::from(layout.block_entries));
                part.copy_term(found.value, chunks_before, &mut writer)?;
            }
            writer.end_term(term)?;
        }
        writer.end_field(field)?;
    }
    Ok(writer.finish()?)
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

/// Chunks of a block of the highest level.
const CHUNKS_MAX: usize = 1 << (3 * LEVEL_MAX);

/// A writer hands its bytes to the disk in pieces of about this length.
const WRITE_LEN: usize = 256 << 10;
