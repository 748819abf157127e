//! Joins the pieces of a check in their order: links, batches, numbers, and who may record.
//!
//! Signatures are the one thing left over: each batch comes out as a [`Claim`], to be verified in
//! parallel.

use std::sync::Arc;

use access_ledger_proto::{
    chain::Link,
    entry::Seal,
    error::{ChainError, SourceError},
    event::{self, Body},
    facts::{
        sequences::Sequences,
        sources::{Source, Sources},
    },
    hash::Digest,
    position::Index,
    seal::Batch,
    source::SourceName,
};
use ed25519_dalek::VerifyingKey;

use super::{
    scan::{Run, Scanned},
    segment::Segment,
};
use crate::error::{Fault, StorageError};

/// The state of a check between two pieces.
pub(crate) struct Fold {
    pub(crate) link: Link,
    /// From entry 0 on.
    sources: Option<Sources>,
    sequences: Sequences,
    /// A batch whose seal lies in a later piece.
    open: Option<Run>,
}

/// A batch whose seal names the right key; whether the signature holds is to be seen.
pub(crate) struct Claim {
    segment: Arc<Segment>,
    last: (Index, u64),
    source: SourceName,
    first_seq: u64,
    digests: Vec<Digest>,
    seal: Seal,
    key: VerifyingKey,
}

impl Fold {
    pub(crate) fn new() -> Self {
        let (link, sequences) = (Link::GENESIS, Sequences::default());
        Self { link, sources: None, sequences, open: None }
    }

    /// Takes the next piece and adds its batches to `claims`.
    pub(crate) fn take(
        &mut self,
        scanned: Scanned,
        claims: &mut Vec<Claim>,
    ) -> Result<(), StorageError> {
        let segment = scanned.segment;
        self.join(&scanned.prev, scanned.first_recorded_at).map_err(|error| {
            segment.damage(scanned.first_offset, scanned.first, Fault::Chain(error))
        })?;
        self.link = scanned.end;
        for run in scanned.runs {
            let run = match self.open.take() {
                None => run,
                Some(open) => {
                    let (index, offset) = run.first;
                    append_run(open, run).map_err(|fault| segment.damage(offset, index, fault))?
                }
            };
            match run.seal {
                None => self.open = Some(run),
                Some(seal) => claims.push(self.close(&segment, run, seal)?),
            }
        }
        Ok(())
    }

    /// Checks that a piece starts where the one before ended.
    fn join(&self, prev: &Digest, recorded_at: u64) -> Result<(), ChainError> {
        let (index, before) = (self.link.size.next_index(), self.link.recorded_at);
        if *prev != self.link.last_leaf {
            return Err(ChainError::Link { index, found: *prev, wanted: self.link.last_leaf });
        }
        if recorded_at < before {
            return Err(ChainError::Time { index, found: recorded_at, before });
        }
        Ok(())
    }

    /// Checks a whole batch, but for its signature, and carries out what it changes.
    fn close(
        &mut self,
        segment: &Arc<Segment>,
        run: Run,
        seal: Seal,
    ) -> Result<Claim, StorageError> {
        let damage = |(index, offset): (Index, u64), fault| segment.damage(offset, index, fault);
        let count = u16::try_from(run.digests.len()).unwrap_or(u16::MAX);
        self.sequences
            .advance(run.source.as_name(), run.first_seq, count)
            .map_err(|gap| damage(run.first, Fault::Sequence(gap)))?;
        let sealer =
            self.sealer(&run, seal).map_err(|error| damage(run.last, Fault::Source(error)))?;
        self.judge(&run, &sealer).map_err(|error| damage(run.first, Fault::Source(error)))?;
        Ok(Claim {
            segment: segment.clone(),
            last: run.last,
            source: run.source,
            first_seq: run.first_seq,
            digests: run.digests,
            seal,
            key: sealer.public_key,
        })
    }

    /// The registered source that sealed the batch. Entry 0 registers its own.
    fn sealer(&mut self, run: &Run, seal: Seal) -> Result<Source, SourceError> {
        let sources = match (&mut self.sources, run.changes.first()) {
            (Some(sources), _) => sources,
            (none, Some((Index::GENESIS, event))) => none.insert(Sources::from_genesis(event)?),
            (None, _) => return Err(SourceError::Genesis),
        };
        sources.sealer(run.source.as_name(), seal.key_id).cloned()
    }

    fn judge(&mut self, run: &Run, sealer: &Source) -> Result<(), SourceError> {
        let Some(sources) = &mut self.sources else {
            return Err(SourceError::Genesis);
        };
        let is_alone = run.digests.len() == 1;
        if run.has_plain {
            // One stands for all that change nothing: only the sealer's roles decide.
            let plain = Body { number: Body::ACCESS, bytes: &[] };
            let change = sources.judge(sealer, run.first.0, plain, is_alone)?;
            sources.apply(change);
        }
        for (index, event) in &run.changes {
            let body = event::body(event).ok_or(SourceError::Undecodable)?;
            let change = sources.judge(sealer, *index, body, is_alone)?;
            sources.apply(change);
        }
        Ok(())
    }
}

impl Claim {
    /// Verifies the batch's signature.
    pub(crate) fn verify(&self, origin: &str) -> Result<(), StorageError> {
        let (source, first_seq) = (self.source.as_name(), self.first_seq);
        let batch = Batch { source, first_seq, digests: &self.digests };
        let (index, offset) = self.last;
        batch
            .verify(origin, &self.seal, &self.key)
            .map_err(|error| self.segment.damage(offset, index, Fault::Seal(error)))
    }

    /// The entry that carries the seal.
    pub(crate) fn index(&self) -> Index {
        self.last.0
    }
}

/// The batch that two runs are parts of.
fn append_run(mut open: Run, run: Run) -> Result<Run, Fault> {
    let expected_seq = open.first_seq.saturating_add(open.digests.len() as u64);
    if open.source != run.source || run.first_seq != expected_seq {
        return Err(Fault::Batch { source_name: run.source, source_seq: run.first_seq });
    }
    open.digests.extend(run.digests);
    open.changes.extend(run.changes);
    open.has_plain |= run.has_plain;
    Ok(Run { last: run.last, seal: run.seal, ..open })
}
