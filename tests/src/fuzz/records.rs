//! Targets: entries, events, and what they say about sources.

use std::sync::LazyLock;

use access_ledger_client::cli::parse_event;
use access_ledger_proto::{
    chain::Link,
    entry::Entry,
    event::{self, Body},
    facts::sources::Sources,
    hash::leaf_hash,
    note::VerifierKey,
    position::Index,
    source::Name,
    wire::{self, event::Body as EventBody},
};
use prost::Message as _;

use super::samples::{self, NOW, SAMPLE, event_of};

pub(super) fn entries() -> Vec<Vec<u8>> {
    SAMPLE.entries.clone()
}

/// Entries come back or are refused, and only the first one continues the empty chain.
pub(super) fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::parse(bytes) else { return false };
    assert_eq!(entry.encode(), bytes);
    assert!((Entry::LEN_MIN..=Entry::LEN_MAX).contains(&bytes.len()));
    let first = Entry::parse(&SAMPLE.entries[0]).unwrap();
    let mut link = Link::GENESIS;
    if link.check(&entry, leaf_hash(bytes)).is_ok() {
        assert_eq!((entry.index, entry.prev), (first.index, first.prev));
    }
    true
}

pub(super) fn events() -> Vec<Vec<u8>> {
    samples::events()
}

/// Events have one reading or are refused.
pub(super) fn event(bytes: &[u8]) -> bool {
    let Ok(found) = event::validate(bytes, NOW) else { return false };
    assert_eq!(event::body(bytes), Some(found));
    let decoded = wire::Event::decode(bytes).unwrap();
    // What this version knows of it keeps the rules alone, and is the same event.
    let known = decoded.encode_to_vec();
    let again = event::validate(&known, NOW).unwrap();
    assert_eq!(again.number, found.number);
    assert_eq!(wire::Event::decode(&known[..]).unwrap(), decoded);
    true
}

pub(super) fn genesis_contents() -> Vec<Vec<u8>> {
    let EventBody::ControlChange(change) = samples::genesis() else { unreachable!() };
    vec![change.content.to_vec()]
}

/// The content of a genesis has one reading or is refused.
pub(super) fn genesis(bytes: &[u8]) -> bool {
    if event::validate_genesis(bytes).is_err() {
        return false;
    }
    let known = wire::Genesis::decode(bytes).unwrap().encode_to_vec();
    assert!(event::validate_genesis(&known).is_ok());
    true
}

pub(super) fn genesis_events() -> Vec<Vec<u8>> {
    vec![event_of(samples::genesis()).encode_to_vec()]
}

/// What founds a ledger names all its parties.
pub(super) fn founding(bytes: &[u8]) -> bool {
    let Ok(sources) = Sources::from_genesis(bytes) else { return false };
    let genesis = sources.genesis();
    assert_eq!(sources.iter().count(), genesis.governance.len() + 1);
    assert_eq!(VerifierKey::parse(&genesis.ledger_vkey).unwrap().name(), genesis.origin);
    true
}

/// The sources before the sample's registration, and after it.
static REGISTERED: LazyLock<(Sources, Sources)> = LazyLock::new(|| {
    let before = samples::sources();
    let asked = samples::registration().encode_to_vec();
    let ledger = before.get(Name::parse(b"ledger").unwrap()).unwrap();
    let change = before.judge(ledger, Index(2), status_body(&asked), true).unwrap();
    let mut changed = before.clone();
    changed.apply(change);
    let child = changed.get(Name::parse(b"parent/child").unwrap()).unwrap().clone();
    let mut after = before.clone();
    after.restore([child]);
    (before, after)
});

pub(super) fn registrations() -> Vec<Vec<u8>> {
    vec![samples::registration().encode_to_vec()]
}

/// Only what was signed registers a source.
pub(super) fn registration(bytes: &[u8]) -> bool {
    let (before, registered) = &*REGISTERED;
    let ledger = before.get(Name::parse(b"ledger").unwrap()).unwrap();
    let judge = || before.judge(ledger, Index(2), status_body(bytes), true);
    let Ok(change) = judge() else {
        assert_eq!(judge().map(drop).unwrap_err(), judge().map(drop).unwrap_err());
        return false;
    };
    let mut after = before.clone();
    after.apply(change);
    // Nothing, the ledger's own life signs, or exactly what both signed.
    if after.iter().count() > before.iter().count() {
        assert!(after.iter().eq(registered.iter()));
    } else {
        assert!(after.iter().eq(before.iter()));
    }
    true
}

fn status_body(bytes: &[u8]) -> Body<'_> {
    Body { number: Body::SOURCE_STATUS, bytes }
}

pub(super) fn event_jsons() -> Vec<Vec<u8>> {
    const LINES: [&str; 2] = [
        r#"{"eventId": "AAECAwQFBgcICQoLDA0ODw==", "occurredAt": "2026-11-22T09:00:00.500Z",
            "actor": {"id": "u-17", "kind": "PRINCIPAL_KIND_HUMAN", "officeCountry": "IE"},
            "access": {"action": "ACTION_READ", "outcome": "OUTCOME_ALLOWED", "records": "3",
            "data": [{"dataset": "users", "categories": ["DATA_CATEGORY_CONTACT"]}]}}"#,
        r#"{"correlation_id": "c", "access_request": {"request_id": "R", "requested_duration": "60s"}}"#,
    ];
    LINES.map(|line| line.as_bytes().to_vec()).into()
}

/// Events from JSON are the same events after a way over the wire.
pub(super) fn event_json(bytes: &[u8]) -> bool {
    let Some(event) = str::from_utf8(bytes).ok().and_then(|text| parse_event(text).ok()) else {
        return false;
    };
    let encoded = event.encode_to_vec();
    // Numbers that are not a number are not equal to themselves; their bytes are.
    assert_eq!(wire::Event::decode(&encoded[..]).unwrap().encode_to_vec(), encoded);
    true
}
