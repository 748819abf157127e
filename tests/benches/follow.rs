//! What a server pays to know facts, findings, postings and rollups of a log, built from nothing;
//! and what it answers from them.
//!
//! Expected: 300,000 entries a second and more on two cores, of which one folds while the other
//! reads, decodes and posts; reports in some milliseconds, since they read cells of days and
//! months.
//!
//! Run: `cargo bench -p access-ledger-tests --bench follow`

use std::hint::black_box;

use access_ledger_client::reports::{Day, Options, Period, Report};
use access_ledger_proto::position::count_of;
use access_ledger_server::index::{self, FindingFilter};
use access_ledger_tests::{generate::generate, stored::Stored};
use anyhow::Context as _;
use criterion::{BatchSize, Criterion, Throughput};

const ENTRIES: usize = 200_000;

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let story = generate(20, ENTRIES)?;
    let mut stored = Stored::new()?;
    stored.append(&story.records()?)?;
    let day = |line: Option<&access_ledger_tests::story::Line>| -> anyhow::Result<Day> {
        Ok(Day::of(line.context("an empty story")?.recorded_at))
    };
    let (first, last) = (day(story.lines().first())?, day(story.lines().last())?);
    let period = Period::new(first, Day(last.0 + 1))?;
    let days = period.days().len();
    drop(story);

    let mut group = criterion.benchmark_group("follow");
    let block_entries = index::Options::BLOCK_ENTRIES;
    group.sample_size(10).throughput(Throughput::Elements(count_of(ENTRIES)));
    group.bench_function(format!("build/entries={ENTRIES}/days={days}"), |bencher| {
        let folder = stored.folder().join("index");
        let forget = || std::fs::remove_dir_all(&folder);
        bencher.iter_batched(
            forget,
            |_| stored.index(block_entries).is_ok(),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1));
    let (index, _indexer) = stored.index(block_entries)?;
    for report in Report::ALL {
        let options = Options { period, subject: Some(vec![7; 16]), with_staff: false };
        // More rows than a server tells one by one are a report, too.
        group.bench_function(format!("report={report}/entries={ENTRIES}/days={days}"), |bencher| {
            bencher.iter(|| index.report(&stored.reader, report, black_box(&options)).is_ok());
        });
    }
    group.bench_function(format!("findings/page=1000/entries={ENTRIES}"), |bencher| {
        let filter = FindingFilter::default();
        bencher.iter(|| index.list_findings(black_box(&filter), 0, 1_000).is_ok());
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
