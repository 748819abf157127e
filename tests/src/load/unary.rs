//! Appends of one event a call, by few and by many callers at once.

use access_ledger_proto::wire::{self, recorder_service_client::RecorderServiceClient};
use access_ledger_server::demo::day::ACCESS_LEN;
use anyhow::Context as _;
use bytes::Bytes;
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;

use super::{
    args::Plan,
    child::Child,
    disk::{self, Space},
    report::{Ratio, Sample, Section, Wanted},
    source::{self, Sealed, Source},
};

type Client = RecorderServiceClient<Channel>;

/// Different events that are sent over and over.
const EVENTS: usize = 1_024;

/// From how many callers on the rate has a target.
const MANY_CALLERS: usize = 100;

/// Measures (b): unary appends against the echo and against the disk.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let (ledger, echo) = (Child::ledger(plan, folder.path())?, Child::echo(plan)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    let mut ratios = Vec::new();

    let disk_folder = tempfile::tempdir_in(&plan.dir)?;
    let sync = |space| -> anyhow::Result<Sample> {
        let rounds = (0..plan.rounds).map(|_| disk::append(disk_folder.path(), space, plan.syncs));
        Ok(Sample::median(&rounds.collect::<Result<Vec<_>, _>>()?))
    };
    let (grows, prepared) = (sync(Space::Grows)?, sync(Space::Prepared)?);
    rows.push(grows.row("fdatasync, file grows"));
    rows.push(prepared.row("fdatasync, space prepared"));

    for &(callers, calls) in &plan.unary {
        let (echoed, recorded) =
            runtime.block_on(compare((&ledger, &echo), (callers, calls), plan.rounds))?;
        rows.push(echoed.row(format!("echo, {callers} callers")));
        rows.push(recorded.row(format!("ledger, {callers} callers")));
        let wanted = if callers >= MANY_CALLERS { Wanted::AtLeast(0.25) } else { Wanted::Nothing };
        let name = format!("ledger : echo, {callers} callers");
        ratios.push(Ratio::new(name, recorded.per_second / echoed.per_second, wanted));
        if callers == 1 {
            for (name, sync, wanted) in [
                ("file grows", &grows, Wanted::AtMost(2.5)),
                ("prepared", &prepared, Wanted::Nothing),
            ] {
                let name = format!("p50 : echo + fdatasync ({name}), 1 caller");
                ratios.push(Ratio::new(
                    name,
                    recorded.p50_ms / (echoed.p50_ms + sync.p50_ms),
                    wanted,
                ));
            }
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

async fn compare(
    (ledger, echo): (&Child, &Child),
    (callers, calls): (usize, usize),
    rounds: usize,
) -> anyhow::Result<(Sample, Sample)> {
    let events = source::events(EVENTS)?;
    let echo = RecorderServiceClient::new(echo.connect().await?);
    let mut client = RecorderServiceClient::new(ledger.connect().await?);
    let mut sources = Vec::new();
    for caller in 0..callers {
        let name = format!("caller-{callers}/{caller}");
        sources.push(Source::enroll(&mut client, &name, ledger.vkey()?).await?);
    }
    let (mut echoed, mut recorded) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Sealed before the clock runs: the echo's callers do not seal either.
        let seal = |source: Source| seal(source, &events, calls / callers);
        let ready = sources.drain(..).map(seal).collect::<anyhow::Result<Vec<_>>>()?;
        let unsealed: Vec<_> = ready
            .iter()
            .map(|caller| Caller { source: None, batches: caller.batches.clone() })
            .collect();
        let (first, second) = (round % 2 == 0, round % 2 == 1);
        let mut unsealed = Some(unsealed);
        if let Some(callers) = unsealed.take_if(|_| first) {
            echoed.push(run(&echo, callers).await?.0);
        }
        let (sample, back) = run(&client, ready).await?;
        recorded.push(sample);
        sources = back;
        if let Some(callers) = unsealed.take_if(|_| second) {
            echoed.push(run(&echo, callers).await?.0);
        }
    }
    Ok((Sample::median(&echoed), Sample::median(&recorded)))
}

/// One caller, with the calls that it is to make.
struct Caller {
    /// Who verifies the receipts; `None`: there are none.
    source: Option<Source>,
    batches: Vec<Sealed>,
}

fn seal(mut source: Source, events: &[Bytes], calls: usize) -> anyhow::Result<Caller> {
    let events = events.chunks(1).cycle().take(calls.max(1));
    let batches = events.map(|event| source.seal(event)).collect::<Result<_, _>>()?;
    Ok(Caller { source: Some(source), batches })
}

/// Lets all callers make their calls, each one after the other.
async fn run(client: &Client, callers: Vec<Caller>) -> anyhow::Result<(Sample, Vec<Source>)> {
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for caller in callers {
        tasks.spawn(call(client.clone(), caller));
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

async fn call(mut client: Client, caller: Caller) -> anyhow::Result<(Option<Source>, Vec<f64>)> {
    let mut latencies = Vec::with_capacity(caller.batches.len());
    for Sealed { batch, claim } in caller.batches {
        let started = Instant::now();
        let answer = client.append(wire::AppendRequest { batch: Some(batch) }).await;
        let answer = answer.context("append")?.into_inner();
        if let Some(source) = &caller.source {
            source.verify(&claim, answer.receipt.as_ref())?;
        }
        latencies.push(started.elapsed().as_secs_f64());
    }
    Ok((caller.source, latencies))
}
