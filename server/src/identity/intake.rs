//! What messages that are still arriving may hold in memory, of one principal.
//!
//! A gRPC message says its length first, and is held until its last byte is there. So whoever
//! begins many and ends none would hold as much as it likes. Here a message of some length takes
//! that much of its principal's budget before more of it is read than flow control lets through
//! anyway; when the budget is used up, it waits, and with it its sender.
//!
//! Nothing more arrives of a principal that may not call any more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::{Status, body::Body};

use super::standing::Standing;
use crate::refusal::Refusal;

/// Of one principal.
pub(super) type Budget = Arc<Semaphore>;

/// A budget of which nothing is used.
pub(super) fn budget() -> Budget {
    Arc::new(Semaphore::new(BUDGET_BYTES))
}

/// The body of a gRPC request.
pub(super) struct Intake {
    inner: Body,
    budget: Budget,
    /// `None` where everybody may call.
    standing: Option<Standing>,
    message: Message,
    /// A part that is not passed on before there is room for the rest of its message.
    held_back: Option<Bytes>,
    waiting: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
    room: Option<Room>,
}

/// What a message takes of the budget, and for how long.
struct Room {
    of_message: u64,
    limit: Pin<Box<Sleep>>,
    _bytes: OwnedSemaphorePermit,
}

/// Where a body stands in its messages: each is a flag, its length in four bytes, and as many
/// bytes.
#[derive(Debug, Default)]
struct Message {
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// Counts the messages that have begun.
    number: u64,
    length: usize,
    /// Bytes that are missing.
    rest: usize,
}

impl Message {
    /// Goes on by a part of the body.
    fn advance(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let taken = self.rest.min(part.len());
            self.rest -= taken;
            part = part.get(taken..).unwrap_or_default();
            for slot in self.head.iter_mut().skip(self.head_len) {
                let Some((&byte, left)) = part.split_first() else { return };
                (*slot, part) = (byte, left);
                self.head_len += 1;
            }
            self.head_len = 0;
            self.number += 1;
            let [_, length @ ..] = self.head;
            self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.rest = self.length;
        }
    }
}

impl Intake {
    /// A body whose messages take their room of this budget.
    pub(super) fn new(inner: Body, budget: Budget, standing: Option<Standing>) -> Self {
        let message = Message::default();
        Self { inner, budget, standing, message, held_back: None, waiting: None, room: None }
    }

    /// Notes where a part leaves its message, and begins to wait if there is no room for that.
    fn note(&mut self, part: &[u8]) {
        self.message.advance(part);
        let Message { number, length, rest, .. } = self.message;
        self.room.take_if(|room| room.of_message != number || rest == 0);
        if self.room.is_none() && rest > FREE_BYTES {
            // More than any message may have is refused by who reads it.
            let wanted = u32::try_from(length.min(BUDGET_BYTES)).unwrap_or(u32::MAX);
            match self.budget.clone().try_acquire_many_owned(wanted) {
                Ok(bytes) => self.room = Some(Room::new(number, bytes)),
                Err(_) => {
                    self.waiting = Some(Box::pin(self.budget.clone().acquire_many_owned(wanted)));
                }
            }
        }
    }
}

impl Room {
    fn new(of_message: u64, bytes: OwnedSemaphorePermit) -> Self {
        Self { of_message, limit: Box::pin(sleep(MESSAGE_TIME)), _bytes: bytes }
    }
}

impl HttpBody for Intake {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(refusal) = self.standing.as_mut().and_then(Standing::lost) {
            return Poll::Ready(Some(Err(refusal.into())));
        }
        loop {
            if let Some(waiting) = &mut self.waiting {
                let bytes = ready!(waiting.as_mut().poll(context));
                self.waiting = None;
                let number = self.message.number;
                self.room = bytes.ok().map(|bytes| Room::new(number, bytes));
            }
            if let Some(part) = self.held_back.take() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
                let Some(room) = &mut self.room else { return Poll::Pending };
                ready!(room.limit.as_mut().poll(context));
                let slow = Refusal::Deadline { limit: MESSAGE_TIME };
                return Poll::Ready(Some(Err(slow.into())));
            };
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            match frame.into_data() {
                Ok(part) => {
                    self.note(&part);
                    self.held_back = Some(part);
                }
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held_back.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Before a message: whether it is compressed, and its length.
const HEAD_LEN: usize = 5;

/// Shorter messages need no room: flow control bounds them together.
const FREE_BYTES: usize = 16 << 10;

/// Messages that arrive at once: eleven of the largest, or a thousand usual ones.
const BUDGET_BYTES: usize = 64 << 20;

/// How long the rest of a long message may take.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};

    use super::*;

    /// A message of this length, in parts of so many bytes; the last `missing` of them never come.
    fn parts(length: usize, part: usize, missing: usize) -> Vec<Bytes> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(HEAD_LEN + length - missing, 7);
        bytes.chunks(part).map(Bytes::copy_from_slice).collect()
    }

    /// A body of these parts that does not end.
    fn body(parts: Vec<Bytes>, budget: &Budget) -> axum::body::BodyDataStream {
        let parts = stream::iter(parts).chain(stream::pending()).map(Ok::<_, Status>);
        let body = Body::new(axum::body::Body::from_stream(parts));
        axum::body::Body::new(Intake::new(body, budget.clone(), None)).into_data_stream()
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let lengths = [0, 1, 4, 5, 70_000, 3];
        let bytes: Vec<u8> =
            lengths.iter().flat_map(|&length| parts(length, usize::MAX, 0).concat()).collect();
        for cut in [1, 2, 3, 5, 7, 1_000, usize::MAX] {
            let mut message = Message::default();
            for part in bytes.chunks(cut) {
                message.advance(part);
            }
            assert_eq!((message.number, message.rest, message.head_len), (6, 0, 0), "{cut}");
        }
        let mut message = Message::default();
        message.advance(&parts(70_000, usize::MAX, 1).concat());
        assert_eq!((message.number, message.rest), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_messages_hold_no_more_than_their_budget() {
        let budget = budget();
        const LONG: usize = 6 << 20;
        let unfinished = || parts(LONG, 64 << 10, 1);
        let mut senders = Vec::new();
        for _ in 0..100 {
            senders.push(body(unfinished(), &budget));
        }
        let mut passed = 0;
        for sender in &mut senders {
            while let Some(Some(part)) = sender.next().now_or_never() {
                passed += part.unwrap().len();
            }
        }
        assert!(passed <= BUDGET_BYTES, "{passed}");
        assert!(passed >= BUDGET_BYTES / 2, "{passed}");
        // Short ones pass all the while, and whoever has waited passes when there is room again.
        let mut short = body(parts(FREE_BYTES, usize::MAX, 0), &budget);
        assert!(short.next().now_or_never().is_some());
        let last = senders.pop().unwrap();
        let mut last = Box::pin(last.take(1).collect::<Vec<_>>());
        assert!((&mut last).now_or_never().is_none());
        senders.clear();
        assert!(last.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_back_with_the_message_and_a_slow_one_is_given_up() {
        let budget = budget();
        let whole = parts(1 << 20, 64 << 10, 0);
        let unfinished = parts(1 << 20, 64 << 10, 1);
        let (count, all) = (whole.len() + unfinished.len(), [whole, unfinished].concat());
        let mut sender = body(all, &budget);
        for place in 0..count {
            sender.next().await.unwrap().unwrap();
            let used = BUDGET_BYTES - budget.available_permits();
            assert_eq!(used == 0, place + 1 == count / 2, "{place}: {used}");
        }
        let failure = sender.next().await.unwrap().unwrap_err();
        assert!(failure.to_string().contains("60s"), "{failure}");
        drop(sender);
        assert_eq!(budget.available_permits(), BUDGET_BYTES);
    }
}
