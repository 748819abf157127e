//! The keys of one purpose that the ledger signs with. Which of them is in force, the log decides.

use std::sync::Arc;

use access_ledger_proto::note::{Signer, VerifierKey};

use crate::{
    folder::{Folder, Keys, Purpose},
    os::Disk,
};

/// The keys that the folder had when it was last looked at.
pub(super) struct Keyring {
    signers: Vec<Signer>,
    purpose: Purpose,
    folder: Folder,
    disk: Arc<dyn Disk>,
}

impl Keyring {
    /// Those that sign checkpoints, and those of the ledger's own source.
    pub(super) fn of(keys: Keys, folder: &Folder, disk: &Arc<dyn Disk>) -> [Self; 2] {
        let Keys { ledger, later, source, later_sources } = keys;
        let of = |purpose, first, later: Vec<Signer>| {
            let signers = std::iter::once(first).chain(later).collect();
            Self { signers, purpose, folder: folder.clone(), disk: disk.clone() }
        };
        [of(Purpose::Ledger, ledger, later), of(Purpose::Source, source, later_sources)]
    }

    /// The one whose key is wanted.
    pub(super) fn signer(&self, is_wanted: impl Fn(&VerifierKey) -> bool) -> Option<&Signer> {
        self.signers.iter().find(|signer| is_wanted(signer.verifier()))
    }

    /// Whether the key that is wanted is held; looks into the folder, if need be.
    pub(super) fn holds(&mut self, is_wanted: impl Fn(&VerifierKey) -> bool) -> bool {
        if self.signer(&is_wanted).is_none()
            && let Ok(signers) = self.folder.signers(&*self.disk, self.purpose)
        {
            self.signers = signers;
        }
        self.signer(&is_wanted).is_some()
    }

    /// Notes in the folder that the key that waits is in force, if it is.
    pub(super) fn settle(&self, is_in_force: impl Fn(&VerifierKey) -> bool) {
        self.folder.settle_next_key(&*self.disk, self.purpose, is_in_force);
    }
}
