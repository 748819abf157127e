//! The tree on the writer's hot path, and what a verifier pays.

use std::hint::black_box;

use access_ledger_proto::{
    hash::{Digest, leaf_hash, node_hash},
    position::Index,
    proof::verify_inclusion,
    tree::Frontier,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Leaves in the tree before anything is measured. Not a power of two: the right edge counts.
const SIZE: u64 = 1_000_003;

fn leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

/// A tree of [`SIZE`] leaves, the last `group` of them recent.
fn grown(group: u64) -> Frontier {
    let mut frontier = Frontier::new();
    for (number, leaf) in (0..SIZE).zip(leaves(SIZE)) {
        if number == SIZE - group {
            frontier.forget();
        }
        frontier.append(leaf);
    }
    frontier
}

fn bench(criterion: &mut Criterion) {
    let mut tree = criterion.benchmark_group("tree");
    for group in [1, 256, 4_096] {
        let leaves = leaves(group);
        let mut frontier = grown(0);
        tree.throughput(Throughput::Elements(group));
        tree.bench_function(BenchmarkId::new("append", format!("group={group}")), |bencher| {
            bencher.iter(|| {
                leaves.iter().for_each(|leaf| frontier.append(*black_box(leaf)));
                frontier.forget();
            });
        });
    }

    tree.throughput(Throughput::Elements(1));
    // What all the others are made of: read them as multiples of it.
    let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
    tree.bench_function("node_hash", |bencher| {
        bencher.iter(|| node_hash(black_box(&left), black_box(&right)));
    });
    let frontier = grown(4_096);
    tree.bench_function(format!("root/size={SIZE}"), |bencher| {
        bencher.iter(|| black_box(&frontier).root());
    });
    tree.bench_function(format!("paths/size={SIZE}"), |bencher| {
        bencher.iter(|| black_box(&frontier).paths().root());
    });
    let paths = frontier.paths();
    let mut indexes = (SIZE - 4_096..SIZE).cycle();
    tree.bench_function(format!("recent_path/size={SIZE}/group=4096"), |bencher| {
        bencher.iter_batched(
            || Index(indexes.next().unwrap_or_default()),
            |index| paths.path(index),
            BatchSize::SmallInput,
        );
    });

    let index = Index(SIZE - 2_048);
    let leaf = leaf_hash(&index.0.to_be_bytes());
    let (path, size, root) =
        (paths.path(index).unwrap_or_default(), frontier.size(), frontier.root());
    assert!(verify_inclusion(index, size, leaf, &path, root).is_ok());
    tree.bench_function(format!("verify_inclusion/size={SIZE}"), |bencher| {
        bencher.iter(|| verify_inclusion(index, size, leaf, black_box(&path), root));
    });
    tree.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
