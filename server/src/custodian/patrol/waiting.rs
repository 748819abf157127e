//! What must be so for a while before it is worth an alarm: pure, time is an argument.

use std::{collections::BTreeMap, time::Duration};

use access_ledger_proto::position::Index;

use crate::custodian::timing::nanos;

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

    /// Where it was found again in this round, and for the first time longer than `grace` ago.
    pub(super) fn due(&self, now: u64, grace: Duration) -> impl Iterator<Item = Index> {
        let is_due = move |&(since, found_in): &(u64, u64)| {
            found_in == self.round && now.saturating_sub(since) > nanos(grace)
        };
        self.found.iter().filter(move |(_, found)| is_due(found)).map(|(&index, _)| index)
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
        let grace = Duration::from_nanos(10);
        let mut waiting = Waiting::default();
        let due = |waiting: &Waiting, now| waiting.due(now, grace).collect::<Vec<_>>();
        waiting.note(Index(4), 100);
        waiting.note(Index(5), 105);
        assert_eq!(due(&waiting, 110), []);
        assert_eq!(due(&waiting, 111), [Index(4)]);
        waiting.end_round();
        assert_eq!(due(&waiting, 200), [], "nothing was found in this round so far");
        waiting.note(Index(4), 200);
        assert_eq!(due(&waiting, 200), [Index(4)]);
        waiting.end_round();
        waiting.note(Index(5), 201);
        assert_eq!(due(&waiting, 210), []);
        assert_eq!(due(&waiting, 212), [Index(5)]);
    }
}
