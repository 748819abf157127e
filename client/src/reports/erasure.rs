//! `erasure`: data that was removed from a site, and accesses to it afterwards.
//!
//! A job is told of when it lies in the period at least in part, and for ever after when the data
//! that it certified as gone was accessed.

use access_ledger_proto::wire::ErasureFacts;

use super::{
    Ground, Options,
    grid::{Column, Row, number, text},
    period::time,
};

pub(super) const COLUMNS: [Column; 9] = [
    text("job"),
    text("site"),
    text("dataset"),
    number("objects"),
    text("method"),
    text("scheduled"),
    text("completed"),
    text("verified by"),
    number("accesses to that site after certification"),
];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let period = options.period;
    let mut rows = Vec::new();
    ground.facts().erasures().each(|job, facts| {
        let times = [
            facts.scheduled_at,
            facts.started_at,
            facts.completed_at,
            facts.verified_at,
            facts.certified_at,
            facts.failed_at,
        ];
        let began = times.into_iter().filter(|&time| time != 0).min().unwrap_or_default();
        let ended = facts.certified_at.max(facts.failed_at);
        let is_over = ended != 0 && ended < period.from() && facts.accesses_after == 0;
        if began < period.to() && !is_over {
            rows.push((began, job.to_owned(), row(facts)));
        }
    });
    rows.sort();
    rows.into_iter().map(|(_, _, row)| row).collect()
}

fn row(facts: &ErasureFacts) -> Row {
    vec![
        facts.job_id.clone(),
        facts.site.clone(),
        facts.dataset.clone(),
        facts.objects.to_string(),
        facts.method.clone(),
        time(facts.scheduled_at),
        time(facts.completed_at),
        facts.verified_by.clone(),
        facts.accesses_after.to_string(),
    ]
}
