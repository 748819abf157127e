//! The spool on a simulated disk that crashes at every operation, and on a real one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use access_ledger_proto::hash::sha256;

use super::{files::Folder, *};

/// A disk that keeps what was synced, and of the rest what chance leaves.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Contents>,
    /// Names as they are on the medium.
    names: BTreeMap<String, Contents>,
    operations: usize,
    /// The operation that fails, half done, and all after it.
    crash_at: Option<usize>,
    /// A sync that fails writes nothing down, and takes it for written all the same, as Linux does.
    forgets: bool,
}

/// A file. What is written from `dirty` on is what a sync would write down.
#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// What is on the medium.
    synced: Vec<u8>,
    dirty: usize,
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

impl Disk {
    /// Counts an operation; `Err` once the disk has crashed. The crashing one may have had its
    /// effect.
    fn run<T>(&self, operation: impl Fn(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        let crashed = || io::Error::other("crash");
        match state.crash_at {
            Some(at) if state.operations > at => Err(crashed()),
            Some(at) if state.operations == at => operation(&mut state).and(Err(crashed())),
            _ => operation(&mut state),
        }
    }

    /// What is on the medium after the power was gone.
    fn after_crash(&self, chance: &mut Chance) -> Self {
        let state = self.0.lock().unwrap();
        let mut files = BTreeMap::new();
        let names = state.names.keys().chain(state.files.keys());
        for name in names {
            let known = (state.names.contains_key(name), state.files.contains_key(name));
            if known != (true, true) && chance.below(2) == 0 {
                continue;
            }
            let contents = state.files.get(name).or_else(|| state.names.get(name)).unwrap();
            let bytes = contents.after_crash(chance);
            let dirty = bytes.len();
            files.insert(name.clone(), Contents { synced: bytes.clone(), bytes, dirty });
        }
        let state = State { names: files.clone(), files, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn set_crash(&self, at: Option<usize>) {
        let mut state = self.0.lock().unwrap();
        (state.operations, state.crash_at) = (0, at);
    }

    fn only_file(&self) -> (String, Contents) {
        let state = self.0.lock().unwrap();
        let (name, contents) = state.files.first_key_value().unwrap();
        (name.clone(), contents.clone())
    }

    fn total_bytes(&self) -> usize {
        self.0.lock().unwrap().files.values().map(|file| file.bytes.len()).sum()
    }
}

impl State {
    fn fails_to_sync(&self) -> bool {
        self.forgets && self.crash_at == Some(self.operations)
    }
}

impl Contents {
    /// Any part of what was not synced may have reached the medium.
    fn after_crash(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let longer = self.bytes.len().saturating_sub(bytes.len());
        bytes.resize(bytes.len() + chance.below(longer + 1), 0);
        for (at, byte) in bytes.iter_mut().enumerate().skip(self.dirty) {
            if let Some(written) = self.bytes.get(at)
                && chance.below(40) > 0
            {
                *byte = *written;
            }
        }
        bytes
    }

    /// Makes durable what is believed not to be.
    fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        self.synced[self.dirty..].copy_from_slice(&self.bytes[self.dirty..]);
        self.dirty = self.bytes.len();
    }
}

fn file<'a>(state: &'a mut State, name: &str) -> io::Result<&'a mut Contents> {
    state.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Files for Disk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        self.run(|state| Ok(state.files.keys().cloned().collect()))
    }

    fn len(&mut self, name: &str) -> io::Result<u64> {
        self.run(|state| Ok(file(state, name)?.bytes.len() as u64))
    }

    fn read(&mut self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.run(|state| {
            let bytes = &file(state, name)?.bytes;
            let start = usize::try_from(offset).unwrap().min(bytes.len());
            Ok(bytes[start..bytes.len().min(start + len)].to_vec())
        })
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.run(|state| {
            assert!(state.files.insert(name.to_owned(), Contents::default()).is_none());
            Ok(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.run(|state| {
            file(state, name)?.bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.run(|state| {
            let contents = file(state, name)?;
            let start = usize::try_from(offset).unwrap();
            assert_eq!(contents.bytes[start..], *bytes, "what was read is written again");
            contents.dirty = contents.dirty.min(start);
            Ok(())
        })
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.run(|state| {
            let contents = file(state, name)?;
            contents.bytes.truncate(usize::try_from(len).unwrap());
            contents.dirty = contents.dirty.min(contents.bytes.len());
            Ok(())
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.run(|state| {
            let fails = state.fails_to_sync();
            let contents = file(state, name)?;
            if fails {
                contents.dirty = contents.bytes.len();
                return Ok(());
            }
            contents.sync();
            let contents = contents.clone();
            if let Some(named) = state.names.get_mut(name) {
                *named = contents;
            }
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.run(|state| {
            state.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.run(|state| {
            if !state.fails_to_sync() {
                state.names.clone_from(&state.files);
            }
            Ok(())
        })
    }
}

fn owner() -> Owner {
    Owner { origin: "ledger.example".into(), source: "payments".into(), key_id: KeyId([7; 4]) }
}

fn event(seq: u64) -> Numbered {
    let len = usize::try_from(seq % 90).unwrap() + 1;
    let event = Bytes::from(seq.to_be_bytes().repeat(len));
    Numbered { seq, digest: sha256(&event), event }
}

fn events(numbers: impl Iterator<Item = u64>) -> Vec<Numbered> {
    numbers.map(event).collect()
}

fn open<F: Files>(files: F) -> Result<(Spool<F>, Vec<usize>), SpoolError> {
    Spool::open(files, owner(), 3_000)
}

fn read_all<F: Files>(spool: &mut Spool<F>) -> Result<Vec<Numbered>, SpoolError> {
    let mut all = Vec::new();
    while spool.has_unread() {
        all.extend(spool.read()?);
    }
    Ok(all)
}

/// What a recorder was told.
#[derive(Debug, Default)]
struct Model {
    synced: u64,
    tried: u64,
    acknowledged: u64,
}

/// Opens, checks that nothing is lost or doubled, and works on until the disk crashes.
fn work(disk: &Disk, model: &mut Model, chance: &mut Chance) -> Result<(), SpoolError> {
    let (mut spool, costs) = open(disk.clone())?;
    assert!((model.synced..=model.tried).contains(&spool.last()), "{model:?} {spool:?}");
    assert!(spool.acknowledged() <= model.acknowledged, "{model:?}");
    let waiting = read_all(&mut spool)?;
    assert_eq!(waiting, events(spool.acknowledged() + 1..=spool.last()));
    let wanted: Vec<_> = waiting.iter().map(|event| event_cost(event.event.len())).collect();
    assert_eq!(costs, wanted);
    model.synced = spool.last();
    for _ in 0..12 {
        match chance.below(4) {
            0 => {
                let ahead = chance.next() % (model.synced - model.acknowledged + 1);
                model.acknowledged += ahead;
                spool.acknowledge(model.acknowledged)?;
            }
            1 if spool.owes_mark() => spool.mark()?,
            _ => {
                let first = model.synced + 1;
                let last = model.synced + 1 + chance.next() % 6;
                model.tried = last;
                let caught_up = !spool.has_unread();
                spool.append(&events(first..=last))?;
                model.synced = last;
                if caught_up && chance.below(2) == 0 {
                    spool.skip_unread();
                }
            }
        }
        if chance.below(3) == 0 {
            let unread = read_all(&mut spool)?;
            assert!(unread.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
            assert!(unread.iter().all(|found| *found == event(found.seq)));
        }
    }
    Ok(())
}

#[test]
fn what_was_synced_survives_a_crash_at_any_operation() {
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut disk = Disk::default();
        let mut model = Model::default();
        // Every operation of several lives, one life after the other.
        for crash_at in 1..120 {
            disk.set_crash(Some(crash_at));
            disk.0.lock().unwrap().forgets = chance.below(2) == 0;
            match work(&disk, &mut model, &mut chance) {
                Ok(()) => {}
                // The process was killed: what it wrote is there, synced or not.
                Err(SpoolError::Io(_)) if chance.below(3) == 0 => {}
                Err(SpoolError::Io(_)) => disk = disk.after_crash(&mut chance),
                Err(error) => panic!("seed {seed}, crash at {crash_at}: {error}"),
            }
        }
    }
}

#[test]
fn what_a_killed_process_did_not_sync_is_synced_before_more_follows() {
    // The sync of a first frame, of the names, and of another frame.
    for (operation, frames) in [(3, 1), (4, 1), (6, 2)] {
        for seed in 0..40 {
            let mut chance = Chance(seed);
            let disk = Disk::default();
            let (mut spool, _) = open(disk.clone()).unwrap();
            disk.set_crash(Some(operation));
            disk.0.lock().unwrap().forgets = true;
            let appended = (1..=frames).try_for_each(|seq| spool.append(&[event(seq)]));
            assert!(appended.is_err(), "operation {operation}");
            drop(spool);
            // The bytes are there for whoever reads them, and so they count.
            disk.set_crash(None);
            let (spool, _) = open(disk.clone()).unwrap();
            assert_eq!(spool.last(), frames);
            let (mut spool, _) = open(disk.after_crash(&mut chance)).unwrap();
            assert_eq!(read_all(&mut spool).unwrap(), events(1..=frames), "seed {seed}");
        }
    }
}

#[test]
fn acknowledged_files_are_deleted_and_the_last_number_is_kept() {
    let disk = Disk::default();
    let (mut spool, _) = open(disk.clone()).unwrap();
    for seq in 1..=2_000 {
        spool.append(&[event(seq)]).unwrap();
        spool.acknowledge(seq - 1).unwrap();
        assert!(disk.total_bytes() < 9_000);
    }
    spool.acknowledge(2_000).unwrap();
    assert!(spool.owes_mark());
    spool.mark().unwrap();
    let (mut spool, costs) = open(disk).unwrap();
    assert_eq!((spool.last(), spool.acknowledged()), (2_000, 2_000));
    assert!(costs.is_empty() && read_all(&mut spool).unwrap().is_empty());
}

#[test]
fn lost_numbers_are_skipped_and_stay_skipped() {
    let disk = Disk::default();
    let (mut spool, _) = open(disk.clone()).unwrap();
    spool.append(&events(1..=3)).unwrap();
    spool.skip_numbers(9);
    drop(spool);
    // Until the next event is on disk, the loss is not known to have been declared.
    let (mut spool, _) = open(disk.clone()).unwrap();
    assert_eq!(spool.last(), 3);
    spool.skip_numbers(9);
    spool.append(&events(10..=11)).unwrap();
    let (mut spool, _) = open(disk.clone()).unwrap();
    assert_eq!(read_all(&mut spool).unwrap(), events([1, 2, 3, 10, 11].into_iter()));
    spool.acknowledge(3).unwrap();
    drop(spool);
    let (spool, costs) = open(disk).unwrap();
    assert_eq!((spool.acknowledged(), spool.last(), costs.len()), (9, 11, 2));
}

#[test]
fn damage_before_the_end_is_told_with_file_and_offset_and_never_cut() {
    let disk = Disk::default();
    let (mut spool, _) = open(disk.clone()).unwrap();
    let mut ends = Vec::new();
    for seq in 1..=8 {
        spool.append(&[event(seq)]).unwrap();
        ends.push(disk.total_bytes());
    }
    let (name, whole) = disk.only_file();
    for at in 8..ends[6] {
        disk.0.lock().unwrap().files.get_mut(&name).unwrap().bytes[at] ^= 0x10;
        let frame = ends.iter().rev().find(|&&end| end <= at).copied().unwrap_or(8);
        match open(disk.clone()) {
            Err(SpoolError::Damaged { file, offset, .. }) => {
                assert_eq!((file, offset), (name.clone(), frame as u64));
            }
            other => panic!("byte {at}: {other:?}"),
        }
        disk.0.lock().unwrap().files.insert(name.clone(), whole.clone());
    }
    // In the last frame the same is a torn end.
    disk.0.lock().unwrap().files.get_mut(&name).unwrap().bytes[ends[6] + 9] ^= 0x10;
    assert_eq!(open(disk).unwrap().0.last(), 7);
}

#[test]
fn an_event_cannot_pass_for_a_frame() {
    let disk = Disk::default();
    let (mut spool, _) = open(disk.clone()).unwrap();
    spool.append(&events(1..=1)).unwrap();
    let ends_at = disk.total_bytes();
    let mut forged = Vec::new();
    frame::encode(0, 2, None, &events(2..=2), 0, &mut forged);
    let forged = Bytes::from(forged);
    spool.append(&[Numbered { seq: 2, digest: sha256(&forged), event: forged.clone() }]).unwrap();
    // A crash damages the frame around the event, and leaves the event as it is.
    let (name, contents) = disk.only_file();
    disk.0.lock().unwrap().files.get_mut(&name).unwrap().bytes[ends_at + 5] ^= 1;
    assert!(contents.bytes.ends_with(&forged));
    assert_eq!(open(disk).unwrap().0.last(), 1);
}

#[test]
fn a_frame_that_was_synced_and_cannot_be_is_told_and_never_cut() {
    // Receipts of itself; another number than the next; and as if a file began.
    let head = Head { after: 0, owner: owner() };
    for (acknowledged, first, head) in
        [(2, 2, None), (u64::MAX, 2, None), (0, 3, None), (0, 2, Some(&head))]
    {
        let disk = Disk::default();
        let (mut spool, _) = open(disk.clone()).unwrap();
        spool.append(&events(1..=1)).unwrap();
        let (name, mut whole) = disk.only_file();
        let (salt, offset) = (parse_name(&name).unwrap().1, whole.bytes.len() as u64);
        frame::encode(acknowledged, first, head, &events(first..=first), salt, &mut whole.bytes);
        disk.0.lock().unwrap().files.insert(name.clone(), whole.clone());
        match open(disk.clone()) {
            Err(SpoolError::Damaged { file, offset: at, .. }) => {
                assert_eq!((file, at), (name, offset));
            }
            other => panic!("receipts to {acknowledged} in frame {first}: {other:?}"),
        }
        assert_eq!(disk.only_file().1.bytes, whole.bytes);
    }
}

#[test]
fn a_spool_of_another_source_is_refused() {
    let disk = Disk::default();
    open(disk.clone()).unwrap().0.append(&events(1..=1)).unwrap();
    for other in [
        Owner { origin: "elsewhere".into(), ..owner() },
        Owner { source: "search".into(), ..owner() },
    ] {
        let refused = Spool::open(disk.clone(), other, 3_000);
        assert!(matches!(refused, Err(SpoolError::Foreign { .. })));
    }
    // Governance gave the source another key: what waits is sealed with that.
    let rekeyed = Owner { key_id: KeyId([8; 4]), ..owner() };
    let (mut spool, _) = Spool::open(disk.clone(), rekeyed, 3_000).unwrap();
    assert_eq!(spool.last(), 1);
    spool.append(&events(2..=2)).unwrap();
    drop(spool);
    assert_eq!(open(disk).unwrap().0.last(), 2);
}

#[test]
fn a_folder_is_locked_private_and_holds_what_was_written() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let (mut spool, _) = open(Folder::open(&path).unwrap()).unwrap();
    assert!(matches!(Folder::open(&path), Err(SpoolError::Locked { .. })));
    for first in (1..200).step_by(10) {
        spool.append(&events(first..first + 10)).unwrap();
    }
    spool.acknowledge(85).unwrap();
    drop(spool);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (mut spool, _) = open(Folder::open(&path).unwrap()).unwrap();
    let known = spool.acknowledged();
    assert!((1..=85).contains(&known), "{known}");
    assert_eq!(read_all(&mut spool).unwrap(), events(known + 1..=200));
}
