//! The storage as its users see it: reads, limits, and damage that is named and never cut.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use access_ledger_client::verify;
use access_ledger_proto::{
    error::{SealError, SegmentError},
    hash::Digest,
    position::{Index, Size},
};
use access_ledger_server::{
    check::{self, CheckReport},
    error::{Fault, StorageError},
    os::{Disk, RealDisk},
    storage::{self, Opened, Options, ReadMemory, Record},
};
use access_ledger_tests::{
    disk::{Failure, SimulatedDisk},
    history::{History, ORIGIN, ledger_key},
};
use anyhow::{Context as _, Result, bail, ensure};

/// Small, so that a short history has full segments.
const SEGMENT_BYTES: u64 = 6 << 10;

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::new("data", ORIGIN) }
}

fn as_disk(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// Commits the next `batches` batches as one group, and their leaves to the tree.
fn commit(opened: &mut Opened, history: &History, batches: usize) -> Result<()> {
    let end = history.end_of(opened.reader.size(), batches);
    ensure!(history.commit(opened, batches)? == end && opened.reader.size() == end);
    Ok(())
}

/// Stores all of `history`, a batch a group.
fn store(disk: &SimulatedDisk, history: &History) -> Result<Opened> {
    let mut opened = storage::open(as_disk(disk), &options(), None)?;
    while opened.reader.size() < history.size() {
        commit(&mut opened, history, 1)?;
    }
    Ok(opened)
}

fn stored(seed: u64) -> Result<(SimulatedDisk, History)> {
    let (disk, history) = (SimulatedDisk::new(seed), History::new(seed, 12, 1_500)?);
    drop(store(&disk, &history)?);
    Ok((disk, history))
}

fn checkpoint_of(history: &History) -> Option<(Size, Digest)> {
    Some((history.size(), history.root(history.size())))
}

fn check(disk: &SimulatedDisk, history: &History) -> Result<CheckReport> {
    check_with(disk, checkpoint_of(history))
}

fn check_with(disk: &SimulatedDisk, checkpoint: Option<(Size, Digest)>) -> Result<CheckReport> {
    Ok(check::check(&as_disk(disk), &options(), &ledger_key()?, checkpoint, &|_| {})?)
}

/// The segments' files with the index of their first entries, ascending.
fn segments(disk: &SimulatedDisk) -> Result<Vec<(PathBuf, u64)>> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with("data/log"));
    let first = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
    paths.map(|path| Ok((path.clone(), first(&path).context("a segment's name")?))).collect()
}

fn bytes_of(disk: &SimulatedDisk, path: &Path) -> Result<Vec<u8>> {
    disk.bytes(path).with_context(|| path.display().to_string())
}

/// A copy of the disk with one byte of one file flipped.
fn with_flip(disk: &SimulatedDisk, path: &Path, at: usize) -> Result<SimulatedDisk> {
    let copy = disk.copy(0);
    let mut bytes = bytes_of(disk, path)?;
    *bytes.get_mut(at).context("a byte to flip")? ^= 0x04;
    copy.tamper(path, bytes);
    Ok(copy)
}

/// Where the frame of each record of a segment ends, by the lengths that the format gives it.
fn frame_ends(history: &History, first: u64, next: u64) -> Vec<(usize, u64)> {
    let records = history.records_between(Size(first), Size(next));
    let mut end = 64;
    let mut ends = Vec::new();
    for ((entry, event), index) in records.iter().zip(first..) {
        end += 17 + entry.len() + event.len();
        ends.push((end, index));
    }
    ends
}

#[test]
fn any_flipped_byte_of_a_segment_is_named_and_never_cut() -> Result<()> {
    let (disk, history) = stored(1)?;
    let segments = segments(&disk)?;
    ensure!(segments.len() >= 3, "{} segments", segments.len());
    let nexts = segments.iter().skip(1).map(|(_, first)| *first).chain([history.size().0]);
    for ((path, first), next) in segments.iter().zip(nexts) {
        let ends = frame_ends(&history, *first, next);
        let is_last = next == history.size().0;
        let frames_end = ends.last().map_or(64, |(end, _)| *end);
        // A prime, so that all fields of headers and frames are met.
        for at in (0..bytes_of(&disk, path)?.len()).step_by(13) {
            let flipped = with_flip(&disk, path, at)?;
            let wanted = if at < 64 { Some(*first) } else { None };
            let wanted =
                wanted.or_else(|| ends.iter().find(|(end, _)| at < *end).map(|(_, index)| *index));
            let name = || format!("byte {at} of {}", path.display());
            let problem = check(&flipped, &history)?.problem;
            match (&problem, wanted) {
                (Some(StorageError::Damage { segment, index, .. }), Some(wanted)) => {
                    ensure!((segment.0, index.0) == (*first, wanted), "{}: {problem:?}", name());
                }
                (Some(StorageError::Damage { segment, .. }), None) => {
                    ensure!(segment.0 == *first && at >= frames_end, "{}: {problem:?}", name());
                }
                _ => bail!("{}: {problem:?}", name()),
            }
            let before = bytes_of(&flipped, path)?;
            let opened = storage::open(as_disk(&flipped), &options(), checkpoint_of(&history));
            ensure!(bytes_of(&flipped, path)? == before, "{}: changed by opening", name());
            match (opened, wanted) {
                (Err(StorageError::Damage { .. }), _) => {}
                (Ok(opened), Some(wanted)) if !is_last => {
                    let refused = opened.reader.read(Index(wanted), 1, 1);
                    let is_named = matches!(&refused, Err(StorageError::Damage { index, .. })
                        if index.0 == wanted);
                    ensure!(is_named, "{}: {refused:?}", name());
                }
                (Ok(_), None) if !is_last => {}
                (opened, _) => bail!("{}: opened: {:?}", name(), opened.err()),
            }
        }
    }
    Ok(())
}

#[test]
fn damage_before_a_later_group_is_told_without_a_checkpoint() -> Result<()> {
    let (disk, history) = stored(2)?;
    let (path, first) = segments(&disk)?.pop().context("a segment")?;
    let ends = frame_ends(&history, first, history.size().0);
    let last_batch = history.links.iter().rev().nth(1).context("two batches")?.size.0;
    for (end, index) in ends.into_iter().filter(|(_, index)| *index < last_batch) {
        let flipped = with_flip(&disk, &path, end - 1)?;
        match storage::open(as_disk(&flipped), &options(), None).map(|_| ()) {
            Err(StorageError::Damage { index: found, .. }) => ensure!(found.0 == index),
            other => bail!("entry {index}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn garbage_behind_the_last_group_is_a_torn_tail() -> Result<()> {
    let (disk, history) = stored(3)?;
    let (path, _) = segments(&disk)?.pop().context("a segment")?;
    let whole = bytes_of(&disk, &path)?;
    disk.tamper(&path, [&whole[..], &[0; 700], b"garbage"].concat());
    let report = check(&disk, &history)?;
    ensure!(report.problem.is_none() && report.has_torn_tail, "{report:?}");
    let opened = storage::open(as_disk(&disk), &options(), checkpoint_of(&history))?;
    ensure!(opened.recovery.cut_bytes == 707 && opened.recovery.cut_entries == 0);
    ensure!(bytes_of(&disk, &path)? == whole);
    Ok(())
}

#[test]
fn lost_segment_is_told() -> Result<()> {
    let (disk, history) = stored(4)?;
    for (path, first) in segments(&disk)? {
        let damaged = disk.copy(0);
        damaged.remove(&path)?;
        let problem = check(&damaged, &history)?.problem;
        ensure!(matches!(problem, Some(StorageError::Damage { .. })), "{first}: {problem:?}");
        let opened = storage::open(as_disk(&damaged), &options(), checkpoint_of(&history));
        match opened {
            Err(StorageError::Damage { .. }) => {}
            Err(error) => bail!("{first}: {error}"),
            Ok(opened) => {
                // Opening reads the last segment alone; whoever reads the missing one is told.
                let refused = opened.reader.read(Index(first), 1, 1);
                ensure!(refused.is_err(), "{first}: read");
            }
        }
    }
    Ok(())
}

#[test]
fn any_flipped_byte_of_the_tree_is_named() -> Result<()> {
    let disk = SimulatedDisk::new(5);
    let history = History::uniform(10, 60, 100)?;
    drop(store(&disk, &history)?);
    for level in [0, 1] {
        let path = PathBuf::from(format!("data/tree/{level}"));
        for at in (0..bytes_of(&disk, &path)?.len()).step_by(31) {
            let report = check(&with_flip(&disk, &path, at)?, &history)?;
            match report.problem {
                Some(StorageError::TreeDamage { level: found, position, .. }) => {
                    ensure!((found, position) == (level, at as u64 / 32), "byte {at} of {level}");
                }
                other => bail!("byte {at} of {level}: {other:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn lost_tree_is_computed_again() -> Result<()> {
    let (disk, history) = stored(6)?;
    let tree: Vec<_> =
        disk.paths().into_iter().filter(|path| path.starts_with("data/tree")).collect();
    let before: Vec<_> = tree.iter().map(|path| disk.bytes(path)).collect();
    for path in &tree {
        disk.remove(path)?;
    }
    let opened = storage::open(as_disk(&disk), &options(), checkpoint_of(&history))?;
    ensure!(opened.recovery.rebuilt_tree && opened.frontier.root() == history.root(history.size()));
    let after: Vec<_> = tree.iter().map(|path| disk.bytes(path)).collect();
    ensure!(before == after);
    Ok(())
}

#[test]
fn another_root_than_the_checkpoints_is_refused() -> Result<()> {
    let (disk, history) = stored(7)?;
    let size = history.links.get(2).context("a batch")?.size;
    let wanted = Digest::ZERO;
    let opened = storage::open(as_disk(&disk), &options(), Some((size, wanted)));
    ensure!(matches!(opened.map(|_| ()), Err(StorageError::Root { size: at, .. }) if at == size));
    let report = check_with(&disk, Some((size, wanted)))?;
    ensure!(matches!(report.problem, Some(StorageError::Root { .. })), "{report:?}");
    Ok(())
}

/// The report on `history`'s ledger after its segments were exchanged for those of `other`.
fn check_exchanged(history: &History, other: &History) -> Result<CheckReport> {
    // The same seed draws the same salt: the operator knows it, after all.
    let (disk, forged) = (SimulatedDisk::new(9), SimulatedDisk::new(9));
    drop(store(&disk, history)?);
    drop(store(&forged, other)?);
    for (path, _) in segments(&forged)? {
        disk.tamper(&path, bytes_of(&forged, &path)?);
    }
    check(&disk, history)
}

#[test]
fn altered_entry_with_valid_checksums_is_named() -> Result<()> {
    let history = History::new(8, 12, 300)?;
    for index in 0..history.records.len() - 1 {
        let mut altered = history.clone();
        let (entry, _) = altered.records.get_mut(index).context("a record")?;
        // The last byte of the time: later by some nanoseconds.
        *entry.get_mut(16).context("an entry")? ^= 1;
        let first = Index(index as u64);
        match opened_or_checked(&history, &altered)? {
            StorageError::Damage { index, fault: Fault::Leaf { .. }, .. } => {
                ensure!(index == first, "entry {first}: {index}");
            }
            other => bail!("entry {first}: {other}"),
        }
    }
    Ok(())
}

#[test]
fn altered_event_with_valid_checksums_is_named() -> Result<()> {
    let history = History::new(8, 12, 300)?;
    for index in 0..history.records.len() {
        let mut altered = history.clone();
        let (_, event) = altered.records.get_mut(index).context("a record")?;
        *event.get_mut(3).context("an event")? ^= 1;
        match opened_or_checked(&history, &altered)? {
            StorageError::Damage {
                index: found,
                fault: Fault::Log(verify::Fault::EventDigest { .. }),
                ..
            } => {
                ensure!(found.0 == index as u64, "entry {index}: {found}");
            }
            other => bail!("entry {index}: {other}"),
        }
    }
    Ok(())
}

fn opened_or_checked(history: &History, altered: &History) -> Result<StorageError> {
    check_exchanged(history, altered)?.problem.context("no problem")
}

#[test]
fn forged_seal_is_named() -> Result<()> {
    let mut history = History::new(10, 12, 300)?;
    let (entry, _) = history.records.last_mut().context("a record")?;
    // The signature's last byte; nothing is chained behind the last entry.
    *entry.last_mut().context("an entry")? ^= 1;
    let leaf = access_ledger_proto::hash::leaf_hash(entry);
    *history.leaves.last_mut().context("a leaf")? = leaf;
    let disk = SimulatedDisk::new(10);
    drop(store(&disk, &history)?);
    let report = check(&disk, &history)?;
    match report.problem {
        Some(StorageError::Damage {
            index,
            fault: Fault::Log(verify::Fault::Seal(SealError::Signature)),
            ..
        }) => {
            ensure!(Some(index) == history.size().last_index(), "{index}");
        }
        other => bail!("{other:?}"),
    }
    Ok(())
}

#[test]
fn reads_keep_their_limits_and_give_at_least_one_record() -> Result<()> {
    let disk = SimulatedDisk::new(11);
    let history = History::new(11, 12, 1_500)?;
    let opened = store(&disk, &history)?;
    for first in 0..history.size().0 {
        for (entries_max, bytes_max) in [(1, 0), (3, 1 << 20), (usize::MAX, 900), (5, 1)] {
            let records = opened.reader.read(Index(first), entries_max, bytes_max)?;
            let entries = opened.reader.read_entries(Index(first), entries_max, bytes_max)?;
            let expected = history.records_between(Size(first), history.size());
            ensure!((1..=entries_max).contains(&records.len()) && entries.len() == records.len());
            let bytes: usize = expected
                .iter()
                .take(records.len())
                .map(|(entry, event)| 17 + entry.len() + event.len())
                .sum();
            ensure!(records.len() == 1 || bytes <= bytes_max, "{bytes} of {bytes_max} bytes");
            for ((record, only), (entry, event)) in records.iter().zip(&entries).zip(expected) {
                ensure!(record.entry == entry[..] && only == entry);
                ensure!(record.event.as_deref() == Some(&event[..]));
            }
        }
    }
    ensure!(opened.reader.read(Index(0), 0, 1 << 20)?.is_empty());
    ensure!(opened.reader.read(history.size().next_index(), 1, 1)?.is_empty());
    ensure!(opened.reader.read(Index(u64::MAX), 1, 1)?.is_empty());
    Ok(())
}

#[test]
fn reading_on_into_the_same_memory_leaves_records_that_are_kept_alone() -> Result<()> {
    let disk = SimulatedDisk::new(13);
    let history = History::new(13, 12, 1_500)?;
    let opened = store(&disk, &history)?;
    let expected = |index: u64, record: &Record| {
        let found = history.records_between(Size(index), Size(index + 1)).first();
        found.is_some_and(|(entry, event)| {
            record.entry == entry[..] && record.event.as_deref() == Some(&event[..])
        })
    };
    let (mut memory, mut kept, mut next) = (ReadMemory::default(), Vec::new(), 0);
    while next < history.size().0 {
        let limits = (usize::MAX, 300 + 200 * usize::try_from(next % 7)?);
        let records = opened.reader.read_on(&mut memory, Index(next), limits)?;
        let count = records.len() as u64;
        for (index, record) in (next..).zip(records) {
            ensure!(expected(index, &record), "{index} as it was read");
            // Some live on, so that their memory is not free.
            if index % 5 == 0 {
                kept.push((index, record));
            }
        }
        next += count;
    }
    ensure!(kept.len() > 2);
    for (index, record) in &kept {
        ensure!(expected(*index, record), "{index} after later reads");
    }
    Ok(())
}

#[test]
fn group_costs_one_write_and_one_sync() -> Result<()> {
    let disk = SimulatedDisk::new(12);
    let history = History::new(12, 12, 100)?;
    let mut opened = storage::open(as_disk(&disk), &Options::new("data", ORIGIN), None)?;
    while opened.reader.size() < history.size() {
        let mut group = opened.log.group();
        let (from, end) = (opened.reader.size(), history.end_of(opened.reader.size(), 2));
        for (entry, event) in history.records_between(from, end) {
            group.push(entry, event);
        }
        disk.set_failure(Failure::Never);
        let durable = opened.log.commit(group)?;
        ensure!(disk.operations() == 2 && durable.get().end == end.next_index());
        opened.log.prepare()?;
    }
    Ok(())
}

#[test]
fn prepared_space_is_used_before_the_file_grows() -> Result<()> {
    let disk = SimulatedDisk::new(13);
    let history = History::new(13, 12, 100)?;
    let mut opened = storage::open(as_disk(&disk), &Options::new("data", ORIGIN), None)?;
    ensure!(!opened.log.prepare()?, "nothing was small yet");
    commit(&mut opened, &history, 1)?;
    ensure!(opened.log.prepare()? && !opened.log.prepare()?);
    let (path, _) = segments(&disk)?.pop().context("a segment")?;
    let length = bytes_of(&disk, &path)?.len();
    commit(&mut opened, &history, 1)?;
    ensure!(bytes_of(&disk, &path)?.len() == length);
    drop(opened);
    let opened = storage::open(as_disk(&disk), &Options::new("data", ORIGIN), None)?;
    ensure!(opened.recovery.cut_bytes == 0 && bytes_of(&disk, &path)?.len() == length);
    Ok(())
}

#[test]
fn group_made_before_another_was_committed_is_refused() -> Result<()> {
    let disk = SimulatedDisk::new(14);
    let history = History::new(14, 3, 100)?;
    let mut opened = storage::open(as_disk(&disk), &options(), None)?;
    let mut late = opened.log.group();
    commit(&mut opened, &history, 1)?;
    let (entry, event) = history.records.first().context("a record")?;
    late.push(entry, event);
    let refused = opened.log.commit(late);
    ensure!(matches!(refused, Err(StorageError::GroupOutOfPlace { .. })), "{refused:?}");
    commit(&mut opened, &history, 1)
}

#[test]
fn ledger_of_another_origin_is_refused() -> Result<()> {
    let (disk, _) = stored(15)?;
    let options = Options { origin: "ledger.example/other".into(), ..options() };
    match storage::open(as_disk(&disk), &options, None).map(|_| ()) {
        Err(StorageError::Damage {
            fault: Fault::Segment(SegmentError::Origin { .. }), ..
        }) => Ok(()),
        other => bail!("{other:?}"),
    }
}

#[test]
fn readers_see_whole_groups_while_the_writer_appends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let history = History::new(16, 200, 1_500)?;
    let options = Options { segment_bytes: 64 << 10, ..Options::new(folder.path(), ORIGIN) };
    let mut opened = storage::open(Arc::new(RealDisk), &options, None)?;
    let reader = opened.reader.clone();
    std::thread::scope(|scope| -> Result<()> {
        let reading = scope.spawn(|| -> Result<()> {
            let mut index = Index(0);
            while index < history.size().next_index() {
                let size = reader.size();
                ensure!(history.link(size).is_some(), "size {size} is inside a batch");
                for record in reader.read(index, 50, 16 << 10)? {
                    let expected = history.records_between(Size(index.0), index.size_through());
                    let (entry, event) = expected.first().context("a record too many")?;
                    ensure!(record.entry == entry[..] && record.event.as_deref() == Some(event));
                    index = index.next();
                }
            }
            Ok(())
        });
        while opened.reader.size() < history.size() {
            commit(&mut opened, &history, 2)?;
        }
        reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })?;
    drop(opened);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let checkpoint = checkpoint_of(&history);
    let report = check::check(&disk, &options, &ledger_key()?, checkpoint, &|_| {})?;
    ensure!(report.problem.is_none() && report.size == history.size(), "{report:?}");
    Ok(())
}
