//! Signed notes and keys.

use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};

/// The first 4 bytes of `SHA-256(name || 0x0A || type || public key)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// The signature type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Ed25519 over the text.
    Ed25519 = 0x01,
    /// cosignature/v1.
    CosignatureV1 = 0x04,
}

/// The key id of a public key under a name.
#[must_use]
pub fn key_id(name: &str, key_type: KeyType, public_key: &VerifyingKey) -> KeyId {
    let mut hasher = Sha256::new();
    hasher.update(name);
    hasher.update([0x0a, key_type as u8]);
    hasher.update(public_key.as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
    KeyId([a, b, c, d])
}
