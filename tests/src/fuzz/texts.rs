//! Targets: signed notes, checkpoints and keys, all of which are text.

use std::sync::LazyLock;

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    note::{Note, Signer, VerifierKey, parse_public_key},
};

use super::samples::{SAMPLE, witness};

/// The sample's checkpoint.
static OPENED: LazyLock<VerifiedCheckpoint> = LazyLock::new(|| {
    let note = SAMPLE.proof.checkpoint.as_bytes();
    VerifiedCheckpoint::open(note, SAMPLE.ledger.verifier(), &witnesses()).unwrap()
});

fn witnesses() -> [VerifierKey; 1] {
    [witness().verifier().clone()]
}

fn keys() -> [Signer; 2] {
    [SAMPLE.ledger.clone(), witness()]
}

/// Whether `parse` takes the bytes as text, which it then must print again.
fn comes_back(bytes: &[u8], parse: impl Fn(&str) -> Option<String>) -> bool {
    let text = str::from_utf8(bytes).ok();
    let printed = text.and_then(parse);
    assert!(printed.is_none() || printed.as_deref() == text);
    printed.is_some()
}

pub(super) fn notes() -> Vec<Vec<u8>> {
    vec![SAMPLE.proof.checkpoint.clone().into_bytes()]
}

/// Notes and the checkpoints in them verify only as signed.
pub(super) fn note(bytes: &[u8]) -> bool {
    let Ok(parsed) = Note::parse(bytes) else { return false };
    assert_eq!(parsed.as_str().as_bytes(), bytes);
    assert!((1..=Note::SIGNATURES_MAX).contains(&parsed.signatures().len()));
    let ledger = SAMPLE.ledger.verifier();
    if parsed.verify(&[ledger]).is_ok() {
        assert_eq!(parsed.text(), OPENED.checkpoint().text());
    }
    let Ok(found) = VerifiedCheckpoint::open(bytes, ledger, &witnesses()) else { return false };
    assert_eq!(found.checkpoint(), OPENED.checkpoint());
    assert!(found.cosignatures().len() <= 1);
    true
}

pub(super) fn checkpoints() -> Vec<Vec<u8>> {
    let text = OPENED.checkpoint().text();
    vec![format!("{text}extension line\n").into_bytes(), text.into_bytes()]
}

pub(super) fn checkpoint(bytes: &[u8]) -> bool {
    comes_back(bytes, |text| Checkpoint::parse(text).ok().map(|checkpoint| checkpoint.text()))
}

pub(super) fn vkeys() -> Vec<Vec<u8>> {
    keys().map(|key| key.verifier().to_string().into_bytes()).into()
}

pub(super) fn vkey(bytes: &[u8]) -> bool {
    comes_back(bytes, |text| VerifierKey::parse(text).ok().map(|key| key.to_string()))
}

pub(super) fn signers() -> Vec<Vec<u8>> {
    keys().map(|key| key.secret_text().as_bytes().to_vec()).into()
}

pub(super) fn signer(bytes: &[u8]) -> bool {
    comes_back(bytes, |text| Signer::parse(text).ok().map(|key| key.secret_text().to_string()))
}

pub(super) fn public_keys() -> Vec<Vec<u8>> {
    keys().map(|key| key.verifier().public_key().as_bytes().to_vec()).into()
}

pub(super) fn public_key(bytes: &[u8]) -> bool {
    let Ok(key) = parse_public_key(bytes) else { return false };
    assert_eq!(key.as_bytes(), bytes);
    true
}
