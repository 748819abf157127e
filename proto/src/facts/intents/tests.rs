//! What an access that names an intent may do.

use super::super::testing::*;
use super::*;
use crate::{
    facts::assess::GrantStatus,
    wire::{Action, Verdict},
};

fn reference(id: u8, index: Option<u64>) -> wire::EventReference {
    wire::EventReference { event_id: vec![id; 16].into(), index }
}

fn announce(ledger: &mut Ledger, id: u8, access: wire::Access) {
    let access = wire::Access { outcome: Outcome::Requested.into(), ..access };
    let event =
        wire::Event { event_id: vec![id; 16].into(), ..ledger.event(EventBody::Access(access)) };
    ledger.take_event("gateway", &event);
}

fn answer(ledger: &mut Ledger, id: u8, decision: AuthorizationDecision) {
    let verdict = wire::Authorization {
        intent: Some(reference(id, None)),
        decision: decision.into(),
        ..Default::default()
    };
    ledger.take("ledger", EventBody::Authorization(verdict));
}

fn allowed(access: wire::Access) -> Ledger {
    let mut ledger = Ledger::new();
    announce(&mut ledger, 1, access);
    answer(&mut ledger, 1, AuthorizationDecision::Allow);
    ledger
}

fn carried_out(access: wire::Access) -> wire::Access {
    wire::Access { intent: Some(reference(1, None)), ..access }
}

fn status(ledger: &Ledger, access: wire::Access) -> IntentStatus {
    ledger.assess("gateway", EventBody::Access(access)).intent
}

fn beyond(beyond: Beyond) -> IntentStatus {
    IntentStatus::Beyond(beyond)
}

#[test]
fn an_allowed_intent_is_carried_out_once() {
    let mut ledger = allowed(access("", "users"));
    assert_eq!(status(&ledger, access("", "users")), IntentStatus::None);
    let done = carried_out(access("", "users"));
    assert_eq!(status(&ledger, done.clone()), IntentStatus::Allowed);
    ledger.take("gateway", EventBody::Access(done.clone()));
    assert_eq!(status(&ledger, done), beyond(Beyond::Unknown));
    assert!(ledger.facts.open_intents.is_empty());
}

#[test]
fn what_was_not_announced_goes_beyond_the_verdict() {
    let announced = wire::Access { records: 10, ..access("g", "users") };
    let ledger = allowed(announced.clone());
    let is = |access: wire::Access| status(&ledger, carried_out(access));
    assert_eq!(is(announced.clone()), IntentStatus::Allowed);
    assert_eq!(is(wire::Access { records: 3, ..announced.clone() }), IntentStatus::Allowed);
    let export = wire::Access { action: Action::Export.into(), ..announced.clone() };
    assert_eq!(is(export), beyond(Beyond::Action));
    let mut more = announced.clone();
    more.data.push(data("orders"));
    assert_eq!(is(more), beyond(Beyond::Dataset));
    let other = wire::Access { grant_id: "h".into(), ..announced.clone() };
    assert_eq!(is(other), beyond(Beyond::Grant));
    let more = wire::Access { records: 11, ..announced.clone() };
    assert_eq!(is(more), beyond(Beyond::Records));
    let elsewhere = wire::Access { intent: Some(reference(1, Some(99))), ..announced.clone() };
    assert_eq!(status(&ledger, elsewhere), beyond(Beyond::Unknown));
    let done = EventBody::Access(carried_out(announced));
    assert_eq!(ledger.assess("security/ann", done.clone()).intent, beyond(Beyond::Source));
    let ledger = Ledger { actor: "eng-2".into(), ..ledger };
    assert_eq!(ledger.assess("gateway", done).intent, beyond(Beyond::Actor));
}

#[test]
fn only_a_verdict_that_allows_allows() {
    let mut ledger = Ledger::new();
    let done = carried_out(access("", "users"));
    assert_eq!(status(&ledger, done.clone()), beyond(Beyond::Unknown));
    announce(&mut ledger, 1, access("", "users"));
    assert_eq!(status(&ledger, done.clone()), beyond(Beyond::Unanswered));
    answer(&mut ledger, 1, AuthorizationDecision::Deny);
    // The first verdict stands.
    answer(&mut ledger, 1, AuthorizationDecision::Allow);
    assert_eq!(status(&ledger, done), beyond(Beyond::Denied));
}

#[test]
fn an_intent_keeps_its_id_and_nobody_else_uses_it_up() {
    let mut ledger = Ledger::new();
    announce(&mut ledger, 1, access("", "users"));
    announce(&mut ledger, 1, access("", "secrets"));
    let done = carried_out(access("", "users"));
    ledger.take("gateway", EventBody::Access(done.clone()));
    answer(&mut ledger, 1, AuthorizationDecision::Allow);
    ledger.take("security/ann", EventBody::Access(done.clone()));
    assert_eq!(status(&ledger, done), IntentStatus::Allowed);
    let other = carried_out(access("", "secrets"));
    assert_eq!(status(&ledger, other), beyond(Beyond::Dataset));
}

#[test]
fn an_intent_is_forgotten_after_a_day() {
    let mut ledger = allowed(access("", "users"));
    let done = carried_out(access("", "users"));
    let opened = ledger.facts.open_intents.first().unwrap().0;
    ledger.now = opened + INTENT_OPEN_NANOS;
    assert_eq!(status(&ledger, done.clone()), IntentStatus::Allowed);
    ledger.now += 1;
    assert_eq!(status(&ledger, done), beyond(Beyond::Unknown));
    announce(&mut ledger, 2, access("", "users"));
    assert_eq!(ledger.facts.open_intents.len(), 1);
    assert!(ledger.facts.intents().get(&intent_key(&[1; 16])).is_none());
}

#[test]
fn a_use_is_counted_by_the_verdict_or_by_the_access_and_never_twice() {
    let mut ledger = Ledger::new();
    let once = wire::Decision { max_uses: 1, ..decision("r", Verdict::Approve) };
    ledger.grant_by(request("r", scope(&[], &[])), once);
    let records = |access| wire::Access { records: 4, ..access };
    announce(&mut ledger, 1, access("r", "users"));
    announce(&mut ledger, 2, access("r", "users"));
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
    answer(&mut ledger, 1, AuthorizationDecision::Allow);
    assert_eq!(ledger.grant_facts("r").uses, 1);
    // Used up for everybody but who was allowed.
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Exhausted);
    let done = records(carried_out(access("r", "users")));
    assert_eq!(ledger.status(done.clone()), GrantStatus::Valid);
    ledger.take("gateway", EventBody::Access(done.clone()));
    let grant = ledger.grant_facts("r");
    assert_eq!((grant.uses, grant.records), (1, 4));
    assert_eq!(ledger.status(done), GrantStatus::Exhausted);
    answer(&mut ledger, 2, AuthorizationDecision::Deny);
    assert_eq!(ledger.grant_facts("r").uses, 1);
    ledger.take("gateway", EventBody::Access(access("r", "users")));
    assert_eq!(ledger.grant_facts("r").uses, 2);
}

#[test]
fn keys_are_hex_of_event_ids() {
    let id = [0, 1, 0x7f, 0x80, 0xff, 0xab, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    assert_eq!(intent_key(&id), "00017f80ffab060708090a0b0c0d0e0f");
    assert_eq!(id_of(&intent_key(&id)), Some(id));
    assert_eq!(id_of("00"), None);
}
