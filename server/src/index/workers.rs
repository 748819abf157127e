//! The threads that the index computes on, and how hard they press.
//!
//! Indexing must not slow appends down: it runs on threads of the lowest priority, which get what
//! the others leave. When somebody waits for the index, it goes on at the priority of the others
//! until nobody does. A thread cannot raise its own priority again, so there are both kinds; those
//! that are not at work sleep.

use std::{io, num::NonZero, thread};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tracing::warn;

use super::error::IndexError;

/// The threads of one index.
pub(crate) struct Workers {
    calm: ThreadPool,
    quick: ThreadPool,
}

/// How hard to press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// With what others leave.
    Calm,
    /// Somebody waits.
    Quick,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// [`IndexError::Thread`] when the system gives no threads.
    pub(crate) fn start() -> Result<Self, IndexError> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let pool = || {
            ThreadPoolBuilder::new()
                .num_threads(cores.min(THREADS_MAX))
                .thread_name(|number| format!("index-{number}"))
        };
        let failed = |error| IndexError::Thread(io::Error::other(error));
        Ok(Self {
            calm: pool().start_handler(|_| step_back()).build().map_err(failed)?,
            quick: pool().build().map_err(failed)?,
        })
    }

    /// Does `work`, and what that splits off by rayon, on these threads, and waits for it.
    pub(crate) fn run<T: Send>(&self, pace: Pace, work: impl FnOnce() -> T + Send) -> T {
        match pace {
            Pace::Calm => self.calm.install(work),
            Pace::Quick => self.quick.install(work),
        }
    }
}

/// Gives the calling thread the lowest priority: on Linux it is each thread's own.
pub(crate) fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE_MAX) {
        warn!(%error, "indexes at the priority of appends");
    }
}

/// The nice value of the lowest priority.
const NICE_MAX: i32 = 19;

/// More would wait for the one that folds.
const THREADS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_threads_have_the_lowest_priority_and_quick_ones_that_of_the_process() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let workers = Workers::start().unwrap();
        assert_eq!(workers.run(Pace::Calm, nice), NICE_MAX);
        assert_eq!(workers.run(Pace::Quick, nice), nice());
    }
}
