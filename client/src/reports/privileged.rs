//! `privileged`: what accounts reached that reach everything by their nature.

use super::{
    Cell, Cells, Day, Ground, Group, Options, Report,
    accesses::Attempt,
    figures::percent,
    grid::{Column, Row, number, text},
    period::time,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 9] = [
    text("actor"),
    text("roles"),
    text("datasets reached"),
    text("boundaries crossed"),
    text("tools"),
    number("accesses"),
    number("records"),
    number("% with grant"),
    text("last use"),
];

pub(super) fn observe(cells: &mut Cells, attempt: &Attempt<'_>) {
    let actor = attempt.actor;
    if !actor.privileged {
        return;
    }
    cells.change(Report::Privileged, Day::of(attempt.time), &[&actor.id], |cell| {
        cell.count += 1;
        cell.approved += u64::from(attempt.is_approved);
        cell.records = cell.records.saturating_add(attempt.records());
        cell.seen(attempt.time);
        for role in &actor.roles {
            cell.roles.insert(role);
        }
        cell.tools.insert(attempt.event.tool.as_ref().map_or("", |tool| &tool.id));
        if attempt.is_performed {
            for item in attempt.items() {
                cell.datasets.insert(&item.data.dataset);
                cell.boundaries.insert(&item.boundary());
            }
        }
    });
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let groups = ground.cells(Report::Privileged, options.period)?.by_group();
    let row = |(group, cell): (Group, Cell)| {
        vec![
            group.part(0).to_owned(),
            cell.roles.listed(),
            cell.datasets.listed(),
            cell.boundaries.listed(),
            cell.tools.listed(),
            cell.count.to_string(),
            cell.records.to_string(),
            percent(cell.approved, cell.count),
            time(cell.last),
        ]
    };
    Ok(groups.into_iter().map(row).collect())
}
