//! Sets that stay small: of people, of whom only a hash is kept, and of names.
//!
//! Both keep the smallest members of what they were given. That makes them independent of order:
//! the smallest of a union are the smallest of the smallest.

use std::collections::BTreeSet;

use access_ledger_proto::{hash::sha256, position::count_of};

/// Which different members there are, by the first 8 bytes of the SHA-256 of each: how many can be
/// told, not who.
///
/// Exact up to [`Distinct::EXACT_MAX`] members; beyond that the number is estimated from the
/// smallest hashes, with a standard error below 1 %.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    pub(super) smallest: BTreeSet<u64>,
}

impl Distinct {
    /// So many hashes are kept: 128 KiB.
    pub const EXACT_MAX: usize = 16_384;

    /// Takes up a member.
    pub fn insert(&mut self, member: &str) {
        self.insert_hash(hash(member));
    }

    pub(super) fn insert_hash(&mut self, hash: u64) {
        let is_full = self.smallest.len() >= Self::EXACT_MAX;
        if is_full && self.smallest.last().is_some_and(|&largest| hash > largest) {
            return;
        }
        if self.smallest.insert(hash) && is_full {
            self.smallest.pop_last();
        }
    }

    /// Takes up the members of another set.
    pub fn merge(&mut self, other: &Self) {
        for &hash in &other.smallest {
            self.insert_hash(hash);
        }
    }

    /// How many different members there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let kept = count_of(self.smallest.len());
        match self.smallest.last() {
            // The hashes lie evenly: that many of them fill the range up to the largest.
            Some(&largest) if self.smallest.len() >= Self::EXACT_MAX => {
                let whole = u128::from(kept.saturating_sub(1)) << 64;
                let estimate = whole / u128::from(largest).max(1);
                u64::try_from(estimate).unwrap_or(u64::MAX).max(kept)
            }
            _ => kept,
        }
    }
}

/// Names, of which the first [`Names::KEPT_MAX`] by their order are kept; how many different ones
/// there are is known all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub(super) kept: BTreeSet<Box<str>>,
    /// Of all of them, once some were left out.
    pub(super) all: Distinct,
}

impl Names {
    /// So many names are kept.
    pub const KEPT_MAX: usize = 32;

    /// Takes up a name; an empty one is none.
    pub fn insert(&mut self, name: &str) {
        if name.is_empty() || self.kept.contains(name) {
            return;
        }
        let has_room = self.all.smallest.is_empty() && self.kept.len() < Self::KEPT_MAX;
        self.kept.insert(name.into());
        if !has_room {
            self.crowd();
            self.all.insert(name);
            self.cut();
        }
    }

    /// Takes up the names of another set.
    pub fn merge(&mut self, other: &Self) {
        if !other.all.smallest.is_empty() {
            self.crowd();
            self.all.merge(&other.all);
        }
        for name in &other.kept {
            self.insert(name);
        }
        self.cut();
    }

    /// The names kept, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(|name| &**name)
    }

    /// How many different names there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        count_of(self.kept.len()).max(self.all.count())
    }

    /// The names, and how many more there are: `a, b, +7`.
    #[must_use]
    pub fn listed(&self) -> String {
        let mut listed = self.iter().collect::<Vec<_>>().join(", ");
        let left_out = self.count().saturating_sub(count_of(self.kept.len()));
        if left_out > 0 {
            listed.push_str(&format!(", +{left_out}"));
        }
        listed
    }

    /// From here on the hashes count.
    fn crowd(&mut self) {
        if self.all.smallest.is_empty() {
            for name in &self.kept {
                self.all.insert(name);
            }
        }
    }

    fn cut(&mut self) {
        while self.kept.len() > Self::KEPT_MAX {
            self.kept.pop_last();
        }
    }
}

/// The first 8 bytes of the SHA-256.
fn hash(member: &str) -> u64 {
    let digest = sha256(member.as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
