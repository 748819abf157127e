//! A reference for what the ledger must hold: what was acknowledged, and where; and an auditor that
//! pulls the log and believes nothing.
//!
//! The auditor keeps its own chain and tree from entry 0 on, so each pull verifies everything
//! before it again without reading it: another past would lead to another root.

use std::collections::BTreeMap;

use access_ledger_proto::{
    chain::Link,
    checkpoint::VerifiedCheckpoint,
    entry::{Entry, Seal},
    event,
    facts::{sequences::Sequences, sources::Sources},
    hash::{Digest, leaf_hash, sha256},
    note::VerifierKey,
    position::{Index, Size, count_of},
    seal::Batch,
    source::SourceName,
    tree::Frontier,
    wire,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::{
    node::Clients,
    source::{Place, Sealed},
};

/// An entry as it was pulled and verified.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Digest of the event.
    pub event_digest: Digest,
    /// Nanoseconds since the Unix epoch.
    pub recorded_at: u64,
    /// The source.
    pub source: SourceName,
    /// Its number.
    pub source_seq: u64,
    /// Leaf hash.
    pub leaf: Digest,
}

/// An auditor with its verified copy.
pub struct Audit {
    vkey: VerifierKey,
    /// All entries, from 0 on.
    pub entries: Vec<Pulled>,
    sources: Option<Sources>,
    sequences: Sequences,
    link: Link,
    tree: Frontier,
    /// Events of the batch that no seal has closed yet.
    open: Vec<Bytes>,
}

/// What was acknowledged: by source and first number, the digests and the place.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    batches: BTreeMap<(String, u64), (Vec<Digest>, Place)>,
}

impl Audit {
    /// An auditor who has seen nothing.
    #[must_use]
    pub fn new(vkey: &VerifierKey) -> Self {
        Self {
            vkey: vkey.clone(),
            entries: Vec::new(),
            sources: None,
            sequences: Sequences::default(),
            link: Link::GENESIS,
            tree: Frontier::new(),
            open: Vec::new(),
        }
    }

    /// Pulls what is new up to the newest checkpoint, and verifies all of it.
    ///
    /// # Errors
    ///
    /// The first thing that does not hold.
    pub async fn pull(&mut self, clients: &Clients) -> anyhow::Result<VerifiedCheckpoint> {
        let mut auditor = clients.auditor.clone();
        let answer =
            auditor.get_checkpoint(wire::GetCheckpointRequest::default()).await?.into_inner();
        let head = VerifiedCheckpoint::open(&answer.checkpoint, &self.vkey, &[])?;
        let first_index = self.link.size.0;
        ensure!(first_index <= head.size().0, "rolled back to {}", head.size());
        let end_index = head.size().0;
        let request = wire::ReadEntriesRequest { first_index, end_index, with_events: true };
        let mut runs = auditor.read_entries(request).await?.into_inner();
        while let Some(answer) = runs.message().await? {
            let run = answer.run.context("an answer without a run")?;
            ensure!(run.first_index == self.link.size.0, "a run from {}", run.first_index);
            ensure!(run.entries.len() == run.events.len(), "entries and events differ in number");
            for (entry, event) in run.entries.iter().zip(run.events) {
                self.verify(entry, event)?;
            }
        }
        ensure!(self.link.size == head.size(), "entries end at {}", self.link.size);
        ensure!(self.tree.root() == head.root(), "root at size {}", head.size());
        ensure!(self.open.is_empty(), "the log ends inside a batch");
        Ok(head)
    }

    fn verify(&mut self, bytes: &[u8], event: Bytes) -> anyhow::Result<()> {
        let leaf = leaf_hash(bytes);
        let entry = Entry::parse(bytes)?;
        self.link.check(&entry, leaf)?;
        ensure!(entry.event_digest == sha256(&event), "event of index {}", entry.index);
        if entry.index == Index::GENESIS {
            self.sources = Some(Sources::from_genesis(&event)?);
        }
        self.open.push(event);
        self.tree.append(leaf);
        self.entries.push(Pulled {
            event_digest: entry.event_digest,
            recorded_at: entry.recorded_at,
            source: entry.source.to_owned(),
            source_seq: entry.source_seq,
            leaf,
        });
        match entry.seal {
            Some(seal) => self.close(&seal).with_context(|| format!("at index {}", entry.index)),
            None => Ok(()),
        }
    }

    /// Verifies the batch that a seal closes.
    fn close(&mut self, seal: &Seal) -> anyhow::Result<()> {
        let events = std::mem::take(&mut self.open);
        ensure!(usize::from(seal.count) == events.len(), "a seal over another batch");
        let first = self.entries.len() - events.len();
        let batch = self.entries.get(first..).context("fewer entries than the seal covers")?;
        let head = batch.first().context("an empty batch")?;
        ensure!(
            batch
                .iter()
                .zip(head.source_seq..)
                .all(|(entry, seq)| { entry.source == head.source && entry.source_seq == seq }),
            "a batch of several sources, or with a gap"
        );
        let digests: Vec<Digest> = batch.iter().map(|entry| entry.event_digest).collect();
        let (source, first_seq) = (head.source.as_name(), head.source_seq);
        let sources = self.sources.as_mut().context("no genesis")?;
        let (sealer, key) = sources.sealer(source, seal.key_id)?;
        Batch { source, first_seq, digests: &digests }.verify(self.vkey.name(), seal, key)?;
        self.sequences.advance(source, first_seq, seal.count)?;
        let mut change = None;
        for (event, index) in events.iter().zip(count_of(first)..) {
            let body = event::body(event).context("an event without a body")?;
            change = Some(sources.judge(sealer, Index(index), body, events.len() == 1)?);
        }
        if let Some(change) = change {
            sources.apply(change);
        }
        Ok(())
    }

    /// The last number of a source in the verified log.
    #[must_use]
    pub fn last_seq(&self, source: &str) -> u64 {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.source.as_str() == source)
            .map_or(0, |entry| entry.source_seq)
    }

    /// Root of the verified log's first `size` entries.
    ///
    /// # Errors
    ///
    /// When the log is shorter.
    pub fn root_at(&self, size: Size) -> anyhow::Result<Digest> {
        let size = usize::try_from(size.0)?;
        let mut tree = Frontier::new();
        let entries = self.entries.get(..size).context("beyond the log")?;
        entries.iter().for_each(|entry| tree.append(entry.leaf));
        Ok(tree.root())
    }
}

impl Acknowledged {
    /// Notes an acknowledgement; a batch acknowledged again must be at the same place.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn note(&mut self, sealed: &Sealed, place: Place) -> anyhow::Result<()> {
        let key = (sealed.batch.source.clone(), sealed.first_seq());
        if let Some((_, before)) = self.batches.get(&key) {
            ensure!(*before == place, "{key:?} was at {before:?}, and now at {place:?}");
            return Ok(());
        }
        self.batches.insert(key, (sealed.digests.clone(), place));
        Ok(())
    }

    /// How many batches were acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether nothing was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Checks that every acknowledged batch is in the verified log, at its place.
    ///
    /// # Errors
    ///
    /// The first one that is not.
    pub fn check(&self, audit: &Audit) -> anyhow::Result<()> {
        for ((source, first_seq), (digests, place)) in &self.batches {
            let first = usize::try_from(place.first_index)?;
            let entries = audit
                .entries
                .get(first..first + digests.len())
                .with_context(|| format!("{source} from {first_seq} on is lost"))?;
            let is_there =
                entries.iter().zip(digests).zip(*first_seq..).all(|((entry, digest), seq)| {
                    entry.source.as_str() == source
                        && entry.source_seq == seq
                        && entry.event_digest == *digest
                        && entry.recorded_at == place.recorded_at
                });
            ensure!(is_there, "{source} from {first_seq} on is not at index {first}");
            let prev = first.checked_sub(1).and_then(|before| audit.entries.get(before));
            ensure!(
                prev.is_some_and(|entry| place.prev == entry.leaf.as_bytes()[..]),
                "{source} from {first_seq} on has another entry before it"
            );
        }
        Ok(())
    }
}
