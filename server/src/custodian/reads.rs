//! Who read at the custodian: recorded at the ledger, where all is recorded, by a source of the
//! custodian's own.
//!
//! It goes through a spool, so a record is durable here when it was accepted, whether the ledger
//! can be reached or not, and neither side can leave it out later: the source's numbers have no
//! gaps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use access_ledger_client::{connect::Link, recorder::Recorder};
use access_ledger_proto::{
    note::{Signer, VerifierKey},
    wire,
};
use tokio::{sync::OnceCell, time::sleep};
use tracing::{info, warn};

use crate::reads::Register;

/// A source at the ledger.
pub(super) struct AtLedger {
    link: Link,
    key: Signer,
    ledger: VerifierKey,
    spool: PathBuf,
    /// Not there before the ledger was reached for the first time.
    recorder: OnceCell<Recorder>,
}

impl AtLedger {
    /// The source that `key` is named like, with its spool in this folder. It records once
    /// [`AtLedger::connect`] is through.
    pub(super) fn new(link: Link, key: Signer, ledger: VerifierKey, spool: PathBuf) -> Arc<Self> {
        Arc::new(Self { link, key, ledger, spool, recorder: OnceCell::new() })
    }

    /// Begins to record, however long that takes: only the very first time needs the ledger.
    pub(super) async fn connect(self: Arc<Self>) {
        let start = || {
            Recorder::builder(self.link.clone(), self.key.clone(), self.ledger.clone())
                .spool(&self.spool, SPOOL_BYTES_MAX)
                .deadline(DEADLINE)
                .start()
        };
        while let Err(failure) = self.recorder.get_or_try_init(start).await {
            warn!(%failure, "cannot record who reads");
            sleep(RETRY).await;
        }
        info!(source = self.key.name(), "recording who reads");
    }

    /// Sends what waits, as far as the ledger answers; the rest stays in the spool.
    pub(super) async fn close(&self) {
        let Some(recorder) = self.recorder.get() else { return };
        match recorder.close().await {
            Ok(closed) if closed.unsent > 0 => {
                info!(unsent = closed.unsent, "records of reads wait in the spool");
            }
            Ok(_) => {}
            Err(failure) => warn!(%failure, "recording who reads had ended"),
        }
    }
}

#[tonic::async_trait]
impl Register for AtLedger {
    async fn record(&self, read: wire::LedgerRead) -> Result<(), String> {
        let recorder = self.recorder.get().ok_or("the ledger was not reached yet")?;
        let body = Some(wire::event::Body::LedgerRead(read));
        let accepted = recorder.record(wire::Event { body, ..wire::Event::default() });
        // In the spool it is durable, and the recorder sees to the rest.
        accepted.await.map(drop).map_err(|failure| failure.to_string())
    }
}

/// Hundreds of thousands of records.
const SPOOL_BYTES_MAX: u64 = 64 << 20;

/// How long starting and stopping wait for the ledger.
const DEADLINE: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_secs(5);
