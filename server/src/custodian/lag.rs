//! How far the copy is behind the ledger, in entries and in time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_proto::position::Size;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    alarms::{Alarm, AlarmKind, Alarms, Place},
    desk::Desk,
};

/// What was seen signed, and what of it is held.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The largest size that was seen signed.
    seen: Size,
    held: Size,
    /// Sizes beyond what is held, with when they were seen; about one a second.
    awaited: VecDeque<(Size, Instant)>,
    /// Whether the copy ever held all that was signed.
    caught_up: bool,
    /// When the ledger last answered.
    heard_at: Option<Instant>,
}

/// A moment's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Entries that are under a signed checkpoint and not held.
    pub(crate) entries: u64,
    /// For how long the oldest of them have been.
    pub(crate) time: Duration,
    /// The first catch-up is not over: it takes as long as it takes.
    pub(crate) is_first: bool,
}

impl Lag {
    /// The ledger signed so much.
    pub(crate) fn sees(&self, size: Size) {
        let mut state = self.lock();
        let now = Instant::now();
        state.heard_at = Some(now);
        state.seen = state.seen.max(size);
        if size > state.held {
            let is_new = state.awaited.back().is_none_or(|&(awaited, since)| {
                size > awaited && now.duration_since(since) >= SAMPLE_INTERVAL
            });
            if is_new && state.awaited.len() < SAMPLES_MAX {
                state.awaited.push_back((size, now));
            }
        }
    }

    /// The ledger answered something else.
    pub(crate) fn hears(&self) {
        self.lock().heard_at = Some(Instant::now());
    }

    /// Whether the ledger has answered within this time.
    pub(crate) fn heard_within(&self, time: Duration) -> bool {
        self.lock().heard_at.is_some_and(|at| at.elapsed() <= time)
    }

    /// So much of it is held, under a checkpoint.
    pub(crate) fn holds(&self, size: Size) {
        let mut state = self.lock();
        state.held = state.held.max(size);
        state.seen = state.seen.max(size);
        while state.awaited.front().is_some_and(|&(awaited, _)| awaited <= size) {
            state.awaited.pop_front();
        }
        if !state.caught_up && state.held == state.seen {
            state.caught_up = true;
            info!(size = size.0, "caught up");
        }
    }

    /// How far the copy is behind now.
    pub(crate) fn behind(&self) -> Behind {
        let state = self.lock();
        let entries = state.seen.0.saturating_sub(state.held.0);
        let time = state.awaited.front().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        Behind { entries, time, is_first: !state.caught_up }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises the alarm when the copy is behind for too long, and ends it.
pub(super) async fn watch_lag(desk: Arc<Desk>, alarms: Arc<Alarms>, behind_after: Duration) {
    let origin = desk.ledger().name().to_owned();
    let mut ticks = tokio::time::interval(LAG_INTERVAL);
    loop {
        ticks.tick().await;
        let Behind { entries, time, is_first } = desk.lag.behind();
        metrics::gauge!("access_ledger_custodian_behind_entries").set(entries as f64);
        metrics::gauge!("access_ledger_custodian_behind_seconds").set(time.as_secs_f64());
        let (desk, alarms, origin) = (desk.clone(), alarms.clone(), origin.clone());
        let judge = move || {
            if time < behind_after {
                alarms.end(AlarmKind::Behind, &origin, Place::Ledger, "the copy caught up");
            } else if !is_first {
                let held = desk.newest().map(|newest| newest.size()).unwrap_or_default();
                let seconds = time.as_secs();
                let told = format!("the copy is behind by {entries} entries for {seconds} s");
                alarms.raise(Alarm::new(AlarmKind::Behind, &origin, held, told));
            }
        };
        if tokio::task::spawn_blocking(judge).await.is_err() {
            warn!("judging the lag panicked");
        }
    }
}

/// Between two looks.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// An hour of them: who is behind for longer has been told.
const SAMPLES_MAX: usize = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_behind_counts_from_the_oldest_size_that_is_not_held() {
        let lag = Lag::default();
        let after = async |s| tokio::time::advance(Duration::from_secs(s)).await;
        let told = || {
            let Behind { entries, time, is_first } = lag.behind();
            (entries, time.as_secs(), is_first)
        };
        lag.sees(Size(10));
        after(3).await;
        assert_eq!(told(), (10, 3, true));
        lag.sees(Size(12));
        lag.holds(Size(10));
        assert_eq!(told(), (2, 0, true), "the first size is held");
        after(5).await;
        lag.holds(Size(11));
        assert_eq!(told(), (1, 5, true), "progress alone does not count");
        lag.holds(Size(12));
        assert_eq!(told(), (0, 0, false));
        lag.sees(Size(13));
        after(2).await;
        lag.sees(Size(14));
        after(2).await;
        lag.holds(Size(13));
        assert_eq!(told(), (1, 2, false));
    }
}
