//! What can go wrong in this crate, one enum a stage.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use access_ledger_proto::{
    error::{CheckpointError, EventError, NameError, ReceiptError, SealError, SourceError},
    hash::Digest,
    note::KeyId,
    position::{Index, Size},
};
use bytes::Bytes;
use thiserror::Error;
use tonic::Status;

/// A ledger cannot be reached, or a source not be enrolled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No usable address: the caller must correct it.
    #[error("address {uri} is none of the form http://host:port or https://host:port")]
    Address {
        /// The address found.
        uri: String,
    },
    /// The credentials cannot be used, or not with this address: the caller must correct them.
    #[error("credentials: {problem}")]
    Credentials {
        /// What is wrong with them.
        problem: String,
    },
    /// A file of credentials cannot be used: the caller must correct it.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers there: the caller must correct the address, or the operator start the ledger.
    #[error("cannot reach {uri}: {problem}")]
    Unreachable {
        /// The address.
        uri: String,
        /// What the system says.
        problem: String,
    },
    /// The key's name is no source's name, or its type is not Ed25519.
    #[error("key {name} cannot be a source's: {fault}")]
    Key {
        /// Name of the key.
        name: String,
        /// What is wrong with it.
        fault: SealError,
    },
    /// As before, for the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The roles are unknown, or none.
    #[error(transparent)]
    Roles(#[from] SourceError),
    /// The ledger refused, or could not be reached.
    #[error("ledger answered {:?}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// No answer in time.
    #[error("no answer from the ledger within {waited:?}")]
    Deadline {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The ledger answered an enrolment with something else: it must be confronted with the
    /// evidence.
    #[error("answer to the enrolment does not hold: {fault}")]
    Answer {
        /// What is wrong with it.
        fault: EvidenceFault,
        /// The answer, as it was received.
        evidence: Bytes,
    },
}

impl From<Status> for ConnectError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Why an event was not recorded, or is not known to be. Cheap to clone: all tickets that wait
/// share it.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// The event breaks a rule of `event.proto`: the caller must correct it. Nothing was recorded.
    #[error(transparent)]
    Event(#[from] EventError),
    /// No room in memory or in the spool; only `try_record` says so. Nothing was recorded.
    #[error("no room for an event of {bytes} bytes")]
    Full {
        /// Length of the event.
        bytes: usize,
    },
    /// The recorder was closed or dropped.
    #[error("recorder is closed")]
    Closed,
    /// The system gave no random bytes for an event id. Nothing was recorded.
    #[error("no random bytes from the system")]
    Random,
    /// The recorder could not learn in time where its source stands, or stop in time.
    #[error("no answer from the ledger within {waited:?}")]
    Deadline {
        /// How long it waited.
        waited: Duration,
    },
    /// The key's name is no source's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The batch could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The ledger at the other end is another than the one whose key is known.
    #[error("ledger calls itself {found}, the known key is that of {wanted}")]
    Origin {
        /// What the ledger says.
        found: String,
        /// Name of the known key.
        wanted: String,
    },
    /// The quorum is for other ledgers.
    #[error("trust policy accepts other logs than {origin}")]
    OtherLog {
        /// Name of the ledger.
        origin: String,
    },
    /// The source is registered with another key.
    #[error("source is registered with key {found:x}, the recorder has {wanted}")]
    Key {
        /// Key id as the ledger told it.
        found: Bytes,
        /// Key id of the recorder's key.
        wanted: KeyId,
    },
    /// The ledger refused for good: repeating would not help.
    #[error("ledger refused, {:?}: {}", .0.code(), .0.message())]
    Refused(Arc<Status>),
    /// The ledger's proof does not hold: the ledger is broken, or lies. Keep the evidence.
    #[error("proof for the events from number {first_seq} on does not hold: {fault}")]
    Evidence {
        /// Number of the first event that the proof is for.
        first_seq: u64,
        /// What is wrong with it.
        fault: EvidenceFault,
        /// The ledger's answer, as it was received.
        evidence: Bytes,
    },
    /// The ledger has lost events that it had proven to hold. The receipts are the evidence.
    #[error("ledger knows numbers up to {found}, it has proven to hold {wanted}")]
    Lost {
        /// The last number that it claims to know.
        found: u64,
        /// The last number with a verified receipt.
        wanted: u64,
    },
    /// Somebody else recorded under this source's key, or from a copy of this spool.
    #[error("number {seq} holds an event that this recorder did not record")]
    Reused {
        /// The number.
        seq: u64,
        /// Where the other event lies, when that is known.
        index: Option<Index>,
    },
    /// The event is of another kind than the call is for. Nothing was recorded.
    #[error("the event is not {wanted}")]
    Kind {
        /// What it would have to be.
        wanted: &'static str,
    },
    /// The ledger does not prove which source is its own, so its verdicts cannot be told from
    /// anybody's.
    #[error("genesis of the ledger is not proven: {problem}")]
    Genesis {
        /// What is wrong with the answer.
        problem: String,
    },
    /// The intent is recorded, but the verdict on it was lost with the connection.
    #[error("intent with number {seq} is recorded, its verdict is not known")]
    Unanswered {
        /// The intent's number.
        seq: u64,
    },
    /// The spool failed: the operator must act.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What is wrong with an answer of the ledger.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum EvidenceFault {
    /// The receipt or proof does not verify.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The checkpoint does not verify.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The ledger went back behind a checkpoint that it had signed.
    #[error("checkpoint of size {found}, one of size {newest} was seen before")]
    Rollback {
        /// Size of the checkpoint in the answer.
        found: Size,
        /// Size of the newest one seen.
        newest: Size,
    },
    /// Two roots for one size: the ledger signed two histories.
    #[error("root {found} at size {size}, another checkpoint has {known}")]
    Fork {
        /// The size that both have.
        size: Size,
        /// Root in the answer.
        found: Digest,
        /// Root seen before.
        known: Digest,
    },
    /// The proof is for another entry than the one asked for.
    #[error("proof is for another {field} than the one asked for")]
    Mismatch {
        /// What differs.
        field: &'static str,
    },
    /// An intent has no verdict, or an event has one that is none.
    #[error("{found} verdicts on {wanted} intents")]
    Verdicts {
        /// Verdicts in the answer.
        found: usize,
        /// Intents in the batch.
        wanted: usize,
    },
    /// An answer that nothing was sent for.
    #[error("answer without a question")]
    Unasked,
}

/// A report cannot be computed.
#[cfg(feature = "audit")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// No report has this name: the caller must correct it.
    #[error("no report is called {found:?}; there are {}", crate::reports::Report::names())]
    Name {
        /// The name found.
        found: String,
    },
    /// Not a date: the caller must correct it.
    #[error("date {found:?} is none of the form 2026-03-31, from 1970 on")]
    Date {
        /// The text found.
        found: String,
    },
    /// Not whole days, or none: the caller must correct it. In nanoseconds since the Unix epoch.
    #[error("period from {from} ns to {to} ns, expected two midnights in UTC, the earlier first")]
    Period {
        /// Where it begins.
        from: u64,
        /// Where it ends.
        to: u64,
    },
    /// The report "subject" needs to know about whom: the caller must name a token.
    #[error("report subject without a subject token")]
    NoSubject,
    /// More rows than whoever computes the report holds at once: the caller must ask for less.
    #[error("more than {most} rows, ask for a shorter period")]
    TooManyRows {
        /// The most that there may be.
        most: u64,
    },
    /// What rows are computed from cannot be read: the operator must act.
    #[error("what the report rests on cannot be read: {problem}")]
    Ground {
        /// What went wrong.
        problem: String,
    },
}

/// The spool cannot be used.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The system refused a file operation. After one the spool is not written any more.
    #[error("file operation of the spool failed: {0}")]
    Io(Arc<io::Error>),
    /// Another process uses it.
    #[error("spool {} is used by another process", .folder.display())]
    Locked {
        /// The spool's folder.
        folder: PathBuf,
    },
    /// Bytes that were synced are not what was written.
    #[error("spool file {file} is damaged at offset {offset}: found {found}, wanted {wanted}")]
    Damaged {
        /// Name of the file in the spool's folder.
        file: String,
        /// Offset of the first frame that does not hold.
        offset: u64,
        /// What stands there.
        found: &'static str,
        /// What would hold.
        wanted: &'static str,
    },
    /// The spool belongs to another source, key or ledger.
    #[error("spool belongs to {found}, the recorder is {wanted}")]
    Foreign {
        /// Whose it is: source, key id, origin.
        found: String,
        /// Who opened it.
        wanted: String,
    },
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
