//! What the recorder's callers, its driver and the keeper of its spool share: the events that wait,
//! in the order of their numbers, and who waits for them.
//!
//! Nobody holds the lock while waiting, and nothing under it touches disk or network.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_proto::{hash::Digest, position::count_of, source::SourceName};
use bytes::Bytes;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};

use super::{Ticket, batch::Place, keeper::Errand, pulse::Rhythm};
use crate::{
    error::RecorderError,
    spool::{Numbered, event_cost},
};

/// Bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub(super) events_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    limits: BatchLimits,
    memory_bytes_max: usize,
    /// Bytes that may still be taken into memory. With a spool an event gives its share back when
    /// it is synced, without one when its receipt is verified.
    memory: Semaphore,
    /// With a spool: bytes that it may still take. Given back when the receipt is verified.
    spool_room: Option<Semaphore>,
    /// Something is ready to be sent.
    ready: Notify,
    /// The keeper has something to do.
    keeper: Condvar,
    progress: watch::Sender<Progress>,
    /// The ledger's own source, once somebody waits for verdicts: nobody else's count.
    pub(super) own_source: OnceCell<SourceName>,
    /// When the source must be heard.
    pub(super) rhythm: Rhythm,
}

/// Whether an event waits until a batch has gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Gathers,
    /// Somebody waits for the answer.
    AtOnce,
    /// It is the last one, of a recorder that takes no others any more.
    Last,
}

/// How far it got.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// With a spool: all numbers up to this one are on disk.
    pub(super) durable: u64,
    /// The receipts of all numbers up to this one were verified.
    pub(super) settled: u64,
    pub(super) failure: Option<RecorderError>,
}

#[derive(Debug)]
struct Queue {
    /// Number of the next event.
    next_seq: u64,
    /// The last number whose receipt was verified.
    settled: u64,
    /// How many events have no verified receipt.
    unsettled: u64,
    /// With a spool: not yet synced.
    incoming: VecDeque<Numbered>,
    /// Next to be sent.
    ready: VecDeque<Numbered>,
    ready_bytes: usize,
    /// The last number that must not wait until a batch has gathered.
    urgent: u64,
    /// Who waits, in the order of the numbers.
    awaited: VecDeque<Awaited>,
    /// No new events.
    closing: bool,
    /// The keeper writes what is there, and ends.
    stopped: bool,
    failure: Option<RecorderError>,
}

/// What became of the events of one [`Awaited`]: the places of those that are settled.
pub(super) type Outcome = Result<Vec<Arc<Place>>, RecorderError>;

/// A run of events whose tickets share one channel.
#[derive(Debug)]
struct Awaited {
    first: u64,
    /// One past the last.
    end: u64,
    outcome: watch::Sender<Outcome>,
}

/// What [`Shared::cut`] found.
#[derive(Debug)]
pub(super) enum Cut {
    /// Nothing waits.
    Nothing,
    /// Less than a batch waits.
    Gather,
    Events(Vec<Numbered>),
}

/// Where a recorder begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The last number given before.
    pub(super) last: u64,
    /// The last one whose receipt was verified.
    pub(super) settled: u64,
    /// How many events in the spool have no verified receipt.
    pub(super) unsettled: u64,
    /// Bytes that the spool may still take.
    pub(super) spool_room: Option<usize>,
}

impl Shared {
    pub(super) fn new(
        start: Start,
        limits: BatchLimits,
        memory_bytes_max: usize,
        rhythm: Rhythm,
    ) -> Self {
        let queue = Queue {
            next_seq: start.last + 1,
            settled: start.settled,
            unsettled: start.unsettled,
            incoming: VecDeque::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            urgent: 0,
            awaited: VecDeque::new(),
            closing: false,
            stopped: false,
            failure: None,
        };
        let progress = Progress { durable: start.last, settled: start.settled, failure: None };
        Self {
            queue: Mutex::new(queue),
            limits,
            memory_bytes_max,
            memory: Semaphore::new(memory_bytes_max),
            spool_room: start.spool_room.map(Semaphore::new),
            ready: Notify::new(),
            keeper: Condvar::new(),
            progress: watch::Sender::new(progress),
            own_source: OnceCell::new(),
            rhythm,
        }
    }

    pub(super) const fn has_spool(&self) -> bool {
        self.spool_room.is_some()
    }

    /// Waits for room for one event, and takes it.
    pub(super) async fn reserve(&self, event: &Bytes) -> Result<(), RecorderError> {
        let cost = cost(event);
        let closed = |_| self.failure();
        let spool = match &self.spool_room {
            Some(room) => Some(room.acquire_many(cost).await.map_err(closed)?),
            None => None,
        };
        // A caller that is dropped while it waits here gives back what it took.
        self.memory.acquire_many(cost).await.map_err(closed)?.forget();
        if let Some(permit) = spool {
            permit.forget();
        }
        Ok(())
    }

    /// Takes room for one event if it is there.
    pub(super) fn try_reserve(&self, event: &Bytes) -> Result<(), RecorderError> {
        let cost = cost(event);
        let full = || match self.lock().failure.clone() {
            Some(failure) => failure,
            None => RecorderError::Full { bytes: event.len() },
        };
        let spool = self.spool_room.as_ref().map(|room| room.try_acquire_many(cost)).transpose();
        let spool = spool.map_err(|_| full())?;
        self.memory.try_acquire_many(cost).map_err(|_| full())?.forget();
        if let Some(permit) = spool {
            permit.forget();
        }
        Ok(())
    }

    /// Numbers an event for which there is room.
    pub(super) fn push(
        &self,
        event: Bytes,
        digest: Digest,
        urgency: Urgency,
    ) -> Result<Ticket, RecorderError> {
        let mut queue = self.lock();
        if let Some(failure) = &queue.failure {
            return Err(failure.clone());
        }
        if queue.closing && urgency != Urgency::Last {
            return Err(RecorderError::Closed);
        }
        let seq = queue.next_seq;
        queue.next_seq += 1;
        queue.unsettled += 1;
        if urgency != Urgency::Gathers {
            queue.urgent = seq;
        }
        self.rhythm.hear();
        let outcome = queue.await_number(seq);
        let event = Numbered { seq, event, digest };
        if self.has_spool() {
            queue.incoming.push_back(event);
            self.keeper.notify_all();
        } else if queue.make_ready(event, self.limits) {
            self.ready.notify_one();
        }
        Ok(Ticket { seq, outcome })
    }

    /// Cuts the next batch: what waits, when it is `due` or a whole batch.
    pub(super) fn cut(&self, due: bool) -> Cut {
        let mut queue = self.lock();
        if queue.ready.is_empty() {
            return Cut::Nothing;
        }
        if !due && !queue.holds_batch(self.limits) {
            return Cut::Gather;
        }
        let mut bytes = 0;
        let mut events: Vec<Numbered> =
            Vec::with_capacity(queue.ready.len().min(self.limits.events_max));
        while events.len() < self.limits.events_max
            && let Some(event) = queue.ready.pop_front_if(|event| {
                let follows = events.last().is_none_or(|last| last.seq + 1 == event.seq);
                let fits = events.is_empty() || bytes + event.event.len() <= self.limits.bytes_max;
                follows && fits
            })
        {
            bytes += event.event.len();
            events.push(event);
        }
        queue.ready_bytes -= bytes;
        self.wake_keeper();
        Cut::Events(events)
    }

    /// Puts events back in front of those that wait.
    pub(super) fn uncut(&self, events: Vec<Numbered>) {
        let mut queue = self.lock();
        for event in events.into_iter().rev() {
            queue.ready_bytes += event.event.len();
            queue.ready.push_front(event);
        }
    }

    /// Up to `count` of the events that wait in front; their numbers have no gaps.
    pub(super) fn front(&self, count: usize) -> Vec<Numbered> {
        let queue = self.lock();
        let first = queue.ready.front().map_or(0, |event| event.seq);
        let front = (first..).zip(queue.ready.iter().take(count));
        front.take_while(|(seq, event)| *seq == event.seq).map(|(_, event)| event.clone()).collect()
    }

    /// Takes away the events that wait in front with numbers up to `last`.
    pub(super) fn take_front(&self, last: u64) -> Vec<Numbered> {
        let mut queue = self.lock();
        let mut taken = Vec::new();
        while let Some(event) = queue.ready.pop_front_if(|event| event.seq <= last) {
            queue.ready_bytes -= event.event.len();
            taken.push(event);
        }
        self.wake_keeper();
        taken
    }

    /// Waits until something may be ready to be sent.
    pub(super) async fn wait_ready(&self) {
        self.ready.notified().await;
    }

    /// Whether something is ready to be sent.
    pub(super) fn has_ready(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// The last number given, and the last one whose receipt was verified.
    pub(super) fn numbers(&self) -> (u64, u64) {
        let queue = self.lock();
        (queue.next_seq - 1, queue.settled)
    }

    /// How many events have no verified receipt.
    pub(super) fn unsettled(&self) -> u64 {
        self.lock().unsettled
    }

    /// Tells all who wait for these events that they are recorded, and where.
    pub(super) fn settle(&self, place: Place, events: &[Numbered]) {
        let place = Arc::new(place);
        let room = events.iter().map(|event| event_cost(event.event.len())).sum();
        let settled = place.last_seq;
        let mut queue = self.lock();
        queue.settled = settled;
        queue.unsettled -= count_of(events.len());
        while let Some(awaited) = queue.awaited.front() {
            if awaited.first > settled {
                break;
            }
            let outcome = &awaited.outcome;
            outcome.send_if_modified(|outcome| {
                if let Ok(places) = outcome {
                    places.push(Arc::clone(&place));
                }
                true
            });
            if awaited.end > settled + 1 {
                break;
            }
            queue.awaited.pop_front();
        }
        drop(queue);
        self.spool_room.as_ref().unwrap_or(&self.memory).add_permits(room);
        self.progress.send_modify(|progress| progress.settled = settled);
        self.wake_keeper();
    }

    /// Waits until the recorder has come so far, or has failed.
    pub(super) async fn wait(
        &self,
        reached: impl Fn(&Progress) -> bool,
    ) -> Result<(), RecorderError> {
        let mut progress = self.progress.subscribe();
        let end = progress.wait_for(|at| reached(at) || at.failure.is_some()).await;
        match end {
            Ok(at) if reached(&at) => Ok(()),
            Ok(at) => Err(at.failure.clone().unwrap_or(RecorderError::Closed)),
            Err(_) => Err(RecorderError::Closed),
        }
    }

    /// Takes no new events.
    pub(super) fn close(&self) {
        self.lock().closing = true;
    }

    /// Fails all who wait, and all who come. The first failure stays.
    pub(super) fn fail(&self, failure: RecorderError) {
        let mut queue = self.lock();
        if queue.failure.is_some() {
            return;
        }
        queue.failure = Some(failure.clone());
        for awaited in mem::take(&mut queue.awaited) {
            awaited.outcome.send_modify(|outcome| *outcome = Err(failure.clone()));
        }
        drop(queue);
        self.memory.close();
        self.spool_room.iter().for_each(Semaphore::close);
        self.progress.send_modify(|progress| progress.failure = Some(failure));
    }

    /// Ends the keeper once it has written what was accepted.
    pub(super) fn stop(&self) {
        self.fail(RecorderError::Closed);
        self.lock().stopped = true;
        self.wake_keeper();
    }

    /// Keeper: waits for something to do, at most `patience`.
    pub(super) fn errand(&self, acknowledged: u64, unread: bool, patience: Duration) -> Errand {
        let queue = self.lock();
        let nothing = |queue: &mut Queue| {
            let room = unread && queue.ready_bytes < self.memory_bytes_max / 2;
            queue.incoming.is_empty() && queue.settled <= acknowledged && !room && !queue.stopped
        };
        let waited = self.keeper.wait_timeout_while(queue, patience, nothing);
        let (mut queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let mut incoming = Vec::new();
        while let Some(event) = queue.incoming.pop_front_if(|_| bytes < FRAME_BYTES_MAX) {
            bytes += event.event.len();
            incoming.push(event);
        }
        Errand {
            incoming,
            settled: queue.settled,
            room: queue.ready_bytes < self.memory_bytes_max / 2,
            idle: timeout.timed_out(),
            last: queue.stopped && queue.incoming.is_empty(),
        }
    }

    /// Keeper: these events are on disk.
    pub(super) fn synced(&self, events: &[Numbered]) {
        let memory = events.iter().map(|event| event_cost(event.event.len())).sum();
        self.memory.add_permits(memory);
        if let Some(last) = events.last() {
            self.progress.send_modify(|progress| progress.durable = last.seq);
        }
    }

    /// Keeper: these events are next to be sent.
    pub(super) fn hand_over(&self, events: Vec<Numbered>) {
        let mut queue = self.lock();
        let mut wake = false;
        for event in events {
            wake |= queue.make_ready(event, self.limits);
        }
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    fn wake_keeper(&self) {
        if self.has_spool() {
            self.keeper.notify_all();
        }
    }

    fn failure(&self) -> RecorderError {
        self.lock().failure.clone().unwrap_or(RecorderError::Closed)
    }

    /// A panic under the lock leaves the queue as it was before or after one of its short steps.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Joins those who wait for the newest numbers.
    fn await_number(&mut self, seq: u64) -> watch::Receiver<Outcome> {
        if let Some(awaited) = self.awaited.back_mut()
            && awaited.end == seq
            && seq - awaited.first < AWAITED_MAX
        {
            awaited.end += 1;
            return awaited.outcome.subscribe();
        }
        let (outcome, receiver) = watch::channel(Ok(Vec::new()));
        self.awaited.push_back(Awaited { first: seq, end: seq + 1, outcome });
        receiver
    }

    /// Whether the driver should look: something waits, or a whole batch does.
    fn make_ready(&mut self, event: Numbered, limits: BatchLimits) -> bool {
        let held_batch = self.holds_batch(limits);
        self.ready_bytes += event.event.len();
        self.ready.push_back(event);
        self.ready.len() == 1 || !held_batch && self.holds_batch(limits)
    }

    fn holds_batch(&self, limits: BatchLimits) -> bool {
        self.ready.len() >= limits.events_max
            || self.ready_bytes >= limits.bytes_max
            || self.holds_urgent()
    }

    fn holds_urgent(&self) -> bool {
        let (first, last) = (self.ready.front(), self.ready.back());
        first.is_some_and(|event| event.seq <= self.urgent)
            && last.is_some_and(|event| event.seq >= self.urgent)
    }
}

/// Bytes of room that an event takes, in memory or in the spool.
fn cost(event: &Bytes) -> u32 {
    u32::try_from(event_cost(event.len())).unwrap_or(u32::MAX)
}

/// Events that share a channel: a batch's worth.
const AWAITED_MAX: u64 = 256;

/// The keeper takes no more at once, so that a frame of the spool stays small enough to read back.
const FRAME_BYTES_MAX: usize = 4 << 20;
