//! The waiting room between the many that have something to record and the one that writes it.
//!
//! Bounded in bytes: a full queue refuses, it never grows. Whoever puts something in gets a
//! [`Ticket`] that is answered when it is durable; what is dropped unanswered (the writer failed)
//! answers its ticket with a refusal, so no caller waits for ever.
//!
//! The writer takes what waits in the order in which it stands here. A ledger that takes its order
//! from a replicated log would fill the queue from there.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use access_ledger_proto::wire;
use tokio::sync::oneshot;

use crate::refusal::Refusal;

/// What can wait.
pub(crate) trait Work {
    /// About the bytes of memory that it holds while it waits, from above.
    fn bytes(&self) -> usize;
}

/// Work that waits, and who waits for it.
pub(crate) struct Waiting<W> {
    /// What to do.
    pub(crate) work: W,
    /// Whom to tell.
    pub(crate) answer: Answer,
}

/// Tells the caller what became of its work.
pub(crate) struct Answer(oneshot::Sender<Result<wire::AppendResponse, Refusal>>);

/// Waits for the answer.
pub(crate) struct Ticket(oneshot::Receiver<Result<wire::AppendResponse, Refusal>>);

/// The waiting room.
pub(crate) struct Queue<W> {
    state: Mutex<State<W>>,
    /// Signalled when work comes in and when the queue closes.
    changed: Condvar,
    bytes_max: usize,
    /// Name of the metric that tells how many bytes wait.
    gauge: &'static str,
}

struct State<W> {
    waiting: VecDeque<Waiting<W>>,
    bytes: usize,
    /// Why nothing more is taken in.
    closed: Option<Refusal>,
}

impl Answer {
    /// Answers; a caller that went away does not hear it.
    pub(crate) fn send(self, answer: Result<wire::AppendResponse, Refusal>) {
        drop(self.0.send(answer));
    }
}

impl Ticket {
    /// The receipt, once the work is durable, and the verdicts on its intents.
    ///
    /// # Errors
    ///
    /// What the writer refused the work for; [`Refusal::StorageFailed`] when it failed.
    pub(crate) async fn answer(self) -> Result<wire::AppendResponse, Refusal> {
        self.0.await.unwrap_or(Err(Refusal::StorageFailed))
    }

    /// The same for a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Ticket::answer`].
    pub(crate) fn wait(self) -> Result<wire::AppendResponse, Refusal> {
        self.0.blocking_recv().unwrap_or(Err(Refusal::StorageFailed))
    }
}

impl<W: Work> Queue<W> {
    /// A queue that holds at most `bytes_max` bytes, or one piece of work; `gauge` is the name of
    /// its metric.
    pub(crate) fn new(bytes_max: usize, gauge: &'static str) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, closed: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), bytes_max, gauge }
    }

    /// Puts work at the end.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueFull`], or what the queue was closed with.
    pub(crate) fn push(&self, work: W) -> Result<Ticket, Refusal> {
        let mut state = self.lock();
        state.room(work.bytes(), self.bytes_max)?;
        let (sender, receiver) = oneshot::channel();
        state.put(Waiting { work, answer: Answer(sender) });
        drop(state);
        self.changed.notify_one();
        Ok(Ticket(receiver))
    }

    /// Puts work from another queue at the end, or answers it with the refusal.
    pub(crate) fn hand_over(&self, waiting: Waiting<W>) {
        let mut state = self.lock();
        match state.room(waiting.work.bytes(), self.bytes_max) {
            Ok(()) => state.put(waiting),
            Err(refusal) => return waiting.answer.send(Err(refusal)),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Takes everything that waits, up to `bytes_max` bytes but at least one piece of work; waits
    /// for the first. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, bytes_max: usize) -> Option<Vec<Waiting<W>>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0_usize;
        let mut count = 0;
        for waiting in &state.waiting {
            bytes += waiting.work.bytes();
            if count > 0 && bytes > bytes_max {
                bytes -= waiting.work.bytes();
                break;
            }
            count += 1;
        }
        state.bytes -= bytes;
        metrics::gauge!(self.gauge).set(gauge(state.bytes));
        Some(state.waiting.drain(..count).collect())
    }

    /// Takes in nothing more; what waits is still written. The first reason stays.
    pub(crate) fn close(&self, reason: Refusal) {
        self.lock().closed.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Closes, and drops what waits, which answers it.
    pub(crate) fn fail(&self) {
        let mut state = self.lock();
        state.closed = Some(Refusal::StorageFailed);
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        drop(dropped);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // A thread that panicked while it held the lock left a queue that is still in order: every
        // change is one statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> State<W> {
    /// Whether work of `bytes` may come in.
    fn room(&self, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
        if let Some(refusal) = &self.closed {
            return Err(refusal.clone());
        }
        if self.bytes + bytes > bytes_max && !self.waiting.is_empty() {
            return Err(Refusal::QueueFull { waiting_bytes: self.bytes });
        }
        Ok(())
    }

    fn put(&mut self, waiting: Waiting<W>) {
        self.bytes += waiting.work.bytes();
        self.waiting.push_back(waiting);
    }
}

/// A count as a gauge's value.
fn gauge(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work of so many bytes.
    struct Piece(usize);

    impl Work for Piece {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_full_queue_refuses_and_empties() {
        let queue = Queue::new(2_000, "test_bytes");
        let _tickets = (queue.push(Piece(1_000)).ok(), queue.push(Piece(1_000)).ok());
        assert!(matches!(queue.push(Piece(1_000)), Err(Refusal::QueueFull { .. })));
        assert_eq!(queue.take(usize::MAX).unwrap().len(), 2);
        assert!(queue.is_empty() && queue.push(Piece(1_000)).is_ok());
    }

    #[test]
    fn work_larger_than_the_queue_still_passes_alone() {
        let queue = Queue::new(10, "test_bytes");
        assert!(queue.push(Piece(1_000)).is_ok());
        assert!(queue.push(Piece(1)).is_err());
        assert_eq!(queue.take(1).unwrap().len(), 1);
    }

    #[test]
    fn groups_are_bounded_in_bytes() {
        let queue = Queue::new(usize::MAX, "test_bytes");
        let tickets: Vec<_> = (0..5).map(|_| queue.push(Piece(1_000)).ok()).collect();
        assert_eq!(queue.take(2_000).unwrap().len(), 2);
        assert_eq!(queue.take(0).unwrap().len(), 1);
        assert_eq!(queue.take(usize::MAX).unwrap().len(), 2);
        assert_eq!(tickets.len(), 5);
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Queue::new(usize::MAX, "test_bytes");
        let _ticket = queue.push(Piece(1)).ok();
        queue.close(Refusal::Stopping);
        assert!(matches!(queue.push(Piece(1)), Err(Refusal::Stopping)));
        assert_eq!(queue.take(usize::MAX).map(|group| group.len()), Some(1));
        assert!(queue.take(usize::MAX).is_none());
    }

    #[test]
    fn a_failed_queue_answers_everyone() {
        let queue = Queue::new(usize::MAX, "test_bytes");
        let ticket = queue.push(Piece(1)).unwrap_or_else(|_| unreachable!());
        queue.fail();
        assert!(matches!(block_on(ticket.answer()), Err(Refusal::StorageFailed)));
        assert!(matches!(queue.push(Piece(1)), Err(Refusal::StorageFailed)));
    }
}
