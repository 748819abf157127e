//! `readers`: who read the ledger, where, and what was asked for.
//!
//! A row for each reader, server (the source that recorded it), kind of read and question. Reads
//! that were added up before they were recorded are added up here with the others, so the sums are
//! those of the calls that were made.

use std::collections::{BTreeMap, BTreeSet};

use access_ledger_proto::{
    event::nanos_of,
    wire::{self, ReadKind, event::Body},
};
use bytes::Bytes;

use super::{
    Ground, Options, Told, Wanted,
    grid::{Column, Row, label, number, text},
    period::time,
};
use crate::error::ReportError;

pub(super) const COLUMNS: [Column; 11] = [
    text("reader"),
    text("server"),
    text("read"),
    text("query"),
    number("calls"),
    number("rows"),
    number("from index"),
    number("to index"),
    number("subjects"),
    text("first"),
    text("last"),
];

/// What makes a row: reader, server, kind, question.
type Key = (String, String, i32, String);

/// What was read by one reader in one way.
struct Sum {
    calls: u64,
    rows: u64,
    /// First, and one past the last; empty where no entries were sent.
    indexes: Option<(u64, u64)>,
    subjects: BTreeSet<Bytes>,
    /// Nanoseconds since the Unix epoch.
    first: u64,
    last: u64,
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Result<Vec<Row>, ReportError> {
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    for Told { source, time, event, .. } in ground.entries(&Wanted::LedgerReads(options.period))? {
        let Some(Body::LedgerRead(read)) = event.body else { continue };
        let server = source.as_str().to_owned();
        let key = (read.reader.clone(), server, read.kind, read.query.clone());
        sums.entry(key).or_insert_with(Sum::new).add(read, time);
    }
    Ok(sums.into_iter().map(row).collect())
}

/// Whether an event tells that somebody read the ledger.
pub(super) fn is_read(event: &wire::Event) -> bool {
    matches!(event.body, Some(Body::LedgerRead(_)))
}

impl Sum {
    fn new() -> Self {
        let subjects = BTreeSet::new();
        Self { calls: 0, rows: 0, indexes: None, subjects, first: u64::MAX, last: 0 }
    }

    fn add(&mut self, read: wire::LedgerRead, time: u64) {
        // A record without a kind is one of one call.
        let calls = if read.kind == 0 { 1 } else { read.calls };
        self.calls = self.calls.saturating_add(calls);
        self.rows = self.rows.saturating_add(read.rows);
        if read.end_index > read.first_index {
            let (first, end) = self.indexes.unwrap_or((read.first_index, read.end_index));
            self.indexes = Some((first.min(read.first_index), end.max(read.end_index)));
        }
        self.subjects.extend(read.subject_tokens);
        self.first = self.first.min(read.first_at.as_ref().map_or(time, nanos_of));
        self.last = self.last.max(read.last_at.as_ref().map_or(time, nanos_of));
    }
}

fn row(((reader, server, kind, query), sum): (Key, Sum)) -> Row {
    let index = |index: Option<u64>| index.map_or_else(String::new, |index| index.to_string());
    vec![
        reader,
        server,
        label(kind, ReadKind::as_str_name, "READ_KIND_"),
        query,
        sum.calls.to_string(),
        sum.rows.to_string(),
        index(sum.indexes.map(|(first, _)| first)),
        index(sum.indexes.map(|(_, end)| end.saturating_sub(1))),
        sum.subjects.len().to_string(),
        time(sum.first),
        time(sum.last),
    ]
}
