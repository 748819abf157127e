//! Requests for access and the answers to them. The first approval that counts makes a grant.

use super::{Facts, Noted, Objection, is_low_information, not_authorized, scope, sources::Sources};
use crate::{
    event,
    source::Name,
    wire::{self, GrantState, SourceRole, Verdict},
};

/// How long a grant is in force from its approval when the request names no duration: 30 days.
pub const DURATION_DEFAULT_NANOS: u64 = 30 * 24 * super::HOUR_NANOS;

/// How many answers of a request are listed; of further ones only those that count, which are at
/// most as many as there are approvers. So nobody fills memory by answering again and again.
const DECISIONS_MAX: usize = 64;

/// A second answer of the same person.
const SUPERSEDED: &str = "SUPERSEDED";

/// Who answers a request.
pub(super) struct Approver<'a> {
    source: Name<'a>,
    /// The person whose key it is; the source's name stands for one that was not told.
    person: &'a str,
}

impl<'a> Approver<'a> {
    pub(super) fn of(sources: &'a Sources, source: Name<'a>) -> Self {
        let principal = sources.get(source).map_or("", |source| source.principal.as_str());
        let person = if principal.is_empty() { source.as_str() } else { principal };
        Self { source, person }
    }

    /// Whether the approver asked for the access, or is among those whom it is for. A scope that
    /// is for everybody names nobody.
    pub(super) fn gains_by(&self, request: &wire::RequestFacts) -> bool {
        let actors = request.scope.as_ref().map_or(&[][..], |scope| &scope.actors);
        let is_named = |name: &str| {
            name == request.actor || name == request.on_behalf_of || scope::names_it(actors, name)
        };
        request.source == self.source.as_str()
            || is_named(self.person)
            || is_named(self.source.as_str())
    }

    /// Whether the same person or source declared an emergency.
    pub(super) fn declared(&self, emergency: &wire::BreakGlassFacts) -> bool {
        let (source, declared_by) = (self.source.as_str(), emergency.declared_by.as_str());
        emergency.source == source || [source, self.person].contains(&declared_by)
    }
}

/// The finding's objection to who approves what is to their own advantage.
pub(super) fn self_approved(approver: &Approver<'_>, request: &wire::RequestFacts) -> Objection {
    let facts = vec![
        ("approver", approver.source.as_str().to_owned()),
        ("principal", approver.person.to_owned()),
        ("request", request.request_id.clone()),
    ];
    Objection::new("SELF_APPROVED", facts).because_of(request.index)
}

impl Facts {
    /// A request's id is taken by the first that uses it; a second request of the same id has no
    /// effect.
    pub(super) fn take_request(
        &mut self,
        noted: &Noted<'_>,
        request: &wire::AccessRequest,
    ) -> Vec<Objection> {
        let low_information = is_low_information(&request.justification);
        if self.requests.get(&request.request_id).is_none() {
            let actor = noted.event.actor.clone().unwrap_or_default();
            let duration = request.requested_duration.as_ref();
            let row = wire::RequestFacts {
                request_id: request.request_id.clone(),
                index: noted.index.0,
                time: noted.time(),
                source: noted.source.as_str().to_owned(),
                actor: actor.id,
                actor_entity: actor.entity,
                scope: request.scope.as_ref().map(scope::normal),
                purpose: request.purpose,
                requested_nanos: duration.map_or(DURATION_DEFAULT_NANOS, event::nanos_in),
                low_information,
                on_behalf_of: noted.event.on_behalf_of.clone().unwrap_or_default().id,
                ..Default::default()
            };
            self.requests.insert(&request.request_id, noted.index, row);
        }
        if !low_information {
            return Vec::new();
        }
        let named = vec![("request", request.request_id.clone())];
        vec![Objection::new("LOW_INFORMATION_JUSTIFICATION", named)]
    }

    pub(super) fn take_decision(
        &mut self,
        noted: &Noted<'_>,
        decision: &wire::Decision,
    ) -> Vec<Objection> {
        let Some(request) = self.requests.get(&decision.request_id) else {
            let named = vec![("request", decision.request_id.clone())];
            return vec![Objection::new("GRANT_UNKNOWN", named)];
        };
        let request = request.into_owned();
        let approver = Approver::of(&self.sources, noted.source);
        let objection = self.judge_decision(noted, decision, &request, &approver);
        let again = request.decisions.iter().any(|before| {
            before.void_by.is_empty()
                && before.principal == approver.person
                && matches!(before.verdict(), Verdict::Approve | Verdict::Deny)
        });
        let mut row = wire::DecisionFacts {
            index: noted.index.0,
            time: noted.time(),
            approver: approver.source.as_str().to_owned(),
            principal: approver.person.to_owned(),
            entity: noted.event.actor.as_ref().map_or_else(String::new, |one| one.entity.clone()),
            party: decision.party.clone(),
            verdict: decision.verdict,
            void_by: String::new(),
        };
        if let Some(objection) = &objection {
            objection.rule.clone_into(&mut row.void_by);
        } else if again {
            SUPERSEDED.clone_into(&mut row.void_by);
        }
        let mut made = String::new();
        if decision.verdict() == Verdict::Approve && row.void_by != SUPERSEDED {
            match self.take_approval(noted, decision, &request, row.void_by.is_empty()) {
                Some(grant_id) => made = grant_id,
                None => SUPERSEDED.clone_into(&mut row.void_by),
            }
        }
        self.requests.change(&decision.request_id, noted.index, |request| {
            if row.void_by.is_empty() && request.grant_id.is_empty() {
                request.grant_id = made;
            }
            if row.void_by.is_empty() || request.decisions.len() < DECISIONS_MAX {
                request.decisions.push(row);
            }
        });
        objection.into_iter().collect()
    }

    /// Why an answer does not count, but for that the same person answered before.
    fn judge_decision(
        &self,
        noted: &Noted<'_>,
        decision: &wire::Decision,
        request: &wire::RequestFacts,
        approver: &Approver<'_>,
    ) -> Option<Objection> {
        if !self.has_role(noted, SourceRole::Approve) {
            let objection = not_authorized(noted).with("request", &request.request_id);
            return Some(objection.because_of(request.index));
        }
        let approves = decision.verdict() == Verdict::Approve;
        (approves && approver.gains_by(request)).then(|| self_approved(approver, request))
    }

    /// Makes a grant of an approval, or adds it to the one that another approval made. One that
    /// does not count leaves a grant without approvers, so that who rests on it is told what it
    /// lacks.
    ///
    /// The grant's id; `None` when other requests' grants have taken the ids that it could have.
    fn take_approval(
        &mut self,
        noted: &Noted<'_>,
        decision: &wire::Decision,
        request: &wire::RequestFacts,
        counts: bool,
    ) -> Option<String> {
        let approver = noted.source.as_str().to_owned();
        if !request.grant_id.is_empty() {
            if counts {
                self.grants.change(&request.grant_id, noted.index, |grant| {
                    grant.approvers.push(approver);
                });
            }
            return Some(request.grant_id.clone());
        }
        let is_free = |id: &&str| {
            let taken = self.grants.get(id);
            taken.is_none_or(|grant| grant.approvers.is_empty())
        };
        let wishes = [decision.grant_id.as_str(), &request.request_id];
        let grant_id = wishes.into_iter().filter(|id| !id.is_empty()).find(is_free)?;
        let mut grant = new_grant(noted, decision, request);
        grant.grant_id = grant_id.to_owned();
        if counts {
            grant.approvers.push(approver);
        }
        self.grants.insert(grant_id, noted.index, grant);
        Some(grant_id.to_owned())
    }
}

/// The window runs from the approval; what does not fit 64 bits of nanoseconds ends with them.
fn new_grant(
    noted: &Noted<'_>,
    decision: &wire::Decision,
    request: &wire::RequestFacts,
) -> wire::GrantFacts {
    let approved_at = noted.time();
    let asked = request.scope.clone().unwrap_or_default();
    let scope = match &decision.narrowed_scope {
        Some(narrowed) => scope::intersection(&asked, &scope::normal(narrowed)),
        None => asked,
    };
    let end = approved_at.saturating_add(request.requested_nanos);
    wire::GrantFacts {
        request_id: request.request_id.clone(),
        index: noted.index.0,
        requester: request.actor.clone(),
        scope: Some(scope),
        approved_at,
        not_before: decision.not_before.as_ref().map_or(approved_at, event::nanos_of),
        not_after: decision.not_after.as_ref().map_or(end, event::nanos_of),
        max_uses: decision.max_uses,
        max_records: decision.max_records,
        state: GrantState::Active.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
