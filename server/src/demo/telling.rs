//! What an auditor reads out of the half-year: findings and reports, computed from the entries that
//! were verified on the way, and of them the lines that tell the story.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use access_ledger_client::{
    audit::Observer,
    fold::FindingsList,
    reports::{Options, Period, Recomputed, Report},
    verify::Record,
};
use access_ledger_proto::{
    position::Index,
    wire::{FindingRecord, ReportTable},
};
use anyhow::Context as _;

/// Lines of a report, and columns of it.
struct Excerpt {
    report: Report,
    /// What the lines show.
    says: &'static str,
    columns: &'static [&'static str],
    /// The column, and what its cell says in the lines that are shown.
    only: Option<(&'static str, &'static str)>,
    order: Order,
    /// At most so many lines.
    lines: usize,
}

/// Which lines come first.
enum Order {
    AsReported,
    /// Those with the most in this column.
    Most(&'static str),
    /// Those with the least.
    Least(&'static str),
}

/// Computes all that is told, along one audit.
#[derive(Debug)]
pub(super) struct Telling {
    findings: FindingsList,
    reports: Vec<Recomputed>,
}

impl Telling {
    /// For all days of a period.
    pub(super) fn new(period: Period) -> Self {
        let options = Options { period, subject: None, with_staff: false };
        let compute = |excerpt: &Excerpt| Recomputed::new(excerpt.report, options.clone());
        let reports = EXCERPTS.iter().map(compute).collect();
        Self { findings: FindingsList::default(), reports }
    }

    /// Tells the story; the findings.
    pub(super) fn tell(self, out: &mut impl Write) -> anyhow::Result<Vec<FindingRecord>> {
        for (excerpt, report) in EXCERPTS.iter().zip(&self.reports) {
            writeln!(out, "\n{}: {}", excerpt.report.name(), excerpt.says)?;
            excerpt.tell(&report.table()?, out)?;
        }
        let findings = self.findings.conclude()?;
        writeln!(out, "\nfindings: {} in all", findings.len())?;
        tell_findings(&findings, out)?;
        Ok(findings)
    }
}

impl Observer for Telling {
    fn take(&mut self, first: Index, records: &[Record]) {
        self.findings.take(first, records);
        for report in &mut self.reports {
            report.take(first, records);
        }
    }
}

impl Excerpt {
    fn tell(&self, table: &ReportTable, out: &mut impl Write) -> anyhow::Result<()> {
        let place = |name: &str| {
            let place = table.columns.iter().position(|column| column.name == name);
            place.with_context(|| format!("the report {} has no column {name}", table.name))
        };
        let columns = self.columns.iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
        let cells: Vec<&[String]> = table.rows.iter().map(|row| row.cells.as_slice()).collect();
        let cell = |row: &[String], place: usize| {
            row.get(place).map_or_else(String::new, |cell| clipped(cell))
        };
        let mut rows = cells;
        if let Some((name, wanted)) = self.only {
            let place = place(name)?;
            rows.retain(|row| cell(row, place) == wanted);
        }
        let number = |row: &[String], place| cell(row, place).parse::<f64>().unwrap_or(0.0);
        match self.order {
            Order::AsReported => {}
            Order::Most(name) => {
                let by = place(name)?;
                rows.sort_by(|one, other| number(other, by).total_cmp(&number(one, by)));
            }
            Order::Least(name) => {
                let by = place(name)?;
                rows.sort_by(|one, other| number(one, by).total_cmp(&number(other, by)));
            }
        }
        let left = rows.len().saturating_sub(self.lines);
        rows.truncate(self.lines);
        let head = columns.iter().map(|&place| {
            table.columns.get(place).map(|column| column.name.clone()).unwrap_or_default()
        });
        let body = rows.iter().map(|row| columns.iter().map(|&place| cell(row, place)).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head.collect()).chain(body).collect();
        print(
            &lines,
            &columns.iter().map(|&place| is_numeric(table, place)).collect::<Vec<_>>(),
            out,
        )?;
        if left > 0 {
            writeln!(out, "  and {left} more")?;
        }
        Ok(())
    }
}

/// A cell as far as a line has room for it.
fn clipped(cell: &str) -> String {
    match cell.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}...", cell.get(..end).unwrap_or(cell)),
        None => cell.to_owned(),
    }
}

fn is_numeric(table: &ReportTable, place: usize) -> bool {
    table.columns.get(place).is_some_and(|column| column.numeric)
}

/// Prints lines of cells under each other, numbers to the right.
fn print(lines: &[Vec<String>], numeric: &[bool], out: &mut impl Write) -> io::Result<()> {
    let width = |place: usize| {
        let cells = lines.iter().filter_map(|line| line.get(place));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..numeric.len()).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for ((cell, &width), &numeric) in line.iter().zip(&widths).zip(numeric) {
            let cell =
                if numeric { format!("  {cell:>width$}") } else { format!("  {cell:<width$}") };
            text.push_str(&cell);
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// How many findings there are of each rule, and the first of each.
fn tell_findings(findings: &[FindingRecord], out: &mut impl Write) -> io::Result<()> {
    let mut rules: BTreeMap<&str, (u64, &FindingRecord)> = BTreeMap::new();
    for finding in findings {
        rules.entry(&finding.rule).or_insert((0, finding)).0 += 1;
    }
    let lines = rules.iter().map(|(rule, (count, first))| {
        let severity = first.severity().as_str_name().trim_start_matches("SEVERITY_");
        vec![
            (*rule).to_owned(),
            severity.to_lowercase(),
            count.to_string(),
            first.index.to_string(),
        ]
    });
    let head = ["rule", "severity", "found", "first at"].map(str::to_owned).to_vec();
    let lines: Vec<_> = std::iter::once(head).chain(lines).collect();
    print(&lines, &[false, false, true, true], out)
}

const CELL_CHARS_MAX: usize = 40;

/// What is told, in this order.
const EXCERPTS: [Excerpt; 8] = [
    Excerpt {
        report: Report::CrossRegion,
        says: "who abroad reached data of persons at home, the busiest",
        columns: &[
            "office country",
            "physical country",
            "data region",
            "entity",
            "accesses",
            "principals",
            "records",
            "% approved",
            "% denied",
        ],
        only: None,
        order: Order::Most("accesses"),
        lines: 6,
    },
    Excerpt {
        report: Report::Flows,
        says: "a build that nobody approved moves data",
        columns: &[
            "tool",
            "version",
            "approved build",
            "dataset",
            "to region",
            "accesses",
            "records",
            "actors",
            "first seen",
        ],
        only: Some(("approved build", "no")),
        order: Order::Most("records"),
        lines: 6,
    },
    Excerpt {
        report: Report::Privileged,
        says: "an account that reaches everything, without a grant",
        columns: &["actor", "roles", "datasets reached", "accesses", "records", "% with grant"],
        only: None,
        order: Order::Least("% with grant"),
        lines: 4,
    },
    Excerpt {
        report: Report::Transparency,
        says: "what authorities asked for",
        columns: &[
            "half-year",
            "country",
            "legal requests",
            "emergency requests",
            "total requests",
            "accounts specified",
            "% of requests where some data was produced",
        ],
        only: None,
        order: Order::AsReported,
        lines: 4,
    },
    Excerpt {
        report: Report::Approvals,
        says: "somebody approves whatever comes, within minutes",
        columns: &["approver", "decisions", "median time to decide", "% approved"],
        only: None,
        order: Order::AsReported,
        lines: 6,
    },
    Excerpt {
        report: Report::BreakGlass,
        says: "one emergency was reviewed, the other was not",
        columns: &["incident", "start", "accesses", "records", "reviewer", "due", "verdict"],
        only: None,
        order: Order::AsReported,
        lines: 4,
    },
    Excerpt {
        report: Report::Erasure,
        says: "backups abroad are certified to be gone, and read afterwards",
        columns: &[
            "job",
            "site",
            "dataset",
            "completed",
            "verified by",
            "accesses to that site after certification",
        ],
        only: None,
        order: Order::AsReported,
        lines: 4,
    },
    Excerpt {
        report: Report::Custody,
        says: "month by month, the data move to the custodian",
        columns: &["dataset", "site", "operator", "share of records", "change"],
        only: Some(("site", "custodian-us")),
        order: Order::Most("share of records"),
        lines: 8,
    },
];
