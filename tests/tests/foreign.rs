//! Verifiers that we did not write accept the ledger, and nothing that was changed: `ct-merkle`
//! (Rust) checks the proofs and rebuilds the tree, `sigstore` (Python) checks entries against the
//! checkpoint as it does those of Rekor. Both read over HTTP.

use std::net::SocketAddr;

use access_ledger_proto::{checkpoint::VerifiedCheckpoint, note::VerifierKey, wire};
use access_ledger_tests::{
    node::{Clients, Node},
    pages, python,
};
use anyhow::Result;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::Sha256;

/// A ledger of some tiles, and its entries as HTTP serves them.
struct Bench {
    _folder: tempfile::TempDir,
    node: Node,
    clients: Clients,
    entries: Vec<Vec<u8>>,
    random: ChaCha8Rng,
}

impl Bench {
    async fn new(seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path()).await?;
        let clients = node.clients();
        let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
        for _ in 0..4 {
            clients.record(&source.record(random.random_range(100..250))?).await?;
        }
        let entries = pages::read_log(node.address, "", &node.vkey).await?;
        Ok(Self { _folder: folder, node, clients, entries, random })
    }

    /// The foreign tree over the first entries.
    fn tree(&self, size: usize) -> MemoryBackedTree<Sha256, Vec<u8>> {
        let mut tree = MemoryBackedTree::new();
        self.entries.iter().take(size).for_each(|entry| tree.push(entry.clone()));
        tree
    }
}

/// The size and root of the newest checkpoint, over HTTP.
async fn head(address: SocketAddr, vkey: &VerifierKey) -> Result<(u64, RootHash<Sha256>)> {
    let note = pages::get(address, "/checkpoint", &[]).await?.body;
    let checkpoint = VerifiedCheckpoint::open(&note, vkey, &[])?;
    let (size, root) = (checkpoint.size().0, checkpoint.root());
    Ok((size, RootHash::new((*root.as_bytes()).into(), size)))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tree_over_the_same_entries_has_the_signed_root() -> Result<()> {
    let bench = Bench::new(1).await?;
    let (size, root) = head(bench.node.address, &bench.node.vkey).await?;
    assert_eq!(bench.entries.len() as u64, size);
    assert!(bench.tree(bench.entries.len()).root() == root);
    // A tile of level 1 holds the roots of another tree over each 256.
    let hashes = pages::get(bench.node.address, "/tile/1/000.p/1", &[]).await?.body;
    assert_eq!(hashes, bench.tree(256).root().as_bytes()[..]);
    let mut changed = bench.entries.clone();
    changed[300][0] ^= 1;
    let changed = Bench { entries: changed, ..bench };
    assert!(changed.tree(changed.entries.len()).root() != root);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inclusion_proofs_hold_for_another_verifier() -> Result<()> {
    let mut bench = Bench::new(2).await?;
    for _ in 0..60 {
        let size = bench.random.random_range(2..=bench.entries.len());
        let index = bench.random.random_range(0..size);
        let request =
            wire::GetInclusionProofRequest { index: index as u64, tree_size: size as u64 };
        let answer = bench.clients.auditor.clone().get_inclusion_proof(request).await?.into_inner();
        let bytes = answer.path.concat();
        let proof = InclusionProof::try_from_bytes(bytes.clone())?;
        let (root, entry) = (bench.tree(size).root(), &bench.entries[index]);
        let at = index as u64;
        root.verify_inclusion(entry, at, &proof)?;
        // The negative twins: another entry, another place, a hash that was changed, too few.
        let mut other = entry.clone();
        other[9] ^= 1;
        assert!(root.verify_inclusion(&other, at, &proof).is_err());
        assert!(root.verify_inclusion(entry, at ^ 1, &proof).is_err());
        let mut flipped = bytes.clone();
        flipped[0] ^= 1;
        let flipped = InclusionProof::try_from_bytes(flipped)?;
        assert!(root.verify_inclusion(entry, at, &flipped).is_err());
        let short = InclusionProof::try_from_bytes(bytes[32..].to_vec())?;
        assert!(root.verify_inclusion(entry, at, &short).is_err());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn consistency_proofs_hold_for_another_verifier() -> Result<()> {
    let mut bench = Bench::new(3).await?;
    for _ in 0..60 {
        let new = bench.random.random_range(2..=bench.entries.len());
        let old = bench.random.random_range(1..new);
        let request =
            wire::GetConsistencyProofRequest { old_size: old as u64, new_size: new as u64 };
        let answer = bench.clients.auditor.clone().get_consistency_proof(request).await?;
        let bytes = answer.into_inner().path.concat();
        let proof = ConsistencyProof::try_from_bytes(bytes.clone())?;
        let (before, after) = (bench.tree(old).root(), bench.tree(new).root());
        after.verify_consistency(&before, &proof)?;
        // The negative twins: another old tree, another new one, a hash that was changed, too few.
        let mut other = *before.as_bytes();
        other[0] ^= 1;
        let other = RootHash::new(other, old as u64);
        assert!(after.verify_consistency(&other, &proof).is_err());
        let mut later = *after.as_bytes();
        later[0] ^= 1;
        let later = RootHash::new(later, new as u64);
        assert!(later.verify_consistency(&before, &proof).is_err());
        let mut flipped = bytes.clone();
        flipped[0] ^= 1;
        let flipped = ConsistencyProof::try_from_bytes(flipped)?;
        assert!(after.verify_consistency(&before, &flipped).is_err());
        let short = ConsistencyProof::try_from_bytes(bytes[32..].to_vec())?;
        assert!(after.verify_consistency(&before, &short).is_err());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigstore_accepts_entries_and_the_checkpoint_and_no_changed_ones() -> Result<()> {
    let bench = Bench::new(4).await?;
    let (pages, ledger) = (format!("http://{}", bench.node.address), bench.node.vkey.to_string());
    let checked = move || {
        let mut verifier = python::script("foreign.py", env!("CARGO_TARGET_TMPDIR"))?;
        python::run(verifier.arg("--pages").arg(pages).arg("--ledger").arg(ledger))
    };
    tokio::task::spawn_blocking(checked).await?
}
