//! Verdicts on intents, and which changes of the rules come into force.

use super::*;

const MINUTE: u64 = 60 * SECOND;

fn intent(court: &Court, grant: &str) -> wire::Event {
    court.with(|_, it| (it.grant_id, it.outcome) = (grant.into(), Outcome::Requested.into()))
}

fn of_data(mut event: wire::Event, dataset: &str) -> wire::Event {
    if let Some(EventBody::Access(access)) = &mut event.body {
        access.data = vec![data(dataset)];
    }
    event
}

#[test]
fn a_verdict_names_what_decided() {
    let mut court = Court::new();
    let version = policy::version(2, Policy::DEFAULT);
    let allowed = intent(&court, "g");
    let index = court.next;
    assert_eq!(
        announce(&mut court, &allowed),
        wire::Authorization {
            intent: Some(wire::EventReference {
                event_id: allowed.event_id.clone(),
                index: Some(index)
            }),
            decision: AuthorizationDecision::Allow.into(),
            rules: vec![],
            policy_version: version.clone(),
            grant_id: "g".into(),
        }
    );
    let denied = intent(&court, "");
    let verdict = announce(&mut court, &denied);
    assert_eq!(verdict.decision(), AuthorizationDecision::Deny);
    assert_eq!(verdict.rules, ["NO_GRANT"]);
    assert_eq!(verdict.policy_version, version);
}

#[test]
fn an_intent_that_was_kept_back_is_denied() {
    let court = Court::new();
    for (late, rules) in [(5 * MINUTE, &[][..]), (5 * MINUTE + 1, &["INTENT_STALE"])] {
        let occurred_at = Some(timestamp(court.now - late));
        let event = wire::Event { occurred_at, ..intent(&court, "") };
        let event = of_data(event, "posts");
        let verdict = court.authority.clone().verdict(&court.noted("gateway", &event));
        assert_eq!(verdict.rules, rules);
        assert_eq!(verdict.decision() == AuthorizationDecision::Allow, rules.is_empty());
    }
    // What is no intent gets no permission.
    let done = court.access(access("g", "users"));
    let verdict = court.authority.clone().verdict(&court.noted("gateway", &done));
    assert_eq!((verdict.decision(), verdict.grant_id.as_str()), (AuthorizationDecision::Deny, ""));
    assert_eq!(verdict.rules, [POLICY_VIOLATED]);
}

#[test]
fn verdicts_use_a_grant_up_exactly() {
    let mut court = Court::new();
    court.take(
        "gateway",
        EventBody::AccessRequest(wire::AccessRequest {
            requested_duration: Some(Duration { seconds: 36_000, nanos: 0 }),
            ..request("few", scope(&["eng-1"], &["users"]))
        }),
    );
    let approval = wire::Decision { max_uses: 3, ..decision("few", Verdict::Approve) };
    court.take("security/ann", EventBody::Decision(approval));
    let uses = |court: &Court| court.authority.facts().grants().get("few").unwrap().uses;
    for used in 0..6 {
        assert_eq!(uses(&court), used.min(3));
        let intent = intent(&court, "few");
        let verdict = announce(&mut court, &intent);
        let allowed = verdict.decision() == AuthorizationDecision::Allow;
        assert_eq!(allowed, used < 3);
        assert_eq!(verdict.rules.is_empty(), allowed);
        // A refused one uses up nothing, and what is done on an allowed one is no further use.
        if allowed {
            let event =
                court.with(|_, it| (it.grant_id, it.intent) = ("few".into(), verdict.intent));
            court.breaks(&event, &[]);
            court.take_event("gateway", &event);
        } else {
            assert_eq!(verdict.rules, ["GRANT_EXHAUSTED"]);
        }
    }
}

fn policy_change(revision: u64, text: &str) -> wire::ControlChange {
    change(ControlKind::Policy, "", revision, text.into())
}

#[test]
fn a_policy_is_in_force_from_its_change_on() {
    let mut court = Court::new();
    let event = court.access(access("", "posts"));
    court.breaks(&event, &[]);
    court.govern(policy_change(3, "@id(\"CLOSED\") forbid (principal, action, resource);"));
    court.breaks(&event, &["CLOSED"]);
    assert!(court.authority.policy_version().starts_with("3-"));
    court.govern(policy_change(4, ""));
    court.breaks(&event, &[POLICY_VIOLATED]);
    let again = Authority::new(court.authority.facts().clone());
    assert_eq!(again.policy_version(), court.authority.policy_version());
}

#[test]
fn a_policy_that_is_none_is_refused_and_without_effect() {
    let mut court = Court::new();
    let text = "permit (principal, action, resource);\nforbid (principal, action, resource);";
    let event = court.event(EventBody::ControlChange(policy_change(3, text)));
    let refused = court.authority.admit_control(&court.noted("company", &event)).unwrap_err();
    let problem = "`forbid` without an `@id`".to_owned();
    assert_eq!(refused, ControlRefusal::Policy(PolicyError { line: 2, column: 1, problem }));
    assert_eq!(refused.rule(), "CONTROL_INVALID");
    let objections = court.take_event("company", &event);
    assert_eq!(objections.len(), 1);
    assert_eq!(objections[0].rule, "CONTROL_INVALID");
    assert_eq!(objections[0].facts[2].1, "line 2, column 1: `forbid` without an `@id`");
    assert_eq!(court.authority.facts().policy().revision, 2);
    court.breaks(&court.access(access("", "users")), &["NO_GRANT"]);
    court.govern(policy_change(3, Policy::DEFAULT));
    let binary = change(ControlKind::Policy, "", 4, vec![0xff]);
    let event = court.event(EventBody::ControlChange(binary));
    let refused = court.authority.admit_control(&court.noted("company", &event)).unwrap_err();
    assert_eq!(refused, ControlRefusal::Control(ControlError::Content));
    assert_eq!(court.take_event("company", &event)[0].rule, "CONTROL_INVALID");
}

#[test]
fn a_change_by_one_party_is_refused_with_who_is_missing() {
    let mut court = Court::new();
    let admit = |court: &Court, sealer: &'static str, change: wire::ControlChange| {
        let event = court.event(EventBody::ControlChange(change));
        court.authority.admit_control(&court.noted(sealer, &event))
    };
    let signed = policy_change(3, Policy::DEFAULT);
    assert_eq!(admit(&court, "company", signed.clone()), Ok(()));
    let alone = wire::ControlChange { approvals: vec![], ..signed.clone() };
    let refused = admit(&court, "company", alone.clone()).unwrap_err();
    let expected = ControlRefusal::Alone {
        signed: vec![name("company").to_owned()],
        missing: vec![name("custodian").to_owned()],
    };
    assert_eq!(refused, expected);
    assert_eq!(refused.to_string(), "signed by company, missing is one of custodian");
    assert_eq!(refused.rule(), "CONTROL_CHANGED_ALONE");
    // A signature over something else is none, and the custodian does not count twice.
    let altered = wire::ControlChange { content: "// Other.".into(), ..signed.clone() };
    assert_eq!(admit(&court, "company", altered), Err(expected));
    let refused = admit(&court, "custodian", signed).unwrap_err();
    assert!(
        matches!(refused, ControlRefusal::Alone { missing, .. } if missing[0].as_str() == "company")
    );
    let objections = court.take("company", EventBody::ControlChange(alone));
    assert_eq!(objections[0].rule, "CONTROL_CHANGED_ALONE");
    for (change, fault) in [
        (policy_change(2, ""), ControlError::Revision { found: 2, expected: 3 }),
        (wire::ControlChange { kind: 99, ..policy_change(3, "") }, ControlError::Kind),
        (change(ControlKind::Dataset, "d", 1, vec![]), ControlError::Content),
    ] {
        assert_eq!(admit(&court, "company", change), Err(ControlRefusal::Control(fault)));
    }
    let event = court.access(access("", "posts"));
    assert_eq!(court.authority.admit_control(&court.noted("gateway", &event)), Ok(()));
}
