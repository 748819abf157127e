//! The index on a log of a million entries: building it from nothing, and finding entries.
//!
//! Expected: a million entries a second built, since each costs a copy, two checksums and a parse;
//! tens of microseconds to find one, since that is a few reads from cached files.
//!
//! Run: `cargo bench -p access-ledger-server --bench index`

use std::{hint::black_box, sync::Arc, time::Duration};

use access_ledger_proto::{
    chain::Link,
    entry::Seal,
    hash::{Digest, sha256},
    note::{KeyId, KeyType, Signer},
    position::{Size, count_of},
    seal::Batch,
    source::SourceName,
    wire::{self, event::Body},
};
use access_ledger_server::{
    index::{self, Options},
    os::RealDisk,
    storage::{self, LogReader, Opened},
};
use anyhow::{Context as _, Result};
use criterion::{BatchSize, Criterion, Throughput};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let (folder, reader) = million_entries()?;
    let options = Options::new(folder.path(), ORIGIN);
    let open = || index::open(Arc::new(RealDisk), &options, reader.clone());

    let parameters = format!("entries={ENTRIES}/batch={BATCH}/sources={SOURCES}/bytes={EVENT_LEN}");
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function(format!("build/{parameters}"), |bencher| {
        let forget = || std::fs::remove_dir_all(folder.path().join("index"));
        bencher.iter_batched(forget, |_| open().is_ok(), BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("open/{parameters}"), |bencher| {
        bencher.iter(|| open().is_ok());
    });

    let (index, indexer) = open()?;
    let names: Vec<SourceName> =
        indexer.authority().facts().sources().iter().map(|source| source.name.clone()).collect();
    let last = indexer.sequences();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for (age, share) in [("any", 1), ("newest", 64)] {
        group.bench_function(format!("position/age={age}/{parameters}"), |bencher| {
            bencher.iter(|| {
                let name = names.get(random.random_range(0..names.len()));
                let name = name.map_or_else(|| names.first(), Some).map(SourceName::as_name);
                let last = name.map_or(0, |name| last.last(name));
                let number = random.random_range(last - last / share..=last);
                name.map(|name| index.position(black_box(name), number).is_ok())
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// A log of batches from sources in turn, whose seals nobody checks.
fn million_entries() -> Result<(TempDir, LogReader)> {
    let folder = tempfile::tempdir()?;
    let options = storage::Options::new(folder.path(), ORIGIN);
    let Opened { mut log, reader, tree, mut frontier, mut link, .. } =
        storage::open(Arc::new(RealDisk), &options, None)?;
    let names: Vec<SourceName> =
        (0..SOURCES).map(|number| SourceName::parse(&source(number))).collect::<Result<_, _>>()?;
    let event = vec![0; EVENT_LEN];
    let digests = vec![sha256(&event); BATCH];
    let mut append = |link: &mut Link, batch: &Batch<'_>, event: &[u8]| -> Result<()> {
        let mut group = log.group();
        let seal = Seal { count: batch.count()?, key_id: KeyId([0; 4]), signature: [0; 64] };
        link.extend(batch, 1, seal, |entry, leaf| {
            group.push(entry, event);
            frontier.append(leaf);
        })?;
        let _durable = log.commit(group)?;
        tree.append(&frontier)?;
        frontier.forget();
        Ok(())
    };
    let genesis = genesis()?;
    let ledger = names.first().context("no sources")?.as_name();
    let first = Batch { source: ledger, first_seq: 1, digests: &[sha256(&genesis)] };
    append(&mut link, &first, &genesis)?;
    let mut last = vec![0; names.len()];
    *last.first_mut().context("no sources")? = 1;
    let mut at = 0;
    while link.size < Size(ENTRIES) {
        let (name, last) = (names.get(at), last.get_mut(at));
        let (name, last) = name.zip(last).context("no such source")?;
        let left = usize::try_from(ENTRIES - link.size.0)?.min(BATCH);
        let digests: &[Digest] = digests.get(..left).context("no digests")?;
        append(
            &mut link,
            &Batch { source: name.as_name(), first_seq: *last + 1, digests },
            &event,
        )?;
        *last += count_of(left);
        at = (at + 1) % names.len();
    }
    Ok((folder, reader))
}

fn source(number: u8) -> String {
    format!("service-{number:02}/replica")
}

/// The ledger's source, and governance, which may record without being registered first.
fn genesis() -> Result<Vec<u8>> {
    let initial = |number: u8| {
        let key = SigningKey::from_bytes(&[number + 1; 32]).verifying_key();
        wire::InitialSource { name: source(number), public_key: key.as_bytes().to_vec().into() }
    };
    let ledger = Signer::new(ORIGIN, KeyType::Ed25519, [0; 32])?;
    let content = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: ledger.verifier().to_string(),
        ledger_source: Some(initial(0)),
        governance: (1..SOURCES).map(initial).collect(),
        self_enrolment: false,
        policy: String::new(),
    };
    let change = wire::ControlChange {
        kind: wire::ControlKind::Genesis.into(),
        content: content.encode_to_vec().into(),
        ..Default::default()
    };
    let event = wire::Event { body: Some(Body::ControlChange(change)), ..Default::default() };
    Ok(event.encode_to_vec())
}

const ORIGIN: &str = "ledger.example/bench";

const ENTRIES: u64 = 1_000_000;

const SOURCES: u8 = 16;

const BATCH: usize = 256;

const EVENT_LEN: usize = 320;
