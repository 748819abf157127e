//! Checkpoints and cosignatures (C2SP tlog-checkpoint and tlog-cosignature; FORMATS.md, section 5).
//!
//! A checkpoint is a signed note over origin, size and root. [`Checkpoint`] is the text alone;
//! [`VerifiedCheckpoint`] proves that the ledger signed it, and says which witnesses did.

use crate::{
    error::{CheckpointError, NoteError},
    hash::Digest,
    note::{self, KeyType, Note, Signer, VerifierKey},
    position::Size,
};

/// What a checkpoint says. Nobody has vouched for it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: Size,
    root: Digest,
    /// Whole lines, none of them empty; all that followed the root.
    extensions: String,
}

/// A checkpoint that the ledger's key signed; only [`VerifiedCheckpoint::open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
    cosignatures: Vec<Cosignature>,
}

/// A witness's verified signature on a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The witness's key.
    pub key: VerifierKey,
    /// When it signed: seconds since the Unix epoch, by its own clock.
    pub timestamp_s: u64,
}

/// What a witness answered to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CosignedLines {
    /// Cosignatures of known witnesses, each with its line, in the order of the answer.
    pub good: Vec<(Cosignature, String)>,
    /// Why others of known witnesses do not count.
    pub bad: Vec<NoteError>,
}

impl Checkpoint {
    /// A checkpoint without extension lines.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Origin`] for an origin that is empty or holds a control character.
    pub fn new(origin: &str, size: Size, root: Digest) -> Result<Self, CheckpointError> {
        if origin.is_empty() || origin.bytes().any(|byte| byte < b' ') {
            return Err(CheckpointError::Origin);
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions: String::new() })
    }

    /// Reads the text of a note as a checkpoint. Extension lines are kept as they are.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] for a text that no note holds; [`CheckpointError::Lines`] with
    /// fewer than three lines; [`CheckpointError::Origin`], [`CheckpointError::Size`],
    /// [`CheckpointError::Root`] for the line that is malformed; [`CheckpointError::Extension`] for
    /// an empty extension line.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        note::check_text(text)?;
        let mut lines = text.splitn(4, '\n');
        let (Some(origin), Some(size), Some(root), Some(extensions)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        let size = note::parse_decimal(size).ok_or(CheckpointError::Size)?;
        let root = note::parse_digest(root).ok_or(CheckpointError::Root)?;
        if extensions.split_terminator('\n').any(str::is_empty) {
            return Err(CheckpointError::Extension);
        }
        let checkpoint = Self::new(origin, Size(size), root)?;
        Ok(Self { extensions: extensions.to_owned(), ..checkpoint })
    }

    /// The ledger's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many entries the tree holds.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The tree's root.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// Lines of others, without their line feeds, in order.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.extensions.split_terminator('\n')
    }

    /// The text that is signed: what [`Checkpoint::parse`] reads, byte for byte.
    #[must_use]
    pub fn text(&self) -> String {
        let root = note::digest_text(&self.root);
        format!("{}\n{}\n{root}\n{}", self.origin, self.size, self.extensions)
    }

    /// Signs the checkpoint with the ledger's key: a note of one signature.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::OtherOrigin`] unless the key's name is the origin;
    /// [`CheckpointError::Note`] with [`crate::error::NoteError::KeyType`] for a witness's key.
    pub fn sign(&self, ledger: &Signer) -> Result<String, CheckpointError> {
        self.sign_by(&[ledger])
    }

    /// Signs the checkpoint with several keys of the ledger: whoever knows one of them may open it.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::sign`].
    pub fn sign_by(&self, ledger: &[&Signer]) -> Result<String, CheckpointError> {
        ledger.iter().try_for_each(|key| self.check_origin(key.verifier()))?;
        Ok(note::sign_note_by(&self.text(), ledger)?)
    }

    /// Reads signature lines that are to be put under a note of this checkpoint. Each of a known
    /// witness is verified by itself, on this very checkpoint; those of others are left out.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] when the lines are none of a note.
    pub fn cosigned(
        &self,
        lines: &[u8],
        witnesses: &[VerifierKey],
    ) -> Result<CosignedLines, CheckpointError> {
        let text = self.text();
        let note = [text.as_bytes(), b"\n", lines].concat();
        let note = Note::parse(&note)?;
        if note.text() != text {
            return Err(NoteError::SignatureLine { line: 1 }.into());
        }
        let mut found = CosignedLines::default();
        for signature in note.signatures() {
            match signature.judge(&text, witnesses) {
                Some(Ok(verified)) => {
                    let Some(timestamp_s) = verified.timestamp_s else { continue };
                    let key = verified.key.clone();
                    found.good.push((Cosignature { key, timestamp_s }, signature.line()));
                }
                Some(Err(error)) => found.bad.push(error),
                None => {}
            }
        }
        Ok(found)
    }

    fn check_origin(&self, ledger: &VerifierKey) -> Result<(), CheckpointError> {
        if self.origin == ledger.name() {
            return Ok(());
        }
        let (found, wanted) = (self.origin.clone(), ledger.name().to_owned());
        Err(CheckpointError::OtherOrigin { found, wanted })
    }
}

impl VerifiedCheckpoint {
    /// Opens a checkpoint of the ledger with the key `ledger`, whose name is the origin, and
    /// verifies the cosignatures of `witnesses` on it. Which and how many are wanted is for the
    /// caller to decide.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] for a malformed note, for any known key whose signature fails, and
    /// for keys of the wrong type ([`KeyType::Ed25519`] for the ledger, [`KeyType::CosignatureV1`]
    /// for witnesses); [`CheckpointError::NotByLedger`] without the ledger's signature;
    /// [`CheckpointError::OtherOrigin`] for another ledger's checkpoint; else as
    /// [`Checkpoint::parse`].
    pub fn open(
        note: &[u8],
        ledger: &VerifierKey,
        witnesses: &[VerifierKey],
    ) -> Result<Self, CheckpointError> {
        note::expect_key_type(ledger, KeyType::Ed25519)?;
        for witness in witnesses {
            note::expect_key_type(witness, KeyType::CosignatureV1)?;
        }
        let parsed = Note::parse(note)?;
        let known: Vec<_> = std::iter::once(ledger).chain(witnesses).collect();
        let signatures = parsed.verify(&known)?;
        if !signatures.iter().any(|signature| signature.key == ledger) {
            return Err(CheckpointError::NotByLedger { origin: ledger.name().to_owned() });
        }
        let checkpoint = Checkpoint::parse(parsed.text())?;
        checkpoint.check_origin(ledger)?;

        let mut cosignatures: Vec<Cosignature> = Vec::new();
        for signature in signatures {
            let (key, Some(timestamp_s)) = (signature.key, signature.timestamp_s) else {
                continue;
            };
            // A witness counts once, at the newest of the times at which it signed.
            match cosignatures.iter_mut().find(|known| known.key == *key) {
                Some(known) => known.timestamp_s = known.timestamp_s.max(timestamp_s),
                None => cosignatures.push(Cosignature { key: key.clone(), timestamp_s }),
            }
        }
        Ok(Self { checkpoint, note: parsed.as_str().to_owned(), cosignatures })
    }

    /// Opens a checkpoint that the key `ledger` has signed, or one of `others`, without
    /// cosignatures.
    ///
    /// # Errors
    ///
    /// As [`VerifiedCheckpoint::open`] for `ledger`.
    pub fn open_by_any(
        note: &[u8],
        ledger: &VerifierKey,
        others: &[VerifierKey],
    ) -> Result<Self, CheckpointError> {
        let opened = Self::open(note, ledger, &[]);
        opened.or_else(|error| {
            others.iter().find_map(|key| Self::open(note, key, &[]).ok()).ok_or(error)
        })
    }

    /// Cosigns this checkpoint at `timestamp_s`, in seconds since the Unix epoch: one signature
    /// line, to be appended to the note. What the signature states beyond the ledger's own, the
    /// signer answers for.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] with [`crate::error::NoteError::KeyType`] for a key that is no
    /// witness's, or [`crate::error::NoteError::Timestamp`] for a time of 2^63 or more.
    pub fn cosign(&self, witness: &Signer, timestamp_s: u64) -> Result<String, CheckpointError> {
        Ok(note::cosign_text(&self.checkpoint.text(), witness, timestamp_s)?)
    }

    /// The ledger's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.checkpoint.origin()
    }

    /// How many entries the tree holds.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.checkpoint.size()
    }

    /// The tree's root.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.checkpoint.root()
    }

    /// All that the checkpoint says.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note verbatim, with all its signatures: what to keep as evidence.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Whether the note bears the signature of another key of the ledger, too.
    #[must_use]
    pub fn is_signed_by(&self, ledger: &VerifierKey) -> bool {
        self.check_signed_by(ledger).is_ok()
    }

    /// Checks that the note bears the signature of another key of the ledger, too.
    ///
    /// # Errors
    ///
    /// As [`VerifiedCheckpoint::open`].
    pub fn check_signed_by(&self, ledger: &VerifierKey) -> Result<(), CheckpointError> {
        Self::open(self.note.as_bytes(), ledger, &[]).map(drop)
    }

    /// Checks that the newest of the keys that the log has told, the newest last, has signed this
    /// too: who has a former key alone convicts nobody by it. `known` is the key that this was
    /// opened with; one that the log has not told may be newer, and is judged when it does.
    ///
    /// # Errors
    ///
    /// As [`VerifiedCheckpoint::open`].
    pub fn check_newest_key(
        &self,
        known: &VerifierKey,
        told: &[VerifierKey],
    ) -> Result<(), CheckpointError> {
        match told.last() {
            Some(newest) if newest != known && told.contains(known) => self.check_signed_by(newest),
            _ => Ok(()),
        }
    }

    /// The cosignatures of known witnesses, each witness once.
    #[must_use]
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }
}

#[cfg(test)]
mod tests;
