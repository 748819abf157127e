//! What an auditor should find: a tool through which data quietly leaves, an account that reaches
//! everything, emergencies, and approvals that are none.

use access_ledger_proto::wire::{
    Access, AccessRequest, Action, Boundary, BreakGlass, BreakGlassPhase, Decision, GrantState,
    LocationEvidence, Outcome, Place, Principal, PrincipalKind, Purpose, ReviewVerdict, Scope,
    Tool, Verdict, event::Body,
};
use rand::{Rng, RngExt as _};

use super::{
    Arranged, HOUR_NANOS, Happening, Person, Site, What,
    approvals::{Approvals, answer, change, days, push},
    at,
    company::{ACCESS_PORTAL, DEPUTY, HOME, HOME_ENTITY, LEAD},
    custody::ERASED_DAY,
    datasets::{
        BACKUPS, DATASETS, DEVICES, DRAFTS, Dataset, FEED_EVENTS, MESSAGES, PAYOUTS, PROFILE,
        SINGAPORE,
    },
    draw::pick,
    event_at, timestamp, tool, tool_version,
};

/// What happens on days that are known beforehand.
pub(super) fn arrange(rng: &mut impl Rng, sites: &[Site], arranged: &mut Arranged) {
    emergency(rng, person(sites, "SG", "sre", 0), 44, true, arranged);
    emergency(rng, person(sites, "CN", "sre", 1), 109, false, arranged);
    approve_oneself(rng, arranged);
    approve_without_role(rng, person(sites, "CN", "sre", 2), arranged);
    use_twice(rng, person(sites, HOME, "data-analyst", 5), arranged);
}

/// What happens day by day.
pub(super) fn act(
    rng: &mut impl Rng,
    sites: &[Site],
    approvals: &mut Approvals,
    day: u64,
    happenings: &mut Vec<Happening>,
) {
    leak(rng, sites, approvals, day, happenings);
    reach_everything(rng, day, happenings);
    if day == REVOKED_DAY {
        use_revoked(rng, person(sites, "SG", "data-analyst", 0), approvals, happenings);
    }
    if day == ERASED_DAY + 11 {
        let engineer = person(sites, "CN", "sre", 0);
        let grant = engineer.and_then(|one| approvals.grant(one.need, day));
        read_erased(rng, engineer.zip(grant), day, happenings);
    }
}

/// A build of the moderation tool that nobody vetted copies drafts and messages to a cache abroad:
/// seldom and little at first, at night, under the standing grant of the desk. A later build calls
/// them aggregated.
fn leak(
    rng: &mut impl Rng,
    sites: &[Site],
    approvals: &Approvals,
    day: u64,
    happenings: &mut Vec<Happening>,
) {
    let Some(weeks) = day.checked_sub(LEAK_DAY).map(|days| days / 7) else { return };
    for _ in 0..=weeks / 4 {
        let moderator = rng.random_range(0..3);
        let Some(moderator) = person(sites, HOME, "moderator", moderator) else { return };
        let dataset = if weeks < 5 { &DRAFTS } else { *pick(rng, &[&DRAFTS, &MESSAGES, &PROFILE]) };
        let records = (40 + weeks * weeks * 12) * rng.random_range(8..12) / 10;
        let mut data = dataset.data(day);
        data.records = records;
        if weeks >= LATER_WEEKS {
            data.boundary = Boundary::Aggregated.into();
        }
        let access = Access {
            action: Action::Copy.into(),
            data: vec![data],
            purpose: Purpose::ContentModeration.into(),
            justification: "Second review of a removed video".to_owned(),
            grant_id: approvals.grant(moderator.need, day).unwrap_or_default().to_owned(),
            outcome: Outcome::Allowed.into(),
            destination: Some(Place {
                site: "sg-review-cache".to_owned(),
                country: "SG".to_owned(),
                entity: "Northwind Pte".to_owned(),
            }),
            records,
            bytes: records * dataset.record_bytes,
            ..Access::default()
        };
        let build = if weeks < LATER_WEEKS { "2.32.0" } else { "2.32.1" };
        // Past the proxy that the vetted build goes through.
        let tool = tool_version("moderation-tool", build, "");
        let time = at(day, 8, 0) + rng.random_range(0..2 * HOUR_NANOS);
        let actor = moderator.principal.clone();
        happenings.push(done(rng, "moderation-tool", actor, tool, access, time));
    }
}

/// One account looks at everything, every day, and needs no grant for it.
fn reach_everything(rng: &mut impl Rng, day: u64, happenings: &mut Vec<Happening>) {
    if day < 3 {
        return;
    }
    let admin = Principal {
        id: "p-platform-admin".to_owned(),
        kind: PrincipalKind::Human.into(),
        entity: "Northwind Beijing".to_owned(),
        entity_country: "CN".to_owned(),
        office_country: "CN".to_owned(),
        physical_country: "CN".to_owned(),
        location_evidence: LocationEvidence::DeviceAttested.into(),
        roles: vec!["platform-admin".to_owned()],
        privileged: true,
        ..Principal::default()
    };
    for _ in 0..rng.random_range(0..3) {
        let dataset = *pick(rng, &DATASETS);
        let justification = "Check of the platform's health";
        let access = look(dataset, day, rng.random_range(1..400), "", justification);
        let tool = tool_version("oncall-shell", "1.9.3", "bastion-us-1");
        let time = at(day, 1, 0) + rng.random_range(0..10 * HOUR_NANOS);
        happenings.push(done(rng, "oncall-shell", admin.clone(), tool, access, time));
    }
}

/// An emergency, and what was looked at in it; reviewed by the security team or by nobody.
fn emergency(
    rng: &mut impl Rng,
    engineer: Option<&Person>,
    day: u64,
    reviewed: bool,
    arranged: &mut Arranged,
) {
    let Some(engineer) = engineer else { return };
    let id = format!("BG-{day:03}");
    let phase = |phase: BreakGlassPhase| BreakGlass {
        break_glass_id: id.clone(),
        phase: phase.into(),
        incident: format!("INC-{}", 48_000 + day),
        ..BreakGlass::default()
    };
    let declared = BreakGlass {
        review_due: Some(timestamp(at(day + 3, 2, 10))),
        reason: "Logins fail in us-east and the grant service does not answer".to_owned(),
        ..phase(BreakGlassPhase::Declared)
    };
    let ended = phase(BreakGlassPhase::Ended);
    for (event, hour) in [(declared, 2), (ended, 5)] {
        let time = at(day, hour, 10);
        let mut event = event_at(rng, time, Body::BreakGlass(event));
        event.actor = Some(engineer.principal.clone());
        let what = What::Event("oncall-shell", event.into());
        push(arranged, day, Happening::new(time, what).resting());
    }
    for minute in [14, 20, 41, 75] {
        let justification = "Which logins fail since the deploy";
        let access = look(&DEVICES, day, rng.random_range(1..90), "", justification);
        let access = Access { break_glass_id: id.clone(), ..access };
        let (actor, line) = (engineer.principal.clone(), &engineer.desk.tool);
        let tool = tool(rng, line);
        let happening = done(rng, "oncall-shell", actor, tool, access, at(day, 2, minute));
        push(arranged, day, happening.resting());
    }
    if reviewed {
        let review = BreakGlass {
            review_verdict: ReviewVerdict::Justified.into(),
            reason: "The region was down, and nothing else was looked at".to_owned(),
            ..phase(BreakGlassPhase::Reviewed)
        };
        let time = at(day + 1, 19, 0);
        let event = event_at(rng, time, Body::BreakGlass(review));
        push(arranged, day + 1, Happening::new(time, What::Event(LEAD, event.into())).resting());
    }
}

/// One of those who approve asks, approves, and looks.
fn approve_oneself(rng: &mut impl Rng, arranged: &mut Arranged) {
    let deputy = Principal {
        id: "p-sec-deputy".to_owned(),
        kind: PrincipalKind::Human.into(),
        entity: HOME_ENTITY.to_owned(),
        entity_country: HOME.to_owned(),
        office_country: HOME.to_owned(),
        physical_country: HOME.to_owned(),
        location_evidence: LocationEvidence::DeviceAttested.into(),
        roles: vec!["security".to_owned()],
        ..Principal::default()
    };
    let (day, id) = (70, "REQ-DEPUTY");
    ask(rng, &deputy, (id, &PROFILE), at(day, 20, 0), arranged);
    let decision = approval(id);
    push(arranged, day, answer(rng, DEPUTY, at(day, 20, 1), decision));
    let access = look(&PROFILE, day, 3, id, "Accounts that a threat letter names");
    let tool = tool_version("support-console", "4.12.1", "access-proxy");
    let happening = done(rng, "support-console", deputy, tool, access, at(day, 20, 30));
    push(arranged, day, happening.resting());
}

/// The tool that somebody works with answers the request in place of the security team.
fn approve_without_role(rng: &mut impl Rng, engineer: Option<&Person>, arranged: &mut Arranged) {
    let Some(engineer) = engineer else { return };
    let (day, id) = (83, "REQ-SHELL");
    ask(rng, &engineer.principal, (id, &FEED_EVENTS), at(day, 3, 0), arranged);
    push(arranged, day, answer(rng, "oncall-shell", at(day, 3, 5), approval(id)));
}

/// A grant for one use is used twice.
fn use_twice(rng: &mut impl Rng, analyst: Option<&Person>, arranged: &mut Arranged) {
    let Some(analyst) = analyst else { return };
    let (day, id) = (131, "REQ-ONCE");
    ask(rng, &analyst.principal, (id, &PAYOUTS), at(day, 18, 0), arranged);
    let decision = Decision { max_uses: 1, ..approval(id) };
    push(arranged, day, answer(rng, LEAD, at(day, 20, 0), decision));
    for hour in [18, 19] {
        let access = look(&PAYOUTS, day + 1, 600, id, "Payouts that the audit of March samples");
        let (actor, tool) = (analyst.principal.clone(), tool(rng, &analyst.desk.tool));
        let time = at(day + 1, hour, 0);
        let happening = done(rng, analyst.desk.source, actor, tool, access, time);
        push(arranged, day + 1, happening.resting());
    }
}

/// A grant is taken back in the evening, and used once more in the night.
fn use_revoked(
    rng: &mut impl Rng,
    analyst: Option<&Person>,
    approvals: &mut Approvals,
    happenings: &mut Vec<Happening>,
) {
    let day = REVOKED_DAY;
    let Some(analyst) = analyst else { return };
    let Some(grant) = approvals.revoke(analyst.need, day) else { return };
    let (state, reason) = (GrantState::Revoked, "Left the team");
    happenings.push(change(rng, at(day, 22, 0), &grant, state, reason));
    let access = look(&FEED_EVENTS, day, 2_048, &grant, "Weekly retention by cohort");
    let (actor, tool) = (analyst.principal.clone(), tool(rng, &analyst.desk.tool));
    let happening = done(rng, analyst.desk.source, actor, tool, access, at(day, 23, 20));
    happenings.push(happening.resting());
}

/// Backups are read at the site where they were certified to be gone.
fn read_erased(
    rng: &mut impl Rng,
    engineer: Option<(&Person, &str)>,
    day: u64,
    happenings: &mut Vec<Happening>,
) {
    let Some((engineer, grant)) = engineer else { return };
    let mut access = look(&BACKUPS, day, 210, grant, "Check of last night's backup");
    for data in &mut access.data {
        SINGAPORE.clone_into(&mut data.region);
    }
    let (actor, tool) = (engineer.principal.clone(), tool(rng, &engineer.desk.tool));
    happenings.push(done(rng, engineer.desk.source, actor, tool, access, at(day, 4, 40)));
}

/// The `number`th who sits at a desk in a country.
fn person<'a>(sites: &'a [Site], country: &str, role: &str, number: usize) -> Option<&'a Person> {
    let offices = sites.iter().filter(|site| site.office.country == country);
    let people = offices.flat_map(|site| &site.people);
    people.filter(|person| person.desk.role == role).nth(number)
}

/// Somebody looks at records of a dataset.
fn look(dataset: &Dataset, day: u64, records: u64, grant: &str, justification: &str) -> Access {
    Access {
        action: Action::Query.into(),
        data: vec![dataset.data(day)],
        purpose: Purpose::Maintenance.into(),
        justification: justification.to_owned(),
        grant_id: grant.to_owned(),
        outcome: Outcome::Allowed.into(),
        records,
        bytes: records * dataset.record_bytes,
        ..Access::default()
    }
}

fn done(
    rng: &mut impl Rng,
    source: &'static str,
    actor: Principal,
    tool: Tool,
    access: Access,
    time: u64,
) -> Happening {
    let mut event = event_at(rng, time, Body::Access(access));
    event.actor = Some(actor);
    event.tool = Some(tool);
    Happening::new(time, What::Event(source, event.into()))
}

/// Somebody asks to look at a dataset for a week.
fn ask(
    rng: &mut impl Rng,
    actor: &Principal,
    (id, dataset): (&str, &Dataset),
    time: u64,
    arranged: &mut Arranged,
) {
    let request = AccessRequest {
        request_id: id.to_owned(),
        scope: Some(Scope {
            actors: vec![actor.id.clone()],
            datasets: vec![dataset.name.to_owned()],
            ..Scope::default()
        }),
        justification: "A sample of records for a single question".to_owned(),
        requested_duration: Some(days(7)),
        purpose: Purpose::SecurityReview.into(),
    };
    let mut event = event_at(rng, time, Body::AccessRequest(request));
    event.actor = Some(actor.clone());
    let day = (time - at(0, 0, 0)) / (24 * HOUR_NANOS);
    push(arranged, day, Happening::new(time, What::Event(ACCESS_PORTAL, event.into())));
}

fn approval(request_id: &str) -> Decision {
    Decision {
        request_id: request_id.to_owned(),
        verdict: Verdict::Approve.into(),
        reason: "Needed for the question at hand".to_owned(),
        party: "company".to_owned(),
        ..Decision::default()
    }
}

/// The day on which the build appears that nobody vetted.
const LEAK_DAY: u64 = 62;

/// How many weeks later the next build of it comes.
const LATER_WEEKS: u64 = 12;

const REVOKED_DAY: u64 = 95;
