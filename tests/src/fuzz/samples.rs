//! Valid bytes of every format, to mutate.

use std::sync::LazyLock;

use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    enrolment::EnrolmentClaim,
    entry::Seal,
    event,
    facts::sources::{Roles, Sources},
    hash::{Digest, sha256},
    note::{KeyId, KeyType, Signer},
    position::Index,
    receipt::TlogProof,
    seal::Batch,
    source::Name,
    tree::Frontier,
    wire::{self, SourceRole, event::Body as EventBody},
};
use prost::Message as _;

/// Nanoseconds since the Unix epoch.
pub(super) const NOW: u64 = 1_790_000_000_000_000_000;

pub(super) const ORIGIN: &str = "ledger.example/fuzz";

pub(super) fn signer(name: &str, seed: u8) -> Signer {
    Signer::new(name, KeyType::Ed25519, [seed; 32]).unwrap()
}

pub(super) fn witness() -> Signer {
    Signer::new("witness.example", KeyType::CosignatureV1, [8; 32]).unwrap()
}

/// A ledger of eleven entries: a batch of `service` behind eight others.
pub(super) struct Sample {
    pub(super) ledger: Signer,
    pub(super) digests: Vec<Digest>,
    pub(super) seal: Seal,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) leaves: Vec<Digest>,
    pub(super) receipt: wire::Receipt,
    pub(super) proof: TlogProof,
}

pub(super) static SAMPLE: LazyLock<Sample> = LazyLock::new(sample);

fn sample() -> Sample {
    let (ledger, service) = (signer(ORIGIN, 1), signer("service", 2));
    let digests: Vec<Digest> = (0..3_u8).map(|number| sha256(&[number])).collect();
    let (mut link, mut entries, mut leaves) = (Link::GENESIS, Vec::new(), Vec::new());
    let mut before = link;
    let mut seal = Seal { count: 0, key_id: KeyId([0; 4]), signature: [0; 64] };
    for first_seq in [1, 4, 7, 10] {
        let batch = batch(first_seq, &digests);
        seal = batch.seal(ORIGIN, &service).unwrap();
        before = link;
        link.extend(&batch, NOW + first_seq, seal, |entry, leaf| {
            entries.push(entry.to_vec());
            leaves.push(leaf);
        })
        .unwrap();
    }
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    let (paths, index) = (frontier.paths(), Index(11));
    let path = paths.path(index).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN, frontier.size(), paths.root()).unwrap();
    let mut note = checkpoint.sign(&ledger).unwrap();
    let opened = VerifiedCheckpoint::open(note.as_bytes(), ledger.verifier(), &[]).unwrap();
    note.push_str(&opened.cosign(&witness(), 1_790_000_000).unwrap());
    let receipt = wire::Receipt {
        first_index: 9,
        recorded_at: NOW + 10,
        prev: before.last_leaf.as_bytes().to_vec().into(),
        inclusion_path: path.iter().map(|hash| hash.as_bytes().to_vec().into()).collect(),
        checkpoint: note.clone().into_bytes().into(),
    };
    let proof = TlogProof { entry: entries[11].clone(), index, path, checkpoint: note };
    Sample { ledger, digests, seal, entries, leaves, receipt, proof }
}

pub(super) fn batch(first_seq: u64, digests: &[Digest]) -> Batch<'_> {
    Batch { source: Name::parse(b"service").unwrap(), first_seq, digests }
}

pub(super) fn event_of(body: EventBody) -> wire::Event {
    wire::Event {
        event_id: vec![7; 16].into(),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 5 }),
        correlation_id: "CASE-1".into(),
        actor: Some(wire::Principal {
            id: "p-1".into(),
            office_country: "IE".into(),
            privileged: true,
            roles: vec!["support".into()],
            ..Default::default()
        }),
        body: Some(body),
        ..Default::default()
    }
}

pub(super) fn events() -> Vec<Vec<u8>> {
    let data = wire::Data {
        dataset: "accounts".into(),
        categories: vec![1, 2, 3],
        subject_tokens: vec![vec![1; 16].into()],
        records: 300,
        ..Default::default()
    };
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![data.clone(), data],
        justification: "two\nlines, \u{e9}".into(),
        outcome: wire::Outcome::Allowed.into(),
        intent: Some(wire::EventReference { event_id: vec![3; 16].into(), index: Some(0) }),
        ..Default::default()
    };
    let request = wire::AccessRequest {
        request_id: "R-1".into(),
        scope: Some(wire::Scope {
            datasets: vec!["accounts".into()],
            countries: vec!["IE".into(), "ZZ".into()],
            ..Default::default()
        }),
        requested_duration: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..Default::default()
    };
    let bodies = [
        EventBody::Access(access),
        EventBody::AccessRequest(request),
        EventBody::SourceStatus(registration()),
        genesis(),
    ];
    bodies.map(|body| event_of(body).encode_to_vec()).into()
}

/// A child of `parent`, enrolled by the ledger upon both signatures.
pub(super) fn registration() -> wire::SourceStatus {
    let (child, parent) = (signer("parent/child", 5), signer("parent", 4));
    let public_key = child.verifier().public_key();
    let claim = EnrolmentClaim {
        source: Name::parse(b"parent/child").unwrap(),
        public_key,
        roles: Roles::from_iter([SourceRole::Record]),
        heartbeat_nanos: 60_000_000_000,
    };
    let sign = |key: &Signer| key.sign(claim.message(ORIGIN).as_bytes()).to_vec().into();
    wire::SourceStatus {
        phase: wire::SourcePhase::Registered.into(),
        source: "parent/child".into(),
        public_key: public_key.as_bytes().to_vec().into(),
        roles: claim.roles.values(),
        heartbeat_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        enrolment: Some(wire::Enrolment {
            possession: sign(&child),
            parent: "parent".into(),
            parent_signature: sign(&parent),
        }),
        ..Default::default()
    }
}

pub(super) fn genesis() -> EventBody {
    let initial = |name: &str, seed| wire::InitialSource {
        name: name.into(),
        public_key: signer(name, seed).verifier().public_key().as_bytes().to_vec().into(),
    };
    let genesis = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: signer(ORIGIN, 1).verifier().to_string(),
        ledger_source: Some(initial("ledger", 3)),
        governance: vec![initial("company", 6), initial("custodian", 7)],
        self_enrolment: true,
        policy: String::new(),
    };
    EventBody::ControlChange(wire::ControlChange {
        kind: wire::ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    })
}

/// The genesis above, and `parent`, which may enrol.
pub(super) fn sources() -> Sources {
    let mut sources = Sources::from_genesis(&event_of(genesis()).encode_to_vec()).unwrap();
    let status = wire::SourceStatus {
        phase: wire::SourcePhase::Registered.into(),
        source: "parent".into(),
        public_key: signer("parent", 4).verifier().public_key().as_bytes().to_vec().into(),
        roles: vec![SourceRole::Record.into(), SourceRole::Enrol.into()],
        ..Default::default()
    };
    let event = event_of(EventBody::SourceStatus(status)).encode_to_vec();
    let company = sources.get(Name::parse(b"company").unwrap()).unwrap();
    let body = event::body(&event).unwrap();
    let change = sources.judge(company, Index(1), body, true).unwrap();
    sources.apply(change);
    sources
}
