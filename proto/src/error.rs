//! What can be wrong with what this crate reads, one enum a stage.

use thiserror::Error;

use crate::{
    hash::Digest,
    note::{KeyId, KeyType},
    position::{Index, Size},
    source::SourceName,
    wire::SourceRole,
};

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

/// An event breaks a rule of `event.proto`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{fault}", self.prefix())]
pub struct EventError {
    /// The field's path, as in `access.data[2].dataset`; empty for the event as a whole.
    pub path: String,
    /// What is wrong there.
    pub fault: EventFault,
}

impl EventError {
    pub(crate) fn at(field: &str, fault: EventFault) -> Self {
        Self { path: field.to_owned(), fault }
    }

    pub(crate) fn within(self, field: &str) -> Self {
        self.below(field.to_owned())
    }

    pub(crate) fn within_item(self, field: &str, item: u32) -> Self {
        self.below(format!("{field}[{item}]"))
    }

    fn below(self, field: String) -> Self {
        let path = if self.path.is_empty() { field } else { format!("{field}.{}", self.path) };
        Self { path, fault: self.fault }
    }

    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) }
    }
}

impl From<EventFault> for EventError {
    fn from(fault: EventFault) -> Self {
        Self { path: String::new(), fault }
    }
}

/// What is wrong with a field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventFault {
    /// The event is empty or too long.
    #[error("event of {len} bytes, allowed are 1 to 32768")]
    EventLen {
        /// Bytes found.
        len: usize,
    },
    /// The bytes are no protobuf message.
    #[error("malformed protobuf")]
    Malformed,
    /// The field has another wire type than its declaration.
    #[error("wire type does not fit the field")]
    WireType,
    /// A required field is absent, empty or unspecified.
    #[error("missing, the field is required")]
    Missing,
    /// A singular field or a oneof is set more than once.
    #[error("set twice, allowed is once")]
    Twice,
    /// Too many items.
    #[error("more items than the {max} allowed")]
    Items {
        /// Most items.
        max: u32,
    },
    /// A string or bytes field is too long.
    #[error("{len} bytes, allowed are {max}")]
    Len {
        /// Bytes found.
        len: usize,
        /// Most bytes.
        max: usize,
    },
    /// A bytes field of fixed length has another length.
    #[error("{len} bytes, wanted are {wanted}")]
    Exactly {
        /// Bytes found.
        len: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {position}")]
    Utf8 {
        /// Offset of the first bad byte.
        position: usize,
    },
    /// A control character, or one that reorders text.
    #[error("forbidden character at byte {position}")]
    Character {
        /// Offset of the first one.
        position: usize,
    },
    /// Not a country code.
    #[error("not an ISO 3166-1 alpha-2 code in upper case")]
    Country,
    /// Not a source's name.
    #[error(transparent)]
    SourceName(NameError),
    /// A required enum has no value, or one that this version does not know.
    #[error("value {value} is unspecified or unknown, the field is required")]
    EnumValue {
        /// The value found.
        value: i32,
    },
    /// A time or duration outside its range.
    #[error("time out of range")]
    TimeRange,
    /// More than five minutes ahead of the ledger's clock.
    #[error("time lies more than five minutes in the future")]
    Future,
}

/// A batch cannot be sealed, or its seal does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Empty or too large.
    #[error("batch of {found} events, allowed are 1 to 4096")]
    Count {
        /// Events found.
        found: usize,
    },
    /// Numbers start at 1 and must not run out.
    #[error("batch starts at number {first_seq}, numbers start at 1 and must not overflow")]
    Sequence {
        /// The first number.
        first_seq: u64,
    },
    /// The seal covers another number of entries.
    #[error("seal covers {found} entries, the batch has {wanted}")]
    Covers {
        /// What the seal says.
        found: u16,
        /// Length of the batch.
        wanted: u16,
    },
    /// The seal names another key than the source's.
    #[error("seal names a key that is not the source's")]
    Key,
    /// The signature does not verify.
    #[error("seal's signature does not verify")]
    Signature,
}

/// An entry does not continue the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Another place was next.
    #[error("entry with index {found}, wanted {wanted}")]
    Index {
        /// The entry's own index.
        found: Index,
        /// The place it stands at.
        wanted: Index,
    },
    /// `prev` is not the leaf hash of the entry before.
    #[error("link at index {index} is {found}, computed {wanted}")]
    Link {
        /// Where.
        index: Index,
        /// What the entry says.
        found: Digest,
        /// The leaf hash before it.
        wanted: Digest,
    },
    /// Time runs backwards.
    #[error("time at index {index} is {found} ns, the entry before has {before} ns")]
    Time {
        /// Where.
        index: Index,
        /// Nanoseconds since the Unix epoch.
        found: u64,
        /// The same of the entry before.
        before: u64,
    },
}

/// A source used another number than its next one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("source {name} goes on with number {found}, expected {expected}")]
pub struct SequenceGap {
    /// Whose numbers.
    pub name: SourceName,
    /// The number found.
    pub found: u64,
    /// The number that was next.
    pub expected: u64,
}

/// A source may not do what it did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No source of this name is registered.
    #[error("source {name} is not registered")]
    Unknown {
        /// The name.
        name: SourceName,
    },
    /// The seal names another key than the registered one.
    #[error("key is not the one that source {name} registered")]
    Key {
        /// The source.
        name: SourceName,
    },
    /// The source was taken out of service.
    #[error("source {name} was decommissioned at index {since}")]
    Inactive {
        /// The source.
        name: SourceName,
        /// The entry that did it.
        since: Index,
    },
    /// The source lacks a role.
    #[error("source {name} lacks the role {}", .role.as_str_name())]
    Role {
        /// The source.
        name: SourceName,
        /// The role wanted.
        role: SourceRole,
    },
    /// The name is taken.
    #[error("source {name} is registered already")]
    Exists {
        /// The name.
        name: SourceName,
    },
    /// A status about another source.
    #[error("status of source {name}, a source reports its own")]
    Foreign {
        /// The source that the status is about.
        name: SourceName,
    },
    /// The name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No usable Ed25519 key.
    #[error("public key is not a usable Ed25519 key of 32 bytes")]
    PublicKey,
    /// A role that this version does not know.
    #[error("role {value} is unspecified or unknown")]
    UnknownRole {
        /// The enum value.
        value: i32,
    },
    /// A source without any role.
    #[error("no role, wanted is at least one")]
    NoRole,
    /// A signature of the enrolment is missing or fails.
    #[error("signature of the enrolment does not verify")]
    Enrolment,
    /// The new source does not lie below its parent.
    #[error("name does not lie below its parent {parent}")]
    NotBelow {
        /// The parent.
        parent: SourceName,
    },
    /// A source enrolled itself below another source's name.
    #[error("name lies below {ancestor}, whose signature is missing")]
    Ancestor {
        /// The source above.
        ancestor: SourceName,
    },
    /// The ledger does not allow it.
    #[error("self-enrolment is not allowed in this ledger")]
    SelfEnrolment,
    /// More than recording.
    #[error("a source that enrols itself may only have the role SOURCE_ROLE_RECORD")]
    SelfEnrolmentRoles,
    /// A change of the rules beside other events.
    #[error("an event that changes the rules stands alone in its batch")]
    Alone,
    /// A second genesis, or none where one belongs.
    #[error("genesis is malformed, missing or repeated")]
    Genesis,
    /// The body cannot be decoded.
    #[error("body of the event cannot be decoded")]
    Undecodable,
}

/// A proof could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError<E> {
    /// No such leaf in the tree.
    #[error("index {index} asked of a tree of {size} leaves")]
    BeyondTree {
        /// The leaf asked for.
        index: Index,
        /// Size of the tree.
        size: Size,
    },
    /// Sizes between which no consistency can be proven.
    #[error("old size {old}, allowed are 1 to {new}")]
    Sizes {
        /// Size of the old tree.
        old: Size,
        /// Size of the new tree.
        new: Size,
    },
    /// A node could not be had.
    #[error(transparent)]
    Source(E),
}

/// A proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No such leaf in the tree.
    #[error("proof for index {index} in a tree of {size} leaves")]
    BeyondTree {
        /// The leaf that the proof is for.
        index: Index,
        /// Size of the tree.
        size: Size,
    },
    /// Sizes between which no consistency can be proven.
    #[error("old size {old}, allowed are 1 to {new}")]
    Sizes {
        /// Size of the old tree.
        old: Size,
        /// Size of the new tree.
        new: Size,
    },
    /// Too few or too many hashes.
    #[error("path of {found} hashes, wanted {wanted}")]
    Length {
        /// Hashes in the path.
        found: usize,
        /// Hashes that a path between these places has.
        wanted: usize,
    },
    /// The path leads to another root.
    #[error("root of size {size} computed {found}, wanted {wanted}")]
    Root {
        /// Size of the tree that the root is of.
        size: Size,
        /// The root that follows from the path.
        found: Digest,
        /// The root that it was checked against.
        wanted: Digest,
    },
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
    #[error("proof that ends too early, wanted are a proof, an empty line and a checkpoint")]
    Truncated,
    /// A line is malformed.
    #[error("line {line} of a proof is malformed, wanted is \"{wanted}\"")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A receipt or a tlog-proof does not prove what it should. Unless the batch is at fault, the ledger is.
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
    #[error("digest of {len} bytes in {field}, wanted are 32")]
    Hash {
        /// The receipt's field.
        field: &'static str,
        /// Bytes found.
        len: usize,
    },
    /// An entry before entry 0.
    #[error("leaf hash {found} before entry 0, wanted are zeros")]
    Genesis {
        /// What the receipt says.
        found: Digest,
    },
}
