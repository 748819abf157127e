//! For services: number, batch, seal, send, verify the receipt, repeat.
//!
//! A recorder takes the events of one source in order and sees to it that the ledger records each
//! of them exactly once. It believes the ledger nothing: a ticket is resolved only when a receipt
//! proves that the event is under a checkpoint that the ledger signed, and every checkpoint must go
//! on from the newest one seen. A proof that fails ends the recorder with the evidence; it is never
//! asked for again.
//!
//! With a spool an accepted event survives a crash of the service and an outage of the ledger.
//! Without one, what has no receipt is lost with the process.
//!
//! A source that was registered with a heartbeat interval is kept heard (`pulse.rs`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    event,
    hash::{Digest, sha256},
    note::{Signer, VerifierKey},
    position::Index,
    quorum::Quorum,
    receipt::TlogProof,
    source::SourceName,
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

pub(crate) use self::batch::Place;
pub use self::builder::Builder;
use self::{
    driver::Ledger,
    shared::{Outcome, Shared, Urgency},
};
use crate::{
    authorize::{self, Verdict},
    backoff::Backoff,
    connect::Link,
    error::RecorderError,
};

mod batch;
mod builder;
mod driver;
mod keeper;
mod pulse;
mod shared;

/// Records the events of one source. Share it between tasks behind an `Arc`.
///
/// Call [`Recorder::close`] before the process ends: dropping a recorder stops it at once. What has
/// no receipt by then stays in the spool, or, without one, is lost; the log says how many.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    source: SourceName,
    driver: AbortHandle,
    pulse: AbortHandle,
    /// Events that an earlier recorder left in the spool.
    left: u64,
    /// Resolves when the spool's files are closed.
    keeper: Mutex<Option<oneshot::Receiver<()>>>,
    deadline: Duration,
    backoff: Backoff,
    ledger: Ledger,
    vkey: VerifierKey,
    quorum: Quorum,
}

/// Takes in events on behalf of a recorder.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor(Arc<Shared>);

/// An event that was accepted. Dropping it changes nothing.
#[derive(Clone, Debug)]
#[must_use = "without its receipt, nobody knows that the event was recorded"]
pub struct Ticket {
    seq: u64,
    outcome: watch::Receiver<Outcome>,
}

/// A recorded event, proven by a verified receipt.
#[derive(Clone, Debug)]
pub struct Recorded {
    seq: u64,
    place: Arc<Place>,
}

/// How a recorder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Events without a verified receipt: still in the spool, or lost without one.
    pub unsent: u64,
}

impl Recorder {
    /// A recorder for the source that `key` is named like, at the ledger with the key `ledger`,
    /// whose name is the origin.
    pub fn builder(link: impl Into<Link>, key: Signer, ledger: VerifierKey) -> Builder {
        Builder::new(link.into(), key, ledger)
    }

    /// Accepts an event, and waits for room while there is none.
    ///
    /// An absent `event_id` is filled in with random bytes, an absent `occurred_at` with the time.
    /// With a spool the event is on disk when this returns. Dropping the future does not take the
    /// event back once it has its number.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Event`] for one that breaks the rules of `event.proto`;
    /// [`RecorderError::Random`]; [`RecorderError::Closed`]; or what ended the recorder.
    pub async fn record(&self, event: wire::Event) -> Result<Ticket, RecorderError> {
        self.record_encoded(complete(event)?.encode_to_vec().into()).await
    }

    /// As [`Recorder::record`], for the bytes of an event: they are recorded as they are.
    ///
    /// # Errors
    ///
    /// As [`Recorder::record`].
    pub async fn record_encoded(&self, event: Bytes) -> Result<Ticket, RecorderError> {
        self.acceptor().accept(event).await
    }

    /// Accepts an event if there is room for it. With a spool it is on its way to the disk when
    /// this returns, but need not be there.
    ///
    /// # Errors
    ///
    /// As [`Recorder::record`]; [`RecorderError::Full`] without room.
    pub fn try_record(&self, event: wire::Event) -> Result<Ticket, RecorderError> {
        let event = complete(event)?.encode_to_vec().into();
        let digest = check(&event)?;
        self.shared.try_reserve(&event)?;
        self.shared.push(event, digest, Urgency::Gathers)
    }

    /// Waits until all events that were accepted before this call are recorded.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Closed`], or what ended the recorder.
    pub async fn flush(&self) -> Result<(), RecorderError> {
        let (last, _) = self.shared.numbers();
        self.shared.wait(|progress| progress.settled >= last).await
    }

    /// Takes no more events, waits until all are recorded, and ends. With heartbeats, the last one
    /// says that the source stops.
    ///
    /// Waits no longer than the deadline. Then, what the ledger did not answer stays in the spool,
    /// or, without one, is lost.
    ///
    /// # Errors
    ///
    /// What ended the recorder before.
    pub async fn close(&self) -> Result<Closed, RecorderError> {
        self.shared.close();
        self.pulse.abort();
        let flush = async {
            if self.shared.rhythm.tells()
                && let Err(error) = pulse::stop(&self.shared, &self.source).await
            {
                tracing::debug!(%error, "source ends without a word");
            }
            self.flush().await
        };
        let flushed = timeout(self.deadline, flush).await;
        self.driver.abort();
        self.shared.stop();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // An error is how the keeper says that it has ended.
            drop(keeper.await);
        }
        match flushed {
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(())) | Err(_) => Ok(Closed { unsent: self.shared.unsettled() }),
        }
    }

    /// How many events have no verified receipt: accepted by this recorder, or found in its spool.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.shared.unsettled()
    }

    /// How many events of an earlier recorder were found in the spool, without a verified receipt.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// The source whose events it records.
    #[must_use]
    pub const fn source(&self) -> &SourceName {
        &self.source
    }

    /// How long the ledger may take to answer.
    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The part that others may keep.
    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor(Arc::clone(&self.shared))
    }

    /// Makes sure that the driver knows whose verdicts count.
    pub(crate) async fn learn_own_source(&self) -> Result<(), RecorderError> {
        let learn = || async {
            let mut backoff = self.backoff;
            loop {
                let (proof, event) = self.ledger.genesis(self.backoff).await?;
                let own = authorize::own_source(&self.vkey, &self.quorum, &proof, &event)?;
                match own {
                    Some(own) => return Ok(own),
                    None => sleep(backoff.next(None)).await,
                }
            }
        };
        self.shared.own_source.get_or_try_init(learn).await.map(drop)
    }
}

impl Acceptor {
    /// Takes in the bytes of an event; with a spool they are on disk when this returns.
    pub(crate) async fn accept(&self, event: Bytes) -> Result<Ticket, RecorderError> {
        self.take(event, Urgency::Gathers).await
    }

    /// As [`Acceptor::accept`]; the event does not wait until others gather.
    pub(crate) async fn accept_intent(&self, event: Bytes) -> Result<Ticket, RecorderError> {
        self.take(event, Urgency::AtOnce).await
    }

    async fn take(&self, event: Bytes, urgency: Urgency) -> Result<Ticket, RecorderError> {
        let Self(shared) = self;
        let digest = check(&event)?;
        shared.reserve(&event).await?;
        let ticket = shared.push(event, digest, urgency)?;
        if shared.has_spool() {
            shared.wait(|progress| progress.durable >= ticket.seq).await?;
        }
        Ok(ticket)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.driver.abort();
        self.pulse.abort();
        self.shared.stop();
        let unsent = self.shared.unsettled();
        if unsent == 0 {
            return;
        }
        let source = self.source.as_str();
        if self.shared.has_spool() {
            tracing::warn!(source, unsent, "recorder ended, the spool keeps unsent events");
        } else {
            tracing::error!(
                source,
                unsent,
                "recorder ended without a spool, unsent events are lost"
            );
        }
    }
}

impl Ticket {
    /// The source's own number of the event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Waits for the verified receipt.
    ///
    /// # Errors
    ///
    /// What ended the recorder. With a spool the event is still in it, and the next recorder on
    /// that spool goes on with it, unless the ledger refused it for good.
    pub async fn receipt(mut self) -> Result<Recorded, RecorderError> {
        let seq = self.seq;
        let settled = |outcome: &Outcome| match outcome {
            Ok(places) => places.last().is_some_and(|place| place.last_seq >= seq),
            Err(_) => true,
        };
        let outcome = self.outcome.wait_for(settled).await.map_err(|_| RecorderError::Closed)?;
        let places = outcome.as_ref().map_err(Clone::clone)?;
        let place = places.iter().find(|place| (place.first_seq..=place.last_seq).contains(&seq));
        let place = Arc::clone(place.ok_or(RecorderError::Closed)?);
        Ok(Recorded { seq, place })
    }
}

impl Recorded {
    /// The source's own number of the event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Where the event lies in the log.
    #[must_use]
    pub fn index(&self) -> Index {
        self.place.first_index.plus(self.seq - self.place.first_seq)
    }

    /// When the ledger says that it recorded the event: nanoseconds since the Unix epoch.
    #[must_use]
    pub fn recorded_at(&self) -> u64 {
        self.place.recorded_at
    }

    /// The signed checkpoint that covers the event.
    #[must_use]
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.place.checkpoint
    }

    /// The ledger's verdict on the event, where that is an intent whose verdict was awaited.
    pub(crate) fn verdict(&self) -> Option<&Arc<Verdict>> {
        let verdicts = &self.place.verdicts;
        let found = verdicts.iter().find(|(seq, _)| *seq == self.seq);
        found.map(|(_, verdict)| verdict)
    }

    /// The proof that was verified, of the last entry of the batch: by the chain it covers this
    /// event. The file of an earlier entry comes from `AuditService.GetReceipt`.
    #[must_use]
    pub fn proof(&self) -> &TlogProof {
        &self.place.proof
    }
}

/// Fills in what only the moment of recording knows.
pub(crate) fn complete(mut event: wire::Event) -> Result<wire::Event, RecorderError> {
    if event.event_id.is_empty() {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| RecorderError::Random)?;
        event.event_id = Bytes::copy_from_slice(&id);
    }
    if event.occurred_at.is_none() {
        event.occurred_at = Some(now().into());
    }
    Ok(event)
}

fn check(event: &Bytes) -> Result<Digest, RecorderError> {
    let now = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    event::validate(event, now)?;
    Ok(sha256(event))
}

#[expect(clippy::disallowed_methods, reason = "the one place where a recorder reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
