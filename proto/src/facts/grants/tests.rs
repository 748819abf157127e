//! Whether a grant covers an access, and how it is used up, changed and ended.

use super::super::testing::*;
use super::*;
use crate::wire::{Action, DataCategory, Outcome, Verdict};

fn change_of(id: &str, state: GrantState) -> wire::GrantChange {
    wire::GrantChange { grant_id: id.into(), state: state.into(), ..Default::default() }
}

fn change(ledger: &mut Ledger, source: &str, state: GrantState) -> Vec<&'static str> {
    ledger.rules(source, EventBody::GrantChange(change_of("r", state)))
}

fn extend(ledger: &mut Ledger, source: &str, not_after: u64) -> Vec<&'static str> {
    let not_after = Some(timestamp(not_after));
    let change = wire::GrantChange { not_after, ..change_of("r", GrantState::Extended) };
    ledger.rules(source, EventBody::GrantChange(change))
}

fn granted() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.grant("r", scope(&["eng-1"], &["users", "orders/*"]));
    ledger
}

#[test]
fn a_grant_covers_what_its_scope_names() {
    let mut ledger = granted();
    assert_eq!(ledger.status(access("", "users")), GrantStatus::None);
    assert_eq!(ledger.status(access("nothing", "users")), GrantStatus::Unknown);
    for dataset in ["users", "orders/2026"] {
        assert_eq!(ledger.status(access("r", dataset)), GrantStatus::Valid, "{dataset}");
    }
    for dataset in ["user", "users2", "orders", "secrets"] {
        assert_eq!(ledger.status(access("r", dataset)), GrantStatus::Scope, "{dataset}");
    }
    let mut both = access("r", "users");
    both.data.push(data("secrets"));
    assert_eq!(ledger.status(both), GrantStatus::Scope);
    ledger.actor = "eng-2".into();
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Scope);
}

#[test]
fn what_the_scope_restricts_and_the_event_does_not_tell_is_not_covered() {
    let mut ledger = Ledger::new();
    let restricted = wire::Scope {
        actions: vec![Action::Read.into(), 77],
        categories: vec![DataCategory::Contact.into()],
        countries: vec!["US".into()],
        ..scope(&[], &[])
    };
    ledger.grant("r", restricted);
    let mut read = access("r", "users");
    read.data[0].categories = vec![DataCategory::Contact.into()];
    let from = |ledger: &Ledger, country: &str, access: &wire::Access| {
        let mut event = ledger.event(EventBody::Access(access.clone()));
        event.actor.as_mut().unwrap().physical_country = country.into();
        ledger.assess_event("gateway", &event).grant.status
    };
    assert_eq!(from(&ledger, "US", &read), GrantStatus::Valid);
    // A country that does not exist is one that no scope holds.
    for elsewhere in ["", "CN", "XX", "ZZ"] {
        assert_eq!(from(&ledger, elsewhere, &read), GrantStatus::Scope);
    }
    let unknown_action = wire::Access { action: 99, ..read.clone() };
    assert_eq!(from(&ledger, "US", &unknown_action), GrantStatus::Scope);
    let mut unknown_category = read.clone();
    unknown_category.data[0].categories.push(99);
    assert_eq!(from(&ledger, "US", &unknown_category), GrantStatus::Scope);
    read.data[0].categories.clear();
    assert_eq!(from(&ledger, "US", &read), GrantStatus::Scope);
}

#[test]
fn a_grant_ends_when_its_time_is_over() {
    let mut ledger = granted();
    let grant = ledger.grant_facts("r");
    for (now, status) in [
        (grant.not_before - 1, GrantStatus::NotInForce),
        (grant.not_before, GrantStatus::Valid),
        (grant.not_after - 1, GrantStatus::Valid),
        (grant.not_after, GrantStatus::NotInForce),
    ] {
        ledger.now = now;
        assert_eq!(ledger.status(access("r", "users")), status);
    }
}

#[test]
fn a_grant_is_extended_again_and_again_and_never_shortened() {
    let mut ledger = granted();
    let mut end = ledger.grant_facts("r").not_after;
    for _ in 0..100 {
        end += HOUR;
        assert_eq!(extend(&mut ledger, "security/ann", end), [""; 0]);
    }
    assert_eq!(extend(&mut ledger, "security/ben", end - HOUR), [""; 0]);
    assert_eq!(change(&mut ledger, "security/ben", GrantState::Extended), [""; 0]);
    assert_eq!(ledger.grant_facts("r").not_after, end);
    assert_eq!(ledger.grant_facts("r").state(), GrantState::Extended);
    ledger.now = end - 1;
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn a_grant_is_suspended_and_comes_back() {
    let mut ledger = granted();
    change(&mut ledger, "security/ben", GrantState::Suspended);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::NotInForce);
    // An extension does not bring it back.
    let end = ledger.grant_facts("r").not_after + HOUR;
    extend(&mut ledger, "security/ben", end);
    assert_eq!(ledger.grant_facts("r").not_after, end);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::NotInForce);
    change(&mut ledger, "security/ben", GrantState::Active);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Valid);
}

#[test]
fn revoking_takes_effect_from_its_time_on_and_is_for_good() {
    let mut ledger = granted();
    let before = ledger.now;
    ledger.now += 60 * SECOND;
    assert_eq!(change(&mut ledger, "security/ben", GrantState::Revoked), [""; 0]);
    let revoked = ledger.grant_facts("r");
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::Revoked);
    // Recorded later, but from before the revocation.
    let mut late = ledger.event(EventBody::Access(access("r", "users")));
    late.occurred_at = Some(timestamp(before));
    assert_eq!(ledger.assess_event("gateway", &late).grant.status, GrantStatus::Valid);
    // Whatever comes next, who revoked it, and when, stands.
    ledger.now += 60 * SECOND;
    for state in [GrantState::Revoked, GrantState::Ended, GrantState::Active] {
        assert_eq!(change(&mut ledger, "security/ann", state), [""; 0]);
    }
    assert_eq!(extend(&mut ledger, "security/ann", revoked.not_after + HOUR), [""; 0]);
    assert_eq!(ledger.grant_facts("r"), revoked);
}

#[test]
fn an_ended_grant_is_not_in_force() {
    let mut ledger = granted();
    // By who asked for it.
    assert_eq!(change(&mut ledger, "gateway", GrantState::Ended), [""; 0]);
    assert_eq!(ledger.status(access("r", "users")), GrantStatus::NotInForce);
}

#[test]
fn only_who_may_changes_a_grant() {
    let mut ledger = granted();
    let other = registration("other", 8, &[SourceRole::Record], "");
    ledger.take("company", EventBody::SourceStatus(other));
    let refused = ["APPROVER_NOT_AUTHORIZED"];
    for source in ["gateway", "company", "other"] {
        for state in [GrantState::Suspended, GrantState::Active] {
            assert_eq!(change(&mut ledger, source, state), refused, "{source}");
        }
        let end = ledger.grant_facts("r").not_after + HOUR;
        assert_eq!(extend(&mut ledger, source, end), refused, "{source}");
    }
    assert_eq!(change(&mut ledger, "other", GrantState::Revoked), refused);
    assert_eq!(ledger.grant_facts("r").changed_index, 0);
    assert_eq!(change(&mut ledger, "company", GrantState::Revoked), [""; 0]);
}

#[test]
fn nobody_extends_their_own_grant() {
    let mut ledger = Ledger::new();
    ledger.actor = "ben".into();
    ledger.grant("r", scope(&["ben"], &["users"]));
    let end = ledger.grant_facts("r").not_after;
    assert_eq!(extend(&mut ledger, "security/ben", end + HOUR), ["SELF_APPROVED"]);
    assert_eq!(ledger.grant_facts("r").not_after, end);
    assert_eq!(change(&mut ledger, "security/ben", GrantState::Revoked), [""; 0]);
}

#[test]
fn a_change_of_an_unknown_grant_or_of_an_unknown_kind_has_no_effect() {
    let mut ledger = granted();
    let unknown = change_of("nothing", GrantState::Revoked);
    let rules = ledger.rules("security/ann", EventBody::GrantChange(unknown));
    assert_eq!(rules, ["GRANT_UNKNOWN"]);
    let before = ledger.grant_facts("r");
    let newer = wire::GrantChange { state: 99, ..change_of("r", GrantState::Active) };
    assert_eq!(ledger.rules("security/ann", EventBody::GrantChange(newer)), [""; 0]);
    assert_eq!(ledger.grant_facts("r"), before);
}

fn limited(max_uses: u64, max_records: u64) -> Ledger {
    let mut ledger = Ledger::new();
    let approve = decision("r", Verdict::Approve);
    let limited = wire::Decision { max_uses, max_records, ..approve };
    ledger.grant_by(request("r", scope(&["eng-1"], &["users"])), limited);
    ledger
}

fn reads(records: u64) -> wire::Access {
    wire::Access { records, ..access("r", "users") }
}

#[test]
fn uses_and_records_run_out() {
    let mut ledger = limited(2, 0);
    for _ in 0..2 {
        assert_eq!(ledger.status(reads(1)), GrantStatus::Valid);
        ledger.take("gateway", EventBody::Access(reads(1)));
    }
    assert_eq!(ledger.status(reads(1)), GrantStatus::Exhausted);
    let mut ledger = limited(0, 10);
    assert_eq!(ledger.status(reads(11)), GrantStatus::Exhausted);
    ledger.take("gateway", EventBody::Access(reads(6)));
    assert_eq!(ledger.status(reads(5)), GrantStatus::Exhausted);
    assert_eq!(ledger.status(reads(4)), GrantStatus::Valid);
    // What does not fit is never below the limit.
    ledger.take("gateway", EventBody::Access(reads(u64::MAX)));
    assert_eq!(ledger.grant_facts("r").records, u64::MAX);
    assert_eq!(ledger.status(reads(0)), GrantStatus::Exhausted);
}

#[test]
fn only_what_was_performed_and_covered_is_a_use() {
    let mut ledger = limited(0, 0);
    for outcome in [Outcome::Requested, Outcome::Denied, Outcome::Error] {
        let access = wire::Access { outcome: outcome.into(), ..reads(1) };
        ledger.take("gateway", EventBody::Access(access));
    }
    assert_eq!(ledger.grant_facts("r").uses, 0);
    // An outcome that this version does not know may have touched data.
    for outcome in [i32::from(Outcome::Partial), 99] {
        let access = wire::Access { outcome, ..reads(1) };
        ledger.take("gateway", EventBody::Access(access));
    }
    let used = ledger.grant_facts("r");
    assert_eq!((used.uses, used.records), (2, 2));
    assert!(used.first_use < used.last_use && used.first_use > 0);
    // Somebody else cannot use it up.
    ledger.actor = "eng-2".into();
    ledger.take("gateway", EventBody::Access(reads(1)));
    let attempted = ledger.grant_facts("r");
    assert_eq!((attempted.uses, attempted.out_of_scope), (2, 1));
}
