//! The ledger's own heartbeat: while nobody records anything, so that those who cosign it can tell
//! a quiet ledger from one that is withheld from them.

use std::{sync::Arc, time::Duration};

use access_ledger_proto::wire::{SourcePhase, SourceStatus, event::Body};
use tokio::time::timeout;
use tracing::warn;

use super::Shared;

/// Records a heartbeat of the ledger's own source whenever the log has not grown for `interval`.
/// Ends when the log cannot grow any more.
pub(super) async fn beat(shared: Arc<Shared>, interval: Duration) {
    let mut checkpoints = shared.book.checkpoints();
    let source = shared.book.sources().ledger_source().to_owned();
    let mut size = shared.book.published().size;
    loop {
        // Cosignatures make checkpoints new that are of the same size.
        let grown = checkpoints.wait_for(|newest| newest.size > size);
        match timeout(interval, grown).await {
            Ok(Ok(newest)) => size = newest.size,
            Ok(Err(_)) => return,
            Err(_) => {
                let status = SourceStatus {
                    phase: SourcePhase::Heartbeat.into(),
                    source: source.clone(),
                    ..SourceStatus::default()
                };
                if let Err(refusal) = shared.record_own(Body::SourceStatus(status)) {
                    // It is due again after the next interval.
                    warn!(%refusal, "could not record a heartbeat");
                }
            }
        }
    }
}
