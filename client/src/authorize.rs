//! Log before access: an intended access goes on record first, and only the ledger's verdict on it,
//! proven to be on record too, lets the access happen.
//!
//! ```no_run
//! # use access_ledger_client::{authorize::Denied, recorder::Recorder};
//! # use access_ledger_proto::wire;
//! # use std::error::Error;
//! #
//! # async fn example(
//! #     recorder: &Recorder,
//! #     intent: wire::Event,
//! #     access: wire::Event,
//! # ) -> Result<(), Box<dyn Error>> {
//! match recorder.authorize(intent).await {
//!     Ok(permit) => {
//!         // Touch the data here, then say what was touched.
//!         let _recorded = permit.access(access).await?.receipt().await?;
//!     }
//!     Err(Denied::Verdict(denial)) => println!("denied: {}", denial.verdict().rules().join(", ")),
//!     Err(failure) => println!("denied, for nothing is on record: {failure}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There is no other way to a [`Permit`], and whatever fails (the ledger, the network, the time, a
//! proof) is a [`Denied`]: a caller that forgets about failures denies.

use std::sync::Arc;

use access_ledger_proto::{
    error::ReceiptError,
    event::{self, Body},
    facts::sources::Sources,
    hash::{leaf_hash, sha256},
    note::VerifierKey,
    position::Index,
    proof::verify_inclusion,
    quorum::Quorum,
    receipt::TlogProof,
    source::SourceName,
    wire::{self, AuthorizationDecision, Outcome, event::Body as EventBody},
};
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    connect::{entry_proof, expect_all, proof_of},
    error::{EvidenceFault, RecorderError},
    recorder::{Acceptor, Place, Recorded, Recorder, Ticket, complete},
};

/// The ledger's leave to carry out one intended access: both the intent and the verdict are proven
/// to be in the log.
#[derive(Debug)]
#[must_use = "the access that was asked for may happen, and is to be recorded with `access`"]
pub struct Permit {
    answer: Answer,
    recorder: Acceptor,
}

/// The ledger's refusal, proven to be in the log like the intent.
#[derive(Debug)]
pub struct Denial {
    answer: Answer,
}

/// Why an access must not happen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Denied {
    /// The ledger judged, and said no.
    #[error("the ledger denies it: {}", .0.verdict().rules().join(", "))]
    Verdict(Box<Denial>),
    /// There is no verdict: the intent, or the verdict, is not proven to be on record. It may
    /// become so later.
    #[error("no verdict, so it is denied: {0}")]
    Failed(#[from] RecorderError),
}

/// The ledger's verdict on an intent, proven to be in the log.
#[derive(Debug)]
pub struct Verdict {
    authorization: wire::Authorization,
    event: Bytes,
    proof: TlogProof,
}

/// An intent and the verdict on it.
#[derive(Debug)]
struct Answer {
    event_id: Bytes,
    intent: Recorded,
    verdict: Arc<Verdict>,
}

impl Recorder {
    /// Asks the ledger whether an access may happen, and waits for the answer.
    ///
    /// `intent` is an event with an `Access` that tells what is about to be done; its outcome is
    /// REQUESTED, or absent and filled in. It is numbered, sealed, repeated and, with a spool, kept
    /// like every other event: an intent whose answer did not come in time may still be recorded,
    /// and be allowed, later.
    ///
    /// # Errors
    ///
    /// [`Denied::Verdict`] when the ledger says no. [`Denied::Failed`] for everything else:
    /// [`RecorderError::Kind`] for another event than an intent; [`RecorderError::Deadline`]
    /// without a proven verdict within the recorder's deadline; [`RecorderError::Evidence`] when a
    /// proof does not hold, which ends the recorder; [`RecorderError::Genesis`] when the ledger
    /// does not tell which source is its own; else as [`Recorder::record`] and
    /// [`Ticket::receipt`].
    pub async fn authorize(&self, intent: wire::Event) -> Result<Permit, Denied> {
        let intent = complete(intent_of(intent)?)?;
        let waited = self.deadline();
        let answer = match timeout(waited, self.ask(intent)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(RecorderError::Deadline { waited }.into()),
        };
        if answer.verdict.is_allowed() {
            Ok(Permit { answer, recorder: self.acceptor() })
        } else {
            Err(Denied::Verdict(Box::new(Denial { answer })))
        }
    }

    async fn ask(&self, event: wire::Event) -> Result<Answer, RecorderError> {
        // Verdicts are judged when they arrive, and by this name.
        self.learn_own_source().await?;
        let event_id = event.event_id.clone();
        let intent = self.acceptor().accept_intent(event.encode_to_vec().into()).await?;
        let intent = intent.receipt().await?;
        let verdict = intent.verdict().cloned();
        let verdict = verdict.ok_or(RecorderError::Unanswered { seq: intent.seq() })?;
        Ok(Answer { event_id, intent, verdict })
    }
}

impl Permit {
    /// Records what was done: an event with the `Access` that this permit allowed. Filled in are
    /// the intent that it carries out and, where the event names none, the verdict's grant and
    /// policy version. A permit is for one access.
    ///
    /// # Errors
    ///
    /// [`RecorderError::Kind`] for an event without `Access`, or with one that is an intent itself;
    /// else as [`Recorder::record`].
    pub async fn access(self, mut event: wire::Event) -> Result<Ticket, RecorderError> {
        let access = match &mut event.body {
            Some(EventBody::Access(access)) if access.outcome != REQUESTED => access,
            _ => return Err(RecorderError::Kind { wanted: "an access that happened" }),
        };
        access.intent = Some(self.answer.reference());
        let verdict = &self.answer.verdict;
        for (field, value) in [
            (&mut access.grant_id, verdict.grant_id()),
            (&mut access.policy_version, verdict.policy_version()),
        ] {
            if field.is_empty() {
                value.clone_into(field);
            }
        }
        self.recorder.accept(complete(event)?.encode_to_vec().into()).await
    }

    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.answer.verdict
    }

    /// The recorded intent.
    #[must_use]
    pub const fn intent(&self) -> &Recorded {
        &self.answer.intent
    }

    /// The intent as an event refers to it that a caller records by itself.
    #[must_use]
    pub fn reference(&self) -> wire::EventReference {
        self.answer.reference()
    }
}

impl Denial {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.answer.verdict
    }

    /// The recorded intent.
    #[must_use]
    pub const fn intent(&self) -> &Recorded {
        &self.answer.intent
    }
}

impl Answer {
    fn reference(&self) -> wire::EventReference {
        let index = Some(self.intent.index().0);
        wire::EventReference { event_id: self.event_id.clone(), index }
    }
}

impl Verdict {
    /// Whether the access may happen: only the one value that says so does.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.authorization.decision == i32::from(AuthorizationDecision::Allow)
    }

    /// Ids of the rules that decided.
    #[must_use]
    pub fn rules(&self) -> &[String] {
        &self.authorization.rules
    }

    /// The policy that was in force.
    #[must_use]
    pub fn policy_version(&self) -> &str {
        &self.authorization.policy_version
    }

    /// The grant that the access rests on; empty: none.
    #[must_use]
    pub fn grant_id(&self) -> &str {
        &self.authorization.grant_id
    }

    /// Where the verdict lies in the log.
    #[must_use]
    pub const fn index(&self) -> Index {
        self.proof.index
    }

    /// The bytes of the verdict's event.
    #[must_use]
    pub const fn event(&self) -> &Bytes {
        &self.event
    }

    /// The proof of the verdict's entry, for a file that others can verify.
    #[must_use]
    pub const fn proof(&self) -> &TlogProof {
        &self.proof
    }

    /// Judges the ledger's verdict on an intent of this id at this index, under the verified
    /// checkpoint of `place`.
    ///
    /// # Errors
    ///
    /// [`EvidenceFault::Mismatch`] when it is another source's than the ledger's `own`, another
    /// event than its entry commits to, no `Authorization`, or one of another intent;
    /// [`EvidenceFault::Receipt`] when the entry is malformed or not in the tree.
    pub(crate) fn judge(
        own: &SourceName,
        (event_id, index): (&[u8], Index),
        place: &Place,
        found: &wire::RecordedVerdict,
    ) -> Result<Self, EvidenceFault> {
        let checkpoint = &place.checkpoint;
        let note = checkpoint.note().as_bytes();
        let (entry, proof) = proof_of((found.index, &found.entry), &found.inclusion_path, note)?;
        let authorization = authorization(&found.event)
            .ok_or(EvidenceFault::Mismatch { field: "body of the verdict" })?;
        let intent = authorization.intent.clone().unwrap_or_default();
        let same = [
            (entry.index == proof.index && entry.index > index, "index of the verdict"),
            (entry.source == own.as_name(), "source of the verdict"),
            (entry.event_digest == sha256(&found.event), "event of the verdict"),
            (*intent.event_id == *event_id && intent.index == Some(index.0), "intent"),
        ];
        expect_all(&same)?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(proof.index, size, leaf_hash(&proof.entry), &proof.path, root)
            .map_err(ReceiptError::from)?;
        Ok(Self { authorization, event: found.event.clone(), proof })
    }
}

/// The id of an event that is an intended access; `None` for every other event.
pub(crate) fn intent_id(event: &Bytes) -> Option<Bytes> {
    let body = event::body(event).filter(|body| body.number == Body::ACCESS)?;
    let access = wire::Access::decode(body.bytes).ok()?;
    if access.outcome != REQUESTED {
        return None;
    }
    Some(wire::Event::decode(event.clone()).ok()?.event_id)
}

/// The ledger's own source, as the genesis names it: `found` proves that its entry is under a
/// checkpoint that the ledger of this key signed. `None` while that has not its quorum.
///
/// # Errors
///
/// [`RecorderError::Genesis`] when it proves nothing.
pub(crate) fn own_source(
    ledger: &VerifierKey,
    quorum: &Quorum,
    found: &wire::GetReceiptResponse,
    event: &Bytes,
) -> Result<Option<SourceName>, RecorderError> {
    let (entry, proof) = entry_proof(found).map_err(unproven)?;
    let checkpoint = proof.verify(ledger, &quorum.keys()).map_err(unproven)?;
    if !quorum.is_met(checkpoint.cosignatures()) {
        return Ok(None);
    }
    let same =
        [(entry.index == Index::GENESIS, "index"), (entry.event_digest == sha256(event), "event")];
    expect_all(&same).map_err(unproven)?;
    let sources = Sources::from_genesis(event).map_err(unproven)?;
    // Its key may be another one by now; the proof is under the known one.
    if sources.genesis().origin != ledger.name() {
        return Err(unproven("genesis of another ledger"));
    }
    SourceName::parse(sources.ledger_source()).map(Some).map_err(unproven)
}

/// An event that is an intent, with what may be absent filled in.
fn intent_of(mut event: wire::Event) -> Result<wire::Event, RecorderError> {
    match &mut event.body {
        Some(EventBody::Access(access))
            if [REQUESTED, i32::from(Outcome::Unspecified)].contains(&access.outcome) =>
        {
            access.outcome = REQUESTED;
            Ok(event)
        }
        _ => Err(RecorderError::Kind { wanted: "an access with the outcome REQUESTED" }),
    }
}

/// The `Authorization` of an event that keeps its rules, so that it has one reading.
fn authorization(event: &[u8]) -> Option<wire::Authorization> {
    let body = event::validate(event, u64::MAX).ok()?;
    if body.number != Body::AUTHORIZATION {
        return None;
    }
    wire::Authorization::decode(body.bytes).ok()
}

fn unproven(problem: impl ToString) -> RecorderError {
    RecorderError::Genesis { problem: problem.to_string() }
}

/// The outcome of an intent, as messages carry it.
const REQUESTED: i32 = Outcome::Requested as i32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Services ask from tasks that move between threads.
    #[test]
    fn whoever_asks_may_move_between_threads() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        let _asked = |recorder: &Recorder| drop(is_send(recorder.authorize(Default::default())));
    }
}
