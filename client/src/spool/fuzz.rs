//! What a fuzzer reaches of the spool: one file of any bytes, in memory.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use access_ledger_proto::{
    hash::sha256,
    note::{Signer, VerifierKey},
};

use super::{Numbered, Owner, Spool, files::Files};

/// Files in memory, by name. Clones are the same files.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.lock().get_mut(name).map(use_it).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for Memory {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn len(&mut self, name: &str) -> io::Result<u64> {
        self.with(name, |bytes| bytes.len() as u64)
    }

    fn read(&mut self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.with(name, |bytes| {
            let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
            let rest = rest.unwrap_or_default();
            rest.get(..len).unwrap_or(rest).to_vec()
        })
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.lock().insert(name.to_owned(), Vec::new());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |file| file.extend_from_slice(bytes))
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |file| {
            let from = usize::try_from(offset).ok().and_then(|offset| file.get_mut(offset..));
            let there = from.and_then(|rest| rest.get_mut(..bytes.len()));
            there.map(|there| there.copy_from_slice(bytes)).ok_or(ErrorKind::InvalidInput)
        })?
        .map_err(io::Error::from)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.with(name, |file| file.truncate(usize::try_from(len).unwrap_or(usize::MAX)))
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lock().remove(name);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn group(first: u64, events: &[&'static [u8]]) -> Vec<Numbered> {
    let events = (first..).zip(events);
    let numbered =
        events.map(|(seq, event)| Numbered { seq, digest: sha256(event), event: (*event).into() });
    numbered.collect()
}

/// The salt of a spool file (4 bytes) and its content, as [`open`] takes them.
///
/// # Panics
///
/// When the spool does not take two small groups.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests and fuzzers alone")]
pub fn sample(key: &Signer, ledger: &VerifierKey) -> Vec<u8> {
    let files = Memory::default();
    let opened = Spool::open(files.clone(), Owner::new(key, ledger), u64::MAX);
    let (mut spool, _) = opened.expect("no files are no damage");
    spool.append(&group(1, &[b"one", b"two"])).expect("memory has space");
    spool.append(&group(3, &[b"three"])).expect("memory has space");
    let (name, content) = files.lock().pop_first().expect("a file was made");
    let (_, salt) = super::parse_name(&name).expect("the name is the spool's own");
    [&salt.to_be_bytes()[..], &content].concat()
}

/// Opens a spool whose only file has this salt and content; whether it was taken. What is taken
/// reads back in order, takes more, and opens the same way again.
///
/// # Panics
///
/// When one of that is not so.
#[must_use]
#[expect(clippy::expect_used, reason = "a panic is what the fuzzer looks for")]
pub fn open(key: &Signer, ledger: &VerifierKey, bytes: &[u8]) -> bool {
    let Some((salt, content)) = bytes.split_first_chunk() else { return false };
    let files = Memory::default();
    let name = format!("{:020}-{:08x}{}", 1, u32::from_be_bytes(*salt), super::files::SUFFIX);
    files.lock().insert(name, content.to_vec());
    let reopen = || Spool::open(files.clone(), Owner::new(key, ledger), u64::MAX);
    let Ok((mut spool, _)) = reopen() else { return false };
    let last = spool.last();
    assert!(spool.acknowledged() <= last, "receipts of what was never recorded");
    let mut next = spool.acknowledged() + 1;
    while spool.has_unread() {
        for event in spool.read().expect("what was walked reads back") {
            assert_eq!(event.seq, next, "numbers have no gaps");
            assert_eq!(event.digest, sha256(&event.event));
            next += 1;
        }
    }
    spool.append(&group(last + 1, &[b"more"])).expect("memory has space");
    drop(spool);
    let (spool, _) = reopen().expect("what was taken is taken again");
    assert_eq!(spool.last(), last + 1);
    last > 0
}
