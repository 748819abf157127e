//! Alarms are raised once, outlive the process, and never fill the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use access_ledger_client::evidence::Caught;
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    note::{KeyType, Signer, VerifierKey},
    position::Size,
};
use tempfile::TempDir;

use super::*;
use crate::folder::real_disk;

/// A clock that a test turns. Seconds.
#[derive(Default)]
pub(in crate::custodian) struct TestClock(AtomicU64);

impl TestClock {
    pub(in crate::custodian) fn at(second: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(second)))
    }

    pub(in crate::custodian) fn set(&self, second: u64) {
        self.0.store(second, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_nanos(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1_000_000_000
    }
}

pub(in crate::custodian) const ORIGIN: &str = "ledger.example/1";

/// A second in 2026.
pub(in crate::custodian) const NOW: u64 = 1_790_000_000;

pub(in crate::custodian) fn open(folder: &TempDir, clock: &Arc<TestClock>) -> Arc<Alarms> {
    let clock: Arc<dyn Clock> = clock.clone();
    Arc::new(Alarms::open(real_disk(), clock, &folder.path().join("alarms")).unwrap())
}

fn alarm(kind: AlarmKind, index: u64) -> Alarm {
    Alarm::new(kind, ORIGIN, Size(index + 1), "something").at(Index(index)).about("a/b")
}

fn files(folder: &TempDir) -> Vec<String> {
    let names = real_disk().list(&folder.path().join("alarms")).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// Two histories of one size that a ledger and a witness signed.
pub(in crate::custodian) fn fork() -> (Caught, VerifierKey) {
    let ledger = Signer::new(ORIGIN, KeyType::Ed25519, [1; 32]).unwrap();
    let witness = Signer::new("witness", KeyType::CosignatureV1, [2; 32]).unwrap();
    let signed = |root: &[u8]| {
        let checkpoint = Checkpoint::new(ORIGIN, Size(9), sha256(root)).unwrap();
        let note = checkpoint.sign(&ledger).unwrap();
        let open = |note: &str| {
            let witnesses = [witness.verifier().clone()];
            VerifiedCheckpoint::open(note.as_bytes(), ledger.verifier(), &witnesses).unwrap()
        };
        let line = open(&note).cosign(&witness, NOW).unwrap();
        Box::new(open(&format!("{note}{line}")))
    };
    let caught = Caught::Fork { pinned: signed(b"one"), served: signed(b"two") };
    (caught, ledger.verifier().clone())
}

#[test]
fn an_alarm_is_raised_once_while_it_lasts_across_restarts() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    for kind in AlarmKind::ALL {
        let alarms = open(&folder, &clock);
        let Raised::New(first) = alarms.raise(alarm(kind, 3)) else { panic!("{kind}") };
        clock.set(NOW + 5);
        // What is a state of the whole ledger is one, however far it has grown.
        let again = alarms.raise(alarm(kind, 3));
        assert_eq!(again, Raised::Lasting(first.clone()), "{kind}");
        let alarms = open(&folder, &clock);
        assert_eq!(alarms.raise(alarm(kind, 3)), Raised::Lasting(first.clone()), "{kind}");
        assert!(alarms.end_record(&first, "seen"));
        assert!(!alarms.end_record(&first, "seen"));
        let Raised::New(second) = open(&folder, &clock).raise(alarm(kind, 3)) else {
            panic!("{kind}")
        };
        assert_ne!(first.id, second.id);
        clock.set(NOW);
    }
    let alarms = open(&folder, &clock);
    assert_eq!(alarms.lasting().len(), AlarmKind::ALL.len());
    assert_eq!(alarms.all().len(), 2 * AlarmKind::ALL.len());
}

#[test]
fn the_file_has_the_documented_shape() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let (caught, ledger) = fork();
    let Raised::New(record) = alarms.raise(Alarm::of_caught(&caught, &ledger)) else { panic!() };
    let id = "20260921T141320Z-FORK-size-9";
    assert_eq!(files(&folder), [format!("{id}.json"), format!("{id}.txt")]);
    let evidence = caught.evidence(&ledger);
    let path = alarms.evidence(&record).unwrap();
    assert_eq!(os::read(&*real_disk(), &path, 1 << 20).unwrap(), evidence.as_bytes());
    let (_, body) = alarms.unsent().into_iter().find(|(unsent, _)| unsent == id).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let wanted = serde_json::json!({
        "version": 1,
        "id": id,
        "kind": "FORK",
        "origin": ORIGIN,
        "index": null,
        "size": 9,
        "party": null,
        "message": caught.to_string(),
        "evidence": format!("{id}.txt"),
        "evidence_sha256": sha256(evidence.as_bytes()).to_string(),
        "raised_at": "2026-09-21T14:13:20Z",
        "ended_at": null,
        "ended_by": null,
    });
    assert_eq!(told, wanted);
}

#[test]
fn one_cause_never_fills_the_disk() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let most = LASTING_MAX as u64;
    for index in 0..most + 20 {
        clock.set(NOW + 60 * index);
        let raised = alarms.raise(alarm(AlarmKind::Damaged, index));
        assert_eq!(raised == Raised::Counted, index >= most, "{index}");
        // What happens once is told whenever it happens.
        assert!(matches!(alarms.raise(alarm(AlarmKind::SourceGap, index)), Raised::New(_)));
    }
    let lasting = |kind| alarms.lasting().iter().filter(|record| record.kind == kind).count();
    assert_eq!(lasting(AlarmKind::Damaged), LASTING_MAX);
    assert_eq!(lasting(AlarmKind::SourceGap), LASTING_MAX);
    assert_eq!(alarms.places(AlarmKind::SourceGap, ORIGIN)[0], Place::Index(Index(20)));
    // Another kind and another ledger have room of their own, and so has who made some.
    assert!(matches!(alarms.raise(alarm(AlarmKind::Withheld, 1)), Raised::New(_)));
    let other = Alarm { origin: "other".into(), ..alarm(AlarmKind::Damaged, 1) };
    assert!(matches!(alarms.raise(other), Raised::New(_)));
    let place = Place::Index(Index(0));
    assert!(alarms.end(AlarmKind::Damaged, ORIGIN, place, "served again"));
    assert!(matches!(alarms.raise(alarm(AlarmKind::Damaged, most)), Raised::New(_)));
}

#[test]
fn a_flood_of_what_happens_once_is_counted() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let most = LASTING_MAX as u64;
    let flood = |from: u64, to: u64| -> Vec<u64> {
        let is_new =
            |index: &u64| alarms.raise(alarm(AlarmKind::SourceGap, *index)) != Raised::Counted;
        (from..to).filter(is_new).collect()
    };
    assert_eq!(flood(0, 1_000), (0..most).collect::<Vec<_>>());
    assert_eq!(files(&folder).len(), LASTING_MAX);
    clock.set(NOW + EVENT_SPAN.as_secs());
    assert!(flood(2_000, 3_000).is_empty());
    clock.set(NOW + EVENT_SPAN.as_secs() + 1);
    assert_eq!(flood(3_000, 4_000), (3_000..3_000 + most).collect::<Vec<_>>());
    assert_eq!(files(&folder).len(), LASTING_MAX + ENDED_MAX);
    // A flood of one kind takes no room from another.
    assert!(matches!(alarms.raise(alarm(AlarmKind::Backdated, 1)), Raised::New(_)));
}

#[test]
fn the_first_evidence_of_a_kind_is_never_crowded_out() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let flap = |kind, index| {
        let Raised::New(record) = alarms.raise(alarm(kind, index)) else { panic!("{kind}") };
        assert!(alarms.end_record(&record, "served again"));
        record.id
    };
    let first = flap(AlarmKind::Damaged, 7);
    for second in 1..3 * ENDED_MAX as u64 {
        clock.set(NOW + second);
        flap(AlarmKind::CheckpointInvalid, second);
        flap(AlarmKind::Damaged, 1_000 + second);
    }
    let all = alarms.all();
    assert_eq!(all.len(), 2 * ENDED_MAX);
    assert!(all.iter().any(|record| record.id == first), "an operator who flaps hides nothing");
}

#[test]
fn a_cause_that_comes_and_goes_leaves_the_first_and_the_newest() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let count = ENDED_MAX as u64 + 3;
    for round in 0..count {
        clock.set(NOW + round);
        assert!(matches!(alarms.raise(alarm(AlarmKind::Stale, round)), Raised::New(_)));
        assert!(alarms.end(AlarmKind::Stale, ORIGIN, Place::Ledger, "news"));
    }
    let all = alarms.all();
    assert_eq!(all.len(), ENDED_MAX);
    let at = |second| time((NOW + second) * 1_000_000_000).to_string();
    let half = ENDED_MAX / 2;
    assert_eq!(all[half - 1].raised_at, at(half as u64 - 1));
    assert_eq!(all[half].raised_at, at(half as u64 + 3));
    assert_eq!(files(&folder).len(), ENDED_MAX);
}

#[test]
fn what_is_no_alarm_is_left_aside() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    let Raised::New(record) = alarms.raise(alarm(AlarmKind::Fork, 3)) else { panic!() };
    let path = |name: &str| folder.path().join("alarms").join(name);
    let disk = real_disk();
    os::replace(&*disk, &path("x.json"), b"{").unwrap();
    os::replace(&*disk, &path("y.json"), &encode(&record)).unwrap();
    os::replace(&*disk, &path("z.json.draft"), b"torn").unwrap();
    assert_eq!(open(&folder, &clock).all(), [record]);
}

#[test]
fn the_evidence_of_what_was_erased_goes_with_it() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    for index in [3, 4] {
        let with = Some("bytes of an event".to_owned());
        alarms.raise(Alarm { evidence: with, ..alarm(AlarmKind::Damaged, index) });
    }
    alarms.forget_evidence(Index(4), Index(9));
    let left = |alarms: &Alarms| -> Vec<bool> {
        alarms.all().iter().map(|record| record.evidence.is_some()).collect()
    };
    assert_eq!(left(&alarms), [true, false]);
    assert_eq!(left(&open(&folder, &clock)), [true, false]);
    assert_eq!(files(&folder).iter().filter(|name| name.ends_with(".txt")).count(), 1);
}

#[test]
fn a_disk_that_refuses_does_not_silence_an_alarm() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let alarms = open(&folder, &clock);
    // A file where the folder was.
    let path = folder.path().join("alarms");
    std::fs::remove_dir(&path).unwrap();
    std::fs::File::create(&path).unwrap();
    let Raised::New(record) = alarms.raise(alarm(AlarmKind::Fork, 3)) else { panic!() };
    assert_eq!(alarms.raise(alarm(AlarmKind::Fork, 3)), Raised::Lasting(record));
    assert_eq!(alarms.unsent().len(), 1);
}
