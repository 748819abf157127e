//! Makes the receipt of any batch again, from the log alone.

use access_ledger_proto::{
    entry::{Entry, Seal},
    error::BuildError,
    hash::Digest,
    position::{Index, Size, count_of},
    proof,
    source::SourceName,
    wire,
};
use bytes::Bytes;

use super::Published;
use crate::{
    refusal::Refusal,
    storage::{LogReader, TreeFiles},
};

/// A batch as the log holds it.
#[derive(Clone, Debug)]
pub(crate) struct StoredBatch {
    pub(crate) source: SourceName,
    pub(crate) first: Index,
    pub(crate) first_seq: u64,
    pub(crate) recorded_at: u64,
    pub(crate) prev: Digest,
    /// Digests of its events, in order: 1 to [`Seal::COUNT_MAX`].
    pub(crate) digests: Vec<Digest>,
}

impl StoredBatch {
    /// Reads the batch that the entry at `index` lies in. The caller makes sure that the log holds
    /// the entry.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreadable`] when the log is damaged there.
    pub(crate) fn around(reader: &LogReader, index: Index) -> Result<Self, Refusal> {
        let (last, seal) = sealed_from(reader, index)?;
        let first = Index((last.0 + 1).saturating_sub(u64::from(seal.count)));
        if first > index {
            return Err(unreadable(format!("seal at index {last} does not cover index {index}")));
        }
        let mut digests = Vec::with_capacity(usize::from(seal.count));
        let mut head = None;
        for_each_entry(reader, first, |entry| {
            head.get_or_insert_with(|| {
                (entry.source.to_owned(), entry.source_seq, entry.recorded_at, entry.prev)
            });
            digests.push(entry.event_digest);
            digests.len() == usize::from(seal.count)
        })?;
        let (source, first_seq, recorded_at, prev) =
            head.ok_or_else(|| unreadable(format!("no entry at index {first}")))?;
        Ok(Self { source, first, first_seq, recorded_at, prev, digests })
    }

    /// Number of the batch's last event.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq + count_of(self.digests.len()) - 1
    }

    /// Index of the batch's last entry.
    pub(crate) fn last(&self) -> Index {
        self.first.plus(count_of(self.digests.len()) - 1)
    }

    /// The batch's receipt under a checkpoint that covers it.
    ///
    /// # Errors
    ///
    /// As [`inclusion_path`].
    pub(crate) fn receipt(
        &self,
        tree: &TreeFiles,
        published: &Published,
    ) -> Result<wire::Receipt, Refusal> {
        Ok(wire::Receipt {
            first_index: self.first.0,
            recorded_at: self.recorded_at,
            prev: bytes_of(&self.prev),
            inclusion_path: inclusion_path(tree, self.last(), published.size)?,
            checkpoint: published.note.clone(),
        })
    }
}

/// The inclusion path of an entry, as messages carry it.
///
/// # Errors
///
/// [`Refusal::BeyondTree`], or [`Refusal::Unreadable`] when the tree's files are damaged.
pub(crate) fn inclusion_path(
    tree: &TreeFiles,
    index: Index,
    size: Size,
) -> Result<Vec<Bytes>, Refusal> {
    let path = proof::inclusion_path(tree, index, size).map_err(build_refusal)?;
    Ok(path.iter().map(bytes_of).collect())
}

/// The consistency path between two sizes, as messages carry it.
///
/// # Errors
///
/// As [`inclusion_path`]; [`Refusal::Request`] when the old size is 0 or larger than the new one.
pub(crate) fn consistency_path(
    tree: &TreeFiles,
    old: Size,
    new: Size,
) -> Result<Vec<Bytes>, Refusal> {
    let path = proof::consistency_path(tree, old, new).map_err(build_refusal)?;
    Ok(path.iter().map(bytes_of).collect())
}

/// A digest as messages carry it.
pub(crate) fn bytes_of(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

/// What a failed read of the storage means to a caller.
pub(crate) fn unreadable(problem: impl ToString) -> Refusal {
    Refusal::Unreadable { problem: problem.to_string() }
}

/// The first sealed entry from `index` on.
fn sealed_from(reader: &LogReader, index: Index) -> Result<(Index, Seal), Refusal> {
    let mut found = None;
    let mut seen = 0;
    for_each_entry(reader, index, |entry| {
        found = entry.seal.map(|seal| (entry.index, seal));
        seen += 1;
        found.is_some() || seen == Seal::COUNT_MAX
    })?;
    found.ok_or_else(|| unreadable(format!("no seal closes the batch of index {index}")))
}

/// Reads entries from `first` on until `is_done` says so or the log ends.
fn for_each_entry(
    reader: &LogReader,
    first: Index,
    mut is_done: impl FnMut(&Entry<'_>) -> bool,
) -> Result<(), Refusal> {
    let mut next = first;
    loop {
        let entries = reader.read_entries(next, READ_ENTRIES, READ_BYTES).map_err(unreadable)?;
        if entries.is_empty() {
            return Ok(());
        }
        next = next.plus(count_of(entries.len()));
        for bytes in entries {
            let entry = Entry::parse(&bytes).map_err(unreadable)?;
            if is_done(&entry) {
                return Ok(());
            }
        }
    }
}

fn build_refusal<E: ToString>(error: BuildError<E>) -> Refusal {
    match error {
        BuildError::BeyondTree { index, size } => {
            Refusal::BeyondTree { what: "index", found: index.0, size }
        }
        BuildError::Sizes { old, new } => Refusal::Request {
            field: "old_size",
            problem: format!("{old}, expected 1 to the new size {new}"),
        },
        BuildError::Source(error) => unreadable(error.to_string()),
        _ => unreadable("proof cannot be built"),
    }
}

/// A usual batch in one read.
const READ_ENTRIES: usize = 256;
const READ_BYTES: usize = 256 << 10;
