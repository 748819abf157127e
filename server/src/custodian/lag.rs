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
    taken: Size,
    /// In the first catch-up: how many entries were missing, and when, at the last step of it.
    step: Option<(u64, Instant)>,
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
    /// But it must go on: for how long it has not come nearer to its end by [`STEP_ENTRIES`].
    pub(crate) stalled: Duration,
}

impl Lag {
    /// The ledger signed so much.
    pub(crate) fn sees(&self, size: Size) {
        let mut state = self.lock();
        let now = Instant::now();
        state.heard_at = Some(now);
        state.seen = state.seen.max(size);
        state.step();
        if size > state.held {
            let is_new = state.awaited.back().is_none_or(|&(awaited, since)| {
                size > awaited && now.duration_since(since) >= SAMPLE_INTERVAL
            });
            if is_new && state.awaited.len() < SAMPLES_MAX {
                state.awaited.push_back((size, now));
            }
        }
    }

    /// Whether the ledger has answered within this time.
    pub(crate) fn heard_within(&self, time: Duration) -> bool {
        self.lock().heard_at.is_some_and(|at| at.elapsed() <= time)
    }

    /// So much of it was verified and is on its way to the disk.
    pub(crate) fn takes(&self, size: Size) {
        let mut state = self.lock();
        state.heard_at = Some(Instant::now());
        state.taken = size;
        state.step();
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
        let since = state.step.filter(|_| !state.caught_up && state.missing() > 0);
        let stalled = since.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        Behind { entries, time, is_first: !state.caught_up, stalled }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn missing(&self) -> u64 {
        self.seen.0.saturating_sub(self.taken.0)
    }

    fn step(&mut self) {
        let missing = self.missing();
        let is_step = |before: u64| missing.saturating_add(STEP_ENTRIES) <= before;
        if !self.caught_up && self.step.is_none_or(|(before, _)| missing == 0 || is_step(before)) {
            self.step = Some((missing, Instant::now()));
        }
    }
}

/// Raises the alarm when the copy is behind for too long, and ends it.
pub(super) async fn watch_lag(desk: Arc<Desk>, alarms: Arc<Alarms>, behind_after: Duration) {
    let origin = desk.ledger().name().to_owned();
    let mut ticks = tokio::time::interval(LAG_INTERVAL);
    loop {
        ticks.tick().await;
        let Behind { entries, time, is_first, stalled } = desk.lag.behind();
        metrics::gauge!("access_ledger_custodian_behind_entries").set(entries as f64);
        metrics::gauge!("access_ledger_custodian_behind_seconds").set(time.as_secs_f64());
        let (desk, alarms, origin) = (desk.clone(), alarms.clone(), origin.clone());
        let judge = move || {
            let lost = if is_first { stalled } else { time };
            if lost < behind_after {
                alarms.end(AlarmKind::Behind, &origin, Place::Ledger, "the copy caught up");
            } else {
                let held = desk.newest().map(|newest| newest.size()).unwrap_or_default();
                let seconds = lost.as_secs();
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

/// Fewer entries within the time that a copy may be behind are no catch-up: whoever serves them one
/// by one would keep it from ever being over.
const STEP_ENTRIES: u64 = 1_000;

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
            let Behind { entries, time, is_first, .. } = lag.behind();
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

    #[tokio::test(start_paused = true)]
    async fn a_first_catch_up_may_take_long_but_must_go_on() {
        let lag = Lag::default();
        let after = async |s| tokio::time::advance(Duration::from_secs(s)).await;
        let stalled = || lag.behind().stalled.as_secs();
        lag.sees(Size(10_000));
        after(50).await;
        assert_eq!(stalled(), 50, "nothing came");
        lag.takes(Size(STEP_ENTRIES));
        assert_eq!(stalled(), 0);
        for taken in 0..100 {
            after(1).await;
            lag.takes(Size(STEP_ENTRIES + taken));
        }
        assert_eq!(stalled(), 100, "drop by drop");
        lag.takes(Size(3 * STEP_ENTRIES));
        after(2).await;
        lag.sees(Size(100_000));
        assert_eq!(stalled(), 2, "growth of the ledger is no step");
        lag.takes(Size(100_000));
        after(500).await;
        assert_eq!(stalled(), 0, "the index takes its time");
        lag.holds(Size(100_000));
        assert!(!lag.behind().is_first);
    }
}
