//! A model of a ledger: the records that it should hold, as one list, made from a seed.
//!
//! Entry 0 is a genesis, entry 1 registers a source, the rest are sealed batches of that source
//! with events of many sizes. Whatever is stored, in whatever groups, must be a prefix of this
//! list.

use access_ledger_proto::{
    chain::Link,
    checkpoint::Checkpoint,
    entry::{Entry, Seal},
    facts::redactions::redaction_message,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::{Index, Size, count_of, memory_len},
    seal::Batch,
    source::Name,
    tree::root_of,
    wire::{
        Approval, ControlChange, ControlKind, Event, Genesis, InitialSource, Redaction,
        SourcePhase, SourceRole, SourceStatus, event::Body,
    },
};
use access_ledger_server::{error::StorageError, storage::Opened};
use anyhow::{Context as _, Result};
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The ledger's origin.
pub const ORIGIN: &str = "ledger.example/history";

/// What should be stored, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Entry and event of each record.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Their leaf hashes.
    pub leaves: Vec<Digest>,
    /// The chain behind each batch, ascending by size; the first is before entry 0.
    pub links: Vec<Link>,
}

impl History {
    /// `batches` batches behind the genesis and a registration; events of up to `event_bytes_max`.
    ///
    /// # Errors
    ///
    /// None for a sane size.
    pub fn new(seed: u64, batches: usize, event_bytes_max: usize) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let ledger = signer("ledger", 1)?;
        let governance = signer("governance", 2)?;
        let service = signer("payments/eu-1", 3)?;
        let mut history = Self { links: vec![Link::GENESIS], ..Self::default() };
        history.append(&ledger, 1, &[genesis(&ledger, &governance)?])?;
        history.append(&governance, 1, &[registration(&service)])?;
        let mut seq = 1;
        for _ in 0..batches {
            let count = random.random_range(1..8);
            let events: Vec<_> = (0..count)
                .map(|_| {
                    let length = match random.random_range(0..20) {
                        0 => event_bytes_max,
                        _ => random.random_range(0..=event_bytes_max / 10),
                    };
                    event(random.random(), "x".repeat(length))
                })
                .collect();
            history.append(&service, seq, &events)?;
            seq += count;
        }
        Ok(history)
    }

    /// Batches of one size and shape, for measuring: `count` events of exactly `event_bytes` each.
    ///
    /// # Errors
    ///
    /// None for a sane size.
    pub fn uniform(batches: usize, count: usize, event_bytes: usize) -> Result<Self> {
        let service = signer("payments/eu-1", 3)?;
        let (ledger, governance) = (signer("ledger", 1)?, signer("governance", 2)?);
        let mut history = Self { links: vec![Link::GENESIS], ..Self::default() };
        history.append(&ledger, 1, &[genesis(&ledger, &governance)?])?;
        history.append(&governance, 1, &[registration(&service)])?;
        let bare_len = event([0; 16], "x".repeat(event_bytes.saturating_sub(64))).len();
        let padding = event_bytes.saturating_sub(64) + event_bytes.saturating_sub(bare_len);
        for batch in 0..batches {
            let first = count_of(batch * count);
            let ids = (first..).take(count).map(u128::from);
            let events: Vec<_> =
                ids.map(|id| event(id.to_be_bytes(), "x".repeat(padding))).collect();
            history.append(&service, first + 1, &events)?;
        }
        Ok(history)
    }

    /// Both governance parties have the events of a range erased.
    ///
    /// # Errors
    ///
    /// None: the parties have not sealed anything since the registration.
    pub fn redact(&mut self, first: Index, last: Index) -> Result<()> {
        let (governance, custodian) = (signer("governance", 2)?, signer("custodian", 5)?);
        let mut redaction = Redaction {
            first_index: first.0,
            last_index: last.0,
            legal_basis: "order 7".to_owned(),
            ..Redaction::default()
        };
        let message = redaction_message(ORIGIN, &redaction);
        redaction.approvals.push(Approval {
            source: custodian.name().to_owned(),
            key_id: custodian.verifier().id().0.to_vec().into(),
            signature: custodian.sign(message.as_bytes()).to_vec().into(),
        });
        self.append(&governance, 2, &[event_of(Body::Redaction(redaction))])
    }

    /// How many records.
    #[must_use]
    pub fn size(&self) -> Size {
        Size(self.records.len() as u64)
    }

    /// The records from one size to another.
    #[must_use]
    pub fn records_between(&self, from: Size, to: Size) -> &[(Vec<u8>, Vec<u8>)] {
        self.records.get(place(from)..place(to)).unwrap_or_default()
    }

    /// The leaf hashes from one size to another.
    #[must_use]
    pub fn leaves_between(&self, from: Size, to: Size) -> &[Digest] {
        self.leaves.get(place(from)..place(to)).unwrap_or_default()
    }

    /// The root of the tree over the first `size` records.
    #[must_use]
    pub fn root(&self, size: Size) -> Digest {
        root_of(self.leaves_between(Size::ZERO, size))
    }

    /// Where the batch ends that is the `batches`th from `from` on, or the last one.
    #[must_use]
    pub fn end_of(&self, from: Size, batches: usize) -> Size {
        let ends = self.links.iter().map(|link| link.size).filter(|size| *size > from);
        ends.take(batches).last().unwrap_or(from)
    }

    /// Commits the next `batches` batches behind what is stored as one group, and their leaves to
    /// the tree; gives the size then.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub fn commit(&self, opened: &mut Opened, batches: usize) -> Result<Size, StorageError> {
        let from = opened.reader.size();
        let mut group = opened.log.group();
        for (entry, event) in self.records_between(from, self.end_of(from, batches)) {
            group.push(entry, event);
        }
        let end = Size(opened.log.commit(group)?.into_inner().end.0);
        self.leaves_between(from, end).iter().for_each(|leaf| opened.frontier.append(*leaf));
        // A new segment begins only behind what the tree holds.
        opened.tree.append(&opened.frontier)?;
        opened.frontier.forget();
        Ok(end)
    }

    /// The chain at `size`; `None` in the middle of a batch.
    #[must_use]
    pub fn link(&self, size: Size) -> Option<Link> {
        self.links.iter().find(|link| link.size == size).copied()
    }

    fn append(&mut self, key: &Signer, first_seq: u64, events: &[Vec<u8>]) -> Result<()> {
        let digests: Vec<_> = events.iter().map(|event| sha256(event)).collect();
        let source = Name::parse(key.name().as_bytes())?;
        let batch = Batch { source, first_seq, digests: &digests };
        let seal: Seal = batch.seal(ORIGIN, key)?;
        let mut link = *self.links.last().context("starts with the genesis link")?;
        let mut events = events.iter();
        let recorded_at = link.recorded_at + 1_000;
        link.extend(&batch, recorded_at, seal, |entry, leaf| {
            debug_assert!(Entry::parse(entry).is_ok());
            self.records.push((entry.to_vec(), events.next().cloned().unwrap_or_default()));
            self.leaves.push(leaf);
        })?;
        self.links.push(link);
        Ok(())
    }
}

fn place(size: Size) -> usize {
    memory_len(size.0).unwrap_or(usize::MAX)
}

fn signer(name: &str, seed: u8) -> Result<Signer> {
    Ok(Signer::new(name, KeyType::Ed25519, [seed; 32])?)
}

/// The key of the ledger's checkpoints.
///
/// # Errors
///
/// None: the name can be a key's.
pub fn ledger_key() -> Result<VerifierKey> {
    Ok(ledger_signer()?.verifier().clone())
}

/// The same with its secret half.
///
/// # Errors
///
/// None: the name can be a key's.
pub fn ledger_signer() -> Result<Signer> {
    signer(ORIGIN, 4)
}

/// What the ledger signs at this size of its history.
///
/// # Errors
///
/// None for a size that it has.
pub fn checkpoint(history: &History, size: Size) -> Result<String> {
    let checkpoint = Checkpoint::new(ORIGIN, size, history.root(size))?;
    Ok(checkpoint.sign(&signer(ORIGIN, 4)?)?)
}

fn event(id: [u8; 16], text: String) -> Vec<u8> {
    let event = Event { event_id: id.to_vec().into(), correlation_id: text, ..Event::default() };
    event.encode_to_vec()
}

fn genesis(ledger: &Signer, governance: &Signer) -> Result<Vec<u8>> {
    let initial = |signer: &Signer| InitialSource {
        name: signer.name().to_owned(),
        public_key: signer.verifier().public_key().as_bytes().to_vec().into(),
    };
    let genesis = Genesis {
        origin: ORIGIN.to_owned(),
        ledger_vkey: ledger_key()?.to_string(),
        ledger_source: Some(initial(ledger)),
        governance: vec![initial(governance), initial(&signer("custodian", 5)?)],
        ..Genesis::default()
    };
    let change = ControlChange {
        kind: ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..ControlChange::default()
    };
    Ok(event_of(Body::ControlChange(change)))
}

fn registration(service: &Signer) -> Vec<u8> {
    event_of(Body::SourceStatus(SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: service.name().to_owned(),
        public_key: service.verifier().public_key().as_bytes().to_vec().into(),
        roles: vec![SourceRole::Record.into()],
        ..SourceStatus::default()
    }))
}

fn event_of(body: Body) -> Vec<u8> {
    let event = Event { event_id: vec![7; 16].into(), body: Some(body), ..Event::default() };
    event.encode_to_vec()
}
