//! What a ledger is caught at, and the file that proves it to others.
//!
//! Evidence is for somebody who trusts neither the auditor nor the ledger: it holds the ledger's
//! own signed notes, and the bytes that contradict them. `access-ledger check-evidence` reads such
//! a file offline. How far it convinces by itself depends:
//!
//! - A fork convicts: two notes of one size, two roots, one key. Notes of two sizes convict with a
//!   path that leads from another root of the smaller size to the signed root of the larger one:
//!   who holds the whole tree makes it ([`compare_held`]), or the ledger has shown it itself.
//! - Entries that break a rule by themselves or beside each other (form, links, places, times,
//!   batches, numbers) convict with proofs that they are under the signed root, which are asked for
//!   and kept whenever they hold. Registrations and seals take entries from further back, which
//!   anybody can read from the ledger. Where an event does not fit its entry, the log is in order
//!   and its server is not: that is the auditor's word, which asking again confirms.
//! - A rollback or an entry that is not served is the auditor's word too: the notes show what the
//!   ledger committed itself to, and anybody can ask it for that.
//! - A witness that cosigned both histories of a fork is convicted with the ledger.

use std::fmt;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::{BuildError, CheckpointError, ProofError, ReceiptError},
    hash::Digest,
    note::VerifierKey,
    position::{Index, Size},
    proof::{NodeSource, consistency_path, root_at, verify_consistency},
    receipt::TlogProof,
};
use bytes::Bytes;
use thiserror::Error;

pub use self::{
    judging::{Conviction, Misdeed, Verdict},
    reading::{Evidence, EvidenceError, Exhibit},
};
use crate::verify::Violation;

mod judging;
mod reading;
mod writing;

/// A ledger broke a rule, and this proves it. The text is one sentence.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Caught {
    /// The checkpoint is not one that the pinned key signed.
    #[error("the checkpoint does not hold: {error}")]
    Checkpoint {
        /// What is wrong with it.
        error: CheckpointError,
        /// The note as it was served.
        note: Bytes,
    },
    /// The ledger went back behind what it had signed.
    #[error("the ledger rolled back to size {}, pinned is size {}", .served.size(), .pinned.size())]
    Rollback {
        /// Seen before.
        pinned: Box<VerifiedCheckpoint>,
        /// Served later.
        served: Box<VerifiedCheckpoint>,
    },
    /// The ledger signed two histories of one size.
    #[error(
        "the ledger forked at size {}: it signed root {} and root {}",
        .pinned.size(), .pinned.root(), .served.root()
    )]
    Fork {
        /// Seen before.
        pinned: Box<VerifiedCheckpoint>,
        /// Served later.
        served: Box<VerifiedCheckpoint>,
    },
    /// The ledger signed two histories of two sizes: what it signed of the larger size does not
    /// begin with what it signed of the smaller one.
    #[error(
        "the ledger forked: under the root that it signed of size {}, size {} has root {under}, \
         it signed root {}", .larger.size(), .smaller.size(), .smaller.root()
    )]
    Diverged {
        /// Signed.
        smaller: Box<VerifiedCheckpoint>,
        /// Signed.
        larger: Box<VerifiedCheckpoint>,
        /// The root that the larger tree has at the smaller size.
        under: Digest,
        /// The consistency path from there to the larger root.
        path: Vec<Digest>,
    },
    /// The ledger cannot show that the pinned tree is a part of the served one.
    #[error(
        "the ledger's history of size {} does not continue the pinned one of size {}: {error}",
        .served.size(), .pinned.size()
    )]
    Inconsistent {
        /// Seen before.
        pinned: Box<VerifiedCheckpoint>,
        /// Served later.
        served: Box<VerifiedCheckpoint>,
        /// What is wrong with the proof.
        error: ProofError,
        /// The proof as it was served.
        path: Vec<Digest>,
    },
    /// The ledger refuses to show that the pinned tree is a part of the served one.
    #[error(
        "the ledger does not show that size {} continues the pinned size {}: {problem}",
        .served.size(), .pinned.size()
    )]
    Unproven {
        /// Seen before.
        pinned: Box<VerifiedCheckpoint>,
        /// Served later.
        served: Box<VerifiedCheckpoint>,
        /// What the server said, or sent instead.
        problem: String,
    },
    /// The entries break a rule.
    #[error("{violation}")]
    Log {
        /// Which rule, and where.
        violation: Box<Violation>,
        /// What the ledger signed over these entries.
        served: Box<VerifiedCheckpoint>,
        /// That the entries of the violation are under it, as far as the ledger proves that.
        proofs: Vec<TlogProof>,
    },
    /// The ledger does not serve an entry that it signed for.
    #[error(
        "at index {index}, no entry is served, though the ledger signed size {}: {problem}",
        .served.size()
    )]
    Withheld {
        /// The first such entry.
        index: Index,
        /// What the server said.
        problem: String,
        /// What the ledger signed.
        served: Box<VerifiedCheckpoint>,
    },
    /// The ledger serves something else than the entry that it signed for, or another event.
    #[error(
        "at index {index}, the ledger serves other bytes than those under its signed size {}",
        .signed.size()
    )]
    Altered {
        /// The entry.
        index: Index,
        /// What the ledger signed.
        signed: Box<VerifiedCheckpoint>,
        /// The entry that is under it.
        proof: Box<TlogProof>,
        /// An encoded `access_ledger.v1.EntryRun`: the record as it was served first.
        held: Vec<u8>,
        /// The same as it is served now.
        served: Vec<u8>,
    },
    /// A proof of one entry does not hold.
    #[error("the proof of index {index} does not hold: {error}")]
    Proof {
        /// The entry that was asked for.
        index: Index,
        /// What is wrong with the proof.
        error: ReceiptError,
        /// The proof as a `.tlog-proof` file, as it was served.
        file: String,
    },
    /// The answer to an enrolment or a batch does not hold.
    #[error("the ledger's answer does not hold: {problem}")]
    Answer {
        /// What is wrong with it.
        problem: String,
        /// The answer as it was received.
        bytes: Bytes,
    },
}

impl Caught {
    /// Whether a path that the ledger served leads from another root of the smaller size to what it
    /// signed of the larger one: its own word for another history. A path that leads nowhere proves
    /// nothing to who can read the entries: a damaged tree makes such.
    #[must_use]
    pub fn leads_elsewhere(&self) -> bool {
        let Self::Inconsistent { pinned, served, error, path } = self else { return false };
        let (old, new) = (pinned.size(), served.size());
        let ProofError::Root { size, found, .. } = error else { return false };
        *size == old && verify_consistency(old, new, *found, served.root(), path).is_ok()
    }

    /// The checkpoints that it rests on.
    fn checkpoints(&self) -> Vec<&VerifiedCheckpoint> {
        match self {
            Self::Rollback { pinned, served }
            | Self::Fork { pinned, served }
            | Self::Inconsistent { pinned, served, .. }
            | Self::Unproven { pinned, served, .. } => vec![pinned, served],
            Self::Diverged { smaller, larger, .. } => vec![smaller, larger],
            Self::Log { served, .. } | Self::Withheld { served, .. } => vec![served],
            Self::Altered { signed, .. } => vec![signed],
            Self::Checkpoint { .. } | Self::Proof { .. } | Self::Answer { .. } => Vec::new(),
        }
    }
}

/// Compares what a ledger serves as a checkpoint with the tree of somebody who holds its log as
/// `held` signs it: the tree's root at that size is that of `held`. `None` when there is nothing
/// against it; of a larger size that is all that can be said before its entries are there.
///
/// # Errors
///
/// When the tree cannot be read.
pub fn compare_held<S: NodeSource + ?Sized>(
    held: &VerifiedCheckpoint,
    served: &VerifiedCheckpoint,
    tree: &S,
) -> Result<Option<Caught>, BuildError<S::Error>> {
    let (old, new) = (served.size(), held.size());
    if old > new {
        return Ok(None);
    }
    let under = root_at(tree, old)?;
    if under == served.root() {
        return Ok(None);
    }
    let (ours, theirs) = (Box::new(held.clone()), Box::new(served.clone()));
    Ok(Some(if old == new {
        Caught::Fork { pinned: ours, served: theirs }
    } else if old == Size::ZERO {
        // Nothing leads from an empty tree to another.
        Caught::Rollback { pinned: ours, served: theirs }
    } else {
        let path = consistency_path(tree, old, new)?;
        Caught::Diverged { smaller: theirs, larger: ours, under, path }
    }))
}

/// The witnesses whose signatures on a checkpoint were verified.
fn cosigners(checkpoint: &VerifiedCheckpoint) -> impl Iterator<Item = &VerifierKey> {
    checkpoint.cosignatures().iter().map(|cosignature| &cosignature.key)
}

/// A message on one line, in which whatever a server put into it can neither move the cursor of a
/// terminal nor begin a section of its own.
#[must_use]
pub fn printable(message: impl fmt::Display) -> String {
    let mut line = String::new();
    for char in message.to_string().chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

#[cfg(test)]
mod tests;
