//! Another key, none, other roles, another key of the ledger: from which entry on, and who may not.

use ed25519_dalek::Signer as _;

use super::*;
use crate::{
    event::Body,
    facts::{redactions::Erasable, testing::*},
    note::KeyId,
};

/// Signs with the key of a seed that it is held by `name`.
fn possession(name: &str, seed: u8) -> bytes::Bytes {
    let message = possession_message(ORIGIN, name, &key(seed).verifying_key());
    key(seed).sign(message.as_bytes()).to_bytes().to_vec().into()
}

fn source_key(target: &str, seed: u8) -> wire::SourceKey {
    wire::SourceKey {
        public_key: key(seed).verifying_key().to_bytes().to_vec().into(),
        possession: possession(target, seed),
        ..Default::default()
    }
}

fn rekey(target: &str, revision: u64, seed: u8) -> wire::ControlChange {
    change(ControlKind::Key, target, revision, source_key(target, seed).encode_to_vec())
}

fn revoke(target: &str, revision: u64) -> wire::ControlChange {
    change(ControlKind::Key, target, revision, Vec::new())
}

fn reroled(target: &str, revision: u64, roles: &[SourceRole]) -> wire::ControlChange {
    let roles = roles.iter().map(|&role| role.into()).collect();
    let content = wire::SourceRoles { roles, ..Default::default() };
    change(ControlKind::Role, target, revision, content.encode_to_vec())
}

fn ledger_key(revision: u64, origin: &str, seed: u8) -> wire::ControlChange {
    let public = key(seed).verifying_key().to_bytes();
    let content = wire::LedgerKey {
        ledger_vkey: VerifierKey::new(origin, KeyType::Ed25519, &public).unwrap().to_string(),
        possession: possession(origin, seed),
        ..Default::default()
    };
    change(ControlKind::LedgerKey, "", revision, content.encode_to_vec())
}

/// Records a change twice: as the facts do it, and as whoever follows the sources alone; they
/// agree.
fn take(ledger: &mut Ledger, change: wire::ControlChange) -> Vec<&'static str> {
    let mut alone = ledger.facts.sources().clone();
    let event = ledger.event(EventBody::ControlChange(change.clone())).encode_to_vec();
    let index = Index(ledger.next);
    let company = alone.get(name("company")).unwrap();
    let judged = alone.judge(company, index, event::body(&event).unwrap(), true).unwrap();
    alone.apply(judged);
    let rules = ledger.rules("company", EventBody::ControlChange(change));
    assert!(alone.iter().eq(ledger.facts.sources().iter()));
    assert_eq!(alone.ledger_keys(), ledger.facts.sources().ledger_keys());
    rules
}

fn refused(ledger: &Ledger, change: &wire::ControlChange) -> ControlError {
    ledger.facts.judge_control(name("company"), change).unwrap_err()
}

fn id(source: &str, seed: u8) -> KeyId {
    source_key_id(name(source), &key(seed).verifying_key())
}

fn seals(ledger: &Ledger, source: &str, seed: u8) -> Result<(), SourceError> {
    ledger.facts.sources().sealer(name(source), id(source, seed)).map(drop)
}

fn owned(source: &str) -> SourceName {
    name(source).to_owned()
}

#[test]
fn only_the_new_key_seals_from_the_change_on() {
    let mut ledger = Ledger::new();
    let since = Index(ledger.next);
    assert_eq!(seals(&ledger, "gateway", 6), Ok(()));
    assert_eq!(take(&mut ledger, rekey("gateway", 1, 20)), [""; 0]);
    let replaced = SourceError::KeyReplaced { name: owned("gateway"), since };
    assert_eq!(seals(&ledger, "gateway", 6), Err(replaced));
    assert_eq!(seals(&ledger, "gateway", 20), Ok(()));
    assert_eq!(seals(&ledger, "gateway", 21), Err(SourceError::Key { name: owned("gateway") }));
    // What it sealed before is still its own, and is told apart by the index.
    let sources = ledger.facts.sources();
    for seed in [6, 20] {
        let (_, held) = sources.holder(name("gateway"), id("gateway", seed)).unwrap();
        assert_eq!(*held, key(seed).verifying_key());
    }
    let before = sources.before(since);
    assert!(before.sealer(name("gateway"), id("gateway", 6)).is_ok());
    assert!(before.sealer(name("gateway"), id("gateway", 20)).is_err());
    assert!(sources.before(since.plus(1)).sealer(name("gateway"), id("gateway", 20)).is_ok());
}

#[test]
fn a_revoked_source_has_no_key_until_it_gets_one() {
    let mut ledger = Ledger::new();
    let since = Index(ledger.next);
    assert_eq!(take(&mut ledger, revoke("gateway", 1)), [""; 0]);
    let revoked = SourceError::Revoked { name: owned("gateway"), since };
    assert_eq!(seals(&ledger, "gateway", 6), Err(revoked.clone()));
    assert_eq!(refused(&ledger, &revoke("gateway", 2)), revoked.into());
    // Not the one that was revoked.
    assert_eq!(refused(&ledger, &rekey("gateway", 2, 6)), SourceError::KeyReused.into());
    assert_eq!(take(&mut ledger, rekey("gateway", 2, 20)), [""; 0]);
    assert_eq!(seals(&ledger, "gateway", 20), Ok(()));
    assert!(seals(&ledger, "gateway", 6).is_err());
    assert_eq!(ledger.facts.revision(ControlKind::Key.into(), "gateway"), 2);
}

#[test]
fn one_party_changes_no_key() {
    let mut ledger = Ledger::new();
    let before: Vec<Source> = ledger.facts.sources().iter().cloned().collect();
    for change in [
        rekey("gateway", 1, 20),
        revoke("gateway", 1),
        reroled("gateway", 1, &[Approve]),
        ledger_key(1, ORIGIN, 20),
    ] {
        let alone = wire::ControlChange { approvals: Vec::new(), ..change };
        assert_eq!(take(&mut ledger, alone), ["CONTROL_CHANGED_ALONE"]);
    }
    assert!(ledger.facts.sources().iter().eq(&before));
    assert_eq!(seals(&ledger, "gateway", 6), Ok(()));
    assert_eq!(ledger.facts.sources().ledger_keys().revision(), 0);
}

#[test]
fn a_key_is_new_and_held_by_the_source_itself() {
    let mut ledger = Ledger::new();
    let with =
        |content: wire::SourceKey| change(ControlKind::Key, "gateway", 1, content.encode_to_vec());
    let good = source_key("gateway", 20);
    let stolen = wire::SourceKey { possession: possession("gateway", 21), ..good.clone() };
    let replayed = wire::SourceKey { possession: possession("company", 20), ..good.clone() };
    let missing = wire::SourceKey { possession: Vec::new().into(), ..good };
    for content in [stolen, replayed, missing] {
        assert_eq!(refused(&ledger, &with(content)), ControlError::Possession);
    }
    let reused = ControlError::Source(SourceError::KeyReused);
    // Its own, another source's, a party's, the ledger's two.
    for seed in [6, 4, 2, 1, 9] {
        assert_eq!(refused(&ledger, &rekey("gateway", 1, seed)), reused, "{seed}");
    }
    let unknown = SourceError::Unknown { name: owned("nobody") };
    assert_eq!(refused(&ledger, &rekey("nobody", 1, 20)), unknown.into());
    assert_eq!(refused(&ledger, &rekey("", 1, 20)), ControlError::Content);
    assert_eq!(
        refused(&ledger, &rekey("gateway", 2, 20)),
        ControlError::Revision { found: 2, expected: 1 }
    );
    // A key that was given up is nobody's ever again.
    assert_eq!(take(&mut ledger, rekey("gateway", 1, 20)), [""; 0]);
    assert_eq!(refused(&ledger, &rekey("security/ann", 1, 6)), reused);
    let event = ledger.event(EventBody::SourceStatus(registration("new", 6, &[Record], "")));
    let event = event.encode_to_vec();
    let company = ledger.facts.sources().get(name("company")).unwrap();
    let judge = |body: Body<'_>| ledger.facts.sources().judge(company, Index(99), body, true);
    assert_eq!(judge(event::body(&event).unwrap()).unwrap_err(), SourceError::KeyReused);
}

use SourceRole::{Approve, Govern, Record};

#[test]
fn a_party_gets_another_key_and_is_never_left_without() {
    let mut ledger = Ledger::new();
    let founding = |source| ControlError::from(SourceError::Founding { name: owned(source) });
    assert_eq!(refused(&ledger, &revoke("custodian", 1)), founding("custodian"));
    assert_eq!(refused(&ledger, &revoke("ledger", 1)), founding("ledger"));
    assert_eq!(refused(&ledger, &reroled("custodian", 1, &[Record])), founding("custodian"));
    assert_eq!(take(&mut ledger, rekey("custodian", 1, 20)), [""; 0]);
    // The signatures of these helpers are those of the old key.
    let late = revoke("gateway", 1);
    assert_eq!(refused(&ledger, &late), ControlError::Alone { found: 1 });
    let message = crate::facts::control::control_message(ORIGIN, &late);
    let approvals = vec![approval("custodian", 20, &message)];
    assert_eq!(take(&mut ledger, wire::ControlChange { approvals, ..late }), [""; 0]);
}

#[test]
fn roles_are_given_and_taken() {
    let mut ledger = Ledger::new();
    let since = Index(ledger.next);
    let governs = refused(&ledger, &reroled("gateway", 1, &[Record, Govern]));
    assert_eq!(governs, SourceError::Governance.into());
    assert_eq!(refused(&ledger, &reroled("gateway", 1, &[])), ControlError::Content);
    assert_eq!(take(&mut ledger, reroled("gateway", 1, &[Record, Approve])), [""; 0]);
    assert_eq!(take(&mut ledger, reroled("security/ann", 1, &[Record])), [""; 0]);
    let sources = ledger.facts.sources();
    let roles = |source| sources.get(name(source)).unwrap().roles.now();
    assert!(roles("gateway").contains(Approve));
    assert!(!roles("security/ann").contains(Approve));
    assert_eq!(sources.get(name("security/ann")).unwrap().principal, "");
    // Whether its events expire is told by its roles of then.
    let erasable = |source, index| Erasable::of(sources, name(source), index);
    assert_eq!(erasable("gateway", since), Erasable::ByAge);
    assert_eq!(erasable("gateway", Index(ledger.next)), Erasable::ByParties);
    assert_eq!(erasable("security/ann", since), Erasable::ByParties);
    assert_eq!(erasable("security/ann", Index(ledger.next)), Erasable::ByAge);
}

#[test]
fn the_ledger_gets_another_key_and_former_ones_stay_known() {
    let mut ledger = Ledger::new();
    let first = Index(ledger.next);
    assert_eq!(refused(&ledger, &ledger_key(1, "elsewhere", 20)), ControlError::Content);
    assert_eq!(refused(&ledger, &ledger_key(1, ORIGIN, 9)), SourceError::KeyReused.into());
    assert_eq!(refused(&ledger, &ledger_key(1, ORIGIN, 6)), SourceError::KeyReused.into());
    let named = wire::ControlChange { target: "t".into(), ..ledger_key(1, ORIGIN, 20) };
    let named = change(ControlKind::LedgerKey, "t", 1, named.content.to_vec());
    assert_eq!(refused(&ledger, &named), ControlError::Content);
    for (revision, seed) in (1..).zip(20..31) {
        assert_eq!(take(&mut ledger, ledger_key(revision, ORIGIN, seed)), [""; 0]);
    }
    assert_eq!(refused(&ledger, &ledger_key(12, ORIGIN, 20)), SourceError::KeyReused.into());
    let keys = ledger.facts.sources().ledger_keys();
    let public = |index| *keys.at(index).public_key();
    assert_eq!(public(first), key(9).verifying_key());
    assert_eq!(public(first.plus(1)), key(20).verifying_key());
    assert_eq!(*keys.now().public_key(), key(30).verifying_key());
}
