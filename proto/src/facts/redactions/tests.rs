//! Which redactions are lawful, and what they erase.

use super::{
    super::{control::retention_after, testing::*},
    *,
};
use crate::{error::ControlError, wire::ControlKind};

const BASIS: &str = "request of a data subject";

fn redaction(first: u64, last: u64) -> wire::Redaction {
    wire::Redaction {
        first_index: first,
        last_index: last,
        legal_basis: BASIS.into(),
        ..Default::default()
    }
}

fn signed(mut redaction: wire::Redaction) -> wire::Redaction {
    let message = redaction_message(ORIGIN, &redaction);
    redaction.approvals = vec![approval("custodian", 3, &message)];
    redaction
}

/// A ledger of 20 entries.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    while ledger.next < 20 {
        ledger.take("gateway", EventBody::Access(access("", "users")));
    }
    ledger
}

fn judged(
    ledger: &Ledger,
    sealer: &str,
    redaction: &wire::Redaction,
) -> Result<Erasing, RedactionError> {
    let nothing = wire::Event::default();
    let (index, recorded_at) = (Index(ledger.next), ledger.now);
    let noted = Noted { index, recorded_at, source: name(sealer), event: &nothing };
    ledger.facts.judge_redaction(&noted, redaction)
}

fn retention(days: i64) -> Vec<u8> {
    use prost::Message as _;
    let max_age = Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 });
    wire::Retention { max_age, legal_basis: BASIS.into() }.encode_to_vec()
}

#[test]
fn only_both_parties_erase_and_every_word_of_what_they_signed_counts() {
    let ledger = ledger();
    let lawful = signed(redaction(5, 9));
    let erasing = judged(&ledger, "company", &lawful).unwrap();
    assert_eq!((erasing.range(), erasing.is_run()), (5..=9, false));
    let alone = |found| Err(RedactionError::Alone { found });
    assert_eq!(judged(&ledger, "company", &redaction(5, 9)), alone(1));
    // The same party twice, or a source that governs nothing.
    assert_eq!(judged(&ledger, "custodian", &lawful), alone(1));
    assert_eq!(judged(&ledger, "gateway", &lawful), alone(1));
    for changed in [
        wire::Redaction { first_index: 4, ..lawful.clone() },
        wire::Redaction { last_index: 10, ..lawful.clone() },
        wire::Redaction { legal_basis: "no reason".into(), ..lawful },
    ] {
        assert_eq!(judged(&ledger, "company", &changed), alone(1));
    }
}

#[test]
fn a_range_lies_before_the_redaction_and_is_not_empty() {
    let ledger = ledger();
    let (first, last, index) = (Index(9), Index(8), Index(20));
    let found = judged(&ledger, "company", &signed(redaction(9, 8)));
    assert_eq!(found, Err(RedactionError::Empty { first, last }));
    let found = judged(&ledger, "company", &signed(redaction(9, 20)));
    assert_eq!(found, Err(RedactionError::Beyond { last: Index(20), index }));
    let found = judged(&ledger, "company", &signed(redaction(0, u64::MAX)));
    assert!(matches!(found, Err(RedactionError::Beyond { .. })));
    assert!(judged(&ledger, "company", &signed(redaction(0, 19))).is_ok());
}

#[test]
fn an_unlawful_redaction_is_objected_to() {
    let mut ledger = ledger();
    let body = |redaction| EventBody::Redaction(redaction);
    assert_eq!(ledger.rules("company", body(redaction(5, 9))), ["CONTROL_CHANGED_ALONE"]);
    assert_eq!(ledger.rules("company", body(signed(redaction(9, 5)))), ["CONTROL_INVALID"]);
    assert_eq!(ledger.rules("company", body(signed(redaction(5, 9)))), [""; 0]);
}

#[test]
fn a_run_is_the_ledgers_own_under_the_retention_in_force() {
    let mut ledger = ledger();
    let run = |index| wire::Redaction { retention_index: index, ..redaction(5, 9) };
    let wrong = |found, wanted: Option<u64>| {
        Err(RedactionError::Retention { found: Index(found), wanted: wanted.map(Index) })
    };
    assert_eq!(judged(&ledger, "ledger", &run(7)), wrong(7, None));
    let first = ledger.next;
    let in_force = change(ControlKind::Retention, "", 1, retention(30));
    assert_eq!(ledger.rules("company", EventBody::ControlChange(in_force)), [""; 0]);
    assert!(judged(&ledger, "ledger", &run(first)).unwrap().is_run());
    assert_eq!(judged(&ledger, "ledger", &run(7)), wrong(7, Some(first)));
    let other = wire::Redaction { legal_basis: "no reason".into(), ..run(first) };
    assert_eq!(judged(&ledger, "ledger", &other), wrong(first, Some(first)));
    let sealer = name("company").to_owned();
    let found = judged(&ledger, "company", &run(first));
    assert_eq!(found, Err(RedactionError::Sealer { name: sealer }));

    let second = ledger.next;
    let longer = change(ControlKind::Retention, "", 2, retention(60));
    assert_eq!(
        ledger.rules("custodian", EventBody::ControlChange(longer.clone())),
        ["CONTROL_CHANGED_ALONE"]
    );
    assert!(judged(&ledger, "ledger", &run(first)).is_ok(), "nothing has changed");
    let second = second + 1;
    assert_eq!(ledger.rules("company", EventBody::ControlChange(longer)), [""; 0]);
    assert_eq!(judged(&ledger, "ledger", &run(first)), wrong(first, Some(second)));
    assert!(judged(&ledger, "ledger", &run(second)).is_ok());
    let third = ledger.next;
    let ended = change(ControlKind::Retention, "", 3, retention(0));
    assert_eq!(ledger.rules("company", EventBody::ControlChange(ended)), [""; 0]);
    assert_eq!(judged(&ledger, "ledger", &run(third)), wrong(third, None));
}

#[test]
fn a_retention_is_of_the_whole_ledger_and_of_a_day_at_least() {
    let ledger = ledger();
    let judge = |target: &str, content| {
        let change = change(ControlKind::Retention, target, 1, content);
        ledger.facts.judge_control(name("company"), &change)
    };
    assert_eq!(judge("", retention(1)), Ok(()));
    assert_eq!(judge("", retention(0)), Ok(()));
    assert_eq!(judge("gateway", retention(1)), Err(ControlError::Content));
    assert_eq!(judge("", vec![]), Err(ControlError::Content));
    use prost::Message as _;
    let hour = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let hour = wire::Retention { max_age: hour, legal_basis: BASIS.into() };
    assert_eq!(judge("", hour.encode_to_vec()), Err(ControlError::Content));
}

#[test]
fn who_follows_the_retention_alone_sees_the_same_as_the_facts() {
    let mut ledger = ledger();
    let mut alone = None;
    for (revision, days, sealer) in
        [(1, 30, "company"), (1, 9, "company"), (2, 40, "custodian"), (2, 50, "company")]
    {
        let change = change(ControlKind::Retention, "", revision, retention(days));
        let place = (name(sealer), Index(ledger.next));
        let after = retention_after(ledger.facts.sources(), alone.as_ref(), place, &change);
        alone = after.or(alone);
        ledger.take(sealer, EventBody::ControlChange(change));
        assert_eq!(ledger.facts.retention(), alone.as_ref(), "revision {revision}");
    }
    assert_eq!(alone.map(|retention| retention.max_age_nanos), Some(50 * DAY));
}

#[test]
fn events_expire_by_whole_hours() {
    let retention = Retention {
        index: Index(1),
        revision: 1,
        max_age_nanos: 30 * DAY,
        legal_basis: String::new(),
    };
    let now = 100 * DAY + 5 * HOUR;
    assert_eq!(retention.expired_before(now), 70 * DAY + 5 * HOUR);
    assert_eq!(retention.expired_before(now + HOUR - 1), 70 * DAY + 5 * HOUR);
    assert_eq!(retention.expired_before(DAY), 0);
    assert_eq!(Retention { max_age_nanos: 0, ..retention }.expired_before(now), 0);
}

#[test]
fn an_entry_tells_on_whose_word_its_event_is_erased() {
    let mut ledger = ledger();
    let roles = [SourceRole::Enrol, SourceRole::Record];
    let status = registration("payments", 7, &roles, "");
    ledger.take("company", EventBody::SourceStatus(status));
    let sources = ledger.facts.sources();
    let of = |source| Erasable::of(sources, name(source), Index(99));
    assert_eq!([of("company"), of("custodian"), of("nobody")], [Erasable::Never; 3]);
    let others = [of("ledger"), of("security/ann"), of("payments")];
    assert_eq!(others, [Erasable::ByParties; 3]);
    assert_eq!(of("gateway"), Erasable::ByAge);

    let (parties, run) = (testing::erasing(5, 9, None), testing::erasing(5, 9, Some(HOUR)));
    let covers = |erasing: Erasing, at| {
        [Erasable::Never, Erasable::ByParties, Erasable::ByAge].map(|kind| erasing.covers(at, kind))
    };
    assert_eq!(covers(parties, DAY), [false, true, true]);
    assert_eq!(covers(run, HOUR - 1), [false, false, true]);
    assert_eq!(covers(run, HOUR), [false; 3]);
}

#[test]
fn rules_and_records_of_erasures_are_kept_and_a_run_keeps_what_others_rest_on() {
    let body = |number| Some(Body { number, bytes: &[] });
    let (parties, run) = (testing::erasing(5, 9, None), testing::erasing(5, 9, Some(HOUR)));
    let erases = |erasing: Erasing, number| erasing.erases(0, Erasable::ByAge, body(number));
    for number in [Body::SOURCE_STATUS, Body::CONTROL_CHANGE, Body::REDACTION] {
        assert!(!erases(parties, number) && !erases(run, number));
        let refused = check_erasable(Index(5), Erasable::ByAge, body(number));
        assert!(matches!(refused, Err(Kept::Body { .. })));
    }
    for number in [Body::ACCESS, Body::TRANSFER, Body::ATTESTATION] {
        assert!(erases(parties, number) && erases(run, number));
        assert_eq!(check_erasable(Index(5), Erasable::ByParties, body(number)), Ok(()));
    }
    assert!(erases(parties, Body::DECISION) && !erases(run, Body::DECISION));
    assert!(parties.erases(0, Erasable::ByAge, None) && !run.erases(0, Erasable::ByAge, None));
    let governance = check_erasable(Index(5), Erasable::Never, body(Body::FINDING));
    assert_eq!(governance, Err(Kept::Governance));
    assert_eq!(check_erasable(Index::GENESIS, Erasable::ByParties, None), Err(Kept::Genesis));
}
