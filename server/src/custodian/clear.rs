//! `custodian clear`: a human has looked at what halted the custodian, and lets it sign again.
//!
//! Only with the very evidence of the halt: whoever clears it has it in hand, so it cannot be done
//! by habit or by a script that never looked. The alarm ends with that, on record; its evidence
//! stays.

use std::path::{Path, PathBuf};

use access_ledger_client::evidence::{Evidence, EvidenceError};
use access_ledger_proto::hash::sha256;
use std::sync::Arc;
use thiserror::Error;

use super::{alarms::Alarms, halt::Halt};
use crate::{
    error::LedgerError,
    folder::Folder,
    os::{self, Clock, Disk},
};

/// The halt stays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClearError {
    /// The custodian signs: there is nothing to clear.
    #[error("{} is not halted", .data.display())]
    NotHalted {
        /// The data folder.
        data: PathBuf,
    },
    /// The file is no evidence.
    #[error("{}: {error}", .path.display())]
    Evidence {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: EvidenceError,
    },
    /// The file is not what halted the custodian.
    #[error("{}: digest {found}, alarm {alarm} halted with evidence of digest {wanted}", .path.display())]
    OtherEvidence {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The alarm that halted.
        alarm: String,
        /// The digest of its evidence.
        wanted: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Folder(#[from] LedgerError),
}

/// Clears the halt of the custodian with this data folder; what was cleared. The caller holds the
/// lock.
///
/// # Errors
///
/// Any [`ClearError`]; the custodian stays halted then.
pub fn clear(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    data: &Path,
    evidence: &Path,
) -> Result<Halt, ClearError> {
    let halt = Halt::read(&**disk, data)?;
    let halt = halt.ok_or_else(|| ClearError::NotHalted { data: data.to_owned() })?;
    let path = || evidence.to_owned();
    let bytes = os::read(&**disk, evidence, Evidence::BYTES_MAX)
        .map_err(|source| LedgerError::io(evidence, source))?;
    Evidence::parse(&bytes).map_err(|error| ClearError::Evidence { path: path(), error })?;
    let found = sha256(&bytes).to_string();
    if found != halt.evidence_sha256 {
        let Halt { alarm, evidence_sha256: wanted, .. } = halt;
        return Err(ClearError::OtherEvidence { path: path(), found, alarm, wanted });
    }
    let alarms = Alarms::open(Arc::clone(disk), Arc::clone(clock), &Folder::new(data).alarms())?;
    if let Some(record) = alarms.all().iter().find(|record| record.id == halt.alarm) {
        let _lasted = alarms.end_record(record, "cleared by a human who had its evidence");
    }
    Halt::lift(&**disk, data)?;
    Ok(halt)
}

#[cfg(test)]
mod tests;
