//! When what was left is tried again: soon at first, then ever less often, for each attempt may
//! read the whole log.

use std::time::Duration;

use tokio::time::Instant;

/// At once, before anything was left.
#[derive(Debug, Default)]
pub(super) struct Retry {
    due: Option<Instant>,
    delay: Duration,
}

impl Retry {
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// Something was left.
    pub(super) fn put_off(&mut self) {
        self.delay = (self.delay * 2).clamp(DELAY_MIN, DELAY_MAX);
        self.due = Some(Instant::now() + self.delay);
    }
}

/// What passes may have passed by then.
const DELAY_MIN: Duration = Duration::from_secs(5);

/// What does not pass by itself is mended with the ledger stopped.
const DELAY_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_tried_ever_less_often() {
        let mut retry = Retry::default();
        assert!(retry.is_due());
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            retry.put_off();
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert!(!retry.is_due(), "{seconds}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(retry.is_due(), "{seconds}");
        }
    }
}
