//! The storage's hot paths: commit (writer thread), range reads (auditors, index), check.
//!
//! 320-byte events in batches of 256. Throughput is in entries, so a time of 16 x 256 entries is
//! one group of 16 batches.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench that fails has nothing to measure"
)]

use std::{hint::black_box, path::Path, sync::Arc};

use access_ledger_proto::{
    chain::Link,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::{Index, count_of},
    seal::Batch,
    source::Name,
    wire::{ControlChange, ControlKind, Event, Genesis, InitialSource, event::Body},
};
use access_ledger_server::{
    check::check,
    os::{Access, Disk, File, RealDisk},
    storage::{self, Opened, Options},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

const ORIGIN: &str = "ledger.example/bench";
const BATCH: u64 = 256;
const EVENT_BYTES: usize = 320;

/// The machine's disk; syncs do nothing, so that only our own work is measured.
struct Unsynced(RealDisk);

struct UnsyncedFile(Arc<dyn File>);

impl Disk for Unsynced {
    fn create_dir(&self, folder: &Path) -> std::io::Result<()> {
        self.0.create_dir(folder)
    }

    fn list(&self, folder: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
        self.0.list(folder)
    }

    fn open(&self, path: &Path, access: Access) -> std::io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path, access)?)))
    }

    fn create(&self, path: &Path) -> std::io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(self.0.create(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, _folder: &Path) -> std::io::Result<()> {
        Ok(())
    }

    fn random(&self) -> std::io::Result<u32> {
        self.0.random()
    }
}

impl File for UnsyncedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }

    fn set_length(&self, length: u64) -> std::io::Result<()> {
        self.0.set_length(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn ledger_key() -> VerifierKey {
    Signer::new(ORIGIN, KeyType::Ed25519, [3; 32]).unwrap().verifier().clone()
}

/// A ledger with the two sources of its genesis: its own, and the party of governance that records.
struct Ledger {
    opened: Opened,
    own: Signer,
    company: Signer,
}

impl Ledger {
    fn new(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        let opened = storage::open(disk, &Options::new(folder, ORIGIN), None).unwrap();
        let own = Signer::new("ledger", KeyType::Ed25519, [1; 32]).unwrap();
        let company = Signer::new("company", KeyType::Ed25519, [2; 32]).unwrap();
        let mut ledger = Self { opened, own, company };
        let genesis = ledger.genesis();
        append(&mut ledger.opened, &ledger.own, 1, &[genesis]);
        ledger
    }

    fn fill(&mut self, entries: u64) {
        while self.opened.reader.size().0 < entries {
            let first = self.opened.reader.size().0;
            let events: Vec<_> = (first..first + BATCH).map(event).collect();
            // The genesis is the only entry of another source.
            append(&mut self.opened, &self.company, first, &events);
        }
    }

    fn genesis(&self) -> Vec<u8> {
        let initial = |name: &str, signer: &Signer| InitialSource {
            name: name.to_owned(),
            public_key: signer.verifier().public_key().as_bytes().to_vec().into(),
        };
        let genesis = Genesis {
            origin: ORIGIN.to_owned(),
            ledger_vkey: ledger_key().to_string(),
            ledger_source: Some(initial("ledger", &self.own)),
            governance: vec![initial("company", &self.company)],
            ..Genesis::default()
        };
        let change = ControlChange {
            kind: ControlKind::Genesis.into(),
            content: genesis.encode_to_vec().into(),
            ..ControlChange::default()
        };
        let body = Some(Body::ControlChange(change));
        Event { event_id: vec![0; 16].into(), body, ..Event::default() }.encode_to_vec()
    }
}

/// Commits one batch a group, with chain and tree as the writer does.
fn append(opened: &mut Opened, key: &Signer, first_seq: u64, events: &[Vec<u8>]) {
    let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
    let source = Name::parse(key.verifier().name().as_bytes()).unwrap();
    let batch = Batch { source, first_seq, digests: &digests };
    let seal = batch.seal(ORIGIN, key).unwrap();
    let Opened { log, tree, frontier, link, .. } = opened;
    let (mut group, mut events) = (log.group(), events.iter());
    link.extend(&batch, link.recorded_at + 1, seal, |entry, leaf| {
        group.push(entry, events.next().unwrap());
        frontier.append(leaf);
    })
    .unwrap();
    let _durable = log.commit(group).unwrap();
    tree.append(frontier).unwrap();
    frontier.forget();
}

fn event(number: u64) -> Vec<u8> {
    let event_id = u128::from(number).to_be_bytes().to_vec().into();
    // 16 bytes of id and 5 of lengths and tags leave this much.
    let correlation_id = "x".repeat(EVENT_BYTES - 16 - 5);
    Event { event_id, correlation_id, ..Event::default() }.encode_to_vec()
}

fn commit(criterion: &mut Criterion) {
    const BATCHES: u64 = 16;
    let mut entries = Vec::new();
    let mut link = Link::GENESIS;
    let events: Vec<_> = (0..BATCH * BATCHES).map(event).collect();
    assert_eq!(events[0].len(), EVENT_BYTES);
    let digests: Vec<_> = events.iter().map(|event| sha256(event)).collect();
    let key = Signer::new("payments", KeyType::Ed25519, [1; 32]).unwrap();
    let source = Name::parse(b"payments").unwrap();
    for digests in digests.chunks(256) {
        let batch = Batch { source, first_seq: link.size.0 + 1, digests };
        let seal = batch.seal(ORIGIN, &key).unwrap();
        link.extend(&batch, 1, seal, |entry, _| entries.push(entry.to_vec())).unwrap();
    }

    let mut group = criterion.benchmark_group("storage/commit");
    group.throughput(Throughput::Elements(BATCH * BATCHES));
    for is_synced in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> =
            if is_synced { Arc::new(RealDisk) } else { Arc::new(Unsynced(RealDisk)) };
        // One segment that never fills, so that the tree need not keep up.
        let segment_bytes = Options::SEGMENT_BYTES_MAX;
        let options = Options { segment_bytes, ..Options::new(folder.path(), ORIGIN) };
        let open = || storage::open(disk.clone(), &options, None).unwrap();
        let mut opened = open();
        let id = format!("fsync={is_synced}/batches={BATCHES}/batch={BATCH}/bytes={EVENT_BYTES}");
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                if opened.reader.size().0 > 1_000_000 {
                    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
                    opened = open();
                }
                let mut frames = opened.log.group();
                for (entry, event) in entries.iter().zip(&events) {
                    frames.push(entry, event);
                }
                black_box(opened.log.commit(frames).unwrap())
            });
        });
    }
    group.bench_function(format!("encode only/bytes={EVENT_BYTES}"), |bencher| {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path(), ORIGIN);
        let mut opened = storage::open(Arc::new(RealDisk), &options, None).unwrap();
        bencher.iter(|| {
            let mut frames = opened.log.group();
            for (entry, event) in entries.iter().zip(&events) {
                frames.push(entry, event);
            }
            frames.bytes()
        });
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    const ENTRIES: u64 = 65_536;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(Arc::new(Unsynced(RealDisk)), folder.path());
    ledger.fill(ENTRIES);
    let reader = ledger.opened.reader;
    let mut group = criterion.benchmark_group("storage/read");
    group.sample_size(20).throughput(Throughput::Elements(ENTRIES));
    group.bench_function(format!("events=true/entries={ENTRIES}/bytes={EVENT_BYTES}"), |bencher| {
        bencher.iter(|| {
            let mut next = Index(0);
            while next.0 < ENTRIES {
                let records = reader.read(next, usize::MAX, 512 << 10).unwrap();
                next = next.plus(count_of(black_box(records).len()));
            }
        });
    });
    group.bench_function(
        format!("events=false/entries={ENTRIES}/bytes={EVENT_BYTES}"),
        |bencher| {
            bencher.iter(|| {
                let mut next = Index(0);
                while next.0 < ENTRIES {
                    let entries = reader.read_entries(next, usize::MAX, 512 << 10).unwrap();
                    next = next.plus(count_of(black_box(entries).len()));
                }
            });
        },
    );
    group.bench_function("one/events=true", |bencher| {
        let mut index = 0;
        bencher.iter(|| {
            index = (index + 40_503) % ENTRIES;
            black_box(reader.read(Index(index), 1, 1).unwrap())
        });
    });
    group.finish();
}

fn check_and_open(criterion: &mut Criterion) {
    const ENTRIES: u64 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(Arc::new(Unsynced(RealDisk)), folder.path());
    ledger.fill(ENTRIES);
    let size = ledger.opened.reader.size();
    let checkpoint = Some((size, ledger.opened.frontier.root()));
    drop(ledger);
    let options = Options::new(folder.path(), ORIGIN);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let ledger = ledger_key();

    let mut group = criterion.benchmark_group("storage/check");
    group.sample_size(10).throughput(Throughput::Elements(size.0));
    group.bench_function(format!("batch={BATCH}/bytes={EVENT_BYTES}"), |bencher| {
        bencher.iter(|| {
            let report = check(&disk, &options, &ledger, checkpoint, &|_| {}).unwrap();
            assert!(report.problem.is_none() && report.size == size, "{report:?}");
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("storage/open");
    group.sample_size(10);
    group.bench_function(format!("entries={ENTRIES}"), |bencher| {
        bencher.iter(|| storage::open(disk.clone(), &options, checkpoint).unwrap().link);
    });
    group.finish();
}

criterion_group!(benches, commit, read, check_and_open);
criterion_main!(benches);
