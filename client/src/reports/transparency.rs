//! `transparency`: what authorities asked for, and got, as platforms publish it by half-year.
//!
//! A request counts in the half-year in which it arrived, whenever it was recorded. Data was
//! produced when the outcome is FULL or PARTIAL.

use std::collections::BTreeMap;

use access_ledger_proto::wire::{LegalFacts, LegalProcess, LegalRequestOutcome};

use super::{
    Ground, Options,
    figures::whole_percent,
    grid::{Column, Row, label, list, number, text},
    period::half_year,
};

pub(super) const COLUMNS: [Column; 10] = [
    text("half-year"),
    text("country"),
    number("legal requests"),
    number("emergency requests"),
    number("total requests"),
    number("accounts specified"),
    number("% of requests where some data was produced"),
    text("by process type"),
    number("accounts affected"),
    number("user notified"),
];

/// What is published of one country and half-year.
#[derive(Default)]
struct Counted {
    requests: u64,
    emergencies: u64,
    specified: u64,
    affected: u64,
    produced: u64,
    notified: u64,
    /// By the value of the process, so that unknown ones are told as well.
    processes: BTreeMap<i32, u64>,
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let mut counted: BTreeMap<(String, String), Counted> = BTreeMap::new();
    ground.facts().legal().each(|_, request| {
        if options.period.contains(request.received_at) {
            let key = (half_year(request.received_at), request.country.clone());
            counted.entry(key).or_default().take(request);
        }
    });
    counted.into_iter().map(|((half, country), counted)| counted.row(half, country)).collect()
}

impl Counted {
    fn take(&mut self, request: &LegalFacts) {
        let is_emergency = request.emergency || request.process() == LegalProcess::Emergency;
        let is_produced =
            matches!(request.outcome(), LegalRequestOutcome::Full | LegalRequestOutcome::Partial);
        self.requests += 1;
        self.emergencies += u64::from(is_emergency);
        self.produced += u64::from(is_produced);
        self.notified += u64::from(request.user_notified);
        self.specified = self.specified.saturating_add(request.accounts_specified);
        self.affected = self.affected.saturating_add(request.accounts_affected);
        *self.processes.entry(request.process).or_default() += 1;
    }

    fn row(&self, half_year: String, country: String) -> Row {
        let processes = self.processes.iter().map(|(&process, count)| {
            let name = label(process, LegalProcess::as_str_name, "LEGAL_PROCESS_");
            format!("{} {count}", if name.is_empty() { "unspecified" } else { &name })
        });
        vec![
            half_year,
            country,
            self.requests.saturating_sub(self.emergencies).to_string(),
            self.emergencies.to_string(),
            self.requests.to_string(),
            self.specified.to_string(),
            whole_percent(self.produced, self.requests),
            list(processes),
            self.affected.to_string(),
            self.notified.to_string(),
        ]
    }
}
