//! Signed notes and keys.

/// The first 4 bytes of `SHA-256(name || 0x0A || type || public key)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);
