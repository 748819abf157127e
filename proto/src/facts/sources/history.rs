//! What governance sets and may set anew: a value, and from which entry on.

use crate::position::Index;

/// A value that changes at entries of the log: the one in force, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<T> {
    first: T,
    /// What changed it, in order: it counts from the entry after this one on.
    later: Vec<(Index, T)>,
}

impl<T> History<T> {
    /// As it was at the beginning.
    #[must_use]
    pub const fn new(first: T) -> Self {
        Self { first, later: Vec::new() }
    }

    /// The newest value.
    #[must_use]
    pub fn now(&self) -> &T {
        self.later.last().map_or(&self.first, |(_, value)| value)
    }

    /// The value for an entry at `index`: the entry that changes it still sees the one before.
    #[must_use]
    pub fn at(&self, index: Index) -> &T {
        let before = self.later.partition_point(|&(changed, _)| changed < index);
        before.checked_sub(1).and_then(|last| self.later.get(last)).map_or(&self.first, |(_, v)| v)
    }

    /// How often it changed: the revision in force.
    #[must_use]
    pub fn revision(&self) -> u64 {
        crate::position::count_of(self.later.len())
    }

    /// The entry that brought the newest value; `None` for the first one.
    #[must_use]
    pub fn changed_at(&self) -> Option<Index> {
        self.later.last().map(|&(changed, _)| changed)
    }

    /// The first value.
    #[must_use]
    pub const fn first(&self) -> &T {
        &self.first
    }

    /// The values after the first, each with the entry that brought it, in order.
    pub fn changes(&self) -> impl DoubleEndedIterator<Item = (Index, &T)> {
        self.later.iter().map(|(changed, value)| (*changed, value))
    }

    /// All values, the first one first.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &T> {
        std::iter::once(&self.first).chain(self.later.iter().map(|(_, value)| value))
    }

    /// Changes it by the entry at `index`, which lies behind all that changed it before.
    pub fn change(&mut self, index: Index, value: T) {
        self.later.push((index, value));
    }
}

impl<T: Clone> History<T> {
    /// As it stood right before an entry.
    #[must_use]
    pub fn before(&self, index: Index) -> Self {
        let stood = self.later.iter().filter(|&&(changed, _)| changed < index);
        Self { first: self.first.clone(), later: stood.cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_from_the_next_entry_on() {
        let mut history = History::new('a');
        assert_eq!((history.now(), history.revision(), history.changed_at()), (&'a', 0, None));
        history.change(Index(5), 'b');
        history.change(Index(9), 'c');
        let told: String = (4..12).map(|index| history.at(Index(index))).collect();
        assert_eq!(told, "aabbbbcc");
        assert_eq!((history.now(), history.revision()), (&'c', 2));
        for index in 0..12 {
            let before = history.before(Index(index));
            assert_eq!(before.now(), history.at(Index(index)), "{index}");
        }
        assert!(history.values().eq(&['a', 'b', 'c']));
    }
}
