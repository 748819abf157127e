//! Takes entries, checkpoints and proofs from a ledger or custodian. Believes nothing: what comes out
//! is for [`crate::verify`] to judge.
//!
//! Streams are bounded, resume from the first index that is missing, and give up after a while without
//! progress. Where the server cannot hand out an entry that it signed for, the index is found out.

use std::time::Duration;

use access_ledger_proto::{
    hash::Digest,
    position::{Index, Size, count_of},
    wire::{self, audit_service_client::AuditServiceClient},
};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::{Code, Response, Status, Streaming, transport::Channel};

use crate::{
    connect::audit_client,
    verify::{Record, Scope},
};

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
        /// How long it waited.
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
    client: AuditServiceClient<Channel>,
}

/// Records on their way: at most [`RUNS_AHEAD`] runs wait in memory. Dropping it stops the pulling.
#[derive(Debug)]
pub struct Records {
    runs: mpsc::Receiver<Result<Run, PullError>>,
}

impl Puller {
    /// Over a channel of [`crate::connect::channel`].
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { client: audit_client(channel) }
    }

    /// The newest checkpoint: a note that nobody has verified.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn checkpoint(&self) -> Result<Bytes, PullError> {
        let answer = persist(|| {
            let mut client = self.client.clone();
            async move { client.get_checkpoint(wire::GetCheckpointRequest {}).await }
        });
        Ok(answer.await?.checkpoint)
    }

    /// The consistency proof between two sizes, `1 <= old <= new`.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`]; [`PullError::Answer`] for hashes that are not 32
    /// bytes long.
    pub async fn consistency_path(&self, old: Size, new: Size) -> Result<Vec<Digest>, PullError> {
        let request = wire::GetConsistencyProofRequest { old_size: old.0, new_size: new.0 };
        let answer = persist(|| {
            let mut client = self.client.clone();
            async move { client.get_consistency_proof(request).await }
        });
        digests(&answer.await?.path)
    }

    /// All that a proof of the entry at `index` takes.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn receipt(&self, index: Index) -> Result<wire::GetReceiptResponse, PullError> {
        let answer = persist(|| {
            let mut client = self.client.clone();
            let entry = Some(wire::get_receipt_request::Entry::Index(index.0));
            async move { client.get_receipt(wire::GetReceiptRequest { entry }).await }
        });
        answer.await
    }

    /// One page of the registered sources, as the server tells them; `token` is empty for the first.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`], [`PullError::Deadline`].
    pub async fn sources(&self, token: &str) -> Result<wire::ListSourcesResponse, PullError> {
        let answer = persist(|| {
            let mut client = self.client.clone();
            let request = wire::ListSourcesRequest { page_size: 0, page_token: token.to_owned() };
            async move { client.list_sources(request).await }
        });
        answer.await
    }

    /// The records from `first` up to `end`, in order and without gaps. Must be called inside a tokio
    /// runtime, whose tasks pull ahead.
    #[must_use]
    pub fn records(&self, first: Index, end: Size, scope: Scope) -> Records {
        let (sender, runs) = mpsc::channel(RUNS_AHEAD);
        let pulling = Pulling { client: self.client.clone(), next: first, end, scope, sender };
        tokio::spawn(pulling.run());
        Records { runs }
    }

    /// Records from `first` on, and every new one as soon as it is under a checkpoint. A broken stream
    /// is for the caller to resume.
    ///
    /// # Errors
    ///
    /// [`PullError::Refused`].
    pub async fn watch(&self, first: Index) -> Result<Streaming<wire::WatchResponse>, PullError> {
        let request = wire::WatchRequest { first_index: first.0, with_events: true };
        let stream = self.client.clone().watch(request).await;
        Ok(stream.map_err(|status| PullError::Refused(Box::new(status)))?.into_inner())
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

    /// The next run and those that wait behind it, `most` at most; empty after the last. An error comes
    /// behind the runs before it. Blocks, so it is not for a task of the runtime.
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
    client: AuditServiceClient<Channel>,
    next: Index,
    end: Size,
    scope: Scope,
    sender: mpsc::Sender<Result<Run, PullError>>,
}

impl Pulling {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        // How many entries to ask for: fewer, when an entry among them cannot be had.
        let mut span = u64::MAX;
        while self.end.contains(self.next) {
            let before = self.next;
            let end = Size(self.end.0.min(before.0.saturating_add(span)));
            let broken = match self.stream(end).await {
                Ok(()) => continue,
                Err(Broken::Unwanted) => return,
                Err(Broken::Pull(error)) => {
                    self.fail(error).await;
                    return;
                }
                Err(Broken::Status(status)) => status,
            };
            if self.next > before {
                backoff = Backoff::default();
            }
            if matches!(broken.code(), Code::DataLoss | Code::OutOfRange | Code::NotFound) {
                if span == 1 {
                    let problem = broken.message().to_owned();
                    let (index, end) = (self.next, self.end);
                    self.fail(PullError::Withheld { index, end, problem }).await;
                    return;
                }
                let asked = end.0.saturating_sub(self.next.0);
                span = (span.min(asked) / 2).clamp(1, NARROW_SPAN);
            } else if let Err(error) = backoff.wait(broken).await {
                self.fail(error).await;
                return;
            }
        }
    }

    /// Passes on the runs of one call, up to `end`.
    async fn stream(&mut self, end: Size) -> Result<(), Broken> {
        let request = wire::ReadEntriesRequest {
            first_index: self.next.0,
            end_index: end.0,
            with_events: self.scope == Scope::Events,
        };
        let mut stream = in_time(self.client.read_entries(request)).await?.into_inner();
        while end.contains(self.next) {
            let message = in_time(stream.message()).await?;
            let Some(run) = message.and_then(|message| message.run) else {
                return Err(Status::data_loss("the stream ended early").into());
            };
            let run = self.check(run, end).map_err(Broken::Pull)?;
            let count = count_of(run.1.len());
            // The receiver is gone: nobody wants the rest.
            self.sender.send(Ok(run)).await.map_err(|_| Broken::Unwanted)?;
            self.next = self.next.plus(count);
        }
        Ok(())
    }

    /// A run continues where the one before ended and has an event, or a hole, for every entry.
    fn check(&self, run: wire::EntryRun, end: Size) -> Result<Run, PullError> {
        let (count, events) = (run.entries.len(), run.events.len());
        let wanted_events = if self.scope == Scope::Events { count } else { 0 };
        let last_fits = self.next.0.saturating_add(count_of(count)) <= end.0;
        if run.first_index != self.next.0 || events != wanted_events || count == 0 || !last_fits {
            let problem = format!(
                "{count} entries and {events} events from index {}, wanted were those from {} up to {end}",
                run.first_index, self.next
            );
            return Err(PullError::Answer { problem });
        }
        Ok((self.next, records_of(run)))
    }

    async fn fail(&self, error: PullError) {
        if self.sender.send(Err(error)).await.is_err() {
            tracing::debug!("nobody waited for the end of a broken stream");
        }
    }
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
            problem: format!("hash of {} bytes, wanted are 32", hash.len()),
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

/// Repeats a call while waiting may help.
async fn persist<T, F>(call: impl Fn() -> F) -> Result<T, PullError>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut backoff = Backoff::default();
    loop {
        match in_time(call()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => backoff.wait(status).await?,
        }
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Attempts without progress, each after twice the time.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Waits before the next attempt; gives up where waiting does not help, or has not helped.
    async fn wait(&mut self, status: Status) -> Result<(), PullError> {
        let transient = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded]
            .contains(&status.code())
            // What tonic makes of a connection that broke in the middle of an answer.
            || [Code::Unknown, Code::Internal, Code::Cancelled].contains(&status.code())
                && std::error::Error::source(&status).is_some();
        if !transient || self.attempts == ATTEMPTS_MAX {
            if status.code() == Code::DeadlineExceeded {
                return Err(PullError::Deadline { waited: ANSWER_TIMEOUT });
            }
            return Err(PullError::Refused(Box::new(status)));
        }
        let delay = DELAY_FIRST.saturating_mul(1 << self.attempts).min(DELAY_MAX);
        tracing::debug!(code = ?status.code(), ?delay, "stream or call broke, will repeat");
        self.attempts += 1;
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Runs that wait in memory: some megabytes, enough that pulling and verifying overlap.
pub const RUNS_AHEAD: usize = 16;

/// Where the search for an entry that is not served begins: more than one response holds.
const NARROW_SPAN: u64 = 1 << 13;

/// A server that is silent for so long is taken for dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(3);

/// Together some ten seconds: a restart of the server.
const ATTEMPTS_MAX: u32 = 7;
