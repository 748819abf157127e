//! Streamed appends: batches of 256 events, 16 of them under way, sealed and verified by the
//! client.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use access_ledger_client::connect::Link;
use access_ledger_proto::{
    receipt::ReceiptVerifier,
    wire::{self, recorder_service_client::RecorderServiceClient},
};
use access_ledger_server::demo::half_year::ACCESS_LEN;
use anyhow::Context as _;
use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    args::Plan,
    child::Child,
    report::{Ratio, Sample, Section, Wanted},
    source::{self, BATCH_EVENTS, Source},
};

/// Batches that wait for their answers.
const WINDOW: usize = 16;

/// Different batches that are sent over and over.
pub(super) const BATCHES: usize = 64;

type Client = RecorderServiceClient<Link>;

/// Measures (a): streamed appends against the echo.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let events = source::events(BATCHES * BATCH_EVENTS)?;
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let (ledger, echo) = (Child::ledger(plan, folder.path())?, Child::echo(plan)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (echoed, recorded) = runtime.block_on(rounds(plan, &events, &ledger, &echo))?;
    let ratios = Ratio::rates("ledger : echo", &recorded, &echoed, Wanted::AtLeast(0.30));
    Ok(vec![Section {
        id: "stream",
        title: format!(
            "(a) one stream, batches of {BATCH_EVENTS} x {ACCESS_LEN} B, {WINDOW} in flight"
        ),
        columns: Sample::columns(),
        rows: vec![
            echoed.row("echo, events decoded"),
            recorded.row("ledger, sealed, receipts verified"),
        ],
        ratios: ratios.into(),
    }])
}

async fn rounds(
    plan: &Plan,
    events: &[Bytes],
    ledger: &Child,
    echo: &Child,
) -> anyhow::Result<(Sample, Sample)> {
    let mut echo_client = RecorderServiceClient::new(echo.connect().await?);
    let mut client = RecorderServiceClient::new(ledger.connect().await?);
    let vkey = ledger.vkey()?;
    let mut recorder = Recorder {
        source: Source::enroll(&mut client, "stream", &vkey).await?,
        verifier: ReceiptVerifier::new(vkey, Vec::new()),
    };
    let (mut echoed, mut recorded) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        for is_echo in [round % 2 == 0, round % 2 == 1] {
            let (child, samples) =
                if is_echo { (echo, &mut echoed) } else { (ledger, &mut recorded) };
            let cpu = child.cpu_seconds()?;
            let (sample, events) = if is_echo {
                echo_round(&mut echo_client, events, plan.stream_time).await?
            } else {
                recorder.round(&mut client, events, plan.stream_time).await?
            };
            samples.push(sample.with_cpu(events, child.cpu_seconds()? - cpu));
        }
    }
    Ok((Sample::median(&echoed), Sample::median(&recorded)))
}

async fn echo_round(
    client: &mut Client,
    events: &[Bytes],
    time: Duration,
) -> anyhow::Result<(Sample, f64)> {
    let mut batches = events.chunks(BATCH_EVENTS).cycle();
    let next = || {
        let events = batches.next().context("no events")?.to_vec();
        Ok((wire::SealedBatch { events, ..Default::default() }, ()))
    };
    pump(client, time, next, |(), _| Ok(())).await
}

/// Seals, and verifies what comes back.
pub(super) struct Recorder {
    pub(super) source: Source,
    pub(super) verifier: ReceiptVerifier,
}

impl Recorder {
    /// Streams batches of these events for so long; the number of events too.
    pub(super) async fn round(
        &mut self,
        client: &mut Client,
        events: &[Bytes],
        time: Duration,
    ) -> anyhow::Result<(Sample, f64)> {
        let mut batches = events.chunks(BATCH_EVENTS).cycle();
        let (source, verifier) = (RefCell::new(&mut self.source), &mut self.verifier);
        let next = || {
            let sealed = source.borrow_mut().seal(batches.next().context("no events")?)?;
            Ok((sealed.batch, sealed.claim))
        };
        let check = |claim, receipt: Option<&wire::Receipt>| {
            source.borrow().verify(verifier, &claim, receipt).map(drop)
        };
        pump(client, time, next, check).await
    }
}

/// Keeps [`WINDOW`] batches under way for `time`; `check` gets what `next` kept of a batch, and its
/// receipt. Counts the events, too.
async fn pump<C>(
    client: &mut Client,
    time: Duration,
    mut next: impl FnMut() -> anyhow::Result<(wire::SealedBatch, C)>,
    mut check: impl FnMut(C, Option<&wire::Receipt>) -> anyhow::Result<()>,
) -> anyhow::Result<(Sample, f64)> {
    let (sender, requests) = mpsc::channel(WINDOW);
    let mut answers = client.append_stream(ReceiverStream::new(requests)).await?.into_inner();
    let mut sender = Some(sender);
    let mut waiting = VecDeque::new();
    let mut latencies = Vec::new();
    let begun = Instant::now();
    loop {
        if begun.elapsed() >= time {
            sender = None;
        }
        if let Some(sender) = &sender
            && waiting.len() < WINDOW
        {
            let (batch, kept) = next()?;
            waiting.push_back((Instant::now(), kept));
            sender.send(wire::AppendRequest { batch: Some(batch) }).await?;
            continue;
        }
        let Some((sent, kept)) = waiting.pop_front() else { break };
        let answer = answers.message().await?.context("stream ended early")?;
        check(kept, answer.receipt.as_ref())?;
        latencies.push(sent.elapsed().as_secs_f64());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let events = (latencies.len() * BATCH_EVENTS) as f64;
    Ok((Sample::of(events, seconds, latencies), events))
}
