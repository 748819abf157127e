//! What the facts cost an event: to see that it does not concern them, to assess it, to apply it.

#![expect(clippy::unwrap_used, reason = "a bench that cannot begin measures nothing")]

use std::hint::black_box;

use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    event::body,
    facts::{Facts, Noted, control::registration_message},
    note::{KeyType, VerifierKey},
    position::Index,
    seal::source_key_id,
    source::Name,
    wire::{self, ControlKind, SourcePhase, SourceRole, event::Body},
};
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;

/// Nanoseconds since the Unix epoch.
const NOW: u64 = 1_790_000_000_000_000_000;

/// Names of the grant's scope: as many as an event holds, when they are short.
const DATASETS: u64 = 5_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn genesis() -> Vec<u8> {
    let initial = |name: &str, seed| wire::InitialSource {
        name: name.into(),
        public_key: key(seed).verifying_key().to_bytes().to_vec().into(),
    };
    let ledger = key(9).verifying_key().to_bytes();
    let genesis = wire::Genesis {
        origin: "bench".into(),
        ledger_vkey: VerifierKey::new("bench", KeyType::Ed25519, &ledger).unwrap().to_string(),
        ledger_source: Some(initial("ledger", 1)),
        governance: vec![initial("company", 2), initial("custodian", 3)],
        ..Default::default()
    };
    let content = genesis.encode_to_vec().into();
    let kind = ControlKind::Genesis.into();
    let change = wire::ControlChange { kind, content, ..Default::default() };
    wire::Event { body: Some(Body::ControlChange(change)), ..Default::default() }.encode_to_vec()
}

fn event(body: Body) -> wire::Event {
    wire::Event {
        event_id: vec![9; 16].into(),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        actor: Some(wire::Principal { id: "p-1f83a90b".into(), ..Default::default() }),
        tool: Some(wire::Tool { id: "support-console".into(), ..Default::default() }),
        body: Some(body),
        ..Default::default()
    }
}

fn access(grant_id: &str) -> wire::Event {
    event(Body::Access(wire::Access {
        action: wire::Action::Read.into(),
        data: vec![wire::Data {
            dataset: "0fff".into(),
            region: "eu-west-1".into(),
            subject_jurisdiction: "IE".into(),
            boundary: wire::Boundary::Protected.into(),
            categories: vec![1, 2, 5],
            subject_tokens: vec![vec![7; 16].into()],
            records: 1,
            ..Default::default()
        }],
        justification: "customer reported a failed payment".into(),
        outcome: wire::Outcome::Allowed.into(),
        grant_id: grant_id.into(),
        ..Default::default()
    }))
}

fn noted<'a>(source: &'static [u8], index: u64, event: &'a wire::Event) -> Noted<'a> {
    let source = Name::parse(source).unwrap();
    Noted { index: Index(index), recorded_at: NOW, source, event }
}

/// An approver, and a request that it granted.
fn facts() -> Facts {
    let mut facts = Facts::from_genesis(&genesis()).unwrap();
    let public_key = key(4).verifying_key();
    let claim = EnrolmentClaim {
        source: Name::parse(b"ann").unwrap(),
        public_key: &public_key,
        roles: [SourceRole::Approve].into_iter().collect(),
        heartbeat_nanos: 0,
    };
    let message = registration_message("bench", &claim, "");
    let custodian = key(3);
    let custody = Name::parse(b"custodian").unwrap();
    let key_id = source_key_id(custody, &custodian.verifying_key());
    let approval = wire::Approval {
        source: "custodian".into(),
        key_id: key_id.0.to_vec().into(),
        signature: custodian.sign(message.as_bytes()).to_bytes().to_vec().into(),
    };
    let approver = event(Body::SourceStatus(wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: "ann".into(),
        public_key: public_key.to_bytes().to_vec().into(),
        roles: vec![SourceRole::Approve.into()],
        approvals: vec![approval],
        ..Default::default()
    }));
    facts.apply(&noted(b"company", 1, &approver));
    let datasets = (0..DATASETS).map(|number| format!("{number:04x}")).collect();
    let request = event(Body::AccessRequest(wire::AccessRequest {
        request_id: "r".into(),
        scope: Some(wire::Scope { datasets, ..Default::default() }),
        justification: "customer reported a failed payment".into(),
        ..Default::default()
    }));
    assert!(facts.apply(&noted(b"gateway", 2, &request)).is_empty());
    let decision = event(Body::Decision(wire::Decision {
        request_id: "r".into(),
        verdict: wire::Verdict::Approve.into(),
        ..Default::default()
    }));
    assert!(facts.apply(&noted(b"ann", 3, &decision)).is_empty());
    facts
}

fn facts_of_an_event(criterion: &mut Criterion) {
    let mut facts = facts();
    let (plain, granted) = (access(""), access("r"));
    let bytes = plain.encode_to_vec();
    let mut group = criterion.benchmark_group("facts");
    group.bench_function("concerns/access=plain", |bencher| {
        let body = body(&bytes).unwrap();
        bencher.iter(|| Facts::concerns(black_box(body)));
    });
    for (name, event) in [("plain".to_owned(), plain), (format!("grant={DATASETS}"), granted)] {
        let noted = noted(b"gateway", 4, &event);
        group.bench_function(format!("assess/access={name}"), |bencher| {
            bencher.iter(|| facts.assess(black_box(&noted)));
        });
        group.bench_function(format!("apply/access={name}"), |bencher| {
            bencher.iter(|| facts.apply(black_box(&noted)));
        });
    }
    group.finish();
}

criterion_group!(benches, facts_of_an_event);
criterion_main!(benches);
