//! What was redacted, when that was seen, and which events are missing without it: pure.
//!
//! Kept in memory only: a patrol learns all redactions of the log in its first round, and counts
//! their grace from then on.

use std::{collections::BTreeMap, time::Duration};

use access_ledger_proto::position::Index;

use crate::custodian::timing::nanos;

/// Redactions and missing events. Memory grows with the number of redactions that do not touch, and
/// with the events that are missing without one, of which at most [`MISSING_MAX`] are kept.
#[derive(Debug, Default)]
pub(super) struct Redactions {
    /// By first entry: last entry, and when it was seen. They do not overlap.
    seen: BTreeMap<Index, (Index, u64)>,
    /// Events that the ledger does not serve, by when that was seen first, and in which round last.
    missing: BTreeMap<Index, (u64, u64)>,
    round: u64,
}

impl Redactions {
    /// A redaction was read in the copy at the time `now`; whether any of it is new.
    pub(super) fn note(&mut self, first: Index, last: Index, now: u64) -> bool {
        let mut from = first;
        let mut gaps = Vec::new();
        // What is known stays as it was seen.
        let before = self.seen.range(..=first).next_back().map(|(_, &(last, _))| last);
        if let Some(known) = before.filter(|&known| known >= first) {
            from = known.next();
        }
        for (&known, &(end, _)) in self.seen.range(first..=last) {
            if known > from {
                gaps.push((from, Index(known.0.saturating_sub(1))));
            }
            from = from.max(end.next());
        }
        if from <= last {
            gaps.push((from, last));
        }
        let is_new = !gaps.is_empty();
        self.seen.extend(gaps.into_iter().map(|(from, to)| (from, (to, now))));
        is_new
    }

    /// The entries among these that were redacted longer ago than `grace`; at most
    /// [`OVERDUE_MAX`].
    pub(super) fn overdue(
        &self,
        first: Index,
        last: Index,
        now: u64,
        grace: Duration,
    ) -> Vec<Index> {
        let before = self.seen.range(..first).next_back();
        let touching = before.into_iter().chain(self.seen.range(first..=last));
        let overdue = touching.filter(|(_, (_, at))| now.saturating_sub(*at) > nanos(grace));
        let places =
            overdue.flat_map(|(&from, &(to, _))| (from.max(first).0..=to.min(last).0).map(Index));
        places.take(OVERDUE_MAX).collect()
    }

    /// The ledger does not serve this event at the time `now`.
    pub(super) fn miss(&mut self, index: Index, now: u64) {
        let round = self.round;
        if let Some((_, seen_in)) = self.missing.get_mut(&index) {
            *seen_in = round;
        } else if self.missing.len() < MISSING_MAX {
            self.missing.insert(index, (now, round));
        }
    }

    /// Events that are missing for longer than `grace` and that no redaction accounts for.
    pub(super) fn unaccounted(&mut self, now: u64, grace: Duration) -> Vec<Index> {
        let seen = &self.seen;
        self.missing.retain(|&index, _| !covers(seen, index));
        let long = |at: u64| now.saturating_sub(at) > nanos(grace);
        let long = self.missing.iter().filter(|&(_, &(at, _))| long(at));
        long.map(|(&index, _)| index).collect()
    }

    /// Whether an event is missing.
    pub(super) fn misses(&self, index: Index) -> bool {
        self.missing.contains_key(&index)
    }

    /// All entries were asked for once: what was missing before and was served in this round is
    /// there again.
    pub(super) fn round_ended(&mut self) {
        let round = self.round;
        self.missing.retain(|_, &mut (_, seen_in)| seen_in == round);
        self.round += 1;
    }
}

fn covers(seen: &BTreeMap<Index, (Index, u64)>, index: Index) -> bool {
    let before = seen.range(..=index).next_back();
    before.is_some_and(|(_, &(last, _))| last >= index)
}

/// Missing events that are remembered: far more than there are alarms for.
const MISSING_MAX: usize = 10_000;

/// Of one run.
const OVERDUE_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_overdue_when_its_redaction_was_seen_long_enough_ago() {
        let grace = Duration::from_nanos(10);
        let mut redactions = Redactions::default();
        assert!(redactions.note(Index(5), Index(7), 100));
        assert!(!redactions.note(Index(6), Index(7), 105), "known");
        let overdue =
            |redactions: &Redactions, now| redactions.overdue(Index(0), Index(6), now, grace);
        assert_eq!(overdue(&redactions, 110), []);
        assert_eq!(overdue(&redactions, 111), [Index(5), Index(6)]);
        assert!(redactions.note(Index(3), Index(9), 111));
        assert_eq!(overdue(&redactions, 112), [Index(5), Index(6)]);
        assert_eq!(overdue(&redactions, 122), [3, 4, 5, 6].map(Index));
    }

    #[test]
    fn an_event_is_missing_until_it_is_served_or_accounted_for() {
        let grace = Duration::from_nanos(10);
        let mut redactions = Redactions::default();
        redactions.miss(Index(4), 100);
        redactions.miss(Index(5), 100);
        assert_eq!(redactions.unaccounted(110, grace), []);
        redactions.round_ended();
        redactions.miss(Index(4), 111);
        assert_eq!(redactions.unaccounted(111, grace), [Index(4), Index(5)]);
        redactions.round_ended();
        assert!(redactions.misses(Index(4)) && !redactions.misses(Index(5)), "5 is served again");
        redactions.note(Index(0), Index(4), 112);
        redactions.miss(Index(4), 113);
        assert_eq!(redactions.unaccounted(200, grace), []);
        assert!(!redactions.misses(Index(4)));
    }

    proptest! {
        #[test]
        fn redactions_are_what_a_table_of_all_places_says(
            notes in prop::collection::vec((0_u64..60, 0_u64..20), 0..30),
            from in 0_u64..80,
            length in 0_u64..80,
        ) {
            let mut redactions = Redactions::default();
            let mut table = BTreeMap::<u64, u64>::new();
            for (now, (first, length)) in (1..).zip(notes) {
                let fresh = (first..=first + length).filter(|place| !table.contains_key(place)).count();
                prop_assert_eq!(redactions.note(Index(first), Index(first + length), now), fresh > 0);
                for place in first..=first + length {
                    table.entry(place).or_insert(now);
                }
            }
            let (now, grace) = (20, Duration::from_nanos(5));
            let wanted: Vec<Index> = table
                .range(from..=from + length)
                .filter(|&(_, &at)| now - at.min(now) > 5)
                .map(|(&place, _)| Index(place))
                .collect();
            let mut found = redactions.overdue(Index(from), Index(from + length), now, grace);
            found.sort_unstable();
            prop_assert_eq!(found, wanted);
        }
    }
}
