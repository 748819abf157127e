//! The ledger's own source: what the ledger itself records (registrations, verdicts, reads).
//!
//! Its key may change as that of any source; the log decides which one seals.
//!
//! Others hand in events; the writer alone numbers and seals them, in its order, so that no number
//! is ever given twice or left out.

use access_ledger_proto::{
    error::SealError,
    event,
    facts::sources::Sources,
    note::Signer,
    position::Index,
    source::{Name, SourceName},
    wire,
};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use super::{
    Shared, append::Admitted, authorize::Noteworthy, keyring::Keyring, queue::Ticket,
    writer::ToWrite,
};
use crate::{
    book::unreadable, error::LedgerError, folder::own_event, reads::Register, refusal::Refusal,
};

/// Seals what the ledger itself records. The writer has the only one.
pub(crate) struct OwnSource {
    name: SourceName,
    /// The one in force is among them.
    keyring: Keyring,
    origin: String,
}

/// An event of the ledger's own that waits for its number. Only [`Shared::record_own`] makes one.
pub(crate) struct OwnEvent {
    event: Bytes,
    noteworthy: Option<Noteworthy>,
    admitted_at: u64,
}

/// Events, and what the writer must note of them.
pub(crate) type OwnEvents = (Vec<Bytes>, Vec<Noteworthy>);

impl OwnSource {
    /// The ledger's own source among `sources`, with its keys.
    ///
    /// # Errors
    ///
    /// [`LedgerError::OwnKeyMissing`] when the one in force is not among them.
    pub(super) fn new(keyring: Keyring, sources: &Sources) -> Result<Self, LedgerError> {
        let missing = || LedgerError::OwnKeyMissing { name: sources.ledger_source().to_owned() };
        let name = SourceName::parse(sources.ledger_source()).map_err(|_| missing())?;
        let origin = sources.genesis().origin.clone();
        let own = Self { name, keyring, origin };
        own.signer(own.in_force(sources).ok_or_else(missing)?).ok_or_else(missing)?;
        own.settle(sources);
        Ok(own)
    }

    /// Its name.
    pub(crate) const fn name(&self) -> &SourceName {
        &self.name
    }

    /// Seals events as one batch with the key that `sources` tell: at least one, not more than a
    /// batch may have. `now` is nanoseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// As [`access_ledger_proto::seal::Batch::seal`]; [`SealError::Key`] without that key.
    pub(crate) fn seal(
        &self,
        sources: &Sources,
        first_seq: u64,
        events: OwnEvents,
        now: u64,
    ) -> Result<Admitted, SealError> {
        let key = self.in_force(sources).and_then(|key| self.signer(key)).ok_or(SealError::Key)?;
        Admitted::seal_own(self.name.clone(), first_seq, events, now, |batch| {
            batch.seal(&self.origin, key)
        })
    }

    /// Whether it can seal with this key; looks into the folder, if need be.
    pub(crate) fn can_seal_with(&mut self, key: &[u8]) -> bool {
        self.keyring.holds(|held| held.public_key().as_bytes() == key)
    }

    /// Notes in the folder which key is in force by what is durable.
    pub(crate) fn settle(&self, sources: &Sources) {
        let in_force = self.in_force(sources);
        self.keyring.settle(|next| Some(next.public_key()) == in_force);
    }

    fn in_force<'a>(&self, sources: &'a Sources) -> Option<&'a VerifyingKey> {
        sources.get(self.name.as_name())?.key()
    }

    fn signer(&self, key: &VerifyingKey) -> Option<&Signer> {
        self.keyring.signer(|held| held.public_key() == key)
    }
}

impl OwnEvent {
    /// The event, and when it was handed in: nanoseconds since the Unix epoch.
    pub(crate) fn into_parts(self) -> (OwnEvents, u64) {
        ((vec![self.event], self.noteworthy.into_iter().collect()), self.admitted_at)
    }

    /// Length of the event.
    pub(crate) const fn len(&self) -> usize {
        self.event.len()
    }
}

impl Shared {
    /// Hands an event of the ledger's own to the writer. It becomes a batch of its own; the answer
    /// to the ticket has its receipt.
    ///
    /// The writer judges it once more, in its order, before it gets a number.
    ///
    /// # Errors
    ///
    /// [`Refusal::Event`], [`Refusal::Source`] when no event of the ledger's own can be so;
    /// [`Refusal::QueueFull`], or what the queue was closed with.
    pub(crate) fn record_own(&self, body: wire::event::Body) -> Result<(Bytes, Ticket), Refusal> {
        let now = self.book.clock.now_nanos();
        let event: Bytes = own_event(now, body).map_err(unreadable)?.encode_to_vec().into();
        let next = self.book.published().size.next_index();
        let noteworthy = judge(&event, &self.book.sources(), next, now)?;
        let own = OwnEvent { event: event.clone(), noteworthy, admitted_at: now };
        Ok((event, self.queue.push(ToWrite::Own(Box::new(own)))?))
    }

    /// Records a run of the retention, and waits until it is durable. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Shared::record_own`], and what the writer refuses it for.
    pub(crate) fn record_run(&self, redaction: wire::Redaction) -> Result<(), Refusal> {
        let (_, ticket) = self.record_own(wire::event::Body::Redaction(redaction))?;
        ticket.wait().map(drop)
    }
}

#[tonic::async_trait]
impl Register for Shared {
    async fn record(&self, read: wire::LedgerRead) -> Result<(), String> {
        let recorded = match self.record_own(wire::event::Body::LedgerRead(read)) {
            Ok((_, ticket)) => ticket.answer().await.map(drop),
            Err(refusal) => Err(refusal),
        };
        match recorded {
            // It is durable here, and will be cosigned with what follows.
            Ok(()) | Err(Refusal::QuorumPending { .. }) => Ok(()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }
}

/// Judges an event of the ledger's own as it would stand at `index`.
fn judge(
    event: &Bytes,
    sources: &Sources,
    index: Index,
    now: u64,
) -> Result<Option<Noteworthy>, Refusal> {
    let body =
        event::validate(event, now).map_err(|error| Refusal::Event { position: 0, error })?;
    let name = Name::parse(sources.ledger_source().as_bytes()).map_err(unreadable)?;
    let own = sources.get(name).ok_or_else(|| unreadable("no source of the ledger's own"))?;
    let _change = sources.judge(own, index, body, true)?;
    Noteworthy::find(0, body, event)
}
