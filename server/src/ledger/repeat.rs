//! Answers batches whose numbers were used before.
//!
//! A client that timed out repeats the same batch; it gets the place again that the batch has,
//! however long ago. The same events in another cut are refused with the number to go on with.
//! Other events under used numbers are two statements that the source sealed: they are refused and
//! kept as evidence. This runs on its own thread, so that repeats, which read the disk, do not hold
//! up the writer.

use std::{path::PathBuf, sync::Arc, time::Duration};

use access_ledger_proto::{hash::sha256, position::Index, source::Name, wire};
use prost::Message as _;
use tracing::warn;

use super::{Shared, append::Admitted, queue::Waiting, receipt::StoredBatch};
use crate::{
    index::IndexError,
    os::{self, Disk},
    refusal::Refusal,
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
                answer.send(found.map(|receipt| wire::AppendResponse {
                    receipt: Some(receipt),
                    verdicts: Vec::new(),
                }));
            }
        }
    }

    fn find(&self, batch: &Admitted) -> Result<wire::Receipt, Refusal> {
        let sealed = batch.sealed();
        let shared = &*self.shared;
        let recorded = shared.durable_last(sealed.source);
        let index = shared.position(sealed.source, sealed.first_seq)?;
        let stored = StoredBatch::around(&shared.reader, index)?;
        // Compare with what is recorded, batch by batch, as far as the numbers were used.
        let mut seq = sealed.first_seq;
        let mut other = stored.clone();
        while seq <= sealed.last_seq().min(recorded) {
            if seq > other.last_seq() {
                let index = shared.position(sealed.source, seq)?;
                other = StoredBatch::around(&shared.reader, index)?;
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
        stored.receipt(&shared.tree, &shared.published())
    }

    /// Keeps the sealed batch that contradicts the log: an encoded `SealedBatch`.
    fn keep_evidence(&self, batch: &Admitted) {
        let bytes = batch.to_wire().encode_to_vec();
        let path = self.evidence.join(format!("{}.batch", sha256(&bytes)));
        let kept = self.disk.create_dir(&self.evidence).and_then(|()| {
            let kept = self.disk.list(&self.evidence)?.len();
            if kept < EVIDENCE_FILES_MAX { os::replace(&*self.disk, &path, &bytes) } else { Ok(()) }
        });
        let (source, first_seq) = (batch.sealed().source, batch.sealed().first_seq);
        match kept {
            Ok(()) => warn!(%source, first_seq, path = %path.display(), "kept reused numbers"),
            Err(failure) => warn!(%source, first_seq, %failure, "could not keep reused numbers"),
        }
    }
}

impl Shared {
    /// Where the event of this number is. Waits until the index has seen all that is durable.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoEvent`]; [`Refusal::Indexing`] while the index is being built.
    pub(crate) fn position(&self, source: Name<'_>, seq: u64) -> Result<Index, Refusal> {
        let behind = |error: IndexError| Refusal::Indexing { problem: error.to_string() };
        self.index.wait_for(self.published().size, INDEX_WAIT).map_err(behind)?;
        self.index
            .position(source, seq)
            .map_err(behind)?
            .ok_or_else(|| Refusal::NoEvent { name: source.to_owned(), seq })
    }
}

/// The index is a moment behind the log; while it is built again, a caller had better come back.
pub(crate) const INDEX_WAIT: Duration = Duration::from_secs(2);

/// A source that keeps contradicting itself adds nothing new after so many.
const EVIDENCE_FILES_MAX: usize = 256;
