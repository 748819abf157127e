//! What an auditor pays, beside verifying, to know the findings of a log: facts, judgements and
//! findings of every entry.
//!
//! `decoded` is the part that keeps the order of the log, on one core; `records` is all of it, from
//! the bytes of verified records on, on all cores.

use std::hint::black_box;

use access_ledger_client::fold::Fold;
use access_ledger_proto::{
    facts::Noted,
    findings::Findings,
    position::{Index, count_of},
    wire::Event,
};
use access_ledger_tests::generate::generate;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

const ENTRIES: usize = 100_000;

#[expect(clippy::expect_used, reason = "a benchmark without its log is none")]
fn bench(criterion: &mut Criterion) {
    let story = generate(20, ENTRIES).expect("all names are good");
    let records = story.records().expect("lines of a story");
    let decode = |event: &bytes::Bytes| Event::decode(event.clone()).expect("an event");
    let events: Vec<_> = story.lines().iter().map(|line| line.event.as_ref().map(decode)).collect();
    let genesis = story.lines().first().and_then(|line| line.event.clone()).unwrap_or_default();

    let mut group = criterion.benchmark_group("findings");
    group.sample_size(10).throughput(Throughput::Elements(count_of(records.len())));
    group.bench_function(format!("decoded/threads=1/entries={ENTRIES}"), |bencher| {
        bencher.iter(|| {
            let mut fold = Findings::from_genesis(&genesis).expect("a genesis");
            let mut found = Vec::new();
            let lines = story.lines().iter().zip(&events).zip((0..).map(Index));
            for ((line, event), index) in lines.skip(1) {
                let (source, recorded_at) = (line.source.as_name(), line.recorded_at);
                match event {
                    Some(event) => {
                        let noted = Noted { index, recorded_at, source, event };
                        black_box(fold.take(&noted, &mut found));
                    }
                    None => fold.missing(index, recorded_at, source, &mut found),
                }
            }
            found.len()
        });
    });
    let cores = cores();
    group.bench_function(format!("records/threads={cores}/entries={ENTRIES}"), |bencher| {
        bencher.iter(|| {
            let (mut fold, mut found) = (Fold::new(), 0);
            let taken = fold.take(Index::GENESIS, &records, |seen| found += seen.findings.len());
            taken.expect("records of a log");
            found
        });
    });
    group.finish();
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

criterion_group!(benches, bench);
criterion_main!(benches);
