//! Reads evidence, strictly: what was changed by one byte is malformed.
//!
//! The file is UTF-8 without control characters but line feeds, at most [`Evidence::BYTES_MAX`]
//! long. Byte-exact:
//!
//! ```text
//! file     = "access-ledger evidence v1" LF
//!            "finding: " text LF                       what its writer says, on one line
//!            "ledger: " vkey LF                        the ledger's key
//!            *("witness: " vkey LF)                    cosigners that the writer knew, each once
//!            *section
//!            LF "--- sha256 " base64 " ---" LF         digest of all bytes before this LF
//! section  = LF "--- " title " (" count " lines) ---" LF count*(text LF)
//! count    = decimal without leading zeros
//! ```
//!
//! | title | lines |
//! |---|---|
//! | `checkpoint seen before`, `checkpoint served`, `checkpoint over the entries`, `checkpoint of the smaller size`, `checkpoint of the larger size` | a signed note of the ledger, verbatim |
//! | `other history` | base64: the root that the tree of the larger checkpoint has at the size of the smaller one, then the consistency path from there to the larger root |
//! | `consistency proof as served` | base64, one hash a line; none is a proof too |
//! | `proof of an entry` | a C2SP tlog-proof file under a checkpoint of the ledger |
//! | `entries as served`, `entries as held` | one line, base64 of an `access_ledger.v1.EntryRun` |
//! | `note as served`, `proof as served`, `answer as received` | one line, base64 of whatever it was |
//!
//! Base64 is the standard alphabet with padding, canonical. The digest shows that a file is whole;
//! who writes one can compute it, so it convicts nobody. Only signatures do, and
//! [`Evidence::judge`] goes by nothing else.

use access_ledger_proto::{
    error::{CheckpointError, KeyError, ProofError, TlogProofError},
    hash::{Digest, sha256},
    note::VerifierKey,
    position::Index,
    receipt::TlogProof,
    wire,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use thiserror::Error;

/// A file of evidence, well formed. Nothing in it is verified yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// What its writer found: one line. Nobody has to believe it.
    pub finding: String,
    /// The key that the file accuses. Whose key that is, the reader must know.
    pub ledger: VerifierKey,
    /// Cosigners whose signatures its writer verified.
    pub witnesses: Vec<VerifierKey>,
    /// What is laid before the reader, in the order of the file.
    pub exhibits: Vec<Exhibit>,
}

/// One section of a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Exhibit {
    /// A signed note.
    Checkpoint(String),
    /// The root at the smaller size under the larger one, and the path to the larger root.
    OtherHistory {
        /// The root.
        under: Digest,
        /// The path.
        path: Vec<Digest>,
    },
    /// A consistency proof that the ledger gave.
    PathServed(Vec<Digest>),
    /// An entry under a checkpoint.
    EntryProof(TlogProof),
    /// Records as the ledger served them at some time.
    Entries(wire::EntryRun),
    /// Bytes that prove nothing by themselves.
    Other(Vec<u8>),
}

/// Not a file of evidence, or one that was damaged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Longer than any evidence.
    #[error("{found} bytes, evidence has at most {}", Evidence::BYTES_MAX)]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Bytes that no text has.
    #[error("byte {position} is no part of a text")]
    Text {
        /// Offset of the byte.
        position: usize,
    },
    /// The file ends too early, or goes on behind its end.
    #[error("line {line}: {wanted} is wanted")]
    Line {
        /// Its number, from 1 on.
        line: usize,
        /// What must stand there.
        wanted: &'static str,
    },
    /// A key cannot be read.
    #[error("line {line}: {error}")]
    Key {
        /// Its number, from 1 on.
        line: usize,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The bytes are not those that were written.
    #[error("digest is {found}, computed {computed}: the file was changed")]
    Digest {
        /// In the last line.
        found: Digest,
        /// Of what stands before it.
        computed: Digest,
    },
    /// More sections than any evidence has.
    #[error("more than {} sections", Evidence::SECTIONS_MAX)]
    TooManySections,
    /// A proof of an entry is malformed.
    #[error("section at line {line}: {error}")]
    Proof {
        /// Where the section's title stands.
        line: usize,
        /// What is wrong with it.
        error: TlogProofError,
    },
    /// A checkpoint is not one that the file's ledger signed, or a cosignature of a known witness
    /// on it fails.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A proof of an entry does not hold.
    #[error("proof of entry {index} does not hold: {error}")]
    Unproven {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        error: ProofError,
    },
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Title {
    CheckpointBefore,
    CheckpointServed,
    CheckpointOver,
    CheckpointSmaller,
    CheckpointLarger,
    OtherHistory,
    PathServed,
    EntryProof,
    EntriesServed,
    EntriesHeld,
    NoteServed,
    ProofServed,
    AnswerReceived,
}

/// The lines of a file that are not read yet.
struct Lines<'a> {
    rest: &'a str,
    /// Number of the next line.
    number: usize,
}

impl Evidence {
    /// Longest file: an answer of a server, in base64.
    pub const BYTES_MAX: usize = 64 << 20;

    /// Most sections: a checkpoint, and proofs of the few entries that a violation is about.
    pub const SECTIONS_MAX: usize = 64;

    /// Reads a file of evidence. Verifies no signature.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::TooLong`], [`EvidenceError::Text`]; [`EvidenceError::Line`],
    /// [`EvidenceError::Key`], [`EvidenceError::Proof`] for the first line that is not of the
    /// grammar; [`EvidenceError::TooManySections`]; [`EvidenceError::Digest`] for a file that was
    /// changed.
    pub fn parse(file: &[u8]) -> Result<Self, EvidenceError> {
        if file.len() > Self::BYTES_MAX {
            return Err(EvidenceError::TooLong { found: file.len() });
        }
        let text = str::from_utf8(file)
            .map_err(|error| EvidenceError::Text { position: error.valid_up_to() })?;
        let control = |byte: u8| byte < b' ' && byte != b'\n';
        if let Some(position) = text.bytes().position(control) {
            return Err(EvidenceError::Text { position });
        }
        let mut lines = Lines { rest: text, number: 1 };
        lines.expect(HEADER, "access-ledger evidence v1")?;
        let finding = lines.field("finding: ", "finding")?.to_owned();
        let ledger = lines.key("ledger: ", "ledger")?;
        let mut witnesses = Vec::new();
        while lines.rest.starts_with("witness: ") {
            let number = lines.number;
            let witness = lines.key("witness: ", "witness")?;
            if witnesses.contains(&witness) {
                return Err(at(number, "another witness"));
            }
            witnesses.push(witness);
        }
        let mut exhibits = Vec::new();
        loop {
            let before = text.len().saturating_sub(lines.rest.len());
            lines.expect("", "an empty line")?;
            let number = lines.number;
            let title = lines.field("--- ", "a title")?;
            let title = title.strip_suffix(" ---").ok_or_else(|| at(number, "a title"))?;
            if let Some(digest) = title.strip_prefix(END) {
                let found = digest.strip_prefix(' ').and_then(digest_of);
                let found = found.ok_or_else(|| at(number, "a digest"))?;
                let computed = sha256(file.get(..before).unwrap_or_default());
                if found != computed {
                    return Err(EvidenceError::Digest { found, computed });
                }
                if !lines.rest.is_empty() {
                    return Err(at(lines.number, "the end"));
                }
                return Ok(Self { finding, ledger, witnesses, exhibits });
            }
            if exhibits.len() == Self::SECTIONS_MAX {
                return Err(EvidenceError::TooManySections);
            }
            exhibits.push(lines.section(title, number)?);
        }
    }
}

impl<'a> Lines<'a> {
    /// The next line, without its line feed.
    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    fn expect(&mut self, line: &str, wanted: &'static str) -> Result<(), EvidenceError> {
        let number = self.number;
        match self.next() {
            Some(found) if found == line => Ok(()),
            _ => Err(at(number, wanted)),
        }
    }

    /// The rest of a line that begins with `name`.
    fn field(&mut self, name: &str, wanted: &'static str) -> Result<&'a str, EvidenceError> {
        let number = self.number;
        self.next().and_then(|line| line.strip_prefix(name)).ok_or_else(|| at(number, wanted))
    }

    fn key(&mut self, name: &str, wanted: &'static str) -> Result<VerifierKey, EvidenceError> {
        let line = self.number;
        let text = self.field(name, wanted)?;
        VerifierKey::parse(text).map_err(|error| EvidenceError::Key { line, error })
    }

    /// The section with this title and count of lines; `number` is its title's line.
    fn section(&mut self, title: &str, number: usize) -> Result<Exhibit, EvidenceError> {
        let parsed = title.strip_suffix(" lines)").and_then(|title| title.rsplit_once(" ("));
        let (title, count) = parsed.ok_or_else(|| at(number, "a number of lines"))?;
        let title = Title::ALL.into_iter().find(|known| known.text() == title);
        let title = title.ok_or_else(|| at(number, "a known title"))?;
        let canonical = |parsed: &usize| parsed.to_string() == count;
        let count = count.parse().ok().filter(canonical);
        let count: usize = count.ok_or_else(|| at(number, "a number of lines"))?;
        let whole = self.rest;
        for _ in 0..count {
            let line = self.number;
            self.next().ok_or_else(|| at(line, "another line of the section"))?;
        }
        let content = whole.strip_suffix(self.rest).unwrap_or_default();
        title.read(content, number)
    }
}

impl Title {
    const ALL: [Self; 13] = [
        Self::CheckpointBefore,
        Self::CheckpointServed,
        Self::CheckpointOver,
        Self::CheckpointSmaller,
        Self::CheckpointLarger,
        Self::OtherHistory,
        Self::PathServed,
        Self::EntryProof,
        Self::EntriesServed,
        Self::EntriesHeld,
        Self::NoteServed,
        Self::ProofServed,
        Self::AnswerReceived,
    ];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::CheckpointBefore => "checkpoint seen before",
            Self::CheckpointServed => "checkpoint served",
            Self::CheckpointOver => "checkpoint over the entries",
            Self::CheckpointSmaller => "checkpoint of the smaller size",
            Self::CheckpointLarger => "checkpoint of the larger size",
            Self::OtherHistory => "other history",
            Self::PathServed => "consistency proof as served",
            Self::EntryProof => "proof of an entry",
            Self::EntriesServed => "entries as served",
            Self::EntriesHeld => "entries as held",
            Self::NoteServed => "note as served",
            Self::ProofServed => "proof as served",
            Self::AnswerReceived => "answer as received",
        }
    }

    /// Reads the lines of a section, each with its line feed.
    fn read(self, content: &str, line: usize) -> Result<Exhibit, EvidenceError> {
        match self {
            Self::CheckpointBefore
            | Self::CheckpointServed
            | Self::CheckpointOver
            | Self::CheckpointSmaller
            | Self::CheckpointLarger => Ok(Exhibit::Checkpoint(content.to_owned())),
            Self::OtherHistory => {
                let mut hashes = hashes(content).ok_or_else(|| at(line, "hashes"))?.into_iter();
                let under = hashes.next().ok_or_else(|| at(line, "a root"))?;
                Ok(Exhibit::OtherHistory { under, path: hashes.collect() })
            }
            Self::PathServed => {
                hashes(content).map(Exhibit::PathServed).ok_or_else(|| at(line, "hashes"))
            }
            Self::EntryProof => {
                let proof = TlogProof::parse(content.as_bytes())
                    .map_err(|error| EvidenceError::Proof { line, error })?;
                let is_canonical = proof.encode() == content;
                let exhibit = is_canonical.then_some(Exhibit::EntryProof(proof));
                exhibit.ok_or_else(|| at(line, "a proof in its own form"))
            }
            Self::EntriesServed | Self::EntriesHeld => {
                let bytes = one_line(content).ok_or_else(|| at(line, "base64"))?;
                let run = wire::EntryRun::decode(bytes.as_slice()).ok();
                let run = run.filter(|run| run.encode_to_vec() == bytes);
                run.map(Exhibit::Entries).ok_or_else(|| at(line, "a run of entries"))
            }
            Self::NoteServed | Self::ProofServed | Self::AnswerReceived => {
                one_line(content).map(Exhibit::Other).ok_or_else(|| at(line, "base64"))
            }
        }
    }
}

const fn at(line: usize, wanted: &'static str) -> EvidenceError {
    EvidenceError::Line { line, wanted }
}

/// Hashes in base64, one a line.
fn hashes(content: &str) -> Option<Vec<Digest>> {
    content.split_terminator('\n').map(digest_of).collect()
}

fn digest_of(text: &str) -> Option<Digest> {
    STANDARD.decode(text).ok().and_then(|bytes| Digest::from_slice(&bytes))
}

/// What the only line of a section is the base64 of.
fn one_line(content: &str) -> Option<Vec<u8>> {
    STANDARD.decode(content.strip_suffix('\n')?).ok()
}

/// The first line.
pub(super) const HEADER: &str = "access-ledger evidence v1";

/// What the last title begins with, before a space and the digest.
pub(super) const END: &str = "sha256";
