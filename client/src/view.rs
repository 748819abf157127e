//! The view: the newest checkpoint that this auditor accepted, kept in a file across runs.
//!
//! Only because auditors remember can a ledger not show them one history today and another
//! tomorrow. The file is JSON with the fields `version`, `origin`, `ledger`, `checkpoint` (the
//! note, verbatim) and `state`. It is replaced as a whole and synced, so a crash leaves the old
//! view or the new one; and only by an audit that began with what it replaces, so that of two at
//! once none moves the pin back.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::CheckpointError,
    hash::{Digest, sha256},
    note::VerifierKey,
    position::Size,
    proof::verify_consistency,
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    evidence::Caught,
    verify::{SavedState, Scope},
};

/// A view file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The system refused a file operation.
    #[error("view {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another audit replaced the file after this one had read it: repeat.
    #[error("view {}: another audit replaced it meanwhile", .path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The content is no view.
    #[error("view {}: {error}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Names line and column.
        error: serde_json::Error,
    },
    /// Another version than this code writes.
    #[error("view {}: version {found}, known is {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// The view is of another ledger, or of one with another key, and nothing tells whether the one
    /// asked for took its place.
    #[error("view {} is of {found}, asked for was {wanted}", .path.display())]
    OtherLedger {
        /// The file.
        path: PathBuf,
        /// Verifier key in the file.
        found: String,
        /// Verifier key that was asked for.
        wanted: String,
    },
    /// The pinned checkpoint is not one that the ledger signed: somebody edited the file.
    #[error("view {}: {error}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with the note.
        error: CheckpointError,
    },
}

/// What an auditor holds a ledger to.
#[derive(Debug)]
pub struct View {
    path: PathBuf,
    ledger: VerifierKey,
    pinned: Option<Pinned>,
    /// The key that the file names, where the log has not told yet that `ledger` took its place.
    former: Option<String>,
    /// Digest of the file as it was read or written; `None` without a file.
    content: Option<Digest>,
}

/// The checkpoint of a view, and what was known when it was verified.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The newest checkpoint that was accepted.
    pub checkpoint: VerifiedCheckpoint,
    /// The verifier as it concluded there.
    pub state: SavedState,
}

/// What every version of the file begins with.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewFile {
    version: u32,
    origin: String,
    ledger: String,
    checkpoint: String,
    state: SavedState,
}

impl View {
    /// Opens the view at `path` of the ledger with this key, or of the same name with one that this
    /// key took the place of; a file that does not exist is a view without a pin, if there is a
    /// folder for it. That it took its place, an audit has the log tell before it moves the pin.
    ///
    /// # Errors
    ///
    /// Any [`ViewError`] but [`ViewError::Replaced`].
    pub fn open(path: &Path, ledger: &VerifierKey) -> Result<Self, ViewError> {
        let at = || path.to_owned();
        let io = |error| ViewError::Io { path: at(), error };
        let (pinned, former, content) = (None, None, None);
        let mut view = Self { path: at(), ledger: ledger.clone(), pinned, former, content };
        // Better said here than after an audit.
        File::open(folder_of(path)).map_err(io)?;
        let Some(text) = read(path).map_err(io)? else {
            return Ok(view);
        };
        let malformed = |error| ViewError::Malformed { path: at(), error };
        let Versioned { version: found } = serde_json::from_slice(&text).map_err(malformed)?;
        if found != VERSION {
            return Err(ViewError::Version { path: at(), found });
        }
        let file: ViewFile = serde_json::from_slice(&text).map_err(malformed)?;
        let wanted = ledger.to_string();
        let mut others = Vec::new();
        if file.ledger != wanted {
            let former = VerifierKey::parse(&file.ledger).ok();
            let Some(former) = former.filter(|former| former.name() == ledger.name()) else {
                return Err(ViewError::OtherLedger { path: at(), found: file.ledger, wanted });
            };
            // The pin may be from before there was the new key.
            let told = file.state.ledger_keys();
            view.former = (!told.contains(ledger)).then_some(file.ledger);
            others.extend(told.into_iter().chain([former]));
        }
        let note = file.checkpoint.as_bytes();
        let checkpoint = VerifiedCheckpoint::open_by_any(note, ledger, &others)
            .map_err(|error| ViewError::Checkpoint { path: at(), error })?;
        view.content = Some(sha256(&text));
        view.pinned = Some(Pinned { checkpoint, state: file.state });
        Ok(view)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger's key, whose name is the origin.
    #[must_use]
    pub const fn ledger(&self) -> &VerifierKey {
        &self.ledger
    }

    /// That an audit of this scope can tell whether the ledger's key took the place of the one that
    /// the file names: only events do.
    ///
    /// # Errors
    ///
    /// [`ViewError::OtherLedger`] when it cannot.
    pub fn check_scope(&self, scope: Scope) -> Result<(), ViewError> {
        match &self.former {
            Some(found) if scope == Scope::EntriesOnly => Err(ViewError::OtherLedger {
                path: self.path.clone(),
                found: found.clone(),
                wanted: self.ledger.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// What is pinned; `None` before the first audit.
    #[must_use]
    pub const fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Replaces the pin, on disk first.
    ///
    /// # Errors
    ///
    /// [`ViewError::Io`]; [`ViewError::Replaced`]. The old pin stays then.
    pub fn pin(
        &mut self,
        checkpoint: VerifiedCheckpoint,
        state: SavedState,
    ) -> Result<(), ViewError> {
        let file = ViewFile {
            version: VERSION,
            origin: self.ledger.name().to_owned(),
            ledger: self.ledger.to_string(),
            checkpoint: checkpoint.note().to_owned(),
            state: state.clone(),
        };
        let io = |error| ViewError::Io { path: self.path.clone(), error };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| io(error.into()))?;
        // Until the end of this function no other audit replaces a file of this folder.
        let folder = File::open(folder_of(&self.path)).map_err(io)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        if read(&self.path).map_err(io)?.map(|text| sha256(&text)) != self.content {
            return Err(ViewError::Replaced { path: self.path.clone() });
        }
        replace(&self.path, &text, &folder).map_err(io)?;
        self.content = Some(sha256(&text));
        self.former = None;
        self.pinned = Some(Pinned { checkpoint, state });
        Ok(())
    }
}

/// Whether a newer checkpoint needs a consistency proof: both sizes, if so.
///
/// # Errors
///
/// [`Caught::Rollback`] for a smaller size; [`Caught::Fork`] for the same size with another root.
pub fn compare(
    pinned: &VerifiedCheckpoint,
    served: &VerifiedCheckpoint,
) -> Result<Option<(Size, Size)>, Caught> {
    let (old, new) = (pinned.size(), served.size());
    let both = || (Box::new(pinned.clone()), Box::new(served.clone()));
    if new < old {
        let (pinned, served) = both();
        return Err(Caught::Rollback { pinned, served });
    }
    if new == old && served.root() != pinned.root() {
        let (pinned, served) = both();
        return Err(Caught::Fork { pinned, served });
    }
    // Every tree continues the empty one.
    Ok((old < new && old != Size::ZERO).then_some((old, new)))
}

/// Checks the consistency proof between two checkpoints.
///
/// # Errors
///
/// [`Caught::Inconsistent`] with the proof.
pub fn check_consistency(
    pinned: &VerifiedCheckpoint,
    served: &VerifiedCheckpoint,
    path: Vec<Digest>,
) -> Result<(), Caught> {
    let roots = (pinned.root(), served.root());
    verify_consistency(pinned.size(), served.size(), roots.0, roots.1, &path).map_err(|error| {
        let (pinned, served) = (Box::new(pinned.clone()), Box::new(served.clone()));
        Caught::Inconsistent { pinned, served, error, path }
    })
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

/// The content of a file, if there is one.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of `folder` as a whole: the old content or the new one survives a crash, nothing
/// between.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where a client's file is replaced and synced"
)]
fn replace(path: &Path, content: &[u8], folder: &File) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    folder.sync_all()
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
