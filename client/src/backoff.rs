//! When to repeat a call that failed, and when not to.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Growing delays between attempts, spread at random so that clients do not return all at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays between `min` and `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Begins anew with the shortest delay.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: at least what the ledger asked for, within reason.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let whole = self.min.saturating_mul(factor).min(self.max);
        let mut random = [0];
        // Without random bytes the delay is the whole one.
        let spread = match getrandom::fill(&mut random) {
            Ok(()) => whole.mul_f64(f64::from(u8::from_be_bytes(random)) / 512.0),
            Err(_) => Duration::ZERO,
        };
        (whole - spread).max(asked.unwrap_or_default().min(ASKED_MAX))
    }
}

/// Whether the same call may succeed later.
pub(crate) const fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            // What a connection that breaks in the middle of an answer turns into.
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}

/// The delay that the ledger asked for.
pub(crate) fn asked_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}

/// A ledger may slow its clients down, not stop them.
const ASKED_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_are_spread_and_bounded() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for failures in 0..40 {
            let whole = min.saturating_mul(1 << failures.min(8)).min(max);
            let delay = backoff.next(None);
            assert!(whole / 2 <= delay && delay <= whole, "{delay:?} after {failures} failures");
        }
        backoff.reset();
        assert!(backoff.next(None) <= min);
    }

    #[test]
    fn a_ledger_may_ask_for_patience_but_not_for_ever() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
        assert_eq!(backoff.next(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(backoff.next(Some(Duration::MAX)), ASKED_MAX);
    }
}
