//! Reports on approvals: grants, approvals, break-glass.

use access_ledger_client::reports::Report;
use access_ledger_proto::wire::{
    self, BreakGlass, BreakGlassPhase, Decision, GrantChange, GrantState, ReviewVerdict, Verdict,
    event::Body,
};
use access_ledger_tests::story::{
    APPROVERS, DAY, GATEWAY, SECOND, Story,
    parts::{self, person, timestamp},
};

use super::{days, options, rows, rows_of};

const HOUR: u64 = 3_600 * SECOND;

#[test]
fn grants_tell_their_use_their_end_and_what_still_waits() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    story.wait(HOUR);
    story.request("g-2", |_| {})?;
    story.approve("g-2", 0, |decision| decision.max_uses = 5)?;
    story.approve("g-2", 1, |_| {})?;
    story.wait(HOUR);
    story.access(|_, access| access.grant_id = "g-2".to_owned())?;
    story.access(|_, access| {
        access.grant_id = "g-2".to_owned();
        access.data = vec![wire::Data { dataset: "others".to_owned(), ..parts::data("others") }];
    })?;
    story.wait(HOUR);
    let state = GrantState::Revoked.into();
    let change = GrantChange { grant_id: "g-2".to_owned(), state, ..GrantChange::default() };
    story.tell(APPROVERS[1].0, Body::GrantChange(change))?;
    story.request("waits", |request| {
        let scope = request.scope.get_or_insert_default();
        scope.datasets = (0..11).map(|number| format!("d-{number:02}")).collect();
    })?;
    story.request("denied", |_| {})?;
    let denial = Decision { verdict: Verdict::Deny.into(), ..parts::approval("denied") };
    story.tell(APPROVERS[0].0, Body::Decision(denial))?;
    let open = "g-1 | p-1 | security/ana | actors p-1; datasets users.profile | 2026-03-02T08:00:00Z | 2026-03-02T08:00:00Z | 2036-02-28T08:00:00Z |  |  | 0 | 0 | ";
    let waits = "waits | p-1 |  | actors p-1; datasets d-00, d-01, d-02, d-03, d-04, d-05, d-06, d-07, +3 |  |  |  |  |  |  |  | ";
    assert_eq!(
        rows(&story, Report::Grants, 1)?,
        [
            open,
            "g-2 | p-1 | security/ana, security/bo | actors p-1; datasets users.profile | 2026-03-02T09:00:00Z | 2026-03-02T09:00:00Z | 2026-03-09T09:00:00Z | 2026-03-02T10:00:00Z | 2026-03-02T10:00:00Z | 1 of 5 | 1 | REVOKED by security/bo",
            waits,
        ]
    );
    // The day after, one of them is history.
    assert_eq!(rows_of(&story, Report::Grants, &options(days(1, 2)?))?, [open, waits]);
    Ok(())
}

#[test]
fn approvals_show_who_decides_how_and_for_whom() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    story.wait(DAY);
    // Ana's and Bo's entity is that of their own requests.
    let ask = |story: &mut Story, id: &str, actor: &str, justification: &str| {
        let request =
            wire::AccessRequest { justification: justification.to_owned(), ..parts::request(id) };
        let actor = Some(wire::Principal { id: actor.to_owned(), ..person() });
        let body = Some(Body::AccessRequest(request));
        story.record(GATEWAY, wire::Event { actor, body, ..wire::Event::default() })
    };
    let answer = |story: &mut Story, by: usize, id: &str, verdict: Verdict, entity: &str| {
        let decision = Decision { verdict: verdict.into(), ..parts::approval(id) };
        let (source, person_id) = APPROVERS[by];
        let (id, entity) = (person_id.to_owned(), entity.to_owned());
        let actor = Some(wire::Principal { id, entity, ..person() });
        let body = Some(Body::Decision(decision));
        story.record(source, wire::Event { actor, body, ..wire::Event::default() })
    };
    let reason = "customer cannot sign in after changing the phone number";
    ask(&mut story, "r-1", "p-bo", reason)?;
    ask(&mut story, "r-2", "p-ana", reason)?;
    ask(&mut story, "r-3", "p-7", "asdf")?;
    story.wait(HOUR);
    answer(&mut story, 0, "r-1", Verdict::Approve, "example-ie")?;
    story.wait(HOUR);
    answer(&mut story, 1, "r-2", Verdict::Approve, "example-sg")?;
    answer(&mut story, 0, "r-3", Verdict::Approve, "example-ie")?;
    ask(&mut story, "r-4", "p-7", reason)?;
    story.wait(HOUR / 2);
    answer(&mut story, 0, "r-4", Verdict::Deny, "example-sg")?;
    assert_eq!(
        rows_of(&story, Report::Approvals, &options(days(1, 2)?))?,
        [
            "security/ana | 3 | 1:00:00 | 66.7 | 66.7 | 1 | p-bo",
            "security/bo | 1 | 2:00:00 | 100.0 | 0.0 | 0 | p-ana",
        ]
    );
    Ok(())
}

#[test]
fn break_glass_tells_the_emergency_and_its_review() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    let phase = |story: &mut Story, source: &str, who: &str, phase: BreakGlass| {
        let actor = Some(wire::Principal { id: who.to_owned(), ..person() });
        let body = Some(Body::BreakGlass(phase));
        story.record(source, wire::Event { actor, body, ..wire::Event::default() })
    };
    let id = || "bg-1".to_owned();
    let due = timestamp(story.now() + DAY);
    let declared = BreakGlass {
        break_glass_id: id(),
        phase: BreakGlassPhase::Declared.into(),
        incident: "INC-7".to_owned(),
        review_due: Some(due),
        ..BreakGlass::default()
    };
    phase(&mut story, GATEWAY, "p-1", declared)?;
    for records in [2, 40] {
        story.access(|_, access| {
            access.grant_id.clear();
            access.break_glass_id = id();
            access.records = records;
        })?;
    }
    story.wait(HOUR);
    let ended = BreakGlassPhase::Ended.into();
    let ended = BreakGlass { break_glass_id: id(), phase: ended, ..BreakGlass::default() };
    phase(&mut story, GATEWAY, "p-1", ended)?;
    story.wait(HOUR);
    let reviewed = BreakGlass {
        break_glass_id: id(),
        phase: BreakGlassPhase::Reviewed.into(),
        review_verdict: ReviewVerdict::Justified.into(),
        ..BreakGlass::default()
    };
    phase(&mut story, APPROVERS[0].0, "p-ana", reviewed)?;
    assert_eq!(
        rows(&story, Report::BreakGlass, 1)?,
        [
            "INC-7 | p-1 | 2026-03-02T08:00:00Z | 2026-03-02T09:00:00Z | 2 | 42 | security/ana | 2026-03-03T08:00:00Z | 2026-03-02T10:00:00Z | JUSTIFIED"
        ]
    );
    assert!(rows_of(&story, Report::BreakGlass, &options(days(1, 2)?))?.is_empty());
    Ok(())
}
