//! Grants: whether one covers an access, how accesses use it up, and how it changes.

use super::{
    Facts, Noted, Objection,
    assess::GrantStatus,
    is_performed, not_authorized, records_of,
    requests::{Approver, self_approved},
    scope::{self, Wanted},
};
use crate::{
    event,
    wire::{self, GrantState, SourceRole},
};

/// How an access uses a grant.
pub(super) struct Use<'a> {
    /// The grant; empty: none.
    pub(super) grant_id: &'a str,
    /// What it must cover, besides the data.
    pub(super) wanted: Wanted<'a>,
    /// How many records are touched.
    pub(super) records: u64,
    /// The verdict on the access's intent was counted as the use.
    pub(super) counted_by_verdict: bool,
}

impl Facts {
    /// How an access uses the grant that it names.
    pub(super) fn use_of<'a>(&self, noted: &Noted<'a>, access: &'a wire::Access) -> Use<'a> {
        let actor = noted.event.actor.as_ref();
        let wanted = Wanted {
            actor: actor.map_or("", |actor| &actor.id),
            action: access.action(),
            country: actor.map_or("", |actor| &actor.physical_country),
        };
        Use {
            grant_id: &access.grant_id,
            wanted,
            records: records_of(access.records, &access.data),
            counted_by_verdict: self.is_counted_by_verdict(noted, access),
        }
    }

    /// Whether a grant covers an access at a time: the first status that applies, in the order of
    /// the enum.
    pub(super) fn grant_status(
        &self,
        grant: &wire::GrantFacts,
        time: u64,
        used: &Use<'_>,
        data: &[wire::Data],
    ) -> GrantStatus {
        let changed = time >= grant.changed_at;
        let uses = grant.uses.saturating_sub(used.counted_by_verdict.into());
        let records = grant.records.saturating_add(used.records);
        let in_time = (grant.not_before..grant.not_after).contains(&time);
        if grant.approvers.is_empty() {
            GrantStatus::ApprovalsMissing
        } else if changed && grant.state() == GrantState::Revoked {
            GrantStatus::Revoked
        } else if !in_time
            || changed && matches!(grant.state(), GrantState::Suspended | GrantState::Ended)
        {
            GrantStatus::NotInForce
        } else if !self.is_in_scope(grant, &used.wanted, data) {
            GrantStatus::Scope
        } else if grant.max_uses > 0 && uses >= grant.max_uses
            || grant.max_records > 0 && records > grant.max_records
        {
            GrantStatus::Exhausted
        } else {
            GrantStatus::Valid
        }
    }

    /// Where the event says nothing of a dataset's categories, all that it may hold count.
    fn is_in_scope(
        &self,
        grant: &wire::GrantFacts,
        wanted: &Wanted<'_>,
        data: &[wire::Data],
    ) -> bool {
        let Some(scope) = &grant.scope else { return false };
        let covers_data = |data: &wire::Data| {
            let registered = self.catalogue.dataset(&data.dataset);
            let categories = match registered {
                Some(registered) if data.categories.is_empty() => &registered.categories,
                _ => &data.categories,
            };
            scope::covers_data(scope, &data.dataset, categories)
        };
        scope::covers(scope, wanted) && data.iter().all(covers_data)
    }

    /// Counts an access on the grant that it names. What the grant does not cover is no use of it,
    /// so that nobody uses up a grant of others.
    pub(super) fn count_use(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        let Some(grant) = self.grants.get(&access.grant_id) else { return };
        let used = self.use_of(noted, access);
        let time = noted.time();
        let status = self.grant_status(&grant, time, &used, &access.data);
        let attempted = status == GrantStatus::Scope && access.intent.is_none();
        let covered = matches!(status, GrantStatus::Valid | GrantStatus::Exhausted);
        let performed = covered && is_performed(access);
        if !attempted && !performed {
            return;
        }
        self.grants.change(&access.grant_id, noted.index, |grant| {
            if attempted {
                grant.out_of_scope = grant.out_of_scope.saturating_add(1);
                return;
            }
            grant.uses = grant.uses.saturating_add((!used.counted_by_verdict).into());
            grant.records = grant.records.saturating_add(used.records);
            grant.last_use = grant.last_use.max(time);
            let first = if grant.first_use == 0 { time } else { grant.first_use };
            grant.first_use = first.min(time);
        });
    }

    /// Carries out a change of a grant. Revoked and ended are for good; what was revoked already
    /// stays revoked by whom and since when it was.
    pub(super) fn take_grant_change(
        &mut self,
        noted: &Noted<'_>,
        change: &wire::GrantChange,
    ) -> Vec<Objection> {
        let grant = self.grants.get(&change.grant_id);
        let Some(grant) = grant.filter(|grant| !grant.approvers.is_empty()) else {
            let named = vec![("grant", change.grant_id.clone())];
            return vec![Objection::new("GRANT_UNKNOWN", named)];
        };
        if let Some(objection) = self.judge_grant_change(noted, change, &grant) {
            return vec![objection.with("grant", &change.grant_id)];
        }
        let (new, old) = (change.state(), grant.state());
        let end = change.not_after.as_ref().map_or(0, event::nanos_of);
        let is_final = matches!(old, GrantState::Revoked | GrantState::Ended);
        let has_effect = match new {
            GrantState::Extended => end > grant.not_after,
            GrantState::Active => old == GrantState::Suspended,
            GrantState::Suspended => old != GrantState::Suspended,
            GrantState::Revoked | GrantState::Ended => true,
            GrantState::Unspecified => false,
        };
        if is_final || !has_effect {
            return Vec::new();
        }
        let time = noted.time();
        self.grants.change(&change.grant_id, noted.index, |grant| {
            if new == GrantState::Extended {
                grant.not_after = end;
                if old == GrantState::Suspended {
                    return;
                }
            }
            grant.set_state(new);
            grant.changed_at = time;
            grant.changed_index = noted.index.0;
            grant.changed_by = noted.source.as_str().to_owned();
        });
        Vec::new()
    }

    /// Who approves may change a grant, but not to their own advantage. To give it up or take it
    /// back is also for governance, and for who asked for it.
    fn judge_grant_change(
        &self,
        noted: &Noted<'_>,
        change: &wire::GrantChange,
        grant: &wire::GrantFacts,
    ) -> Option<Objection> {
        let request = self.requests.get(&grant.request_id);
        let approves = self.has_role(noted, SourceRole::Approve);
        let allowed = match change.state() {
            GrantState::Revoked | GrantState::Ended => {
                let asked = request.as_ref().is_some_and(|row| row.source == noted.source.as_str());
                approves || asked || self.has_role(noted, SourceRole::Govern)
            }
            _ => approves,
        };
        if !allowed {
            return Some(not_authorized(noted).because_of(grant.index));
        }
        let prolongs = matches!(change.state(), GrantState::Active | GrantState::Extended);
        let approver = Approver::of(&self.sources, noted.source);
        match request {
            Some(request) if prolongs && approver.gains_by(&request) => {
                Some(self_approved(&approver, &request))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
