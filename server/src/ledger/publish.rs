//! Signs the tree after every group.

use std::sync::Arc;

use access_ledger_proto::{checkpoint::Checkpoint, hash::Digest, note::Signer, position::Size};
use bytes::Bytes;

use crate::{book::Published, error::LedgerError};

/// Signs checkpoints.
pub(crate) struct Publisher {
    pub(crate) signer: Signer,
}

impl Publisher {
    /// Signs the tree of this size. The caller vouches that its entries are durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Checkpoint`] when the key's name is no origin.
    pub(crate) fn sign(&self, size: Size, root: Digest) -> Result<Arc<Published>, LedgerError> {
        let checkpoint = Checkpoint::new(self.signer.name(), size, root)?;
        let note = Bytes::from(checkpoint.sign(&self.signer)?);
        Ok(Arc::new(Published { size, root, note }))
    }
}
