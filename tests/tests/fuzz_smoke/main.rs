//! Every decoder of the protocol against 10,000 mutations of valid bytes: nothing panics, what is
//! accepted comes back byte for byte, and what verifies says what was signed.
//!
//! `FUZZ_SEED=<number>` replays a run; a failure prints the seed and the input. The bodies are
//! ordinary functions over bytes, so that a fuzzer can run them for longer.

// Marked, so that the lints take their panics as a test's.
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod samples;

use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::{Entry, Seal},
    event::{self, Body},
    facts::sources::Sources,
    hash::{Digest, leaf_hash},
    note::{KeyId, Note, Signer, VerifierKey, parse_public_key},
    position::{Index, Size},
    proof::{NodeSource, consistency_path, inclusion_path, verify_consistency, verify_inclusion},
    receipt::{TlogProof, verify_receipt},
    source::Name,
    tree::{Node, root_of},
    wire::{self, event::Body as EventBody},
};
use prost::Message as _;

use self::{
    mutate::fuzz,
    samples::{SAMPLE, batch, event_of, events, genesis, registration, signer, sources, witness},
};

/// Nanoseconds since the Unix epoch.
const NOW: u64 = 1_790_000_000_000_000_000;

const ORIGIN: &str = "ledger.example/fuzz";

#[test]
fn entries_come_back_or_are_refused() {
    let first = Entry::parse(&SAMPLE.entries[0]).unwrap();
    fuzz("entry", &SAMPLE.entries, |bytes| {
        let Ok(entry) = Entry::parse(bytes) else { return false };
        assert_eq!(entry.encode(), bytes);
        assert!((Entry::LEN_MIN..=Entry::LEN_MAX).contains(&bytes.len()));
        let mut link = Link::GENESIS;
        if link.check(&entry, leaf_hash(bytes)).is_ok() {
            assert_eq!((entry.index, entry.prev), (first.index, first.prev));
        }
        true
    });
}

#[test]
fn events_have_one_reading_or_are_refused() {
    fuzz("event", &events(), |bytes| {
        let Ok(found) = event::validate(bytes, NOW) else { return false };
        assert_eq!(event::body(bytes), Some(found));
        let decoded = wire::Event::decode(bytes).unwrap();
        // What this version knows of it keeps the rules alone, and is the same event.
        let known = decoded.encode_to_vec();
        let again = event::validate(&known, NOW).unwrap();
        assert_eq!(again.number, found.number);
        assert_eq!(wire::Event::decode(&known[..]).unwrap(), decoded);
        true
    });
}

#[test]
fn geneses_have_one_reading_or_are_refused() {
    let EventBody::ControlChange(change) = genesis() else { unreachable!() };
    fuzz("genesis content", &[change.content.to_vec()], |bytes| {
        if event::validate_genesis(bytes).is_err() {
            return false;
        }
        let known = wire::Genesis::decode(bytes).unwrap().encode_to_vec();
        event::validate_genesis(&known).is_ok()
    });
    fuzz("genesis event", &[event_of(genesis()).encode_to_vec()], |bytes| {
        let Ok(sources) = Sources::from_genesis(bytes) else { return false };
        let genesis = sources.genesis();
        assert_eq!(sources.iter().count(), genesis.governance.len() + 1);
        assert_eq!(VerifierKey::parse(&genesis.ledger_vkey).unwrap().name(), genesis.origin);
        true
    });
}

#[test]
fn only_what_was_signed_registers_a_source() {
    let mut sources = sources();
    let known = sources.iter().count();
    let asked = registration();
    let ledger = sources.get(Name::parse(b"ledger").unwrap()).unwrap().clone();
    let wanted = sources
        .judge(&ledger, Index(2), status_body(&asked.encode_to_vec()), true)
        .map(|change| {
            let mut sources = sources.clone();
            sources.apply(change);
            sources.get(Name::parse(b"parent/child").unwrap()).cloned().unwrap()
        })
        .unwrap();
    let before = sources.clone();
    sources.restore([wanted]);
    fuzz("registration", &[asked.encode_to_vec()], |bytes| {
        let judge = || before.judge(&ledger, Index(2), status_body(bytes), true);
        let Ok(change) = judge() else {
            assert_eq!(judge().map(drop).unwrap_err(), judge().map(drop).unwrap_err());
            return false;
        };
        let mut after = before.clone();
        after.apply(change);
        // Nothing, the ledger's own life signs, or exactly what both signed.
        if after.iter().count() > known {
            assert!(after.iter().eq(sources.iter()));
        } else {
            assert!(after.iter().eq(before.iter()));
        }
        true
    });
}

fn status_body(bytes: &[u8]) -> Body<'_> {
    Body { number: Body::SOURCE_STATUS, bytes }
}

#[test]
fn notes_and_checkpoints_verify_only_as_signed() {
    let ledger = SAMPLE.ledger.verifier();
    let witnesses = [witness().verifier().clone()];
    let note = &SAMPLE.proof.checkpoint;
    let opened = VerifiedCheckpoint::open(note.as_bytes(), ledger, &witnesses).unwrap();
    fuzz("note", &[note.clone().into_bytes()], |bytes| {
        let Ok(parsed) = Note::parse(bytes) else { return false };
        assert_eq!(parsed.as_str().as_bytes(), bytes);
        assert!((1..=Note::SIGNATURES_MAX).contains(&parsed.signatures().len()));
        if parsed.verify(&[ledger]).is_ok() {
            assert_eq!(parsed.text(), opened.checkpoint().text());
        }
        let Ok(found) = VerifiedCheckpoint::open(bytes, ledger, &witnesses) else { return false };
        assert_eq!(found.checkpoint(), opened.checkpoint());
        assert!(found.cosignatures().len() <= 1);
        true
    });
    let text = opened.checkpoint().text();
    let extended = format!("{text}extension line\n");
    fuzz("checkpoint", &[text.into_bytes(), extended.into_bytes()], |bytes| {
        comes_back(bytes, |text| Checkpoint::parse(text).ok().map(|checkpoint| checkpoint.text()))
    });
}

/// Whether `parse` takes the bytes as text, which it then must print again.
fn comes_back(bytes: &[u8], parse: impl Fn(&str) -> Option<String>) -> bool {
    let text = str::from_utf8(bytes).ok();
    let printed = text.and_then(parse);
    assert!(printed.is_none() || printed.as_deref() == text);
    printed.is_some()
}

#[test]
fn keys_come_back_or_are_refused() {
    let keys = [SAMPLE.ledger.clone(), witness()];
    let public = keys.each_ref().map(|key| key.verifier().to_string().into_bytes());
    fuzz("vkey", &public, |bytes| {
        comes_back(bytes, |text| VerifierKey::parse(text).ok().map(|key| key.to_string()))
    });
    let secret = keys.each_ref().map(|key| key.secret_text().as_bytes().to_vec());
    fuzz("signer", &secret, |bytes| {
        comes_back(bytes, |text| Signer::parse(text).ok().map(|key| key.secret_text().to_string()))
    });
    let raw = keys.each_ref().map(|key| key.verifier().public_key().as_bytes().to_vec());
    fuzz("public key", &raw, |bytes| {
        let Ok(key) = parse_public_key(bytes) else { return false };
        assert_eq!(key.as_bytes(), bytes);
        true
    });
}

#[test]
fn proof_files_verify_only_as_made() {
    let proof = &SAMPLE.proof;
    let witnesses = [witness().verifier().clone()];
    fuzz("tlog-proof", &[proof.encode().into_bytes()], |bytes| {
        let Ok(found) = TlogProof::parse(bytes) else { return false };
        assert_eq!(found.encode().as_bytes(), bytes);
        let verified = found.verify(SAMPLE.ledger.verifier(), &witnesses).is_ok();
        if verified {
            let place = (&found.entry, found.index, &found.path);
            assert_eq!(place, (&proof.entry, proof.index, &proof.path));
        }
        verified
    });
}

#[test]
fn receipts_verify_only_as_given() {
    let receipt = &SAMPLE.receipt;
    let batch = batch(10, &SAMPLE.digests);
    let verify = |receipt: &wire::Receipt| {
        verify_receipt(SAMPLE.ledger.verifier(), &[], &batch, &SAMPLE.seal, receipt)
    };
    assert_eq!(verify(receipt).unwrap().last_entry(), SAMPLE.entries[11]);
    fuzz("receipt", &[receipt.encode_to_vec()], |bytes| {
        let Ok(found) = wire::Receipt::decode(bytes) else { return false };
        let Ok(verified) = verify(&found) else { return false };
        assert_eq!(verified.last_leaf(), SAMPLE.leaves[11]);
        let checkpoint = receipt.checkpoint.clone();
        assert_eq!(&wire::Receipt { checkpoint, ..found }, receipt);
        true
    });
}

#[test]
fn seals_hold_for_their_batch_and_count_only() {
    let Seal { count, key_id, signature } = SAMPLE.seal;
    let sample = [&10_u64.to_be_bytes()[..], &count.to_be_bytes(), &key_id.0, &signature].concat();
    let public_key = *signer("service", 2).verifier().public_key();
    fuzz("seal", std::slice::from_ref(&sample), |bytes| {
        let Ok(fixed) = <[u8; 78]>::try_from(bytes) else { return false };
        let first_seq = u64::from_be_bytes(*fixed.first_chunk().unwrap());
        let seal = Seal {
            count: u16::from_be_bytes([fixed[8], fixed[9]]),
            key_id: KeyId(fixed[10..14].try_into().unwrap()),
            signature: *fixed.last_chunk().unwrap(),
        };
        let batch = batch(first_seq, &SAMPLE.digests);
        let verified = batch.verify(ORIGIN, &seal, &public_key);
        assert_eq!(verified.is_ok(), bytes == sample);
        assert!(batch.last_seq() >= first_seq);
        let mut link = Link::GENESIS;
        let extended = link.extend(&batch, NOW, seal, |_, _| {});
        assert_eq!(extended, batch.count().map(drop));
        verified.is_ok()
    });
}

#[test]
fn tree_proofs_hold_for_their_place_only() {
    struct Leaves<'a>(&'a [Digest]);
    impl NodeSource for Leaves<'_> {
        type Error = Node;

        fn node(&self, node: Node) -> Result<Digest, Node> {
            let width = 1_usize.checked_shl(node.level.into()).ok_or(node)?;
            let first = usize::try_from(node.index).map_err(|_| node)? * width;
            self.0.get(first..first + width).map(root_of).ok_or(node)
        }
    }
    let leaves = &SAMPLE.leaves;
    let (source, size) = (Leaves(leaves), Size(12));
    let root = root_of(leaves);
    let encode = |place: u64, path: &[Digest]| {
        let path = path.iter().flat_map(|hash| *hash.as_bytes());
        place.to_be_bytes().into_iter().chain(path).collect::<Vec<u8>>()
    };
    let decode = |bytes: &[u8]| {
        let (place, path) = bytes.split_first_chunk()?;
        let path: Option<Vec<Digest>> = path.chunks(Digest::LEN).map(Digest::from_slice).collect();
        Some((u64::from_be_bytes(*place), path?))
    };
    let inclusion: Vec<_> = (0..12)
        .map(|index| encode(index, &inclusion_path(&source, Index(index), size).unwrap()))
        .collect();
    fuzz("inclusion proof", &inclusion, |bytes| {
        let Some((index, path)) = decode(bytes) else { return false };
        let leaf = usize::try_from(index).ok().and_then(|index| leaves.get(index));
        let leaf = leaf.copied().unwrap_or(Digest::ZERO);
        let holds = verify_inclusion(Index(index), size, leaf, &path, root).is_ok();
        assert_eq!(holds, inclusion.iter().any(|sample| sample == bytes));
        holds
    });
    let consistency: Vec<_> = (1..=12)
        .map(|old| encode(old, &consistency_path(&source, Size(old), size).unwrap()))
        .collect();
    fuzz("consistency proof", &consistency, |bytes| {
        let Some((old, path)) = decode(bytes) else { return false };
        let before = usize::try_from(old).ok().and_then(|old| leaves.get(..old));
        let old_root = before.map_or(Digest::ZERO, root_of);
        let holds = verify_consistency(Size(old), size, old_root, root, &path).is_ok();
        assert_eq!(holds, consistency.iter().any(|sample| sample == bytes));
        holds
    });
}
