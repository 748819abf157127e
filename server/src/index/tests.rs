//! The index against a model of the log, under loss, damage and stops at any point.

use std::{
    ffi::OsString,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use access_ledger_proto::{
    hash::sha256,
    position::{Index as Place, Size, count_of},
    wire::SourcePhase,
};
use proptest::prelude::*;

use self::ledger::{GOVERNANCE, LONG, Ledger, name, status};
use super::{
    Follower, Index, IndexError, Indexer,
    posting::{self, Block, BlockId, Layout, Lookup},
    state::{Loaded, State},
    workers::Pace,
};
use crate::os::{Access, Disk, File, RealDisk};

mod ledger;
mod query;
mod rot;

const SOURCES: [&str; 4] = ["a", "b", "b/c", "d"];

/// A ledger of `batches` batches of a few events, from sources in turn.
fn ledger_of(batches: usize) -> Ledger {
    let mut ledger = Ledger::new(&SOURCES);
    for at in 0..batches {
        ledger.record(SOURCES[at * at % SOURCES.len()], 1 + at % 5);
    }
    ledger
}

/// Of blocks of four.
fn layout() -> Layout {
    Layout { origin: sha256(ledger::ORIGIN.as_bytes()), block_entries: 4 }
}

/// Follows the log and builds again what is missing.
fn settle(indexer: &mut Indexer) -> Result<(), IndexError> {
    while indexer.follow(Pace::Quick)? || indexer.repair(Pace::Quick)? {}
    Ok(())
}

fn assert_settles(ledger: &Ledger, index: &Index, indexer: &mut Indexer) {
    settle(indexer).unwrap();
    ledger.assert_indexed(index, indexer);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_is_found_at_any_cut_into_batches_blocks_and_restarts(
        block_entries in 1_u32..12,
        groups in prop::collection::vec(
            (prop::collection::vec((0..SOURCES.len(), 1_usize..20), 1..4), any::<bool>()), 1..12),
    ) {
        let mut ledger = Ledger::new(&SOURCES);
        let (mut index, mut indexer) = ledger.index(block_entries);
        for (group, restarts) in groups {
            let events: Vec<_> =
                group.iter().map(|&(_, count)| vec![b"event".to_vec(); count]).collect();
            let batches: Vec<_> = group
                .iter()
                .zip(&events)
                .map(|(&(source, _), events)| (SOURCES[source], &events[..]))
                .collect();
            ledger.append(&batches);
            if restarts {
                drop((index, indexer));
                (index, indexer) = ledger.index(block_entries);
            }
            settle(&mut indexer)?;
            ledger.assert_indexed(&index, &indexer);
        }
    }
}

#[test]
fn files_stay_few_and_merge_by_eight() {
    let mut ledger = ledger_of(200);
    let (index, mut indexer) = ledger.index(2);
    ledger.assert_indexed(&index, &indexer);
    let entries = count_of(ledger.model.len());
    assert!(entries > 2 * 8 * 8);
    // One file for each unit of the number of blocks in base eight.
    let (mut blocks, mut expected) = (entries / 2, 0);
    while blocks > 0 {
        expected += blocks % 8;
        blocks /= 8;
    }
    let files = ledger.block_files();
    assert_eq!(count_of(files.len()), expected, "{files:?}");
    ledger.record("a", 40);
    assert_settles(&ledger, &index, &mut indexer);
}

#[test]
fn facts_come_back_as_they_were() {
    let mut ledger = Ledger::new(&SOURCES);
    ledger.append(&[(GOVERNANCE, &[status(SourcePhase::Registered, "e/1")])]);
    ledger.append(&[(GOVERNANCE, &[status(SourcePhase::Registered, "e/2")])]);
    ledger.record("e/1", 9);
    ledger.append(&[("e/1", &[status(SourcePhase::Decommissioned, "e/1")])]);
    let facts = |indexer: &Indexer| -> Vec<_> {
        let (authority, sequences) = (indexer.authority(), indexer.sequences());
        let sources = authority.facts().sources().iter();
        sources.map(|s| (s.clone(), sequences.last(s.name.as_name()))).collect()
    };
    let (_, indexer) = ledger.index(4);
    let folded = facts(&indexer);
    drop(indexer);
    let state = State::load(&ledger.index_folder().join("state"), &layout());
    assert!(matches!(state, Loaded::Saved(_, saved) if saved.size == Size(12)));
    let (index, indexer) = ledger.index(4);
    assert_eq!(facts(&indexer), folded);
    ledger.assert_indexed(&index, &indexer);
    let authority = indexer.authority();
    let source = authority.facts().sources().get(name("e/1").as_name()).unwrap();
    assert_eq!(source.registered_at, Place(1));
    assert_eq!(source.decommissioned_at, Some(Place(12)));
    assert_eq!(source.heartbeat_nanos, 60_000_000_007);
}

#[test]
fn whatever_is_lost_or_garbage_is_built_again() {
    let ledger = ledger_of(60);
    drop(ledger.index(3));
    let folder = ledger.index_folder();
    let assert_rebuilt = |what: &str| {
        let (index, mut indexer) = ledger.index(3);
        settle(&mut indexer).unwrap_or_else(|error| panic!("{what}: {error}"));
        ledger.assert_indexed(&index, &indexer);
    };
    let files = ledger.block_files();
    assert!(files.len() > 5);
    for file in &files {
        fs::remove_file(folder.join("blocks").join(file)).unwrap();
        assert_rebuilt(file);
        assert_eq!(ledger.block_files(), files);
    }
    for file in &files {
        let path = folder.join("blocks").join(file);
        fs::File::create(path).unwrap();
        assert_rebuilt(file);
    }
    for lost in ["blocks", "state", ""] {
        fs::remove_dir_all(folder.join(lost)).unwrap();
        assert_rebuilt(lost);
    }
    fs::remove_dir_all(folder.join("state")).unwrap();
    fs::File::create(folder.join("state")).unwrap();
    assert_rebuilt("a file where the state belongs");
}

#[test]
fn damaged_state_is_built_again() {
    let ledger = ledger_of(60);
    drop(ledger.index(3));
    let folder = ledger.index_folder().join("state");
    let files = || -> Vec<_> {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).collect()
    };
    for file in files() {
        let whole = fs::read(&file).unwrap();
        let ranges = [0..whole.len(), 0..16, whole.len() / 2..whole.len(), 100..200];
        for range in ranges.into_iter().filter(|range| range.end <= whole.len()) {
            let mut bytes = fs::read(&file).unwrap_or_else(|_| whole.clone());
            let end = range.end.min(bytes.len());
            bytes[range.start.min(end)..end].fill(0x5a);
            overwrite(&file, &bytes);
            let (index, mut indexer) = ledger.index(3);
            assert_settles(&ledger, &index, &mut indexer);
        }
    }
}

#[test]
fn state_that_does_not_follow_from_the_log_is_built_again() {
    let (one, mut other) = (ledger_of(60), ledger_of(3));
    drop(one.index(3));
    // Ahead of the log; then of another log, with the same origin and a larger size.
    for batches in [0, 60] {
        (0..batches).for_each(|_| other.record("d", 7));
        copy_folder(&one.index_folder(), &other.index_folder());
        let (index, mut indexer) = other.index(3);
        assert_settles(&other, &index, &mut indexer);
    }
    // Of other blocks.
    let (index, mut indexer) = other.index(5);
    assert_settles(&other, &index, &mut indexer);
}

#[test]
fn every_flipped_byte_of_a_block_is_found() {
    let elsewhere = tempfile::tempdir().unwrap();
    let ledger = query::ledger_of_samples();
    drop(ledger.index(4));
    let folder = ledger.index_folder().join("blocks");
    let id = BlockId { first: Place(0), level: 1 };
    let path = folder.join(id.file_name());
    let whole = fs::read(&path).unwrap();
    let read = || -> Result<(), IndexError> {
        let block = Block::open(&RealDisk, &folder, &layout(), id)?;
        for (at, (source, number)) in ledger.model.iter().enumerate().take(32) {
            let found = block.find(source.as_bytes(), *number)?;
            assert_eq!(found, Lookup::At(Place(count_of(at))));
        }
        // A merge reads all there is.
        let merged = BlockId { level: 2, ..id };
        posting::merge(&RealDisk, elsewhere.path(), merged, &[Arc::new(block)])
    };
    read().unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        overwrite(&path, &bytes);
        assert!(matches!(read(), Err(IndexError::Damaged { .. })), "byte {at}");
    }
}

#[test]
fn damage_met_by_a_reader_is_repaired_by_the_follower() {
    let ledger = ledger_of(60);
    let (index, indexer) = ledger.index(4);
    let last = ledger.block_files().into_iter().find(|file| file.ends_with("-1")).unwrap();
    let path = ledger.index_folder().join("blocks").join(last);
    let mut bytes = fs::read(&path).unwrap();
    bytes[64..].fill(0);
    overwrite(&path, &bytes);
    let (source, number) = &ledger.model[0];
    let source = name(source);
    let find = || index.position(source.as_name(), *number);
    assert!(matches!(find(), Err(IndexError::Damaged { .. })));
    assert!(matches!(find(), Err(IndexError::Rebuilding { first: Place(0), .. })));
    assert!(!path.exists());
    let mut indexer = indexer;
    assert_settles(&ledger, &index, &mut indexer);
}

#[test]
fn stop_at_any_disk_operation_leaves_a_sound_index() {
    let ledger = ledger_of(13);
    for operations in 0.. {
        remove_folder(&ledger.index_folder());
        let disk = Arc::new(StoppingDisk { left: Arc::new(AtomicUsize::new(operations)) });
        let stopped = ledger.index_on(disk, 2);
        let ended = stopped.is_ok();
        drop(stopped);
        let disk = Arc::new(StoppingDisk { left: Arc::new(AtomicUsize::new(usize::MAX)) });
        let (index, mut indexer) = ledger.index_on(disk, 2).unwrap();
        assert_settles(&ledger, &index, &mut indexer);
        if ended {
            assert!(ledger.block_files().iter().any(|file| file.ends_with("-1")));
            return;
        }
    }
}

#[test]
fn failed_steps_can_be_repeated() {
    let mut ledger = ledger_of(1);
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let disk = Arc::new(StoppingDisk { left: left.clone() });
    let (index, mut indexer) = ledger.index_on(disk, 2).unwrap();
    for operations in 0..40 {
        ledger.record("a", 17);
        left.store(operations, Relaxed);
        while let Err(error) = settle(&mut indexer) {
            assert!(error.is_passing(), "{error}");
            left.store(usize::MAX, Relaxed);
        }
        left.store(usize::MAX, Relaxed);
        ledger.assert_indexed(&index, &indexer);
    }
}

#[test]
fn follower_keeps_up_and_tells_those_who_wait() {
    let mut ledger = ledger_of(20);
    let (index, indexer) = ledger.index(16);
    let follower = Follower::spawn(indexer).unwrap();
    for _ in 0..30 {
        ledger.record("b", 11);
        index.notify(ledger.reader.size());
    }
    index.wait_for(ledger.reader.size(), LONG).unwrap();
    for (at, (source, number)) in ledger.model.iter().enumerate() {
        let found = index.position(name(source).as_name(), *number).unwrap();
        assert_eq!(found, Some(Place(count_of(at))));
    }
    let beyond = Size(ledger.reader.size().0 + 1);
    let early = index.wait_for(beyond, Duration::ZERO);
    assert!(matches!(early, Err(IndexError::Behind { wanted, .. }) if wanted == beyond));
    follower.stop();
    let late = index.wait_for(beyond, LONG);
    assert!(matches!(late, Err(IndexError::Stopped { .. })));
}

#[test]
fn logs_that_no_writer_wrote_are_refused() {
    let mut unknown = Ledger::new(&SOURCES);
    unknown.record("nobody", 1);
    let error = unknown.index_on(Arc::new(RealDisk), 4).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Unlawful { index: Place(1), .. }), "{error}");

    let mut upstart = Ledger::new(&SOURCES);
    upstart.append(&[("ledger", &[status(SourcePhase::Registered, "e")])]);
    let error = upstart.index_on(Arc::new(RealDisk), 4).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Unlawful { index: Place(1), .. }), "{error}");

    let mut gap = Ledger::new(&SOURCES);
    gap.record("a", 2);
    gap.skip_number("a");
    gap.record("a", 2);
    let error = gap.index_on(Arc::new(RealDisk), 4).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Sequence { index: Place(3), .. }), "{error}");
    assert!(!error.is_passing());
}

/// The machine's disk, until it has done so many operations; then it refuses all that change
/// something.
struct StoppingDisk {
    left: Arc<AtomicUsize>,
}

struct StoppingFile {
    file: Arc<dyn File>,
    left: Arc<AtomicUsize>,
}

fn spend(left: &AtomicUsize) -> io::Result<()> {
    let spent = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
    spent.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
}

impl StoppingDisk {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(StoppingFile { file, left: self.left.clone() })
    }
}

impl Disk for StoppingDisk {
    fn create_dir(&self, folder: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.create_dir(folder)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(folder)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(RealDisk.open(path, access)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        spend(&self.left)?;
        Ok(self.wrap(RealDisk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.remove(path)
    }
    fn sync_dir(&self, _folder: &Path) -> io::Result<()> {
        spend(&self.left)
    }
    fn random(&self) -> io::Result<u32> {
        RealDisk.random()
    }
}

impl File for StoppingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The write at which it stops is torn.
        let torn = spend(&self.left);
        let written = if torn.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.file.write_at(&bytes[..written], offset)?;
        torn
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        spend(&self.left)?;
        self.file.set_length(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        // Torn or not, nothing here is lost by a stop of the process.
        spend(&self.left)
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    use io::Write as _;
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    remove_folder(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn remove_folder(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
}
