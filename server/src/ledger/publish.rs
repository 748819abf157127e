//! Signs the tree after every group.
//!
//! Which key signs, the log decides: the one that governance named last. Former keys sign beside
//! it, so that whoever knows only one of them still reads the checkpoint.

use std::sync::Arc;

use access_ledger_proto::{
    checkpoint::Checkpoint,
    facts::sources::History,
    hash::Digest,
    note::{Signer, VerifierKey},
    position::Size,
};
use bytes::Bytes;

use super::keyring::Keyring;
use crate::{book::Published, error::LedgerError};

/// Signs checkpoints.
pub(crate) struct Publisher {
    keyring: Keyring,
}

impl Publisher {
    /// With the keys of the ledger.
    pub(super) const fn new(keyring: Keyring) -> Self {
        Self { keyring }
    }

    /// Signs the tree of this size; `keys` are those of the log up to there. The caller vouches
    /// that its entries are durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError::KeyMissing`] without the newest of these keys; [`LedgerError::Checkpoint`]
    /// when its name is no origin.
    pub(crate) fn sign(
        &self,
        keys: &History<VerifierKey>,
        size: Size,
        root: Digest,
    ) -> Result<Arc<Published>, LedgerError> {
        if self.signer(keys.now()).is_none() {
            return Err(LedgerError::KeyMissing { key: keys.now().to_string() });
        }
        let signers: Vec<_> = keys.values().rev().filter_map(|key| self.signer(key)).collect();
        let checkpoint = Checkpoint::new(keys.now().name(), size, root)?;
        let note = Bytes::from(checkpoint.sign_by(&signers)?);
        Ok(Arc::new(Published { size, root, note }))
    }

    /// Whether it can sign with this key; looks into the folder, if need be.
    pub(crate) fn can_sign_with(&mut self, key: &VerifierKey) -> bool {
        self.keyring.holds(|held| held == key)
    }

    /// Notes in the folder that these keys are in force.
    pub(crate) fn settle(&self, keys: &History<VerifierKey>) {
        self.keyring.settle(|next| keys.values().any(|key| key == next));
    }

    fn signer(&self, key: &VerifierKey) -> Option<&Signer> {
        self.keyring.signer(|held| held == key)
    }
}
