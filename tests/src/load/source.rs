//! A source that records: seals its batches and verifies the receipts, as every service must.

use access_ledger_client::connect::Link;
use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    entry::Seal,
    facts::sources::Roles,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::count_of,
    receipt::{ReceiptVerifier, VerifiedReceipt},
    seal::Batch,
    source::{Name, SourceName},
    wire::{self, SourceRole, recorder_service_client::RecorderServiceClient},
};
use access_ledger_server::{
    demo::half_year::{ACCESS_LEN, access_of_len},
    os::{Clock as _, SystemClock},
};
use anyhow::Context as _;
use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Events of a batch in a stream.
pub(super) const BATCH_EVENTS: usize = 256;

/// `count` accesses of [`ACCESS_LEN`] bytes, all different.
pub(super) fn events(count: usize) -> anyhow::Result<Vec<Bytes>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let now = SystemClock.now_nanos();
    (0..count)
        .map(|_| access_of_len(&mut rng, now, ACCESS_LEN).context("no event of this length"))
        .collect()
}

/// A source with its key and its numbers.
pub(super) struct Source {
    name: SourceName,
    key: Signer,
    origin: String,
    next_seq: u64,
}

/// A batch, and what its receipt is verified with.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) batch: wire::SealedBatch,
    pub(super) claim: Claim,
}

/// What a source keeps of a batch until its receipt is there.
#[derive(Clone)]
pub(super) struct Claim {
    first_seq: u64,
    digests: Vec<Digest>,
    seal: Seal,
}

impl Source {
    /// Enrolls a new source by itself.
    pub(super) async fn enroll(
        client: &mut RecorderServiceClient<Link>,
        name: &str,
        ledger: &VerifierKey,
    ) -> anyhow::Result<Self> {
        let source = Self::new(name, ledger.name())?;
        let public_key = source.key.verifier().public_key();
        let claim = EnrolmentClaim {
            source: source.name.as_name(),
            public_key,
            roles: Roles::from_iter([SourceRole::Record]),
            heartbeat_nanos: 0,
        };
        let possession = source.key.sign(claim.message(&source.origin).as_bytes());
        let enrolment =
            wire::Enrolment { possession: possession.to_vec().into(), ..Default::default() };
        client
            .enroll(wire::EnrollRequest {
                source: name.to_owned(),
                public_key: public_key.to_bytes().to_vec().into(),
                enrolment: Some(enrolment),
                ..Default::default()
            })
            .await?;
        Ok(source)
    }

    fn new(name: &str, origin: &str) -> anyhow::Result<Self> {
        let key = Signer::new(name, KeyType::Ed25519, *sha256(name.as_bytes()).as_bytes())?;
        Ok(Self { name: SourceName::parse(name)?, key, origin: origin.to_owned(), next_seq: 1 })
    }

    /// Seals the next batch.
    pub(super) fn seal(&mut self, events: &[Bytes]) -> anyhow::Result<Sealed> {
        let digests: Vec<_> = events.iter().map(|event| sha256(event)).collect();
        let first_seq = self.next_seq;
        let batch = Batch { source: self.name.as_name(), first_seq, digests: &digests };
        let seal = batch.seal(&self.origin, &self.key)?;
        self.next_seq += count_of(events.len());
        let batch = wire::SealedBatch {
            source: self.name.as_str().to_owned(),
            first_seq,
            events: events.to_vec(),
            key_id: Bytes::copy_from_slice(&seal.key_id.0),
            signature: Bytes::copy_from_slice(&seal.signature),
        };
        Ok(Sealed { batch, claim: Claim { first_seq, digests, seal } })
    }

    /// Verifies the receipt for a batch.
    pub(super) fn verify(
        &self,
        verifier: &mut ReceiptVerifier,
        claim: &Claim,
        receipt: Option<&wire::Receipt>,
    ) -> anyhow::Result<VerifiedReceipt> {
        let receipt = receipt.context("no receipt")?;
        Ok(verifier.verify(&claim.batch(self.name()), &claim.seal, receipt)?)
    }

    /// The number of its next event.
    pub(super) const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The name.
    pub(super) fn name(&self) -> Name<'_> {
        self.name.as_name()
    }
}

impl Claim {
    /// What was sealed.
    pub(super) fn batch<'a>(&'a self, source: Name<'a>) -> Batch<'a> {
        Batch { source, first_seq: self.first_seq, digests: &self.digests }
    }

    /// The seal.
    pub(super) const fn seal(&self) -> Seal {
        self.seal
    }
}
