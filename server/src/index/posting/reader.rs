//! Reading a posting block: the postings of one term, or all of a field for a merge.

use std::path::{Path, PathBuf};

use access_ledger_proto::{
    position::{Index, count_of},
    terms::Field,
};
use roaring::RoaringBitmap;

use super::{
    BlockId, BlockWriter, CHUNK_ENTRY_LEN, ChunkEntry, DICTIONARY_COUNT, EVENT_IDS, HEADER_LEN,
    LEVEL_MAX, Layout, Lookup, TABLE_ENTRY_LEN, Value, check_crc, dictionary::Page, encode_header,
    event_key, length, parse_event_key, small, take,
};
use crate::{
    index::error::IndexError,
    os::{Access, Disk},
    storage::file::StoredFile,
};

/// A block that can be read, by any number of threads. It stays readable when its file is removed.
pub(crate) struct Block {
    pub(crate) id: BlockId,
    pub(crate) path: PathBuf,
    pub(super) layout: Layout,
    file: StoredFile,
    /// Id and root of each dictionary.
    table: Vec<(u32, u64)>,
}

/// The entries of one chunk that have a term.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// Its place in the block.
    pub(crate) number: u32,
    /// How many.
    pub(crate) count: u32,
    /// `Source`: the source's number of the first.
    first_number: u64,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// One entry, at this place in the chunk.
    Single(u32),
    Stored {
        offset: u64,
        length: u32,
        crc: u32,
    },
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
        let table_len = usize::from(DICTIONARY_COUNT) * TABLE_ENTRY_LEN + 4;
        let start = block.file.length()?.checked_sub(count_of(table_len));
        let table = block.file.read(start.unwrap_or_default(), table_len)?;
        let entries = check_crc(&table).ok_or_else(|| block.damaged("table"))?;
        let parse = |mut entry: &[u8]| {
            Some((u32::from_be_bytes(take(&mut entry)?), u64::from_be_bytes(take(&mut entry)?)))
        };
        let parsed: Option<Vec<_>> = entries.chunks_exact(TABLE_ENTRY_LEN).map(parse).collect();
        block.table = parsed.ok_or_else(|| block.damaged("table"))?;
        Ok(block)
    }

    /// The index behind its last entry.
    pub(crate) fn end(&self) -> Index {
        self.id.first.plus(self.layout.entries(self.id.level))
    }

    /// Entries of a chunk.
    pub(crate) const fn chunk_entries(&self) -> u32 {
        self.layout.block_entries
    }

    /// Finds the entry that has this number among those of a source.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`]; [`IndexError::Storage`] when the disk refuses.
    pub(crate) fn find(&self, source: &[u8], number: u64) -> Result<Lookup, IndexError> {
        let chunks = self.chunks(Field::Source, source)?;
        let after = chunks.partition_point(|chunk| chunk.first_number <= number);
        let Some(chunk) = after.checked_sub(1).and_then(|at| chunks.get(at)) else {
            return Ok(Lookup::Before);
        };
        let rank = small(number - chunk.first_number);
        if rank >= chunk.count {
            return Ok(Lookup::Beyond);
        }
        let place = self.places(chunk)?.select(rank).ok_or_else(|| self.damaged("chunk"))?;
        let before = u64::from(chunk.number) * u64::from(self.layout.block_entries);
        Ok(Lookup::At(self.id.first.plus(before).plus(place.into())))
    }

    /// The chunks in which entries have `term`, ascending; none when none has it.
    ///
    /// # Errors
    ///
    /// As [`Block::find`].
    pub(crate) fn chunks(&self, field: Field, term: &[u8]) -> Result<Vec<Chunk>, IndexError> {
        let mut scan = self.scan(field as u32)?;
        scan.seek(term)?;
        if !scan.next()? || scan.key() != term {
            return Ok(Vec::new());
        }
        match scan.value()? {
            Value::Single(place) => Ok(vec![self.chunk_at(place)]),
            Value::Directory(offset) => self.directory(offset),
        }
    }

    /// The places of one chunk, relative to its first index.
    ///
    /// # Errors
    ///
    /// As [`Block::find`].
    pub(crate) fn places(&self, chunk: &Chunk) -> Result<RoaringBitmap, IndexError> {
        let damaged = || self.damaged("chunk");
        let (offset, len, crc) = match chunk.content {
            Content::Single(place) => return Ok(RoaringBitmap::from_iter([place])),
            Content::Stored { offset, length, crc } => (offset, length, crc),
        };
        let bytes = self.file.read(offset, length(len))?;
        if bytes.len() != length(len) || crc32c::crc32c(&bytes) != crc {
            return Err(damaged());
        }
        if u64::from(len) == 2 * u64::from(chunk.count) {
            let place = |bytes: &[u8; 2]| u32::from(u16::from_be_bytes(*bytes));
            return Ok(bytes.as_chunks().0.iter().map(place).collect());
        }
        RoaringBitmap::deserialize_from(&bytes[..]).map_err(|_| damaged())
    }

    /// Chunks of one entry each, for the events whose id may begin with `prefix`, ascending; `None`
    /// when there are more than `most`.
    ///
    /// # Errors
    ///
    /// As [`Block::find`].
    pub(crate) fn event_chunks(
        &self,
        prefix: u32,
        most: usize,
    ) -> Result<Option<Vec<Chunk>>, IndexError> {
        let mut chunks = Vec::new();
        let mut scan = self.event_ids()?;
        scan.seek(&event_key(prefix, 0))?;
        while scan.next()? {
            let (found, place) = scan.event_id()?;
            if found != prefix {
                break;
            }
            if chunks.len() == most {
                return Ok(None);
            }
            chunks.push(self.chunk_at(place));
        }
        Ok(Some(chunks))
    }

    /// All event ids, for a merge.
    pub(super) fn event_ids(&self) -> Result<Scan<'_>, IndexError> {
        self.scan(EVENT_IDS)
    }

    /// All terms of a field, for a merge.
    pub(super) fn terms(&self, field: Field) -> Result<Scan<'_>, IndexError> {
        self.scan(field as u32)
    }

    /// Copies the chunks of the term whose directory is at `offset`, moved on by `chunks_before`.
    pub(super) fn copy_term(
        &self,
        offset: u64,
        chunks_before: u32,
        writer: &mut BlockWriter<'_>,
    ) -> Result<(), IndexError> {
        let (entries, start) = self.directory_entries(offset)?;
        let bytes = self.file.read(start, length(small(offset.saturating_sub(start))))?;
        let mut rest = &bytes[..];
        for entry in &entries {
            let (content, after) = rest
                .split_at_checked(length(entry.length))
                .filter(|(content, _)| crc32c::crc32c(content) == entry.crc)
                .ok_or_else(|| self.damaged("chunk"))?;
            let chunk = chunks_before.saturating_add(entry.chunk);
            writer.copy_chunk(chunk, entry.first_number, entry.count, content)?;
            rest = after;
        }
        Ok(())
    }

    fn chunk_at(&self, place: u32) -> Chunk {
        let (number, place) =
            (place / self.layout.block_entries, place % self.layout.block_entries);
        Chunk { number, count: 1, first_number: 0, content: Content::Single(place) }
    }

    fn directory(&self, offset: u64) -> Result<Vec<Chunk>, IndexError> {
        let (entries, mut offset) = self.directory_entries(offset)?;
        let chunk = |entry: ChunkEntry| {
            let ChunkEntry { chunk: number, first_number, count, length, crc } = entry;
            let content = Content::Stored { offset, length, crc };
            offset += u64::from(length);
            Chunk { number, count, first_number, content }
        };
        Ok(entries.into_iter().map(chunk).collect())
    }

    /// The entries of the directory at `offset`, and the offset of the first chunk.
    fn directory_entries(&self, offset: u64) -> Result<(Vec<ChunkEntry>, u64), IndexError> {
        let damaged = || self.damaged("directory");
        let mut bytes = self.file.read(offset, DIRECTORY_READ_LEN)?;
        let head = take(&mut &bytes[..]).ok_or_else(damaged)?;
        let count = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if count > CHUNKS_MAX {
            return Err(damaged());
        }
        let len = 4 + count * CHUNK_ENTRY_LEN + 4;
        if len > bytes.len() {
            bytes = self.file.read(offset, len)?;
        }
        let entries = bytes.get(..len).and_then(check_crc).ok_or_else(damaged)?;
        let entries = entries.get(4..).unwrap_or_default().chunks_exact(CHUNK_ENTRY_LEN);
        let entries: Option<Vec<_>> = entries.map(ChunkEntry::parse).collect();
        let entries = entries.ok_or_else(damaged)?;
        let chunks_len = entries.iter().map(|entry| u64::from(entry.length)).sum();
        let start = offset.checked_sub(chunks_len).ok_or_else(damaged)?;
        Ok((entries, start))
    }

    fn scan(&self, dictionary: u32) -> Result<Scan<'_>, IndexError> {
        let mut scan = Scan { block: self, pages: Vec::new() };
        let found = self.table.iter().find(|(id, _)| *id == dictionary);
        match found.ok_or_else(|| self.damaged("table"))? {
            (_, 0) => {}
            (_, root) => scan.pages.push(self.page(*root)?),
        }
        Ok(scan)
    }

    fn page(&self, offset: u64) -> Result<Page, IndexError> {
        let damaged = || self.damaged("dictionary");
        let mut bytes = self.file.read(offset, Page::READ_LEN)?;
        let len = Page::length(&bytes).ok_or_else(damaged)?;
        if len > bytes.len() {
            bytes = self.file.read(offset, len)?;
        }
        bytes.truncate(len);
        Page::parse(bytes).filter(|_| len > 0).ok_or_else(damaged)
    }

    fn damaged(&self, part: &'static str) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), part }
    }
}

/// Walks over a dictionary in the order of its keys. Holds one page a level.
pub(super) struct Scan<'a> {
    pub(super) block: &'a Block,
    /// From the root to a leaf.
    pages: Vec<Page>,
}

impl Scan<'_> {
    /// Goes to the first key that is not smaller than `key`; [`Scan::next`] comes to it.
    fn seek(&mut self, key: &[u8]) -> Result<(), IndexError> {
        while let Some(page) = self.pages.last_mut() {
            let child = page.seek(key).ok_or_else(|| self.block.damaged("dictionary"))?;
            match child {
                Some(offset) => self.descend(offset)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Goes to the next key; `false` behind the last one.
    pub(super) fn next(&mut self) -> Result<bool, IndexError> {
        while let Some(page) = self.pages.last_mut() {
            let is_there = page.advance().ok_or_else(|| self.block.damaged("dictionary"))?;
            match (is_there, page.level()) {
                (false, _) => drop(self.pages.pop()),
                (true, 0) => return Ok(true),
                (true, _) => {
                    let (_, child) = page.record();
                    self.descend(child)?;
                }
            }
        }
        Ok(false)
    }

    /// The current key.
    pub(super) fn key(&self) -> &[u8] {
        self.pages.last().map(|page| page.record().0).unwrap_or_default()
    }

    /// Where the postings of the current term are.
    pub(super) fn value(&self) -> Result<Value, IndexError> {
        let value = self.pages.last().and_then(|page| Value::parse(page.record().1));
        value.ok_or_else(|| self.block.damaged("dictionary"))
    }

    /// Prefix and place of the current event id.
    pub(super) fn event_id(&self) -> Result<(u32, u32), IndexError> {
        parse_event_key(self.key()).ok_or_else(|| self.block.damaged("dictionary"))
    }

    fn descend(&mut self, offset: u64) -> Result<(), IndexError> {
        let child = self.block.page(offset)?;
        let level = self.pages.last().map_or(0, Page::level);
        // So that no damage leads in circles.
        if child.level().checked_add(1) != Some(level) {
            return Err(self.block.damaged("dictionary"));
        }
        self.pages.push(child);
        Ok(())
    }
}

/// Chunks of a block of the highest level.
const CHUNKS_MAX: usize = 1 << (3 * LEVEL_MAX);

/// Bytes to read for a directory: one of a few chunks fits.
const DIRECTORY_READ_LEN: usize = 512;
