//! The view: the newest checkpoint that this auditor accepted, kept in a file across runs.
//!
//! Only because auditors remember can a ledger not show them one history today and another tomorrow.
//! The file is JSON with the fields `version`, `origin`, `ledger`, `checkpoint` (the note, verbatim) and
//! `state`. It is replaced as a whole and synced, so a crash leaves the old view or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint, error::CheckpointError, hash::Digest, note::VerifierKey,
    position::Size, proof::verify_consistency,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{evidence::Caught, verify::SavedState};

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
    /// The view is of another ledger, or of one with another key.
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
}

/// The checkpoint of a view, and what was known when it was verified.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The newest checkpoint that was accepted.
    pub checkpoint: VerifiedCheckpoint,
    /// The verifier as it concluded there.
    pub state: SavedState,
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
    /// Opens the view at `path` of the ledger with this key; a file that does not exist is a view
    /// without a pin.
    ///
    /// # Errors
    ///
    /// Any [`ViewError`].
    pub fn open(path: &Path, ledger: &VerifierKey) -> Result<Self, ViewError> {
        let view = |pinned| Self { path: path.to_owned(), ledger: ledger.clone(), pinned };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(view(None)),
            Err(error) => return Err(ViewError::Io { path: path.to_owned(), error }),
        };
        let file: ViewFile = serde_json::from_slice(&text)
            .map_err(|error| ViewError::Malformed { path: path.to_owned(), error })?;
        if file.version != VERSION {
            return Err(ViewError::Version { path: path.to_owned(), found: file.version });
        }
        let wanted = ledger.to_string();
        if file.ledger != wanted {
            let (path, found) = (path.to_owned(), file.ledger);
            return Err(ViewError::OtherLedger { path, found, wanted });
        }
        let checkpoint = VerifiedCheckpoint::open(file.checkpoint.as_bytes(), ledger, &[])
            .map_err(|error| ViewError::Checkpoint { path: path.to_owned(), error })?;
        Ok(view(Some(Pinned { checkpoint, state: file.state })))
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

    /// What is pinned; `None` before the first audit.
    #[must_use]
    pub const fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Replaces the pin, on disk first.
    ///
    /// # Errors
    ///
    /// [`ViewError::Io`]; the old pin stays then.
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
        replace(&self.path, &text).map_err(io)?;
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

/// Writes a file as a whole: the old content or the new one survives a crash, nothing between.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where a client's file is replaced and synced"
)]
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
