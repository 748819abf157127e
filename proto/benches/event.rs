//! What it costs to judge an event, beside what it would cost to decode it.

use std::hint::black_box;

use access_ledger_proto::{
    event::{body, validate},
    wire::{self, event::Body},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

/// Nanoseconds since the Unix epoch.
const NOW: u64 = 1_790_000_000_000_000_000;

/// Bytes of the event.
const LEN: usize = 320;

/// An access as a gateway records it: who, with what, which data, why.
fn access() -> Vec<u8> {
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![wire::Data {
            datastore_type: "mysql".into(),
            dataset: "accounts.profile".into(),
            region: "eu-west-1".into(),
            subject_jurisdiction: "IE".into(),
            boundary: wire::Boundary::Protected.into(),
            sensitivity: wire::Sensitivity::Confidential.into(),
            categories: vec![1, 2, 5],
            subject_tokens: vec![vec![7; 16].into()],
            records: 1,
            ..Default::default()
        }],
        purpose: wire::Purpose::CustomerSupport.into(),
        grant_id: "G-48213".into(),
        outcome: wire::Outcome::Allowed.into(),
        policy_version: "2026-03".into(),
        records: 1,
        bytes: 2_048,
        ..Default::default()
    };
    let mut event = wire::Event {
        event_id: vec![9; 16].into(),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_789_999_999, nanos: 123_456_789 }),
        correlation_id: "CASE-48213".into(),
        tool: Some(wire::Tool {
            id: "support-console".into(),
            version: "4.12.0".into(),
            gateway: "gw-eu-1".into(),
            ..Default::default()
        }),
        actor: Some(wire::Principal {
            id: "p-1f83a90b".into(),
            kind: wire::PrincipalKind::Human.into(),
            entity: "example-eu".into(),
            entity_country: "IE".into(),
            office_country: "IE".into(),
            physical_country: "IE".into(),
            location_evidence: wire::LocationEvidence::DeviceAttested.into(),
            session_id: "s-66021".into(),
            ..Default::default()
        }),
        body: Some(Body::Access(access)),
        ..Default::default()
    };
    let missing = LEN.saturating_sub(event.encoded_len());
    event.correlation_id.extend(std::iter::repeat_n('0', missing));
    event.encode_to_vec()
}

fn bench(criterion: &mut Criterion) {
    let event = access();
    assert_eq!(event.len(), LEN);
    assert!(validate(&event, NOW).is_ok());
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("validate/bytes={LEN}"), |bencher| {
        bencher.iter(|| validate(black_box(&event), NOW));
    });
    group.bench_function(format!("body/bytes={LEN}"), |bencher| {
        bencher.iter(|| body(black_box(&event)));
    });
    // As tonic decodes it: `bytes` fields are slices of the message.
    let shared = bytes::Bytes::from(event);
    group.bench_function(format!("prost_decode/bytes={LEN}"), |bencher| {
        bencher.iter(|| wire::Event::decode(black_box(shared.clone())));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
