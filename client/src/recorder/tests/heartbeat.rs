//! A source that must be heard, on a clock that only the test moves: what the log's own rules find
//! of it.

use access_ledger_proto::{
    facts::Noted,
    findings::Findings,
    wire::{SourcePhase, SourceStatus, event::Body},
};
use tokio::{task::yield_now, time::advance};

use super::*;

const INTERVAL: Duration = Duration::from_secs(60);

/// A clock that moves when the test says, whoever waits on the network meanwhile.
struct Clock {
    /// While a blocking task runs, tokio leaves its paused clock alone.
    _held: std::sync::mpsc::Sender<()>,
}

impl Clock {
    fn pause() -> Self {
        let (held, until) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || until.recv());
        tokio::time::pause();
        Self { _held: held }
    }
}

/// A ledger whose log registers the source, with the interval.
fn beating() -> FakeLedger {
    let ledger = FakeLedger::new();
    ledger.lock().register_beating(key().verifier(), INTERVAL);
    ledger
}

/// Phases that the source has told, and how many other events it recorded.
fn told(ledger: &FakeLedger) -> (Vec<SourcePhase>, usize) {
    let events = ledger.lock().events(SOURCE);
    let phase = |event: &Bytes| match wire::Event::decode(event.clone()).unwrap().body {
        Some(Body::SourceStatus(status)) => Some(status.phase()),
        _ => None,
    };
    let phases: Vec<_> = events.iter().filter_map(phase).collect();
    let others = events.len() - phases.len();
    (phases, others)
}

/// The entries behind which the source was silent, as whoever reads the log finds it.
fn silences(ledger: &FakeLedger) -> Vec<u64> {
    let log = ledger.lock();
    let mut records = log.records();
    let (_, genesis) = records.next().unwrap();
    let mut findings = Findings::from_genesis(genesis).unwrap();
    let mut found = Vec::new();
    for (entry, event) in records {
        let (index, recorded_at, source) = (entry.index, entry.recorded_at, entry.source);
        let event = &wire::Event::decode(event.clone()).unwrap();
        findings.take(&Noted { index, recorded_at, source, event }, &mut found);
    }
    found.extend(findings.conclude());
    let silent = found.iter().filter(|found| found.rule == "SOURCE_SILENT");
    silent.map(|found| found.index).collect()
}

/// The clock moves on second by second, and somebody else is heard every ten.
async fn pass(ledger: &FakeLedger, recorder: Option<&Recorder>, time: Duration) {
    for second in 0..time.as_secs() {
        advance(Duration::from_secs(1)).await;
        // Whatever woke has its say, and what it recorded is answered before the clock moves on.
        for _ in 0..8 {
            yield_now().await;
        }
        while recorder.is_some_and(|recorder| recorder.unsent() > 0) {
            yield_now().await;
        }
        if second % 10 == 0 {
            speak(ledger);
        }
    }
}

/// Somebody else is heard; the index of the entry.
fn speak(ledger: &FakeLedger) -> u64 {
    let status = SourceStatus {
        phase: SourcePhase::Heartbeat.into(),
        source: "other".to_owned(),
        ..SourceStatus::default()
    };
    ledger.lock().tell(status)
}

#[tokio::test]
async fn a_quiet_recorder_is_never_found_silent_and_one_that_is_gone_is() {
    let _clock = Clock::pause();
    let ledger = beating();
    let recorder = builder(&ledger).start().await.unwrap();
    recorder.flush().await.unwrap();
    pass(&ledger, Some(&recorder), 10 * INTERVAL).await;
    assert!(silences(&ledger).is_empty());
    let (phases, others) = told(&ledger);
    assert_eq!((phases[0], others), (SourcePhase::Started, 0));
    assert!(phases[1..].iter().all(|phase| *phase == SourcePhase::Heartbeat), "{phases:?}");
    assert!((19..=20).contains(&phases[1..].len()), "one each half interval: {phases:?}");

    drop(recorder);
    pass(&ledger, None, INTERVAL / 2).await;
    assert!(silences(&ledger).is_empty(), "it may still be there");
    pass(&ledger, None, INTERVAL).await;
    let silent = silences(&ledger);
    assert_eq!(silent.len(), 1, "once: {silent:?}");
    pass(&ledger, None, 5 * INTERVAL).await;
    assert_eq!(silences(&ledger), silent);

    // Back again, it is heard, and may fall silent again.
    let recorder = builder(&ledger).start().await.unwrap();
    pass(&ledger, Some(&recorder), 2 * INTERVAL).await;
    assert_eq!(silences(&ledger), silent);
    drop(recorder);
    pass(&ledger, None, 2 * INTERVAL).await;
    assert_eq!(silences(&ledger).len(), 2);
}

#[tokio::test]
async fn a_recorder_that_is_closed_says_so_and_is_not_found_silent() {
    let _clock = Clock::pause();
    let ledger = beating();
    let build = sha256(b"build 1");
    let recorder = builder(&ledger).build_digest(build).start().await.unwrap();
    for name in 0..3 {
        pass(&ledger, Some(&recorder), INTERVAL / 3).await;
        recorder.record(access(name)).await.unwrap().receipt().await.unwrap();
    }
    assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
    assert_eq!(recorder.close().await.unwrap(), Closed { unsent: 0 });
    pass(&ledger, None, 10 * INTERVAL).await;
    assert!(silences(&ledger).is_empty());
    // Whoever records is heard by that: no heartbeats.
    assert_eq!(told(&ledger), (vec![SourcePhase::Started, SourcePhase::Stopped], 3));
    let events = ledger.lock().events(SOURCE);
    let status = |event: &Bytes| match wire::Event::decode(event.clone()).unwrap().body {
        Some(Body::SourceStatus(status)) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(&events[0]).build_digest, *build.as_ref());
    assert_eq!(status(events.last().unwrap()).phase(), SourcePhase::Stopped);
}

#[tokio::test]
async fn an_outage_of_the_ledger_does_not_fill_the_recorder_with_heartbeats() {
    let _clock = Clock::pause();
    let ledger = beating();
    let recorder = builder(&ledger).start().await.unwrap();
    recorder.flush().await.unwrap();
    ledger.lock().faults.down = true;
    pass(&ledger, None, 20 * INTERVAL).await;
    assert_eq!(recorder.unsent(), 1);
    ledger.lock().faults.down = false;
    pass(&ledger, None, INTERVAL / 2).await;
    recorder.flush().await.unwrap();
    let before = silences(&ledger);
    assert_eq!(before.len(), 1, "nobody can be heard in an outage that others speak through");
    pass(&ledger, Some(&recorder), 5 * INTERVAL).await;
    assert_eq!(silences(&ledger), before);
}

#[tokio::test]
async fn a_source_without_an_interval_says_nothing_of_itself_unless_it_is_told_to() {
    let _clock = Clock::pause();
    let ledger = registered();
    let recorder = builder(&ledger).start().await.unwrap();
    pass(&ledger, Some(&recorder), 5 * INTERVAL).await;
    recorder.close().await.unwrap();
    assert_eq!(told(&ledger), (vec![], 0));

    let recorder = builder(&ledger).heartbeat(INTERVAL).start().await.unwrap();
    pass(&ledger, Some(&recorder), INTERVAL + Duration::from_secs(5)).await;
    recorder.close().await.unwrap();
    use SourcePhase::{Heartbeat, Started, Stopped};
    assert_eq!(told(&ledger), (vec![Started, Heartbeat, Heartbeat, Stopped], 0));

    let ledger = beating();
    let recorder = builder(&ledger).heartbeat(Duration::ZERO).start().await.unwrap();
    pass(&ledger, Some(&recorder), 5 * INTERVAL).await;
    recorder.close().await.unwrap();
    assert_eq!((told(&ledger), silences(&ledger).len()), ((vec![], 0), 1));
}

#[tokio::test]
async fn a_used_spool_starts_without_the_ledger_and_learns_the_interval_later() {
    let ledger = beating();
    let folder = tempfile::tempdir().unwrap();
    let spooled = |ledger| start_unlocked(builder(ledger), folder.path());
    spooled(&ledger).await.close().await.unwrap();
    ledger.lock().faults.down = true;
    let recorder = spooled(&ledger).await;
    let ticket = recorder.record(access(0)).await.unwrap();
    ledger.lock().faults.down = false;
    ticket.receipt().await.unwrap();
    recorder.close().await.unwrap();
    use SourcePhase::{Started, Stopped};
    let (phases, others) = told(&ledger);
    assert_eq!((phases[..2].to_vec(), others), (vec![Started, Stopped], 1));
    assert_eq!(phases.last(), Some(&Stopped));
    assert_eq!(recorder.left(), 0);
}
