//! Receipts: what a service holds to prove, later and offline, that its batch is in the ledger.
//!
//! In a response to an append a receipt is a message, which together with the service's own batch
//! gives the entries: [`verify_receipt`]. On disk it is a C2SP tlog-proof file for one entry:
//! [`TlogProof`] (FORMATS.md, section 6). Either way the proof ends at a checkpoint that the ledger
//! signed, and nothing else is believed.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    entry::{Entry, Seal},
    error::{CheckpointError, ProofError, ReceiptError, SealError, TlogProofError},
    hash::{Digest, leaf_hash},
    note::{self, VerifierKey},
    position::Index,
    proof::verify_inclusion,
    seal::Batch,
    wire,
};

/// A C2SP tlog-proof of one entry: the content of a `.tlog-proof` file. Nobody has verified it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The bytes of the entry, which the file holds as its extra data.
    pub entry: Vec<u8>,
    /// Where the entry lies.
    pub index: Index,
    /// From the entry to the root, the leaf's sibling first.
    pub path: Vec<Digest>,
    /// The note that ends the file, verbatim, with its cosignatures.
    pub checkpoint: String,
}

/// A receipt that was verified with the batch that it is for; only [`verify_receipt`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedReceipt {
    first_index: Index,
    last_index: Index,
    recorded_at: u64,
    last_leaf: Digest,
    last_entry: Vec<u8>,
    path: Vec<Digest>,
    checkpoint: VerifiedCheckpoint,
}

impl TlogProof {
    /// Reads a proof file.
    ///
    /// # Errors
    ///
    /// [`TlogProofError::Utf8`]; [`TlogProofError::Truncated`] without an empty line and a
    /// checkpoint after the proof; [`TlogProofError::Line`] for the first line that is malformed.
    /// The checkpoint is read by [`TlogProof::verify`].
    pub fn parse(file: &[u8]) -> Result<Self, TlogProofError> {
        let text = str::from_utf8(file)
            .map_err(|error| TlogProofError::Utf8 { position: error.valid_up_to() })?;
        let (proof, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::Truncated)?;
        let mut lines = proof.split('\n').zip(1..);
        read(lines.next(), HEADER, |line| (line == HEADER).then_some(()))?;
        let entry = read(lines.next(), "extra <base64 of the entry>", |line| {
            STANDARD.decode(line.strip_prefix("extra ")?).ok()
        })?;
        let index = read(lines.next(), "index <number>", |line| {
            note::parse_decimal(line.strip_prefix("index ")?).map(Index)
        })?;
        let path = lines
            .map(|line| read(Some(line), "<base64 of 32 bytes>", note::parse_digest))
            .collect::<Result<_, _>>()?;
        Ok(Self { entry, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// The content of the file: what [`TlogProof::parse`] reads, byte for byte.
    #[must_use]
    pub fn encode(&self) -> String {
        let extra = STANDARD.encode(&self.entry);
        let mut file = format!("{HEADER}\nextra {extra}\nindex {}\n", self.index);
        for digest in &self.path {
            file.push_str(&note::digest_text(digest));
            file.push('\n');
        }
        file.push('\n');
        file.push_str(&self.checkpoint);
        file
    }

    /// Verifies that the entry is in the tree of the checkpoint, and that the ledger signed that.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Checkpoint`] as of [`VerifiedCheckpoint::open`]; [`ReceiptError::Entry`] for
    /// a malformed entry; [`ReceiptError::Index`] for an entry of another place;
    /// [`ReceiptError::Inclusion`] when the path does not lead to the root.
    pub fn verify(
        &self,
        ledger: &VerifierKey,
        witnesses: &[VerifierKey],
    ) -> Result<VerifiedCheckpoint, ReceiptError> {
        let checkpoint = VerifiedCheckpoint::open(self.checkpoint.as_bytes(), ledger, witnesses)?;
        let found = Entry::parse(&self.entry)?.index;
        if found != self.index {
            return Err(ReceiptError::Index { found, wanted: self.index });
        }
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(self.index, size, leaf_hash(&self.entry), &self.path, root)?;
        Ok(checkpoint)
    }
}

/// Verifies the receipt for a batch that this source sealed itself.
///
/// The entries are made again from the batch and from what the receipt tells, and the last of them
/// must be in the tree of the checkpoint: by the chain, so are the others, in this order and at
/// these places. `ledger` is the ledger's key, whose name is the origin. The seal is taken as it
/// is.
///
/// # Errors
///
/// [`ReceiptError::Batch`] for a batch and seal that do not fit each other; [`ReceiptError::Hash`]
/// for a digest that is not 32 bytes; [`ReceiptError::Genesis`] for something before entry 0;
/// [`ReceiptError::Checkpoint`] as of [`VerifiedCheckpoint::open`]; [`ReceiptError::Inclusion`]
/// when the batch lies beyond the tree, or its last entry is not in it.
pub fn verify_receipt(
    ledger: &VerifierKey,
    witnesses: &[VerifierKey],
    batch: &Batch<'_>,
    seal: &Seal,
    receipt: &wire::Receipt,
) -> Result<VerifiedReceipt, ReceiptError> {
    let open = |note: &[u8]| VerifiedCheckpoint::open(note, ledger, witnesses);
    verify_under(open, batch, seal, receipt)
}

/// Verifies many receipts of one ledger, like [`verify_receipt`].
///
/// Batches that became durable together have their receipts under one checkpoint. Verifying its
/// signature costs more than the rest of a small receipt, so the last one is remembered.
#[derive(Clone, Debug)]
pub struct ReceiptVerifier {
    ledger: VerifierKey,
    witnesses: Vec<VerifierKey>,
    last: Option<VerifiedCheckpoint>,
}

impl ReceiptVerifier {
    /// For the ledger of this key, and with the cosignatures of these witnesses.
    #[must_use]
    pub const fn new(ledger: VerifierKey, witnesses: Vec<VerifierKey>) -> Self {
        Self { ledger, witnesses, last: None }
    }

    /// The ledger's key.
    #[must_use]
    pub const fn ledger(&self) -> &VerifierKey {
        &self.ledger
    }

    /// Verifies the receipt for a batch that this source sealed itself.
    ///
    /// # Errors
    ///
    /// As [`verify_receipt`].
    pub fn verify(
        &mut self,
        batch: &Batch<'_>,
        seal: &Seal,
        receipt: &wire::Receipt,
    ) -> Result<VerifiedReceipt, ReceiptError> {
        let Self { ledger, witnesses, last } = self;
        let open = |note: &[u8]| match last {
            // The very bytes that were verified with the same keys.
            Some(last) if last.note().as_bytes() == note => Ok(last.clone()),
            _ => VerifiedCheckpoint::open(note, ledger, witnesses)
                .map(|checkpoint| last.insert(checkpoint).clone()),
        };
        verify_under(open, batch, seal, receipt)
    }
}

/// Verifies a receipt; `open` verifies its checkpoint.
fn verify_under(
    open: impl FnOnce(&[u8]) -> Result<VerifiedCheckpoint, CheckpointError>,
    batch: &Batch<'_>,
    seal: &Seal,
    receipt: &wire::Receipt,
) -> Result<VerifiedReceipt, ReceiptError> {
    let count = batch.count()?;
    if seal.count != count {
        return Err(SealError::Covers { found: seal.count, wanted: count }.into());
    }
    let prev = read_digest("prev", &receipt.prev)?;
    let path = receipt
        .inclusion_path
        .iter()
        .map(|hash| read_digest("inclusion_path", hash))
        .collect::<Result<Vec<_>, _>>()?;
    let first_index = Index(receipt.first_index);
    if first_index == Index::GENESIS && prev != Digest::ZERO {
        return Err(ReceiptError::Genesis { found: prev });
    }
    let checkpoint = open(&receipt.checkpoint)?;
    let last_index = first_index.plus(u64::from(count - 1));
    let (size, root) = (checkpoint.size(), checkpoint.root());
    // Before the entries are made: behind the tree, places may run out.
    if !size.contains(last_index) {
        return Err(ProofError::BeyondTree { index: last_index, size }.into());
    }

    let mut link = Link::before(first_index, prev);
    let mut last_entry = Vec::with_capacity(Entry::LEN_MAX);
    link.extend(batch, receipt.recorded_at, *seal, |entry, _| {
        last_entry.clear();
        last_entry.extend_from_slice(entry);
    })?;
    let last_leaf = link.last_leaf;
    verify_inclusion(last_index, size, last_leaf, &path, root)?;
    let recorded_at = receipt.recorded_at;
    Ok(VerifiedReceipt {
        first_index,
        last_index,
        recorded_at,
        last_leaf,
        last_entry,
        path,
        checkpoint,
    })
}

impl VerifiedReceipt {
    /// Where the batch's first entry lies.
    #[must_use]
    pub const fn first_index(&self) -> Index {
        self.first_index
    }

    /// Where the batch's last entry lies; the others lie between, in the order of the batch.
    #[must_use]
    pub const fn last_index(&self) -> Index {
        self.last_index
    }

    /// When the ledger says that it recorded the batch: nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn recorded_at(&self) -> u64 {
        self.recorded_at
    }

    /// The leaf hash of the batch's last entry.
    #[must_use]
    pub const fn last_leaf(&self) -> Digest {
        self.last_leaf
    }

    /// The bytes of the batch's last entry, which carries the seal.
    #[must_use]
    pub fn last_entry(&self) -> &[u8] {
        &self.last_entry
    }

    /// From the batch's last entry to the checkpoint's root, the leaf's sibling first.
    #[must_use]
    pub fn path(&self) -> &[Digest] {
        &self.path
    }

    /// The checkpoint under which the batch is.
    #[must_use]
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// The proof of the batch's last entry, for a file that others can verify.
    #[must_use]
    pub fn tlog_proof(&self) -> TlogProof {
        TlogProof {
            entry: self.last_entry.clone(),
            index: self.last_index,
            path: self.path.clone(),
            checkpoint: self.checkpoint.note().to_owned(),
        }
    }
}

/// Reads one line of a proof file, which comes with its number.
fn read<'a, T>(
    line: Option<(&'a str, u64)>,
    wanted: &'static str,
    parse: impl Fn(&'a str) -> Option<T>,
) -> Result<T, TlogProofError> {
    let (text, line) = line.ok_or(TlogProofError::Truncated)?;
    parse(text).ok_or(TlogProofError::Line { line, wanted })
}

fn read_digest(field: &'static str, bytes: &[u8]) -> Result<Digest, ReceiptError> {
    Digest::from_slice(bytes).ok_or(ReceiptError::Hash { field, len: bytes.len() })
}

/// The first line of a proof file.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

#[cfg(test)]
mod tests;
