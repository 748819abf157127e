//! `sources`: how completely each source recorded.
//!
//! Counted by the ledger's own time. Every source that was registered by the end of the period has
//! a row, so that one that is silent altogether is seen. Numbers have no gaps, so those of a period
//! follow from how many entries came before. Heartbeats are expected, one an interval, from the
//! source's registration (or the beginning of the period) until it stopped, was decommissioned, or
//! the period or the log ended; silence is measured over the same time, to the minute. A build
//! counts as a change when it was first seen in the period, unless it is the source's first.

use access_ledger_proto::{
    facts::{Noted, sources::Source},
    position::Index,
    source::Name,
    wire::{self, SourcePhase, SourceRole, event::Body},
};
use prost::Message as _;

use super::{
    Cell, Cells, Day, Ground, Options, Period, Report,
    figures::span,
    grid::{Column, Row, list, number, text},
    period::SECOND_NANOS,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 10] = [
    text("source"),
    text("role"),
    number("first seq"),
    number("last seq"),
    number("gaps"),
    number("declared losses"),
    number("heartbeats expected"),
    number("heartbeats received"),
    text("longest silence"),
    number("build changes"),
];

pub(super) fn observe(cells: &mut Cells, noted: &Noted<'_>) {
    let (day, source) = (Day::of(noted.recorded_at), noted.source.as_str());
    cells.change(Report::Sources, day, &[source], |cell| {
        cell.count += 1;
        cell.seen(noted.recorded_at);
        cell.minutes.note(noted.recorded_at);
        match &noted.event.body {
            Some(Body::SourceStatus(status)) if status.source == source => {
                take_status(cell, noted.recorded_at, status);
            }
            _ => {}
        }
    });
    match &noted.event.body {
        Some(Body::SourceStatus(status)) if status.phase() == SourcePhase::Registered => {
            register(cells, noted.recorded_at, &status.source);
        }
        Some(Body::ControlChange(change)) if noted.index == Index::GENESIS => {
            let genesis = wire::Genesis::decode(change.content.clone()).unwrap_or_default();
            for source in genesis.governance.iter().chain(&genesis.ledger_source) {
                register(cells, noted.recorded_at, &source.name);
            }
        }
        _ => {}
    }
}

/// From here on the source is heard of, although it may never record.
fn register(cells: &mut Cells, recorded_at: u64, source: &str) {
    cells.change(Report::Sources, Day::of(recorded_at), &[source], |cell| cell.seen(recorded_at));
}

/// What a source says of itself.
fn take_status(cell: &mut Cell, recorded_at: u64, status: &wire::SourceStatus) {
    match status.phase() {
        SourcePhase::Started => cell.builds.insert(&hex(&status.build_digest)),
        SourcePhase::Heartbeat => cell.heartbeats += 1,
        SourcePhase::GapDeclared => {
            cell.gaps += 1;
            cell.lost = cell.lost.saturating_add(status.dropped);
        }
        SourcePhase::Stopped => cell.stopped = cell.stopped.max(recorded_at),
        _ => {}
    }
}

/// A source, as its cells tell.
struct Told {
    name: String,
    /// Before the period.
    before: Cell,
    /// In it.
    inside: Cell,
    /// The minutes of the period in which it recorded, since 1970, ascending.
    minutes: Vec<u64>,
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let period = options.period;
    let cells = ground.cells(Report::Sources, period.since_ever())?;
    let mut told: Vec<Told> = Vec::new();
    for (group, day, cell) in cells.by_day() {
        if told.last().is_none_or(|last| last.name != group.part(0)) {
            let (before, inside) = (Cell::default(), Cell::default());
            let name = group.part(0).to_owned();
            told.push(Told { name, before, inside, minutes: Vec::new() });
        }
        if let Some(last) = told.last_mut() {
            last.take(period, day, &cell);
        }
    }
    Ok(told.iter().map(|told| told.row(period, ground)).collect())
}

impl Told {
    fn take(&mut self, period: Period, day: Day, cell: &Cell) {
        if !period.contains_day(day) {
            self.before.merge(cell);
            return;
        }
        self.inside.merge(cell);
        self.minutes.extend(cell.minutes.iter().map(|minute| day.start() / MINUTE_NANOS + minute));
    }

    fn row(&self, period: Period, ground: &dyn Ground) -> Row {
        let source = Name::parse(self.name.as_bytes()).ok();
        let source = source.and_then(|name| ground.facts().sources().get(name));
        let (from, to) = self.in_service(period, source, ground.recorded_until());
        let interval = source.map_or(0, |source| source.heartbeat_nanos);
        let expected = to.saturating_sub(from).checked_div(interval).unwrap_or_default();
        let (before, inside) = (self.before.count, self.inside.count);
        let number = |number: u64| if inside == 0 { String::new() } else { number.to_string() };
        vec![
            self.name.clone(),
            source.map_or_else(String::new, roles),
            number(before.saturating_add(1)),
            number(before.saturating_add(inside)),
            self.inside.gaps.to_string(),
            self.inside.lost.to_string(),
            expected.to_string(),
            self.inside.heartbeats.to_string(),
            span(self.silence(from, to)),
            self.build_changes().to_string(),
        ]
    }

    /// The time of the period in which the source should have recorded.
    fn in_service(&self, period: Period, source: Option<&Source>, until: u64) -> (u64, u64) {
        let first = if self.before.first == 0 { self.inside.first } else { self.before.first };
        let last = self.inside.last.max(self.before.last);
        let has_stopped = self.inside.stopped.max(self.before.stopped) == last;
        let is_out = source.is_some_and(|source| source.decommissioned_at.is_some());
        let end = if has_stopped || is_out { last } else { until };
        (first.max(period.from()), end.min(period.to()))
    }

    /// The longest time between entries, and between them and the ends of service, in nanoseconds.
    fn silence(&self, from: u64, to: u64) -> u64 {
        let mut longest = 0;
        let mut heard = from / MINUTE_NANOS;
        let end = to / MINUTE_NANOS;
        for minute in self.minutes.iter().copied().chain([end]) {
            longest = longest.max(minute.saturating_sub(heard));
            heard = heard.max(minute);
        }
        longest.saturating_mul(MINUTE_NANOS)
    }

    fn build_changes(&self) -> u64 {
        let mut all = self.before.builds.clone();
        all.merge(&self.inside.builds);
        let known = self.before.builds.count().max(1);
        all.count().saturating_sub(known)
    }
}

fn roles(source: &Source) -> String {
    let names = source.roles.now().iter().map(|role: SourceRole| {
        let name = role.as_str_name();
        name.strip_prefix("SOURCE_ROLE_").unwrap_or(name)
    });
    list(names)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MINUTE_NANOS: u64 = 60 * SECOND_NANOS;
