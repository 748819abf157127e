//! What can be wrong with keys, notes, checkpoints and receipts.

use thiserror::Error;

use super::{EntryError, ProofError, SealError};
use crate::{
    hash::Digest,
    note::{KeyId, KeyType},
    position::Index,
};

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
    /// Longer than any note that is read.
    #[error("note of {found} bytes, at most {} are read", crate::note::Note::LEN_MAX)]
    TooLong {
        /// How long it is.
        found: usize,
    },
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
    #[error("signature line {line} is malformed, expected a dash, a key name and base64")]
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
    #[error("key {name} of type {found}, expected {wanted}")]
    KeyType {
        /// Name of the key.
        name: String,
        /// Its type.
        found: KeyType,
        /// The type that the use asks for.
        wanted: KeyType,
    },
    /// A cosignature's time beyond the range that C2SP allows.
    #[error("cosignature time {found} s, expected less than 2^63")]
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
    #[error("checkpoint of fewer than three lines, expected origin, size and root")]
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

/// A tlog-proof file is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// Not UTF-8.
    #[error("proof that is not UTF-8 from byte {position} on")]
    Utf8 {
        /// Offset of the first byte that is not.
        position: usize,
    },
    /// The proof ends before its checkpoint.
    #[error("proof that ends too early, expected a proof, an empty line and a checkpoint")]
    Truncated,
    /// A line is malformed.
    #[error("line {line} of a proof is malformed, expected \"{wanted}\"")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A receipt or a tlog-proof does not prove what it should. Unless the batch is at fault, the
/// ledger is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The batch is no batch, or its seal covers another number of events.
    #[error(transparent)]
    Batch(#[from] SealError),
    /// The checkpoint does not verify.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The entry is malformed.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is not in the checkpoint's tree.
    #[error(transparent)]
    Inclusion(#[from] ProofError),
    /// The entry names another place than the proof.
    #[error("entry with index {found} in the proof for index {wanted}")]
    Index {
        /// The entry's own index.
        found: Index,
        /// The index that the proof is for.
        wanted: Index,
    },
    /// A digest of another length.
    #[error("digest of {len} bytes in {field}, expected 32")]
    Hash {
        /// The receipt's field.
        field: &'static str,
        /// Bytes found.
        len: usize,
    },
    /// An entry before entry 0.
    #[error("leaf hash {found} before entry 0, expected zeros")]
    Genesis {
        /// What the receipt says.
        found: Digest,
    },
}
