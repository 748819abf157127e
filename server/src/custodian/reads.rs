//! Who read at the custodian: recorded at the ledger, where all is recorded, by a source of the
//! custodian's own.
//!
//! It goes through a spool, so a record is durable here when it was accepted, whatever the ledger
//! does then: cannot be reached, refuses, or answers with what proves nothing. Neither side can
//! leave it out later: the source's numbers have no gaps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use access_ledger_client::{
    connect::Link, error::RecorderError, evidence::Caught, recorder::Recorder,
};
use access_ledger_proto::{
    note::{Signer, VerifierKey},
    position::Size,
    wire,
};
use tokio::{sync::OnceCell, task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::alarms::{Alarm, AlarmKind, Alarms, Place};
use crate::reads::Register;

/// A source at the ledger.
pub(super) struct AtLedger {
    link: Link,
    key: Signer,
    ledger: VerifierKey,
    spool: PathBuf,
    alarms: Arc<Alarms>,
    /// Not there before the ledger was reached for the first time.
    recorder: OnceCell<Recorder>,
}

impl AtLedger {
    /// The source that `key` is named like, with its spool in this folder. It records once
    /// [`AtLedger::connect`] is through.
    pub(super) fn new(
        link: Link,
        key: Signer,
        ledger: VerifierKey,
        spool: PathBuf,
        alarms: Arc<Alarms>,
    ) -> Arc<Self> {
        Arc::new(Self { link, key, ledger, spool, alarms, recorder: OnceCell::new() })
    }

    /// Begins to record, however long that takes: only the very first time needs the ledger.
    pub(super) async fn connect(self: Arc<Self>) {
        let start = || {
            let (alarms, ledger) = (self.alarms.clone(), self.ledger.clone());
            Recorder::builder(self.link.clone(), self.key.clone(), self.ledger.clone())
                .spool(&self.spool, SPOOL_BYTES_MAX)
                .deadline(DEADLINE)
                .persist(TROUBLE_DELAY, move |answer| tell(&alarms, &ledger, answer))
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

/// What the ledger makes of the records: they wait in the spool while it does not take them. A
/// proof that does not hold is an alarm, until there is one that does.
fn tell(alarms: &Arc<Alarms>, ledger: &VerifierKey, answer: Result<(), &RecorderError>) {
    let (alarms, origin) = (alarms.clone(), ledger.name().to_owned());
    let kind = AlarmKind::ReceiptInvalid;
    match answer {
        Ok(()) => {
            let by = "the ledger proves records of who reads here";
            spawn_blocking(move || alarms.end(kind, &origin, Place::Ledger, by));
        }
        Err(failure) => {
            warn!(%failure, "records of who reads wait in the spool");
            let RecorderError::Evidence { evidence, .. } = failure else { return };
            let caught = Caught::Answer { problem: failure.to_string(), bytes: evidence.clone() };
            let alarm = Alarm::new(kind, &origin, Size::ZERO, &caught);
            let alarm = alarm.with_evidence(&caught, ledger);
            spawn_blocking(move || alarms.raise(alarm));
        }
    }
}

/// Hundreds of thousands of records.
const SPOOL_BYTES_MAX: u64 = 64 << 20;

/// How long starting and stopping wait for the ledger.
const DEADLINE: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_secs(5);

/// How long a ledger that refused is left alone.
const TROUBLE_DELAY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use access_ledger_client::error::EvidenceFault;
    use access_ledger_proto::note::KeyType;
    use tokio::{task::yield_now, time::timeout};

    use super::*;
    use crate::os::{RealDisk, SystemClock};

    async fn until(is_so: impl Fn() -> bool) {
        let look = async {
            while !is_so() {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), look).await.expect("an alarm comes and goes");
    }

    #[tokio::test]
    async fn a_proof_that_does_not_hold_is_an_alarm_until_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Alarms::open(Arc::new(RealDisk), Arc::new(SystemClock), folder.path());
        let alarms = Arc::new(opened.unwrap());
        let key = Signer::new("ledger.example/test", KeyType::Ed25519, [1; 32]).unwrap();
        let tell = |answer| tell(&alarms, key.verifier(), answer);
        tell(Err(&RecorderError::Lost { found: 1, wanted: 2 }));
        let evidence = RecorderError::Evidence {
            first_seq: 7,
            fault: EvidenceFault::Unasked,
            evidence: b"answer of the ledger"[..].into(),
        };
        tell(Err(&evidence));
        until(|| !alarms.lasting().is_empty()).await;
        let [record] = &alarms.all()[..] else { panic!("{:?}", alarms.all()) };
        assert_eq!(record.kind, AlarmKind::ReceiptInvalid);
        let text = std::fs::read_to_string(alarms.evidence(record).unwrap()).unwrap();
        assert!(text.contains("answer without a question"), "{text}");
        assert!(text.contains("YW5zd2VyIG9mIHRoZSBsZWRnZXI="), "{text}");
        tell(Ok(()));
        until(|| alarms.lasting().is_empty()).await;
        assert_eq!(alarms.all().len(), 1);
    }
}
