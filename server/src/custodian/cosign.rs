//! Cosigning without being asked: a ledger that knows nothing of its custodian is held to what it
//! signs all the same, and one that asks finds the newest size cosigned already.
//!
//! Usually the ledger asks after every group, and this finds everything signed.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::{checkpoint::VerifiedCheckpoint, witness::origin_hex};
use tracing::{debug, debug_span, error, warn};

use super::desk::Desk;
use crate::witness::{Holding, Witness, WitnessError};

/// Signs what is held, when nobody has asked for it.
pub(crate) struct Cosigner {
    pub(crate) desk: Arc<Desk>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) holding: Arc<Holding>,
    /// How long a checkpoint waits for somebody to ask for its cosignature.
    pub(crate) idle: Duration,
}

impl Cosigner {
    /// Signs, for ever.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let mut newest = this.desk.checkpoints();
        loop {
            let checkpoint = newest.borrow_and_update().clone();
            if let Some(checkpoint) = checkpoint {
                this.wait(&checkpoint).await;
                let (cosigner, checkpoint) = (Arc::clone(&this), Arc::clone(&checkpoint));
                let signing = tokio::task::spawn_blocking(move || cosigner.cosign(&checkpoint));
                if !signing.await.unwrap_or(false) {
                    // Tried again, with the newest by then.
                    continue;
                }
            }
            if newest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until somebody has had the checkpoint signed, or nobody for a while.
    async fn wait(&self, checkpoint: &VerifiedCheckpoint) {
        let Some(mut sizes) = self.witness.sizes(&origin_hex(checkpoint.origin())) else { return };
        let signed = sizes.wait_for(|&size| size >= checkpoint.size());
        // Whether it was signed is asked again by whoever signs.
        let _signed_or_idle = tokio::time::timeout(self.idle, signed).await;
    }

    /// Cosigns a checkpoint unless that was done, and has the newest one served with its
    /// cosignatures. Whether there is nothing more to do.
    fn cosign(&self, checkpoint: &VerifiedCheckpoint) -> bool {
        let _span = debug_span!("cosign", size = checkpoint.size().0).entered();
        let hex = origin_hex(checkpoint.origin());
        if let Some(note) = self.witness.newest(&hex) {
            let ledger = self.desk.ledger();
            let newest = VerifiedCheckpoint::open(note.as_bytes(), ledger, &[]);
            if newest.is_ok_and(|newest| newest.size() >= checkpoint.size()) {
                self.desk.attach(&note);
                return true;
            }
        }
        let held = match self.holding.hold(checkpoint, Duration::ZERO) {
            Ok(held) => held,
            Err(error) => {
                // It was held when it was laid out.
                warn!(%error, size = checkpoint.size().0, "could not vouch for checkpoint");
                return false;
            }
        };
        match self.witness.cosign_held(checkpoint, &held) {
            Ok(note) => {
                debug!(size = checkpoint.size().0, "cosigned unasked");
                self.desk.attach(&note);
                true
            }
            // Nothing but a human changes that.
            Err(WitnessError::Halted | WitnessError::Contradicts(_)) => true,
            Err(error) => {
                error!(%error, size = checkpoint.size().0, "could not cosign");
                false
            }
        }
    }
}
