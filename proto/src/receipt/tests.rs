//! One small ledger, its receipts, and what must not pass for one.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    checkpoint::Checkpoint,
    error::{CheckpointError, NoteError},
    hash::sha256,
    note::{KeyType, Signer},
    position::Size,
    source::Name,
    tree::Frontier,
};

const ORIGIN: &str = "ledger.example/1";
const RECORDED_AT: u64 = 1_790_000_000_000_000_000;

fn ledger() -> Signer {
    Signer::new(ORIGIN, KeyType::Ed25519, [1; 32]).unwrap()
}

fn witness() -> Signer {
    Signer::new("w", KeyType::CosignatureV1, [2; 32]).unwrap()
}

fn digests(count: u16) -> Vec<Digest> {
    (0..count).map(|number| sha256(&number.to_be_bytes())).collect()
}

fn batch(digests: &[Digest]) -> Batch<'_> {
    Batch { source: Name::parse(b"payments").unwrap(), first_seq: 5, digests }
}

fn seal(batch: &Batch<'_>) -> Seal {
    let key = Signer::new(batch.source.as_str(), KeyType::Ed25519, [3; 32]).unwrap();
    batch.seal(ORIGIN, &key).unwrap()
}

/// A ledger of `before` other entries, the batch, and `after` other entries; the batch's receipt.
fn record(before: u64, batch: &Batch<'_>, after: u64) -> wire::Receipt {
    let other = |number: u64| sha256(&number.to_be_bytes());
    let mut tree = Frontier::new();
    (0..before).for_each(|number| tree.append(other(number)));
    let prev = before.checked_sub(1).map_or(Digest::ZERO, other);
    let mut link = Link::before(Index(before), prev);
    link.extend(batch, RECORDED_AT, seal(batch), |_, leaf| tree.append(leaf)).unwrap();
    let last = link.size.last_index().unwrap();
    (0..after).for_each(|number| tree.append(other(number)));

    let checkpoint = Checkpoint::new(ORIGIN, tree.size(), tree.root()).unwrap();
    let path = tree.paths().path(last).unwrap();
    wire::Receipt {
        first_index: before,
        recorded_at: RECORDED_AT,
        prev: Bytes::copy_from_slice(prev.as_ref()),
        inclusion_path: path.iter().map(|hash| Bytes::copy_from_slice(hash.as_ref())).collect(),
        checkpoint: checkpoint.sign(&ledger()).unwrap().into(),
    }
}

fn verify(batch: &Batch<'_>, receipt: &wire::Receipt) -> Result<VerifiedReceipt, ReceiptError> {
    verify_receipt(ledger().verifier(), &[], batch, &seal(batch), receipt)
}

/// The receipt of three events at index 6 of 12, spoilt.
fn spoilt(spoil: impl FnOnce(&mut wire::Receipt)) -> ReceiptError {
    let digests = digests(3);
    let batch = batch(&digests);
    let mut receipt = record(6, &batch, 3);
    spoil(&mut receipt);
    verify(&batch, &receipt).unwrap_err()
}

fn is_other_root(error: &ReceiptError) -> bool {
    matches!(error, ReceiptError::Inclusion(ProofError::Root { .. }))
}

#[test]
fn a_receipt_proves_its_batch_and_makes_a_proof_file() {
    let digests = digests(3);
    let batch = batch(&digests);
    let mut receipt = record(6, &batch, 3);
    let key = witness();
    let opened = verify(&batch, &receipt).unwrap();
    let line = opened.checkpoint().cosign(&key, 9).unwrap();
    receipt.checkpoint = [&receipt.checkpoint, line.as_bytes()].concat().into();

    let witnesses = [key.verifier().clone()];
    let verified =
        verify_receipt(ledger().verifier(), &witnesses, &batch, &seal(&batch), &receipt).unwrap();
    assert_eq!((verified.first_index(), verified.last_index()), (Index(6), Index(8)));
    assert_eq!((verified.recorded_at(), verified.checkpoint().size()), (RECORDED_AT, Size(12)));
    assert_eq!(verified.checkpoint().cosignatures().len(), 1);
    assert_eq!(verified.last_leaf(), leaf_hash(verified.last_entry()));
    let entry = Entry::parse(verified.last_entry()).unwrap();
    assert_eq!((entry.index, entry.source_seq, entry.event_digest), (Index(8), 7, digests[2]));
    assert_eq!(entry.seal, Some(seal(&batch)));

    let proof = TlogProof::parse(verified.tlog_proof().encode().as_bytes()).unwrap();
    assert_eq!(proof, verified.tlog_proof());
    assert_eq!((proof.entry.as_slice(), &*proof.path), (verified.last_entry(), verified.path()));
    let checkpoint = proof.verify(ledger().verifier(), &witnesses).unwrap();
    assert_eq!(&checkpoint, verified.checkpoint());
}

#[test]
fn a_receipt_holds_for_no_other_batch() {
    let digests = digests(3);
    let original = batch(&digests);
    let receipt = record(6, &original, 3);
    let swapped = [digests[1], digests[0], digests[2]];
    let altered = [sha256(b"x"), digests[1], digests[2]];
    let others = [
        batch(&swapped),
        batch(&altered),
        Batch { first_seq: 6, ..original },
        Batch { source: Name::parse(b"other").unwrap(), ..original },
        batch(&digests[..2]),
        batch(&digests[1..]),
    ];
    for other in others {
        let refused = verify(&other, &receipt).unwrap_err();
        let shorter = matches!(refused, ReceiptError::Inclusion(ProofError::Length { .. }));
        assert!(is_other_root(&refused) || shorter, "{other:?}: {refused}");
    }
    let mut resealed = seal(&original);
    resealed.signature[0] ^= 1;
    let refused = verify_receipt(ledger().verifier(), &[], &original, &resealed, &receipt);
    assert!(is_other_root(&refused.unwrap_err()));
}

#[test]
fn a_batch_that_is_none_is_the_callers_fault() {
    let digests = digests(3);
    let original = batch(&digests);
    let receipt = record(6, &original, 3);
    let empty = verify_receipt(ledger().verifier(), &[], &batch(&[]), &seal(&original), &receipt);
    assert_eq!(empty, Err(SealError::Count { found: 0 }.into()));
    let other = seal(&batch(&digests[..2]));
    let refused = verify_receipt(ledger().verifier(), &[], &original, &other, &receipt);
    assert_eq!(refused, Err(SealError::Covers { found: 2, wanted: 3 }.into()));
}

#[test]
fn every_altered_field_of_a_receipt_is_caught() {
    assert!(is_other_root(&spoilt(|receipt| receipt.recorded_at += 1)));
    assert!(is_other_root(&spoilt(|receipt| receipt.prev = vec![9; 32].into())));
    assert!(is_other_root(&spoilt(|receipt| receipt.inclusion_path[1] = vec![9; 32].into())));
    assert!(is_other_root(&spoilt(|receipt| receipt.first_index += 1)));
    // Leaf 4 of 12 has a path of four hashes, leaf 8 one of three.
    assert_eq!(
        spoilt(|receipt| receipt.first_index = 2),
        ProofError::Length { found: 3, wanted: 4 }.into()
    );
    assert!(matches!(
        spoilt(|receipt| drop(receipt.inclusion_path.pop())),
        ReceiptError::Inclusion(ProofError::Length { .. })
    ));
    assert!(matches!(
        spoilt(|receipt| receipt.checkpoint = receipt.checkpoint.slice(1..)),
        ReceiptError::Checkpoint(CheckpointError::Note(NoteError::Signature { .. }))
    ));
    for len in [0, 31, 33] {
        assert_eq!(
            spoilt(|receipt| receipt.prev = vec![0; len].into()),
            ReceiptError::Hash { field: "prev", len }
        );
        assert_eq!(
            spoilt(|receipt| receipt.inclusion_path[0] = vec![0; len].into()),
            ReceiptError::Hash { field: "inclusion_path", len }
        );
    }
    assert_eq!(
        spoilt(|receipt| {
            receipt.first_index = 0;
            receipt.prev = vec![9; 32].into();
        }),
        ReceiptError::Genesis { found: Digest::from_bytes([9; 32]) }
    );
}

#[test]
fn a_batch_beyond_the_tree_is_refused_even_where_numbers_end() {
    for (first_index, last) in [(10, 12), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX)] {
        let refused = spoilt(|receipt| receipt.first_index = first_index);
        let (index, size) = (Index(last), Size(12));
        assert_eq!(refused, ProofError::BeyondTree { index, size }.into());
    }
}

fn proof() -> TlogProof {
    let digests = digests(3);
    let batch = batch(&digests);
    verify(&batch, &record(6, &batch, 3)).unwrap().tlog_proof()
}

#[test]
fn a_proof_file_is_written_as_c2sp_says() {
    let (proof, base64) = (proof(), STANDARD);
    let hashes: String = proof.path.iter().map(|hash| base64.encode(hash) + "\n").collect();
    assert_eq!(
        proof.encode(),
        format!(
            "c2sp.org/tlog-proof@v1\nextra {}\nindex 8\n{hashes}\n{}",
            base64.encode(&proof.entry),
            proof.checkpoint
        )
    );
    let alone = TlogProof { path: Vec::new(), ..proof };
    assert_eq!(TlogProof::parse(alone.encode().as_bytes()), Ok(alone));
}

#[test]
fn malformed_proof_files_are_refused() {
    let file = proof().encode();
    let refused = |file: &str, line| match TlogProof::parse(file.as_bytes()) {
        Err(TlogProofError::Line { line: found, .. }) => assert_eq!(found, line, "{file}"),
        other => panic!("{other:?} of {file}"),
    };
    let mut bytes = file.clone().into_bytes();
    bytes[3] = 0xff;
    assert_eq!(TlogProof::parse(&bytes), Err(TlogProofError::Utf8 { position: 3 }));
    for file in ["", "c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v1\n\n", HEADER] {
        let truncated = TlogProof::parse(file.as_bytes());
        assert_eq!(truncated, Err(TlogProofError::Truncated), "{file:?}");
    }
    refused(&file.replace("@v1", "@v2"), 1);
    refused(&format!("\n{file}"), 1);
    refused(&file.replace("extra ", ""), 2);
    refused(&file.replace("extra ", "extra  "), 2);
    refused(&file.replace("extra ", "index 8\nextra "), 2);
    for index in ["", "08", "-8", "8 ", "18446744073709551616"] {
        refused(&file.replace("index 8\n", &format!("index {index}\n")), 3);
    }
    refused(&file.replace("index 8\n", ""), 3);
    refused(&file.replace("index 8\n", "index 8\nAAAA\n"), 4);
    refused(&file.replace("index 8\n", "index 8\r\n"), 3);
    let (head, checkpoint) = file.split_once("\n\n").unwrap();
    refused(&format!("{}\n\n{checkpoint}", head.trim_end_matches('=')), 6);
}

#[test]
fn a_proof_of_something_else_is_refused() {
    let (good, key) = (proof(), ledger());
    let verify = |proof: &TlogProof| proof.verify(key.verifier(), &[]).unwrap_err();
    assert!(good.verify(key.verifier(), &[]).is_ok());

    let moved = TlogProof { index: Index(7), ..good.clone() };
    assert_eq!(verify(&moved), ReceiptError::Index { found: Index(8), wanted: Index(7) });
    let cut = TlogProof { entry: good.entry[..80].to_vec(), ..good.clone() };
    assert!(matches!(verify(&cut), ReceiptError::Entry(_)));
    let mut altered = good.clone();
    altered.entry[50] ^= 1;
    assert!(is_other_root(&verify(&altered)));
    let mut longer = good.clone();
    longer.path.push(Digest::ZERO);
    assert!(matches!(verify(&longer), ReceiptError::Inclusion(ProofError::Length { .. })));
    let unsigned = TlogProof { checkpoint: String::new(), ..good };
    assert_eq!(verify(&unsigned), CheckpointError::from(NoteError::Unsigned).into());
}

proptest! {
    #[test]
    fn a_receipt_verifies_wherever_its_batch_lies(
        before in 0..70_u64, count in 1..40_u16, after in 0..70_u64,
    ) {
        let digests = digests(count);
        let batch = batch(&digests);
        let verified = verify(&batch, &record(before, &batch, after)).unwrap();
        prop_assert_eq!(verified.last_index(), Index(before + u64::from(count) - 1));
        prop_assert!(verified.tlog_proof().verify(ledger().verifier(), &[]).is_ok());
    }

    #[test]
    fn proof_files_come_back_as_they_went(
        entry in prop::collection::vec(any::<u8>(), 0..200), index: u64,
        path in prop::collection::vec(any::<[u8; 32]>(), 0..70), checkpoint in "[ -~\n]{0,80}",
    ) {
        let path = path.into_iter().map(Digest::from_bytes).collect();
        let proof = TlogProof { entry, index: Index(index), path, checkpoint };
        prop_assert_eq!(TlogProof::parse(proof.encode().as_bytes()), Ok(proof));
    }

    #[test]
    fn any_bytes_are_read_as_a_receipt_or_proof_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in "(extra |index |0|7|\n|A{43}=|=|\u{e9}){0,12}",
        numbers: [u64; 2],
    ) {
        prop_assert!(TlogProof::parse(&bytes).is_err());
        let file = format!("{HEADER}\n{lines}");
        if let Ok(proof) = TlogProof::parse(file.as_bytes()) {
            prop_assert_eq!(proof.encode(), file);
            prop_assert!(proof.verify(ledger().verifier(), &[]).is_err());
        }
        let digests = digests(3);
        let batch = batch(&digests);
        let good = record(6, &batch, 3);
        let [first_index, recorded_at] = numbers;
        let receipt = wire::Receipt {
            first_index,
            recorded_at,
            prev: bytes.get(..32).unwrap_or(&bytes).to_vec().into(),
            inclusion_path: bytes.chunks(32).map(Bytes::copy_from_slice).collect(),
            ..good
        };
        prop_assert!(verify(&batch, &receipt).is_err());
    }
}

#[test]
fn a_remembered_checkpoint_lets_nothing_else_pass() {
    let digests = digests(3);
    let batch = batch(&digests);
    let seal = seal(&batch);
    let receipt = record(4, &batch, 2);
    let mut verifier = ReceiptVerifier::new(ledger().verifier().clone(), Vec::new());
    let wanted = verify_receipt(ledger().verifier(), &[], &batch, &seal, &receipt);
    assert!(wanted.is_ok());
    for _ in 0..2 {
        assert_eq!(verifier.verify(&batch, &seal, &receipt), wanted);
    }
    for at in 0..receipt.checkpoint.len() {
        let mut note = receipt.checkpoint.to_vec();
        note[at] ^= 1;
        let forged = wire::Receipt { checkpoint: note.into(), ..receipt.clone() };
        assert!(verifier.verify(&batch, &seal, &forged).is_err(), "byte {at}");
    }
    let elsewhere = wire::Receipt { first_index: 5, ..receipt };
    assert!(verifier.verify(&batch, &seal, &elsewhere).is_err());
    let later = record(4, &batch, 3);
    assert!(verifier.verify(&batch, &seal, &later).is_ok());
}
