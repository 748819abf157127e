//! Honest logs verify however they are cut; every kind of tampering gives its violation and index.

use access_ledger_proto::{
    entry::Entry,
    error::{SealError, SourceError},
    hash::sha256,
    note::{KeyId, KeyType, Signer},
    source::SourceName,
    wire::SourceRole,
};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::{
    honest::{CUSTODIAN, GOVERNANCE, Honest, LEDGER, access},
    *,
};

/// The registrations of `a` and `b` are at 1 and 2, a batch of `a` at 3 to 6, one of `b` at 7 to 9,
/// one of `a` at 10 to 11.
fn log() -> Honest {
    let mut ledger = Honest::new();
    ledger.register("a");
    ledger.register("b");
    ledger.record("a", 4);
    ledger.record("b", 3);
    ledger.record("a", 2);
    ledger
}

fn runs(records: &[Record], from: usize, run_len: usize) -> Vec<(Index, Vec<Record>)> {
    let starts = (from..).step_by(run_len);
    let chunks = records[from..].chunks(run_len);
    starts.zip(chunks).map(|(start, chunk)| (Index(count_of(start)), chunk.to_vec())).collect()
}

fn audit_with(
    ledger: &Honest,
    scope: Scope,
    run_len: usize,
    runs_a_call: usize,
) -> Result<LogVerifier, Violation> {
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), scope);
    let runs = runs(&ledger.records, 0, run_len);
    for window in runs.chunks(runs_a_call) {
        verifier.advance(window.to_vec())?;
    }
    verifier.finish(&ledger.checkpoint())?;
    Ok(verifier)
}

/// The violation, which must not depend on how the log was cut into runs.
fn caught(ledger: &Honest) -> (u64, Fault) {
    let violations = [(1, 1), (3, 2), (100, 1)].map(|(run_len, runs_a_call)| {
        let violation = audit_with(ledger, Scope::Events, run_len, runs_a_call).unwrap_err();
        assert!(violation.to_string().starts_with(&format!("at index {}, ", violation.index)));
        (violation.index.0, violation.what)
    });
    assert!(violations.iter().all(|violation| violation == &violations[0]), "{violations:?}");
    let [first, ..] = violations;
    first
}

/// What the entries alone tell.
fn caught_by_entries(ledger: &Honest) -> Option<u64> {
    audit_with(ledger, Scope::EntriesOnly, 2, 2).err().map(|violation| violation.index.0)
}

fn name(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

fn leaf(ledger: &Honest, at: usize) -> Digest {
    access_ledger_proto::hash::leaf_hash(&ledger.records[at].entry)
}

fn gap(source: &str, found: u64, expected: u64) -> Fault {
    Fault::Sequence(SequenceGap { name: name(source), found, expected })
}

#[test]
fn an_honest_log_verifies_and_is_summed_up() {
    let ledger = log();
    let verifier = audit_with(&ledger, Scope::Events, 5, 2).unwrap();
    let totals = verifier.totals();
    assert_eq!((totals.batches, totals.seals_checked, totals.events_erased), (6, 6, 0));
    assert_eq!((totals.first_recorded_at, verifier.recorded_at()), (1_000, 6_000));
    let last: Vec<_> =
        verifier.sequences().iter().map(|(name, last)| (name.as_str(), last)).collect();
    assert_eq!(last, [("a", 6), ("b", 3), (GOVERNANCE, 2), (LEDGER, 1)]);
    assert_eq!(verifier.sources().unwrap().iter().count(), 5);
    let entries = audit_with(&ledger, Scope::EntriesOnly, 5, 2).unwrap();
    assert_eq!((entries.totals().batches, entries.totals().seals_checked), (6, 0));
}

#[test]
fn an_empty_log_verifies() {
    let mut ledger = log();
    ledger.records.clear();
    assert!(audit_with(&ledger, Scope::Events, 1, 1).is_ok());
}

#[test]
fn a_flipped_byte_of_an_event_is_caught_there() {
    let mut ledger = log();
    let mut event = ledger.records[5].event.clone().unwrap().to_vec();
    let recorded = sha256(&event);
    event[20] ^= 1;
    let computed = sha256(&event);
    ledger.records[5].event = Some(event.into());
    assert_eq!(caught(&ledger), (5, Fault::EventDigest { computed, recorded }));
    assert_eq!(caught_by_entries(&ledger), None);
}

#[test]
fn a_flipped_link_is_caught_with_what_was_computed() {
    let mut ledger = log();
    let found = sha256(b"flipped");
    ledger.alter(8, |entry| entry.prev = found);
    let computed = leaf(&ledger, 7);
    assert_eq!(caught(&ledger), (8, Fault::Link { found, computed }));
    assert_eq!(caught_by_entries(&ledger), Some(8));
    let violation = audit_with(&ledger, Scope::Events, 100, 1).unwrap_err();
    assert_eq!(
        violation.to_string(),
        format!("at index 8, the link is {found}, computed {computed}")
    );
    let evidence = access_ledger_proto::wire::EntryRun::decode(&*violation.evidence).unwrap();
    assert_eq!(evidence.first_index, 7);
    assert_eq!(evidence.entries, [&ledger.records[7].entry, &ledger.records[8].entry]);
    // Of the neighbour no event: who erases that one looks for it under its own index.
    let own = ledger.records[8].event.clone().unwrap();
    assert_eq!(evidence.events, [Bytes::new(), own]);
}

#[test]
fn any_flipped_byte_of_any_entry_is_caught_there_or_right_behind() {
    let honest = log();
    for at in 0..honest.records.len() {
        for byte in 0..honest.records[at].entry.len() {
            let mut ledger = log();
            let mut entry = ledger.records[at].entry.to_vec();
            entry[byte] ^= 1;
            ledger.records[at].entry = entry.into();
            let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
            let violation = verifier
                .advance(runs(&ledger.records, 0, 4))
                .and_then(|()| verifier.finish(&honest.checkpoint()))
                .unwrap_err();
            let expected = [count_of(at), count_of(at) + 1, 11];
            assert!(expected.contains(&violation.index.0), "byte {byte} of {at}: {violation}");
        }
    }
}

#[test]
fn a_dropped_entry_is_caught_at_its_place() {
    let mut ledger = log();
    ledger.records.remove(5);
    assert_eq!(caught(&ledger), (5, Fault::Index { found: Index(6) }));
}

#[test]
fn dropping_an_event_of_a_batch_leaves_a_gap_even_when_rechained_and_signed_again() {
    let mut ledger = log();
    ledger.records.remove(5);
    ledger.rechain();
    assert_eq!(caught(&ledger), (5, gap("a", 4, 3)));
    // The last of a batch: the seal goes with it, and another source's entry follows.
    let mut ledger = log();
    ledger.records.remove(6);
    ledger.rechain();
    assert_eq!(caught(&ledger), (6, Fault::Interrupted { found: name("b"), open: name("a") }));
    // A whole batch: the source's next one does not go on.
    let mut ledger = log();
    ledger.records.drain(3..=6);
    ledger.rechain();
    assert_eq!(caught(&ledger), (6, gap("a", 5, 1)));
    assert_eq!(caught_by_entries(&ledger), Some(6));
}

#[test]
fn renumbering_around_a_dropped_event_breaks_the_seal() {
    let mut ledger = log();
    ledger.records.remove(5);
    ledger.alter(5, |entry| entry.source_seq = 3);
    ledger.rechain();
    assert_eq!(caught(&ledger), (5, Fault::Seal(SealError::Covers { found: 4, wanted: 3 })));
    ledger.alter(5, |entry| entry.seal.as_mut().unwrap().count = 3);
    ledger.rechain();
    assert_eq!(caught(&ledger), (5, Fault::Seal(SealError::Signature)));
    assert_eq!(caught_by_entries(&ledger), Some(9), "the next batch of the source");
}

#[test]
fn a_deleted_end_is_caught_by_the_signed_root_or_the_open_batch() {
    let mut ledger = log();
    let signed = ledger.checkpoint();
    ledger.records.truncate(10);
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
    verifier.advance(runs(&ledger.records, 0, 4)).unwrap();
    let violation = verifier.finish(&signed).unwrap_err();
    assert_eq!(violation.index, Index(11));
    assert!(matches!(violation.what, Fault::Root { .. }));
    // Signed again, inside a batch.
    let mut ledger = log();
    ledger.records.pop();
    assert_eq!(caught(&ledger), (10, Fault::Unsealed { size: Size(11) }));
}

#[test]
fn swapped_entries_are_caught_as_served_and_as_rechained() {
    let mut ledger = log();
    ledger.records.swap(4, 5);
    assert_eq!(caught(&ledger), (4, Fault::Index { found: Index(5) }));
    ledger.rechain();
    assert_eq!(caught(&ledger), (4, gap("a", 3, 2)));
    ledger.alter(4, |entry| entry.source_seq = 2);
    ledger.alter(5, |entry| entry.source_seq = 3);
    ledger.rechain();
    assert_eq!(caught(&ledger), (6, Fault::Seal(SealError::Signature)));
}

#[test]
fn swapped_batches_of_one_source_are_a_gap() {
    let mut ledger = Honest::new();
    ledger.register("a");
    ledger.record("a", 2);
    ledger.record("a", 2);
    ledger.records.swap(2, 4);
    ledger.records.swap(3, 5);
    ledger.rechain();
    assert_eq!(caught(&ledger), (2, gap("a", 3, 1)));
}

#[test]
fn a_replaced_event_breaks_its_source_seal() {
    let mut ledger = log();
    let forged = access(77);
    ledger.alter(8, |entry| entry.event_digest = sha256(&forged));
    ledger.records[8].event = Some(forged);
    ledger.rechain();
    assert_eq!(caught(&ledger), (9, Fault::Seal(SealError::Signature)));
    let violation = audit_with(&ledger, Scope::Events, 100, 1).unwrap_err();
    let evidence = access_ledger_proto::wire::EntryRun::decode(&*violation.evidence).unwrap();
    assert_eq!(evidence.entries, [&ledger.records[9].entry]);
}

#[test]
fn backdating_is_caught() {
    let mut ledger = log();
    for at in 7..=9 {
        ledger.alter(at, |entry| entry.recorded_at = 2);
    }
    ledger.rechain();
    assert_eq!(caught(&ledger), (7, Fault::Time { found: 2, before: 4_000 }));
    assert_eq!(caught_by_entries(&ledger), Some(7));
}

#[test]
fn forged_sources_and_keys_are_caught() {
    // Nobody registered `c`.
    let mut ledger = log();
    ledger.record("c", 2);
    assert_eq!(caught(&ledger), (13, Fault::Source(SourceError::Unknown { name: name("c") })));
    // The operator seals with a key of its own and names it.
    let mut ledger = log();
    ledger.alter(9, |entry| entry.seal.as_mut().unwrap().key_id = KeyId([1, 2, 3, 4]));
    ledger.rechain();
    assert_eq!(caught(&ledger), (9, Fault::Source(SourceError::Key { name: name("b") })));
    // The operator seals with a key of its own under the registered key's id.
    let mut ledger = log();
    ledger.alter(9, |entry| entry.seal.as_mut().unwrap().signature = [7; 64]);
    ledger.rechain();
    assert_eq!(caught(&ledger), (9, Fault::Seal(SealError::Signature)));
    // A source registers another without the role.
    let mut ledger = log();
    let registration = ledger.records[1].event.clone().unwrap();
    ledger.batch("a", vec![registration]);
    assert!(matches!(caught(&ledger), (12, Fault::Source(_))));
}

#[test]
fn what_changes_the_rules_stands_alone_in_its_batch() {
    let mut ledger = log();
    let registration = ledger.records[1].event.clone().unwrap();
    ledger.batch(GOVERNANCE, vec![access(1), registration]);
    assert_eq!(caught(&ledger), (13, Fault::Source(SourceError::Alone)));
}

#[test]
fn a_replayed_batch_is_a_reused_number() {
    let mut ledger = log();
    let replayed = ledger.records[7..=9].to_vec();
    ledger.records.extend(replayed);
    ledger.rechain();
    assert!(matches!(caught(&ledger), (12, Fault::Time { .. })));
    for at in 12..=14 {
        ledger.alter(at, |entry| entry.recorded_at = 6_000);
    }
    ledger.rechain();
    assert_eq!(caught(&ledger), (12, gap("b", 1, 4)));
    for (at, seq) in (12..=14).zip(4..) {
        ledger.alter(at, |entry| entry.source_seq = seq);
    }
    ledger.rechain();
    assert_eq!(caught(&ledger), (14, Fault::Seal(SealError::Signature)));
}

#[test]
fn merged_and_split_batches_break_the_seal() {
    let mut ledger = Honest::new();
    ledger.register("a");
    ledger.record("a", 2);
    ledger.record("a", 2);
    ledger.alter(3, |entry| entry.seal = None);
    ledger.rechain();
    assert_eq!(caught(&ledger), (5, Fault::Seal(SealError::Covers { found: 2, wanted: 4 })));
    ledger.alter(5, |entry| entry.seal.as_mut().unwrap().count = 4);
    ledger.rechain();
    assert_eq!(caught(&ledger), (5, Fault::Seal(SealError::Signature)));

    let mut ledger = log();
    let seal = Entry::parse(&ledger.records[6].entry).unwrap().seal.unwrap();
    ledger.alter(4, |entry| entry.seal = Some(Seal { count: 2, ..seal }));
    ledger.rechain();
    // The seal at 6 covers the wrong number too; the earlier violation is told.
    assert_eq!(caught(&ledger), (4, Fault::Seal(SealError::Signature)));
}

#[test]
fn a_batch_without_end_is_caught_at_the_limit() {
    let mut ledger = Honest::new();
    ledger.register("a");
    ledger.record("a", 4_000);
    ledger.record("a", 200);
    ledger.alter(4_001, |entry| entry.seal = None);
    ledger.rechain();
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
    let violation = verifier.advance(runs(&ledger.records, 0, 1_000)).unwrap_err();
    assert_eq!(violation.index, Index(2 + 4_096));
    assert!(matches!(violation.what, Fault::Seal(SealError::Count { .. })));
}

#[test]
fn a_foreign_missing_or_erased_genesis_is_caught() {
    let pinned = Honest::with_key(9);
    let mut ledger = log();
    let mut verifier = LogVerifier::new(pinned.signer.verifier(), Scope::Events);
    // Further on the pinned key might have taken the place of the genesis' one.
    verifier.advance(runs(&ledger.records, 0, 4)).unwrap();
    let violation = verifier.conclude().unwrap_err();
    assert_eq!(violation.index, Index(0));
    assert!(matches!(violation.what, Fault::ForeignGenesis { .. }));

    ledger.records[0].event = None;
    assert_eq!(caught(&ledger), (0, Fault::Genesis(SourceError::Genesis)));
    let forged = access(0);
    ledger.alter(0, |entry| entry.event_digest = sha256(&forged));
    ledger.records[0].event = Some(forged);
    ledger.rechain();
    assert_eq!(caught(&ledger), (0, Fault::Genesis(SourceError::Genesis)));
    // A second genesis further on.
    let mut ledger = log();
    let genesis = ledger.records[0].event.clone().unwrap();
    ledger.batch(GOVERNANCE, vec![genesis]);
    assert_eq!(caught(&ledger), (12, Fault::Source(SourceError::Genesis)));
}

#[test]
fn an_erased_event_needs_a_record_of_governance() {
    let mut ledger = log();
    ledger.records[4].event = None;
    ledger.records[5].event = None;
    assert_eq!(caught(&ledger), (4, Fault::ErasedWithoutRecord));
    ledger.redact(GOVERNANCE, CUSTODIAN, 4, 4);
    assert_eq!(caught(&ledger), (5, Fault::ErasedWithoutRecord));
    // One party alone, one whose signature covers other words, and one that reaches too far.
    ledger.redact(GOVERNANCE, GOVERNANCE, 5, 5);
    ledger.redact(GOVERNANCE, "a", 5, 5);
    ledger.redact(GOVERNANCE, CUSTODIAN, 5, u64::MAX);
    assert_eq!(caught(&ledger), (5, Fault::ErasedWithoutRecord));
    let mut foreign = ledger.clone();
    foreign.redact("a", CUSTODIAN, 5, 5);
    let (name, role) = (SourceName::parse("a").unwrap(), SourceRole::Govern);
    let refused = Fault::Source(SourceError::Role { name, role });
    assert_eq!(caught(&foreign), (count_of(ledger.records.len()), refused));
    ledger.redact(CUSTODIAN, GOVERNANCE, 5, 5);
    let verifier = audit_with(&ledger, Scope::Events, 3, 1).unwrap();
    assert_eq!(verifier.totals().events_erased, 2);
    // A record made beforehand covers nothing.
    let at = ledger.records.len();
    ledger.record("a", 1);
    ledger.records[at].event = None;
    assert_eq!(caught(&ledger), (count_of(at), Fault::ErasedWithoutRecord));
}

#[test]
fn another_signed_root_is_caught() {
    let ledger = log();
    let mut other = log();
    other.alter(11, |entry| entry.recorded_at += 1);
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
    verifier.advance(runs(&ledger.records, 0, 4)).unwrap();
    let violation = verifier.finish(&other.checkpoint()).unwrap_err();
    let (signed, computed) = (other.checkpoint().root(), ledger.checkpoint().root());
    assert_eq!((violation.index, violation.what), (Index(11), Fault::Root { signed, computed }));
}

#[test]
fn a_state_of_another_tree_or_ledger_is_refused() {
    let mut ledger = log();
    let verifier = audit_with(&ledger, Scope::Events, 4, 1).unwrap();
    let (saved, checkpoint) = (verifier.save(), ledger.checkpoint());
    let restore = |saved: &SavedState| {
        LogVerifier::restore(ledger.signer.verifier(), &checkpoint, saved).map(|_| ())
    };
    assert_eq!(restore(&saved), Ok(()));
    let json = serde_json::to_value(&saved).unwrap();
    for (field, value) in [
        ("roots", serde_json::json!([])),
        ("last_leaf", serde_json::json!("00")),
        ("sequences", serde_json::json!({"A": 1})),
    ] {
        let mut json = json.clone();
        json[field] = value;
        let saved = serde_json::from_value(json).unwrap();
        assert_eq!(restore(&saved), Err(StateError::Field { field }));
    }
    let other = Signer::new("another.example", KeyType::Ed25519, [9; 32]).unwrap();
    let refused = LogVerifier::restore(other.verifier(), &checkpoint, &saved);
    assert_eq!(refused.map(|_| ()), Err(StateError::Field { field: "genesis" }));
    // Another key of this name may be one that the log has yet to name, but not for long.
    let foreign = Honest::with_key(9);
    let restored = LogVerifier::restore(foreign.signer.verifier(), &checkpoint, &saved);
    let violation = restored.unwrap().finish(&checkpoint).unwrap_err();
    assert!(matches!(violation.what, Fault::ForeignGenesis { .. }), "{violation}");
    ledger.record("a", 1);
    let refused = LogVerifier::restore(ledger.signer.verifier(), &ledger.checkpoint(), &saved);
    assert!(matches!(refused, Err(StateError::Root { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn honest_logs_verify_however_they_are_cut_and_resumed(
        batches in prop::collection::vec((0..4_usize, 1..40_u64), 0..30),
        run_len in 1..50_usize, runs_a_call in 1..4_usize, resume_at in 0..30_usize,
    ) {
        let names = ["a", "b", "c", "d"];
        let mut ledger = Honest::new();
        names.iter().for_each(|name| ledger.register(name));
        let mut pinned = None;
        for (number, &(source, count)) in batches.iter().enumerate() {
            if number == resume_at {
                let verifier = audit_with(&ledger, Scope::Events, run_len, runs_a_call).unwrap();
                pinned = Some((ledger.checkpoint(), verifier.save()));
            }
            ledger.record(names[source], count);
        }
        let whole = audit_with(&ledger, Scope::Events, run_len, runs_a_call).unwrap();
        if let Some((checkpoint, saved)) = pinned {
            let json = serde_json::to_string(&saved).unwrap();
            let saved = serde_json::from_str(&json).unwrap();
            let vkey = ledger.signer.verifier();
            let mut resumed = LogVerifier::restore(vkey, &checkpoint, &saved).unwrap();
            let from = usize::try_from(checkpoint.size().0).unwrap();
            resumed.advance(runs(&ledger.records, from, run_len)).unwrap();
            resumed.finish(&ledger.checkpoint()).unwrap();
            prop_assert_eq!(resumed.save(), whole.save());
        }
    }

    #[test]
    fn any_altered_entry_is_caught_although_rechained_and_signed_again(
        at in 1..12_usize, what in 0..5_usize,
    ) {
        let mut ledger = log();
        let forged = Bytes::from(vec![1; 40]);
        if what == 0 {
            ledger.records[at].event = Some(forged.clone());
        }
        ledger.alter(at, |entry| match what {
            0 => entry.event_digest = sha256(&forged),
            1 => entry.source_seq += 1,
            2 => entry.recorded_at -= 1_000_000.min(entry.recorded_at),
            3 => entry.source = access_ledger_proto::source::Name::parse(b"z").unwrap(),
            _ => entry.seal = match entry.seal {
                Some(_) => None,
                None => Some(Seal { count: 1, key_id: KeyId([0; 4]), signature: [0; 64] }),
            },
        });
        ledger.rechain();
        let (index, _) = caught(&ledger);
        let batch_end = [0, 1, 2, 6, 6, 6, 6, 9, 9, 9, 11, 11][at];
        prop_assert!((count_of(at).min(10)..=batch_end + 4).contains(&index));
    }
}
