//! The keys of a ledger in its folder.
//!
//! The ledger's key may change: governance says so in the log, and the log alone decides which key
//! signs. The folder only holds them. `ledger.key` is the first; `ledger.next.key` is made for a
//! change that is about to be proposed, and gets the name `ledger-<key id>.key` once the change is
//! recorded. Former keys go on signing beside the newest for as long as their files are here.

use std::{
    io,
    path::{Path, PathBuf},
};

use access_ledger_client::keyfile;
use access_ledger_proto::{
    facts::sources::History,
    note::{KeyType, Signer, VerifierKey},
};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{Folder, LEDGER_SOURCE, TEXT_BYTES_MAX, malformed};
use crate::{
    error::LedgerError,
    os::{self, Disk},
};

/// The keys that a running ledger holds.
#[derive(Debug)]
pub struct Keys {
    /// Signs checkpoints; its name is the origin. The oldest one that is here.
    pub ledger: Signer,
    /// Sign checkpoints too, from the entry on that brings them into force.
    pub later: Vec<Signer>,
    /// Seals what the ledger itself records.
    pub source: Signer,
}

impl Keys {
    /// All keys that sign checkpoints, or will.
    pub fn of_ledger(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.ledger).chain(&self.later)
    }
}

impl Folder {
    /// The files of the keys that a running ledger holds, as far as they are there.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`].
    pub(crate) fn own_keys(&self, disk: &dyn Disk) -> Result<Vec<PathBuf>, LedgerError> {
        let mut files = self.ledger_key_files(disk)?;
        files.push(self.keys().join(SOURCE_KEY));
        Ok(files)
    }

    /// Reads the keys of a running ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] when one is missing or malformed; [`LedgerError::ForeignKey`] when two
    /// are of different ledgers.
    pub fn open_keys(&self, disk: &dyn Disk) -> Result<Keys, LedgerError> {
        let source = read_signer(disk, &self.keys().join(SOURCE_KEY))?;
        let mut signers = self.ledger_signers(disk)?.into_iter();
        let missing = || malformed(&self.keys().join(LEDGER_KEY), "missing");
        let ledger = signers.next().ok_or_else(missing)?;
        let later: Vec<Signer> = signers.collect();
        if let Some(foreign) = later.iter().find(|key| key.name() != ledger.name()) {
            let (key, origin) = (foreign.name().to_owned(), ledger.name().to_owned());
            return Err(LedgerError::ForeignKey { key, origin });
        }
        Ok(Keys { ledger, later, source })
    }

    /// Reads the keys, and makes those that are missing.
    pub(crate) fn make_keys(&self, disk: &dyn Disk, origin: &str) -> Result<Keys, LedgerError> {
        let make = |file, name| self.make_key(disk, file, (name, KeyType::Ed25519));
        let (ledger, source) = (make(LEDGER_KEY, origin)?, make(SOURCE_KEY, LEDGER_SOURCE)?);
        Ok(Keys { ledger, later: Vec::new(), source })
    }

    /// The key that waits to take the place of the ledger's; makes it if there is none. Nothing is
    /// signed with it before the log has it.
    ///
    /// # Errors
    ///
    /// As [`Folder::origin`], and [`LedgerError::Uninitialised`].
    pub fn next_key(&self, disk: &dyn Disk) -> Result<Signer, LedgerError> {
        let uninitialised = || LedgerError::Uninitialised { folder: self.root.clone() };
        let origin = self.origin(disk)?.ok_or_else(uninitialised)?;
        self.make_key(disk, NEXT_KEY, (&origin, KeyType::Ed25519))
    }

    /// Gives the key that waited its own name, if these are in force and it is one of them: then
    /// another one can be made to wait. A stop in between changes nothing.
    pub(crate) fn settle_next_key(&self, disk: &dyn Disk, in_force: &History<VerifierKey>) {
        let path = self.keys().join(NEXT_KEY);
        let next = match read_key(disk, &path) {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(failure) => return warn!(%failure, "could not read the key that waits"),
        };
        if !in_force.values().any(|key| key == next.verifier()) {
            return;
        }
        let settled = self.keys().join(format!("ledger-{}.key", next.verifier().id()));
        let renamed = disk.rename(&path, &settled).and_then(|()| disk.sync_dir(&self.keys()));
        match renamed {
            Ok(()) => info!(key = %settled.display(), "took up the ledger's next key"),
            Err(failure) => warn!(%failure, "could not rename the ledger's next key"),
        }
    }

    /// The keys that sign checkpoints or will, the oldest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError::File`] for a file that is no key; [`LedgerError::Io`].
    pub(crate) fn ledger_signers(&self, disk: &dyn Disk) -> Result<Vec<Signer>, LedgerError> {
        let files = self.ledger_key_files(disk)?;
        let read = |path: &PathBuf| read_key(disk, path).transpose();
        files.iter().filter_map(read).collect()
    }

    fn ledger_key_files(&self, disk: &dyn Disk) -> Result<Vec<PathBuf>, LedgerError> {
        let folder = self.keys();
        let names = match disk.list(&folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LedgerError::io(&folder, source)),
        };
        let age = |name: &str| match name {
            LEDGER_KEY => Some(0),
            NEXT_KEY => Some(2),
            _ if name.starts_with("ledger-") && name.ends_with(".key") => Some(1),
            _ => None,
        };
        let names = names.iter().filter_map(|name| name.to_str());
        let mut found: Vec<_> = names.filter_map(|name| Some((age(name)?, name))).collect();
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

const LEDGER_KEY: &str = "ledger.key";

const NEXT_KEY: &str = "ledger.next.key";

const SOURCE_KEY: &str = "source.key";

#[cfg(test)]
mod tests {
    use access_ledger_proto::position::Index;

    use super::*;
    use crate::folder::real_disk;

    #[test]
    fn the_next_key_waits_until_the_log_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, folder) = (real_disk(), Folder::new(dir.path()));
        let first = folder.make_keys(&*disk, "one.example").unwrap().ledger.verifier().clone();
        assert!(matches!(folder.next_key(&*disk), Err(LedgerError::Uninitialised { .. })));
        folder.write_meta(&*disk, "one.example").unwrap();
        let next = folder.next_key(&*disk).unwrap().verifier().clone();
        assert_eq!(folder.next_key(&*disk).unwrap().verifier(), &next, "made once");
        let held = |folder: &Folder| -> Vec<VerifierKey> {
            let keys = folder.open_keys(&*disk).unwrap();
            keys.of_ledger().map(|key| key.verifier().clone()).collect()
        };
        assert_eq!(held(&folder), [first.clone(), next.clone()]);

        let mut in_force = History::new(first.clone());
        folder.settle_next_key(&*disk, &in_force);
        assert_eq!(folder.next_key(&*disk).unwrap().verifier(), &next, "still waits");
        in_force.change(Index(4), next.clone());
        folder.settle_next_key(&*disk, &in_force);
        assert_eq!(held(&folder), [first, next.clone()]);
        let third = folder.next_key(&*disk).unwrap();
        assert_ne!(third.verifier(), &next);
        assert_eq!(folder.own_keys(&*disk).unwrap().len(), 4);
    }
}
