//! Whether a connection is used: which calls are under way, since when none is, and whether
//! somebody known ever made one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What one connection is used for.
#[derive(Debug)]
pub(super) struct Activity {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: u32,
    is_known: bool,
    /// The end of the last call, or the beginning of the connection.
    idle_since: Instant,
}

/// A call that is under way as long as this lives.
#[derive(Debug)]
pub(super) struct Underway {
    activity: Arc<Activity>,
}

impl Activity {
    /// Of a connection that begins.
    pub(super) fn begin() -> Self {
        let begun = Instant::now();
        let state = State { calls: 0, is_known: false, idle_since: begun };
        Self { begun, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody known makes a call.
    pub(super) fn know(&self) {
        self.state().is_known = true;
    }

    /// Whether somebody known ever made a call.
    pub(super) fn is_known(&self) -> bool {
        self.state().is_known
    }

    /// Until when there is nothing to complain of. Whoever is not known has `stranger` from the
    /// beginning, whatever it asks: the places are for those who are.
    pub(super) fn expected_until(&self, stranger: Duration, idle: Duration) -> Instant {
        let state = self.state();
        if !state.is_known {
            self.begun + stranger
        } else if state.calls > 0 {
            Instant::now() + idle
        } else {
            state.idle_since + idle
        }
    }
}

impl Underway {
    /// A call begins.
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.state().calls += 1;
        Self { activity: activity.clone() }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.calls -= 1;
        state.idle_since = Instant::now();
    }
}
