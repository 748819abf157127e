//! The last number of every source.

use std::collections::BTreeMap;

use crate::{
    error::SequenceGap,
    source::{Name, SourceName},
};

/// Sources number their events from 1 without gaps; this holds where each one stands. Memory grows
/// with the number of sources, not with the log.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    last: BTreeMap<SourceName, u64>,
}

impl Sequences {
    /// The last number of a source; 0 when it recorded nothing.
    #[must_use]
    pub fn last(&self, source: Name<'_>) -> u64 {
        self.last.get(source.as_str()).copied().unwrap_or_default()
    }

    /// Moves past a run of `count` numbers that starts at `first_seq`.
    ///
    /// # Errors
    ///
    /// [`SequenceGap`] when another number was next: a gap, or a number that was used before.
    pub fn advance(
        &mut self,
        source: Name<'_>,
        first_seq: u64,
        count: u16,
    ) -> Result<(), SequenceGap> {
        let last = self.last(source);
        let expected = last.saturating_add(1);
        if first_seq != expected {
            return Err(SequenceGap { name: source.to_owned(), found: first_seq, expected });
        }
        self.restore(source, last.saturating_add(u64::from(count)));
        Ok(())
    }

    /// Sets a source's last number, as it was saved before.
    pub fn restore(&mut self, source: Name<'_>, last_seq: u64) {
        match self.last.get_mut(source.as_str()) {
            Some(last) => *last = last_seq,
            None => {
                self.last.insert(source.to_owned(), last_seq);
            }
        }
    }

    /// All sources that recorded something, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (Name<'_>, u64)> {
        self.last.iter().map(|(name, &last)| (name.as_name(), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_without_gaps_for_each_source_alone() {
        let (a, b) = (Name::parse(b"a").unwrap(), Name::parse(b"b").unwrap());
        let mut sequences = Sequences::default();
        assert!(sequences.advance(a, 1, 5).is_ok());
        assert!(sequences.advance(b, 1, 1).is_ok());
        assert_eq!(sequences.last(a), 5);
        for wrong in [0, 5, 7] {
            let gap = sequences.advance(a, wrong, 1).unwrap_err();
            assert_eq!((gap.found, gap.expected), (wrong, 6));
        }
        assert!(sequences.advance(a, 6, 1).is_ok());
    }
}
