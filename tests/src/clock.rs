//! Clocks that say what the test set.

use std::sync::atomic::{AtomicU64, Ordering};

use access_ledger_server::os::{Clock, SystemClock};

/// Stands still until it is set, forward or back.
#[derive(Debug)]
pub struct SetClock {
    nanos: AtomicU64,
}

impl SetClock {
    /// A clock that says so many seconds since the Unix epoch.
    #[must_use]
    pub const fn at_s(seconds: u64) -> Self {
        Self { nanos: AtomicU64::new(seconds * NANOS_PER_S) }
    }

    /// Makes it say so many seconds.
    pub fn set_s(&self, seconds: u64) {
        self.nanos.store(seconds * NANOS_PER_S, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now_nanos(&self) -> u64 {
        self.nanos.load(Ordering::SeqCst)
    }
}

/// Runs like the machine's, and stands where it is set.
#[derive(Debug, Default)]
pub struct RunningClock {
    /// Nanoseconds that it is ahead of the machine's.
    ahead: AtomicU64,
}

impl RunningClock {
    /// Makes it say so many nanoseconds since the Unix epoch, not before the machine's.
    pub fn set(&self, nanos: u64) {
        self.ahead.store(nanos.saturating_sub(SystemClock.now_nanos()), Ordering::SeqCst);
    }
}

impl Clock for RunningClock {
    fn now_nanos(&self) -> u64 {
        SystemClock.now_nanos() + self.ahead.load(Ordering::SeqCst)
    }
}

const NANOS_PER_S: u64 = 1_000_000_000;
