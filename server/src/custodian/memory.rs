//! What a custodian remembers besides the log itself: the newest checkpoint that it saw, so that
//! the ledger cannot take it back, and the verifier's state, so that a start need not verify the
//! whole log again.
//!
//! `follow.json` is replaced as a whole and synced, now and then: what lies behind its state in the
//! own log is verified again at the next start. Its fields: `version`, `ledger` (verifier key, as
//! the log has told it), `seen` and `checkpoint` (notes, verbatim), `state`.

use std::{
    io,
    path::{Path, PathBuf},
};

use access_ledger_client::{verify::SavedState, view::Pinned};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::{CheckpointError, NoteError},
    note::VerifierKey,
};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::CustodianError;
use crate::{
    error::LedgerError,
    os::{self, Disk},
};

/// What is remembered of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The newest checkpoint that the ledger signed, as far as this custodian saw.
    pub seen: Option<VerifiedCheckpoint>,
    /// A checkpoint up to which everything was stored, and the verifier as it concluded there.
    pub pinned: Option<Pinned>,
    /// The ledger's key when this was written, until the verified log tells that the one which is
    /// followed took its place.
    pub former: Option<VerifierKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryFile {
    version: u32,
    ledger: String,
    seen: Option<String>,
    checkpoint: Option<String>,
    state: Option<SavedState>,
}

impl Memory {
    /// Reads what was remembered, in the data folder, of the ledger with this key, or with another
    /// one of its name, which it may have taken the place of; nothing without a file.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Memory`] for a file that this custodian did not write;
    /// [`CustodianError::Folder`] when the disk refuses.
    pub fn read(
        disk: &dyn Disk,
        data: &Path,
        ledger: &VerifierKey,
    ) -> Result<Self, CustodianError> {
        let path = &path(data);
        let malformed = |problem: String| CustodianError::Memory { path: path.to_owned(), problem };
        let bytes = match os::read(disk, path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LedgerError::io(path, source).into()),
        };
        let file: MemoryFile =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let known = VerifierKey::parse(&file.ledger).ok();
        let known = known.filter(|known| known.name() == ledger.name());
        let Some(known) = known.filter(|_| file.version == VERSION) else {
            let (version, found) = (file.version, file.ledger);
            let problem = format!("version {version} of {found}, wanted {VERSION} of {ledger}");
            return Err(malformed(problem));
        };
        let former = Some(known).filter(|known| known != ledger);
        let told = file.state.as_ref().map(SavedState::ledger_keys).unwrap_or_default();
        let others = former.iter().cloned().chain(told.into_iter().filter(|_| former.is_some()));
        let others: Vec<_> = others.collect();
        let open =
            |note: &String| VerifiedCheckpoint::open_by_any(note.as_bytes(), ledger, &others);
        let seen = match file.seen.as_ref().map(open).transpose() {
            // By a key that was followed and that the log never named.
            Err(CheckpointError::Note(NoteError::NoKnownKey)) => Ok(None),
            seen => seen,
        };
        let checkpoint = file.checkpoint.as_ref().map(open).transpose();
        let (seen, checkpoint) = seen
            .and_then(|seen| Ok((seen, checkpoint?)))
            .map_err(|error| malformed(error.to_string()))?;
        let pinned = checkpoint.zip(file.state);
        let pinned = pinned.map(|(checkpoint, state)| Pinned { checkpoint, state });
        Ok(Self { seen, pinned, former })
    }

    /// Replaces what was remembered, durably.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Folder`] when the disk refuses; the old memory stays then.
    pub fn write(
        &self,
        disk: &dyn Disk,
        data: &Path,
        ledger: &VerifierKey,
    ) -> Result<(), CustodianError> {
        let path = &path(data);
        let note = |checkpoint: &VerifiedCheckpoint| checkpoint.note().to_owned();
        let mut file = MemoryFile {
            version: VERSION,
            ledger: self.former.as_ref().unwrap_or(ledger).to_string(),
            seen: self.seen.as_ref().map(note),
            checkpoint: self.pinned.as_ref().map(|pinned| note(&pinned.checkpoint)),
            state: self.pinned.as_ref().map(|pinned| pinned.state.clone()),
        };
        let io = |source| CustodianError::from(LedgerError::io(path, source));
        let bytes = file.encode(BYTES_MAX).map_err(|error| io(error.into()))?;
        os::replace(disk, path, &bytes).map_err(io)
    }

    /// Remembers a checkpoint, unless a larger one was seen.
    pub fn see(&mut self, checkpoint: &VerifiedCheckpoint) {
        if self.seen.as_ref().is_none_or(|seen| seen.size() < checkpoint.size()) {
            self.seen = Some(checkpoint.clone());
        }
    }
}

impl MemoryFile {
    /// As JSON, in at most so many bytes: without the state if need be, so that the next start
    /// verifies the whole log again, and not with one that is never read.
    fn encode(&mut self, bytes_max: usize) -> serde_json::Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() <= bytes_max {
            return Ok(bytes);
        }
        warn!(bytes = bytes.len(), "the verifier's state is too large to be kept");
        (self.checkpoint, self.state) = (None, None);
        serde_json::to_vec(self)
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("follow.json")
}

const VERSION: u32 = 1;

/// Some hundred bytes a source: a million of them.
const BYTES_MAX: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use access_ledger_client::verify::{LogVerifier, Scope};
    use access_ledger_proto::{
        checkpoint::Checkpoint,
        hash::sha256,
        note::{KeyType, Signer},
        position::Size,
        tree::empty_root,
    };

    use super::*;
    use crate::folder::real_disk;

    fn signed(key: &Signer, size: u64) -> VerifiedCheckpoint {
        let root = if size == 0 { empty_root() } else { sha256(b"root") };
        let note = Checkpoint::new(key.name(), Size(size), root).unwrap().sign(key).unwrap();
        VerifiedCheckpoint::open(note.as_bytes(), key.verifier(), &[]).unwrap()
    }

    #[test]
    fn a_state_that_would_never_be_read_is_left_out() {
        let key = Signer::new("ledger.example", KeyType::Ed25519, [1; 32]).unwrap();
        let state = LogVerifier::new(key.verifier(), Scope::Events).save();
        let mut file = MemoryFile {
            version: VERSION,
            ledger: key.verifier().to_string(),
            seen: Some(signed(&key, 9).note().to_owned()),
            checkpoint: Some(signed(&key, 0).note().to_owned()),
            state: Some(state),
        };
        let whole = file.encode(BYTES_MAX).unwrap();
        assert_eq!(file.encode(whole.len()).unwrap(), whole);
        let read: MemoryFile =
            serde_json::from_slice(&file.encode(whole.len() - 1).unwrap()).unwrap();
        assert!(read.state.is_none() && read.checkpoint.is_none());
        assert_eq!(read.seen.as_deref(), Some(signed(&key, 9).note()));
    }

    #[test]
    fn what_is_remembered_comes_back_and_is_only_of_this_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, data) = (real_disk(), folder.path());
        let key = Signer::new("ledger.example", KeyType::Ed25519, [1; 32]).unwrap();
        let ledger = key.verifier();
        assert!(Memory::read(&*disk, data, ledger).unwrap().seen.is_none());

        let state = LogVerifier::new(ledger, Scope::Events).save();
        let pinned = Some(Pinned { checkpoint: signed(&key, 0), state });
        let mut memory = Memory { seen: None, pinned, former: None };
        for size in [3, 9, 5] {
            memory.see(&signed(&key, size));
        }
        memory.write(&*disk, data, ledger).unwrap();
        let read = Memory::read(&*disk, data, ledger).unwrap();
        assert_eq!(read.seen.unwrap().size(), Size(9), "the largest");
        assert_eq!(read.pinned.unwrap().state, memory.pinned.clone().unwrap().state);

        let other = Signer::new("another.example", KeyType::Ed25519, [2; 32]).unwrap();
        let refused = Memory::read(&*disk, data, other.verifier());
        assert!(matches!(refused, Err(CustodianError::Memory { .. })));
        // What is followed under another key stays the former one's until the log names that key.
        let next = Signer::new("ledger.example", KeyType::Ed25519, [3; 32]).unwrap();
        let mut unproven = Memory::read(&*disk, data, next.verifier()).unwrap();
        assert_eq!(unproven.former.as_ref(), Some(ledger));
        unproven.see(&signed(&next, 20));
        unproven.write(&*disk, data, next.verifier()).unwrap();
        for (key, seen) in [(&next, Some(Size(20))), (&key, None)] {
            let read = Memory::read(&*disk, data, key.verifier()).unwrap();
            assert_eq!(read.seen.map(|seen| seen.size()), seen);
            assert!(read.pinned.is_some());
        }
        memory.write(&*disk, data, ledger).unwrap();
        let text = String::from_utf8(os::read(&*disk, &path(data), BYTES_MAX).unwrap()).unwrap();
        let forged = text.replace("\\n9\\n", "\\n8\\n");
        assert_ne!(text, forged);
        os::replace(&*disk, &path(data), forged.as_bytes()).unwrap();
        let refused = Memory::read(&*disk, data, ledger);
        assert!(matches!(refused, Err(CustodianError::Memory { .. })));
    }
}
