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

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::wire::ReviewVerdict;

    fn phase(phase: BreakGlassPhase) -> wire::BreakGlass {
        wire::BreakGlass {
            break_glass_id: "b".into(),
            phase: phase.into(),
            review_verdict: ReviewVerdict::Justified.into(),
            ..Default::default()
        }
    }

    fn take(ledger: &mut Ledger, source: &str, event: wire::BreakGlass) -> Vec<&'static str> {
        ledger.rules(source, EventBody::BreakGlass(event))
    }

    fn declared(review_due: Option<u64>) -> Ledger {
        let mut ledger = Ledger::new();
        let review_due = review_due.map(timestamp);
        let event = wire::BreakGlass { review_due, ..phase(BreakGlassPhase::Declared) };
        assert_eq!(take(&mut ledger, "gateway", event), [""; 0]);
        ledger
    }

    fn status(ledger: &Ledger) -> BreakGlassStatus {
        let access = wire::Access { break_glass_id: "b".into(), ..access("", "users") };
        ledger.assess("gateway", EventBody::Access(access)).break_glass
    }

    fn row(ledger: &Ledger) -> wire::BreakGlassFacts {
        ledger.facts.break_glass().get("b").unwrap().into_owned()
    }

    #[test]
    fn an_emergency_is_in_force_until_it_ends() {
        let none = Ledger::new();
        assert_eq!(status(&none), BreakGlassStatus::Unknown);
        let mut ledger = declared(None);
        assert_eq!(status(&ledger), BreakGlassStatus::InForce);
        let used = wire::Access { break_glass_id: "b".into(), records: 3, ..access("", "users") };
        ledger.take("gateway", EventBody::Access(used));
        take(&mut ledger, "gateway", phase(BreakGlassPhase::Ended));
        assert_eq!(status(&ledger), BreakGlassStatus::NotInForce);
        let ended = row(&ledger);
        assert_eq!((ended.accesses, ended.records), (1, 3));
        // Neither a second end nor a second declaration changes that.
        take(&mut ledger, "gateway", phase(BreakGlassPhase::Ended));
        take(&mut ledger, "gateway", phase(BreakGlassPhase::Declared));
        assert_eq!(row(&ledger), ended);
    }

    #[test]
    fn a_review_is_due_in_time_and_an_emergency_over_by_then() {
        let due = |review_due| {
            let row = row(&declared(review_due));
            row.review_due - row.declared_at
        };
        assert_eq!(due(None), REVIEW_DEFAULT_NANOS);
        assert_eq!(due(Some(0)), REVIEW_DEFAULT_NANOS);
        assert_eq!(due(Some(u64::MAX)), REVIEW_NANOS_MAX);
        let mut ledger = declared(None);
        ledger.now = row(&ledger).review_due;
        assert_eq!(status(&ledger), BreakGlassStatus::NotInForce);
    }

    #[test]
    fn a_review_counts_from_who_may_and_did_not_declare() {
        let mut ledger = declared(None);
        let reviewed = || phase(BreakGlassPhase::Reviewed);
        assert_eq!(take(&mut ledger, "gateway", reviewed()), ["APPROVER_NOT_AUTHORIZED"]);
        assert_eq!(row(&ledger).reviewed_at, 0);
        assert_eq!(take(&mut ledger, "security/ann", reviewed()), [""; 0]);
        assert_eq!(status(&ledger), BreakGlassStatus::NotInForce);
        let first = row(&ledger);
        assert_eq!(
            (first.reviewer.as_str(), first.verdict()),
            ("security/ann", ReviewVerdict::Justified)
        );
        assert_eq!(take(&mut ledger, "security/ben", reviewed()), [""; 0]);
        assert_eq!(row(&ledger), first);
        // By one of the security team, for whom the gateway told it.
        let mut ledger = Ledger { actor: "ann".into(), ..Ledger::new() };
        take(&mut ledger, "gateway", phase(BreakGlassPhase::Declared));
        assert_eq!(take(&mut ledger, "security/ann", reviewed()), ["SELF_APPROVED"]);
        assert_eq!(take(&mut ledger, "security/ben", reviewed()), [""; 0]);
    }

    #[test]
    fn what_is_told_of_an_unknown_emergency_is_kept_by_nobody() {
        let mut ledger = Ledger::new();
        for told in
            [BreakGlassPhase::Ended, BreakGlassPhase::Reviewed, BreakGlassPhase::Unspecified]
        {
            assert_eq!(take(&mut ledger, "security/ann", phase(told)), [""; 0]);
        }
        take(
            &mut ledger,
            "gateway",
            wire::BreakGlass { phase: 99, ..phase(BreakGlassPhase::Ended) },
        );
        assert!(ledger.facts.break_glass().get("b").is_none());
    }

    #[test]
    fn that_it_went_unreviewed_is_noted() {
        let mut ledger = declared(None);
        ledger.facts.note_overdue("b", Index(99));
        ledger.facts.note_overdue("unknown", Index(99));
        assert!(row(&ledger).overdue);
    }
}
