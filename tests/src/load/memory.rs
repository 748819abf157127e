//! What callers make the ledger hold in memory: connections without a call, answers that nobody
//! reads, receipts that nobody takes.
//!
//! The callers are a process of their own, so that their files and their memory are not the
//! ledger's.

use std::time::Duration;

use access_ledger_client::connect::{self, Link};
use access_ledger_proto::{
    note::VerifierKey,
    wire::{
        self, audit_service_client::AuditServiceClient,
        recorder_service_client::RecorderServiceClient,
    },
};
use access_ledger_server::os;
use anyhow::ensure;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::Request;

use super::{
    args::{Held, HoldArgs, Plan},
    child::{self, Child},
    fill::Filler,
    report::{Ratio, Row, Section, Wanted},
    secure::{self, Security},
    source::{self, Source},
};

/// Answers of one connection that nobody reads: as many as the ledger gives a principal at once.
const ANSWERS: usize = 256;

/// Measures (m): memory with so many idle connections, and with callers that never read.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folders = tempfile::tempdir_in(&plan.dir)?;
    let data = folders.path().join("ledger");
    let mut filler = Filler::begin(plan, &data)?;
    let security = Security::make(folders.path())?;
    let mut table = Table::default();
    let connections = plan.connections;
    for (is_secure, name) in [(false, "plain"), (true, "TLS, client certificate")] {
        let ledger = if is_secure {
            Child::secure_ledger(plan, &data, &security)?
        } else {
            Child::ledger(plan, &data)?
        };
        let name = format!("{connections} idle connections, {name}");
        let kind = Held::Connections;
        table.hold(plan, &ledger, (kind, connections), &name, is_secure.then_some(&security))?;
    }
    filler.grow(plan.check_entries.min(UNREAD_ENTRIES))?;
    let ledger = Child::ledger(plan, &data)?;
    let name = format!("{ANSWERS} streams of {} entries, unread", filler.size());
    table.hold(plan, &ledger, (Held::Answers, ANSWERS), &name, None)?;
    drop(ledger);
    // Another process: this one has not given back what the answers took.
    let ledger = Child::ledger(plan, &data)?;
    let streams = plan.deaf_streams;
    let name = format!("{streams} streams of receipts, unread");
    table.hold(plan, &ledger, (Held::Receipts, streams), &name, None)?;
    Ok(vec![Section {
        id: "memory",
        title: "(m) memory of the ledger before, with and after callers; of each of them"
            .to_owned(),
        columns: vec!["before MB", "with MB", "after MB", "KB each"],
        rows: table.rows,
        ratios: table.ratios,
    }])
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
}

impl Table {
    fn hold(
        &mut self,
        plan: &Plan,
        ledger: &Child,
        (kind, count): (Held, usize),
        name: &str,
        security: Option<&Security>,
    ) -> anyhow::Result<()> {
        let before = ledger.resident_mb()?;
        let holder = Child::holder(plan, ledger, (kind, count), security.map(Security::folder))?;
        let with = ledger.resident_mb()?;
        drop(holder);
        let after = settled(ledger)?;
        let each = 1_000.0 * (with - before) / count as f64;
        self.rows.push(Row { name: name.to_owned(), values: vec![before, with, after, each] });
        let most = match kind {
            Held::Connections => CONNECTION_KB_MAX,
            Held::Answers => ANSWER_KB_MAX,
            Held::Receipts => RECEIPTS_KB_MAX,
        };
        self.ratios.push(Ratio::new(format!("KB each, {name}"), each, Wanted::AtMost(most)));
        Ok(())
    }
}

/// Memory when the ledger has noticed that the callers are gone: it does not shrink any more.
fn settled(ledger: &Child) -> anyhow::Result<f64> {
    let mut before = ledger.resident_mb()?;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = ledger.resident_mb()?;
        if now >= 0.99 * before {
            return Ok(now);
        }
        before = now;
    }
}

/// The process that holds on to something of a server, until standard input ends.
pub(super) fn hold(args: &HoldArgs) -> anyhow::Result<()> {
    os::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.held {
            Held::Connections => hold_connections(args).await,
            Held::Answers => hold_answers(args).await,
            Held::Receipts => hold_receipts(args).await,
        }
    })
}

/// Each with one call that was answered, so that it is somebody's.
async fn hold_connections(args: &HoldArgs) -> anyhow::Result<()> {
    let connector = args.security.as_deref().map(secure::connector).transpose()?;
    let mut connections = JoinSet::new();
    for _ in 0..args.count {
        let stream = TcpStream::connect(args.server).await?;
        // Else what follows a handshake waits for its acknowledgement, 40 ms each time.
        stream.set_nodelay(true)?;
        match &connector {
            None => call_once(stream, &mut connections).await?,
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                call_once(connector.connect(name, stream).await?, &mut connections).await?;
            }
        }
    }
    child::say("ready")?;
    child::stdin_end().await;
    ensure!(connections.try_join_next().is_none(), "connections were lost");
    Ok(())
}

async fn call_once<S>(
    stream: S,
    connections: &mut JoinSet<Result<(), h2::Error>>,
) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await?;
    connections.spawn(connection);
    let mut client = client.ready().await?;
    let call = Request::get("http://ledger/checkpoint").body(())?;
    let mut answer = client.send_request(call, true)?.0.await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    while let Some(part) = answer.body_mut().data().await {
        let part = part?;
        answer.body_mut().flow_control().release_capacity(part.len())?;
    }
    // The connection lives as long as somebody could send something.
    connections.spawn(async move {
        let _client = client;
        std::future::pending().await
    });
    Ok(())
}

async fn hold_answers(args: &HoldArgs) -> anyhow::Result<()> {
    let auditor = AuditServiceClient::new(link(args)?);
    let mut answers = Vec::new();
    for _ in 0..args.count {
        let all = wire::ReadEntriesRequest { with_events: true, ..Default::default() };
        answers.push(auditor.clone().read_entries(all).await?.into_inner());
    }
    // Until the ledger has sent what it sends without being read.
    sleep(SETTLE_TIME).await;
    child::say("ready")?;
    child::stdin_end().await;
    drop(answers);
    Ok(())
}

async fn hold_receipts(args: &HoldArgs) -> anyhow::Result<()> {
    let mut streams = JoinSet::new();
    for number in 0..args.count {
        let (client, ledger) = (RecorderServiceClient::new(link(args)?), args.ledger_key.clone());
        streams.spawn(async move { record_unread(client, number, &ledger).await });
    }
    let unread = streams.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    child::say("ready")?;
    child::stdin_end().await;
    drop(unread);
    Ok(())
}

/// Sends batches until the ledger takes no more; both ends of the stream.
async fn record_unread(
    mut client: RecorderServiceClient<Link>,
    number: usize,
    ledger: &VerifierKey,
) -> anyhow::Result<impl Sized + use<>> {
    let event = source::events(1)?;
    let mut source = Source::enroll(&mut client, &format!("deaf-{number}"), ledger).await?;
    let (sender, requests) = mpsc::channel(1);
    let answers = client.append_stream(ReceiverStream::new(requests)).await?.into_inner();
    let limit = Instant::now() + FILL_TIME;
    loop {
        ensure!(Instant::now() < limit, "the ledger takes without end what nobody acknowledges");
        let batch = Some(source.seal(&event)?.batch);
        match timeout(SETTLE_TIME, sender.send(wire::AppendRequest { batch })).await {
            Ok(sent) => sent?,
            // It stopped reading.
            Err(_) => return Ok((sender, answers)),
        }
    }
}

/// A connection over which the ledger may send as much as it likes, of each call a little.
fn link(args: &HoldArgs) -> anyhow::Result<Link> {
    let endpoint = connect::endpoint(&format!("http://{}", args.server))?;
    let endpoint = endpoint.initial_connection_window_size(1 << 30);
    Ok(endpoint.initial_stream_window_size(STREAM_WINDOW_BYTES).connect_lazy().into())
}

/// Of a connection, its buffers, and its principal's names.
const CONNECTION_KB_MAX: f64 = 100.0;

/// What the limits of long answers reckon with (server, identity/limits.rs).
const ANSWER_KB_MAX: f64 = 4_500.0;

/// Requests that wait in the connection's window (1 MiB of them, each a frame of its own), 256
/// batches with their receipts, and what waits to be sent.
const RECEIPTS_KB_MAX: f64 = 4_500.0;

/// A log of more than what all streams together may hold.
const UNREAD_ENTRIES: u64 = 1_000_000;

/// The default of HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 65_535;

/// How long nothing must move for a sender to be stuck.
const SETTLE_TIME: Duration = Duration::from_secs(1);

const FILL_TIME: Duration = Duration::from_secs(60);
