//! What an operator's probes see: a process lives from its start, and is ready while it can do its
//! work. (The storage that fails: `failure`; the custodian that halts: `custodian`.)

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use access_ledger_proto::note::{KeyType, Signer};
use access_ledger_tests::{
    custodian::until,
    pages,
    pki::put,
    process::{Process, run_server},
};
use anyhow::{Context as _, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tokio::time::timeout;

/// The status of a page, and the reasons in its body.
async fn probe(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Vec<String>)> {
    let answer = pages::get(address, path, &[]).await?;
    ensure!(answer.header("content-type") == Some("application/json"), "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body)?;
    let reasons =
        body.get("hindrances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let reason =
        |why: &Value| why.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((answer.status, reasons.iter().map(reason).collect()))
}

/// Waits until `/readyz` says this.
async fn says(address: SocketAddr, reasons: &[&str]) -> anyhow::Result<()> {
    let mut last = None;
    until(async || {
        // Nobody listens before the process has begun; whoever does must answer.
        let found = timeout(Duration::from_secs(10), probe(address, "/readyz")).await?;
        let Ok(found) = found else { return Ok(None) };
        let is_it = found.1 == reasons;
        ensure!((found.0 == 200) == found.1.is_empty(), "{found:?}");
        last = Some(found);
        Ok(is_it.then_some(()))
    })
    .await
    .with_context(|| format!("waited for {reasons:?}, last {last:?}"))?;
    ensure!(probe(address, "/healthz").await?.0 == 200);
    Ok(())
}

/// An address where nobody listens.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_is_ready_once_it_holds_what_its_ledger_signed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let ledger = Process::serve(&data, &[])?;
    says(ledger.metrics_address, &[]).await?;
    let (address, vkey) = (ledger.address, ledger.vkey.clone());
    let copy = folder.path().join("custodian");
    let nowhere = Process::custodian(&copy, free_address()?, &vkey, &[])?;
    says(nowhere.metrics_address, &["NOTHING_HELD", "LEDGER_UNHEARD"]).await?;
    nowhere.kill()?;
    let custodian = Process::custodian(&copy, address, &vkey, &[])?;
    says(custodian.metrics_address, &[]).await
}

/// A witness that takes connections and never says anything.
fn silent_witness(policy: &Path, vkey: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let witness = Signer::new("witness.example", KeyType::CosignatureV1, [7; 32])?;
    let (key, address) = (witness.verifier(), listener.local_addr()?);
    let text = format!("log {vkey}\nwitness w {key} http://{address}\nquorum w\n");
    put(policy, text.as_bytes())?;
    Ok(listener)
}

/// Whatever a ledger's disk makes it wait for at the start, it answers its probes, on one thread
/// as well: else they would kill it before it is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_on_one_thread_lives_while_its_disk_lets_it_wait() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    run_server(&["init", "--origin", "ledger.example/health"], &data)?;
    let slow = data.join("erased.toml");
    mknodat(CWD, &slow, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;

    let address = free_address()?;
    let metrics = address.to_string();
    let serving = thread::spawn(move || {
        Process::serve(&data, &["--threads", "1", "--metrics-listen", &metrics])
    });
    says(address, &["OPENING"]).await?;
    // Whoever reads it now finds its end; the ledger puts a file in its place.
    thread::spawn(move || while OpenOptions::new().write(true).open(&slow).is_ok() {});
    says(address, &[]).await?;
    let ledger = tokio::task::spawn_blocking(|| serving.join()).await?;
    ensure!(ledger.is_ok_and(|ledger| ledger.is_ok()), "it serves");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_lives_before_it_is_open() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, policy) = (folder.path().join("data"), folder.path().join("policy"));
    let made = run_server(&["init", "--origin", "ledger.example/health"], &data)?;
    let told = String::from_utf8(made.stdout)?;
    let vkey = told.lines().find_map(|line| line.strip_prefix("ledger key")).context("no key")?;
    let witness = silent_witness(&policy, vkey.trim())?;

    // It asks its witness first what that has seen.
    let address = free_address()?;
    let text = [policy.display().to_string(), address.to_string()];
    let serving = thread::spawn(move || {
        let flags = ["--witnesses", &text[0], "--metrics-listen", &text[1]];
        Process::serve(&data, &flags)
    });
    says(address, &["OPENING"]).await?;
    // It has seen nothing.
    thread::spawn(move || {
        for connection in witness.incoming() {
            let mut connection = connection?;
            let _head = connection.read(&mut [0; 1 << 10])?;
            connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        }
        std::io::Result::Ok(())
    });
    says(address, &[]).await?;
    let ledger = tokio::task::spawn_blocking(|| serving.join()).await?;
    ensure!(ledger.is_ok_and(|ledger| ledger.is_ok()), "it serves");
    Ok(())
}
