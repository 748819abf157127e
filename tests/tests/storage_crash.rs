//! The storage stopped at every operation: nothing acknowledged is lost, nothing is doubled.
//!
//! Each case runs a scripted ledger on a simulated disk, stops it at one operation, restarts
//! (killed or without power), opens, compares with the model, goes on to the end, and compares
//! again.

use std::{path::PathBuf, sync::Arc};

use access_ledger_proto::position::{Index, Size};
use access_ledger_server::{
    check::{self, CheckReport},
    error::{Fault, StorageError},
    os::Disk,
    storage::{self, Opened, Options},
};
use access_ledger_tests::{
    disk::{Failure, Restart, SimulatedDisk},
    history::{History, ORIGIN, ledger_key},
};
use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Small, so that a short run fills several.
const SEGMENT_BYTES: u64 = 8 << 10;

/// Frequent enough that tails are prepared, used up, and met by a stop.
const PREPARE_PROBABILITY: f64 = 0.4;

const SEEDS: u64 = 2;

const BATCHES: usize = 30;

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::new("data", ORIGIN) }
}

fn as_disk(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Commits the history from where the log ends, in random groups; keeps `acknowledged` up to date.
fn run(
    opened: &mut Opened,
    history: &History,
    random: &mut ChaCha8Rng,
    acknowledged: &mut Size,
) -> Result<(), StorageError> {
    loop {
        let size = opened.reader.size();
        let records =
            history.records_between(size, history.end_of(size, random.random_range(1..4)));
        if records.is_empty() {
            return Ok(());
        }
        let mut group = opened.log.group();
        for (entry, event) in records {
            group.push(entry, event);
        }
        let range = opened.log.commit(group)?.into_inner();
        *acknowledged = Size(range.end.0);
        for leaf in history.leaves_between(size, *acknowledged) {
            opened.frontier.append(*leaf);
        }
        opened.tree.append(&opened.frontier)?;
        opened.frontier.forget();
        if random.random_bool(PREPARE_PROBABILITY) {
            opened.log.prepare()?;
        }
    }
}

/// Opens and runs; for faults that end it at any point.
fn open_and_run(
    disk: &SimulatedDisk,
    history: &History,
    random: &mut ChaCha8Rng,
    acknowledged: &mut Size,
) -> Result<(), StorageError> {
    let checkpoint =
        (*acknowledged > Size::ZERO).then(|| (*acknowledged, history.root(*acknowledged)));
    let mut opened = storage::open(as_disk(disk), &options(), checkpoint)?;
    run(&mut opened, history, random, acknowledged)
}

/// Opens after a restart and compares everything with the model.
fn open_and_compare(disk: &SimulatedDisk, history: &History, acknowledged: Size) -> Result<Opened> {
    let checkpoint =
        (acknowledged > Size::ZERO).then(|| (acknowledged, history.root(acknowledged)));
    let opened = storage::open(as_disk(disk), &options(), checkpoint).context("open")?;
    let size = opened.reader.size();
    ensure!(size >= acknowledged, "{acknowledged} acknowledged, {size} left");
    let link = history.link(size).with_context(|| format!("size {size} is inside a batch"))?;
    ensure!(opened.link == link, "link");
    ensure!(opened.frontier.size() == size && opened.tree.size() == size, "tree size");
    ensure!(opened.frontier.root() == history.root(size), "root");
    compare_records(&opened, history)?;
    Ok(opened)
}

fn compare_records(opened: &Opened, history: &History) -> Result<()> {
    let mut index = Index(0);
    while opened.reader.size().contains(index) {
        let records = opened.reader.read(index, 7, 4_096)?;
        ensure!(!records.is_empty(), "no record at {index}");
        for record in records {
            let expected = history.records_between(Size(index.0), index.size_through());
            let (entry, event) = expected.first().context("a record too many")?;
            ensure!(record.entry == entry[..], "entry {index}");
            ensure!(record.event.as_deref() == Some(&event[..]), "event {index}");
            index = index.next();
        }
    }
    ensure!(opened.reader.read(index, 7, 4_096)?.is_empty(), "a record behind the end");
    Ok(())
}

fn check(disk: &SimulatedDisk, history: &History, size: Size) -> Result<CheckReport> {
    let checkpoint = Some((size, history.root(size)));
    Ok(check::check(&as_disk(disk), &options(), &ledger_key()?, checkpoint, &|_| {})?)
}

/// Compares, goes on to the end of the history, and verifies everything that is stored then.
fn finish(disk: &SimulatedDisk, history: &History, acknowledged: Size, seed: u64) -> Result<()> {
    let mut opened = open_and_compare(disk, history, acknowledged)?;
    let mut acknowledged = opened.reader.size();
    run(&mut opened, history, &mut ChaCha8Rng::seed_from_u64(!seed), &mut acknowledged)?;
    ensure!(acknowledged == history.size(), "went on to {acknowledged}");
    compare_records(&opened, history)?;
    drop(opened);
    let report = check(disk, history, acknowledged)?;
    if let Some(problem) = report.problem {
        bail!("check: {problem}");
    }
    ensure!(report.size == acknowledged && !report.has_torn_tail, "check: {report:?}");
    Ok(())
}

/// Operations of a whole run without failures.
fn operations_of(history: &History, seed: u64) -> Result<u64> {
    let disk = SimulatedDisk::new(seed);
    let mut acknowledged = Size::ZERO;
    open_and_run(&disk, history, &mut ChaCha8Rng::seed_from_u64(seed), &mut acknowledged)?;
    let operations = disk.operations();
    finish(&disk, history, acknowledged, seed)?;
    let segments = disk.paths().iter().filter(|path| path.starts_with("data/log")).count();
    ensure!(segments > 4, "only {segments} segments: the script tests no rotation");
    Ok(operations)
}

fn each_stop(mut case: impl FnMut(&History, u64, u64, Restart) -> Result<()>) -> Result<()> {
    for seed in 0..SEEDS {
        let history = History::new(seed, BATCHES, 6_000)?;
        for at in 0..operations_of(&history, seed)? {
            for restart in [Restart::Killed, Restart::PowerLost] {
                case(&history, seed, at, restart)
                    .with_context(|| format!("seed {seed}, operation {at}, {restart:?}"))?;
            }
        }
    }
    Ok(())
}

/// Runs into a stop at operation `at`, and restarts. Returns what was acknowledged.
fn run_into_stop(
    disk: &SimulatedDisk,
    history: &History,
    (seed, at): (u64, u64),
    restart: Restart,
) -> Size {
    let mut acknowledged = Size::ZERO;
    disk.set_failure(Failure::StopAt(at));
    let stopped =
        open_and_run(disk, history, &mut ChaCha8Rng::seed_from_u64(seed), &mut acknowledged);
    assert!(stopped.is_err() && disk.is_stopped());
    disk.restart(restart);
    acknowledged
}

#[test]
fn stop_at_any_operation_loses_and_doubles_nothing() -> Result<()> {
    each_stop(|history, seed, at, restart| {
        let disk = SimulatedDisk::new(seed ^ at << 8);
        let acknowledged = run_into_stop(&disk, history, (seed, at), restart);
        finish(&disk, history, acknowledged, seed)
    })
}

#[test]
fn stop_at_any_operation_of_the_recovery_loses_nothing_either() -> Result<()> {
    // Every third stop of the run, so that all stops of the recovery behind it fit into the time.
    each_stop(|history, seed, at, restart| {
        if at % 3 != seed % 3 {
            return Ok(());
        }
        for recovery_at in 0.. {
            let disk = SimulatedDisk::new(seed ^ at << 8 ^ recovery_at << 16);
            let acknowledged = run_into_stop(&disk, history, (seed, at), restart);
            disk.set_failure(Failure::StopAt(recovery_at));
            let opened = storage::open(as_disk(&disk), &options(), None);
            if !disk.is_stopped() {
                return Ok(());
            }
            assert!(opened.is_err());
            drop(opened);
            disk.restart(restart);
            let opened = open_and_compare(&disk, history, acknowledged)
                .with_context(|| format!("recovery operation {recovery_at}"))?;
            drop(opened);
        }
        Ok(())
    })
}

#[test]
fn two_stops_in_a_row_lose_nothing() -> Result<()> {
    each_stop(|history, seed, at, restart| {
        let disk = SimulatedDisk::new(seed ^ at << 8);
        let mut acknowledged = run_into_stop(&disk, history, (seed, at), restart);
        disk.set_failure(Failure::StopAt(at / 2));
        let random = &mut ChaCha8Rng::seed_from_u64(seed + 1);
        // The rest of the history may need fewer operations: then there is no second stop.
        drop(open_and_run(&disk, history, random, &mut acknowledged));
        disk.restart(Restart::PowerLost);
        finish(&disk, history, acknowledged, seed)
    })
}

#[test]
fn failed_operation_poisons_and_what_was_acknowledged_is_there() -> Result<()> {
    each_stop(|history, seed, at, restart| {
        let disk = SimulatedDisk::new(seed ^ at << 8);
        let mut acknowledged = Size::ZERO;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        disk.set_failure(Failure::ErrorAt(at));
        if let Ok(mut opened) = storage::open(as_disk(&disk), &options(), None) {
            let failed = run(&mut opened, history, &mut random, &mut acknowledged);
            let Err(StorageError::Io { operation, path, .. }) = failed else {
                bail!("the failure went unseen: {failed:?}");
            };
            // What is written to the tree follows from the log; any other failure poisons for good.
            let is_derived = operation == "write" && path.starts_with("data/tree");
            ensure!(opened.log.is_poisoned() != is_derived, "{operation} {}", path.display());
            if !is_derived {
                let group = opened.log.group();
                let refused = opened.log.commit(group);
                ensure!(matches!(refused, Err(StorageError::Poisoned)), "not poisoned");
                ensure!(
                    matches!(opened.log.prepare(), Err(StorageError::Poisoned)),
                    "not poisoned"
                );
            }
        }
        disk.restart(restart);
        // What survives a failed sync is durable once it was opened: power may fail right then.
        let survived = open_and_compare(&disk, history, acknowledged)?.reader.size();
        disk.restart(Restart::PowerLost);
        finish(&disk, history, survived, seed)
    })
}

#[test]
fn full_disk_is_an_error_and_loses_nothing() -> Result<()> {
    each_stop(|history, seed, at, restart| {
        let disk = SimulatedDisk::new(seed ^ at << 8);
        let mut acknowledged = Size::ZERO;
        disk.set_failure(Failure::FullAt(at));
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let refused = open_and_run(&disk, history, random, &mut acknowledged);
        if let Err(error) = refused {
            let is_full = matches!(&error, StorageError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull);
            ensure!(is_full, "{error}");
        }
        disk.restart(restart);
        finish(&disk, history, acknowledged, seed)
    })
}

#[test]
fn a_read_that_fails_is_an_error_and_loses_nothing() -> Result<()> {
    for seed in 0..SEEDS {
        let history = History::new(seed, BATCHES, 6_000)?;
        let disk = SimulatedDisk::new(seed);
        let mut acknowledged = Size::ZERO;
        open_and_run(&disk, &history, &mut ChaCha8Rng::seed_from_u64(seed), &mut acknowledged)?;
        // Opening reads; what is written is not read again.
        disk.set_failure(Failure::Never);
        drop(open_and_compare(&disk, &history, acknowledged)?);
        for at in 0..disk.reads() {
            let disk = disk.copy(seed ^ at << 8);
            disk.set_failure(Failure::ReadErrorAt(at));
            let failed = open_and_compare(&disk, &history, acknowledged).map(drop);
            let error = failed.err().with_context(|| format!("read {at} failed unseen"))?;
            let is_told = matches!(
                error.chain().find_map(|cause| cause.downcast_ref()),
                Some(StorageError::Io { operation: "read", .. })
            );
            ensure!(is_told, "read {at}: {error:?}");
            disk.restart(Restart::PowerLost);
            finish(&disk, &history, acknowledged, seed)?;
        }
    }
    Ok(())
}

#[test]
fn a_read_only_segment_is_an_error_that_names_it_and_loses_nothing() -> Result<()> {
    let history = History::new(1, BATCHES, 6_000)?;
    let disk = SimulatedDisk::new(1);
    let mut acknowledged = Size::ZERO;
    open_and_run(&disk, &history, &mut ChaCha8Rng::seed_from_u64(1), &mut acknowledged)?;
    let is_segment = |path: &PathBuf| path.starts_with("data/log");
    let last = disk.paths().into_iter().rfind(is_segment).context("no segment")?;
    disk.set_read_only(&last, true);
    let refused = storage::open(as_disk(&disk), &options(), None).map(drop);
    ensure!(matches!(&refused, Err(StorageError::Io { path, .. }) if *path == last), "{refused:?}");
    disk.set_read_only(&last, false);
    finish(&disk, &history, acknowledged, 1)
}

#[test]
fn entries_that_the_checkpoint_covers_are_never_cut() -> Result<()> {
    each_stop(|history, seed, at, _| {
        let disk = SimulatedDisk::new(seed ^ at << 8);
        run_into_stop(&disk, history, (seed, at), Restart::Killed);
        let size = match storage::open(as_disk(&disk), &options(), None) {
            Ok(opened) => opened.reader.size(),
            Err(error) => bail!("{error}"),
        };
        let Some(beyond) = history.links.iter().map(|link| link.size).find(|beyond| *beyond > size)
        else {
            return Ok(());
        };
        let refused =
            storage::open(as_disk(&disk), &options(), Some((beyond, history.root(beyond))));
        match refused.map(|_| ()) {
            Err(StorageError::Damage { index, fault: Fault::Lost { checkpoint }, .. }) => {
                ensure!(index == size.next_index() && checkpoint == beyond, "{index} {checkpoint}");
                Ok(())
            }
            other => bail!("{other:?}"),
        }
    })
}
