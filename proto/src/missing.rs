//! Events that are gone, until a redaction in the log accounts for them.
//!
//! The record of an erasure stands behind the entries that it erases, so one pass over the log
//! settles all: what a redaction may erase is told from the entries (`facts/redactions.rs`), for
//! the bytes are gone.

use std::collections::BTreeMap;

use crate::{
    facts::redactions::{EXPIRY_STEP_NANOS, Erasable, Erasing},
    position::Index,
};

/// Stretches of missing events that no redaction accounts for yet; memory grows with their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// By first index; disjoint.
    stretches: BTreeMap<u64, Until>,
}

/// A stretch of missing events that may be erased on the same word, recorded in the same hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first missing event.
    pub first: Index,
    /// The last one, included.
    pub last: Index,
    /// When the first of them was recorded, in nanoseconds since the Unix epoch; of what is left of
    /// a stretch that a redaction has cut, when that one began.
    pub recorded_at: u64,
    /// On whose word they may be erased.
    pub erasable: Erasable,
}

/// The rest of a stretch beside its first index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Until {
    last: u64,
    recorded_at: u64,
    erasable: Erasable,
}

impl Until {
    const fn hour(&self) -> u64 {
        self.recorded_at / EXPIRY_STEP_NANOS
    }
}

impl Missing {
    /// The event at `index` is missing, which was recorded then by a source of that kind. Indexes
    /// come in ascending order.
    pub fn miss(&mut self, index: Index, recorded_at: u64, erasable: Erasable) {
        let until = Until { last: index.0, recorded_at, erasable };
        match self.stretches.last_entry() {
            Some(mut newest)
                if newest.get().last.checked_add(1) == Some(index.0)
                    && newest.get().hour() == until.hour()
                    && newest.get().erasable == erasable =>
            {
                newest.get_mut().last = index.0;
            }
            _ => drop(self.stretches.insert(index.0, until)),
        }
    }

    /// A redaction accounts for what it erases.
    pub fn account(&mut self, erasing: &Erasing) {
        let range = erasing.range();
        let (first, last) = (*range.start(), *range.end());
        let touched: Vec<(u64, Until)> = self
            .stretches
            .range(..=last)
            .rev()
            .map(|(&from, &until)| (from, until))
            .take_while(|(_, until)| until.last >= first)
            // A stretch lies in one hour, so it has expired as a whole or not at all.
            .filter(|(_, until)| erasing.covers(until.recorded_at, until.erasable))
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

    /// Whether an event is missing without a record.
    #[must_use]
    pub fn contains(&self, index: Index) -> bool {
        let before = self.stretches.range(..=index.0).next_back();
        before.is_some_and(|(_, until)| until.last >= index.0)
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
            erasable: until.erasable,
        })
    }

    /// The stretches without a record, each as long as no event that is there, or accounted for,
    /// interrupts it: first and last index, and when the first was recorded.
    pub fn gaps(&self) -> impl Iterator<Item = (Index, Index, u64)> {
        let mut stretches = self.iter().peekable();
        std::iter::from_fn(move || {
            let Stretch { first, mut last, recorded_at, .. } = stretches.next()?;
            while let Some(next) = stretches.next_if(|next| next.first == last.next()) {
                last = next.last;
            }
            Some((first, last, recorded_at))
        })
    }

    /// Puts back a stretch that [`Missing::iter`] gave.
    pub fn restore(&mut self, stretch: Stretch) {
        let Stretch { first, last, recorded_at, erasable } = stretch;
        self.stretches.insert(first.0, Until { last: last.0, recorded_at, erasable });
    }
}

#[cfg(test)]
mod tests;
