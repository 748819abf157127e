//! A recording client made of the protocol's own pieces: a key, numbers, seals, receipts.
//!
//! It has no spool and no retries: each test says itself what is sent, when, and how often.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use access_ledger_proto::{
    chain::Link,
    enrolment::EnrolmentClaim,
    entry::Seal,
    facts::sources::Roles,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::count_of,
    receipt::{VerifiedReceipt, verify_receipt},
    seal::Batch,
    source::{Name, SourceName},
    wire::{self, SourceRole},
};
use access_ledger_server::os::{Clock as _, SystemClock};
use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A source: its name, its key, and the number of its next event.
#[derive(Debug)]
pub struct Source {
    name: SourceName,
    key: Signer,
    ledger: VerifierKey,
    random: ChaCha8Rng,
    /// The number that [`Source::seal`] gives out next.
    pub next_seq: u64,
}

/// A batch under its source's seal, with what it takes to judge the receipt.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// As it is sent.
    pub batch: wire::SealedBatch,
    /// Digests of the events, in order.
    pub digests: Vec<Digest>,
    source: SourceName,
    seal: Seal,
    ledger: VerifierKey,
}

/// Where a batch is in the log: what stays the same however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the first entry.
    pub first_index: u64,
    /// Nanoseconds since the Unix epoch.
    pub recorded_at: u64,
    /// Leaf hash of the entry before.
    pub prev: Bytes,
}

/// What a refused call says in gRPC's rich error model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status code.
    pub code: Code,
    /// `ErrorInfo.reason`; empty without an `ErrorInfo` of this ledger.
    pub reason: String,
    /// `ErrorInfo.metadata`.
    pub metadata: HashMap<String, String>,
    /// Field of the first violation in `BadRequest`.
    pub field: Option<String>,
    /// `RetryInfo`.
    pub retry_after: Option<Duration>,
}

impl Source {
    /// A source of this name. Key and events follow from the seed and the name.
    ///
    /// # Errors
    ///
    /// For a name that no source can have.
    pub fn new(name: &str, seed: u64, ledger: &VerifierKey) -> anyhow::Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let salt: [u8; 32] = random.random();
        let key_seed = sha256(&[&salt, name.as_bytes()].concat());
        let key = Signer::new(name, KeyType::Ed25519, *key_seed.as_bytes())?;
        let name = SourceName::parse(name)?;
        Ok(Self { name, key, ledger: ledger.clone(), random, next_seq: 1 })
    }

    /// Takes the key of somebody who has one already.
    ///
    /// # Errors
    ///
    /// When the key's name is no source's.
    pub fn with_key(key: Signer, ledger: &VerifierKey) -> anyhow::Result<Self> {
        let name = SourceName::parse(key.name())?;
        let random = ChaCha8Rng::seed_from_u64(0);
        Ok(Self { name, key, ledger: ledger.clone(), random, next_seq: 1 })
    }

    /// Judges receipts by this key of the ledger from now on.
    pub fn trust(&mut self, ledger: &VerifierKey) {
        self.ledger = ledger.clone();
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Signer {
        &self.key
    }

    /// New accesses, each with an id of its own.
    pub fn events(&mut self, count: usize) -> Vec<Bytes> {
        (0..count).map(|_| access(&mut self.random)).collect()
    }

    /// A status of this source or another one, as an event.
    pub fn status(&mut self, status: wire::SourceStatus) -> Bytes {
        event(&mut self.random, wire::event::Body::SourceStatus(status))
    }

    /// An event with this body, which happened when everything in the tests did.
    pub fn event(&mut self, body: wire::event::Body) -> Bytes {
        event(&mut self.random, body)
    }

    /// An event that happens now, with an id of its own.
    pub fn now(&mut self, event: wire::Event) -> Bytes {
        let event_id: [u8; 16] = self.random.random();
        let event = wire::Event {
            event_id: Bytes::copy_from_slice(&event_id),
            occurred_at: Some(timestamp(SystemClock.now_nanos())),
            ..event
        };
        event.encode_to_vec().into()
    }

    /// The ledger's key.
    #[must_use]
    pub const fn ledger(&self) -> &VerifierKey {
        &self.ledger
    }

    /// Seals events under the next numbers.
    ///
    /// # Errors
    ///
    /// For more events than a seal covers, or none.
    pub fn seal(&mut self, events: Vec<Bytes>) -> anyhow::Result<Sealed> {
        let sealed = self.seal_at(self.next_seq, events)?;
        self.next_seq += count_of(sealed.digests.len());
        Ok(sealed)
    }

    /// Seals new accesses under the next numbers.
    ///
    /// # Errors
    ///
    /// As [`Source::seal`].
    pub fn record(&mut self, count: usize) -> anyhow::Result<Sealed> {
        let events = self.events(count);
        self.seal(events)
    }

    /// Seals events under numbers of the test's choice.
    ///
    /// # Errors
    ///
    /// As [`Source::seal`].
    pub fn seal_at(&self, first_seq: u64, events: Vec<Bytes>) -> anyhow::Result<Sealed> {
        let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
        let source = self.name.as_name();
        let batch = Batch { source, first_seq, digests: &digests };
        let seal = batch.seal(self.ledger.name(), &self.key)?;
        let batch = wire::SealedBatch {
            source: self.name().to_owned(),
            first_seq,
            events,
            key_id: Bytes::copy_from_slice(&seal.key_id.0),
            signature: Bytes::copy_from_slice(&seal.signature),
        };
        let (source, ledger) = (self.name.clone(), self.ledger.clone());
        Ok(Sealed { batch, digests, source, seal, ledger })
    }

    /// The request by which the source enrols itself.
    #[must_use]
    pub fn enrolment(&self) -> wire::EnrollRequest {
        self.enrolment_for(&[SourceRole::Record])
    }

    /// The same with other roles.
    #[must_use]
    pub fn enrolment_for(&self, roles: &[SourceRole]) -> wire::EnrollRequest {
        let roles = Roles::from_iter(roles.iter().copied());
        let message = self.claim(roles).message(self.ledger.name());
        wire::EnrollRequest {
            source: self.name().to_owned(),
            public_key: self.public_key(),
            roles: roles.values(),
            heartbeat_interval: None,
            enrolment: Some(wire::Enrolment {
                possession: Bytes::copy_from_slice(&self.key.sign(message.as_bytes())),
                ..Default::default()
            }),
        }
    }

    /// The request by which the source enrols below a parent that signs for it.
    #[must_use]
    pub fn enrolment_below(&self, parent: &Self, roles: &[SourceRole]) -> wire::EnrollRequest {
        let set = Roles::from_iter(roles.iter().copied());
        let message = self.claim(set).message(self.ledger.name());
        let mut request = self.enrolment_for(roles);
        if let Some(enrolment) = &mut request.enrolment {
            enrolment.parent = parent.name().to_owned();
            enrolment.parent_signature =
                Bytes::copy_from_slice(&parent.key.sign(message.as_bytes()));
        }
        request
    }

    /// A registration of this source, for somebody else to seal.
    #[must_use]
    pub fn registration(&self, roles: &[SourceRole]) -> wire::SourceStatus {
        wire::SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: self.name().to_owned(),
            public_key: self.public_key(),
            roles: roles.iter().map(|&role| role.into()).collect(),
            ..Default::default()
        }
    }

    /// The public key as messages carry it.
    #[must_use]
    pub fn public_key(&self) -> Bytes {
        Bytes::copy_from_slice(self.key.verifier().public_key().as_bytes())
    }

    fn claim(&self, roles: Roles) -> EnrolmentClaim<'_> {
        let public_key = self.key.verifier().public_key();
        EnrolmentClaim { source: self.name.as_name(), public_key, roles, heartbeat_nanos: 0 }
    }
}

impl Sealed {
    /// Puts the batch behind a chain, as the ledger does; each entry's bytes are handed to `push`.
    ///
    /// # Errors
    ///
    /// When the seal does not cover the batch.
    pub fn extend(
        &self,
        link: &mut Link,
        recorded_at: u64,
        mut push: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let (source, first_seq) = (self.source(), self.batch.first_seq);
        let batch = Batch { source, first_seq, digests: &self.digests };
        Ok(link.extend(&batch, recorded_at, self.seal, |entry, _| push(entry))?)
    }

    /// The request that records the batch.
    #[must_use]
    pub fn request(&self) -> wire::AppendRequest {
        wire::AppendRequest { batch: Some(self.batch.clone()) }
    }

    /// Number of the first event.
    #[must_use]
    pub const fn first_seq(&self) -> u64 {
        self.batch.first_seq
    }

    /// Number of the last event.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.batch.first_seq + count_of(self.digests.len()) - 1
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> Name<'_> {
        self.source.as_name()
    }

    /// Verifies a receipt for the batch; gives what it proves.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not hold.
    pub fn verify(&self, receipt: &wire::Receipt) -> anyhow::Result<VerifiedReceipt> {
        self.verify_with(receipt, &[])
    }

    /// As [`Sealed::verify`], with the cosignatures of these witnesses.
    ///
    /// # Errors
    ///
    /// When it does not hold.
    pub fn verify_with(
        &self,
        receipt: &wire::Receipt,
        witnesses: &[VerifierKey],
    ) -> anyhow::Result<VerifiedReceipt> {
        let (source, first_seq) = (self.source(), self.batch.first_seq);
        let batch = Batch { source, first_seq, digests: &self.digests };
        verify_receipt(&self.ledger, witnesses, &batch, &self.seal, receipt)
            .with_context(|| format!("receipt of {source} from number {first_seq} on"))
    }

    /// Verifies the answer to an append; gives the place that it proves.
    ///
    /// # Errors
    ///
    /// When it has no receipt, or one that does not hold.
    pub fn place(&self, answer: &wire::AppendResponse) -> anyhow::Result<Place> {
        let receipt = answer.receipt.as_ref().context("an answer without a receipt")?;
        self.verify(receipt)?;
        Ok(Place::of(receipt))
    }
}

impl Place {
    /// The place that a receipt tells.
    #[must_use]
    pub fn of(receipt: &wire::Receipt) -> Self {
        let wire::Receipt { first_index, recorded_at, prev, .. } = receipt;
        Self { first_index: *first_index, recorded_at: *recorded_at, prev: prev.clone() }
    }
}

impl Refused {
    /// Reads a status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == "access-ledger");
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            field: violation.map(|violation| violation.field.clone()),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }

    /// Code and reason, the part that every refusal has.
    #[must_use]
    pub fn kind(&self) -> (Code, &str) {
        (self.code, &self.reason)
    }
}

/// One access that keeps every rule of the vocabulary.
pub fn access(random: &mut ChaCha8Rng) -> Bytes {
    let dataset = format!("accounts.{}", random.random_range(0..20));
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![wire::Data { dataset, records: 1, ..Default::default() }],
        justification: "x".repeat(random.random_range(0..400)),
        outcome: wire::Outcome::Allowed.into(),
        ..Default::default()
    };
    event(random, wire::event::Body::Access(access))
}

/// An event with this body, encoded.
pub fn event(random: &mut ChaCha8Rng, body: wire::event::Body) -> Bytes {
    let event_id: [u8; 16] = random.random();
    let event = wire::Event {
        event_id: Bytes::copy_from_slice(&event_id),
        occurred_at: Some(prost_types::Timestamp { seconds: OCCURRED_AT_S, nanos: 0 }),
        actor: Some(wire::Principal { id: "p-1".to_owned(), ..Default::default() }),
        body: Some(body),
        ..Default::default()
    };
    event.encode_to_vec().into()
}

fn timestamp(nanos: u64) -> prost_types::Timestamp {
    let since = Duration::from_nanos(nanos);
    prost_types::Timestamp::from(UNIX_EPOCH + since)
}

/// When everything in the tests happened, in seconds since the Unix epoch.
const OCCURRED_AT_S: i64 = 1_760_000_000;
