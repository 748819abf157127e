//! Reports out of the index: cells from the rollups, facts and findings from the fold, single
//! entries by their postings.

use std::cell::RefCell;

use access_ledger_client::{
    error::ReportError,
    reports::{self, Cells, Ground, Options, Period, Report, Told, Wanted},
};
use access_ledger_proto::{
    entry::Entry,
    facts::{Facts, LATE_NANOS_MAX, Noted},
    position::{Index as Place, count_of},
    terms::{self, Criteria},
    wire::{self, FindingRecord},
};

use super::{Index, Search, error::IndexError, fold::Fold, rollups, state::State};
use crate::storage::LogReader;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexedReportError {
    /// What was asked for is no report, or too much of one.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The index could not tell.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Index {
    /// A report on the entries indexed so far, and its footer without origin, root and cosigners.
    /// `reader` is that of the log. Blocks, and holds the follower up meanwhile.
    ///
    /// # Errors
    ///
    /// [`IndexedReportError::Report`] when a subject is missing, or for more than
    /// [`ROWS_MAX`] entries; [`IndexedReportError::Index`] when the index is damaged or is being
    /// built again.
    pub fn report(
        &self,
        reader: &LogReader,
        report: Report,
        options: &Options,
    ) -> Result<(wire::ReportTable, wire::ReportFooter), IndexedReportError> {
        self.shared.read_fold(|fold| {
            let state = &self.shared.state;
            let indexed = Indexed { index: self, state, reader, fold, failure: RefCell::default() };
            let table = reports::table(report, options, &indexed);
            if let Some(error) = indexed.failure.take() {
                return Err(error.into());
            }
            self.check_facts()?;
            Ok((table?, fold.footer(options.period)))
        })
    }
}

impl Fold {
    fn footer(&self, period: Period) -> wire::ReportFooter {
        wire::ReportFooter {
            size: self.size.0,
            sources: count_of(self.sequences.iter().count()),
            declared_lost: self.totals.declared_lost,
            redacted: self.totals.erased,
            ..reports::footer(period)
        }
    }
}

/// What the index knows, while the follower waits.
struct Indexed<'a> {
    index: &'a Index,
    state: &'a State,
    reader: &'a LogReader,
    fold: &'a Fold,
    /// What the index said when it could not tell: a ground has no room for it.
    failure: RefCell<Option<IndexError>>,
}

impl Indexed<'_> {
    fn failed(&self, error: IndexError) -> ReportError {
        let problem = error.to_string();
        self.failure.replace(Some(error));
        ReportError::Ground { problem }
    }

    /// The entries of a period that meet a filter.
    fn search(&self, filter: wire::Filter, period: Period) -> Result<Vec<Told>, ReportError> {
        let mut criteria = Criteria::parse(&filter)
            .map_err(|error| ReportError::Ground { problem: error.to_string() })?;
        // An event may be recorded so much later than it happened.
        criteria.recorded = (period.from(), period.to().saturating_add(LATE_NANOS_MAX));
        let mut range = Place::GENESIS..self.fold.size.next_index();
        let mut told = Vec::new();
        while !range.is_empty() {
            let search = Search {
                criteria: &criteria,
                by_rule: None,
                range,
                newest_first: false,
                hits_max: SEARCH_HITS,
            };
            let hits =
                self.index.search(self.reader, &search).map_err(|error| self.failed(error))?;
            for index in hits.indexes {
                told.extend(self.told(index)?.filter(|told| period.contains(told.time)));
            }
            bounded(told.len())?;
            range = hits.rest;
        }
        Ok(told)
    }

    /// The entry at an index; `None` when its event was erased.
    fn told(&self, index: Place) -> Result<Option<Told>, ReportError> {
        let told = read_told(self.reader, index);
        told.map_err(|error| self.failed(error))
    }
}

impl Ground for Indexed<'_> {
    fn facts(&self) -> &Facts {
        self.fold.facts()
    }

    fn recorded_until(&self) -> u64 {
        self.fold.recorded_at
    }

    fn cells(&self, report: Report, period: Period) -> Result<Cells, ReportError> {
        let saved = rollups::load(self.state, report, period, self.fold.saved_at);
        let mut cells = saved.map_err(|error| self.failed(error))?;
        cells.merge(self.fold.cells.of(report, period));
        Ok(cells)
    }

    fn findings(
        &self,
        period: Period,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<FindingRecord>, ReportError> {
        let log = &self.fold.log;
        let mut scan = log.scan_from(0).map_err(|error| self.failed(error))?;
        let mut findings = Vec::new();
        while let Some(stored) = scan.next().map_err(|error| self.failed(error))? {
            if period.contains(stored.time) && is_wanted(stored.rule) {
                findings.push(stored.decode().ok_or_else(|| self.failed(log.damaged()))?);
                bounded(findings.len())?;
            }
        }
        Ok(findings)
    }

    fn entries(&self, wanted: &Wanted<'_>) -> Result<Vec<Told>, ReportError> {
        match *wanted {
            Wanted::Subject(token, period) => {
                let subject_tokens = vec![token.to_vec().into()];
                self.search(wire::Filter { subject_tokens, ..Default::default() }, period)
            }
            Wanted::LedgerReads(period) => {
                let bodies = vec!["ledger_read".to_owned()];
                self.search(wire::Filter { bodies, ..Default::default() }, period)
            }
            Wanted::At(indexes) => {
                let told = indexes.iter().map(|&index| self.told(index));
                told.filter_map(Result::transpose).collect()
            }
        }
    }
}

fn read_told(reader: &LogReader, index: Place) -> Result<Option<Told>, IndexError> {
    let Some(record) = reader.read(index, 1, usize::MAX)?.pop() else { return Ok(None) };
    let entry = Entry::parse(&record.entry).map_err(|fault| IndexError::Entry { index, fault })?;
    let Some(event) = record.event else { return Ok(None) };
    let event = terms::decode(&event).unwrap_or_default();
    let (recorded_at, source) = (entry.recorded_at, entry.source);
    Ok(Some(Told::of(&Noted { index, recorded_at, source, event: &event })))
}

fn bounded(rows: usize) -> Result<(), ReportError> {
    if rows > ROWS_MAX {
        return Err(ReportError::TooManyRows { most: count_of(ROWS_MAX) });
    }
    Ok(())
}

/// Most entries or findings that a report tells one by one: some megabytes.
pub const ROWS_MAX: usize = 10_000;

/// Hits of one search.
const SEARCH_HITS: usize = 1_000;
