//! Every bad input has its answer, nothing of it is recorded, and the ledger goes on.

use access_ledger_proto::{
    event::AHEAD_NANOS_MAX,
    wire::{self, SourceRole, event::Body},
};
use access_ledger_server::os::{Clock as _, SystemClock};
use access_ledger_tests::{
    node::{Clients, Node},
    source::{Refused, Source},
};
use anyhow::ensure;
use bytes::Bytes;
use prost::Message as _;
use tonic::Code;

/// A ledger with one source that recorded one batch.
struct Bench {
    _folder: tempfile::TempDir,
    node: Node,
    clients: Clients,
    source: Source,
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path()).await?;
        let clients = node.clients();
        let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
        clients.record(&source.record(3)?).await?;
        Ok(Self { _folder: folder, node, clients, source })
    }

    /// A good batch of two events that is not sent yet; its numbers are free.
    fn next_batch(&mut self) -> anyhow::Result<wire::SealedBatch> {
        let events = self.source.events(2);
        Ok(self.source.seal_at(self.source.next_seq, events)?.batch)
    }

    /// Sends a batch that must be refused; nothing of it may be recorded, and the next good batch
    /// must be.
    async fn refused(&mut self, batch: wire::SealedBatch) -> anyhow::Result<Refused> {
        let before = self.clients.size(&self.node.vkey).await?;
        let refused = self.clients.refused(batch).await?;
        ensure!(self.clients.size(&self.node.vkey).await? == before, "something was recorded");
        let place = self.clients.record(&self.source.record(1)?).await?;
        ensure!(place.first_index == before, "the next batch is not next");
        Ok(refused)
    }

    /// The same for a batch of two good events and a bad one in the middle.
    async fn refused_event(&mut self, bad: Bytes) -> anyhow::Result<Refused> {
        let mut events = self.source.events(2);
        events.insert(1, bad);
        let sealed = self.source.seal_at(self.source.next_seq, events)?;
        self.refused(sealed.batch).await
    }
}

/// A good event that somebody spoils.
fn spoiled(source: &mut Source, spoil: impl FnOnce(&mut wire::Event)) -> anyhow::Result<Bytes> {
    let good = source.events(1).remove(0);
    let mut event = wire::Event::decode(good)?;
    spoil(&mut event);
    Ok(event.encode_to_vec().into())
}

#[expect(clippy::panic, reason = "all events of these tests are accesses")]
fn access_of(event: &mut wire::Event) -> &mut wire::Access {
    match event.body.get_or_insert_with(|| Body::Access(wire::Access::default())) {
        Body::Access(access) => access,
        other => panic!("not an access: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_named_with_its_field_and_its_place_in_the_batch() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let ahead = i64::try_from((SystemClock.now_nanos() + AHEAD_NANOS_MAX) / 1_000_000_000 + 60)?;
    let later = Some(prost_types::Timestamp { seconds: ahead, nanos: 0 });
    type Spoil = Box<dyn FnOnce(&mut wire::Event)>;
    let cases: Vec<(&str, Spoil)> = vec![
        ("event_id", Box::new(|event| event.event_id = Bytes::from_static(&[1; 15]))),
        ("event_id", Box::new(|event| event.event_id = Bytes::new())),
        ("occurred_at", Box::new(|event| event.occurred_at = None)),
        ("occurred_at", Box::new(move |event| event.occurred_at = later)),
        ("body", Box::new(|event| event.body = None)),
        ("correlation_id", Box::new(|event| event.correlation_id = "a\u{202e}b".into())),
        ("correlation_id", Box::new(|event| event.correlation_id = "a\u{0}b".into())),
        ("correlation_id", Box::new(|event| event.correlation_id = "x".repeat(257))),
        ("trace_id", Box::new(|event| event.trace_id = Bytes::from_static(b"short"))),
        ("access.action", Box::new(|event| access_of(event).action = 9_999)),
        ("access.action", Box::new(|event| access_of(event).action = 0)),
        ("access.outcome", Box::new(|event| access_of(event).outcome = 0)),
        ("access.data", Box::new(|event| access_of(event).data.clear())),
        ("access.data[0].dataset", Box::new(|event| access_of(event).data[0].dataset.clear())),
        (
            "access.data[0].subject_jurisdiction",
            Box::new(|event| access_of(event).data[0].subject_jurisdiction = "us".into()),
        ),
    ];
    for (path, spoil) in cases {
        let bad = spoiled(&mut bench.source, spoil)?;
        let refused = bench.refused_event(bad).await?;
        assert_eq!(refused.kind(), (Code::InvalidArgument, "EVENT_INVALID"), "{path}");
        assert_eq!(refused.field, Some(format!("batch.events[1].{path}")));
        assert_eq!(refused.retry_after, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_none_or_too_large_is_named_by_its_place() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let large = spoiled(&mut bench.source, |event| {
        let data = access_of(event).data[0].clone();
        access_of(event).data.resize(255, data);
        let prose = "x".repeat(256);
        for data in &mut access_of(event).data {
            data.datastore_type.clone_from(&prose);
        }
    })?;
    assert!(large.len() > 32_768);
    for bad in [Bytes::new(), Bytes::from_static(b"\xff\xff\xff"), large] {
        let refused = bench.refused_event(bad).await?;
        assert_eq!(refused.kind(), (Code::InvalidArgument, "EVENT_INVALID"));
        assert_eq!(refused.field.as_deref(), Some("batch.events[1]"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_batch_is_refused_with_its_field() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let good = bench.next_batch()?;
    let event = good.events[0].clone();
    let cases = [
        ("batch.source", wire::SealedBatch { source: "Payments".into(), ..good.clone() }),
        ("batch.source", wire::SealedBatch { source: String::new(), ..good.clone() }),
        ("batch.key_id", wire::SealedBatch { key_id: Bytes::new(), ..good.clone() }),
        (
            "batch.signature",
            wire::SealedBatch { signature: good.signature.slice(1..), ..good.clone() },
        ),
        ("batch.events", wire::SealedBatch { events: Vec::new(), ..good.clone() }),
        ("batch.events", wire::SealedBatch { events: vec![event; 4_097], ..good.clone() }),
        ("batch.first_seq", wire::SealedBatch { first_seq: 0, ..good.clone() }),
        ("batch.first_seq", wire::SealedBatch { first_seq: u64::MAX, ..good.clone() }),
    ];
    for (field, batch) in cases {
        let refused = bench.refused(batch).await?;
        assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"), "{field}");
        assert_eq!(refused.field.as_deref(), Some(field));
    }
    let missing = bench.clients.recorder.clone().append(wire::AppendRequest { batch: None }).await;
    let refused = Refused::of(&missing.unwrap_err());
    assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"));
    assert_eq!(refused.field.as_deref(), Some("batch"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_too_many_bytes_is_refused_whether_or_not_a_message_may_hold_it()
-> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let event = spoiled(&mut bench.source, |event| {
        access_of(event).justification = "x".repeat(4_000);
    })?;
    for bytes in [4_300_000, 8_000_000] {
        let events = vec![event.clone(); bytes / event.len()];
        let sealed = bench.source.seal_at(bench.source.next_seq, events)?;
        let refused = bench.refused(sealed.batch).await?;
        assert_eq!(refused.code, Code::InvalidArgument, "{bytes} bytes: {refused:?}");
        assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_at_every_limit_is_recorded() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let most = bench.source.events(4_096);
    let most = bench.source.seal(most)?;
    bench.clients.record(&most).await?;
    let event = spoiled(&mut bench.source, |event| {
        access_of(event).justification = "x".repeat(4_000);
    })?;
    let largest = vec![event.clone(); (4 << 20) / event.len()];
    let largest = bench.source.seal(largest)?;
    bench.clients.record(&largest).await?;
    assert_eq!(bench.clients.last_seq("payments").await?, bench.source.next_seq - 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_does_not_hold_is_refused() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let good = bench.next_batch()?;
    let mut signature = good.signature.to_vec();
    signature[63] ^= 1;
    let mut fewer = good.events.clone();
    fewer.pop();
    let mut swapped = good.events.clone();
    swapped.swap(0, 1);
    let stranger = Source::new("payments", 2, &bench.node.vkey)?;
    let strangers = stranger.seal_at(bench.source.next_seq, good.events.clone())?.batch;
    let nobody = Source::new("nobody", 3, &bench.node.vkey)?;
    let nobodys = nobody.seal_at(1, good.events.clone())?.batch;
    let borrowed = wire::SealedBatch { signature: strangers.signature.clone(), ..good.clone() };
    let cases = [
        ("SEAL_INVALID", wire::SealedBatch { signature: signature.into(), ..good.clone() }),
        ("SEAL_INVALID", wire::SealedBatch { events: fewer, ..good.clone() }),
        ("SEAL_INVALID", wire::SealedBatch { events: swapped, ..good.clone() }),
        ("SEAL_INVALID", wire::SealedBatch { first_seq: good.first_seq + 1, ..good.clone() }),
        ("SEAL_INVALID", borrowed),
        ("KEY_UNKNOWN", strangers),
        ("SOURCE_UNKNOWN", nobodys),
    ];
    for (reason, batch) in cases {
        let refused = bench.refused(batch).await?;
        assert_eq!(refused.kind(), (Code::PermissionDenied, reason));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_for_another_ledger_is_refused() -> anyhow::Result<()> {
    use access_ledger_proto::note::{KeyType, Signer};
    let mut bench = Bench::new().await?;
    let elsewhere = Signer::new("elsewhere.example", KeyType::Ed25519, [9; 32])?;
    let mut twin = Source::new("payments", 1, elsewhere.verifier())?;
    twin.next_seq = bench.source.next_seq;
    let refused = bench.refused(twin.record(2)?.batch).await?;
    assert_eq!(refused.kind(), (Code::PermissionDenied, "SEAL_INVALID"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_rules_is_refused_without_the_role_or_beside_other_events()
-> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let child = Source::new("payments/pod", 4, &bench.node.vkey)?;
    let registration = bench.source.status(child.registration(&[SourceRole::Record]));
    let sealed = bench.source.seal_at(bench.source.next_seq, vec![registration.clone()])?;
    let refused = bench.refused(sealed.batch).await?;
    assert_eq!(refused.kind(), (Code::PermissionDenied, "ROLE_MISSING"));

    let mut events = bench.source.events(1);
    events.push(registration);
    let sealed = bench.source.seal_at(bench.source.next_seq, events)?;
    let refused = bench.refused(sealed.batch).await?;
    assert_eq!(refused.kind(), (Code::InvalidArgument, "BATCH_INVALID"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_refusal_ends_a_stream_and_what_came_before_is_answered() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    let good = bench.source.record(2)?;
    let next = bench.source.next_seq;
    let bad = bench.source.seal_at(next, vec![Bytes::from_static(b"\x08")])?;
    let after = bench.source.record(1)?;
    let requests = tokio_stream::iter([good.request(), bad.request(), after.request()]);
    let mut answers = bench.clients.recorder.clone().append_stream(requests).await?.into_inner();
    good.place(&answers.message().await?.unwrap())?;
    let refused = Refused::of(&answers.message().await.unwrap_err());
    assert_eq!(refused.kind(), (Code::InvalidArgument, "EVENT_INVALID"));
    assert!(answers.message().await?.is_none());
    assert_eq!(bench.clients.last_seq("payments").await?, next - 1);
    // The batch behind the bad one can be sent again: its number is still the next.
    bench.clients.record(&after).await?;
    Ok(())
}
