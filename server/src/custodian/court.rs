//! What becomes of a checkpoint that contradicts what is held or was cosigned, when somebody asks
//! to have it cosigned: an alarm with both statements, and no signature more for the log that is
//! followed.

use std::{path::PathBuf, sync::Arc};

use access_ledger_client::evidence::{Caught, compare_held};
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    note::{Note, VerifierKey},
};
use tracing::{error, warn};

use super::{
    alarms::{Alarm, AlarmKind, AlarmRecord, Alarms},
    desk::Desk,
    halt::Halt,
};
use crate::{os::Disk, witness::Contradiction};

/// Judges contradictions.
pub(super) struct Court {
    /// The ledger that is followed.
    pub(super) ledger: VerifierKey,
    /// Other logs that are witnessed.
    pub(super) logs: Vec<VerifierKey>,
    pub(super) disk: Arc<dyn Disk>,
    /// The data folder.
    pub(super) data: PathBuf,
    pub(super) desk: Arc<Desk>,
    pub(super) alarms: Arc<Alarms>,
}

impl Court {
    /// Raises the alarm; halts when the log is the one that is followed, which the witness has done
    /// for this run.
    pub(super) fn judge(&self, found: &Contradiction) {
        let Some((log, key, offered)) = self.open(&found.offered) else {
            warn!("left a contradiction aside that no known log has signed");
            return;
        };
        if *log == self.ledger && !matches!(Halt::read(&*self.disk, &self.data), Ok(None)) {
            // The first proof is what a human has to clear; more of them only fill the alarms.
            warn!(size = found.size.0, "left a contradiction aside, the ledger is halted");
            return;
        }
        let raised = match self.convict(log, &offered, found) {
            Some(caught) => self.alarms.raise(Alarm::of_caught(&caught, &key)),
            None => {
                let told = format!(
                    "root at size {} is {} here, the checkpoint of size {} has another",
                    found.size,
                    found.wanted,
                    offered.size()
                );
                self.alarms.raise(Alarm::new(AlarmKind::Fork, log.name(), found.size, told))
            }
        };
        if *log == self.ledger
            && let Some(record) = raised.record()
        {
            self.halt(record);
        }
    }

    /// Raises the alarm and halts, where the follower has not done so: the ledger showed somebody
    /// else another history.
    pub(super) fn convicted(&self, caught: &Caught) {
        if !matches!(Halt::read(&*self.disk, &self.data), Ok(None)) {
            return;
        }
        let raised = self.alarms.raise(Alarm::of_caught(caught, &self.ledger));
        if let Some(record) = raised.record() {
            self.halt(record);
        }
    }

    fn halt(&self, record: &AlarmRecord) {
        if let Err(failure) = Halt::of(record).write(&*self.disk, &self.data) {
            error!(%failure, "could not keep that the ledger is halted");
        }
    }

    /// The two statements that cannot both be true.
    fn convict(
        &self,
        log: &VerifierKey,
        offered: &VerifiedCheckpoint,
        found: &Contradiction,
    ) -> Option<Caught> {
        let cosigned = found.cosigned.as_deref().and_then(|note| self.open(note));
        let cosigned = cosigned.map(|(_, _, checkpoint)| checkpoint);
        let book = self.desk.books().borrow().clone().filter(|_| *log == self.ledger);
        let held = self.desk.newest().map(|held| VerifiedCheckpoint::clone(&held));
        if let Some(book) = book {
            for held in held.iter().chain(&cosigned).filter(|held| held.size() <= book.tree.size())
            {
                match compare_held(held, offered, &book.tree) {
                    Ok(Some(caught)) => return Some(caught),
                    Ok(None) => {}
                    Err(failure) => warn!(%failure, "could not read the tree for evidence"),
                }
            }
        }
        let pinned = cosigned.filter(|cosigned| cosigned.size() == offered.size())?;
        (pinned.root() != offered.root())
            .then(|| Caught::Fork { pinned: pinned.into(), served: offered.clone().into() })
    }

    /// A checkpoint of a known log, and which of that log's keys signed it.
    fn open(&self, note: &str) -> Option<(&VerifierKey, VerifierKey, VerifiedCheckpoint)> {
        let parsed = Note::parse(note.as_bytes()).ok()?;
        let origin = Checkpoint::parse(parsed.text()).ok()?.origin().to_owned();
        let log = std::iter::once(&self.ledger).chain(&self.logs);
        let log = log.into_iter().find(|log| log.name() == origin)?;
        let told = self.desk.ledger_keys();
        let told = told.into_iter().filter(|key| key.name() == origin);
        told.chain([log.clone()]).find_map(|key| {
            let opened = VerifiedCheckpoint::open(note.as_bytes(), &key, &[]).ok()?;
            Some((log, key, opened))
        })
    }
}
