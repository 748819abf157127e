//! Admission: judges a batch before it waits to be written.
//!
//! Many tasks do this at once; here is the work that needs no order: limits, every event's rules
//! and digest, the source's key and seal. What depends on the order (numbers, registrations) is
//! left to the writer. Only this stage makes an [`Admitted`], but for what the ledger itself
//! records (own.rs).

use access_ledger_proto::{
    entry::{Entry, Seal},
    error::SealError,
    event::{self, Body},
    facts::sources::{Source, Sources},
    hash::{Digest, sha256},
    note::KeyId,
    position::Index,
    seal::Batch,
    segment::FRAME_HEADER_LEN,
    source::{Name, SourceName},
    wire,
};
use bytes::Bytes;

use super::{
    authorize::Noteworthy,
    own::OwnEvents,
    queue::{Lane, Work},
};
use crate::refusal::Refusal;

/// Most bytes that the events of one batch have together.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;

/// A batch whose events keep their rules and whose seal holds.
#[derive(Debug)]
pub(crate) struct Admitted {
    source: SourceName,
    first_seq: u64,
    events: Vec<Bytes>,
    digests: Vec<Digest>,
    seal: Seal,
    /// Holds an event that may change who may do what, so the writer must judge it in its order.
    is_control: bool,
    /// What the writer must note of it, in order.
    noteworthy: Vec<Noteworthy>,
    admitted_at: u64,
    /// Counted once: the queue asks more than once, under its lock.
    bytes: usize,
    /// Counted here, for the writer is one thread: what its frames take of a group, from above.
    frame_bytes: usize,
}

impl Admitted {
    /// Judges a batch for the ledger of the genesis of `sources`; `now` is nanoseconds since the
    /// Unix epoch and becomes the batch's `recorded_at`, unless the log is ahead of it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Request`], [`Refusal::Event`], [`Refusal::Source`], [`Refusal::Seal`].
    pub(crate) fn judge(
        batch: wire::SealedBatch,
        sources: &Sources,
        now: u64,
    ) -> Result<Self, Refusal> {
        let request = |field, problem: &dyn ToString| Refusal::Request {
            field,
            problem: problem.to_string(),
        };
        let name = Name::parse(batch.source.as_bytes())
            .map_err(|error| request("batch.source", &error))?;
        let key_id: [u8; 4] = batch
            .key_id
            .as_ref()
            .try_into()
            .map_err(|_| request("batch.key_id", &"length other than 4 bytes"))?;
        let signature: [u8; 64] = batch
            .signature
            .as_ref()
            .try_into()
            .map_err(|_| request("batch.signature", &"length other than 64 bytes"))?;
        let bytes: usize = batch.events.iter().map(Bytes::len).sum();
        if bytes > BATCH_BYTES_MAX {
            let problem = format!("{bytes} bytes, allowed {BATCH_BYTES_MAX}");
            return Err(Refusal::Request { field: "batch.events", problem });
        }

        // Whether it is still in service, with this key, is judged in order, by the writer: what it
        // recorded while it was keeps its place, however late it is sent again.
        let (sealer, key) = sources.holder(name, KeyId(key_id))?;
        // Counting comes before hashing: an oversized batch costs nothing.
        let found = batch.events.len();
        let count = u16::try_from(found)
            .ok()
            .filter(|count| (1..=Seal::COUNT_MAX).contains(count))
            .ok_or(SealError::Count { found })?;
        let (is_control, noteworthy) = judge_events(&batch.events, sources, sealer, now)?;
        let digests: Vec<Digest> = batch.events.iter().map(|event| sha256(event)).collect();
        let seal = Seal { count, key_id: KeyId(key_id), signature };
        let sealed = Batch { source: name, first_seq: batch.first_seq, digests: &digests };
        sealed.verify(&sources.genesis().origin, &seal, key)?;
        let decoded_bytes: usize = noteworthy.iter().map(Noteworthy::bytes).sum();
        Ok(Self {
            source: sealer.name.clone(),
            first_seq: batch.first_seq,
            events: batch.events,
            digests,
            seal,
            is_control,
            noteworthy,
            admitted_at: now,
            bytes: log_bytes(bytes, found) + decoded_bytes,
            frame_bytes: frame_bytes(name, bytes, found),
        })
    }

    /// Events that the ledger made itself, under the seal that `seal` makes. `now` as before.
    ///
    /// # Errors
    ///
    /// What `seal` says.
    pub(crate) fn seal_own(
        source: SourceName,
        first_seq: u64,
        (events, noteworthy): (Vec<Bytes>, Vec<Noteworthy>),
        now: u64,
        seal: impl FnOnce(&Batch<'_>) -> Result<Seal, SealError>,
    ) -> Result<Self, SealError> {
        let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
        let seal = seal(&Batch { source: source.as_name(), first_seq, digests: &digests })?;
        let is_control = events.iter().filter_map(|event| event::body(event)).any(is_control);
        let (event_bytes, count) = (events.iter().map(Bytes::len).sum(), events.len());
        Ok(Self {
            bytes: log_bytes(event_bytes, count),
            frame_bytes: frame_bytes(source.as_name(), event_bytes, count),
            source,
            first_seq,
            events,
            digests,
            seal,
            is_control,
            noteworthy,
            admitted_at: now,
        })
    }

    /// What the seal covers.
    pub(crate) fn sealed(&self) -> Batch<'_> {
        Batch { source: self.source.as_name(), first_seq: self.first_seq, digests: &self.digests }
    }

    /// The events' bytes, in order.
    pub(crate) fn events(&self) -> &[Bytes] {
        &self.events
    }

    /// The seal.
    pub(crate) const fn seal(&self) -> Seal {
        self.seal
    }

    /// Nanoseconds since the Unix epoch: when the batch was admitted.
    pub(crate) const fn admitted_at(&self) -> u64 {
        self.admitted_at
    }

    /// What its frames take of a group, from above.
    pub(crate) const fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Whether it may change who may do what.
    pub(crate) const fn is_control(&self) -> bool {
        self.is_control
    }

    /// The events that may change the rules, with whether they stand alone; empty for most batches.
    pub(crate) fn control_bodies(&self) -> impl Iterator<Item = (Body<'_>, bool)> {
        let alone = self.events.len() == 1;
        let events: &[Bytes] = if self.is_control { &self.events } else { &[] };
        events.iter().filter_map(|event| event::body(event)).map(move |body| (body, alone))
    }

    /// One event, where none may change the rules: a role that suffices for it does for all.
    pub(crate) fn ordinary_body(&self) -> Option<Body<'_>> {
        self.events.first().filter(|_| !self.is_control).and_then(|event| event::body(event))
    }

    /// The redactions in the batch: one, alone, unless the writer is to refuse it.
    pub(crate) fn redactions(&self) -> impl Iterator<Item = &wire::Redaction> {
        self.noteworthy.iter().filter_map(|note| match &note.event().body {
            Some(wire::event::Body::Redaction(redaction)) => Some(redaction),
            _ => None,
        })
    }

    /// What the writer must note of it.
    pub(crate) fn noteworthy(&self) -> &[Noteworthy] {
        &self.noteworthy
    }

    /// The same, taken out.
    pub(crate) fn into_noteworthy(self) -> Vec<Noteworthy> {
        self.noteworthy
    }

    /// Its events, to be sealed under another number, and what the writer must note of them.
    pub(crate) fn into_events(self) -> OwnEvents {
        (self.events, self.noteworthy)
    }

    /// That the batch holds nothing but intents.
    ///
    /// # Errors
    ///
    /// [`Refusal::Request`] otherwise.
    pub(crate) fn expect_intents(self) -> Result<Self, Refusal> {
        let intents = self.noteworthy.iter().filter(|note| note.is_intent()).count();
        if intents == self.events.len() {
            return Ok(self);
        }
        let others = self.events.len() - intents;
        let problem =
            format!("{others} events other than an access with the outcome OUTCOME_REQUESTED");
        Err(Refusal::Request { field: "batch.events", problem })
    }

    /// The batch as its source sent it: with the seal, evidence of what the source signed.
    pub(crate) fn to_wire(&self) -> wire::SealedBatch {
        wire::SealedBatch {
            source: self.source.as_str().to_owned(),
            first_seq: self.first_seq,
            events: self.events.clone(),
            key_id: Bytes::copy_from_slice(&self.seal.key_id.0),
            signature: Bytes::copy_from_slice(&self.seal.signature),
        }
    }
}

impl Work for Admitted {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn lane(&self) -> Lane {
        Lane::of(self.sealed().source)
    }
}

/// Whether a body may change who may do what, so that the writer must judge it in its order.
const fn is_control(body: Body<'_>) -> bool {
    matches!(body.number, Body::SOURCE_STATUS | Body::CONTROL_CHANGE | Body::REDACTION)
}

/// Judges every event; tells whether any of them may change the rules, which the writer judges
/// again in their order, and what it must note.
fn judge_events(
    events: &[Bytes],
    sources: &Sources,
    sealer: &Source,
    now: u64,
) -> Result<(bool, Vec<Noteworthy>), Refusal> {
    let mut holds_control = false;
    let mut noteworthy = Vec::new();
    for (position, event) in events.iter().enumerate() {
        let body =
            event::validate(event, now).map_err(|error| Refusal::Event { position, error })?;
        if is_control(body) {
            holds_control = true;
        } else {
            // Judging changes nothing here: such a body is lawful or not, wherever it stands.
            let _change = sources.judge(sealer, Index::GENESIS, body, events.len() == 1)?;
        }
        noteworthy.extend(Noteworthy::find(position, body, event)?);
    }
    Ok((holds_control, noteworthy))
}

/// What `count` events of one source, of `event_bytes` together, take of a group under one seal,
/// from above and as close as their source's name tells.
pub(crate) const fn frame_bytes(source: Name<'_>, event_bytes: usize, count: usize) -> usize {
    let each = FRAME_HEADER_LEN + Entry::LEN_MIN + source.as_str().len();
    event_bytes + count * each + Entry::LEN_MAX
}

/// The bytes that `count` events of `event_bytes` together take in the log, from above, whoever
/// recorded them.
pub(crate) const fn log_bytes(event_bytes: usize, count: usize) -> usize {
    event_bytes + count * (Entry::LEN_MAX + FRAME_HEADER_LEN_MAX)
}

/// The log's own bytes about a frame, from above.
const FRAME_HEADER_LEN_MAX: usize = 64;
