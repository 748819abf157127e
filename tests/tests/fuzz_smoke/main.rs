//! Everything that takes bytes from outside, against 10,000 mutations of valid bytes: nothing
//! panics, what is accepted comes back byte for byte, and what verifies says what was signed.
//!
//! `FUZZ_SEED=<number>` replays a run; a failure prints the seed and the input. `tests/fuzz` runs
//! the same functions for as long as one likes.

// Marked, so that the lints take their panics as a test's.
#[cfg(test)]
mod mutate;

use std::{collections::BTreeSet, fs, path::Path};

use access_ledger_tests::fuzz::{TARGETS, Target};

use self::mutate::fuzz;

macro_rules! smoke {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(Target::named(stringify!($name)).unwrap());
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

smoke! {
    add_checkpoint
    cedar_policy
    checkpoint
    config
    consistency
    copy
    entry
    event
    event_json
    evidence
    founding
    frame
    genesis
    inclusion
    meta
    note
    principals
    proposal
    public_key
    receipt
    registration
    seal
    segment
    signer
    spool
    tlog_proof
    trust_policy
    view
    vkey
    witness_body
    witness_logs
}

#[test]
fn every_target_is_run_here_and_by_the_fuzzer() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(targets, NAMES.iter().copied().collect());
    let fuzzers = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzzers.join("Cargo.toml")).unwrap();
    for name in &targets {
        let body = fs::read_to_string(fuzzers.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(body.contains(&format!("fuzz::run(\"{name}\", bytes)")), "{name}: {body}");
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name} is no [[bin]]");
    }
    assert_eq!(fs::read_dir(fuzzers.join("fuzz_targets")).unwrap().count(), targets.len());
}

/// For `cargo fuzz`: `FUZZ_CORPUS=<folder>` gets a folder of samples for each target.
#[test]
fn the_samples_make_a_corpus() {
    let temporary = tempfile::tempdir().unwrap();
    let corpus = std::env::var_os("FUZZ_CORPUS");
    let corpus = corpus.as_deref().map_or_else(|| temporary.path(), Path::new);
    for target in TARGETS {
        let folder = corpus.join(target.name);
        target.seed(&folder).unwrap();
        assert!(fs::read_dir(&folder).unwrap().count() >= (target.samples)().len());
    }
}
