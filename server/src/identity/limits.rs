//! What one principal may ask for: calls a second, calls at once, bytes a second.
//!
//! Too many calls are refused, with the time to come back. Bytes are never refused: reading from
//! the caller, or writing to it, pauses, which its flow control passes on. So whoever is noisy
//! waits for itself, and for nobody else.
//!
//! What a call may hold in memory is limited for every principal: long answers by their number
//! ([`READS_MAX`]), messages that are still arriving by their bytes (intake.rs).

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
    reads: Arc<Semaphore>,
    pub(super) intake: Budget,
}

/// A call within its principal's limits, for as long as it takes.
#[derive(Debug)]
pub(crate) struct Passage {
    bytes: Option<Arc<Bucket>>,
    _places: [Option<OwnedSemaphorePermit>; 3],
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(LimitsTable::default())
    }
}

impl Limits {
    pub(super) fn new(table: LimitsTable) -> Self {
        let calls = |calls: NonZeroU32| {
            let places = usize::try_from(calls.get()).unwrap_or(usize::MAX);
            (calls.get(), Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))))
        };
        Self {
            table,
            requests: table.requests_per_second.map(Bucket::new),
            bytes: table.bytes_per_second.map(Bucket::new).map(Arc::new),
            calls: table.calls.map(calls),
            reads: Arc::new(Semaphore::new(usize::try_from(READS_MAX).unwrap_or(usize::MAX))),
            intake: intake::budget(),
        }
    }

    /// As the file has them.
    pub(super) const fn table(&self) -> LimitsTable {
        self.table
    }

    /// Begins a call of the principal `name`; one with a long answer takes one of the places that
    /// `reads` has for all principals.
    ///
    /// # Errors
    ///
    /// [`Refusal::RateExceeded`], [`Refusal::CallsExceeded`].
    pub(super) fn enter(
        &self,
        name: &str,
        is_read: bool,
        reads: &Arc<Semaphore>,
    ) -> Result<Passage, Refusal> {
        let principal = || name.to_owned();
        if let Some(requests) = &self.requests {
            let exceeded =
                |retry_after| Refusal::RateExceeded { principal: principal(), retry_after };
            requests.try_take(1).map_err(exceeded)?;
        }
        let place = |places: &Arc<Semaphore>, most: u32| {
            let exceeded = |_| Refusal::CallsExceeded { principal: principal(), most };
            places.clone().try_acquire_owned().map_err(exceeded)
        };
        let call = match &self.calls {
            None => None,
            Some((most, places)) => Some(place(places, *most)?),
        };
        let read = |places| is_read.then(|| place(places, READS_MAX)).transpose();
        let places = [call, read(&self.reads)?, read(reads)?];
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

/// Calls with long answers at once, of one principal. Each may hold 4 MB that the caller does
/// not take.
const READS_MAX: u32 = 256;

/// The same of all principals together.
const ALL_READS_MAX: usize = 512;

/// Places for long answers, for all principals of a door.
pub(super) fn reads() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ALL_READS_MAX))
}

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
        let enter = || limits.enter("p", false, &reads());
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
    fn long_answers_are_limited_for_each_and_for_all() {
        let (all, principals) = (reads(), [const { Limits::default }; 6].map(|new| new()));
        let entered: Vec<Vec<_>> = principals
            .iter()
            .map(|limits| {
                let passages = (0..1_000).map(|_| limits.enter("p", true, &all));
                passages.take_while(Result::is_ok).collect()
            })
            .collect();
        let counts = entered.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(counts, [256, 256, 0, 0, 0, 0]);
        // Short ones are not, and what has ended makes room.
        principals[5].enter("p", false, &all).unwrap();
        drop(entered);
        principals[5].enter("p", true, &all).unwrap();
    }
}
