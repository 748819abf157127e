//! The index over a log of which a part has rotted: what can be known is answered, and nothing is
//! made up.

use super::*;
use crate::index::start_over;

/// A source that records and nothing else is registered at 1; its events follow, each another one.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(&SOURCES);
    ledger.append(&[(GOVERNANCE, &[status(SourcePhase::Registered, "e")])]);
    (2..22).for_each(|index| ledger.append(&[("e", &[event(index)])]));
    ledger
}

fn event(index: u64) -> Vec<u8> {
    format!("event that is recorded at {index:02}").into_bytes()
}

/// Flips a bit, so many bytes before where these bytes are in the log.
fn flip(ledger: &Ledger, wanted: &[u8], before: usize) {
    for file in fs::read_dir(ledger.folder.path().join("log")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(wanted.len()).position(|some| some == wanted);
        let Some(at) = found.map(|at| at - before) else { continue };
        let file = RealDisk.open(&path, Access::Write).unwrap();
        return file.write_at(&[bytes[at] ^ 1], at as u64).unwrap();
    }
    panic!("not in the log");
}

/// Events that are gone without a record, as far as the index knows.
fn gone(index: &Index) -> usize {
    index.shared.read_fold(|fold| fold.findings.conclude().len())
}

#[test]
fn a_rotten_event_is_one_that_is_gone_until_the_log_was_restored() {
    let ledger = ledger();
    let (index, mut indexer) = ledger.index(4);
    flip(&ledger, &event(7), 0);
    assert!(index.forget(&ledger.reader, &[5..=7], &|| false).unwrap());
    assert_settles(&ledger, &index, &mut indexer);
    assert_eq!(gone(&index), 1);
    drop((index, indexer));
    remove_folder(&ledger.index_folder());
    let (index, mut indexer) = ledger.index(4);
    assert_settles(&ledger, &index, &mut indexer);
    assert_eq!(gone(&index), 1);
    assert_eq!(index.shared.read_fold(|fold| fold.totals.erased), 0);
    drop((index, indexer));

    flip(&ledger, &event(7)[1..], 1);
    let (index, indexer) = ledger.index(4);
    assert_eq!(gone(&index), 1, "what was built stays until it is built again");
    drop((index, indexer));
    start_over(&RealDisk, ledger.folder.path()).unwrap();
    let (index, mut indexer) = ledger.index(4);
    assert_settles(&ledger, &index, &mut indexer);
    assert_eq!(gone(&index), 0);
}

#[test]
fn whoever_starts_over_finds_nothing_of_any_generation() {
    let ledger = ledger();
    start_over(&RealDisk, ledger.folder.path()).unwrap();
    assert!(!ledger.index_folder().exists());
    let (index, indexer) = ledger.index(4);
    assert!(index.forget(&ledger.reader, &[5..=7], &|| false).unwrap());
    drop((index, indexer));
    // Left of one that was cut off.
    fs::create_dir(ledger.index_folder().join("state-2")).unwrap();
    start_over(&RealDisk, ledger.folder.path()).unwrap();
    let current = fs::read_to_string(ledger.index_folder().join("current")).unwrap();
    assert_eq!(current, "3\n");
    let (index, mut indexer) = ledger.index(4);
    assert_settles(&ledger, &index, &mut indexer);
}

#[test]
fn what_the_rules_rest_on_must_be_known() {
    let ledger = ledger();
    flip(&ledger, &status(SourcePhase::Registered, "e"), 0);
    let error = ledger.index_on(Arc::new(RealDisk), 4).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Rotten { index: Place(1) }), "{error}");

    // An own event, which may be erased, but without which the source is unknown.
    let mut enrolled = Ledger::new(&SOURCES);
    enrolled.append(&[("ledger", &[event(1)])]);
    enrolled.append(&[("e", &[event(2)])]);
    flip(&enrolled, &event(1), 0);
    let error = enrolled.index_on(Arc::new(RealDisk), 4).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Rotten { index: Place(1) }), "{error}");
}

#[test]
fn a_damaged_entry_keeps_its_own_block_waiting_and_no_other() {
    let ledger = ledger();
    let (index, mut indexer) = ledger.index(4);
    let whole = ledger.block_files();
    flip(&ledger, &event(6), 1);
    let error = index.forget(&ledger.reader, &[2..=19], &|| false).unwrap_err();
    assert!(error.is_passing(), "{error}");
    settle(&mut indexer).unwrap();
    let (e, at) = (name("e"), |index: u64| index - 1);
    assert_eq!(index.position(e.as_name(), at(18)).unwrap(), Some(Place(18)));
    let waits = index.position(e.as_name(), at(5));
    assert!(matches!(waits, Err(IndexError::Rebuilding { last: Place(7), .. })), "{waits:?}");
    drop((index, indexer));

    flip(&ledger, &event(6), 1);
    let (index, mut indexer) = ledger.index(4);
    assert_settles(&ledger, &index, &mut indexer);
    assert_eq!(ledger.block_files(), whole);
}
