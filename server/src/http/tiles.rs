//! Reads of the log as static files: checkpoint, tiles, entry bundles.

use access_ledger_proto::{
    position::{Index, count_of},
    wire::ReadKind,
};
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use bytes::Bytes;
use tracing::error;

use super::{
    answer::{Resource, TEXT, Wishes, answer, refuse},
    path::{Kind, TilePath},
};
use crate::{
    book::Book,
    error::StorageError,
    reads::{Reader, Sent},
};

/// The newest checkpoint, with the cosignatures that it has.
pub(super) fn checkpoint(note: Bytes, wishes: &Wishes) -> Response<Body> {
    let content_type = TEXT;
    let resource =
        Resource { bytes: note, content_type, is_immutable: false, is_compressible: false };
    answer(resource, wishes)
}

/// A tile or bundle of the tree under the newest checkpoint, by what follows `/tile/`. Reads the
/// disk.
pub(super) fn tile(book: &Book, path: &str, wishes: &Wishes, reader: &Reader) -> Response<Body> {
    let Some(tile) = TilePath::parse(path) else {
        return refuse(StatusCode::BAD_REQUEST, "no path of a tile or an entry bundle");
    };
    let size = book.published().size;
    let Some((first, count)) = tile.range(size) else {
        let problem = format!("beyond the tree of size {size}");
        return refuse(StatusCode::NOT_FOUND, &problem);
    };
    let (read, kind, sent) = match tile.kind {
        Kind::Hashes(level) => {
            (hashes(book, level, first, count), ReadKind::Proof, Sent::default())
        }
        Kind::Entries => {
            let sent = Sent::run(first, count.into());
            (bundle(book, Index(first), count.into()), ReadKind::Entries, sent)
        }
    };
    match read {
        Ok(bytes) => {
            let resource = Resource {
                bytes,
                content_type: "application/octet-stream",
                is_immutable: true,
                // Hashes do not get shorter.
                is_compressible: tile.kind == Kind::Entries,
            };
            let answer = answer(resource, wishes);
            if answer.status() == StatusCode::OK {
                reader.answered(kind, sent);
            }
            answer
        }
        Err(failure) => {
            error!(%failure, path, "could not read a tile");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "stored data cannot be read")
        }
    }
}

fn hashes(book: &Book, level: u8, first: u64, count: u16) -> Result<Bytes, StorageError> {
    let hashes = book.tree.hashes(level, first, count.into())?;
    Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
}

/// `count` entries, each behind its length in two bytes.
fn bundle(book: &Book, first: Index, count: usize) -> Result<Bytes, StorageError> {
    let mut bundle = Vec::new();
    let mut done = 0;
    while done < count {
        // A read ends with its segment.
        let next = first.plus(count_of(done));
        let entries = book.reader.read_entries(next, count - done, READ_BYTES_MAX)?;
        if entries.is_empty() {
            let (found, wanted) = (book.reader.size(), first.plus(count_of(count)).size_through());
            return Err(StorageError::TreeBehind { found, wanted });
        }
        for entry in &entries {
            bundle.extend_from_slice(&u16::try_from(entry.len()).unwrap_or(u16::MAX).to_be_bytes());
            bundle.extend_from_slice(entry);
        }
        done += entries.len();
    }
    Ok(bundle.into())
}

/// Bytes of frames read at once: entries lie between their events.
const READ_BYTES_MAX: usize = 512 << 10;
