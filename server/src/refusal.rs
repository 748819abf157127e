//! What a caller is told: every reason to refuse a call, with its gRPC code and rich details.
//!
//! The codes and reasons are listed in `recorder.proto` and `audit.proto`. Details follow the gRPC
//! rich error model: `ErrorInfo` always, `BadRequest` where a field is to blame, `RetryInfo` where
//! repeating the same call helps.

use std::{collections::HashMap, time::Duration};

use access_ledger_proto::{
    error::{
        ControlError, ControlRefusal, EventError, Kept, RedactionError, SealError, SequenceGap,
        SourceError,
    },
    position::{Index, Size},
    source::SourceName,
};
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::{error, warn};

/// Why a call was refused.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An event of the batch breaks a rule; nothing of the batch was recorded.
    #[error("event {position} of the batch: {error}")]
    Event {
        /// 0-based place in the batch.
        position: usize,
        /// What is wrong with it.
        error: EventError,
    },
    /// A field of the request is malformed.
    #[error("{field}: {problem}")]
    Request {
        /// Path of the field.
        field: &'static str,
        /// What was found and what was wanted.
        problem: String,
    },
    /// The source may not do this.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A change of the rules that would have no effect.
    #[error(transparent)]
    Control(#[from] ControlRefusal),
    /// A redaction covers an event that is never erased.
    #[error("event at index {index} {kept}")]
    Kept {
        /// The first such event.
        index: Index,
        /// Why it is not.
        kept: Kept,
    },
    /// A redaction covers nothing that is not erased already.
    #[error("events from {first} to {last} are erased already")]
    Erased {
        /// The first of them.
        first: Index,
        /// The last one.
        last: Index,
    },
    /// The seal does not hold.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Numbers are missing before the batch.
    #[error(transparent)]
    Gap(#[from] SequenceGap),
    /// The batch repeats recorded events, but another cut of them.
    #[error(
        "events from number {first_seq} on are recorded in other batches, go on with {expected}"
    )]
    Recut {
        /// The batch's first number.
        first_seq: u64,
        /// The source's next number.
        expected: u64,
    },
    /// A number was used before, for another event.
    #[error("number {seq} of source {name} was used at index {index} for another event")]
    Reused {
        /// The source.
        name: SourceName,
        /// The number.
        seq: u64,
        /// Where the first event with the number is.
        index: Index,
    },
    /// The waiting room is full.
    #[error("queue is full, {waiting_bytes} bytes wait")]
    QueueFull {
        /// Bytes that wait.
        waiting_bytes: usize,
    },
    /// The server is about to stop.
    #[error("server is stopping")]
    Stopping,
    /// A write or sync failed; the server takes no more until it is restarted.
    #[error("storage failed, the ledger takes no more appends until it is restarted")]
    StorageFailed,
    /// The disk has less space left than is kept in reserve; reads go on, and so do appends as soon
    /// as there is space.
    #[error("disk has {free_bytes} bytes left, {reserve_bytes} are kept in reserve")]
    DiskFull {
        /// What is free.
        free_bytes: u64,
        /// What is kept free.
        reserve_bytes: u64,
    },
    /// Stored data could not be read back.
    #[error("stored data cannot be read")]
    Unreadable {
        /// What the storage said, which is for the operator.
        problem: String,
    },
    /// The index, which finds events by their number, is being built again.
    #[error("index is not there yet")]
    Indexing {
        /// What the index said, which is for the operator.
        problem: String,
    },
    /// What is asked for is recorded, and to be proven under cosignatures that have not arrived
    /// yet.
    #[error("the entry at index {index} is recorded, its receipt waits for cosignatures")]
    QuorumPending {
        /// The last entry that the receipt is for.
        index: Index,
    },
    /// Who reads cannot be recorded, and this is not to be read without.
    #[error("the search cannot be recorded, so it is not answered: {problem}")]
    ReadUnrecorded {
        /// What the ledger said.
        problem: String,
    },
    /// Beyond the newest checkpoint.
    #[error("{what} {found} is beyond the tree of size {size}")]
    BeyondTree {
        /// "index" or "size".
        what: &'static str,
        /// What was asked for.
        found: u64,
        /// Size of the newest checkpoint.
        size: Size,
    },
    /// Nobody known makes the call.
    #[error("{problem}")]
    Unauthenticated {
        /// What was shown, and what is wanted.
        problem: String,
    },
    /// The caller is known, but may not make the call.
    #[error("principal {principal} has none of the roles for this call: {wanted}")]
    CallForbidden {
        /// The caller.
        principal: String,
        /// The roles that suffice.
        wanted: String,
    },
    /// The caller may speak for other sources only.
    #[error("principal {principal} may not speak for source {source_name}")]
    SourceForbidden {
        /// The caller.
        principal: String,
        /// The source in the request.
        source_name: String,
    },
    /// The caller makes more calls a second than it may.
    #[error("principal {principal} makes more calls a second than it may")]
    RateExceeded {
        /// The caller.
        principal: String,
        /// When it may make the next one.
        retry_after: Duration,
    },
    /// The caller makes more calls at once than it may.
    #[error("principal {principal} makes more calls at once than the {most} it may")]
    CallsExceeded {
        /// The caller.
        principal: String,
        /// Its limit.
        most: u32,
    },
    /// The request did not arrive, or was not answered, in time.
    #[error("neither received nor answered within {limit:?}")]
    Deadline {
        /// How long the server, or the caller by its own word, waits.
        limit: Duration,
    },
    /// Nothing of this name is served.
    #[error("nothing is served at {path}")]
    NoCall {
        /// The path asked for.
        path: String,
    },
    /// No such source.
    #[error("source {name} is not registered")]
    NoSource {
        /// The name.
        name: String,
    },
    /// The source has recorded no event with this number.
    #[error("source {name} has recorded no event with number {seq}")]
    NoEvent {
        /// The source.
        name: SourceName,
        /// The number.
        seq: u64,
    },
}

impl Refusal {
    /// `ErrorInfo.reason`, also the label of the metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Event { .. } => "EVENT_INVALID",
            Self::Request { field, .. } if field.starts_with("batch") => "BATCH_INVALID",
            Self::Request { .. } => "REQUEST_INVALID",
            Self::Source(error) => source_reason(error).1,
            Self::Seal(SealError::Count { .. } | SealError::Sequence { .. }) => "BATCH_INVALID",
            Self::Control(refusal) => control_reason(refusal).1,
            Self::Kept { .. } => "NOT_ERASABLE",
            Self::Erased { .. } => "ERASED_ALREADY",
            Self::Seal(_) => "SEAL_INVALID",
            Self::Gap(_) => "SEQUENCE_GAP",
            Self::Recut { .. } => "BATCH_RECUT",
            Self::Reused { .. } => "SEQUENCE_REUSED",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::Stopping => "STOPPING",
            Self::StorageFailed => "STORAGE_FAILED",
            Self::DiskFull { .. } => "DISK_FULL",
            Self::Unreadable { .. } => "STORAGE_DAMAGED",
            Self::Indexing { .. } => "INDEXING",
            Self::QuorumPending { .. } => "QUORUM_PENDING",
            Self::ReadUnrecorded { .. } => "READ_UNRECORDED",
            Self::BeyondTree { .. } => "BEYOND_TREE",
            Self::Unauthenticated { .. } => "UNAUTHENTICATED",
            Self::CallForbidden { .. } => "CALL_FORBIDDEN",
            Self::SourceForbidden { .. } => "SOURCE_FORBIDDEN",
            Self::RateExceeded { .. } => "RATE_EXCEEDED",
            Self::CallsExceeded { .. } => "CALLS_EXCEEDED",
            Self::Deadline { .. } => "DEADLINE",
            Self::NoCall { .. } => "CALL_UNKNOWN",
            Self::NoSource { .. } => "SOURCE_UNKNOWN",
            Self::NoEvent { .. } => "EVENT_UNKNOWN",
        }
    }

    const fn code(&self) -> Code {
        match self {
            Self::Event { .. }
            | Self::Request { .. }
            | Self::Seal(SealError::Count { .. } | SealError::Sequence { .. }) => {
                Code::InvalidArgument
            }
            Self::Source(error) => source_reason(error).0,
            Self::Control(refusal) => control_reason(refusal).0,
            Self::Seal(_) | Self::CallForbidden { .. } | Self::SourceForbidden { .. } => {
                Code::PermissionDenied
            }
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::NoCall { .. } => Code::Unimplemented,
            Self::Gap(_) | Self::Recut { .. } | Self::Kept { .. } | Self::Erased { .. } => {
                Code::FailedPrecondition
            }
            Self::Reused { .. } => Code::Aborted,
            Self::QueueFull { .. } | Self::RateExceeded { .. } | Self::CallsExceeded { .. } => {
                Code::ResourceExhausted
            }
            Self::Stopping
            | Self::StorageFailed
            | Self::Indexing { .. }
            | Self::DiskFull { .. }
            | Self::ReadUnrecorded { .. }
            | Self::QuorumPending { .. } => Code::Unavailable,
            Self::Unreadable { .. } => Code::DataLoss,
            Self::BeyondTree { .. } => Code::OutOfRange,
            Self::NoSource { .. } | Self::NoEvent { .. } => Code::NotFound,
        }
    }

    /// The field to blame, if one is.
    fn field(&self) -> Option<String> {
        match self {
            Self::Event { position, error } if error.path.is_empty() => {
                Some(format!("batch.events[{position}]"))
            }
            Self::Event { position, error } => {
                Some(format!("batch.events[{position}].{}", error.path))
            }
            Self::Request { field, .. } => Some((*field).to_owned()),
            // A change of the rules stands alone in its batch.
            Self::Control(refusal) => {
                Some(format!("batch.events[0].{}", control_reason(refusal).2))
            }
            Self::Seal(SealError::Count { .. }) => Some("batch.events".to_owned()),
            Self::Seal(SealError::Sequence { .. }) => Some("batch.first_seq".to_owned()),
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let pairs: Vec<(&str, String)> = match self {
            Self::Gap(gap) => vec![("expected_seq", gap.expected.to_string())],
            Self::Recut { expected, .. } => vec![("expected_seq", expected.to_string())],
            Self::Reused { seq, index, .. } => {
                vec![("seq", seq.to_string()), ("index", index.to_string())]
            }
            Self::Kept { index, .. } | Self::QuorumPending { index } => {
                vec![("index", index.to_string())]
            }
            Self::BeyondTree { size, .. } => vec![("size", size.to_string())],
            Self::Control(ControlRefusal::Policy(error)) => {
                vec![("line", error.line.to_string()), ("column", error.column.to_string())]
            }
            Self::Control(ControlRefusal::Control(ControlError::Revision { expected, .. })) => {
                vec![("expected_revision", expected.to_string())]
            }
            _ => Vec::new(),
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// When to repeat the same call, where that helps.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { .. } | Self::CallsExceeded { .. } => Some(QUEUE_RETRY),
            Self::DiskFull { .. } => Some(SPACE_RETRY),
            Self::RateExceeded { retry_after, .. } => Some(*retry_after),
            Self::QuorumPending { .. } => Some(QUORUM_RETRY),
            Self::Stopping | Self::Indexing { .. } | Self::ReadUnrecorded { .. } => {
                Some(STOP_RETRY)
            }
            _ => None,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Unreadable { problem } => error!(problem, "could not read what is stored"),
            Refusal::Indexing { problem } => warn!(problem, "could not search the index"),
            _ => {}
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(refusal.reason(), DOMAIN, refusal.metadata());
        if let Some(field) = refusal.field() {
            details.add_bad_request_violation(field, refusal.to_string());
        }
        if let Some(delay) = refusal.retry_after() {
            details.set_retry_info(Some(delay));
        }
        metrics::counter!("access_ledger_refused_total", "reason" => refusal.reason()).increment(1);
        Self::with_error_details(refusal.code(), refusal.to_string(), details)
    }
}

/// Code, reason, and the field that is to blame, below the event.
const fn control_reason(refusal: &ControlRefusal) -> (Code, &'static str, &'static str) {
    match refusal {
        ControlRefusal::Redaction(RedactionError::Alone { .. }) => {
            (Code::PermissionDenied, "CONTROL_CHANGED_ALONE", "redaction.approvals")
        }
        ControlRefusal::Redaction(RedactionError::Beyond { .. }) => {
            (Code::OutOfRange, "REDACTION_INVALID", "redaction.last_index")
        }
        ControlRefusal::Redaction(_) => (Code::InvalidArgument, "REDACTION_INVALID", "redaction"),
        ControlRefusal::Alone { .. } | ControlRefusal::Control(ControlError::Alone { .. }) => {
            (Code::PermissionDenied, "CONTROL_CHANGED_ALONE", "control_change.approvals")
        }
        ControlRefusal::Control(ControlError::Revision { .. }) => {
            (Code::FailedPrecondition, "CONTROL_REVISION", "control_change.revision")
        }
        ControlRefusal::Control(ControlError::Kind) => {
            (Code::InvalidArgument, "CONTROL_INVALID", "control_change.kind")
        }
        _ => (Code::InvalidArgument, "CONTROL_INVALID", "control_change.content"),
    }
}

/// `ErrorInfo.domain`.
const DOMAIN: &str = "access-ledger";

/// A few groups' worth of time: the queue empties at the disk's speed.
const QUEUE_RETRY: Duration = Duration::from_millis(50);

/// Somebody has to make space.
const SPACE_RETRY: Duration = Duration::from_secs(10);

/// The same call waits again, so this only keeps a caller from asking in a loop.
const QUORUM_RETRY: Duration = Duration::from_millis(200);

/// About what a restart, or reading a block of the log again, takes.
const STOP_RETRY: Duration = Duration::from_secs(1);

const fn source_reason(error: &SourceError) -> (Code, &'static str) {
    match error {
        SourceError::Unknown { .. } => (Code::PermissionDenied, "SOURCE_UNKNOWN"),
        SourceError::Key { .. } => (Code::PermissionDenied, "KEY_UNKNOWN"),
        SourceError::KeyReplaced { .. } => (Code::PermissionDenied, "KEY_REPLACED"),
        SourceError::Revoked { .. } => (Code::PermissionDenied, "KEY_REVOKED"),
        SourceError::Inactive { .. } => (Code::PermissionDenied, "SOURCE_INACTIVE"),
        SourceError::Role { .. } | SourceError::Foreign { .. } | SourceError::Founding { .. } => {
            (Code::PermissionDenied, "ROLE_MISSING")
        }
        SourceError::Exists { .. } => (Code::AlreadyExists, "SOURCE_EXISTS"),
        SourceError::Enrolment
        | SourceError::Governance
        | SourceError::NotBelow { .. }
        | SourceError::Ancestor { .. }
        | SourceError::SelfEnrolment
        | SourceError::SelfEnrolmentRoles
        | SourceError::Genesis => (Code::PermissionDenied, "ENROLMENT_REFUSED"),
        SourceError::Parties { .. } => (Code::PermissionDenied, "CONTROL_CHANGED_ALONE"),
        SourceError::Body { .. } => (Code::PermissionDenied, "ROLE_MISSING"),
        SourceError::Alone => (Code::InvalidArgument, "BATCH_INVALID"),
        _ => (Code::InvalidArgument, "EVENT_INVALID"),
    }
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::error::EventFault;

    use super::*;

    #[test]
    fn a_bad_field_is_named_with_its_place_in_the_batch() {
        let mut error = EventError::from(EventFault::Missing);
        error.path = "access.data[2].dataset".to_owned();
        let status = Status::from(Refusal::Event { position: 7, error });
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "batch.events[7].access.data[2].dataset");
        assert_eq!(details.error_info().unwrap().reason, "EVENT_INVALID");
    }

    #[test]
    fn a_gap_names_the_number_to_go_on_with() {
        let name = SourceName::parse("s").unwrap();
        let status = Status::from(Refusal::Gap(SequenceGap { name, found: 9, expected: 4 }));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["expected_seq"], "4");
    }

    #[test]
    fn what_is_for_the_operator_is_not_told_to_callers() {
        let problem = || "/var/lib/ledger/log/0.seg: bad sector".to_owned();
        for refusal in
            [Refusal::Unreadable { problem: problem() }, Refusal::Indexing { problem: problem() }]
        {
            let status = Status::from(refusal);
            assert!(!status.message().contains('/'), "{status:?}");
            assert!(!String::from_utf8_lossy(status.details()).contains("sector"), "{status:?}");
        }
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let status = Status::from(Refusal::QueueFull { waiting_bytes: 1 });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_error_details().retry_info().is_some());
    }
}
