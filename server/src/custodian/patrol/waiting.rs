//! What must be so for a while before it is worth an alarm: pure, time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use access_ledger_proto::position::Index;

/// Entries about which something was found, since when, and in which round last. At most
/// [`WAITING_MAX`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    found: BTreeMap<Index, (u64, u64)>,
    round: u64,
}

impl Waiting {
    /// It was found, or found again, at the time `now`.
    pub(super) fn note(&mut self, index: Index, now: u64) {
        let round = self.round;
        if let Some((_, found_in)) = self.found.get_mut(&index) {
            *found_in = round;
        } else if self.found.len() < WAITING_MAX {
            self.found.insert(index, (now, round));
        }
    }

    /// Where it was found again in this round, and for the first time before `before`.
    pub(super) fn due(&self, before: u64) -> BTreeSet<Index> {
        let is_due = |&(since, found_in): &(u64, u64)| found_in == self.round && since < before;
        let due = self.found.iter().filter(|(_, found)| is_due(found));
        due.map(|(&index, _)| index).collect()
    }

    /// Whether it was found there in this round.
    pub(super) fn holds(&self, index: Index) -> bool {
        self.found.get(&index).is_some_and(|&(_, found_in)| found_in == self.round)
    }

    /// All entries were looked at: what was not found again is over.
    pub(super) fn end_round(&mut self) {
        let round = self.round;
        self.found.retain(|_, &mut (_, found_in)| found_in == round);
        self.round += 1;
    }
}

/// Far more than there are alarms for.
const WAITING_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_for_long_enough_is_due_and_what_is_over_waits_anew() {
        let mut waiting = Waiting::default();
        // With a grace of 10.
        let due = |waiting: &Waiting, now: u64| Vec::from_iter(waiting.due(now - 10));
        waiting.note(Index(4), 100);
        waiting.note(Index(5), 105);
        assert_eq!(due(&waiting, 110), []);
        assert_eq!(due(&waiting, 111), [Index(4)]);
        assert!(waiting.holds(Index(5)) && !waiting.holds(Index(6)));
        waiting.end_round();
        assert!(!waiting.holds(Index(5)));
        assert_eq!(due(&waiting, 200), [], "nothing was found in this round so far");
        waiting.note(Index(4), 200);
        assert_eq!(due(&waiting, 200), [Index(4)]);
        waiting.end_round();
        waiting.note(Index(5), 201);
        assert_eq!(due(&waiting, 210), []);
        assert_eq!(due(&waiting, 212), [Index(5)]);
    }
}
