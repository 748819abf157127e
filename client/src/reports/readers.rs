//! `readers`: who read the ledger.

use access_ledger_proto::wire::{self, event::Body};

use super::{
    Ground, Options, Told, Wanted,
    grid::{Column, Row, number, text},
    period::time,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 4] =
    [text("reader"), text("query"), number("rows"), text("time")];

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let told = ground.entries(&Wanted::LedgerReads(options.period))?;
    let row = |told: Told| {
        let Some(Body::LedgerRead(read)) = told.event.body else {
            return None;
        };
        Some(vec![read.reader, read.query, read.rows.to_string(), time(told.time)])
    };
    Ok(told.into_iter().filter_map(row).collect())
}

/// Whether an event tells that somebody read the ledger.
pub(super) fn is_read(event: &wire::Event) -> bool {
    matches!(event.body, Some(Body::LedgerRead(_)))
}
