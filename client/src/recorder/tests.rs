//! The recorder against a small ledger that fails and lies.

use std::{collections::BTreeSet, path::Path};

use access_ledger_proto::{
    checkpoint::Checkpoint, facts::sources::Roles, note::KeyType, position::Size,
    receipt::ReceiptVerifier,
};
use tokio::task::JoinSet;

use self::ledger::{FakeLedger, Lie, witness};
use super::{batch::Notary, *};
use crate::{
    connect,
    error::{ConnectError, EvidenceFault},
};

mod authorize;
#[cfg(feature = "audit")]
mod heartbeat;
mod ledger;
mod persist;

const SOURCE: &str = "payments";

/// Longer than any test takes, unless it moves the clock.
const BEAT: Duration = Duration::from_secs(3_600);

fn key() -> Signer {
    Signer::new(SOURCE, KeyType::Ed25519, [5; 32]).unwrap()
}

/// A ledger that knows the source.
fn registered() -> FakeLedger {
    let ledger = FakeLedger::new();
    ledger.lock().register(key().verifier().clone());
    ledger
}

/// Small batches and short delays.
fn builder(ledger: &FakeLedger) -> Builder {
    Recorder::builder(ledger.serve(), key(), ledger.key())
        .batch_events_max(7)
        .batch_delay(Duration::from_millis(1))
        .in_flight_max(3)
        .backoff(Duration::from_millis(1), Duration::from_millis(8))
        .deadline(Duration::from_secs(20))
}

fn access(name: u64) -> wire::Event {
    let data = wire::Data { dataset: format!("dataset-{name}"), ..wire::Data::default() };
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![data],
        outcome: wire::Outcome::Allowed.into(),
        ..wire::Access::default()
    };
    let actor = wire::Principal { id: "u-1".to_owned(), ..wire::Principal::default() };
    let body = Some(wire::event::Body::Access(access));
    wire::Event { actor: Some(actor), body, ..wire::Event::default() }
}

/// The name that [`access`] was given; `None` for another event.
fn name_of(event: &Bytes) -> Option<u64> {
    match wire::Event::decode(event.clone()).unwrap().body {
        Some(wire::event::Body::Access(access)) => {
            access.data[0].dataset.strip_prefix("dataset-")?.parse().ok()
        }
        _ => None,
    }
}

fn names(ledger: &FakeLedger) -> Vec<u64> {
    ledger.lock().events(SOURCE).iter().filter_map(name_of).collect()
}

/// That a receipt tells the truth about the log.
fn expect_true(ledger: &FakeLedger, recorded: &Recorded) {
    let (digest, seq) = ledger.lock().entry(recorded.index());
    let event = &ledger.lock().events(SOURCE)[usize::try_from(seq).unwrap() - 1];
    assert_eq!((digest, seq), (sha256(event), recorded.seq()));
}

#[tokio::test]
async fn a_receipt_tells_where_each_event_lies() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    let mut tickets = Vec::new();
    for name in 0..100 {
        tickets.push(recorder.record(access(name)).await.unwrap());
    }
    for ticket in tickets {
        expect_true(&ledger, &ticket.receipt().await.unwrap());
    }
    assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
    assert_eq!(names(&ledger), (0..100).collect::<Vec<_>>());
    assert!(matches!(recorder.record(access(1)).await, Err(RecorderError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_recorded_once_and_in_order_under_any_failures() {
    for seed in 0..8 {
        let ledger = registered();
        {
            let faults = &mut ledger.lock().faults;
            faults.seed = seed;
            (faults.lost, faults.unanswered, faults.busy) = (25, 25, 25);
        }
        let recorder = builder(&ledger).start().await.unwrap();
        let mut tickets = JoinSet::new();
        for name in 0..300 {
            let ticket = recorder.record(access(name)).await.unwrap();
            tickets.spawn(ticket.receipt());
        }
        for recorded in tickets.join_all().await {
            expect_true(&ledger, &recorded.unwrap());
        }
        assert_eq!(names(&ledger), (0..300).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_spool_nothing_is_lost_or_doubled_over_many_lives() {
    for seed in 0..4 {
        let ledger = registered();
        let folder = tempfile::tempdir().unwrap();
        let mut name = 0;
        for life in 0..12 {
            {
                let faults = &mut ledger.lock().faults;
                faults.seed = seed * 100 + life;
                (faults.lost, faults.unanswered, faults.busy) = (20, 40, 20);
                faults.down = life % 4 == 3;
            }
            // Another cut in every life.
            let events_max = 1 + usize::try_from((seed + life) % 9).unwrap();
            let builder = builder(&ledger).batch_events_max(events_max);
            let recorder = start_unlocked(builder, folder.path()).await;
            for _ in 0..30 {
                let ticket = recorder.record(access(name)).await.unwrap();
                name += 1;
                if life % 4 == 1 && name % 10 == 0 {
                    expect_true(&ledger, &ticket.receipt().await.unwrap());
                }
            }
            // Dropped: as a crash would, but that the thread closes the files.
        }
        ledger.lock().faults = ledger::Faults::default();
        let recorder = start_unlocked(builder(&ledger), folder.path()).await;
        recorder.flush().await.unwrap();
        assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
        assert_eq!(names(&ledger), (0..name).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// Starts once the recorder before has let go of the spool.
async fn start_unlocked(builder: Builder, folder: &Path) -> Recorder {
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    drop(lock);
    builder.spool(folder, 1 << 20).start().await.unwrap()
}

#[tokio::test]
async fn a_lie_ends_the_recorder_with_the_evidence() {
    for lie in
        [Lie::Index, Lie::Time, Lie::Prev, Lie::Path, Lie::Absent, Lie::ForeignKey, Lie::Beyond]
    {
        let ledger = registered();
        let recorder = builder(&ledger).start().await.unwrap();
        let honest = recorder.record(access(0)).await.unwrap();
        honest.receipt().await.unwrap();
        ledger.lock().faults.lie = Some(lie);
        let ticket = recorder.record(access(1)).await.unwrap();
        let error = ticket.receipt().await.unwrap_err();
        let RecorderError::Evidence { first_seq: 2, fault, evidence } = &error else {
            panic!("{lie:?}: {error:?}");
        };
        assert_eq!(evidence.is_empty(), lie == Lie::Absent, "{fault}");
        assert!(recorder.record(access(2)).await.is_err());
        assert!(recorder.flush().await.is_err() && recorder.close().await.is_err());
    }
}

#[test]
fn a_checkpoint_behind_or_beside_the_newest_is_evidence() {
    let ledger = Signer::new("ledger.example/test", KeyType::Ed25519, [1; 32]).unwrap();
    let signed = |size, root: &[u8]| {
        let checkpoint = Checkpoint::new(ledger.name(), Size(size), sha256(root)).unwrap();
        let note = checkpoint.sign(&ledger).unwrap();
        VerifiedCheckpoint::open(note.as_bytes(), ledger.verifier(), &[]).unwrap()
    };
    let source = SourceName::parse(SOURCE).unwrap();
    let vkey = ledger.verifier().clone();
    let mut notary = Notary {
        source,
        key: key(),
        receipts: ReceiptVerifier::new(vkey, Vec::new()),
        quorum: Quorum::default(),
        newest: None,
    };
    for size in [5, 5, 8] {
        notary.observe(&signed(size, b"root")).unwrap();
    }
    let rollback = notary.observe(&signed(7, b"root"));
    assert!(matches!(rollback, Err(EvidenceFault::Rollback { found: Size(7), newest: Size(8) })));
    let fork = notary.observe(&signed(8, b"other"));
    assert!(matches!(fork, Err(EvidenceFault::Fork { size: Size(8), .. })));
    assert_eq!(notary.newest.unwrap().root(), sha256(b"root"));
}

/// The policy that the fake ledger's witness must have cosigned.
fn quorum() -> Quorum {
    Quorum::parse(format!("witness w {}\nquorum w\n", witness().verifier())).unwrap()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the seed replays a failure")]
async fn what_is_below_the_quorum_is_repeated_and_counts_once_it_is_cosigned() {
    for seed in 0..8 {
        println!("seed {seed}");
        let ledger = registered();
        let recorder = builder(&ledger).quorum(quorum()).start().await.unwrap();
        {
            let faults = &mut ledger.lock().faults;
            (faults.pending, faults.uncosigned, faults.unanswered) = (40, 120, 20);
            faults.seed = seed;
        }
        let mut tickets = Vec::new();
        for name in 0..40 {
            tickets.push(recorder.record(access(name)).await.unwrap());
        }
        for ticket in tickets {
            let recorded = ticket.receipt().await.unwrap();
            assert!(quorum().is_met(recorded.checkpoint().cosignatures()));
            let keys = quorum().keys();
            let proven = recorded.proof().verify(&ledger.key(), &keys).unwrap();
            assert!(quorum().is_met(proven.cosignatures()));
        }
        assert_eq!(names(&ledger), (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn without_cosignatures_nothing_counts_as_recorded() {
    let ledger = registered();
    ledger.lock().faults.uncosigned = u8::MAX;
    let builder = builder(&ledger).deadline(Duration::from_millis(300));
    let recorder = builder.quorum(quorum()).start().await.unwrap();
    let ticket = recorder.record(access(0)).await.unwrap();
    let unanswered = tokio::spawn(ticket.receipt());
    assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 1 });
    assert!(matches!(unanswered.await.unwrap(), Err(RecorderError::Closed)));
    assert_eq!(names(&ledger), [0]);
}

#[tokio::test]
async fn a_quorum_for_other_ledgers_starts_nothing() {
    let ledger = registered();
    let other = Signer::new("ledger.example/other", KeyType::Ed25519, [8; 32]).unwrap();
    let policy = format!("log {}\nquorum none\n", other.verifier());
    let builder = builder(&ledger).quorum(Quorum::parse(policy).unwrap());
    assert!(matches!(builder.start().await, Err(RecorderError::OtherLog { .. })));
}

#[tokio::test]
async fn a_refusal_fails_the_recorder_and_leaves_the_spool_as_it_is() {
    for code in [tonic::Code::InvalidArgument, tonic::Code::PermissionDenied, tonic::Code::Aborted]
    {
        let ledger = registered();
        let folder = tempfile::tempdir().unwrap();
        ledger.lock().faults.refuse = Some(code);
        let recorder = start_unlocked(builder(&ledger), folder.path()).await;
        let ticket = recorder.record(access(0)).await.unwrap();
        let refused = ticket.receipt().await.unwrap_err();
        assert!(matches!(refused, RecorderError::Refused(status) if status.code() == code));
        let later = recorder.record(access(1)).await.unwrap_err();
        assert!(matches!(later, RecorderError::Refused(_)));
        drop(recorder);
        ledger.lock().faults.refuse = None;
        let recorder = start_unlocked(builder(&ledger), folder.path()).await;
        recorder.flush().await.unwrap();
        assert_eq!(names(&ledger), [0]);
    }
}

#[tokio::test]
async fn what_does_not_fit_in_memory_waits_in_the_spool() {
    let ledger = registered();
    let folder = tempfile::tempdir().unwrap();
    let recorder = builder(&ledger)
        .batch_events_max(256)
        .memory_bytes_max(0)
        .spool(folder.path(), 8 << 20)
        .start()
        .await
        .unwrap();
    ledger.lock().faults.down = true;
    let mut large = access(0);
    large.correlation_id = "x".repeat(256);
    let mut tasks = JoinSet::new();
    let recorder = Arc::new(recorder);
    for _ in 0..8 {
        let (recorder, large) = (Arc::clone(&recorder), large.clone());
        tasks.spawn(async move {
            for _ in 0..1_000 {
                drop(recorder.record(large.clone()).await.unwrap());
            }
        });
    }
    tasks.join_all().await;
    ledger.lock().faults.down = false;
    recorder.flush().await.unwrap();
    let ids: BTreeSet<_> = ledger.lock().events(SOURCE).into_iter().collect();
    assert_eq!((ids.len(), names(&ledger).len()), (8_000, 8_000));
}

#[tokio::test]
async fn without_room_record_waits_and_try_record_says_so() {
    let ledger = registered();
    ledger.lock().faults.silent = true;
    let folder = tempfile::tempdir().unwrap();
    for spooled in [false, true] {
        let mut builder = builder(&ledger).memory_bytes_max(0);
        if spooled {
            builder = builder.spool(folder.path(), 0);
        }
        let recorder = builder.deadline(Duration::from_millis(200)).start().await.unwrap();
        let mut accepted = 0_u64;
        let full = loop {
            match recorder.try_record(access(accepted)) {
                Ok(_) => accepted += 1,
                // With a spool, memory may be full for as long as a sync takes.
                Err(RecorderError::Full { .. }) if spooled && accepted < 5_000 => {
                    tokio::task::yield_now().await;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(full, RecorderError::Full { .. }) && accepted > 5_000);
        let waits = timeout(Duration::from_millis(20), recorder.record(access(accepted))).await;
        assert!(waits.is_err());
        let closed = recorder.close().await.unwrap();
        assert_eq!(closed, Closed { unsent: accepted });
    }
}

#[tokio::test]
async fn a_lost_spool_is_declared_before_anything_else() {
    let ledger = registered();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recorder = start_unlocked(builder(&ledger), first.path()).await;
    for name in 0..10 {
        drop(recorder.record(access(name)).await.unwrap());
    }
    recorder.close().await.unwrap();
    let recorder = start_unlocked(builder(&ledger), second.path()).await;
    assert_eq!(recorder.record(access(10)).await.unwrap().seq(), 12);
    recorder.close().await.unwrap();
    let events = ledger.lock().events(SOURCE);
    let declared = wire::Event::decode(events[10].clone()).unwrap().body;
    let Some(wire::event::Body::SourceStatus(status)) = declared else { panic!("{declared:?}") };
    assert_eq!(status.phase(), wire::SourcePhase::GapDeclared);
    assert_eq!((events.len(), name_of(&events[11])), (12, Some(10)));
    // It is declared once.
    let recorder = start_unlocked(builder(&ledger), second.path()).await;
    assert_eq!(recorder.record(access(11)).await.unwrap().seq(), 13);
}

#[tokio::test]
async fn a_key_that_is_used_twice_is_told() {
    let ledger = registered();
    let folder = tempfile::tempdir().unwrap();
    let recorder = start_unlocked(builder(&ledger), folder.path()).await;
    recorder.record(access(0)).await.unwrap().receipt().await.unwrap();
    ledger.lock().faults.down = true;
    drop(recorder.record(access(1)).await.unwrap());
    drop(recorder);
    ledger.lock().faults.down = false;
    // Somebody else goes on where this recorder stood.
    let other = builder(&ledger).start().await.unwrap();
    other.record(access(9)).await.unwrap().receipt().await.unwrap();
    let recorder = start_unlocked(builder(&ledger), folder.path()).await;
    let told = recorder.flush().await.unwrap_err();
    assert!(matches!(told, RecorderError::Reused { seq: 2, index: Some(_) }), "{told:?}");
}

#[tokio::test]
async fn a_ledger_that_lost_proven_events_is_told() {
    let ledger = registered();
    let folder = tempfile::tempdir().unwrap();
    let recorder = start_unlocked(builder(&ledger), folder.path()).await;
    for name in 0..5 {
        recorder.record(access(name)).await.unwrap().receipt().await.unwrap();
    }
    ledger.lock().forget(SOURCE, 2);
    let told = recorder.record(access(5)).await.unwrap().receipt().await.unwrap_err();
    assert!(matches!(told, RecorderError::Lost { found: 3, wanted: 5 }), "{told:?}");
    assert!(recorder.close().await.is_err());
    let told = builder(&ledger).spool(folder.path(), 0).start().await.unwrap_err();
    assert!(matches!(told, RecorderError::Lost { found: 3, wanted: 5 }), "{told:?}");
}

#[tokio::test]
async fn a_silent_ledger_is_left_after_the_deadline() {
    let ledger = registered();
    ledger.lock().faults.silent = true;
    let recorder = builder(&ledger).deadline(Duration::from_millis(50)).start().await.unwrap();
    let ticket = recorder.record(access(0)).await.unwrap();
    let waits = timeout(Duration::from_millis(20), ticket.clone().receipt()).await;
    assert!(waits.is_err());
    ledger.lock().faults.silent = false;
    ticket.receipt().await.unwrap();
    assert_eq!(names(&ledger), [0]);
}

#[tokio::test]
async fn events_that_break_the_rules_are_refused_and_the_recorder_goes_on() {
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    let refused = recorder.record(wire::Event::default()).await.unwrap_err();
    assert!(matches!(refused, RecorderError::Event(_)));
    let refused = recorder.record_encoded(Bytes::from(vec![0; 40_000])).await.unwrap_err();
    assert!(matches!(refused, RecorderError::Event(_)));
    recorder.record(access(0)).await.unwrap().receipt().await.unwrap();
}

#[tokio::test]
async fn another_key_ledger_or_an_unknown_source_is_told_at_the_start() {
    let ledger = registered();
    let start = |key: Signer, vkey: VerifierKey| {
        Recorder::builder(ledger.serve(), key, vkey).deadline(Duration::from_secs(5)).start()
    };
    let other = Signer::new(SOURCE, KeyType::Ed25519, [6; 32]).unwrap();
    assert!(matches!(start(other, ledger.key()).await, Err(RecorderError::Key { .. })));
    let elsewhere = Signer::new("elsewhere", KeyType::Ed25519, [1; 32]).unwrap();
    let refused = start(key(), elsewhere.verifier().clone()).await;
    assert!(matches!(refused, Err(RecorderError::Origin { .. })));
    let unknown = Signer::new("unknown", KeyType::Ed25519, [5; 32]).unwrap();
    assert!(matches!(start(unknown, ledger.key()).await, Err(RecorderError::Refused(_))));
    ledger.lock().faults.down = true;
    let builder = builder(&ledger).deadline(Duration::from_millis(20));
    assert!(matches!(builder.start().await, Err(RecorderError::Deadline { .. })));
}

#[tokio::test]
async fn an_enrolment_is_verified() {
    let ledger = FakeLedger::new();
    let enrol = || {
        let channel = ledger.serve();
        let vkey = ledger.key();
        async move { connect::enroll(channel, &vkey, &key(), Roles::RECORDER, None, BEAT).await }
    };
    let enrolled = enrol().await.unwrap();
    enrolled.proof.verify(&ledger.key(), &[]).unwrap();
    let recorder = builder(&ledger).start().await.unwrap();
    recorder.record(access(0)).await.unwrap().receipt().await.unwrap();
    for lie in [Lie::Index, Lie::ForeignKey] {
        ledger.lock().faults.lie = Some(lie);
        let refused = enrol().await.unwrap_err();
        let ConnectError::Answer { fault, evidence } = refused else { panic!("{refused:?}") };
        assert!(!evidence.is_empty());
        assert_eq!(matches!(fault, EvidenceFault::Mismatch { field: "roles" }), lie == Lie::Index);
    }
}
