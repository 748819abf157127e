//! A log that is nothing but leaf hashes and a key: it signs any size of itself, and of its forks,
//! and proves what can be proven.

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    error::BuildError,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey, sign_note},
    position::Size,
    proof::{NodeSource, consistency_path},
    tree::{Node, root_of},
    witness::AddCheckpoint,
};
use anyhow::Context as _;

/// The log.
#[derive(Clone, Debug)]
pub struct SignedLog {
    key: Signer,
    leaves: Vec<Digest>,
}

impl SignedLog {
    /// A log of this name with so many leaves.
    ///
    /// # Errors
    ///
    /// For a name that no key can have.
    pub fn new(origin: &str, size: usize) -> anyhow::Result<Self> {
        let leaves = (0..size).map(|leaf| sha256(format!("{origin} {leaf}").as_bytes()));
        Self::over(origin, leaves.collect())
    }

    /// A log of this name with these leaf hashes.
    ///
    /// # Errors
    ///
    /// For a name that no key can have.
    pub fn over(origin: &str, leaves: Vec<Digest>) -> anyhow::Result<Self> {
        let key = Signer::new(origin, KeyType::Ed25519, *sha256(origin.as_bytes()).as_bytes())?;
        Ok(Self { key, leaves })
    }

    /// The same log under the same key, with other leaves from `at` on.
    #[must_use]
    pub fn fork(&self, at: usize) -> Self {
        let mut fork = self.clone();
        for leaf in fork.leaves.iter_mut().skip(at) {
            *leaf = sha256(leaf.as_ref());
        }
        fork
    }

    /// Its key; the name is the origin.
    #[must_use]
    pub const fn vkey(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// A note over any text, under the log's key.
    ///
    /// # Errors
    ///
    /// When no note can hold the text.
    pub fn sign_text(&self, text: &str) -> anyhow::Result<String> {
        Ok(sign_note(text, &self.key)?)
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The root of its first leaves.
    #[must_use]
    pub fn root(&self, size: usize) -> Digest {
        root_of(self.leaves.get(..size).unwrap_or_default())
    }

    /// The signed checkpoint of a size.
    ///
    /// # Errors
    ///
    /// None: the key is the origin's.
    pub fn note(&self, size: usize) -> anyhow::Result<String> {
        self.sign(size, self.root(size))
    }

    /// A checkpoint of any size and root, under the log's key.
    ///
    /// # Errors
    ///
    /// None: the key is the origin's.
    pub fn sign(&self, size: usize, root: Digest) -> anyhow::Result<String> {
        let checkpoint = Checkpoint::new(self.key.name(), Size(size as u64), root)?;
        Ok(checkpoint.sign(&self.key)?)
    }

    /// The checkpoint of a size, verified.
    ///
    /// # Errors
    ///
    /// None: the log signed it.
    pub fn checkpoint(&self, size: usize) -> anyhow::Result<VerifiedCheckpoint> {
        Ok(VerifiedCheckpoint::open(self.note(size)?.as_bytes(), self.vkey(), &[])?)
    }

    /// The consistency path between two sizes; none from 0.
    ///
    /// # Errors
    ///
    /// When `old` is larger than `new`, or `new` than the log.
    pub fn proof(&self, old: usize, new: usize) -> anyhow::Result<Vec<Digest>> {
        match old {
            0 => Ok(Vec::new()),
            _ => consistency_path(self, Size(old as u64), Size(new as u64)).map_err(|error| {
                match error {
                    BuildError::Source(error) => error,
                    other => anyhow::anyhow!("{other}"),
                }
            }),
        }
    }

    /// The body of an honest `add-checkpoint` call.
    ///
    /// # Errors
    ///
    /// As [`SignedLog::proof`].
    pub fn add(&self, old: usize, new: usize) -> anyhow::Result<Vec<u8>> {
        let (proof, note) = (self.proof(old, new)?, self.note(new)?);
        Ok(AddCheckpoint { old: Size(old as u64), proof, note: note.as_bytes() }.to_bytes())
    }
}

impl NodeSource for SignedLog {
    type Error = anyhow::Error;

    fn node(&self, node: Node) -> anyhow::Result<Digest> {
        let first = usize::try_from(node.index << node.level)?;
        let leaves = self.leaves.get(first..first + (1 << node.level));
        Ok(root_of(leaves.context("the log ends before this node")?))
    }
}
