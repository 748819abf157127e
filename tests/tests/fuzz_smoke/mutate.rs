//! Seeded mutations of samples, and the loop that feeds them to a target.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use access_ledger_tests::fuzz::Target;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const INPUTS: usize = 10_000;

/// Runs a target over mutations of its samples. It takes every sample as it is.
pub(super) fn fuzz(target: &Target) {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let samples = (target.samples)();
    for round in 0..INPUTS {
        let mut input = samples[round % samples.len()].clone();
        // The samples themselves come first.
        for _ in 0..(round / samples.len()).min(1) * rng.random_range(1..5) {
            mutate(&mut input, &samples, &mut rng);
        }
        let taken = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        if taken.map_or(true, |taken| !taken && round < samples.len()) {
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                let _infallible = write!(hex, "{byte:02x}");
                hex
            });
            panic!("{}: FUZZ_SEED={seed}, round {round}, input {hex}", target.name);
        }
    }
}

/// One step away from valid bytes: a bit, a byte, a piece cut out, doubled, moved in from
/// elsewhere.
fn mutate(input: &mut Vec<u8>, samples: &[Vec<u8>], rng: &mut impl Rng) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(0..40)).min(input.len());
    match rng.random_range(0..8) {
        0 | 1 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        2 if at < input.len() => input[at] = EDGES[rng.random_range(0..EDGES.len())],
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let piece = input[at..end].to_vec();
            let to = rng.random_range(0..=input.len());
            drop(input.splice(to..to, piece));
        }
        6 => {
            let other = &samples[rng.random_range(0..samples.len())];
            let from = rng.random_range(0..=other.len());
            let to = (from + rng.random_range(0..80)).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        _ => {
            let bytes: Vec<u8> = (0..rng.random_range(1..12)).map(|_| rng.random()).collect();
            drop(input.splice(at..at, bytes));
        }
    }
}

/// Bytes at which decoders decide.
const EDGES: [u8; 14] = *b"\x00\x01\x7f\x80\xff\n +=A0x\x0a\xe2";
