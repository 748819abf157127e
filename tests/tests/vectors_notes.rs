//! Known answers of notes, entries, seals and receipts.
//!
//! `cosigned-checkpoint.json` is a checkpoint of a public log with the cosignatures of eight
//! witnesses that we did not write; `ledger.json` is a whole ledger made by a second implementation
//! of the formats.

use std::iter;

use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::{Entry, Seal},
    hash::{Digest, leaf_hash, sha256},
    note::{KeyType, Note, Signer, VerifierKey},
    position::{Index, Size},
    proof::{verify_consistency, verify_inclusion},
    receipt::{TlogProof, verify_receipt},
    seal::Batch,
    source::SourceName,
    tree::Frontier,
    wire,
};
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

const COSIGNED: &str = include_str!("../vectors/cosigned-checkpoint.json");
const LEDGER: &str = include_str!("../vectors/ledger.json");

fn text<'a>(vector: &'a Value, field: &str) -> Result<&'a str> {
    vector[field].as_str().with_context(|| format!("{field} is not a text"))
}

fn number(vector: &Value, field: &str) -> Result<u64> {
    vector[field].as_u64().with_context(|| format!("{field} is not a u64"))
}

fn list<'a>(vector: &'a Value, field: &str) -> Result<&'a [Value]> {
    vector[field].as_array().map(Vec::as_slice).with_context(|| format!("{field} is not a list"))
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "odd hex");
    (0..text.len() / 2).map(|at| Ok(u8::from_str_radix(&text[2 * at..][..2], 16)?)).collect()
}

fn array<const N: usize>(vector: &Value, field: &str) -> Result<[u8; N]> {
    let bytes = unhex(text(vector, field)?)?;
    bytes.try_into().ok().with_context(|| format!("{field} is not {N} bytes"))
}

fn unhex_list(vector: &Value, field: &str) -> Result<Vec<Vec<u8>>> {
    let items = list(vector, field)?.iter();
    items.map(|item| unhex(item.as_str().context("item is not a text")?)).collect()
}

fn digests(vector: &Value, field: &str) -> Result<Vec<Digest>> {
    let items = unhex_list(vector, field)?.into_iter();
    items.map(|item| Digest::from_slice(&item).context("not a digest")).collect()
}

/// A key whose text must come back as it was.
fn key(text: &str) -> Result<VerifierKey> {
    let key = VerifierKey::parse(text)?;
    ensure!(key.to_string() == text, "{text} printed as {key}");
    Ok(key)
}

/// The second implementation's ledger, read once.
struct Ledger {
    json: Value,
    signer: Signer,
    witnesses: [Signer; 2],
    event_digests: Vec<Digest>,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Digest>,
}

impl Ledger {
    fn load() -> Result<Self> {
        let json: Value = serde_json::from_str(LEDGER)?;
        let signer = |party: &str, key_type| {
            let verifier = key(text(&json, &format!("{party}_vkey"))?)?;
            let seed = array(&json, &format!("{party}_seed_hex"))?;
            let signer = Signer::new(verifier.name(), key_type, seed)?;
            ensure!(*signer.verifier() == verifier, "key of the {party}");
            anyhow::Ok(signer)
        };
        Ok(Self {
            signer: signer("ledger", KeyType::Ed25519)?,
            witnesses: [
                signer("witness", KeyType::CosignatureV1)?,
                signer("mirror", KeyType::CosignatureV1)?,
            ],
            event_digests: unhex_list(&json, "events_hex")?.iter().map(|e| sha256(e)).collect(),
            entries: unhex_list(&json, "entries_hex")?,
            leaves: digests(&json, "leaf_hashes_hex")?,
            json,
        })
    }

    fn witness_keys(&self) -> Vec<VerifierKey> {
        self.witnesses.iter().map(|witness| witness.verifier().clone()).collect()
    }

    /// The tree at each of the sizes 0 to the ledger's, in order.
    fn trees(&self) -> impl Iterator<Item = Frontier> {
        let mut tree = Frontier::new();
        iter::once(tree.clone()).chain(self.leaves.iter().map(move |leaf| {
            tree.append(*leaf);
            tree.clone()
        }))
    }

    /// Every batch, with its seal made from the source's seed and its first index and time.
    fn for_each_batch(
        &self,
        mut each: impl FnMut(&Batch<'_>, Seal, &Value) -> Result<()>,
    ) -> Result<usize> {
        let origin = text(&self.json, "origin")?;
        let batches = list(&self.json, "batches")?;
        for vector in batches {
            let source = SourceName::parse(text(vector, "source")?)?;
            let signer = self.source(source.as_str())?;
            let first = usize::try_from(number(vector, "first_index")?)?;
            let count = usize::try_from(number(vector, "count")?)?;
            let digests = self.event_digests.get(first..first + count).context("no such events")?;
            let first_seq = number(vector, "first_seq")?;
            let batch = Batch { source: source.as_name(), first_seq, digests };
            let seal = batch.seal(origin, &signer)?;
            each(&batch, seal, vector)?;
        }
        Ok(batches.len())
    }

    fn source(&self, name: &str) -> Result<Signer> {
        let sources = list(&self.json, "sources")?;
        let named = |source: &&Value| source["name"] == name;
        let source = sources.iter().find(named).context("unknown source")?;
        let signer = Signer::new(name, KeyType::Ed25519, array(source, "seed_hex")?)?;
        let public_key: [u8; 32] = array(source, "public_key_hex")?;
        ensure!(*signer.verifier().public_key().as_bytes() == public_key, "key of {name}");
        Ok(signer)
    }
}

/// A note with one bit of the signature on one line flipped.
fn with_flipped_signature(note: &str, line: usize, byte: usize) -> Result<String> {
    let (body, signatures) = note.rsplit_once("\n\n").context("no signatures")?;
    let mut lines: Vec<_> = signatures.lines().map(str::to_owned).collect();
    let line = lines.get_mut(line).context("no such line")?;
    let (head, base64) = line.rsplit_once(' ').context("no signature")?;
    let mut signature = BASE64_STANDARD.decode(base64)?;
    // Behind the key id: a flip there makes the signature unknown instead of wrong.
    *signature.get_mut(4 + byte).context("no such byte")? ^= 1;
    *line = format!("{head} {}", BASE64_STANDARD.encode(signature));
    Ok(format!("{body}\n\n{}\n", lines.join("\n")))
}

#[test]
fn checkpoint_and_cosignatures_of_others_verify() -> Result<()> {
    let vector: Value = serde_json::from_str(COSIGNED)?;
    let note = text(&vector, "note")?;
    let log = key(text(&vector, "log_vkey")?)?;
    let witnesses = list(&vector, "witnesses")?;
    let keys: Vec<_> =
        witnesses.iter().map(|witness| key(text(witness, "vkey")?)).collect::<Result<_>>()?;

    let opened = VerifiedCheckpoint::open(note.as_bytes(), &log, &keys)?;
    assert_eq!((opened.origin(), opened.size()), (log.name(), Size(381_382)));
    assert_eq!(opened.note(), note);
    assert_eq!(opened.cosignatures().len(), 8);
    for (cosignature, witness) in opened.cosignatures().iter().zip(witnesses) {
        assert_eq!(cosignature.key.name(), text(witness, "name")?);
        assert_eq!(cosignature.timestamp_s, number(witness, "timestamp")?);
    }

    // Line 0 is the log's; its payload is 64 bytes, a witness's has 8 bytes of time before them.
    for (line, len) in iter::once(64).chain(keys.iter().map(|_| 72)).enumerate() {
        for byte in 0..len {
            let spoilt = with_flipped_signature(note, line, byte)?;
            let refused = VerifiedCheckpoint::open(spoilt.as_bytes(), &log, &keys);
            assert!(refused.is_err(), "byte {byte} of signature {line}");
        }
    }
    Ok(())
}

#[test]
fn checkpoints_are_signed_and_cosigned_byte_for_byte() -> Result<()> {
    let ledger = Ledger::load()?;
    let root = ledger.trees().last().context("no tree")?.root();
    let size = Size(u64::try_from(ledger.leaves.len())?);
    let checkpoint = Checkpoint::new(text(&ledger.json, "origin")?, size, root)?;
    let note = checkpoint.sign(&ledger.signer)?;
    assert_eq!(note, text(&ledger.json, "checkpoint")?);

    // The witness signs first, the mirror a second later.
    let opened = VerifiedCheckpoint::open(note.as_bytes(), ledger.signer.verifier(), &[])?;
    let cosigned = text(&ledger.json, "cosigned_checkpoint")?;
    let mut note = note;
    for (witness, time) in ledger.witnesses.iter().zip(number(&ledger.json, "cosignature_time")?..)
    {
        note.push_str(&opened.cosign(witness, time)?);
    }
    assert_eq!(note, cosigned);

    let keys = ledger.witness_keys();
    let opened = VerifiedCheckpoint::open(cosigned.as_bytes(), ledger.signer.verifier(), &keys)?;
    assert_eq!((opened.checkpoint(), opened.cosignatures().len()), (&checkpoint, 2));
    assert_eq!(Note::parse(cosigned.as_bytes())?.signatures().len(), 3);
    for (line, len) in [64, 72, 72].into_iter().enumerate() {
        for byte in 0..len {
            let spoilt = with_flipped_signature(cosigned, line, byte)?;
            let verifier = ledger.signer.verifier();
            let refused = VerifiedCheckpoint::open(spoilt.as_bytes(), verifier, &keys);
            assert!(refused.is_err(), "byte {byte} of signature {line}");
        }
    }
    Ok(())
}

#[test]
fn entries_come_back_byte_for_byte() -> Result<()> {
    let ledger = Ledger::load()?;
    assert_eq!(ledger.entries.len(), ledger.event_digests.len());
    assert_eq!(ledger.entries.len(), ledger.leaves.len());
    let mut link = Link::GENESIS;
    for (at, bytes) in ledger.entries.iter().enumerate() {
        let entry = Entry::parse(bytes)?;
        assert_eq!(entry.encode(), *bytes);
        assert_eq!(entry.event_digest, ledger.event_digests[at]);
        assert_eq!(leaf_hash(bytes), ledger.leaves[at]);
        link.check(&entry, ledger.leaves[at])?;
    }
    Ok(())
}

#[test]
fn batches_are_sealed_and_chained_byte_for_byte() -> Result<()> {
    let ledger = Ledger::load()?;
    let origin = text(&ledger.json, "origin")?;
    let mut link = Link::GENESIS;
    let mut made = Vec::new();
    let batches = ledger.for_each_batch(|batch, seal, vector| {
        assert_eq!(batch.message(origin), text(vector, "seal_message")?);
        assert_eq!(seal.signature, array(vector, "signature_hex")?);
        let source = ledger.source(batch.source.as_str())?;
        batch.verify(origin, &seal, source.verifier().public_key())?;
        assert_eq!(link.size, Size(number(vector, "first_index")?));
        let recorded_at = number(vector, "recorded_at")?;
        link.extend(batch, recorded_at, seal, |entry, _| made.push(entry.to_vec()))?;
        Ok(())
    })?;
    assert_eq!(batches, 60);
    assert_eq!(made, ledger.entries);
    Ok(())
}

#[test]
fn roots_and_proofs_of_the_ledger_hold() -> Result<()> {
    let ledger = Ledger::load()?;
    let trees: Vec<_> = ledger.trees().collect();
    let root = |size: u64| anyhow::Ok(trees[usize::try_from(size)?].root());
    for vector in list(&ledger.json, "roots")? {
        assert_eq!(*root(number(vector, "size")?)?.as_bytes(), array(vector, "root_hex")?);
    }
    for vector in list(&ledger.json, "consistency")? {
        let (old, new) = (number(vector, "old")?, number(vector, "new")?);
        let path = digests(vector, "proof_hex")?;
        verify_consistency(Size(old), Size(new), root(old)?, root(new)?, &path)?;
    }
    for vector in list(&ledger.json, "inclusion")? {
        let (index, size) = (number(vector, "index")?, number(vector, "size")?);
        let path = digests(vector, "proof_hex")?;
        let leaf = ledger.leaves[usize::try_from(index)?];
        verify_inclusion(Index(index), Size(size), leaf, &path, root(size)?)?;
        let made = trees[usize::try_from(size)?].paths().path(Index(index));
        assert_eq!(made, Some(path));
    }
    Ok(())
}

#[test]
fn proof_files_verify_and_come_back_byte_for_byte() -> Result<()> {
    let ledger = Ledger::load()?;
    let (verifier, keys) = (ledger.signer.verifier(), ledger.witness_keys());
    for vector in list(&ledger.json, "tlog_proofs")? {
        let file = text(vector, "text")?;
        let proof = TlogProof::parse(file.as_bytes())?;
        assert_eq!(proof.encode(), file);
        assert_eq!(proof.index, Index(number(vector, "index")?));
        assert_eq!(proof.entry, ledger.entries[usize::try_from(proof.index.0)?]);
        assert_eq!(proof.verify(verifier, &keys)?.cosignatures().len(), 2);
    }
    Ok(())
}

#[test]
fn receipts_of_every_batch_verify_and_make_the_same_proof_files() -> Result<()> {
    let ledger = Ledger::load()?;
    let (verifier, keys) = (ledger.signer.verifier(), ledger.witness_keys());
    let tree = ledger.trees().last().context("no tree")?;
    let checkpoint = text(&ledger.json, "cosigned_checkpoint")?;
    let proofs = list(&ledger.json, "tlog_proofs")?;
    let mut files = 0;
    ledger.for_each_batch(|batch, seal, vector| {
        let first_index = number(vector, "first_index")?;
        let last_index = Index(first_index + u64::from(batch.count()?) - 1);
        let prev = Entry::parse(&ledger.entries[usize::try_from(first_index)?])?.prev;
        let path = tree.paths().path(last_index).context("no path")?;
        let receipt = wire::Receipt {
            first_index,
            recorded_at: number(vector, "recorded_at")?,
            prev: prev.as_bytes().to_vec().into(),
            inclusion_path: path.iter().map(|hash| hash.as_bytes().to_vec().into()).collect(),
            checkpoint: checkpoint.to_owned().into(),
        };
        let verified = verify_receipt(verifier, &keys, batch, &seal, &receipt)?;
        assert_eq!(verified.last_index(), last_index);
        if let Some(proof) = proofs.iter().find(|proof| proof["index"] == last_index.0) {
            assert_eq!(verified.tlog_proof().encode(), text(proof, "text")?);
            files += 1;
        }
        Ok(())
    })?;
    assert!(files >= 1, "some proof file is of a batch's last entry");
    Ok(())
}
