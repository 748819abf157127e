//! A witness never signs two histories of one log: not for any order of calls, not for any number
//! of callers at once, and wherever its machine stops. What it must sign, it signs.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    hash::Digest,
    note::{KeyType, Note, Signer, VerifierKey, sign_note},
    position::Size,
    tree::empty_root,
    witness::{AddCheckpoint, origin_hex},
};
use access_ledger_server::{
    os::{Clock, Disk},
    witness::{AddRefusal, Keys, Witness, WitnessError, WitnessedLog},
};
use access_ledger_tests::{
    clock::SetClock,
    disk::{Failure, Restart, SimulatedDisk},
    signed::SignedLog,
};
use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const FOLDER: &str = "custodian/witness";

fn keys() -> Result<Keys> {
    let key = |name: &str, seed| Signer::new(name, KeyType::CosignatureV1, [seed; 32]);
    Ok(Keys { witness: key("custodian.example", 1)?, mirror: key("custodian.example/mirror", 2)? })
}

fn witness_key() -> Result<VerifierKey> {
    Ok(keys()?.witness.verifier().clone())
}

/// What a witness runs on.
struct Ground {
    disk: SimulatedDisk,
    clock: Arc<SetClock>,
    logs: Vec<VerifierKey>,
}

impl Ground {
    fn new(seed: u64, logs: &[&SignedLog]) -> Self {
        let logs = logs.iter().map(|log| log.vkey().clone()).collect();
        let clock = Arc::new(SetClock::at_s(1_800_000_000));
        Self { disk: SimulatedDisk::new(seed), clock, logs }
    }

    fn open(&self) -> Result<Witness, WitnessError> {
        let keys = keys().map_err(|_| WitnessError::Halted)?;
        let logs = self.logs.iter().cloned().map(WitnessedLog::other);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        Witness::open(disk, clock, Path::new(FOLDER), keys, logs.collect())
    }
}

/// What the lines of an answer sign: the time; an error unless it is `note` that they sign.
fn signed_at(note: &str, lines: &[u8], log: &VerifierKey) -> Result<u64> {
    let cosigned = [note.as_bytes(), lines].concat();
    let checkpoint = VerifiedCheckpoint::open(&cosigned, log, &[witness_key()?])?;
    let [cosignature] = checkpoint.cosignatures() else { bail!("not signed by the witness alone") };
    Ok(cosignature.timestamp_s)
}

fn body(old: u64, proof: Vec<Digest>, note: &str) -> Vec<u8> {
    AddCheckpoint { old: Size(old), proof, note: note.as_bytes() }.to_bytes()
}

#[test]
fn what_is_malformed_unknown_or_unsigned_is_refused_and_leaves_no_trace() -> Result<()> {
    let log = SignedLog::new("log.example", 40)?;
    let stranger = SignedLog::new("stranger.example", 40)?;
    let ground = Ground::new(1, &[&log]);
    let witness = ground.open()?;
    let text = |note: &str| note.split_once("\n\n").map(|(text, _)| format!("{text}\n"));

    // 400: no body, no note, no checkpoint, no proof.
    let hello = Signer::new("log.example", KeyType::Ed25519, [9; 32])?;
    for malformed in [
        b"".to_vec(),
        b"old 0\n".to_vec(),
        b"old 0\n\n".to_vec(),
        b"old x\n\n".to_vec(),
        body(0, Vec::new(), "no note"),
        body(0, Vec::new(), &text(&log.note(5)?).context("no text")?),
        body(0, Vec::new(), &sign_note("log.example\nhello\n", &hello)?),
        body(0, vec![Digest::ZERO; 64], &log.note(5)?),
    ] {
        let refused = witness.add_checkpoint(&malformed);
        assert!(matches!(refused, Err(AddRefusal::Malformed { .. })), "{refused:?}");
    }
    // 404: an origin that nobody told of, whoever signed.
    let refused = witness.add_checkpoint(&stranger.add(0, 5)?);
    assert!(
        matches!(refused, Err(AddRefusal::UnknownOrigin { origin }) if origin == "stranger.example")
    );
    // 403: another key of that name, a text that was changed, a bad signature beside a good one.
    let namesake = Checkpoint::new("log.example", Size(5), log.root(5))?.sign(&hello)?;
    let forged = log.note(5)?.replacen("\n5\n", "\n6\n", 1);
    let line = log.note(6)?.lines().last().context("no line")?.to_owned();
    let spoilt = format!("{}{line}\n", log.note(5)?);
    for untrusted in [namesake, forged, spoilt] {
        let refused = witness.add_checkpoint(&body(0, Vec::new(), &untrusted));
        assert!(matches!(refused, Err(AddRefusal::Untrusted { .. })), "{refused:?}");
    }
    // 422: a proof where there is nothing to prove, a root that an empty log does not have.
    let refused = witness.add_checkpoint(&body(0, vec![Digest::ZERO], &log.note(5)?));
    assert!(matches!(refused, Err(AddRefusal::ProofFromNothing { found: 1 })), "{refused:?}");
    let refused = witness.add_checkpoint(&body(0, Vec::new(), &log.sign(0, Digest::ZERO)?));
    assert!(matches!(refused, Err(AddRefusal::Contradicts(_))), "{refused:?}");
    assert!(ground.disk.paths().is_empty());
    Ok(())
}

#[test]
fn a_checkpoint_must_continue_the_newest_one() -> Result<()> {
    let log = SignedLog::new("log.example", 40)?;
    let ground = Ground::new(1, &[&log]);
    let witness = ground.open()?;
    // 200: nothing, then something, then more, then the same again.
    assert_eq!(log.root(0), empty_root());
    for (old, new) in [(0, 0), (0, 5), (5, 5), (5, 8), (8, 33)] {
        let lines = witness.add_checkpoint(&log.add(old, new)?)?;
        signed_at(&log.note(new)?, &lines, log.vkey())?;
        let stored = witness.newest(&origin_hex("log.example")).context("nothing stored")?;
        assert_eq!(stored.as_bytes(), [log.note(new)?.as_bytes(), &lines].concat());
    }
    // 409 names the size. Whether the proof is any good does not matter then.
    for (old, new) in [(0, 33), (8, 33), (5, 40), (32, 40), (0, 5)] {
        let refused = witness.add_checkpoint(&log.add(old, new)?);
        assert!(matches!(refused, Err(AddRefusal::Conflict { size: Size(33) })), "{refused:?}");
    }
    // 400: more than there is, even if that is not the newest size either.
    for old in [6, 33, 40] {
        let refused = witness.add_checkpoint(&body(old, Vec::new(), &log.note(5)?));
        assert!(matches!(refused, Err(AddRefusal::OldBeyond { .. })), "{refused:?}");
    }
    // 422: no proof, another one, one that is too long, one of a fork; the same size again.
    let fork = log.fork(20);
    let mut long = log.proof(33, 40)?;
    long.push(Digest::ZERO);
    for (proof, note) in [
        (Vec::new(), log.note(40)?),
        (log.proof(32, 40)?, log.note(40)?),
        (long, log.note(40)?),
        (log.proof(33, 40)?, fork.note(40)?),
        (fork.proof(33, 40)?, fork.note(40)?),
        (vec![Digest::ZERO], log.note(33)?),
    ] {
        let refused = witness.add_checkpoint(&body(33, proof, &note));
        assert!(matches!(refused, Err(AddRefusal::Proof(_))), "{refused:?}");
    }
    let refused = witness.add_checkpoint(&fork.add(33, 33)?);
    let Err(AddRefusal::Contradicts(told)) = refused else { bail!("{refused:?}") };
    assert_eq!((told.size, told.found, told.wanted), (Size(33), Some(fork.root(33)), log.root(33)));
    assert_eq!(told.offered, fork.note(33)?);
    // After all that it goes on where it was.
    witness.add_checkpoint(&log.add(33, 40)?)?;
    Ok(())
}

#[test]
fn signatures_of_others_are_ignored_and_not_kept() -> Result<()> {
    let log = SignedLog::new("log.example", 10)?;
    let ground = Ground::new(1, &[&log]);
    let witness = ground.open()?;
    let other = Signer::new("other.example", KeyType::CosignatureV1, [7; 32])?;
    let mut note = log.note(4)?;
    note.push_str(&log.checkpoint(4)?.cosign(&other, 5)?);
    // What this witness signed before comes back with the next call, or what somebody made of it.
    let before = log.checkpoint(4)?.cosign(&keys()?.witness, 6)?;
    note.push_str(&before);
    let body = AddCheckpoint { old: Size(0), proof: Vec::new(), note: note.as_bytes() };
    let lines = witness.add_checkpoint(&body.to_bytes())?;
    let stored = witness.newest(&origin_hex("log.example")).context("nothing stored")?;
    assert_eq!(stored.as_bytes(), [log.note(4)?.as_bytes(), &lines].concat());
    Ok(())
}

#[test]
fn what_a_log_writes_behind_the_root_is_signed_too() -> Result<()> {
    let log = SignedLog::new("log.example", 10)?;
    let ground = Ground::new(1, &[&log]);
    let witness = ground.open()?;
    let text = format!("{}extension\n", log.checkpoint(4)?.checkpoint().text());
    for (old, note) in [(0, log.sign_text(&text)?), (4, log.note(4)?)] {
        let body = AddCheckpoint { old: Size(old), proof: Vec::new(), note: note.as_bytes() };
        let lines = witness.add_checkpoint(&body.to_bytes())?;
        signed_at(&note, &lines, log.vkey())?;
    }
    Ok(())
}

#[test]
fn the_time_of_a_signature_never_goes_back() -> Result<()> {
    let log = SignedLog::new("log.example", 10)?;
    let ground = Ground::new(1, &[&log]);
    let mut witness = ground.open()?;
    let times = [(100, 100), (90, 100), (50, 100), (101, 101), (7, 101), (200, 200)];
    for (old, (now, wanted)) in times.into_iter().enumerate() {
        ground.clock.set_s(now);
        let lines = witness.add_checkpoint(&log.add(old, old + 1)?)?;
        assert_eq!(signed_at(&log.note(old + 1)?, &lines, log.vkey())?, wanted);
        // Nor over a restart.
        witness = ground.open()?;
    }
    Ok(())
}

#[test]
fn asking_for_the_same_again_and_again_writes_nothing() -> Result<()> {
    let log = SignedLog::new("log.example", 10)?;
    let ground = Ground::new(1, &[&log]);
    let witness = ground.open()?;
    let first = witness.add_checkpoint(&log.add(0, 4)?)?;
    ground.disk.set_failure(Failure::Never);
    for _ in 0..3 {
        assert_eq!(witness.add_checkpoint(&log.add(4, 4)?)?, first);
    }
    assert_eq!(ground.disk.operations(), 0);
    // Another second is something new to say.
    ground.clock.set_s(1_900_000_000);
    let later = witness.add_checkpoint(&log.add(4, 4)?)?;
    assert_eq!(signed_at(&log.note(4)?, &later, log.vkey())?, 1_900_000_000);
    Ok(())
}

#[test]
fn a_halted_log_gets_nothing_and_others_go_on() -> Result<()> {
    let (log, other) = (SignedLog::new("log.example", 9)?, SignedLog::new("other.example", 9)?);
    let ground = Ground::new(1, &[&log, &other]);
    let witness = ground.open()?;
    witness.add_checkpoint(&log.add(0, 3)?)?;
    witness.halt("log.example");
    for (old, new) in [(3, 4), (3, 3), (0, 3)] {
        let refused = witness.add_checkpoint(&log.add(old, new)?);
        assert!(matches!(refused, Err(AddRefusal::Halted)), "{refused:?}");
    }
    witness.add_checkpoint(&other.add(0, 3)?)?;
    assert!(witness.newest(&origin_hex("log.example")).is_some());
    witness.resume("log.example");
    witness.add_checkpoint(&log.add(3, 4)?)?;
    Ok(())
}

#[test]
fn what_was_signed_before_must_be_readable() -> Result<()> {
    let log = SignedLog::new("log.example", 9)?;
    let ground = Ground::new(1, &[&log]);
    ground.open()?.add_checkpoint(&log.add(0, 3)?)?;
    let path = Path::new(FOLDER).join(origin_hex("log.example"));
    let stored = ground.disk.bytes(&path).context("nothing stored")?;
    let text = String::from_utf8(stored.clone())?;
    let witness_line = text.lines().last().context("no line")?;
    for damaged in [
        String::new(),
        text.replacen("\n3\n", "\n2\n", 1),
        text.replace(&format!("{witness_line}\n"), ""),
        text.replace("log.example\n3", "other.example\n3"),
        "x".repeat(1 << 20),
    ] {
        ground.disk.tamper(&path, damaged.into_bytes());
        assert!(ground.open().is_err());
    }
    ground.disk.tamper(&path, stored);
    ground.open()?;
    // Another witness's folder is not this one's past.
    let renamed = Signer::new("renamed.example", KeyType::CosignatureV1, [1; 32])?;
    let keys = Keys { witness: renamed, ..keys()? };
    let logs = vec![WitnessedLog::other(log.vkey().clone())];
    let disk: Arc<dyn Disk> = Arc::new(ground.disk.clone());
    let opened = Witness::open(disk, ground.clock, Path::new(FOLDER), keys, logs);
    assert!(matches!(opened.map(drop), Err(WitnessError::Damaged { .. })));
    Ok(())
}

#[test]
fn keys_and_logs_that_could_be_mistaken_are_refused() -> Result<()> {
    let log = SignedLog::new("log.example", 9)?;
    let ground = Ground::new(1, &[&log]);
    let key = |name: &str, key_type, seed| Signer::new(name, key_type, [seed; 32]);
    let open = |witness: Signer, mirror: Signer, logs: usize| {
        let logs = (0..logs).map(|_| WitnessedLog::other(log.vkey().clone()));
        let (keys, disk) = (Keys { witness, mirror }, Arc::new(ground.disk.clone()));
        Witness::open(disk, ground.clock.clone(), Path::new(FOLDER), keys, logs.collect()).map(drop)
    };
    let cosigner = |name, seed| key(name, KeyType::CosignatureV1, seed);
    for (witness, mirror) in [
        (cosigner("a", 1)?, cosigner("a", 2)?),
        (cosigner("a", 1)?, cosigner("b", 1)?),
        (key("a", KeyType::Ed25519, 1)?, cosigner("b", 2)?),
        (cosigner("a", 1)?, key("b", KeyType::Ed25519, 2)?),
    ] {
        assert!(matches!(open(witness, mirror, 1), Err(WitnessError::Key { .. })));
    }
    let twice = open(cosigner("a", 1)?, cosigner("b", 2)?, 2);
    assert!(matches!(twice, Err(WitnessError::OriginTwice { .. })));
    Ok(())
}

/// All that a witness gave out of one log, in order, and what it may have.
#[derive(Default)]
struct Given {
    signed: Vec<Signed>,
}

/// A checkpoint that somebody has a signature of.
#[derive(Clone, Copy, Debug)]
struct Signed {
    size: usize,
    root: Digest,
    time: u64,
}

impl fmt::Debug for Given {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.signed.iter().map(|signed| (signed.size, signed.root));
        out.debug_list().entries(sizes).finish()
    }
}

impl Given {
    fn note(&mut self, signed: Signed) -> Result<()> {
        if let Some(last) = self.signed.last() {
            ensure!(signed.size >= last.size, "{signed:?} behind {last:?}");
            ensure!(signed.time >= last.time, "{signed:?} behind {last:?}");
        }
        self.signed.push(signed);
        Ok(())
    }

    /// That one of these histories holds all that was signed.
    fn is_one_history(&self, histories: &[SignedLog]) -> bool {
        let holds =
            |log: &SignedLog| self.signed.iter().all(|signed| log.root(signed.size) == signed.root);
        histories.iter().any(holds)
    }
}

/// A log and three forks of it, each from elsewhere on.
fn histories() -> Result<Vec<SignedLog>> {
    let log = SignedLog::new("log.example", 48)?;
    Ok(vec![log.fork(2), log.fork(9), log.fork(30), log])
}

/// A call that may be honest, or not: of one of the histories, from what is or is not the newest
/// size.
fn some_call(
    random: &mut ChaCha8Rng,
    histories: &[SignedLog],
    newest: usize,
) -> Result<(usize, usize, Vec<u8>)> {
    let which = random.random_range(0..histories.len());
    let log = histories.get(which).context("no such history")?;
    let old = match random.random_range(0..10) {
        0 => random.random_range(0..log.len()),
        _ => newest,
    };
    let new = (old + random.random_range(0..6)).min(log.len());
    // Proofs of another history are tried as well.
    let prover = histories.get(random.random_range(0..histories.len())).unwrap_or(log);
    let prover = if random.random_bool(0.3) { prover } else { log };
    let (proof, note) = (prover.proof(old, new)?, log.note(new)?);
    let body = AddCheckpoint { old: Size(old as u64), proof, note: note.as_bytes() };
    Ok((which, new, body.to_bytes()))
}

/// The size of the newest note.
fn newest_size(witness: &Witness, log: &VerifierKey) -> Result<usize> {
    let Some(note) = witness.newest(&origin_hex(log.name())) else { return Ok(0) };
    let text = Checkpoint::parse(Note::parse(note.as_bytes())?.text())?;
    Ok(usize::try_from(text.size().0)?)
}

/// Calls at random, until the disk fails for good; whatever was given out is noted.
fn call_at_random(
    ground: &Ground,
    histories: &[SignedLog],
    random: &mut ChaCha8Rng,
    given: &mut Given,
) -> Result<()> {
    let Ok(witness) = ground.open() else { return Ok(()) };
    for _ in 0..CALLS {
        let log = histories.first().context("no history")?.vkey();
        let (which, size, body) = some_call(random, histories, newest_size(&witness, log)?)?;
        ground.clock.set_s(random.random_range(1_000..1_100));
        if let Ok(lines) = witness.add_checkpoint(&body) {
            let history = histories.get(which).context("no such history")?;
            let time = signed_at(&history.note(size)?, &lines, log)?;
            given.note(Signed { size, root: history.root(size), time })?;
        }
        if ground.disk.is_stopped() {
            break;
        }
    }
    Ok(())
}

#[test]
fn no_crash_makes_a_witness_sign_two_histories() -> Result<()> {
    let histories = histories()?;
    for seed in 0..SEEDS {
        let log = histories.first().context("no history")?;
        let ground = Ground::new(seed, &[log]);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut given = Given::default();
        // Some lives, each ending or hurt at some operation of the disk.
        for life in 0..LIVES {
            let at = random.random_range(0..30);
            ground.disk.set_failure(match random.random_range(0..4) {
                0 | 1 => Failure::StopAt(at),
                2 => Failure::ErrorAt(at),
                _ => Failure::FullAt(at),
            });
            call_at_random(&ground, &histories, &mut random, &mut given)
                .with_context(|| format!("seed {seed}, life {life}"))?;
            let restart =
                if random.random_bool(0.5) { Restart::Killed } else { Restart::PowerLost };
            ground.disk.restart(restart);
            ensure!(given.is_one_history(&histories), "seed {seed}, life {life}: {given:?}");
        }
        // It still signs what continues what it signed.
        let witness = ground.open()?;
        let newest = newest_size(&witness, log.vkey())?;
        let last = given.signed.last().map_or(0, |signed| signed.size);
        ensure!(newest >= last, "seed {seed}: {last} was signed, {newest} is known");
        let goes_on = histories.iter().filter(|history| {
            let body = history.add(newest, history.len());
            body.is_ok_and(|body| witness.add_checkpoint(&body).is_ok())
        });
        ensure!(goes_on.count() == 1, "seed {seed}: it does not go on");
    }
    Ok(())
}

#[test]
fn callers_at_once_get_signatures_of_one_history_only() -> Result<()> {
    let histories = histories()?;
    let log = histories.first().context("no history")?;
    for seed in 0..4 {
        let ground = Ground::new(seed, &[log]);
        let witness = ground.open()?;
        let given = Mutex::new(Given::default());
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|caller| {
                    let (witness, histories, given) = (&witness, &histories, &given);
                    scope.spawn(move || -> Result<()> {
                        let mut random = ChaCha8Rng::seed_from_u64(seed * 4 + caller);
                        for _ in 0..CALLS {
                            let newest = newest_size(witness, histories[0].vkey())?;
                            let (which, size, body) = some_call(&mut random, histories, newest)?;
                            if witness.add_checkpoint(&body).is_ok() {
                                let root = histories[which].root(size);
                                let signed = Signed { size, root, time: 0 };
                                given.lock().expect("no caller panics").signed.push(signed);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            callers.into_iter().try_for_each(|caller| caller.join().expect("no caller panics"))
        })?;
        let given = given.into_inner()?;
        ensure!(!given.signed.is_empty() && given.is_one_history(&histories), "{given:?}");
    }
    Ok(())
}

const SEEDS: u64 = 300;

const LIVES: usize = 8;

const CALLS: usize = 12;
