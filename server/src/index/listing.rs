//! Lists findings, a page at a time.

use std::collections::BTreeSet;

use access_ledger_proto::{position::Size, wire::FindingRecord};
use prost::Message as _;

use super::{Index, error::IndexError, fold::Fold};

/// Which findings to list.
#[derive(Clone, Debug, Default)]
pub struct FindingFilter {
    /// Of one of these rules; empty: of all.
    pub rules: Vec<String>,
    /// In one of these states, as numbers of `FindingState`; empty: in any.
    pub states: Vec<i32>,
}

/// Some findings.
#[derive(Debug)]
pub struct FindingPage {
    /// In the order in which they were found, each in the state that humans gave it so far.
    pub findings: Vec<FindingRecord>,
    /// Number of the finding to go on with; `None` behind the last.
    pub next: Option<u64>,
    /// How many entries they follow from.
    pub size: Size,
}

impl Index {
    /// The findings that a filter lets pass, from the one with the number `from` on (0 is the first
    /// of all), `most` at most. A page may be short, or empty, although more follow: the work of a
    /// call is bounded. Blocks.
    ///
    /// Behind those that stand come those that would, if the log ended here: their numbers pass to
    /// others when it goes on.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`] for findings that are not as written, [`IndexError::Storage`] when
    /// the disk refuses, [`IndexError::Facts`] when it cannot be told what humans made of them.
    pub fn list_findings(
        &self,
        filter: &FindingFilter,
        from: u64,
        most: usize,
    ) -> Result<FindingPage, IndexError> {
        let page = self.shared.read_fold(|fold| Lister::new(fold, filter, most).list(from))?;
        self.check_facts()?;
        Ok(page)
    }
}

/// A page in the making.
struct Lister<'a> {
    fold: &'a Fold,
    rules: BTreeSet<&'a str>,
    states: &'a [i32],
    most: usize,
    findings: Vec<FindingRecord>,
    bytes: usize,
}

impl<'a> Lister<'a> {
    fn new(fold: &'a Fold, filter: &'a FindingFilter, most: usize) -> Self {
        let rules = filter.rules.iter().map(String::as_str).collect();
        Self { fold, rules, states: &filter.states, most, findings: Vec::new(), bytes: 0 }
    }

    fn list(mut self, from: u64) -> Result<FindingPage, IndexError> {
        let (log, size) = (&self.fold.log, self.fold.size);
        let next = match self.stand(from)? {
            Some(next) => Some(next),
            None => self.pending(from.max(log.count())),
        };
        Ok(FindingPage { findings: self.findings, next, size })
    }

    /// Those that stand; the number to go on with when there may be more of them.
    fn stand(&mut self, from: u64) -> Result<Option<u64>, IndexError> {
        let log = &self.fold.log;
        if !log.has_any(&self.rules) {
            return Ok(None);
        }
        let mut scan = log.scan_from(from)?;
        let end = scan.offset().saturating_add(SCAN_BYTES_MAX);
        loop {
            if self.is_full() || scan.offset() >= end {
                return Ok((scan.number() < log.count()).then(|| scan.number()));
            }
            let Some(stored) = scan.next()? else { return Ok(None) };
            if self.is_of_rule(stored.rule) {
                let record = stored.decode().ok_or_else(|| log.damaged())?;
                self.take(record);
            }
        }
    }

    /// Those that are not found for good.
    fn pending(&mut self, from: u64) -> Option<u64> {
        let first = self.fold.log.count();
        for (number, record) in (first..).zip(self.fold.findings.conclude()) {
            if number < from {
                continue;
            }
            if self.is_full() {
                return Some(number);
            }
            if self.is_of_rule(&record.rule) {
                self.take(record);
            }
        }
        None
    }

    fn is_full(&self) -> bool {
        self.findings.len() >= self.most || self.bytes >= PAGE_BYTES
    }

    fn is_of_rule(&self, rule: &str) -> bool {
        self.rules.is_empty() || self.rules.contains(rule)
    }

    fn take(&mut self, mut record: FindingRecord) {
        record.state = self.fold.findings.state_of(&record.finding_id).into();
        if self.states.is_empty() || self.states.contains(&record.state) {
            self.bytes += record.encoded_len();
            self.findings.push(record);
        }
    }
}

/// A page that has so many bytes takes no more.
const PAGE_BYTES: usize = 512 << 10;

/// Bytes of findings that one page looks through: some tens of milliseconds.
const SCAN_BYTES_MAX: u64 = 8 << 20;
