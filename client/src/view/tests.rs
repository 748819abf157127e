//! A view keeps what was verified, belongs to one ledger, and catches what contradicts it.

use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::sha256,
    note::{KeyType, Signer},
};

use super::*;
use crate::verify::{LogVerifier, Record, Scope, honest::Honest};

fn log(batches: u64) -> Honest {
    let mut ledger = Honest::new();
    ledger.register("a");
    (0..batches).for_each(|_| ledger.record("a", 3));
    ledger
}

fn state(ledger: &Honest) -> SavedState {
    let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
    let records: Vec<Record> = ledger.records.clone();
    verifier.advance(vec![(access_ledger_proto::position::Index(0), records)]).unwrap();
    verifier.finish(&ledger.checkpoint()).unwrap();
    verifier.save()
}

fn signed(ledger: &Honest, size: u64, root: Digest) -> VerifiedCheckpoint {
    let checkpoint = Checkpoint::new(ledger.signer.name(), Size(size), root).unwrap();
    let note = checkpoint.sign(&ledger.signer).unwrap();
    VerifiedCheckpoint::open(note.as_bytes(), ledger.signer.verifier(), &[]).unwrap()
}

#[test]
fn a_pin_survives_and_can_be_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.json");
    let ledger = log(2);
    let vkey = ledger.signer.verifier();
    let mut view = View::open(&path, vkey).unwrap();
    assert!(view.pinned().is_none());
    view.pin(ledger.checkpoint(), state(&ledger)).unwrap();
    let longer = log(5);
    let again = View::open(&path, vkey).unwrap().pinned().cloned().unwrap();
    assert_eq!((again.checkpoint, &again.state), (ledger.checkpoint(), &state(&ledger)));
    view.pin(longer.checkpoint(), state(&longer)).unwrap();
    let again = View::open(&path, vkey).unwrap().pinned().cloned().unwrap();
    assert_eq!(again.checkpoint.size(), longer.checkpoint().size());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file stays");
}

#[test]
fn a_view_of_another_ledger_or_one_that_was_edited_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view.json");
    let ledger = log(1);
    let vkey = ledger.signer.verifier();
    View::open(&path, vkey).unwrap().pin(ledger.checkpoint(), state(&ledger)).unwrap();
    let other = Signer::new("another.example", KeyType::Ed25519, [9; 32]).unwrap();
    let refused = View::open(&path, other.verifier());
    assert!(matches!(refused, Err(ViewError::OtherLedger { .. })));
    // Another key of this name: the log must tell, so its events are wanted.
    let foreign = Honest::with_key(9);
    let view = View::open(&path, foreign.signer.verifier()).unwrap();
    assert!(view.pinned().is_some() && view.check_scope(Scope::Events).is_ok());
    let refused = view.check_scope(Scope::EntriesOnly);
    assert!(matches!(refused, Err(ViewError::OtherLedger { .. })));

    let text = fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        View::open(&path, vkey).unwrap_err()
    };
    let error = refused(&text.replacen("\\n5\\n", "\\n6\\n", 1));
    assert!(matches!(error, ViewError::Checkpoint { .. }), "{error}");
    let error = refused(&text.replacen("\"version\": 1", "\"version\": 2", 1));
    assert!(matches!(error, ViewError::Version { found: 2, .. }), "{error}");
    assert!(matches!(refused("{"), ViewError::Malformed { .. }));
}

#[test]
fn rollback_fork_and_inconsistency_are_caught_with_both_notes() {
    let folder = tempfile::tempdir().unwrap();
    let (short, long) = (log(1), log(4));
    let vkey = short.signer.verifier();
    let (old, new) = (short.checkpoint(), long.checkpoint());
    assert_eq!(compare(&old, &old).unwrap(), None);
    assert_eq!(compare(&old, &new).unwrap(), Some((old.size(), new.size())));

    let rollback = compare(&new, &old).unwrap_err();
    assert!(matches!(rollback, Caught::Rollback { .. }));
    let forked = signed(&short, old.size().0, sha256(b"another"));
    let fork = compare(&old, &forked).unwrap_err();
    assert!(matches!(fork, Caught::Fork { .. }));
    let inconsistent = check_consistency(&old, &new, vec![sha256(b"x")]).unwrap_err();
    assert!(matches!(inconsistent, Caught::Inconsistent { .. }));

    for (caught, notes) in [
        (&rollback, [new.note(), old.note()]),
        (&fork, [old.note(), forked.note()]),
        (&inconsistent, [old.note(), new.note()]),
    ] {
        let path = caught.keep(folder.path(), vkey).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&caught.to_string()));
        assert!(notes.iter().all(|note| text.contains(note.trim_end())), "{text}");
        assert_ne!(caught.keep(folder.path(), vkey).unwrap(), path, "nothing is overwritten");
    }
}
