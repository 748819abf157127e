//! The marker `suspended` in the copy of a custodian's folder that was made with its keys: until a
//! human says what those keys have signed last, they sign nothing.
//!
//! A witness is worth something because it remembers what it signed. A backup that is put back has
//! forgotten what was signed after it was made; a ledger that knows could have another history
//! signed from there. Nobody but those who rely on the custodian can say what they were given, so
//! `custodian resume` takes the newest notes that they have, of each log that is witnessed: a log
//! of which the copy remembers nothing may have been signed for the first time after it was made.
//! The copy must hold what the notes cover (`restore --from` the ledger brings it) before it is
//! opened, as after any stop.

use std::{
    io,
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    error::CheckpointError,
    note::{Note, VerifierKey},
    position::Size,
    witness::origin_hex,
};
use thiserror::Error;

use crate::{
    error::LedgerError,
    folder::Folder,
    os::{self, Access, Disk},
};

/// The custodian signs no more than before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The custodian signs: there is nothing to resume.
    #[error("{} is not suspended", .data.display())]
    NotSuspended {
        /// The data folder.
        data: PathBuf,
    },
    /// The file holds no checkpoint of a log that is witnessed, or none that this custodian's
    /// witness key has signed.
    #[error("{}: {error}", .path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: CheckpointError,
    },
    /// The log of the note is neither the one that is followed nor one of `--witness-logs`.
    #[error("{}: log {origin} is not known here", .path.display())]
    UnknownLog {
        /// The file.
        path: PathBuf,
        /// The log's name.
        origin: String,
    },
    /// The note has no cosignature of this custodian's.
    #[error("{}: not cosigned by {key}", .path.display())]
    NotCosigned {
        /// The file.
        path: PathBuf,
        /// The witness key.
        key: Box<VerifierKey>,
    },
    /// The copy itself remembers a later signature.
    #[error("{}: size {found}, {known} was cosigned when the copy was made", .path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// The note's size.
        found: Size,
        /// The size that the copy remembers.
        known: Size,
    },
    /// A log that was witnessed, and no note says what was signed of it last.
    #[error("no note says what was cosigned last of the log with the file witness/{hex}")]
    Missing {
        /// SHA-256 of its origin.
        hex: String,
    },
    /// A log that is witnessed, of which the copy remembers nothing, and neither a note nor a human
    /// says what was signed of it since the copy was made.
    #[error(
        "no note says what was cosigned last of {origin}: give one, or name it as never cosigned"
    )]
    Unanswered {
        /// The log's name.
        origin: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Folder(#[from] LedgerError),
}

/// Whether the keys in this folder are to sign nothing.
///
/// # Errors
///
/// [`LedgerError::Io`] when that cannot be told.
pub fn is_suspended(disk: &dyn Disk, data: &Folder) -> Result<bool, LedgerError> {
    let path = data.suspended();
    match disk.open(&path, Access::Read) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LedgerError::io(&path, source)),
    }
}

/// Suspends the keys in a folder, durably.
///
/// # Errors
///
/// [`LedgerError::Io`].
pub fn suspend(disk: &dyn Disk, data: &Folder) -> Result<(), LedgerError> {
    let path = data.suspended();
    os::replace(disk, &path, SUSPENDED).map_err(|source| LedgerError::io(&path, source))
}

/// Has the custodian in this folder, whose lock the caller holds, sign again from what its own
/// cosignatures in the files `cosigned` say it has signed last: one of each log that it witnesses,
/// but for those of the origins `never`, of which it has never signed anything. `others` are the
/// keys of the logs that it witnesses besides the one that it follows. Gives the logs with their
/// sizes.
///
/// # Errors
///
/// Any [`ResumeError`]; the custodian stays suspended then.
pub fn resume(
    disk: &dyn Disk,
    data: &Path,
    (cosigned, never): (&[PathBuf], &[String]),
    others: &[VerifierKey],
) -> Result<Vec<(String, Size)>, ResumeError> {
    let folder = Folder::new(data);
    if !is_suspended(disk, &folder)? {
        return Err(ResumeError::NotSuspended { data: data.to_owned() });
    }
    let uninitialised = || folder.uninitialised();
    let followed = folder.followed(disk)?.ok_or_else(uninitialised)?;
    let witness = folder.witness_key(disk)?.ok_or_else(uninitialised)?;
    let known: Vec<&VerifierKey> = std::iter::once(&followed).chain(others).collect();
    let mut notes = Vec::new();
    for path in cosigned {
        notes.push(read(disk, path, (&known, &witness))?);
    }
    let memory = folder.witness();
    let names = match disk.list(&memory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|source| LedgerError::io(&memory, source))?,
    };
    for name in names.iter().filter_map(|name| name.to_str()) {
        // Else a draft.
        let is_note = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_note && !notes.iter().any(|note| origin_hex(note.origin()) == name) {
            return Err(ResumeError::Missing { hex: name.to_owned() });
        }
    }
    for origin in known.iter().map(|key| key.name()) {
        let is_told = notes.iter().any(|note| note.origin() == origin);
        if !is_told && !never.iter().any(|never| never == origin) {
            return Err(ResumeError::Unanswered { origin: origin.to_owned() });
        }
    }
    for note in &notes {
        let path = memory.join(origin_hex(note.origin()));
        if let Some(known) = cosigned_size(disk, &path).filter(|known| *known > note.size()) {
            return Err(ResumeError::Older { path, found: note.size(), known });
        }
    }
    // All are in place before the first signature.
    for note in &notes {
        let path = memory.join(origin_hex(note.origin()));
        let bytes = note.note().as_bytes();
        disk.create_dir(&memory)
            .and_then(|()| os::replace(disk, &path, bytes))
            .map_err(|source| LedgerError::io(&path, source))?;
    }
    let marker = folder.suspended();
    disk.remove(&marker)
        .and_then(|()| disk.sync_dir(data))
        .map_err(|source| LedgerError::io(&marker, source))?;
    let told = notes.iter().map(|note| (note.origin().to_owned(), note.size()));
    Ok(told.collect())
}

/// The size of the note that the copy remembers, whichever of the log's keys has signed it.
fn cosigned_size(disk: &dyn Disk, path: &Path) -> Option<Size> {
    let bytes = os::read(disk, path, NOTE_BYTES_MAX).ok()?;
    let checkpoint = Checkpoint::parse(Note::parse(&bytes).ok()?.text()).ok()?;
    Some(checkpoint.size())
}

/// A note that the witness key has signed.
fn read(
    disk: &dyn Disk,
    path: &Path,
    (known, witness): (&[&VerifierKey], &VerifierKey),
) -> Result<VerifiedCheckpoint, ResumeError> {
    let wrong = |error| ResumeError::Note { path: path.to_owned(), error };
    let bytes =
        os::read(disk, path, NOTE_BYTES_MAX).map_err(|source| LedgerError::io(path, source))?;
    let note = Note::parse(&bytes).map_err(|error| wrong(error.into()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(wrong)?;
    let key = known.iter().find(|key| key.name() == checkpoint.origin());
    let key = key.ok_or_else(|| {
        let origin = checkpoint.origin().to_owned();
        ResumeError::UnknownLog { path: path.to_owned(), origin }
    })?;
    let verified = VerifiedCheckpoint::open(&bytes, key, std::slice::from_ref(witness));
    let verified = verified.map_err(wrong)?;
    if verified.cosignatures().is_empty() {
        let key = Box::new(witness.clone());
        return Err(ResumeError::NotCosigned { path: path.to_owned(), key });
    }
    Ok(verified)
}

const SUSPENDED: &[u8] = b"This is a copy of a custodian's folder. Its keys may have signed more \
    since: they sign nothing before `access-ledger-server custodian resume`.\n";

/// A checkpoint with its cosignatures.
const NOTE_BYTES_MAX: usize = 64 << 10;
