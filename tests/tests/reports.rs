//! Each report, computed from a log that the test tells by hand, is exactly the table that it
//! should be; and it is the same however the log is cut.

use access_ledger_client::{
    audit::Observer as _,
    reports::{Day, Options, Period, Recomputed, Report},
};
use access_ledger_proto::{position::Index, wire};
use access_ledger_tests::story::{DAY, Story};

#[path = "reports/accesses.rs"]
mod accesses;
#[path = "reports/approval.rs"]
mod approval;
#[path = "reports/command.rs"]
mod command;
#[path = "reports/records.rs"]
mod records;

/// The period of days `from..to`, counted from the story's first.
fn days(from: u32, to: u32) -> anyhow::Result<Period> {
    let first = Day::of(access_ledger_tests::story::BEGIN);
    Ok(Period::new(Day(first.0 + from), Day(first.0 + to))?)
}

/// What to compute of a period.
const fn options(period: Period) -> Options {
    Options { period, subject: None, with_staff: false }
}

/// A report of a story, fed to the fold in runs of this many records.
fn table(
    story: &Story,
    report: Report,
    options: &Options,
    run: usize,
) -> anyhow::Result<wire::ReportTable> {
    let mut recomputed = Recomputed::new(report, options.clone());
    let mut first = Index::GENESIS;
    for records in story.records()?.chunks(run) {
        recomputed.take(first, records);
        first = first.plus(records.len() as u64);
    }
    Ok(recomputed.table()?)
}

/// The rows of a report, one a line, cells parted by ` | `.
fn rows_of(story: &Story, report: Report, options: &Options) -> anyhow::Result<Vec<String>> {
    let table = table(story, report, options, usize::MAX)?;
    for row in &table.rows {
        assert_eq!(row.cells.len(), table.columns.len(), "{report}");
    }
    Ok(table.rows.iter().map(|row| row.cells.join(" | ")).collect())
}

/// The same, of the story's first days.
fn rows(story: &Story, report: Report, until: u32) -> anyhow::Result<Vec<String>> {
    rows_of(story, report, &options(days(0, until)?))
}

#[test]
fn the_columns_are_those_of_the_vocabulary() -> anyhow::Result<()> {
    let story = Story::open()?;
    let period = days(0, 1)?;
    let wanted = [
        "period, subject jurisdiction, data region, office country, physical country, entity, accesses, principals, records, bytes, % approved, % denied, change to the period before, % location unverified",
        "index, time, actor, entity, countries, tool, dataset, action, records, rule, state",
        "actor, roles, datasets reached, boundaries crossed, tools, accesses, records, % with grant, last use",
        "tool, version, approved build, owner, dataset, from region, to region, categories, purposes, accesses, records, actors, first seen, last seen",
        "time, purpose, categories, action, recipient category, country, legal basis, disclosed to",
        "half-year, country, legal requests, emergency requests, total requests, accounts specified, % of requests where some data was produced, by process type, accounts affected, user notified",
        "grant, requester, approvers, scope, approved at, in force from, in force to, first use, last use, uses of max, out-of-scope attempts, ended by",
        "approver, decisions, median time to decide, % approved, same-entity %, low-information justifications, reciprocal pairs",
        "incident, declared by, start, end, accesses, records, reviewer, due, reviewed at, verdict",
        "job, site, dataset, objects, method, scheduled, completed, verified by, accesses to that site after certification",
        "dataset, site, operator, share of records, as of, change",
        "source, role, first seq, last seq, gaps, declared losses, heartbeats expected, heartbeats received, longest silence, build changes",
        "reader, server, read, query, calls, rows, from index, to index, subjects, first, last",
    ];
    for (report, wanted) in Report::ALL.into_iter().zip(wanted) {
        let options = Options { subject: Some(vec![1]), ..options(period) };
        let table = table(&story, report, &options, 7)?;
        let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names.join(", "), wanted);
        assert_eq!(table.name, report.name());
        assert_eq!(report.name().parse::<Report>()?, report);
    }
    Ok(())
}

#[test]
fn how_the_log_is_cut_into_runs_changes_nothing() -> anyhow::Result<()> {
    let mut story = Story::open()?;
    for _ in 0..40 {
        story.access(|_, access| access.grant_id.clear())?;
        story.wait(DAY / 5);
    }
    for report in Report::ALL {
        let options = Options { subject: Some(vec![1]), ..options(days(1, 6)?) };
        let whole = table(&story, report, &options, usize::MAX)?;
        assert_eq!(table(&story, report, &options, 3)?, whole, "{report}");
    }
    Ok(())
}

#[test]
fn subject_without_a_token_and_unknown_names_are_refused() -> anyhow::Result<()> {
    let story = Story::open()?;
    let refused = rows(&story, Report::Subject, 1).unwrap_err();
    assert_eq!(refused.to_string(), "report subject without a subject token");
    let unknown = "rumours".parse::<Report>().unwrap_err().to_string();
    assert!(unknown.starts_with("no report is called \"rumours\"; there are cross-region, "));
    Ok(())
}
