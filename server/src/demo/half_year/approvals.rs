//! Who asks for which access, and what the security team answers.

use access_ledger_proto::wire::{
    AccessRequest, Action, Decision, GrantChange, GrantState, Principal, Purpose, Scope,
    Sensitivity, Verdict, event::Body,
};
use rand::{Rng, RngExt as _};

use super::{
    Arranged, DAYS, HOUR_NANOS, Happening, MINUTE_NANOS, What, at,
    company::{self, ACCESS_PORTAL, DEPUTY, Desk, HOME_ENTITY, LEAD, NIGHT, Office},
    datasets::Dataset,
    draw::pick,
    event_at,
};

/// Everything that grants are asked for, and the grants.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    needs: Vec<Need>,
    /// Requests so far: they are numbered.
    asked: u64,
}

/// Access that somebody needs for the work at a desk, all through the half-year.
#[derive(Debug)]
pub(super) struct Need {
    /// Who asks.
    requester: Principal,
    scope: Scope,
    purpose: Purpose,
    justifications: &'static [&'static str],
    /// How long grants last, in days.
    lasts: u64,
    /// How many approvals they take.
    approvals: usize,
    /// Hour of the day, UTC, in which the office asks.
    hour: u64,
    /// The next day on which to ask.
    ask_on: u64,
    /// The grants, with the first and the last day on which they are used.
    grants: Vec<(u64, u64, String)>,
}

impl Need {
    /// What all who sit at a desk at home share.
    pub(super) fn standing(office: &Office, desk: &'static Desk, team: &[Principal]) -> Self {
        let requester = team.first().cloned().unwrap_or_default();
        let mut scope = scope(desk, team);
        // Machines at home do what they are built for.
        scope.actions.clear();
        Self { lasts: DAYS + 16, approvals: 2, ..Self::of(office, desk, requester, scope, 0) }
    }

    /// What somebody abroad needs: to look at the data of the desk from the own office.
    pub(super) fn personal(
        rng: &mut impl Rng,
        office: &Office,
        desk: &'static Desk,
        principal: &Principal,
    ) -> Self {
        let mut scope = scope(desk, std::slice::from_ref(principal));
        scope.countries.push(office.country.to_owned());
        let first = rng.random_range(0..6);
        Self::of(office, desk, principal.clone(), scope, first)
    }

    fn of(
        office: &Office,
        desk: &'static Desk,
        requester: Principal,
        scope: Scope,
        ask_on: u64,
    ) -> Self {
        let special = |dataset: &Dataset| dataset.sensitivity == Sensitivity::SpecialCategory;
        let approvals = 1 + usize::from(desk.data.iter().any(|(_, dataset)| special(dataset)));
        let reason = desk.reasons.first().map(|(_, reason)| reason);
        Self {
            requester,
            scope,
            purpose: reason.map_or(Purpose::Unspecified, |reason| reason.purpose),
            justifications: reason.map_or(&[], |reason| reason.justifications),
            lasts: 30,
            approvals,
            // Ten in the morning.
            hour: (34 - office.utc_offset_hours) % 24,
            ask_on,
            grants: Vec::new(),
        }
    }
}

/// What a desk looks at.
fn scope(desk: &Desk, team: &[Principal]) -> Scope {
    let protected = desk.data.iter().filter(|(_, dataset)| dataset.is_protected());
    let assistant = desk.assisted.then(|| company::ASSISTANT.to_owned());
    Scope {
        actors: team.iter().map(|one| one.id.clone()).chain(assistant).collect(),
        datasets: protected.map(|(_, dataset)| dataset.name.to_owned()).collect(),
        actions: [Action::Read, Action::Query, Action::List].map(i32::from).to_vec(),
        ..Scope::default()
    }
}

impl Approvals {
    /// Adds a need; its place.
    pub(super) fn add(&mut self, need: Need) -> usize {
        self.needs.push(need);
        self.needs.len() - 1
    }

    /// The grant that is in force all of a day.
    pub(super) fn grant(&self, need: usize, day: u64) -> Option<&str> {
        let grants = &self.needs.get(need)?.grants;
        let in_force = grants.iter().find(|(from, to, _)| (*from..=*to).contains(&day));
        in_force.map(|(_, _, id)| id.as_str())
    }

    /// Takes the grant of a day back: it is not used after that day, and soon asked for again. Its
    /// id.
    pub(super) fn revoke(&mut self, need: usize, day: u64) -> Option<String> {
        let need = self.needs.get_mut(need)?;
        let in_force = |(from, to, _): &&mut (u64, u64, String)| (*from..=*to).contains(&day);
        let (_, to, id) = need.grants.iter_mut().find(in_force)?;
        *to = day;
        need.ask_on = day + 3;
        Some(id.clone())
    }

    /// Everybody asks whose turn it is, and is answered.
    pub(super) fn ask(&mut self, rng: &mut impl Rng, day: u64, arranged: &mut Arranged) {
        let mut asked = self.asked;
        for need in self.needs.iter_mut().filter(|need| need.ask_on == day) {
            asked += 1;
            need.ask(rng, asked, arranged);
        }
        self.asked = asked;
    }
}

impl Need {
    fn ask(&mut self, rng: &mut impl Rng, number: u64, arranged: &mut Arranged) {
        let day = self.ask_on;
        let request_id = format!("REQ-{number:05}");
        let time = at(day, self.hour, 0) + rng.random_range(0..20 * MINUTE_NANOS);
        let request = AccessRequest {
            request_id: request_id.clone(),
            scope: Some(self.scope.clone()),
            justification: (*pick(rng, self.justifications)).to_owned(),
            requested_duration: Some(days(self.lasts)),
            purpose: self.purpose.into(),
        };
        let mut event = event_at(rng, time, Body::AccessRequest(request));
        event.actor = Some(self.requester.clone());
        push(arranged, day, Happening::new(time, What::Event(ACCESS_PORTAL, event.into())));

        let standing = self.lasts > DAYS;
        let approves = standing || rng.random_ratio(11, 12);
        let mut decide = |rng: &mut _, approver, time| {
            let decision = Decision {
                request_id: request_id.clone(),
                verdict: if approves { Verdict::Approve } else { Verdict::Deny }.into(),
                reason: if approves { "Needed for the desk" } else { "Say which cases" }.to_owned(),
                party: "company".to_owned(),
                ..Decision::default()
            };
            push(arranged, day, answer(rng, approver, time, decision));
        };
        // At night somebody approves whatever comes, before the others are awake.
        let night = !standing && approves && self.approvals == 1 && rng.random_ratio(1, 3);
        if night {
            let soon = rng.random_range(MINUTE_NANOS..4 * MINUTE_NANOS);
            decide(rng, NIGHT, time + soon);
        } else {
            let team = if rng.random_ratio(1, 2) { [LEAD, DEPUTY] } else { [DEPUTY, LEAD] };
            for approver in team.into_iter().take(if approves { self.approvals } else { 1 }) {
                let time = at(day, 19, 0) + rng.random_range(0..4 * HOUR_NANOS);
                decide(rng, approver, time);
            }
        }
        if approves {
            let last = day + self.lasts - 1;
            self.grants.push((day + 1, last, request_id));
            self.ask_on = last - 2;
        } else {
            self.ask_on = day + 2;
        }
    }
}

/// An answer to a request, which must be in the ledger first.
pub(super) fn answer(
    rng: &mut impl Rng,
    approver: &'static str,
    time: u64,
    decision: Decision,
) -> Happening {
    let mut event = event_at(rng, time, Body::Decision(decision));
    event.actor = Some(Principal {
        id: approver.to_owned(),
        entity: HOME_ENTITY.to_owned(),
        ..Principal::default()
    });
    Happening::new(time, What::Event(approver, event.into())).resting()
}

/// A change of a grant, by one of those who approve.
pub(super) fn change(
    rng: &mut impl Rng,
    time: u64,
    grant_id: &str,
    state: GrantState,
    reason: &str,
) -> Happening {
    let (grant_id, reason) = (grant_id.to_owned(), reason.to_owned());
    let change = GrantChange { grant_id, state: state.into(), reason, not_after: None };
    let event = event_at(rng, time, Body::GrantChange(change));
    Happening::new(time, What::Event(LEAD, event.into())).resting()
}

pub(super) fn push(arranged: &mut Arranged, day: u64, happening: Happening) {
    arranged.entry(day).or_default().push(happening);
}

pub(super) fn days(days: u64) -> prost_types::Duration {
    let seconds = i64::try_from(days * 86_400).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: 0 }
}
