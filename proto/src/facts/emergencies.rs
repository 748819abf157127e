//! Break-glass: emergency access without a grant, which is reviewed afterwards.

use super::{
    Facts, HOUR_NANOS, Noted, Objection, assess::BreakGlassStatus, not_authorized, records_of,
    requests::Approver,
};
use crate::{
    event,
    position::Index,
    wire::{self, BreakGlassPhase, SourceRole},
};

/// When the review is due if the declaration does not say: after three days, which a weekend fits
/// in.
pub const REVIEW_DEFAULT_NANOS: u64 = 72 * HOUR_NANOS;

/// The latest that a declaration can put the review off to: 30 days.
pub const REVIEW_NANOS_MAX: u64 = 30 * 24 * HOUR_NANOS;

impl Facts {
    /// Says that it was found that an emergency went unreviewed.
    pub fn note_overdue(&mut self, break_glass_id: &str, index: Index) {
        self.break_glass.change(break_glass_id, index, |row| row.overdue = true);
    }

    /// Whether an emergency is in force at a time: until it is ended, reviewed or due for review.
    pub(super) fn break_glass_status(&self, id: &str, time: u64) -> BreakGlassStatus {
        if id.is_empty() {
            return BreakGlassStatus::None;
        }
        let Some(row) = self.break_glass.get(id) else { return BreakGlassStatus::Unknown };
        let before = |end: u64| end == 0 || time < end;
        let in_force = time >= row.declared_at
            && time < row.review_due
            && before(row.ended_at)
            && before(row.reviewed_at);
        if in_force { BreakGlassStatus::InForce } else { BreakGlassStatus::NotInForce }
    }

    pub(super) fn count_emergency(&mut self, noted: &Noted<'_>, access: &wire::Access) {
        if access.break_glass_id.is_empty() {
            return;
        }
        self.break_glass.change(&access.break_glass_id, noted.index, |row| {
            row.accesses = row.accesses.saturating_add(1);
            row.records = row.records.saturating_add(records_of(access.records, &access.data));
        });
    }

    /// The first declaration, the first end and the first review of an id count.
    pub(super) fn take_break_glass(
        &mut self,
        noted: &Noted<'_>,
        event: &wire::BreakGlass,
    ) -> Vec<Objection> {
        match event.phase() {
            BreakGlassPhase::Declared => self.declare(noted, event),
            BreakGlassPhase::Ended => {
                self.break_glass.change(&event.break_glass_id, noted.index, |row| {
                    if row.ended_at == 0 {
                        row.ended_at = noted.time();
                    }
                });
            }
            BreakGlassPhase::Reviewed => return self.review(noted, event),
            BreakGlassPhase::Unspecified => {}
        }
        Vec::new()
    }

    fn declare(&mut self, noted: &Noted<'_>, event: &wire::BreakGlass) {
        if self.break_glass.get(&event.break_glass_id).is_some() {
            return;
        }
        let declared_at = noted.time();
        let due = event.review_due.as_ref().map_or(0, event::nanos_of);
        let wait = match due.saturating_sub(declared_at) {
            0 => REVIEW_DEFAULT_NANOS,
            wait => wait.min(REVIEW_NANOS_MAX),
        };
        let row = wire::BreakGlassFacts {
            break_glass_id: event.break_glass_id.clone(),
            incident: event.incident.clone(),
            index: noted.index.0,
            declared_at,
            declared_by: noted.actor().to_owned(),
            source: noted.source.as_str().to_owned(),
            review_due: declared_at.saturating_add(wait),
            ..Default::default()
        };
        self.break_glass.insert(&event.break_glass_id, noted.index, row);
    }

    /// A review counts from who may answer requests or change the rules, and did not declare the
    /// emergency.
    fn review(&mut self, noted: &Noted<'_>, event: &wire::BreakGlass) -> Vec<Objection> {
        let Some(row) = self.break_glass.get(&event.break_glass_id) else { return Vec::new() };
        let id = event.break_glass_id.as_str();
        if !self.has_role(noted, SourceRole::Approve) && !self.has_role(noted, SourceRole::Govern) {
            let objection = not_authorized(noted).with("break_glass", id);
            return vec![objection.because_of(row.index)];
        }
        let reviewer = Approver::of(&self.sources, noted.source);
        if reviewer.declared(&row) {
            let named = vec![("approver", noted.source.as_str().to_owned())];
            let objection = Objection::new("SELF_APPROVED", named).with("break_glass", id);
            return vec![objection.because_of(row.index)];
        }
        self.break_glass.change(id, noted.index, |row| {
            if row.reviewed_at == 0 {
                row.reviewed_at = noted.time();
                row.reviewer = noted.source.as_str().to_owned();
                row.verdict = event.review_verdict;
            }
        });
        Vec::new()
    }
}
