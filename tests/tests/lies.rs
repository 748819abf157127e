//! What a ledger may try on its custodian itself, rather than in its log: to crash it, to fill it,
//! to keep it busy for ever, to show it what only a part of it sees. Each is noticed, and when the
//! ledger is honest again the custodian signs on.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::Entry,
    hash::sha256,
    note::{Note, VerifierKey},
    position::{Size, count_of, memory_len},
    wire::{EntryRun, ReadEntriesRequest},
    witness::{AddCheckpoint, origin_hex},
};
use access_ledger_server::{
    custodian::{
        alarms::{AlarmKind, Alarms},
        patrol::PatrolOptions,
    },
    scrub::ScrubOptions,
};
use access_ledger_tests::{
    custodian::{Keeper, Setup, until},
    hostile::{Hostile, Runs, Server, broken, silent, whole},
    node::Node,
    operator::{Crime, SIZE, append},
    pages,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::stream;
use tonic::Status;

/// An entry inside a batch, which carries no seal.
const TARGET: u64 = 9;

/// Whether the ledger lies.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn lying() -> Self {
        let switch = Self::default();
        switch.set(true);
        switch
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }
}

/// A custodian that is quick to judge.
fn quick(folder: &Path, crime: &Crime) -> Setup {
    let mut setup = Setup::new(folder, &crime.vkey);
    setup.options.patrol = PatrolOptions {
        round: Duration::from_millis(20),
        answer_grace: Duration::from_millis(700),
        ..PatrolOptions::default()
    };
    setup.options.behind_after = Duration::from_millis(300);
    setup
}

fn kinds(alarms: &Alarms) -> Vec<(AlarmKind, Option<u64>)> {
    alarms.all().iter().map(|record| (record.kind, record.index)).collect()
}

async fn ended(alarms: &Alarms) -> anyhow::Result<()> {
    until(async || Ok(alarms.lasting().is_empty().then_some(()))).await
}

/// Where the target lies in a run, if it does.
fn at_target(run: &EntryRun) -> Option<usize> {
    let at = TARGET.checked_sub(run.first_index).and_then(memory_len)?;
    (at < run.entries.len()).then_some(at)
}

/// The runs up to the target, and what comes instead of it.
fn until_target(runs: Vec<EntryRun>, request: &ReadEntriesRequest, then: Status) -> Runs {
    let mut before = Vec::new();
    let is_asked =
        request.first_index <= TARGET && (request.end_index == 0 || request.end_index > TARGET);
    for mut run in runs {
        match at_target(&run) {
            Some(0) => break,
            Some(at) => {
                run.entries.truncate(at);
                run.events.truncate(at);
                before.push(run);
                break;
            }
            None => before.push(run),
        }
    }
    match is_asked {
        true if then.code() == tonic::Code::Ok => silent(before),
        true => broken(before, then),
        false => whole(before),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_long_counts_as_none_and_crashes_nobody() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, switch) = (tempfile::tempdir()?, Switch::lying());
    let lies = switch.clone();
    let hostile = Hostile::new(crime.honest.serve()?).read(move |_, _, mut runs| {
        for run in runs.iter_mut().filter(|_| lies.is_on()) {
            if let Some(at) = at_target(run) {
                run.events[at] = vec![7; Entry::EVENT_LEN_MAX + 1].into();
            }
        }
        whole(runs)
    });
    let server = Server::start(hostile).await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    keeper.raises(AlarmKind::Withheld).await?;
    switch.set(false);
    keeper.cosigns(SIZE).await?;
    ended(&keeper.alarms).await?;
    ensure!(kinds(&keeper.alarms) == [(AlarmKind::Withheld, Some(TARGET))]);
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_nothing_without_an_end_is_cut() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, switch) = (tempfile::tempdir()?, Switch::default());
    let (lies, sent) = (switch.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = sent.clone();
    let hostile = Hostile::new(crime.honest.serve()?).watch(move |_, request, runs| {
        if !lies.is_on() {
            return silent(runs);
        }
        counted.store(0, Ordering::SeqCst);
        let (first, counted) = (request.first_index, counted.clone());
        // Some bytes on the wire each, and no checkpoint ever.
        Box::pin(stream::iter((0..).map(move |number: u64| {
            counted.fetch_add(1, Ordering::SeqCst);
            let nothing = vec![Bytes::new(); NOTHINGS];
            let first_index = first + number * count_of(NOTHINGS);
            Ok(EntryRun { first_index, entries: nothing.clone(), events: nothing })
        })))
    });
    let server = Server::start(hostile).await?;
    switch.set(true);
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    let most = AtomicUsize::new(0);
    until(async || {
        most.fetch_max(sent.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok((server.asked.watches() >= 3).then_some(()))
    })
    .await?;
    ensure!(most.load(Ordering::SeqCst) < 1_000, "{most:?} runs at once");
    switch.set(false);
    keeper.cosigns(SIZE).await?;
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_too_long_to_keep_is_none() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, switch) = (tempfile::tempdir()?, Switch::lying());
    let (lies, liar) = (switch.clone(), crime.honest.serve()?);
    let text = VerifiedCheckpoint::open(liar.checkpoint(), &crime.vkey, &[])?.checkpoint().text();
    let long = format!("{text}{}\n", "x".repeat(Note::LEN_MAX));
    let long = Bytes::from(Checkpoint::parse(&long)?.sign(&crime.honest.key)?);
    let hostile = Hostile::new(liar)
        .checkpoint(move |_, note| Ok(if lies.is_on() { long.clone() } else { note }));
    let server = Server::start(hostile).await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    let record = keeper.raises(AlarmKind::CheckpointInvalid).await?;
    let evidence = keeper.alarms.evidence(&record).context("evidence")?;
    ensure!(evidence.metadata()?.len() < 2 * Note::LEN_MAX as u64);
    keeper.stop().await?;
    // It can be started again, and signs when the ledger is honest.
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    switch.set(false);
    keeper.cosigns(SIZE).await?;
    ended(&keeper.alarms).await?;
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_gone_is_told_however_fast_the_ledger_grows() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let mut notes = Vec::new();
    for _ in 0..GROWTHS {
        let [source, _] = &mut crime.sources;
        let events = source.events(1);
        append(&mut crime.honest, source, events)?;
        notes.push(crime.honest.serve()?.checkpoint().clone());
    }
    let mut copy = crime.honest.clone();
    copy.record(TARGET)?.event = None;
    // Whoever asks is always shown a larger size, and hopes for the record behind it.
    for (log, is_honest) in [(&crime.honest, true), (&copy, false)] {
        let (folder, notes) = (tempfile::tempdir()?, notes.clone());
        let newest = move |call: usize, note| Ok(notes.get(call).cloned().unwrap_or(note));
        let hostile = Hostile::new(log.serve()?).checkpoint(newest);
        let server = Server::start(hostile.watch(|_, _, _| silent(Vec::new()))).await?;
        let keeper = quick(folder.path(), &crime).start(server.address).await?;
        if is_honest {
            keeper.cosigns(SIZE).await?;
            ensure!(keeper.alarms.all().is_empty());
        } else {
            keeper.raises(AlarmKind::LogInvalid).await?;
            ensure!(kinds(&keeper.alarms) == [(AlarmKind::LogInvalid, Some(TARGET))]);
            ensure!(server.asked.checkpoints() <= 3, "{}", server.asked.checkpoints());
        }
        keeper.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_never_sent_is_withheld() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    // It cannot be had for the moment; it is on its way, and never comes.
    for excuse in [Status::unavailable("in a moment"), Status::ok("")] {
        let (folder, switch) = (tempfile::tempdir()?, Switch::default());
        let (lies, says) = (switch.clone(), excuse.clone());
        let hostile = Hostile::new(crime.honest.serve()?.with_run_entries(4)).read(
            move |_, request, runs| match lies.is_on() {
                true => until_target(runs, request, says.clone()),
                false => whole(runs),
            },
        );
        let server = Server::start(hostile).await?;
        let keeper = quick(folder.path(), &crime).start(server.address).await?;
        keeper.cosigns(SIZE).await?;
        ensure!(keeper.alarms.all().is_empty(), "{excuse:?}: {:?}", keeper.alarms.all());
        switch.set(true);
        keeper.raises(AlarmKind::Withheld).await?;
        let raised = kinds(&keeper.alarms);
        ensure!(raised == [(AlarmKind::Withheld, Some(TARGET))], "{excuse:?}: {raised:?}");
        switch.set(false);
        ended(&keeper.alarms).await?;
        keeper.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_catch_up_that_never_goes_on_is_told() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, switch) = (tempfile::tempdir()?, Switch::lying());
    let lies = switch.clone();
    let hostile =
        Hostile::new(crime.honest.serve()?.with_run_entries(4)).read(move |_, request, runs| {
            match lies.is_on() {
                true => until_target(runs, request, Status::ok("")),
                false => whole(runs),
            }
        });
    let server = Server::start(hostile).await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    keeper.raises(AlarmKind::Behind).await?;
    ensure!(kinds(&keeper.alarms) == [(AlarmKind::Behind, None)]);
    switch.set(false);
    keeper.stop().await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    ended(&keeper.alarms).await?;
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_falls_behind_later_is_told_until_it_has_all() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let before = crime.honest.serve()?.checkpoint().clone();
    let [source, _] = &mut crime.sources;
    let events = source.events(3);
    append(&mut crime.honest, source, events)?;
    let (folder, grown, withholds) = (tempfile::tempdir()?, Switch::default(), Switch::lying());
    let (grows, lies) = (grown.clone(), withholds.clone());
    let hostile = Hostile::new(crime.honest.serve()?)
        .checkpoint(move |_, note| Ok(if grows.is_on() { note } else { before.clone() }))
        .read(move |_, request, runs| match lies.is_on() && request.end_index > SIZE {
            true => broken(Vec::new(), Status::unavailable("in a moment")),
            false => whole(runs),
        })
        .watch(|_, _, _| silent(Vec::new()));
    let server = Server::start(hostile).await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    ensure!(keeper.alarms.all().is_empty(), "{:?}", keeper.alarms.all());
    // It signs for three entries more, and keeps them back.
    grown.set(true);
    let record = keeper.raises(AlarmKind::Behind).await?;
    ensure!(kinds(&keeper.alarms) == [(AlarmKind::Behind, None)]);
    ensure!(record.size == SIZE && record.message.contains("by 3 entries"), "{record:?}");
    ensure!(keeper.alarms.lasting().len() == 1, "{:?}", keeper.alarms.all());
    withholds.set(false);
    keeper.cosigns(SIZE + 3).await?;
    ended(&keeper.alarms).await?;
    ensure!(kinds(&keeper.alarms) == [(AlarmKind::Behind, None)]);
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_only_the_patrol_is_shown_convicts_and_fills_no_folder() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, switch) = (tempfile::tempdir()?, Switch::default());
    let (lies, was_read) = (switch.clone(), Switch::default());
    let signed = |size: u64, root: &[u8]| -> anyhow::Result<Bytes> {
        let other = Checkpoint::new(crime.vkey.name(), Size(size), sha256(root))?;
        Ok(other.sign(&crime.honest.key)?.into())
    };
    let (reads, forked) = (was_read.clone(), signed(SIZE, b"other")?);
    let hostile = Hostile::new(crime.honest.serve()?)
        .read(move |_, _, mut runs| {
            for run in runs.iter_mut().filter(|_| lies.is_on()) {
                if let Some(at) = at_target(run) {
                    run.events[at] = Bytes::from_static(b"another event");
                    reads.set(true);
                }
            }
            whole(runs)
        })
        // Whoever asks right behind such an answer is the patrol, which must not be put off.
        .checkpoint(move |_, note| {
            let is_patrol = was_read.0.swap(false, Ordering::SeqCst);
            Ok(if is_patrol { forked.clone() } else { note })
        });
    let server = Server::start(hostile).await?;
    let keeper = quick(folder.path(), &crime).start(server.address).await?;
    keeper.cosigns(SIZE).await?;
    switch.set(true);
    keeper.raises(AlarmKind::Fork).await?;
    until(async || Ok(folder.path().join("halted").exists().then_some(()))).await?;
    let raised = kinds(&keeper.alarms);
    ensure!(raised == [(AlarmKind::Fork, None)], "{raised:?}");
    // Whatever more it signs and sends is refused, and makes no further alarms.
    for number in 0..20 {
        let note = signed(number % SIZE + 1, &number.to_be_bytes())?;
        let body = AddCheckpoint { old: Size(SIZE), proof: Vec::new(), note: &note }.to_bytes();
        let answer = pages::post(keeper.address, "/add-checkpoint", &body).await?;
        ensure!((400..500).contains(&answer.status), "{}", answer.status);
    }
    ensure!(kinds(&keeper.alarms) == raised, "{:?}", kinds(&keeper.alarms));
    keeper.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leads_nowhere_neither_convicts_nor_excuses() -> anyhow::Result<()> {
    let mut crime = Crime::scene().await?;
    let before = crime.honest.clone();
    let [source, _] = &mut crime.sources;
    let events = source.events(3);
    append(&mut crime.honest, source, events)?;
    for is_refused in [true, false] {
        let (folder, switch) = (tempfile::tempdir()?, Switch::default());
        let honest = Server::start(Hostile::new(before.serve()?)).await?;
        let keeper = quick(folder.path(), &crime).start(honest.address).await?;
        keeper.cosigns(SIZE).await?;
        keeper.stop().await?;
        // The ledger goes on, with a tree that has rotted.
        let lies = switch.clone();
        let hostile = Hostile::new(crime.honest.serve()?)
            .consistency(move |path| match is_refused {
                true => Err(Status::data_loss("the tree is damaged")),
                false => Ok(path?.iter().map(|_| vec![7; 32].into()).collect()),
            })
            .read(move |_, _, mut runs| {
                for run in runs.iter_mut().filter(|_| lies.is_on()) {
                    if let Some(at) = at_target(run) {
                        run.events[at] = Bytes::from_static(b"another event");
                    }
                }
                whole(runs)
            });
        let server = Server::start(hostile).await?;
        let keeper = quick(folder.path(), &crime).start(server.address).await?;
        keeper.cosigns(SIZE + 3).await?;
        ensure!(keeper.alarms.lasting().is_empty(), "{:?}", keeper.alarms.all());
        switch.set(true);
        keeper.raises(AlarmKind::Damaged).await?;
        switch.set(false);
        ended(&keeper.alarms).await?;
        ensure!(keeper.alarms.all().iter().all(|record| record.kind == AlarmKind::Damaged));
        keeper.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_whose_own_disk_is_damaged_signs_nothing_until_it_is_mended()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("ledger")).await?;
    let data = folder.path().join("keeper");
    let mut setup = Setup::new(&data, &node.vkey);
    setup.options.segment_bytes = 4 << 10;
    setup.options.scrub =
        ScrubOptions { bytes_per_second: u64::MAX, rest: Duration::from_millis(1) };
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    let (keeper, mut size) = (setup.start(node.address).await?, 0);
    for _ in 0..10 {
        let sealed = source.record(5)?;
        size = node.clients().record(&sealed).await?.first_index + 5;
        // One after the other, so that they fill several segments.
        keeper.holds(size).await?;
    }
    keeper.cosigns(size).await?;

    let mut segments = fs::read_dir(data.join("log"))?
        .map(|file| Ok(file?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    segments.sort();
    ensure!(segments.len() > 3, "{segments:?}");
    let file = OpenOptions::new().read(true).write(true).open(&segments[1])?;
    let (at, mut byte) = (file.metadata()?.len() / 2, [0]);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    keeper.raises(AlarmKind::CopyDamaged).await?;
    // Not even what it has signed before: the ledger is idle.
    is_refused(&data, &keeper, size).await?;
    let sealed = source.record(1)?;
    size = node.clients().record(&sealed).await?.first_index + 1;
    is_refused(&data, &keeper, size).await?;
    keeper.stop().await?;
    // Nor after a restart, before all was read again.
    file.write_all_at(&byte, at)?;
    let mut unread = setup.clone();
    unread.options.scrub.bytes_per_second = 1;
    let keeper = unread.start(node.address).await?;
    is_refused(&data, &keeper, size).await?;
    keeper.stop().await?;

    let keeper = setup.start(node.address).await?;
    ended(&keeper.alarms).await?;
    let sealed = source.record(1)?;
    size = node.clients().record(&sealed).await?.first_index + 1;
    keeper.cosigns(size).await?;
    let kinds = keeper.alarms.all().iter().map(|record| record.kind).collect::<Vec<_>>();
    assert_eq!(kinds, [AlarmKind::CopyDamaged], "the ledger has done nothing");
    keeper.stop().await?;
    node.stop().await
}

/// It holds so much, and signs nothing of it.
async fn is_refused(data: &Path, keeper: &Keeper, size: u64) -> anyhow::Result<()> {
    let held = keeper.holds(size).await?;
    let old = signed_size(data, &keeper.ledger)?;
    let body = AddCheckpoint { old, proof: Vec::new(), note: held.note().as_bytes() };
    let answer = pages::post(keeper.address, "/add-checkpoint", &body.to_bytes()).await?;
    ensure!(answer.status == 503 && answer.text().contains("damaged"), "{}", answer.text());
    Ok(())
}

/// The size that a custodian signed last.
fn signed_size(data: &Path, ledger: &VerifierKey) -> anyhow::Result<Size> {
    let note = fs::read(data.join("witness").join(origin_hex(ledger.name())))?;
    Ok(VerifiedCheckpoint::open(&note, ledger, &[])?.size())
}

/// Empty entries of a run.
const NOTHINGS: usize = 10_000;

/// How often the ledger grows.
const GROWTHS: usize = 40;
