//! Whoever asks for too much: a principal beyond its limits, and a caller that plays with HTTP/2.

use std::time::Duration;

use access_ledger_client::connect::Credentials;
use access_ledger_proto::{
    hash::sha256,
    wire::{self, get_receipt_request::Entry},
};
use access_ledger_server::identity::{Door, DoorFiles};
use access_ledger_tests::{
    node::{Clients, Node, Setup},
    pki::put,
    source::Refused,
};
use anyhow::{Context as _, ensure};
use h2::Reason;
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::{Code, Status, codegen::http::Request};

const PATIENCE: Duration = Duration::from_secs(30);

/// A ledger with an auditor `noisy` under these limits, and one `quiet` without any.
async fn scene(limits: &str) -> anyhow::Result<(TempDir, Node)> {
    let folder = tempfile::tempdir()?;
    let principal = |name: &str, limits: &str| {
        let digest = sha256(name.as_bytes());
        format!(
            "[[principal]]\nname = \"{name}\"\nroles = [\"audit\"]\n\
             tokens = [\"sha256:{digest}\"]\nlimits = {{ {limits} }}\n"
        )
    };
    let path = folder.path().join("principals.toml");
    put(&path, (principal("noisy", limits) + &principal("quiet", "")).as_bytes())?;
    let setup = Setup::new(&folder.path().join("data"));
    let door = Door::open(&setup.disk, DoorFiles { tls: None, principals: Some(path) })?;
    let node = Setup { door, ..setup }.start().await?;
    Ok((folder, node))
}

fn clients(node: &Node, name: &str) -> anyhow::Result<Clients> {
    Ok(Clients::over(Credentials::default().token(name)?.link(&node.url)?))
}

async fn ask(clients: &Clients) -> Result<(), Status> {
    let request = wire::GetCheckpointRequest::default();
    clients.auditor.clone().get_checkpoint(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_calls_a_second_are_told_when_to_come_back() -> anyhow::Result<()> {
    let (_folder, node) = scene("requests_per_second = 1").await?;
    let (noisy, quiet) = (clients(&node, "noisy")?, clients(&node, "quiet")?);
    let mut refused = None;
    for _ in 0..1_000 {
        ask(&quiet).await?;
        if let Err(status) = ask(&noisy).await {
            refused = Some(Refused::of(&status));
            break;
        }
    }
    let refused = refused.context("as many calls as one likes")?;
    assert_eq!(refused.kind(), (Code::ResourceExhausted, "RATE_EXCEEDED"));
    let retry_after = refused.retry_after.context("no time to come back")?;
    ensure!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
    // Whoever goes on asking gets its turn again, and nobody else notices.
    let come_back = async {
        while ask(&noisy).await.is_err() {
            ask(&quiet).await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, come_back).await??;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_are_counted_until_their_answer_is_read() -> anyhow::Result<()> {
    let (_folder, node) = scene("calls = 2").await?;
    let (noisy, quiet) = (clients(&node, "noisy")?, clients(&node, "quiet")?);
    let watch = async || {
        let request = wire::WatchRequest { first_index: 1, with_events: false };
        noisy.auditor.clone().watch(request).await
    };
    let (first, second) = (watch().await?, watch().await?);
    let refused = ask(&noisy).await.err().context("a third call at once")?;
    assert_eq!(Refused::of(&refused).kind(), (Code::ResourceExhausted, "CALLS_EXCEEDED"));
    ask(&quiet).await?;
    drop(first);
    let come_back = async { while ask(&noisy).await.is_err() {} };
    timeout(PATIENCE, come_back).await.context("the place of an ended call is not free")?;
    drop(second);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_and_taking_back_streams_costs_the_connection() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let stream = TcpStream::connect(node.address).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let ended = tokio::spawn(connection);
    let storm = async {
        for _ in 0..100_000 {
            client = client.ready().await?;
            let call = Request::post("http://ledger/grpc.health.v1.Health/Check");
            let call = call.header("content-type", "application/grpc").body(())?;
            client.send_request(call, false)?.1.send_reset(Reason::CANCEL);
        }
        anyhow::Ok(())
    };
    let stormed = timeout(PATIENCE, storm).await?;
    ensure!(stormed.is_err(), "as many streams as one likes");
    let error = timeout(PATIENCE, ended).await??.err().context("the connection ended well")?;
    // The farewell is lost when the socket closes under what is still being sent.
    let is_farewell = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    ensure!(is_farewell || error.is_io(), "{error}");
    // Everybody else is served.
    ask(&Clients::connect(node.address).await?).await?;
    node.stop().await
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What makes a server take back streams itself counts as much as taking them back (CVE-2025-8671).
#[tokio::test(flavor = "multi_thread")]
async fn having_streams_taken_back_costs_the_connection() -> anyhow::Result<()> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let stream = TcpStream::connect(node.address).await?;
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        // `:method: POST`, `:scheme: http`, `:path: /`, of the static table (RFC 7541, appendix A),
        // and `content-length: 1`.
        let head = [0x83, 0x86, 0x84, 0x0f, 0x0d, 1, b'1'];
        for stream in (1..200_000).step_by(2) {
            let longer = frame(DATA, 0, stream, &[0; 2]);
            write.write_all(&[frame(HEADERS, 4, stream, &head), longer].concat()).await?;
        }
        std::io::Result::Ok(write)
    });
    let mut told = Vec::new();
    // How it ends is said in a frame, unless the socket closes under what is still being sent.
    let ended = timeout(PATIENCE, read.read_to_end(&mut told)).await?;
    let farewell = told.windows(17).any(|frame| {
        matches!(frame, [_, _, _, kind, _, 0, 0, 0, 0, .., 0, 0, 0, reason]
            if *kind == GOAWAY && *reason == ENHANCE_YOUR_CALM)
    });
    ensure!(farewell || ended.is_err(), "the connection ended well");
    sending.abort();
    ask(&Clients::connect(node.address).await?).await?;
    node.stop().await
}

/// More than any other call that goes on, health would hold a place for who is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_watches_the_health_for_ever() -> anyhow::Result<()> {
    let (_folder, node) = scene("").await?;
    let clients = Clients::connect(node.address).await?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(clients.channel);
    let watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await;
    let refused = Refused::of(&watch.err().context("let in")?);
    assert_eq!(refused.reason, "UNAUTHENTICATED");
    health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_at_once_are_limited_and_short_ones_are_not() -> anyhow::Result<()> {
    let (_folder, node) = scene("").await?;
    let (noisy, quiet) = (clients(&node, "noisy")?, clients(&node, "quiet")?);
    let newest = wire::WatchRequest { first_index: 1, with_events: false };
    let mut watched = Vec::new();
    let refused = loop {
        ensure!(watched.len() <= 256, "as many as one likes");
        match noisy.auditor.clone().watch(newest).await {
            Ok(watch) => watched.push(watch),
            Err(refused) => break Refused::of(&refused),
        }
    };
    assert_eq!(refused.kind(), (Code::ResourceExhausted, "CALLS_EXCEEDED"));
    assert_eq!(watched.len(), 256);
    ask(&noisy).await?;
    quiet.auditor.clone().watch(newest).await?;
    drop(watched);
    let come_back = async { while noisy.auditor.clone().watch(newest).await.is_err() {} };
    timeout(PATIENCE, come_back).await.context("the place of an ended call is not free")?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_the_limit_wait_and_others_do_not() -> anyhow::Result<()> {
    const PER_SECOND: usize = 50_000;
    let (_folder, node) = scene(&format!("bytes_per_second = {PER_SECOND}")).await?;
    let (noisy, quiet) = (clients(&node, "noisy")?, clients(&node, "quiet")?);
    let began = Instant::now();
    let (mut received, mut calls) = (0, 0);
    // A second's worth passes at once, another one takes its time.
    while received < 2 * PER_SECOND {
        let request = wire::GetReceiptRequest { entry: Some(Entry::Index(0)) };
        let receipt = noisy.auditor.clone().get_receipt(request).await?;
        received += receipt.into_inner().encoded_len();
        calls += 1;
        ask(&quiet).await?;
    }
    ensure!(began.elapsed() >= Duration::from_millis(900), "{:?} {calls}", began.elapsed());
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let stream = TcpStream::connect(node.address).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let call = Request::get("http://ledger/checkpoint").header("x-long", "x".repeat(64 << 10));
    let answer = client.send_request(call.body(())?, true)?.0;
    let status = timeout(PATIENCE, answer).await?.map(|answer| answer.status().as_u16());
    ensure!(matches!(status, Ok(431) | Err(_)), "{status:?}");
    drop(client);
    connection.abort();
    ask(&Clients::connect(node.address).await?).await?;
    node.stop().await
}
