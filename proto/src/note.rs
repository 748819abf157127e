//! Signed notes and keys (C2SP signed-note; FORMATS.md, section 4).
//!
//! A note is a text, an empty line, and one or more lines `— <name> <base64(key id || signature)>`.
//! Whoever reads a note names the keys that it knows; signatures of others are ignored, and a known
//! key whose signature fails spoils the whole note.

mod keys;

use base64::{Engine as _, engine::general_purpose::STANDARD};

pub use self::keys::{
    KeyId, KeyType, Signer, VerifierKey, is_key_name, key_id, parse_public_key, verifies,
};
use crate::{error::NoteError, hash::Digest};

/// A well-formed note whose signatures nobody has verified: its text proves nothing yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    note: &'a str,
    text: &'a str,
    signatures: Vec<NoteSignature<'a>>,
}

/// One signature line of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature<'a> {
    /// Name of the key.
    pub name: &'a str,
    /// Id of the key.
    pub key_id: KeyId,
    /// What follows the key id, at least one byte; the key's type says what it holds.
    pub payload: Vec<u8>,
}

/// A signature that was verified with a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedSignature<'k> {
    /// The key.
    pub key: &'k VerifierKey,
    /// Of a cosignature: seconds since the Unix epoch.
    pub timestamp_s: Option<u64>,
}

impl<'a> Note<'a> {
    /// Most signatures of a note. C2SP asks for 16 at least; more than any ledger has cosigners is
    /// only work for the reader.
    pub const SIGNATURES_MAX: usize = 64;

    /// Most bytes of a note, so that nobody can be made to keep one that it cannot read again.
    pub const LEN_MAX: usize = 32 << 10;

    /// Reads a note. Allocates for the decoded signatures, which are shorter than the input, and
    /// for one record each.
    ///
    /// # Errors
    ///
    /// [`NoteError::TooLong`]; [`NoteError::Utf8`], [`NoteError::Control`] for characters that no
    /// note holds; [`NoteError::Unsigned`] without an empty line and a signature after it;
    /// [`NoteError::TooManySignatures`]; [`NoteError::SignatureLine`] for a malformed one.
    pub fn parse(note: &'a [u8]) -> Result<Self, NoteError> {
        if note.len() > Self::LEN_MAX {
            return Err(NoteError::TooLong { found: note.len() });
        }
        let note = str::from_utf8(note)
            .map_err(|error| NoteError::Utf8 { position: error.valid_up_to() })?;
        check_characters(note)?;
        let separator = note.rfind("\n\n").ok_or(NoteError::Unsigned)?;
        // Both positions lie behind a line feed, so behind a character.
        let (text, rest) = note.split_at(separator + 1);
        let lines = rest.strip_prefix('\n').ok_or(NoteError::Unsigned)?;
        if lines.is_empty() {
            return Err(NoteError::Unsigned);
        }
        let count = lines.split_inclusive('\n').count();
        if count > Self::SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures { found: count });
        }
        let signatures = lines
            .split_inclusive('\n')
            .zip(1..)
            .map(|(text, line)| NoteSignature::parse(text).ok_or(NoteError::SignatureLine { line }))
            .collect::<Result<_, _>>()?;
        Ok(Self { note, text, signatures })
    }

    /// The whole note, byte for byte.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.note
    }

    /// The text, with its last line feed and without the empty line that follows.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The signatures in the order of their lines: 1 to [`Note::SIGNATURES_MAX`].
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature<'a>] {
        &self.signatures
    }

    /// Verifies every signature whose name and key id are those of a known key, each by the key's
    /// type.
    ///
    /// At least one comes back, in the order of the lines; a key that signed twice comes twice.
    ///
    /// # Errors
    ///
    /// [`NoteError::Signature`] when a known key's signature fails; [`NoteError::NoKnownKey`] when
    /// no known key signed.
    pub fn verify<'k>(
        &self,
        known: &[&'k VerifierKey],
    ) -> Result<Vec<VerifiedSignature<'k>>, NoteError> {
        let mut verified = Vec::new();
        for signature in &self.signatures {
            for key in known.iter().filter(|key| signature.names(key)) {
                verified.push(signature.verify(key, self.text).ok_or_else(|| {
                    NoteError::Signature {
                        name: signature.name.to_owned(),
                        key_id: signature.key_id,
                    }
                })?);
            }
        }
        if verified.is_empty() { Err(NoteError::NoKnownKey) } else { Ok(verified) }
    }
}

impl<'a> NoteSignature<'a> {
    /// Verifies the signature with whichever of the known keys it names; `None` when it names none.
    /// Unlike [`Note::verify`] this judges one line alone: for lines that are yet to be put under a
    /// note, where a bad one is left out.
    ///
    /// # Errors
    ///
    /// [`NoteError::Signature`] when the key's signature over `text` fails.
    pub fn judge<'k>(
        &self,
        text: &str,
        known: &'k [VerifierKey],
    ) -> Option<Result<VerifiedSignature<'k>, NoteError>> {
        let key = known.iter().find(|key| self.names(key))?;
        let fails = || NoteError::Signature { name: self.name.to_owned(), key_id: self.key_id };
        Some(self.verify(key, text).ok_or_else(fails))
    }

    /// The line, with its line feed.
    #[must_use]
    pub fn line(&self) -> String {
        let mut signature = self.key_id.0.to_vec();
        signature.extend_from_slice(&self.payload);
        format!("{LINE_PREFIX}{} {}\n", self.name, STANDARD.encode(signature))
    }

    /// Reads one line with its line feed.
    fn parse(line: &'a str) -> Option<Self> {
        let (name, signature) =
            line.strip_suffix('\n')?.strip_prefix(LINE_PREFIX)?.split_once(' ')?;
        if !is_key_name(name) {
            return None;
        }
        let mut payload = STANDARD.decode(signature).ok()?;
        let key_id = KeyId(*payload.first_chunk()?);
        payload.drain(..key_id.0.len());
        (!payload.is_empty()).then_some(Self { name, key_id, payload })
    }

    fn names(&self, key: &VerifierKey) -> bool {
        self.key_id == key.id() && self.name == key.name()
    }

    fn verify<'k>(&self, key: &'k VerifierKey, text: &str) -> Option<VerifiedSignature<'k>> {
        match key.key_type() {
            KeyType::Ed25519 => {
                let signature = self.payload.as_slice().try_into().ok()?;
                let verified = key.verifies(text.as_bytes(), signature);
                verified.then_some(VerifiedSignature { key, timestamp_s: None })
            }
            KeyType::CosignatureV1 => {
                let (timestamp, signature) = self.payload.split_first_chunk()?;
                let timestamp_s = u64::from_be_bytes(*timestamp);
                let message = cosigned_message(timestamp_s, text)?;
                let verified = key.verifies(message.as_bytes(), signature.try_into().ok()?);
                verified.then_some(VerifiedSignature { key, timestamp_s: Some(timestamp_s) })
            }
        }
    }
}

/// Signs `text` as a note of one signature.
///
/// # Errors
///
/// [`NoteError::Control`] for a control character other than a line feed;
/// [`NoteError::Unterminated`] for a text that does not end with one; [`NoteError::KeyType`] for a
/// key that cosigns only.
pub fn sign_note(text: &str, signer: &Signer) -> Result<String, NoteError> {
    sign_note_by(text, &[signer])
}

/// The same with a signature by each of these, in their order.
pub(crate) fn sign_note_by(text: &str, signers: &[&Signer]) -> Result<String, NoteError> {
    check_text(text)?;
    let mut note = format!("{text}\n");
    for signer in signers {
        expect_key_type(signer.verifier(), KeyType::Ed25519)?;
        note.push_str(&signature_line(signer, &signer.sign(text.as_bytes())));
    }
    Ok(note)
}

/// Cosigns the text of a note at a time in seconds since the Unix epoch: the signature line. Errors
/// are those of [`crate::checkpoint::VerifiedCheckpoint::cosign`], the only use.
pub(crate) fn cosign_text(
    text: &str,
    signer: &Signer,
    timestamp_s: u64,
) -> Result<String, NoteError> {
    expect_key_type(signer.verifier(), KeyType::CosignatureV1)?;
    let message =
        cosigned_message(timestamp_s, text).ok_or(NoteError::Timestamp { found: timestamp_s })?;
    let mut payload = timestamp_s.to_be_bytes().to_vec();
    payload.extend_from_slice(&signer.sign(message.as_bytes()));
    Ok(signature_line(signer, &payload))
}

/// That a key is of the type that its use asks for.
pub(crate) fn expect_key_type(key: &VerifierKey, wanted: KeyType) -> Result<(), NoteError> {
    let found = key.key_type();
    if found == wanted {
        Ok(())
    } else {
        Err(NoteError::KeyType { name: key.name().to_owned(), found, wanted })
    }
}

/// That a note can hold `text`.
pub(crate) fn check_text(text: &str) -> Result<(), NoteError> {
    check_characters(text)?;
    if text.ends_with('\n') { Ok(()) } else { Err(NoteError::Unterminated) }
}

/// Reads a decimal number in the one way of writing it: digits, no sign, no leading zero.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = canonical && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads a digest in base64.
pub(crate) fn parse_digest(text: &str) -> Option<Digest> {
    // Before decoding, so that a long line costs nothing.
    (text.len() == DIGEST_TEXT_LEN)
        .then(|| STANDARD.decode(text).ok())
        .flatten()
        .and_then(|bytes| Digest::from_slice(&bytes))
}

/// Writes a digest in base64.
pub(crate) fn digest_text(digest: &Digest) -> String {
    STANDARD.encode(digest)
}

/// The bytes that a cosignature signs; `None` for a time beyond what C2SP allows.
fn cosigned_message(timestamp_s: u64, text: &str) -> Option<String> {
    let allowed = i64::try_from(timestamp_s).is_ok();
    allowed.then(|| format!("cosignature/v1\ntime {timestamp_s}\n{text}"))
}

fn signature_line(signer: &Signer, payload: &[u8]) -> String {
    let mut signature = signer.verifier().id().0.to_vec();
    signature.extend_from_slice(payload);
    format!("{LINE_PREFIX}{} {}\n", signer.name(), STANDARD.encode(signature))
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    let control = |byte: u8| byte < b' ' && byte != b'\n';
    match text.bytes().position(control) {
        None => Ok(()),
        Some(position) => Err(NoteError::Control { position }),
    }
}

/// U+2014 and a space.
const LINE_PREFIX: &str = "\u{2014} ";

/// Base64 of 32 bytes, with padding.
const DIGEST_TEXT_LEN: usize = 44;

#[cfg(test)]
mod tests;
