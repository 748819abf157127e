//! Writing a posting block, front to back.

use std::path::{Path, PathBuf};

use access_ledger_proto::{position::count_of, terms::Field};
use roaring::RoaringBitmap;

use super::{
    BlockId, CHUNK_ENTRY_LEN, ChunkEntry, EVENT_IDS, LIST_MAX, Layout, Value, append_crc,
    dictionary::DictionaryWriter, encode_header, event_key, small,
};
use crate::{
    error::StorageError,
    os::{self, Access, Disk},
    storage::file::{StoredFile, io_error},
};

/// A block that is being written. Its file takes its name, durably, in [`BlockWriter::finish`].
pub(crate) struct BlockWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    output: Output,
    /// Of the current term.
    chunks: Vec<ChunkEntry>,
    /// Bytes of the chunk that is being encoded.
    content: Vec<u8>,
    /// Of the current field, or of the event ids.
    dictionary: DictionaryWriter,
    table: Vec<u8>,
}

/// The file, and the bytes that it does not have yet.
struct Output {
    file: StoredFile,
    /// Bytes in the file; what follows them is in `buffer`.
    flushed: u64,
    buffer: Vec<u8>,
}

impl<'a> BlockWriter<'a> {
    /// Starts a block in `folder`, over any draft that a stop left there.
    pub(crate) fn create(
        disk: &'a dyn Disk,
        folder: &Path,
        layout: &Layout,
        id: BlockId,
    ) -> Result<Self, StorageError> {
        let path = folder.join(id.file_name());
        let draft = os::draft_of(&path);
        disk.create(&draft).map_err(io_error("create", &draft))?;
        let file = StoredFile::open(disk, &draft, Access::Write)?;
        Ok(Self {
            disk,
            path,
            output: Output { file, flushed: 0, buffer: encode_header(layout, id) },
            chunks: Vec::new(),
            content: Vec::new(),
            dictionary: DictionaryWriter::default(),
            table: Vec::new(),
        })
    }

    /// Appends a chunk of the current term, whose places ascend; chunks come in ascending order.
    pub(crate) fn chunk(
        &mut self,
        chunk: u32,
        first_number: u64,
        places: &[u16],
    ) -> Result<(), StorageError> {
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        if places.len() <= LIST_MAX {
            places.iter().for_each(|place| content.extend_from_slice(&place.to_be_bytes()));
        } else {
            let places = places.iter().map(|&place| u32::from(place));
            let mut bitmap = RoaringBitmap::new();
            bitmap.extend(places);
            bitmap.optimize();
            // Writing to memory does not fail.
            let written = bitmap.serialize_into(&mut content);
            debug_assert!(written.is_ok());
        }
        let count = small(count_of(places.len()));
        let copied = self.copy_chunk(chunk, first_number, count, &content);
        self.content = content;
        copied
    }

    /// Appends a chunk of the current term as another block has it.
    pub(super) fn copy_chunk(
        &mut self,
        chunk: u32,
        first_number: u64,
        count: u32,
        content: &[u8],
    ) -> Result<(), StorageError> {
        self.output.append(content)?;
        let (length, crc) = (small(count_of(content.len())), crc32c::crc32c(content));
        self.chunks.push(ChunkEntry { chunk, first_number, count, length, crc });
        Ok(())
    }

    /// Closes the current term, which has chunks; terms come in ascending order.
    pub(crate) fn end_term(&mut self, term: &[u8]) -> Result<(), StorageError> {
        let mut directory = Vec::with_capacity(4 + self.chunks.len() * CHUNK_ENTRY_LEN + 4);
        directory.extend_from_slice(&small(count_of(self.chunks.len())).to_be_bytes());
        for chunk in self.chunks.drain(..) {
            chunk.encode_into(&mut directory);
        }
        append_crc(&mut directory);
        let offset = self.output.append(&directory)?;
        self.insert(term, Value::Directory(offset).encode())
    }

    /// Adds a term that one entry of the block has, at `place`.
    pub(crate) fn single(&mut self, term: &[u8], place: u32) -> Result<(), StorageError> {
        self.insert(term, Value::Single(place).encode())
    }

    /// Closes the current field.
    pub(crate) fn end_field(&mut self, field: Field) -> Result<(), StorageError> {
        self.end_dictionary(field as u32)
    }

    /// Adds the event at `place`, whose id begins with `prefix`; ascending by both.
    pub(crate) fn event_id(&mut self, prefix: u32, place: u32) -> Result<(), StorageError> {
        self.insert(&event_key(prefix, place), 0)
    }

    /// Closes the event ids.
    pub(crate) fn end_event_ids(&mut self) -> Result<(), StorageError> {
        self.end_dictionary(EVENT_IDS)
    }

    /// Writes what is left and gives the file its name: from then on it is there, whole, whenever
    /// the machine stops.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        append_crc(&mut self.table);
        self.output.append(&self.table)?;
        self.output.flush()?;
        self.output.file.sync_data()?;
        let draft = os::draft_of(&self.path);
        self.disk.rename(&draft, &self.path).map_err(io_error("rename", &draft))?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        self.disk.sync_dir(folder).map_err(io_error("sync", folder))
    }

    fn insert(&mut self, key: &[u8], number: u64) -> Result<(), StorageError> {
        self.dictionary.insert(key, number, &mut |page| self.output.append(page))
    }

    fn end_dictionary(&mut self, id: u32) -> Result<(), StorageError> {
        let root = self.dictionary.finish(&mut |page| self.output.append(page))?;
        self.table.extend_from_slice(&id.to_be_bytes());
        self.table.extend_from_slice(&root.to_be_bytes());
        Ok(())
    }
}

impl Output {
    /// Appends bytes; returns their offset.
    fn append(&mut self, bytes: &[u8]) -> Result<u64, StorageError> {
        let offset = self.flushed + count_of(self.buffer.len());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_LEN {
            self.flush()?;
        }
        Ok(offset)
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
