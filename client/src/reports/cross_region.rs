//! `cross-region`: who reached data of persons in another country.
//!
//! Counted are attempts by anybody whose office or place is not known to be in the country whose
//! law protects the persons; where neither is known, the attempt counts. An attempt that reaches
//! several kinds of data counts once for each row. The change is that of the accesses, in percent,
//! to the period of the same length directly before.

use std::collections::BTreeMap;

use super::{
    Cells, Day, Ground, Group, Options, Report,
    accesses::{Attempt, Item, is_known},
    figures::{change, percent},
    grid::{Column, Row, number, text},
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 14] = [
    text("period"),
    text("subject jurisdiction"),
    text("data region"),
    text("office country"),
    text("physical country"),
    text("entity"),
    number("accesses"),
    number("principals"),
    number("records"),
    number("bytes"),
    number("% approved"),
    number("% denied"),
    number("change to the period before"),
    number("% location unverified"),
];

pub(super) fn observe(cells: &mut Cells, attempt: &Attempt<'_>) {
    let actor = attempt.actor;
    let mut counted: Vec<(&str, &str)> = Vec::new();
    for item in attempt.items().filter(|item| crosses(attempt, item)) {
        let kind = (item.jurisdiction(), item.data.region.as_str());
        let is_first = !counted.contains(&kind);
        let (office, physical) = (&actor.office_country, &actor.physical_country);
        let group = [kind.0, kind.1, office, physical, &actor.entity];
        cells.change(Report::CrossRegion, Day::of(attempt.time), &group, |cell| {
            cell.records = cell.records.saturating_add(item.records);
            cell.bytes = cell.bytes.saturating_add(item.bytes);
            if is_first {
                cell.count += 1;
                cell.approved += u64::from(attempt.is_approved);
                cell.denied += u64::from(attempt.is_denied);
                cell.unverified += u64::from(!attempt.is_location_verified());
                cell.people.insert(&actor.id);
            }
        });
        counted.push(kind);
    }
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let (report, period) = (Report::CrossRegion, options.period);
    let before: BTreeMap<Group, u64> = match period.before() {
        Some(before) => {
            let groups = ground.cells(report, before)?.by_group().into_iter();
            groups.map(|(group, cell)| (group, cell.count)).collect()
        }
        None => BTreeMap::new(),
    };
    let groups = ground.cells(report, period)?.by_group().into_iter();
    let row = |(group, cell): (Group, super::Cell)| {
        let mut row = vec![period.to_string()];
        row.extend((0..5).map(|part| group.part(part).to_owned()));
        row.extend([
            cell.count.to_string(),
            cell.people.count().to_string(),
            cell.records.to_string(),
            cell.bytes.to_string(),
            percent(cell.approved, cell.count),
            percent(cell.denied, cell.count),
            change(cell.count, before.get(&group).copied().unwrap_or_default()),
            percent(cell.unverified, cell.count),
        ]);
        row
    };
    Ok(groups.map(row).collect())
}

/// Whether somebody from elsewhere reaches the data, or may.
fn crosses(attempt: &Attempt<'_>, item: &Item<'_>) -> bool {
    let places = [&attempt.actor.office_country, &attempt.actor.physical_country];
    let mut known = places.into_iter().filter(|country| is_known(country)).peekable();
    known.peek().is_none() || known.any(|country| country != item.jurisdiction())
}
