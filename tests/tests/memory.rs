//! What callers can make a ledger hold: its memory has a bound, whatever they do not read.

use std::time::Duration;

use access_ledger_client::connect::{self, Link};
use access_ledger_proto::wire::{
    self, Outcome, audit_service_client::AuditServiceClient,
    recorder_service_client::RecorderServiceClient,
};
use access_ledger_tests::{node::Clients, parties::access, process::Process, source::Source};
use anyhow::{Context as _, ensure};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::Request;

/// Connections without a call, and what each may hold.
const IDLE: u64 = 500;
const IDLE_BYTES: u64 = 64 << 10;

/// Answers that nobody reads, and what each may hold: messages, from disk to socket.
const UNREAD: u64 = 64;
const UNREAD_BYTES: u64 = 4_500 << 10;

/// The log, which each of those answers is.
const LOG_BYTES: usize = 16 << 20;

/// Streams whose receipts nobody takes, each alone on its connection, and what each may hold:
/// requests in the connection's window, batches with their receipts, and what waits to be sent.
const STREAMS: u64 = 16;
const STREAM_BYTES: u64 = 4_500 << 10;

/// Batches of such a stream: its window, and what is under way.
const BATCHES_MAX: usize = 4_096;

/// What else the ledger may come to hold meanwhile.
const SLACK_BYTES: u64 = 32 << 20;

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection over which the ledger may send what it likes, and of each answer as little as is
/// usual.
fn link(ledger: &Process) -> anyhow::Result<Link> {
    let endpoint = connect::endpoint(&format!("http://{}", ledger.address))?;
    let endpoint = endpoint.initial_connection_window_size(1 << 30);
    Ok(endpoint.initial_stream_window_size(65_535).connect_lazy().into())
}

/// Memory once it does not grow any more.
async fn settled(ledger: &Process) -> anyhow::Result<u64> {
    let mut before = 0;
    loop {
        let now = ledger.resident_bytes()?;
        if now <= before {
            return Ok(before);
        }
        before = now;
        // Nothing tells that a server has nothing more to do.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_under_idle_callers_and_those_that_never_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let start = || Process::serve(&data, &[]);
    let ledger = tokio::task::block_in_place(start)?;
    let clients = Clients::connect(ledger.address).await?;
    let mut source = clients.enrolled("payments", 1, &ledger.vkey).await?;
    let mut recorded = 0;
    while recorded < LOG_BYTES {
        let mut event = || {
            let mut event = access("users", "", Outcome::Allowed);
            if let Some(wire::event::Body::Access(access)) = &mut event.body {
                access.justification = "because ".repeat(100);
            }
            source.now(event)
        };
        let events: Vec<_> = (0..1_000).map(|_| event()).collect();
        recorded += events.iter().map(|event| event.len()).sum::<usize>();
        clients.record(&source.seal(events)?).await?;
    }
    let before = settled(&ledger).await?;

    let mut idle = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..IDLE {
        let stream = TcpStream::connect(ledger.address).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        idle.spawn(connection);
        let mut client = client.ready().await?;
        let call = Request::get("http://ledger/checkpoint").body(())?;
        let answer = client.send_request(call, true)?.0.await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        senders.push(client);
    }
    let with_idle = settled(&ledger).await?;
    let held = with_idle.saturating_sub(before);
    let bound = IDLE * IDLE_BYTES + SLACK_BYTES;
    ensure!(held <= bound, "{held} bytes for {IDLE} idle connections");

    let auditor = AuditServiceClient::new(link(&ledger)?);
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let all = wire::ReadEntriesRequest { with_events: true, ..Default::default() };
        unread.push(auditor.clone().read_entries(all).await?.into_inner());
    }
    let with_answers = settled(&ledger).await?;
    let held = with_answers.saturating_sub(with_idle);
    let bound = UNREAD * UNREAD_BYTES + SLACK_BYTES;
    ensure!(held <= bound, "{held} bytes for {UNREAD} answers that nobody reads");

    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let source = clients.enrolled(&format!("deaf-{number}"), number, &ledger.vkey).await?;
        streams.spawn(record_unread(RecorderServiceClient::new(link(&ledger)?), source));
    }
    let streams = streams.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let held = settled(&ledger).await?.saturating_sub(with_answers);
    let bound = STREAMS * STREAM_BYTES + SLACK_BYTES;
    ensure!(held <= bound, "{held} bytes for {STREAMS} streams whose receipts nobody takes");

    // Everybody else is served, and those who begin to read get all of it.
    timeout(PATIENCE, clients.record(&clients.enrolled("shop", 2, &ledger.vkey).await?.record(1)?))
        .await
        .context("nobody else is served")??;
    drop(unread.drain(1..));
    let mut read = 0;
    let mut first = unread.pop().context("no answer")?;
    while let Some(run) = timeout(PATIENCE, first.message()).await?? {
        read += run.run.unwrap_or_default().events.iter().map(|event| event.len()).sum::<usize>();
    }
    ensure!(read >= LOG_BYTES, "{read}");
    drop((streams, senders, idle));
    Ok(())
}

/// Sends batches until the ledger takes no more, because nobody takes their receipts; both ends of
/// the stream.
async fn record_unread(
    mut recorder: RecorderServiceClient<Link>,
    mut source: Source,
) -> anyhow::Result<impl Sized> {
    let (sender, requests) = mpsc::channel(1);
    let receipts = recorder.append_stream(ReceiverStream::new(requests)).await?.into_inner();
    let mut batches = 0;
    // The ledger stops reading when it holds enough that is not taken.
    while timeout(Duration::from_secs(3), sender.send(source.record(1)?.request())).await.is_ok() {
        batches += 1;
        ensure!(batches <= BATCHES_MAX, "the ledger takes without end what nobody acknowledges");
    }
    Ok((sender, receipts))
}
