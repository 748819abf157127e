//! A clock that says what the test set.

use std::sync::atomic::{AtomicU64, Ordering};

use access_ledger_server::os::Clock;

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

    /// A clock that says so many nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn at(nanos: u64) -> Self {
        Self { nanos: AtomicU64::new(nanos) }
    }

    /// Makes it say so many nanoseconds.
    pub fn set(&self, nanos: u64) {
        self.nanos.store(nanos, Ordering::SeqCst);
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

const NANOS_PER_S: u64 = 1_000_000_000;
