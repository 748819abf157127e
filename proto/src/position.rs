//! Places in the log, and the only casts between them.

use std::fmt;

/// A 0-based place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// A number of entries: of the log, or of the tree over its first `n` entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Index {
    /// The genesis entry.
    pub const GENESIS: Self = Self(0);

    /// The place after this one. Saturates at the end of the number range, which no log reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The place `count` entries on. Saturates.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The size of the smallest log that holds this place.
    #[must_use]
    pub const fn size_through(self) -> Size {
        Size(self.0.saturating_add(1))
    }
}

impl Size {
    /// The empty log.
    pub const ZERO: Self = Self(0);

    /// The place that the next entry gets.
    #[must_use]
    pub const fn next_index(self) -> Index {
        Index(self.0)
    }

    /// The last place; `None` in an empty log.
    #[must_use]
    pub const fn last_index(self) -> Option<Index> {
        match self.0.checked_sub(1) {
            Some(last) => Some(Index(last)),
            None => None,
        }
    }

    /// Whether a log of this size holds `index`.
    #[must_use]
    pub const fn contains(self, index: Index) -> bool {
        index.0 < self.0
    }
}

impl fmt::Display for Index {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The number of items in a slice, for formats and sizes.
#[must_use]
pub const fn count_of(len: usize) -> u64 {
    len as u64
}

/// A number from a format as a length in memory; `None` where memory cannot hold it.
#[must_use]
pub fn memory_len(count: u64) -> Option<usize> {
    usize::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_index_of_a_size_is_the_one_before_its_next() {
        assert_eq!(Size::ZERO.last_index(), None);
        assert_eq!(Size(7).last_index(), Some(Index(6)));
        assert_eq!(Size(7).next_index(), Index(7));
        assert_eq!(Index(6).size_through(), Size(7));
        assert!(Size(7).contains(Index(6)) && !Size(7).contains(Index(7)));
    }
}
