//! What a ledger is caught at, and the file that proves it to others.
//!
//! Evidence is for somebody who trusts neither the auditor nor the ledger: it holds the ledger's
//! own signed notes, and the bytes that contradict them. How far it convinces by itself depends:
//!
//! - A fork convicts: two notes of one size, two roots, one key.
//! - Another history convicts when the ledger's own path leads to the served root: then it shows
//!   what the served tree has in the place of the pinned one, which is something else.
//! - Entries that break a rule by themselves or beside each other (links, places, times, batches)
//!   convict with proofs that they are under the signed root, which are asked for and kept whenever
//!   they hold. Numbers, registrations and seals take entries from further back, which anybody can
//!   read from the ledger. Where an event does not fit its entry, the log is in order and its
//!   server is not: that is the auditor's word, which asking again confirms.
//! - A rollback or an entry that is not served is the auditor's word too: the notes show what the
//!   ledger committed itself to, and anybody can ask it for that.

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::{CheckpointError, ProofError, ReceiptError},
    hash::{Digest, sha256},
    note::VerifierKey,
    position::Index,
    receipt::TlogProof,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use thiserror::Error;

use crate::verify::Violation;

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
    /// Writes the evidence into `folder`, under a name that is not taken yet; the file's path.
    ///
    /// # Errors
    ///
    /// What the system says when the file cannot be written and synced.
    pub fn keep(&self, folder: &Path, ledger: &VerifierKey) -> io::Result<PathBuf> {
        let origin: String = sha256(ledger.name().as_bytes()).to_string().chars().take(8).collect();
        let at = self.place();
        let text = self.evidence(ledger);
        for copy in 1_u32.. {
            let copy = if copy == 1 { String::new() } else { format!("-{copy}") };
            let path = folder.join(format!("access-ledger-evidence-{origin}-{at}{copy}.txt"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The evidence as text: what was found, and the bytes that show it.
    #[must_use]
    pub fn evidence(&self, ledger: &VerifierKey) -> String {
        let finding = printable(self);
        let mut text = format!("access-ledger evidence v1\nfinding: {finding}\nledger: {ledger}\n");
        match self {
            Self::Checkpoint { note, .. } => {
                section(&mut text, "note as served, base64", &STANDARD.encode(note));
            }
            Self::Rollback { pinned, served }
            | Self::Fork { pinned, served }
            | Self::Unproven { pinned, served, .. } => both(&mut text, pinned, served),
            Self::Inconsistent { pinned, served, path, .. } => {
                both(&mut text, pinned, served);
                let path: Vec<String> = path.iter().map(|hash| STANDARD.encode(hash)).collect();
                section(&mut text, "consistency proof as served", &path.join("\n"));
            }
            Self::Log { violation, served, proofs } => {
                section(&mut text, "checkpoint over the entries", served.note());
                let run = STANDARD.encode(&violation.evidence);
                section(&mut text, "entries as served, base64 of access_ledger.v1.EntryRun", &run);
                for proof in proofs {
                    let title = format!("proof that entry {} is under it", proof.index);
                    section(&mut text, &title, &proof.encode());
                }
            }
            Self::Withheld { served, .. } => {
                section(&mut text, "checkpoint over the entries", served.note());
            }
            Self::Proof { file, .. } => section(&mut text, "proof as served", file),
            Self::Answer { bytes, .. } => {
                section(&mut text, "answer as received, base64", &STANDARD.encode(bytes));
            }
        }
        text
    }

    /// The size or index that names the file.
    fn place(&self) -> u64 {
        match self {
            Self::Checkpoint { .. } | Self::Answer { .. } => 0,
            Self::Rollback { served, .. }
            | Self::Fork { served, .. }
            | Self::Unproven { served, .. }
            | Self::Inconsistent { served, .. } => served.size().0,
            Self::Log { violation, .. } => violation.index.0,
            Self::Withheld { index, .. } | Self::Proof { index, .. } => index.0,
        }
    }
}

/// A message on one line, in which whatever a server put into it can neither move the cursor of a
/// terminal nor begin a section of its own.
pub(crate) fn printable(message: impl fmt::Display) -> String {
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

fn both(text: &mut String, pinned: &VerifiedCheckpoint, served: &VerifiedCheckpoint) {
    section(text, "checkpoint seen before", pinned.note());
    section(text, "checkpoint served", served.note());
}

fn section(text: &mut String, title: &str, content: &str) {
    // Writing to a `String` cannot fail.
    let _infallible = writeln!(text, "\n--- {title} ---\n{}", content.trim_end_matches('\n'));
}
