//! `break-glass`: emergency accesses and their reviews, of emergencies that lie in the period at
//! least in part.

use access_ledger_proto::wire::{BreakGlassFacts, ReviewVerdict};

use super::{
    Ground, Options,
    grid::{Column, Row, label, number, text},
    period::time,
};

pub(super) const COLUMNS: [Column; 10] = [
    text("incident"),
    text("declared by"),
    text("start"),
    text("end"),
    number("accesses"),
    number("records"),
    text("reviewer"),
    text("due"),
    text("reviewed at"),
    text("verdict"),
];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let period = options.period;
    let mut rows = Vec::new();
    ground.facts().break_glass().each(|id, facts| {
        let has_ended = facts.ended_at != 0 && facts.ended_at < period.from();
        if facts.declared_at < period.to() && !has_ended {
            rows.push((facts.declared_at, id.to_owned(), row(facts)));
        }
    });
    rows.sort();
    rows.into_iter().map(|(_, _, row)| row).collect()
}

fn row(facts: &BreakGlassFacts) -> Row {
    let incident = if facts.incident.is_empty() { &facts.break_glass_id } else { &facts.incident };
    vec![
        incident.clone(),
        facts.declared_by.clone(),
        time(facts.declared_at),
        time(facts.ended_at),
        facts.accesses.to_string(),
        facts.records.to_string(),
        facts.reviewer.clone(),
        time(facts.review_due),
        time(facts.reviewed_at),
        label(facts.verdict, ReviewVerdict::as_str_name, "REVIEW_VERDICT_"),
    ]
}
