//! `approvals`: how approvers decide.
//!
//! All decisions that the approver took in the period count, those without effect too. The time to
//! decide runs from the request. Same-entity decisions are those where the approver's entity is the
//! requester's. Low-information justifications are those that the approver approved all the same. A
//! reciprocal pair are two persons who both approved a request of the other; the other one is
//! named.

use std::collections::{BTreeMap, BTreeSet};

use access_ledger_proto::wire::{DecisionFacts, RequestFacts, Verdict};

use super::{
    Ground, Options,
    figures::{median, percent, span},
    grid::{Column, Row, list, number, text},
};

pub(super) const COLUMNS: [Column; 7] = [
    text("approver"),
    number("decisions"),
    text("median time to decide"),
    number("% approved"),
    number("same-entity %"),
    number("low-information justifications"),
    text("reciprocal pairs"),
];

/// What one approver did.
#[derive(Default)]
struct Counted {
    spans: Vec<u64>,
    approved: u64,
    same_entity: u64,
    low_information: u64,
    /// Who approved, by the keys of this approver.
    persons: BTreeSet<String>,
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let mut approvers: BTreeMap<String, Counted> = BTreeMap::new();
    let mut approvals = BTreeSet::new();
    ground.facts().requests().each(|_, request| {
        let decisions = request.decisions.iter();
        for decision in decisions.filter(|decision| options.period.contains(decision.time)) {
            approvers.entry(decision.approver.clone()).or_default().take(request, decision);
            if decision.verdict() == Verdict::Approve {
                approvals.insert((person(decision).to_owned(), request.actor.clone()));
            }
        }
    });
    approvers.into_iter().map(|(name, counted)| counted.row(name, &approvals)).collect()
}

impl Counted {
    fn take(&mut self, request: &RequestFacts, decision: &DecisionFacts) {
        let is_approval = decision.verdict() == Verdict::Approve;
        let is_same = !decision.entity.is_empty() && decision.entity == request.actor_entity;
        self.spans.push(decision.time.saturating_sub(request.time));
        self.approved += u64::from(is_approval);
        self.same_entity += u64::from(is_same);
        self.low_information += u64::from(is_approval && request.low_information);
        self.persons.insert(person(decision).to_owned());
    }

    /// The row; `approvals` tells who approved whose request.
    fn row(mut self, approver: String, approvals: &BTreeSet<(String, String)>) -> Row {
        let decisions = access_ledger_proto::position::count_of(self.spans.len());
        let others = approvals.iter().filter(|(one, other)| {
            let is_returned = approvals.contains(&(other.clone(), one.clone()));
            self.persons.contains(one) && one != other && is_returned
        });
        let pairs: BTreeSet<_> = others.map(|(_, other)| other.as_str()).collect();
        vec![
            approver,
            decisions.to_string(),
            median(&mut self.spans).map_or_else(String::new, span),
            percent(self.approved, decisions),
            percent(self.same_entity, decisions),
            self.low_information.to_string(),
            list(pairs),
        ]
    }
}

/// The person whose key it is; the source's name stands for a person that it does not name.
fn person(decision: &DecisionFacts) -> &str {
    if decision.principal.is_empty() { &decision.approver } else { &decision.principal }
}
