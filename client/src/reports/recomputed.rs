//! The ground of an auditor: everything computed again, in one pass over verified entries.

use std::collections::BTreeMap;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    facts::{Facts, Noted},
    position::{Index, count_of},
    wire::{self, SourcePhase, event::Body},
};

use super::{
    Cells, Ground, Options, Period, Report, Reports, Told, Wanted, observe, readers, subject,
    unapproved,
};
use crate::{
    audit::Observer,
    error::ReportError,
    fold::{Fold, FoldError, Observation},
    verify::{LogVerifier, Record},
};

/// What one report is computed from. Feed it all of a log from entry 0 on, by
/// [`audit_observed`](crate::audit::audit_observed) say, and keep it only when the log was found in
/// order.
///
/// It keeps what this report needs: cells of its period and the one before, findings and events
/// of its rows. Facts are kept in memory, so it grows with grants, requests and the like.
#[derive(Debug)]
pub struct Recomputed {
    report: Report,
    options: Options,
    fold: Fold,
    kept: Kept,
    error: Option<FoldError>,
}

/// What the observations left.
#[derive(Debug, Default)]
struct Kept {
    cells: Cells,
    findings: Vec<wire::FindingRecord>,
    told: BTreeMap<Index, Told>,
    recorded_until: u64,
    declared_lost: u64,
    erased: u64,
}

impl Recomputed {
    /// Before entry 0.
    #[must_use]
    pub fn new(report: Report, options: Options) -> Self {
        Self { report, options, fold: Fold::new(), kept: Kept::default(), error: None }
    }

    /// The table of the report that it was made for.
    ///
    /// # Errors
    ///
    /// [`ReportError::NoSubject`] without the subject that the report needs;
    /// [`ReportError::Ground`] for records that do not make a log, which no verified ones are.
    pub fn table(&self) -> Result<wire::ReportTable, ReportError> {
        if let Some(error) = &self.error {
            return Err(ReportError::Ground { problem: error.to_string() });
        }
        let empty = || ReportError::Ground { problem: "the log is empty".to_owned() };
        let facts = self.fold.findings().ok_or_else(empty)?.authority().facts();
        super::table(self.report, &self.options, &Ready { facts, kept: &self.kept })
    }

    /// What the table rests on: the log as `verifier` concluded at a checkpoint.
    #[must_use]
    pub fn footer(
        &self,
        verifier: &LogVerifier,
        checkpoint: &VerifiedCheckpoint,
    ) -> wire::ReportFooter {
        let cosigners = checkpoint.cosignatures().iter();
        wire::ReportFooter {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.size().0,
            root: checkpoint.root().as_ref().to_vec().into(),
            cosigners: cosigners.map(|cosignature| cosignature.key.name().to_owned()).collect(),
            sources: count_of(verifier.sequences().iter().count()),
            declared_lost: self.kept.declared_lost,
            redacted: self.kept.erased,
            ..super::footer(self.options.period)
        }
    }
}

impl Observer for Recomputed {
    fn take(&mut self, first: Index, records: &[Record]) {
        let Self { report, options, fold, kept, error } = self;
        if error.is_none() {
            let keep = |observation: &Observation<'_>| kept.take(*report, options, observation);
            *error = fold.take(first, records, keep).err();
        }
    }
}

impl Kept {
    fn take(&mut self, report: Report, options: &Options, observation: &Observation<'_>) {
        let noted = observation.noted;
        self.recorded_until = self.recorded_until.max(noted.recorded_at);
        self.erased += u64::from(observation.is_erased);
        if let Some(Body::SourceStatus(status)) = &noted.event.body
            && status.phase() == SourcePhase::GapDeclared
        {
            self.declared_lost = self.declared_lost.saturating_add(status.dropped);
        }
        let time = if report == Report::Sources { noted.recorded_at } else { noted.time() };
        if is_counted(report, options.period, time) {
            observe(&mut self.cells, Reports::only(report), observation);
        }
        if report == Report::Unapproved {
            self.take_findings(options.period, observation);
        }
        if is_told(report, options, noted) {
            self.told.insert(noted.index, Told::of(noted));
        }
    }

    /// Findings that object to an access come with its own entry.
    fn take_findings(&mut self, period: Period, observation: &Observation<'_>) {
        let noted = observation.noted;
        for finding in observation.findings {
            let is_own = finding.index == noted.index.0 && period.contains(finding.time);
            if is_own && unapproved::is_about_approval(&finding.rule) {
                self.findings.push(finding.clone());
                self.told.entry(noted.index).or_insert_with(|| Told::of(noted));
            }
        }
    }
}

/// Whether a report counts what happened at a time.
fn is_counted(report: Report, period: Period, time: u64) -> bool {
    let compares = report == Report::CrossRegion;
    let is_before = || period.before().is_some_and(|before| before.contains(time));
    match report {
        Report::Sources => time < period.to(),
        _ => period.contains(time) || compares && is_before(),
    }
}

/// Whether a report needs an entry by itself.
fn is_told(report: Report, options: &Options, noted: &Noted<'_>) -> bool {
    let is_wanted = match report {
        Report::Subject => {
            let token = options.subject.as_deref();
            token.is_some_and(|token| subject::concerns(noted.event, token))
        }
        Report::Readers => readers::is_read(noted.event),
        _ => false,
    };
    is_wanted && options.period.contains(noted.time())
}

/// The facts and what was kept.
struct Ready<'a> {
    facts: &'a Facts,
    kept: &'a Kept,
}

impl Ground for Ready<'_> {
    fn facts(&self) -> &Facts {
        self.facts
    }

    fn recorded_until(&self) -> u64 {
        self.kept.recorded_until
    }

    fn cells(&self, report: Report, period: Period) -> Result<Cells, ReportError> {
        Ok(self.kept.cells.of(report, period))
    }

    fn findings(
        &self,
        period: Period,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<wire::FindingRecord>, ReportError> {
        let findings = self.kept.findings.iter();
        let wanted =
            findings.filter(|finding| period.contains(finding.time) && is_wanted(&finding.rule));
        Ok(wanted.cloned().collect())
    }

    fn entries(&self, wanted: &Wanted<'_>) -> Result<Vec<Told>, ReportError> {
        let is_wanted = |told: &&Told| match wanted {
            Wanted::Subject(token, period) => {
                period.contains(told.time) && subject::concerns(&told.event, token)
            }
            Wanted::LedgerReads(period) => {
                period.contains(told.time) && readers::is_read(&told.event)
            }
            Wanted::At(indexes) => indexes.binary_search(&told.index).is_ok(),
        };
        Ok(self.kept.told.values().filter(is_wanted).cloned().collect())
    }
}
