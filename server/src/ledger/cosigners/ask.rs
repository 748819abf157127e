//! Asks one witness (C2SP tlog-witness; FORMATS.md, section 8).

use std::{sync::Arc, time::Duration};

use access_ledger_client::backoff::Backoff;
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::{BuildError, CheckpointError},
    position::Size,
    proof::consistency_path,
    witness::{AddCheckpoint, origin_hex, parse_size},
};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, debug, debug_span, error, warn};

use super::{Cosigners, NoteRefused, Place, local_root, rounds::Rounds};
use crate::{
    book::Published,
    error::StorageError,
    outbound::{Answer, Outbound, OutboundError},
};

/// Asks the witness at one address, one checkpoint after the other.
pub(super) struct Asker {
    cosigners: Arc<Cosigners>,
    rounds: Arc<Rounds>,
    outbound: Outbound,
    place: Place,
    /// Its seat in the rounds.
    seat: usize,
    /// The size that the witness holds, as far as it is known; 0 at first.
    held: Size,
}

/// Why a witness did not cosign.
#[derive(Debug, Error)]
enum AskError {
    #[error(transparent)]
    Unanswered(#[from] OutboundError),
    #[error("status {status}: {problem}")]
    Status { status: u16, problem: String },
    #[error("answer: {0}")]
    Lines(CheckpointError),
    #[error("no cosignature of {}", .keys.join(", "))]
    Missing { keys: Vec<String> },
    #[error("conflict without a size")]
    NoSize,
    #[error("conflict, again and again")]
    Conflict,
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteRefused),
    #[error("own checkpoint: {0}")]
    Own(CheckpointError),
    #[error("no proof between its size and ours: {0}")]
    Proof(#[from] BuildError<StorageError>),
    #[error("cut off")]
    CutOff,
}

impl AskError {
    /// Label of the metric.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Unanswered(_) => "unanswered",
            Self::Status { .. } => "refused",
            Self::Lines(_) | Self::Missing { .. } | Self::NoSize => "answer_invalid",
            Self::Conflict => "conflict",
            Self::Note(_) => "note_refused",
            Self::Own(_) | Self::Proof(_) | Self::CutOff => "own_fault",
        }
    }

    /// Whether the witness has signed what this ledger does not hold.
    const fn is_contradiction(&self) -> bool {
        matches!(self, Self::Note(NoteRefused::Ahead { .. } | NoteRefused::OtherRoot { .. }))
    }
}

impl Asker {
    pub(super) const fn new(
        cosigners: Arc<Cosigners>,
        rounds: Arc<Rounds>,
        outbound: Outbound,
        place: Place,
        seat: usize,
    ) -> Self {
        Self { cosigners, rounds, outbound, place, seat, held: Size::ZERO }
    }

    /// Asks for the checkpoint of each round, until the task is dropped.
    pub(super) async fn run(mut self, interval: Duration) {
        let rounds = self.rounds.clone();
        let mut targets = rounds.targets();
        // The newest checkpoint that this witness has cosigned.
        let mut done: Option<Size> = None;
        let mut backoff = Backoff::new(BACKOFF_MIN, self.cosigners.backoff_max);
        loop {
            let next = targets.wait_for(|target| done.is_none_or(|done| done < target.size));
            let Ok(target) = next.await.map(|target| target.clone()) else { return };
            let started = Instant::now();
            let asking = rounds.begin(self.seat, target.size);
            let span = debug_span!("ask_witness", witness = self.place.url, size = target.size.0);
            let asked = self.ask(&target).instrument(span).await;
            drop(asking);
            match asked {
                Ok(size) => {
                    done = Some(size);
                    backoff.reset();
                    self.told(size, started);
                    sleep_until(started + interval).await;
                }
                Err(failure) => {
                    self.failed(&failure, &target);
                    sleep(backoff.next(None)).await;
                }
            }
        }
    }

    /// Asks until the witness has cosigned this checkpoint or a later one: its size.
    async fn ask(&mut self, target: &Published) -> Result<Size, AskError> {
        for _ in 0..CONFLICTS_MAX {
            let answer = self.call(target).await?;
            match answer.status {
                200 => return self.take(target, &answer.body),
                409 => {
                    let held = parse_size(&answer.body).ok_or(AskError::NoSize)?;
                    self.held = held;
                    if held >= target.size {
                        return self.fetch().await;
                    }
                }
                status => {
                    let problem = String::from_utf8_lossy(&answer.body);
                    let problem: String = problem.chars().take(PROBLEM_CHARS_MAX).collect();
                    return Err(AskError::Status {
                        status,
                        problem: problem.trim_end().to_owned(),
                    });
                }
            }
        }
        Err(AskError::Conflict)
    }

    /// One call of `add-checkpoint`.
    async fn call(&self, target: &Published) -> Result<Answer, AskError> {
        let (old, new, tree) = (self.held, target.size, self.cosigners.book.tree.clone());
        let proof = match old {
            Size::ZERO => Vec::new(),
            // A witness that was told more than this target knows by now says so itself.
            old if old > new => Vec::new(),
            old => blocking(move || consistency_path(&tree, old, new)).await??,
        };
        let old = Size(old.0.min(new.0));
        let body = AddCheckpoint { old, proof, note: &target.note }.to_bytes();
        let url = format!("{}/add-checkpoint", self.place.url);
        Ok(self.outbound.post(&url, "text/plain; charset=utf-8", body).await?)
    }

    /// Takes the cosignatures out of an answer.
    fn take(&mut self, target: &Published, lines: &[u8]) -> Result<Size, AskError> {
        let cosigners = &self.cosigners;
        let own = VerifiedCheckpoint::open(&target.note, &cosigners.book.vkey, &[]);
        let own = own.map_err(AskError::Own)?;
        let keys = cosigners.take_lines(&own, lines).map_err(AskError::Lines)?;
        self.held = target.size;
        let missing = self.place.keys.iter().filter(|key| !keys.contains(key));
        let missing: Vec<_> = missing.map(|key| key.name().to_owned()).collect();
        if missing.is_empty() { Ok(target.size) } else { Err(AskError::Missing { keys: missing }) }
    }

    /// Takes what the witness has cosigned by itself.
    async fn fetch(&mut self) -> Result<Size, AskError> {
        let origin = origin_hex(self.cosigners.book.vkey.name());
        let answer = self.outbound.get(&format!("{}/{origin}/checkpoint", self.place.url)).await?;
        if answer.status != 200 {
            let problem = "reading its checkpoint".to_owned();
            return Err(AskError::Status { status: answer.status, problem });
        }
        let (cosigners, tree) = (&self.cosigners, self.cosigners.book.tree.clone());
        let checkpoint = cosigners.open(&answer.body)?;
        let size = checkpoint.size();
        let root = blocking(move || local_root(&tree, size)).await??;
        self.held = cosigners.take_checkpoint(&checkpoint, root)?;
        Ok(self.held)
    }

    fn told(&self, size: Size, started: Instant) {
        debug!(witness = self.place.url, size = size.0, "cosigned");
        let witness = self.place.url.clone();
        metrics::gauge!("access_ledger_witness_entries", "witness" => witness).set(size.0 as f64);
        metrics::histogram!("access_ledger_cosign_seconds").record(started.elapsed());
    }

    fn failed(&self, failure: &AskError, target: &Published) {
        let (witness, size, reason) = (&self.place.url, target.size.0, failure.reason());
        if failure.is_contradiction() {
            error!(witness, size, %failure, "the ledger contradicts what its witness has cosigned");
        } else {
            warn!(witness, size, %failure, "could not have a checkpoint cosigned");
        }
        metrics::counter!(
            "access_ledger_witness_failures_total",
            "witness" => witness.clone(), "reason" => reason
        )
        .increment(1);
    }
}

/// Off the network's threads. `work` must not hold the book: it may outlive the ledger.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AskError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AskError::CutOff)
}

/// Told sizes that are too old by the time of the next call: somebody else asks the witness too.
const CONFLICTS_MAX: usize = 4;

/// Of an answer that is told in the log.
const PROBLEM_CHARS_MAX: usize = 200;

const BACKOFF_MIN: Duration = Duration::from_millis(200);
