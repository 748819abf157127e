//! The demonstration: a company's day is recorded and verified, then the operator tampers with
//! copies, with every key and disk in its hands, and is caught each time.

pub mod day;
pub mod liar;
pub mod tamper;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use access_ledger_client::{
    audit::{AuditError, AuditOptions, Audited, audit},
    connect,
    pull::Puller,
    recorder::Recorder,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    facts::sources::Roles,
    note::{KeyType, Signer, VerifierKey},
    wire::{self, Outcome, SourceRole},
};
use anyhow::Context as _;
use tokio::{net::TcpListener, sync::oneshot, time::Instant};

use self::{day::Day, liar::Liar, tamper::Seized};
use crate::{
    config::DemoArgs,
    folder::{Genesis, real_disk},
    ledger::{Ledger, LedgerOptions},
    os::{Clock, SystemClock},
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
            writeln!(out, "\nGo on by hand:")?;
            writeln!(out, "  access-ledger-server serve --data {}", data.display())?;
            writeln!(
                out,
                "  access-ledger verify --server http://127.0.0.1:7070 --ledger {}",
                told.vkey
            )?;
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
    let vkey = live(args, &data, &view, out).await?;

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
    Ok(Told { vkey, target, caught })
}

/// The honest part: records the day, and verifies it from outside. Leaves a pinned view.
async fn live(
    args: &DemoArgs,
    data: &Path,
    view: &Path,
    out: &mut impl Write,
) -> anyhow::Result<VerifierKey> {
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let options = LedgerOptions::new(data);
    let genesis = Genesis { self_enrolment: true, ..Genesis::new("ledger.example/us-user-data") };
    let vkey = Ledger::init(&options, &disk, &clock, &genesis)?;
    let ledger = Ledger::open(&options, &disk, &clock, None)?;
    let serving = Serving::bind(ledger, ([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}", serving.address());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.run(async {
        let _asked = stopped.await;
    }));
    writeln!(out, "A ledger in {}\n  ledger key  {vkey}", data.display())?;

    let yesterday = clock.now_nanos().saturating_sub(DAY_NANOS);
    let started = Instant::now();
    let day = record(args, &url, &vkey, yesterday).await?;
    let took = started.elapsed();
    writeln!(out, "\nSix services recorded a day of {} accesses in {took:.1?}.", args.accesses)?;
    writeln!(out, "Every receipt was verified by the service that got it.")?;
    day.tell(out)?;

    let started = Instant::now();
    let audited = look(&url, &vkey, view).await?.map_err(|caught| anyhow::anyhow!(caught))?;
    let took = started.elapsed();
    let totals = audited.verifier.totals();
    writeln!(out, "\nAn auditor, who believes nothing, verified it in {took:.1?}:")?;
    writeln!(
        out,
        "  {} entries linked, {} events, {} seals of {} sources, no number missing,",
        audited.checkpoint.size(),
        audited.checkpoint.size(),
        totals.seals_checked,
        audited.verifier.sequences().iter().count(),
    )?;
    writeln!(out, "  root {} as signed", audited.checkpoint.root())?;

    drop(stop);
    server.await??;
    Ok(vkey)
}

/// Records the day through one recorder a service.
async fn record(
    args: &DemoArgs,
    url: &str,
    ledger: &VerifierKey,
    start: u64,
) -> anyhow::Result<Summary> {
    let roles = Roles::from_iter([SourceRole::Record]);
    let mut recorders = BTreeMap::new();
    for source in day::SOURCES {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let key = Signer::new(source, KeyType::Ed25519, seed)?;
        let channel = connect::channel(url)?;
        connect::enroll(channel.clone(), ledger, &key, roles, None).await?;
        recorders.insert(source, Recorder::builder(channel, key, ledger.clone()).start().await?);
    }
    let mut summary = Summary::default();
    for recorded in Day::new(args.seed, start, args.accesses) {
        summary.count(&recorded.event);
        let recorder = recorders.get(recorded.source).context("a source of the day is missing")?;
        // `flush` waits for the receipts of all.
        let _ticket = recorder.record(recorded.event).await?;
    }
    for (source, recorder) in recorders {
        recorder.flush().await?;
        let closed = recorder.close().await?;
        anyhow::ensure!(closed.unsent == 0, "{source} could not record {}", closed.unsent);
    }
    Ok(summary)
}

/// Audits what is served at `url` against the view: in order, or caught with one sentence.
async fn look(
    url: &str,
    ledger: &VerifierKey,
    view: &Path,
) -> anyhow::Result<Result<Audited, String>> {
    let puller = Puller::new(connect::channel(url)?);
    let mut view = View::open(view, ledger)?;
    let options = AuditOptions { scope: Scope::Events, full: false, witnesses: Vec::new() };
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

/// The day by the office that people accessed data from.
#[derive(Default)]
struct Summary {
    offices: BTreeMap<String, Row>,
}

#[derive(Default)]
struct Row {
    accesses: u64,
    denied: u64,
    unapproved: u64,
    records: u64,
}

impl Summary {
    fn count(&mut self, event: &wire::Event) {
        let Some(wire::event::Body::Access(access)) = &event.body else { return };
        let office = event.actor.as_ref().map_or("", |actor| &actor.office_country);
        let office = if office.is_empty() { "(service)" } else { office };
        let row = self.offices.entry(office.to_owned()).or_default();
        row.accesses += 1;
        row.denied += u64::from(access.outcome() == Outcome::Denied);
        row.unapproved += u64::from(access.outcome() == Outcome::AllowedUnapproved);
        row.records += access.records;
    }

    fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\n  {:<10} {:>8} {:>7} {:>11} {:>12}",
            "office", "accesses", "denied", "unapproved", "records"
        )?;
        for (office, row) in &self.offices {
            let Row { accesses, denied, unapproved, records } = row;
            writeln!(
                out,
                "  {office:<10} {accesses:>8} {denied:>7} {unapproved:>11} {records:>12}"
            )?;
        }
        Ok(())
    }
}

const DAY_NANOS: u64 = 86_400_000_000_000;

/// An audit of the demonstration takes a second.
const LOOK_TIME: Duration = Duration::from_secs(60);
