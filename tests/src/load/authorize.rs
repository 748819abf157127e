//! Intents with their verdicts, beside plain appends of one event.

use std::path::Path;

use access_ledger_client::connect::Link;
use access_ledger_proto::{
    entry::Entry,
    hash::{Digest, leaf_hash, sha256},
    note::VerifierKey,
    position::Index,
    proof::verify_inclusion,
    receipt::ReceiptVerifier,
    wire::{self, AuthorizationDecision, Outcome, event::Body},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message as _;
use tokio::{task::JoinSet, time::Instant};

use super::{
    args::Plan,
    child::Child,
    report::{Ratio, Sample, Section, Wanted},
    source::{self, Sealed, Source},
};
use crate::{
    node::Clients,
    parties::{Governance, access, approve, request},
    source as events,
};

/// How much longer than an append an answer may take.
const RATIO_MAX: f64 = 1.5;

/// The dataset that everybody wants, and the grant for it.
const DATASET: &str = "users.profile";
const GRANT: &str = "R-1";

/// Measures (f): `Authorize` against unary appends, each with verified proofs.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let ledger = Child::ledger(plan, folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(found(&ledger, folder.path()))?;
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for &(callers, calls) in plan.unary.iter().filter(|(callers, _)| *callers <= CALLERS_MAX) {
        let (appended, answered) = runtime.block_on(compare(plan, &ledger, callers, calls))?;
        rows.push(appended.row(format!("append, {callers} callers")));
        rows.push(answered.row(format!("authorize, {callers} callers")));
        let wanted = if callers == 1 { Wanted::AtMost(RATIO_MAX) } else { Wanted::Nothing };
        let found = answered.p50_ms / appended.p50_ms;
        ratios.push(Ratio::new(
            format!("p50, authorize : append, {callers} callers"),
            found,
            wanted,
        ));
    }
    Ok(vec![Section {
        id: "authorize",
        title: "(f) one intent a call, allowed on a grant; receipts and verdicts verified"
            .to_owned(),
        columns: Sample::columns(),
        rows,
        ratios,
    }])
}

/// Makes the grant that the intents rest on.
async fn found(ledger: &Child, folder: &Path) -> anyhow::Result<()> {
    let vkey = ledger.vkey()?;
    let clients = Clients::over(ledger.connect().await?);
    let approver = &mut events::Source::new("security/ann", 1, &vkey)?;
    Governance::of(folder, &vkey)?.register_approver(&clients, approver).await?;
    let desk = &mut clients.enrolled("desk", 2, &vkey).await?;
    for (source, body) in [(desk, request(GRANT, DATASET)), (approver, approve(GRANT, 0))] {
        let event = source.event(body);
        clients.record(&source.seal(vec![event])?).await?;
    }
    Ok(())
}

/// The same callers append and ask, in rounds of alternating order.
async fn compare(
    plan: &Plan,
    ledger: &Child,
    callers: usize,
    calls: usize,
) -> anyhow::Result<(Sample, Sample)> {
    let vkey = ledger.vkey()?;
    let channel = ledger.connect().await?;
    let mut client = access_ledger_client::connect::recorder_client(channel.clone());
    let mut sources = Vec::new();
    for caller in 0..callers {
        let name = format!("gateway-{callers}/{caller}");
        sources.push(Source::enroll(&mut client, &name, &vkey).await?);
    }
    let (mut appended, mut answered) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        for is_intent in [round % 2 == 0, round % 2 == 1] {
            let samples = if is_intent { &mut answered } else { &mut appended };
            let cpu = ledger.cpu_seconds()?;
            let each = (calls / callers).max(1);
            let (sample, back) = run(&channel, &vkey, sources, each, is_intent).await?;
            samples.push(sample.with_cpu((each * callers) as f64, ledger.cpu_seconds()? - cpu));
            sources = back;
        }
    }
    Ok((Sample::median(&appended), Sample::median(&answered)))
}

/// Lets all callers make their calls, each one after the other.
async fn run(
    channel: &Link,
    vkey: &VerifierKey,
    sources: Vec<Source>,
    calls: usize,
    is_intent: bool,
) -> anyhow::Result<(Sample, Vec<Source>)> {
    let mut ready = Vec::new();
    // Sealed before the clock runs; not long before, for old intents are denied.
    for mut source in sources {
        let batches: anyhow::Result<Vec<_>> = event_bytes(&source, vkey, calls, is_intent)?
            .chunks(1)
            .map(|event| source.seal(event))
            .collect();
        ready.push((source, batches?));
    }
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for (source, batches) in ready {
        let caller = Caller { channel: channel.clone(), vkey: vkey.clone(), source };
        tasks.spawn(caller.call(batches, is_intent));
    }
    let (mut latencies, mut sources) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (source, taken) = done??;
        latencies.extend(taken);
        sources.push(source);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok((Sample::of(latencies.len() as f64, seconds, latencies), sources))
}

/// Events to be sealed: accesses that name no grant, or intents that do.
fn event_bytes(
    source: &Source,
    vkey: &VerifierKey,
    calls: usize,
    is_intent: bool,
) -> anyhow::Result<Vec<Bytes>> {
    if !is_intent {
        return source::events(calls);
    }
    let name = source.name().to_string();
    // Event ids follow from the seed and must not come again, from whatever caller.
    let distinct = sha256(format!("{name} {}", source.next_seq()).as_bytes());
    let seed = distinct.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes);
    let mut random = events::Source::new(&name, seed, vkey)?;
    let intents = (0..calls).map(|_| random.now(access(DATASET, GRANT, Outcome::Requested)));
    Ok(intents.collect())
}

struct Caller {
    channel: Link,
    vkey: VerifierKey,
    source: Source,
}

impl Caller {
    async fn call(
        self,
        batches: Vec<Sealed>,
        is_intent: bool,
    ) -> anyhow::Result<(Source, Vec<f64>)> {
        let mut client = access_ledger_client::connect::recorder_client(self.channel);
        let mut verifier = ReceiptVerifier::new(self.vkey, Vec::new());
        let mut latencies = Vec::with_capacity(batches.len());
        for Sealed { batch, claim } in batches {
            let started = Instant::now();
            let batch = Some(batch);
            let (receipt, verdicts) = if is_intent {
                let answer = client.authorize(wire::AuthorizeRequest { batch }).await;
                let answer = answer.context("authorize")?.into_inner();
                (answer.receipt, answer.verdicts)
            } else {
                let answer = client.append(wire::AppendRequest { batch }).await;
                (answer.context("append")?.into_inner().receipt, Vec::new())
            };
            let verified = self.source.verify(&mut verifier, &claim, receipt.as_ref())?;
            ensure!(verdicts.len() == usize::from(is_intent), "{} verdicts", verdicts.len());
            for verdict in &verdicts {
                let checkpoint = verified.checkpoint();
                verify(verdict, (checkpoint.size(), checkpoint.root()))?;
            }
            latencies.push(started.elapsed().as_secs_f64());
        }
        Ok((self.source, latencies))
    }
}

/// That a verdict is in the tree, and allows.
fn verify(
    verdict: &wire::RecordedVerdict,
    (size, root): (access_ledger_proto::position::Size, Digest),
) -> anyhow::Result<()> {
    let entry = Entry::parse(&verdict.entry)?;
    ensure!(entry.event_digest == sha256(&verdict.event), "another event");
    let path: Option<Vec<_>> =
        verdict.inclusion_path.iter().map(|hash| Digest::from_slice(hash)).collect();
    let path = path.context("no hash")?;
    verify_inclusion(Index(verdict.index), size, leaf_hash(&verdict.entry), &path, root)?;
    match wire::Event::decode(verdict.event.clone())?.body {
        Some(Body::Authorization(told)) => {
            ensure!(told.decision() == AuthorizationDecision::Allow, "denied: {:?}", told.rules);
            Ok(())
        }
        other => anyhow::bail!("no verdict: {other:?}"),
    }
}

/// From how many callers on nothing new is learned.
const CALLERS_MAX: usize = 100;
