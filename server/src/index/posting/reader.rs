//! Reading a posting block: one entry at a time, or all of a term for a merge.

use std::path::{Path, PathBuf};

use access_ledger_proto::position::{Index, count_of};
use fst::Map;
use roaring::RoaringBitmap;

use super::{
    BlockId, BlockWriter, CHUNK_ENTRY_LEN, ChunkEntry, FIELD_ENTRY_LEN, FIELDS, Field, FieldEntry,
    HEADER_LEN, LEVEL_MAX, Layout, Lookup, check_crc, encode_header, length, small,
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

    pub(super) fn dictionary(&self, field: Field) -> Result<Map<Vec<u8>>, IndexError> {
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
    pub(super) fn copy_term(
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

/// Chunks of a block of the highest level.
const CHUNKS_MAX: usize = 1 << (3 * LEVEL_MAX);
