//! The minutes of a day in which there was anything.

use crate::reports::period::DAY_NANOS;

/// A set of the minutes of one day, from which silences follow to the minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minutes {
    /// Empty, or [`WORDS`] words; minute 0 is the lowest bit of the first.
    pub(super) words: Vec<u64>,
}

impl Minutes {
    /// Notes the minute of a time, in nanoseconds since the Unix epoch.
    pub fn note(&mut self, nanos: u64) {
        let minute = nanos % DAY_NANOS / MINUTE_NANOS;
        self.words.resize(WORDS, 0);
        let place = usize::try_from(minute / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(place) {
            *word |= 1 << (minute % 64);
        }
    }

    /// Takes up those of another set.
    pub fn merge(&mut self, other: &Self) {
        if self.words.is_empty() {
            self.words.clone_from(&other.words);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// The minutes, counted from midnight, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let bits = self.words.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1));
        (0..).zip(bits).filter_map(|(minute, is_set)| is_set.then_some(minute))
    }
}

pub(super) const WORDS: usize = 1_440_usize.div_ceil(64);
const MINUTE_NANOS: u64 = 60_000_000_000;
