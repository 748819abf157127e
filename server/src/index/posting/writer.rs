//! Writing a posting block, front to back.

use std::path::{Path, PathBuf};

use access_ledger_proto::position::count_of;
use fst::MapBuilder;

use super::{
    BlockId, CHUNK_ENTRY_LEN, ChunkEntry, Field, FieldEntry, Layout, append_crc, encode_header,
    small,
};
use crate::{
    error::StorageError,
    index::error::IndexError,
    os::{self, Access, Disk},
    storage::file::{StoredFile, io_error},
};

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

impl<'a> BlockWriter<'a> {
    /// Starts a block of all fields in `folder`, over any draft that a stop left there.
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

    /// Closes the current field; fields come in the order of their numbers.
    pub(crate) fn end_field(&mut self, field: Field) -> Result<(), IndexError> {
        let dictionary = std::mem::replace(&mut self.dictionary, MapBuilder::memory());
        let (offset, length, crc) = self.section(&dictionary.into_inner()?)?;
        self.table.push(FieldEntry { id: field as u32, offset, length, crc });
        Ok(())
    }

    /// Writes what is left and gives the file its name: from then on it is there, whole, whenever
    /// the machine stops.
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

/// A writer hands its bytes to the disk in pieces of about this length.
const WRITE_LEN: usize = 256 << 10;
