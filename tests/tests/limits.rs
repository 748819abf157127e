//! Whoever asks for too much: a principal beyond its limits, and a caller that plays with HTTP/2.

use std::time::Duration;

use access_ledger_client::connect::Credentials;
use access_ledger_proto::{hash::sha256, wire};
use access_ledger_server::identity::{Door, DoorFiles};
use access_ledger_tests::{
    node::{Clients, Node, Setup},
    pki::put,
    source::Refused,
};
use anyhow::{Context as _, ensure};
use h2::Reason;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
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
