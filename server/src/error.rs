//! What can go wrong in the server, one enum a stage.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use access_ledger_client::verify;
use access_ledger_proto::{
    error::{ChainError, CheckpointError, EntryError, PolicyError, QuorumError, SegmentError},
    hash::Digest,
    position::{Index, Size},
};
use thiserror::Error;

use crate::{folder::Role, index::IndexError, outbound::OutboundError};

/// The storage cannot do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk refused. For the operator.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// An earlier write or sync failed, so that nobody knows what is on the disk. Only opening the
    /// ledger again clears it.
    #[error("storage is closed to writing since a write or sync failed, restart to recover")]
    Poisoned,
    /// Stored bytes are not what was written. For the operator: restore from the custodian.
    #[error("segment {segment}, offset {offset}, entry {index}: {fault}")]
    Damage {
        /// Index of the segment's first entry: `log/<20 digits>.seg`.
        segment: Index,
        /// Byte in that file at which the damaged part (frame, header, footer) starts.
        offset: u64,
        /// The first entry that is affected.
        index: Index,
        /// What is wrong.
        fault: Fault,
    },
    /// A file of the tree is not what follows from the entries. At level 0 the entry may be what
    /// changed; if the log holds without the tree, remove the folder `tree` and it is rebuilt.
    #[error("tree level {level}, hash {position} is {found}, computed {computed}")]
    TreeDamage {
        /// Level of tiles, the name of the file.
        level: u8,
        /// Position of the hash in the file.
        position: u64,
        /// The stored hash.
        found: Digest,
        /// The hash that follows from the level below.
        computed: Digest,
    },
    /// A file of the tree ends too early.
    #[error("tree level {level} has {found} hashes, {wanted} belong to the log")]
    TreeShort {
        /// Level of tiles, the name of the file.
        level: u8,
        /// Hashes in the file.
        found: u64,
        /// Hashes that a log of this size has.
        wanted: u64,
    },
    /// The tree's root is not the one that the checkpoint signs.
    #[error("root at size {size} is {found}, the checkpoint says {wanted}")]
    Root {
        /// The checkpoint's size.
        size: Size,
        /// Root of the stored tree.
        found: Digest,
        /// Root in the checkpoint.
        wanted: Digest,
    },
    /// A group starts elsewhere than at the end of the log: a mistake of ours.
    #[error("group starts at index {found}, the log goes on at {wanted}")]
    GroupOutOfPlace {
        /// The group's first index.
        found: Index,
        /// The log's next index.
        wanted: Index,
    },
    /// The tree was not appended to after each commit: a mistake of ours.
    #[error("tree files hold {found} leaves, the log {wanted} entries")]
    TreeBehind {
        /// Leaves stored.
        found: Size,
        /// Entries stored.
        wanted: Size,
    },
}

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// A segment's header or a frame is not as it was written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The segment's header and its file name differ.
    #[error("segment header says first entry {found}")]
    FirstIndex {
        /// First index in the header.
        found: Index,
    },
    /// A full segment's footer does not match its own checksum.
    #[error("segment footer is damaged")]
    Footer,
    /// A full segment holds more or fewer entries than its successor's name says.
    #[error("segment holds {found} entries, the next one starts after {wanted}")]
    Count {
        /// Entries of this segment.
        found: u64,
        /// Entries up to where the next one starts.
        wanted: u64,
    },
    /// Another entry than the one that belongs here.
    #[error("entry with index {found}")]
    Index {
        /// The index in the entry.
        found: Index,
    },
    /// The log ends before what was acknowledged.
    #[error("log ends here, the checkpoint covers {checkpoint} entries")]
    Lost {
        /// The checkpoint's size.
        checkpoint: Size,
    },
    /// The file is not there.
    #[error("segment is missing")]
    Missing,
    /// The entry's bytes are malformed.
    #[error(transparent)]
    Entry(EntryError),
    /// The entry does not continue the chain.
    #[error(transparent)]
    Chain(ChainError),
    /// The entry was changed: both the tree and the next entry know another one.
    #[error("leaf hash of the entry is {found}, tree and chain say {wanted}")]
    Leaf {
        /// Hash of the bytes found.
        found: Digest,
        /// The stored hash.
        wanted: Digest,
    },
    /// Bytes of an erased event are still there.
    #[error("event is marked as erased but its bytes are there")]
    NotErased,
    /// The log breaks a rule that every auditor checks.
    #[error(transparent)]
    Log(verify::Fault),
}

/// The ledger cannot be made, opened or kept running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The folder holds no ledger.
    #[error("{} holds no ledger, make one with `init`", .folder.display())]
    Uninitialised {
        /// The data folder.
        folder: PathBuf,
    },
    /// The folder holds a ledger already.
    #[error("{} holds the ledger {origin} already", .folder.display())]
    Initialised {
        /// The data folder.
        folder: PathBuf,
        /// The ledger's name.
        origin: String,
    },
    /// A name that no ledger or source can have.
    #[error("name {name:?}: {problem}")]
    Origin {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder is not what the command is for.
    #[error("{} is the folder of a {found}, expected that of a {wanted}", .folder.display())]
    Role {
        /// The data folder.
        folder: PathBuf,
        /// Whose it is.
        found: Role,
        /// Whose it should be.
        wanted: Role,
    },
    /// The custodian in the folder follows another ledger.
    #[error("{} is the folder of a custodian of {found}, asked for is {wanted}", .folder.display())]
    Follows {
        /// The data folder.
        folder: PathBuf,
        /// Verifier key of the ledger that it follows.
        found: String,
        /// Verifier key asked for.
        wanted: String,
    },
    /// A single governance party, which could change no rule, for that takes two.
    #[error(
        "{name} is the only governance key, expected two of two parties, who change rules only \
         together (or none: both are made)"
    )]
    GovernanceAlone {
        /// The key's name.
        name: String,
    },
    /// The file holds no policy.
    #[error("{}: {error}", .path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        error: PolicyError,
    },
    /// The folder was made by a newer version.
    #[error("{} has format version {found}, this binary knows {known}", .path.display())]
    FormatVersion {
        /// `meta.toml`.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// The checkpoint key belongs to another ledger.
    #[error("keys/ledger.key is for {key}, the folder holds the ledger {origin}")]
    ForeignKey {
        /// The key's name.
        key: String,
        /// The ledger's.
        origin: String,
    },
    /// The log names a key for the checkpoints that is not in the folder.
    #[error("keys/ holds no file of the ledger's key {key}, which the log names")]
    KeyMissing {
        /// Its verifier key.
        key: String,
    },
    /// The log names a key for the ledger's own source that is not in the folder.
    #[error("keys/ holds no file of the key of source {name}, which the log names")]
    OwnKeyMissing {
        /// The ledger's own source.
        name: String,
    },
    /// Another process holds the folder.
    #[error("{} is in use by another process", .folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
    },
    /// The file is no trust policy.
    #[error("{}, {error}", .path.display())]
    Quorum {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        error: QuorumError,
    },
    /// A trust policy that names logs, and not this one.
    #[error("trust policy accepts other logs than {origin}")]
    OtherLog {
        /// This ledger's name.
        origin: String,
    },
    /// A quorum that cannot be reached: witnesses that it takes have no address.
    #[error("receipts would wait for ever: no address is known of {}", .names.join(", "))]
    Unasked {
        /// Names of those witnesses in the trust policy.
        names: Vec<String>,
    },
    /// A witness has cosigned more than there is here: entries were lost.
    #[error(
        "the ledger was rolled back: it holds {local} entries, {by} has cosigned {cosigned}; bring \
         back the missing entries ({}) with `access-ledger-server restore --from {by}`",
        .cosigned.0.saturating_sub(.local.0)
    )]
    RolledBack {
        /// Entries in the local log.
        local: Size,
        /// Entries that the witness has cosigned.
        cosigned: Size,
        /// Address of the witness.
        by: String,
    },
    /// A witness has cosigned another history than the local one.
    #[error(
        "the ledger holds another history than it signed: root at size {size} is {found}, {by} has \
         cosigned {wanted}; a copy of that one has `access-ledger-server restore --from {by}`"
    )]
    OtherHistory {
        /// The size of the checkpoint.
        size: Size,
        /// Root of the local tree at this size.
        found: Digest,
        /// Root that the ledger signed and the witness cosigned.
        wanted: Digest,
        /// Address of the witness.
        by: String,
    },
    /// A witness did not tell what it has seen, so nobody knows whether entries were lost.
    #[error(
        "{by} does not tell what it has seen of this ledger ({problem}), so nobody knows whether \
         entries were lost; to start nevertheless: --danger-skip-guard"
    )]
    Unguarded {
        /// Address of the witness.
        by: String,
        /// What went wrong.
        problem: String,
    },
    /// A file is malformed or missing.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk refused.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The genesis entry could not be made.
    #[error("genesis: {problem}")]
    Genesis {
        /// What is wrong with it.
        problem: String,
    },
    /// What the ledger itself has to record could not be made.
    #[error("event of the ledger's own: {problem}")]
    Own {
        /// What is wrong with it.
        problem: String,
    },
    /// No checkpoint could be signed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The system gives no thread.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

impl LedgerError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Certificates or principals cannot be used. For the operator.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read, or a private key not be kept private.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said, or who can read the key.
        source: io::Error,
    },
    /// Certificate, key and authority make no TLS.
    #[error("{}, its key and the client authority: {problem}", .path.display())]
    Tls {
        /// The server's certificate.
        path: PathBuf,
        /// What is wrong with which of them.
        problem: String,
    },
    /// The file of principals is malformed.
    #[error("{}:{line}: {problem}", .path.display())]
    Principals {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was wanted.
        problem: String,
    },
}

/// The server cannot be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Metrics cannot be collected.
    #[error("cannot collect metrics: {problem}")]
    Metrics {
        /// What is wrong.
        problem: String,
    },
    /// Signals cannot be handled.
    #[error("cannot handle signals: {source}")]
    Signal {
        /// What the system said.
        source: io::Error,
    },
    /// Witnesses cannot be asked.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The reflection service cannot be built.
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
}
