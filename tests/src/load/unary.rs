//! Appends of one event a call, by few and by many callers at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use access_ledger_client::connect::Link;
use access_ledger_proto::{
    receipt::ReceiptVerifier,
    wire::{self, recorder_service_client::RecorderServiceClient},
};
use access_ledger_server::demo::half_year::ACCESS_LEN;
use anyhow::Context as _;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

use super::{
    args::Plan,
    child::Child,
    disk::{self, Space},
    report::{Ratio, Sample, Section, Wanted},
    source::{self, Sealed, Source},
};

type Client = RecorderServiceClient<Link>;

pub(super) type Verifier = Arc<Mutex<ReceiptVerifier>>;

/// Different events that are sent over and over.
const EVENTS: usize = 1_024;

/// From how many callers on the rate has a target.
const MANY_CALLERS: usize = 100;

/// Measures (b): unary appends against the echo and against the disk.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let mut bench = Bench {
        plan,
        ledger: Child::ledger(plan, folder.path())?,
        echo: Child::echo(plan)?,
        disk_folder: tempfile::tempdir_in(&plan.dir)?,
        disk: BTreeMap::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut rows, mut ratios, mut alone) = (Vec::new(), Vec::new(), None);
    for &(callers, calls) in &plan.unary {
        let (echoed, recorded) = runtime.block_on(bench.compare(callers, calls))?;
        rows.push(echoed.row(format!("echo, {callers} callers")));
        rows.push(recorded.row(format!("ledger, {callers} callers")));
        let wanted = if callers >= MANY_CALLERS { Wanted::AtLeast(0.25) } else { Wanted::Nothing };
        let name = format!("ledger : echo, {callers} callers");
        ratios.extend(Ratio::rates(&name, &recorded, &echoed, wanted));
        if callers == 1 {
            alone = Some((echoed, recorded));
        }
    }
    for (space, rounds) in &bench.disk {
        let sync = Sample::median(rounds);
        rows.push(sync.row(format!("write and fdatasync, {space}")));
        if let Some((echoed, recorded)) = &alone {
            let found = recorded.p50_ms / (echoed.p50_ms + sync.p50_ms);
            let name = format!("p50, 1 caller : echo + fdatasync, {space}");
            ratios.push(Ratio::new(name, found, Wanted::AtMost(2.5)));
        }
    }
    Ok(vec![Section {
        id: "unary",
        title: format!("(b) one event of {ACCESS_LEN} B a call, receipts verified"),
        columns: Sample::columns(),
        rows,
        ratios,
    }])
}

struct Bench<'a> {
    plan: &'a Plan,
    ledger: Child,
    echo: Child,
    disk_folder: TempDir,
    /// What the disk alone did in between.
    disk: BTreeMap<Space, Vec<Sample>>,
}

impl Bench<'_> {
    /// The echo, and the ledger, with so many callers and calls of all of them in each round.
    async fn compare(&mut self, callers: usize, calls: usize) -> anyhow::Result<(Sample, Sample)> {
        let events = source::events(EVENTS)?;
        let echo = RecorderServiceClient::new(self.echo.connect().await?);
        let mut client = RecorderServiceClient::new(self.ledger.connect().await?);
        let ledger = self.ledger.vkey()?;
        // One process, so the callers share what was verified last.
        let verifier = Arc::new(Mutex::new(ReceiptVerifier::new(ledger.clone(), Vec::new())));
        let mut sources = Vec::new();
        for caller in 0..callers {
            let name = format!("caller-{callers}/{caller}");
            sources.push(Source::enroll(&mut client, &name, &ledger).await?);
        }
        let (mut echoed, mut recorded) = (Vec::new(), Vec::new());
        for round in 0..self.plan.rounds {
            // Sealed before the clock runs: the echo's callers do not seal either.
            let seal = |source: Source| seal(source, &events, calls / callers);
            let ready = sources.drain(..).map(seal).collect::<anyhow::Result<Vec<_>>>()?;
            let mut unsealed = Some(ready.iter().map(Caller::without_source).collect());
            let mut ready = Some(ready);
            for is_echo in [round % 2 == 0, round % 2 == 1] {
                let (child, client, callers, samples) = if is_echo {
                    (&self.echo, &echo, unsealed.take(), &mut echoed)
                } else {
                    (&self.ledger, &client, ready.take(), &mut recorded)
                };
                let cpu = child.cpu_seconds()?;
                let (sample, back) = run(client, &verifier, callers.unwrap_or_default()).await?;
                samples.push(sample.with_cpu(calls as f64, child.cpu_seconds()? - cpu));
                sources.extend(back);
            }
            self.sync()?;
        }
        Ok((Sample::median(&echoed), Sample::median(&recorded)))
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        for space in [Space::Grows, Space::Prepared] {
            let sample = disk::append(self.disk_folder.path(), space, self.plan.syncs)?;
            self.disk.entry(space).or_default().push(sample);
        }
        Ok(())
    }
}

/// One caller, with the calls that it is to make.
pub(super) struct Caller {
    /// Who verifies the receipts; `None`: there are none.
    source: Option<Source>,
    batches: Vec<Sealed>,
}

impl Caller {
    /// The same calls, answered without receipts.
    fn without_source(&self) -> Self {
        Self { source: None, batches: self.batches.clone() }
    }
}

/// A caller with this many calls, of these events in turn.
pub(super) fn seal(mut source: Source, events: &[Bytes], calls: usize) -> anyhow::Result<Caller> {
    let events = events.chunks(1).cycle().take(calls.max(1));
    let batches = events.map(|event| source.seal(event)).collect::<Result<_, _>>()?;
    Ok(Caller { source: Some(source), batches })
}

/// Lets all callers make their calls, each one after the other.
pub(super) async fn run(
    client: &Client,
    verifier: &Verifier,
    callers: Vec<Caller>,
) -> anyhow::Result<(Sample, Vec<Source>)> {
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for caller in callers {
        tasks.spawn(call(client.clone(), verifier.clone(), caller));
    }
    let (mut latencies, mut sources) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (source, taken) = done??;
        latencies.extend(taken);
        sources.extend(source);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok((Sample::of(latencies.len() as f64, seconds, latencies), sources))
}

async fn call(
    mut client: Client,
    verifier: Verifier,
    caller: Caller,
) -> anyhow::Result<(Option<Source>, Vec<f64>)> {
    let mut latencies = Vec::with_capacity(caller.batches.len());
    for Sealed { batch, claim } in caller.batches {
        let started = Instant::now();
        let answer = client.append(wire::AppendRequest { batch: Some(batch) }).await;
        let answer = answer.context("append")?.into_inner();
        if let Some(source) = &caller.source {
            let mut verifier = verifier.lock().unwrap_or_else(PoisonError::into_inner);
            source.verify(&mut verifier, &claim, answer.receipt.as_ref())?;
        }
        latencies.push(started.elapsed().as_secs_f64());
    }
    Ok((caller.source, latencies))
}
