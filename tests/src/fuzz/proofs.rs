//! Targets: proofs, receipts, seals and evidence, which hold for what they were made for and
//! nothing else.

use std::sync::LazyLock;

use access_ledger_client::evidence::{Caught, Evidence, Misdeed, Verdict};
use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::Seal,
    hash::{Digest, sha256},
    note::KeyId,
    position::{Index, Size},
    proof::{NodeSource, consistency_path, inclusion_path, verify_consistency, verify_inclusion},
    receipt::{TlogProof, verify_receipt},
    tree::{Node, root_of},
    wire,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;

use super::samples::{NOW, ORIGIN, SAMPLE, batch, signer as key_of, witness};

pub(super) fn tlog_proofs() -> Vec<Vec<u8>> {
    vec![SAMPLE.proof.encode().into_bytes()]
}

pub(super) fn tlog_proof(bytes: &[u8]) -> bool {
    let Ok(found) = TlogProof::parse(bytes) else { return false };
    assert_eq!(found.encode().as_bytes(), bytes);
    let witnesses = [witness().verifier().clone()];
    let verified = found.verify(SAMPLE.ledger.verifier(), &witnesses).is_ok();
    if verified {
        let proof = &SAMPLE.proof;
        let place = (&found.entry, found.index, &found.path);
        assert_eq!(place, (&proof.entry, proof.index, &proof.path));
    }
    verified
}

pub(super) fn receipts() -> Vec<Vec<u8>> {
    vec![SAMPLE.receipt.encode_to_vec()]
}

pub(super) fn receipt(bytes: &[u8]) -> bool {
    let Ok(found) = wire::Receipt::decode(bytes) else { return false };
    let batch = batch(10, &SAMPLE.digests);
    let verified = verify_receipt(SAMPLE.ledger.verifier(), &[], &batch, &SAMPLE.seal, &found);
    let Ok(verified) = verified else { return false };
    assert_eq!(verified.last_entry(), SAMPLE.entries[11]);
    assert_eq!(verified.last_leaf(), SAMPLE.leaves[11]);
    // Other signatures than the ledger's may come and go.
    let checkpoint = SAMPLE.receipt.checkpoint.clone();
    assert_eq!(wire::Receipt { checkpoint, ..found }, SAMPLE.receipt);
    true
}

pub(super) fn seals() -> Vec<Vec<u8>> {
    let Seal { count, key_id, signature } = SAMPLE.seal;
    vec![[&10_u64.to_be_bytes()[..], &count.to_be_bytes(), &key_id.0, &signature].concat()]
}

/// A seal holds for its batch, its count and its first number only.
pub(super) fn seal(bytes: &[u8]) -> bool {
    let Ok(fixed) = <[u8; 78]>::try_from(bytes) else { return false };
    let first_seq = u64::from_be_bytes(*fixed.first_chunk().unwrap());
    let seal = Seal {
        count: u16::from_be_bytes([fixed[8], fixed[9]]),
        key_id: KeyId(fixed[10..14].try_into().unwrap()),
        signature: *fixed.last_chunk().unwrap(),
    };
    let batch = batch(first_seq, &SAMPLE.digests);
    let key = key_of("service", 2);
    let verified = batch.verify(ORIGIN, &seal, key.verifier().public_key());
    assert_eq!(verified.is_ok(), seals()[0] == bytes);
    assert!(batch.last_seq() >= first_seq);
    let mut link = Link::GENESIS;
    let extended = link.extend(&batch, NOW, seal, |_, _| {});
    assert_eq!(extended, batch.count().map(drop));
    verified.is_ok()
}

struct Leaves;

impl NodeSource for Leaves {
    type Error = Node;

    fn node(&self, node: Node) -> Result<Digest, Node> {
        let width = 1_usize.checked_shl(node.level.into()).ok_or(node)?;
        let first = usize::try_from(node.index).map_err(|_| node)? * width;
        SAMPLE.leaves.get(first..first + width).map(root_of).ok_or(node)
    }
}

const SIZE: Size = Size(12);

static ROOT: LazyLock<Digest> = LazyLock::new(|| root_of(&SAMPLE.leaves));

static INCLUSIONS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let path = |index| inclusion_path(&Leaves, Index(index), SIZE).unwrap();
    (0..SIZE.0).map(|index| encode(index, &path(index))).collect()
});

static CONSISTENCIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let path = |old| consistency_path(&Leaves, Size(old), SIZE).unwrap();
    (1..=SIZE.0).map(|old| encode(old, &path(old))).collect()
});

fn encode(place: u64, path: &[Digest]) -> Vec<u8> {
    let path = path.iter().flat_map(|hash| *hash.as_bytes());
    place.to_be_bytes().into_iter().chain(path).collect()
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<Digest>)> {
    let (place, path) = bytes.split_first_chunk()?;
    let path: Option<Vec<Digest>> = path.chunks(Digest::LEN).map(Digest::from_slice).collect();
    Some((u64::from_be_bytes(*place), path?))
}

pub(super) fn inclusions() -> Vec<Vec<u8>> {
    INCLUSIONS.clone()
}

pub(super) fn inclusion(bytes: &[u8]) -> bool {
    let Some((index, path)) = decode(bytes) else { return false };
    let leaf = usize::try_from(index).ok().and_then(|index| SAMPLE.leaves.get(index));
    let leaf = leaf.copied().unwrap_or(Digest::ZERO);
    let holds = verify_inclusion(Index(index), SIZE, leaf, &path, *ROOT).is_ok();
    assert_eq!(holds, INCLUSIONS.iter().any(|sample| sample == bytes));
    holds
}

pub(super) fn consistencies() -> Vec<Vec<u8>> {
    CONSISTENCIES.clone()
}

pub(super) fn consistency(bytes: &[u8]) -> bool {
    let Some((old, path)) = decode(bytes) else { return false };
    let before = usize::try_from(old).ok().and_then(|old| SAMPLE.leaves.get(..old));
    let old_root = before.map_or(Digest::ZERO, root_of);
    let holds = verify_consistency(Size(old), SIZE, old_root, *ROOT, &path).is_ok();
    assert_eq!(holds, CONSISTENCIES.iter().any(|sample| sample == bytes));
    holds
}

/// The sample's checkpoint, and another root of the same size by the same key.
static FORK: LazyLock<[VerifiedCheckpoint; 2]> = LazyLock::new(|| {
    let other = Checkpoint::new(ORIGIN, SIZE, Digest::ZERO).unwrap().sign(&SAMPLE.ledger).unwrap();
    let witnesses = [witness().verifier().clone()];
    [&SAMPLE.proof.checkpoint, &other].map(|note| {
        VerifiedCheckpoint::open(note.as_bytes(), SAMPLE.ledger.verifier(), &witnesses).unwrap()
    })
});

/// Files of evidence without their last section, which [`evidence`] adds.
pub(super) fn evidences() -> Vec<Vec<u8>> {
    let [honest, other] = FORK.clone().map(Box::new);
    let path = consistency_path(&Leaves, Size(5), SIZE).unwrap();
    let smaller = Checkpoint::new(ORIGIN, Size(5), root_of(&SAMPLE.leaves[..5])).unwrap();
    let smaller = smaller.sign(&SAMPLE.ledger).unwrap();
    let smaller = VerifiedCheckpoint::open(smaller.as_bytes(), SAMPLE.ledger.verifier(), &[]);
    let pinned = Box::new(smaller.unwrap());
    let caught = [
        Caught::Fork { pinned: honest.clone(), served: other },
        Caught::Inconsistent {
            pinned,
            served: honest.clone(),
            error: verify_inclusion(Index(0), SIZE, Digest::ZERO, &[], *ROOT).unwrap_err(),
            path,
        },
        Caught::Altered {
            index: SAMPLE.proof.index,
            signed: honest,
            proof: Box::new(SAMPLE.proof.clone()),
            held: wire::EntryRun::default().encode_to_vec(),
            served: wire::EntryRun { first_index: 11, ..Default::default() }.encode_to_vec(),
        },
    ];
    let files = caught.map(|caught| caught.evidence(SAMPLE.ledger.verifier()));
    files.map(|file| file.rsplit_once("\n--- sha256 ").unwrap().0.as_bytes().to_vec()).into()
}

/// Whoever writes a file computes its digest; what convicts is signed.
pub(super) fn evidence(bytes: &[u8]) -> bool {
    let digest = STANDARD.encode(sha256(bytes));
    let file = [bytes, format!("\n--- sha256 {digest} ---\n").as_bytes()].concat();
    let _is_whole = Evidence::parse(bytes);
    let Ok(found) = Evidence::parse(&file) else { return false };
    assert!(found.exhibits.len() <= Evidence::SECTIONS_MAX && !found.finding.contains('\n'));
    let Ok(Verdict::Proven(convictions)) = found.judge(&[witness().verifier().clone()]) else {
        return true;
    };
    for conviction in convictions {
        // The ledger has signed one pair of roots of one size; its witness has not signed both.
        assert_eq!(&conviction.key, SAMPLE.ledger.verifier());
        let is_it = matches!(&conviction.misdeed, Misdeed::TwoRoots { size, roots }
            if *size == SIZE && roots.contains(&*ROOT) && roots.contains(&Digest::ZERO));
        assert!(is_it, "{conviction:?}");
    }
    true
}
