//! Each cause raises its alarm once, and the honest twin of the same run raises none.

use access_ledger_proto::{
    facts::sources::{Roles, Source},
    hash::Digest,
    note::{KeyType, Signer},
    source::SourceName,
    wire,
};
use tempfile::TempDir;

use super::*;
use crate::{
    custodian::alarms::tests::{NOW, ORIGIN, TestClock, open},
    folder::real_disk,
};

/// A custodian's vigil over a ledger that the test plays.
struct Scene {
    folder: TempDir,
    clock: Arc<TestClock>,
    alarms: Arc<Alarms>,
    vigil: Vigil,
    size: u64,
}

impl Scene {
    fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
        let alarms = open(&folder, &clock);
        let vigil = vigil(&folder, &alarms, &clock, 0);
        Self { folder, clock, alarms, vigil, size: 0 }
    }

    /// The custodian starts again, at some second from [`NOW`] on.
    fn restart(mut self, second: u64) -> Self {
        self.clock.set(NOW + second);
        self.alarms = open(&self.folder, &self.clock);
        self.vigil = vigil(&self.folder, &self.alarms, &self.clock, self.size);
        self
    }

    /// Time passes, second by second, while the ledger answers.
    fn until(&mut self, from: u64, to: u64) {
        for second in from..=to {
            self.clock.set(NOW + second);
            self.vigil.sighted(Size(self.size), self.vigil.now());
            self.vigil.tick();
        }
    }

    /// The ledger records an event at a second from [`NOW`] on, and the custodian takes it at once.
    fn record(&mut self, source: &str, second: u64, status: Option<SourceStatus>) {
        let (index, event) = (Index(self.size), status.map(event));
        let entry = Entry {
            index,
            recorded_at: (NOW + second) * 1_000_000_000,
            prev: Digest::ZERO,
            event_digest: Digest::ZERO,
            source_seq: 1,
            source: Name::parse(source.as_bytes()).unwrap(),
            seal: None,
        };
        let record = Record { entry: entry.encode().into(), event: event.map(Into::into) };
        self.size += 1;
        self.vigil.sighted(Size(self.size), self.vigil.now());
        let is_notable = record.event.is_some();
        self.vigil.took(index, &[record], is_notable);
        self.vigil.tick();
    }

    /// Another source records all the time, and the custodian takes each entry a second after it
    /// was told of it. Whenever it looks at its clock but right then, something is missing.
    fn busy(&mut self, from: u64, to: u64) {
        for second in (from..=to).step_by(2) {
            self.clock.set(NOW + second);
            self.vigil.sighted(Size(self.size + 1), self.vigil.now());
            self.vigil.tick();
            self.clock.set(NOW + second + 1);
            self.record("other", second, None);
            self.vigil.heard_of(Size(self.size + 1));
            self.vigil.tick();
        }
    }

    /// The kinds of all alarms so far, and whether they last.
    fn raised(&self) -> Vec<(AlarmKind, bool)> {
        self.alarms.all().iter().map(|record| (record.kind, record.is_lasting())).collect()
    }
}

fn vigil(folder: &TempDir, alarms: &Arc<Alarms>, clock: &Arc<TestClock>, held: u64) -> Vigil {
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), clock.clone());
    let log = (ORIGIN, Size(held));
    let mut vigil = Vigil::open(&disk, folder.path(), alarms, &clock, log, TimeLimits::default());
    vigil.expect(&sources());
    vigil
}

/// A source that promised to be heard every 60 seconds.
fn sources() -> Sources {
    let key = |seed| Signer::new(ORIGIN, KeyType::Ed25519, [seed; 32]).unwrap();
    let initial = |name: &str, seed| wire::InitialSource {
        name: name.to_owned(),
        public_key: key(seed).verifier().public_key().to_bytes().to_vec().into(),
    };
    let genesis = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: key(1).verifier().to_string(),
        ledger_source: Some(initial("ledger", 2)),
        governance: vec![initial("one", 3), initial("two", 4)],
        ..Default::default()
    };
    let change = wire::ControlChange {
        kind: wire::ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    };
    let body = Some(wire::event::Body::ControlChange(change));
    let genesis = wire::Event { body, ..Default::default() }.encode_to_vec();
    let mut sources = Sources::from_genesis(&genesis).unwrap();
    let (name, key) = (SourceName::parse("beating").unwrap(), *key(9).verifier().public_key());
    let source = Source::new(name, key, Roles::RECORDER, Index(1));
    sources.restore([Source { heartbeat_nanos: 60_000_000_000, ..source }]);
    sources
}

fn event(status: SourceStatus) -> Vec<u8> {
    let body = Some(wire::event::Body::SourceStatus(status));
    wire::Event { body, ..Default::default() }.encode_to_vec()
}

fn says(phase: SourcePhase) -> Option<SourceStatus> {
    Some(SourceStatus { phase: phase.into(), dropped: 7, ..Default::default() })
}

#[test]
fn an_honest_ledger_raises_nothing() {
    let mut scene = Scene::new();
    for second in (0..2_000).step_by(50) {
        scene.until(second.max(50) - 49, second);
        let status = if second % 100 == 0 { None } else { says(SourcePhase::Heartbeat) };
        scene.record("beating", second, status);
    }
    let mut scene = scene.restart(100_000);
    scene.record("beating", 100_000, None);
    scene.until(100_000, 100_060);
    assert_eq!(scene.raised(), []);
}

#[test]
fn a_silent_source_is_told_once_until_it_is_heard() {
    let mut scene = Scene::new();
    scene.record("beating", 0, None);
    scene.until(1, 60);
    assert_eq!(scene.raised(), []);
    scene.until(61, 200);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, true)]);
    let mut scene = scene.restart(201);
    scene.record("other", 201, None);
    scene.until(201, 270);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, true)]);
    scene.record("beating", 270, None);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, false)]);
}

#[test]
fn a_source_that_stopped_or_that_nobody_could_hear_is_not_blamed() {
    let mut scene = Scene::new();
    scene.record("beating", 0, says(SourcePhase::Stopped));
    scene.until(1, 250);
    assert_eq!(scene.raised(), []);
    let mut deaf = Scene::new();
    deaf.record("beating", 0, None);
    // The ledger does not answer for a while.
    for second in [1, 59, 130, 250] {
        deaf.clock.set(NOW + second);
        deaf.vigil.tick();
    }
    deaf.record("other", 251, None);
    deaf.until(251, 310);
    assert_eq!(deaf.raised(), []);
    deaf.until(311, 320);
    assert_eq!(deaf.raised(), [(AlarmKind::SourceSilent, true)]);
}

#[test]
fn a_copy_that_is_always_a_little_behind_hears_who_is_silent_all_the_same() {
    let mut scene = Scene::new();
    scene.record("beating", 0, None);
    scene.busy(1, 59);
    assert_eq!(scene.raised(), []);
    scene.busy(61, 71);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, true)]);
    scene.record("beating", 73, None);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, false)]);
}

#[test]
fn a_declared_gap_is_told() {
    let mut scene = Scene::new();
    scene.record("beating", 0, says(SourcePhase::Started));
    scene.record("beating", 1, says(SourcePhase::GapDeclared));
    let alarms = scene.alarms.all();
    let [gap] = &alarms[..] else { panic!("{alarms:?}") };
    assert_eq!((gap.kind, gap.index), (AlarmKind::SourceGap, Some(1)));
    assert_eq!(gap.message, "source beating declares that it lost 7 events");
}

#[test]
fn what_is_backdated_or_from_the_future_is_told() {
    let mut scene = Scene::new();
    scene.record("other", 0, None);
    scene.until(1, 120);
    scene.record("other", 80, None);
    assert_eq!(scene.raised(), [(AlarmKind::SourceSilent, true), (AlarmKind::Backdated, true)]);
    scene.record("other", 160, None);
    assert_eq!(scene.raised().len(), 3);
    assert_eq!(scene.alarms.places(AlarmKind::FutureDated, ORIGIN), [Place::Index(Index(2))]);
    // Into a downtime.
    let mut scene = Scene::new();
    scene.record("beating", 0, None);
    scene.until(1, 50);
    let mut scene = scene.restart(5_000);
    scene.record("beating", 5, None);
    assert_eq!(scene.raised(), [(AlarmKind::Backdated, true)]);
}

#[test]
fn a_ledger_without_news_is_told_while_that_lasts() {
    let mut scene = Scene::new();
    scene.record("beating", 0, says(SourcePhase::Stopped));
    scene.until(1, 400);
    assert_eq!(scene.raised(), [(AlarmKind::Stale, true)]);
    scene.record("other", 400, None);
    assert_eq!(scene.raised(), [(AlarmKind::Stale, false)]);
}
