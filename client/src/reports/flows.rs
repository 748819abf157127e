//! `flows`: which tool moved which data from where to where.
//!
//! An access that was performed moves data from its region to its destination or, without one, to
//! the screen of whoever looked: the person's country. A transfer moves it from place to place; one
//! that names no data is told without a dataset.

use access_ledger_proto::{
    authority::Judgement,
    facts::assess::{DataFacts, ToolStatus},
    wire::{self, Place, Purpose},
};

use super::{
    Cell, Cells, Day, Ground, Group, Options, Report,
    accesses::{Attempt, is_known, name_categories},
    grid::{Column, Row, label, number, text},
    period::time,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 14] = [
    text("tool"),
    text("version"),
    text("approved build"),
    text("owner"),
    text("dataset"),
    text("from region"),
    text("to region"),
    text("categories"),
    text("purposes"),
    number("accesses"),
    number("records"),
    number("actors"),
    text("first seen"),
    text("last seen"),
];

/// What is the same for all data that one event moves.
struct Move<'a> {
    event: &'a wire::Event,
    tool: ToolStatus,
    purpose: i32,
    to: &'a str,
    time: u64,
}

/// Some of that data.
struct Moved<'a> {
    data: &'a wire::Data,
    facts: Option<&'a DataFacts>,
    from: &'a str,
    records: u64,
    /// Of several items between the same places, one counts as the access.
    is_first: bool,
}

pub(super) fn observe_access(cells: &mut Cells, judgement: &Judgement, attempt: &Attempt<'_>) {
    if !attempt.is_performed {
        return;
    }
    let actor = attempt.actor;
    let screen = [&actor.physical_country, &actor.office_country];
    let screen = screen.into_iter().find(|country| is_known(country));
    let moving = Move {
        event: attempt.event,
        tool: judgement.assessed.tool,
        purpose: attempt.access.purpose,
        to: attempt
            .access
            .destination
            .as_ref()
            .and_then(place)
            .unwrap_or_else(|| screen.map_or("", String::as_str)),
        time: attempt.time,
    };
    let mut counted: Vec<(&str, &str)> = Vec::new();
    for item in attempt.items() {
        let (from, dataset) = (item.data.region.as_str(), item.data.dataset.as_str());
        let is_first = !counted.contains(&(from, dataset));
        let moved =
            Moved { data: item.data, facts: item.facts, from, records: item.records, is_first };
        moving.count(cells, &moved);
        counted.push((from, dataset));
    }
}

pub(super) fn observe_transfer(
    cells: &mut Cells,
    judgement: &Judgement,
    event: &wire::Event,
    transfer: &wire::Transfer,
) {
    let moving = Move {
        event,
        tool: judgement.assessed.tool,
        purpose: transfer.purpose,
        to: transfer.to.as_ref().and_then(place).unwrap_or_default(),
        time: judgement.time,
    };
    let from = transfer.from.as_ref().and_then(place).unwrap_or_default();
    let nothing = wire::Data::default();
    let mut facts = judgement.assessed.data.iter();
    let data =
        if transfer.data.is_empty() { std::slice::from_ref(&nothing) } else { &transfer.data };
    let mut counted: Vec<&str> = Vec::new();
    for data in data {
        let is_first = !counted.contains(&data.dataset.as_str());
        let moved = Moved { data, facts: facts.next(), from, records: data.records, is_first };
        moving.count(cells, &moved);
        counted.push(&data.dataset);
    }
}

impl Move<'_> {
    fn count(&self, cells: &mut Cells, moved: &Moved<'_>) {
        let none = wire::Tool::default();
        let tool = self.event.tool.as_ref().unwrap_or(&none);
        let group = [
            tool.id.as_str(),
            &tool.version,
            approved(self.tool),
            &tool.owner_entity,
            &moved.data.dataset,
            moved.from,
            self.to,
        ];
        cells.change(Report::Flows, Day::of(self.time), &group, |cell| {
            cell.count += u64::from(moved.is_first);
            cell.records = cell.records.saturating_add(moved.records);
            cell.seen(self.time);
            name_categories(&mut cell.categories, moved.data, moved.facts);
            cell.purposes.insert(&label(self.purpose, Purpose::as_str_name, "PURPOSE_"));
            if let Some(actor) = &self.event.actor {
                cell.people.insert(&actor.id);
            }
        });
    }
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let groups = ground.cells(Report::Flows, options.period)?.by_group();
    let row = |(group, cell): (Group, Cell)| {
        let mut row: Row = (0..7).map(|part| group.part(part).to_owned()).collect();
        row.extend([
            cell.categories.listed(),
            cell.purposes.listed(),
            cell.count.to_string(),
            cell.records.to_string(),
            cell.people.count().to_string(),
            time(cell.first),
            time(cell.last),
        ]);
        row
    };
    Ok(groups.into_iter().map(row).collect())
}

/// Whether the build that ran was vetted.
const fn approved(tool: ToolStatus) -> &'static str {
    match tool {
        ToolStatus::None => "",
        ToolStatus::Approved => "yes",
        ToolStatus::OtherBuild => "no",
        ToolStatus::Withdrawn => "withdrawn",
        ToolStatus::Unregistered => "unregistered",
    }
}

/// A place by its site or, without one, its country or entity.
fn place(place: &Place) -> Option<&str> {
    let names = [&place.site, &place.country, &place.entity];
    names.into_iter().find(|name| !name.is_empty()).map(String::as_str)
}
