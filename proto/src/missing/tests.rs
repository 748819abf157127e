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

/// What it takes in memory, in bits: a tree's node has eleven places, half of them filled at least.
fn bits(missing: &Missing) -> usize {
    let later: usize = missing.blocks.values().map(|block| block.later.capacity()).sum();
    let blocks = missing.blocks.len() * 2 * (size_of::<Block>() + size_of::<u64>());
    (blocks + later * size_of::<(u16, u64)>()) * 8
}

#[test]
fn memory_is_some_bits_an_entry_however_the_missing_ones_lie() {
    const ENTRIES: u64 = 100_000;
    // An event a millisecond, of which some are missing.
    let missing = |is_missing: &dyn Fn(u64) -> bool| {
        let mut missing = Missing::default();
        for index in (0..ENTRIES).filter(|&index| is_missing(index)) {
            let kinds = [Erasable::ByAge, Erasable::ByParties, Erasable::Never];
            let kind = kinds[usize::try_from(index / 2 % 3).unwrap()];
            missing.miss(Index(index), index * 1_000_000, kind);
        }
        missing
    };
    let every_other = missing(&|index| index % 2 == 0);
    let (first, last) = (Index(0), Index(ENTRIES - 1));
    assert!(every_other.contains(first) && !every_other.contains(last));
    for missing in [every_other, missing(&|_| true), missing(&|index| index % 1_000 == 0)] {
        assert!(bits(&missing) < usize::try_from(ENTRIES).unwrap() * 6, "{}", bits(&missing));
    }
    let mut accounted = missing(&|index| index % 3 > 0);
    accounted.account(&erasing(first.0, last.0, None));
    assert!(accounted.iter().all(|stretch| stretch.erasable == Erasable::Never));
}

proptest! {
    #[test]
    fn what_no_redaction_erases_stays_unaccounted(
        // Across two blocks.
        indexes in prop::collection::btree_set(480..540_u64, 0..60),
        redactions in prop::collection::vec(
            (480..540_u64, 480..540_u64, prop::option::of(96..108_u64)), 0..6),
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
        for index in 480..540 {
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
        let told = |missing: &Missing| -> Vec<_> {
            let told = |stretch: Stretch| {
                let Stretch { first, last, recorded_at, erasable } = stretch;
                (first, last, hour(recorded_at), erasable)
            };
            missing.iter().map(told).collect()
        };
        prop_assert_eq!(told(&restored), told(&missing));
    }
}
