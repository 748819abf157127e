//! A ledger in memory for tests: it keeps every rule, and hands out what a tampering operator
//! needs.

use std::collections::BTreeMap;

use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::Entry,
    facts::redactions::redaction_message,
    hash::{Digest, leaf_hash, sha256},
    note::{KeyType, Signer},
    position::{Size, count_of},
    seal::Batch,
    source::Name,
    tree::Frontier,
    wire::{self, event::Body},
};
use bytes::Bytes;
use prost::Message as _;

use super::Record;

pub(crate) const ORIGIN: &str = "ledger.example/test";
pub(crate) const LEDGER: &str = "ledger";
pub(crate) const GOVERNANCE: &str = "governance";
/// The other party of the governance.
pub(crate) const CUSTODIAN: &str = "custodian";

#[derive(Clone)]
pub(crate) struct Honest {
    pub(crate) signer: Signer,
    pub(crate) records: Vec<Record>,
    keys: BTreeMap<String, Signer>,
    last_seq: BTreeMap<String, u64>,
    link: Link,
}

impl Honest {
    pub(crate) fn new() -> Self {
        Self::with_key(1)
    }

    pub(crate) fn with_key(seed: u8) -> Self {
        let signer = Signer::new(ORIGIN, KeyType::Ed25519, [seed; 32]).unwrap();
        let mut ledger = Self {
            signer,
            records: Vec::new(),
            keys: BTreeMap::new(),
            last_seq: BTreeMap::new(),
            link: Link::GENESIS,
        };
        let initial = |source: &Signer| wire::InitialSource {
            name: source.name().to_owned(),
            public_key: Bytes::copy_from_slice(source.verifier().public_key().as_bytes()),
        };
        let genesis = wire::Genesis {
            origin: ORIGIN.to_owned(),
            ledger_vkey: ledger.signer.verifier().to_string(),
            ledger_source: Some(initial(ledger.key(LEDGER))),
            governance: vec![initial(ledger.key(GOVERNANCE)), initial(ledger.key(CUSTODIAN))],
            self_enrolment: true,
            policy: String::new(),
        };
        let change = wire::ControlChange {
            kind: wire::ControlKind::Genesis.into(),
            content: genesis.encode_to_vec().into(),
            ..Default::default()
        };
        ledger.batch(LEDGER, vec![event(0, Body::ControlChange(change))]);
        ledger
    }

    /// The key of a source, registered or not.
    pub(crate) fn key(&mut self, name: &str) -> &Signer {
        self.keys.entry(name.to_owned()).or_insert_with(|| {
            Signer::new(name, KeyType::Ed25519, *sha256(name.as_bytes()).as_bytes()).unwrap()
        })
    }

    pub(crate) fn register(&mut self, name: &str) {
        let public_key = Bytes::copy_from_slice(self.key(name).verifier().public_key().as_bytes());
        let status = wire::SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: name.to_owned(),
            public_key,
            roles: vec![wire::SourceRole::Record.into()],
            ..Default::default()
        };
        self.batch(GOVERNANCE, vec![event(0, Body::SourceStatus(status))]);
    }

    /// Records `count` accesses in one batch.
    pub(crate) fn record(&mut self, name: &str, count: u64) {
        let first = self.last_seq.get(name).copied().unwrap_or_default();
        self.batch(name, (first..first + count).map(access).collect());
    }

    /// `sealer` records a redaction that `signer` has signed.
    pub(crate) fn redact(&mut self, sealer: &str, signer: &str, first_index: u64, last_index: u64) {
        let legal_basis = "order 7".to_owned();
        let mut redaction =
            wire::Redaction { first_index, last_index, legal_basis, ..Default::default() };
        let message = redaction_message(ORIGIN, &redaction);
        let key = self.key(signer);
        redaction.approvals = vec![wire::Approval {
            source: signer.to_owned(),
            key_id: Bytes::copy_from_slice(&key.verifier().id().0),
            signature: Bytes::copy_from_slice(&key.sign(message.as_bytes())),
        }];
        self.batch(sealer, vec![event(0, Body::Redaction(redaction))]);
    }

    pub(crate) fn batch(&mut self, name: &str, events: Vec<Bytes>) {
        let key = self.key(name).clone();
        let first_seq = self.last_seq.get(name).copied().unwrap_or_default() + 1;
        let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
        let source = Name::parse(name.as_bytes()).unwrap();
        let batch = Batch { source, first_seq, digests: &digests };
        let seal = batch.seal(ORIGIN, &key).unwrap();
        self.last_seq.insert(name.to_owned(), batch.last_seq());
        let recorded_at = self.link.recorded_at + 1_000;
        let mut events = events.into_iter();
        let records = &mut self.records;
        self.link
            .extend(&batch, recorded_at, seal, |entry, _| {
                records.push(Record { entry: Bytes::copy_from_slice(entry), event: events.next() });
            })
            .unwrap();
    }

    /// Signs the records as they are, tampered with or not.
    pub(crate) fn checkpoint(&self) -> VerifiedCheckpoint {
        self.checkpoint_of(&self.records)
    }

    pub(crate) fn checkpoint_of(&self, records: &[Record]) -> VerifiedCheckpoint {
        let mut tree = Frontier::new();
        records.iter().for_each(|record| tree.append(leaf_hash(&record.entry)));
        let checkpoint =
            Checkpoint::new(ORIGIN, Size(count_of(records.len())), tree.root()).unwrap();
        let note = checkpoint.sign(&self.signer).unwrap();
        VerifiedCheckpoint::open(note.as_bytes(), self.signer.verifier(), &[]).unwrap()
    }

    /// Rewrites the entry at `at`.
    pub(crate) fn alter(&mut self, at: usize, alter: impl FnOnce(&mut Entry<'_>)) {
        let old = self.records[at].entry.clone();
        let mut entry = Entry::parse(&old).unwrap();
        alter(&mut entry);
        self.records[at].entry = entry.encode().into();
    }

    /// What an operator does after it tampered: indexes and links are made good again.
    pub(crate) fn rechain(&mut self) {
        let mut prev = Digest::ZERO;
        for at in 0..self.records.len() {
            self.alter(at, |entry| {
                entry.index = Size(count_of(at)).next_index();
                entry.prev = prev;
            });
            prev = leaf_hash(&self.records[at].entry);
        }
    }
}

pub(crate) fn access(number: u64) -> Bytes {
    let data = wire::Data { dataset: "users".into(), ..Default::default() };
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![data],
        outcome: wire::Outcome::Allowed.into(),
        ..Default::default()
    };
    event(number, Body::Access(access))
}

pub(crate) fn event(number: u64, body: Body) -> Bytes {
    let id = u128::from(number).to_be_bytes();
    let event = wire::Event {
        event_id: Bytes::copy_from_slice(&id),
        occurred_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        body: Some(body),
        ..Default::default()
    };
    event.encode_to_vec().into()
}
