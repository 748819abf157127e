//! The index: building it from nothing, and the first page of queries over a log of ten million.
//!
//! Expected: 300,000 entries a second built with all fields, facts and findings, since decoding and
//! looking up twenty terms takes some microseconds, on two cores; tens of microseconds to find an
//! entry by its number, a few reads of cached files; a first page under 10 ms, whatever is asked:
//! at most two bitmaps for each of the log's 153 chunks, and an event that is read for each hit.
//!
//! Run: `cargo bench -p access-ledger-server --bench index`. It writes a log of 10 million entries
//! (7 GB) once. As a test (`-- --test`) a hundredth of that.

use std::{fs, hint::black_box, path::Path, sync::Arc, time::Duration};

use access_ledger_proto::{
    chain::Link,
    entry::Seal,
    hash::{Digest, sha256},
    note::{KeyId, KeyType, Signer},
    policy::Policy,
    position::{Index as Place, Size, count_of},
    seal::Batch,
    source::SourceName,
    terms::Criteria,
    wire::{self, Filter, event::Body},
};
use access_ledger_server::{
    index::{self, Index, Options, Search},
    os::RealDisk,
    storage::{self, LogReader, Opened},
};
use anyhow::{Context as _, Result};
use criterion::{BatchSize, Criterion, Throughput};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use prost_types::Timestamp;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::time::Instant;

fn main() -> Result<()> {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let scale = if is_test { 100 } else { 1 };
    let mut criterion = Criterion::default().configure_from_args();
    build(&mut criterion, BUILD_ENTRIES / scale)?;
    ask(&mut criterion, QUERY_ENTRIES / scale)?;
    criterion.final_summary();
    Ok(())
}

/// From nothing, from what is there, and by number.
fn build(criterion: &mut Criterion, entries: u64) -> Result<()> {
    let (folder, reader) = written_log(entries)?;
    let options = Options::new(folder.path(), ORIGIN);
    let open = || index::open(Arc::new(RealDisk), &options, reader.clone());
    let parameters = format!("entries={entries}/batch={BATCH}/sources={SOURCES}");
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(entries));
    group.bench_function(format!("build/{parameters}"), |bencher| {
        let forget = || fs::remove_dir_all(folder.path().join("index"));
        bencher.iter_batched(forget, |_| open().is_ok(), BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("open/{parameters}"), |bencher| {
        bencher.iter(|| open().is_ok());
    });
    let (index, indexer) = open()?;
    let names: Vec<SourceName> =
        (0..SOURCES).map(|number| SourceName::parse(&source(number))).collect::<Result<_, _>>()?;
    let last = indexer.sequences();
    let mut random = ChaCha8Rng::seed_from_u64(1);
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
    Ok(())
}

/// The first page of some queries.
#[expect(clippy::print_stderr, reason = "what it took to get there is a result, too")]
fn ask(criterion: &mut Criterion, entries: u64) -> Result<()> {
    let (folder, reader) = written_log(entries)?;
    let options = Options::new(folder.path(), ORIGIN);
    let started = Instant::now();
    let (index, _indexer) = index::open(Arc::new(RealDisk), &options, reader.clone())?;
    let seconds = started.elapsed().as_secs_f64();
    let bytes = folder_bytes(&folder.path().join("index/blocks"))?;
    eprintln!(
        "built {entries} entries at {:.0} a second, {:.1} bytes of postings an entry",
        entries as f64 / seconds,
        bytes as f64 / entries as f64
    );
    let mut group = criterion.benchmark_group("query");
    group.sample_size(20);
    for (name, filter) in filters(entries) {
        let criteria = Criteria::parse(&filter)?;
        for newest_first in [true, false] {
            let order = if newest_first { "newest" } else { "oldest" };
            let id = format!("{name}/order={order}/page=100/entries={entries}");
            group.bench_function(id, |bencher| {
                bencher.iter(|| first_page(&index, &reader, &criteria, newest_first).is_ok());
            });
        }
    }
    group.finish();
    Ok(())
}

fn first_page(
    index: &Index,
    reader: &LogReader,
    criteria: &Criteria,
    newest_first: bool,
) -> Result<usize> {
    let range = Place::GENESIS..index.indexed_size().next_index();
    let search = Search { criteria, by_rule: None, range, newest_first, hits_max: 100 };
    let hits = index.search(reader, black_box(&search))?;
    for &hit in &hits.indexes {
        black_box(reader.read(hit, 1, 1)?);
    }
    Ok(hits.indexes.len())
}

/// From what nearly all entries have to what one has, or none.
fn filters(entries: u64) -> Vec<(&'static str, Filter)> {
    let one = |text: String| vec![text];
    let middle = |share| Some(Timestamp { seconds: seconds_of(entries * share / 10), nanos: 0 });
    let mut random = ChaCha8Rng::seed_from_u64(u64::from(SEED));
    let token = subject_token(random.random_range(0..SUBJECTS));
    let (actor, dataset) = (format!("u-{}", 4_242), format!("accounts.{}", 17));
    vec![
        ("common", Filter { bodies: one("access".into()), ..Default::default() }),
        ("rare-pair", Filter { actors: one(actor), datasets: one(dataset), ..Default::default() }),
        ("subject", Filter { subject_tokens: vec![token.to_vec().into()], ..Default::default() }),
        (
            "event-id",
            Filter { event_ids: vec![event_id(entries / 2).into()], ..Default::default() },
        ),
        (
            // Both everywhere, and never together: all chunks of both are read.
            "never-together",
            Filter { actions: vec![1], outcomes: vec![6], ..Default::default() },
        ),
        (
            "time-and-country",
            Filter {
                physical_countries: one("SG".into()),
                from: middle(4),
                to: middle(6),
                ..Default::default()
            },
        ),
    ]
}

/// A log of batches from sources in turn, whose seals nobody checks.
fn written_log(entries: u64) -> Result<(TempDir, LogReader)> {
    let folder = tempfile::tempdir()?;
    let options = storage::Options::new(folder.path(), ORIGIN);
    let Opened { mut log, reader, tree, mut frontier, mut link, .. } =
        storage::open(Arc::new(RealDisk), &options, None)?;
    let names: Vec<SourceName> =
        (0..SOURCES).map(|number| SourceName::parse(&source(number))).collect::<Result<_, _>>()?;
    let mut append = |link: &mut Link, batch: &Batch<'_>, events: &[Vec<u8>]| -> Result<()> {
        let mut group = log.group();
        let seal = Seal { count: batch.count()?, key_id: KeyId([0; 4]), signature: [0; 64] };
        let mut events = events.iter();
        let recorded_at = u64::try_from(seconds_of(link.size.0))? * 1_000_000_000;
        link.extend(batch, recorded_at, seal, |entry, leaf| {
            group.push(entry, events.next().map_or(&[], Vec::as_slice));
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
    append(&mut link, &first, &[genesis])?;
    let mut last = vec![0; names.len()];
    *last.first_mut().context("no sources")? = 1;
    let (mut at, mut random) = (0, ChaCha8Rng::seed_from_u64(u64::from(SEED)));
    while link.size < Size(entries) {
        let (name, last) = (names.get(at), last.get_mut(at));
        let (name, last) = name.zip(last).context("no such source")?;
        let count = usize::try_from(entries - link.size.0)?.min(BATCH);
        let indexes = link.size.0..link.size.0 + count_of(count);
        let events: Vec<_> = indexes.map(|index| event(index, &mut random)).collect();
        let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
        let batch = Batch { source: name.as_name(), first_seq: *last + 1, digests: &digests };
        append(&mut link, &batch, &events)?;
        *last += count_of(count);
        at = (at + 1) % names.len();
    }
    Ok((folder, reader))
}

/// An access like those of a large company, with some twenty terms.
fn event(index: u64, random: &mut ChaCha8Rng) -> Vec<u8> {
    let token = subject_token(random.random_range(0..SUBJECTS));
    let action = random.random_range(1..=9);
    let data = wire::Data {
        datastore_type: "mysql".to_owned(),
        dataset: format!("accounts.{}", random.random_range(0..500)),
        region: format!("region-{}", random.random_range(0..4)),
        subject_jurisdiction: one_of(["US", "IE", "DE", "FR"], random),
        boundary: wire::Boundary::Public.into(),
        categories: vec![random.random_range(1..=12)],
        subject_tokens: vec![token.to_vec().into()],
        records: 1,
        ..Default::default()
    };
    let access = wire::Access {
        action,
        data: vec![data],
        purpose: random.random_range(1..=16),
        justification: "looks into what the customer reported".to_owned(),
        // 6 with all actions but 1.
        outcome: if action > 1 && index.is_multiple_of(7) { 6 } else { 2 },
        records: 1,
        ..Default::default()
    };
    let actor = wire::Principal {
        id: format!("u-{}", random.random_range(0..5_000)),
        entity: format!("entity-{}", random.random_range(0..3)),
        entity_country: "US".to_owned(),
        office_country: one_of(["US", "US", "SG", "IE"], random),
        physical_country: one_of(["US", "US", "SG", "IE"], random),
        ..Default::default()
    };
    let tool = format!("tool-{}", random.random_range(0..50));
    wire::Event {
        event_id: event_id(index).into(),
        occurred_at: Some(Timestamp { seconds: seconds_of(index), nanos: 0 }),
        tool: Some(wire::Tool { id: tool, ..Default::default() }),
        actor: Some(actor),
        body: Some(Body::Access(access)),
        ..Default::default()
    }
    .encode_to_vec()
}

fn one_of(words: [&str; 4], random: &mut ChaCha8Rng) -> String {
    words.get(random.random_range(0..words.len())).copied().unwrap_or_default().to_owned()
}

/// As random as the ids of real events.
fn event_id(index: u64) -> Vec<u8> {
    sha256(&index.to_be_bytes()).as_ref().iter().take(16).copied().collect()
}

fn subject_token(subject: u64) -> [u8; 16] {
    let mut token = [0; 16];
    let digest = sha256(&[b"subject".as_slice(), &subject.to_be_bytes()].concat());
    token.iter_mut().zip(digest.as_ref()).for_each(|(byte, digest)| *byte = *digest);
    token
}

/// A thousand entries a second.
fn seconds_of(index: u64) -> i64 {
    1_760_000_000_i64.saturating_add_unsigned(index / 1_000)
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
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
        policy: Policy::DEFAULT.to_owned(),
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

const SEED: u8 = 3;

const BUILD_ENTRIES: u64 = 1_000_000;

const QUERY_ENTRIES: u64 = 10_000_000;

/// Persons whose data is accessed.
const SUBJECTS: u64 = 2_000_000;

const SOURCES: u8 = 16;

const BATCH: usize = 256;
