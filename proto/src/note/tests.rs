//! Notes as they are signed, read and refused.

use proptest::prelude::*;

use super::*;

fn signer(name: &str, seed: u8) -> Signer {
    Signer::new(name, KeyType::Ed25519, [seed; 32]).unwrap()
}

fn cosigner(name: &str, seed: u8) -> Signer {
    Signer::new(name, KeyType::CosignatureV1, [seed; 32]).unwrap()
}

fn parse(note: &str) -> Result<Note<'_>, NoteError> {
    Note::parse(note.as_bytes())
}

#[test]
fn a_note_of_another_implementation_verifies() {
    // From the tests of Go's golang.org/x/mod/sumdb/note.
    let note = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\n\
                \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let key =
        VerifierKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
            .unwrap();
    let verified = parse(note).unwrap().verify(&[&key]).unwrap();
    assert_eq!(verified, [VerifiedSignature { key: &key, timestamp_s: None }]);
}

#[test]
fn text_and_signatures_part_at_the_last_empty_line() {
    let signer = signer("a", 1);
    for text in ["one\n", "one\n\ntwo\n", "one\n\n", "\n", "one\n\n\u{2014} a AAAAAAA=\n"] {
        let note = sign_note(text, &signer).unwrap();
        let parsed = parse(&note).unwrap();
        assert_eq!((parsed.text(), parsed.signatures().len()), (text, 1));
        assert!(parsed.verify(&[signer.verifier()]).is_ok());
    }
}

#[test]
fn malformed_notes_are_refused() {
    let line = "\u{2014} a AAAAAAA=\n";
    assert!(parse(&format!("t\n\n{line}")).is_ok());
    assert_eq!(Note::parse(b"ab\xff"), Err(NoteError::Utf8 { position: 2 }));
    for control in ["\r", "\t", "\0", "\u{1f}"] {
        let note = format!("t{control}\n\n{line}");
        assert_eq!(parse(&note), Err(NoteError::Control { position: 1 }));
    }
    for note in ["", "t\n", "t\n\n", "\n\n", "t\n\u{2014} a AAAAAAA=\n", line] {
        assert_eq!(parse(note), Err(NoteError::Unsigned), "{note:?}");
    }
    for bad in [
        "\u{2014} a AAAAAAA=",          // no line feed
        "- a AAAAAAA=\n",               // a hyphen
        "\u{2014}a AAAAAAA=\n",         // no space
        "\u{2014} a\n",                 // no signature
        "\u{2014}  AAAAAAA=\n",         // no name
        "\u{2014} a+b AAAAAAA=\n",      // a name with a plus
        "\u{2014} a\u{a0}b AAAAAAA=\n", // a name with a space
        "\u{2014} a  AAAAAAA=\n",       // two spaces
        "\u{2014} a AAAAAAA= \n",       // a space at the end
        "\u{2014} a AAAAAAA\n",         // no padding
        "\u{2014} a AAAAAAB=\n",        // bits beyond the last byte
        "\u{2014} a AAAAAA-=\n",        // the other alphabet
        "\u{2014} a AAAAAA==\n",        // a key id and nothing else
        "\u{2014} a AAA=\n",            // not even a key id
    ] {
        let note = format!("t\n\n{line}{bad}");
        assert_eq!(parse(&note), Err(NoteError::SignatureLine { line: 2 }), "{bad:?}");
    }
}

#[test]
fn notes_are_bounded() {
    let end = "\n\n\u{2014} a AAAAAAA=\n";
    let most = "t".repeat(Note::LEN_MAX - end.len()) + end;
    assert!(parse(&most).is_ok());
    let found = Note::LEN_MAX + 1;
    assert_eq!(parse(&format!("t{most}")), Err(NoteError::TooLong { found }));
}

#[test]
fn signatures_are_bounded_well_above_16() {
    let line = "\u{2014} a AAAAAAA=\n";
    let most = format!("t\n\n{}", line.repeat(Note::SIGNATURES_MAX));
    assert_eq!(parse(&most).unwrap().signatures().len(), Note::SIGNATURES_MAX);
    let over = format!("{most}{line}");
    let found = Note::SIGNATURES_MAX + 1;
    assert_eq!(parse(&over), Err(NoteError::TooManySignatures { found }));
}

#[test]
fn unknown_signatures_are_ignored_and_a_known_one_must_verify() {
    let (known, other) = (signer("a", 1), signer("b", 2));
    // The same name with another key, and the same key under another name.
    let (namesake, alias) = (signer("a", 3), signer("c", 1));
    let mut note = sign_note("t\n", &known).unwrap();
    for signer in [&other, &namesake, &alias] {
        note.push_str(&signature_line(signer, &[0; 64]));
    }
    let parsed = parse(&note).unwrap();
    assert_eq!(parsed.verify(&[known.verifier()]).unwrap().len(), 1);
    assert_eq!(parsed.verify(&[]), Err(NoteError::NoKnownKey));
    for signer in [&other, &namesake, &alias] {
        let keys = [known.verifier(), signer.verifier()];
        let name = signer.name().to_owned();
        let key_id = signer.verifier().id();
        assert_eq!(parsed.verify(&keys), Err(NoteError::Signature { name, key_id }));
    }
}

#[test]
fn a_signature_of_the_wrong_length_fails() {
    for (signer, good) in [(signer("a", 1), 64), (cosigner("w", 2), 72)] {
        for len in [1, 8, good - 1, good, good + 1] {
            let note = format!("t\n\n{}", signature_line(&signer, &vec![0; len]));
            let verified = parse(&note).unwrap().verify(&[signer.verifier()]).map(drop);
            assert!(matches!(verified, Err(NoteError::Signature { .. })), "{len}");
        }
    }
}

#[test]
fn a_cosignature_holds_at_its_own_time_only() {
    let witness = cosigner("w", 2);
    let line = cosign_text("t\n", &witness, 1_790_000_000).unwrap();
    let note = format!("t\n\n{line}");
    let verified = parse(&note).unwrap();
    let verified = verified.verify(&[witness.verifier()]).unwrap();
    assert_eq!(verified[0].timestamp_s, Some(1_790_000_000));

    let mut payload = parse(&note).unwrap().signatures()[0].payload.clone();
    payload[7] ^= 1;
    let later = format!("t\n\n{}", signature_line(&witness, &payload));
    assert!(parse(&later).unwrap().verify(&[witness.verifier()]).is_err());
}

#[test]
fn times_beyond_the_signed_range_are_neither_made_nor_accepted() {
    let witness = cosigner("w", 2);
    let over = 1_u64 << 63;
    assert!(cosign_text("t\n", &witness, over - 1).is_ok());
    let refused = cosign_text("t\n", &witness, over);
    assert_eq!(refused, Err(NoteError::Timestamp { found: over }));
    let mut payload = over.to_be_bytes().to_vec();
    let message = format!("cosignature/v1\ntime {over}\nt\n");
    payload.extend_from_slice(&witness.sign(message.as_bytes()));
    let note = format!("t\n\n{}", signature_line(&witness, &payload));
    assert!(parse(&note).unwrap().verify(&[witness.verifier()]).is_err());
}

#[test]
fn only_a_key_of_the_right_type_signs_and_only_a_text_is_signed() {
    let (signer, witness) = (signer("a", 1), cosigner("w", 2));
    assert_eq!(sign_note("t", &signer), Err(NoteError::Unterminated));
    assert_eq!(sign_note("", &signer), Err(NoteError::Unterminated));
    assert_eq!(sign_note("a\tb\n", &signer), Err(NoteError::Control { position: 1 }));
    let (ed25519, cosignature) = (KeyType::Ed25519, KeyType::CosignatureV1);
    assert_eq!(
        sign_note("t\n", &witness),
        Err(NoteError::KeyType { name: "w".into(), found: cosignature, wanted: ed25519 })
    );
    assert_eq!(
        cosign_text("t\n", &signer, 1),
        Err(NoteError::KeyType { name: "a".into(), found: ed25519, wanted: cosignature })
    );
}

#[test]
fn numbers_and_digests_have_one_form() {
    assert_eq!(parse_decimal("0"), Some(0));
    assert_eq!(parse_decimal("18446744073709551615"), Some(u64::MAX));
    for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "18446744073709551616"] {
        assert_eq!(parse_decimal(text), None, "{text:?}");
    }
    let text = digest_text(&Digest::ZERO);
    assert_eq!(parse_digest(&text), Some(Digest::ZERO));
    assert_eq!(parse_digest(&text.replace("A=", "B=")), None);
    assert_eq!(parse_digest(text.trim_end_matches('=')), None);
    assert_eq!(parse_digest(&STANDARD.encode([0; 31])), None);
    assert_eq!(parse_digest(&STANDARD.encode([0; 33])), None);
}

proptest! {
    #[test]
    fn notes_come_back_as_they_went(text in "([ -~\u{e9}\n]{0,60}\n)", seed: [u8; 32]) {
        let signer = Signer::new("log.example/1", KeyType::Ed25519, seed).unwrap();
        let note = sign_note(&text, &signer).unwrap();
        let parsed = parse(&note).unwrap();
        prop_assert_eq!(parsed.text(), &text);
        prop_assert_eq!(parsed.verify(&[signer.verifier()]).unwrap().len(), 1);
    }

    #[test]
    fn any_change_of_a_byte_spoils_a_note(position: prop::sample::Index, bit in 0..8_u8) {
        let signer = signer("log.example/1", 1);
        let mut note = sign_note("line one\nline two\n", &signer).unwrap().into_bytes();
        let position = position.index(note.len());
        note[position] ^= 1 << bit;
        let verified = Note::parse(&note).and_then(|note| {
            note.verify(&[signer.verifier()]).map(|verified| verified.len())
        });
        prop_assert!(verified.is_err());
    }

    #[test]
    fn any_bytes_are_read_as_a_note_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "(\u{2014}| |\n|a|A|=|\\+){0,60}",
    ) {
        let signer = signer("a", 1);
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            if let Ok(note) = Note::parse(bytes) {
                prop_assert!(note.verify(&[signer.verifier()]).is_err());
            }
        }
    }
}
