//! Who read the ledger: what readers are sent becomes `LedgerRead` events.
//!
//! ```text
//! a search:  answer found -> recorded, durable -> sent
//! all else:  sent, and added up -> the window ends, or the server stops -> the sum is recorded
//! ```
//!
//! **Searches** (queries, findings, reports) ask about somebody; they are not answered unless they
//! are recorded. **All else** (entries, receipts, proofs, sources) goes on while nothing can be
//! recorded: there is one sum for each principal and kind of read, so it takes no more memory
//! however long that lasts, and the sum is recorded once that is possible again. Nothing is left
//! out and nothing counted twice; only a crash loses the sums of the open window.
//!
//! **Rate.** A sum becomes one event, at most once a window. What a tail is sent of reads alone is
//! no news: else each record of a tail would be the next thing that it is sent, for ever.
//! Custodians follow everything all the time; their sums are recorded once a day.

mod sum;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_proto::{
    event::{self, Body},
    hash::sha256,
    position::count_of,
    wire::{self, ReadKind},
};
use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::warn;

use self::sum::Sum;
pub(crate) use self::sum::{Question, Sent};
use crate::{identity::Caller, os::Clock, refusal::Refusal};

/// Where reads are recorded.
#[tonic::async_trait]
pub(crate) trait Register: Send + Sync {
    /// Records a read: durable when this returns, and not recorded when it fails.
    ///
    /// # Errors
    ///
    /// Why it cannot be recorded now.
    async fn record(&self, read: wire::LedgerRead) -> Result<(), String>;
}

/// Notes who reads, or nothing where nobody knows who calls. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Reads(Option<Arc<Journal>>);

/// The sums that are open, and where they go.
struct Journal {
    register: Arc<dyn Register>,
    clock: Arc<dyn Clock>,
    window: Duration,
    /// One for each principal and kind of read: as many as the file of principals has names.
    open: Mutex<HashMap<Key, Sum>>,
    /// Told when a sum may be due earlier than was known.
    sooner: Notify,
}

/// Principal and kind of read.
type Key = (String, ReadKind);

/// Records what is due. Dropping it records all that is open, if the runtime lasts.
pub(crate) struct Keeper {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Somebody whose reads are noted, or somebody whose are not.
#[derive(Clone)]
pub(crate) struct Reader(Option<Named>);

#[derive(Clone)]
struct Named {
    journal: Arc<Journal>,
    name: String,
    window: Duration,
}

impl Reads {
    /// Notes nothing.
    pub(crate) const fn off() -> Self {
        Self(None)
    }

    /// Notes what is read, and records it a `window` after the first read that a sum is of. Inside
    /// a runtime.
    pub(crate) fn start(
        register: Arc<dyn Register>,
        clock: Arc<dyn Clock>,
        window: Duration,
    ) -> (Self, Keeper) {
        let (open, sooner) = (Mutex::default(), Notify::new());
        let journal = Arc::new(Journal { register, clock, window, open, sooner });
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(journal.clone().keep(stopping));
        (Self(Some(journal)), Keeper { stop, task })
    }

    /// Who reads with this call. Whoever may only prove what its own sources recorded is no reader.
    pub(crate) fn reader(&self, caller: &Caller) -> Reader {
        let Some(journal) = self.0.as_ref().filter(|_| caller.is_reader()) else {
            return Reader(None);
        };
        let window = if caller.is_auditor() { journal.window } else { CUSTODY_WINDOW };
        let (journal, name) = (journal.clone(), caller.name().to_owned());
        Reader(Some(Named { journal, name, window }))
    }
}

impl Keeper {
    /// Records all that is open. Call it when nobody is answered any more, and before the register
    /// ends.
    pub(crate) async fn close(self) {
        self.stop.send_replace(true);
        if let Err(failure) = self.task.await {
            warn!(%failure, "recording reads failed");
        }
    }
}

impl Reader {
    /// A call was answered with all of this.
    pub(crate) fn answered(&self, kind: ReadKind, sent: Sent) {
        self.add(kind, 1, sent, Duration::ZERO);
    }

    /// A stream began.
    pub(crate) fn began(&self, kind: ReadKind) {
        self.add(kind, 1, Sent::default(), Duration::ZERO);
    }

    /// A stream goes on with this; what is no news can wait for other reads to be recorded with.
    pub(crate) fn streamed(&self, kind: ReadKind, sent: Sent, is_news: bool) {
        let window = if is_news { Duration::ZERO } else { QUIET_WINDOW };
        self.add(kind, 0, sent, window);
    }

    /// Records a search with its answer, which may be sent when this returns.
    ///
    /// # Errors
    ///
    /// [`Refusal::ReadUnrecorded`]: then it must not be sent.
    pub(crate) async fn searched(
        &self,
        question: Question,
        answer: &impl Message,
        sent: Sent,
    ) -> Result<(), Refusal> {
        let Some(Named { journal, name, .. }) = &self.0 else { return Ok(()) };
        let digest = sha256(&answer.encode_to_vec());
        let read = question.record(name, &sent, &digest);
        journal.record(read).await.map_err(|problem| {
            warn!(problem, "refused a search that could not be recorded");
            Refusal::ReadUnrecorded { problem }
        })
    }

    fn add(&self, kind: ReadKind, calls: u64, sent: Sent, window_min: Duration) {
        let Some(Named { journal, name, window }) = &self.0 else { return };
        let due = Instant::now() + window_min.max(*window);
        let sum = Sum::of(calls, sent, journal.clock.now_nanos(), due);
        journal.add((name.clone(), kind), sum);
    }
}

impl Journal {
    /// Records what is due, again and again, and everything when it is to stop.
    async fn keep(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            let due = self.lock().values().map(|sum| sum.due).min();
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // A keeper that is gone wants the same.
                _ = stopping.wait_for(|&stopping| stopping) => break,
                () = self.sooner.notified() => continue,
                () = is_due => {}
            }
            self.record_due(Some(Instant::now())).await;
        }
        self.record_due(None).await;
        let left = self.unrecorded();
        if left > 0 {
            warn!(answers = left, "stopped with reads that could not be recorded");
        }
    }

    /// Records the sums that are due at a time, or all. Those that cannot be recorded stay.
    async fn record_due(&self, now: Option<Instant>) {
        let is_due = |sum: &Sum| now.is_none_or(|now| sum.due <= now);
        let due: Vec<(Key, Sum)> = self.lock().extract_if(|_, sum| is_due(sum)).collect();
        join_all(due.into_iter().map(async |((name, kind), mut sum)| {
            if let Err(problem) = self.record(sum.record(&name, kind)).await {
                if !sum.has_failed {
                    warn!(problem, "could not record reads, they are kept in memory");
                }
                (sum.has_failed, sum.due) = (true, Instant::now() + self.window);
                self.add((name, kind), sum);
            }
        }))
        .await;
        let unrecorded = u32::try_from(self.unrecorded()).map_or(f64::MAX, f64::from);
        metrics::gauge!("access_ledger_unrecorded_reads").set(unrecorded);
    }

    async fn record(&self, read: wire::LedgerRead) -> Result<(), String> {
        self.register.record(read).await?;
        metrics::counter!("access_ledger_recorded_reads_total").increment(1);
        Ok(())
    }

    fn add(&self, key: Key, sum: Sum) {
        let due = sum.due;
        let known_due = match self.lock().entry(key) {
            Entry::Occupied(mut known) => {
                let known_due = known.get().due;
                known.get_mut().add(sum);
                Some(known_due)
            }
            Entry::Vacant(place) => {
                place.insert(sum);
                None
            }
        };
        if known_due.is_none_or(|known_due| due < known_due) {
            self.sooner.notify_one();
        }
    }

    /// Answers that are in sums which could not be recorded.
    fn unrecorded(&self) -> u64 {
        let open = self.lock();
        open.values().filter(|sum| sum.has_failed).map(|sum| sum.answers).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Sum>> {
        // Sums are whole after each statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a run of entries tells a tail more than who read the ledger. Without events, all that
/// the ledger's own source recorded counts as that.
pub(crate) fn is_news(run: &wire::EntryRun, own_source: &str) -> bool {
    let is_read =
        |event: &Bytes| event::body(event).is_some_and(|body| body.number == Body::LEDGER_READ);
    let is_own = |entry: &Bytes| {
        let entry = access_ledger_proto::entry::Entry::parse(entry);
        entry.is_ok_and(|entry| entry.source.as_str() == own_source)
    };
    if run.events.is_empty() {
        return !run.entries.iter().all(is_own);
    }
    !run.events.iter().all(is_read)
}

/// The entries of a run.
pub(crate) fn sent(run: &wire::EntryRun) -> Sent {
    Sent::run(run.first_index, count_of(run.entries.len()))
}

/// How long what a tail was sent of reads alone waits to be recorded.
const QUIET_WINDOW: Duration = Duration::from_secs(3_600);

/// How long the reads of a custodian are added up.
const CUSTODY_WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// How long the reads of an auditor are added up, by default: what a crash may lose.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
