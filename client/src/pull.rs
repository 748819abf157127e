//! Takes entries, checkpoints and proofs from a ledger or custodian. Believes nothing: what comes
//! out is for [`crate::verify`] to judge.
//!
//! Streams are bounded, resume from the first index that is missing, and give up after a while
//! without progress. Where the server cannot hand out an entry that it signed for, the index is
//! found out.

use std::time::Duration;

use access_ledger_proto::{
    entry::Entry,
    hash::Digest,
    position::{Index, Size, count_of},
    wire::{self, audit_service_client::AuditServiceClient},
};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::{Code, Response, Status, Streaming};

use crate::{
    connect::{ANSWER_TIMEOUT, AUDIT_MESSAGE_BYTES_MAX, Link, audit_client},
    verify::{Record, Scope},
};

mod attempts;
mod told;

use self::attempts::Attempts;

/// Something could not be pulled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PullError {
    /// The server refused for good, or could not be reached for a while.
    #[error("ledger answered {:?}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// No answer in time.
    #[error("no answer from the ledger within {waited:?}")]
    Deadline {
        /// How long it waited, in every attempt.
        waited: Duration,
    },
    /// An entry that lies under a checkpoint is not served: lost, or withheld.
    #[error("entry {index} is not served, asked for were the entries below {end}: {problem}")]
    Withheld {
        /// The first such entry.
        index: Index,
        /// One past the last entry that was asked for.
        end: Size,
        /// What the server said.
        problem: String,
    },
    /// The answer does not fit the question.
    #[error("answer of the ledger does not fit: {problem}")]
    Answer {
        /// What was found, and what was wanted.
        problem: String,
    },
}

/// A run of records, by the index of the first.
pub type Run = (Index, Vec<Record>);

/// Pulls from one server. Cloning shares the connection.
#[derive(Clone, Debug)]
pub struct Puller {
    client: AuditServiceClient<Link>,
    patience: Patience,
}

/// How long to put up with a server that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one answer, or for the next message of a stream that is under way; default 30 s.
    pub answer: Duration,
    /// For how long a call without progress is repeated, once at least; default 10 s, the restart
    /// of a server.
    pub repeat: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: ANSWER_TIMEOUT, repeat: Duration::from_secs(10) }
    }
}

/// Records on their way: at most [`RUNS_AHEAD`] runs wait in memory. Dropping it stops the pulling.
#[derive(Debug)]
pub struct Records {
    runs: mpsc::Receiver<Result<Run, PullError>>,
}

impl Puller {
    /// Over a link of [`crate::connect::Credentials`], or a channel of [`crate::connect::channel`].
    #[must_use]
    pub fn new(link: impl Into<Link>) -> Self {
        Self { client: audit_client(link), patience: Patience::default() }
    }

    /// With more or less patience.
    #[must_use]
    pub const fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The newest checkpoint: a note that nobody has verified.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn checkpoint(&self) -> Result<Bytes, PullError> {
        self.checkpoint_of(wire::GetCheckpointRequest { cosigned: false }).await
    }

    /// The newest checkpoint whose cosignatures are enough, as the server sees it: a note that
    /// nobody has verified.
    ///
    /// # Errors
    ///
    /// As [`Puller::checkpoint`].
    pub async fn cosigned_checkpoint(&self) -> Result<Bytes, PullError> {
        self.checkpoint_of(wire::GetCheckpointRequest { cosigned: true }).await
    }

    async fn checkpoint_of(&self, request: wire::GetCheckpointRequest) -> Result<Bytes, PullError> {
        let answer = self.persist(async |mut client| client.get_checkpoint(request).await);
        Ok(answer.await?.checkpoint)
    }

    /// How much this one puts up with.
    pub(crate) const fn patience(&self) -> Patience {
        self.patience
    }

    /// The consistency proof between two sizes, `1 <= old <= new`.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`]; [`PullError::Answer`] for hashes that are
    /// not 32 bytes long.
    pub async fn consistency_path(&self, old: Size, new: Size) -> Result<Vec<Digest>, PullError> {
        let request = wire::GetConsistencyProofRequest { old_size: old.0, new_size: new.0 };
        let answer = self.persist(async |mut client| client.get_consistency_proof(request).await);
        digests(&answer.await?.path)
    }

    /// The inclusion path of the entry at `index` in the tree of this size, the leaf's sibling
    /// first.
    ///
    /// # Errors
    ///
    /// As [`Puller::consistency_path`].
    pub async fn inclusion_path(&self, index: Index, size: Size) -> Result<Vec<Digest>, PullError> {
        let request = wire::GetInclusionProofRequest { index: index.0, tree_size: size.0 };
        let answer = self.persist(async |mut client| client.get_inclusion_proof(request).await);
        digests(&answer.await?.path)
    }

    /// All that a proof of the entry at `index` takes.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn receipt(&self, index: Index) -> Result<wire::GetReceiptResponse, PullError> {
        self.persist(async |mut client| {
            let entry = Some(wire::get_receipt_request::Entry::Index(index.0));
            client.get_receipt(wire::GetReceiptRequest { entry }).await
        })
        .await
    }

    /// The records from `first` up to `end`, in order and without gaps. Must be called inside a
    /// tokio runtime, whose tasks pull ahead.
    #[must_use]
    pub fn records(&self, first: Index, end: Size, scope: Scope) -> Records {
        let (sender, runs) = mpsc::channel(RUNS_AHEAD);
        let pulling = Pulling { puller: self.clone(), next: first, end, scope, sender };
        tokio::spawn(pulling.run());
        Records { runs }
    }

    /// Records with their events from `first` on, and every new one as soon as it is under a
    /// checkpoint.
    #[must_use]
    pub fn watch(&self, first: Index) -> Watch {
        let attempts = Attempts::new(self.patience);
        Watch { puller: self.clone(), next: first, attempts, stream: None }
    }

    /// Repeats a call while waiting may help.
    async fn persist<T>(
        &self,
        call: impl AsyncFn(AuditServiceClient<Link>) -> Result<Response<T>, Status>,
    ) -> Result<T, PullError> {
        let mut attempts = Attempts::new(self.patience);
        loop {
            match self.in_time(call(self.client.clone())).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => attempts.wait(status).await?,
            }
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match tokio::time::timeout(self.patience.answer, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

/// A run as [`Watch`] brought it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The records, which nobody has verified.
    pub run: Run,
    /// The note that covers them, which nobody has verified either: with the last run of each
    /// group, else empty.
    pub checkpoint: Bytes,
}

/// New records as they come, in order and without gaps. A stream that breaks is resumed from the
/// first index that is missing.
#[derive(Debug)]
pub struct Watch {
    puller: Puller,
    next: Index,
    attempts: Attempts,
    stream: Option<Streaming<wire::WatchResponse>>,
}

impl Watch {
    /// The next run. Waits for as long as nothing is recorded.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`] when the stream could not be resumed for a
    /// while; [`PullError::Answer`] for records that do not continue those before.
    pub async fn next(&mut self) -> Result<Watched, PullError> {
        loop {
            let (run, checkpoint) = match self.message().await {
                Ok(message) => {
                    let run = message.run.unwrap_or_default();
                    (check(run, self.next, None, Scope::Events)?, message.checkpoint)
                }
                Err(status) => {
                    self.stream = None;
                    self.attempts.wait(status).await?;
                    continue;
                }
            };
            self.attempts.progressed();
            self.next = self.next.plus(count_of(run.1.len()));
            return Ok(Watched { run, checkpoint });
        }
    }

    async fn message(&mut self) -> Result<wire::WatchResponse, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = wire::WatchRequest { first_index: self.next.0, with_events: true };
                let mut client = self.puller.client.clone();
                let opened = self.puller.in_time(client.watch(request)).await?.into_inner();
                self.stream.insert(opened)
            }
        };
        let message = stream.message().await?;
        let ended = || Status::unavailable("the stream ended");
        message.ok_or_else(ended)
    }
}

impl Records {
    /// The next run; `None` after the last.
    ///
    /// # Errors
    ///
    /// Any [`PullError`]; nothing follows it.
    pub async fn next(&mut self) -> Option<Result<Run, PullError>> {
        self.runs.recv().await
    }

    /// The next run and those that wait behind it, `most` at most; empty after the last. An error
    /// comes behind the runs before it.
    pub async fn next_some(&mut self, most: usize) -> Vec<Result<Run, PullError>> {
        let mut runs = Vec::new();
        self.runs.recv_many(&mut runs, most).await;
        runs
    }

    /// As [`Records::next_some`]. Blocks, so it is not for a task of the runtime.
    pub fn next_blocking(&mut self, most: usize) -> Vec<Result<Run, PullError>> {
        let mut runs: Vec<_> = self.runs.blocking_recv().into_iter().collect();
        while !runs.is_empty() && runs.len() < most {
            match self.runs.try_recv() {
                Ok(run) => runs.push(run),
                Err(_) => break,
            }
        }
        runs
    }
}

/// The task behind [`Records`].
struct Pulling {
    puller: Puller,
    next: Index,
    end: Size,
    scope: Scope,
    sender: mpsc::Sender<Result<Run, PullError>>,
}

impl Pulling {
    async fn run(mut self) {
        if let Err(Broken::Pull(error)) = self.pull().await
            && self.sender.send(Err(error)).await.is_err()
        {
            tracing::debug!("nobody waited for the end of a broken stream");
        }
    }

    async fn pull(&mut self) -> Result<(), Broken> {
        let mut attempts = Attempts::new(self.puller.patience);
        // How many entries to ask for: fewer, when an entry among them cannot be had.
        let mut span = u64::MAX;
        while self.end.contains(self.next) {
            let before = self.next;
            let end = Size(self.end.0.min(before.0.saturating_add(span)));
            let streamed = self.stream(end).await;
            if self.next > before {
                attempts.progressed();
            }
            match streamed {
                // Past the trouble, or closer to it.
                Ok(()) => span = span.saturating_mul(2),
                Err(Broken::Status(status)) if is_missing(status.code()) => {
                    if span == 1 {
                        let problem = status.message().to_owned();
                        let (index, end) = (self.next, self.end);
                        return Err(PullError::Withheld { index, end, problem }.into());
                    }
                    let asked = end.0.saturating_sub(self.next.0);
                    span = (span.min(asked) / 2).clamp(1, NARROW_SPAN);
                }
                Err(Broken::Status(status)) => attempts.wait(status).await?,
                Err(broken) => return Err(broken),
            }
        }
        Ok(())
    }

    /// Passes on the runs of one call, up to `end`.
    async fn stream(&mut self, end: Size) -> Result<(), Broken> {
        let request = wire::ReadEntriesRequest {
            first_index: self.next.0,
            end_index: end.0,
            with_events: self.scope == Scope::Events,
        };
        let mut client = self.puller.client.clone();
        let mut stream = self.puller.in_time(client.read_entries(request)).await?.into_inner();
        while end.contains(self.next) {
            let Some(message) = self.puller.in_time(stream.message()).await? else {
                return Err(Status::data_loss("the stream ended early").into());
            };
            let run = message.run.unwrap_or_default();
            let run = check(run, self.next, Some(end), self.scope)?;
            let count = count_of(run.1.len());
            // The receiver is gone: nobody wants the rest.
            self.sender.send(Ok(run)).await.map_err(|_| Broken::Unwanted)?;
            self.next = self.next.plus(count);
        }
        Ok(())
    }
}

/// Whether the server says that it does not have what it was asked for.
pub(crate) const fn is_missing(code: Code) -> bool {
    matches!(code, Code::DataLoss | Code::OutOfRange | Code::NotFound)
}

/// A run begins at `next`, does not pass `end`, and has an event, or a hole, for every entry.
fn check(
    run: wire::EntryRun,
    next: Index,
    end: Option<Size>,
    scope: Scope,
) -> Result<Run, PullError> {
    let (count, events) = (run.entries.len(), run.events.len());
    let wanted_events = if scope == Scope::Events { count } else { 0 };
    let after = next.0.checked_add(count_of(count));
    let fits = after.is_some_and(|after| end.is_none_or(|end| after <= end.0));
    let size_fits = (1..=RUN_ENTRIES_MAX).contains(&count) && events == wanted_events;
    if run.first_index != next.0 || !fits || !size_fits {
        let up_to = end.map_or_else(String::new, |end| format!(" up to {end}"));
        let problem = format!(
            "{count} entries and {events} events from index {}, wanted those from {next}{up_to}",
            run.first_index
        );
        return Err(PullError::Answer { problem });
    }
    Ok((next, records_of(run)))
}

/// The records of a run as it came. Empty bytes stand for an event that was erased, no items at all
/// for events that were not asked for.
#[must_use]
pub fn records_of(run: wire::EntryRun) -> Vec<Record> {
    let mut events = run.events.into_iter();
    let with_event = |entry| {
        let event = events.next().filter(|event| !event.is_empty());
        Record { entry, event }
    };
    run.entries.into_iter().map(with_event).collect()
}

/// The hashes of a proof.
///
/// # Errors
///
/// [`PullError::Answer`] for one that is not 32 bytes long.
pub fn digests(hashes: &[Bytes]) -> Result<Vec<Digest>, PullError> {
    let digest = |hash: &Bytes| {
        Digest::from_slice(hash).ok_or_else(|| PullError::Answer {
            problem: format!("hash of {} bytes, expected 32", hash.len()),
        })
    };
    hashes.iter().map(digest).collect()
}

/// Why a stream ended early.
enum Broken {
    /// Perhaps to be resumed.
    Status(Status),
    /// For good.
    Pull(PullError),
    /// The receiver is gone.
    Unwanted,
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<PullError> for Broken {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// Runs that wait in memory: enough that pulling and verifying overlap. Each is one message, of
/// which [`audit_client`] bounds the bytes.
pub const RUNS_AHEAD: usize = 16;

/// More entries do not fit into a message, however short they are. So a run of empty ones is no way
/// to fill the auditor's memory.
const RUN_ENTRIES_MAX: usize = AUDIT_MESSAGE_BYTES_MAX / Entry::LEN_MIN;

/// Where the search for an entry that is not served begins: more than one response holds.
const NARROW_SPAN: u64 = 1 << 13;
