//! One batch: cut, sealed, sent, and its receipt judged.

use std::sync::Arc;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Seal,
    error::SealError,
    hash::Digest,
    note::Signer,
    position::Index,
    quorum::Quorum,
    receipt::{ReceiptVerifier, TlogProof},
    seal,
    source::SourceName,
    wire,
};
use bytes::Bytes;
use prost::Message;

use super::driver::Interrupt;
use crate::{
    authorize::{Verdict, intent_id},
    connect::{entry_proof, expect_all},
    error::{EvidenceFault, RecorderError},
    spool::Numbered,
};

/// Events that are sealed together. A batch is repeated as it is until it is answered.
#[derive(Debug)]
pub(super) struct Batch {
    /// At least one, numbers without gaps.
    pub(super) events: Vec<Numbered>,
    digests: Vec<Digest>,
    seal: Seal,
}

/// Where verified events lie. Their tickets share it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) first_index: Index,
    pub(super) recorded_at: u64,
    pub(super) proof: TlogProof,
    pub(crate) checkpoint: Arc<VerifiedCheckpoint>,
    /// On the intents among the events, by their numbers, where somebody waits for them.
    pub(super) verdicts: Vec<(u64, Arc<Verdict>)>,
}

/// Seals batches, and believes nothing that the ledger says about them.
#[derive(Debug)]
pub(super) struct Notary {
    pub(super) source: SourceName,
    pub(super) key: Signer,
    /// Verifies receipts; holds the ledger's key, and those of the witnesses.
    pub(super) receipts: ReceiptVerifier,
    /// Whose cosignatures a receipt must bear.
    pub(super) quorum: Quorum,
    /// The newest checkpoint seen.
    pub(super) newest: Option<Arc<VerifiedCheckpoint>>,
}

impl Batch {
    pub(super) fn first_seq(&self) -> u64 {
        self.events.first().map_or(0, |event| event.seq)
    }

    pub(super) fn request(&self, source: &SourceName) -> wire::AppendRequest {
        let batch = wire::SealedBatch {
            source: source.as_str().to_owned(),
            first_seq: self.first_seq(),
            events: self.events.iter().map(|event| event.event.clone()).collect(),
            key_id: Bytes::copy_from_slice(&self.seal.key_id.0),
            signature: Bytes::copy_from_slice(&self.seal.signature),
        };
        wire::AppendRequest { batch: Some(batch) }
    }

    fn sealed<'a>(&'a self, source: &'a SourceName) -> seal::Batch<'a> {
        let (source, first_seq) = (source.as_name(), self.first_seq());
        seal::Batch { source, first_seq, digests: &self.digests }
    }
}

impl Notary {
    /// Seals events whose numbers have no gaps. The same events give the same seal.
    pub(super) fn seal(&self, events: Vec<Numbered>) -> Result<Batch, SealError> {
        let digests = events.iter().map(|event| event.digest).collect();
        let seal = Seal { count: 0, key_id: self.key.verifier().id(), signature: [0; 64] };
        let batch = Batch { events, digests, seal };
        let seal = batch.sealed(&self.source).seal(self.receipts.ledger().name(), &self.key)?;
        Ok(Batch { seal, ..batch })
    }

    /// Judges the receipt of a batch.
    ///
    /// # Errors
    ///
    /// [`Interrupt::Retry`] when it does not bear the cosignatures that it must: it proves nothing
    /// yet, and the same batch gets another one. [`RecorderError::Evidence`] when it does not
    /// prove that the batch is in the ledger, or contradicts what the ledger signed before.
    pub(super) fn judge(
        &mut self,
        batch: &Batch,
        receipt: Option<&wire::Receipt>,
    ) -> Result<Place, Interrupt> {
        let first_seq = batch.first_seq();
        let empty = wire::Receipt::default();
        let receipt = receipt.unwrap_or(&empty);
        let judged = self.try_judge(batch, receipt);
        judged.map_err(|fault| evidence(first_seq, fault, receipt))?.ok_or_else(pending)
    }

    /// Judges the verdicts on the intents of a batch whose place was proven, and adds them to it;
    /// `own` is the ledger's own source.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Evidence`] unless each intent has its verdict, proven to be in the log.
    pub(super) fn judge_verdicts(
        batch: &Batch,
        place: &mut Place,
        own: &SourceName,
        answer: &wire::AppendResponse,
    ) -> Result<(), RecorderError> {
        let first_seq = batch.first_seq();
        let intents = batch.events.iter().filter_map(|numbered| {
            let index = place.first_index.plus(numbered.seq - first_seq);
            Some((numbered.seq, index, intent_id(&numbered.event)?))
        });
        let intents: Vec<_> = intents.collect();
        let judge = || {
            let (found, wanted) = (answer.verdicts.len(), intents.len());
            if found != wanted {
                return Err(EvidenceFault::Verdicts { found, wanted });
            }
            let pairs = intents.iter().zip(&answer.verdicts);
            pairs
                .map(|((seq, index, id), found)| {
                    Ok((*seq, Arc::new(Verdict::judge(own, (id, *index), place, found)?)))
                })
                .collect()
        };
        place.verdicts = judge().map_err(|fault| evidence(first_seq, fault, answer))?;
        Ok(())
    }

    /// Judges the ledger's answer about the number of `waiting`: that it holds this very event.
    ///
    /// # Errors
    ///
    /// [`Interrupt::Retry`] as of [`Notary::judge`]; [`RecorderError::Reused`] when the ledger
    /// proves that it holds another event; [`RecorderError::Evidence`] when it proves nothing.
    pub(super) fn judge_found(
        &mut self,
        waiting: &Numbered,
        found: &wire::GetReceiptResponse,
    ) -> Result<Place, Interrupt> {
        let (place, digest) = self
            .try_judge_found(waiting.seq, found)
            .map_err(|fault| evidence(waiting.seq, fault, found))?
            .ok_or_else(pending)?;
        if digest != waiting.digest {
            let index = Some(place.first_index);
            return Err(RecorderError::Reused { seq: waiting.seq, index }.into());
        }
        Ok(place)
    }

    /// `None` for a receipt below the quorum.
    fn try_judge(
        &mut self,
        batch: &Batch,
        receipt: &wire::Receipt,
    ) -> Result<Option<Place>, EvidenceFault> {
        let sealed = batch.sealed(&self.source);
        let verified = self.receipts.verify(&sealed, &batch.seal, receipt)?;
        // What is below the quorum is not even remembered: others may never see it.
        if !self.quorum.is_met(verified.checkpoint().cosignatures()) {
            return Ok(None);
        }
        let (first_seq, last_seq) = (sealed.first_seq, sealed.last_seq());
        let checkpoint = self.observe(verified.checkpoint())?;
        Ok(Some(Place {
            first_seq,
            last_seq,
            first_index: verified.first_index(),
            recorded_at: verified.recorded_at(),
            proof: verified.tlog_proof(),
            checkpoint,
            verdicts: Vec::new(),
        }))
    }

    /// The place of the entry in the answer, and the digest of its event; `None` below the quorum.
    fn try_judge_found(
        &mut self,
        seq: u64,
        found: &wire::GetReceiptResponse,
    ) -> Result<Option<(Place, Digest)>, EvidenceFault> {
        let (entry, proof) = entry_proof(found)?;
        let same = [
            (entry.source == self.source.as_name(), "source"),
            (entry.source_seq == seq, "number"),
        ];
        expect_all(&same)?;
        let checkpoint = proof.verify(self.receipts.ledger(), &self.quorum.keys())?;
        if !self.quorum.is_met(checkpoint.cosignatures()) {
            return Ok(None);
        }
        let checkpoint = self.observe(&checkpoint)?;
        let (first_index, recorded_at) = (entry.index, entry.recorded_at);
        let (first_seq, last_seq) = (seq, seq);
        let place = Place {
            first_seq,
            last_seq,
            first_index,
            recorded_at,
            proof,
            checkpoint,
            verdicts: Vec::new(),
        };
        Ok(Some((place, entry.event_digest)))
    }

    /// Compares a checkpoint with the newest one, and keeps the newer of them.
    ///
    /// Sizes do not go back, unless there is a quorum: then the witnesses vouch that both are of
    /// one history, and an older one of them proves as much.
    pub(super) fn observe(
        &mut self,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Arc<VerifiedCheckpoint>, EvidenceFault> {
        if let Some(newest) = &self.newest {
            let (found, size) = (checkpoint.size(), newest.size());
            if found < size && self.quorum.wants_any() {
                return Ok(Arc::new(checkpoint.clone()));
            }
            if found < size {
                return Err(EvidenceFault::Rollback { found, newest: size });
            }
            if found == size {
                let (found, known) = (checkpoint.root(), newest.root());
                if found != known {
                    return Err(EvidenceFault::Fork { size, found, known });
                }
                if checkpoint.note() == newest.note() {
                    return Ok(Arc::clone(newest));
                }
                // The same with other cosignatures.
            }
        }
        let checkpoint = Arc::new(checkpoint.clone());
        self.newest = Some(Arc::clone(&checkpoint));
        Ok(checkpoint)
    }
}

/// The receipt is below the quorum.
fn pending() -> Interrupt {
    tracing::debug!("receipt without its quorum of cosignatures, the batch is repeated");
    Interrupt::Retry(None)
}

pub(super) fn evidence(
    first_seq: u64,
    fault: EvidenceFault,
    answer: &impl Message,
) -> RecorderError {
    RecorderError::Evidence { first_seq, fault, evidence: answer.encode_to_vec().into() }
}
