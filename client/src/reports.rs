//! Reports: who saw whose data, from where, with which tool, on whose approval.
//!
//! A report is a table computed from a [`Ground`]: day cells that were counted from observations
//! ([`cells`]), facts, findings, and single entries. There are two grounds. An auditor computes
//! everything again from entries that it verified ([`Recomputed`]); a server answers from what its
//! index keeps. Both end in [`table`], so that they agree wherever their grounds do.
//!
//! Rows are counted by the day of `Noted::time`, in UTC; sources by the day of `recorded_at`.
//! Percentages have one decimal, half up. A cell is empty where something is unknown or none.

use std::{fmt, str::FromStr};

use access_ledger_proto::{
    facts::{Facts, Noted},
    position::Index,
    source::SourceName,
    wire,
};

use self::grid::{Column, Row};
pub use self::{
    cells::{Cell, CellKey, Cells, Group},
    observe::{Reports, observe},
    period::{Day, Period},
    recomputed::Recomputed,
};
use crate::error::ReportError;

mod accesses;
mod approvals;
mod break_glass;
pub mod cells;
mod cross_region;
mod custody;
mod erasure;
mod figures;
mod flows;
mod grants;
mod grid;
mod observe;
mod period;
mod privileged;
mod readers;
mod recomputed;
#[cfg(feature = "cli")]
pub mod render;
mod sources;
mod subject;
mod transparency;
mod unapproved;

/// The reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Report {
    /// Who reached data of persons in another country.
    CrossRegion,
    /// Accesses that no approval covered.
    Unapproved,
    /// What privileged accounts reached.
    Privileged,
    /// Which tool moved which data from where to where.
    Flows,
    /// What happened to the data of one person.
    Subject,
    /// What authorities asked for, and got.
    Transparency,
    /// Grants, and requests that wait for one.
    Grants,
    /// How approvers decide.
    Approvals,
    /// Emergency accesses and their reviews.
    BreakGlass,
    /// Data that was removed, and accesses to it afterwards.
    Erasure,
    /// How much of each dataset lies where.
    Custody,
    /// How completely each source recorded.
    Sources,
    /// Who read the ledger.
    Readers,
}

/// What to compute.
#[derive(Clone, Debug)]
pub struct Options {
    /// The days to report on.
    pub period: Period,
    /// Of the report "subject": the person's token.
    pub subject: Option<Vec<u8>>,
    /// Of the report "subject": name the staff.
    pub with_staff: bool,
}

/// Which entries a report needs by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Those of a period with this subject token among their data.
    Subject(&'a [u8], Period),
    /// Those of a period that tell who read the ledger.
    LedgerReads(Period),
    /// Those at these indexes, ascending.
    At(&'a [Index]),
}

/// An entry with its event, by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its place.
    pub index: Index,
    /// Who recorded it.
    pub source: SourceName,
    /// Its time as `Noted::time` has it, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// What it tells.
    pub event: wire::Event,
}

impl Told {
    /// What an entry tells.
    #[must_use]
    pub fn of(noted: &Noted<'_>) -> Self {
        let source = noted.source.to_owned();
        Self { index: noted.index, source, time: noted.time(), event: noted.event.clone() }
    }
}

/// What rows are computed from: of a stretch of the log from entry 0 on.
///
/// Every call may fail with [`ReportError::Ground`] where the ground must be read from a disk, and
/// with [`ReportError::TooManyRows`] where it is not ready to hold that many.
pub trait Ground {
    /// The facts behind the last entry.
    fn facts(&self) -> &Facts;

    /// Time of the last entry, in nanoseconds since the Unix epoch.
    fn recorded_until(&self) -> u64;

    /// The cells of a report in a period: by day for one that tells days apart
    /// ([`Report::tells_days_apart`]), else as if of any days of the period.
    ///
    /// # Errors
    ///
    /// As told above.
    fn cells(&self, report: Report, period: Period) -> Result<Cells, ReportError>;

    /// The findings whose time lies in a period and whose rule is wanted, in the order in which
    /// they were found.
    ///
    /// # Errors
    ///
    /// As told above.
    fn findings(
        &self,
        period: Period,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<wire::FindingRecord>, ReportError>;

    /// The entries wanted, ascending by index, without those whose event was erased.
    ///
    /// # Errors
    ///
    /// As told above.
    fn entries(&self, wanted: &Wanted<'_>) -> Result<Vec<Told>, ReportError>;
}

/// Computes a report.
///
/// # Errors
///
/// [`ReportError::NoSubject`] when the report "subject" is asked for without one; whatever the
/// ground answers.
pub fn table(
    report: Report,
    options: &Options,
    ground: &dyn Ground,
) -> Result<wire::ReportTable, ReportError> {
    let (columns, rows): (&[Column], Vec<Row>) = match report {
        Report::CrossRegion => (&cross_region::COLUMNS, cross_region::rows(options, ground)?),
        Report::Unapproved => (&unapproved::COLUMNS, unapproved::rows(options, ground)?),
        Report::Privileged => (&privileged::COLUMNS, privileged::rows(options, ground)?),
        Report::Flows => (&flows::COLUMNS, flows::rows(options, ground)?),
        Report::Subject => (&subject::COLUMNS, subject::rows(options, ground)?),
        Report::Transparency => (&transparency::COLUMNS, transparency::rows(options, ground)),
        Report::Grants => (&grants::COLUMNS, grants::rows(options, ground)),
        Report::Approvals => (&approvals::COLUMNS, approvals::rows(options, ground)),
        Report::BreakGlass => (&break_glass::COLUMNS, break_glass::rows(options, ground)),
        Report::Erasure => (&erasure::COLUMNS, erasure::rows(options, ground)),
        Report::Custody => (&custody::COLUMNS, custody::rows(options, ground)),
        Report::Sources => (&sources::COLUMNS, sources::rows(options, ground)?),
        Report::Readers => (&readers::COLUMNS, readers::rows(options, ground)?),
    };
    Ok(grid::table(report.name(), columns, rows))
}

/// The footer of a report on a period by this program: the rest is for who knows the log.
#[must_use]
pub fn footer(period: Period) -> wire::ReportFooter {
    wire::ReportFooter {
        from: Some(period.from_time()),
        to: Some(period.to_time()),
        version: concat!("access-ledger ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..wire::ReportFooter::default()
    }
}

impl Report {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::CrossRegion,
        Self::Unapproved,
        Self::Privileged,
        Self::Flows,
        Self::Subject,
        Self::Transparency,
        Self::Grants,
        Self::Approvals,
        Self::BreakGlass,
        Self::Erasure,
        Self::Custody,
        Self::Sources,
        Self::Readers,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CrossRegion => "cross-region",
            Self::Unapproved => "unapproved",
            Self::Privileged => "privileged",
            Self::Flows => "flows",
            Self::Subject => "subject",
            Self::Transparency => "transparency",
            Self::Grants => "grants",
            Self::Approvals => "approvals",
            Self::BreakGlass => "break-glass",
            Self::Erasure => "erasure",
            Self::Custody => "custody",
            Self::Sources => "sources",
            Self::Readers => "readers",
        }
    }

    /// All names, for people.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Its number in the keys of cells, which a server keeps: never given to another report.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::CrossRegion => 1,
            Self::Unapproved => 2,
            Self::Privileged => 3,
            Self::Flows => 4,
            Self::Subject => 5,
            Self::Transparency => 6,
            Self::Grants => 7,
            Self::Approvals => 8,
            Self::BreakGlass => 9,
            Self::Erasure => 10,
            Self::Custody => 11,
            Self::Sources => 12,
            Self::Readers => 13,
        }
    }

    /// Whether it looks at the days of a period one by one; cells of others may be added up over
    /// days beforehand.
    #[must_use]
    pub const fn tells_days_apart(self) -> bool {
        matches!(self, Self::Sources)
    }

    /// The report of a [`Report::tag`].
    #[must_use]
    pub fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|report| report.tag() == tag)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(out)
    }
}

impl FromStr for Report {
    type Err = ReportError;

    fn from_str(name: &str) -> Result<Self, ReportError> {
        let found = Self::ALL.into_iter().find(|report| report.name() == name);
        found.ok_or_else(|| ReportError::Name { found: name.to_owned() })
    }
}
