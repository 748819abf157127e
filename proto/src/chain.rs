//! The hash chain: every entry names the leaf hash of the one before.
//!
//! The server extends it, a service rebuilds its own stretch from a receipt, an auditor checks it.
//! The leaf hashes are at the same time the leaves of the tree.

use crate::{
    entry::{Entry, Seal},
    error::{ChainError, SealError},
    hash::{Digest, leaf_hash},
    position::{Index, Size},
    seal::Batch,
};

/// Where the chain stands: what the next entry must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Entries so far.
    pub size: Size,
    /// Leaf hash of the last entry; [`Digest::ZERO`] before entry 0.
    pub last_leaf: Digest,
    /// Nanoseconds since the Unix epoch; 0 before entry 0.
    pub recorded_at: u64,
}

impl Link {
    /// Before entry 0.
    pub const GENESIS: Self = Self { size: Size::ZERO, last_leaf: Digest::ZERO, recorded_at: 0 };

    /// Makes the entries of a batch and moves past them.
    ///
    /// `recorded_at` is for all of them; a time before the chain's own is raised to it. `each` gets
    /// the bytes of every entry and its leaf hash, in order; the last entry carries the seal.
    ///
    /// # Errors
    ///
    /// As [`Batch::count`], before anything was made.
    pub fn extend(
        &mut self,
        batch: &Batch<'_>,
        recorded_at: u64,
        seal: Seal,
        mut each: impl FnMut(&[u8], Digest),
    ) -> Result<(), SealError> {
        let count = batch.count()?;
        let recorded_at = recorded_at.max(self.recorded_at);
        let mut bytes = Vec::with_capacity(Entry::LEN_MAX);
        for (offset, (&event_digest, source_seq)) in
            (1..=count).zip(batch.digests.iter().zip(batch.first_seq..))
        {
            let entry = Entry {
                index: self.size.next_index(),
                recorded_at,
                prev: self.last_leaf,
                event_digest,
                source_seq,
                source: batch.source,
                seal: (offset == count).then_some(seal),
            };
            bytes.clear();
            entry.encode_into(&mut bytes);
            let leaf = leaf_hash(&bytes);
            each(&bytes, leaf);
            *self = Self { size: entry.index.size_through(), last_leaf: leaf, recorded_at };
        }
        Ok(())
    }

    /// Checks that `entry` continues the chain, and moves past it. `leaf` is the hash of its bytes.
    ///
    /// # Errors
    ///
    /// [`ChainError::Index`] when another place was next; [`ChainError::Link`] when `prev` is not
    /// the leaf hash before; [`ChainError::Time`] when time runs backwards.
    pub fn check(&mut self, entry: &Entry<'_>, leaf: Digest) -> Result<(), ChainError> {
        let index = self.size.next_index();
        if entry.index != index {
            return Err(ChainError::Index { found: entry.index, wanted: index });
        }
        if entry.prev != self.last_leaf {
            return Err(ChainError::Link { index, found: entry.prev, wanted: self.last_leaf });
        }
        if entry.recorded_at < self.recorded_at {
            let (found, before) = (entry.recorded_at, self.recorded_at);
            return Err(ChainError::Time { index, found, before });
        }
        let size = index.size_through();
        *self = Self { size, last_leaf: leaf, recorded_at: entry.recorded_at };
        Ok(())
    }

    /// The chain just before a batch, as a receipt tells it.
    #[must_use]
    pub const fn before(first_index: Index, prev: Digest) -> Self {
        Self { size: Size(first_index.0), last_leaf: prev, recorded_at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hash::sha256, note::KeyId, source::Name};

    const SEAL: Seal = Seal { count: 3, key_id: KeyId([1; 4]), signature: [2; 64] };

    fn made(link: &mut Link, recorded_at: u64) -> Vec<(Vec<u8>, Digest)> {
        let digests = [sha256(b"a"), sha256(b"b"), sha256(b"c")];
        let source = Name::parse(b"s").unwrap();
        let mut out = Vec::new();
        let batch = Batch { source, first_seq: 4, digests: &digests };
        link.extend(&batch, recorded_at, SEAL, |bytes, leaf| out.push((bytes.to_vec(), leaf)))
            .unwrap();
        out
    }

    #[test]
    fn what_extend_makes_check_accepts() {
        let mut link = Link::GENESIS;
        let entries = [made(&mut link, 10), made(&mut link, 5)].concat();
        assert_eq!(link.recorded_at, 10);
        let mut checked = Link::GENESIS;
        for (at, (bytes, leaf)) in entries.iter().enumerate() {
            let entry = Entry::parse(bytes).unwrap();
            assert_eq!(entry.seal.is_some(), at % 3 == 2);
            assert_eq!(entry.source_seq, 4 + at as u64 % 3);
            assert_eq!(leaf_hash(bytes), *leaf);
            checked.check(&entry, *leaf).unwrap();
        }
        assert_eq!(checked, link);
    }

    #[test]
    fn a_break_is_told_with_its_index() {
        let mut link = Link::GENESIS;
        let entries = made(&mut link, 10);
        let (bytes, leaf) = &entries[1];
        let entry = Entry::parse(bytes).unwrap();
        let mut genesis = Link::GENESIS;
        let skipped = genesis.check(&entry, *leaf);
        assert_eq!(skipped, Err(ChainError::Index { found: Index(1), wanted: Index(0) }));
        let mut relinked = Link { size: Size(1), last_leaf: sha256(b"x"), recorded_at: 0 };
        assert!(matches!(
            relinked.check(&entry, *leaf),
            Err(ChainError::Link { index: Index(1), .. })
        ));
        let mut later = Link { size: Size(1), last_leaf: entries[0].1, recorded_at: 11 };
        assert_eq!(
            later.check(&entry, *leaf),
            Err(ChainError::Time { index: Index(1), found: 10, before: 11 })
        );
    }
}
