//! Who follows is given what was just written from memory: the records that the disk holds, never
//! one whose event was erased, and of a bounded memory.

use std::sync::Arc;

use access_ledger_proto::position::{Index, Size, count_of};
use access_ledger_server::{
    os::Disk,
    storage::{self, Attempt, Follower, Opened, Options},
};
use access_ledger_tests::{
    disk::SimulatedDisk,
    history::{History, ORIGIN},
};
use anyhow::{Context as _, Result, ensure};

/// No limit.
const ALL: (usize, usize) = (usize::MAX, usize::MAX);

/// More than is kept in memory.
const MUCH: usize = 20 << 20;

fn open(disk: &SimulatedDisk, segment_bytes: u64) -> Result<Opened> {
    let options = Options { segment_bytes, ..Options::new("data", ORIGIN) };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Ok(storage::open(disk, &options, None)?)
}

/// Appends up to `end` in groups of so many batches.
fn append(opened: &mut Opened, history: &History, end: Size, batches: usize) -> Result<()> {
    while history.commit(opened, batches)? < end {}
    Ok(())
}

/// How many of the records from `first` on are in memory; they must be those of the history.
fn followed(
    follower: &Follower,
    history: &History,
    first: u64,
    limits: (usize, usize),
) -> Result<u64> {
    let records = follower.read(Index(first), limits).unwrap_or_default();
    let count = count_of(records.len());
    let expected = history.records_between(Size(first), Size(first + count));
    for (record, (entry, event)) in records.iter().zip(expected) {
        ensure!(record.entry == entry[..] && record.event.as_deref() == Some(&event[..]));
    }
    Ok(count)
}

#[test]
fn a_follower_is_given_what_was_written_in_runs_of_any_size() -> Result<()> {
    for (seed, batches) in [(1, 1), (2, 3), (3, 7)] {
        let history = History::new(seed, 40, 1_500)?;
        let mut opened = open(&SimulatedDisk::new(seed), 4 << 10)?;
        let middle = history.end_of(Size(0), 12);
        append(&mut opened, &history, middle, 1)?;
        let follower = opened.reader.follower();
        ensure!(follower.read(Index(0), ALL).is_none(), "nobody followed when that was written");
        append(&mut opened, &history, history.size(), batches)?;
        ensure!(followed(&follower, &history, middle.0 - 1, ALL)? == 0);
        for first in middle.0..history.size().0 {
            let left = history.size().0 - first;
            ensure!(followed(&follower, &history, first, ALL)? == left, "from {first}");
            for (entries_max, bytes_max) in [(1, 0), (3, 1 << 20), (usize::MAX, 900), (5, 1)] {
                let limits = (entries_max, bytes_max);
                let count = followed(&follower, &history, first, limits)?;
                let read = opened.reader.read(Index(first), entries_max, bytes_max)?;
                // From the disk a run ends where its segment does.
                ensure!(count >= count_of(read.len()), "{count} of {} from {first}", read.len());
                let records = history.records_between(Size(first), Size(first + count));
                let bytes: usize =
                    records.iter().map(|(e, event)| 17 + e.len() + event.len()).sum();
                ensure!(count == 1 || bytes <= bytes_max, "{bytes} of {bytes_max} bytes");
                ensure!(count <= count_of(entries_max));
            }
        }
        ensure!(follower.read(history.size().next_index(), ALL).is_none());
        ensure!(follower.read(Index(u64::MAX), ALL).is_none());
    }
    Ok(())
}

#[test]
fn nothing_is_left_in_memory_of_what_is_erased() -> Result<()> {
    let history = History::new(4, 20, 500)?;
    let mut opened = open(&SimulatedDisk::new(4), Options::SEGMENT_BYTES)?;
    let follower = opened.reader.follower();
    let middle = history.end_of(Size(0), 10);
    append(&mut opened, &history, middle, 2)?;
    ensure!(followed(&follower, &history, 0, ALL)? == middle.0);

    let erased = Index(5)..Index(6);
    ensure!(opened.reader.erase(&erased, Attempt::First, |_, _| true)?.events == 1);
    ensure!(follower.read(Index(5), ALL).is_none(), "from memory");
    let read = opened.reader.read(Index(5), 1, 1)?;
    ensure!(read.first().context("a record")?.event.is_none(), "from the disk");

    // What comes after it is kept again.
    append(&mut opened, &history, history.size(), 2)?;
    ensure!(follower.read(Index(5), ALL).is_none());
    let newer = history.size().0 - middle.0;
    ensure!(followed(&follower, &history, middle.0, ALL)? == newer);
    Ok(())
}

#[test]
fn nothing_is_kept_when_the_last_follower_is_gone_and_no_gap_is_passed_over() -> Result<()> {
    let history = History::new(5, 20, 500)?;
    let mut opened = open(&SimulatedDisk::new(5), Options::SEGMENT_BYTES)?;
    let (one, other) = (opened.reader.follower(), opened.reader.follower());
    let [first, second] = [6, 12].map(|batches| history.end_of(Size(0), batches));
    append(&mut opened, &history, first, 1)?;
    drop(one);
    ensure!(followed(&other, &history, 0, ALL)? == first.0);
    drop(other);
    append(&mut opened, &history, second, 1)?;
    let again = opened.reader.follower();
    ensure!(again.read(Index(0), ALL).is_none() && again.read(first.next_index(), ALL).is_none());
    append(&mut opened, &history, history.size(), 1)?;
    ensure!(again.read(Index(0), ALL).is_none());
    ensure!(followed(&again, &history, second.0, ALL)? == history.size().0 - second.0);
    Ok(())
}

#[test]
fn memory_holds_the_end_of_the_log_and_no_more_than_its_limit() -> Result<()> {
    // One group of a buffer, many that share one, and large ones.
    for (batches, count, in_group) in [(600, 16, 4), (600, 16, 60), (150, 64, 15)] {
        let history = History::uniform(batches, count, 3_000)?;
        let mut opened = open(&SimulatedDisk::new(6), Options::SEGMENT_BYTES)?;
        let follower = opened.reader.follower();
        append(&mut opened, &history, history.size(), in_group)?;
        let bytes = |(entry, event): &(Vec<u8>, Vec<u8>)| 17 + entry.len() + event.len();
        let all: usize = history.records.iter().map(bytes).sum();
        ensure!(all > MUCH, "a history of {all} bytes");
        let is_there = |first: u64| follower.read(Index(first), (1, 1)).is_some();
        let places = 0..history.size().0;
        let first = places.clone().find(|&first| is_there(first)).context("nothing is kept")?;
        ensure!(places.clone().all(|place| is_there(place) == (place >= first)));
        let records = history.records_between(Size(first), history.size());
        let kept: usize = records.iter().map(bytes).sum();
        ensure!((2 << 20..=8 << 20).contains(&kept), "{kept} bytes are kept");
        ensure!(followed(&follower, &history, first, ALL)? == history.size().0 - first);
    }
    Ok(())
}
