//! The demonstration: a company's half-year is recorded, verified and told from the verified
//! entries; then the operator tampers with copies, with every key and disk in its hands, and is
//! caught each time.

pub mod half_year;
pub mod liar;
pub mod recording;
pub mod tamper;
mod telling;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit, audit_observed},
    connect,
    pull::Puller,
    reports::Period,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{note::VerifierKey, quorum::Quorum, wire::FindingRecord};
use anyhow::Context as _;
use tokio::{net::TcpListener, sync::oneshot, time::Instant};

use self::{
    half_year::{DAY_NANOS, DAYS, HalfYear, START},
    liar::Liar,
    recording::{Counts, StoryClock},
    tamper::Seized,
    telling::Telling,
};
use crate::{
    config::DemoArgs,
    folder::{Genesis, real_disk},
    ledger::{Ledger, LedgerOptions},
    os::Clock,
    serve::Serving,
};

/// Runs the demonstration on standard output. Exit code 1 when any tampering went unseen.
///
/// # Errors
///
/// When files or the network fail.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::tempdir().context("no temporary folder")?;
    let folder = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let out = &mut io::stdout().lock();
    let told = runtime.block_on(play(args, &folder, out))?;
    match &args.keep {
        Some(folder) => {
            let data = folder.join("ledger");
            writeln!(out, "\nGo on by hand: find the tool through which data leaves.")?;
            writeln!(out, "  access-ledger-server serve --data {}", data.display())?;
            writeln!(out, "and in another terminal:")?;
            writeln!(out, "  export ACCESS_LEDGER_SERVER=http://127.0.0.1:7070")?;
            writeln!(out, "  export LEDGER={}", told.vkey)?;
            for command in LOOK_INTO {
                writeln!(out, "  {command}")?;
            }
        }
        None => {
            writeln!(
                out,
                "\nGo on by hand: the same with `--keep DIR` keeps the ledger, or start"
            )?;
            writeln!(out, "your own with `access-ledger-server serve` and type what it prints.")?;
        }
    }
    let all_caught = told.caught.iter().all(Option::is_some);
    Ok(if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the demonstration showed.
#[derive(Debug)]
pub struct Told {
    /// The ledger's key.
    pub vkey: VerifierKey,
    /// What was recorded.
    pub counts: Counts,
    /// What the auditor found in the honest ledger.
    pub findings: Vec<FindingRecord>,
    /// Index of the entry that was tampered with in each act.
    pub target: u64,
    /// What the auditor said in each act; `None` when it saw nothing.
    pub caught: Vec<Option<String>>,
}

/// Plays all acts in `folder`, telling them to `out`.
///
/// # Errors
///
/// When files or the network fail.
pub async fn play(args: &DemoArgs, folder: &Path, out: &mut impl Write) -> anyhow::Result<Told> {
    let data = folder.join("ledger");
    let view = folder.join("auditor.view.json");
    let (vkey, counts, findings) = Box::pin(live(args, &data, &view, out)).await?;

    writeln!(out, "\nThe operator tampers, with every key and disk in its hands:")?;
    let copy = Seized::read(&data)?;
    let target = copy.middle();
    let mut caught = Vec::new();

    writeln!(out, "\n1. flips one byte of event {target} on a copy of the disk")?;
    let problem = copy.flip_on_disk(&data, &folder.join("flipped"), target)?;
    caught.push(say(out, "check", problem)?);

    let fresh = |act: &str| folder.join(format!("fresh-{act}.view.json"));
    writeln!(out, "\n2. flips the byte, mends its checksums, and serves the event")?;
    let problem = face(copy.flipped(target)?, &vkey, &fresh("flip")).await?;
    caught.push(say(out, "verify", problem)?);

    writeln!(
        out,
        "\n3. drops entry {target}, links everything behind it anew and signs the new tree"
    )?;
    let problem = face(copy.dropped(target)?, &vkey, &fresh("drop")).await?;
    caught.push(say(out, "verify", problem)?);

    writeln!(out, "\n4. rolls the ledger back to half its size, every signature in order")?;
    let problem = face(copy.rolled_back()?, &vkey, &view).await?;
    caught.push(say(out, "verify", problem)?);

    let count = caught.iter().flatten().count();
    writeln!(out, "\n{count} of {} caught.", caught.len())?;
    Ok(Told { vkey, counts, findings, target, caught })
}

/// The honest part: records the half-year, verifies it from outside, and tells what it shows.
/// Leaves a pinned view.
async fn live(
    args: &DemoArgs,
    data: &Path,
    view: &Path,
    out: &mut impl Write,
) -> anyhow::Result<(VerifierKey, Counts, Vec<FindingRecord>)> {
    let clock = Arc::new(StoryClock::default());
    let (disk, shown): (_, Arc<dyn Clock>) = (real_disk(), clock.clone());
    let options = LedgerOptions::new(data);
    let vkey = Ledger::init(&options, &disk, &shown, &Genesis::new("ledger.example/us-user-data"))?;
    let ledger = Ledger::open(&options, &disk, &shown, None)?;
    let serving = Serving::bind(ledger, ([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}", serving.address());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.run(async {
        let _asked = stopped.await;
    }));
    writeln!(out, "A ledger in {}\n  ledger key  {vkey}", data.display())?;

    let started = Instant::now();
    let half_year = HalfYear::new(args.seed, args.accesses);
    let recording = recording::record(half_year, (&url, data), &vkey, &clock);
    let counts = Box::pin(recording).await?;
    let Counts { accesses, requests, decisions, legal_requests, others } = counts;
    let took = started.elapsed();
    writeln!(out, "\nA company recorded its half-year in {took:.1?}:")?;
    writeln!(
        out,
        "  {accesses} accesses, {requests} requests for access and {decisions} answers,"
    )?;
    writeln!(out, "  {legal_requests} requests of authorities, {others} other events.")?;
    writeln!(out, "Every receipt was verified by the service that got it.")?;

    let started = Instant::now();
    let puller = Puller::new(connect::channel(&url)?);
    let mut view = View::open(view, &vkey)?;
    let telling = Telling::new(Period::of(START, START + DAYS * DAY_NANOS)?);
    let progress = Arc::new(|_, _| ());
    let (audited, telling) =
        audit_observed(&puller, &mut view, Quorum::default(), progress, telling).await?;
    let took = started.elapsed();
    let (size, totals) = (audited.checkpoint.size(), audited.verifier.totals());
    let sources = audited.verifier.sequences().iter().count();
    writeln!(out, "\nAn auditor, who believes nothing, verified it in {took:.1?}:")?;
    writeln!(
        out,
        "  {size} entries linked, {size} events, {} seals of {sources} sources, no number missing,",
        totals.seals_checked,
    )?;
    writeln!(out, "  root {} as signed", audited.checkpoint.root())?;
    writeln!(out, "\nWhat it shows, computed from the entries that were verified:")?;
    let findings = telling.tell(out)?;

    drop(stop);
    server.await??;
    Ok((vkey, counts, findings))
}

/// Audits what is served at `url` against the view: in order, or caught with one sentence.
async fn look(
    url: &str,
    ledger: &VerifierKey,
    view: &Path,
) -> anyhow::Result<Result<Audited, String>> {
    let puller = Puller::new(connect::channel(url)?);
    let mut view = View::open(view, ledger)?;
    let options = AuditOptions { scope: Scope::Events, full: false, quorum: Quorum::default() };
    match audit(&puller, &mut view, &options, Arc::new(|_, _| ())).await {
        Ok(audited) => Ok(Ok(audited)),
        Err(AuditError::Caught(caught)) => Ok(Err(caught.to_string())),
        Err(failure) => Err(failure.into()),
    }
}

/// Serves a tampered log and lets an auditor look at it.
async fn face(liar: Liar, ledger: &VerifierKey, view: &Path) -> anyhow::Result<Option<String>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(liar.serve(listener));
    let seen = tokio::time::timeout(LOOK_TIME, look(&url, ledger, view)).await;
    server.abort();
    Ok(seen.context("the auditor did not finish")??.err())
}

fn say(out: &mut impl Write, who: &str, caught: Option<String>) -> io::Result<Option<String>> {
    match &caught {
        Some(problem) => writeln!(out, "   {who}: caught, {problem}")?,
        None => writeln!(out, "   {who}: NOT CAUGHT")?,
    }
    Ok(caught)
}

/// How an auditor finds the tool through which data leaves.
const LOOK_INTO: [&str; 3] = [
    "access-ledger report flows --ledger $LEDGER --from 2025-07-01 --to 2026-01-01",
    "access-ledger query --ledger $LEDGER --tool moderation-tool --action copy",
    "access-ledger findings --ledger $LEDGER --rule COPY_OUTSIDE_CUSTODY",
];

/// An audit of the demonstration takes a second.
const LOOK_TIME: Duration = Duration::from_secs(60);
