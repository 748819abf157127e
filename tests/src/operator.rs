//! An operator with every key and disk in its hands: it seizes a ledger, changes what it likes, and
//! serves the result.

use std::path::{Path, PathBuf};

use access_ledger_client::view::View;
use access_ledger_proto::{
    entry::Entry,
    hash::{Digest, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::{Index, count_of, memory_len},
    seal::Batch,
    source::SourceName,
    wire::{self, SourceRole},
};
use access_ledger_server::{demo::tamper::Seized, ledger::LedgerOptions, storage::Record};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    hostile::{Hostile, Server},
    node::{ORIGIN, Setup},
    parties::Governance,
    source::{Source, access},
};

/// A ledger that recorded honestly and was stopped, in an operator's hands.
pub struct Crime {
    /// What the operator holds; a clone of it is there to be tampered with.
    pub honest: Seized,
    /// The key that auditors pinned.
    pub vkey: VerifierKey,
    /// The sources whose keys the operator does not have.
    pub sources: [Source; 2],
    /// The two parties whose keys the operator does not have either.
    pub governance: Governance,
    folder: tempfile::TempDir,
}

/// Where the sources' batches lie in the log of [`Crime`]: first index and number of entries.
/// Source 0 and source 1 take turns, behind the genesis and their two registrations.
pub const BATCHES: [(u64, u64); 8] =
    [(3, 4), (7, 1), (8, 5), (13, 3), (16, 2), (18, 6), (24, 1), (25, 4)];

/// Entries of that log.
pub const SIZE: u64 = 29;

impl Crime {
    /// Records [`BATCHES`] through a real ledger and stops it.
    ///
    /// # Errors
    ///
    /// When files or the network fail.
    pub async fn scene() -> anyhow::Result<Self> {
        Self::scene_in_segments(LedgerOptions::new("").segment_bytes).await
    }

    /// The same, in segments of a length.
    ///
    /// # Errors
    ///
    /// As [`Crime::scene`].
    pub async fn scene_in_segments(segment_bytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut setup = Setup::new(&folder.path().join("ledger"));
        setup.options.segment_bytes = segment_bytes;
        let node = setup.start().await?;
        let (clients, vkey) = (node.clients(), node.vkey.clone());
        let mut sources = [
            clients.enrolled("payments", 1, &vkey).await?,
            clients.enrolled("support", 2, &vkey).await?,
        ];
        for (turn, (first, count)) in BATCHES.into_iter().enumerate() {
            let source = sources.get_mut(turn % 2).context("two sources")?;
            let sealed = source.record(memory_len(count).context("a small batch")?)?;
            let place = clients.record(&sealed).await?;
            ensure!(place.first_index == first, "batch {turn} is at {}", place.first_index);
        }
        drop(clients);
        node.stop().await?;
        let data = folder.path().join("ledger");
        let honest = Seized::read(&data)?;
        let governance = Governance::of(&data, &vkey)?;
        Ok(Self { honest, vkey, sources, governance, folder })
    }

    /// Entries of the honest log.
    #[must_use]
    pub fn size(&self) -> u64 {
        end(&self.honest)
    }

    /// The data folder of the ledger, stopped in order.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder().join("ledger")
    }

    /// The ledger's own source, whose key the operator has.
    ///
    /// # Errors
    ///
    /// None: its name is a source's.
    pub fn own(&self) -> anyhow::Result<Source> {
        Source::with_key(self.honest.own.clone(), &self.vkey)
    }

    /// A folder for views and evidence.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A view that is pinned to the honest log.
    ///
    /// # Errors
    ///
    /// When the honest log is not found in order.
    pub async fn pinned(&self, name: &str) -> anyhow::Result<View> {
        let mut view = View::open(&self.folder().join(name), &self.vkey)?;
        let server = Server::start(Hostile::new(self.honest.serve()?)).await?;
        server.audit(&mut view).await?;
        Ok(view)
    }

    /// A view without a pin.
    ///
    /// # Errors
    ///
    /// When the file exists and is no view.
    pub fn fresh(&self, name: &str) -> anyhow::Result<View> {
        Ok(View::open(&self.folder().join(name), &self.vkey)?)
    }
}

/// Records that a source sealed, as the ledger would store them; indexes and links are not made
/// yet.
///
/// # Errors
///
/// For a batch that no seal covers.
pub fn sealed_records(
    origin: &str,
    key: &Signer,
    first_seq: u64,
    recorded_at: u64,
    events: Vec<Bytes>,
) -> anyhow::Result<Vec<Record>> {
    let source = SourceName::parse(key.name())?;
    let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
    let batch = Batch { source: source.as_name(), first_seq, digests: &digests };
    let seal = batch.seal(origin, key)?;
    let mut records = Vec::new();
    let last = batch.last_seq();
    for ((event, event_digest), source_seq) in events.into_iter().zip(digests).zip(first_seq..) {
        let entry = Entry {
            index: Index(0),
            recorded_at,
            prev: Digest::ZERO,
            event_digest,
            source_seq,
            source: source.as_name(),
            seal: (source_seq == last).then_some(seal),
        };
        records.push(Record { entry: entry.encode().into(), event: Some(event) });
    }
    Ok(records)
}

/// Adds a batch that a source seals under its next numbers to a log, as a ledger would that records
/// it a second after the last one; the index of its first entry.
///
/// # Errors
///
/// When the log is empty or the batch is.
pub fn append(log: &mut Seized, source: &Source, events: Vec<Bytes>) -> anyhow::Result<u64> {
    append_at(log, source, newest_time(log)? + SECOND, events)
}

/// As [`append`], at a time of the operator's choice.
///
/// # Errors
///
/// As [`append`].
pub fn append_at(
    log: &mut Seized,
    source: &Source,
    recorded_at: u64,
    events: Vec<Bytes>,
) -> anyhow::Result<u64> {
    let first = end(log);
    let mut first_seq = 1;
    for record in &log.records {
        let is_its = entry(record, |entry| entry.source.as_str() == source.name())?;
        first_seq += u64::from(is_its);
    }
    log.records.extend(sealed_records(ORIGIN, source.key(), first_seq, recorded_at, events)?);
    log.rechain()?;
    Ok(first)
}

/// A registration that nobody has asked for or signed.
#[must_use]
pub fn forged_registration(name: &str, key: &Signer) -> wire::SourceStatus {
    wire::SourceStatus {
        phase: wire::SourcePhase::Registered.into(),
        source: name.to_owned(),
        public_key: Bytes::copy_from_slice(key.verifier().public_key().as_bytes()),
        roles: vec![SourceRole::Record.into()],
        ..Default::default()
    }
}

/// Entries of a log: the index of the next one.
#[must_use]
pub fn end(log: &Seized) -> u64 {
    count_of(log.records.len())
}

/// Reads the entry of a record.
///
/// # Errors
///
/// When it is malformed.
pub fn entry<T>(record: &Record, read: impl FnOnce(&Entry<'_>) -> T) -> anyhow::Result<T> {
    Ok(read(&Entry::parse(&record.entry)?))
}

/// Another event for the entry at an index, whose digest is made good.
///
/// # Errors
///
/// When there is no such entry.
pub fn replace_event(copy: &mut Seized, index: u64, event: Bytes) -> anyhow::Result<()> {
    let digest = sha256(&event);
    copy.alter(index, |entry| entry.event_digest = digest)?;
    copy.record(index)?.event = Some(event);
    Ok(())
}

/// Seals a batch of one with a key that the operator has.
///
/// # Errors
///
/// When there is no such entry, or no event.
pub fn reseal(copy: &mut Seized, index: u64, key: &Signer) -> anyhow::Result<()> {
    let old = copy.record(index)?.clone();
    let (seq, time) = entry(&old, |entry| (entry.source_seq, entry.recorded_at))?;
    let event = old.event.context("an event")?;
    let records = sealed_records(ORIGIN, key, seq, time, vec![event])?;
    *copy.record(index)? = records.into_iter().next().context("one record")?;
    Ok(())
}

/// An access that no source recorded.
#[must_use]
pub fn invented() -> Bytes {
    access(&mut ChaCha8Rng::seed_from_u64(7))
}

/// A key of the operator's, for whatever name.
///
/// # Errors
///
/// For a name that no key can have.
pub fn own_key(name: &str) -> anyhow::Result<Signer> {
    Ok(Signer::new(name, KeyType::Ed25519, [9; 32])?)
}

/// Time of the last entry.
///
/// # Errors
///
/// When there is none.
pub fn newest_time(copy: &Seized) -> anyhow::Result<u64> {
    entry(copy.records.last().context("a log")?, |entry| entry.recorded_at)
}

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
