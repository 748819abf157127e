//! How long a ledger keeps the patrol waiting: pure.

use std::time::Duration;

/// Time that was waited since the last step forward. Entries that come one by one, each just in
/// time, are no step, or a ledger could hide an entry behind a round that never ends.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    entries: usize,
    bytes: usize,
}

impl Pace {
    /// The ledger was waited for.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Entries came, of so many bytes with their events.
    pub(super) fn got(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_add(entries);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.entries >= PACE_ENTRIES || self.bytes >= PACE_BYTES {
            self.begin();
        }
    }

    /// Counts anew.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// What is left of `grace`.
    pub(super) const fn left(&self, grace: Duration) -> Duration {
        grace.saturating_sub(self.waited)
    }
}

/// Entries that are a step forward.
pub const PACE_ENTRIES: usize = 1_000;

/// Bytes that are one, too: large events over a slow line take their time.
pub const PACE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_begins_the_time_anew() {
        let (grace, mut pace) = (Duration::from_secs(60), Pace::default());
        let mut left = grace;
        for _ in 1..PACE_ENTRIES {
            pace.waited(Duration::from_millis(10));
            pace.got(1, 100);
            left -= Duration::from_millis(10);
            assert_eq!(pace.left(grace), left);
        }
        pace.got(1, 100);
        assert_eq!(pace.left(grace), grace);
        pace.waited(Duration::from_secs(90));
        assert_eq!(pace.left(grace), Duration::ZERO);
        pace.got(1, PACE_BYTES);
        assert_eq!(pace.left(grace), grace);
    }
}
