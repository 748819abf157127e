//! The marker `halted` in a custodian's folder: it caught the ledger that it follows, and signs
//! nothing of it any more until a human clears exactly this (`custodian clear`).

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::alarms::AlarmRecord;
use crate::{
    error::LedgerError,
    os::{self, Disk},
};

/// Why a custodian signs nothing any more. JSON with these fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// The ledger.
    pub origin: String,
    /// Id of the alarm, which is the name of its files in `alarms/`.
    pub alarm: String,
    /// What was found: one sentence.
    pub message: String,
    /// SHA-256 of the evidence, in hexadecimal: who clears it must show that very file.
    pub evidence_sha256: String,
    /// When: RFC 3339.
    pub halted_at: String,
}

impl Halt {
    /// The halt that follows from an alarm.
    #[must_use]
    pub fn of(alarm: &AlarmRecord) -> Self {
        Self {
            origin: alarm.origin.clone(),
            alarm: alarm.id.clone(),
            message: alarm.message.clone(),
            evidence_sha256: alarm.evidence_sha256.clone().unwrap_or_default(),
            halted_at: alarm.raised_at.clone(),
        }
    }

    /// The halt that a custodian with this data folder is under.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`]; [`LedgerError::File`] for a file that is none: better to stay halted
    /// than to guess.
    pub fn read(disk: &dyn Disk, data: &Path) -> Result<Option<Self>, LedgerError> {
        let path = data.join(HALTED);
        match os::read(disk, &path, BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| LedgerError::File { path, problem: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LedgerError::io(&path, source)),
        }
    }

    /// Halts the custodian with this data folder, durably. The first reason stays: it is the one
    /// that a human must look at.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`].
    pub fn write(&self, disk: &dyn Disk, data: &Path) -> Result<(), LedgerError> {
        let path = data.join(HALTED);
        if !matches!(Self::read(disk, data), Ok(None)) {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        os::replace(disk, &path, &bytes).map_err(|source| LedgerError::io(&path, source))
    }

    /// Removes the marker.
    pub(super) fn lift(disk: &dyn Disk, data: &Path) -> Result<(), LedgerError> {
        let path = data.join(HALTED);
        disk.remove(&path)
            .and_then(|()| disk.sync_dir(data))
            .map_err(|source| LedgerError::io(&path, source))
    }
}

/// The marker's name.
const HALTED: &str = "halted";

const BYTES_MAX: usize = 1 << 20;
