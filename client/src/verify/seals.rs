//! Signatures of sources: the dear part of verification, made independent so that all cores share
//! it.

use std::sync::Arc;

use access_ledger_proto::{
    entry::Seal, error::SealError, hash::Digest, note::verifies, position::Index,
    seal::seal_message, source::SourceName,
};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use rayon::prelude::*;

use super::{
    digest::{Record, encode_evidence},
    error::{Fault, Violation},
};

/// The seal of a batch that is in order otherwise, with the key that its source had registered
/// there.
#[derive(Clone, Debug)]
pub struct SealCheck {
    pub(super) origin: Arc<str>,
    pub(super) source: SourceName,
    pub(super) first_seq: u64,
    /// SHA-256 of the joined event digests.
    pub(super) joined: Digest,
    pub(super) seal: Seal,
    pub(super) key: VerifyingKey,
    /// The entry that carries the seal: the batch's last.
    pub(super) index: Index,
    pub(super) entry: Bytes,
}

impl SealCheck {
    /// Verifies the signature.
    ///
    /// # Errors
    ///
    /// A [`Violation`] at the entry that carries the seal, with [`SealError::Signature`].
    pub fn run(&self) -> Result<(), Violation> {
        let count = u64::from(self.seal.count);
        let message =
            seal_message(&self.origin, self.source.as_name(), self.first_seq, count, &self.joined);
        if verifies(&self.key, message.as_bytes(), &self.seal.signature) {
            return Ok(());
        }
        let served = Record { entry: self.entry.clone(), event: None };
        let evidence = encode_evidence(self.index, &[served]);
        Err(Violation { evidence, ..Violation::new(self.index, Fault::Seal(SealError::Signature)) })
    }
}

/// Runs all checks on all cores.
///
/// # Errors
///
/// The violation with the lowest index.
pub fn check_seals(checks: &[SealCheck]) -> Result<(), Violation> {
    let first = checks.par_iter().filter_map(|check| check.run().err()).min_by_key(|at| at.index);
    first.map_or(Ok(()), Err)
}
