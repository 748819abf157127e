//! Writes evidence: the text of [`super::reading`]'s grammar, and the file.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    hash::{Digest, sha256},
    note::VerifierKey,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Caught, cosigners, printable,
    reading::{END, HEADER, Title},
};

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

    /// The evidence as text: what was found, and the bytes that show it, in the form that
    /// [`super::Evidence::parse`] reads.
    #[must_use]
    pub fn evidence(&self, ledger: &VerifierKey) -> String {
        let finding = printable(self);
        let mut text = format!("{HEADER}\nfinding: {finding}\nledger: {ledger}\n");
        let mut witnesses: Vec<&VerifierKey> = Vec::new();
        for witness in self.checkpoints().into_iter().flat_map(cosigners) {
            if !witnesses.contains(&witness) {
                witnesses.push(witness);
                // Writing to a `String` cannot fail.
                let _infallible = writeln!(text, "witness: {witness}");
            }
        }
        self.write_exhibits(&mut text);
        finish(text)
    }

    fn write_exhibits(&self, text: &mut String) {
        match self {
            Self::Checkpoint { note, .. } => base64(text, Title::NoteServed, note),
            Self::Rollback { pinned, served }
            | Self::Fork { pinned, served }
            | Self::Unproven { pinned, served, .. } => both(text, pinned, served),
            Self::Diverged { smaller, larger, under, path } => {
                section(text, Title::CheckpointSmaller, smaller.note());
                section(text, Title::CheckpointLarger, larger.note());
                let root = std::slice::from_ref(under);
                section(text, Title::OtherHistory, &hashes(root.iter().chain(path)));
            }
            Self::Inconsistent { pinned, served, path, .. } => {
                both(text, pinned, served);
                section(text, Title::PathServed, &hashes(path));
            }
            Self::Log { violation, served, proofs } => {
                section(text, Title::CheckpointOver, served.note());
                base64(text, Title::EntriesServed, &violation.evidence);
                for proof in proofs {
                    section(text, Title::EntryProof, &proof.encode());
                }
            }
            Self::Withheld { served, .. } => section(text, Title::CheckpointOver, served.note()),
            Self::Altered { signed, proof, held, served, .. } => {
                section(text, Title::CheckpointOver, signed.note());
                section(text, Title::EntryProof, &proof.encode());
                base64(text, Title::EntriesHeld, held);
                base64(text, Title::EntriesServed, served);
            }
            Self::Proof { file, .. } => base64(text, Title::ProofServed, file.as_bytes()),
            Self::Answer { bytes, .. } => base64(text, Title::AnswerReceived, bytes),
        }
    }

    /// The size or index that names the file.
    fn place(&self) -> u64 {
        match self {
            Self::Checkpoint { .. } | Self::Answer { .. } => 0,
            Self::Rollback { served, .. }
            | Self::Fork { served, .. }
            | Self::Unproven { served, .. }
            | Self::Inconsistent { served, .. } => served.size().0,
            Self::Diverged { smaller, .. } => smaller.size().0,
            Self::Log { violation, .. } => violation.index.0,
            Self::Withheld { index, .. }
            | Self::Altered { index, .. }
            | Self::Proof { index, .. } => index.0,
        }
    }
}

fn both(text: &mut String, pinned: &VerifiedCheckpoint, served: &VerifiedCheckpoint) {
    section(text, Title::CheckpointBefore, pinned.note());
    section(text, Title::CheckpointServed, served.note());
}

fn hashes<'a>(hashes: impl IntoIterator<Item = &'a Digest>) -> String {
    hashes.into_iter().map(|hash| STANDARD.encode(hash) + "\n").collect()
}

fn base64(text: &mut String, title: Title, bytes: &[u8]) {
    section(text, title, &(STANDARD.encode(bytes) + "\n"));
}

/// The whole file, of all but its last lines.
pub(super) fn finish(mut text: String) -> String {
    let digest = STANDARD.encode(sha256(text.as_bytes()));
    // Writing to a `String` cannot fail.
    let _infallible = write!(text, "\n--- {END} {digest} ---\n");
    text
}

/// Every line of `content` ends with a line feed. The count of lines keeps what a server sent from
/// beginning a section of its own.
pub(super) fn section(text: &mut String, title: Title, content: &str) {
    let lines = content.matches('\n').count();
    // Writing to a `String` cannot fail.
    let _infallible = write!(text, "\n--- {} ({lines} lines) ---\n{content}", title.text());
}
