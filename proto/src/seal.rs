//! The seal: a source's signature over one batch (FORMATS.md, section 2).
//!
//! ```text
//! access-ledger/batch/v1\n
//! <origin>\n
//! <source>\n
//! <first source_seq, decimal> <seal_count, decimal>\n
//! <base64 of SHA-256(event_digest_first || ... || event_digest_last)>\n
//! ```
//!
//! The operator can neither forge, nor alter, nor drop one event of a source without that being
//! visible to whoever holds the source's public key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;

use crate::{
    entry::Seal,
    error::SealError,
    hash::{Digest, sha256_of_digests},
    note::{KeyId, KeyType, Signer, key_id, verifies},
    position::count_of,
    source::Name,
};

/// What a seal covers.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The sealing source.
    pub source: Name<'a>,
    /// Number of the first event.
    pub first_seq: u64,
    /// Digests of the events in order: 1 to [`Seal::COUNT_MAX`].
    pub digests: &'a [Digest],
}

impl Batch<'_> {
    /// How many events the batch holds.
    ///
    /// # Errors
    ///
    /// [`SealError::Count`] unless 1 to 4,096; [`SealError::Sequence`] when the numbers start at 0
    /// or run out.
    pub fn count(&self) -> Result<u16, SealError> {
        let found = self.digests.len();
        let count = u16::try_from(found)
            .ok()
            .filter(|count| (1..=Seal::COUNT_MAX).contains(count))
            .ok_or(SealError::Count { found })?;
        let first_seq = self.first_seq;
        if first_seq == 0 || first_seq.checked_add(u64::from(count)).is_none() {
            return Err(SealError::Sequence { first_seq });
        }
        Ok(count)
    }

    /// Number of the last event; the first number in an empty batch.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(count_of(self.digests.len()).saturating_sub(1))
    }

    /// The text that the source signs, for the ledger of this origin.
    #[must_use]
    pub fn message(&self, origin: &str) -> String {
        seal_message(
            origin,
            self.source,
            self.first_seq,
            count_of(self.digests.len()),
            &sha256_of_digests(self.digests),
        )
    }

    /// Seals the batch with the source's own key.
    ///
    /// # Errors
    ///
    /// As [`Batch::count`]; [`SealError::Key`] when the key has another name or type.
    pub fn seal(&self, origin: &str, key: &Signer) -> Result<Seal, SealError> {
        let count = self.count()?;
        if key.name() != self.source.as_str() || key.verifier().key_type() != KeyType::Ed25519 {
            return Err(SealError::Key);
        }
        let signature = key.sign(self.message(origin).as_bytes());
        Ok(Seal { count, key_id: key.verifier().id(), signature })
    }

    /// Checks a seal of this batch with the source's registered key.
    ///
    /// # Errors
    ///
    /// As [`Batch::count`]; [`SealError::Covers`] when the seal covers another number of events;
    /// [`SealError::Key`] when it names another key; [`SealError::Signature`] when the signature
    /// fails.
    pub fn verify(&self, origin: &str, seal: &Seal, key: &VerifyingKey) -> Result<(), SealError> {
        let count = self.count()?;
        if seal.count != count {
            return Err(SealError::Covers { found: seal.count, wanted: count });
        }
        if seal.key_id != source_key_id(self.source, key) {
            return Err(SealError::Key);
        }
        if verifies(key, self.message(origin).as_bytes(), &seal.signature) {
            Ok(())
        } else {
            Err(SealError::Signature)
        }
    }
}

/// The text that a source signs for a batch whose joined digests hash to `digests`.
#[must_use]
pub fn seal_message(
    origin: &str,
    source: Name<'_>,
    first_seq: u64,
    count: u64,
    digests: &Digest,
) -> String {
    let digests = STANDARD.encode(digests);
    format!("access-ledger/batch/v1\n{origin}\n{source}\n{first_seq} {count}\n{digests}\n")
}

/// The key id of a source's key: type 0x01, name = source.
#[must_use]
pub fn source_key_id(source: Name<'_>, key: &VerifyingKey) -> KeyId {
    key_id(source.as_str(), KeyType::Ed25519, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    const ORIGIN: &str = "ledger.example/test";

    fn key(seed: u8) -> Signer {
        Signer::new("payments", KeyType::Ed25519, [seed; 32]).unwrap()
    }

    #[test]
    fn a_seal_holds_for_its_batch_alone() {
        let digests = [sha256(b"a"), sha256(b"b")];
        let source = Name::parse(b"payments").unwrap();
        let batch = Batch { source, first_seq: 5, digests: &digests };
        let seal = batch.seal(ORIGIN, &key(7)).unwrap();
        let public = *key(7).verifier().public_key();
        assert_eq!(batch.verify(ORIGIN, &seal, &public), Ok(()));
        assert_eq!(batch.last_seq(), 6);

        let swapped = [digests[1], digests[0]];
        let others = [Batch { digests: &swapped, ..batch }, Batch { first_seq: 6, ..batch }];
        for other in others {
            assert_eq!(other.verify(ORIGIN, &seal, &public), Err(SealError::Signature));
        }
        assert_eq!(
            Batch { digests: &digests[..1], ..batch }.verify(ORIGIN, &seal, &public),
            Err(SealError::Covers { found: 2, wanted: 1 })
        );
        assert_eq!(batch.verify("elsewhere", &seal, &public), Err(SealError::Signature));
        let renamed = Batch { source: Name::parse(b"other").unwrap(), ..batch };
        assert_eq!(renamed.verify(ORIGIN, &seal, &public), Err(SealError::Key));
        assert_eq!(renamed.seal(ORIGIN, &key(7)), Err(SealError::Key));
        let foreign = *key(8).verifier().public_key();
        assert_eq!(batch.verify(ORIGIN, &seal, &foreign), Err(SealError::Key));
    }

    #[test]
    fn batches_outside_their_limits_are_refused() {
        let digests = vec![Digest::ZERO; 4_097];
        let source = Name::parse(b"a").unwrap();
        let batch =
            |first_seq, count: usize| Batch { source, first_seq, digests: &digests[..count] };
        assert_eq!(batch(1, 0).count(), Err(SealError::Count { found: 0 }));
        assert_eq!(batch(1, 4_097).count(), Err(SealError::Count { found: 4_097 }));
        assert_eq!(batch(0, 1).count(), Err(SealError::Sequence { first_seq: 0 }));
        assert_eq!(batch(u64::MAX, 1).count(), Err(SealError::Sequence { first_seq: u64::MAX }));
        assert_eq!(batch(1, 4_096).count(), Ok(4_096));
    }
}
