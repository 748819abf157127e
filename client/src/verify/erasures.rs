//! Events that are gone, until a redaction in the log accounts for them.

use std::collections::BTreeMap;

use access_ledger_proto::position::Index;

/// Stretches of missing events. The record of an erasure stands behind the entries that it erases,
/// so one pass over the log settles all; memory grows with the stretches that are not accounted for
/// yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Erasures {
    /// First index to last index; disjoint.
    unaccounted: BTreeMap<u64, u64>,
}

impl Erasures {
    /// The event at `index` is missing. Indexes come in ascending order.
    pub(super) fn miss(&mut self, index: Index) {
        match self.unaccounted.last_entry() {
            Some(mut last) if last.get().checked_add(1) == Some(index.0) => {
                last.insert(index.0);
            }
            _ => {
                self.unaccounted.insert(index.0, index.0);
            }
        }
    }

    /// A redaction accounts for `first` to `last`, both included.
    pub(super) fn account(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let touched: Vec<(u64, u64)> = self
            .unaccounted
            .range(..=last)
            .rev()
            .map(|(&from, &to)| (from, to))
            .take_while(|&(_, to)| to >= first)
            .collect();
        for (from, to) in touched {
            self.unaccounted.remove(&from);
            if from < first {
                self.unaccounted.insert(from, first - 1);
            }
            if to > last {
                self.unaccounted.insert(last + 1, to);
            }
        }
    }

    /// The first event that is missing without a record.
    pub(super) fn first(&self) -> Option<Index> {
        self.unaccounted.first_key_value().map(|(&first, _)| Index(first))
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
            missing in prop::collection::btree_set(0..60_u64, 0..60),
            redactions in prop::collection::vec((0..60_u64, 0..60_u64), 0..6),
        ) {
            let mut erasures = Erasures::default();
            missing.iter().for_each(|&index| erasures.miss(Index(index)));
            for &(first, last) in &redactions {
                erasures.account(first, last);
            }
            let covered = |index: u64| {
                redactions.iter().any(|&(first, last)| (first..=last).contains(&index))
            };
            let left: BTreeSet<u64> =
                missing.into_iter().filter(|&index| !covered(index)).collect();
            let found: BTreeSet<u64> =
                erasures.unaccounted.iter().flat_map(|(&from, &to)| from..=to).collect();
            prop_assert_eq!(erasures.first().map(|index| index.0), left.first().copied());
            prop_assert_eq!(found, left);
        }
    }
}
