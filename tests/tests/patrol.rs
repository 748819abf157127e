//! What the patrol tells is so when it tells it, and not for want of the copy's own diligence.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access_ledger_client::verify::Scope;
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    position::{Index, Size, memory_len},
    wire::{EntryRun, ReadEntriesRequest},
};
use access_ledger_server::{
    custodian::{
        alarms::{AlarmKind, Alarms},
        copy::Copy,
        patrol::{Beat, PatrolOptions, patrol},
    },
    demo::tamper::Seized,
    folder::real_disk,
    os::{Clock as _, SystemClock},
    storage::Options,
};
use access_ledger_tests::{
    custodian::{Setup, until},
    hostile::{Asked, Cable, Hostile, Server, broken, silent, whole},
    node::ORIGIN,
    operator::{Crime, SIZE, append},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use tonic::Status;

/// An entry inside a batch of the scene's log, which carries no seal.
const TARGET: u64 = 9;

/// No grace at all.
const STRICT: PatrolOptions = PatrolOptions {
    bytes_per_second: 4 << 20,
    round: Duration::from_millis(20),
    erasure_grace: Duration::ZERO,
    record_grace: Duration::ZERO,
    answer_grace: Duration::from_secs(60),
};

/// A copy of a log, with a patrol over it.
struct Bench {
    crime: Crime,
    copy: Copy,
    signed: watch::Sender<Option<Arc<VerifiedCheckpoint>>>,
    /// Up to when the copy accounts for what is served.
    accounted: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

/// A patrol that goes, and what it has raised.
struct Going {
    alarms: Arc<Alarms>,
    server: Server,
    patrol: JoinHandle<()>,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.patrol.abort();
    }
}

impl Bench {
    /// With a copy of the scene's log, in which the event of [`TARGET`] may be gone; that no
    /// redaction accounts for it does not matter here.
    async fn new(is_erased: bool) -> anyhow::Result<Self> {
        let crime = Crime::scene().await?;
        let folder = tempfile::tempdir()?;
        let held = if is_erased { erased(&crime)? } else { crime.honest.clone() };
        let server = Server::start(Hostile::new(held.serve()?)).await?;
        let mut runs = Vec::new();
        let mut records = server.puller()?.records(Index::GENESIS, Size(SIZE), Scope::Events);
        while let Some(run) = records.next().await {
            runs.push(run?);
        }
        let (options, vkey) = (Options::new(folder.path(), ORIGIN), crime.vkey.clone());
        let copy = tokio::task::spawn_blocking(move || {
            let mut copy = Copy::open(&real_disk(), &options, &vkey, None, None)?;
            copy.take(runs)?;
            copy.sync()?;
            Ok::<_, anyhow::Error>(copy)
        });
        let copy = copy.await??;
        let note = server.puller()?.checkpoint().await?;
        let signed = VerifiedCheckpoint::open(&note, &crime.vkey, &[])?;
        let signed = watch::Sender::new(Some(Arc::new(signed)));
        let accounted = Arc::new(AtomicU64::new(u64::MAX));
        Ok(Self { crime, copy, signed, accounted, folder })
    }

    /// Goes its rounds over what `hostile` serves.
    async fn patrols(&self, hostile: Hostile) -> anyhow::Result<Going> {
        let server = Server::start(hostile).await?;
        let (clock, accounted) = (Arc::new(SystemClock), self.accounted.clone());
        let folder = tempfile::tempdir_in(self.folder.path())?.keep();
        let alarms = Arc::new(Alarms::open(real_disk(), clock.clone(), &folder)?);
        let vkey = self.crime.vkey.clone();
        let beat = Beat {
            puller: server.puller()?,
            ledger: vkey.clone(),
            open: Arc::new(move |note| VerifiedCheckpoint::open(note, &vkey, &[])),
            reader: self.copy.reader().clone(),
            tree: self.copy.tree().clone(),
            signed: self.signed.subscribe(),
            alarms: alarms.clone(),
            clock,
            accounted: Arc::new(move || accounted.load(Ordering::SeqCst)),
            convict: Arc::new(|_| ()),
        };
        Ok(Going { alarms, server, patrol: tokio::spawn(patrol(beat, STRICT)) })
    }
}

impl Going {
    /// What was raised after some rounds more.
    async fn raised(&self) -> anyhow::Result<Vec<(AlarmKind, Option<u64>)>> {
        rounds(&self.server.asked).await?;
        let alarms = self.alarms.all();
        ensure!(alarms.iter().all(|record| record.evidence.is_none()), "it holds no event");
        Ok(kinds(&self.alarms))
    }
}

fn kinds(alarms: &Alarms) -> Vec<(AlarmKind, Option<u64>)> {
    alarms.all().iter().map(|record| (record.kind, record.index)).collect()
}

/// Waits until the patrol has read the whole log three times more.
async fn rounds(asked: &Asked) -> anyhow::Result<()> {
    let begun = asked.reads().len();
    let from_the_start =
        || asked.reads().iter().skip(begun).filter(|&&(first, _)| first == 0).count();
    until(async || Ok((from_the_start() >= 4).then_some(()))).await
}

/// The scene's log without the event of [`TARGET`].
fn erased(crime: &Crime) -> anyhow::Result<Seized> {
    let mut erased = crime.honest.clone();
    erased.record(TARGET)?.event = None;
    Ok(erased)
}

/// Whether this is a second look at [`TARGET`], and no part of a round.
fn is_second_look(request: &ReadEntriesRequest) -> bool {
    (request.first_index, request.end_index) == (TARGET, TARGET + 1)
}

/// The event of [`TARGET`] in some runs.
fn event(runs: &mut [EntryRun]) -> Option<&mut Bytes> {
    let run = runs.iter_mut().rfind(|run| run.first_index <= TARGET)?;
    run.events.get_mut(memory_len(TARGET - run.first_index)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_on_one_side_alone_is_told() -> anyhow::Result<()> {
    let whole_log = Bench::new(false).await?;
    let without = Bench::new(true).await?;
    for (bench, is_served, wanted) in [
        (&whole_log, true, None),
        (&whole_log, false, Some(AlarmKind::Withheld)),
        (&without, false, None),
        (&without, true, Some(AlarmKind::NotErased)),
    ] {
        let log = if is_served { bench.crime.honest.clone() } else { erased(&bench.crime)? };
        let raised = bench.patrols(Hostile::new(log.serve()?)).await?.raised().await?;
        let wanted: Vec<_> = wanted.into_iter().map(|kind| (kind, Some(TARGET))).collect();
        ensure!(raised == wanted, "{raised:?}, wanted {wanted:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_order_at_the_end_of_the_round_is_not_told() -> anyhow::Result<()> {
    for is_erased in [false, true] {
        let bench = Bench::new(is_erased).await?;
        let event_of_it = bench.crime.honest.clone().record(TARGET)?.event.clone();
        let event_of_it = event_of_it.context("an event")?;
        // In every round it is not yet what the copy has, and right behind that it is.
        let hostile =
            Hostile::new(bench.crime.honest.serve()?).read(move |_, request, mut runs| {
                if let Some(event) = event(&mut runs) {
                    let is_there = is_second_look(request) != is_erased;
                    *event = if is_there { event_of_it.clone() } else { Bytes::new() };
                }
                whole(runs)
            });
        let going = bench.patrols(hostile).await?;
        ensure!(going.raised().await?.is_empty(), "{is_erased}: {:?}", going.alarms.all());
        ensure!(going.server.asked.reads().contains(&(TARGET, TARGET + 1)), "looked again");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_that_is_refused_excuses_nothing() -> anyhow::Result<()> {
    let bench = Bench::new(false).await?;
    let hostile = Hostile::new(erased(&bench.crime)?.serve()?);
    let hostile = hostile.read(|_, request, runs| match is_second_look(request) {
        true => broken(Vec::new(), Status::unavailable("not twice")),
        false => whole(runs),
    });
    let raised = bench.patrols(hostile).await?.raised().await?;
    ensure!(raised == [(AlarmKind::Withheld, Some(TARGET))], "{raised:?}");
    Ok(())
}

/// As right after a start: the redaction is on its way here.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_before_the_copy_accounts_for_it() -> anyhow::Result<()> {
    let bench = Bench::new(false).await?;
    let clock = SystemClock;
    bench.accounted.store(clock.now_nanos(), Ordering::SeqCst);
    let going = bench.patrols(Hostile::new(erased(&bench.crime)?.serve()?)).await?;
    let raised = going.raised().await?;
    ensure!(raised.is_empty(), "{raised:?}");
    bench.accounted.store(clock.now_nanos(), Ordering::SeqCst);
    let raised = going.raised().await?;
    ensure!(raised == [(AlarmKind::Withheld, Some(TARGET))], "{raised:?}");
    Ok(())
}

/// The patrol reads what the copy holds; what the follower is refused lies behind that.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_follower_is_refused_no_round_finds_in_order() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let before = Server::start(Hostile::new(crime.honest.serve()?)).await?;
    let cable = Cable::to(&before).await?;
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new(folder.path(), &crime.vkey);
    setup.options.patrol = STRICT;
    let keeper = setup.start(cable.address).await?;
    keeper.cosigns(SIZE).await?;

    let [source, _] = &mut crime.sources;
    let events = source.events(2);
    append(&mut crime.honest, source, events)?;
    let grown = || Ok::<_, anyhow::Error>(Hostile::new(crime.honest.serve()?));
    let refusing = grown()?.watch(|_, _, _| silent(Vec::new()));
    let refusing = refusing.read(|_, request, runs| match request.end_index > SIZE {
        true => broken(Vec::new(), Status::data_loss("gone")),
        false => whole(runs),
    });
    let refusing = Server::start(refusing).await?;
    cable.plug(&refusing);
    keeper.raises(AlarmKind::Withheld).await?;
    rounds(&refusing.asked).await?;
    let raised: Vec<_> = keeper.alarms.all();
    let told: Vec<_> = raised.iter().map(|record| (record.index, record.is_lasting())).collect();
    ensure!(told == [(Some(SIZE), true)], "{raised:?}");

    let honest = Server::start(grown()?).await?;
    cable.plug(&honest);
    keeper.cosigns(SIZE + 2).await?;
    until(async || Ok(keeper.alarms.lasting().is_empty().then_some(()))).await?;
    ensure!(kinds(&keeper.alarms).len() == 1, "{:?}", keeper.alarms.all());
    keeper.stop().await
}
