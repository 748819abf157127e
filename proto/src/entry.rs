//! The entry: the permanent record of one event, and the leaf data of the tree.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | version | 1 | 0x01 |
//! | index | 8 | 0-based position |
//! | recorded_at | 8 | nanoseconds since the Unix epoch |
//! | prev | 32 | leaf hash of the entry before; zeros for entry 0 |
//! | event_digest | 32 | SHA-256 of the event bytes |
//! | source_seq | 8 | the source's own number, from 1 |
//! | source | 1 + n | length, then the name |
//! | seal_count | 2 | 0, or how many entries the seal covers, this one last |
//! | seal key id | 4 | only with a seal |
//! | seal signature | 64 | only with a seal |
//!
//! Integers are big-endian; no trailing bytes (FORMATS.md, section 2).

use crate::{error::EntryError, hash::Digest, note::KeyId, position::Index, source::Name};

/// One entry. Reads without copying: the source's name borrows from the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// 0-based position in the log.
    pub index: Index,
    /// Nanoseconds since the Unix epoch; never less than the entry before.
    pub recorded_at: u64,
    /// Leaf hash of the entry before.
    pub prev: Digest,
    /// SHA-256 of the event bytes.
    pub event_digest: Digest,
    /// The source's own number, from 1, without gaps.
    pub source_seq: u64,
    /// The source that recorded the event.
    pub source: Name<'a>,
    /// On the last entry of a batch.
    pub seal: Option<Seal>,
}

/// A source's signature over the batch that ends with the entry that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// 1 to [`Seal::COUNT_MAX`] entries.
    pub count: u16,
    /// Key id of the source's key: type 0x01, name = source.
    pub key_id: KeyId,
    /// Ed25519.
    pub signature: [u8; 64],
}

impl Seal {
    /// Most entries that one seal covers.
    pub const COUNT_MAX: u16 = 4_096;
}

impl<'a> Entry<'a> {
    /// The version byte.
    pub const VERSION: u8 = 0x01;

    /// Most bytes of an event.
    pub const EVENT_LEN_MAX: usize = 32_768;

    /// Fewest bytes of an entry: a name of one byte, no seal.
    pub const LEN_MIN: usize = FIXED_LEN + 1 + 1 + 2;

    /// Most bytes of an entry: a name of 128 bytes, a seal.
    pub const LEN_MAX: usize = FIXED_LEN + 1 + Name::LEN_MAX + 2 + SEAL_LEN;

    /// Reads an entry from exactly `bytes`.
    ///
    /// # Errors
    ///
    /// [`EntryError::Version`] for any version but 1; [`EntryError::Truncated`] and
    /// [`EntryError::Trailing`] when the length does not fit; [`EntryError::Name`] for a bad source
    /// name; [`EntryError::SourceSeq`] for number 0; [`EntryError::SealCount`] above 4,096.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let mut reader = Reader { rest: bytes };
        let [version] = reader.array()?;
        if version != Self::VERSION {
            return Err(EntryError::Version { found: version });
        }
        let index = Index(u64::from_be_bytes(reader.array()?));
        let recorded_at = u64::from_be_bytes(reader.array()?);
        let prev = Digest::from_bytes(reader.array()?);
        let event_digest = Digest::from_bytes(reader.array()?);
        let source_seq = u64::from_be_bytes(reader.array()?);
        if source_seq == 0 {
            return Err(EntryError::SourceSeq);
        }
        let [name_len] = reader.array()?;
        let source = Name::parse(reader.take(usize::from(name_len))?)?;
        let count = u16::from_be_bytes(reader.array()?);
        if count > Seal::COUNT_MAX {
            return Err(EntryError::SealCount { found: count });
        }
        let seal = if count == 0 {
            None
        } else {
            Some(Seal { count, key_id: KeyId(reader.array()?), signature: reader.array()? })
        };
        if !reader.rest.is_empty() {
            return Err(EntryError::Trailing { extra: reader.rest.len() });
        }
        Ok(Self { index, recorded_at, prev, event_digest, source_seq, source, seal })
    }

    /// Appends the entry's bytes to `out`: [`Entry::LEN_MIN`] to [`Entry::LEN_MAX`] of them.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let name = self.source.as_str().as_bytes();
        out.push(Self::VERSION);
        out.extend_from_slice(&self.index.0.to_be_bytes());
        out.extend_from_slice(&self.recorded_at.to_be_bytes());
        out.extend_from_slice(self.prev.as_ref());
        out.extend_from_slice(self.event_digest.as_ref());
        out.extend_from_slice(&self.source_seq.to_be_bytes());
        // A valid name has at most 128 bytes.
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name);
        match &self.seal {
            None => out.extend_from_slice(&[0, 0]),
            Some(seal) => {
                out.extend_from_slice(&seal.count.to_be_bytes());
                out.extend_from_slice(&seal.key_id.0);
                out.extend_from_slice(&seal.signature);
            }
        }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN_MAX);
        self.encode_into(&mut out);
        out
    }
}

/// Reads from the front, never past the end.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EntryError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(EntryError::Truncated { wanted: len, left: self.rest.len() })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(EntryError::Truncated { wanted: N, left: self.rest.len() })?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// version, index, recorded_at, prev, event_digest, source_seq.
const FIXED_LEN: usize = 1 + 8 + 8 + 32 + 32 + 8;

/// Key id and signature.
const SEAL_LEN: usize = 4 + 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, seal: Option<Seal>) -> Entry<'_> {
        Entry {
            index: Index(7),
            recorded_at: 9,
            prev: Digest::from_bytes([1; 32]),
            event_digest: Digest::from_bytes([2; 32]),
            source_seq: 3,
            source: Name::parse(name.as_bytes()).unwrap(),
            seal,
        }
    }

    fn seal(count: u16) -> Seal {
        Seal { count, key_id: KeyId([4; 4]), signature: [5; 64] }
    }

    #[test]
    fn entries_have_the_lengths_they_promise() {
        assert_eq!(entry("a", None).encode().len(), Entry::LEN_MIN);
        let longest = "a".repeat(128);
        assert_eq!(entry(&longest, Some(seal(1))).encode().len(), Entry::LEN_MAX);
    }

    #[test]
    fn malformed_entries_are_refused() {
        let good = entry("src", Some(seal(4_096))).encode();
        assert!(Entry::parse(&good).is_ok());
        for len in 0..good.len() {
            assert!(matches!(Entry::parse(&good[..len]), Err(EntryError::Truncated { .. })));
        }
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(Entry::parse(&trailing), Err(EntryError::Trailing { extra: 1 }));
        let mut version = good.clone();
        version[0] = 2;
        assert_eq!(Entry::parse(&version), Err(EntryError::Version { found: 2 }));
        let mut seq = good.clone();
        seq[81..89].fill(0);
        assert_eq!(Entry::parse(&seq), Err(EntryError::SourceSeq));
        let over = entry("src", Some(seal(4_097))).encode();
        assert_eq!(Entry::parse(&over), Err(EntryError::SealCount { found: 4_097 }));
        let mut name = good;
        name[90] = b' ';
        assert!(matches!(Entry::parse(&name), Err(EntryError::Name(_))));
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_went(
            index: u64, recorded_at: u64, seq in 1..=u64::MAX, digests: [[u8; 32]; 2],
            name in "[a-z0-9._/:@-]{1,128}", count in 0..=Seal::COUNT_MAX,
        ) {
            let original = Entry {
                index: Index(index),
                recorded_at,
                prev: Digest::from_bytes(digests[0]),
                event_digest: Digest::from_bytes(digests[1]),
                source_seq: seq,
                source: Name::parse(name.as_bytes()).unwrap(),
                seal: (count > 0).then(|| seal(count)),
            };
            let bytes = original.encode();
            prop_assert_eq!(Entry::parse(&bytes), Ok(original));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_re_encode_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(entry) = Entry::parse(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
