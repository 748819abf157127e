//! Receipts that wait until others have cosigned what they prove.
//!
//! With a receipts policy an acknowledged batch is already in outside hands: the writer, and the
//! repeats, hand what became durable to this thread, and it answers all batches that a cosigned
//! checkpoint covers at once, in the order in which they came, with paths from the files of the
//! tree. A batch that waited too long is told so: it keeps its place, and the same batch, asked
//! again, waits again. Commits never wait for this.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{queue::Answer, writer::Placed};
use crate::{
    book::{Book, Published, inclusion_path},
    refusal::Refusal,
};

/// Where durable batches wait for cosignatures.
pub(crate) struct Release {
    book: Arc<Book>,
    /// How long one waits.
    patience: Duration,
    state: Mutex<State>,
    /// Signalled when a batch comes in, a checkpoint is cosigned, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order in which they came, so also of their deadlines.
    waiting: VecDeque<Waiting>,
    is_closed: bool,
}

struct Waiting {
    placed: Placed,
    answer: Answer,
    until: Instant,
}

/// What is to be answered in one go.
#[derive(Default)]
struct Due {
    covered: Vec<Waiting>,
    /// The checkpoint that covers them.
    cosigned: Option<Arc<Published>>,
    late: Vec<Waiting>,
}

impl Release {
    /// For the receipts of a ledger, which wait for `patience` at most.
    pub(crate) fn new(book: Arc<Book>, patience: Duration) -> Self {
        Self { book, patience, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a durable batch; it is answered when a cosigned checkpoint covers it, or too late.
    pub(crate) fn wait(&self, placed: Placed, answer: Answer) {
        let until = Instant::now() + self.patience;
        let mut state = self.lock();
        if state.is_closed {
            return answer.send(Err(Refusal::Stopping));
        }
        if state.waiting.len() >= WAITING_MAX {
            return answer.send(Err(Refusal::QuorumPending { index: placed.reaches() }));
        }
        // Otherwise it is looked at when the next checkpoint is cosigned, or the first is late.
        let cosigned = self.book.cosigned();
        let is_due = state.waiting.is_empty()
            || cosigned.is_some_and(|cosigned| cosigned.size.contains(placed.reaches()));
        state.waiting.push_back(Waiting { placed, answer, until });
        drop(state);
        if is_due {
            self.changed.notify_one();
        }
    }

    /// Looks again: a checkpoint was cosigned.
    pub(crate) fn look(&self) {
        // With the lock, so that it is not missed between a look and the sleep after it.
        drop(self.lock());
        self.changed.notify_one();
    }

    /// Answers everybody and takes nothing more.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Answers until it is closed.
    pub(crate) fn run(&self) {
        while let Some(due) = self.next() {
            for Waiting { placed, answer, .. } in due.late {
                answer.send(Err(Refusal::QuorumPending { index: placed.reaches() }));
            }
            let Some(cosigned) = due.cosigned else { continue };
            for Waiting { placed, answer, .. } in due.covered {
                let tree = &self.book.tree;
                let path = |index| inclusion_path(tree, index, cosigned.size);
                answer.send(placed.answer(&cosigned, path));
            }
        }
        let left = std::mem::take(&mut self.lock().waiting);
        left.into_iter().for_each(|waiting| waiting.answer.send(Err(Refusal::Stopping)));
    }

    /// Waits until there is something to answer; `None` once closed.
    fn next(&self) -> Option<Due> {
        let mut state = self.lock();
        loop {
            let due = state.take_due(self.book.cosigned(), Instant::now());
            metrics::gauge!("access_ledger_waiting_receipts").set(state.waiting.len() as f64);
            if !due.covered.is_empty() || !due.late.is_empty() {
                return Some(due);
            }
            if state.is_closed {
                return None;
            }
            state = match state.waiting.front().map(|waiting| waiting.until) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one statement, so a panic leaves the state in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out what `cosigned` covers, and what waits no longer at `now`.
    fn take_due(&mut self, cosigned: Option<Arc<Published>>, now: Instant) -> Due {
        let mut due = Due { cosigned, ..Due::default() };
        let is_covered = |waiting: &Waiting| {
            let cosigned = due.cosigned.as_ref();
            cosigned.is_some_and(|cosigned| cosigned.size.contains(waiting.placed.reaches()))
        };
        // Most of the time nothing is due, and nothing moves.
        if !self.waiting.iter().any(|waiting| waiting.until <= now || is_covered(waiting)) {
            return due;
        }
        let (mut covered, mut late) = (Vec::new(), Vec::new());
        for waiting in std::mem::take(&mut self.waiting) {
            if is_covered(&waiting) {
                covered.push(waiting);
            } else if waiting.until <= now {
                late.push(waiting);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        (due.covered, due.late) = (covered, late);
        due
    }
}

/// Batches that wait, each some hundred bytes besides its verdicts: what a source sends while it
/// waits is bounded, so that so many wait only when very many sources do.
const WAITING_MAX: usize = 65_536;
