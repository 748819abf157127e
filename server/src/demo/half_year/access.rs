//! Everyday accesses.

use access_ledger_proto::{
    hash::sha256,
    wire::{Access, Action, EventReference, Outcome, Place, Principal, PrincipalKind, event::Body},
};
use bytes::Bytes;
use rand::{Rng, RngExt as _};

use super::{
    DAY_NANOS, Happening, Person, SECOND_NANOS, START, What, case,
    company::{self, Desk, HOME, Office, Reach},
    datasets::{Dataset, VIRGINIA},
    draw::{pick, random_bytes, row},
    event_at, tool,
};

/// One access of a person, and before one that must be announced its intent.
pub(super) fn push(
    rng: &mut impl Rng,
    office: &Office,
    person: &Person,
    grant: Option<&str>,
    time: u64,
    happenings: &mut Vec<Happening>,
) {
    let desk = person.desk;
    let action = *row(rng, desk.actions);
    let dataset = *row(rng, desk.data);
    let outcome = *row(rng, reach(office, dataset, action, grant).outcomes());
    let access = access(rng, office, desk, (action, dataset, outcome), grant, time);
    let mut event = event_at(rng, time, Body::Access(access));
    event.correlation_id = case(rng, desk.case_prefix);
    event.tool = Some(tool(rng, &desk.tool));
    event.actor = Some(person.principal.clone());
    if desk.kind == PrincipalKind::Human {
        travel(rng, office, &mut event.actor);
        delegate(rng, desk, &mut event.actor, &mut event.on_behalf_of);
    } else {
        event.trace_id = random_bytes::<16>(rng);
        event.span_id = random_bytes::<8>(rng);
    }
    let announced = action == Action::Decrypt && dataset.is_protected() && touches(outcome);
    let mut rests = false;
    if announced && let Some(Body::Access(access)) = &mut event.body {
        let intent = Access { outcome: Outcome::Requested.into(), ..access.clone() };
        let midnight = time - (time - START) % DAY_NANOS;
        let asked_at = (time - ASKED_BEFORE_NANOS).max(midnight);
        let mut asking = event_at(rng, asked_at, Body::Access(intent));
        asking.tool.clone_from(&event.tool);
        asking.actor.clone_from(&event.actor);
        access.intent = Some(EventReference { event_id: asking.event_id.clone(), index: None });
        happenings.push(Happening::new(asked_at, What::Event(desk.source, asking.into())));
        rests = true;
    }
    happenings.push(Happening { time, rests, what: What::Event(desk.source, event.into()) });
}

fn access(
    rng: &mut impl Rng,
    office: &Office,
    desk: &Desk,
    (action, dataset, outcome): (Action, &Dataset, Outcome),
    grant: Option<&str>,
    time: u64,
) -> Access {
    let reason = row(rng, desk.reasons);
    let touched = touches(outcome);
    let records = if touched { records(rng, action) } else { 0 };
    let named = dataset.is_protected() && outcome != Outcome::AllowedUnapproved;
    let denied = outcome == Outcome::Denied;
    let mut data = dataset.data((time - START) / DAY_NANOS);
    // Whoever touches a handful of records touches known persons; the rest is a mass.
    let persons = if dataset.jurisdiction.is_empty() || records > 3 { 0 } else { records };
    data.subject_tokens = (0..persons).map(|_| subject_token(rng)).collect();
    Access {
        action: action.into(),
        data: vec![data],
        purpose: reason.purpose.into(),
        justification: (*pick(rng, reason.justifications)).to_owned(),
        grant_id: grant.filter(|_| named).unwrap_or_default().to_owned(),
        outcome: outcome.into(),
        deny_reason: if denied { pick(rng, company::DENY_REASONS) } else { "" }.to_owned(),
        destination: destination(office, action).filter(|_| touched),
        records,
        bytes: records * dataset.record_bytes,
        ..Access::default()
    }
}

/// Whether data was touched.
const fn touches(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Denied | Outcome::Error)
}

/// Now and then somebody works from elsewhere, and the grant does not cover it.
fn travel(rng: &mut impl Rng, office: &Office, actor: &mut Option<Principal>) {
    let abroad = office.country != HOME && rng.random_ratio(1, 300);
    if let Some(actor) = actor.as_mut().filter(|_| abroad) {
        let (country, evidence) = *pick(rng, company::ELSEWHERE);
        country.clone_into(&mut actor.physical_country);
        actor.location_evidence = evidence.into();
    }
}

/// Now and then an assistant does the work, on behalf of the person, whose session it runs in.
fn delegate(
    rng: &mut impl Rng,
    desk: &Desk,
    actor: &mut Option<Principal>,
    on_behalf_of: &mut Option<Principal>,
) {
    if !desk.assisted || !rng.random_ratio(1, 12) {
        return;
    }
    on_behalf_of.clone_from(actor);
    if let Some(actor) = actor {
        company::ASSISTANT.clone_into(&mut actor.id);
        actor.kind = PrincipalKind::AiAgent.into();
    }
}

fn reach(office: &Office, dataset: &Dataset, action: Action, grant: Option<&str>) -> Reach {
    let looks = matches!(action, Action::Read | Action::Query | Action::List);
    if !dataset.is_protected() {
        Reach::Open
    } else if grant.is_some() && (looks || office.country == HOME) {
        Reach::Granted
    } else {
        Reach::Forbidden
    }
}

/// How many records an action touches.
fn records(rng: &mut impl Rng, action: Action) -> u64 {
    match action {
        Action::Export | Action::RestoreBackup => rng.random_range(50_000..2_000_000),
        // Most queries are small, a few are not.
        Action::Query => 1 << rng.random_range(0..14_u32),
        Action::List | Action::Copy => rng.random_range(10..200),
        Action::Download => rng.random_range(1..50),
        _ => rng.random_range(1..4),
    }
}

/// Stands for the keyed hash of one of the users: the same one comes up again and again.
fn subject_token(rng: &mut impl Rng) -> Bytes {
    let subject = rng.random_range(0..SUBJECTS);
    Bytes::copy_from_slice(&sha256(&subject.to_be_bytes()).as_bytes()[..SUBJECT_TOKEN_LEN])
}

/// Where data went that left its store for more than a screen.
fn destination(office: &Office, action: Action) -> Option<Place> {
    let site = match action {
        Action::Export => "export-bucket",
        Action::Copy => "feature-store",
        // A desk in the data centre at home, a workstation elsewhere.
        Action::Download if office.country == HOME => VIRGINIA,
        Action::Download => "workstation",
        _ => return None,
    };
    Some(Place {
        site: site.to_owned(),
        country: office.country.to_owned(),
        entity: office.entity.to_owned(),
    })
}

/// How long before an access its intent is announced.
const ASKED_BEFORE_NANOS: u64 = 2 * SECOND_NANOS;

/// Users whose data is touched: few enough that some come up several times a day.
const SUBJECTS: u32 = 5_000;
const SUBJECT_TOKEN_LEN: usize = 16;
