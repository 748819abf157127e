//! Who may answer a request, and what the answers make of it.

use prost_types::{Duration, Timestamp};

use super::super::testing::*;
use super::*;
use crate::facts::assess::GrantStatus;

fn decide(ledger: &mut Ledger, source: &str, id: &str, verdict: Verdict) -> Vec<&'static str> {
    ledger.rules(source, EventBody::Decision(decision(id, verdict)))
}

fn ask(ledger: &mut Ledger, id: &str) {
    let request = request(id, scope(&["eng-1"], &["users"]));
    assert_eq!(ledger.rules("gateway", EventBody::AccessRequest(request)), [""; 0]);
}

fn voids(ledger: &Ledger, id: &str) -> Vec<String> {
    let request = ledger.facts.requests().get(id).unwrap();
    request.decisions.iter().map(|decision| decision.void_by.clone()).collect()
}

#[test]
fn the_first_approval_makes_a_grant_and_others_add_to_it() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Unknown);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), [""; 0]);
    let named = wire::Decision { grant_id: "other".into(), ..decision("r", Verdict::Approve) };
    assert_eq!(ledger.rules("security/ben", EventBody::Decision(named)), [""; 0]);
    let grant = ledger.grant_facts("r");
    assert_eq!(grant.approvers, ["security/ann", "security/ben"]);
    assert_eq!(grant.requester, "eng-1");
    assert!(ledger.facts.grants().get("other").is_none());
    let assessed = ledger.assess("gateway", EventBody::Access(access("r", "users")));
    assert_eq!((assessed.grant.status, assessed.grant.approvals), (GrantStatus::Valid, 2));
}

#[test]
fn a_second_answer_of_the_same_person_is_superseded() {
    let mut ledger = Ledger::new();
    // The same person with a second key.
    let roles = [SourceRole::Approve];
    let twin = registration("security/ann-2", 7, &roles, "ann");
    ledger.take("company", EventBody::SourceStatus(twin));
    ask(&mut ledger, "r");
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::NeedInfo), [""; 0]);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), [""; 0]);
    assert_eq!(decide(&mut ledger, "security/ann-2", "r", Verdict::Approve), [""; 0]);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Deny), [""; 0]);
    assert_eq!(voids(&ledger, "r"), ["", "", SUPERSEDED, SUPERSEDED]);
    assert_eq!(ledger.grant_facts("r").approvers, ["security/ann"]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn a_denial_is_not_taken_back_by_who_denied() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Deny), [""; 0]);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), [""; 0]);
    assert!(ledger.facts.grants().get("r").is_none());
    assert_eq!(decide(&mut ledger, "security/ben", "r", Verdict::Approve), [""; 0]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn who_lacks_the_role_approves_nothing() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    for source in ["gateway", "company"] {
        let rules = decide(&mut ledger, source, "r", Verdict::Approve);
        assert_eq!(rules, ["APPROVER_NOT_AUTHORIZED"], "{source}");
    }
    assert_eq!(voids(&ledger, "r"), ["APPROVER_NOT_AUTHORIZED"; 2]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::ApprovalsMissing);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), [""; 0]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn nobody_approves_what_is_to_their_own_advantage() {
    // The person asks, or is asked for, or is named in the scope; or the key sealed the request.
    let asks = |actor: &str, behalf: &str, actors: &[&str]| {
        let mut ledger = Ledger::new();
        ledger.actor = actor.into();
        let request = request("r", scope(actors, &["users"]));
        let mut event = ledger.event(EventBody::AccessRequest(request));
        event.on_behalf_of = Some(wire::Principal { id: behalf.into(), ..Default::default() });
        ledger.take_event("gateway", &event);
        let first = decide(&mut ledger, "security/ann", "r", Verdict::Approve);
        let second = decide(&mut ledger, "security/ben", "r", Verdict::Approve);
        (first, second)
    };
    let refused = (vec!["SELF_APPROVED"], vec![]);
    assert_eq!(asks("ann", "", &["eng-1"]), refused);
    assert_eq!(asks("security/ann", "", &["eng-1"]), refused);
    assert_eq!(asks("eng-1", "ann", &["eng-1"]), refused);
    assert_eq!(asks("eng-1", "", &["eng-1", "ann"]), refused);
    assert_eq!(asks("eng-1", "", &["an*"]), refused);
    assert_eq!(asks("eng-1", "", &["*"]), (vec![], vec![]));
    let mut ledger = Ledger::new();
    let own = request("r", scope(&["eng-1"], &["users"]));
    ledger.take("security/ann", EventBody::AccessRequest(own));
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), ["SELF_APPROVED"]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::ApprovalsMissing);
    // To refuse oneself does no harm.
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Deny), [""; 0]);
}

#[test]
fn a_decision_on_an_unknown_request_has_no_effect() {
    let mut ledger = Ledger::new();
    for source in ["security/ann", "gateway"] {
        let rules = decide(&mut ledger, source, "nothing", Verdict::Approve);
        assert_eq!(rules, ["GRANT_UNKNOWN"]);
    }
    assert!(ledger.facts.grants().get("nothing").is_none());
}

#[test]
fn a_request_keeps_its_id_and_a_grant_its_name() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    let wider = request("r", scope(&[], &[]));
    ledger.take("gateway", EventBody::AccessRequest(wider));
    let named = wire::Decision { grant_id: "g".into(), ..decision("r", Verdict::Approve) };
    ledger.take("security/ann", EventBody::Decision(named.clone()));
    assert_eq!(ledger.grant_facts("g").scope.unwrap().datasets, ["users"]);
    // Another request's grant cannot take the name.
    ask(&mut ledger, "s");
    let stolen = wire::Decision { request_id: "s".into(), ..named.clone() };
    ledger.take("security/ann", EventBody::Decision(stolen));
    assert_eq!(ledger.grant_facts("g").request_id, "r");
    assert_eq!(ledger.grant_facts("s").request_id, "s");
    // When the request's own id is another's grant as well, the approval makes nothing.
    ask(&mut ledger, "g");
    let stolen = wire::Decision { request_id: "g".into(), ..named };
    ledger.take("security/ann", EventBody::Decision(stolen));
    assert_eq!(voids(&ledger, "g"), [SUPERSEDED]);
}

#[test]
fn a_void_approval_reserves_no_name() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    ask(&mut ledger, "s");
    let squatter = wire::Decision { grant_id: "s".into(), ..decision("r", Verdict::Approve) };
    let rules = ledger.rules("gateway", EventBody::Decision(squatter));
    assert_eq!(rules, ["APPROVER_NOT_AUTHORIZED"]);
    assert_eq!(decide(&mut ledger, "security/ann", "s", Verdict::Approve), [""; 0]);
    assert_eq!(ledger.grant_facts("s").request_id, "s");
}

#[test]
fn answers_that_do_not_count_are_bounded() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    for _ in 0..2 * DECISIONS_MAX {
        decide(&mut ledger, "gateway", "r", Verdict::Approve);
    }
    assert_eq!(voids(&ledger, "r").len(), DECISIONS_MAX);
    assert_eq!(decide(&mut ledger, "security/ann", "r", Verdict::Approve), [""; 0]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn a_verdict_of_a_newer_client_is_kept_and_approves_nothing() {
    let mut ledger = Ledger::new();
    ask(&mut ledger, "r");
    let newer = wire::Decision { verdict: 77, ..decision("r", Verdict::Approve) };
    assert_eq!(ledger.rules("security/ann", EventBody::Decision(newer)), [""; 0]);
    assert_eq!(ledger.facts.requests().get("r").unwrap().decisions[0].verdict, 77);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Unknown);
}

/// The window of a grant that was asked for this long: beginning and end, from the approval on.
fn window(duration: Option<Duration>, decision: wire::Decision) -> (u64, u64, u64) {
    let mut ledger = Ledger::new();
    let asked = request("r", scope(&[], &[]));
    let asked = wire::AccessRequest { requested_duration: duration, ..asked };
    ledger.grant_by(asked, decision);
    let grant = ledger.grant_facts("r");
    (grant.approved_at, grant.not_before, grant.not_after)
}

#[test]
fn duration_runs_from_approval_and_saturates() {
    let approve = || decision("r", Verdict::Approve);
    let lasts = |duration| {
        let (approved, from, to) = window(duration, approve());
        assert_eq!(approved, from);
        to - approved
    };
    assert_eq!(lasts(Some(Duration { seconds: 60, nanos: 5 })), 60 * SECOND + 5);
    assert_eq!(lasts(None), 30 * DAY);
    assert_eq!(lasts(Some(Duration::default())), 0);
    for negative in [Duration { seconds: -1, nanos: 0 }, Duration { seconds: i64::MIN, nanos: 7 }] {
        assert_eq!(lasts(Some(negative)), 0);
    }
    let (_, _, end) = window(Some(Duration { seconds: i64::MAX, nanos: i32::MAX }), approve());
    assert_eq!(end, u64::MAX);
}

#[test]
fn an_approver_sets_the_window_even_beyond_what_can_be_counted() {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let set = |not_before, not_after| {
        let approve = decision("r", Verdict::Approve);
        let (_, from, to) = window(None, wire::Decision { not_before, not_after, ..approve });
        (from, to)
    };
    assert_eq!(set(at(5), at(7)), (5 * SECOND, 7 * SECOND));
    assert_eq!(set(at(-62_135_596_800), at(253_402_300_799)), (0, u64::MAX));
    assert_eq!(set(at(i64::MIN), at(i64::MAX)), (0, u64::MAX));
}

#[test]
fn a_duration_of_zero_is_never_in_force() {
    let mut ledger = Ledger::new();
    let asked = request("r", scope(&[], &[]));
    let asked = wire::AccessRequest { requested_duration: Some(Duration::default()), ..asked };
    ledger.grant_by(asked, decision("r", Verdict::Approve));
    ledger.now = ledger.grant_facts("r").approved_at;
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::NotInForce);
}

#[test]
fn an_approver_narrows_and_never_widens() {
    let mut ledger = Ledger::new();
    let asked = request("r", scope(&["eng-*"], &["users", "orders", "logs/*"]));
    let narrowed = scope(&["eng-1", "ops-1"], &["orders", "logs/web", "payments"]);
    let narrowed = Some(wire::Scope { actions: vec![Action::Read.into()], ..narrowed });
    let approve = decision("r", Verdict::Approve);
    ledger.grant_by(asked, wire::Decision { narrowed_scope: narrowed, ..approve });
    let grant = ledger.grant_facts("r");
    assert_eq!(grant.scope.as_ref().unwrap().datasets, ["logs/web", "orders"]);
    assert_eq!(grant.scope.unwrap().actors, ["eng-1"]);
    assert_eq!(ledger.status(access("r", "orders")), GrantStatus::Valid);
    for dataset in ["users", "payments", "logs/db"] {
        assert_eq!(ledger.status(access("r", dataset)), GrantStatus::Scope, "{dataset}");
    }
    let export = wire::Access { action: Action::Export.into(), ..access("r", "orders") };
    assert_eq!(ledger.status(export), GrantStatus::Scope);
}

#[test]
fn an_empty_justification_is_objected_to() {
    let mut ledger = Ledger::new();
    let asked = request("r", scope(&[], &[]));
    let empty = wire::AccessRequest { justification: "need access".into(), ..asked };
    let rules = ledger.rules("gateway", EventBody::AccessRequest(empty));
    assert_eq!(rules, ["LOW_INFORMATION_JUSTIFICATION"]);
    assert!(ledger.facts.requests().get("r").unwrap().low_information);
}

use crate::wire::Action;
