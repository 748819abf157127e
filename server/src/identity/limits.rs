//! What one principal may ask for: calls a second, calls at once, bytes a second.
//!
//! Too many calls are refused, with the time to come back. Bytes are never refused: reading from
//! the caller, or writing to it, pauses, which its flow control passes on. So whoever is noisy
//! waits for itself, and for nobody else.
//!
//! What a call may hold in memory is limited for every principal: long answers and streams of
//! batches by their number ([`Places`]), messages that are still arriving by their bytes
//! (intake.rs).

use std::{
    convert::Infallible,
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tonic::{Status, body::Body};

use super::intake::{self, Budget};
use crate::refusal::Refusal;

/// Limits as the file of principals has them; what is not there is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    requests_per_second: Option<NonZeroU32>,
    bytes_per_second: Option<NonZeroU32>,
    calls: Option<NonZeroU32>,
}

/// Limits with what is used up of them.
#[derive(Debug)]
pub(super) struct Limits {
    table: LimitsTable,
    requests: Option<Bucket>,
    bytes: Option<Arc<Bucket>>,
    calls: Option<(u32, Arc<Semaphore>)>,
    places: Places,
    pub(super) intake: Budget,
}

/// A call within its principal's limits, for as long as it takes.
#[derive(Debug)]
pub(crate) struct Passage {
    bytes: Option<Arc<Bucket>>,
    _places: [Option<OwnedSemaphorePermit>; 3],
}

/// What a call may hold of which its caller decides how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Little, or nothing for long.
    Little,
    /// An answer until it is taken: up to 4.5 MB.
    Answer,
    /// Batches and their receipts until they are taken: up to 4 MB.
    Receipts,
}

/// Places for calls that hold much, of one principal or of all.
#[derive(Debug)]
pub(super) struct Places {
    answers: (u32, Arc<Semaphore>),
    receipts: (u32, Arc<Semaphore>),
}

impl Places {
    fn new(answers: u32, receipts: u32) -> Self {
        Self { answers: places(answers), receipts: places(receipts) }
    }

    /// All principals of a door.
    pub(super) fn of_all() -> Self {
        Self::new(ALL_ANSWERS_MAX, ALL_RECEIPTS_MAX)
    }

    /// For such a call.
    const fn of(&self, holds: Holds) -> Option<&(u32, Arc<Semaphore>)> {
        match holds {
            Holds::Little => None,
            Holds::Answer => Some(&self.answers),
            Holds::Receipts => Some(&self.receipts),
        }
    }
}

/// So many places, with their number.
fn places(most: u32) -> (u32, Arc<Semaphore>) {
    let places = usize::try_from(most).unwrap_or(usize::MAX);
    (most, Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))))
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(LimitsTable::default())
    }
}

impl Limits {
    pub(super) fn new(table: LimitsTable) -> Self {
        Self {
            table,
            requests: table.requests_per_second.map(Bucket::new),
            bytes: table.bytes_per_second.map(Bucket::new).map(Arc::new),
            calls: table.calls.map(|calls| places(calls.get())),
            places: Places::new(ANSWERS_MAX, RECEIPTS_MAX),
            intake: intake::budget(),
        }
    }

    /// As the file has them.
    pub(super) const fn table(&self) -> LimitsTable {
        self.table
    }

    /// Begins a call of the principal `name`; one that holds much takes one of its places, and one
    /// of those for `all` principals.
    ///
    /// # Errors
    ///
    /// [`Refusal::RateExceeded`], [`Refusal::CallsExceeded`].
    pub(super) fn enter(&self, name: &str, holds: Holds, all: &Places) -> Result<Passage, Refusal> {
        let principal = || name.to_owned();
        if let Some(requests) = &self.requests {
            let exceeded =
                |retry_after| Refusal::RateExceeded { principal: principal(), retry_after };
            requests.try_take(1).map_err(exceeded)?;
        }
        let place = |places: Option<&(u32, Arc<Semaphore>)>| {
            let Some((most, places)) = places else { return Ok(None) };
            let exceeded = |_| Refusal::CallsExceeded { principal: principal(), most: *most };
            places.clone().try_acquire_owned().map(Some).map_err(exceeded)
        };
        let call = place(self.calls.as_ref())?;
        let places = [call, place(self.places.of(holds))?, place(all.of(holds))?];
        Ok(Passage { bytes: self.bytes.clone(), _places: places })
    }
}

impl Passage {
    /// A body, as fast as the principal may send or receive.
    pub(crate) fn paced(&self, inner: Body) -> Body {
        match &self.bytes {
            Some(bytes) => Body::new(Metered { inner, bytes: bytes.clone(), pause: None }),
            None => inner,
        }
    }
}

/// A body that keeps to a number of bytes a second.
struct Metered {
    inner: Body,
    bytes: Arc<Bucket>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let Some(data) = data {
            let wait = self.bytes.take(u32::try_from(data.len()).unwrap_or(u32::MAX));
            self.pause = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A bucket that fills at a steady rate, and holds what flows in within a second. Full at first.
#[derive(Debug)]
struct Bucket {
    per_second: NonZeroU32,
    /// When the bucket will be full.
    full_at: Mutex<Instant>,
}

impl Bucket {
    fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, full_at: Mutex::new(Instant::now()) }
    }

    /// Takes so much, or tells how long until it is there.
    fn try_take(&self, amount: u32) -> Result<(), Duration> {
        self.with(amount, |lacking| if lacking.is_zero() { Ok(()) } else { Err(lacking) })
    }

    /// Takes so much, even what is not there yet, and tells how long until it is.
    fn take(&self, amount: u32) -> Duration {
        let Ok(lacking) = self.with(amount, Ok::<_, Infallible>);
        lacking
    }

    /// Takes `amount` unless `judge`, told how long it takes to flow in, says otherwise.
    fn with<T, E>(
        &self,
        amount: u32,
        judge: impl FnOnce(Duration) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let then = (*full_at).max(now) + HOLDS * amount / self.per_second.get();
        let judged = judge((then - now).saturating_sub(HOLDS))?;
        *full_at = then;
        Ok(judged)
    }
}

/// How much a bucket holds, as the time in which it flows in.
const HOLDS: Duration = Duration::from_secs(1);

/// Calls with long answers at once, of one principal, and of all.
const ANSWERS_MAX: u32 = 256;
const ALL_ANSWERS_MAX: u32 = 512;

/// Streams of batches at once. Every process of a service may have one, and those that take their
/// receipts hold little.
const RECEIPTS_MAX: u32 = 1_024;
const ALL_RECEIPTS_MAX: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32) -> Bucket {
        Bucket::new(NonZeroU32::new(per_second).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_a_second_at_once_and_then_its_rate() {
        let bucket = bucket(10);
        for _ in 0..10 {
            bucket.try_take(1).unwrap();
        }
        let wait = bucket.try_take(1).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        // What was refused was not taken.
        assert_eq!(bucket.try_take(1).unwrap_err(), wait);
        tokio::time::advance(wait).await;
        bucket.try_take(1).unwrap();
        bucket.try_take(1).unwrap_err();
        // However long nobody takes anything, it holds no more.
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!((0..20).filter(|_| bucket.try_take(1).is_ok()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_too_early_is_waited_for() {
        let bucket = bucket(1_000);
        assert_eq!(bucket.take(1_000), Duration::ZERO);
        assert_eq!(bucket.take(500), Duration::from_millis(500));
        assert_eq!(bucket.take(500), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(bucket.take(1_000), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_passes_as_fast_as_its_principal_may_and_no_faster() {
        use futures_util::{StreamExt as _, stream};
        let table = LimitsTable {
            bytes_per_second: NonZeroU32::new(1_000),
            calls: NonZeroU32::new(1),
            ..LimitsTable::default()
        };
        let limits = Limits::new(table);
        let enter = || limits.enter("p", Holds::Little, &Places::of_all());
        let passage = enter().unwrap();
        assert!(matches!(enter(), Err(Refusal::CallsExceeded { most: 1, .. })));
        let began = Instant::now();
        let parts = stream::iter((0..40).map(|_| Ok::<_, Status>(Bytes::from_static(&[7; 100]))));
        let body = passage.paced(Body::new(axum::body::Body::from_stream(parts)));
        let passed = axum::body::Body::new(body).into_data_stream().count().await;
        assert_eq!(passed, 40);
        // The first second's worth at once, the others at the rate, and nobody waits for the end.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(2_900), "{took:?}");
        assert!(took <= Duration::from_millis(3_100), "{took:?}");
        drop(passage);
        enter().unwrap();
    }

    #[test]
    fn calls_that_hold_much_are_limited_for_each_and_for_all() {
        let cases = [
            (Holds::Answer, [256, 256, 0, 0, 0, 0]),
            (Holds::Receipts, [1_024, 1_024, 1_024, 1_024, 0, 0]),
        ];
        for (holds, wanted) in cases {
            let (all, principals) = (Places::of_all(), wanted.map(|_| Limits::default()));
            let entered: Vec<Vec<_>> = principals
                .iter()
                .map(|limits| {
                    let passages = (0..2_000).map(|_| limits.enter("p", holds, &all));
                    passages.take_while(Result::is_ok).collect()
                })
                .collect();
            assert!(entered.iter().map(Vec::len).eq(wanted), "{holds:?}");
            // Others are not, and what has ended makes room.
            for other in [Holds::Little, Holds::Answer, Holds::Receipts] {
                let is_let_in = principals[5].enter("p", other, &all).is_ok();
                assert_eq!(is_let_in, other != holds);
            }
            drop(entered);
            principals[5].enter("p", holds, &all).unwrap();
        }
    }
}
