//! What is left unaccounted, compared with a set of indexes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::facts::redactions::testing::erasing;

/// Kind and hour of an event, which follow from its index.
fn of(index: u64) -> (u64, Erasable) {
    let kinds = [Erasable::Never, Erasable::ByParties, Erasable::ByAge, Erasable::ByAge];
    let kind = kinds[usize::try_from(index / 3 % 4).unwrap()];
    (index / 5 * EXPIRY_STEP_NANOS + index, kind)
}

proptest! {
    #[test]
    fn what_no_redaction_erases_stays_unaccounted(
        indexes in prop::collection::btree_set(0..60_u64, 0..60),
        redactions in prop::collection::vec(
            (0..60_u64, 0..60_u64, prop::option::of(0..12_u64)), 0..6),
    ) {
        let mut missing = Missing::default();
        for &index in &indexes {
            let (recorded_at, erasable) = of(index);
            missing.miss(Index(index), recorded_at, erasable);
        }
        let redactions: Vec<_> = redactions
            .into_iter()
            .filter(|(first, last, _)| first <= last)
            .map(|(first, last, hour)| {
                erasing(first, last, hour.map(|hour| hour * EXPIRY_STEP_NANOS))
            })
            .collect();
        redactions.iter().for_each(|redaction| missing.account(redaction));
        let covered = |index: u64| {
            let (recorded_at, erasable) = of(index);
            redactions.iter().any(|redaction| {
                redaction.range().contains(&index) && redaction.covers(recorded_at, erasable)
            })
        };
        let left: BTreeSet<u64> =
            indexes.iter().copied().filter(|&index| !covered(index)).collect();
        let found: BTreeSet<u64> =
            missing.iter().flat_map(|stretch| stretch.first.0..=stretch.last.0).collect();
        prop_assert_eq!(missing.first().map(|index| index.0), left.first().copied());
        prop_assert_eq!(&found, &left);
        for index in 0..60 {
            prop_assert_eq!(missing.contains(Index(index)), left.contains(&index));
        }
        for stretch in missing.iter() {
            let (began, erasable) = of(stretch.first.0);
            prop_assert_eq!(stretch.erasable, erasable);
            prop_assert_eq!(stretch.recorded_at / EXPIRY_STEP_NANOS, began / EXPIRY_STEP_NANOS);
        }
        // Gaps are the same indexes, and no two of them touch.
        let gaps: Vec<_> = missing.gaps().collect();
        let told: BTreeSet<u64> =
            gaps.iter().flat_map(|(first, last, _)| first.0..=last.0).collect();
        prop_assert_eq!(told, left);
        for pair in gaps.windows(2) {
            prop_assert!(pair[0].1.next() < pair[1].0);
        }
        let mut restored = Missing::default();
        missing.iter().for_each(|stretch| restored.restore(stretch));
        prop_assert_eq!(restored, missing);
    }
}
