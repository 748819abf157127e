//! The keys of a ledger in its folder.
//!
//! The ledger's key may change: governance says so in the log, and the log alone decides which key
//! signs. The folder only holds them. `ledger.key` is the first; `ledger.next.key` is made for a
//! change that is about to be proposed, and gets the name `ledger-<key id>.key` once the change is
//! recorded. Former keys go on signing beside the newest for as long as their files are here.
//!
//! The key of the ledger's own source changes in the same way (`source.key`, `source.next.key`,
//! `source-<key id>.key`), but only the one in force seals: the files of former ones may go.

use std::{
    io,
    path::{Path, PathBuf},
};

use access_ledger_client::keyfile;
use access_ledger_proto::note::{KeyId, KeyType, Signer, VerifierKey};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{Folder, LEDGER_SOURCE, TEXT_BYTES_MAX, malformed};
use crate::{
    error::LedgerError,
    os::{self, Disk},
};

/// What a key of the ledger is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Signs checkpoints.
    Ledger,
    /// Seals what the ledger itself records.
    Source,
}

/// The keys that a running ledger holds.
#[derive(Debug)]
pub struct Keys {
    /// Signs checkpoints; its name is the origin. The oldest one that is here.
    pub ledger: Signer,
    /// Sign checkpoints too, from the entry on that brings them into force.
    pub later: Vec<Signer>,
    /// Seals what the ledger itself records. The oldest one that is here.
    pub source: Signer,
    /// Seal instead of it, from the entry on that brings them into force.
    pub later_sources: Vec<Signer>,
}

impl Keys {
    /// All keys that sign checkpoints, or will.
    pub fn of_ledger(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.ledger).chain(&self.later)
    }

    /// All keys that seal for the ledger's own source, did, or will.
    pub fn of_source(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.source).chain(&self.later_sources)
    }
}

impl Folder {
    /// The files of the keys that a running ledger holds, as far as they are there.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`].
    pub(crate) fn own_keys(&self, disk: &dyn Disk) -> Result<Vec<PathBuf>, LedgerError> {
        let files = [Purpose::Ledger, Purpose::Source].map(|purpose| self.key_files(disk, purpose));
        Ok(files.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Reads the keys of a running ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] when one is missing or malformed; [`LedgerError::ForeignKey`] when two
    /// are of different ledgers.
    pub fn open_keys(&self, disk: &dyn Disk) -> Result<Keys, LedgerError> {
        let open = |purpose: Purpose| {
            let mut signers = self.signers(disk, purpose)?.into_iter();
            let missing = || malformed(&self.keys().join(purpose.first()), "missing");
            let first = signers.next().ok_or_else(missing)?;
            Ok::<_, LedgerError>((first, signers.collect::<Vec<_>>()))
        };
        let ((ledger, later), (source, later_sources)) =
            (open(Purpose::Ledger)?, open(Purpose::Source)?);
        if let Some(foreign) = later.iter().find(|key| key.name() != ledger.name()) {
            let (key, origin) = (foreign.name().to_owned(), ledger.name().to_owned());
            return Err(LedgerError::ForeignKey { key, origin });
        }
        Ok(Keys { ledger, later, source, later_sources })
    }

    /// Reads the keys, and makes those that are missing.
    pub(crate) fn make_keys(&self, disk: &dyn Disk, origin: &str) -> Result<Keys, LedgerError> {
        let make = |purpose: Purpose, name| {
            self.make_key(disk, &purpose.first(), (name, KeyType::Ed25519))
        };
        let ledger = make(Purpose::Ledger, origin)?;
        let source = make(Purpose::Source, LEDGER_SOURCE)?;
        Ok(Keys { ledger, later: Vec::new(), source, later_sources: Vec::new() })
    }

    /// The key that waits to take the place of the ledger's, or of its own source's; makes it if
    /// there is none. Nothing is signed with it before the log has it.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`], and [`LedgerError::Uninitialised`].
    pub fn next_key(&self, disk: &dyn Disk, purpose: Purpose) -> Result<Signer, LedgerError> {
        let origin = self.origin(disk)?.ok_or_else(|| self.uninitialised())?;
        let name = match purpose {
            Purpose::Ledger => origin.as_str(),
            Purpose::Source => LEDGER_SOURCE,
        };
        self.make_key(disk, &purpose.next(), (name, KeyType::Ed25519))
    }

    /// Gives the key that waited its own name, if it is in force: then another one can be made to
    /// wait. A stop in between changes nothing.
    pub(crate) fn settle_next_key(
        &self,
        disk: &dyn Disk,
        purpose: Purpose,
        is_in_force: impl Fn(&VerifierKey) -> bool,
    ) {
        let path = self.keys().join(purpose.next());
        let next = match read_key(disk, &path) {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(failure) => return warn!(%failure, "could not read the key that waits"),
        };
        if !is_in_force(next.verifier()) {
            return;
        }
        let settled = self.keys().join(purpose.settled(next.verifier().id()));
        let renamed = disk.rename(&path, &settled).and_then(|()| disk.sync_dir(&self.keys()));
        match renamed {
            Ok(()) => info!(key = %settled.display(), "took up the next key"),
            Err(failure) => warn!(%failure, "could not rename the next key"),
        }
    }

    /// The keys that sign or seal, or will, the oldest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] for a file that is no key; [`LedgerError::Io`].
    pub(crate) fn signers(
        &self,
        disk: &dyn Disk,
        purpose: Purpose,
    ) -> Result<Vec<Signer>, LedgerError> {
        let files = self.key_files(disk, purpose)?;
        let read = |path: &PathBuf| read_key(disk, path).transpose();
        files.iter().filter_map(read).collect()
    }

    fn key_files(&self, disk: &dyn Disk, purpose: Purpose) -> Result<Vec<PathBuf>, LedgerError> {
        let folder = self.keys();
        let names = match disk.list(&folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LedgerError::io(&folder, source)),
        };
        let names = names.iter().filter_map(|name| name.to_str());
        let mut found: Vec<_> = names.filter_map(|name| Some((purpose.age(name)?, name))).collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, name)| folder.join(name)).collect())
    }

    pub(super) fn make_key(
        &self,
        disk: &dyn Disk,
        file: &str,
        (name, key_type): (&str, KeyType),
    ) -> Result<Signer, LedgerError> {
        let folder = self.keys();
        let path = folder.join(file);
        if let Some(key) = read_key(disk, &path)? {
            return Ok(key);
        }
        let key = new_key(name, key_type).map_err(|problem| malformed(&path, problem))?;
        let text = keyfile::text(&key).map_err(|error| malformed(&path, error))?;
        disk.create_dir(&folder)
            .and_then(|()| os::replace(disk, &path, text.as_bytes()))
            .map_err(|source| LedgerError::io(&path, source))?;
        Ok(key)
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
}

/// A new key of this name.
pub(super) fn new_key(name: &str, key_type: KeyType) -> Result<Signer, String> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| error.to_string())?;
    Signer::new(name, key_type, *seed).map_err(|error| error.to_string())
}

/// Reads the private key in a file, which only its owner may read.
///
/// # Errors
///
/// [`LedgerError::Io`], [`LedgerError::File`].
pub fn read_signer(disk: &dyn Disk, path: &Path) -> Result<Signer, LedgerError> {
    read_key(disk, path)?.ok_or_else(|| malformed(path, "missing"))
}

pub(super) fn read_key(disk: &dyn Disk, path: &Path) -> Result<Option<Signer>, LedgerError> {
    let text = match os::read_secret(disk, path, TEXT_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::io(path, source)),
    };
    let text = std::str::from_utf8(&text).map_err(|error| malformed(path, error))?;
    keyfile::parse(text).map(Some).map_err(|error| malformed(path, error))
}

impl Purpose {
    const fn stem(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Source => "source",
        }
    }

    /// The file of the first key.
    fn first(self) -> String {
        format!("{}.key", self.stem())
    }

    /// The file of the key that waits.
    fn next(self) -> String {
        format!("{}.next.key", self.stem())
    }

    /// The file of a key that waited.
    fn settled(self, id: KeyId) -> String {
        format!("{}-{id}.key", self.stem())
    }

    /// Orders these files by the age of their keys; `None` for any other file.
    fn age(self, file: &str) -> Option<u8> {
        match file.strip_prefix(self.stem())?.strip_suffix(".key")? {
            "" => Some(0),
            ".next" => Some(2),
            id => id.starts_with('-').then_some(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::real_disk;

    #[test]
    fn the_next_key_waits_until_the_log_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, folder) = (real_disk(), Folder::new(dir.path()));
        let made = folder.make_keys(&*disk, "one.example").unwrap();
        let early = folder.next_key(&*disk, Purpose::Ledger);
        assert!(matches!(early, Err(LedgerError::Uninitialised { .. })));
        folder.write_meta(&*disk, "one.example").unwrap();
        for (purpose, first) in [(Purpose::Ledger, made.ledger), (Purpose::Source, made.source)] {
            let next = || folder.next_key(&*disk, purpose).unwrap().verifier().clone();
            let (first, second) = (first.verifier().clone(), next());
            assert_eq!(next(), second, "made once");
            assert_eq!(first.name(), second.name());
            let held = || -> Vec<VerifierKey> {
                let keys = folder.open_keys(&*disk).unwrap();
                match purpose {
                    Purpose::Ledger => keys.of_ledger().map(Signer::verifier).cloned().collect(),
                    Purpose::Source => keys.of_source().map(Signer::verifier).cloned().collect(),
                }
            };
            assert_eq!(held(), [first.clone(), second.clone()]);

            folder.settle_next_key(&*disk, purpose, |key| *key == first);
            assert_eq!(next(), second, "still waits");
            folder.settle_next_key(&*disk, purpose, |key| *key == second);
            assert_eq!(held(), [first, second.clone()]);
            assert_ne!(next(), second);
        }
        assert_eq!(folder.own_keys(&*disk).unwrap().len(), 6);
    }
}
