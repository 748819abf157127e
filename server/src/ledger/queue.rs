//! The waiting room between the many that have something to record and the one that writes it.
//!
//! Bounded in bytes: a full queue refuses, it never grows. Whoever puts something in gets a
//! [`Ticket`] that is answered when it is durable; what is dropped unanswered (the writer failed)
//! answers its ticket with a refusal, so no caller waits for ever.
//!
//! **Fair.** Work waits in lanes, one for each source and its children. The writer takes from the
//! lanes in turns (deficit round robin, in bytes), and a lane may hold no more than what is still
//! free, so that of `n` that flood the queue each gets a share, and whoever comes next finds room.
//!
//! Within a lane the order of arrival stays. A ledger that takes its order from a replicated log
//! would fill the queue from there.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use access_ledger_proto::{source::Name, wire};
use tokio::sync::oneshot;

use crate::{
    refusal::Refusal,
    trace::{BatchTrace, Step},
};

/// What can wait.
pub(crate) trait Work {
    /// About the bytes of memory that it holds while it waits, from above.
    fn bytes(&self) -> usize;

    /// In whose lane it waits.
    fn lane(&self) -> Lane;
}

/// Who shares a place in the queue: a source of the top level with all its children. Two that
/// collide share one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane(u64);

impl Lane {
    /// The lane of what the ledger itself records.
    pub(crate) const OWN: Self = Self(0);

    /// The lane of a source: that of the first part of its name.
    pub(crate) fn of(source: Name<'_>) -> Self {
        let family = source.as_str().split('/').next();
        let mut hasher = DefaultHasher::new();
        family.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Work that waits, and who waits for it.
pub(crate) struct Waiting<W> {
    /// What to do.
    pub(crate) work: W,
    /// Whom to tell.
    pub(crate) answer: Answer,
}

/// Tells the caller what became of its work.
pub(crate) struct Answer {
    sender: oneshot::Sender<Result<wire::AppendResponse, Refusal>>,
    /// Goes where the work goes.
    trace: BatchTrace,
}

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
    /// None is empty.
    lanes: HashMap<Lane, Line<W>>,
    /// Whose turn comes when: each lane once.
    turns: VecDeque<Lane>,
    bytes: usize,
    /// Why nothing more is taken in.
    closed: Option<Refusal>,
}

/// What waits in one lane.
struct Line<W> {
    waiting: VecDeque<Waiting<W>>,
    bytes: usize,
    /// Bytes that the lane may still take in this turn.
    credit: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, credit: 0 }
    }
}

impl Answer {
    /// Answers; a caller that went away does not hear it.
    pub(crate) fn send(self, answer: Result<wire::AppendResponse, Refusal>) {
        self.trace.answered(&answer);
        drop(self.sender.send(answer));
    }

    /// Says what the work is at.
    pub(crate) fn step(&mut self, step: Step) {
        self.trace.step(step);
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
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), bytes: 0, closed: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), bytes_max, gauge }
    }

    /// Puts work at the end of its lane.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueFull`], or what the queue was closed with.
    pub(crate) fn push(&self, work: W) -> Result<Ticket, Refusal> {
        self.push_traced(work, &mut BatchTrace::default())
    }

    /// The same for work with a trace, which is taken along.
    ///
    /// # Errors
    ///
    /// As [`Queue::push`].
    pub(crate) fn push_traced(&self, work: W, trace: &mut BatchTrace) -> Result<Ticket, Refusal> {
        let mut state = self.lock();
        state.room(&work, self.bytes_max)?;
        let (sender, receiver) = oneshot::channel();
        let mut answer = Answer { sender, trace: std::mem::take(trace) };
        answer.step(Step::Queue);
        state.put(Waiting { work, answer });
        drop(state);
        self.changed.notify_one();
        Ok(Ticket(receiver))
    }

    /// Puts work from another queue at the end of its lane, or answers it with the refusal.
    pub(crate) fn hand_over(&self, mut waiting: Waiting<W>) {
        waiting.answer.step(Step::Repeat);
        let mut state = self.lock();
        match state.room(&waiting.work, self.bytes_max) {
            Ok(()) => state.put(waiting),
            Err(refusal) => return waiting.answer.send(Err(refusal)),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().turns.is_empty()
    }

    /// Takes everything that waits, lane by lane, up to `bytes_max` bytes but at least one piece of
    /// work; waits for the first. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, bytes_max: usize) -> Option<Vec<Waiting<W>>> {
        let mut state = self.lock();
        while state.turns.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = state.take(bytes_max);
        metrics::gauge!(self.gauge).set(gauge(state.bytes));
        Some(taken)
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
        let dropped = (std::mem::take(&mut state.lanes), std::mem::take(&mut state.turns));
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
    /// Whether work may come in: into an empty queue always; else while there is room for it, and
    /// its lane, if it holds something already, holds no more with it than what is then free.
    fn room(&self, work: &W, bytes_max: usize) -> Result<(), Refusal> {
        if let Some(refusal) = &self.closed {
            return Err(refusal.clone());
        }
        let held = self.lanes.get(&work.lane()).map_or(0, |line| line.bytes);
        let free = bytes_max.checked_sub(self.bytes.saturating_add(work.bytes()));
        let has_room = free.is_some_and(|free| held == 0 || held + work.bytes() <= free);
        if has_room || self.turns.is_empty() {
            return Ok(());
        }
        Err(Refusal::QueueFull { waiting_bytes: self.bytes })
    }

    fn put(&mut self, waiting: Waiting<W>) {
        let (lane, bytes) = (waiting.work.lane(), waiting.work.bytes());
        let line = self.lanes.entry(lane).or_default();
        if line.waiting.is_empty() {
            self.turns.push_back(lane);
        }
        line.bytes += bytes;
        line.waiting.push_back(waiting);
        self.bytes += bytes;
    }

    /// Gives the lanes their turns until `bytes_max` bytes are taken; the next call goes on where
    /// this one stops.
    fn take(&mut self, bytes_max: usize) -> Vec<Waiting<W>> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while let Some(lane) = self.turns.pop_front() {
            let Some(line) = self.lanes.get_mut(&lane) else { continue };
            // Alone, a lane need not wait for its next turn.
            let share = if self.turns.is_empty() { usize::MAX } else { TURN_BYTES };
            line.credit = line.credit.saturating_add(share);
            while let Some(next) = line.waiting.front() {
                let next_bytes = next.work.bytes();
                if !taken.is_empty() && bytes + next_bytes > bytes_max {
                    line.credit = line.credit.saturating_sub(share);
                    self.turns.push_front(lane);
                    return taken;
                }
                if next_bytes > line.credit {
                    break;
                }
                line.credit -= next_bytes;
                line.bytes -= next_bytes;
                self.bytes -= next_bytes;
                bytes += next_bytes;
                taken.extend(line.waiting.pop_front());
            }
            if line.waiting.is_empty() {
                self.lanes.remove(&lane);
            } else {
                self.turns.push_back(lane);
            }
        }
        taken
    }
}

/// What a lane may take in a turn, besides what it saved up: some batches of usual size, so that
/// turns cost nothing, and 32 of them in a group.
const TURN_BYTES: usize = 256 << 10;

/// A count as a gauge's value.
fn gauge(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work of so many bytes, in the lane of `a`.
    struct Piece(usize);

    impl Work for Piece {
        fn bytes(&self) -> usize {
            self.0
        }

        fn lane(&self) -> Lane {
            lane("a")
        }
    }

    /// Work of a source, of so many bytes, with its number.
    struct Numbered(&'static str, usize, u32);

    impl Work for Numbered {
        fn bytes(&self) -> usize {
            self.1
        }

        fn lane(&self) -> Lane {
            lane(self.0)
        }
    }

    fn lane(source: &str) -> Lane {
        Lane::of(Name::parse(source.as_bytes()).unwrap())
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_full_queue_refuses_and_empties() {
        let queue = Queue::new(2_000, "test_bytes");
        let held = [Numbered("a", 1_000, 0), Numbered("b", 1_000, 0)];
        let _tickets = held.map(|work| queue.push(work).ok());
        let next = || Numbered("c", 1_000, 0);
        assert!(matches!(queue.push(next()), Err(Refusal::QueueFull { .. })));
        assert_eq!(queue.take(usize::MAX).unwrap().len(), 2);
        assert!(queue.is_empty() && queue.push(next()).is_ok());
    }

    #[test]
    fn work_larger_than_the_queue_still_passes_alone() {
        let queue = Queue::new(10, "test_bytes");
        assert!(queue.push(Piece(1_000)).is_ok());
        assert!(queue.push(Piece(1)).is_err());
        assert_eq!(queue.take(1).unwrap().len(), 1);
    }

    #[test]
    fn a_flood_leaves_room_for_others_and_waits_its_turn() {
        let queue = Queue::new(40 << 20, "test_bytes");
        let mut tickets = Vec::new();
        let mut flood = 0;
        while let Ok(ticket) = queue.push(Numbered("noisy/1", 100 << 10, flood)) {
            tickets.push(ticket);
            flood += 1;
        }
        assert_eq!(flood, 204, "the flood takes half of the queue");
        assert!(queue.push(Numbered("noisy/2", 100 << 10, 0)).is_err(), "children share a lane");
        for number in 0..3 {
            assert!(queue.push(Numbered("quiet", 100 << 10, number)).is_ok());
        }
        let group = queue.take(1 << 20).unwrap();
        let sources: Vec<_> = group.iter().map(|waiting| waiting.work.0).collect();
        assert_eq!(sources.iter().filter(|&&source| source == "quiet").count(), 3, "{sources:?}");
    }

    #[test]
    fn each_lane_keeps_its_order_and_gets_its_share() {
        let queue = Queue::new(usize::MAX, "test_bytes");
        let sources = ["a", "b", "c"];
        // Pieces of 1 KiB, of 100 KiB, and of 600 KiB, which is more than a turn.
        let sizes = [1 << 10, 100 << 10, 600 << 10];
        let mut left = 0;
        for number in 0..200 {
            for (source, bytes) in sources.into_iter().zip(sizes) {
                assert!(queue.push(Numbered(source, bytes, number)).is_ok());
                left += 1;
            }
        }
        let mut next = HashMap::from(sources.map(|source| (source, 0)));
        let mut bytes = HashMap::from(sources.map(|source| (source, 0)));
        while left > 0 {
            for Waiting { work: Numbered(source, size, number), .. } in queue.take(4 << 20).unwrap()
            {
                assert_eq!(next.insert(source, number + 1), Some(number));
                *bytes.get_mut(source).unwrap() += size;
                left -= 1;
                // While both wait, those with large pieces get as much as those with small ones.
                if next["b"] < 200 {
                    assert!(bytes["b"].abs_diff(bytes["c"]) <= 2 << 20, "{bytes:?}");
                }
            }
        }
        assert!(queue.is_empty());
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
