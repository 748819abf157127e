//! What a ledger says when it cannot keep up or its disk fails, and what it still has afterwards.

use std::{path::Path, sync::Arc};

use access_ledger_proto::wire;
use access_ledger_server::health::Unready;
use access_ledger_tests::{
    custodian::until,
    gate::{GatedDisk, Mode, Opener},
    model::{Acknowledged, Audit},
    node::{Clients, Node, Setup},
    source::{Refused, Sealed, Source},
};
use anyhow::{Context as _, ensure};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A ledger on a gated disk, with one source and one acknowledged batch.
struct Bench {
    disk: GatedDisk,
    _opener: Opener,
    node: Node,
    clients: Clients,
    source: Source,
    acknowledged: Acknowledged,
}

impl Bench {
    async fn new(folder: &Path, queue_bytes_max: usize) -> anyhow::Result<Self> {
        let disk = GatedDisk::default();
        let mut setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder) };
        setup.options.queue_bytes_max = queue_bytes_max;
        let node = setup.start().await?;
        let clients = node.clients();
        let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
        let mut acknowledged = Acknowledged::default();
        let sealed = source.record(3)?;
        acknowledged.note(&sealed, clients.record(&sealed).await?)?;
        let _opener = disk.opener();
        Ok(Self { disk, _opener, node, clients, source, acknowledged })
    }

    /// Sends a batch whose answer is awaited later.
    fn send(&self, sealed: &Sealed) -> Call {
        let (clients, sealed) = (self.clients.clone(), sealed.clone());
        Call(tokio::spawn(async move { clients.append(&sealed).await }))
    }

    /// Sends a batch, and waits until its sync stands at the gate.
    async fn hold(&self, sealed: &Sealed) -> anyhow::Result<Call> {
        self.disk.set(Mode::HeldSyncs);
        let call = self.send(sealed);
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || disk.wait_until_held()).await?;
        Ok(call)
    }
}

/// A call under way.
struct Call(tokio::task::JoinHandle<Result<wire::AppendResponse, tonic::Status>>);

impl Call {
    async fn refused(self) -> anyhow::Result<Refused> {
        match self.0.await? {
            Ok(_) => anyhow::bail!("was acknowledged"),
            Err(status) => Ok(Refused::of(&status)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back_and_the_batch_is_recorded_then() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::new(folder.path(), 8 << 10).await?;
    let batches: Vec<_> = (0..40).map(|_| bench.source.record(2)).collect::<Result<_, _>>()?;
    let first = bench.hold(&batches[0]).await?;
    let mut calls = tokio::task::JoinSet::new();
    for sealed in &batches[1..] {
        let (mut recorder, request) = (bench.clients.recorder.clone(), sealed.request());
        calls.spawn(async move { recorder.append(request).await });
    }
    // Whoever found room waits for the sync; only a refusal can come back before it.
    let full = calls.join_next().await.unwrap()?.unwrap_err();
    let full = Refused::of(&full);
    assert_eq!(full.kind(), (Code::ResourceExhausted, "QUEUE_FULL"));
    assert!(full.retry_after.is_some_and(|delay| !delay.is_zero()));
    bench.disk.set(Mode::Open);
    batches[0].place(&first.0.await??)?;
    while let Some(called) = calls.join_next().await {
        if let Err(status) = called? {
            let refused = Refused::of(&status);
            assert!(["QUEUE_FULL", "SEQUENCE_GAP"].contains(&&*refused.reason), "{refused:?}");
        }
    }
    for sealed in &batches {
        bench.acknowledged.note(sealed, bench.clients.record(sealed).await?)?;
    }
    let mut audit = Audit::new(&bench.node.vkey);
    audit.pull(&bench.clients).await?;
    bench.acknowledged.check(&audit)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_makes_all_durable_that_waited_for_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::new(folder.path(), 64 << 20).await?;
    let mut sources = Vec::new();
    for number in 0..20 {
        let name = format!("service-{number}");
        sources.push(bench.clients.enrolled(&name, number, &bench.node.vkey).await?);
    }
    let held = bench.source.record(1)?;
    let first = bench.hold(&held).await?;
    let before = bench.disk.syncs();
    let batches: Vec<_> =
        sources.iter_mut().map(|source| source.record(5)).collect::<Result<_, _>>()?;
    // Each is admitted on a stream that answers in order, so a refusal behind it tells that it
    // waits.
    let mut waiting = Vec::new();
    for sealed in &batches {
        let mut marker = sealed.batch.clone();
        marker.signature = vec![0; 64].into();
        let marker = wire::AppendRequest { batch: Some(marker) };
        let requests = tokio_stream::iter([sealed.request(), marker]);
        let answers = bench.clients.recorder.clone().append_stream(requests).await?;
        waiting.push((sealed, answers.into_inner()));
    }
    bench.clients.settled().await;
    bench.disk.set(Mode::Open);
    held.place(&first.0.await??)?;
    let mut sizes = std::collections::BTreeSet::new();
    for (sealed, mut answers) in waiting {
        let answer = answers.message().await?.unwrap();
        let receipt = answer.receipt.clone().unwrap();
        sizes.insert(sealed.verify(&receipt)?.checkpoint().size());
        assert!(answers.message().await.is_err());
    }
    let syncs = bench.disk.syncs() - before;
    // One checkpoint a group, and one sync each; one more for the batch that was held.
    assert_eq!(syncs, 1 + sizes.len() as u64);
    assert!(sizes.len() <= 3, "{} groups", sizes.len());
    Ok(())
}

async fn fails_for_good(mode: Mode) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::new(folder.path(), 64 << 20).await?;
    let held = bench.source.record(2)?;
    let behind = bench.source.record(2)?;
    let calls = if mode == Mode::FailedSyncs {
        // One batch stands in the sync that fails, another one in the queue behind it.
        let calls = vec![bench.hold(&held).await?, bench.send(&behind)];
        bench.clients.settled().await;
        bench.disk.set(mode);
        calls
    } else {
        bench.disk.set(mode);
        vec![bench.send(&held)]
    };
    for call in calls {
        let refused = call.refused().await?;
        ensure!(refused.code == Code::Unavailable, "{refused:?}");
    }
    // Even if the disk works again: what it did with the rest, nobody knows.
    bench.disk.set(Mode::Open);
    for sealed in [&held, &behind] {
        let refused = bench.send(sealed).refused().await?;
        assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    }
    assert_eq!(bench.node.health.hindrances(), [Unready::StorageFailed]);
    for (service, wanted) in [
        ("", ServingStatus::NotServing),
        ("access_ledger.v1.RecorderService", ServingStatus::NotServing),
        ("access_ledger.v1.AuditService", ServingStatus::Serving),
    ] {
        let health = HealthClient::new(bench.clients.channel.clone());
        let told = async || {
            let request = HealthCheckRequest { service: service.to_owned() };
            let status = health.clone().check(request).await?.into_inner().status();
            Ok((status == wanted).then_some(()))
        };
        until(told).await.with_context(|| format!("{service:?} is not {wanted:?}"))?;
    }
    let late = Source::new("late", 7, &bench.node.vkey)?;
    let enrolled = bench.clients.recorder.clone().enroll(late.enrolment()).await;
    let refused = Refused::of(&enrolled.err().context("enrolled all the same")?);
    assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));

    // Reads go on, and show what was acknowledged and nothing else.
    let mut audit = Audit::new(&bench.node.vkey);
    audit.pull(&bench.clients).await?;
    assert_eq!(audit.last_seq("payments"), 3);
    assert_eq!(bench.clients.last_seq("payments").await?, 3);
    bench.acknowledged.check(&audit)?;
    bench.node.stop().await?;

    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    audit.pull(&clients).await?;
    bench.acknowledged.check(&audit)?;
    // What was never answered may be there or not; repeating it settles that, once.
    for sealed in [&held, &behind] {
        bench.acknowledged.note(sealed, clients.record(sealed).await?)?;
    }
    audit.pull(&clients).await?;
    bench.acknowledged.check(&audit)?;
    assert_eq!(audit.last_seq("payments"), 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_shown_when_its_registration_is_durable_and_not_before() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let bench = Bench::new(folder.path(), 64 << 20).await?;
    bench.disk.set(Mode::HeldSyncs);
    let late = Source::new("late", 7, &bench.node.vkey)?;
    let call = tokio::spawn({
        let (mut recorder, request) = (bench.clients.recorder.clone(), late.enrolment());
        async move { recorder.enroll(request).await }
    });
    let disk = bench.disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_until_held()).await?;
    let shown = async || {
        let mut auditor = bench.clients.auditor.clone();
        let listed = auditor.list_sources(wire::ListSourcesRequest::default()).await;
        let listed = listed.unwrap().into_inner().sources;
        let request = wire::GetSourceRequest { source: "late".to_owned() };
        let is_found = auditor.get_source(request).await.is_ok();
        assert_eq!(listed.iter().any(|source| source.name == "late"), is_found);
        is_found
    };
    assert!(!shown().await);
    bench.disk.set(Mode::FailedSyncs);
    let refused = Refused::of(&call.await?.unwrap_err());
    assert_eq!(refused.kind(), (Code::Unavailable, "STORAGE_FAILED"));
    assert!(!shown().await, "an auditor is shown what the log does not hold");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_refuses_everyone_until_restart_and_loses_nothing_acknowledged()
-> anyhow::Result<()> {
    fails_for_good(Mode::FailedSyncs).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_everyone_until_restart_and_loses_nothing_acknowledged()
-> anyhow::Result<()> {
    fails_for_good(Mode::Full).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_refuses_everyone_until_restart_and_loses_nothing_acknowledged()
-> anyhow::Result<()> {
    fails_for_good(Mode::FailedWrites).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_read_only_refuses_everyone_until_restart_and_loses_nothing_acknowledged()
-> anyhow::Result<()> {
    fails_for_good(Mode::ReadOnly).await
}
