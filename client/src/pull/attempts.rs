//! When a call or a stream broke: whether, and when, to try again.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{Patience, PullError};
use crate::backoff::{Backoff, asked_delay, is_transient};

/// Attempts since there was progress.
#[derive(Debug)]
pub(super) struct Attempts {
    patience: Patience,
    backoff: Backoff,
    /// When the first of them failed.
    failing_since: Option<Instant>,
}

impl Attempts {
    pub(super) const fn new(patience: Patience) -> Self {
        let backoff = Backoff::new(DELAY_MIN, DELAY_MAX);
        Self { patience, backoff, failing_since: None }
    }

    pub(super) const fn progressed(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Waits before the next attempt; gives up where waiting does not help, or has not helped.
    pub(super) async fn wait(&mut self, status: Status) -> Result<(), PullError> {
        let is_first = self.failing_since.is_none();
        let failing_for = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        let left = self.patience.repeat.saturating_sub(failing_for);
        let is_over = !is_first && left.is_zero();
        if is_over && status.code() == Code::DeadlineExceeded {
            return Err(PullError::Deadline { waited: self.patience.answer });
        }
        if is_over || !is_transient(status.code()) {
            return Err(PullError::Refused(Box::new(status)));
        }
        let delay = self.backoff.next(asked_delay(&status)).min(left);
        tracing::debug!(code = ?status.code(), ?delay, "stream or call broke, will repeat");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(3);
