//! Day cells: what the reports that count are computed from.
//!
//! A [`Cell`] is what one report counted on one day for one group of accesses. Cells merge in any
//! order and grouping, so they can be counted in parts, kept by a server, and added up over any
//! period of days. No cell grows without bound: sets keep their first names, and of people only
//! hashes ([`Distinct`]).

use std::{borrow::Borrow, cmp::Ordering, collections::HashMap, ops::Range};

use access_ledger_proto::position::count_of;

pub use self::{
    distinct::{Distinct, Names},
    minutes::Minutes,
};
use super::{
    Report,
    period::{Day, Period},
};

mod distinct;
mod minutes;
mod stored;
#[cfg(test)]
mod tests;

/// What one report counted on one day for one group. What a report does not count stays empty.
///
/// Sums saturate; times are nanoseconds since the Unix epoch, 0 where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Accesses, or entries of a source.
    pub count: u64,
    /// Of them: under a grant in force.
    pub approved: u64,
    /// Of them: denied.
    pub denied: u64,
    /// Of them: the place of the person was not verified.
    pub unverified: u64,
    /// Records touched.
    pub records: u64,
    /// Bytes touched.
    pub bytes: u64,
    /// Events that a source declared lost.
    pub lost: u64,
    /// Declarations of such losses.
    pub gaps: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Time of the first one.
    pub first: u64,
    /// Time of the last one.
    pub last: u64,
    /// Time of the last one after which a source said that it stops.
    pub stopped: u64,
    /// Who accessed.
    pub people: Distinct,
    /// Roles that they had.
    pub roles: Names,
    /// Datasets reached.
    pub datasets: Names,
    /// Boundaries reached.
    pub boundaries: Names,
    /// Categories of data reached.
    pub categories: Names,
    /// Tools used.
    pub tools: Names,
    /// Purposes given.
    pub purposes: Names,
    /// Builds that ran.
    pub builds: Names,
    /// When there was anything.
    pub minutes: Minutes,
}

impl Cell {
    /// Adds what another cell counted: associative, commutative, and the empty cell changes
    /// nothing.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.count, other.count),
            (&mut self.approved, other.approved),
            (&mut self.denied, other.denied),
            (&mut self.unverified, other.unverified),
            (&mut self.records, other.records),
            (&mut self.bytes, other.bytes),
            (&mut self.lost, other.lost),
            (&mut self.gaps, other.gaps),
            (&mut self.heartbeats, other.heartbeats),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.seen(other.first);
        self.seen(other.last);
        self.stopped = self.stopped.max(other.stopped);
        self.people.merge(&other.people);
        for (names, more) in [
            (&mut self.roles, &other.roles),
            (&mut self.datasets, &other.datasets),
            (&mut self.boundaries, &other.boundaries),
            (&mut self.categories, &other.categories),
            (&mut self.tools, &other.tools),
            (&mut self.purposes, &other.purposes),
            (&mut self.builds, &other.builds),
        ] {
            names.merge(more);
        }
        self.minutes.merge(&other.minutes);
    }

    /// Notes a time at which there was something; 0 is none.
    pub fn seen(&mut self, time: u64) {
        if time == 0 {
            return;
        }
        self.first = if self.first == 0 { time } else { self.first.min(time) };
        self.last = self.last.max(time);
    }

    /// Compact bytes, for a server's rollups. Derived, so no part of any signed format; equal cells
    /// have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored::encode(self)
    }

    /// Reads what [`Cell::encode`] gave; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        stored::parse(bytes)
    }
}

/// Which cell: report, day and group, in bytes whose order is that of report and day.
///
/// ```text
/// offset  bytes
/// 0       1      report ([`Report::tag`])
/// 1       4      day, big-endian
/// 5       ...    parts of the group, each: length, 2 bytes, big-endian; UTF-8
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey(Box<[u8]>);

impl CellKey {
    /// The key of a group that is named by these parts.
    #[must_use]
    pub fn new(report: Report, day: Day, group: &[&str]) -> Self {
        let mut key = Vec::new();
        write_key(&mut key, report, day, group);
        Self(key.into())
    }

    /// Reads a key's bytes; `None` when they are none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let key = Self(bytes.into());
        key.read().is_some().then_some(key)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes between which the keys of a report's cells in a period lie.
    #[must_use]
    pub fn range(report: Report, period: Period) -> Range<Vec<u8>> {
        let bound = |day| Self::new(report, Day(day), &[]).0.into_vec();
        bound(period.days().start)..bound(period.days().end)
    }

    /// The report, the day, and the parts of the group.
    #[must_use]
    pub fn read(&self) -> Option<(Report, Day, Group)> {
        let (&tag, rest) = self.0.split_first()?;
        let (day, mut rest) = rest.split_first_chunk::<4>()?;
        let mut parts = Vec::new();
        while let Some((len, bytes)) = rest.split_first_chunk::<2>() {
            let (part, after) = bytes.split_at_checked(u16::from_be_bytes(*len).into())?;
            parts.push(std::str::from_utf8(part).ok()?.to_owned());
            rest = after;
        }
        let report = Report::of_tag(tag)?;
        rest.is_empty().then(|| (report, Day(u32::from_be_bytes(*day)), Group(parts)))
    }
}

impl Borrow<[u8]> for CellKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// What a row of a report is about, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(Vec<String>);

impl Group {
    /// A part by its place; empty where there is none.
    #[must_use]
    pub fn part(&self, at: usize) -> &str {
        self.0.get(at).map_or("", String::as_str)
    }
}

/// Cells by their keys.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    by_key: HashMap<CellKey, Cell>,
    /// Where keys are built, so that counting allocates only for new cells.
    scratch: Vec<u8>,
}

impl Cells {
    /// Changes a cell, which is empty at first.
    pub fn change(
        &mut self,
        report: Report,
        day: Day,
        group: &[&str],
        change: impl FnOnce(&mut Cell),
    ) {
        self.scratch.clear();
        write_key(&mut self.scratch, report, day, group);
        if let Some(cell) = self.by_key.get_mut(self.scratch.as_slice()) {
            return change(cell);
        }
        let mut cell = Cell::default();
        change(&mut cell);
        self.by_key.insert(CellKey(self.scratch.as_slice().into()), cell);
    }

    /// Adds a cell.
    pub fn add(&mut self, key: CellKey, cell: &Cell) {
        self.by_key.entry(key).or_default().merge(cell);
    }

    /// Adds all cells of others.
    pub fn merge(&mut self, others: Self) {
        if self.by_key.is_empty() {
            self.by_key = others.by_key;
            return;
        }
        for (key, cell) in others.by_key {
            self.add(key, &cell);
        }
    }

    /// All cells in the order of their keys; none is left.
    pub fn drain(&mut self) -> Vec<(CellKey, Cell)> {
        let mut cells: Vec<_> = self.by_key.drain().collect();
        cells.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        cells
    }

    /// Those of a report in a period.
    #[must_use]
    pub fn of(&self, report: Report, period: Period) -> Self {
        let range = CellKey::range(report, period);
        let inside = self.by_key.iter().filter(|(key, _)| {
            range.start.as_slice() <= key.as_bytes() && key.as_bytes() < range.end.as_slice()
        });
        let by_key = inside.map(|(key, cell)| (key.clone(), cell.clone())).collect();
        Self { by_key, scratch: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        count_of(self.by_key.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The cells of each group added up over all days, in the order of the groups. All are taken to
    /// be of one report.
    pub(super) fn by_group(&self) -> Vec<(Group, Cell)> {
        let mut days = self.by_day();
        days.dedup_by(|(next, _, cell), (group, _, total)| {
            let same = next == group;
            if same {
                total.merge(cell);
            }
            same
        });
        days.into_iter().map(|(group, _, total)| (group, total)).collect()
    }

    /// All cells, those of a group side by side in the order of their days.
    pub(super) fn by_day(&self) -> Vec<(Group, Day, Cell)> {
        let read = self.by_key.iter().filter_map(|(key, cell)| {
            let (_, day, group) = key.read()?;
            Some((group, day, cell.clone()))
        });
        let mut days: Vec<_> = read.collect();
        days.sort_unstable_by(|(one, one_day, _), (other, other_day, _)| match one.cmp(other) {
            Ordering::Equal => one_day.cmp(other_day),
            different => different,
        });
        days
    }
}

/// Appends a key's bytes. A part that is longer than any string of a lawful event is cut.
fn write_key(key: &mut Vec<u8>, report: Report, day: Day, group: &[&str]) {
    key.push(report.tag());
    key.extend(day.0.to_be_bytes());
    for part in group {
        let cut = part.floor_char_boundary(usize::from(u16::MAX));
        let part = part.get(..cut).unwrap_or_default();
        key.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        key.extend(part.as_bytes());
    }
}
