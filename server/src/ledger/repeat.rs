//! Answers batches whose numbers were used before.
//!
//! A client that timed out repeats the same batch; it gets the place again that the batch has,
//! however long ago, and the same verdicts on its intents. The same events in another cut are
//! refused with the number to go on with. Other events under used numbers are two statements that
//! the source sealed: they are refused and kept as evidence. This runs on its own thread, so that
//! repeats, which read the disk, do not hold up the writer.

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use access_ledger_proto::{
    entry::Entry,
    event::{self, Body},
    hash::sha256,
    position::{Index, count_of},
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use tracing::warn;

use super::{Shared, append::Admitted, authorize::PlacedVerdict, queue::Waiting, writer::Placed};
use crate::{
    book::{StoredBatch, inclusion_path, unreadable},
    os::{self, Disk},
    refusal::Refusal,
    storage::Record,
};

/// Most bytes of repeated batches that wait.
pub(crate) const REPEAT_BYTES_MAX: usize = 16 << 20;

/// Finds the places of repeated batches.
pub(crate) struct Repeats {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<dyn Disk>,
    /// The folder for evidence against sources.
    pub(crate) evidence: PathBuf,
}

impl Repeats {
    /// Answers until the writer has closed the queue of repeats.
    pub(crate) fn run(self) {
        while let Some(one) = self.shared.repeats.take(0) {
            for Waiting { work: batch, answer } in one {
                let found = self.find(&batch);
                if let Err(Refusal::Reused { .. }) = found {
                    self.keep_evidence(&batch);
                }
                match (found, &self.shared.release) {
                    (Ok(placed), Some(release)) => release.wait(placed, answer),
                    (Ok(placed), None) => answer.send(self.prove(&placed)),
                    (Err(refusal), _) => answer.send(Err(refusal)),
                }
            }
        }
    }

    /// The answer under the newest checkpoint.
    fn prove(&self, placed: &Placed) -> Result<wire::AppendResponse, Refusal> {
        let book = &*self.shared.book;
        let published = book.published();
        placed.answer(&published, |index| inclusion_path(&book.tree, index, published.size))
    }

    /// The place that the batch has.
    fn find(&self, batch: &Admitted) -> Result<Placed, Refusal> {
        let sealed = batch.sealed();
        let shared = &*self.shared;
        let recorded = shared.book.durable_last(sealed.source);
        let index = shared.book.position(sealed.source, sealed.first_seq)?;
        let stored = StoredBatch::around(&shared.book.reader, index)?;
        // Compare with what is recorded, batch by batch, as far as the numbers were used.
        let mut seq = sealed.first_seq;
        let mut other = stored.clone();
        while seq <= sealed.last_seq().min(recorded) {
            if seq > other.last_seq() {
                let index = shared.book.position(sealed.source, seq)?;
                other = StoredBatch::around(&shared.book.reader, index)?;
            }
            let used = |batch_first: u64, digests: &[_]| {
                let offset = usize::try_from(seq - batch_first).unwrap_or(usize::MAX);
                digests.get(offset).copied()
            };
            if used(other.first_seq, &other.digests) != used(sealed.first_seq, sealed.digests) {
                let index = other.first.plus(seq - other.first_seq);
                return Err(Refusal::Reused { name: sealed.source.to_owned(), seq, index });
            }
            seq += 1;
        }
        if (stored.first_seq, stored.last_seq()) != (sealed.first_seq, sealed.last_seq()) {
            let expected = recorded.saturating_add(1);
            return Err(Refusal::Recut { first_seq: sealed.first_seq, expected });
        }
        let intents = batch.noteworthy().iter().filter(|note| note.is_intent());
        let intents: Vec<_> = intents.map(|note| note.index(stored.first)).collect();
        Ok(Placed {
            last_seq: stored.last_seq(),
            last: stored.last(),
            first: stored.first,
            recorded_at: stored.recorded_at,
            prev: stored.prev,
            verdicts: self.verdicts(stored.last(), &intents)?,
            source: stored.source,
        })
    }

    /// The verdicts on intents, which lie in the order of these indexes behind the batch of the
    /// intents, whose last entry is `last`: in the same group.
    fn verdicts(&self, last: Index, intents: &[Index]) -> Result<Vec<PlacedVerdict>, Refusal> {
        let shared = &*self.shared;
        let own = shared.book.sources().ledger_source().to_owned();
        let mut wanted = intents.iter().peekable();
        let mut found = Vec::with_capacity(intents.len());
        let mut next = last.plus(1);
        while let Some(intent) = wanted.peek() {
            let records =
                shared.book.reader.read(next, READ_ENTRIES, READ_BYTES).map_err(unreadable)?;
            if records.is_empty() || next.0 - last.0 > GROUP_ENTRIES_MAX {
                return Err(unreadable(format!("no verdict on the intent at index {intent}")));
            }
            next = next.plus(count_of(records.len()));
            for Record { entry, event } in records {
                let parsed = Entry::parse(&entry).map_err(unreadable)?;
                let is_own = parsed.source.as_str() == own;
                let Some(event) = event.filter(|_| is_own) else { continue };
                if wanted.next_if(|intent| is_verdict_on(&event, **intent)).is_none() {
                    continue;
                }
                let index = parsed.index;
                found.push(PlacedVerdict { index, event, entry });
            }
        }
        Ok(found)
    }

    /// Keeps the sealed batch that contradicts the log: an encoded `SealedBatch`, in a file that is
    /// named by the digests of its source's name and of itself.
    fn keep_evidence(&self, batch: &Admitted) {
        let (source, first_seq) = (batch.sealed().source, batch.sealed().first_seq);
        let bytes = batch.to_wire().encode_to_vec();
        let stem = sha256(source.as_str().as_bytes()).to_string();
        let path = self.evidence.join(format!("{stem}-{}.batch", sha256(&bytes)));
        let kept = self.disk.create_dir(&self.evidence).and_then(|()| {
            let names = self.disk.list(&self.evidence)?;
            let is_same = |name: &&OsString| name.to_string_lossy().starts_with(&stem);
            let is_enough = names.iter().filter(is_same).count() >= EVIDENCE_FILES_MAX;
            if is_enough {
                Ok(false)
            } else {
                os::replace(&*self.disk, &path, &bytes).map(|()| true)
            }
        });
        match kept {
            Ok(true) => warn!(%source, first_seq, path = %path.display(), "kept reused numbers"),
            Ok(false) => warn!(%source, first_seq, "reused numbers once more: kept enough of that"),
            Err(failure) => warn!(%source, first_seq, %failure, "could not keep reused numbers"),
        }
    }
}

fn is_verdict_on(event: &Bytes, intent: Index) -> bool {
    let Some(body) = event::body(event).filter(|body| body.number == Body::AUTHORIZATION) else {
        return false;
    };
    let verdict = wire::Authorization::decode(body.bytes).ok();
    let judged = verdict.and_then(|verdict| verdict.intent?.index);
    judged == Some(intent.0)
}

/// Entries that a group may have behind a batch: each takes some 370 of its 8 MiB, and each may be
/// an intent, whose verdict comes on top.
const GROUP_ENTRIES_MAX: u64 = 1 << 16;

/// What is usually enough.
const READ_ENTRIES: usize = 256;
const READ_BYTES: usize = 256 << 10;

/// A source that keeps contradicting itself adds nothing new after so many.
const EVIDENCE_FILES_MAX: usize = 16;
