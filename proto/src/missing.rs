//! Events that are gone, until a redaction in the log accounts for them.
//!
//! The record of an erasure stands behind the entries that it erases, so one pass over the log
//! settles all.

use std::collections::BTreeMap;

use crate::position::Index;

/// Stretches of missing events that no redaction accounts for yet; memory grows with their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// By first index; disjoint.
    stretches: BTreeMap<u64, Until>,
}

/// A stretch of missing events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first missing event.
    pub first: Index,
    /// The last one, included.
    pub last: Index,
    /// When the first of them was recorded, in nanoseconds since the Unix epoch; of what is left of
    /// a stretch that a redaction has cut, when that one began.
    pub recorded_at: u64,
}

/// The rest of a stretch beside its first index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Until {
    last: u64,
    recorded_at: u64,
}

impl Missing {
    /// The event at `index` is missing, which was recorded then. Indexes come in ascending order.
    pub fn miss(&mut self, index: Index, recorded_at: u64) {
        match self.stretches.last_entry() {
            Some(mut newest) if newest.get().last.checked_add(1) == Some(index.0) => {
                newest.get_mut().last = index.0;
            }
            _ => self.restore(Stretch { first: index, last: index, recorded_at }),
        }
    }

    /// A redaction accounts for `first` to `last`, both included.
    pub fn account(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let touched: Vec<(u64, Until)> = self
            .stretches
            .range(..=last)
            .rev()
            .map(|(&from, &until)| (from, until))
            .take_while(|(_, until)| until.last >= first)
            .collect();
        for (from, until) in touched {
            self.stretches.remove(&from);
            if from < first {
                self.stretches.insert(from, Until { last: first - 1, ..until });
            }
            if until.last > last {
                self.stretches.insert(last + 1, until);
            }
        }
    }

    /// The first event that is missing without a record.
    #[must_use]
    pub fn first(&self) -> Option<Index> {
        self.stretches.first_key_value().map(|(&first, _)| Index(first))
    }

    /// All stretches without a record, in order.
    pub fn iter(&self) -> impl Iterator<Item = Stretch> {
        self.stretches.iter().map(|(&first, until)| Stretch {
            first: Index(first),
            last: Index(until.last),
            recorded_at: until.recorded_at,
        })
    }

    /// Puts back a stretch that [`Missing::iter`] gave.
    pub fn restore(&mut self, stretch: Stretch) {
        let until = Until { last: stretch.last.0, recorded_at: stretch.recorded_at };
        self.stretches.insert(stretch.first.0, until);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_no_redaction_covers_stays_unaccounted(
            indexes in prop::collection::btree_set(0..60_u64, 0..60),
            redactions in prop::collection::vec((0..60_u64, 0..60_u64), 0..6),
        ) {
            let mut missing = Missing::default();
            indexes.iter().for_each(|&index| missing.miss(Index(index), 1_000 + index));
            for &(first, last) in &redactions {
                missing.account(first, last);
            }
            let covered = |index: u64| {
                redactions.iter().any(|&(first, last)| (first..=last).contains(&index))
            };
            let left: BTreeSet<u64> =
                indexes.iter().copied().filter(|&index| !covered(index)).collect();
            let found: BTreeSet<u64> =
                missing.iter().flat_map(|stretch| stretch.first.0..=stretch.last.0).collect();
            prop_assert_eq!(missing.first().map(|index| index.0), left.first().copied());
            prop_assert_eq!(found, left);
            for stretch in missing.iter() {
                let began = stretch.recorded_at - 1_000;
                prop_assert!(began <= stretch.first.0 && indexes.contains(&began));
            }
            let mut restored = Missing::default();
            missing.iter().for_each(|stretch| restored.restore(stretch));
            prop_assert_eq!(restored, missing);
        }
    }
}
