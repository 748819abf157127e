//! Verdicts: what the writer keeps of the facts, and how it answers intents.
//!
//! The writer applies every event that concerns the facts when it places it. Once all batches of a
//! group are placed, the intents among them are judged, in their order, each with the facts right
//! before its verdict: so of 100 that arrive together for the last use of a grant, one is allowed.
//! The verdicts are sealed by the ledger's own source and lie in the same group, before its sync:
//! there is no answer without its entries.

use std::slice;

use access_ledger_proto::{
    entry::{Entry, Seal},
    error::SealError,
    event::Body,
    facts::{Facts, Noted},
    note::VerifierKey,
    position::{Index, count_of},
    source::SourceName,
    wire::{self, AuthorizationDecision, ControlKind, Outcome, event::Body as EventBody},
};
use bytes::Bytes;
use prost::Message as _;

use super::{
    append::{Admitted, BATCH_BYTES_MAX, frame_bytes},
    writer::{Group, Placed, Writer},
};
use crate::{book::unreadable, error::LedgerError, folder::own_event, refusal::Refusal};

/// An event of a batch that the writer must note when it places it.
#[derive(Debug)]
pub(crate) struct Noteworthy {
    /// 0-based place in the batch.
    position: u64,
    event: wire::Event,
    /// Length of the encoded event.
    len: usize,
}

/// A recorded intent that waits for its verdict.
pub(crate) struct Intent {
    /// Place in the group of the batch that holds it.
    batch: usize,
    index: Index,
    recorded_at: u64,
    source: SourceName,
    event: wire::Event,
}

/// A verdict with its place in the log.
pub(crate) struct PlacedVerdict {
    pub(crate) index: Index,
    pub(crate) event: Bytes,
    pub(crate) entry: Bytes,
}

impl Noteworthy {
    /// Decodes the event at a 0-based place of its batch, if it concerns the facts.
    ///
    /// # Errors
    ///
    /// [`Refusal::Request`] for an event that does not decode though it keeps its rules.
    pub(crate) fn find(
        position: usize,
        body: Body<'_>,
        event: &Bytes,
    ) -> Result<Option<Self>, Refusal> {
        if !Facts::concerns(body) {
            return Ok(None);
        }
        let len = event.len();
        let event = wire::Event::decode(event.clone()).map_err(|error| Refusal::Request {
            field: "batch.events",
            problem: format!("event {position} does not decode: {error}"),
        })?;
        Ok(Some(Self { position: count_of(position), event, len }))
    }

    /// About the bytes of memory that the decoded event takes, from above.
    pub(crate) const fn bytes(&self) -> usize {
        self.len * DECODED_FACTOR
    }

    /// Where it lies, in a batch that begins at `first`.
    pub(crate) fn index(&self, first: Index) -> Index {
        first.plus(self.position)
    }

    /// The event.
    pub(crate) const fn event(&self) -> &wire::Event {
        &self.event
    }

    /// Whether it changes the rules, or erases events.
    fn is_control(&self) -> bool {
        matches!(self.event.body, Some(EventBody::ControlChange(_) | EventBody::Redaction(_)))
    }

    /// Whether it is an intended access, which awaits a verdict.
    pub(crate) fn is_intent(&self) -> bool {
        self.intended_grant().is_some()
    }

    /// The grant that an intended access names, or none does: the empty one.
    fn intended_grant(&self) -> Option<&str> {
        match &self.event.body {
            Some(EventBody::Access(access)) if access.outcome() == Outcome::Requested => {
                Some(&access.grant_id)
            }
            _ => None,
        }
    }
}

impl Writer {
    /// Judges a change of the rules, or a redaction, by the facts before `first`, where its batch
    /// is about to stand.
    pub(crate) fn admit_control(&mut self, batch: &Admitted, first: Index) -> Result<(), Refusal> {
        let changes = batch.noteworthy().iter().filter(|note| note.is_control());
        for change in changes {
            self.authority.admit_control(&Noted {
                index: change.index(first),
                recorded_at: self.link.recorded_at.max(batch.admitted_at()),
                source: batch.sealed().source,
                event: change.event(),
            })?;
            self.admit_key(change.event())?;
        }
        Ok(())
    }

    /// A ledger that lacks a key that governance gives it could never sign, or seal, again.
    fn admit_key(&mut self, event: &wire::Event) -> Result<(), Refusal> {
        let Some(EventBody::ControlChange(change)) = &event.body else { return Ok(()) };
        let content = change.content.clone();
        let is_held = match change.kind() {
            ControlKind::LedgerKey => {
                let content = wire::LedgerKey::decode(content).map_err(unreadable)?;
                let key = VerifierKey::parse(&content.ledger_vkey).map_err(unreadable)?;
                self.publisher.can_sign_with(&key)
            }
            ControlKind::Key if change.target == self.own.name().as_str() => {
                let content = wire::SourceKey::decode(content).map_err(unreadable)?;
                self.own.can_seal_with(&content.public_key)
            }
            _ => return Ok(()),
        };
        if is_held {
            return Ok(());
        }
        let problem = "the ledger does not hold this key: make it with `rotate`".to_owned();
        Err(Refusal::Request { field: "control_change.content", problem })
    }

    /// What the verdicts on the intents of a batch take of a group, from above.
    pub(crate) fn verdict_bytes(&self, batch: &Admitted) -> usize {
        let grants = batch.noteworthy().iter().filter_map(Noteworthy::intended_grant);
        let (count, grants) =
            grants.fold((0, 0), |(count, bytes), id| (count + 1, bytes + id.len()));
        if count == 0 {
            return 0;
        }
        let each = self.authority.verdict_len_max() + OWN_EVENT_LEN_MAX;
        // Cut into batches, each with its seal: of as many events as any, or half a group long.
        let seals = (count / BATCH_EVENTS_MAX + 3) * Entry::LEN_MAX;
        frame_bytes(self.own.name().as_name(), count * each + grants, count) + seals
    }

    /// Notes what a batch that was placed says: changes of the facts, and intents.
    pub(crate) fn note(&mut self, placed: &Placed, noteworthy: Vec<Noteworthy>, group: &mut Group) {
        for note in noteworthy {
            let index = note.index(placed.first);
            self.authority.apply(&Noted {
                index,
                recorded_at: placed.recorded_at,
                source: placed.source.as_name(),
                event: note.event(),
            });
            if note.is_intent() {
                group.intents.push(Intent {
                    batch: group.placed.len(),
                    index,
                    recorded_at: placed.recorded_at,
                    source: placed.source.clone(),
                    event: note.event,
                });
            }
        }
    }

    /// Judges the intents of the group, and places the verdicts behind all its batches.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Own`] when a verdict cannot be made: then nothing of the group may be
    /// written.
    pub(crate) fn answer_intents(&mut self, group: &mut Group) -> Result<(), LedgerError> {
        let intents = std::mem::take(&mut group.intents);
        let places = (self.link.size.0..).map(Index);
        let verdicts = intents.iter().zip(places).map(|(intent, index)| self.judge(intent, index));
        let verdicts = verdicts.collect::<Result<Vec<_>, _>>()?;
        let mut intents = intents.iter();
        for verdicts in batches(verdicts) {
            self.place_verdicts(verdicts, &mut intents, group)?;
        }
        Ok(())
    }

    /// Makes the verdict on an intent with the facts before `index`, which is its place.
    fn judge(&mut self, intent: &Intent, index: Index) -> Result<Bytes, LedgerError> {
        let verdict = self.authority.verdict(&Noted {
            index: intent.index,
            recorded_at: intent.recorded_at,
            source: intent.source.as_name(),
            event: &intent.event,
        });
        let is_allowed = verdict.decision() == AuthorizationDecision::Allow;
        let decision = if is_allowed { "allow" } else { "deny" };
        metrics::counter!("access_ledger_verdicts_total", "decision" => decision).increment(1);
        // Time comes with the batches: a verdict happens when the last of them is recorded.
        let recorded_at = self.link.recorded_at;
        let event = own_event(recorded_at, EventBody::Authorization(verdict))
            .map_err(|problem| LedgerError::Own { problem })?;
        let source = self.own.name().as_name();
        self.authority.apply(&Noted { index, recorded_at, source, event: &event });
        Ok(event.encode_to_vec().into())
    }

    /// Places one batch of verdicts, and hands each to the batch of its intent, which `intents`
    /// gives in the same order.
    fn place_verdicts(
        &mut self,
        verdicts: Vec<Bytes>,
        intents: &mut slice::Iter<'_, Intent>,
        group: &mut Group,
    ) -> Result<(), LedgerError> {
        let own = |error: SealError| LedgerError::Own { problem: error.to_string() };
        let batch = self.seal((verdicts, Vec::new()), self.link.recorded_at)?;
        let mut entries = Vec::with_capacity(batch.events().len());
        let placed = self
            .append(&batch, group, |entry| entries.push(Bytes::copy_from_slice(entry)))
            .map_err(own)?;
        let indexes = (placed.first.0..).map(Index);
        let made = batch.events().iter().zip(entries).zip(indexes);
        for (((event, entry), index), intent) in made.zip(intents) {
            if let Some((waiting, _)) = group.placed.get_mut(intent.batch) {
                waiting.verdicts.push(PlacedVerdict { index, event: event.clone(), entry });
            }
        }
        group.placed.push((placed, None));
        Ok(())
    }
}

/// Cuts verdicts into batches that a seal may cover.
fn batches(verdicts: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut cut: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = 0;
    for verdict in verdicts {
        bytes += verdict.len();
        match cut.last_mut() {
            Some(batch) if batch.len() < BATCH_EVENTS_MAX && bytes <= BATCH_BYTES_MAX => {
                batch.push(verdict);
            }
            _ => {
                bytes = verdict.len();
                cut.push(vec![verdict]);
            }
        }
    }
    cut
}

/// What an event of the ledger's own takes besides its body's fields: identity, time, and the tags
/// and lengths of what is told of a verdict.
const OWN_EVENT_LEN_MAX: usize = 64;

/// Events that a seal covers.
const BATCH_EVENTS_MAX: usize = Seal::COUNT_MAX as usize;

/// A name of a few bytes is a string of some 40 in memory, and a scope is nothing but names; what
/// is decoded is counted at the rate of usual events, of which little is names.
const DECODED_FACTOR: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_cut_into_batches_that_a_seal_covers() {
        let verdict = |bytes: usize| Bytes::from(vec![0; bytes]);
        let lengths = |verdicts: Vec<Bytes>| -> Vec<usize> {
            batches(verdicts).iter().map(Vec::len).collect()
        };
        assert!(lengths(Vec::new()).is_empty());
        assert_eq!(lengths(vec![verdict(9); 4_096]), [4_096]);
        assert_eq!(lengths(vec![verdict(9); 8_193]), [4_096, 4_096, 1]);
        assert_eq!(lengths(vec![verdict(32_768); 129]), [128, 1]);
    }
}
