//! Events that are gone, until a redaction in the log accounts for them.
//!
//! The record of an erasure stands behind the entries that it erases, so one pass over the log
//! settles all: what a redaction may erase is told from the entries (`facts/redactions.rs`), for
//! the bytes are gone.
//!
//! A log may be missing every other event from its first entry to its last, or be served so. Hence
//! two bits an entry, in blocks that are there where an event is missing: some bits for each entry
//! of a log at most, however the missing ones lie.

use std::collections::BTreeMap;

use crate::{
    facts::redactions::{EXPIRY_STEP_NANOS, Erasable, Erasing},
    position::Index,
};

/// Missing events that no redaction accounts for yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// By their first index, divided by [`BLOCK_ENTRIES`]. In each an event is missing.
    blocks: BTreeMap<u64, Block>,
}

/// A stretch of missing events that may be erased on the same word, recorded in the same hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first missing event.
    pub first: Index,
    /// The last one, included.
    pub last: Index,
    /// When the first of them was recorded, or in the same hour one that was missing shortly before
    /// it; in nanoseconds since the Unix epoch.
    pub recorded_at: u64,
    /// On whose word they may be erased.
    pub erasable: Erasable,
}

/// What is missing among [`BLOCK_ENTRIES`] entries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    /// Two bits an entry: 0, or on whose word it may be erased.
    kinds: [u64; BLOCK_WORDS],
    /// When the first one was recorded.
    recorded_at: u64,
    /// Where another hour begins, and when the first one of it was recorded.
    later: Vec<(u16, u64)>,
}

impl Missing {
    /// The event at `index` is missing, which was recorded then by a source of that kind. Indexes
    /// come in ascending order.
    pub fn miss(&mut self, index: Index, recorded_at: u64, erasable: Erasable) {
        let (block, offset) = place(index);
        self.blocks.entry(block).or_insert_with(|| Block::new(recorded_at)).miss(
            offset,
            recorded_at,
            erasable,
        );
    }

    /// A redaction accounts for what it erases.
    pub fn account(&mut self, erasing: &Erasing) {
        let (first, last) = (place(Index(*erasing.range().start())), *erasing.range().end());
        let last = place(Index(last));
        let mut settled = Vec::new();
        for (&number, block) in self.blocks.range_mut(first.0..=last.0) {
            let from = if number == first.0 { first.1 } else { 0 };
            let to = if number == last.0 { last.1 } else { BLOCK_ENTRIES - 1 };
            block.account((from, to), erasing);
            if block.first().is_none() {
                settled.push(number);
            }
        }
        settled.iter().for_each(|number| drop(self.blocks.remove(number)));
    }

    /// Whether an event is missing without a record.
    #[must_use]
    pub fn contains(&self, index: Index) -> bool {
        let (block, offset) = place(index);
        self.blocks.get(&block).is_some_and(|block| block.kind(offset).is_some())
    }

    /// The first event that is missing without a record.
    #[must_use]
    pub fn first(&self) -> Option<Index> {
        let (&number, block) = self.blocks.first_key_value()?;
        Some(index_at(number, block.first()?))
    }

    /// All stretches without a record, in order.
    pub fn iter(&self) -> impl Iterator<Item = Stretch> {
        let singles = self.blocks.iter().flat_map(|(&number, block)| block.singles(number));
        let mut singles = singles.peekable();
        std::iter::from_fn(move || {
            let mut stretch = singles.next()?;
            let hour = hour(stretch.recorded_at);
            while let Some(next) = singles.next_if(|next| {
                next.first == stretch.last.next()
                    && next.erasable == stretch.erasable
                    && self::hour(next.recorded_at) == hour
            }) {
                stretch.last = next.last;
            }
            Some(stretch)
        })
    }

    /// The stretches without a record, each as long as no event that is there, or accounted for,
    /// interrupts it: first and last index, and when the first was recorded ([`Stretch`]).
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
        (first.0..=last.0).for_each(|index| self.miss(Index(index), recorded_at, erasable));
    }
}

impl Block {
    const fn new(recorded_at: u64) -> Self {
        Self { kinds: [0; BLOCK_WORDS], recorded_at, later: Vec::new() }
    }

    fn miss(&mut self, offset: u16, recorded_at: u64, erasable: Erasable) {
        let before = self.later.last().map_or(self.recorded_at, |&(_, time)| time);
        if hour(before) != hour(recorded_at) {
            self.later.push((offset, recorded_at));
        }
        let kind = match erasable {
            Erasable::Never => 1,
            Erasable::ByParties => 2,
            Erasable::ByAge => 3,
        };
        self.put(offset, kind);
    }

    /// Between two offsets, both included.
    fn account(&mut self, (from, to): (u16, u16), erasing: &Erasing) {
        for offset in from..=to {
            // A redaction erases by whole hours.
            let is_erased = |kind| erasing.covers(self.time(offset), kind);
            if self.kind(offset).is_some_and(is_erased) {
                self.put(offset, 0);
            }
        }
    }

    fn put(&mut self, offset: u16, kind: u64) {
        let (word, shift) = (usize::from(offset / WORD_ENTRIES), offset % WORD_ENTRIES * 2);
        if let Some(word) = self.kinds.get_mut(word) {
            *word = *word & !(3 << shift) | kind << shift;
        }
    }

    fn kind(&self, offset: u16) -> Option<Erasable> {
        let word = self.kinds.get(usize::from(offset / WORD_ENTRIES))?;
        match word >> (offset % WORD_ENTRIES * 2) & 3 {
            1 => Some(Erasable::Never),
            2 => Some(Erasable::ByParties),
            3 => Some(Erasable::ByAge),
            _ => None,
        }
    }

    fn time(&self, offset: u16) -> u64 {
        let later = self.later.iter().take_while(|&&(from, _)| from <= offset);
        later.last().map_or(self.recorded_at, |&(_, time)| time)
    }

    fn first(&self) -> Option<u16> {
        (0..BLOCK_ENTRIES).find(|&offset| self.kind(offset).is_some())
    }

    /// Each missing event by itself.
    fn singles(&self, number: u64) -> impl Iterator<Item = Stretch> {
        (0..BLOCK_ENTRIES).filter_map(move |offset| {
            let (first, recorded_at) = (index_at(number, offset), self.time(offset));
            let erasable = self.kind(offset)?;
            Some(Stretch { first, last: first, recorded_at, erasable })
        })
    }
}

/// The block of an entry, and its place there.
fn place(index: Index) -> (u64, u16) {
    let offset = u16::try_from(index.0 % u64::from(BLOCK_ENTRIES)).unwrap_or_default();
    (index.0 / u64::from(BLOCK_ENTRIES), offset)
}

fn index_at(block: u64, offset: u16) -> Index {
    Index(block * u64::from(BLOCK_ENTRIES) + u64::from(offset))
}

const fn hour(recorded_at: u64) -> u64 {
    recorded_at / EXPIRY_STEP_NANOS
}

/// Entries of a block.
const BLOCK_ENTRIES: u16 = 512;

const WORD_ENTRIES: u16 = 32;

const BLOCK_WORDS: usize = (BLOCK_ENTRIES / WORD_ENTRIES) as usize;

#[cfg(test)]
mod tests;
