//! Targets: files that are read back, and what a witness is sent.

use std::{
    cell::RefCell,
    path::Path,
    sync::{Arc, LazyLock},
};

use access_ledger_client::{
    folder as copy_of, spool_fuzz,
    verify::{LogVerifier, Record, Scope, digest},
    view::View,
};
use access_ledger_proto::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    hash::leaf_hash,
    hash::sha256,
    note::{KeyType, Signer},
    position::{Index, Size, count_of},
    segment::{FRAME_HEADER_LEN, Frame, Salt, SegmentHeader, State, Verify, encode_frame},
    witness::{AddCheckpoint, origin_hex},
};
use access_ledger_server::{
    check,
    folder::Folder,
    os::{Disk, SystemClock},
    storage::{self, Options},
    witness::{Keys, Witness, WitnessedLog},
};
use tempfile::TempDir;

use super::samples::{ORIGIN, SAMPLE, signer};
use crate::{
    disk::SimulatedDisk,
    history::{self, History},
};

thread_local! {
    /// For what only reads real files.
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

/// Calls `with` with the path of a real file of this content.
fn with_file<T>(name: &str, bytes: &[u8], with: impl FnOnce(&Path, &Path) -> T) -> T {
    FOLDER.with_borrow(|folder| {
        use std::io::Write as _;
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file each time: a file system that sees one cut and filled again flushes it.
        drop(std::fs::remove_file(&path));
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        with(folder.path(), &path)
    })
}

/// A simulated disk with one file.
pub(super) fn disk_with(path: &str, bytes: &[u8]) -> Arc<dyn Disk> {
    let disk = SimulatedDisk::new(1);
    disk.create(Path::new(path)).unwrap().write_at(bytes, 0).unwrap();
    Arc::new(disk)
}

const SALT: Salt = Salt(0x5a17);

const FIRST_SEGMENT: &str = "log/00000000000000000000.seg";

/// A short log, and its checkpoint.
static HISTORY: LazyLock<History> = LazyLock::new(|| History::new(1, 4, 200).unwrap());

pub(super) fn segments() -> Vec<Vec<u8>> {
    let origin = sha256(history::ORIGIN.as_bytes());
    let mut bytes = SegmentHeader { origin, first: Index(0), salt: SALT }.encode();
    for (entry, event) in &HISTORY.records {
        encode_frame(&mut bytes, SALT, 0, entry, (State::Present, event));
    }
    let prepared = [&bytes[..], &[0; 64]].concat();
    vec![bytes, prepared]
}

/// Any bytes as the only segment: it opens or is refused; what was opened is read, is checked, and
/// opens the same way again.
pub(super) fn segment(bytes: &[u8]) -> bool {
    let disk = disk_with(&format!("data/{FIRST_SEGMENT}"), bytes);
    let options = Options::new("data", history::ORIGIN);
    let Ok(opened) = storage::open(disk.clone(), &options, None) else { return false };
    let size = opened.reader.size();
    let mut next = Index(0);
    while size.contains(next) {
        let records = opened.reader.read(next, 16, 1 << 16).unwrap();
        for record in records {
            assert_eq!(Entry::parse(&record.entry).unwrap().index, next);
            next = next.next();
        }
    }
    assert_eq!((opened.link.size, opened.frontier.size()), (size, size));
    let root = opened.frontier.root();
    drop(opened);
    let ledger = history::ledger_key().unwrap();
    let report = check::check(&disk, &options, &ledger, None, &|_| {}).unwrap();
    assert!(!report.has_torn_tail && report.size <= size);
    // The rules of the log are the verifier's, not the storage's.
    assert!(report.problem.is_some() || report.size == size);
    let again = storage::open(disk, &options, Some((size, root))).unwrap();
    assert_eq!(again.reader.size(), size);
    size > Size::ZERO
}

/// The same bytes as an auditor's copy: read to the end or refused.
pub(super) fn copy(bytes: &[u8]) -> bool {
    let ledger = history::ledger_key().unwrap();
    with_file(FIRST_SEGMENT, bytes, |folder, _| {
        let end = HISTORY.size();
        let mut records = copy_of::Folder::new(folder, &ledger).records(end).unwrap();
        let mut verifier = LogVerifier::new(&ledger, Scope::Events);
        loop {
            match records.next_run() {
                Ok(Some((first, run))) => {
                    if verifier.take(digest(first, run, Scope::Events)).is_err() {
                        return false;
                    }
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        let holds = verifier.conclude().is_ok();
        // Nothing but the recorded history fits its own hashes.
        assert!(!holds || verifier.size() == end);
        holds
    })
}

pub(super) fn frames() -> Vec<Vec<u8>> {
    let framed = |(entry, event): &(Vec<u8>, Vec<u8>)| {
        let length = |bytes: &[u8]| count_of(bytes.len()).to_le_bytes();
        let [entry_len, event_len] =
            [length(entry), length(event)].map(|[low, high, ..]| [low, high]);
        [&entry_len[..], &event_len, entry, event].concat()
    };
    vec![HISTORY.records.iter().flat_map(framed).collect()]
}

/// Any entries and events in frames whose checksums hold, so that what lies behind the checksums
/// meets any bytes too: a frame comes back, and the log opens or is refused.
pub(super) fn frame(bytes: &[u8]) -> bool {
    let origin = sha256(history::ORIGIN.as_bytes());
    let mut segment = SegmentHeader { origin, first: Index(0), salt: SALT }.encode();
    let (mut rest, mut link) = (bytes, Link::GENESIS);
    while let Some((&[e0, e1, v0, v1], after)) = rest.split_first_chunk() {
        let entry_len = usize::from(u16::from_le_bytes([e0, e1]));
        let event_len = usize::from(u16::from_le_bytes([v0, v1]));
        let fits = (Entry::LEN_MIN..=Entry::LEN_MAX).contains(&entry_len)
            && event_len <= Entry::EVENT_LEN_MAX;
        let Some((entry, after)) = after.split_at_checked(entry_len).filter(|_| fits) else {
            break;
        };
        let Some((event, after)) = after.split_at_checked(event_len) else { break };
        let start = segment.len();
        encode_frame(&mut segment, SALT, 0, entry, (State::Present, event));
        let (frame, length) = Frame::parse(&segment[start..], SALT, Verify::All).unwrap();
        assert_eq!(length, FRAME_HEADER_LEN + entry_len + event_len);
        assert_eq!((frame.entry, frame.event()), (entry, Some(event)));
        if let Ok(entry) = Entry::parse(entry) {
            let leaf = leaf_hash(frame.entry);
            let _continues = link.check(&entry, leaf);
        }
        rest = after;
    }
    self::segment(&segment)
}

pub(super) fn metas() -> Vec<Vec<u8>> {
    vec![b"format_version = 1\norigin = \"ledger.example/x\"\n".to_vec()]
}

/// The name of a ledger is a name or refused.
pub(super) fn meta(bytes: &[u8]) -> bool {
    let disk = disk_with("data/meta.toml", bytes);
    matches!(Folder::new("data").origin(&*disk), Ok(Some(_)))
}

static VIEW: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let ledger = history::ledger_key().unwrap();
    let mut verifier = LogVerifier::new(&ledger, Scope::Events);
    let record = |(entry, event): &(Vec<u8>, Vec<u8>)| Record {
        entry: entry.clone().into(),
        event: Some(event.clone().into()),
    };
    let records = HISTORY.records.iter().map(record).collect();
    verifier.take(digest(Index(0), records, Scope::Events)).unwrap();
    verifier.conclude().unwrap();
    let state = verifier.save();
    let note = history::checkpoint(&HISTORY, HISTORY.size()).unwrap();
    let checkpoint = VerifiedCheckpoint::open(note.as_bytes(), &ledger, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    View::open(&path, &ledger).unwrap().pin(checkpoint, state).unwrap();
    std::fs::read(path).unwrap()
});

pub(super) fn views() -> Vec<Vec<u8>> {
    vec![VIEW.clone()]
}

/// A pinned view opens or is refused, and a verifier goes on from it or says why not.
pub(super) fn view(bytes: &[u8]) -> bool {
    let ledger = history::ledger_key().unwrap();
    with_file("view.json", bytes, |_, path| {
        let Ok(view) = View::open(path, &ledger) else { return false };
        let Some(pinned) = view.pinned() else { return false };
        LogVerifier::restore(&ledger, &pinned.checkpoint, &pinned.state).is_ok()
    })
}

/// The source and the ledger whose spool is opened.
fn spool_owner() -> (Signer, Signer) {
    (signer("service", 2), signer(ORIGIN, 1))
}

pub(super) fn spools() -> Vec<Vec<u8>> {
    let (key, ledger) = spool_owner();
    vec![spool_fuzz::sample(&key, ledger.verifier())]
}

pub(super) fn spool(bytes: &[u8]) -> bool {
    let (key, ledger) = spool_owner();
    spool_fuzz::open(&key, ledger.verifier(), bytes)
}

fn witness_of_sample() -> Witness {
    let key = |name, seed| Signer::new(name, KeyType::CosignatureV1, [seed; 32]).unwrap();
    let keys = Keys { witness: key("w.example", 21), mirror: key("w.example/mirror", 22) };
    let log = WitnessedLog::other(SAMPLE.ledger.verifier().clone());
    let disk = Arc::new(SimulatedDisk::new(1));
    Witness::open(disk, Arc::new(SystemClock), Path::new("data"), keys, vec![log]).unwrap()
}

pub(super) fn witness_bodies() -> Vec<Vec<u8>> {
    vec![format!("old 0\n\n{}", SAMPLE.proof.checkpoint).into_bytes()]
}

/// A witness that saw nothing signs only what the log signed, and what it signed stays.
pub(super) fn witness_body(bytes: &[u8]) -> bool {
    let witness = witness_of_sample();
    let Ok(lines) = witness.add_checkpoint(bytes) else { return false };
    assert!(!lines.is_empty());
    let origin = origin_hex(SAMPLE.ledger.name());
    let newest = witness.newest(&origin).unwrap();
    let keys = witness.vkeys().map(Clone::clone);
    let opened =
        VerifiedCheckpoint::open(newest.as_bytes(), SAMPLE.ledger.verifier(), &keys).unwrap();
    let signed = SAMPLE.proof.checkpoint.as_bytes();
    let signed = VerifiedCheckpoint::open(signed, SAMPLE.ledger.verifier(), &[]).unwrap();
    assert_eq!(opened.checkpoint(), signed.checkpoint());
    assert_eq!(opened.cosignatures().len(), 1);
    true
}

pub(super) fn additions() -> Vec<Vec<u8>> {
    let note = format!("{ORIGIN}\n7\n\n").into_bytes();
    let proof: Vec<_> = (0..5).map(|leaf| leaf_hash(&[leaf])).collect();
    let body = |old, hashes: usize| {
        let proof = proof[..hashes].to_vec();
        AddCheckpoint { old: Size(old), proof, note: &note }.to_bytes()
    };
    [(0, 0), (7, 5), (u64::MAX, 1)].map(|(old, hashes)| body(old, hashes)).into()
}

/// Calls to a witness come back or are refused.
pub(super) fn add_checkpoint(bytes: &[u8]) -> bool {
    let Ok(add) = AddCheckpoint::parse(bytes) else { return false };
    assert_eq!(add.to_bytes(), bytes);
    assert!(add.proof.len() <= AddCheckpoint::PROOF_MAX);
    true
}
