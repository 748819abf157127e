//! Digests, and the three hashes that everything else is made of (RFC 6962, section 2.1).

use std::fmt;

use sha2::{Digest as _, Sha256, block_api::compress256};

/// A SHA-256 digest: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::LEN]);

impl Digest {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// 32 zero bytes: the `prev` of entry 0.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// Wraps 32 bytes that are a digest already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Wraps a slice of exactly 32 bytes; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// SHA-256 of the concatenation of `digests`.
#[must_use]
pub fn sha256_of_digests<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut hasher = Sha256::new();
    for digest in digests {
        hasher.update(digest);
    }
    Digest(hasher.finalize().into())
}

/// `SHA-256(0x00 || data)`: the hash of a leaf.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(data);
    Digest(hasher.finalize().into())
}

/// `SHA-256(0x01 || left || right)`: the hash of an interior node.
///
/// These 65 bytes are always the same two blocks, so they are laid out here, padding included, and not
/// by a hasher that takes any length: a quarter less time for what a tree mostly consists of.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let [start @ .., end] = right.0;
    let mut blocks = [[0_u8; 64]; 2];
    let [first, second] = &mut blocks;
    first[0] = 0x01;
    first[1..33].copy_from_slice(&left.0);
    first[33..].copy_from_slice(&start);
    second[0] = end;
    second[1] = 0x80;
    second[56..].copy_from_slice(&NODE_BITS.to_be_bytes());

    let mut state = INITIAL_STATE;
    compress256(&mut state, &blocks);
    let mut digest = [0; Digest::LEN];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Digest(digest)
}

/// Length of a node's hash input in bits, which ends its padding.
const NODE_BITS: u64 = 65 * 8;

/// FIPS 180-4, section 5.3.3.
const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_takes_exactly_32_bytes() {
        assert!(Digest::from_slice(&[0; 31]).is_none());
        assert!(Digest::from_slice(&[0; 33]).is_none());
        assert_eq!(Digest::from_slice(&[0; 32]), Some(Digest::ZERO));
    }

    #[test]
    fn digest_prints_as_lowercase_hex() {
        assert_eq!(
            sha256(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_node_hashes_like_its_bytes() {
        let mut left = sha256(b"seed");
        for _ in 0..100 {
            let right = sha256(left.as_ref());
            let bytes = [&[0x01], left.as_ref(), right.as_ref()].concat();
            assert_eq!(node_hash(&left, &right), sha256(&bytes));
            left = right;
        }
    }

    #[test]
    fn digests_hash_like_their_concatenation() {
        let (one, two) = (sha256(b"1"), sha256(b"2"));
        let joined = [one.as_ref(), two.as_ref()].concat();
        assert_eq!(sha256_of_digests([&one, &two]), sha256(&joined));
    }
}
