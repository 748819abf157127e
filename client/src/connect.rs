//! The way to a ledger: channels with the options that its services need, credentials, and
//! enrolment.
//!
//! [`Credentials`] is what to begin with where a server asks who calls; [`channel`] and [`reach`]
//! are for servers that do not.

mod credentials;
mod link;

use std::time::Duration;

use access_ledger_proto::{
    enrolment::EnrolmentClaim,
    entry::Entry,
    error::{ReceiptError, SealError},
    event::{self, Body},
    facts::sources::{Roles, heartbeat_nanos},
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::Index,
    receipt::TlogProof,
    source::{Name, SourceName},
    wire::{
        self, audit_service_client::AuditServiceClient,
        recorder_service_client::RecorderServiceClient,
    },
};
use bytes::Bytes;
use prost::Message as _;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

pub(crate) use self::credentials::read_secret;
pub use self::{
    credentials::{CredentialFiles, Credentials},
    link::Link,
};
use crate::error::{ConnectError, EvidenceFault};

/// An address with the options that the ledger's services need; nothing is connected yet.
///
/// `uri` as in `http://127.0.0.1:7070`, or `https://ledger.example:7070`, whose certificate one of
/// the system's authorities must vouch for.
///
/// # Errors
///
/// [`ConnectError::Address`] for anything that is no such address; [`ConnectError::Credentials`]
/// when the system has no authorities.
pub fn endpoint(uri: &str) -> Result<Endpoint, ConnectError> {
    Credentials::default().endpoint(uri)
}

/// The address alone.
fn endpoint_of(uri: &str) -> Result<Endpoint, ConnectError> {
    let unusable = || ConnectError::Address { uri: uri.to_owned() };
    let endpoint = Endpoint::from_shared(uri.to_owned()).map_err(|_| unusable())?;
    let is_known = matches!(endpoint.uri().scheme_str(), Some("http" | "https"));
    if !is_known || endpoint.uri().host().is_none() {
        return Err(unusable());
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .max_frame_size(FRAME_BYTES_MAX)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A channel that connects when it is first used, and again whenever the connection breaks.
///
/// Call it inside a tokio runtime.
///
/// # Errors
///
/// As [`endpoint`].
pub fn channel(uri: &str) -> Result<Channel, ConnectError> {
    Ok(endpoint(uri)?.connect_lazy())
}

/// As [`channel`], once somebody listens there.
///
/// # Errors
///
/// As [`endpoint`]; [`ConnectError::Unreachable`] when nobody does.
pub async fn reach(uri: &str) -> Result<Channel, ConnectError> {
    reach_endpoint(uri, &endpoint(uri)?).await
}

async fn reach_endpoint(uri: &str, endpoint: &Endpoint) -> Result<Channel, ConnectError> {
    endpoint.connect().await.map_err(|error| {
        let error: &(dyn std::error::Error + 'static) = &error;
        let causes = std::iter::successors(Some(error), |error| error.source());
        let problem = causes.last().map_or_else(String::new, ToString::to_string);
        ConnectError::Unreachable { uri: uri.to_owned(), problem }
    })
}

/// A client of `RecorderService` with the message limits of the ledger.
#[must_use]
pub fn recorder_client(link: impl Into<Link>) -> RecorderServiceClient<Link> {
    RecorderServiceClient::new(link.into())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of `AuditService` with the message limits of the ledger.
#[must_use]
pub fn audit_client(link: impl Into<Link>) -> AuditServiceClient<Link> {
    AuditServiceClient::new(link.into()).max_decoding_message_size(AUDIT_MESSAGE_BYTES_MAX)
}

/// A registration that the ledger has proven to hold.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Where it lies.
    pub index: Index,
    /// Its entry under a checkpoint, as a file for others.
    pub proof: TlogProof,
}

/// Registers the source that `key` is named like: below `parent` when one vouches, else by itself,
/// where the ledger allows that. Enrolling again with the same key and roles answers like the first
/// time.
///
/// `heartbeat` is the silence that the source allows itself, longer is a finding; zero: it may be
/// silent. `ledger` is the ledger's key, whose name is the origin. The answer is verified: the
/// event says what was asked for, and its entry is in a tree that the ledger signed. That the
/// ledger may register sources at all is for auditors to see.
///
/// # Errors
///
/// [`ConnectError::Name`], [`ConnectError::Key`] for a key that no source can have;
/// [`ConnectError::Roles`] without roles; [`ConnectError::Refused`], [`ConnectError::Deadline`]
/// from the ledger; [`ConnectError::Answer`] with the evidence when the answer does not hold.
pub async fn enroll(
    link: impl Into<Link>,
    ledger: &VerifierKey,
    key: &Signer,
    roles: Roles,
    parent: Option<&Signer>,
    heartbeat: Duration,
) -> Result<Enrolled, ConnectError> {
    let source = source_of(key)?;
    let roles = Roles::parse(&roles.values())?;
    // A longer one than the message can hold is as good as none.
    let interval = prost_types::Duration::try_from(heartbeat).ok().filter(|_| !heartbeat.is_zero());
    let claim = EnrolmentClaim {
        source: source.as_name(),
        public_key: key.verifier().public_key(),
        roles,
        heartbeat_nanos: heartbeat_nanos(interval.as_ref()),
    };
    let message = claim.message(ledger.name());
    let sign = |signer: &Signer| Bytes::copy_from_slice(&signer.sign(message.as_bytes()));
    let asked = wire::EnrollRequest {
        source: source.as_str().to_owned(),
        public_key: Bytes::copy_from_slice(claim.public_key.as_bytes()),
        roles: roles.values(),
        heartbeat_interval: interval,
        enrolment: Some(wire::Enrolment {
            possession: sign(key),
            parent: parent.map_or_else(String::new, |parent| parent.name().to_owned()),
            parent_signature: parent.map_or_else(Bytes::new, sign),
        }),
    };
    let answer = answer(recorder_client(link).enroll(asked.clone())).await?;
    judge_enrolment(ledger, &asked, &answer)
        .map_err(|fault| ConnectError::Answer { fault, evidence: answer.encode_to_vec().into() })
}

/// That the registration says what was asked for, and is in the log.
fn judge_enrolment(
    ledger: &VerifierKey,
    asked: &wire::EnrollRequest,
    answer: &wire::EnrollResponse,
) -> Result<Enrolled, EvidenceFault> {
    let status = event::body(&answer.event)
        .filter(|body| body.number == Body::SOURCE_STATUS)
        .and_then(|body| wire::SourceStatus::decode(body.bytes).ok())
        .ok_or(EvidenceFault::Mismatch { field: "event" })?;
    let enrolment = status.enrolment.as_ref();
    let mut roles = asked.roles.clone();
    roles.sort_unstable();
    let mut registered = status.roles.clone();
    registered.sort_unstable();
    let same = [
        (status.phase() == wire::SourcePhase::Registered, "phase"),
        (status.source == asked.source, "source"),
        (status.public_key == asked.public_key, "public_key"),
        (registered == roles, "roles"),
        (enrolment == asked.enrolment.as_ref(), "enrolment"),
        (status.heartbeat_interval == asked.heartbeat_interval, "heartbeat_interval"),
    ];
    expect_all(&same)?;
    // The ledger seals a registration alone, so the receipt's path is that of its entry.
    let receipt = answer.receipt.as_ref().ok_or(EvidenceFault::Mismatch { field: "receipt" })?;
    let place = (answer.index, &answer.entry);
    let (entry, proof) = proof_of(place, &receipt.inclusion_path, &receipt.checkpoint)?;
    let same = [
        (entry.index == Index(answer.index), "index"),
        (entry.event_digest == sha256(&answer.event), "event"),
    ];
    expect_all(&same)?;
    proof.verify(ledger, &[])?;
    Ok(Enrolled { index: proof.index, proof })
}

/// The entry that an answer is about, and its proof, which is not verified.
pub(crate) fn entry_proof(
    found: &wire::GetReceiptResponse,
) -> Result<(Entry<'_>, TlogProof), EvidenceFault> {
    let checkpoint = found.receipt.as_ref().map(|receipt| receipt.checkpoint.clone());
    let place = (found.index, &found.entry);
    proof_of(place, &found.inclusion_path, &checkpoint.unwrap_or_default())
}

/// Reads an entry, its path and the checkpoint that the path leads to.
pub(crate) fn proof_of<'a>(
    (index, entry): (u64, &'a Bytes),
    path: &[Bytes],
    checkpoint: &[u8],
) -> Result<(Entry<'a>, TlogProof), EvidenceFault> {
    let parsed = Entry::parse(entry).map_err(ReceiptError::from)?;
    let path = path.iter().map(|hash| {
        Digest::from_slice(hash)
            .ok_or(ReceiptError::Hash { field: "inclusion_path", len: hash.len() })
    });
    let checkpoint = String::from_utf8(checkpoint.to_vec())
        .map_err(|_| EvidenceFault::Mismatch { field: "checkpoint" })?;
    let proof = TlogProof {
        entry: entry.to_vec(),
        index: Index(index),
        path: path.collect::<Result<_, _>>()?,
        checkpoint,
    };
    Ok((parsed, proof))
}

/// Names the first field that is not the same.
pub(crate) fn expect_all(same: &[(bool, &'static str)]) -> Result<(), EvidenceFault> {
    match same.iter().find(|(holds, _)| !holds) {
        Some(&(_, field)) => Err(EvidenceFault::Mismatch { field }),
        None => Ok(()),
    }
}

/// The source that a key is named like.
fn source_of(key: &Signer) -> Result<SourceName, ConnectError> {
    if key.verifier().key_type() != KeyType::Ed25519 {
        let name = key.name().to_owned();
        return Err(ConnectError::Key { name, fault: SealError::Key });
    }
    Ok(Name::parse(key.name().as_bytes())?.to_owned())
}

/// One answer, in time.
async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ConnectError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(ConnectError::Deadline { waited: ANSWER_TIMEOUT }),
    }
}

/// Twice the largest batch: events of 4 MiB, and what surrounds them.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Twice what `audit.proto` allows. Auditors hold some messages in memory, so this is their bound.
pub(crate) const AUDIT_MESSAGE_BYTES_MAX: usize = 2 << 20;

/// Of what servers send: a run of entries takes a few system calls, not thirty.
const FRAME_BYTES_MAX: u32 = 128 << 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shorter than the idle timeouts of common load balancers and address translators.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A ledger that is silent for so long is taken for dead.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
