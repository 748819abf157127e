//! A server that is told to stop answers what it took, says that it stops, and ends with exit code
//! 0.

use access_ledger_proto::{checkpoint::VerifiedCheckpoint, wire};
use access_ledger_tests::{
    gate::{GatedDisk, Mode},
    model::{Acknowledged, Audit},
    node::{Clients, Setup},
    process::Process,
    source::{Refused, Sealed},
};
use anyhow::ensure;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stopped_under_load_answers_what_it_took_and_exits_with_0() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let process = Process::serve(&data, &[])?;
    let vkey = process.vkey.clone();
    let clients = Clients::connect(process.address).await?;
    let mut streams = tokio::task::JoinSet::new();
    let begun = Arc::new(tokio::sync::Barrier::new(5));
    for number in 0..4 {
        let clients = clients.clone();
        let begun = begun.clone();
        let mut source = clients.enrolled(&format!("service-{number}"), number, &vkey).await?;
        streams.spawn(async move {
            let batches: Vec<_> = (0..400).map(|_| source.record(8)).collect::<Result<_, _>>()?;
            let requests: Vec<_> = batches.iter().map(Sealed::request).collect();
            let mut recorder = clients.recorder.clone();
            let endless = tokio_stream::StreamExt::chain(
                tokio_stream::iter(requests),
                tokio_stream::pending(),
            );
            let mut answers = recorder.append_stream(endless).await?.into_inner();
            let mut places = Vec::new();
            let end = loop {
                match answers.message().await {
                    Ok(Some(answer)) => places.push(batches[places.len()].place(&answer)?),
                    Ok(None) => anyhow::bail!("the stream ended without a reason"),
                    Err(status) => break Refused::of(&status),
                }
                if places.len() == 1 {
                    begun.wait().await;
                }
            };
            anyhow::Ok((batches, places, end))
        });
    }
    begun.wait().await;
    process.terminate()?;
    let mut acknowledged = Acknowledged::default();
    let mut answered = Vec::new();
    while let Some(streamed) = streams.join_next().await {
        let (batches, places, end) = streamed??;
        assert_eq!(end.kind(), (Code::Unavailable, "STOPPING"));
        assert!(end.retry_after.is_some());
        answered.push((batches[0].batch.source.clone(), 8 * places.len() as u64));
        for (sealed, place) in batches.iter().zip(places) {
            acknowledged.note(sealed, place)?;
        }
    }
    drop(clients);
    let status = tokio::task::spawn_blocking(move || process.wait()).await??;
    assert_eq!(status.code(), Some(0));

    let note = std::fs::read(data.join("checkpoint"))?;
    let kept = VerifiedCheckpoint::open(&note, &vkey, &[])?;
    let process = Process::serve(&data, &[])?;
    let clients = Clients::connect(process.address).await?;
    let mut audit = Audit::new(&vkey);
    let head = audit.pull(&clients).await?;
    assert_eq!((kept.size(), kept.root()), (head.size(), head.root()));
    acknowledged.check(&audit)?;
    for (source, last_seq) in answered {
        // Everything that was taken was answered before the stream ended.
        assert_eq!(clients.last_seq(&source).await?, last_seq, "{source}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_is_not_serving_and_still_answers_the_calls_under_way()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let _opener = disk.opener();
    let setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let watched = HealthCheckRequest { service: "access_ledger.v1.RecorderService".to_owned() };
    let mut health = HealthClient::new(clients.channel.clone()).watch(watched).await?.into_inner();
    let status =
        |answer: Option<tonic_health::pb::HealthCheckResponse>| answer.map(|it| it.status());
    assert_eq!(status(health.message().await?), Some(ServingStatus::Serving));

    disk.set(Mode::HeldSyncs);
    let sealed = source.record(3)?;
    let call = tokio::spawn({
        let (clients, sealed) = (clients.clone(), sealed.clone());
        async move { clients.append(&sealed).await }
    });
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await?;
    let request = wire::WatchRequest { first_index: 0, with_events: false };
    let mut watch = clients.auditor.clone().watch(request).await?.into_inner();
    watch.message().await?;

    let stopping = node.begin_stop();
    assert_eq!(status(health.message().await?), Some(ServingStatus::NotServing));
    let ended = Refused::of(&watch.message().await.unwrap_err());
    assert_eq!(ended.kind(), (Code::Unavailable, "STOPPING"));
    disk.set(Mode::Open);
    sealed.place(&call.await??)?;
    // Somebody who watches the health for ever does not keep the server.
    let begun = tokio::time::Instant::now();
    drop((clients, watch));
    stopping.finish().await?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    assert!(health.message().await.is_err() || health.message().await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_browsers_do_not_hold_up_a_stop() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Setup::new(folder.path()).start().await?;
    // One that says nothing, one that keeps its connection for later.
    let silent = TcpStream::connect(node.address).await?;
    let mut kept = TcpStream::connect(node.address).await?;
    kept.write_all(b"GET /checkpoint HTTP/1.1\r\nhost: ledger\r\n\r\n").await?;
    let mut answer = [0; 64];
    ensure!(kept.read(&mut answer).await? > 0, "no answer");
    tokio::time::timeout(STOP_TIME, node.stop()).await??;
    drop((silent, kept));
    Ok(())
}

/// Far less than calls that do not end are given.
const STOP_TIME: Duration = Duration::from_secs(10);
