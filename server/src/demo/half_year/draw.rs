//! Drawing from tables.

use bytes::Bytes;
use rand::{Rng, RngExt as _};

/// `N` bytes.
pub(super) fn random_bytes<const N: usize>(rng: &mut impl Rng) -> Bytes {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    Bytes::copy_from_slice(&bytes)
}

/// One of `items`, each as likely as its weight says. The weights do not add up to 0.
pub(super) fn weighted<'a, T>(
    rng: &mut impl Rng,
    items: &'a [T],
    weight: impl Fn(&T) -> u64,
) -> &'a T {
    let mut left = rng.random_range(0..items.iter().map(&weight).sum());
    let chosen = items.iter().find(|item| {
        let own = weight(item);
        let here = left < own;
        left = left.saturating_sub(own);
        here
    });
    #[expect(clippy::expect_used, reason = "what was drawn is less than the sum of the weights")]
    chosen.expect("no item for the weight that was drawn")
}

/// One row of a table whose rows carry their weights.
pub(super) fn row<'a, T>(rng: &mut impl Rng, table: &'a [(u32, T)]) -> &'a T {
    &weighted(rng, table, |(weight, _)| (*weight).into()).1
}

/// One of `items`, all alike. There is at least one.
pub(super) fn pick<'a, T>(rng: &mut impl Rng, items: &'a [T]) -> &'a T {
    weighted(rng, items, |_| 1)
}
