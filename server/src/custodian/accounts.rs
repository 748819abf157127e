//! Up to when the copy accounts for what the ledger serves: what was signed by then is held, and
//! what that asks to be erased is erased. An event that was gone by then, and that the copy still
//! has, is gone without a record.

use std::sync::{Arc, Mutex, PoisonError};

use access_ledger_proto::position::Size;

use super::{desk::Desk, vigil::Vigil};

/// What the patrol asks.
pub(super) struct Accounts {
    vigil: Arc<Mutex<Vigil>>,
    desk: Arc<Desk>,
    state: Mutex<State>,
}

/// Times in nanoseconds by the own clock.
#[derive(Debug, Default)]
struct State {
    until: u64,
    /// A question to the ledger and its answer, of which not all is carried out. It stays until it
    /// is, so that a ledger that grows all the time is caught up with all the same.
    awaited: Option<(u64, Size)>,
}

impl Accounts {
    pub(super) fn new(vigil: Arc<Mutex<Vigil>>, desk: Arc<Desk>) -> Self {
        Self { vigil, desk, state: Mutex::default() }
    }

    /// In nanoseconds by the own clock; never less than before. 0 until there is anything to say.
    pub(super) fn until(&self) -> u64 {
        let held = self.vigil.lock().unwrap_or_else(PoisonError::into_inner).heard_until();
        let erased = self.desk.erased();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).advance(held, erased)
    }
}

impl State {
    /// The copy holds the answer `held`, and has carried out the redactions below `erased`.
    fn advance(&mut self, held: Option<(u64, Size)>, erased: Size) -> u64 {
        for (asked_at, size) in self.awaited.into_iter().chain(held) {
            if size <= erased {
                self.until = self.until.max(asked_at);
            }
        }
        let waits = |(_, size): &(u64, Size)| *size > erased;
        self.awaited = self.awaited.filter(waits).or_else(|| held.filter(waits));
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_accounts_for_nothing_before_its_redactions_are_carried_out() {
        let mut state = State::default();
        assert_eq!(state.advance(None, Size(0)), 0);
        assert_eq!(state.advance(Some((10, Size(5))), Size(3)), 0);
        // The ledger goes on; the eraser is always a little behind.
        assert_eq!(state.advance(Some((20, Size(7))), Size(4)), 0);
        assert_eq!(state.advance(Some((30, Size(9))), Size(6)), 10);
        assert_eq!(state.advance(Some((40, Size(11))), Size(8)), 10);
        assert_eq!(state.advance(Some((50, Size(12))), Size(10)), 30);
        assert_eq!(state.advance(Some((60, Size(12))), Size(12)), 60);
        assert_eq!(state.advance(Some((70, Size(12))), Size(12)), 70);
    }
}
