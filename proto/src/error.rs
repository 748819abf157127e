//! What can be wrong with what this crate reads, one enum a stage.

use thiserror::Error;

use crate::note::{KeyId, KeyType};

/// A source's name is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty or too long.
    #[error("name of {len} bytes, allowed are 1 to 128")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// A byte outside the alphabet.
    #[error("character at byte {position} of the name, allowed are a-z 0-9 . _ / : @ -")]
    Character {
        /// Offset of the first such byte.
        position: usize,
    },
}

/// The bytes of an entry are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Another version than 1.
    #[error("entry version {found}, known is 1")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The bytes end inside a field.
    #[error("entry ends {left} bytes into a field of {wanted}")]
    Truncated {
        /// Length of the field.
        wanted: usize,
        /// Bytes left for it.
        left: usize,
    },
    /// Bytes after the last field.
    #[error("{extra} bytes after the end of the entry")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Source number 0.
    #[error("source number 0, numbers start at 1")]
    SourceSeq,
    /// The seal covers too many entries.
    #[error("seal over {found} entries, allowed are 4096")]
    SealCount {
        /// The count found.
        found: u16,
    },
    /// The source's name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The text of a key is malformed, or the key is not one to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the text of a key.
    #[error("text of another form than a key's: name+key id in 8 lower-case hex digits+base64")]
    Form,
    /// A name that no key can have.
    #[error("key name that is empty, or holds a space, `+` or a control character")]
    Name,
    /// A type of key that is not verified here.
    #[error("key type {found:#04x}, known are 0x01 (Ed25519) and 0x04 (cosignature/v1)")]
    Type {
        /// The type byte.
        found: u8,
    },
    /// The key id belongs to another key: name or key were altered.
    #[error("key id {found}, computed {computed}")]
    Id {
        /// The id in the text.
        found: KeyId,
        /// The id of the name and key in the text.
        computed: KeyId,
    },
    /// Not the canonical encoding of a point, or a point of small order.
    #[error("public key that is no Ed25519 key, or a weak one")]
    PublicKey,
}

/// A signed note is malformed or does not verify, or a text cannot be signed as one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not UTF-8.
    #[error("note that is not UTF-8 from byte {position} on")]
    Utf8 {
        /// Offset of the first byte that is not.
        position: usize,
    },
    /// A control character other than a line feed.
    #[error("control character at byte {position} of a note")]
    Control {
        /// Offset of the first one.
        position: usize,
    },
    /// A text whose last line does not end.
    #[error("text without a line feed at its end")]
    Unterminated,
    /// No signature, or none after an empty line.
    #[error("text without signatures, a note has an empty line and signatures behind it")]
    Unsigned,
    /// More signatures than are read.
    #[error("{found} signatures, at most 64 are read")]
    TooManySignatures {
        /// How many there are.
        found: usize,
    },
    /// A signature line is malformed.
    #[error("signature line {line} is malformed, wanted is a dash, a key name and base64")]
    SignatureLine {
        /// Its number among the signature lines, from 1.
        line: usize,
    },
    /// A known key's signature fails.
    #[error("signature of {name} (key id {key_id}) does not verify")]
    Signature {
        /// Name of the key.
        name: String,
        /// Id of the key.
        key_id: KeyId,
    },
    /// Nobody that the reader knows signed.
    #[error("no signature of a known key")]
    NoKnownKey,
    /// A key of another type than its use asks for.
    #[error("key {name} of type {found}, wanted is {wanted}")]
    KeyType {
        /// Name of the key.
        name: String,
        /// Its type.
        found: KeyType,
        /// The type that the use asks for.
        wanted: KeyType,
    },
    /// A cosignature's time beyond the range that C2SP allows.
    #[error("cosignature time {found} s, allowed is less than 2^63")]
    Timestamp {
        /// Seconds since the Unix epoch.
        found: u64,
    },
}

/// A checkpoint is malformed, does not verify, or is another ledger's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Fewer than three lines.
    #[error("checkpoint of fewer than three lines, wanted are origin, size and root")]
    Lines,
    /// The origin is empty or holds a control character.
    #[error("origin that is empty or holds a control character")]
    Origin,
    /// The second line is no size.
    #[error("second line of a checkpoint that is no size: a decimal number without leading zeros")]
    Size,
    /// The third line is no root.
    #[error("third line of a checkpoint that is no root: 32 bytes in base64")]
    Root,
    /// An empty extension line.
    #[error("empty extension line in a checkpoint")]
    Extension,
    /// Known witnesses signed, the ledger did not.
    #[error("checkpoint without the signature of the ledger {origin}")]
    NotByLedger {
        /// The ledger's name.
        origin: String,
    },
    /// The checkpoint is another ledger's.
    #[error("checkpoint of {found}, the key is that of {wanted}")]
    OtherOrigin {
        /// The origin in the checkpoint.
        found: String,
        /// The name of the ledger's key.
        wanted: String,
    },
}
