//! What a report costs: computed again from verified records, on all cores; and its table from day
//! cells of a year, which is what a server does.

use access_ledger_client::{
    audit::Observer as _,
    fold::Fold,
    reports::{Cells, Day, Options, Period, Recomputed, Report, Reports, observe},
};
use access_ledger_proto::position::{Index, count_of};
use access_ledger_tests::generate::generate;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: usize = 100_000;

/// Records a call, as many as a pulled message holds of short events.
const RUN: usize = 4_096;

#[expect(clippy::expect_used, reason = "a benchmark without its log is none")]
fn bench(criterion: &mut Criterion) {
    let story = generate(20, ENTRIES).expect("all names are good");
    let records = story.records().expect("lines of a story");
    let ends = [story.lines().first(), story.lines().last()];
    let [first, last] = ends.map(|line| Day::of(line.map_or(0, |line| line.recorded_at)));
    let period = Period::new(first, Day(last.0 + 1)).expect("the log's days");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);

    let mut group = criterion.benchmark_group("reports");
    group.sample_size(10).throughput(Throughput::Elements(count_of(records.len())));
    for report in [Report::CrossRegion, Report::Unapproved, Report::Flows, Report::Sources] {
        let options = Options { period, subject: None, with_staff: false };
        let id = format!("recomputed/report={report}/threads={cores}/entries={ENTRIES}");
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                || Recomputed::new(report, options.clone()),
                |mut recomputed| {
                    for (run, first) in records.chunks(RUN).zip((0_u64..).step_by(RUN)) {
                        recomputed.take(Index(first), run);
                    }
                    recomputed.table().expect("a whole log").rows.len()
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();

    let mut cells = Cells::default();
    let mut fold = Fold::new();
    let taken = fold.take(Index::GENESIS, &records, |observation| {
        observe(&mut cells, Reports::ALL, observation);
    });
    taken.expect("records of a log");
    let stored: Vec<_> =
        cells.drain().into_iter().map(|(key, cell)| (key, cell.encode())).collect();
    let mut group = criterion.benchmark_group("cells");
    group.throughput(Throughput::Elements(count_of(stored.len())));
    group.bench_function(format!("parsed and added up/cells={}", stored.len()), |bencher| {
        bencher.iter(|| {
            let mut cells = Cells::default();
            for (key, cell) in &stored {
                let cell = access_ledger_client::reports::Cell::parse(cell).expect("a cell");
                cells.add(key.clone(), &cell);
            }
            cells.len()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
