//! Each rule of the default policy and of the facts: what breaks it and nothing else, and what is
//! next to it and breaks nothing.

use super::*;

fn place(site: &str) -> wire::Place {
    wire::Place { site: site.into(), ..Default::default() }
}

fn transfer(mode: TransferMode, to: &str) -> Transfer {
    Transfer {
        from: Some(place("vault")),
        to: Some(place(to)),
        mode: mode.into(),
        data: vec![data("users")],
        ..Default::default()
    }
}

#[test]
fn protected_data_needs_a_grant_and_public_data_does_not() {
    let court = Court::new();
    court.breaks(&court.access(access("", "users")), &["NO_GRANT"]);
    court.breaks(&court.access(access("g", "users")), &[]);
    court.breaks(&court.access(access("", "posts")), &[]);
    // Nobody classified it, so it is protected; and what the source says of it counts.
    court.breaks(&court.access(access("", "unheard-of")), &["NO_GRANT"]);
    let claimed = wire::Data { boundary: Boundary::Public.into(), ..data("unheard-of") };
    court.breaks(&court.with(|_, it| (it.data, it.grant_id) = (vec![claimed], "".into())), &[]);
    let both = court.with(|_, it| {
        it.grant_id.clear();
        it.data.push(data("posts"));
    });
    court.breaks(&both, &["NO_GRANT"]);
}

#[test]
fn accounts_that_reach_everything_have_a_rule_of_their_own() {
    let court = Court::new();
    let by_root = |court: &Court, grant: &str| {
        court.with(|actor, it| (actor.privileged, it.grant_id) = (true, grant.into()))
    };
    court.breaks(&by_root(&court, ""), &["PRIVILEGED_ACCESS"]);
    court.breaks(&by_root(&court, "g"), &[]);
}

#[test]
fn an_emergency_stands_in_for_a_grant() {
    let mut court = Court::new();
    let phase = |phase: BreakGlassPhase| {
        EventBody::BreakGlass(wire::BreakGlass {
            break_glass_id: "b".into(),
            phase: phase.into(),
            ..Default::default()
        })
    };
    let emergency = |court: &Court| {
        court.with(|_, it| (it.grant_id, it.break_glass_id) = ("".into(), "b".into()))
    };
    court.breaks(&emergency(&court), &["NO_GRANT"]);
    court.take("gateway", phase(BreakGlassPhase::Declared));
    court.breaks(&emergency(&court), &[]);
    court.take("gateway", phase(BreakGlassPhase::Ended));
    court.breaks(&emergency(&court), &["NO_GRANT"]);
}

#[test]
fn special_categories_need_two_approvers() {
    let mut court = Court::new();
    court.grant("two", &["users", "secrets"], 2);
    court.breaks(&court.access(access("g", "secrets")), &["APPROVALS_MISSING"]);
    court.breaks(&court.access(access("two", "secrets")), &[]);
    court.breaks(&court.access(access("", "secrets")), &["NO_GRANT"]);
}

#[test]
fn bulk_exports_need_two_approvers() {
    let mut court = Court::new();
    court.grant("two", &["users", "secrets"], 2);
    let export = |court: &Court, grant: &str, dataset: &str, records: u64| {
        court.with(|_, it| {
            it.action = Action::Export.into();
            it.grant_id = grant.into();
            it.records = records;
            it.data = vec![data(dataset)];
        })
    };
    court.breaks(&export(&court, "g", "users", 10_000), &["BULK_EXPORT"]);
    court.breaks(&export(&court, "g", "secrets", 10_000), &["BULK_EXPORT"]);
    court.breaks(&export(&court, "g", "users", 9_999), &[]);
    court.breaks(&export(&court, "two", "users", 1_000_000), &[]);
    court.breaks(&export(&court, "", "posts", 1_000_000), &[]);
    let read = court.with(|_, it| it.records = 10_000);
    court.breaks(&read, &[]);
}

#[test]
fn records_are_those_of_protected_data_together() {
    let court = Court::new();
    let export = |court: &Court, total: u64, parts: &[(&str, u64)]| {
        court.with(|_, it| {
            it.action = Action::Copy.into();
            it.records = total;
            let part = |&(dataset, records)| wire::Data { records, ..data(dataset) };
            it.data = parts.iter().map(part).collect();
        })
    };
    let broken = |parts, total| {
        let mut court = Court::new();
        court.grant("g2", &["*"], 1);
        let mut event = export(&court, total, parts);
        if let Some(EventBody::Access(access)) = &mut event.body {
            access.grant_id = "g2".into();
        }
        court.rules(&event)
    };
    assert_eq!(broken(&[("users", 5_000), ("more", 5_000)], 0), ["BULK_EXPORT"]);
    assert_eq!(broken(&[("users", 0), ("posts", 50_000)], 50_000), ["BULK_EXPORT"]);
    assert_eq!(broken(&[("users", 5_000), ("posts", 50_000)], 55_000), [""; 0]);
    court.breaks(&export(&court, 20_000, &[("users", 5)]), &["BULK_EXPORT"]);
}

#[test]
fn from_abroad_people_only_look_at_what_a_grant_names() {
    let mut court = Court::new();
    court.grant("all", &[], 1);
    court.grant("stem", &["us*"], 1);
    let abroad = |court: &Court, action: Action, grant: &str| {
        court.with(|actor, it| {
            actor.physical_country = "CN".into();
            it.action = action.into();
            it.grant_id = grant.into();
        })
    };
    court.breaks(&abroad(&court, Action::Update, "g"), &["CROSS_REGION"]);
    court.breaks(&abroad(&court, Action::Read, "all"), &["CROSS_REGION"]);
    for looking in [Action::Read, Action::Query, Action::List] {
        court.breaks(&abroad(&court, looking, "g"), &[]);
    }
    court.breaks(&abroad(&court, Action::Read, "stem"), &[]);
    // Without a grant that holds, that is the offence.
    court.breaks(&abroad(&court, Action::Read, ""), &["NO_GRANT"]);
    court.breaks(&abroad(&court, Action::Read, "x"), &["GRANT_UNKNOWN"]);
    let by_kind = |court: &Court, kind: PrincipalKind| {
        let mut event = abroad(court, Action::Update, "g");
        event.actor.as_mut().unwrap().kind = kind.into();
        event
    };
    court.breaks(&by_kind(&court, PrincipalKind::Service), &[]);
    court.breaks(&by_kind(&court, PrincipalKind::AiAgent), &["CROSS_REGION"]);
    court.breaks(&by_kind(&court, PrincipalKind::Unspecified), &["CROSS_REGION"]);
}

#[test]
fn people_must_be_where_they_say() {
    let court = Court::new();
    let from = |court: &Court, country: &str, evidence: LocationEvidence| {
        court.with(|actor, _| {
            actor.physical_country = country.into();
            actor.location_evidence = evidence.into();
        })
    };
    use LocationEvidence::{Geoip, HrRecord, SelfDeclared, Unspecified};
    for (country, evidence) in
        [("US", SelfDeclared), ("US", HrRecord), ("US", Unspecified), ("ZZ", Geoip), ("", Geoip)]
    {
        court.breaks(&from(&court, country, evidence), &["LOCATION_UNVERIFIED"]);
    }
    court.breaks(&from(&court, "US", Geoip), &[]);
    let service = court.with(|actor, _| {
        (actor.kind, actor.location_evidence) = (PrincipalKind::Service.into(), 0);
    });
    court.breaks(&service, &[]);
}

#[test]
fn people_reach_protected_data_with_vetted_tools_only() {
    let mut court = Court::new();
    let with_tool = |court: &Court, tool: Option<wire::Tool>| wire::Event {
        tool,
        ..court.access(access("g", "users"))
    };
    let other_build =
        wire::Tool { id: "console".into(), build_digest: vec![2; 32].into(), ..Default::default() };
    let other_tool = wire::Tool { id: "psql".into(), ..Default::default() };
    for tool in [Some(other_build), Some(other_tool), None] {
        court.breaks(&with_tool(&court, tool), &["TOOL_NOT_APPROVED"]);
    }
    court.breaks(&court.access(access("g", "users")), &[]);
    let public = wire::Event { tool: None, ..court.access(access("", "posts")) };
    court.breaks(&public, &[]);
    let withdrawn = wire::RegisteredTool { withdrawn: true, ..Default::default() };
    court.govern(change(ControlKind::Tool, "console", 2, withdrawn.encode_to_vec()));
    court.breaks(&court.access(access("g", "users")), &["TOOL_NOT_APPROVED"]);
}

#[test]
fn disclosure_needs_an_open_legal_process() {
    let mut court = Court::new();
    let phase = |phase: LegalRequestPhase| {
        EventBody::LegalRequest(wire::LegalRequest {
            legal_request_id: "l".into(),
            phase: phase.into(),
            ..Default::default()
        })
    };
    let gather = |court: &Court| {
        court.with(|_, it| {
            it.purpose = Purpose::LegalRequest.into();
            it.legal_request_id = "l".into();
            it.destination = Some(place("dc"));
        })
    };
    let disclose = |court: &Court, dataset: &str| {
        court.transfer(Transfer {
            recipient_kind: RecipientKind::Authority.into(),
            legal_request_id: "l".into(),
            data: vec![data(dataset)],
            ..transfer(TransferMode::Copy, "court")
        })
    };
    let expected: [(_, &[&str]); 3] = [
        (None, &["DISCLOSURE_WITHOUT_PROCESS"]),
        (Some(LegalRequestPhase::Received), &[]),
        (Some(LegalRequestPhase::Closed), &["DISCLOSURE_WITHOUT_PROCESS"]),
    ];
    for (next, rules) in expected {
        if let Some(next) = next {
            court.take("gateway", phase(next));
        }
        for event in [gather(&court), disclose(&court, "users"), disclose(&court, "posts")] {
            court.breaks(&event, rules);
        }
        // What does not say what it discloses is judged all the same.
        let unnamed = Transfer {
            recipient_kind: RecipientKind::Authority.into(),
            legal_request_id: "l".into(),
            data: vec![],
            ..transfer(TransferMode::Copy, "court")
        };
        court.breaks(&court.transfer(unnamed), rules);
    }
}

#[test]
fn protected_data_leaves_for_custody_only() {
    let court = Court::new();
    let to = |court: &Court, mode, site: &str, dataset: &str| {
        court.transfer(Transfer { data: vec![data(dataset)], ..transfer(mode, site) })
    };
    use TransferMode::{Backup, Chat, OnScreen, RemoteAccess};
    court.breaks(&to(&court, Backup, "dc", "users"), &["COPY_OUTSIDE_CUSTODY"]);
    for nowhere in ["", "nowhere"] {
        court.breaks(&to(&court, Chat, nowhere, "users"), &["COPY_OUTSIDE_CUSTODY"]);
    }
    court.breaks(&to(&court, Backup, "vault", "users"), &[]);
    court.breaks(&to(&court, Backup, "dc", "posts"), &[]);
    // What is only shown needs a grant, as if it were read.
    for mode in [RemoteAccess, OnScreen] {
        court.breaks(&to(&court, mode, "dc", "users"), &["NO_GRANT"]);
        court.breaks(&to(&court, mode, "dc", "posts"), &[]);
    }
    let granted = Transfer { grant_id: "g".into(), ..transfer(OnScreen, "dc") };
    court.breaks(&court.transfer(granted), &[]);
    let to_subject = Transfer {
        recipient_kind: RecipientKind::Subject.into(),
        ..transfer(TransferMode::Api, "phone")
    };
    court.breaks(&court.transfer(to_subject), &[]);
    // An access that takes data along, and a backup that nobody started.
    let take = |court: &Court, site: &str| court.with(|_, it| it.destination = Some(place(site)));
    court.breaks(&take(&court, "dc"), &["COPY_OUTSIDE_CUSTODY"]);
    court.breaks(&take(&court, "vault"), &[]);
    let unmanned = wire::Event { actor: None, tool: None, ..to(&court, Backup, "vault", "users") };
    court.breaks(&unmanned, &[]);
}

#[test]
fn opening_what_is_closed_must_be_announced() {
    let mut court = Court::new();
    for action in [Action::Impersonate, Action::Decrypt] {
        let act = |court: &Court| court.with(|_, it| it.action = action.into());
        court.breaks(&act(&court), &["INTENT_MISSING"]);
        let intent = court.with(|_, it| {
            (it.action, it.outcome) = (action.into(), Outcome::Requested.into());
        });
        court.breaks(&intent, &[]);
        let verdict = announce(&mut court, &intent);
        assert_eq!(verdict.decision(), AuthorizationDecision::Allow);
        let mut announced = act(&court);
        if let Some(EventBody::Access(access)) = &mut announced.body {
            access.intent = verdict.intent;
        }
        court.breaks(&announced, &[]);
        court.take_event("gateway", &announced);
        court.breaks(&announced, &["BEYOND_VERDICT"]);
    }
    let public = court.with(|_, it| {
        (it.action, it.data) = (Action::Decrypt.into(), vec![data("posts")]);
        it.grant_id.clear();
    });
    court.breaks(&public, &[]);
}

#[test]
fn a_bad_grant_is_told_once_and_denies() {
    let mut court = Court::new();
    let with = |court: &Court, grant: &str| court.access(access(grant, "users"));
    court.breaks(&with(&court, "x"), &["GRANT_UNKNOWN"]);
    court.breaks(&court.access(access("g", "others")), &["GRANT_SCOPE"]);
    court.now += 2 * HOUR;
    court.breaks(&with(&court, "g"), &["GRANT_NOT_IN_FORCE"]);
    court.grant("h", &["users"], 1);
    court.breaks(&with(&court, "h"), &[]);
    let revoke = wire::GrantChange {
        grant_id: "h".into(),
        state: GrantState::Revoked.into(),
        ..Default::default()
    };
    court.take("security/ann", EventBody::GrantChange(revoke));
    court.breaks(&with(&court, "h"), &["GRANT_REVOKED"]);
}

#[test]
fn erased_data_and_wrong_claims_are_told() {
    let mut court = Court::new();
    let claimed = wire::Data { boundary: Boundary::Public.into(), ..data("users") };
    let mismatch = court.with(|_, it| it.data = vec![claimed.clone()]);
    court.breaks(&mismatch, &["CLASSIFICATION_MISMATCH"]);
    assert!(court.judge(&mismatch).allowed);
    // The registered classification counts: calling it public is no way around a grant.
    let around = court.with(|_, it| (it.data, it.grant_id) = (vec![claimed], "".into()));
    court.breaks(&around, &["CLASSIFICATION_MISMATCH", "NO_GRANT"]);
    let at_dc = wire::Data { region: "dc".into(), ..data("users") };
    court.breaks(&court.with(|_, it| it.data = vec![at_dc.clone()]), &[]);
    for phase in [ErasurePhase::Completed, ErasurePhase::Certified] {
        let erasure = wire::Erasure {
            job_id: "e".into(),
            phase: phase.into(),
            site: "dc".into(),
            dataset: "users".into(),
            ..Default::default()
        };
        court.take("gateway", EventBody::Erasure(erasure));
    }
    court.breaks(&court.with(|_, it| it.data = vec![at_dc]), &["ACCESS_AFTER_ERASURE"]);
    court.breaks(&court.access(access("g", "users")), &[]);
}

#[test]
fn values_of_a_later_version_deny() {
    let court = Court::new();
    let changes: [fn(&mut wire::Principal, &mut Access); 7] = [
        |_, it| it.action = 99,
        |_, it| it.purpose = 99,
        |_, it| it.data[0].boundary = 99,
        |_, it| it.data[0].sensitivity = 99,
        |_, it| it.data[0].categories = vec![99],
        |actor, _| actor.kind = 99,
        |actor, _| actor.location_evidence = 99,
    ];
    for change in changes {
        let event = court.with(|actor, it| {
            it.grant_id.clear();
            it.data = vec![wire::Data { boundary: Boundary::Public.into(), ..data("new") }];
            change(actor, it);
        });
        court.breaks(&event, &[POLICY_VIOLATED]);
    }
    let unknown = court.with(|_, it| (it.outcome, it.grant_id) = (99, "".into()));
    court.breaks(&unknown, &["NO_GRANT"]);
    assert!(court.judge(&unknown).performed);
    for change in [|it: &mut Transfer| it.mode = 99, |it: &mut Transfer| it.recipient_kind = 99] {
        let mut transfer = transfer(TransferMode::Backup, "vault");
        change(&mut transfer);
        court.breaks(&court.transfer(transfer), &[POLICY_VIOLATED]);
    }
}

#[test]
fn what_was_refused_is_judged_but_was_not_performed() {
    let court = Court::new();
    for (outcome, performed) in [
        (Outcome::Allowed, true),
        (Outcome::ObservedOnly, true),
        (Outcome::Denied, false),
        (Outcome::Error, false),
        (Outcome::Requested, false),
    ] {
        let event = court.with(|_, it| {
            (it.outcome, it.grant_id) = (outcome.into(), "".into());
        });
        court.breaks(&event, &["NO_GRANT"]);
        assert_eq!(court.judge(&event).performed, performed, "{outcome:?}");
    }
    let other = court.event(EventBody::LedgerRead(wire::LedgerRead::default()));
    let judgement = court.judge(&other);
    assert!(judgement.allowed && !judgement.performed && judgement.rules.is_empty());
}
