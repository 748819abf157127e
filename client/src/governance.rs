//! Approvals, for those who ask and for those who answer: requests, decisions, and what becomes of
//! a grant; with the feature `audit` also proposals to change a rule, which two parties sign.
//!
//! Each function records one event through a [`Recorder`] of whoever acts, and answers once a
//! verified receipt proves that the event is in the ledger. That it is there does not say that it
//! has an effect: an approval of one's own request, or by a source without the role to approve, is
//! recorded too, and found. What is in force follows from the log alone
//! (`access_ledger_proto::facts`).

use access_ledger_proto::wire::{self, GrantState, Verdict, event::Body};
use thiserror::Error;

use crate::{
    error::RecorderError,
    recorder::{Recorded, Recorder},
};

#[cfg(feature = "audit")]
pub mod proposal;

/// Why nothing was asked for, answered or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GovernanceError {
    /// The event was not recorded, or is not known to be.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// A grant that would end before it begins: the caller must correct the times.
    #[error("grant would end at {not_after}, not later than it begins, at {not_before}")]
    EmptyWindow {
        /// Begin, RFC 3339.
        not_before: String,
        /// End, RFC 3339.
        not_after: String,
    },
    /// An extension that does not say until when.
    #[error("extension without a new end")]
    NoEnd,
    /// The system gave no random bytes for an id.
    #[error("no random bytes from the system")]
    Random,
}

/// A request that is in the ledger.
#[derive(Clone, Debug)]
pub struct Requested {
    /// What approvers answer.
    pub request_id: String,
    /// Its verified receipt.
    pub recorded: Recorded,
}

/// An answer that is in the ledger.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The request.
    pub request_id: String,
    /// The answer.
    pub verdict: Verdict,
    /// Of an approval: the grant that it makes, if it is the first that counts.
    pub grant_id: Option<String>,
    /// Its verified receipt.
    pub recorded: Recorded,
}

/// A change of a grant that is in the ledger.
#[derive(Clone, Debug)]
pub struct GrantChanged {
    /// The grant.
    pub grant_id: String,
    /// What it was changed to.
    pub state: GrantState,
    /// Its verified receipt.
    pub recorded: Recorded,
}

/// Asks for access in the name of `actor`. An absent `request_id` is filled in with a random one.
///
/// Of the scope, an empty list does not restrict.
///
/// # Errors
///
/// [`GovernanceError::Random`]; [`GovernanceError::Recorder`] for a request that breaks the rules
/// of `event.proto`, and whatever else recording can meet.
pub async fn request(
    recorder: &Recorder,
    actor: wire::Principal,
    mut request: wire::AccessRequest,
) -> Result<Requested, GovernanceError> {
    if request.request_id.is_empty() {
        request.request_id = random_id("req-")?;
    }
    let request_id = request.request_id.clone();
    let body = Some(Body::AccessRequest(request));
    let event = wire::Event { actor: Some(actor), body, ..Default::default() };
    Ok(Requested { request_id, recorded: record(recorder, event).await? })
}

/// Answers a request, as the approver whose source `recorder` records for. Whose key that is, its
/// registration says; `actor` may add for whom the approver works.
///
/// # Errors
///
/// [`GovernanceError::EmptyWindow`] for a grant that could never be in force;
/// [`GovernanceError::Recorder`].
pub async fn decide(
    recorder: &Recorder,
    actor: Option<wire::Principal>,
    decision: wire::Decision,
) -> Result<Decided, GovernanceError> {
    if let (Some(not_before), Some(not_after)) = (decision.not_before, decision.not_after)
        && (not_after.seconds, not_after.nanos) <= (not_before.seconds, not_before.nanos)
    {
        let (not_before, not_after) = (not_before.to_string(), not_after.to_string());
        return Err(GovernanceError::EmptyWindow { not_before, not_after });
    }
    let (request_id, verdict) = (decision.request_id.clone(), decision.verdict());
    let grant_id = (verdict == Verdict::Approve).then(|| match decision.grant_id.as_str() {
        "" => request_id.clone(),
        named => named.to_owned(),
    });
    let body = Some(Body::Decision(decision));
    let recorded = record(recorder, wire::Event { actor, body, ..Default::default() }).await?;
    Ok(Decided { request_id, verdict, grant_id, recorded })
}

/// Revokes, extends, suspends, resumes or ends a grant.
///
/// # Errors
///
/// [`GovernanceError::NoEnd`] for an extension without a new end; [`GovernanceError::Recorder`].
pub async fn change_grant(
    recorder: &Recorder,
    change: wire::GrantChange,
) -> Result<GrantChanged, GovernanceError> {
    if change.state() == GrantState::Extended && change.not_after.is_none() {
        return Err(GovernanceError::NoEnd);
    }
    let (grant_id, state) = (change.grant_id.clone(), change.state());
    let body = Some(Body::GrantChange(change));
    let recorded = record(recorder, wire::Event { body, ..Default::default() }).await?;
    Ok(GrantChanged { grant_id, state, recorded })
}

async fn record(recorder: &Recorder, event: wire::Event) -> Result<Recorded, GovernanceError> {
    Ok(recorder.record(event).await?.receipt().await?)
}

/// An id that nobody else gives, whoever asks at the same time.
fn random_id(prefix: &str) -> Result<String, GovernanceError> {
    let random = getrandom::u64().map_err(|_| GovernanceError::Random)?;
    Ok(format!("{prefix}{random:016x}"))
}
