//! Checkpoints of several keys, malformed ones, and cosignatures.

use proptest::prelude::*;

use super::*;
use crate::hash::sha256;

const ORIGIN: &str = "ledger.example/1";

fn ledger() -> Signer {
    Signer::new(ORIGIN, KeyType::Ed25519, [1; 32]).unwrap()
}

fn witness(name: &str, seed: u8) -> Signer {
    Signer::new(name, KeyType::CosignatureV1, [seed; 32]).unwrap()
}

fn open(note: &str, witnesses: &[&Signer]) -> Result<VerifiedCheckpoint, CheckpointError> {
    let witnesses: Vec<_> = witnesses.iter().map(|key| key.verifier().clone()).collect();
    VerifiedCheckpoint::open(note.as_bytes(), ledger().verifier(), &witnesses)
}

fn signed(size: u64) -> String {
    let checkpoint = Checkpoint::new(ORIGIN, Size(size), sha256(b"root")).unwrap();
    checkpoint.sign(&ledger()).unwrap()
}

#[test]
fn malformed_texts_are_refused() {
    let root = note::digest_text(&Digest::ZERO);
    let refused = |text: &str, wanted: CheckpointError| {
        assert_eq!(Checkpoint::parse(text), Err(wanted), "{text:?}");
    };
    assert!(Checkpoint::parse(&format!("o\n7\n{root}\n")).is_ok());
    refused("", NoteError::Unterminated.into());
    refused(&format!("o\n7\n{root}"), NoteError::Unterminated.into());
    refused(&format!("o\n7\n{root}\r\n"), NoteError::Control { position: 48 }.into());
    refused("o\n", CheckpointError::Lines);
    refused("o\n7\n", CheckpointError::Lines);
    refused(&format!("\n7\n{root}\n"), CheckpointError::Origin);
    for size in ["", "07", "-7", "+7", " 7", "18446744073709551616"] {
        refused(&format!("o\n{size}\n{root}\n"), CheckpointError::Size);
    }
    for root in ["", "AAAA", root.trim_end_matches('='), &root.replace("A=", "B=")] {
        refused(&format!("o\n7\n{root}\n"), CheckpointError::Root);
    }
    for extensions in ["\n", "\nx\n", "x\n\n", "x\n\ny\n"] {
        refused(&format!("o\n7\n{root}\n{extensions}"), CheckpointError::Extension);
    }
    for origin in ["", "a\nb", "a\tb"] {
        let refused = Checkpoint::new(origin, Size(1), Digest::ZERO);
        assert_eq!(refused, Err(CheckpointError::Origin));
    }
}

#[test]
fn extension_lines_are_kept_and_cosigned() {
    let text = format!("{ORIGIN}\n7\n{}\nfirst\nsecond one\n", note::digest_text(&Digest::ZERO));
    let checkpoint = Checkpoint::parse(&text).unwrap();
    assert_eq!(checkpoint.extensions().collect::<Vec<_>>(), ["first", "second one"]);
    assert_eq!(checkpoint.text(), text);

    let witness = witness("w", 2);
    let mut note = checkpoint.sign(&ledger()).unwrap();
    note.push_str(&open(&note, &[]).unwrap().cosign(&witness, 5).unwrap());
    let opened = open(&note, &[&witness]).unwrap();
    assert_eq!(opened.checkpoint(), &checkpoint);
    assert_eq!(opened.cosignatures().len(), 1);
    let without = note.replace("second one\n", "");
    assert!(matches!(open(&without, &[&witness]), Err(CheckpointError::Note(_))));
}

#[test]
fn an_opened_checkpoint_is_what_the_ledger_signed() {
    let note = signed(7);
    let opened = open(&note, &[]).unwrap();
    assert_eq!((opened.origin(), opened.size()), (ORIGIN, Size(7)));
    assert_eq!((opened.root(), opened.note()), (sha256(b"root"), note.as_str()));
    assert!(opened.cosignatures().is_empty());
    let forged = note.replace("\n7\n", "\n8\n");
    assert!(matches!(
        open(&forged, &[]),
        Err(CheckpointError::Note(NoteError::Signature { name, .. })) if name == ORIGIN
    ));
}

#[test]
fn a_witness_cannot_stand_in_for_the_ledger() {
    let witness = witness("w", 2);
    let note = signed(7);
    let line = open(&note, &[]).unwrap().cosign(&witness, 5).unwrap();
    let (text, _) = note.split_once("\n\n").unwrap();
    let only_cosigned = format!("{text}\n\n{line}");
    let refused = open(&only_cosigned, &[&witness]).unwrap_err();
    assert_eq!(refused, CheckpointError::NotByLedger { origin: ORIGIN.into() });
    let refused = open(&only_cosigned, &[]).unwrap_err();
    assert_eq!(refused, NoteError::NoKnownKey.into());
}

#[test]
fn a_ledger_speaks_for_its_own_origin_only() {
    let other = Checkpoint::new("other", Size(7), Digest::ZERO).unwrap();
    let wanted = CheckpointError::OtherOrigin { found: "other".into(), wanted: ORIGIN.into() };
    assert_eq!(other.sign(&ledger()), Err(wanted.clone()));
    let forced = note::sign_note(&other.text(), &ledger()).unwrap();
    assert_eq!(open(&forced, &[]), Err(wanted));
    let no_checkpoint = note::sign_note("hello\n", &ledger()).unwrap();
    assert_eq!(open(&no_checkpoint, &[]), Err(CheckpointError::Lines));
}

#[test]
fn keys_of_the_wrong_type_are_refused() {
    let wrong = |result: Result<VerifiedCheckpoint, _>| {
        assert!(matches!(result, Err(CheckpointError::Note(NoteError::KeyType { .. }))));
    };
    let (note, ledger) = (signed(7), ledger());
    let as_witness = witness(ORIGIN, 1);
    wrong(VerifiedCheckpoint::open(note.as_bytes(), as_witness.verifier(), &[]));
    wrong(open(&note, &[&ledger]));
    let opened = open(&note, &[]).unwrap();
    let refused = opened.cosign(&ledger, 5);
    assert!(matches!(refused, Err(CheckpointError::Note(NoteError::KeyType { .. }))));
    let late = opened.cosign(&as_witness, u64::MAX);
    assert_eq!(late, Err(NoteError::Timestamp { found: u64::MAX }.into()));
}

#[test]
fn a_witness_counts_once_at_its_newest_time() {
    let (one, two) = (witness("w/1", 2), witness("w/2", 3));
    let mut note = signed(7);
    let opened = open(&note, &[]).unwrap();
    for (witness, time) in [(&one, 5), (&two, 6), (&one, 9), (&one, 8)] {
        note.push_str(&opened.cosign(witness, time).unwrap());
    }
    let opened = open(&note, &[&one, &two]).unwrap();
    let times: Vec<_> = opened
        .cosignatures()
        .iter()
        .map(|cosignature| (cosignature.key.name(), cosignature.timestamp_s))
        .collect();
    assert_eq!(times, [("w/1", 9), ("w/2", 6)]);
    assert_eq!(open(&note, &[&two]).unwrap().cosignatures().len(), 1);
}

#[test]
fn the_newest_key_that_was_told_must_have_signed_too() {
    let key = |seed| Signer::new(ORIGIN, KeyType::Ed25519, [seed; 32]).unwrap();
    let [first, second, third] = [1, 2, 3].map(key);
    let checkpoint = Checkpoint::new(ORIGIN, Size(3), sha256(b"root")).unwrap();
    let signed = |by: &[&Signer]| {
        let note = checkpoint.sign_by(by).unwrap();
        VerifiedCheckpoint::open(note.as_bytes(), by[0].verifier(), &[]).unwrap()
    };
    let told = |keys: &[&Signer]| keys.iter().map(|key| key.verifier().clone()).collect();
    let judge = |by: &[&Signer], keys: &[&Signer]| {
        let told: Vec<_> = told(keys);
        signed(by).check_newest_key(by[0].verifier(), &told).is_ok()
    };
    assert!(judge(&[&first], &[]) && judge(&[&first], &[&first]));
    assert!(judge(&[&second], &[&first, &second]));
    assert!(judge(&[&first, &second], &[&first, &second]));
    assert!(!judge(&[&first], &[&first, &second]));
    assert!(!judge(&[&second, &first], &[&first, &second, &third]));
    // It may be newer than all that was told.
    assert!(judge(&[&third], &[&first, &second]));
}

proptest! {
    #[test]
    fn checkpoints_come_back_as_they_went(
        origin in "[ -~\u{e9}]{1,40}", size: u64, root: [u8; 32],
        extensions in prop::collection::vec("[ -~]{1,20}", 0..4),
    ) {
        let root = Digest::from_bytes(root);
        let checkpoint = Checkpoint::new(&origin, Size(size), root).unwrap();
        let mut text = checkpoint.text();
        prop_assert_eq!(Checkpoint::parse(&text), Ok(checkpoint));
        extensions.iter().for_each(|line| text.extend([line, "\n"]));
        let extended = Checkpoint::parse(&text).unwrap();
        prop_assert_eq!(extended.extensions().collect::<Vec<_>>(), extensions);
        prop_assert_eq!(extended.text(), text);
    }

    #[test]
    fn any_bytes_are_read_as_a_checkpoint_without_a_panic(
        text in "(a|\n|7|0|A{43}=|=|\u{e9}){0,12}",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.text(), text);
        }
        prop_assert!(VerifiedCheckpoint::open(&bytes, ledger().verifier(), &[]).is_err());
    }
}
