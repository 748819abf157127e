//! `flows`: which tool moved which data from where to where.
//!
//! An access that was performed moves data from its region to its destination or, without one, to
//! the screen of whoever looked: the person's country. A transfer moves it from place to place; one
//! that names no data is told without a dataset.

use access_ledger_proto::{
    facts::assess::ToolFacts,
    wire::{self, DataCategory, Place, Purpose, event::Body},
};

use super::{
    Cell, Cells, Day, Ground, Group, Options, Report,
    accesses::{Attempt, is_known},
    figures,
    grid::{Column, Row, label, number, text},
    period::time,
};
use crate::{error::ReportError, fold::Observation};

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

/// What does not differ within one event.
struct Mover<'a> {
    tool: &'a wire::Tool,
    approved: &'static str,
    actor: &'a str,
    purpose: String,
    time: u64,
}
