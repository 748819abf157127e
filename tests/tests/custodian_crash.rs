//! A custodian's copy and its witness stopped at every operation of the disk: what was cosigned is
//! there, durably and verified, whatever is lost; and the copy goes on to the end.
//!
//! Each case feeds a scripted log to a copy on a simulated disk, asks for a cosignature before and
//! after each sync, stops at one operation, restarts (killed or without power), and opens as a
//! custodian does. Any [`Held`](access_ledger_server::witness::Held) that was given counts.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use access_ledger_client::{pull::Run, verify::Record};
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    note::{KeyType, Signer},
    position::{Index, Size},
    witness::origin_hex,
};
use access_ledger_server::{
    check,
    custodian::{copy::Copy, memory::Memory},
    folder::real_disk,
    os::{self, Disk, SystemClock},
    storage::Options,
    witness::{Keys, Witness, WitnessedLog},
};
use access_ledger_tests::{
    disk::{Failure, Restart, SimulatedDisk},
    gate::{GatedDisk, Mode},
    history::{History, ORIGIN, ledger_key, ledger_signer},
};
use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEEDS: u64 = 2;

const BATCHES: usize = 24;

/// One under way, one handed over behind it, the rest; and those that prepare space.
const BUSY_SYNCS: u64 = 6;

/// Small, so that a short run fills several.
const SEGMENT_BYTES: u64 = 8 << 10;

const DATA: &str = "data";

/// What an outsider was given.
#[derive(Default)]
struct Outside {
    /// The largest size that was cosigned and answered.
    cosigned: Size,
}

/// The parts of a custodian that touch the disk, but for the index.
struct Custodian {
    disk: Arc<dyn Disk>,
    copy: Copy,
    memory: Memory,
    witness: Witness,
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::new(DATA, ORIGIN) }
}

impl Custodian {
    /// As the custodian opens: with whatever it ever said that it holds.
    fn open(disk: &SimulatedDisk) -> Result<Self> {
        let (disk, ledger): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), ledger_key()?);
        let memory = Memory::read(&*disk, Path::new(DATA), &ledger)?;
        let folder = Path::new(DATA).join("witness");
        let cosigned = os::read(&*disk, &folder.join(origin_hex(ORIGIN)), 1 << 16).ok();
        let cosigned = cosigned.map(|note| VerifiedCheckpoint::open(&note, &ledger, &[]));
        let pinned = memory.pinned.as_ref();
        let known = pinned.map(|pinned| pinned.checkpoint.clone()).into_iter();
        let known = known.chain(cosigned.transpose()?).max_by_key(VerifiedCheckpoint::size);
        let copy = Copy::open(&disk, &options(), &ledger, pinned, known.as_ref())?;
        let log =
            WitnessedLog { key: ledger, told: Vec::new(), holding: Some(copy.holding().clone()) };
        let clock = Arc::new(SystemClock);
        let witness = Witness::open(disk.clone(), clock, &folder, keys()?, vec![log])?;
        Ok(Self { disk, copy, memory, witness })
    }

    /// Follows the history from where the copy is to its end, in random windows.
    fn run(
        &mut self,
        history: &History,
        random: &mut ChaCha8Rng,
        outside: &mut Outside,
    ) -> Result<()> {
        loop {
            let mut taken = None;
            for _ in 0..random.random_range(1..4) {
                taken = self.take(history, random)?.or(taken);
            }
            let Some(checkpoint) = taken else { return Ok(()) };
            let end = checkpoint.size();
            // What is not durable yet must not be vouched for; what is, may.
            self.vouch(&checkpoint, outside)?;
            let durable = self.copy.sync()?;
            ensure!(durable == end, "synced {durable}");
            if random.random_bool(0.6) {
                let before = outside.cosigned;
                self.vouch(&checkpoint, outside)?;
                ensure!(outside.cosigned == end && before <= end, "not held after a sync");
            }
            if random.random_bool(0.3) {
                self.memory.see(&checkpoint);
                self.memory.pinned = self.copy.pin(&checkpoint);
                self.memory.write(&*self.disk, Path::new(DATA), &ledger_key()?)?;
            }
        }
    }

    /// Takes a few batches and concludes at their end; `None` at that of the history.
    fn take(
        &mut self,
        history: &History,
        random: &mut ChaCha8Rng,
    ) -> Result<Option<VerifiedCheckpoint>> {
        let next = Size(self.copy.next_index().0);
        let end = history.end_of(next, random.random_range(1..4));
        if end == next {
            return Ok(None);
        }
        self.copy.take(runs(history, next, end, random))?;
        let checkpoint = signed(history, end)?;
        self.copy.conclude(&checkpoint)?;
        Ok(Some(checkpoint))
    }

    /// Cosigns a checkpoint, if it is held.
    fn vouch(&self, checkpoint: &VerifiedCheckpoint, outside: &mut Outside) -> Result<()> {
        if let Ok(held) = self.copy.holding().hold(checkpoint, Duration::ZERO) {
            let note = self.witness.cosign_held(checkpoint, &held)?;
            let witnesses = keys()?;
            let witnesses = [&witnesses.witness, &witnesses.mirror];
            let witnesses = witnesses.map(|key| key.verifier().clone());
            let note = VerifiedCheckpoint::open(note.as_bytes(), &ledger_key()?, &witnesses)?;
            ensure!(note.cosignatures().len() == 2, "both keys sign");
            outside.cosigned = outside.cosigned.max(note.size());
        }
        Ok(())
    }
}

fn keys() -> Result<Keys> {
    let key = |name, seed| Signer::new(name, KeyType::CosignatureV1, [seed; 32]);
    Ok(Keys { witness: key("custodian", 8)?, mirror: key("custodian/mirror", 9)? })
}

fn signed(history: &History, size: Size) -> Result<VerifiedCheckpoint> {
    let note = Checkpoint::new(ORIGIN, size, history.root(size))?.sign(&ledger_signer()?)?;
    Ok(VerifiedCheckpoint::open(note.as_bytes(), &ledger_key()?, &[])?)
}

/// The records between two sizes, in runs that are cut anywhere.
fn runs(history: &History, from: Size, to: Size, random: &mut ChaCha8Rng) -> Vec<Run> {
    let (mut runs, mut next) = (Vec::new(), from);
    while next < to {
        let end = Size((next.0 + random.random_range(1..9)).min(to.0));
        let records = history.records_between(next, end).iter();
        let record = |(entry, event): &(Vec<u8>, Vec<u8>)| Record {
            entry: entry.clone().into(),
            event: Some(event.clone().into()),
        };
        let records: Vec<Record> = records.map(record).collect();
        runs.push((Index(next.0), records));
        next = end;
    }
    runs
}

/// Opens and runs; for faults that end it at any point.
fn open_and_run(
    disk: &SimulatedDisk,
    history: &History,
    seed: u64,
    outside: &mut Outside,
) -> Result<()> {
    Custodian::open(disk)?.run(history, &mut ChaCha8Rng::seed_from_u64(seed), outside)
}

/// Opens after a restart, compares everything with the model, goes on to the end, and checks the
/// folder.
fn finish(disk: &SimulatedDisk, history: &History, outside: &mut Outside) -> Result<()> {
    let mut custodian = Custodian::open(disk).context("open")?;
    let held = custodian.copy.holding().size();
    ensure!(held >= outside.cosigned, "cosigned {}, {held} are left", outside.cosigned);
    ensure!(custodian.copy.verifier().root() == history.root(held), "another root");
    let newest = custodian.witness.newest(&origin_hex(ORIGIN));
    let newest = match newest {
        Some(note) => VerifiedCheckpoint::open(note.as_bytes(), &ledger_key()?, &[])?.size(),
        None => Size::ZERO,
    };
    ensure!(newest >= outside.cosigned, "the witness forgot what it signed");
    ensure!(newest <= held, "the witness signed more than is held");
    custodian.run(history, &mut ChaCha8Rng::seed_from_u64(1), outside)?;
    let mut next = Index(0);
    for (entry, event) in &history.records {
        let record = custodian.copy.reader().read(next, 1, usize::MAX)?.pop();
        let record = record.with_context(|| format!("no record at {next}"))?;
        ensure!(record.entry == entry[..] && record.event.as_deref() == Some(&event[..]), "{next}");
        next = next.next();
    }
    drop(custodian);
    let (disk, end): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), history.size());
    let known = Some((end, history.root(end)));
    let report = check::check(&disk, &options(), &ledger_key()?, known, &|_| {})?;
    ensure!(report.problem.is_none() && report.size == end, "{report:?}");
    Ok(())
}

/// Runs every case; `fail` makes the disk fail at an operation.
fn each(fail: impl Fn(u64) -> Failure) -> Result<()> {
    for seed in 0..SEEDS {
        let history = History::new(seed, BATCHES, 6_000)?;
        let disk = SimulatedDisk::new(seed);
        open_and_run(&disk, &history, seed, &mut Outside::default())?;
        let operations = disk.operations();
        for at in 0..operations {
            for restart in [Restart::Killed, Restart::PowerLost] {
                let disk = SimulatedDisk::new(seed ^ at << 8);
                let mut outside = Outside::default();
                disk.set_failure(fail(at));
                // Idle space is prepared now and then, so the last operations may not come.
                let _ended_anywhere = open_and_run(&disk, &history, seed, &mut outside);
                disk.restart(restart);
                finish(&disk, &history, &mut outside)
                    .with_context(|| format!("seed {seed}, operation {at}, {restart:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn stopped_at_any_operation_it_holds_what_it_cosigned() -> Result<()> {
    each(Failure::StopAt)
}

#[test]
fn with_any_operation_failing_it_holds_what_it_cosigned() -> Result<()> {
    each(Failure::ErrorAt)
}

#[test]
fn on_a_full_disk_it_holds_what_it_cosigned() -> Result<()> {
    each(Failure::FullAt)
}

/// Groups that come while the disk is busy share a sync, and nobody waits for each of them: else a
/// custodian whose disk is slower than its ledger's would fall behind by a sync a group.
#[test]
fn groups_that_come_while_the_disk_is_busy_share_a_sync() -> Result<()> {
    let history = History::new(7, BATCHES, 100)?;
    let (folder, gate) = (tempfile::tempdir()?, GatedDisk::default());
    let _opened_at_the_end = gate.opener();
    let (disk, options): (Arc<dyn Disk>, _) =
        (Arc::new(gate.clone()), Options::new(folder.path(), ORIGIN));
    let mut copy = Copy::open(&disk, &options, &ledger_key()?, None, None)?;
    let before = gate.syncs();
    gate.set(Mode::HeldSyncs);
    let (took, has_taken) = mpsc::sync_channel(1);
    let size = history.size();
    let taking = thread::spawn(move || -> Result<Size> {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        while Size(copy.next_index().0) < history.size() {
            let next = Size(copy.next_index().0);
            let end = history.end_of(next, 1);
            copy.take(runs(&history, next, end, &mut random))?;
            copy.conclude(&signed(&history, end)?)?;
        }
        took.send(())?;
        Ok(copy.sync()?)
    });
    let in_time = has_taken.recv_timeout(Duration::from_secs(30));
    gate.set(Mode::Open);
    ensure!(taking.join().expect("no panic")? == size, "not all of it was stored");
    ensure!(in_time.is_ok(), "waited for the disk after each group");
    let syncs = gate.syncs() - before;
    ensure!(syncs <= BUSY_SYNCS, "{syncs} syncs for {BATCHES} groups");
    Ok(())
}

/// A state that does not fit its checkpoint would end every start to come.
#[test]
fn only_a_checkpoint_where_the_copy_stands_is_pinned() -> Result<()> {
    let (history, folder) = (History::new(7, BATCHES, 100)?, tempfile::tempdir()?);
    let (disk, options) = (real_disk(), Options::new(folder.path(), ORIGIN));
    let mut copy = Copy::open(&disk, &options, &ledger_key()?, None, None)?;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (first, second) = (history.end_of(Size::ZERO, 1), history.end_of(Size::ZERO, 2));
    let checkpoint = signed(&history, first)?;
    ensure!(copy.pin(&checkpoint).is_none(), "before its entries");
    copy.take(runs(&history, Size::ZERO, first, &mut random))?;
    copy.conclude(&checkpoint)?;
    copy.sync()?;
    let pinned = copy.pin(&checkpoint).context("where it stands")?;
    copy.take(runs(&history, first, second, &mut random))?;
    ensure!(copy.pin(&checkpoint).is_none(), "behind its entries");
    copy.rewind(Some(&pinned))?;
    ensure!(copy.next_index() == second.next_index(), "all that was taken is stored");
    Ok(())
}
