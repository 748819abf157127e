//! A copy of a data folder as a source of records: what an auditor gets on a disk instead of over
//! the network.
//!
//! Reads `checkpoint` and `log/*.seg` and nothing else; needs no server and writes nothing.
//! Believes the copy nothing: what comes out is for [`crate::verify`] to judge, like what a
//! [`Puller`] brings. Frames behind the checkpoint, which a copy of a running ledger may end with,
//! are left aside.
//!
//! [`Puller`]: crate::pull::Puller

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    error::SegmentError,
    hash::sha256,
    note::VerifierKey,
    position::{Index, Size, count_of},
    segment::{
        FRAME_HEADER_LEN, FRAME_LEN_MAX, Frame, FrameHeader, HEADER_LEN, Salt, SegmentHeader,
        Verify, first_of_name,
    },
};
use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::{pull::Run, verify::Record};

/// A folder cannot be read as a copy of a ledger.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The file system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no log.
    #[error("{} holds no segment of a log", .path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A segment does not hold what was written into it.
    #[error("{}, offset {offset}, entry {index}: {problem}", .path.display())]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The entry that is due there.
        index: Index,
        /// What is wrong.
        problem: SegmentError,
    },
    /// The log ends before the entries that the ledger signed for.
    #[error("log of the copy ends at {found} entries, its checkpoint covers {wanted}")]
    Short {
        /// Entries found.
        found: Size,
        /// Entries signed for.
        wanted: Size,
    },
    /// A segment starts elsewhere than the one before it ends.
    #[error("{} starts a segment, the one before ends at {wanted}", .path.display())]
    Gap {
        /// The segment's file.
        path: PathBuf,
        /// The first entry that is missing.
        wanted: Index,
    },
}

/// A copy of a ledger's data folder.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    ledger: VerifierKey,
}

impl Folder {
    /// The copy in `root` of the ledger with this key.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, ledger: &VerifierKey) -> Self {
        Self { root: root.into(), ledger: ledger.clone() }
    }

    /// The newest checkpoint: a note that nobody has verified.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`].
    pub fn checkpoint(&self) -> Result<Bytes, FolderError> {
        let path = self.root.join("checkpoint");
        std::fs::read(&path).map(Bytes::from).map_err(|source| FolderError::Io { path, source })
    }

    /// Runs of records of the entries below `end`, in order, each of about half a megabyte.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`], [`FolderError::Empty`].
    pub fn records(&self, end: Size) -> Result<FolderRecords, FolderError> {
        let folder = self.root.join("log");
        let failed = |source| FolderError::Io { path: folder.clone(), source };
        let mut segments = Vec::new();
        for file in std::fs::read_dir(&folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            if let Some(first) = name.to_str().and_then(first_of_name) {
                segments.push((first, folder.join(name)));
            }
        }
        if segments.is_empty() {
            return Err(FolderError::Empty { path: folder });
        }
        // The next one is taken from the end.
        segments.sort_unstable_by(|a, b| b.cmp(a));
        let (ledger, next) = (self.ledger.clone(), Index::GENESIS);
        Ok(FolderRecords { ledger, segments, open: None, next, end })
    }
}

/// The records of a copy, in order.
#[derive(Debug)]
pub struct FolderRecords {
    ledger: VerifierKey,
    /// Descending.
    segments: Vec<(Index, PathBuf)>,
    open: Option<OpenSegment>,
    /// The next entry.
    next: Index,
    end: Size,
}

/// A segment that is being read from its front.
#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    salt: Salt,
    /// Where `unread` starts in the file.
    offset: u64,
    unread: BytesMut,
    /// Nothing of the file is left to read.
    at_end: bool,
}

impl FolderRecords {
    /// The next run; `None` behind the last. Blocks.
    ///
    /// # Errors
    ///
    /// [`FolderError::Io`]; [`FolderError::Damaged`], [`FolderError::Gap`], [`FolderError::Short`]
    /// where the entries that the checkpoint covers are not there.
    pub fn next_run(&mut self) -> Result<Option<Run>, FolderError> {
        if self.next < self.end.next_index() {
            let mut segment = match self.open.take() {
                Some(segment) => segment,
                None => self.open_next()?,
            };
            let (first, wanted) = (self.next, self.end.0.saturating_sub(self.next.0));
            let next_first = self.segments.last().map(|&(first, _)| first);
            let records = segment.read(first, next_first, wanted)?;
            if records.is_empty() {
                return Err(FolderError::Short { found: Size(self.next.0), wanted: self.end });
            }
            self.next = first.plus(count_of(records.len()));
            if Some(self.next) != next_first {
                self.open = Some(segment);
            }
            return Ok(Some((first, records)));
        }
        Ok(None)
    }

    /// Opens the segment that starts at the next entry.
    fn open_next(&mut self) -> Result<OpenSegment, FolderError> {
        let Some((first, path)) = self.segments.pop() else {
            return Err(FolderError::Short { found: Size(self.next.0), wanted: self.end });
        };
        if first != self.next {
            return Err(FolderError::Gap { path, wanted: self.next });
        }
        OpenSegment::open(path, first, &self.ledger)
    }
}

impl OpenSegment {
    fn open(path: PathBuf, first: Index, ledger: &VerifierKey) -> Result<Self, FolderError> {
        let mut file = File::open(&path).map_err(io_error(&path))?;
        let mut header = [0; HEADER_LEN];
        let damaged =
            |problem| FolderError::Damaged { path: path.clone(), offset: 0, index: first, problem };
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(SegmentError::Truncated));
            }
            read => read.map_err(io_error(&path))?,
        }
        let origin = sha256(ledger.name().as_bytes());
        let header = SegmentHeader::parse(&header, origin).map_err(damaged)?;
        if header.first != first {
            return Err(damaged(SegmentError::Header));
        }
        let (offset, unread) = (HEADER_LEN as u64, BytesMut::new());
        Ok(Self { file, path, salt: header.salt, offset, unread, at_end: false })
    }

    /// Reads up to `wanted` records, of one buffer at most. Fewer than one only where the file ends
    /// or, in the newest segment, where what was written ends.
    fn read(
        &mut self,
        first: Index,
        next_first: Option<Index>,
        wanted: u64,
    ) -> Result<Vec<Record>, FolderError> {
        self.fill()?;
        let bytes = self.unread.split().freeze();
        let (mut rest, mut records, mut index) = (&bytes[..], Vec::new(), first);
        let last = next_first.map_or(u64::MAX, |next| next.0).min(first.0.saturating_add(wanted));
        while index.0 < last && !rest.is_empty() {
            if !self.at_end && !holds_frame(rest) {
                break;
            }
            let (frame, length) = match Frame::parse(rest, self.salt, Verify::All) {
                Ok((frame, length)) if frame.index() == index => (frame, length),
                // What lies behind the last record of the newest segment is no damage here: the
                // caller knows how many there must be.
                Err(SegmentError::Lengths { entry_bytes: 0, event_bytes: 0 })
                    if next_first.is_none() =>
                {
                    break;
                }
                Ok(_) => return Err(self.damaged(index, SegmentError::Truncated)),
                Err(problem) => return Err(self.damaged(index, problem)),
            };
            records.push(Record {
                entry: bytes.slice_ref(frame.entry),
                event: frame.event().map(|event| bytes.slice_ref(event)),
            });
            self.offset += length as u64;
            rest = rest.get(length..).unwrap_or_default();
            index = index.next();
        }
        self.unread = BytesMut::from(rest);
        Ok(records)
    }

    /// Reads on until a buffer's worth is there, or the file ends.
    fn fill(&mut self) -> Result<(), FolderError> {
        let held = self.unread.len();
        if self.at_end || held >= FRAME_LEN_MAX {
            return Ok(());
        }
        self.unread.resize(BUFFER_LEN, 0);
        let mut filled = held;
        while let Some(space) = self.unread.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.file.read(space) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(&self.path)(error)),
            }
        }
        self.unread.truncate(filled);
        Ok(())
    }

    fn damaged(&self, index: Index, problem: SegmentError) -> FolderError {
        FolderError::Damaged { path: self.path.clone(), offset: self.offset, index, problem }
    }
}

/// Whether the bytes hold the next frame as a whole, or what is no frame at all.
fn holds_frame(bytes: &[u8]) -> bool {
    match bytes.first_chunk::<FRAME_HEADER_LEN>().map(FrameHeader::parse) {
        Some(Ok(header)) => header.frame_len() <= bytes.len(),
        Some(Err(_)) => true,
        None => false,
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// Bytes read at once: what is still in a core's cache when it is hashed.
const BUFFER_LEN: usize = 512 << 10;
