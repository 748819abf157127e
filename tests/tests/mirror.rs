//! Of the log that it follows a custodian signs what it holds: its own tree decides, not the
//! sender's proof, and what contradicts it is told and ends the signing.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::{KeyType, Signer},
    position::{Index, Size},
    witness::{AddCheckpoint, origin_hex},
};
use access_ledger_server::{
    os::RealDisk,
    storage::{self, Opened, Options},
    witness::{
        AddRefusal, Contradiction, HoldError, Holding, Keys, Witness, WitnessError, WitnessedLog,
    },
};
use access_ledger_tests::{
    clock::SetClock,
    history::{History, ORIGIN},
    signed::SignedLog,
};
use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// A custodian's copy, and the witness beside it.
struct Custodian {
    folder: TempDir,
    history: History,
    /// What the ledger signs: the history's entries.
    ledger: SignedLog,
    opened: Opened,
    holding: Arc<Holding>,
    told: Arc<Mutex<Vec<Contradiction>>>,
}

impl Custodian {
    fn new(seed: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let history = History::new(seed, 30, 200)?;
        let ledger = SignedLog::over(ORIGIN, history.leaves.clone())?;
        let options = Options::new(folder.path(), ORIGIN);
        let opened = storage::open(Arc::new(RealDisk), &options, None)?;
        let holding = Arc::new(Holding::new(opened.reader.clone(), opened.tree.clone()));
        Ok(Self { folder, history, ledger, opened, holding, told: Arc::default() })
    }

    /// Takes the next batches; gives the size then.
    fn take(&mut self, batches: usize) -> Result<usize> {
        let to = self.history.commit(&mut self.opened, batches)?;
        self.holding.grown(to, None);
        Ok(usize::try_from(to.0)?)
    }

    /// The witness as it is now, its notes in `folder`.
    fn witness(&self, folder: &Path) -> Result<Witness> {
        let holding = Some(self.holding.clone());
        let (key, told) = (self.ledger.vkey().clone(), Vec::new());
        let logs = vec![WitnessedLog { key, told, holding }];
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SetClock::at_s(1_800_000_000)));
        let told = self.told.clone();
        let witness = Witness::open(disk, clock, &folder.join("witness"), keys()?, logs)?;
        Ok(witness.on_contradiction(move |contradiction| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(contradiction);
        }))
    }

    fn own_witness(&self) -> Result<Witness> {
        self.witness(self.folder.path())
    }

    fn told(&self) -> Vec<Contradiction> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// That the newest note is of this size, and signed by both keys.
    fn expect_newest(&self, witness: &Witness, size: usize) -> Result<()> {
        let note = witness.newest(&origin_hex(ORIGIN)).context("nothing was signed")?;
        let keys = witness.vkeys().map(Clone::clone);
        let checkpoint = VerifiedCheckpoint::open(note.as_bytes(), self.ledger.vkey(), &keys)?;
        ensure!(checkpoint.cosignatures().len() == 2, "{} keys", checkpoint.cosignatures().len());
        ensure!(checkpoint.size() == Size(size as u64), "size {}", checkpoint.size());
        ensure!(checkpoint.root() == self.ledger.root(size), "root");
        Ok(())
    }
}

fn keys() -> Result<Keys> {
    let key = |name: &str, seed| Signer::new(name, KeyType::CosignatureV1, [seed; 32]);
    Ok(Keys { witness: key("custodian.example", 1)?, mirror: key("custodian.example/mirror", 2)? })
}

#[test]
fn a_checkpoint_that_is_ahead_waits_for_its_entries_and_gets_both_signatures() -> Result<()> {
    let mut custodian = Custodian::new(1)?;
    let witness = custodian.own_witness()?;
    let first = custodian.take(3)?;
    witness.add_checkpoint(&custodian.ledger.add(0, first)?)?;
    custodian.expect_newest(&witness, first)?;
    // The size of two batches on, which come one by one.
    let ahead = custodian.history.end_of(Size(first as u64), 2);
    let ahead = usize::try_from(ahead.0)?;
    let body = custodian.ledger.add(first, ahead)?;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| witness.add_checkpoint(&body));
        for _ in 0..2 {
            custodian.take(1)?;
        }
        let lines = asked.join().expect("the caller does not panic")?;
        ensure!(lines.split(|&byte| byte == b'\n').count() == 3, "two lines");
        Ok(())
    })?;
    custodian.expect_newest(&witness, ahead)?;
    assert_eq!(custodian.told(), []);
    Ok(())
}

#[test]
fn nothing_is_held_before_it_is_durable() -> Result<()> {
    let mut custodian = Custodian::new(2)?;
    let size = custodian.take(2)?;
    let ahead = custodian.ledger.checkpoint(size + 1)?;
    let held = custodian.holding.hold(&ahead, Duration::ZERO);
    let wanted = Size(size as u64 + 1);
    assert!(matches!(held, Err(HoldError::Behind { wanted: found, .. }) if found == wanted));
    custodian.holding.hold(&custodian.ledger.checkpoint(size)?, Duration::ZERO)?;
    custodian.holding.hold(&custodian.ledger.checkpoint(0)?, Duration::ZERO)?;
    let forked = custodian.ledger.fork(1).checkpoint(size)?;
    let held = custodian.holding.hold(&forked, Duration::ZERO);
    assert!(matches!(held, Err(HoldError::Differs { .. })));
    Ok(())
}

#[test]
fn a_checkpoint_inside_a_batch_or_before_the_record_of_an_erasure_is_not_signed() -> Result<()> {
    let mut custodian = Custodian::new(8)?;
    let witness = custodian.own_witness()?;
    let mut size = custodian.take(1)?;
    let mut before = 0;
    // Some batch of several entries.
    while size - before < 2 {
        (before, size) = (size, custodian.take(1)?);
    }
    let refused = witness.add_checkpoint(&custodian.ledger.add(0, size - 1)?);
    assert!(matches!(refused, Err(AddRefusal::Unsealed { .. })), "{refused:?}");
    let held = Size(size as u64);
    custodian.holding.grown(held, Some(Index(0)));
    let refused = witness.add_checkpoint(&custodian.ledger.add(0, size)?);
    assert!(matches!(refused, Err(AddRefusal::Unavailable { .. })), "{refused:?}");
    custodian.holding.grown(held, None);
    witness.add_checkpoint(&custodian.ledger.add(0, size)?)?;
    assert_eq!(custodian.told(), []);
    custodian.expect_newest(&witness, size)
}

#[test]
fn the_proof_is_checked_although_the_entries_are_here() -> Result<()> {
    let mut custodian = Custodian::new(3)?;
    let witness = custodian.own_witness()?;
    let (first, second) = (custodian.take(3)?, custodian.take(3)?);
    witness.add_checkpoint(&custodian.ledger.add(0, first)?)?;
    let note = custodian.ledger.note(second)?;
    let body = AddCheckpoint { old: Size(first as u64), proof: Vec::new(), note: note.as_bytes() };
    let refused = witness.add_checkpoint(&body.to_bytes());
    assert!(matches!(refused, Err(AddRefusal::Proof(_))), "{refused:?}");
    // A mistake of the sender convicts nobody.
    assert_eq!(custodian.told(), []);
    witness.add_checkpoint(&custodian.ledger.add(first, second)?)?;
    custodian.expect_newest(&witness, second)
}

#[test]
fn a_checkpoint_of_other_entries_is_told_and_ends_the_signing() -> Result<()> {
    let mut custodian = Custodian::new(4)?;
    let witness = custodian.own_witness()?;
    let (first, second) = (custodian.take(4)?, custodian.take(4)?);
    witness.add_checkpoint(&custodian.ledger.add(0, first)?)?;
    let fork = custodian.ledger.fork(first + 1);
    // By the fork's own proof, which is sound; and of sizes that the sender has wrong besides.
    for (old, new) in [(first, second), (0, second), (second, first + 2)] {
        let proof = if old <= new { fork.proof(old, new)? } else { Vec::new() };
        let note = fork.note(new)?;
        let body = AddCheckpoint { old: Size(old as u64), proof, note: note.as_bytes() };
        let refused = witness.add_checkpoint(&body.to_bytes());
        assert!(matches!(refused, Err(AddRefusal::Contradicts(_))), "{refused:?}");
        let told = custodian.told();
        let [told] = &told[..] else { bail!("{told:?}") };
        let size = Size(new as u64);
        assert_eq!((told.size, told.found), (size, Some(fork.root(new))));
        assert_eq!((told.wanted, &told.offered), (custodian.ledger.root(new), &note));
        assert_eq!(told.cosigned, witness.newest(&origin_hex(ORIGIN)));
        // From here on the honest twin gets nothing either, until a human has looked.
        let refused = witness.add_checkpoint(&custodian.ledger.add(first, second)?);
        assert!(matches!(refused, Err(AddRefusal::Halted)), "{refused:?}");
        let checkpoint = custodian.ledger.checkpoint(second)?;
        let held = custodian.holding.hold(&checkpoint, Duration::ZERO)?;
        let refused = witness.cosign_held(&checkpoint, &held);
        assert!(matches!(refused, Err(WitnessError::Halted)), "{refused:?}");
        witness.resume(ORIGIN);
    }
    custodian.expect_newest(&witness, first)?;
    witness.add_checkpoint(&custodian.ledger.add(first, second)?)?;
    custodian.expect_newest(&witness, second)
}

#[test]
fn a_custodian_cosigns_what_it_holds_without_being_asked() -> Result<()> {
    let mut custodian = Custodian::new(5)?;
    let witness = custodian.own_witness()?;
    let (first, second) = (custodian.take(4)?, custodian.take(4)?);
    for (size, newest) in [(first, first), (second, second), (first, second)] {
        let checkpoint = custodian.ledger.checkpoint(size)?;
        let held = custodian.holding.hold(&checkpoint, Duration::ZERO)?;
        let note = witness.cosign_held(&checkpoint, &held)?;
        assert_eq!(Some(note), witness.newest(&origin_hex(ORIGIN)));
        custodian.expect_newest(&witness, newest)?;
    }
    // The ledger, which knew nothing of it, learns the size and goes on from there.
    let refused = witness.add_checkpoint(&custodian.ledger.add(0, first)?);
    assert!(matches!(refused, Err(AddRefusal::Conflict { .. })), "{refused:?}");
    let third = custodian.take(1)?;
    witness.add_checkpoint(&custodian.ledger.add(second, third)?)?;
    custodian.expect_newest(&witness, third)
}

#[test]
fn a_copy_that_does_not_continue_what_was_signed_is_no_ground_to_sign_on() -> Result<()> {
    let mut custodian = Custodian::new(6)?;
    let size = custodian.take(5)?;
    let witness = custodian.own_witness()?;
    witness.add_checkpoint(&custodian.ledger.add(0, size)?)?;
    drop(witness);
    // The copy is lost, and what the ledger sends the second time is another history.
    let mut second = Custodian::new(7)?;
    let mut larger = second.take(5)?;
    while larger < size {
        larger = second.take(1)?;
    }
    let witness = second.witness(custodian.folder.path())?;
    let checkpoint = second.ledger.checkpoint(larger)?;
    let held = second.holding.hold(&checkpoint, Duration::ZERO)?;
    let refused = witness.cosign_held(&checkpoint, &held);
    assert!(matches!(refused, Err(WitnessError::Contradicts(_))), "{refused:?}");
    let told = second.told();
    let [told] = &told[..] else { bail!("{told:?}") };
    assert_eq!((told.size, told.wanted), (Size(size as u64), custodian.ledger.root(size)));
    assert_eq!(told.cosigned, witness.newest(&origin_hex(ORIGIN)));
    custodian.expect_newest(&witness, size)
}
