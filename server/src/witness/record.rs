//! What a witness remembers of one log: the newest checkpoint that it cosigned.

use std::{io, path::Path, sync::Arc};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::ProofError,
    hash::Digest,
    note::{Note, VerifierKey},
    position::Size,
    proof::verify_consistency,
    tree::empty_root,
    witness::AddCheckpoint,
};

use super::{AddRefusal, Contradiction, Held, WitnessError};
use crate::{
    error::StorageError,
    os::{self, Disk},
};

/// The state of a log, under its lock.
pub(super) struct Record {
    cosigned: Option<Cosigned>,
    pub(super) is_halted: bool,
}

/// A checkpoint with the signatures that were made of it.
pub(super) struct Cosigned {
    size: Size,
    root: Digest,
    /// Text, the log's signature lines, ours.
    pub(super) note: Arc<str>,
    /// How much of `note` is not ours.
    signed_len: usize,
    timestamp_s: u64,
}

impl Record {
    /// What the file says; nothing if there is none. Any of the keys of the log may have signed it:
    /// it may be from before the newest one. `own` are the witness's key and the mirror's.
    pub(super) fn read(
        disk: &dyn Disk,
        path: &Path,
        key: &VerifierKey,
        told: &[VerifierKey],
        own: &[VerifierKey; 2],
    ) -> Result<Self, WitnessError> {
        let note = match os::read(disk, path, NOTE_BYTES_MAX) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { cosigned: None, is_halted: false });
            }
            Err(source) => return Err(WitnessError::io(path, source)),
        };
        let damaged = |problem: String| WitnessError::Damaged { path: path.to_owned(), problem };
        let open = |key| VerifiedCheckpoint::open(&note, key, own);
        let opened = told.iter().fold(open(key), |opened, key| opened.or_else(|_| open(key)));
        let checkpoint = opened.map_err(|error| damaged(error.to_string()))?;
        let [witness, _] = own;
        let times = checkpoint.cosignatures().iter().map(|cosignature| cosignature.timestamp_s);
        let timestamp_s = times.max().unwrap_or_default();
        if !checkpoint.cosignatures().iter().any(|cosignature| cosignature.key == *witness) {
            return Err(damaged(format!("not cosigned by {witness}")));
        }
        let lines = lines_by(checkpoint.note(), &own.each_ref());
        let keys: Vec<_> = told.iter().chain([key]).collect();
        let cosigned = Cosigned::new(&checkpoint, &keys, lines, timestamp_s);
        Ok(Self { cosigned: Some(cosigned), is_halted: false })
    }

    /// The newest note.
    pub(super) fn newest(&self) -> Option<Arc<str>> {
        self.cosigned.as_ref().map(|cosigned| cosigned.note.clone())
    }

    /// The newest note, if it is of a larger size.
    pub(super) fn newest_above(&self, size: Size) -> Option<Arc<str>> {
        self.newest().filter(|_| self.size() > size)
    }

    /// The newest size; 0 before the first.
    pub(super) fn size(&self) -> Size {
        self.cosigned.as_ref().map_or(Size::ZERO, |cosigned| cosigned.size)
    }

    /// That the log is not halted.
    pub(super) fn check_running(&self) -> Result<(), WitnessError> {
        if self.is_halted { Err(WitnessError::Halted) } else { Ok(()) }
    }

    /// That the sender knows where this witness stands.
    pub(super) fn admit(
        &self,
        old: Size,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<(), AddRefusal> {
        self.check_running()?;
        let size = checkpoint.size();
        if old > size {
            return Err(AddRefusal::OldBeyond { old, size });
        }
        match self.size() {
            size if size == old => Ok(()),
            size => Err(AddRefusal::Conflict { size }),
        }
    }

    /// That a checkpoint which [`Record::admit`] let in continues the newest one.
    pub(super) fn verify(
        &self,
        proof: &[Digest],
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<(), AddRefusal> {
        let (size, root) = (checkpoint.size(), checkpoint.root());
        let old_root = self.cosigned.as_ref().map_or_else(empty_root, |newest| newest.root);
        if self.size() == size && old_root != root {
            return Err(AddRefusal::Contradicts(Box::new(Contradiction {
                offered: checkpoint.note().to_owned(),
                size,
                found: Some(root),
                wanted: old_root,
                cosigned: self.newest(),
            })));
        }
        if self.size() == Size::ZERO {
            return match proof.len() {
                0 => Ok(()),
                found => Err(AddRefusal::ProofFromNothing { found }),
            };
        }
        let verified: Result<(), ProofError> =
            verify_consistency(self.size(), size, old_root, root, proof);
        Ok(verified?)
    }

    /// Whether what is held begins with what was cosigned.
    pub(super) fn continues_in(
        &self,
        held: &Held,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Result<(), Contradiction>, StorageError> {
        let Some(newest) = &self.cosigned else { return Ok(Ok(())) };
        if held.root_at(newest.size)? == newest.root {
            return Ok(Ok(()));
        }
        Ok(Err(Contradiction {
            offered: checkpoint.note().to_owned(),
            size: newest.size,
            found: (newest.size == checkpoint.size()).then(|| checkpoint.root()),
            wanted: newest.root,
            cosigned: self.newest(),
        }))
    }

    /// The time of the next signature, when the clock says `now_s`: never before the last one.
    pub(super) fn time_after(&self, now_s: u64) -> u64 {
        self.cosigned.as_ref().map_or(now_s, |newest| newest.timestamp_s.max(now_s))
    }

    /// The signature lines that there are of this very checkpoint at this very time: signing again
    /// would give the same.
    pub(super) fn lines_of(
        &self,
        checkpoint: &VerifiedCheckpoint,
        timestamp_s: u64,
        count: usize,
    ) -> Option<Vec<u8>> {
        let newest = self.cosigned.as_ref().filter(|newest| newest.timestamp_s == timestamp_s)?;
        let text = checkpoint.checkpoint().text();
        let is_same = newest.note.strip_prefix(&text)?.starts_with("\n\u{2014}");
        let lines = newest.lines();
        (is_same && lines.lines().count() == count).then(|| lines.as_bytes().to_vec())
    }

    /// Makes a note that is durable the newest; gives our lines.
    pub(super) fn set(&mut self, cosigned: Cosigned) -> Vec<u8> {
        assert!(cosigned.size >= self.size(), "sizes that are cosigned never fall");
        self.cosigned.insert(cosigned).lines().as_bytes().to_vec()
    }
}

impl Cosigned {
    /// The checkpoint with the signatures of the log's keys and these lines. What others signed is
    /// left out.
    pub(super) fn new(
        checkpoint: &VerifiedCheckpoint,
        log: &[&VerifierKey],
        lines: String,
        timestamp_s: u64,
    ) -> Self {
        let mut note = checkpoint.checkpoint().text();
        note.push('\n');
        note.push_str(&lines_by(checkpoint.note(), log));
        let signed_len = note.len();
        note.push_str(&lines);
        let (size, root) = (checkpoint.size(), checkpoint.root());
        Self { size, root, note: note.into(), signed_len, timestamp_s }
    }

    /// The lines that are ours.
    fn lines(&self) -> &str {
        self.note.get(self.signed_len..).unwrap_or_default()
    }
}

/// The signature lines of a note that are by these keys, each once.
fn lines_by(note: &str, keys: &[&VerifierKey]) -> String {
    let Ok(parsed) = Note::parse(note.as_bytes()) else { return String::new() };
    let lines = note.get(parsed.text().len() + 1..).unwrap_or_default().split_inclusive('\n');
    let mut kept: Vec<&str> = Vec::new();
    for (line, signature) in lines.zip(parsed.signatures()) {
        let names =
            |key: &&VerifierKey| (signature.name, signature.key_id) == (key.name(), key.id());
        if keys.iter().any(names) && !kept.contains(&line) {
            kept.push(line);
        }
    }
    kept.concat()
}

/// A checkpoint as it was sent, with our lines.
const NOTE_BYTES_MAX: usize = AddCheckpoint::LEN_MAX + 1_024;
