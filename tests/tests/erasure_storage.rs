//! Events are erased from segments whenever the machine stops: each is whole or gone, everything
//! else is as it was, and the work that a stop cut off is finished. Readers see nothing in between.

use std::{
    collections::HashSet,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use access_ledger_proto::{
    hash::sha256,
    position::{Index, Size},
};
use access_ledger_server::{
    check,
    error::{Fault, StorageError},
    os::{self, Disk},
    storage::{self, Attempt, LogReader, Opened, Options},
};
use access_ledger_tests::{
    disk::{Failure, Restart, SimulatedDisk},
    history::{History, ORIGIN, ledger_key},
};
use anyhow::{Context as _, Result, bail, ensure};

/// Small, so that a short history fills several.
const SEGMENT_BYTES: u64 = 4 << 10;

/// What is erased: from the first segment into the newest.
const RANGE: Range<Index> = Index(9)..Index(34);

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::new("data", ORIGIN) }
}

fn as_disk(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A history with a lawful redaction of [`RANGE`], and the disk that holds it.
fn stored() -> Result<(History, SimulatedDisk)> {
    let mut history = History::new(5, 11, 3_000)?;
    ensure!(history.size() > Size(RANGE.end.0), "a history of {}", history.size());
    history.redact(RANGE.start, Index(RANGE.end.0 - 1))?;
    let disk = SimulatedDisk::new(5);
    let mut opened = storage::open(as_disk(&disk), &options(), None)?;
    while history.commit(&mut opened, 3)? < history.size() {}
    let segments = disk.paths().iter().filter(|path| path.starts_with("data/log")).count();
    ensure!(segments > 3, "only {segments} segments");
    Ok((history, disk))
}

/// Notes what is under way, as the eraser does before it begins.
fn note(disk: &SimulatedDisk) -> Result<()> {
    let text = format!("size = 0\nunder_way = [[{}, {}]]\n", RANGE.start, RANGE.end.0 - 1);
    Ok(os::replace(&*as_disk(disk), Path::new("data/erased.toml"), text.as_bytes())?)
}

fn open(disk: &SimulatedDisk, history: &History) -> Result<Opened> {
    let signed = (history.size(), history.root(history.size()));
    let opened = storage::open(as_disk(disk), &options(), Some(signed)).context("open")?;
    ensure!(opened.frontier.root() == signed.1, "root");
    Ok(opened)
}

fn erase(reader: &LogReader, attempt: Attempt) -> Result<u64, StorageError> {
    let (mut range, mut events) = (RANGE, 0);
    while range.start < range.end {
        let erased = reader.erase(&range, attempt, |_, _| true)?;
        (range.start, events) = (erased.next, events + erased.events);
    }
    Ok(events)
}

/// Compares with the model: which of [`RANGE`] are gone.
fn gone(reader: &LogReader, history: &History) -> Result<usize> {
    let (mut index, mut gone) = (Index(0), 0);
    while reader.size().contains(index) {
        for record in reader.read(index, 5, 4_096)? {
            let expected = history.records_between(Size(index.0), index.size_through());
            let (entry, event) = expected.first().context("a record too many")?;
            ensure!(record.entry == entry[..], "entry {index}");
            match record.event {
                Some(found) => ensure!(found == event[..], "event {index}"),
                None => {
                    ensure!(RANGE.contains(&index), "event {index} is gone");
                    gone += 1;
                }
            }
            index = index.next();
        }
    }
    ensure!(index == history.size().next_index(), "ends at {index}");
    Ok(gone)
}

/// That no file holds the bytes of an event that was to be erased, and each other one is there.
fn assert_wiped(disk: &SimulatedDisk, history: &History) -> Result<()> {
    let files: Vec<Vec<u8>> = disk.paths().iter().filter_map(|path| disk.bytes(path)).collect();
    let held: HashSet<&[u8]> = files.iter().flat_map(|file| file.windows(16)).collect();
    for (place, (_, event)) in history.records.iter().enumerate() {
        let is_erased = RANGE.contains(&Index(u64::try_from(place)?));
        // The id is random, so every part of it is the event's own.
        let id = event.get(2..18).context("an event without id")?;
        if place > 1 && place + 1 < history.records.len() {
            ensure!(held.contains(id) != is_erased, "event {place}");
        }
    }
    Ok(())
}

fn checked(disk: &SimulatedDisk, history: &History) -> Result<Option<StorageError>> {
    let signed = Some((history.size(), history.root(history.size())));
    let report = check::check(&as_disk(disk), &options(), &ledger_key()?, signed, &|_| {})?;
    ensure!(report.problem.is_some() || report.size == history.size(), "{report:?}");
    Ok(report.problem)
}

fn assert_sound(disk: &SimulatedDisk, history: &History) -> Result<()> {
    match checked(disk, history)? {
        None => Ok(()),
        Some(problem) => bail!("check: {problem}"),
    }
}

/// After whatever happened: opens, compares, finishes, and verifies all.
fn finish(disk: &SimulatedDisk, history: &History) -> Result<()> {
    // The tree is derived: what a loss of power took of it, opening brings back.
    let opened = open(disk, history)?;
    assert_sound(disk, history)?;
    gone(&opened.reader, history)?;
    erase(&opened.reader, Attempt::Again)?;
    ensure!(gone(&opened.reader, history)? == usize::try_from(RANGE.end.0 - RANGE.start.0)?);
    ensure!(erase(&opened.reader, Attempt::First)? == 0, "erased twice");
    drop(opened);
    // What was finished outlives the power, and needs no note.
    disk.restart(Restart::PowerLost);
    assert_wiped(disk, history)?;
    drop(open(disk, history)?);
    disk.tamper(Path::new("data/erased.toml"), b"size = 0\n".to_vec());
    assert_sound(disk, history)
}

#[test]
fn a_stop_at_any_operation_leaves_each_event_whole_or_gone() -> Result<()> {
    let (history, template) = stored()?;
    note(&template)?;
    assert_sound(&template, &history)?;
    let mut partial = 0;
    for at in 0.. {
        for restart in [Restart::Killed, Restart::PowerLost] {
            let disk = template.copy(at);
            let opened = open(&disk, &history)?;
            disk.set_failure(Failure::StopAt(at));
            let stopped = erase(&opened.reader, Attempt::First);
            drop(opened);
            if !disk.is_stopped() {
                ensure!(stopped.is_ok() && at > 20 && partial > 5, "{at} stops, {partial} partial");
                disk.restart(Restart::Killed);
                return finish(&disk, &history);
            }
            disk.restart(restart);
            let told = || format!("operation {at}, {restart:?}");
            let opened = open(&disk, &history).with_context(told)?;
            let count = gone(&opened.reader, &history).with_context(told)?;
            partial += usize::from(count > 0);
            drop(opened);
            finish(&disk, &history).with_context(told)?;
        }
    }
    Ok(())
}

#[test]
fn a_failed_operation_is_an_error_and_loses_nothing() -> Result<()> {
    let (history, template) = stored()?;
    note(&template)?;
    for at in 0.. {
        let disk = template.copy(!at);
        let opened = open(&disk, &history)?;
        disk.set_failure(Failure::ErrorAt(at));
        let failed = erase(&opened.reader, Attempt::First);
        let used = disk.operations();
        // Readers go on, and see no half of an event.
        gone(&opened.reader, &history).with_context(|| format!("operation {at}, running"))?;
        drop(opened);
        if used <= at {
            ensure!(failed.is_ok());
            return Ok(());
        }
        ensure!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
        disk.restart(Restart::PowerLost);
        finish(&disk, &history).with_context(|| format!("operation {at}"))?;
    }
    Ok(())
}

#[test]
fn bytes_that_are_left_of_an_erased_event_are_damage_unless_it_is_under_way() -> Result<()> {
    let (history, disk) = stored()?;
    note(&disk)?;
    let opened = open(&disk, &history)?;
    // Behind the marks of the first step, before its zeros.
    let marks = opened.reader.read(RANGE.start, 4_096, 4 << 20)?.len();
    disk.set_failure(Failure::StopAt(u64::try_from(marks)? + 1));
    ensure!(erase(&opened.reader, Attempt::First).is_err());
    drop(opened);
    disk.restart(Restart::Killed);
    assert_sound(&disk, &history)?;
    disk.tamper(Path::new("data/erased.toml"), b"size = 0\n".to_vec());
    let problem = checked(&disk, &history)?;
    let Some(StorageError::Damage { index, fault: Fault::NotErased, .. }) = problem else {
        bail!("{problem:?}");
    };
    ensure!(index == RANGE.start);
    Ok(())
}

#[test]
fn an_event_that_rotted_is_erased_like_the_others_or_left_alone() -> Result<()> {
    let (history, template) = stored()?;
    let rotten = Index(12);
    let (_, event) = history.records.get(12).context("a short history")?;
    let id = event.get(2..18).context("an event without id")?;
    let is_in = |bytes: &[u8]| bytes.windows(16).position(|window| window == id);
    let found = template.paths().into_iter().find_map(|path| {
        let bytes = template.bytes(&path)?;
        Some((path, is_in(&bytes)?, bytes))
    });
    let (path, at, bytes) = found.context("no such event")?;
    for is_erased in [true, false] {
        let disk = template.copy(1);
        let opened = open(&disk, &history)?;
        let mut rotted = bytes.clone();
        *rotted.get_mut(at).context("beyond the file")? ^= 1;
        disk.tamper(&path, rotted);
        let (mut range, mut events, mut unknown) = (RANGE, 0, Vec::new());
        while range.start < range.end {
            let erased = opened.reader.erase(&range, Attempt::First, |entry, event| {
                if event.is_none() {
                    unknown.push(entry.index);
                }
                event.is_some() || is_erased
            })?;
            (range.start, events) = (erased.next, events + erased.events);
        }
        ensure!(unknown == [rotten], "{unknown:?}");
        ensure!(events == RANGE.end.0 - RANGE.start.0 - u64::from(!is_erased), "{events} events");
        if is_erased {
            drop(opened);
            finish(&disk, &history)?;
        }
    }
    Ok(())
}

#[test]
fn readers_see_an_event_whole_or_not_at_all_while_it_is_erased() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let history = History::new(9, 2_000, 300)?;
    let options = Options::new(folder.path(), ORIGIN);
    let disk: Arc<dyn Disk> = Arc::new(os::RealDisk);
    let mut opened = storage::open(disk, &options, None)?;
    let mut group = opened.log.group();
    history.records.iter().for_each(|(entry, event)| group.push(entry, event));
    let _durable = opened.log.commit(group)?;
    let (reader, is_over) = (&opened.reader, AtomicBool::new(false));
    let (whole, missing) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let read = || -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let mut index = Index(0);
            while reader.size().contains(index) {
                let records = reader.read(index, 50, 64 << 10)?;
                for record in &records {
                    let entry = access_ledger_proto::entry::Entry::parse(&record.entry)?;
                    let count = match &record.event {
                        Some(event) => {
                            ensure!(sha256(event) == entry.event_digest, "a part of {index}");
                            &whole
                        }
                        None => &missing,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    index = index.next();
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        for first in (2..history.size().0).step_by(100) {
            let range = Index(first)..Index((first + 90).min(history.size().0));
            reader.erase(&range, Attempt::First, |entry, _| entry.index.0 % 3 > 0)?;
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().try_for_each(|reader| match reader.join() {
            Ok(read) => read,
            Err(_) => bail!("a reader panicked"),
        })
    })?;
    ensure!(whole.into_inner() > 0);
    let expected = (2..history.size().0).filter(|index| (index - 2) % 100 < 90 && index % 3 > 0);
    let mut found = 0;
    let mut index = Index(0);
    while reader.size().contains(index) {
        for record in reader.read(index, 500, 1 << 20)? {
            found += u64::from(record.event.is_none());
            index = index.next();
        }
    }
    ensure!(found == u64::try_from(expected.count())? && missing.into_inner() > 0);
    Ok(())
}
