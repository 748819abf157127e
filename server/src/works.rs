//! Work that blocks, off the network's threads: so much at once, whatever callers do.
//!
//! Whoever waits for a place holds its request and nothing else, and stops waiting when its call
//! ends. Work that has begun goes on to its end and keeps its place until then, so who begins calls
//! and takes them back makes no heap of work that nobody waits for.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
};

use crate::refusal::Refusal;

/// Places for the work of one service. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Works(Arc<Semaphore>);

/// A place for some work.
#[derive(Debug)]
pub(crate) struct Place {
    _taken: OwnedSemaphorePermit,
}

impl Works {
    /// So many places, none of them taken.
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Does some work when there is a place for it.
    ///
    /// # Errors
    ///
    /// Those of the work; [`Refusal::Stopping`] when it was not done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.place().await?.run(work).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// A place, when there is one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Stopping`] when there will be none.
    pub(crate) async fn place(&self) -> Result<Place, Refusal> {
        let taken = self.0.clone().acquire_owned().await;
        taken.map(|_taken| Place { _taken }).map_err(|_| Refusal::Stopping)
    }
}

impl Place {
    /// Does some work, and keeps the place until it is done.
    ///
    /// # Errors
    ///
    /// When the work panicked, or the runtime ends.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let work = move || {
            let _until_done = self;
            work()
        };
        spawn_blocking(work).await
    }
}

/// Places of a gRPC service: more than a disk has queues for, and far fewer than the threads that
/// all services share.
pub(crate) const GRPC_WORKS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    const PLACES: usize = 64;

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_that_are_taken_back_leave_no_heap_of_work() {
        let (works, begun) = (Works::new(PLACES), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let begin = || {
            let (works, begun, gate) = (works.clone(), begun.clone(), gate.clone());
            tokio::spawn(async move {
                let work = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    let _closed = gate.lock().map(|gate| gate.recv());
                    Ok(())
                };
                works.run(work).await
            })
        };
        let calls: Vec<_> = (0..10 * PLACES).map(|_| begin()).collect();
        while begun.load(Ordering::SeqCst) < PLACES {
            tokio::task::yield_now().await;
        }
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        for call in calls {
            assert!(call.await.is_err());
        }
        drop(release);
        begin().await.unwrap().unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), PLACES + 1);
    }
}
